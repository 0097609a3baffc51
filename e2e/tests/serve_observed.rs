//! How a server is, and what it has done: read by Prometheus itself.
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use quire_e2e::World;
use quire_testkit::{Venv, debian_program};
use serde_json::Value;

/// Status and body of an answer.
fn get(url: &str) -> Option<(u16, String)> {
    let (address, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The samples of a page of metrics.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, value)| (name.into(), value.parse().unwrap())).collect()
}

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_servers_numbers_are_true_and_prometheus_takes_them() {
    let there = World::new();
    let owner = there.machine("owner");
    owner.ok(&["create", "team/old"]);
    owner.ok(&["sql", "team/old", "create table t(n)"]);
    owner.ok(&["push", "team/old"]);
    let server = there.serve(0);
    let here = World::with_store(&server.url, Vec::new());
    let a = here.machine("a");
    a.ok(&["create", "team/app"]);
    a.ok(&["sql", "team/app", "create table t(n); insert into t values (randomblob(300000))"]);
    a.ok(&["push", "team/app"]);
    let b = here.machine("b");
    b.ok(&["clone", "team/app"]);
    b.ok(&["export", "team/app", there.path("copy").to_str().unwrap()]);
    a.run(&["clone", "nowhere"]).failed(1, "no volume nowhere");
    for ready in ["healthz", "readyz"] {
        assert_eq!(get(&format!("{}/{ready}", server.http)).unwrap(), (200, "ok\n".into()));
    }
    assert_eq!(get(&format!("{}/nonsense", server.http)).unwrap().0, 404);

    let url = format!("{}/metrics", server.http);
    let text = loop {
        let (status, text) = get(&url).unwrap();
        assert_eq!(status, 200);
        // The first look at all volumes comes when it comes, and the server's end of a call after the client's.
        if text.contains("quire_volume_head_lsn{") && text.contains("quire_requests_in_flight 0\n") {
            break text;
        }
    };
    let found = samples(&text);
    let of = |name: &str| *found.get(name).unwrap_or_else(|| panic!("{name} in {text}"));
    assert_eq!(of("quire_requests_total{code=\"OK\",method=\"Metastore/Append\"}"), 1.0);
    assert!(of("quire_request_seconds_count{method=\"Metastore/Append\"}") == 1.0);
    assert!(of("quire_served_bytes_total{direction=\"in\"}") > 0.0);
    assert!(of("quire_served_bytes_total{direction=\"out\"}") > 0.0);
    assert!(of("quire_store_requests_total{kind=\"put\"}") >= 1.0);
    assert!(of("quire_store_cost_dollars") > 0.0);
    assert!(of("quire_cache_frames_total{from=\"store\"}") >= 1.0);
    assert_eq!(of("quire_volume_head_lsn{volume=\"team/old\"}"), 1.0);
    assert!(of("quire_volume_last_commit_timestamp_seconds{volume=\"team/old\"}") > 1.7e9);
    assert_eq!(of("quire_watchers"), 0.0);

    let mut check = Command::new(debian_program("prometheus", "usr/bin/promtool"));
    let mut check = check.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(
        checked.status.success(),
        "{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );

    // A real Prometheus scrapes it.
    let target = server.http.strip_prefix("http://").unwrap();
    let config = format!(
        "scrape_configs: [{{job_name: quire, scrape_interval: 1s, static_configs: [{{targets: ['{target}']}}]}}]"
    );
    let config = there.file("prometheus.yml", config);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    fs::create_dir(there.path("prometheus")).unwrap();
    let mut prometheus = Ends(
        Command::new(debian_program("prometheus", "usr/bin/prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", there.path("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let query = format!("http://{address}/api/v1/query?query=quire_volume_head_lsn");
    loop {
        if let Some((200, answer)) = get(&query)
            && answer.contains("team/old")
        {
            break;
        }
        assert!(prometheus.0.try_wait().unwrap().is_none(), "Prometheus has ended");
        std::thread::yield_now();
    }
}

#[test]
fn a_server_whose_store_is_gone_is_alive_and_not_ready() {
    let there = World::new();
    let store = there.path("store");
    fs::create_dir(&store).unwrap();
    let server = there.serve(0);
    assert_eq!(get(&format!("{}/readyz", server.http)).unwrap().0, 200);
    fs::remove_dir_all(&store).unwrap();
    fs::write(&store, "no folder any more").unwrap();
    let (status, problem) = get(&format!("{}/readyz", server.http)).unwrap();
    assert_eq!(status, 503, "{problem}");
    assert_eq!(get(&format!("{}/healthz", server.http)).unwrap().0, 200);
}

#[test]
fn a_collector_gets_the_traces_of_calls_with_what_they_asked_of_the_store() {
    let python = Venv::with("grpcio==1.85.3").program("python3");
    Venv::with("opentelemetry-proto==1.45.2");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/collector.py");
    let mut collector = Ends(Command::new(python).arg(script).stdout(Stdio::piped()).spawn().unwrap());
    let mut told = BufReader::new(collector.0.stdout.take().unwrap()).lines().map(|line| {
        let line = line.unwrap();
        serde_json::from_str::<Value>(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    });
    let port = told.next().unwrap()["port"].as_u64().unwrap();

    let there = World::new();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))];
    let mut server = there.serve_in(0, &["--no-maintenance"], Stdio::inherit(), &variables);
    let here = World::with_store(&server.url, Vec::new());
    let machine = here.machine("machine");
    machine.ok(&["create", "app"]);
    machine.ok(&["sql", "app", "create table t(n)"]);
    machine.ok(&["push", "app"]);
    machine.run(&["clone", "nowhere"]).failed(1, "no volume nowhere");
    // What is not sent yet is sent at the end.
    machine.ok(&["server", "drain", "--wait", "0s"]);
    assert!(server.wait().success());
    let mut spans = Vec::new();
    while !spans.iter().any(|span: &Value| span["name"] == "Admin/Drain") {
        spans.push(told.next().unwrap());
    }
    assert!(spans.iter().all(|span| span["service"] == "quire"), "{spans:?}");
    let appended = spans.iter().find(|span| span["name"] == "Metastore/Append").unwrap();
    assert_eq!((appended["status"].as_u64(), appended["parent"].as_str()), (Some(0), Some("")));
    let below = spans.iter().filter(|span| span["parent"] == appended["span"] && span["trace"] == appended["trace"]);
    assert!(below.filter(|span| span["name"] == "store request").count() > 0, "{spans:?}");

    // A collector that is not there keeps nobody waiting; an address that is none is said.
    collector.0.kill().unwrap();
    let server = there.serve_in(0, &[], Stdio::inherit(), &variables);
    let here = World::with_store(&server.url, Vec::new());
    here.machine("machine").ok(&["clone", "app"]);
    let wrong =
        there.machine("wrong").command(&["serve"]).env("OTEL_EXPORTER_OTLP_ENDPOINT", "no address").output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{wrong:?}");
}
