//! Too few file descriptors, too little memory, and a store that goes away for a
//! while: what fails says what to do, that helps, and nothing is lost.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Output;

use quire_e2e::{App, Ended, Machine, World, text_of};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Runs `quire` with at most `limit` of a resource, its own descriptors and threads included.
fn run_limited(machine: &Machine<'_>, resource: Resource, limit: u64, words: &[&str]) -> Output {
    let mut quire = machine.command(words);
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    // SAFETY: between fork and exec it makes this one system call, and allocates nothing.
    unsafe { quire.pre_exec(move || Ok(setrlimit(resource, limit)?)) };
    quire.output().unwrap()
}

/// From now on a program can open no file, or as many as this process can. Those that are open stay so. The limit is
/// one of the descriptors' numbers, not of how many there are, so only a limit of none means the same on every machine.
fn let_open_files(app: &App, allowed: bool) {
    let own = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: if allowed { own.current } else { Some(0) }, ..own };
    prlimit(Some(Pid::from_child(app.process())), Resource::Nofile, limit).unwrap();
}

fn insert(n: u64) -> String {
    format!("INSERT INTO t VALUES ({n}, randomblob(2000000))")
}

#[test]
fn a_program_without_file_descriptors_says_so_and_goes_on_once_it_has_more() {
    let world = World::new();
    let mut app = world.machine("machine").app("app");
    app.sql("CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB)");
    let_open_files(&app, false);
    // Local work goes on until the log needs another file.
    let mut committed = 0;
    while app.try_sql(&insert(committed + 1)).is_ok() {
        committed += 1;
        assert!(committed < 100, "the log needs no other file");
    }
    assert!(committed > 0, "the log had a file to write to");
    let remedy = app.one("SELECT remedy FROM quire_status");
    assert!(remedy.contains("ulimit -n"), "{remedy}");
    let failure = app.failure("SELECT quire_push()");
    assert!(failure.message.contains("ulimit -n"), "{failure:?}");
    assert_eq!(app.one("SELECT count(*), coalesce(max(n), 0) FROM t"), format!("{committed}|{committed}"));
    let_open_files(&app, true);
    app.sql(&insert(committed + 1));
    app.sql("SELECT quire_push()");
    assert_eq!(app.one("PRAGMA integrity_check"), "ok");
    app.finish();
    let mut fresh = world.machine("fresh").app("app");
    assert_eq!(fresh.one("SELECT count(*), max(n) FROM t"), format!("{0}|{0}", committed + 1));
}

/// Commands under ever higher limits of a resource, until a limit is enough for all of them. How much that is depends
/// on the machine: on its number of cores, on its loader. What fails has this cause; without one it may end anyhow.
fn lose_nothing_until_all_succeed(resource: Resource, limits: impl Iterator<Item = u64>, cause: Option<&str>) {
    let world = World::new();
    let machine = world.machine("machine");
    let file = machine.import_sample("app", 40_000);
    let mut rounds = 0;
    for (n, limit) in limits.enumerate() {
        let mut failed = 0;
        let mut attempt = |machine: &Machine<'_>, words: &[&str]| {
            let output = run_limited(machine, resource, limit, words);
            let status = output.status.code();
            println!("{resource:?} {limit}: {words:?}: {status:?}");
            if let Some(cause) = cause {
                let ended = Ended::of(output);
                if status == Some(1) {
                    ended.failed(1, cause);
                }
            }
            failed += u32::from(status != Some(0));
            status == Some(0)
        };
        let name = format!("copy{n}");
        let succeeded = attempt(&machine, &["import", text_of(&file), &name]);
        let is_there = machine.json(&["ls"]).to_string().contains(&format!("{name:?}"));
        assert!(is_there == succeeded || is_there && cause.is_none(), "{name}: there {is_there}, said {succeeded}");
        if !succeeded {
            // What ends anyhow may have committed before: then it has imported all of it. Else the same command goes on,
            // also if it ended with the volume made and nothing in it.
            let again = machine.run(&["import", text_of(&file), &name]);
            if again.status != Some(0) {
                assert!(is_there, "{again:?}");
                again.failed(1, "exists already");
            }
        }
        machine.holds(&name, &file);
        if !attempt(&machine, &["push", &name]) {
            machine.ok(&["push", &name]);
        }
        let fresh = world.machine(&format!("fresh{n}"));
        for words in [&["clone", name.as_str()][..], &["hydrate", &name]] {
            if attempt(&fresh, words) {
                continue;
            }
            let again = fresh.run(words);
            if again.status != Some(0) {
                // What ends anyhow may have done it before.
                assert!(cause.is_none() && words[0] == "clone", "{again:?}");
                again.failed(1, "is here already");
            }
        }
        fresh.holds(&name, &file);
        rounds += 1;
        if failed == 0 {
            break;
        }
    }
    assert!(rounds > 1, "the lowest limit was enough");
}

#[test]
fn commands_with_too_few_descriptors_lose_nothing() {
    let limits = (4..16).chain((4..).map(|power| 1 << power));
    lose_nothing_until_all_succeed(Resource::Nofile, limits, Some("open files"));
}

#[test]
fn commands_with_too_little_memory_lose_nothing() {
    // Bytes of address space, threads' stacks included: from less than the program itself to more than it needs. What
    // cannot allocate ends at once, wherever it is, and some libraries panic then.
    let limits = (0..).map(|n| (16 << 20) * 3_u64.pow(n / 2) * (1 + u64::from(n % 2)));
    lose_nothing_until_all_succeed(Resource::As, limits, None);
}

#[test]
fn a_store_that_goes_away_and_comes_back_gets_everything_by_itself() {
    let world = World::new();
    let mut app = world.machine("machine").app_with("app", "&sync=20ms");
    let wait_for = |app: &mut App, condition: &str| {
        while app.one(&format!("SELECT {condition} FROM quire_status")) != "1" {
            std::thread::yield_now();
        }
    };
    app.sql("CREATE TABLE t (n INTEGER PRIMARY KEY)");
    wait_for(&mut app, "unpushed = 0 AND base_lsn > 0");
    let (store, away) = (world.path("store"), world.path("away"));
    for round in 0..3 {
        fs::rename(&store, &away).unwrap();
        // What is there instead is no folder, as where nothing is mounted.
        fs::write(&store, "").unwrap();
        for n in 0..20 {
            app.sql(&format!("INSERT INTO t VALUES ({})", round * 20 + n));
        }
        wait_for(&mut app, "last_error IS NOT NULL AND remedy IS NOT NULL AND unpushed > 0");
        fs::remove_file(&store).unwrap();
        fs::rename(&away, &store).unwrap();
        wait_for(&mut app, "unpushed = 0 AND state = 'clean' AND last_error IS NULL");
    }
    app.finish();
    assert_eq!(world.machine("fresh").app("app").one("SELECT count(*), max(n) FROM t"), "60|59");
}
