//! Replicas that push to the same volumes as fast as they can, from processes
//! and data directories of their own: one winner per LSN, no acknowledgement
//! lost, no gap; the losers keep their work and go on.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Mutex;

use common::child::{Child, Orders, tell};
use common::*;
use quire_bucket::Bucket;
use quire_engine::{Condition, Engine, Error, ErrorKind, Lsn, Options, Result, Volume, VolumeName};
use quire_testkit::S3Server;

/// Pages from here on belong to one racer each: enough to need a segment.
const OWN_PAGES: u32 = 10_000;
const OWN_COUNT: u32 = 1_100;
/// How often an answer that did not come is asked for again.
const PATIENCE: usize = 20;

/// A push that the store acknowledged.
#[derive(Clone, Debug, PartialEq)]
struct Acknowledged {
    volume: VolumeName,
    lsn: u64,
    racer: u64,
    stamp: u64,
    big: bool,
}

impl Acknowledged {
    fn line(&self) -> String {
        format!("pushed {} {} {} {} {}", self.volume, self.lsn, self.racer, self.stamp, self.big)
    }

    fn parse(line: &str) -> Option<Acknowledged> {
        let mut words = line.strip_prefix("pushed ")?.split(' ');
        let mut word = || words.next().unwrap();
        Some(Acknowledged {
            volume: name(word()),
            lsn: word().parse().unwrap(),
            racer: word().parse().unwrap(),
            stamp: word().parse().unwrap(),
            big: word().parse().unwrap(),
        })
    }
}

/// One side of a race.
struct Racer<'a> {
    number: u64,
    engine: Engine,
    /// How many transactions it has begun: makes its stamps differ.
    begun: u64,
    losses: u64,
    /// Called before each push that is to win: returns at once, or when the others are there, too.
    start: &'a mut dyn FnMut(&Volume),
    tell: &'a mut dyn FnMut(Acknowledged),
}

impl<'a> Racer<'a> {
    fn new(
        number: u64,
        engine: Engine,
        start: &'a mut dyn FnMut(&Volume),
        tell: &'a mut dyn FnMut(Acknowledged),
    ) -> Racer<'a> {
        Racer { number, engine, begun: 0, losses: 0, start, tell }
    }

    fn run(mut self, volumes: u64, rounds: u64) -> u64 {
        for round in 0..rounds {
            for n in 0..volumes {
                let volume = self.engine.volume(&volume_name(n)).unwrap();
                (self.start)(&volume);
                while !self.attempt(&volume, round % 4 == 3) {}
            }
        }
        self.losses
    }

    /// Writes one transaction and pushes it. False: somebody else was first.
    fn attempt(&mut self, volume: &Volume, big: bool) -> bool {
        self.begun += 1;
        let stamp = self.number << 32 | self.begun;
        let target = volume.status().base_lsn.map_or(1, |lsn| lsn.get() + 1);
        let mut pages = vec![(1, stamp), (page_of(target), stamp)];
        if big {
            pages.extend(own_pages(self.number).map(|n| (n, stamp)));
        }
        write(volume, &pages);
        let lost = match patiently(|| volume.push()) {
            Ok(moved) => {
                let lsn = Lsn::new(target).unwrap();
                assert_eq!(moved.pushed, Some((lsn, 1)), "{stamp:x}");
                let volume = volume.name();
                (self.tell)(Acknowledged { volume, lsn: target, racer: self.number, stamp, big });
                return true;
            }
            Err(lost) => lost,
        };
        assert_eq!(lost.kind(), ErrorKind::Conflict, "{lost:?}");
        assert!(lost.remedy().unwrap().contains("reset"), "{lost:?}");
        assert_eq!(volume.status().state, Condition::Diverged);
        let mine = |volume: &Volume| assert_eq!((read(volume, 1), read(volume, page_of(target))), (stamp, stamp));
        mine(volume);
        let kept = patiently(|| volume.reset()).unwrap().kept_as.expect("there was work to keep");
        let kept_volume = self.engine.existing(&kept).unwrap();
        assert_eq!(kept_volume.status().unpushed, 1);
        mine(&kept_volume);
        drop(kept_volume);
        self.losses += 1;
        if kept.as_str().ends_with("-2") {
            // The first one stays, to be looked at after the race.
            self.engine.remove_replica(&kept, true).unwrap();
        }
        false
    }
}

/// A busy server may leave a request unanswered: what it did is then in doubt,
/// and asking again tells.
fn patiently<T>(mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..PATIENCE {
        match ask() {
            Err(e) if e.kind() == ErrorKind::Unavailable => eprintln!("asking again: {e}"),
            answered => return answered,
        }
    }
    Err(Error::unavailable("the store never answers"))
}

fn volume_name(n: u64) -> VolumeName {
    name(&format!("team/v{n}"))
}

/// The page that only the transaction writes which becomes this LSN.
fn page_of(lsn: u64) -> u32 {
    lsn as u32 + 1
}

fn own_pages(racer: u64) -> std::ops::Range<u32> {
    let first = OWN_PAGES + racer as u32 * OWN_COUNT;
    first..first + OWN_COUNT
}

fn racer_options(dir: &Path, bucket: &Bucket, racer: u64) -> Options {
    Options { author: format!("racer {racer}"), ..options(dir, stores(bucket)) }
}

/// What the racers were told must be what the store has: all of it, once, in order.
fn judge(bucket: &Bucket, acknowledged: &[Acknowledged], expected_each: u64) {
    let dir = scratch();
    let third = open(dir.path(), bucket);
    let mut volumes: BTreeMap<String, BTreeMap<u64, &Acknowledged>> = BTreeMap::new();
    for one in acknowledged {
        let other = volumes.entry(one.volume.to_string()).or_default().insert(one.lsn, one);
        assert_eq!(other, None, "two winners of one LSN: {one:?}");
    }
    for (volume, winners) in volumes {
        let volume = third.existing(&name(&volume)).unwrap();
        let log = volume.log().unwrap();
        let log: Vec<(u64, String)> = log.iter().rev().map(|e| (e.lsn.get(), e.author.clone())).collect();
        let told: Vec<(u64, String)> = winners.values().map(|w| (w.lsn, format!("racer {}", w.racer))).collect();
        assert_eq!(log, told, "{}: the log, and what was acknowledged", volume.name());
        assert_eq!(log.len() as u64, expected_each);
        assert!(log.iter().map(|(lsn, _)| *lsn).eq(1..=expected_each), "a gap: {log:?}");
        let mut big = BTreeMap::new();
        for winner in winners.values() {
            assert_eq!(read(&volume, page_of(winner.lsn)), winner.stamp, "{winner:?}");
            if winner.big {
                big.insert(winner.racer, winner.stamp);
            }
        }
        assert_eq!(read(&volume, 1), winners[&expected_each].stamp, "the newest is the last");
        for (racer, stamp) in big {
            own_pages(racer).for_each(|n| assert_eq!(read(&volume, n), stamp, "racer {racer}, page {n}"));
        }
    }
}

/// After the race: a racer's replicas pull to the head, and what it lost is still there.
fn look_again(dir: &Path, bucket: &Bucket, racer: u64, volumes: u64) {
    let engine = open_when_free(|| racer_options(dir, bucket, racer));
    for n in 0..volumes {
        let volume = engine.volume(&volume_name(n)).unwrap();
        volume.pull().unwrap();
        assert_eq!(volume.status().state, Condition::Clean);
    }
    for kept in engine.local_volumes().unwrap().iter().filter(|name| name.as_str().contains(".dropped-")) {
        let kept = engine.existing(kept).unwrap();
        assert_eq!((kept.status().unpushed, read(&kept, 1) >> 32), (1, racer));
    }
}

/// How the processes of a race run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    /// Each as fast as it can.
    Free,
    /// As fast as they can, but from the same base: each push meets another one.
    Abreast,
}

fn race_processes(url: &str, variables: &[(String, String)], racers: u64, pace: Pace, volumes: u64, rounds: u64) {
    let root = scratch();
    let options = quire_bucket::Options { variables: Some(variables.to_vec()), ..Default::default() };
    let bucket = Bucket::open_with(url, options).unwrap();
    let dirs: Vec<_> = (1..=racers).map(|racer| (racer, root.path().join(format!("racer-{racer}")))).collect();
    let mut children: Vec<Child> = Vec::new();
    for (racer, dir) in &dirs {
        let settings = [
            ("DIR", dir.display().to_string()),
            ("URL", url.to_owned()),
            ("RACER", racer.to_string()),
            ("PACE", format!("{pace:?}")),
            ("VOLUMES", volumes.to_string()),
            ("ROUNDS", rounds.to_string()),
        ];
        children.push(Child::start("racer", &settings, variables));
    }
    let starts = if pace == Pace::Free { 1 } else { 1 + volumes * rounds };
    let (mut acknowledged, mut losses) = (Vec::new(), 0);
    for _ in 0..starts {
        for child in &children {
            let reports = std::iter::from_fn(|| child.line().filter(|line| line != "ready"));
            acknowledged.extend(reports.filter_map(|line| Acknowledged::parse(&line)));
        }
        children.iter_mut().for_each(Child::go);
    }
    for child in children {
        for line in child.finish() {
            match line.strip_prefix("losses ") {
                Some(count) => losses += count.parse::<u64>().unwrap(),
                None => acknowledged.extend(Acknowledged::parse(&line)),
            }
        }
    }
    println!("{} pushes were acknowledged, {losses} were lost races", acknowledged.len());
    assert!(losses > 0, "nobody ever lost: this was no race");
    judge(&bucket, &acknowledged, racers * rounds);
    for (racer, dir) in dirs {
        look_again(&dir, &bucket, racer, volumes);
    }
}

#[test]
fn two_processes_race_on_a_folder() {
    let folder = scratch();
    let url = format!("file://{}/store", folder.path().display());
    race_processes(&url, &[], 2, Pace::Free, 4, setting("QUIRE_ROUNDS", 30));
}

#[test]
fn sixteen_processes_race_on_a_folder() {
    let folder = scratch();
    let url = format!("file://{}/store", folder.path().display());
    race_processes(&url, &[], 16, Pace::Free, 2, setting("QUIRE_ROUNDS", 30).div_ceil(10));
}

#[test]
fn two_processes_race_for_every_lsn_on_a_folder() {
    let folder = scratch();
    let url = format!("file://{}/store", folder.path().display());
    race_processes(&url, &[], 2, Pace::Abreast, 2, setting("QUIRE_ROUNDS", 30));
}

#[test]
fn two_processes_race_for_every_lsn_on_s3() {
    let server = S3Server::shared();
    // The server is slow where keys are contended: many volumes, few rounds.
    race_processes(&server.url("race"), &server.variables(), 2, Pace::Abreast, 8, setting("QUIRE_ROUNDS", 30) / 6);
}

#[test]
fn sixteen_threads_race_in_one_process() {
    let (volumes, rounds, racers) = (2, setting("QUIRE_ROUNDS", 30).div_ceil(5), 16);
    let bucket = memory();
    let root = scratch();
    let acknowledged = Mutex::new(Vec::new());
    let losses: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=racers)
            .map(|number| {
                let (bucket, acknowledged) = (&bucket, &acknowledged);
                let dir = root.path().join(number.to_string());
                scope.spawn(move || {
                    let engine = Engine::open(racer_options(&dir, bucket, number)).unwrap();
                    let mut tell = |one| acknowledged.lock().unwrap().push(one);
                    Racer::new(number, engine, &mut |_| {}, &mut tell).run(volumes, rounds)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(losses > 0, "nobody ever lost: this was no race");
    let acknowledged = acknowledged.into_inner().unwrap();
    let stamps: HashSet<u64> = acknowledged.iter().map(|one| one.stamp).collect();
    assert_eq!(stamps.len() as u64, racers * rounds * volumes);
    judge(&bucket, &acknowledged, racers * rounds);
    for number in 1..=racers {
        look_again(&root.path().join(number.to_string()), &bucket, number, volumes);
    }
}

#[test]
#[ignore = "the other tests run it, in processes of their own"]
fn child() {
    let Some(orders) = Orders::of_this_process() else { return };
    let bucket = Bucket::open(&orders.text("URL")).unwrap();
    let number = orders.number("RACER");
    let engine = Engine::open(racer_options(orders.text("DIR").as_ref(), &bucket, number)).unwrap();
    let start = || {
        tell("ready");
        orders.wait();
    };
    start();
    let abreast = orders.text("PACE") == format!("{:?}", Pace::Abreast);
    let mut start_again = |volume: &Volume| {
        if abreast {
            start();
            patiently(|| volume.pull()).unwrap();
        }
    };
    let mut report = |one: Acknowledged| tell(&one.line());
    let racer = Racer::new(number, engine, &mut start_again, &mut report);
    let losses = racer.run(orders.number("VOLUMES"), orders.number("ROUNDS"));
    tell(&format!("losses {losses}"));
}
