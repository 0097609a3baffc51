//! A store that refuses, is away or is of a newer format, and Ctrl-C: each time a
//! clear error with its remedy, and nothing is lost.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use quire_e2e::{Ended, Machine, World, files_below, text_of};
use quire_testkit::{S3Server, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_store_that_denies_access_says_so_and_keeps_nobody_s_work() {
    let server = S3Server::shared();
    let url = server.url("denied");
    let writers = World::with_store(&url, server.variables());
    let readers = World::with_store(&url, server.reader_variables());
    let mut wrong = server.variables();
    wrong.iter_mut().filter(|(name, _)| name == "AWS_SECRET_ACCESS_KEY").for_each(|(_, secret)| secret.push('x'));
    let strangers = World::with_store(&url, wrong);

    let owner = writers.machine("owner");
    let file = owner.import_sample("app", 50);
    owner.ok(&["push", "app"]);
    let reader = readers.machine("reader");
    reader.holds("app", &file);
    let mut app = reader.app("app");
    app.sql("INSERT INTO t VALUES (1000, 'mine')");
    let denied = app.failure("SELECT quire_push()");
    assert!(denied.message.contains("403 AccessDenied") && denied.message.contains("credentials"), "{denied:?}");
    assert_eq!(app.one("SELECT unpushed FROM quire_status"), "1");
    app.finish();
    reader.run(&["push", "app"]).failed(1, "denied");
    // The same data directory, now with credentials that may write.
    writers.machine_at(reader.data_dir().to_owned()).ok(&["push", "app"]);
    assert_eq!(owner.ok(&["pull", "app"]).lines().count(), 1);
    assert_eq!(owner.app("app").one("SELECT body FROM t WHERE n = 1000"), "mine");

    let stranger = strangers.machine("stranger");
    for words in [&["ls"][..], &["clone", "app"], &["--json", "info", "app"]] {
        let refused = stranger.run(words);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("denied") && refused.stderr.contains("remedy"), "{refused:?}");
    }
}

#[test]
fn a_store_that_is_not_there_keeps_local_work_going() {
    let world = World::with_store(
        "s3://nowhere/x",
        vec![
            ("AWS_ENDPOINT_URL".into(), "http://127.0.0.1:9".into()),
            ("AWS_ALLOW_HTTP".into(), "true".into()),
            ("AWS_ACCESS_KEY_ID".into(), "a".into()),
            ("AWS_SECRET_ACCESS_KEY".into(), "b".into()),
        ],
    );
    let machine = world.machine("machine");
    let file = machine.import_sample("app", 10);
    machine.run(&["push", "app"]).failed(1, "app");
    machine.holds("app", &file);
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let world = World::new();
    let here = world.machine("here");
    let file = here.import_sample("app", 10);
    here.ok(&["push", "app"]);
    let marker = world.path("store/.quire/store");
    let ours = fs::read(&marker).unwrap();
    let mut newer = ours.clone();
    newer[4] += 1;
    newer.extend(b"what only a newer program knows");
    fs::write(&marker, &newer).unwrap();

    here.ok(&["sql", "app", "INSERT INTO t VALUES (1000, 'mine')"]);
    let before = files_below(&world.path("store"));
    let refused = here.run(&["push", "app"]);
    refused.failed(2, "format version 2");
    assert!(refused.stderr.contains("newer version of Quire"), "{refused:?}");
    assert_eq!(files_below(&world.path("store")), before);
    fs::write(&marker, ours).unwrap();
    here.ok(&["push", "app"]);

    // A newer commit, in a store whose layout is as it was.
    let newest = commits(&world).swap_remove(0);
    let ours = fs::read(&newest).unwrap();
    let mut newer = ours.clone();
    newer[4] += 1;
    fs::write(&newest, newer).unwrap();
    let refused = world.machine("there").run(&["clone", "app"]);
    refused.failed(4, "format version 2");
    assert!(refused.stderr.contains("newer version of Quire"), "{refused:?}");
    fs::write(&newest, ours).unwrap();
    let mut plain = here.plain_app(&file);
    plain.sql("INSERT INTO t VALUES (1000, 'mine')");
    plain.finish();
    world.machine("there").holds("app", &file);
}

/// The commits of the volume in the store, the newest first.
fn commits(world: &World) -> Vec<PathBuf> {
    files_below(&world.path("store/v/app/!/c"))
}

/// Presses Ctrl-C at a random moment; whether it came before the end.
fn interrupt(machine: &Machine<'_>, words: &[&str], rng: &mut StdRng, longest: Duration) -> bool {
    let mut command = machine.command(words);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Not to wait for anything: this is the random moment.
    std::thread::sleep(rng.random_range(Duration::ZERO..longest));
    // It fails only if the process has ended, which nobody has asked for yet.
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.code().is_none() {
        // Before the program could say what Ctrl-C does.
        return true;
    }
    let ended = Ended::of(output);
    if ended.status == Some(0) {
        return false;
    }
    ended.failed(130, "interrupted");
    true
}

#[test]
fn ctrl_c_at_any_moment_of_an_import_and_a_push_loses_nothing() {
    let mut rng = StdRng::seed_from_u64(seed());
    let world = World::new();
    let here = world.machine("here");
    let file = here.import_sample("app", 30_000);
    here.ok(&["rm", "--force", "app"]);
    let mut interrupted = 0;
    for _ in 0..10 {
        interrupted +=
            u32::from(interrupt(&here, &["import", text_of(&file), "app"], &mut rng, Duration::from_millis(300)));
        // Ctrl-C may also come after the last thing that was to be done.
        if here.json(&["ls"]) != serde_json::json!([]) {
            here.holds("app", &file);
            here.ok(&["rm", "--force", "app"]);
        }
    }
    here.ok(&["import", text_of(&file), "app"]);
    for round in 0..10 {
        // So that there is something to push each time.
        here.ok(&["sql", "app", &format!("UPDATE t SET body = randomblob(1000 + {round}) WHERE n % 2 = {round} % 2")]);
        interrupted += u32::from(interrupt(&here, &["push", "app"], &mut rng, Duration::from_millis(400)));
        assert_eq!(here.ok(&["sql", "app", "SELECT count(*) FROM t"]), "30000\n");
    }
    println!("{interrupted} of 20 were interrupted");
    here.ok(&["push", "app"]);
    assert_eq!(here.json(&["status", "app"])[0]["state"], "clean");
    here.ok(&["export", "app", text_of(&world.path("mine.db"))]);
    world.machine("there").holds("app", &world.path("mine.db"));
}
