//! What transactions promise: readers, writers, journals, rollbacks, several databases at once.

#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{dump, error, fill, house, one, open, open_there, open_with, run, try_one};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rusqlite::{Connection, ffi};

fn unpushed(name: &str) -> u64 {
    one(&open(name), &format!("SELECT unpushed FROM quire_status WHERE name = '{name}'")).parse().unwrap()
}

#[test]
fn a_reader_keeps_its_snapshot_while_others_write() {
    let (reader, writer) = (open("snapshot"), open("snapshot"));
    fill(&writer, 100);
    run(&reader, "BEGIN");
    let before = dump(&reader);
    for _ in 0..20 {
        run(&writer, "UPDATE t SET body = randomblob(3000) WHERE id % 3 = 0; DELETE FROM t WHERE id % 10 = 0; VACUUM");
        assert!(dump(&reader) == before);
    }
    run(&reader, "COMMIT");
    assert!(dump(&reader) == dump(&writer));
}

#[test]
fn a_second_writer_is_busy_and_its_busy_handler_runs() {
    let (first, mut second) = (open("busy"), open("busy"));
    fill(&first, 10);
    run(&first, "BEGIN IMMEDIATE");
    assert_eq!(error(&second, "BEGIN IMMEDIATE").0, ffi::SQLITE_BUSY);
    let writer = one(&second, "SELECT writer FROM quire_status WHERE name = 'busy'");
    assert!(writer.contains(&format!("process {}", std::process::id())), "{writer}");

    // The first writer goes on exactly when the second's busy handler runs.
    static HANDLED: AtomicBool = AtomicBool::new(false);
    fn handler(_tries: i32) -> bool {
        HANDLED.store(true, Ordering::SeqCst);
        true
    }
    second.busy_handler(Some(handler)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            run(&second, "BEGIN IMMEDIATE; INSERT INTO t(body) VALUES('second'); COMMIT");
            one(&second, "SELECT count(*) FROM t")
        });
        while !HANDLED.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        run(&first, "INSERT INTO t(body) VALUES('first'); COMMIT");
        assert_eq!(waiting.join().unwrap(), "12");
    });
}

#[test]
fn a_write_on_an_outdated_snapshot_is_refused_as_such() {
    let (first, second) = (open("outdated"), open("outdated"));
    fill(&first, 10);
    run(&second, "BEGIN; SELECT count(*) FROM t");
    assert_eq!(one(&second, "SELECT count(*) FROM t"), "10");
    run(&first, "DELETE FROM t WHERE id = 1");
    assert_eq!(error(&second, "DELETE FROM t WHERE id = 2").0, ffi::SQLITE_BUSY_SNAPSHOT);
    assert_eq!(one(&second, "SELECT count(*) FROM t"), "10", "its snapshot stays readable");
    run(&second, "ROLLBACK; BEGIN IMMEDIATE; DELETE FROM t WHERE id = 2; COMMIT");
    assert_eq!(one(&first, "SELECT count(*) FROM t"), "8");
}

#[test]
fn savepoints_nest_and_undo_also_what_was_spilled() {
    let db = open("savepoints");
    run(&db, "PRAGMA cache_size = 10");
    fill(&db, 2000);
    let before = dump(&db);
    run(&db, "BEGIN; SAVEPOINT a; UPDATE t SET body = randomblob(400); SAVEPOINT b; DELETE FROM t WHERE id > 50");
    run(&db, "ROLLBACK TO b");
    assert_eq!(one(&db, "SELECT count(*) FROM t WHERE length(body) = 400"), "2000");
    run(&db, "ROLLBACK TO a");
    assert!(dump(&db) == before);
    run(&db, "INSERT INTO t(body) VALUES('kept'); RELEASE a; COMMIT");
    assert_eq!(one(&open("savepoints"), "SELECT count(*) FROM t"), "2001");
    assert_eq!(one(&db, "PRAGMA integrity_check"), "ok");
}

#[test]
fn every_journal_mode_commits_and_rolls_back() {
    let db = open("journals");
    fill(&db, 200);
    for (asked, given) in [
        ("truncate", "truncate"),
        ("wal", "truncate"),
        ("PERSIST", "persist"),
        ("off", "persist"),
        ("memory", "memory"),
        ("WAL", "memory"),
        ("delete", "delete"),
    ] {
        assert_eq!(one(&db, &format!("PRAGMA journal_mode = {asked}")), given);
        assert_eq!(one(&db, "PRAGMA journal_mode"), given);
        let before = dump(&db);
        run(&db, "BEGIN; DELETE FROM t; ROLLBACK");
        assert!(dump(&db) == before);
        run(&db, "INSERT INTO t(body) VALUES('more')");
        assert_eq!(dump(&open("journals")), dump(&db));
    }
    assert_eq!(one(&db, "SELECT count(*) FROM t"), "207");
}

#[test]
fn no_journal_is_left_for_anybody_to_replay() {
    let db = open("left-over");
    fill(&db, 200);
    for mode in ["persist", "truncate", "delete"] {
        run(&db, &format!("PRAGMA journal_mode = {mode}"));
        let before = dump(&db);
        let dying = open("left-over");
        run(
            &dying,
            &format!("PRAGMA journal_mode = {mode}; PRAGMA cache_size = 5; BEGIN; UPDATE t SET body = randomblob(900)"),
        );
        drop(dying);
        assert!(dump(&db) == before, "{mode}");
        run(&db, "UPDATE t SET body = 'now' WHERE id = 1");
        assert!(dump(&open("left-over")) == dump(&db));
    }
}

#[test]
fn exclusive_mode_keeps_everybody_out_and_commits_each_transaction() {
    for journal in ["delete", "persist", "memory"] {
        let name = format!("exclusive-{journal}");
        let (db, other) = (open(&name), open(&name));
        run(&db, &format!("PRAGMA locking_mode = exclusive; PRAGMA journal_mode = {journal}; PRAGMA cache_size = 10"));
        fill(&db, 300);
        for round in 1..=5 {
            run(&db, &format!("INSERT INTO t(body) VALUES('round {round}')"));
            assert_eq!(one(&other, "SELECT count(*) FROM t"), (300 + round).to_string(), "readers see each commit");
            assert_eq!(error(&other, "INSERT INTO t(body) VALUES('no')").0, ffi::SQLITE_BUSY);
            let commits = unpushed(&name);
            let before = dump(&db);
            run(&db, "BEGIN; UPDATE t SET body = randomblob(700); INSERT INTO t SELECT NULL, body FROM t; ROLLBACK");
            assert!(dump(&db) == before);
            assert_eq!(unpushed(&name), commits, "a rollback is no commit");
        }
        assert_eq!(one(&db, "PRAGMA journal_mode = wal"), journal);
        run(&db, "PRAGMA locking_mode = normal; SELECT count(*) FROM t");
        run(&other, "DELETE FROM t WHERE id = 1");
        assert_eq!(one(&db, "SELECT count(*) FROM t"), "304");
        assert_eq!(one(&db, "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn exclusive_mode_lets_nobody_in_between_two_transactions() {
    let db = open("exclusive-between");
    run(&db, "PRAGMA locking_mode = exclusive; PRAGMA cache_size = 10");
    fill(&db, 100);
    let other = open("exclusive-between");
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            for n in 0..1000 {
                run(&db, &format!("UPDATE t SET body = 'now' WHERE id = {n} % 100"));
                if n % 10 == 0 {
                    run(&db, "BEGIN; UPDATE t SET body = randomblob(700); ROLLBACK");
                }
            }
            db
        });
        while !writing.is_finished() {
            assert_eq!(error(&other, "BEGIN IMMEDIATE").0, ffi::SQLITE_BUSY);
        }
    });
}

/// Without locks of its own a connection learns only by a refused write that somebody else has committed. What it has
/// read before must go then, and no commit of it may be lost.
#[test]
fn a_connection_without_locks_finds_its_way_to_the_newest_and_loses_nothing() {
    let begins = ["", "BEGIN;", "PRAGMA cache_size = 10; BEGIN;"];
    for (begin, journal) in begins.into_iter().flat_map(|begin| ["delete", "persist", "memory"].map(|j| (begin, j))) {
        let name = format!("unlocked-{journal}-{}", begin.len());
        let other = open(&name);
        fill(&other, 300);
        let db = open_with(&name, "vfs=quire&nolock=1").unwrap();
        run(&db, &format!("PRAGMA journal_mode = {journal}"));
        assert_eq!(one(&db, "SELECT count(*) + sum(length(body)) * 0 FROM t"), "300");
        run(&other, "UPDATE t SET body = 'new' WHERE id = 1; DELETE FROM t WHERE id > 200; VACUUM");
        let commit = if begin.is_empty() { "" } else { "; COMMIT" };
        let write = format!("{begin} UPDATE t SET body = hex(randomblob(1100)){commit}");
        let newest = dump(&other);
        let mut errors = 0;
        while let Err(e) = db.execute_batch(&write) {
            assert_eq!(e.sqlite_error().unwrap().extended_code & 0xff, ffi::SQLITE_IOERR, "{begin}: {e}");
            errors += 1;
            assert!(errors <= 2, "{begin} {journal}: {e}");
            if !db.is_autocommit() {
                run(&db, "ROLLBACK");
            }
            if let Ok(count) = try_one(&db, "SELECT count(*) FROM t") {
                assert_eq!(count, "200");
                assert!(dump(&db) == newest, "{begin} {journal}");
            }
        }
        assert!(errors > 0);
        assert_eq!(one(&other, "SELECT count(*) FROM t WHERE length(body) = 2200"), "200", "{begin} {journal}");
        assert!(dump(&other) == dump(&db));
        assert_eq!(one(&db, "PRAGMA integrity_check"), "ok");
    }
}

/// SQLite journals no page of an empty database, so its rollback writes nothing: it fails in another place.
#[test]
fn a_connection_without_locks_that_knew_an_empty_volume_acknowledges_nothing_that_is_not_there() {
    for journal in ["delete", "persist", "memory"] {
        let name = format!("unlocked-empty-{journal}");
        let db = open_with(&name, "vfs=quire&nolock=1").unwrap();
        run(&db, &format!("PRAGMA journal_mode = {journal}"));
        assert_eq!(one(&db, "SELECT count(*) FROM sqlite_schema"), "0");
        let other = open(&name);
        run(&other, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
        let mut errors = 0;
        while let Err(e) = db.execute_batch("CREATE TABLE u(y)") {
            errors += 1;
            assert!(errors < 6, "{journal}: {e}");
        }
        let tables = "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema ORDER BY name)";
        assert_eq!(one(&open(&name), tables), "t,u", "{journal}: what was acknowledged is there");
        assert_eq!(one(&other, tables), "t,u");
        assert_eq!(one(&other, "SELECT x FROM t"), "1");
        assert_eq!(one(&other, "PRAGMA integrity_check"), "ok");
    }
}

/// The one without locks writes a journal of the same name meanwhile.
#[test]
fn a_journal_is_its_own_connection_s() {
    for journal in ["delete", "truncate", "persist"] {
        let name = format!("two-journals-{journal}");
        let db = open(&name);
        run(&db, &format!("PRAGMA journal_mode = {journal}"));
        fill(&db, 300);
        let before = dump(&db);
        let unlocked = open_with(&name, "vfs=quire&nolock=1").unwrap();
        run(&unlocked, "BEGIN; UPDATE t SET body = 'not committed' WHERE id = 1");
        run(&db, "BEGIN; UPDATE t SET body = 'rolled back'");
        run(&unlocked, "UPDATE t SET body = 'not committed' WHERE id > 250; ROLLBACK");
        run(&db, "UPDATE t SET body = 'rolled back, too'; ROLLBACK");
        assert!(dump(&db) == before, "{journal}");
        run(&db, "UPDATE t SET id = id + 1000 WHERE id = 7");
        assert_eq!(one(&open(&name), "SELECT count(*) FROM t WHERE body LIKE '%rolled%' OR body LIKE '%not %'"), "0");
        assert_eq!(one(&db, "PRAGMA integrity_check"), "ok");
    }
}

/// The functions read what the connection has open, which the other thread changes meanwhile.
#[test]
fn functions_work_beside_a_thread_that_shares_the_cache() {
    let shared = || open_with("shared-cache", "vfs=quire&cache=shared").unwrap();
    let (writer, reader) = (shared(), shared());
    run(&writer, "CREATE TABLE t(a INTEGER, b INTEGER); INSERT INTO t VALUES(0, 0)");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exported.db");
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            for _ in 0..300 {
                run(&writer, "BEGIN; UPDATE t SET a = a + 1; UPDATE t SET b = b + 1; COMMIT");
            }
        });
        let mut exported = 0;
        while !writing.is_finished() || exported == 0 {
            // Busy while the other one writes: the two have one handle.
            let export = format!("SELECT quire_export('{}', 'main', 1)", path.display());
            if try_one(&reader, &export).is_ok() {
                exported += 1;
                let file = Connection::open(&path).unwrap();
                assert_eq!(one(&file, "SELECT a = b FROM t"), "1");
            }
        }
    });
}

#[test]
fn no_connection_trusts_a_stale_cache() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let connections: Vec<Connection> = (0..4).map(|_| open("caches")).collect();
    fill(&connections[0], 60);
    for step in 0..1500 {
        let db = &connections[rng.random_range(0..connections.len())];
        let id = rng.random_range(1..60);
        match rng.random_range(0..8) {
            0 => run(db, "BEGIN IMMEDIATE; PRAGMA user_version = 0; COMMIT"),
            1 => run(db, &format!("BEGIN; UPDATE t SET body = 'gone' WHERE id = {id}; ROLLBACK")),
            2 => run(
                db,
                &format!(
                    "PRAGMA cache_size = 5; BEGIN; UPDATE t SET body = randomblob(4000); ROLLBACK; PRAGMA cache_size = {}",
                    rng.random_range(5..500)
                ),
            ),
            3 => run(db, &format!("PRAGMA user_version = {step}")),
            _ => run(db, &format!("UPDATE t SET body = randomblob({}) WHERE id = {id}", rng.random_range(1..9000))),
        }
        let reader = &connections[rng.random_range(0..connections.len())];
        let sum =
            "SELECT group_concat(hex(substr(body, 1, 20))) || (SELECT user_version FROM pragma_user_version) FROM t";
        assert!(one(reader, sum) == one(&open("caches"), sum), "step {step}");
    }
    for db in &connections {
        assert_eq!(one(db, "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn a_commit_that_only_counts_makes_no_commit() {
    let db = open("counts");
    fill(&db, 10);
    run(&db, "PRAGMA user_version = 5");
    let before = unpushed("counts");
    run(&db, "PRAGMA user_version = 5; BEGIN IMMEDIATE; COMMIT; BEGIN EXCLUSIVE; COMMIT");
    assert_eq!(unpushed("counts"), before);
    run(&db, "PRAGMA user_version = 6");
    assert_eq!(unpushed("counts"), before + 1);
}

#[test]
fn a_transaction_over_attached_volumes_is_all_or_nothing() {
    for journal in ["delete", "persist", "truncate"] {
        let [a, b, c] = ["a", "b", "c"].map(|n| format!("attached-{journal}-{n}"));
        let db = open(&a);
        run(&db, &format!("ATTACH 'file:{b}?vfs=quire' AS b; ATTACH 'file:{c}?vfs=quire' AS c"));
        for schema in ["main", "b", "c"] {
            run(&db, &format!("PRAGMA {schema}.journal_mode = {journal}; CREATE TABLE {schema}.t(x)"));
        }
        for n in 0..70 {
            run(
                &db,
                &format!(
                    "BEGIN; INSERT INTO main.t VALUES({n}); INSERT INTO b.t VALUES({n}); INSERT INTO c.t VALUES({n}); COMMIT"
                ),
            );
            run(&db, "BEGIN; DELETE FROM main.t; DELETE FROM b.t; DELETE FROM c.t; ROLLBACK");
        }
        for name in [&a, &b, &c] {
            assert_eq!(one(&open(name), "SELECT count(*) || '/' || sum(x) FROM t"), "70/2415");
        }
        // One of three can not be locked: none changes.
        let blocker = open(&c);
        run(&blocker, "BEGIN IMMEDIATE");
        run(&db, "BEGIN; INSERT INTO main.t VALUES(0); INSERT INTO b.t VALUES(0)");
        assert_eq!(error(&db, "INSERT INTO c.t VALUES(0)").0, ffi::SQLITE_BUSY);
        run(&db, "ROLLBACK");
        run(&blocker, "ROLLBACK");
        for schema in ["main", "b", "c"] {
            assert_eq!(one(&db, &format!("SELECT count(*) FROM {schema}.t")), "70");
            assert_eq!(one(&db, &format!("PRAGMA {schema}.integrity_check")), "ok");
        }
    }
}

#[test]
fn what_was_spilled_and_undone_leaves_no_trace_in_a_transaction_over_volumes() {
    let undone = [
        (
            "savepoint",
            "SAVEPOINT s; INSERT INTO main.t SELECT n + 1000, randomblob(900) FROM many; ROLLBACK TO s; RELEASE s",
        ),
        ("vacuum", "INSERT INTO main.t SELECT n + 1000, randomblob(900) FROM many; DELETE FROM main.t WHERE id > 1000"),
    ];
    for (what, undone) in undone {
        for journal in ["delete", "persist", "truncate"] {
            let [a, b] = ["a", "b"].map(|n| format!("undone-{what}-{journal}-{n}"));
            let db = open(&a);
            run(
                &db,
                "PRAGMA page_size = 1024; PRAGMA auto_vacuum = full; CREATE TABLE t(id INTEGER PRIMARY KEY, body)",
            );
            run(&db, &format!("ATTACH 'file:{b}?vfs=quire' AS b; CREATE TABLE b.t(x)"));
            run(
                &db,
                "CREATE TEMP TABLE many AS SELECT value AS n FROM (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < 500) SELECT value FROM c)",
            );
            run(
                &db,
                &format!(
                    "PRAGMA main.journal_mode = {journal}; PRAGMA b.journal_mode = {journal}; PRAGMA main.cache_size = 5"
                ),
            );
            run(&db, &format!("BEGIN; INSERT INTO b.t VALUES(1); {undone}; INSERT INTO main.t VALUES(1, 'x'); COMMIT"));
            for volume in [&a, &b] {
                assert_eq!(one(&open(volume), "SELECT quire_push() IS NOT NULL"), "1", "{what} {journal} {volume}");
                let sound = "SELECT (SELECT count(*) FROM t) || (SELECT integrity_check FROM pragma_integrity_check)";
                assert_eq!(one(&open(volume), sound), "1ok", "{what} {journal} {volume}");
            }
            drop(db);
            assert_eq!(one(&open(&a), "SELECT body FROM t"), "x", "{what} {journal}");
            let pages = one(&open(&a), &format!("SELECT pages FROM quire_status WHERE name = '{a}'"));
            assert_eq!(one(&open(&a), "PRAGMA page_count"), pages, "{what} {journal}");
        }
    }
}

/// Held by tests that decide transactions in the other data directory, or keep others from it.
static DECISIONS: Mutex<()> = Mutex::new(());

/// Does something while there can be no folder of decisions in the other data directory: every commit is prepared, none is
/// decided.
fn without_decisions<T>(work: impl FnOnce() -> T) -> T {
    let groups = house().there.data_dir().join("groups");
    let aside = groups.with_extension("aside");
    let was_there = std::fs::rename(&groups, &aside).is_ok();
    std::fs::write(&groups, b"not a folder").unwrap();
    let done = work();
    std::fs::remove_file(&groups).unwrap();
    if was_there {
        std::fs::rename(&aside, &groups).unwrap();
    }
    done
}

#[test]
fn an_undecided_transaction_over_volumes_leaves_both_as_they_were() {
    // In the other data directory, where few tests decide anything.
    let _there = DECISIONS.lock().unwrap();
    let db = open_there("undecided-a");
    run(&db, "ATTACH 'file:undecided-b?vfs=quire-there' AS b; CREATE TABLE t(x); CREATE TABLE b.t(x)");
    run(&db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO b.t VALUES(1)");
    let failed = without_decisions(|| db.execute_batch("COMMIT"));
    assert!(failed.is_err());
    for name in ["undecided-a", "undecided-b"] {
        assert_eq!(one(&open_there(name), "SELECT count(*) FROM t"), "0");
    }
    assert_eq!(one(&db, "SELECT (SELECT count(*) FROM main.t) + (SELECT count(*) FROM b.t)"), "0");
    // If the main database is a file, SQLite does not listen any more when that has its half.
    let file = Connection::open(house().dir.path().join("undecided.db")).unwrap();
    let attached = ["a", "b"].map(|n| format!("ATTACH 'file:undecided-{n}?vfs=quire-there' AS {n};")).concat();
    run(&file, &format!("{attached} CREATE TABLE t(x)"));
    run(&file, "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO a.t VALUES(1); INSERT INTO b.t VALUES(1)");
    let failed = without_decisions(|| file.execute_batch("COMMIT"));
    assert!(failed.is_err());
    assert_eq!(
        one(
            &file,
            "SELECT count(*) FROM (SELECT x FROM main.t UNION ALL SELECT x FROM a.t UNION ALL SELECT x FROM b.t)"
        ),
        "0"
    );
    run(&file, "BEGIN; INSERT INTO main.t VALUES(3); INSERT INTO a.t VALUES(3); INSERT INTO b.t VALUES(3); COMMIT");
    assert_eq!(one(&file, "SELECT main.t.x + a.t.x + b.t.x FROM main.t, a.t, b.t"), "9");
    drop(file);

    run(&db, "BEGIN; INSERT INTO t VALUES(2); INSERT INTO b.t VALUES(2); COMMIT");
    assert_eq!(one(&open_there("undecided-b"), "SELECT group_concat(x) FROM t"), "3,2");
}

#[test]
fn a_transaction_over_a_volume_and_a_file_is_refused_before_anything_happens() {
    let path = house().dir.path().join("outside.db");
    let db = open("mixed");
    run(&db, &format!("ATTACH 'file:{}?vfs=unix' AS file; CREATE TABLE t(x); CREATE TABLE file.t(x)", path.display()));
    let (code, _) = error(&db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO file.t VALUES(1); COMMIT");
    assert_eq!(code & 0xff, ffi::SQLITE_IOERR);
    let why = quire_sqlite::last_error().unwrap();
    assert!(why.message().contains("outside.db") && why.remedy().is_some(), "{why:?}");
    assert_eq!(one(&db, "SELECT (SELECT count(*) FROM main.t) + (SELECT count(*) FROM file.t)"), "0");
    run(&db, "INSERT INTO t VALUES(1); INSERT INTO file.t SELECT x FROM t");
    assert_eq!(one(&Connection::open(&path).unwrap(), "SELECT count(*) FROM t"), "1");
}

#[test]
fn a_file_that_has_the_name_of_a_volume_is_none() {
    let path = house().dir.path().join("namesake.db");
    let volume = path.display().to_string();
    let (db, third) = (open(&volume), open("third"));
    run(&db, &format!("ATTACH 'file:{volume}?vfs=unix' AS file; CREATE TABLE t(x); CREATE TABLE file.t(x)"));
    run(&third, "CREATE TABLE t(x)");
    // SQLite itself says which name each of them has.
    let names = "SELECT count(DISTINCT file) FROM pragma_database_list WHERE name IN ('main', 'file')";
    assert_eq!(one(&db, names), "1");
    let refused = |db: &Connection, sql: &str| {
        let (code, _) = error(db, sql);
        assert_eq!(code & 0xff, ffi::SQLITE_IOERR);
        let why = quire_sqlite::last_error().unwrap();
        assert!(why.message().contains("namesake.db") && why.message().contains("not a volume"), "{why:?}");
    };
    refused(&db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO file.t VALUES(1); COMMIT");
    run(&db, "ATTACH 'file:third?vfs=quire' AS third");
    // The volume of that name is open, and has no part in it.
    refused(&db, "BEGIN; INSERT INTO third.t VALUES(1); INSERT INTO file.t VALUES(1); COMMIT");
    assert_eq!(
        one(
            &db,
            "SELECT count(*) FROM (SELECT x FROM t UNION ALL SELECT x FROM file.t UNION ALL SELECT x FROM third.t)"
        ),
        "0"
    );
    run(&db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO third.t VALUES(1); COMMIT");
    // A volume that takes part, and to which nothing is written.
    run(&db, "DETACH file; ATTACH 'file:fourth?vfs=quire' AS fourth; CREATE TABLE fourth.t(x)");
    run(
        &db,
        "PRAGMA journal_mode=MEMORY; BEGIN IMMEDIATE; INSERT INTO third.t VALUES(2); INSERT INTO fourth.t VALUES(2); COMMIT",
    );
    assert_eq!(one(&third, "SELECT count(*) FROM t"), "2");
}

#[test]
fn a_file_with_attached_volumes_commits_them_together() {
    let path = house().dir.path().join("main-outside.db");
    house();
    let db = Connection::open(&path).unwrap();
    run(&db, "ATTACH 'file:beside-a?vfs=quire' AS a; ATTACH 'file:beside-b?vfs=quire' AS b");
    run(&db, "CREATE TABLE t(x); CREATE TABLE a.t(x); CREATE TABLE b.t(x)");
    for n in 0..5 {
        run(
            &db,
            &format!(
                "BEGIN; INSERT INTO t VALUES({n}); INSERT INTO a.t VALUES({n}); INSERT INTO b.t VALUES({n}); COMMIT"
            ),
        );
    }
    for name in ["beside-a", "beside-b"] {
        assert_eq!(one(&open(name), "SELECT count(*) FROM t"), "5");
    }
}

#[test]
fn a_commit_of_a_file_and_volumes_that_fails_leaves_nothing_in_the_cache_of_a_volume() {
    let _there = DECISIONS.lock().unwrap();
    // The folder of the log in which a volume is named.
    let log_of = |volume: &str| {
        let replicas = std::fs::read_dir(house().there.data_dir().join("replicas")).unwrap();
        let is_in = |log: &PathBuf| {
            let files = std::fs::read_dir(log).into_iter().flatten();
            let names = |bytes: Vec<u8>| bytes.windows(volume.len()).any(|part| part == volume.as_bytes());
            files.filter_map(|file| std::fs::read(file.unwrap().path()).ok()).any(names)
        };
        replicas.map(|replica| replica.unwrap().path().join("log")).find(is_in).unwrap()
    };
    for exclusive in [true, false] {
        let name = |n: &str| format!("half-{exclusive}-{n}");
        run(&open_there(&name("c")), "CREATE TABLE t(x)");
        let broken = log_of(&name("c"));
        let db = Connection::open(house().dir.path().join(name("main.db"))).unwrap();
        run(
            &db,
            &format!("ATTACH 'file:{}?vfs=quire' AS b; ATTACH 'file:{}?vfs=quire-there' AS c", name("b"), name("c")),
        );
        run(&db, "CREATE TABLE t(x); CREATE TABLE b.t(x); INSERT INTO b.t VALUES(1); CREATE INDEX b.i ON t(x)");
        run(&db, &format!("PRAGMA b.locking_mode = {}", if exclusive { "exclusive" } else { "normal" }));
        // Somebody reads on meanwhile.
        let mut reading = db.prepare("SELECT x FROM b.t").unwrap();
        let mut rows = reading.query([]).unwrap();
        rows.next().unwrap().unwrap();
        run(&db, "BEGIN; INSERT INTO main.t VALUES(2); INSERT INTO b.t VALUES(2); INSERT INTO c.t VALUES(2)");
        // The last volume cannot prepare its part: its log has no folder any more.
        let aside = broken.with_extension("aside");
        std::fs::rename(&broken, &aside).unwrap();
        std::fs::write(&broken, b"not a folder").unwrap();
        assert!(db.execute_batch("COMMIT").is_err());
        std::fs::remove_file(&broken).unwrap();
        std::fs::rename(&aside, &broken).unwrap();
        if !db.is_autocommit() {
            run(&db, "ROLLBACK");
        }
        assert_eq!(one(&db, "SELECT group_concat(x) FROM b.t"), "1", "exclusive: {exclusive}");
        run(&db, "INSERT INTO b.t VALUES(3)");
        drop(rows);
        drop(reading);
        assert_eq!(one(&db, "SELECT count(*) FROM main.t"), "0");
        drop(db);
        assert_eq!(one(&open(&name("b")), "SELECT group_concat(x) FROM t"), "1,3", "exclusive: {exclusive}");
        assert_eq!(one(&open(&name("b")), "PRAGMA integrity_check"), "ok");
        assert_eq!(one(&open_there(&name("c")), "SELECT count(*) FROM t"), "0");
    }
}

#[test]
fn a_journal_of_a_writer_that_has_just_finished_is_not_taken_for_a_crash_s() {
    let db = open("finished");
    run(&db, "CREATE TABLE t(x)");
    let mut journal = CString::new(format!("{}-journal", db.path().unwrap())).unwrap().into_bytes_with_nul();
    // SQLite's names end with two zero bytes.
    journal.push(0);
    let flags = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
    // SAFETY: the VFS is registered; the file is as large as it asks for, aligned, and closed before it goes.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(c"quire".as_ptr());
        let mut file = vec![0_u64; ((*vfs).szOsFile as usize).div_ceil(8)];
        let file = file.as_mut_ptr().cast::<ffi::sqlite3_file>();
        let opened = (*vfs).xOpen.unwrap()(vfs, journal.as_ptr().cast(), file, flags, std::ptr::null_mut());
        assert_eq!(opened, ffi::SQLITE_OK);
        let methods = &*(*file).pMethods;
        assert_eq!(methods.xWrite.unwrap()(file, [0xd9_u8; 512].as_ptr().cast(), 512, 0), ffi::SQLITE_OK);
        let reader = open_with("finished", "vfs=quire&mode=ro");
        let read = reader.and_then(|reader| try_one(&reader, "SELECT count(*) FROM t"));
        assert_eq!(methods.xClose.unwrap()(file), ffi::SQLITE_OK);
        assert_eq!(read.unwrap(), "0");
    }
}

#[test]
fn many_readers_and_one_writer_see_whole_transactions_only() {
    let db = open("threads");
    run(
        &db,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n); WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM i WHERE n < 500) INSERT INTO t SELECT n, 0 FROM i",
    );
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let reader = open("threads");
                let mut newest = 0;
                while !done.load(Ordering::SeqCst) {
                    let seen = one(&reader, "SELECT min(n) || ' ' || max(n) FROM t");
                    let (min, max) = seen.split_once(' ').unwrap();
                    assert_eq!(min, max, "half a transaction");
                    let now: u32 = min.parse().unwrap();
                    assert!(now >= newest, "an older snapshot than before");
                    newest = now;
                }
            });
        }
        for n in 1..=300 {
            run(&db, &format!("UPDATE t SET n = {n}"));
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(one(&db, "SELECT max(n) FROM t"), "300");
}

#[test]
fn random_transactions_equal_those_on_an_ordinary_file() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let file = Connection::open(house().dir.path().join("model.db")).unwrap();
    let mut volume = open("model");
    for db in [&file, &volume] {
        run(db, "PRAGMA cache_size = 30; CREATE TABLE t(id INTEGER PRIMARY KEY, body); CREATE INDEX i ON t(body)");
    }
    for step in 0..400 {
        let id = rng.random_range(0..300);
        let sql = match rng.random_range(0..16) {
            0 => "VACUUM".to_owned(),
            1 => format!("PRAGMA page_size = {}; VACUUM", 512 << rng.random_range(0..8)),
            2 => {
                format!("PRAGMA journal_mode = {}", ["delete", "memory", "persist", "truncate"][rng.random_range(0..4)])
            }
            3 => format!("BEGIN; DELETE FROM t WHERE id > {id}; ROLLBACK"),
            4 => format!(
                "BEGIN; SAVEPOINT s; DELETE FROM t WHERE id % 7 = {}; ROLLBACK TO s; DELETE FROM t WHERE id = {id}; COMMIT",
                id % 7
            ),
            5 => format!("DELETE FROM t WHERE id BETWEEN {id} AND {}", id + 40),
            6 => format!("CREATE TABLE IF NOT EXISTS u{}(x PRIMARY KEY, y)", id % 5),
            7 => format!("DROP TABLE IF EXISTS u{}", id % 5),
            8 => {
                format!("BEGIN; UPDATE t SET body = body || '{id}'; ROLLBACK; UPDATE t SET body = substr(body, 1, 20)")
            }
            _ => format!("REPLACE INTO t VALUES({id}, '{}')", "x".repeat(rng.random_range(1..3000))),
        };
        for db in [&file, &volume] {
            run(db, &sql);
        }
        if rng.random_range(0..20) == 0 {
            drop(volume);
            volume = open("model");
            run(&volume, "PRAGMA cache_size = 30");
        }
        if rng.random_range(0..10) == 0 {
            assert!(dump(&volume) == dump(&file), "step {step}: {sql}");
            assert_eq!(one(&volume, "PRAGMA integrity_check"), "ok", "step {step}: {sql}");
        }
    }
    assert!(dump(&volume) == dump(&file));
    assert_eq!(try_one(&volume, "PRAGMA page_size").unwrap(), one(&file, "PRAGMA page_size"));
}

#[test]
fn a_pull_changes_no_transaction_that_is_open() {
    let here = open("pulled");
    fill(&here, 10);
    one(&here, "SELECT quire_push()");
    let there = open_there("pulled");
    assert_eq!(one(&there, "SELECT count(*) FROM t"), "10");
    run(&here, "DELETE FROM t WHERE id > 3");
    one(&here, "SELECT quire_push()");
    run(&there, "BEGIN");
    assert_eq!(one(&there, "SELECT count(*) FROM t"), "10");
    one(&there, "SELECT quire_pull()");
    assert_eq!(one(&there, "SELECT count(*) FROM t"), "10");
    assert_eq!(error(&there, "DELETE FROM t").0, ffi::SQLITE_BUSY_SNAPSHOT);
    run(&there, "COMMIT");
    assert_eq!(one(&there, "SELECT count(*) FROM t"), "3");
    run(&there, "BEGIN IMMEDIATE");
    let (code, message) = error(&there, "SELECT quire_pull()");
    assert_eq!(code, ffi::SQLITE_BUSY);
    assert!(message.contains("COMMIT"), "{message}");
}

#[test]
fn nolock_openings_commit() {
    let db = open_with("nolock", "vfs=quire&nolock=1").unwrap();
    fill(&db, 50);
    run(&db, "BEGIN; DELETE FROM t; ROLLBACK; DELETE FROM t WHERE id = 1");
    assert_eq!(one(&open("nolock"), "SELECT count(*) FROM t"), "49");
    run(&open("nolock"), "DELETE FROM t WHERE id = 2");
    one(&db, "SELECT quire_push()");
}
