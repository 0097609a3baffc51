//! `quire verify` of a store: what it says of a sound one, and of a damaged one.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use std::path::{Path, PathBuf};

use common::{Machine, World, noise};
use serde_json::{Value, json};

/// LSN 1: table `orders` with 300 large rows, in a segment; LSN 2: an index on it; LSN 3: one more row.
fn app(machine: &Machine<'_>) {
    let file = machine.data_dir().with_extension("db");
    let db = rusqlite::Connection::open(&file).unwrap();
    db.execute_batch("CREATE TABLE orders(id INTEGER PRIMARY KEY, what BLOB); CREATE TABLE small(n)").unwrap();
    for n in 0..300 {
        db.execute("INSERT INTO orders(what) VALUES (?1)", [noise(n, 1000)]).unwrap();
    }
    drop(db);
    machine.ok(&["import", file.to_str().unwrap(), "app"]);
    machine.ok(&["push", "app"]);
    machine.ok(&["sql", "app", "CREATE INDEX by_what ON orders(length(what), id)"]);
    machine.ok(&["push", "app"]);
    machine.ok(&["sql", "app", "INSERT INTO small VALUES (1)"]);
    machine.ok(&["push", "app"]);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The objects of volume `app` in one of its folders.
fn objects(world: &World, kind: &str) -> Vec<PathBuf> {
    let mut found = files(&world.path("store/v/app/!").join(kind));
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_sound_store_is_said_to_be_and_remembered() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    assert_eq!(here.json(&["info", "app"])["verified"], Value::Null);
    assert!(here.ok(&["info", "app"]).contains("never"));
    for machine in [&here, &there] {
        let deep = machine.json(&["verify", "--deep", "app"]);
        assert_eq!((&deep["integrity_check"], &deep["in_store"]["depth"]), (&json!(true), &json!("deep")));
        let plain = machine.json(&["verify", "app"]);
        let in_store = &plain["in_store"];
        assert_eq!((&in_store["lsn"], &in_store["commits"], &in_store["damage"]), (&json!(3), &json!(3), &json!([])));
        assert_eq!(plain["pages"], machine.json(&["info", "app"])["pages"]);
        let info = machine.json(&["info", "app"]);
        assert_eq!((&info["verified"]["lsn"], &info["verified"]["depth"]), (&json!(3), &json!("plain")));
        assert_eq!((&info["verified_deep"]["lsn"], &info["verified_deep"]["depth"]), (&json!(3), &json!("deep")));
        assert_eq!(info["verified"], in_store["last_verified"]);
    }
    let said = here.ok(&["verify", "app"]);
    assert!(said.starts_with("app is sound: ") && said.contains("up to LSN 3: 3 commits read"), "{said}");
    // A damaged note is no note.
    let note = files(&there.data_dir().join("verified")).remove(0);
    std::fs::write(note, "{").unwrap();
    assert_eq!(there.json(&["info", "app"])["verified"], Value::Null);
}

#[test]
fn damage_ends_with_status_4_and_says_what_is_lost_and_what_goes_on() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    let segment = objects(&world, "seg").remove(0);
    let length = std::fs::metadata(&segment).unwrap().len() as usize;
    flip(&segment, length / 2);
    // The length is as it was: only reading all of it tells.
    there.ok(&["verify", "app"]);
    for machine in [&here, &there] {
        let ended = machine.run(&["verify", "--deep", "app"]);
        ended.failed(4, "1 object");
        assert!(ended.stdout.contains("segment 1/") && ended.stdout.contains("of commit 1"), "{ended:?}");
        assert!(ended.stdout.contains("LSN 1 to 3 cannot be read entirely"), "{ended:?}");
        assert!(ended.stdout.contains("table") && ended.stdout.contains("orders"), "{ended:?}");
        let ended = machine.run(&["--json", "verify", "--deep", "app"]);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let (in_store, damage) = (&report["in_store"], &report["in_store"]["damage"][0]);
        assert_eq!((&damage["kind"], &damage["lsn"], &damage["volume"]), (&json!("segment"), &json!(1), &json!("app")));
        assert!(damage["pages"][0][0].as_u64().unwrap() > 1, "{damage}");
        assert_eq!((&in_store["touched"], &in_store["readable_lsn"]), (&json!([[1, 3]]), &Value::Null));
        assert_eq!(
            (&in_store["owners"][0]["kind"], &in_store["owners"][0]["name"]),
            (&json!("table"), &json!("orders"))
        );
        let error: Value = serde_json::from_str(&ended.stderr).unwrap();
        assert_eq!((&error["error"]["kind"], &error["error"]["exit_status"]), (&json!("corrupt"), &json!(4)));
    }
    // The one that wrote it has every page.
    let (wrote, reads) = (here.run(&["verify", "--deep", "app"]), there.run(&["verify", "--deep", "app"]));
    assert!(wrote.stderr.contains("The replica here is sound") && !reads.stderr.contains("replica here"), "{reads:?}");
    let saved = world.path("saved.db");
    here.ok(&["export", "app", saved.to_str().unwrap()]);
    // It was never found sound at this depth, nor is it now.
    assert_eq!(there.json(&["info", "app"])["verified_deep"], Value::Null);
}

#[test]
fn each_damaged_object_is_told_with_the_tables_whose_pages_it_holds() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    // The segment holds the rows. Of the last commit nobody knows any more which pages it owned: an older snapshot
    // tells whose the others are.
    let segment = objects(&world, "seg").remove(0);
    flip(&segment, std::fs::metadata(&segment).unwrap().len() as usize / 2);
    let third = objects(&world, "c").remove(0);
    flip(&third, std::fs::metadata(&third).unwrap().len() as usize - 1);
    let ended = there.run(&["--json", "verify", "--deep", "app"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let names = |lsn: u64| -> Vec<Value> {
        let damage = report["in_store"]["damage"].as_array().unwrap();
        let damage = damage.iter().find(|damage| damage["lsn"] == json!(lsn)).unwrap();
        damage["owners"].as_array().unwrap().iter().map(|owner| owner["name"].clone()).collect()
    };
    assert!(names(1).contains(&json!("orders")) && !names(1).contains(&json!("small")), "{report}");
    assert_eq!(names(3), [] as [Value; 0], "{report}");
    let said = there.run(&["verify", "--deep", "app"]).stdout;
    assert!(said.contains(" of table orders"), "{said}");
}

#[test]
fn the_remedy_names_a_snapshot_that_can_be_restored_and_exported() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    // Commits sort newest first. The last byte is in the pages, not in the header.
    let second = objects(&world, "c").remove(1);
    flip(&second, std::fs::metadata(&second).unwrap().len() as usize - 1);
    let ended = there.run(&["verify", "app"]);
    ended.failed(4, "1 object");
    assert!(ended.stdout.contains("commit 2: ") && ended.stdout.contains("LSN 2 to 3 cannot be read"), "{ended:?}");
    assert!(ended.stderr.contains("quire restore app@1; to save it: quire export app@1 FILE"), "{ended:?}");
    there.ok(&["export", "app@1", world.path("saved.db").to_str().unwrap()]);
    there.ok(&["restore", "app@1"]);
    let after = there.run(&["--json", "verify", "app"]);
    let report: Value = serde_json::from_str(&after.stdout).unwrap();
    assert_eq!((after.status, &report["in_store"]["readable_lsn"]), (Some(4), &json!(4)));
    assert_eq!((&report["in_store"]["touched"], &report["in_store"]["lost"]), (&json!([[2, 3]]), &json!([])));
    assert_eq!(there.json(&["sql", "app", "SELECT count(*) AS n FROM orders"])[0]["n"], 300);
}

#[test]
fn a_store_that_is_not_there_is_no_damage() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    std::fs::rename(world.path("store"), world.path("away")).unwrap();
    for machine in [&here, &there] {
        machine.run(&["verify", "app"]).failed(1, "app");
    }
    // What was never pushed has nothing in a store.
    here.ok(&["create", "new"]);
    assert_eq!(here.json(&["verify", "new"])["in_store"], Value::Null);
}
