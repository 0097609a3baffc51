//! `quire keep` and `quire gc`.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use common::{Ended, Machine, World, noise};

/// Twelve pushes; each rewrites 300 large rows, so there are segments.
fn app(machine: &Machine<'_>) {
    let file = machine.data_dir().with_extension("db");
    let db = rusqlite::Connection::open(&file).unwrap();
    db.execute_batch("CREATE TABLE orders(id INTEGER PRIMARY KEY, round INTEGER, what BLOB)").unwrap();
    for n in 0..300 {
        db.execute("INSERT INTO orders(round, what) VALUES (1, ?1)", [noise(n, 1000)]).unwrap();
    }
    drop(db);
    machine.ok(&["import", file.to_str().unwrap(), "app"]);
    machine.ok(&["push", "app"]);
    for round in 2..=12 {
        machine.ok(&["sql", "app", &format!("UPDATE orders SET round = {round}, what = randomblob(1000)")]);
        machine.ok(&["push", "app"]);
    }
}

fn round(machine: &Machine<'_>, volume: &str) -> serde_json::Value {
    machine.json(&["sql", volume, "SELECT max(round) AS n FROM orders"])[0]["n"].clone()
}

#[test]
fn what_is_kept_stays_and_the_rest_goes_after_the_grace() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    let kept = here.json(&["keep", "app"]);
    assert_eq!((&kept["span"], &kept["snapshots"]), (&"all".into(), &serde_json::json!([])));
    assert_eq!(here.json(&["gc", "app"])[0]["segments"]["objects"], 0, "by default nothing goes");

    here.ok(&["fork", "app@3", "fork"]);
    here.ok(&["keep", "app", "last", "2"]);
    assert_eq!(here.json(&["keep", "app@7"])["snapshots"], serde_json::json!([7]));
    here.ok(&["checkpoint", "app"]);
    let dry = here.json(&["gc", "--dry-run"]);
    assert_eq!((&dry[0]["name"], &dry[0]["dry_run"]), (&"app".into(), &true.into()));
    assert_eq!(round(&there, "app@5"), 5, "it was only a question");

    // Readers have a day, unless somebody says otherwise.
    let waits = here.json(&["gc", "app"]);
    assert!(waits[0]["waits_seconds"].as_u64().unwrap() > 80_000, "{waits}");
    assert_eq!((&waits[0]["horizon"], &waits[0]["segments"]["objects"]), (&11.into(), &0.into()));
    there.run(&["sql", "app@5", "SELECT 1"]).failed(1, "not kept");

    let swept = here.json(&["gc", "--grace", "0s"]);
    let app = &swept[0];
    assert!(app["segments"]["objects"].as_u64().unwrap() >= 7, "{app}");
    assert_eq!(app["kept"], serde_json::json!([3, 7]));
    assert_eq!(app["held"][0]["by"], "LSN 1 of fork stands on it");
    let fresh = world.machine("fresh");
    for (volume, n) in [("app", 12), ("app@11", 11), ("app@7", 7), ("fork", 3)] {
        assert_eq!(round(&fresh, volume), n, "{volume}");
    }
    for gone in ["app@5", "app@10"] {
        there.run(&["sql", gone, "SELECT 1"]).failed(1, "app");
    }
    here.run(&["restore", "app@5"]).failed(1, "LSN 5");
    here.ok(&["verify", "--deep", "app"]);
    // What was named is kept no longer.
    here.ok(&["keep", "app@7", "--no-longer"]);
    here.ok(&["gc", "app", "--grace", "0s"]);
    there.run(&["sql", "app@7", "SELECT 1"]).failed(1, "app");
    assert_eq!(round(&there, "fork"), 3);
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_can() {
    let world = World::new();
    let here = world.machine("here");
    app(&here);
    here.run(&["keep", "app", "7"]).failed(2, "`7` does not say");
    // Kept less by mistake, history does not come back.
    let months = here.run(&["keep", "app", "7m"]);
    months.failed(2, "may be minutes, or months");
    assert!(months.stderr.contains("`7min` for minutes, or `210d` for months"), "{months:?}");
    here.run(&["keep", "app", "last"]).failed(2, "`last` does not say");
    here.run(&["keep", "app@3", "7d"]).failed(2, "not both");
    here.run(&["keep", "app", "--no-longer"]).failed(2, "one snapshot");
    here.run(&["keep", "nobody"]).failed(1, "nobody");
    here.run(&["keep", "app@99"]).failed(1, "99");
    here.run(&["gc", "nobody"]).failed(1, "nobody");
    here.run(&["gc", "app", "--grace", "soon"]).failed(2, "not a time");
    here.run(&["gc", "app@3"]).failed(2, "app@3");
}

#[test]
fn what_is_told_of_a_collection_names_what_is_collected_and_what_helps() {
    let world = World::new();
    let here = world.machine("here");
    here.ok(&["create", "app"]);
    here.ok(&["sql", "app", "CREATE TABLE orders(id INTEGER PRIMARY KEY, what BLOB)"]);
    here.ok(&["push", "app"]);
    for _ in 2..=6 {
        here.ok(&["sql", "app", "INSERT INTO orders(what) VALUES (randomblob(6000))"]);
        here.ok(&["push", "app"]);
    }
    let all = here.ok(&["keep", "app"]);
    assert!(!all.contains("gc"), "{all}");
    let kept = here.ok(&["keep", "app", "last", "2"]);
    assert!(kept.contains("two runs of `quire gc`, 1 day apart, let go the rest"), "{kept}");
    let waits = here.ok(&["gc", "app"]);
    assert!(waits.contains("when gc is run again after 1 day: readers"), "{waits}");
    let swept = here.ok(&["gc", "app", "--grace", "0s"]);
    assert!(swept.contains("what older snapshots need stays while they are kept"), "{swept}");
    here.ok(&["keep", "app", "last", "1"]);
    let swept = here.ok(&["gc", "app", "--grace", "0s"]);
    assert!(swept.contains("still needed: `quire compact app` moves them"), "{swept}");
    here.ok(&["compact", "app"]);
    here.ok(&["gc", "app", "--grace", "0s"]);
    let verified = here.ok(&["verify", "--deep", "app"]);
    assert!(verified.contains("every byte of 1 commit and"), "{verified}");
    assert!(verified.contains("5 commits more: collected"), "{verified}");
}

/// A store that cannot be reached.
const AWAY: &str = "http://127.0.0.1:9";

fn fork_offline(machine: &Machine<'_>) {
    let forked = Ended::of(machine.command(&["--store", AWAY, "fork", "app", "away"]).output().unwrap());
    assert_eq!(forked.status, Some(0), "{forked:?}");
}

/// Somebody else goes on, and lets go all but the newest snapshot.
fn move_on(machine: &Machine<'_>) -> serde_json::Value {
    for _ in 0..2 {
        machine.ok(&["sql", "app", "UPDATE orders SET round = 99, what = randomblob(1000)"]);
        machine.ok(&["push", "app"]);
    }
    machine.ok(&["keep", "app", "last", "1"]);
    machine.json(&["gc", "app", "--grace", "0s"])[0].clone()
}

#[test]
fn what_a_fork_made_offline_stands_on_is_held_by_any_traffic_of_its_data_directory() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    fork_offline(&here);
    here.ok(&["pull", "app"]);
    let swept = move_on(&there);
    assert_eq!(swept["held"][0]["lsn"], 12, "{swept}");
    here.ok(&["push", "away"]);
    assert_eq!(round(&world.machine("fresh"), "away"), 12);
    let swept = there.json(&["gc", "app", "--grace", "0s"])[0].clone();
    assert_eq!(swept["held"][0]["by"], "LSN 1 of away stands on it", "{swept}");
    assert_eq!(swept["held"].as_array().unwrap().len(), 1, "{swept}");
    assert!(common::names_in(&here.data_dir().join("unheld")).is_empty());
}

#[test]
fn a_fork_whose_base_is_gone_is_told_what_saves_it() {
    let world = World::new();
    let (here, cold, there) = (world.machine("here"), world.machine("cold"), world.machine("there"));
    app(&here);
    cold.ok(&["clone", "app"]);
    cold.ok(&["sql", "app", "SELECT name FROM sqlite_schema"]);
    fork_offline(&here);
    fork_offline(&cold);
    move_on(&there);
    let gone = here.run(&["push", "away"]);
    gone.failed(1, "not kept any more");
    assert!(gone.stderr.contains("`quire export away FILE`") && !gone.stderr.contains("quire reset"), "{gone:?}");
    let file = world.path("saved.db");
    here.ok(&["export", "away", file.to_str().unwrap()]);
    here.ok(&["import", file.to_str().unwrap(), "back"]);
    here.ok(&["push", "back"]);
    assert_eq!(round(&there, "back"), 12);
    here.ok(&["rm", "away", "--force"]);

    let gone = cold.run(&["push", "away"]);
    gone.failed(1, "not kept any more");
    assert!(gone.stderr.contains("`quire sql away"), "{gone:?}");
    assert_eq!(cold.json(&["sql", "away", "SELECT name FROM sqlite_schema"])[0]["name"], "orders");
    cold.ok(&["rm", "away", "--force"]);
}
