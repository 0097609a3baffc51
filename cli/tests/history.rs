//! The past and its branches on the command line.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use common::{Machine, World, noise};

/// LSN n of volume `app` has rows 1 to n in `orders`; the index is from LSN 3 on.
fn app(machine: &Machine<'_>) {
    let world_file = machine.data_dir().with_extension("db");
    let db = rusqlite::Connection::open(&world_file).unwrap();
    db.execute_batch("CREATE TABLE orders(id INTEGER PRIMARY KEY, what TEXT); INSERT INTO orders VALUES (1, 'one')")
        .unwrap();
    drop(db);
    machine.ok(&["import", world_file.to_str().unwrap(), "app"]);
    machine.ok(&["push", "app"]);
    machine.ok(&["sql", "app", "INSERT INTO orders VALUES (2, 'two')"]);
    machine.ok(&["push", "app"]);
    machine.ok(&["sql", "app", "INSERT INTO orders VALUES (3, 'three'); CREATE INDEX by_what ON orders(what)"]);
    machine.ok(&["push", "app"]);
}

fn rows(machine: &Machine<'_>, volume: &str) -> serde_json::Value {
    machine.json(&["sql", volume, "SELECT count(*) AS n FROM orders"])[0]["n"].clone()
}

#[test]
fn any_moment_can_be_read_exported_and_verified() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    for machine in [&here, &there] {
        assert_eq!(
            (rows(machine, "app@1"), rows(machine, "app@2"), rows(machine, "app")),
            (1.into(), 2.into(), 3.into())
        );
        assert_eq!(rows(machine, "app@2999-01-01T00:00:00Z"), 3);
        let refused = machine.run(&["sql", "app@2", "DELETE FROM orders"]);
        refused.failed(1, "readonly");
        assert!(refused.stderr.contains("quire fork app@2 NEW"), "{refused:?}");
        machine.run(&["sql", "app@9", "SELECT 1"]).failed(1, "no LSN 9");
        machine.run(&["sql", "app@1999-01-01T00:00:00Z", "SELECT 1"]).failed(1, "at that time");
        assert_eq!(machine.json(&["verify", "--deep", "app@2"])["integrity_check"], true);
    }
    let old = world.path("old.db");
    here.ok(&["export", "app@1", old.to_str().unwrap()]);
    let exported = rusqlite::Connection::open(&old).unwrap();
    assert_eq!(exported.query_row("SELECT count(*) FROM orders", [], |row| row.get::<_, u32>(0)).unwrap(), 1);
    assert_eq!(here.json(&["info", "app@2"])["lsn"], 2);
    assert_eq!(here.json(&["info", "app@2999-01-01T00:00:00Z"])["lsn"], 3);
    here.run(&["push", "app@2"]).failed(2, "app@2");
}

#[test]
fn the_time_shown_for_a_commit_names_it() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    let log = here.json(&["log", "app"]);
    let entries = log.as_array().unwrap();
    assert_eq!(entries.len(), 3);
    for entry in entries {
        let moment = format!("app@{}", entry["time"].as_str().unwrap());
        assert_eq!(here.json(&["info", &moment]), *entry);
        assert_eq!(here.json(&["info", &format!("app@{}", entry["lsn"])]), *entry);
    }
    assert_eq!(there.json(&["info", "app"])["commit"], entries[0]);
    assert_eq!(there.json(&["fork", &format!("app@{}", entries[1]["time"].as_str().unwrap()), "try"])["from_lsn"], 2);
    // What is not kept has its author's time, and says so.
    here.ok(&["keep", "app", "last", "1"]);
    here.ok(&["gc", "app", "--grace", "0s"]);
    let log = here.json(&["log", "app"]);
    assert_eq!((&log[0], &log[2]["time"]), (&entries[0], &serde_json::Value::Null));
    let author_time = entries[2]["author_time"].as_str().unwrap();
    assert!(here.ok(&["log", "app"]).contains(&format!("({author_time})")));
}

#[test]
fn forks_go_their_own_way() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    let forked = here.json(&["fork", "app@2", "app-2"]);
    assert_eq!((&forked["from"], &forked["from_lsn"], &forked["lsn"]), (&"app".into(), &2.into(), &1.into()));
    // In the store at once, and from a machine that has no replica.
    assert_eq!(rows(&there, "app-2"), 2);
    there.ok(&["fork", "app", "app-3"]);
    there.ok(&["sql", "app-3", "DELETE FROM orders"]);
    assert_eq!((rows(&there, "app-3"), rows(&there, "app")), (0.into(), 3.into()));
    // With unpushed work it waits for a push.
    here.ok(&["sql", "app", "INSERT INTO orders VALUES (4, 'four')"]);
    let forked = here.json(&["fork", "app", "mine"]);
    assert_eq!(forked["lsn"], serde_json::Value::Null);
    there.run(&["clone", "mine"]).failed(1, "no volume mine");
    here.ok(&["push", "mine"]);
    assert_eq!(rows(&there, "mine"), 4);
    here.run(&["fork", "app", "mine"]).failed(1, "already");
    here.run(&["fork", "app", "app"]).failed(2, "another name");
    here.run(&["fork", "nobody", "new"]).failed(1, "nobody");
    assert_eq!(here.json(&["log", "mine"])[0]["kind"], "fork");
}

#[test]
fn a_restore_brings_an_old_snapshot_back_and_can_be_undone() {
    let world = World::new();
    let here = world.machine("here");
    app(&here);
    let restored = here.json(&["restore", "app@1"]);
    assert_eq!((&restored["from_lsn"], &restored["lsn"]), (&1.into(), &4.into()));
    assert_eq!(rows(&here, "app"), 1);
    here.ok(&["restore", "app@3"]);
    assert_eq!(rows(&here, "app"), 3);
    here.run(&["restore", "app"]).failed(2, "which snapshot");
    here.ok(&["sql", "app", "DELETE FROM orders"]);
    here.run(&["restore", "app@1"]).failed(3, "not in the store");
}

#[test]
fn a_checkpoint_serves_whoever_opens_the_volume_next() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    app(&here);
    let made = here.json(&["checkpoint", "app"]);
    assert!(made["lsn"] == 3 && made["bytes"].as_u64() > Some(0), "{made}");
    assert_eq!(here.json(&["checkpoint", "app"])["bytes"], 0);
    assert_eq!((rows(&there, "app"), rows(&there, "app@2")), (3.into(), 2.into()));
    here.run(&["checkpoint", "nobody"]).failed(1, "nobody");
}

#[test]
fn a_diff_names_pages_and_tables() {
    let world = World::new();
    let here = world.machine("here");
    app(&here);
    let diff = here.json(&["diff", "app", "1", "2"]);
    assert_eq!((&diff["from_lsn"], &diff["to_lsn"]), (&1.into(), &2.into()));
    assert_eq!(
        diff["owners"],
        serde_json::json!([{"kind": "table", "name": "orders", "table": null, "pages_changed": 1}])
    );
    let diff = here.json(&["diff", "app", "3", "2"]);
    let kinds: Vec<_> = diff["owners"].as_array().unwrap().iter().map(|share| share["kind"].clone()).collect();
    assert_eq!((diff["from_lsn"].clone(), kinds.len()), (2.into(), 3), "table, index and schema: {diff}");
    assert!(here.ok(&["diff", "app", "1", "3"]).contains("by_what"));
    here.run(&["diff", "app", "1", "yesterday"]).failed(2, "neither an LSN nor a time");
    let file = world.file("f", noise(1, 20_000));
    here.ok(&["import", file.to_str().unwrap(), "file"]);
    here.ok(&["push", "file"]);
    assert_eq!(here.json(&["diff", "file", "1", "1"])["pages_changed"], 0);
    assert_eq!(here.json(&["diff", "file", "1", "1"])["owners"], serde_json::Value::Null);
}
