//! The life of databases: they are written to, vacuumed, forked, restored and deleted, while others decide what is kept,
//! compact, collect and verify, and are killed in the middle of it. A model knows what each LSN shows.
//!
//! `QUIRE_STEPS` says how many steps (`cargo xtask soak databases`), `QUIRE_SEED` replays what is decided, though not
//! where a kill hits.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use quire_e2e::{App, Content, Ended, Machine, World, content_in};
use quire_testkit::{S3Server, seed};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const STEPS: u64 = 60;
const MOST_VOLUMES: usize = 3;
/// A database is emptied when it has more rows.
const MOST_ROWS: u64 = 400;

/// Why care may come to nothing.
const IN_VAIN: [&str; 3] = ["other collectors", "others are changing", "no volume"];

/// Somebody who cares for the store from a machine of his own, one command at a time.
struct Carer<'a> {
    machine: Machine<'a>,
    at_work: Option<(Vec<String>, Child)>,
}

struct Life<'a> {
    rng: StdRng,
    /// A program is killed before this, in microseconds: some have ended by then.
    killed_within_us: u64,
    writer: Machine<'a>,
    reader: Machine<'a>,
    carers: Vec<Carer<'a>>,
    /// What each LSN of each volume shows.
    shown: BTreeMap<String, BTreeMap<u64, Content>>,
    names: u32,
    events: BTreeMap<&'static str, u64>,
}

impl Carer<'_> {
    /// Waits for what he does, or kills it.
    fn end(&mut self, kill: bool) -> Option<&'static str> {
        let (words, mut child) = self.at_work.take()?;
        if kill {
            // It may have ended.
            let _ = child.kill();
        }
        let ended = Ended::of(child.wait_with_output().unwrap());
        match ended.status {
            Some(0) => Some("done"),
            None if kill => Some("killed"),
            // Others cared for the volume at the same time, or deleted it.
            Some(1) if IN_VAIN.iter().any(|why| ended.stderr.contains(why)) || is_gone(&ended) => Some("in vain"),
            _ => panic!("{words:?}: {ended:?}"),
        }
    }

    fn begin(&mut self, words: &[&str]) {
        let mut command = self.machine.command(words);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        self.at_work = Some((words.iter().map(|word| (*word).to_owned()).collect(), child));
    }
}

/// Whether a command failed as history does not keep what it is about.
fn is_gone(ended: &Ended) -> bool {
    ended.status == Some(1) && ["not kept", "has been collected"].iter().any(|why| ended.stderr.contains(why))
}

impl Life<'_> {
    fn note(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    fn fresh_name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    fn some_volume(&mut self) -> String {
        let names: Vec<&String> = self.shown.keys().collect();
        (*names.choose(&mut self.rng).unwrap()).clone()
    }

    fn some_lsn(&mut self, volume: &str) -> u64 {
        let lsns: Vec<u64> = self.shown[volume].keys().copied().collect();
        *lsns.choose(&mut self.rng).unwrap()
    }

    /// The newest LSN of a volume, after a push.
    fn lsn(&self, volume: &str) -> u64 {
        let status = self.writer.json(&["status", volume]);
        assert_eq!(status[0]["state"], "clean", "{status}");
        status[0]["base_lsn"].as_u64().unwrap()
    }

    fn write(&mut self, volume: &str) {
        let mut app = self.writer.app(volume);
        app.sql("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, what TEXT, body BLOB)");
        app.sql("CREATE INDEX IF NOT EXISTS t_what ON t (what)");
        let rows: u64 = app.one("SELECT count(*) FROM t").parse().unwrap();
        let event = match self.rng.random_range(0..10) {
            _ if rows > MOST_ROWS => {
                app.sql("DELETE FROM t WHERE n % 10 <> 0");
                "emptied"
            }
            0..4 => {
                let many = if self.rng.random_ratio(1, 4) { 150 } else { self.rng.random_range(1..5) };
                app.sql(&format!(
                    "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < {many}) \
                     INSERT INTO t (what, body) SELECT hex(randomblob(5)), randomblob(abs(random() % 3000)) FROM i"
                ));
                "inserted"
            }
            4..7 => {
                let of = self.rng.random_range(1..20);
                app.sql(&format!("UPDATE t SET what = hex(randomblob(8)), body = randomblob(700) WHERE n % {of} = 0"));
                "updated"
            }
            7..9 => {
                let of = self.rng.random_range(2..9);
                app.sql(&format!("DELETE FROM t WHERE n % {of} = 1"));
                "deleted"
            }
            _ => {
                app.sql("VACUUM");
                "vacuumed"
            }
        };
        app.sql("SELECT quire_push()");
        let content = content_in(&mut app, "main");
        app.finish();
        let lsn = self.lsn(volume);
        self.shown.get_mut(volume).unwrap().insert(lsn, content);
        self.note(event);
    }

    /// A command about a snapshot; none if that is gone, and may be.
    fn about(&mut self, words: &[&str], volume: &str, lsn: u64) -> Option<()> {
        let ended = self.writer.run(words);
        if ended.status == Some(0) {
            return Some(());
        }
        assert!(is_gone(&ended), "{words:?}: {ended:?}");
        self.may_be_gone(volume, lsn);
        None
    }

    /// What was let go before the answer came is said to be let go now.
    fn may_be_gone(&mut self, volume: &str, lsn: u64) {
        let kept = self.reader.json(&["keep", volume]);
        let is_named = kept["snapshots"].as_array().unwrap().iter().any(|named| named.as_u64() == Some(lsn));
        assert!(kept["from"].as_u64().unwrap() > lsn && !is_named, "{volume}@{lsn} is gone, and {kept} is kept");
        self.note("gone");
    }

    fn fork(&mut self, volume: &str) {
        if self.shown.len() == MOST_VOLUMES {
            return;
        }
        let (lsn, new) = (self.some_lsn(volume), self.fresh_name());
        if self.about(&["fork", &format!("{volume}@{lsn}"), &new], volume, lsn).is_some() {
            let content = self.shown[volume][&lsn].clone();
            let first = self.lsn(&new);
            self.shown.insert(new.clone(), [(first, content)].into());
            self.note("forked");
            self.check(&new, first);
        }
    }

    fn restore(&mut self, volume: &str) {
        let lsn = self.some_lsn(volume);
        if self.shown[volume].keys().next_back() == Some(&lsn) {
            return;
        }
        if self.about(&["restore", &format!("{volume}@{lsn}")], volume, lsn).is_some() {
            self.writer.ok(&["pull", volume]);
            let content = self.shown[volume][&lsn].clone();
            let now = self.lsn(volume);
            self.shown.get_mut(volume).unwrap().insert(now, content);
            self.note("restored");
        }
    }

    fn delete(&mut self, volume: &str) {
        if self.shown.len() > 1 {
            self.writer.ok(&["rm", "--store", volume]);
            self.shown.remove(volume);
            self.note("removed");
        }
    }

    /// Whether an LSN reads as it should, or is gone and may be.
    fn check(&mut self, volume: &str, lsn: u64) {
        let mut app: App = self.reader.app_with(volume, &format!("&lsn={lsn}"));
        if app.opened().is_err() {
            app.finish();
            let why = self.reader.run(&["export", &format!("{volume}@{lsn}"), "never.db"]);
            assert!(is_gone(&why), "{volume}@{lsn}: {why:?}");
            self.may_be_gone(volume, lsn);
            return;
        }
        assert!(content_in(&mut app, "main") == self.shown[volume][&lsn], "{volume}@{lsn} shows something else");
        app.finish();
        self.note("read");
    }

    fn care(&mut self, volume: &str) {
        let n = self.rng.random_range(0..self.carers.len());
        if let Some(event) = self.carers[n].end(false) {
            self.note(event);
        }
        let named = format!("{volume}@{}", self.some_lsn(volume));
        let last = self.rng.random_range(1..12).to_string();
        let words: &[&str] = match self.rng.random_range(0..10) {
            0 => &["keep", volume, "last", &last],
            1 => &["keep", &named],
            2 => &["keep", &named, "--no-longer"],
            3 => &["checkpoint", volume],
            4..7 => &["compact", volume],
            _ => &["gc", volume, "--grace", "0"],
        };
        if words[0] == "keep" {
            // It says at once whether it can be.
            let ended = self.carers[n].machine.run(words);
            assert!(ended.status == Some(0) || is_gone(&ended), "{words:?}: {ended:?}");
            self.note("retention");
        } else {
            self.carers[n].begin(words);
            if self.rng.random() {
                // Anywhere in what it does.
                std::thread::sleep(Duration::from_micros(self.rng.random_range(0..self.killed_within_us)));
                let event = self.carers[n].end(true).unwrap();
                self.note(event);
            }
        }
    }
}

#[test]
fn databases_read_as_they_were_or_say_that_they_are_gone() {
    databases(&World::new(), 40_000);
}

#[test]
fn databases_on_s3_read_as_they_were_or_say_that_they_are_gone() {
    let server = S3Server::shared();
    databases(&World::with_store(&server.url("life"), server.variables()), 120_000);
}

fn databases(world: &World, killed_within_us: u64) {
    let steps = std::env::var("QUIRE_STEPS").map_or(STEPS, |steps| steps.parse().unwrap());
    let mut life = Life {
        rng: StdRng::seed_from_u64(seed()),
        killed_within_us,
        writer: world.machine("writer"),
        reader: world.machine("reader"),
        carers: ["carer", "another"].map(|name| Carer { machine: world.machine(name), at_work: None }).into(),
        shown: BTreeMap::new(),
        names: 0,
        events: BTreeMap::new(),
    };
    let first = life.fresh_name();
    life.shown.insert(first.clone(), BTreeMap::new());
    life.write(&first);
    for _ in 0..steps {
        let volume = life.some_volume();
        match life.rng.random_range(0..20) {
            0..8 => life.write(&volume),
            8 => life.fork(&volume),
            9 => life.restore(&volume),
            10 if life.rng.random_ratio(1, 3) => life.delete(&volume),
            10..15 => life.care(&volume),
            _ => {
                let lsn = life.some_lsn(&volume);
                life.check(&volume, lsn);
            }
        }
    }
    for carer in &mut life.carers {
        carer.end(false);
    }
    for (volume, shown) in life.shown.clone() {
        for lsn in shown.keys().rev().take(30) {
            life.check(&volume, *lsn);
        }
        life.reader.ok(&["verify", &volume, "--deep"]);
    }
    println!("{steps} steps: {:?}", life.events);
}
