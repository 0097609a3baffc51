//! `quire sql`: one statement, a script, JSON, errors.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{Ended, Machine, World};

/// Runs a script through standard input.
fn script(machine: &Machine<'_>, words: &[&str], input: &str) -> Ended {
    let mut child =
        machine.command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Ended::of(child.wait_with_output().unwrap())
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, score REAL, data BLOB);
    INSERT INTO t VALUES (1, 'one', 1.5, x'00ff'), (2, NULL, 2.0, NULL);";

#[test]
fn rows_are_tab_separated_in_a_pipe_and_objects_in_json() {
    let world = World::new();
    let here = world.machine("here");
    here.ok(&["create", "v"]);
    assert_eq!(here.ok(&["sql", "v", TABLE]), "");
    assert_eq!(here.ok(&["sql", "v", "SELECT * FROM t"]), "1\tone\t1.5\tx'00ff'\n2\t\t2.0\t\n");
    let rows = here.json(&["sql", "v", "SELECT id, name, id, data FROM t; SELECT 3 AS id"]);
    assert_eq!(
        rows,
        serde_json::json!([
            { "id": 1, "name": "one", "id:1": 1, "data": "00ff" },
            { "id": 2, "name": null, "id:1": 2, "data": null },
            { "id": 3 },
        ])
    );
    assert_eq!(here.json(&["sql", "v", "SELECT * FROM t WHERE 0"]), serde_json::json!([]));
}

#[test]
fn a_script_runs_to_its_first_error() {
    let world = World::new();
    let here = world.machine("here");
    here.ok(&["create", "v"]);
    let ended = script(
        &here,
        &["sql", "v"],
        "CREATE TABLE t (x);\n.tables\nINSERT INTO t\n  VALUES ('a;b');\nSELECT x FROM t; -- said\nSELECT 1 + 1",
    );
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "t\na;b\n2\n"), "{ended:?}");
    let ended = script(&here, &["sql", "v"], ".schema t\nSELECT absent FROM t;\nDROP TABLE t;\n");
    assert_eq!(ended.stdout, "CREATE TABLE t (x);\n");
    assert_eq!(ended.status, Some(1));
    assert_eq!(ended.stderr, "error: SQL on v: no such column: absent\n");
    assert_eq!(here.ok(&["sql", "v", "SELECT count(*) FROM t"]), "1\n");
}

#[test]
fn a_failed_statement_is_told_with_what_became_of_those_before_it() {
    let world = World::new();
    let here = world.machine("here");
    here.ok(&["create", "v"]);
    here.ok(&["sql", "v", TABLE]);
    let told = |sql: &str| {
        let ended = here.run(&["sql", "v", sql]);
        assert_eq!(ended.status, Some(1), "{ended:?}");
        ended.stderr
    };
    // Alone it needs no words besides SQLite's.
    for alone in ["SELEC 1", "INSERT INTO t(id) VALUES (1)"] {
        assert!(!told(alone).contains("remedy"), "{alone}");
    }
    assert!(told("INSERT INTO t(id) VALUES (10); SELEC 1").contains("The statements before it were done"));
    let rolled_back = "\nremedy: The open transaction was rolled back";
    for sql in [
        "BEGIN; INSERT INTO t(id) VALUES (11); SELEC 1",
        "BEGIN; INSERT INTO t(id) VALUES (11); INSERT OR ROLLBACK INTO t(id) VALUES (1)",
    ] {
        let said = told(sql);
        assert!(said.contains(rolled_back) && !said.contains("were done"), "{said}");
    }
    let ended = script(&here, &["sql", "v"], "BEGIN;\nINSERT INTO t(id) VALUES (12);\n.nonsense\n");
    assert!(ended.stderr.contains(".help lists the commands.\nThe open transaction was rolled back"), "{ended:?}");
    assert_eq!(here.ok(&["sql", "v", "SELECT id FROM t WHERE id > 2"]), "10\n");
}

#[test]
fn a_dot_command_may_be_an_argument() {
    let world = World::new();
    let here = world.machine("here");
    here.ok(&["create", "v"]);
    here.ok(&["sql", "v", TABLE]);
    assert_eq!(here.ok(&["sql", "v", ".tables"]), "t\n");
    assert!(here.ok(&["sql", "v", ".schema t"]).starts_with("CREATE TABLE t ("));
    here.run(&["sql", "v", ".tabels"]).failed(1, "no command .tabels");
}

#[test]
fn a_name_that_nobody_knows_does_not_become_a_volume() {
    let world = World::new();
    let here = world.machine("here");
    here.run(&["sql", "typo", "CREATE TABLE t (x)"]).failed(1, "typo");
    here.run(&["sql", "v@3", "SELECT 1"]).failed(1, "no LSN 3");
    assert_eq!(here.json(&["ls"]), serde_json::json!([]));
}

#[test]
fn changes_travel_from_machine_to_machine() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    here.ok(&["create", "v"]);
    here.ok(&["sql", "v", TABLE]);
    here.ok(&["push", "v"]);
    there.ok(&["clone", "v"]);
    there.ok(&["sql", "v", "INSERT INTO t (name) VALUES ('three')"]);
    assert_eq!(there.json(&["status", "v"])[0]["state"], "ahead");
    there.ok(&["sync", "v"]);
    assert_eq!(here.ok(&["sql", "v", "SELECT count(*) FROM t"]), "2\n");
    assert_eq!(here.json(&["fetch", "v"])[0]["state"], "behind");
    here.ok(&["pull", "v"]);
    assert_eq!(here.ok(&["sql", "v", "SELECT name FROM t WHERE id = 3"]), "three\n");
}

#[test]
fn the_volume_s_own_functions_and_tables_are_there() {
    let world = World::new();
    let here = world.machine("here");
    here.ok(&["create", "v"]);
    here.ok(&["sql", "v", TABLE]);
    here.ok(&["sql", "v", "SELECT quire_push()"]);
    let rows = here.json(&["sql", "v", "SELECT name, state, unpushed FROM quire_status"]);
    assert_eq!(rows, serde_json::json!([{ "name": "v", "state": "clean", "unpushed": 0 }]));
}

#[test]
fn an_error_in_json_is_an_object_and_the_rows_before_it_are_an_array() {
    let world = World::new();
    let here = world.machine("here");
    here.ok(&["create", "v"]);
    let ended = here.run(&["--json", "sql", "v", "SELECT 1 AS x; SELECT * FROM missing"]);
    assert_eq!(ended.status, Some(1));
    let rows: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(rows, serde_json::json!([{ "x": 1 }]));
    let error: serde_json::Value = serde_json::from_str(&ended.stderr).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("no such table: missing"), "{error}");
}

#[test]
fn with_sync_commit_a_transaction_is_in_the_store_once_it_returns() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    here.ok(&["create", "v"]);
    here.ok(&["--sync", "commit", "sql", "v", TABLE]);
    assert_eq!(here.json(&["status", "v"])[0]["state"], "clean");
    there.ok(&["clone", "v"]);
    assert_eq!(there.ok(&["sql", "v", "SELECT count(*) FROM t"]), "2\n");
}
