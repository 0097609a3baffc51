//! Checkpoints: opening and catching up cost the same however long the log is,
//! and what is read is exactly what the log says.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use common::*;
use quire_bucket::{Bucket, keys};
use quire_engine::{Engine, Lsn, Moment, PageCount, Volume};
use quire_proto::{CheckpointHead, CheckpointPlace};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

/// Pages of a volume, by number.
type Model = Vec<u64>;

fn assert_content(volume: &Volume, model: &Model, what: &str) {
    let snapshot = volume.snapshot();
    assert_eq!(snapshot.page_count().get() as usize, model.len(), "{what}");
    for (n, expected) in model.iter().enumerate() {
        assert_eq!(read_at(&snapshot, n as u32 + 1), *expected, "{what}, page {}", n + 1);
    }
}

/// Opens the volume in an empty data directory, and reads all of it; says how many requests it took.
fn read_afresh(bucket: &Bucket, model: &Model, what: &str) -> u64 {
    let dir = scratch();
    let engine = open(dir.path(), bucket);
    let before = bucket.counters().requests();
    assert_content(&engine.existing(&name("v")).unwrap(), model, what);
    bucket.counters().requests() - before
}

/// Opens the volume in an empty data directory, and reads its first page; says how many requests it took.
fn open_afresh(bucket: &Bucket, model: &Model) -> u64 {
    let dir = scratch();
    let engine = open(dir.path(), bucket);
    let before = bucket.counters().requests();
    assert_eq!(read(&engine.existing(&name("v")).unwrap(), 1), model[0]);
    bucket.counters().requests() - before
}

/// A volume of `pages` pages in the store, and what is in it.
fn volume(engine: &Engine, pages: u32) -> (Volume, Model) {
    let volume = engine.volume(&name("v")).unwrap();
    let first: Vec<(u32, u64)> = (1..=pages).map(|n| (n, u64::from(n))).collect();
    write(&volume, &first);
    volume.push().unwrap();
    (volume, first.iter().map(|(_, stamp)| *stamp).collect())
}

/// Pushes so many one-page commits.
fn push_updates(volume: &Volume, model: &mut Model, count: u64, first: u64) {
    for n in first..first + count {
        let at = (n as usize * 37) % model.len();
        write(volume, &[(at as u32 + 1, 1_000_000 + n)]);
        model[at] = 1_000_000 + n;
        volume.push().unwrap();
    }
}

#[test]
fn opening_reads_the_checkpoint_and_the_tail_only() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    let (volume, mut model) = volume(&engine, 50);
    push_updates(&volume, &mut model, 40, 0);
    let without = open_afresh(&bucket, &model);
    read_afresh(&bucket, &model, "by the log");
    assert_eq!(volume.checkpoint().unwrap().lsn, lsn(41));
    let with = open_afresh(&bucket, &model);
    // Two listings, the newest commit, the checkpoint; or each commit once.
    assert_eq!((with, without), (4, 43));
    read_afresh(&bucket, &model, "by the checkpoint");
    assert_eq!(volume.checkpoint().unwrap().bytes, 0, "there is one");
    push_updates(&volume, &mut model, 3, 40);
    read_afresh(&bucket, &model, "by the checkpoint and three commits");
    // The first page came along with it.
    let fresh_dir = scratch();
    let fresh = open(fresh_dir.path(), &bucket);
    let copy = fresh.existing(&name("v")).unwrap();
    assert_eq!(read(&copy, 1), model[0]);
    assert_eq!(fresh.stats().pages_fetched, 0, "no page was fetched for it");
}

#[test]
fn pushers_write_checkpoints_by_themselves_and_opening_stays_flat() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    let (volume, mut model) = volume(&engine, 20);
    push_updates(&volume, &mut model, 330, 0);
    let short = read_afresh(&bucket, &model, "after 331 commits");
    push_updates(&volume, &mut model, 512, 330);
    let long = read_afresh(&bucket, &model, "after 843 commits");
    assert!(long <= short + 8, "{short} requests after 331 commits, {long} after 843");
    drop((volume, engine));
    // And the past is read by the checkpoints before it.
    let past_dir = scratch();
    let past = open(past_dir.path(), &bucket);
    let before = bucket.counters().requests();
    let old = past.volume_at(&name("v"), Moment::Lsn(lsn(300))).unwrap();
    let mut then: Model = (1..=20).collect();
    (0..299).for_each(|n: u64| then[(n as usize * 37) % 20] = 1_000_000 + n);
    assert_content(&old, &then, "LSN 300");
    let requests = bucket.counters().requests() - before;
    assert!(requests < 130, "{requests} requests for LSN 300");
}

#[test]
fn a_replica_far_behind_catches_up_by_a_checkpoint() {
    let (dir, behind_dir, bucket) = (scratch(), scratch(), memory());
    let engine = open(dir.path(), &bucket);
    let (volume, mut model) = volume(&engine, 20);
    let behind = open(behind_dir.path(), &bucket);
    let copy = behind.existing(&name("v")).unwrap();
    assert_content(&copy, &model, "before");
    push_updates(&volume, &mut model, 700, 0);
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.truncate(PageCount::new(10)).unwrap();
    writer.commit(false).unwrap();
    model.truncate(10);
    volume.push().unwrap();
    let before = behind.stats().requests;
    copy.pull().unwrap();
    let requests = behind.stats().requests - before;
    assert!(requests < 90, "{requests} requests to catch up with 701 commits");
    assert_content(&copy, &model, "after");
    // A volume that began anew in between is not taken for the same one.
    drop((volume, copy));
    engine.delete_in_store(&name("v")).unwrap();
    engine.remove_replica(&name("v"), false).unwrap();
    let (again, mut model) = self::volume(&engine, 5);
    push_updates(&again, &mut model, 600, 0);
    assert!(behind.existing(&name("v")).unwrap().pull().is_err());
    read_afresh(&bucket, &model, "the new volume");
}

#[test]
fn a_replica_far_behind_catches_up_by_the_log_if_a_leaf_of_the_checkpoint_is_damaged() {
    let (dir, behind_dir, bucket) = (scratch(), scratch(), memory());
    let engine = open(dir.path(), &bucket);
    let (volume, mut model) = volume(&engine, 20);
    let behind = open(behind_dir.path(), &bucket);
    let copy = behind.existing(&name("v")).unwrap();
    assert_content(&copy, &model, "before");
    push_updates(&volume, &mut model, 600, 0);
    volume.checkpoint().unwrap();
    let key = keys::checkpoint(&name("v"), CheckpointPlace { lsn: lsn(601), generation: 0 });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut object = runtime.block_on(bucket.get(&key)).unwrap().bytes.to_vec();
    let leaf = CheckpointHead::decode(&object).unwrap().leaves().next().unwrap().range();
    object[leaf.start as usize] ^= 0x10;
    runtime.block_on(async {
        bucket.delete(&key).await.unwrap();
        bucket.create(&key, object.into()).await.unwrap();
    });
    copy.pull().unwrap();
    assert_content(&copy, &model, "after");
}

#[test]
fn a_damaged_checkpoint_costs_requests_and_nothing_else() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    let (volume, mut model) = volume(&engine, 30);
    push_updates(&volume, &mut model, 10, 0);
    volume.checkpoint().unwrap();
    push_updates(&volume, &mut model, 5, 10);
    let key = keys::checkpoint(&name("v"), CheckpointPlace { lsn: lsn(11), generation: 0 });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let object = runtime.block_on(bucket.get(&key)).unwrap().bytes.to_vec();
    let replace = |bytes: Vec<u8>| {
        runtime.block_on(async {
            bucket.delete(&key).await.unwrap();
            bucket.create(&key, bytes.into()).await.unwrap();
        });
    };
    for at in (0..object.len()).step_by(object.len() / 60 + 1) {
        let mut flipped = object.clone();
        flipped[at] ^= 0x10;
        replace(flipped);
        read_afresh(&bucket, &model, &format!("byte {at} flipped"));
        replace(object[..at].to_vec());
        read_afresh(&bucket, &model, &format!("cut to {at} bytes"));
    }
    runtime.block_on(bucket.delete(&key)).unwrap();
    read_afresh(&bucket, &model, "without it");
    // One of another volume, or of another history of this one.
    let other_dir = scratch();
    let other_bucket = memory();
    let other = open(other_dir.path(), &other_bucket);
    let (foreign, mut foreign_model) = self::volume(&other, 30);
    push_updates(&foreign, &mut foreign_model, 10, 500);
    foreign.checkpoint().unwrap();
    let object = runtime.block_on(other_bucket.get(&key)).unwrap().bytes;
    runtime.block_on(bucket.create(&key, object)).unwrap();
    read_afresh(&bucket, &model, "with a foreign one");
}

/// Somebody asks for checkpoints while commits are being pushed: each has the pages of its own snapshot.
#[test]
fn a_checkpoint_beside_pushes_is_of_the_commit_that_it_names() {
    let (bucket, dir) = (memory(), scratch());
    let engine = open(dir.path(), &bucket);
    let (volume, _) = volume(&engine, 1);
    let pushes = setting("QUIRE_COMMITS", 3000);
    let made = std::thread::scope(|scope| {
        let pusher = volume.clone();
        let pushing = scope.spawn(move || {
            for n in 2..=pushes {
                write(&pusher, &[(1, n)]);
                pusher.push().unwrap();
            }
        });
        let mut made = Vec::new();
        while !pushing.is_finished() {
            made.extend(Some(volume.checkpoint().unwrap()).filter(|made| made.bytes > 0).map(|made| made.lsn));
        }
        made
    });
    assert!(!made.is_empty());
    let afresh = scratch();
    let reader = open(afresh.path(), &bucket);
    for lsn in made {
        let old = reader.volume_at(&name("v"), Moment::Lsn(lsn)).unwrap();
        assert_eq!(read(&old, 1), lsn.get(), "LSN {lsn}");
    }
}

/// Any history, with checkpoints at any time: each LSN reads as it was.
#[test]
fn every_lsn_of_a_random_history_reads_as_it_was() {
    let seed = quire_testkit::seed();
    for round in 0..setting("QUIRE_ROUNDS", 12) {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(round));
        let (dir, bucket) = (scratch(), memory());
        let engine = open(dir.path(), &bucket);
        let (mut volume, model) = volume(&engine, rng.random_range(1..40));
        let mut models = BTreeMap::from([(1, model)]);
        let (mut stamp, mut began) = (10_000, 1);
        for _ in 0..30 {
            let (head, mut model) = models.last_key_value().map(|(head, model)| (*head, model.clone())).unwrap();
            match rng.random_range(0..10) {
                0 => {
                    volume.checkpoint().unwrap();
                    continue;
                }
                1 if head > began => {
                    let from = rng.random_range(began..head);
                    engine.restore(&name("v"), Moment::Lsn(lsn(from))).unwrap();
                    models.insert(head + 1, models[&from].clone());
                    continue;
                }
                2 => {
                    // The fork goes on as the volume: its origin's checkpoints are not its own.
                    let fork = engine.fork(&name("v"), None, &name("next")).unwrap();
                    drop((fork, volume));
                    engine.delete_in_store(&name("v")).unwrap();
                    engine.remove_replica(&name("v"), false).unwrap();
                    let back = engine.fork(&name("next"), None, &name("v")).unwrap();
                    volume = back.volume;
                    engine.delete_in_store(&name("next")).unwrap();
                    engine.remove_replica(&name("next"), false).unwrap();
                    began = head + 2;
                    models.insert(began, model);
                    continue;
                }
                3 => {
                    let count = rng.random_range(0..=model.len());
                    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
                    writer.truncate(PageCount::new(count as u32)).unwrap();
                    let grown = rng.random_range(count..count + 20) + 1;
                    writer.write(page(grown as u32), &content(stamp)).unwrap();
                    writer.commit(false).unwrap();
                    model.truncate(count);
                    model.resize(grown, 0);
                    model[grown - 1] = stamp;
                }
                _ => {
                    let at = rng.random_range(0..model.len() + 3);
                    write(&volume, &[(at as u32 + 1, stamp)]);
                    model.resize(model.len().max(at + 1), 0);
                    model[at] = stamp;
                }
            }
            stamp += 1;
            volume.push().unwrap();
            models.insert(head + 1, model);
        }
        let fresh_dir = scratch();
        let fresh = open(fresh_dir.path(), &bucket);
        for (n, model) in &models {
            let old = fresh.volume_at(&name("v"), Moment::Lsn(lsn(*n))).unwrap();
            assert_content(&old, model, &format!("seed {seed}, round {round}, LSN {n}"));
        }
    }
}

#[test]
fn the_first_row_of_a_long_log_comes_in_three_round_trips() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    let (volume, mut model) = volume(&engine, 50);
    push_updates(&volume, &mut model, 100, 0);
    volume.checkpoint().unwrap();
    let fresh_dir = scratch();
    let fresh = open(fresh_dir.path(), &bucket);
    let before = bucket.counters();
    let copy = fresh.existing(&name("v")).unwrap();
    assert_eq!(read(&copy, 1), model[0]);
    assert_eq!(read(&copy, 50), model[49]);
    let after = bucket.counters();
    // Two listings at once; the newest commit and the checkpoint at once; the frame of page 50.
    assert_eq!((after.list - before.list, after.get - before.get), (2, 3));
}

/// `QUIRE_COMMITS=100000` makes a log of that length; requests and bytes are printed.
#[test]
fn a_log_of_any_length_opens_and_is_caught_up_with_at_the_same_cost() {
    let (dir, near_dir, far_dir, store) = (scratch(), scratch(), scratch(), scratch());
    // In a folder: what lists a store in memory looks at all of it.
    let bucket = Bucket::open(&format!("file://{}", store.path().display())).unwrap();
    let engine = open(dir.path(), &bucket);
    let commits = setting("QUIRE_COMMITS", 2500);
    let (volume, mut model) = volume(&engine, 200);
    push_updates(&volume, &mut model, 300, 0);
    let cost = |what: &str, engine: &Engine, act: &dyn Fn(&Volume)| {
        let before = bucket.counters();
        let began = Instant::now();
        let volume = engine.existing(&name("v")).unwrap();
        act(&volume);
        let took = began.elapsed().as_micros() as f64 / 1000.0;
        let after = bucket.counters();
        let (requests, bytes) = (after.requests() - before.requests(), after.bytes_in - before.bytes_in);
        println!("{what}: {requests} requests, {bytes} bytes, {took:.1} ms");
        (requests, bytes)
    };
    let fresh = |what: &str, model: &Model| {
        let dir = scratch();
        let engine = open(dir.path(), &bucket);
        cost(what, &engine, &|volume| assert_eq!(read(volume, 1), model[0]))
    };
    let (short, short_bytes) = fresh("first row after 301 commits", &model);
    let half = commits / 2;
    let far = open(far_dir.path(), &bucket);
    let pull = |volume: &Volume| _ = volume.pull().unwrap();
    drop(far.existing(&name("v")).unwrap());
    push_updates(&volume, &mut model, half, 300);
    let near = open(near_dir.path(), &bucket);
    drop(near.existing(&name("v")).unwrap());
    push_updates(&volume, &mut model, 1000, 300 + half);
    let (behind_1000, _) = cost("catching up with 1,000 commits", &near, &pull);
    push_updates(&volume, &mut model, commits - half - 1000, 1300 + half);
    let (long, long_bytes) = fresh(&format!("first row after {} commits", commits + 301), &model);
    let (behind_all, _) = cost(&format!("catching up with {commits} commits"), &far, &pull);
    assert_content(&far.existing(&name("v")).unwrap(), &model, "caught up");
    // The tail after a checkpoint is 0 to 256 commits long: at most 3 roll-ups and 63 headers.
    assert!(
        long <= short + 70 && behind_1000 <= 90 && behind_all <= 90,
        "{short}, {long}, {behind_1000}, {behind_all}"
    );
    assert!(long_bytes <= short_bytes + 200_000, "{short_bytes} bytes, then {long_bytes}");
}
