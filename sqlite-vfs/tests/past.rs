//! Snapshots of the past, and forks, through SQLite.

#![allow(clippy::unwrap_used)]

mod common;

use common::{dump, error, house, one, open, open_with, run};
use quire_engine::VolumeName;

#[test]
fn several_snapshots_are_attached_and_joined_while_the_newest_is_written() {
    let db = open("past/joined");
    run(&db, "CREATE TABLE stock(item TEXT PRIMARY KEY, n INTEGER); INSERT INTO stock VALUES ('nut', 1), ('bolt', 1)");
    one(&db, "SELECT quire_push()");
    for n in 2..=4 {
        run(&db, &format!("UPDATE stock SET n = {n} WHERE item = 'nut'"));
        one(&db, "SELECT quire_push()");
    }
    run(&db, "ATTACH 'file:past/joined?vfs=quire&lsn=1' AS first; ATTACH 'file:past/joined?vfs=quire&lsn=3' AS third");
    run(&db, "BEGIN IMMEDIATE; UPDATE stock SET n = 10 WHERE item = 'nut'");
    let joined = "SELECT first.stock.n || '-' || third.stock.n || '-' || main.stock.n FROM main.stock \
                  JOIN first.stock USING(item) JOIN third.stock USING(item) WHERE item = 'nut'";
    assert_eq!(one(&db, joined), "1-3-10");
    // A journal is open now, and it is not the old snapshots'.
    let other = open_with("past/joined", "vfs=quire&lsn=2").unwrap();
    assert_eq!(one(&other, "SELECT n FROM stock WHERE item = 'nut'"), "2");
    run(&db, "COMMIT");
    assert_eq!(one(&db, joined), "1-3-10");
    assert!(error(&db, "INSERT INTO first.stock VALUES ('cog', 1)").1.contains("readonly"), "SQLite says so itself");
    assert!(error(&other, "DELETE FROM stock").1.contains("readonly"));
    assert_eq!(one(&other, "PRAGMA integrity_check"), "ok");
    assert_eq!(one(&db, "SELECT count(*) FROM quire_status WHERE name LIKE 'past/joined%'"), "4");
}

#[test]
fn a_checkpoint_is_written_by_function_and_by_pragma() {
    let db = open("past/checkpoint");
    assert!(error(&db, "SELECT quire_checkpoint()").1.contains("not in the store yet"));
    run(&db, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    one(&db, "SELECT quire_push()");
    assert!(one(&db, "SELECT quire_checkpoint()").contains("LSN 1 has a checkpoint, of"));
    assert!(one(&db, "PRAGMA quire_checkpoint").contains("already"));
}

#[test]
fn a_time_opens_what_the_store_had_then() {
    let db = open("past/times");
    run(&db, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    one(&db, "SELECT quire_push()");
    let late = open_with("past/times", "vfs=quire&at=2999-01-01T00:00:00%2B01:00").unwrap();
    assert_eq!(dump(&late), dump(&db));
    assert!(open_with("past/times", "vfs=quire&at=1999-01-01T00:00:00Z").is_err());
}

#[test]
fn a_fork_takes_unpushed_work_along_and_both_go_on() {
    let db = open("past/parent");
    run(&db, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    one(&db, "SELECT quire_push()");
    run(&db, "INSERT INTO t VALUES (2)");
    assert!(one(&db, "SELECT quire_fork('past/child')").contains("first push"));
    run(&db, "INSERT INTO t VALUES (3)");
    let child = open("past/child");
    run(&child, "INSERT INTO t VALUES (30)");
    let numbers = "SELECT group_concat(x, ',') FROM t";
    assert_eq!((one(&db, numbers).as_str(), one(&child, numbers).as_str()), ("1,2,3", "1,2,30"));
    one(&child, "SELECT quire_push()");
    // A snapshot of the past becomes a volume of its own.
    let old = open_with("past/parent", "vfs=quire&lsn=1").unwrap();
    assert!(one(&old, "SELECT quire_fork('past/second-child')").contains("in the store at LSN 1"));
    let second = open("past/second-child");
    run(&second, "INSERT INTO t VALUES (40)");
    assert_eq!(one(&second, numbers), "1,40");
    assert!(error(&db, "SELECT quire_fork('past/child')").1.contains("already"));
    run(&db, "BEGIN IMMEDIATE");
    assert!(error(&db, "SELECT quire_fork('past/third')").1.contains("write transaction"));
    run(&db, "ROLLBACK");
    assert!(house().dir.path().exists());
}

#[test]
fn a_name_that_means_a_moment_begins_no_volume_and_opens_one_that_is_there() {
    let db = open("past/named");
    run(&db, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    for new in ["past/named@1", "past/named@2026-01-31T12:00:00Z", "past/named@2026-01-31"] {
        assert!(open_with(new, "vfs=quire").is_err(), "{new}");
        let (_, message) = error(&db, &format!("SELECT quire_fork('{new}')"));
        assert!(message.contains("Open `past/named` with `&lsn=1`, or `&at=TIME`"), "{new}: {message}");
    }
    assert_eq!(one(&db, "SELECT count(*) FROM quire_volumes WHERE name LIKE 'past/named@%'"), "0");
    // Made when such names were not refused.
    let [named, at] = ["past/named", "past/named@1"].map(|name| VolumeName::parse(name).unwrap());
    house().here.fork(&named, None, &at).unwrap();
    let old = open("past/named@1");
    run(&old, "INSERT INTO t VALUES (2)");
    assert_eq!((one(&old, "SELECT sum(x) FROM t"), one(&db, "SELECT sum(x) FROM t")), ("3".into(), "1".into()));
    run(&open("past/me@home"), "CREATE TABLE t(x)");
}
