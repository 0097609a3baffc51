//! Two programs, each on a data directory of its own, push to one volume as
//! fast as they can: what was acknowledged is in the history, once, without a
//! gap; who comes too late is told, keeps its work, and goes on.

#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::collections::BTreeMap;

use quire_e2e::{App, Machine, World, content, text_of};
use quire_testkit::S3Server;

/// How many acknowledged transactions each program wants.
const ROUNDS: u64 = 40;

/// What a program was told.
#[derive(Default)]
struct Told {
    /// The row of each acknowledged transaction, with its LSN if that was said.
    won: Vec<(String, Option<u64>)>,
    lost: u64,
}

/// A row that nobody else writes.
fn row(racer: u64, attempt: u64) -> String {
    format!("racer {racer}, attempt {attempt}")
}

fn has(app: &mut App, schema: &str, row: &str) -> bool {
    app.one(&format!("SELECT count(*) FROM {schema}.t WHERE who = '{row}'")) == "1"
}

/// Commits here, then pushes.
fn push(app: &mut App, racer: u64) -> Told {
    let mut told = Told::default();
    for attempt in 1.. {
        let row = row(racer, attempt);
        app.sql("SELECT quire_pull()");
        app.sql(&format!("INSERT INTO t VALUES ('{row}', randomblob(3000))"));
        match app.try_sql("SELECT quire_push()") {
            Ok(line) => {
                // "pushed 1 commit as LSN 7 (...)"
                let lsn = line[0].split("LSN ").nth(1).and_then(|rest| rest.split(' ').next());
                told.won.push((row, Some(lsn.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap())));
            }
            Err(lost) => {
                assert!(lost.message.contains("quire_reset"), "the remedy is not named: {lost:?}");
                keep(app, &row, told.lost + 1);
                told.lost += 1;
            }
        }
        if told.won.len() as u64 == ROUNDS {
            break;
        }
    }
    told
}

/// The loser's work is there until `quire_reset`, and under another name from then on.
fn keep(app: &mut App, row: &str, losses: u64) {
    assert_eq!(app.one("SELECT state, unpushed FROM quire_status WHERE name = 'app'"), "diverged|1");
    assert!(has(app, "main", row), "the work is gone");
    let name = format!("app.dropped-{losses}");
    let said = app.one("SELECT quire_reset()");
    assert!(said.ends_with(&name), "{said}");
    assert!(!has(app, "main", row), "the store does not have it");
    app.sql(&format!("ATTACH 'file:{name}?vfs=quire' AS kept"));
    assert!(has(app, "kept", row), "the work was not kept");
    app.sql("DETACH kept");
}

/// Commits straight to the store.
fn commit(app: &mut App, racer: u64) -> Told {
    let mut told = Told::default();
    for attempt in 1.. {
        let row = row(racer, attempt);
        app.sql("SELECT quire_pull()");
        match app.try_sql(&format!("INSERT INTO t VALUES ('{row}', randomblob(3000))")) {
            Ok(_) => told.won.push((row, None)),
            Err(_) => {
                let state = app.one("SELECT unpushed, last_error FROM quire_status WHERE name = 'app'");
                assert!(state.starts_with("0|") && state.contains("rolled back"), "{state}");
                assert!(!has(app, "main", &row), "it has failed, and is there");
                told.lost += 1;
            }
        }
        if told.won.len() as u64 == ROUNDS {
            break;
        }
    }
    told
}

/// Lets two programs do `work` at the same time; gives what each was told.
fn race(world: &World, parameters: &str, work: fn(&mut App, u64) -> Told) -> [Told; 2] {
    let mut creator = world.machine("creator").app("app");
    creator.sql("CREATE TABLE t (who TEXT PRIMARY KEY, body BLOB); SELECT quire_push()");
    creator.finish();
    let machines = [world.machine("racer-1"), world.machine("racer-2")];
    let mut apps = machines.each_ref().map(|machine| machine.app_with("app", parameters));
    let told = std::thread::scope(|scope| {
        let [first, second] = &mut apps;
        let threads = [scope.spawn(|| work(first, 1)), scope.spawn(|| work(second, 2))];
        threads.map(|thread| thread.join().unwrap())
    });
    for app in apps {
        app.finish();
    }
    let lost = told[0].lost + told[1].lost;
    println!("{} transactions were acknowledged, {lost} came too late", 2 * ROUNDS);
    assert!(lost > 0, "nobody ever lost: this was no race");
    judge(&world.machine("judge"), &told);
    told
}

/// What the programs were told is what somebody finds who was not there.
fn judge(machine: &Machine<'_>, told: &[Told; 2]) {
    let mut app = machine.app("app");
    let mut rows: Vec<&String> = told.iter().flat_map(|told| &told.won).map(|(row, _)| row).collect();
    rows.sort();
    let found = app.sql("SELECT who FROM t ORDER BY who");
    assert_eq!(found.iter().collect::<Vec<_>>(), rows, "lost, or never acknowledged");
    let log: Vec<u64> = app.sql("SELECT lsn FROM quire_log ORDER BY lsn").iter().map(|n| n.parse().unwrap()).collect();
    let mut winners = BTreeMap::new();
    for (row, lsn) in told.iter().flat_map(|told| &told.won) {
        if let Some(lsn) = lsn {
            assert_eq!(winners.insert(*lsn, row), None, "two winners of LSN {lsn}");
            assert!(log.contains(lsn), "{row} was acknowledged as LSN {lsn}");
        }
    }
    // The first LSN made the table.
    assert_eq!(log, (1..=2 * ROUNDS + 1).collect::<Vec<_>>(), "a gap, or a commit that nobody made");
    app.finish();
}

fn in_a_bucket() -> World {
    let server = S3Server::shared();
    World::with_store(&server.url("race"), server.variables())
}

#[test]
fn who_pushes_too_late_keeps_its_work_and_goes_on() {
    keeps_its_work_and_goes_on(World::new());
}

#[test]
fn who_pushes_too_late_to_a_bucket_keeps_its_work_and_goes_on() {
    keeps_its_work_and_goes_on(in_a_bucket());
}

fn keeps_its_work_and_goes_on(world: World) {
    let told = race(&world, "", push);
    for (told, name) in told.iter().zip(["racer-1", "racer-2"]) {
        let machine = world.machine(name);
        machine.ok(&["pull", "app"]);
        let listed = machine.json(&["ls", "app.dropped-"]);
        let mine: Vec<_> = listed.as_array().unwrap().iter().filter(|volume| volume["here"] == true).collect();
        assert_eq!(mine.len() as u64, told.lost);
        // What was kept can be taken out, or read.
        for (kept, n) in mine.iter().zip(1..) {
            assert_eq!(kept["unpushed"], 1, "{kept}");
            let copy = world.path("kept.db");
            machine.ok(&["export", "--force", &format!("app.dropped-{n}"), text_of(&copy)]);
            assert!(content(&copy)["table t"].0 > 0);
        }
    }
}

#[test]
fn with_sync_commit_who_comes_too_late_is_rolled_back() {
    race(&World::new(), "&sync=commit", commit);
}

#[test]
fn with_sync_commit_who_comes_too_late_to_a_bucket_is_rolled_back() {
    race(&in_a_bucket(), "&sync=commit", commit);
}
