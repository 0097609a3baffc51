//! The console: what people see of a server, in a real browser.
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use quire_e2e::{Served, World};
use quire_testkit::browser_script;
use serde_json::Value;

/// Shows the console in a browser, and does `commit` once it waits for one. What it has seen.
fn look(server: &Served, volume: &str, pictures: &Path, token: Option<&str>, commit: impl FnOnce()) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/console.mjs");
    let mut command = browser_script(&script);
    command.args([&server.http, volume]).arg(pictures).args(token);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().map(Result::unwrap);
    if first.as_deref() == Some("watching") {
        commit();
    }
    let last = lines.last().map(Result::unwrap);
    assert!(child.wait().unwrap().success(), "{first:?} {last:?}");
    serde_json::from_str(&last.unwrap()).unwrap()
}

fn get(server: &Served, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(server.http.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn people_see_how_a_server_and_its_volumes_are() {
    let there = World::new();
    let server = there.serve(0);
    let here = World::with_store(&server.url, Vec::new());
    let machine = here.machine("machine");
    // A name that would do harm if it were taken for markup.
    let volumes = ["team/app.db", "team/<img src=x onerror=alert(1)>", "zoo"];
    for volume in volumes {
        machine.ok(&["create", volume]);
        machine.ok(&["sql", volume, "create table t(n); insert into t values (randomblob(100000))"]);
        machine.ok(&["push", volume]);
    }
    machine.ok(&["verify", "team/app.db", "--deep"]);
    machine.ok(&["compact", "team/app.db"]);
    let seen = look(&server, "team/app.db", &there.path(""), None, || {
        machine.ok(&["sql", "team/app.db", "insert into t values (2)"]);
        machine.ok(&["push", "team/app.db"]);
    });
    assert_eq!(seen["problems"], serde_json::json!([]));
    let mut sorted = volumes;
    sorted.sort_unstable();
    assert_eq!(seen["volumes"], serde_json::json!(sorted));
    assert_eq!((seen["lsn"].as_str(), seen["live"].as_str()), (Some("1"), Some("2")));
    assert_eq!(seen["runs"], serde_json::json!(["compact", "verify-deep"]));
    assert_eq!(seen["figures"]["Serves"], "logs and pages");
    assert!(seen["contrast"].as_f64().unwrap() >= 4.5, "{seen}");
    for picture in ["volumes-light.png", "volume-dark.png"] {
        assert!(there.path(picture).metadata().unwrap().len() > 10_000);
        if let Some(folder) = std::env::var_os("QUIRE_TEST_PICTURES") {
            std::fs::copy(there.path(picture), Path::new(&folder).join(picture)).unwrap();
        }
    }

    // A page elsewhere that gives its own name this address reads nothing.
    let answer = get(&server, "/api/volumes", "Host: evil.example\r\n");
    assert!(answer.starts_with("HTTP/1.1 403") && !answer.contains("zoo"), "{answer}");
    let answer = get(&server, "/", "Host: 127.0.0.1\r\n");
    assert!(answer.contains("content-security-policy: default-src 'none'"), "{answer}");
    for wrong in
        ["/api/volume?name=nobody", "/api/volume?name=..", "/api/volume", "/api/volume/commits?name=zoo&after=0"]
    {
        let answer = get(&server, wrong, "Host: localhost\r\n");
        assert!(answer.starts_with("HTTP/1.1 40"), "{wrong}: {answer}");
    }
}

#[test]
fn where_tokens_are_asked_for_people_see_what_theirs_may_read() {
    let there = World::new();
    let key = there.path("token.key").to_str().unwrap().to_owned();
    let owner = there.machine("owner");
    let public = owner.json(&["token", "key", &key])["public"].as_str().unwrap().to_owned();
    let token = |volumes: &str, allow: &str| {
        owner.ok(&["token", "new", "--key", &key, "--volumes", volumes, "--allow", allow]).trim().to_owned()
    };
    let server = there.serve_with(0, &["--token-keys", &public], Stdio::inherit());
    let here = World::with_store(&server.url, vec![("QUIRE_TOKEN".into(), token("*", "read,write"))]);
    let machine = here.machine("machine");
    for volume in ["secret", "team/app"] {
        machine.ok(&["create", volume]);
        machine.ok(&["sql", volume, "create table t(n)"]);
        machine.ok(&["push", volume]);
    }
    let seen = look(&server, "team/app", &there.path(""), Some(&token("team/*", "read")), || {
        machine.ok(&["sql", "team/app", "insert into t values (2)"]);
        machine.ok(&["push", "team/app"]);
    });
    assert_eq!(seen["volumes"], serde_json::json!(["team/app"]));
    // How the server is is for those who look after it.
    assert_eq!((seen["figures"].clone(), seen["problems"].clone()), (serde_json::json!({}), serde_json::json!([])));
    for path in ["volumes", "server", "clients", "runs", "volume?name=team/app", "volume/commits?name=team/app&after=1"]
    {
        let answer = get(&server, &format!("/api/{path}"), "Host: localhost\r\n");
        assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("team/app"), "{path}: {answer}");
    }
    let reader = format!("Host: quire.example\r\nAuthorization: Bearer {}\r\n", token("team/*", "read"));
    for (path, status) in [
        ("volumes", 200),
        ("volume?name=team/app", 200),
        ("server", 403),
        ("clients", 403),
        ("volume?name=secret", 403),
    ] {
        let answer = get(&server, &format!("/api/{path}"), &reader);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
}
