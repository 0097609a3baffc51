//! Random operations on two replicas of one volume, against plain maps of
//! pages: writes, truncations, regrowth, commits, rollbacks, pushes, pulls,
//! resets, reopenings, evictions (the cache is tiny), lost table files.
//!
//! The seed is printed and replays; `QUIRE_STEPS=N` runs longer.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::*;
use quire_bucket::Bucket;
use quire_engine::{Condition, Engine, ErrorKind, Lsn, PageCount, Snapshot, Volume};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const DEFAULT_STEPS: u64 = 20_000;
const MAX_PAGES: u32 = 700;

/// The right content of a volume at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    pages: BTreeMap<u32, u64>,
    count: u32,
}

impl Content {
    fn truncate(&mut self, count: u32) {
        self.pages.retain(|n, _| *n <= count);
        self.count = count;
    }

    fn get(&self, n: u32) -> u64 {
        self.pages.get(&n).copied().unwrap_or(0)
    }
}

struct Side {
    dir: PathBuf,
    engine: Option<Engine>,
    volume: Option<Volume>,
    content: Content,
    /// The LSN in the store that it stands on, and how many commits are on top.
    base: u64,
    unpushed: u64,
    diverged: bool,
    /// Snapshots that are still read, with what they must show.
    held: Vec<(Snapshot, Content)>,
    dropped: u64,
}

impl Side {
    fn volume(&self) -> &Volume {
        self.volume.as_ref().expect("it is open")
    }

    fn open(&mut self, bucket: &Bucket) {
        // A tiny cache, so that pages are evicted all the time.
        let engine =
            open_when_free(|| quire_engine::Options { cache_size: 256 << 10, ..options(&self.dir, stores(bucket)) });
        self.volume = Some(engine.volume(&name("v")).unwrap());
        self.engine = Some(engine);
    }

    fn close(&mut self) {
        self.held.clear();
        self.volume = None;
        self.engine = None;
    }
}

fn check(snapshot: &Snapshot, content: &Content, rng: &mut StdRng, thorough: bool) {
    assert_eq!(snapshot.page_count().get(), content.count);
    let mut data = [0xEE; PAGE];
    let mut check = |n: u32| {
        snapshot.read(page(n), &mut data).unwrap();
        assert_eq!(stamp(&data), content.get(n), "page {n} of {}", content.count);
    };
    if thorough {
        (1..=content.count).for_each(&mut check);
    } else if content.count > 0 {
        for _ in 0..8 {
            check(rng.random_range(1..=content.count));
        }
    }
}

fn transaction(side: &mut Side, rng: &mut StdRng, next_stamp: &mut u64) {
    let volume = side.volume().clone();
    let mut writer = volume.writer(&volume.snapshot(), "model").unwrap();
    writer.set_page_size(page_size()).unwrap();
    let mut content = side.content.clone();
    for _ in 0..rng.random_range(1..12) {
        match rng.random_range(0..12) {
            0 if content.count > 2 => {
                let count = rng.random_range(1..=content.count);
                writer.truncate(PageCount::new(count)).unwrap();
                content.truncate(count);
            }
            1 => {
                // Grows without writing what is between.
                let n = rng.random_range(1..=MAX_PAGES);
                *next_stamp += 1;
                writer.write(page(n), &common::content(*next_stamp)).unwrap();
                content.pages.insert(n, *next_stamp);
                content.count = content.count.max(n);
            }
            2 => {
                let first = rng.random_range(1..=MAX_PAGES - 60);
                for n in first..first + rng.random_range(1..60) {
                    *next_stamp += 1;
                    writer.write(page(n), &common::content(*next_stamp)).unwrap();
                    content.pages.insert(n, *next_stamp);
                    content.count = content.count.max(n);
                }
            }
            _ => {
                let n = rng.random_range(1..=content.count.clamp(1, 50));
                *next_stamp += 1;
                writer.write(page(n), &common::content(*next_stamp)).unwrap();
                content.pages.insert(n, *next_stamp);
                content.count = content.count.max(n);
            }
        }
        let n = rng.random_range(1..=MAX_PAGES);
        let mut data = [0xEE; PAGE];
        writer.read(page(n), &mut data).unwrap();
        assert_eq!(stamp(&data), content.get(n), "a writer reads what it wrote");
    }
    if rng.random_ratio(1, 5) {
        drop(writer);
    } else {
        let empty = writer.is_empty();
        writer.commit(rng.random_ratio(1, 20)).unwrap();
        side.content = content;
        side.unpushed += u64::from(!empty);
    }
}

#[test]
fn two_replicas_do_what_plain_maps_of_pages_do() {
    let steps = setting("QUIRE_STEPS", DEFAULT_STEPS);
    let mut rng = StdRng::seed_from_u64(quire_testkit::seed());
    let bucket = memory();
    let root = scratch();
    let mut log: Vec<Content> = Vec::new(); // what each LSN must show
    let mut next_stamp = 0;
    let mut sides: Vec<Side> = ["a", "b"]
        .iter()
        .map(|dir| Side {
            dir: root.path().join(dir),
            engine: None,
            volume: None,
            content: Content::default(),
            base: 0,
            unpushed: 0,
            diverged: false,
            held: Vec::new(),
            dropped: 0,
        })
        .collect();
    sides.iter_mut().for_each(|side| side.open(&bucket));
    let mut counts = BTreeMap::<&str, u64>::new();
    for step in 0..steps {
        let head = log.len() as u64;
        let side = &mut sides[rng.random_range(0..2)];
        let what = match rng.random_range(0..100) {
            0..55 => {
                transaction(side, &mut rng, &mut next_stamp);
                "transaction"
            }
            55..67 => {
                let pushed = side.volume().push();
                if side.unpushed == 0 {
                    assert_eq!(pushed.unwrap().pushed, None, "nothing to push");
                } else if side.diverged || side.base != head {
                    assert_eq!(pushed.unwrap_err().kind(), ErrorKind::Conflict);
                    side.diverged = true;
                    assert_eq!(side.volume().status().state, Condition::Diverged);
                } else {
                    assert_eq!(pushed.unwrap().pushed, Lsn::new(head + 1).map(|lsn| (lsn, side.unpushed)));
                    log.push(side.content.clone());
                    (side.base, side.unpushed) = (head + 1, 0);
                }
                "push"
            }
            67..79 => {
                let pulled = side.volume().pull();
                if side.base == head {
                    assert_eq!(pulled.unwrap().pulled, None);
                } else if side.unpushed > 0 {
                    assert_eq!(pulled.unwrap_err().kind(), ErrorKind::Conflict);
                    side.diverged = true;
                } else {
                    pulled.unwrap();
                    side.base = head;
                    side.content = log[head as usize - 1].clone();
                }
                "pull"
            }
            79..83 if head > 0 => {
                let reset = side.volume().reset().unwrap();
                if side.unpushed > 0 {
                    side.dropped += 1;
                    let kept = reset.kept_as.unwrap();
                    assert_eq!(kept, name(&format!("v.dropped-{}", side.dropped)));
                    let kept = side.engine.as_ref().unwrap().volume(&kept).unwrap();
                    check(&kept.snapshot(), &side.content, &mut rng, true);
                } else {
                    assert_eq!(reset.kept_as, None);
                }
                (side.base, side.unpushed, side.diverged) = (head, 0, false);
                side.content = log[head as usize - 1].clone();
                "reset"
            }
            83..87 => {
                side.close();
                if rng.random_ratio(1, 3) {
                    for replica in std::fs::read_dir(side.dir.join("replicas")).into_iter().flatten() {
                        let _ = std::fs::remove_file(replica.unwrap().path().join("table.qtab"));
                    }
                }
                let known = side.base > 0 || side.unpushed > 0;
                side.open(&bucket);
                if !known && head > 0 {
                    // There was nothing here: opening it took the store's.
                    side.base = head;
                    side.content = log[head as usize - 1].clone();
                }
                "reopen"
            }
            87..92 => {
                let snapshot = side.volume().snapshot();
                side.held.push((snapshot, side.content.clone()));
                if side.held.len() > 3 {
                    let (snapshot, content) = side.held.remove(0);
                    check(&snapshot, &content, &mut rng, true);
                }
                "hold a snapshot"
            }
            92..94 => {
                hydrate_what_fits(side.volume());
                "hydrate"
            }
            94..96 => {
                side.volume().verify(&mut |_, _| {}).unwrap();
                "verify"
            }
            _ => {
                check(&side.volume().snapshot(), &side.content, &mut rng, true);
                "read all"
            }
        };
        *counts.entry(what).or_default() += 1;
        let thorough = step % 64 == 0;
        for side in &sides {
            check(&side.volume().snapshot(), &side.content, &mut rng, thorough);
            let status = side.volume().status();
            assert_eq!(
                (status.base_lsn.map_or(0, Lsn::get), status.unpushed),
                (side.base, side.unpushed),
                "step {step}, {what}"
            );
        }
    }
    let fresh = root.path().join("fresh");
    let engine = open(&fresh, &bucket);
    check(&engine.volume(&name("v")).unwrap().snapshot(), log.last().unwrap(), &mut rng, true);
    println!("{steps} steps, {} LSNs: {counts:?}", log.len());
}
