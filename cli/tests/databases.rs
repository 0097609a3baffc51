//! SQLite databases: in, through the store, and out again.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{World, names_in, noise};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

/// A database with the features that real ones have.
fn sample(path: &Path, pragmas: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(pragmas).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, data BLOB);
             CREATE INDEX items_by_name ON items (name);
             CREATE VIEW long_names AS SELECT * FROM items WHERE length(name) > 6;
             CREATE VIRTUAL TABLE words USING fts5(body);
             CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, y0, y1);
             BEGIN;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO items SELECT i, 'item ' || i, randomblob(i % 300) FROM n;
             INSERT INTO words SELECT name || ' of many' FROM items WHERE id % 7 = 0;
             INSERT INTO places SELECT id, id, id + 1, -id, id FROM items WHERE id % 5 = 0;
             DELETE FROM items WHERE id % 11 = 0;
             COMMIT;",
        )
        .unwrap();
    connection
}

/// Everything that a database holds, the pragmas that travel with it included.
fn content(path: &Path) -> Vec<Vec<Value>> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let all = |sql: &str| -> Vec<Vec<Value>> {
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|index| row.get(index)).collect()).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(all("PRAGMA integrity_check"), [[Value::Text("ok".into())]]);
    let mut content = all("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name");
    let tables = all("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name");
    for table in tables {
        let Value::Text(table) = &table[0] else { panic!("a table without a name") };
        content.extend(all(&format!("SELECT * FROM \"{table}\"")));
    }
    for pragma in ["page_size", "auto_vacuum", "user_version", "application_id", "encoding"] {
        content.extend(all(&format!("PRAGMA {pragma}")));
    }
    content
}

#[test]
fn every_page_size_and_mode_comes_back_equal_on_another_machine() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    for (name, pragmas) in [
        ("p512", "PRAGMA page_size = 512"),
        ("p1024", "PRAGMA page_size = 1024; PRAGMA auto_vacuum = FULL"),
        ("p4096", "PRAGMA user_version = 7; PRAGMA application_id = 77"),
        ("p8192", "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL"),
        ("p65536", "PRAGMA page_size = 65536; PRAGMA encoding = 'UTF-16le'"),
    ] {
        let source = world.path(&format!("{name}.db"));
        drop(sample(&source, pragmas));
        let before = std::fs::read(&source).unwrap();
        let imported = here.json(&["import", source.to_str().unwrap(), name]);
        assert_eq!(imported["content"], "sqlite");
        assert!(std::fs::read(&source).unwrap() == before, "{name}: the source was changed");
        here.ok(&["push", name]);
        there.ok(&["clone", name]);
        let copy = world.path(&format!("{name}.copy"));
        there.ok(&["export", name, copy.to_str().unwrap()]);
        assert!(content(&copy) == content(&source), "{name} came back different");
        assert_eq!(there.json(&["verify", "--deep", name])["integrity_check"], true);
    }
}

#[test]
fn a_database_without_tables_is_a_database() {
    let world = World::new();
    let here = world.machine("here");
    let source = world.path("empty.db");
    Connection::open(&source).unwrap().execute_batch("PRAGMA user_version = 3").unwrap();
    here.ok(&["import", source.to_str().unwrap(), "empty"]);
    assert_eq!(here.ok(&["sql", "empty", "PRAGMA user_version"]), "3\n");
    here.ok(&["export", "empty", "copy"]);
    assert!(content(&world.path("copy")) == content(&source));
}

/// Moves money between accounts until told to stop: the sum never changes.
fn keep_transferring(path: &Path, stop: &AtomicBool, transfers: &AtomicU64) {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let n = transfers.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (n % 500 + 1, (n * 7 + 3) % 500 + 1);
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 UPDATE accounts SET money = money - 1 WHERE id = {from};
                 UPDATE accounts SET money = money + 1 WHERE id = {to};
                 INSERT INTO transfers VALUES ({from}, {to}, randomblob(200));
                 COMMIT;"
            ))
            .unwrap();
    }
}

#[test]
fn a_database_in_use_is_copied_in_one_consistent_state() {
    for mode in ["wal", "delete"] {
        let world = World::new();
        let here = world.machine("here");
        let source = world.path("live.db");
        let connection = Connection::open(&source).unwrap();
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE accounts (id INTEGER PRIMARY KEY, money INTEGER, data BLOB);
                 CREATE TABLE transfers (a, b, data);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                 INSERT INTO accounts SELECT i, 100, randomblob(4000) FROM n;",
            )
            .unwrap();
        let (stop, transfers) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| keep_transferring(&source, &stop, &transfers));
            for round in 0..3 {
                let before = transfers.load(Ordering::Relaxed);
                while transfers.load(Ordering::Relaxed) < before + 20 {
                    std::thread::yield_now();
                }
                let name = format!("live-{round}");
                let ended = here.run(&["import", source.to_str().unwrap(), &name]);
                if ended.status != Some(0) {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{mode}: {ended:?}");
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        for round in 0..3 {
            let name = format!("live-{round}");
            let sum = here.ok(&["sql", &name, "SELECT sum(money), count(*) FROM accounts"]);
            assert_eq!(sum, "50000\t500\n", "{mode}");
            assert_eq!(here.ok(&["sql", &name, "PRAGMA integrity_check"]), "ok\n", "{mode}");
            // Nobody is asked to open the copy with a write-ahead log.
            here.ok(&["export", "--force", &name, "copy"]);
            assert_eq!(std::fs::read(world.path("copy")).unwrap()[18..20], [1, 1], "{mode}");
        }
    }
}

#[test]
fn a_write_ahead_log_is_read_with_its_database_and_neither_is_changed() {
    let world = World::new();
    let here = world.machine("here");
    std::fs::create_dir(world.path("closed")).unwrap();
    let closed = world.path("closed/app.db");
    let connection = sample(&closed, "PRAGMA journal_mode = WAL");
    let open = world.path("open.db");
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO items (name) VALUES ('late')").unwrap();
    // As a crash leaves it: the last commit is in the log only.
    std::fs::copy(&closed, &open).unwrap();
    std::fs::copy(world.path("closed/app.db-wal"), world.path("open.db-wal")).unwrap();
    drop(connection);

    for (name, source) in [("open", &open), ("closed", &closed)] {
        let before = std::fs::read(source).unwrap();
        here.ok(&["import", source.to_str().unwrap(), name]);
        assert!(std::fs::read(source).unwrap() == before, "{name}: the source was changed");
        let late = here.ok(&["sql", name, "SELECT count(*) FROM items WHERE name = 'late'"]);
        assert_eq!(late, "1\n", "{name}");
    }
    assert_eq!(names_in(&world.path("closed")), ["app.db"]);
}

#[test]
fn what_only_looks_like_a_database_is_refused_unless_its_bytes_are_wanted() {
    let world = World::new();
    let here = world.machine("here");
    let real = world.path("real.db");
    drop(sample(&real, ""));
    let real = std::fs::read(&real).unwrap();
    let mut impostor = b"SQLite format 3\0".to_vec();
    impostor.extend(noise(4, 50_000));
    for (name, bytes) in [("impostor", impostor.as_slice()), ("cut", &real[..real.len() / 2]), ("header", &real[..16])]
    {
        let file = world.file(name, bytes);
        let file = file.to_str().unwrap();
        let refused = here.run(&["import", file, name]);
        refused.failed(2, "begins like a SQLite database");
        assert!(refused.stderr.contains("Nothing was imported"), "{refused:?}");
        assert_eq!(here.json(&["ls"]), serde_json::json!([]), "{name}");
        assert_eq!(here.json(&["import", "--bytes", file, name])["content"], "file");
        here.ok(&["export", "--force", name, "copy"]);
        assert!(std::fs::read(world.path("copy")).unwrap() == bytes, "{name}");
        here.ok(&["rm", "--force", name]);
    }
}

#[test]
fn a_database_keeps_its_page_size_and_its_file_may_have_an_odd_name() {
    let world = World::new();
    let here = world.machine("here");
    let source = world.path("odd ?mode=ro#%41.db");
    drop(sample(&source, "PRAGMA page_size = 2048"));
    let source = source.to_str().unwrap();
    here.run(&["import", "--page-size", "4096", source, "v"]).failed(2, "--page-size");
    let imported = here.json(&["import", source, "team/odd name"]);
    assert_eq!(imported["page_size"], 2048);
    assert_eq!(here.ok(&["sql", "team/odd name", "SELECT count(*) FROM items"]), "2728\n");
    here.run(&["import", source, "team/odd name"]).failed(1, "exists already");
}

#[test]
fn a_database_that_a_crash_left_is_not_repaired_behind_its_owner_s_back() {
    let world = World::new();
    let here = world.machine("here");
    let source = world.path("hot.db");
    let connection = sample(&source, "");
    connection.execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE items SET data = randomblob(500)").unwrap();
    let crashed = world.path("crashed.db");
    std::fs::copy(&source, &crashed).unwrap();
    std::fs::copy(world.path("hot.db-journal"), world.path("crashed.db-journal")).unwrap();
    let left = std::fs::read(&crashed).unwrap();

    let refused = here.run(&["import", crashed.to_str().unwrap(), "v"]);
    refused.failed(1, "in the middle of a transaction");
    assert!(std::fs::read(&crashed).unwrap() == left);
    // The remedy that it names.
    Connection::open(&crashed).unwrap().query_row("SELECT count(*) FROM items", [], |_| Ok(())).unwrap();
    here.ok(&["import", crashed.to_str().unwrap(), "v"]);
    assert_eq!(here.ok(&["sql", "v", "SELECT max(length(data)) < 300 FROM items"]), "1\n");
}

#[test]
fn a_database_that_stays_locked_is_named_as_such() {
    let world = World::new();
    let here = world.machine("here");
    let source = world.path("locked.db");
    let connection = sample(&source, "");
    connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    here.run(&["import", source.to_str().unwrap(), "v"]).failed(1, "locked by another program");
    assert_eq!(here.json(&["ls"]), serde_json::json!([]));
    drop(connection);
    here.ok(&["import", source.to_str().unwrap(), "v"]);
}
