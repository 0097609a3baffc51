//! Readers, and the checkpoints that they stand on: one that goes for a newer one, and one that is damaged.
#![allow(clippy::unwrap_used)]

#[path = "common/line.rs"]
mod line;
#[path = "common/store.rs"]
mod store;

use std::sync::Arc;
use std::time::Duration;

use line::Line;
use quire_bucket::keys;
use quire_engine::{ErrorKind, Moment};
use quire_maintenance::collect::{Hold, Holder, Options, collect};
use quire_proto::{CHECKPOINT_FRONT_BYTES, CheckpointPlace, Span};
use store::*;

/// A volume whose LSN 10 can be read by its checkpoint only: it stands on a restore, and what that one restored is
/// collected. What it shows.
fn on_a_checkpoint(store: &Store) -> Vec<u64> {
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    grow(&volume, 8);
    client.restore(&name("v"), Moment::Lsn(lsn(2))).unwrap();
    volume.pull().unwrap();
    let shown = grow(&volume, 2).swap_remove(0);
    store.keep("v", Span::Last(2), &[]);
    store.collect_abandoned("v");
    shown
}

fn ten(generation: u32) -> CheckpointPlace {
    CheckpointPlace { lsn: lsn(10), generation }
}

/// Writes the checkpoint of LSN 10 once more.
fn write_again(store: &Store, generation: u32) {
    let again = async {
        let head = store.log().header(&name("v"), lsn(10)).await?;
        quire_history::checkpoint_again(&store.stores.reader, &name("v"), &head, generation).await
    };
    store.runtime.block_on(again).unwrap();
}

/// Turns a byte of a checkpoint around.
fn flip(store: &Store, place: CheckpointPlace, at: usize) {
    let (bucket, key) = (&store.bucket, keys::checkpoint(&name("v"), place));
    let flipped = async {
        let mut bytes = bucket.get(&key).await?.bytes.to_vec();
        bytes[at] ^= 0x55;
        bucket.delete(&key).await?;
        bucket.create(&key, bytes.into()).await
    };
    store.runtime.block_on(flipped).unwrap();
}

/// Collects as a process would that knows nothing yet.
fn collects(store: &Store) -> quire_engine::Result<()> {
    let options = Options { grace_ms: 0, abandoned_ms: 0, report_at_ms: None };
    store.runtime.block_on(collect(&stores_on(&store.bucket), &name("v"), &options)).map(drop)
}

#[test]
fn a_checkpoint_that_goes_again_and_again_while_it_is_looked_for_is_found() {
    let store = Arc::new(Store::memory());
    let shown = on_a_checkpoint(&store);
    let line = Arc::new(Line::before(6, |_, what, key| what == "get" && key.contains("/ck/"), {
        let (store, mut generation) = (store.clone(), 0);
        move || {
            generation += 1;
            write_again(&store, generation);
            store.collect_abandoned("v");
            assert!(!store.keys().contains(keys::checkpoint(&name("v"), ten(generation - 1)).as_str()));
        }
    }));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(shows(&engine(dir.path(), &line.to(&store.bucket)), "v", 10), shown);
    assert!(store.keys().contains(keys::checkpoint(&name("v"), ten(6)).as_str()));
}

#[test]
fn a_damaged_checkpoint_does_not_hide_a_sound_one_of_a_lower_generation() {
    let store = Store::memory();
    let shown = on_a_checkpoint(&store);
    write_again(&store, 1);
    flip(&store, ten(1), 40);
    assert_eq!(shows(&store.client("b"), "v", 10), shown);
    // Nor does a collector let go of the sound one.
    assert_eq!(collects(&store).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(shows(&store.client("c"), "v", 10), shown);
}

#[test]
fn a_collector_that_cannot_read_a_checkpoint_does_not_take_what_stands_on_it_for_gone() {
    let store = Store::memory();
    let shown = grow(&store.client("a").volume(&name("v")).unwrap(), 12);
    store.keep("v", Span::Last(4), &[]);
    store.collect_abandoned("v");
    // LSN 10 has no checkpoint of its own, and before LSN 9 there is no log.
    store.keep("v", Span::Last(2), &[10]);
    let nine = CheckpointPlace { lsn: lsn(9), generation: 0 };
    flip(&store, nine, 40);
    assert_eq!(collects(&store).unwrap_err().kind(), ErrorKind::Corrupt);
    flip(&store, nine, 40);
    collects(&store).unwrap();
    assert_eq!(shows(&store.client("b"), "v", 10), shown[9]);
    gone(&store.client("b"), "v", 9);
}

#[test]
fn a_checkpoint_that_a_collector_writes_while_somebody_else_is_about_to_is_no_damage() {
    let sample = Store::memory();
    let made = |store: &Store, line: &Arc<Line>| {
        let reader = stores_on(&line.to(&store.bucket)).reader;
        store.runtime.block_on(async {
            let head = store.log().header(&name("v"), lsn(12)).await?;
            quire_history::checkpoint(&reader, &name("v"), &head, &[]).await
        })
    };
    let a_volume = |store: &Store| {
        grow(&store.client("a").volume(&name("v")).unwrap(), 12);
        store.keep("v", Span::Last(1), &[]);
    };
    a_volume(&sample);
    let line = Arc::new(Line::whole());
    made(&sample, &line).unwrap();
    let requests = line.requests().len();
    assert!(requests > 10, "{:?}", line.requests());
    for at in 1..=requests {
        let store = Arc::new(Store::memory());
        a_volume(&store);
        let line = Arc::new(Line::before(1, move |number, _, _| number == at, {
            let store = store.clone();
            move || _ = store.collect("v")
        }));
        made(&store, &line).unwrap_or_else(|e| panic!("before request {at}: {e:?}"));
    }
}

#[test]
fn what_was_damaged_on_its_way_here_does_not_stay_damaged() {
    let store = Arc::new(Store::memory());
    let shown = on_a_checkpoint(&store);
    let len = store.runtime.block_on(store.bucket.head(&keys::checkpoint(&name("v"), ten(0)))).unwrap().len_bytes;
    assert!(len < CHECKPOINT_FRONT_BYTES as u64, "it comes as a whole");
    for at in 0..len as usize {
        // The first time that it is read a byte is another one.
        let line = Arc::new(Line::before(2, |_, what, key| what == "get" && key.contains("/ck/"), {
            let store = store.clone();
            move || flip(&store, ten(0), at)
        }));
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let client = engine(dir.path(), &line.to(&store.bucket));
        let past = client.volume_at(&name("v"), Moment::Lsn(lsn(10))).unwrap();
        let read = || {
            let snapshot = past.snapshot();
            let mut data = vec![0; PAGE];
            snapshot.read(page(1), &mut data).map(|()| u64::from_le_bytes(data[..8].try_into().unwrap()))
        };
        let first = read();
        assert_eq!(read().unwrap(), shown[0], "with byte {at} damaged the first time, and then {first:?}");
    }
}

#[test]
fn a_snapshot_that_stays_open_is_leased_and_the_lease_ends_by_the_stores_clock() {
    let store = Store::memory();
    let writer = store.client("a").volume(&name("v")).unwrap();
    let shown = grow(&writer, 8);
    let dir = tempfile::tempdir().unwrap();
    let client = engine_that_leases(dir.path(), &store.bucket, Duration::ZERO);
    let reader = client.volume_at(&name("v"), Moment::Lsn(lsn(3))).unwrap();
    let marked = || store.keys().iter().any(|key| key.contains("/mark/"));
    while !marked() {
        std::thread::yield_now();
    }
    grow(&writer, 4);
    store.keep("v", Span::Last(2), &[]);
    let collected = store.collect_abandoned("v");
    let held = Hold { lsn: lsn(3), holder: Holder::Reader("tests".into()) };
    assert_eq!(collected.holds, [held]);
    assert_eq!((collected.horizon, collected.kept), (lsn(11), [lsn(3)].into()));
    assert_eq!(stamps(&reader), shown[2]);
    gone(&client, "v", 4);
    let now_ms = store.runtime.block_on(store.log().clock_ms(&name("v"))).unwrap();
    for (hours, held) in [(1, 1), (3, 0)] {
        let later = Options { report_at_ms: Some(now_ms + hours * 3_600_000), ..Options::default() };
        assert_eq!(store.collect_with("v", &later).holds.len(), held, "after {hours} hours");
    }
}

#[test]
fn a_snapshot_that_is_wanted_while_a_collector_is_about_to_publish_is_kept() {
    let store = Arc::new(Store::memory());
    let shown = grow(&store.client("a").volume(&name("v")).unwrap(), 8);
    store.keep("v", Span::Last(2), &[]);
    let line = Arc::new(Line::before(1, |_, what, key| what == "put" && key.contains("/keep/"), {
        let store = store.clone();
        move || store.keep("v", Span::Last(2), &[3])
    }));
    let options = Options { grace_ms: 0, abandoned_ms: 0, report_at_ms: None };
    let stores = stores_on(&line.to(&store.bucket));
    let collected = store.runtime.block_on(collect(&stores, &name("v"), &options)).unwrap().unwrap();
    assert_eq!((collected.horizon, collected.kept), (lsn(7), [lsn(3)].into()));
    store.collect_abandoned("v");
    assert_eq!(shows(&store.client("b"), "v", 3), shown[2]);
}
