//! Disks that are full or cannot be written to: nothing that was committed is
//! lost, and work goes on once there is room.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use quire_e2e::{World, text_of};

/// SQLite's codes, without what extends them.
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;

/// A small file system in memory. Only who may mount can have one; the engine's tests fill disks without it.
struct Disk(PathBuf);

impl Disk {
    fn new(folder: PathBuf, size: &str) -> Option<Disk> {
        fs::create_dir(&folder).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "quire-test", text_of(&folder)]);
        if !mounted {
            println!("left out: it takes the right to mount a small disk");
        }
        mounted.then_some(Disk(folder))
    }

    fn remount(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}"), text_of(&self.0)]), "remounting with {options}");
    }
}

fn mount(words: &[&str]) -> bool {
    Command::new("mount").args(words).status().is_ok_and(|status| status.success())
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", text_of(&self.0)]).status();
    }
}

#[test]
fn a_full_disk_under_the_data_directory_loses_no_commit() {
    let world = World::new();
    let Some(disk) = Disk::new(world.path("disk"), "12m") else { return };
    let machine = world.machine("disk/data");
    let large = world.file("large", vec![7; 20 << 20]);
    machine.run(&["import", text_of(&large), "large"]).failed(1, "space");
    assert_eq!(machine.json(&["ls"]), serde_json::json!([]));

    let mut app = machine.app("app");
    app.sql("CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB)");
    let mut committed = 0;
    let failure = loop {
        match app.try_sql(&format!("INSERT INTO t VALUES ({}, randomblob(300000))", committed + 1)) {
            Ok(_) => committed += 1,
            Err(failure) => break failure,
        }
        assert!(committed < 100, "the disk has no end");
    };
    assert_eq!(failure.code & 0xff, FULL, "{failure:?}");
    let status = app.one("SELECT last_error, remedy FROM quire_status");
    assert!(status.contains("space") && !status.ends_with("|NULL"), "{status}");
    assert_eq!(app.one("SELECT max(n), count(*) FROM t"), format!("{committed}|{committed}"));
    assert_eq!(app.one("PRAGMA integrity_check"), "ok");
    // A reader that comes later finds the same, however little room there is.
    app.finish();
    let mut app = machine.app("app");
    assert_eq!(app.one("SELECT max(n), count(*) FROM t"), format!("{committed}|{committed}"));
    disk.remount("size=64m");
    app.sql(&format!("INSERT INTO t VALUES ({}, randomblob(300000)); SELECT quire_push()", committed + 1));
    assert_eq!(app.one("PRAGMA integrity_check"), "ok");
    app.finish();
    let there = world.machine("there");
    assert_eq!(there.app("app").one("SELECT count(*) FROM t"), (committed + 1).to_string());
}

#[test]
fn a_full_disk_under_the_store_leaves_the_push_to_be_repeated() {
    let world = World::new();
    let Some(disk) = Disk::new(world.path("store"), "3m") else { return };
    let here = world.machine("here");
    let file = here.import_sample("app", 5000);
    here.run(&["push", "app"]).failed(1, "space");
    assert_eq!(here.json(&["status", "app"])[0]["unpushed"], 1);
    here.holds("app", &file);
    let mut app = here.app("app");
    let failure = app.failure("SELECT quire_push()");
    assert!(failure.message.contains("No space left") && failure.message.contains("Free space"), "{failure:?}");
    disk.remount("size=64m");
    app.sql("SELECT quire_push()");
    app.finish();
    world.machine("there").holds("app", &file);
}

#[test]
fn a_disk_that_fills_up_under_a_cold_replica_still_lets_it_read() {
    let world = World::new();
    let here = world.machine("here");
    let file = here.import_sample("app", 5000);
    here.ok(&["push", "app"]);
    let Some(_disk) = Disk::new(world.path("disk"), "4m") else { return };
    let there = world.machine("disk/data");
    there.ok(&["clone", "app"]);
    there.holds("app", &file);
}

#[test]
fn a_read_only_data_directory_is_a_clear_error() {
    let world = World::new();
    let Some(disk) = Disk::new(world.path("disk"), "16m") else { return };
    let machine = world.machine("disk/data");
    let file = machine.import_sample("app", 10);
    machine.ok(&["push", "app"]);
    disk.remount("ro");
    for words in [&["ls"][..], &["push", "app"], &["import", text_of(&file), "other"]] {
        machine.run(words).failed(1, text_of(machine.data_dir()));
    }
    let failure = machine.app("app").opened().unwrap_err();
    assert_eq!(failure.code & 0xff, CANTOPEN, "{failure:?}");
    disk.remount("rw");
    machine.holds("app", &file);
}
