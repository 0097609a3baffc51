//! A served store, through the real programs: a server in a process of its own, clients that have nothing but its
//! address, and a server that is killed and comes back.
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use quire_e2e::{Machine, World};
use quire_testkit::{Line, Trouble, Venv};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn sum(machine: &Machine<'_>, volume: &str) -> String {
    machine.ok(&["sql", volume, "select sum(n) from t"]).trim().to_owned()
}

#[test]
fn what_one_client_pushes_through_a_server_others_read_with_and_without_it() {
    let there = World::new();
    let server = there.serve(0);
    let here = World::with_store(&server.url, Vec::new());
    let (a, b, direct) = (here.machine("a"), here.machine("b"), there.machine("c"));
    a.ok(&["create", "app"]);
    a.ok(&["sql", "app", "create table t(n); insert into t values (1), (2)"]);
    a.ok(&["push", "app"]);
    b.ok(&["clone", "app"]);
    assert_eq!(sum(&b, "app"), "3");
    b.ok(&["sql", "app", "insert into t values (10)"]);
    b.ok(&["push", "app"]);
    // Both have written: the loser is told, and keeps its work.
    a.ok(&["sql", "app", "insert into t values (100)"]);
    a.run(&["push", "app"]).failed(3, "has diverged");
    a.ok(&["reset", "app"]);
    assert_eq!((sum(&a, "app"), sum(&a, "app.dropped-1")), ("13".into(), "103".into()));
    // Who goes to the store directly is a writer like any other.
    direct.ok(&["clone", "app"]);
    assert_eq!(sum(&direct, "app"), "13");
    direct.ok(&["sql", "app", "insert into t values (1000)"]);
    direct.ok(&["push", "app"]);
    a.ok(&["pull", "app"]);
    assert_eq!(sum(&a, "app"), "1013");
    // History and the care of it, through the server.
    a.ok(&["fork", "app@1", "old"]);
    assert_eq!(sum(&a, "old"), "3");
    a.ok(&["checkpoint", "app"]);
    a.ok(&["keep", "app", "last", "1"]);
    a.ok(&["gc", "--grace", "0s"]);
    a.ok(&["compact", "app"]);
    a.ok(&["verify", "app", "--deep"]);
    b.ok(&["mv", "old", "older"]);
    b.ok(&["rm", "older", "--store"]);
    let names: Vec<_> = a.json(&["ls"]).as_array().unwrap().iter().map(|volume| volume["name"].clone()).collect();
    assert!(names.contains(&"app".into()) && !names.contains(&"older".into()), "{names:?}");
}

/// Says that it is over as soon as this goes out of scope, also by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn a_server_that_is_killed_and_comes_back_costs_nothing_that_was_acknowledged() {
    let mut rng = StdRng::seed_from_u64(quire_testkit::seed());
    let there = World::new();
    let mut server = there.serve(0);
    let here = World::with_store(&server.url, Vec::new());
    let (a, direct) = (here.machine("a"), there.machine("b"));
    a.ok(&["create", "app"]);
    a.ok(&["sql", "app", "create table t(n, pad)"]);
    a.ok(&["push", "app"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, there) = (&done, &there);
        scope.spawn(move || {
            while !done.load(SeqCst) {
                // Somewhere in a push.
                (0..rng.random_range(0..20_000_u32)).for_each(|_| std::thread::yield_now());
                let port = server.port();
                server.kill();
                server = there.serve(port);
            }
        });
        let _ends = Ends(done);
        for n in 1..=12 {
            a.ok(&["sql", "app", &format!("insert into t values ({n}, randomblob(300000))")]);
            // What breaks off is said, and the same command goes on.
            let attempts = (0..).take_while(|_| a.run(&["push", "app"]).status != Some(0)).count();
            println!("row {n} needed {} attempts", attempts + 1);
        }
    });
    direct.ok(&["clone", "app"]);
    let rows = direct.ok(&["sql", "app", "select printf('%d rows, %d', count(*), sum(n)) from t"]);
    assert_eq!(rows.trim(), "12 rows, 78");
    direct.ok(&["verify", "app", "--deep"]);
    assert_eq!(direct.json(&["log", "app"]).as_array().unwrap().len(), 13, "no commit came twice");
}

#[test]
fn over_a_line_that_cuts_delays_and_stalls_nothing_acknowledged_is_lost_and_no_commit_comes_twice() {
    let mut rng = StdRng::seed_from_u64(quire_testkit::seed());
    let there = World::new();
    let server = there.serve(0);
    let line = Line::start(server.address(), move || {
        let somewhere = rng.random_range(0..400_000_u64) >> rng.random_range(0..8);
        match rng.random_range(0..8) {
            0 => Trouble::None,
            1 => Trouble::Delay(Duration::from_millis(rng.random_range(1..40))),
            2 => Trouble::Stall(somewhere, Duration::from_millis(rng.random_range(1..1500))),
            _ => Trouble::Cut(somewhere),
        }
    });
    let here = World::with_store(&format!("http://{}", line.address()), Vec::new());
    let (a, b, direct) = (here.machine("a"), here.machine("b"), there.machine("direct"));
    // What breaks off is said, and the same command goes on.
    let at_last = |machine: &Machine<'_>, words: &[&str]| {
        for attempt in 1.. {
            let ended = machine.run(words);
            if ended.status == Some(0) {
                return ended.stdout;
            }
            ended.failed(1, "");
            assert!(attempt < 50, "{ended:?}");
        }
        unreachable!()
    };
    a.ok(&["create", "app"]);
    a.ok(&["sql", "app", "create table t(n, pad)"]);
    at_last(&a, &["push", "app"]);
    at_last(&b, &["clone", "app"]);
    for n in 1..=12 {
        a.ok(&["sql", "app", &format!("insert into t values ({n}, randomblob(200000))")]);
        at_last(&a, &["push", "app"]);
        at_last(&b, &["pull", "app"]);
        let rows = at_last(&b, &["sql", "app", "select count(*), sum(n), sum(length(pad)) from t"]);
        assert_eq!(rows.trim(), format!("{n}\t{}\t{}", n * (n + 1) / 2, n * 200_000));
    }
    println!("{} connections met trouble", line.troubles());
    assert!(line.troubles() > 0);
    direct.ok(&["clone", "app"]);
    direct.ok(&["verify", "app", "--deep"]);
    assert_eq!(direct.json(&["log", "app"]).as_array().unwrap().len(), 13, "no commit came twice");
}

#[test]
fn a_server_ends_by_sigterm_and_says_what_it_cannot_do() {
    let there = World::new();
    let mut server = there.serve(0);
    let pid = rustix::process::Pid::from_raw(server.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(server.wait().success());
    let here = World::with_store(&server.url, Vec::new());
    here.machine("a").run(&["clone", "app"]).failed(1, "server");
    let machine = there.machine("a");
    machine.run(&["serve", "--listen", "0.0.0.0:0"]).failed(1, "asks for no token");
    let folder = there.path("cache");
    let words = ["--cache-dir", folder.to_str().unwrap(), "--cache-disk", "64MiB"];
    let _keeps = there.serve_with(0, &words, std::process::Stdio::inherit());
    machine.run(&[&["serve", "--listen", "127.0.0.1:0"], &words[..]].concat()).failed(1, "another server's");
    machine.run(&["serve", "--listen", "127.0.0.1:0", "--http", "here"]).failed(2, "--http");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    machine.run(&["serve", "--listen", &address]).failed(1, &address);
    here.machine("a").run(&["serve"]).failed(2, "is a server itself");
}

#[test]
fn a_client_in_another_language_needs_nothing_but_the_address() {
    let there = World::new();
    let server = there.serve(0);
    let here = World::with_store(&server.url, Vec::new());
    let a = here.machine("a");
    a.ok(&["create", "app"]);
    for sql in
        ["create table t(n, pad)", "insert into t values (1, randomblob(500000))", "insert into t values (2, '')"]
    {
        a.ok(&["sql", "app", sql]);
        a.ok(&["push", "app"]);
    }
    Venv::with("grpcio-reflection==1.85.1");
    let python = Venv::with("grpcio-health-checking==1.85.1").program("python3");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/by_reflection.py");
    let address = server.address();
    let output = std::process::Command::new(python).args([script, address, "app"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["codes"], serde_json::json!({"missing": "NOT_FOUND", "wrong": "INVALID_ARGUMENT"}));
    assert!(told["bytes"].as_u64() > Some(500_000), "{told}");
}
