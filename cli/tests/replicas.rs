//! Replicas and the store, as the command line shows them.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Machine, World, names_in, noise};

/// A machine with a volume of its own, and a file to fill others with.
fn import(machine: &Machine<'_>, world: &World, name: &str, seed: u64) {
    let file = world.file("source", noise(seed, 20_000));
    machine.ok(&["import", file.to_str().unwrap(), name]);
}

#[test]
fn a_volume_is_listed_where_it_is() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    import(&here, &world, "a", 1);
    import(&here, &world, "b", 2);
    assert_eq!(there.json(&["ls"]), serde_json::json!([]));
    here.ok(&["push", "a"]);

    let listed = here.json(&["ls"]);
    assert_eq!(listed[0]["name"], "a");
    assert_eq!((&listed[0]["in_store"], &listed[0]["state"]), (&true.into(), &"clean".into()));
    assert_eq!((&listed[1]["in_store"], &listed[1]["state"]), (&false.into(), &"ahead".into()));
    let elsewhere = there.json(&["ls"]);
    assert_eq!((&elsewhere[0]["here"], &elsewhere[0]["in_store"]), (&false.into(), &true.into()));
    assert_eq!(there.json(&["info", "a"])["bytes"], 20_480);
}

#[test]
fn a_push_reaches_the_log_and_the_status_says_so() {
    let world = World::new();
    let here = world.machine("here");
    import(&here, &world, "v", 1);
    let status = here.json(&["status", "v"]);
    assert_eq!((&status[0]["state"], &status[0]["unpushed"]), (&"ahead".into(), &1.into()));

    let pushed = here.json(&["push"]);
    assert_eq!((&pushed[0]["pushed_to_lsn"], &pushed[0]["commits_pushed"]), (&1.into(), &1.into()));
    assert_eq!(here.json(&["status"])[0]["state"], "clean");
    let log = here.json(&["log", "v"]);
    assert_eq!(log.as_array().unwrap().len(), 1);
    assert_eq!((&log[0]["lsn"], &log[0]["page_count"]), (&1.into(), &5.into()));
    assert_eq!(here.json(&["info", "v@1"])["commit_id"], log[0]["commit_id"]);
    here.run(&["info", "v@2"]).failed(1, "no LSN 2");
    here.ok(&["wait", "v", "1"]);
    here.run(&["wait", "--timeout", "10ms", "v", "2"]).failed(1, "LSN 2");
    here.run(&["wait", "--timeout", "soon", "v", "2"]).failed(2, "--timeout");
}

#[test]
fn two_volumes_of_one_name_diverge_and_reset_keeps_the_loser_s_work() {
    let world = World::new();
    let (winner, loser) = (world.machine("winner"), world.machine("loser"));
    import(&winner, &world, "v", 1);
    import(&loser, &world, "v", 2);
    winner.ok(&["push", "v"]);

    loser.run(&["push", "v"]).failed(3, "push of v");
    let status = loser.json(&["status", "v"]);
    assert_eq!(status[0]["state"], "diverged");
    assert!(status[0]["remedy"].as_str().unwrap().contains("quire reset v"), "{status}");
    let kept = loser.json(&["reset", "v"])["kept_as"].as_str().unwrap().to_owned();
    loser.ok(&["export", "v", "theirs"]);
    loser.ok(&["export", &kept, "mine"]);
    assert!(std::fs::read(world.path("theirs")).unwrap() == noise(1, 20_000));
    assert!(std::fs::read(world.path("mine")).unwrap() == noise(2, 20_000));
    assert_eq!(loser.json(&["status", "v"])[0]["state"], "clean");
}

#[test]
fn one_volume_that_fails_does_not_stop_the_others() {
    let world = World::new();
    let here = world.machine("here");
    import(&here, &world, "v", 1);
    let ended = here.run(&["--json", "push", "missing", "v"]);
    assert_eq!(ended.status, Some(1));
    let pushed: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(pushed[0]["name"], "v");
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "not_found");
    assert!(error["error"]["remedy"].as_str().unwrap().contains("quire clone missing"));
}

#[test]
fn unpushed_work_is_removed_only_by_force() {
    let world = World::new();
    let here = world.machine("here");
    import(&here, &world, "v", 1);
    here.run(&["rm", "v"]).failed(3, "v");
    assert_eq!(here.json(&["ls"]).as_array().unwrap().len(), 1);
    here.ok(&["push", "v"]);
    here.ok(&["rm", "v"]);
    let listed = here.json(&["ls"]);
    assert_eq!((&listed[0]["here"], &listed[0]["in_store"]), (&false.into(), &true.into()));

    here.ok(&["clone", "v", "copy"]);
    here.run(&["clone", "v", "copy"]).failed(1, "copy");
    here.ok(&["rm", "--store", "v"]);
    assert_eq!(world.machine("there").json(&["ls"]), serde_json::json!([]));
    world.machine("there").run(&["clone", "v"]).failed(1, "v");

    import(&here, &world, "w", 2);
    here.ok(&["rm", "--force", "w"]);
    here.run(&["status", "w"]).failed(1, "w has no replica");
}

#[test]
fn a_replica_that_is_damaged_is_removed_by_force_as_the_remedy_says() {
    let world = World::new();
    let here = world.machine("here");
    import(&here, &world, "v", 1);
    here.ok(&["push", "v"]);
    let replica = std::fs::read_dir(here.data_dir().join("replicas")).unwrap().next().unwrap().unwrap().path();
    // The table file proves that there was a log.
    std::fs::remove_dir_all(replica.join("log")).unwrap();
    let refused = here.run(&["status", "v"]);
    refused.failed(4, "log");
    assert!(refused.stderr.contains("`quire rm NAME --force` and `quire clone NAME`"), "{refused:?}");
    here.run(&["rm", "v"]).failed(4, "log");
    here.ok(&["rm", "v", "--force"]);
    here.ok(&["clone", "v"]);
    assert_eq!(here.json(&["status", "v"])[0]["state"], "clean");
}

#[test]
fn a_volume_can_be_renamed_and_followed() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    import(&here, &world, "old", 1);
    here.ok(&["push", "old"]);
    import(&here, &world, "other", 2);
    here.ok(&["push", "other"]);
    let taken = here.run(&["mv", "old", "other"]);
    assert_eq!(taken.status, Some(1), "{taken:?}");
    here.ok(&["mv", "old", "team/new"]);
    there.ok(&["clone", "team/new"]);
    there.ok(&["export", "team/new", "copy"]);
    assert!(std::fs::read(world.path("copy")).unwrap() == noise(1, 20_000));
    there.run(&["clone", "old"]).failed(1, "old");
}

#[test]
fn hydrate_makes_a_replica_that_needs_no_store() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    import(&here, &world, "v", 1);
    here.ok(&["push", "v"]);
    there.ok(&["clone", "v"]);
    assert_eq!(there.json(&["hydrate", "v"])["pages_fetched"], 5);
    std::fs::rename(world.path("store"), world.path("moved-away")).unwrap();
    there.ok(&["export", "v", "copy"]);
    assert!(std::fs::read(world.path("copy")).unwrap() == noise(1, 20_000));
}

#[test]
fn watch_prints_each_commit_until_it_is_interrupted() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    import(&here, &world, "v", 1);
    here.ok(&["push", "v"]);
    let mut watch = there
        .command(&["--json", "watch", "--after", "0", "v"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["lsn"], 1);
    here.ok(&["rm", "--store", "v"]);
    let second = next();
    assert_eq!((&second["lsn"], &second["kind"]), (&2.into(), &"deleted".into()));
    rustix::process::kill_process(rustix::process::Pid::from_child(&watch), rustix::process::Signal::INT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(130));
}

#[test]
fn a_store_whose_disk_is_not_mounted_is_away_and_no_new_store_is_made_in_its_place() {
    let world = World::new();
    let (here, cold, there) = (world.machine("here"), world.machine("cold"), world.machine("there"));
    here.ok(&["create", "app"]);
    here.ok(&["sql", "app", "CREATE TABLE t(a)"]);
    here.ok(&["push", "app"]);
    cold.ok(&["clone", "app"]);
    let (store, elsewhere) = (world.path("store"), world.path("elsewhere"));
    for is_mount_point in [false, true] {
        std::fs::rename(&store, &elsewhere).unwrap();
        if is_mount_point {
            std::fs::create_dir(&store).unwrap();
        }
        let new = if is_mount_point { "second" } else { "first" };
        let fork = format!("{new}-fork");
        here.ok(&["create", new]);
        here.ok(&["sql", new, "CREATE TABLE t(a)"]);
        here.ok(&["sql", "app", "INSERT INTO t VALUES (1)"]);
        for words in [["push", "app"], ["push", new], ["pull", "app"], ["clone", "other"], ["gc", "app"]] {
            here.run(&words).failed(1, "was in its folder before, and is not there now");
        }
        cold.run(&["clone", "other"]).failed(1, "is not there now");
        assert_eq!(here.json(&["status", "app"])[0]["unpushed"], 1);
        assert_eq!(cold.json(&["fork", "app", &fork])["lsn"], serde_json::Value::Null);
        if is_mount_point {
            assert!(names_in(&store).is_empty());
            std::fs::remove_dir(&store).unwrap();
        }
        std::fs::rename(&elsewhere, &store).unwrap();
        for volume in ["app", new] {
            here.ok(&["push", volume]);
        }
        cold.ok(&["push", &fork]);
        for volume in ["app", new, &fork] {
            there.ok(&["clone", volume]);
        }
        there.ok(&["rm", "app", "--force"]);
    }
}
