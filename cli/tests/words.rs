//! Settings, wrong words, output that nobody reads, Ctrl-C.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ended, World, names_in, noise};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn config_names_the_source_of_each_value_and_flags_win() {
    let world = World::new();
    let here = world.machine("here");
    world.file("quire.toml", "sync = '7s'\nstore = 's3://never-used'\n");
    let config = here.json(&["--cache-size", "64MiB", "config"]);
    let of = |key: &str| {
        let setting = config.as_array().unwrap().iter().find(|setting| setting["key"] == key).unwrap();
        (setting["value"].as_str().unwrap().to_owned(), setting["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("cache_size"), ("64MiB".into(), "flag --cache-size".into()));
    assert_eq!(of("store"), (world.store_url(), "environment variable QUIRE_STORE".into()));
    assert_eq!(of("sync").0, "7s");
    assert!(of("sync").1.ends_with("quire.toml"));
    assert_eq!(of("log"), ("warn".into(), "default".into()));
}

#[test]
fn wrong_settings_are_named_before_anything_happens() {
    let world = World::new();
    let here = world.machine("here");
    for (words, cause) in [
        (["--store", "ftp://x", "ls"], "setting store (flag --store)"),
        (["ls", "--store", "http://host:7480/some/prefix"], "has the path \"/some/prefix\""),
        (["--sync", "often", "ls"], "setting sync (flag --sync)"),
        (["--cache-size", "big", "ls"], "setting cache_size (flag --cache-size)"),
        (["--log", "loud", "ls"], "setting log (flag --log)"),
    ] {
        here.run(&words).failed(2, cause);
    }
    world.file("quire.toml", "sotre = 'memory://'");
    let typo = here.run(&["ls"]);
    typo.failed(2, "quire.toml");
    assert!(typo.stderr.contains("Did you mean \"store\"?"), "{typo:?}");
    let variable = Ended::of(here.command(&["ls"]).env("QUIRE_CACHE_SZE", "1GiB").output().unwrap());
    variable.failed(2, "QUIRE_CACHE_SZE");
    assert!(!here.data_dir().exists());
    here.ok(&["version"]);
}

#[test]
fn wrong_words_are_usage_errors_in_text_and_in_json() {
    let world = World::new();
    let here = world.machine("here");
    for words in [vec![], vec!["fly"], vec!["push", "--fast"], vec!["wait", "v", "x"], vec!["create"]] {
        assert_eq!(here.run(&words).status, Some(2), "{words:?}");
    }
    let misplaced = here.run(&["rm", "app", "--store", "memory://"]);
    assert!(misplaced.status == Some(2) && misplaced.stderr.contains("'memory://'"), "{misplaced:?}");
    here.run(&["push", "a//b"]).failed(2, "has an empty part");
    here.run(&["export", "app@7", "file"]).failed(1, "no LSN 7");
    let ended = here.run(&["--json", "fly"]);
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!((&error["error"]["kind"], &error["error"]["exit_status"]), (&"usage".into(), &2.into()));
}

#[test]
fn the_store_may_be_named_behind_the_verb() {
    let world = World::new();
    let here = world.machine("here");
    let config = here.json(&["config", "--store", "s3://behind"]);
    assert!(config.as_array().unwrap().iter().any(|setting| setting["value"] == "s3://behind"), "{config}");
    assert!(here.ok(&["serve", "--help"]).contains("--store <URL>"));
}

#[test]
fn what_a_server_cannot_be_told_is_refused_with_what_it_can() {
    let world = World::new();
    let here = world.machine("here");
    let refused = here.run(&["serve", "--listen", "7480"]);
    assert!(refused.status == Some(2) && refused.stderr.contains("such as 127.0.0.1:7480"), "{refused:?}");
    // Ten bytes: somebody has forgotten the unit.
    for flag in ["--volume-quota", "--cache-memory"] {
        let refused = here.run(&["serve", "--listen", "localhost:0", flag, "10"]);
        refused.failed(2, flag);
        assert!(refused.stderr.contains("1MiB at least"), "{refused:?}");
    }
}

#[test]
fn every_verb_explains_itself() {
    let world = World::new();
    let here = world.machine("here");
    let help = here.ok(&["--help"]);
    for verb in [
        "create",
        "ls",
        "info",
        "import",
        "export",
        "push",
        "pull",
        "sync",
        "fetch",
        "status",
        "log",
        "clone",
        "reset",
        "wait",
        "mv",
        "rm",
        "sql",
        "hydrate",
        "verify",
        "watch",
        "config",
        "version",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} is not in the help");
        assert!(here.ok(&[verb, "--help"]).contains("Usage: quire"), "{verb}");
    }
    assert!(here.ok(&["help"]).contains("First steps:"));
    assert!(here.ok(&["help", "ls"]).contains("Usage: quire ls"));
    assert!(here.ok(&["help", "server", "info"]).contains("Usage: quire server info"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(here.ok(&["completions", shell]).contains("quire"), "{shell}");
    }
}

#[test]
fn a_second_process_on_a_data_directory_is_told_who_has_it() {
    let world = World::new();
    let here = world.machine("here");
    let file = world.file("file", "hello");
    here.ok(&["import", file.to_str().unwrap(), "v"]);
    here.ok(&["push", "v"]);
    let mut watch =
        here.command(&["watch", "--after", "0", "v"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Its first line comes once it has the data directory.
    watch.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    here.run(&["ls"]).failed(1, &watch.id().to_string());
    watch.kill().unwrap();
    watch.wait().unwrap();
    here.ok(&["ls"]);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let world = World::new();
    let here = world.machine("here");
    for words in [["completions", "bash"], ["--json", "config"]] {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        let ended = Ended::of(here.command(&words).stdout(writer).stderr(Stdio::piped()).output().unwrap());
        assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{words:?}");
    }
}

/// A file that takes a moment.
fn large_file(world: &World) -> PathBuf {
    let path = world.path("source");
    let mut file = File::create(&path).unwrap();
    let part = noise(3, 1 << 20);
    for _ in 0..64 {
        file.write_all(&part).unwrap();
    }
    path
}

/// Presses Ctrl-C once `begun` says that the work has begun. It may also have ended by then.
fn interrupt(mut command: Command, mut begun: impl FnMut() -> bool) -> bool {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !begun() {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    if ended.status == Some(0) {
        return false;
    }
    assert_eq!(ended.status, Some(130), "{ended:?}");
    assert!(ended.stderr.contains("interrupted"), "{ended:?}");
    true
}

#[test]
fn ctrl_c_in_an_import_leaves_nothing_and_a_retry_succeeds() {
    let world = World::new();
    let here = world.machine("here");
    let source = large_file(&world);
    let source = source.to_str().unwrap();
    if !interrupt(here.command(&["import", source, "v"]), || here.data_dir().exists()) {
        here.ok(&["rm", "--force", "v"]);
    }
    assert_eq!(here.json(&["ls"]), serde_json::json!([]));
    here.ok(&["import", source, "v"]);
    here.ok(&["push", "v"]);
    assert_eq!(world.machine("there").json(&["ls"])[0]["name"], "v");
}

#[test]
fn ctrl_c_in_a_push_loses_nothing_and_a_retry_succeeds() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    let source = large_file(&world);
    here.ok(&["import", source.to_str().unwrap(), "v"]);
    interrupt(here.command(&["push", "v"]), || world.path("store").exists());
    here.ok(&["push", "v"]);
    assert_eq!(here.json(&["status", "v"])[0]["state"], "clean");
    there.ok(&["clone", "v"]);
    there.ok(&["export", "v", "copy"]);
    assert!(std::fs::read(world.path("copy")).unwrap() == std::fs::read(source).unwrap());
}

#[test]
fn ctrl_c_in_an_export_leaves_no_file() {
    let world = World::new();
    let here = world.machine("here");
    let source = large_file(&world);
    here.ok(&["import", source.to_str().unwrap(), "v"]);
    let out = world.path("out");
    std::fs::create_dir(&out).unwrap();
    // Later and later, until it ends before: while pages are written, and while they are only to be made durable.
    for n in 0.. {
        let moment = Duration::from_micros(500).mul_f64(1.2_f64.powi(n));
        let mut seen = None;
        let begun = || {
            seen = seen.or_else(|| (!names_in(&out).is_empty()).then(Instant::now));
            seen.is_some_and(|seen| seen.elapsed() >= moment)
        };
        interrupt(here.command(&["export", "v", "out/copy"]), begun);
        let left = names_in(&out);
        if left == ["copy"] {
            break;
        }
        assert!(left.is_empty(), "after {moment:?}: {left:?}");
    }
    assert!(std::fs::read(out.join("copy")).unwrap() == std::fs::read(source).unwrap());
    here.ok(&["export", "--force", "v", "out/copy"]);
    assert_eq!(names_in(&out), ["copy"]);
}

#[test]
fn a_data_directory_that_can_not_be_made_is_a_clear_error() {
    let world = World::new();
    let here = world.machine("here");
    world.file("here", "a file where the folder should be");
    let ended = here.run(&["ls"]);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains("here"), "{ended:?}");
}

#[test]
fn a_store_that_does_not_exist_is_a_clear_error() {
    let world = World::new();
    let here = world.machine("here");
    let nowhere = world.file("file", "");
    let url = format!("file://{}/store", nowhere.display());
    let ended = here.run(&["--store", &url, "clone", "v"]);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains("\nremedy: "), "{ended:?}");
}
