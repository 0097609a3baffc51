//! Replicas and the store, as the command line shows them.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{Machine, World, names_in, noise};
use quire_engine::{PageSize, VolumeName};
use quire_settings::{Key, Overrides, Place, Source, load_from, open_engine};

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
    for timeout in ["1m", "1min", "1d"] {
        here.ok(&["wait", "--timeout", timeout, "v", "1"]);
    }
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
fn whoever_would_remove_a_snapshot_is_not_led_to_remove_the_volume() {
    let world = World::new();
    let here = world.machine("here");
    import(&here, &world, "my rep", 1);
    here.ok(&["push", "my rep"]);
    for words in [&["rm", "my rep@1"][..], &["rm", "my rep@1", "--force"], &["rm", "my rep@1", "--store"]] {
        let refused = here.run(words);
        refused.failed(2, "a snapshot of the past");
        assert!(refused.stderr.contains("quire keep 'my rep'"), "{refused:?}");
        assert!(!refused.stderr.contains("Leave out"), "{refused:?}");
    }
    assert_eq!(here.json(&["ls"])[0]["in_store"], true);
}

/// A volume that is called as no new one may be.
fn old_name(machine: &Machine<'_>, world: &World, name: &str) {
    let data_dir = machine.data_dir();
    let flags = Overrides::default().with(Key::DataDir, data_dir.to_str(), Source::Flag("--data-dir")).with(
        Key::Store,
        Some(&world.store_url()),
        Source::Flag("--store"),
    );
    let engine = open_engine(&load_from(&flags, &Place::default()).unwrap()).unwrap();
    let volume = engine.volume(&VolumeName::parse(name).unwrap()).unwrap();
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.set_page_size(PageSize::DEFAULT).unwrap();
    writer.commit(true).unwrap();
}

#[test]
fn a_volume_whose_name_means_a_snapshot_is_reached_by_its_whole_name() {
    let world = World::new();
    let here = world.machine("here");
    here.run(&["create", "rep@1"]).failed(2, "no new volume");
    old_name(&here, &world, "rep@1");
    here.ok(&["sql", "rep@1", "CREATE TABLE t(a)"]);
    here.ok(&["push", "rep@1"]);
    assert_eq!(here.json(&["info", "rep@1"])["name"], "rep@1");
    // Beside a volume of which it may be a snapshot nobody can tell.
    import(&here, &world, "rep", 1);
    here.ok(&["push", "rep"]);
    let both = here.run(&["info", "rep@1"]);
    both.failed(2, "rep@1 is a volume here, and a snapshot of volume rep too");
    assert!(both.stderr.contains("quire mv rep@1 NEW"), "{both:?}");
    here.ok(&["mv", "rep@1", "other"]);
    assert_eq!(here.json(&["info", "rep@1"])["lsn"], 1);
    assert_eq!(here.ok(&["sql", "other", ".tables"]), "t\n");
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

#[test]
fn a_name_that_stands_for_another_volume_here_is_told_apart_from_the_store_s_own() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    import(&there, &world, "prod", 1);
    import(&there, &world, "test", 2);
    there.ok(&["push"]);
    here.ok(&["clone", "prod", "test"]);

    let refused = here.run(&["rm", "test", "--store"]);
    refused.failed(2, "test here is volume prod in the store");
    assert!(refused.stderr.contains("`quire rm prod --store`"), "{refused:?}");
    let listed = |words: &[&str]| -> Vec<(String, String, bool, bool)> {
        let listed = here.json(words);
        let told = |volume: &serde_json::Value| {
            let text = |key: &str| volume[key].as_str().unwrap().to_owned();
            let is = |key: &str| volume[key].as_bool().unwrap();
            (text("name"), text("store_name"), is("here"), is("in_store"))
        };
        listed.as_array().unwrap().iter().map(told).collect()
    };
    let line = |name: &str, store_name: &str, here| (name.to_owned(), store_name.to_owned(), here, true);
    let of_test = [line("test", "test", false), line("test", "prod", true)];
    assert_eq!(listed(&["ls"]), [&[line("prod", "prod", false)][..], &of_test].concat());
    assert_eq!(listed(&["ls", "te"]), of_test, "though the store's name begins otherwise");
    assert!(here.ok(&["ls"]).contains("here, store (prod)"));
    assert_eq!(here.json(&["status", "test"])[0]["store_name"], "prod");
    assert_eq!(here.json(&["info", "test"])["store_name"], "prod");
    for words in [&["status"][..], &["status", "test"], &["info", "test"]] {
        assert!(here.ok(words).contains("name in the store"), "{words:?}");
        assert!(!there.ok(words).contains("name in the store"), "{words:?}");
    }
    // Under another name here there is no doubt which one is meant.
    here.ok(&["mv", "test", "mine"]);
    here.ok(&["rm", "test", "--store"]);
    here.ok(&["pull", "mine"]);
    there.run(&["pull", "test"]).failed(1, "volume test was deleted in the store");
}

#[test]
fn a_store_that_lacks_what_a_replica_stands_on_is_no_store_with_nothing_to_do() {
    let world = World::new();
    let here = world.machine("here");
    here.ok(&["create", "app"]);
    here.ok(&["sql", "app", "CREATE TABLE t(a)"]);
    here.ok(&["push", "app"]);
    let older = world.path("older");
    assert!(Command::new("cp").arg("-r").arg(world.path("store")).arg(&older).status().unwrap().success());
    here.ok(&["sql", "app", "INSERT INTO t VALUES (1)"]);
    here.ok(&["push", "app"]);
    let [empty, older] = [&world.path("empty"), &older].map(|path| format!("file://{}", path.display()));
    for unpushed in [0, 1] {
        if unpushed == 1 {
            here.ok(&["sql", "app", "INSERT INTO t VALUES (2)"]);
        }
        for verb in ["push", "pull", "sync", "fetch"] {
            let told = here.run(&["--store", &empty, verb, "app"]);
            told.failed(1, "has no volume app, though this replica has its commits up to LSN 2");
            assert!(told.stderr.contains("`quire config`") && told.stderr.contains("`quire export app "), "{told:?}");
            here.run(&["--store", &older, verb, "app"]).failed(3, "up to LSN 1 only");
        }
        here.run(&["--store", &empty, "reset", "app"]).failed(1, "has no volume app");
        assert_eq!(here.json(&["status", "app"])[0]["unpushed"], unpushed);
    }
    assert!(!world.path("empty").exists(), "nothing was written to it");
    assert_eq!(here.json(&["push", "app"])[0]["pushed_to_lsn"], 3);
    assert_eq!(here.ok(&["push", "app"]), "nothing to do\n");
}

#[test]
fn what_is_said_of_a_volume_that_was_deleted_in_the_store_leads_out() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    here.ok(&["create", "del"]);
    here.ok(&["sql", "del", "CREATE TABLE t(a)"]);
    here.ok(&["push", "del"]);
    there.ok(&["clone", "del"]);
    there.ok(&["sql", "del", "INSERT INTO t VALUES (1)"]);
    here.ok(&["rm", "del", "--store"]);
    // Each is a process of its own.
    for verb in ["push", "push", "pull", "sync", "reset"] {
        let told = there.run(&[verb, "del"]);
        told.failed(3, "volume del was deleted in the store at LSN 2");
        assert!(told.stderr.contains("`quire fork del NEW`") && !told.stderr.contains("quire reset"), "{told:?}");
    }
    let kept = there.run(&["rm", "del"]);
    kept.failed(3, "not in the store");
    assert!(kept.stderr.contains("`quire fork del NEW`") && !kept.stderr.contains("quire push"), "{kept:?}");
    there.ok(&["fork", "del", "mine"]);
    there.ok(&["push", "mine"]);
    there.ok(&["rm", "del", "--force"]);
    assert_eq!(here.ok(&["sql", "mine", "SELECT a FROM t"]).trim(), "1");
    assert!(here.ok(&["fetch", "del"]).contains("volume del was deleted in the store at LSN 2"));
}

#[test]
fn a_volume_that_was_never_pushed_is_pushed_and_a_new_one_is_made_only_to_be_written() {
    let world = World::new();
    let here = world.machine("here");
    import(&here, &world, "other", 1);
    here.ok(&["push", "other"]);
    import(&here, &world, "n1", 2);
    for words in [&["clone", "n1", "n3"][..], &["keep", "n1"], &["gc", "n1"], &["compact", "n1"]] {
        let told = here.run(words);
        told.failed(1, "n1");
        assert!(told.stderr.contains("`quire push n1`"), "{words:?}: {told:?}");
    }
    for words in [&["log", "nobody"][..], &["clone", "nobody"], &["mv", "nobody", "new"], &["info", "nobody"]] {
        let told = here.run(words);
        told.failed(1, "there is no volume nobody");
        assert!(told.stderr.contains("quire ls") && !told.stderr.contains("quire create"), "{words:?}: {told:?}");
    }
    let told = here.run(&["sql", "nobody", "SELECT 1"]);
    told.failed(1, "there is no volume nobody");
    assert!(told.stderr.contains("quire create nobody"), "{told:?}");
    let told = here.run(&["export", "other@latest", "copy"]);
    told.failed(1, "there is no volume other@latest");
    assert!(told.stderr.contains("other@7, other@2026-01-31T12:00:00Z"), "{told:?}");
}
