//! What is fetched besides the page that was asked for: it is there before it is missed, it fails nobody, and it ends
//! with the volume.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use quire_bucket::{Bucket, keys};
use quire_engine::{Lsn, Volume};
use quire_testkit::seed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A volume of so many pages in the store, page n with stamp n.
fn volume(bucket: &Bucket, pages: u32) {
    let dir = scratch();
    let engine = open(dir.path(), bucket);
    let volume = engine.volume(&name("v")).unwrap();
    write(&volume, &(1..=pages).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    volume.push().unwrap();
}

fn scan(volume: &Volume, pages: std::ops::RangeInclusive<u32>) {
    let snapshot = volume.snapshot();
    pages.for_each(|n| assert_eq!(read_at(&snapshot, n), u64::from(n), "page {n}"));
}

#[test]
fn a_scan_that_goes_on_is_fetched_before_it_is_missed() {
    let (bucket, dir) = (memory(), scratch());
    volume(&bucket, 60_000);
    let engine = open(dir.path(), &bucket);
    let copy = engine.existing(&name("v")).unwrap();
    scan(&copy, 1..=10_000);
    // Nobody reads on, and it comes all the same.
    let began = Instant::now();
    while engine.stats().pages_fetched < 20_000 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} pages came", engine.stats().pages_fetched);
        std::thread::yield_now();
    }
    scan(&copy, 10_001..=60_000);
    assert_eq!(engine.stats().pages_fetched, 60_000, "each page came once");
}

#[test]
fn a_volume_that_is_closed_in_a_scan_is_left_as_it_should_be() {
    let bucket = memory();
    volume(&bucket, 20_000);
    let mut random = StdRng::seed_from_u64(seed());
    let dir = scratch();
    for _ in 0..20 {
        let engine = open(dir.path(), &bucket);
        let copy = engine.existing(&name("v")).unwrap();
        let from = random.random_range(1..15_000);
        scan(&copy, from..=from + random.random_range(0..5000));
        if random.random_ratio(1, 3) {
            // The next one begins with nothing.
            drop((copy, engine));
            std::fs::remove_dir_all(dir.path()).unwrap();
        }
    }
    let engine = open(dir.path(), &bucket);
    let copy = engine.existing(&name("v")).unwrap();
    scan(&copy, 1..=20_000);
    copy.verify(&mut |_, _| {}).unwrap();
}

#[test]
fn what_comes_along_fails_nobody() {
    let (bucket, dir) = (memory(), scratch());
    let engine = open(dir.path(), &bucket);
    let there = engine.volume(&name("v")).unwrap();
    write(&there, &(1..=40).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    there.push().unwrap();
    // Each commit owns one page; the first 64 headers come in a roll-up, without their commits.
    for n in 1..=70_u32 {
        write(&there, &[(n % 40 + 1, u64::from(1000 + n))]);
        there.push().unwrap();
    }
    let damaged = keys::commit(&name("v"), Lsn::new(50).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(bucket.delete(&damaged)).unwrap();
    let fresh_dir = scratch();
    let fresh = open(fresh_dir.path(), &bucket);
    let snapshot = fresh.existing(&name("v")).unwrap().snapshot();
    // LSN n + 1 owns page n % 40 + 1.
    let (asked, along) = (page(49 % 40 + 2), page(49 % 40 + 1));
    let mut buf = vec![0; PAGE];
    snapshot.read_along(asked, &mut buf, || Some(vec![along])).unwrap();
    assert_eq!(stamp(&buf), 1050);
    assert!(snapshot.read(along, &mut buf).is_err(), "its commit is gone");
}
