//! A child process works on a data directory and is killed by SIGKILL at a
//! random moment, over and over: what it was told is done is there whole, what
//! it was not told is not there in part, and replication goes on.
//!
//! The seed is printed and replays the transactions and the moments, as far as
//! two processes can be replayed; `QUIRE_KILLS=N` runs longer.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::child::{Child, Orders, tell};
use common::history::{History, Kind};
use common::*;
use quire_bucket::Bucket;
use quire_engine::{Condition, Engine, ErrorKind, Options, SyncMode, Volume};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Kills of the main test; the others have a share of them.
const DEFAULT_KILLS: u64 = 60;
/// The longest pauses between the line that a kill waits for and the kill: a
/// few steps of the child, and a few of its transactions.
const PAUSES_US: [u64; 3] = [1_000, 5_000, 30_000];
/// Small enough that pages are evicted all the time.
const TINY_CACHE: u64 = 256 << 10;

/// Pushes that come when they like.
const BACKGROUND: SyncMode = SyncMode::Every(Duration::from_millis(3));

fn kills(share: u64) -> u64 {
    (setting("QUIRE_KILLS", DEFAULT_KILLS) / share).max(1)
}

/// What one of these tests works with.
struct Scene {
    root: tempfile::TempDir,
    url: String,
    seed: u64,
    rng: StdRng,
}

impl Scene {
    fn new() -> Scene {
        let root = scratch();
        let url = format!("file://{}/store", root.path().display());
        let seed = quire_testkit::seed();
        Scene { root, url, seed, rng: StdRng::seed_from_u64(seed) }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("replica")
    }

    fn bucket(&self) -> Bucket {
        Bucket::open(&self.url).unwrap()
    }

    fn open(&self) -> Engine {
        open(&self.dir(), &self.bucket())
    }

    fn start(&mut self, role: &str, more: &[(&str, String)]) -> Child {
        let mut settings = vec![
            ("DIR", self.dir().display().to_string()),
            ("URL", self.url.clone()),
            ("SEED", self.seed.to_string()),
            ("LUCK", self.rng.random::<u64>().to_string()),
        ];
        settings.extend_from_slice(more);
        Child::start(role, &settings, &[])
    }

    /// Kills a child at a random moment after a random number of its lines, half
    /// of the time soon after one that begins with `soon_after`. `meanwhile` is
    /// called for every line that is waited for. Returns all lines.
    fn kill(
        &mut self,
        mut child: Child,
        lines: Range<u64>,
        soon_after: &str,
        mut meanwhile: impl FnMut(&mut Child),
    ) -> Vec<String> {
        let mut told = Vec::new();
        let count = self.rng.random_range(lines);
        let waits = self.rng.random();
        while (told.len() as u64) < count || (waits && !told.last().is_some_and(|l: &String| l.starts_with(soon_after)))
        {
            meanwhile(&mut child);
            told.push(child.line().expect("a child goes on until it is killed"));
        }
        let longest = PAUSES_US[self.rng.random_range(0..PAUSES_US.len())];
        std::thread::sleep(Duration::from_micros(self.rng.random_range(0..longest)));
        told.extend(child.kill());
        told
    }

    /// A replica that knows nothing yet.
    fn fresh(&self) -> (tempfile::TempDir, Engine) {
        let dir = scratch();
        let engine = open(dir.path(), &self.bucket());
        (dir, engine)
    }
}

/// The numbers that lines of this kind report.
fn numbers<'a>(lines: &'a [String], what: &'a str) -> impl Iterator<Item = u64> + 'a {
    lines.iter().filter_map(move |line| line.strip_prefix(what)?.trim().parse().ok())
}

fn whole_log(volume: &Volume) {
    let lsns: Vec<u64> = volume.log().unwrap().iter().rev().map(|entry| entry.lsn.get()).collect();
    assert!(lsns.iter().copied().eq(1..=lsns.len() as u64), "a gap: {lsns:?}");
}

/// How the killed writers write.
#[derive(Clone, Copy)]
struct Writing {
    kind: Kind,
    cache_size: u64,
    /// In how many transactions one is pushed; 0: never.
    push_every: u64,
    /// The seasons of `sync`, one per child.
    sync: &'static [SyncMode],
    /// Lines before a kill.
    lines: (u64, u64),
}

fn sync_word(sync: SyncMode) -> String {
    match sync {
        SyncMode::Manual => "manual".into(),
        SyncMode::Commit => "commit".into(),
        SyncMode::Every(period) => period.as_millis().to_string(),
    }
}

fn parse_sync(word: &str) -> SyncMode {
    match word {
        "manual" => SyncMode::Manual,
        "commit" => SyncMode::Commit,
        millis => SyncMode::Every(Duration::from_millis(millis.parse().unwrap())),
    }
}

/// Kills writers on one data directory and looks at what they leave.
fn kill_writers(writing: Writing, kills: u64) -> (Scene, History) {
    let mut scene = Scene::new();
    let mut history = History::new(scene.seed, writing.kind);
    let (mut told, mut pushed_to) = (0, 0);
    for kill in 1..=kills {
        let sync = writing.sync[kill as usize % writing.sync.len()];
        let settings = [
            ("KIND", format!("{:?}", writing.kind)),
            ("CACHE", writing.cache_size.to_string()),
            ("PUSH_EVERY", writing.push_every.to_string()),
            ("SYNC", sync_word(sync)),
            ("DONE", told.to_string()),
        ];
        let child = scene.start("writer", &settings);
        let soon_after = if writing.push_every > 0 { "pushing" } else { "did" };
        let lines = scene.kill(child, writing.lines.0..writing.lines.1, soon_after, |_| {});
        told = numbers(&lines, "did ").max().unwrap_or(told).max(told);
        pushed_to = numbers(&lines, "pushed ").max().unwrap_or(pushed_to).max(pushed_to);
        if sync == SyncMode::Commit && told > 0 {
            // What returned is in the store already.
            let (_dir, fresh) = scene.fresh();
            let there = History::last_of(&fresh.existing(&name("v")).unwrap().snapshot());
            assert!(there == told || there == told + 1, "the store has {there}, and {told} returned");
        }
        if scene.rng.random_ratio(1, 4) && kill < kills {
            continue; // the next child finds what this one left
        }
        told = look(&scene, &mut history, told, pushed_to, kill);
    }
    println!("{kills} kills, {told} transactions, LSN {pushed_to} and more");
    (scene, history)
}

/// Looks at what is left after a kill. Returns the last transaction there is.
fn look(scene: &Scene, history: &mut History, told: u64, pushed_to: u64, kill: u64) -> u64 {
    let engine = scene.open();
    let volume = engine.volume(&name("v")).unwrap();
    if volume.status().state == Condition::InDoubt {
        volume.push().unwrap(); // only the store knows what became of the last commit
    }
    let last = History::last_of(&volume.snapshot());
    assert!(last >= told, "kill {kill}: transaction {told} was acknowledged, and {last} is the last one there");
    assert!(last <= told + 1, "kill {kill}: transaction {last} is there, and only {told} was acknowledged");
    history.advance_to(last);
    if last > 0 {
        history.check(&volume.snapshot());
        volume.verify(&mut |_, _| {}).unwrap();
    }
    if kill.is_multiple_of(2) {
        return last;
    }
    history.write(&volume, false);
    volume.push().unwrap();
    let status = volume.status();
    assert_eq!(status.state, Condition::Clean, "{status:?}");
    assert!(status.base_lsn.map_or(0, |lsn| lsn.get()) > pushed_to, "{status:?}, and {pushed_to} was acknowledged");
    let (_dir, fresh) = scene.fresh();
    let clone = fresh.existing(&name("v")).unwrap();
    clone.hydrate(&mut |_, _| {}).unwrap();
    history.check(&clone.snapshot());
    whole_log(&clone);
    history.done
}

/// Writes numbered transactions until it is killed.
fn writer(orders: &Orders) {
    let kind = Kind::parse(&orders.text("KIND"));
    let bucket = Bucket::open(&orders.text("URL")).unwrap();
    let sync = parse_sync(&orders.text("SYNC"));
    let cache_size = orders.number("CACHE");
    let dir = PathBuf::from(orders.text("DIR"));
    let engine = open_when_free(|| Options { cache_size, sync, ..options(&dir, stores(&bucket)) });
    let mut volume = engine.volume(&name("v")).unwrap();
    let mut rng = StdRng::seed_from_u64(orders.number("LUCK"));
    if volume.status().state == Condition::InDoubt {
        volume.push().unwrap();
    }
    let mut history = History::new(orders.number("SEED"), kind);
    history.advance_to(History::last_of(&volume.snapshot()));
    assert!(history.done >= orders.number("DONE"), "{} is the last one there", history.done);
    let push_every = orders.number("PUSH_EVERY");
    loop {
        history.write(&volume, rng.random_ratio(1, 4));
        tell(&format!("did {}", history.done));
        if push_every > 0 && rng.random_ratio(1, push_every as u32) {
            tell("pushing");
            volume.push().unwrap();
            tell(&format!("pushed {}", volume.status().base_lsn.unwrap().get()));
        }
        match rng.random_range(0..20) {
            0 => {
                drop(volume);
                volume = engine.volume(&name("v")).unwrap();
            }
            1 => history.check(&volume.snapshot()),
            _ => {}
        }
    }
}

#[test]
fn acknowledged_transactions_survive_kills_and_replication_goes_on() {
    let writing = Writing {
        kind: Kind::Mixed,
        cache_size: 1 << 30,
        push_every: 6,
        sync: &[SyncMode::Manual, SyncMode::Manual, BACKGROUND],
        lines: (0, 60),
    };
    kill_writers(writing, kills(1));
}

#[test]
fn kills_while_pages_are_evicted_and_fetched_lose_nothing() {
    let writing =
        Writing { kind: Kind::Mixed, cache_size: TINY_CACHE, push_every: 2, sync: &[SyncMode::Manual], lines: (0, 40) };
    kill_writers(writing, kills(4));
}

#[test]
fn with_sync_commit_the_store_has_what_was_acknowledged_before_a_kill() {
    let writing =
        Writing { kind: Kind::Mixed, cache_size: 1 << 30, push_every: 0, sync: &[SyncMode::Commit], lines: (0, 30) };
    kill_writers(writing, kills(4));
}

#[test]
fn kills_during_compaction_lose_nothing() {
    let writing = Writing {
        kind: Kind::Churn,
        cache_size: 1 << 30,
        push_every: 0,
        sync: &[SyncMode::Manual],
        // A transaction is 1 MiB of log: compaction begins after some sixty.
        lines: (30, 120),
    };
    let (scene, history) = kill_writers(writing, kills(6));
    let written = history.done << 20;
    let left = bytes_in(&scene.dir());
    println!("{} MiB were written, {} MiB are left", written >> 20, left >> 20);
    assert!(left < 160 << 20 && written > 2 * left, "the log was not compacted: {written} written, {left} left");
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| if e.path().is_dir() { bytes_in(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

#[test]
fn kills_during_pulls_leave_a_whole_snapshot() {
    let mut scene = Scene::new();
    let (_dir, rival) = scene.fresh();
    let source = rival.volume(&name("v")).unwrap();
    let mut history = History::new(scene.seed, Kind::Mixed);
    let mut seen = History::new(scene.seed, Kind::Mixed);
    history.write(&source, false);
    source.push().unwrap();
    let mut told = 1;
    for _ in 0..kills(4) {
        let child = scene.start("puller", &[]);
        assert_eq!(child.line().as_deref(), Some("ready"));
        let lines = scene.kill(child, 0..20, "pulling", |_| {
            history.write(&source, false);
            source.push().unwrap(); // one transaction, one LSN: their numbers are the same
        });
        told = numbers(&lines, "pulled ").max().unwrap_or(told).max(told);
        let engine = scene.open();
        let volume = engine.volume(&name("v")).unwrap();
        let base = volume.status().base_lsn.unwrap().get();
        assert!(base >= told, "LSN {told} was pulled, and the replica stands on {base}");
        assert_eq!(History::last_of(&volume.snapshot()), base);
        seen.advance_to(base);
        seen.check(&volume.snapshot());
        if scene.rng.random() {
            volume.pull().unwrap();
            seen.advance_to(history.done);
            seen.check(&volume.snapshot());
        }
        volume.verify(&mut |_, _| {}).unwrap();
    }
}

/// Pulls until it is killed; reads, fetches and evicts meanwhile.
fn puller(orders: &Orders) {
    let bucket = Bucket::open(&orders.text("URL")).unwrap();
    let dir = PathBuf::from(orders.text("DIR"));
    let engine = open_when_free(|| Options { cache_size: TINY_CACHE, ..options(&dir, stores(&bucket)) });
    let volume = engine.volume(&name("v")).unwrap();
    let mut history = History::new(orders.number("SEED"), Kind::Mixed);
    tell("ready");
    loop {
        tell("pulling");
        volume.pull().unwrap();
        let snapshot = volume.snapshot();
        let base = snapshot.base_lsn().unwrap().get();
        tell(&format!("pulled {base}"));
        history.advance_to(base);
        history.check(&snapshot);
    }
}

/// So many transactions the child of the test of resets may be ahead of its parent, whose rival has to win each time.
const AHEAD: u64 = 20;
/// Pages of the test of resets: one that the rival writes, two of the child's
/// last commit, and one for each of its commits.
const RIVAL: u32 = 1;
const LAST: [u32; 2] = [2, 3];
const EACH: u32 = 100;

#[test]
fn kills_during_resets_keep_every_commit_under_some_name() {
    // A volume for every few kills: a rival that never rests makes long logs.
    let mut left = kills(4);
    while left > 0 {
        let some = left.min(15);
        kill_resetters(some);
        left -= some;
    }
}

fn kill_resetters(kills: u64) {
    let mut scene = Scene::new();
    let (_dir, rival) = scene.fresh();
    let theirs = rival.volume(&name("v")).unwrap();
    let mut rival_writes = 0;
    // Until it wins: the child then meets it.
    let mut rival_pushes = || {
        loop {
            rival_writes += 1;
            write(&theirs, &[(RIVAL, rival_writes)]);
            match theirs.push() {
                Ok(_) => return,
                Err(e) if e.kind() == ErrorKind::Conflict => {
                    let kept = theirs.reset().unwrap().kept_as.unwrap();
                    rival.remove_replica(&kept, true).unwrap();
                }
                Err(e) => panic!("{e:?}"),
            }
        }
    };
    rival_pushes();
    let (mut acknowledged, mut next) = (BTreeSet::new(), 1);
    for _ in 0..kills {
        let mut child = scene.start("resetter", &[("NEXT", next.to_string())]);
        assert_eq!(child.line().as_deref(), Some("ready"));
        (0..AHEAD).for_each(|_| child.go());
        let lines = scene.kill(child, 1..20, "resetting", |child| {
            rival_pushes();
            child.go();
        });
        acknowledged.extend(numbers(&lines, "did "));
        // One more may have been made and not told.
        next = acknowledged.last().map_or(next, |last| last + 2).max(next + 1);
        let engine = scene.open();
        let mut left = acknowledged.clone();
        let volumes = engine.local_volumes().unwrap();
        for local in &volumes {
            let volume = engine.existing(local).unwrap();
            assert_eq!(read(&volume, LAST[0]), read(&volume, LAST[1]), "half a commit in {local}");
            left.retain(|n| read(&volume, EACH + *n as u32) != *n);
        }
        assert!(left.is_empty(), "{left:?} were acknowledged and are in none of {volumes:?}");
        if scene.rng.random_ratio(1, 4) {
            // What was seen under its other name may go; the rest of the test then has less to open.
            for dropped in volumes.iter().filter(|local| **local != name("v")) {
                engine.remove_replica(dropped, true).unwrap();
            }
            acknowledged.clear();
        }
        let volume = engine.volume(&name("v")).unwrap();
        match volume.push() {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Conflict => assert!(volume.reset().unwrap().kept_as.is_some()),
            Err(e) => panic!("{e:?}"),
        }
        volume.pull().unwrap();
        assert_eq!(volume.status().state, Condition::Clean);
    }
    println!("{next} commits, {rival_writes} of the rival");
}

/// Commits, pushes, and resets where the rival was first, until it is killed.
fn resetter(orders: &Orders) {
    let bucket = Bucket::open(&orders.text("URL")).unwrap();
    let engine = open(orders.text("DIR").as_ref(), &bucket);
    let volume = engine.volume(&name("v")).unwrap();
    tell("ready");
    for n in orders.number("NEXT").. {
        orders.wait();
        write(&volume, &[(LAST[0], n), (LAST[1], n), (EACH + n as u32, n)]);
        tell(&format!("did {n}"));
        tell("pushing");
        match volume.push() {
            Ok(_) => tell("pushed"),
            Err(e) if e.kind() == ErrorKind::Conflict => {
                tell("resetting");
                volume.reset().unwrap();
                tell("reset");
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

#[test]
#[ignore = "the other tests run it, in processes of their own"]
fn child() {
    let Some(orders) = Orders::of_this_process() else { return };
    match orders.role.as_str() {
        "writer" => writer(&orders),
        "puller" => puller(&orders),
        "resetter" => resetter(&orders),
        role => panic!("no role {role}"),
    }
}
