//! A server as the store: who has the data directory does not matter, and what cannot be reached is named.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use common::World;

/// `quire serve` on free ports of this machine.
struct Serving {
    child: Child,
    url: String,
    http: String,
}

impl Serving {
    fn of(world: &World) -> Serving {
        let words = ["--json", "serve", "--listen", "localhost:0", "--http", "localhost:0", "--no-maintenance"];
        let mut child = world.machine("server").command(&words).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = |field: &str| told[field].as_str().unwrap().to_owned();
        Serving { child, url: address("url"), http: address("http") }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_server_is_asked_while_a_program_has_the_data_directory() {
    let world = World::new();
    let (server, here) = (Serving::of(&world), world.machine("here"));
    let store = ["--store", &server.url];
    for words in [["create", "v"], ["push", "v"]] {
        here.ok(&[store, words].concat());
    }
    let words = ["--store", &server.url, "watch", "--after", "0", "v"];
    let mut watch = here.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    // Its first line comes once it has the data directory.
    watch.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    for words in [&["server", "info"][..], &["server", "whoami"], &["server", "runs"], &["server", "volume", "v"]] {
        here.ok(&[words, &store].concat());
    }
    here.run(&["ls"]).failed(1, &watch.id().to_string());
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_server_that_cannot_be_reached_is_named_with_the_cause_and_what_helps() {
    let world = World::new();
    let server = Serving::of(&world);
    let cases = [
        ("http://127.0.0.1:1".to_owned(), "Connection refused", "Check the network"),
        (server.url.replace("http:", "https:"), "InvalidContentType", "plain http?"),
        (server.http.clone(), "404", "port for metrics"),
    ];
    // Each is tried again for a while.
    std::thread::scope(|scope| {
        for (url, cause, remedy) in &cases {
            let here = world.machine("here");
            scope.spawn(move || {
                let refused = here.run(&["server", "info", "--store", url]);
                refused.failed(1, cause);
                assert!(refused.stderr.starts_with(&format!("error: the server {url}: ")), "{refused:?}");
                assert!(refused.stderr.contains(remedy), "{refused:?}");
            });
        }
    });
}
