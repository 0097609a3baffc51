//! Looking after a server, through the real programs.
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::fs::File;
use std::process::Stdio;

use quire_e2e::World;

#[test]
fn whoever_looks_after_a_server_sees_and_does_what_has_to_be_done() {
    let there = World::new();
    let log = there.path("server.log");
    let server = there.serve_with(0, &["--verify-every", "never"], File::create(&log).unwrap().into());
    let here = World::with_store(&server.url, Vec::new());
    let machine = here.machine("machine");
    machine.ok(&["create", "team/app"]);
    for n in 0..20 {
        machine.ok(&["sql", "team/app", &format!("create table t{n}(x); insert into t{n} values (randomblob(20000))")]);
        machine.ok(&["push", "team/app"]);
    }
    // Upkeep is the server's: nothing travels but reports.
    let compacted = machine.json(&["compact", "team/app"]);
    assert!(compacted["steps"].as_u64().unwrap() > 0, "{compacted}");
    machine.ok(&["keep", "team/app", "last", "3"]);
    let swept = machine.json(&["gc", "team/app", "--grace", "0"]);
    assert_eq!(swept[0]["horizon"], 18, "{swept}");
    machine.ok(&["verify", "team/app", "--deep"]);
    let runs = machine.json(&["server", "runs", "team/app"]);
    let works: Vec<_> = runs.as_array().unwrap().iter().map(|run| run["work"].as_str().unwrap()).collect();
    assert_eq!(works, ["verify-deep", "collect", "compact"]);
    assert_eq!(runs[0]["outcome"]["verify"]["lsn"], 20, "{runs}");
    let shown = machine.ok(&["server", "runs"]);
    assert!(shown.contains("sound up to LSN 20") && shown.contains("kept from LSN 18"), "{shown}");

    let volume = machine.ok(&["server", "volume", "team/app"]);
    assert!(volume.contains("keeps") && volume.contains("last 3") && volume.contains("LSN 20 at"), "{volume}");
    machine.run(&["server", "volume", "nobody"]).failed(1, "no volume nobody");
    let info = machine.json(&["server", "info"]);
    assert_eq!((info["role"].as_str(), info["draining"].as_bool()), (Some("all"), Some(false)));
    assert!(info["store"]["puts"].as_u64().unwrap() > 20 && info["upkeep"]["bytes_per_second"] == 16 << 20, "{info}");
    assert!(machine.ok(&["server", "info"]).contains("16.0 MiB a second"));
    let clients = machine.json(&["server", "clients"]);
    assert!(clients[0]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{clients}");
    assert!(machine.ok(&["server", "whoami"]).contains("nobody in particular"));
    machine.run(&["server", "token", "--volumes", "a", "--allow", "read"]).failed(1, "no key that signs tokens");

    assert_eq!(machine.ok(&["server", "log-filter"]).trim(), "warn");
    assert_eq!(machine.ok(&["server", "log-filter", "quire_serve=info,warn"]).trim(), "quire_serve=info,warn");
    machine.run(&["server", "log-filter", "loud"]).failed(2, "not a level");

    // Who has no server is told so.
    there.machine("owner").run(&["server", "info"]).failed(2, "is no server");

    let mut server = server;
    assert!(machine.ok(&["server", "drain", "--wait", "0s"]).contains("ends in"));
    assert!(server.wait().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("what is logged from now on") && log.contains("told to end"), "{log}");
}

#[test]
fn what_is_damaged_in_the_store_is_found_by_the_server_itself_and_told() {
    let there = World::new();
    let owner = there.machine("owner");
    for volume in ["good", "bad"] {
        owner.ok(&["create", volume]);
        owner.ok(&["sql", volume, "create table t(n); insert into t values (1)"]);
        owner.ok(&["push", volume]);
    }
    let commits = there.path("store/v/bad/!/c");
    let commit = quire_e2e::files_below(&commits).pop().unwrap();
    let mut bytes = std::fs::read(&commit).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&commit, bytes).unwrap();
    let (log, words) = (there.path("server.log"), ["--verify-every", "1h"]);
    let server = there.serve_with(0, &words, File::create(&log).unwrap().into());
    let here = World::with_store(&server.url, Vec::new());
    let machine = here.machine("machine");
    let runs = loop {
        let runs = machine.json(&["server", "runs"]);
        let ended = |run: &&serde_json::Value| run["work"] == "verify-deep" && !run["ended_ms"].is_null();
        if runs.as_array().unwrap().iter().filter(ended).count() == 2 {
            break runs;
        }
    };
    let damaged = |name: &str| {
        let run = runs.as_array().unwrap().iter().find(|run| run["volume"] == name).unwrap();
        assert_eq!(run["scheduled"], true);
        !run["outcome"]["verify"]["damage"].as_array().unwrap().is_empty()
    };
    assert_eq!((damaged("good"), damaged("bad")), (false, true));
    assert!(std::fs::read_to_string(&log).unwrap().contains("volume bad is damaged in the store"));
    assert!(machine.ok(&["server", "volume", "good"]).contains("every byte"));
    let bad = machine.ok(&["server", "volume", "bad"]);
    assert!(bad.contains("damaged") && bad.contains("never by this server"), "{bad}");
    drop(server);

    // The next one remembers.
    let server = there.serve_with(0, &words, Stdio::inherit());
    let here = World::with_store(&server.url, Vec::new());
    assert!(here.machine("machine").ok(&["server", "volume", "good"]).contains("every byte"));
}

#[test]
fn a_server_gives_tokens_to_those_who_have_one_and_no_volume_more_than_its_quota() {
    let there = World::new();
    let key = there.path("token.key").to_str().unwrap().to_owned();
    let owner = there.machine("owner");
    let public = owner.json(&["token", "key", &key])["public"].as_str().unwrap().to_owned();
    let words = ["--token-keys", &public, "--token-signing-key", &key, "--volume-quota", "1MiB"];
    let server = there.serve_with(0, &words, Stdio::inherit());
    let own =
        owner.ok(&["token", "new", "--key", &key, "--volumes", "team/*", "--allow", "read,write", "--subject", "ada"]);
    let ada = World::with_store(&server.url, vec![("QUIRE_TOKEN".into(), own.trim().to_owned())]);
    let machine = ada.machine("ada");
    let who = machine.json(&["server", "whoami"]);
    assert_eq!((who["subject"].as_str(), who["volumes"][0].as_str()), (Some("ada"), Some("team/*")));
    machine.run(&["server", "info"]).failed(1, "no right to administer the server");
    machine
        .run(&["server", "token", "--volumes", "*", "--allow", "read"])
        .failed(1, "nobody can give what he has not got");
    let words = ["server", "token", "--volumes", "team/app", "--allow", "read", "--expires", "1h", "--subject", "bob"];
    let given = machine.ok(&words);

    machine.ok(&["create", "team/app"]);
    machine.ok(&["sql", "team/app", "create table t(x); insert into t values (randomblob(600000))"]);
    machine.ok(&["push", "team/app"]);
    machine.ok(&["sql", "team/app", "insert into t values (randomblob(600000))"]);
    let full = machine.run(&["push", "team/app"]);
    full.failed(1, "would take more than 1.0 MiB");
    assert!(full.stderr.contains("quire gc team/app"), "{full:?}");
    // Nothing is lost: it is here, and smaller things fit.
    assert_eq!(machine.ok(&["sql", "team/app", "select count(*) from t"]).trim(), "2");
    machine.ok(&["reset", "team/app"]);
    machine.ok(&["sql", "team/app", "insert into t values (3)"]);
    machine.ok(&["push", "team/app"]);

    let bob = World::with_store(&server.url, vec![("QUIRE_TOKEN".into(), given.trim().to_owned())]);
    let machine = bob.machine("bob");
    machine.ok(&["clone", "team/app"]);
    assert_eq!(machine.ok(&["sql", "team/app", "select count(*) from t"]).trim(), "2");
    machine.run(&["create", "team/other"]).failed(1, "bob has no right");
}
