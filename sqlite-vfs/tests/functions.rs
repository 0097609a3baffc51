//! The functions, pragmas and tables, as SQL sees them.

#![allow(clippy::unwrap_used)]

mod common;

use common::{dump, error, fill, house, one, open, open_there, open_with, run};
use rusqlite::{Connection, ffi};

#[test]
fn push_and_pull_carry_commits_to_another_data_directory() {
    let here = open("carried");
    fill(&here, 500);
    assert!(one(&here, "SELECT quire_push()").contains("LSN 1"));
    assert_eq!(one(&here, "SELECT quire_push()"), "nothing to do");
    let there = open_there("carried");
    assert!(dump(&there) == dump(&here));
    run(&here, "DELETE FROM t WHERE id > 7");
    assert!(one(&here, "PRAGMA quire_push").contains("LSN 2"));
    assert_eq!(one(&there, "PRAGMA quire_fetch"), "the store is at LSN 2");
    assert_eq!(
        one(&there, "SELECT state FROM quire_status WHERE name = 'carried' AND store_lsn = 2 AND base_lsn = 1"),
        "behind"
    );
    assert_eq!(one(&there, "SELECT count(*) FROM t"), "500");
    assert!(one(&there, "SELECT quire_sync()").contains("LSN 1 to 2"));
    assert_eq!(one(&there, "SELECT count(*) FROM t"), "7");
    run(&there, "INSERT INTO t(body) VALUES('back')");
    one(&there, "PRAGMA quire_sync");
    one(&here, "PRAGMA quire_pull");
    assert!(dump(&there) == dump(&here));
    assert_eq!(one(&here, "SELECT group_concat(lsn) FROM quire_log"), "3,2,1");
    assert_eq!(one(&there, "SELECT count(*) FROM quire_log('carried') WHERE time > '2020' AND length(hash) = 64"), "3");
}

#[test]
fn functions_take_the_name_of_an_attached_database() {
    let db = open("first");
    fill(&db, 3);
    run(&db, "ATTACH 'file:second?vfs=quire' AS aux; CREATE TABLE aux.t(x); INSERT INTO aux.t VALUES(1)");
    assert!(one(&db, "SELECT quire_push('aux')").starts_with("pushed 2 commits"));
    assert_eq!(one(&db, "PRAGMA aux.quire_push"), "nothing to do");
    assert!(one(&db, "SELECT quire_push()").starts_with("pushed 2 commits"));
    assert_eq!(one(&db, "SELECT quire_wait(1, 'aux')"), "LSN 1 is in the store");
    for schema in ["nowhere", "temp"] {
        let (_, message) = error(&db, &format!("SELECT quire_push('{schema}')"));
        assert!(message.contains(schema) && message.contains("not a volume"), "{message}");
    }
    house();
    let plain = Connection::open_in_memory().unwrap();
    assert!(error(&plain, "SELECT quire_push()").1.contains("file:NAME?vfs=quire"));
}

#[test]
fn reset_keeps_what_was_not_pushed_under_another_name() {
    let (here, there) = (open("contested"), open_there("contested"));
    fill(&here, 5);
    one(&here, "SELECT quire_push()");
    one(&there, "SELECT quire_pull()");
    run(&here, "INSERT INTO t VALUES(100, 'here')");
    one(&here, "SELECT quire_push()");
    run(&there, "INSERT INTO t VALUES(100, 'there')");
    let (code, message) = error(&there, "SELECT quire_push()");
    assert_eq!(code, ffi::SQLITE_ERROR);
    assert!(message.contains("quire_reset") || message.contains("reset"), "{message}");
    assert_eq!(one(&there, "SELECT state FROM quire_status WHERE unpushed > 0 AND name = 'contested'"), "diverged");
    assert_eq!(one(&there, "SELECT body FROM t WHERE id = 100"), "there");

    run(&there, "BEGIN");
    assert_eq!(one(&there, "SELECT body FROM t WHERE id = 100"), "there");
    assert_eq!(one(&there, "SELECT quire_reset()"), "at LSN 2; what was not pushed is kept as contested.dropped-1");
    assert_eq!(one(&there, "SELECT body FROM t WHERE id = 100"), "there", "an open transaction keeps its snapshot");
    run(&there, "COMMIT");
    assert_eq!(one(&there, "SELECT body FROM t WHERE id = 100"), "here");
    assert_eq!(one(&open_there("contested.dropped-1"), "SELECT body FROM t WHERE id = 100"), "there");
    run(&there, "INSERT INTO t VALUES(101, 'again')");
    one(&there, "SELECT quire_push()");
}

#[test]
fn export_writes_a_file_and_never_over_one_unless_told() {
    let db = open("exported");
    fill(&db, 300);
    let path = house().dir.path().join("exported.db");
    let export = |more: &str| format!("SELECT quire_export('{}'{more})", path.display());
    assert!(one(&db, &export("")).contains("pages"));
    run(&db, "DELETE FROM t WHERE id > 10");
    assert!(error(&db, &export("")).1.contains("exists"));
    assert_eq!(one(&Connection::open(&path).unwrap(), "SELECT count(*) FROM t"), "300");
    one(&db, &export(", 'main', 1"));
    let file = Connection::open(&path).unwrap();
    assert_eq!(one(&file, "SELECT count(*) FROM t"), "10");
    assert_eq!(one(&file, "PRAGMA integrity_check"), "ok");
    run(&db, "BEGIN; DELETE FROM t");
    assert!(error(&db, &export(", 'main', 1")).1.contains("COMMIT"));
    let nowhere = error(&db, "ROLLBACK; SELECT quire_export('/no/such/folder/x.db')").1;
    assert!(nowhere.contains("/no/such/folder"), "{nowhere}");
    assert!(std::fs::read_dir(house().dir.path()).unwrap().all(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        !name.starts_with(".tmp")
    }));
}

#[test]
fn hydrate_and_verify_reach_every_page() {
    let here = open("whole");
    fill(&here, 3000);
    one(&here, "SELECT quire_push()");
    let pages: u64 = one(&here, "PRAGMA page_count").parse().unwrap();
    let there = open_there("whole");
    let cached =
        || one(&there, "SELECT min(cached_pages) FROM quire_status WHERE name = 'whole'").parse::<u64>().unwrap();
    one(&there, "SELECT count(*) FROM sqlite_schema");
    assert!(cached() < pages / 2);
    assert!(one(&there, "PRAGMA quire_hydrate").starts_with("fetched "));
    assert_eq!(cached(), pages);
    assert_eq!(one(&there, "SELECT quire_hydrate()"), "fetched 0 pages");
    assert!(one(&there, "SELECT quire_verify()").starts_with(&format!("verified {pages} pages")));
}

#[test]
fn waiting_for_an_lsn_ends_with_the_busy_timeout() {
    let db = open("awaited");
    fill(&db, 3);
    one(&db, "SELECT quire_push()");
    assert_eq!(one(&db, "SELECT quire_wait(1)"), "LSN 1 is in the store");
    run(&db, "PRAGMA busy_timeout = 20");
    let (_, message) = error(&db, "SELECT quire_wait(2)");
    assert!(message.contains('2'), "{message}");
    for wrong in ["0", "-1", "'x'", "NULL"] {
        assert!(error(&db, &format!("SELECT quire_wait({wrong})")).1.contains("LSN"), "{wrong}");
    }
}

#[test]
fn what_only_shows_changes_nothing_and_what_acts_does_so_only_when_run() {
    let db = open("shown");
    fill(&db, 3);
    one(&db, "SELECT count(*) FROM quire_status");
    one(&db, "EXPLAIN SELECT quire_push()");
    drop(db.prepare("SELECT quire_push()").unwrap());
    assert_eq!(one(&db, "SELECT unpushed || state FROM quire_status WHERE name = 'shown'"), "2ahead");
    run(&db, "CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT quire_push(); END");
    assert!(error(&db, "INSERT INTO t(body) VALUES(1)").1.contains("unsafe use"));
    assert!(error(&db, "PRAGMA quire_reset").1.contains("no PRAGMA quire_reset"));
    assert!(error(&db, "PRAGMA quire_push = 1").1.contains("takes no value"));
    assert!(error(&db, "DELETE FROM quire_status").1.contains("may not be modified"));
}

#[test]
fn tables_join_filter_and_take_their_argument_from_anywhere() {
    let db = open("joined");
    for n in 1..=3 {
        fill(&db, n);
        one(&db, "SELECT quire_push()");
    }
    let sql =
        "SELECT group_concat(l.lsn) FROM quire_volumes v, quire_log(v.name) l WHERE v.name = 'joined' AND l.lsn > 1";
    assert_eq!(one(&db, sql), "3,2");
    assert_eq!(one(&db, "SELECT here || in_store FROM quire_volumes WHERE name = 'joined'"), "11");
    assert_eq!(
        one(&db, "SELECT commits > 2 AND pushes > 2 AND pages_from_cache > 0 AND requests > 0 FROM quire_stats"),
        "1"
    );
    assert!(error(&db, "SELECT * FROM quire_log('not there at all')").1.contains("not there at all"));
    let version = one(&db, "SELECT quire_version()");
    assert!(version.contains(rusqlite::version()) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert_eq!(one(&db, "PRAGMA quire_version"), version);
}

#[test]
fn a_log_is_shown_by_name_without_a_volume_in_main_and_by_the_schema_that_is_named() {
    let db = open("logged");
    fill(&db, 3);
    one(&db, "SELECT quire_push()");
    let plain = Connection::open_in_memory().unwrap();
    run(&plain, "ATTACH 'file:logged?vfs=quire' AS aux");
    for (db, log) in [
        (&plain, "quire_log('logged')"),
        (&plain, "quire_log(NULL, 'aux')"),
        (&plain, "quire_log('logged', 'aux')"),
        (&plain, "quire_log WHERE schema = 'aux'"),
        (&db, "quire_log('logged', 'main')"),
        (&db, "quire_log"),
    ] {
        assert_eq!(one(db, &format!("SELECT group_concat(lsn || volume) FROM {log}")), "1logged", "{log}");
    }
    for log in ["quire_log", "quire_log('logged', 'main')", "quire_log(NULL, 'nowhere')"] {
        let (_, message) = error(&plain, &format!("SELECT * FROM {log}"));
        assert!(message.contains("is not a volume"), "{log}: {message}");
    }
    assert_eq!(db.prepare("SELECT * FROM quire_log").unwrap().column_count(), 8, "arguments are not shown");
}

#[test]
fn the_default_vfs_takes_paths_and_can_be_given_back() {
    let loader = open("default");
    for wrong in ["2", "-1", "1.0", "'yes'", "'off'", "''", "NULL"] {
        let (_, message) = error(&loader, &format!("SELECT quire_default_vfs({wrong})"));
        assert!(message.contains("takes 1 or 0"), "{wrong}: {message}");
    }
    one(&loader, "SELECT quire_default_vfs(1)");
    let by_path = Connection::open("by-path.db").unwrap();
    run(&by_path, "CREATE TABLE t(x)");
    let here = std::env::current_dir().unwrap();
    let name = format!("fs{}/by-path.db", here.display());
    let count = format!("SELECT count(*) FROM quire_status WHERE name = '{name}'");
    let by_uri = open_with(&format!("{}/by-path.db", here.display()), "vfs=quire").unwrap();
    let by_name = open("by-path.db");
    one(&loader, "SELECT quire_default_vfs(' 0')");
    assert_eq!(one(&loader, &count), "1");
    assert_eq!(one(&by_uri, "SELECT count(*) FROM t"), "0");
    assert_eq!(one(&by_name, "SELECT count(*) FROM sqlite_schema"), "0", "a volume's name means the same as ever");
    assert!(!here.join("by-path.db").exists());
    let plain = house().dir.path().join("plain.db");
    run(&Connection::open(&plain).unwrap(), "CREATE TABLE t(x)");
    assert!(plain.exists());
}

#[test]
fn wrong_names_and_parameters_are_refused_with_the_reason() {
    for (name, parameters, reason) in [
        ("a//b", "vfs=quire", "empty part"),
        ("../a", "vfs=quire", "'..'"),
        ("a%0Ab", "vfs=quire", "control character"),
        ("a", "vfs=quire&lsn=three", "not an LSN"),
        ("a", "vfs=quire&lsn=0", "not an LSN"),
        ("a", "vfs=quire&at=2026-01-01", "RFC 3339"),
        ("a", "vfs=quire&at=2026-01-01T00:00:00Z&lsn=3", "one of them"),
        ("a", "vfs=quire&lns=3", "Quire knows lsn, at, sync"),
        ("nobody-has-it", "vfs=quire&lsn=3", "no LSN 3"),
        ("nobody-has-it@3", "vfs=quire", "Open `nobody-has-it` with `&lsn=3`"),
        ("nobody-has-it@3", "vfs=quire&mode=ro", "Open `nobody-has-it` with `&lsn=3`"),
        ("nobody-has-it@2026-01-31T12:00:00Z", "vfs=quire", "`&at=TIME`, in the URI"),
        ("nobody-has-it@2026-01-31", "vfs=quire", "`&at=TIME`, in the URI"),
        (&"long/".repeat(200), "vfs=quire", "too long"),
        (&"y".repeat(201), "vfs=quire", "200 bytes"),
        ("nobody-has-it", "vfs=quire&mode=rw", "nobody-has-it"),
    ] {
        let name = name.trim_end_matches('/');
        quire_sqlite::last_error();
        assert!(open_with(name, parameters).is_err(), "{name}?{parameters}");
        let error = quire_sqlite::last_error().unwrap();
        let says = error.message().contains(reason) || error.remedy().is_some_and(|remedy| remedy.contains(reason));
        assert!(says && error.remedy().is_some(), "{name}?{parameters}: {error:?}");
    }
}
