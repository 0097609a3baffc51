//! The life of volumes against a model that knows the right content at every LSN: writes, cuts, forks, restores and
//! deletions, with checkpoints, compactions and collections in between that are cut off at random.
//!
//! `QUIRE_STEPS` says how many steps, `QUIRE_SEED` replays a run.
#![allow(clippy::unwrap_used)]

#[path = "common/line.rs"]
mod line;
#[path = "common/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use line::Line;
use quire_engine::{Engine, ErrorKind, Moment, PageCount, Volume};
use quire_maintenance::collect::{self, collect};
use quire_maintenance::compact::{self, compact};
use quire_proto::Span;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use store::*;

/// A life has so many steps; then another one begins in another store.
const STEPS_OF_A_LIFE: u64 = 400;
/// No more pages than these.
const MOST_PAGES: u32 = 300;
const MOST_VOLUMES: usize = 5;

/// What one volume should show: at each LSN, the stamps of its pages.
#[derive(Clone, Default)]
struct Model {
    shown: BTreeMap<u64, Vec<u64>>,
}

struct Life {
    store: Store,
    volumes: BTreeMap<String, Model>,
    rng: StdRng,
    stamp: u64,
    names: u32,
    machines: u32,
    writer: Engine,
    /// Two followers, who sleep through much.
    followers: Vec<Engine>,
    events: BTreeMap<&'static str, u64>,
}

impl Life {
    fn new(seed: u64) -> Life {
        let store = Store::memory();
        let writer = store.client("writer");
        let followers = (0..2).map(|n| store.client(&format!("follower-{n}"))).collect();
        let mut life = Life {
            store,
            volumes: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
            stamp: 0,
            names: 0,
            machines: 0,
            writer,
            followers,
            events: BTreeMap::new(),
        };
        let first = life.fresh_name();
        life.volumes.insert(first.clone(), Model::default());
        life.write(&first);
        life
    }

    fn note(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    fn fresh_name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    fn some_volume(&mut self) -> String {
        let names: Vec<&String> = self.volumes.keys().collect();
        (*names.choose(&mut self.rng).unwrap()).clone()
    }

    fn volume(&self, name_of: &str) -> Volume {
        let volume = self.writer.volume(&name(name_of)).unwrap();
        volume.pull().unwrap();
        volume
    }

    fn pushed(&mut self, of: &str, volume: &Volume) {
        let lsn = volume.status().base_lsn.unwrap().get();
        let shown = stamps(volume);
        self.volumes.get_mut(of).unwrap().shown.insert(lsn, shown);
    }

    fn write(&mut self, of: &str) {
        let volume = self.volume(of);
        let count = volume.snapshot().page_count().get();
        let many = self.rng.random_ratio(1, 5);
        let pages = if many { self.rng.random_range(60..200) } else { self.rng.random_range(1..6) };
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.set_page_size(page_size()).unwrap();
        if count > 4 && self.rng.random_ratio(1, 8) {
            writer.truncate(PageCount::new(self.rng.random_range(1..count))).unwrap();
            self.note("cut");
        }
        let first = self.rng.random_range(1..=MOST_PAGES);
        for n in 0..pages {
            // Stretches, and scattered pages.
            let at = if many { 1 + (first + n) % MOST_PAGES } else { self.rng.random_range(1..=MOST_PAGES) };
            self.stamp += 1;
            writer.write(page(at), &content(self.stamp)).unwrap();
        }
        writer.commit(false).unwrap();
        volume.push().unwrap();
        self.pushed(of, &volume);
        self.note(if many { "large write" } else { "small write" });
    }

    /// An LSN of a volume.
    fn some_lsn(&mut self, of: &str) -> Option<u64> {
        let known: Vec<u64> = self.volumes[of].shown.keys().copied().collect();
        known.choose(&mut self.rng).copied()
    }

    fn fork(&mut self, of: &str) {
        let Some(at) = self.some_lsn(of) else { return };
        if self.volumes.len() >= MOST_VOLUMES {
            return;
        }
        let new = self.fresh_name();
        match self.writer.fork(&name(of), Some(Moment::Lsn(lsn(at))), &name(&new)) {
            Ok(forked) => {
                let shown = self.volumes[of].shown[&at].clone();
                assert_eq!(stamps(&forked.volume), shown, "{new}, a fork of {of}@{at}");
                let first = forked.volume.status().base_lsn.unwrap().get();
                self.volumes.insert(new, Model { shown: [(first, shown)].into() });
                self.note("fork");
            }
            Err(e) => {
                assert!(e.kind() == ErrorKind::Gone && !self.keeps(of, at), "fork of {of}@{at}: {e:?}");
                self.note("fork of what is gone");
            }
        }
    }

    fn restore(&mut self, of: &str) {
        let Some(at) = self.some_lsn(of) else { return };
        let newest = *self.volumes[of].shown.keys().next_back().unwrap();
        if at == newest {
            return;
        }
        match self.writer.restore(&name(of), Moment::Lsn(lsn(at))) {
            Ok(restored) => {
                let shown = self.volumes[of].shown[&at].clone();
                self.volumes.get_mut(of).unwrap().shown.insert(restored.lsn.get(), shown.clone());
                assert_eq!(stamps(&self.volume(of)), shown, "{of} restored to {at}");
                self.note("restore");
            }
            Err(e) => {
                assert!(e.kind() == ErrorKind::Gone && !self.keeps(of, at), "restore of {of}@{at}: {e:?}");
                self.note("restore of what is gone");
            }
        }
    }

    /// A volume ends; what was forked from it stays.
    fn delete(&mut self, of: &str) {
        if self.volumes.len() < 2 {
            return;
        }
        let head = self.store.runtime.block_on(self.store.log().head(&name(of))).unwrap().live().unwrap();
        self.store.runtime.block_on(self.store.log().delete(&name(of), head.lsn(), "tests")).unwrap();
        self.store.keep(of, Span::Last(1), &[]);
        self.writer.remove_replica(&name(of), true).unwrap();
        self.volumes.remove(of);
        self.store.collect_abandoned(of);
        self.note("deletion");
    }

    fn keep(&mut self, of: &str) {
        let span = match self.rng.random_range(0..6) {
            0 => Span::All,
            n => Span::Last([1, 2, 5, 12, 40][n - 1]),
        };
        let named = match self.some_lsn(of) {
            Some(at) if self.rng.random() && self.keeps(of, at) => vec![at],
            _ => Vec::new(),
        };
        self.store.keep(of, span, &named);
        self.note("retention");
    }

    /// Checkpoints, compacts or collects, over a line that may be cut.
    fn care(&mut self, of: &str) {
        let cut = self.rng.random_ratio(1, 2);
        let line = match cut {
            true => Line::cut(self.rng.random_range(1..80), self.rng.random()),
            false => Line::whole(),
        };
        let bucket = Arc::new(line).to(&self.store.bucket);
        let stores = stores_on(&bucket);
        let volume = name(of);
        let (what, done) = match self.rng.random_range(0..3) {
            0 => {
                let made = self.store.runtime.block_on(async {
                    let head = stores.log.head(&volume).await?.live().unwrap();
                    quire_history::checkpoint(&stores.reader, &volume, head.header(), &[]).await
                });
                ("checkpoint", made.map(|_| ()))
            }
            1 => {
                let options = compact::Options { budget_bytes: self.rng.random_range(10_000..200_000) };
                let work = compact(stores.reader.clone(), stores.pages.clone(), volume, options);
                ("compaction", self.store.runtime.block_on(work).map(|_| ()))
            }
            _ => {
                let abandoned_ms = if self.rng.random() { 0 } else { u64::MAX / 2 };
                let options = collect::Options { grace_ms: 0, abandoned_ms, report_at_ms: None };
                ("collection", self.store.runtime.block_on(collect(&stores, &volume, &options)).map(|_| ()))
            }
        };
        match done {
            Ok(()) => self.note(what),
            Err(e) => {
                assert!(cut && e.kind() == ErrorKind::Unavailable, "{what} of {of}: {e:?}");
                self.note("care that was cut off");
            }
        }
    }

    /// What the newest statement says of an LSN.
    fn keeps(&self, of: &str, at: u64) -> bool {
        self.store.runtime.block_on(self.store.log().statement(&name(of))).unwrap().keeps(lsn(at))
    }

    /// Reads any LSN as somebody who has never seen the volume.
    fn read(&mut self, of: &str) {
        let Some(at) = self.some_lsn(of) else { return };
        self.machines += 1;
        let reader = self.store.client(&format!("reader-{}", self.machines));
        let kept = self.keeps(of, at);
        match reader.volume_at(&name(of), Moment::Lsn(lsn(at))) {
            Ok(old) => {
                assert_eq!(stamps(&old), self.volumes[of].shown[&at], "{of}@{at}");
                assert!(kept, "{of}@{at} is read, and not kept");
                self.note("read of the past");
            }
            Err(e) => {
                assert!(e.kind() == ErrorKind::Gone && !kept, "{of}@{at}: {e:?}");
                self.note("read of what is gone");
            }
        }
        drop(reader);
        self.store.forget(&format!("reader-{}", self.machines));
    }

    /// Everything that is kept reads as it was.
    fn read_all(&mut self, of: &str) {
        let newest = *self.volumes[of].shown.keys().next_back().unwrap();
        self.machines += 1;
        let machine = format!("reader-{}", self.machines);
        let reader = self.store.client(&machine);
        for (at, shown) in &self.volumes[of].shown {
            match self.keeps(of, *at) {
                true => assert_eq!(shows(&reader, of, *at), *shown, "{of}@{at}"),
                false => gone(&reader, of, *at),
            }
        }
        assert!(self.keeps(of, newest), "the newest snapshot is always kept");
        drop(reader);
        self.store.forget(&machine);
        self.note("read of all");
    }

    fn follow(&mut self, of: &str) {
        let follower = self.rng.random_range(0..self.followers.len());
        let shown = self.volumes[of].shown.values().next_back().unwrap().clone();
        let volume = self.followers[follower].volume(&name(of)).unwrap();
        volume.pull().unwrap();
        assert_eq!(stamps(&volume), shown, "follower {follower} of {of}");
        self.note("follower");
    }

    fn step(&mut self) {
        let of = self.some_volume();
        match self.rng.random_range(0..100) {
            0..40 => self.write(&of),
            40..44 => self.fork(&of),
            44..48 => self.restore(&of),
            48..50 => self.delete(&of),
            50..58 => self.keep(&of),
            58..82 => self.care(&of),
            82..92 => self.read(&of),
            92..93 => self.read_all(&of),
            _ => self.follow(&of),
        }
    }
}

#[test]
fn the_lives_of_volumes_read_as_they_were_or_say_that_they_are_gone() {
    let steps = std::env::var("QUIRE_STEPS").map_or(1_200, |text| text.parse().unwrap());
    let mut seed = quire_testkit::seed();
    let mut events: BTreeMap<&str, u64> = BTreeMap::new();
    let mut done = 0;
    while done < steps {
        let mut life = Life::new(seed);
        let length = STEPS_OF_A_LIFE.min(steps - done);
        for _ in 0..length {
            life.step();
        }
        for volume in life.volumes.keys().cloned().collect::<Vec<_>>() {
            life.read_all(&volume);
        }
        done += length;
        life.events.iter().for_each(|(event, n)| *events.entry(event).or_default() += n);
        seed = StdRng::seed_from_u64(seed).random();
        println!("{done} steps; next is QUIRE_SEED={seed}");
    }
    println!("{events:?}");
    assert!(steps < 1_000 || events.len() >= 16, "not all happened: {events:?}");
}
