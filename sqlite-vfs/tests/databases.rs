//! Whatever SQLite can keep in a file, it can keep in a volume.

#![allow(clippy::unwrap_used)]

mod common;

use common::{dump, error, fill, house, one, open, open_with, run};
use rusqlite::Connection;

/// Stored as SQLite would store it: the exported file is the same database, and sound.
fn exports_equal(db: &Connection, name: &str) {
    let path = house().dir.path().join(format!("{name}.db"));
    one(db, &format!("SELECT quire_export('{}')", path.display()));
    let file = Connection::open(&path).unwrap();
    assert_eq!(one(&file, "PRAGMA integrity_check"), "ok");
    assert_eq!(dump(&file), dump(db));
}

#[test]
fn every_page_size_works_and_survives_reopening() {
    for size in [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
        let name = format!("page-size-{size}");
        let db = open(&name);
        run(&db, &format!("PRAGMA page_size = {size}"));
        fill(&db, 500);
        run(
            &db,
            "CREATE INDEX i ON t(length(body), id); DELETE FROM t WHERE id % 3 = 0; UPDATE t SET body = 'x' WHERE id % 5 = 0",
        );
        let before = dump(&db);
        drop(db);
        let db = open(&name);
        assert_eq!(one(&db, "PRAGMA page_size"), size.to_string());
        assert_eq!(one(&db, "PRAGMA integrity_check"), "ok", "page size {size}");
        assert!(dump(&db) == before, "page size {size}");
        exports_equal(&db, &name);
    }
}

#[test]
fn vacuum_changes_the_page_size_up_and_down() {
    let db = open("vacuum");
    let other = open("vacuum");
    fill(&db, 800);
    run(&db, "DELETE FROM t WHERE id % 2 = 0");
    let before = dump(&db);
    assert!(dump(&other) == before);
    for size in [1024, 65_536, 512, 8192, 4096] {
        run(&db, &format!("PRAGMA page_size = {size}; VACUUM"));
        for connection in [&db, &other] {
            assert_eq!(one(connection, "PRAGMA integrity_check"), "ok", "page size {size}");
            assert_eq!(one(connection, "PRAGMA page_size"), size.to_string());
            assert!(dump(connection) == before, "page size {size}");
        }
        run(&other, "INSERT INTO t(id, body) VALUES(100000, 'after'); DELETE FROM t WHERE id = 100000");
    }
    drop((db, other));
    let db = open("vacuum");
    assert!(dump(&db) == before);
    exports_equal(&db, "vacuum");
}

#[test]
fn auto_vacuum_gives_pages_back() {
    for mode in ["full", "incremental"] {
        let db = open(&format!("auto-vacuum-{mode}"));
        run(&db, &format!("PRAGMA auto_vacuum = {mode}"));
        fill(&db, 1000);
        let full: u32 = one(&db, "PRAGMA page_count").parse().unwrap();
        run(&db, "DELETE FROM t WHERE id > 10");
        // It frees a page at each step.
        {
            let mut vacuum = db.prepare("PRAGMA incremental_vacuum").unwrap();
            let mut steps = vacuum.query([]).unwrap();
            while steps.next().unwrap().is_some() {}
        }
        let left: u32 = one(&db, "PRAGMA page_count").parse().unwrap();
        assert!(left < full / 4, "{mode}: {left} of {full} pages left");
        fill(&db, 300);
        assert_eq!(one(&db, "PRAGMA integrity_check"), "ok");
        exports_equal(&db, &format!("auto-vacuum-{mode}"));
    }
}

#[test]
fn an_empty_volume_is_an_empty_database() {
    let db = open("empty");
    assert_eq!(one(&db, "SELECT count(*) FROM sqlite_schema"), "0");
    assert_eq!(one(&db, "PRAGMA page_count"), "0");
    run(&db, "BEGIN IMMEDIATE; COMMIT; VACUUM");
    assert_eq!(one(&db, "PRAGMA integrity_check"), "ok");
    assert_eq!(one(&db, "SELECT count(*) FROM quire_status WHERE name = 'empty' AND lsn IS NULL"), "1");
}

#[test]
fn full_text_and_spatial_indexes_work() {
    let db = open("indexes");
    run(
        &db,
        "CREATE VIRTUAL TABLE words USING fts5(text);
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO words SELECT 'number ' || i || ' of ' || (i % 7) FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO boxes SELECT i, i, i + 2, -i, 2 - i FROM n;
         DELETE FROM words WHERE rowid % 2 = 0;
         DELETE FROM boxes WHERE id % 2 = 0;",
    );
    drop(db);
    let db = open("indexes");
    assert_eq!(one(&db, "SELECT count(*) FROM words WHERE words MATCH '4999'"), "1");
    assert_eq!(one(&db, "SELECT count(*) FROM words WHERE words MATCH '4998'"), "0");
    assert_eq!(one(&db, "SELECT group_concat(id) FROM boxes WHERE x0 < 1001 AND x1 > 999 AND y1 > -1001"), "999");
    run(&db, "INSERT INTO words(words) VALUES('integrity-check')");
    assert_eq!(one(&db, "SELECT rtreecheck('boxes')"), "ok");
    assert_eq!(one(&db, "PRAGMA integrity_check"), "ok");
    exports_equal(&db, "indexes");
}

#[test]
fn huge_sorts_and_temporary_tables_need_no_volume() {
    let db = open("sorts");
    run(&db, "PRAGMA cache_size = -100; PRAGMA temp_store = FILE");
    fill(&db, 20_000);
    let commits = one(&db, "SELECT unpushed FROM quire_status WHERE name = 'sorts'");
    run(
        &db,
        "CREATE TEMP TABLE u AS SELECT id, body FROM t ORDER BY body DESC, id;
         CREATE INDEX temp.ui ON u(body);
         UPDATE u SET body = randomblob(200);",
    );
    assert_eq!(one(&db, "SELECT count(*) FROM (SELECT body, row_number() OVER (ORDER BY body) FROM t)"), "20000");
    assert_eq!(one(&db, "SELECT count(*) FROM u"), "20000");
    assert_eq!(one(&db, "SELECT unpushed FROM quire_status WHERE name = 'sorts'"), commits);
}

#[test]
fn a_transaction_larger_than_every_cache_commits_and_rolls_back() {
    let db = open("large");
    run(&db, "PRAGMA cache_size = 20; CREATE TABLE u(x)");
    run(&db, "BEGIN");
    fill(&db, 30_000);
    run(&db, "COMMIT");
    let before = dump(&db);
    for journal in ["delete", "truncate", "persist", "memory"] {
        run(&db, &format!("PRAGMA journal_mode = {journal}; BEGIN; UPDATE t SET body = randomblob(60)"));
        run(&db, "DELETE FROM t WHERE id > 100; INSERT INTO u SELECT randomblob(500) FROM t; ROLLBACK");
        assert!(dump(&db) == before, "{journal}");
        assert_eq!(one(&db, "PRAGMA integrity_check"), "ok");
    }
    drop(db);
    assert!(dump(&open("large")) == before);
}

#[test]
fn a_database_over_one_gibibyte_crosses_the_lock_byte_page() {
    let db = open("over-1gib");
    run(&db, "PRAGMA page_size = 65536; PRAGMA synchronous = OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)");
    // 1,060 blobs of a mebibyte each; zeroblob is as good as any for the page numbers.
    run(
        &db,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1060)
         INSERT INTO t SELECT i, zeroblob(1 << 20) FROM n;
         INSERT INTO t VALUES(5000, 'behind the lock byte');",
    );
    let pages: u64 = one(&db, "PRAGMA page_count").parse().unwrap();
    assert!(pages * 65_536 > 1 << 30);
    drop(db);
    let db = open("over-1gib");
    assert_eq!(one(&db, "SELECT body FROM t WHERE id = 5000"), "behind the lock byte");
    assert_eq!(one(&db, "PRAGMA quick_check"), "ok");
    run(&db, "DELETE FROM t WHERE id < 1050; VACUUM");
    assert_eq!(one(&db, "SELECT count(*), body FROM t WHERE id = 5000"), "1");
    assert_eq!(one(&db, "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_wal_database_is_taken_by_backup_and_used_at_once() {
    let path = house().dir.path().join("wal-source.db");
    let source = Connection::open(&path).unwrap();
    run(&source, "PRAGMA journal_mode = WAL");
    fill(&source, 2000);
    for (name, how) in [("from-wal", "vfs=quire"), ("from-wal-unlocked", "vfs=quire&nolock=1")] {
        let mut target = open_with(name, how).unwrap();
        let backup = rusqlite::backup::Backup::new(&source, &mut target).unwrap();
        backup.run_to_completion(100, std::time::Duration::ZERO, None).unwrap();
        drop(backup);
        assert!(dump(&target) == dump(&source), "{how}");
        run(&target, "INSERT INTO t(body) VALUES('more')");
        assert_eq!(one(&target, "PRAGMA journal_mode"), "delete");
        assert_eq!(one(&target, "PRAGMA integrity_check"), "ok");
        assert_eq!(one(&open(name), "SELECT count(*) FROM t"), "2001");
    }
}

#[test]
fn a_backup_over_a_database_with_another_page_size_replaces_it() {
    let path = house().dir.path().join("other-size.db");
    let source = Connection::open(&path).unwrap();
    run(&source, "PRAGMA page_size = 1024");
    fill(&source, 700);
    let mut target = open("over-other-size");
    run(&target, "PRAGMA page_size = 8192");
    fill(&target, 50);
    let backup = rusqlite::backup::Backup::new(&source, &mut target).unwrap();
    backup.run_to_completion(100, std::time::Duration::ZERO, None).unwrap();
    drop(backup);
    drop(target);
    let target = open("over-other-size");
    assert!(dump(&target) == dump(&source));
    assert_eq!(one(&target, "PRAGMA page_size"), "1024");
    assert_eq!(one(&target, "PRAGMA integrity_check"), "ok");
}

#[test]
fn read_only_and_immutable_openings_are_honoured() {
    let db = open("read-only");
    fill(&db, 10);
    let reader = open_with("read-only", "vfs=quire&mode=ro").unwrap();
    assert_eq!(one(&reader, "SELECT count(*) FROM t"), "10");
    assert_eq!(error(&reader, "DELETE FROM t").0, rusqlite::ffi::SQLITE_READONLY);
    let frozen = open_with("read-only", "vfs=quire&immutable=1").unwrap();
    assert_eq!(one(&frozen, "SELECT count(*) FROM t"), "10");
    run(&db, "DELETE FROM t");
    assert_eq!(one(&reader, "SELECT count(*) FROM t"), "0");
    assert_eq!(one(&frozen, "SELECT count(*) FROM t"), "10");
    assert!(open_with("not-there", "vfs=quire&mode=ro").is_err());
    assert!(open_with("not-there", "vfs=quire&mode=rw").is_err());
    assert_eq!(one(&db, "SELECT count(*) FROM quire_volumes WHERE name = 'not-there'"), "0");
}
