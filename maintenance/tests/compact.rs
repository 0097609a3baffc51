//! Compaction: the same pages from fewer places, whatever happens meanwhile.
#![allow(clippy::unwrap_used)] // a failed expectation is what a test is for

mod common;
#[path = "common/line.rs"]
mod line;

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};

use common::{World, lsn, name, on_each_store, options};
use futures::TryStreamExt;
use line::Line;
use quire_bucket::{Bucket, keys};
use quire_engine::{Engine, ErrorKind, Moment, Snapshot, Volume};
use quire_maintenance::compact::{Compacted, Options, compact};
use quire_maintenance::verify::{Object, Report};
use quire_proto::{CheckpointPlace, Error, LogUpkeep, PageIdx, Statement};

/// Steps of this size make several of a small volume.
const SMALL_STEPS: Options = Options { budget_bytes: 200_000 };

fn compact_over(bucket: &Bucket, volume: &str, with: Options) -> Result<Compacted, Error> {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(dir.path(), bucket)).unwrap();
    let pages = Arc::new(quire_pagestore::Embedded::new(bucket.clone()));
    engine.maintain(&name(volume), |reader, volume| compact(reader, pages, volume, with))
}

/// Compacts from a data directory that knows nothing.
fn compacted(bucket: &Bucket, volume: &str) -> Compacted {
    compact_over(bucket, volume, Options::default()).unwrap()
}

fn memory() -> World {
    World::of(Bucket::open("memory://").unwrap())
}

/// The hash of each page.
type Content = Vec<blake3::Hash>;

fn content(snapshot: &Snapshot) -> Content {
    let mut page = vec![0; snapshot.page_size().unwrap().bytes()];
    let pages = (1..=snapshot.page_count().get()).filter_map(PageIdx::new);
    let hash = |at| {
        snapshot.read(at, &mut page).unwrap();
        blake3::hash(&page)
    };
    pages.map(hash).collect()
}

/// What a volume holds, for whoever knows nothing of it yet.
fn head(bucket: &Bucket, volume: &str) -> Content {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(dir.path(), bucket)).unwrap();
    content(&engine.existing(&name(volume)).unwrap().snapshot())
}

/// What each snapshot of a volume holds.
fn history(bucket: &Bucket, volume: &str, lsns: u64) -> Vec<Content> {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(dir.path(), bucket)).unwrap();
    (1..=lsns).map(|n| content(&engine.volume_at(&name(volume), Moment::Lsn(lsn(n))).unwrap().snapshot())).collect()
}

fn last_lsn(world: &World, volume: &str) -> u64 {
    world.volume(volume).snapshot().base_lsn().unwrap().get()
}

/// The keys of everything in the volume.
fn all_keys(world: &World, volume: &str) -> BTreeSet<String> {
    let listed = world.bucket.list(&keys::volume_prefix(&name(volume)));
    world.wait(listed.map_ok(|meta| meta.key.to_string()).try_collect()).unwrap()
}

/// A volume whose pages are all over the place: in segments of which most pages were written anew, and in commits.
fn scattered(world: &World, volume: &str) {
    world.push(volume, 1..=200);
    world.push(volume, (1..=200).step_by(3));
    for n in 0..40 {
        world.push(volume, [n * 37 % 200 + 1, n * 11 % 200 + 1]);
    }
    world.truncate(volume, 150);
    world.push(volume, 170..=180);
}

#[test]
fn every_snapshot_reads_as_before_and_looking_again_writes_nothing() {
    on_each_store(|world| {
        scattered(world, "v");
        let lsns = last_lsn(world, "v");
        let before = history(&world.bucket, "v", lsns);
        let done = compacted(&world.bucket, "v");
        assert_eq!((done.lsn, done.lost), (lsn(lsns), 0));
        assert!(done.pages > 100 && done.after.objects == 1, "{done:?}");
        assert_eq!(history(&world.bucket, "v", lsns), before);
        let there = all_keys(world, "v");
        let again = compacted(&world.bucket, "v");
        assert_eq!((again.steps, again.pages, again.before), (0, 0, done.after), "{again:?}");
        assert_eq!(all_keys(world, "v"), there);
        // What comes later stands on it.
        world.push("v", [7, 8, 201]);
        world.volume("v").checkpoint().unwrap();
        assert_eq!(history(&world.bucket, "v", lsns), before);
        assert_eq!(head(&world.bucket, "v"), content(&world.volume("v").snapshot()));
        let report = world.deep("v");
        assert!(report.is_sound(), "{report:?}");
        let third = compacted(&world.bucket, "v");
        assert!(third.pages > 0 && third.pages < 100, "only what lies around the change is rewritten: {third:?}");
    });
}

#[test]
fn small_steps_end_where_a_large_one_does() {
    let world = memory();
    world.push("v", 1..=600);
    world.push("v", (1..=600).step_by(2));
    let before = head(&world.bucket, "v");
    let done = compact_over(&world.bucket, "v", SMALL_STEPS).unwrap();
    assert!(done.steps > 2 && done.generation == done.steps, "{done:?}");
    assert_eq!(head(&world.bucket, "v"), before);
    assert_eq!(compact_over(&world.bucket, "v", SMALL_STEPS).unwrap().steps, 0);
}

#[test]
fn a_compaction_that_is_cut_off_at_any_request_leaves_all_readable_and_the_next_one_finishes() {
    for after in [false, true] {
        for at in 1.. {
            let world = memory();
            world.push("v", 1..=100);
            (0..4).for_each(|n| world.push("v", [n * 37 % 100 + 1, n * 11 % 100 + 1]));
            let before = content(&world.volume("v").snapshot());
            let line = Arc::new(Line::cut(at, after));
            let outcome = compact_over(&line.to(&world.bucket), "v", SMALL_STEPS);
            let was_cut = line.requests().len() >= at;
            assert_eq!(head(&world.bucket, "v"), before, "cut at request {at}, after it: {after}");
            let done = compact_over(&world.bucket, "v", SMALL_STEPS).unwrap();
            assert_eq!(head(&world.bucket, "v"), before, "finished after a cut at request {at}");
            assert_eq!(compact_over(&world.bucket, "v", SMALL_STEPS).unwrap().steps, 0);
            if !was_cut {
                assert!(at > 20, "it took {at} requests");
                assert_eq!((outcome.unwrap().after, done.steps), (done.before, 0));
                break;
            }
            let error = outcome.expect_err("it was cut off");
            assert!(error.kind() != ErrorKind::Corrupt, "{error:?}");
        }
    }
}

#[test]
fn the_one_whose_checkpoint_comes_first_counts_and_the_other_goes_on_from_it() {
    let world = memory();
    scattered(&world, "v");
    let before = content(&world.volume("v").snapshot());
    world.volume("v").checkpoint().unwrap();
    let other = world.bucket.clone();
    let line = Arc::new(Line::before(
        1,
        |_, what, key| what == "put" && key.contains("/ck/"),
        move || assert!(compacted(&other, "v").steps > 0),
    ));
    let done = compacted(&line.to(&world.bucket), "v");
    assert_eq!((done.lost, done.steps, done.generation), (1, 0, 1), "{done:?}");
    assert_eq!(head(&world.bucket, "v"), before);
}

#[test]
fn many_compactors_and_a_pusher_at_once_lose_nothing() {
    for _ in 0..5 {
        let world = memory();
        scattered(&world, "v");
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    start.wait();
                    match compact_over(&world.bucket, "v", SMALL_STEPS) {
                        Ok(_) => {}
                        Err(e) => assert_eq!(e.kind(), ErrorKind::Busy, "{e:?}"),
                    }
                });
            }
            start.wait();
            for n in 0..20 {
                world.push("v", [n + 1, 150 - n]);
            }
        });
        assert_eq!(head(&world.bucket, "v"), content(&world.volume("v").snapshot()));
        compacted(&world.bucket, "v");
        assert_eq!(head(&world.bucket, "v"), content(&world.volume("v").snapshot()));
        let report = world.deep("v");
        assert!(report.is_sound(), "{report:?}");
    }
}

/// Lets go all segments that were pushed, as a collector does once nothing names them.
fn drop_pushed_segments(world: &World, volume: &str) -> usize {
    let listed = world.bucket.list(&keys::segments_prefix(&name(volume)));
    let pushed: Vec<_> = world.wait(listed.try_collect()).unwrap();
    pushed.iter().for_each(|meta| world.delete(&meta.key));
    pushed.len()
}

/// Somebody who has opened the volume, and read its first page.
fn reader_of(world: &World, dir: &std::path::Path) -> Volume {
    let engine = Engine::open(options(dir, &world.bucket)).unwrap();
    let volume = engine.existing(&name("v")).unwrap();
    let mut page = [0; 4096];
    volume.snapshot().read(PageIdx::FIRST, &mut page).unwrap();
    volume
}

#[test]
fn whoever_has_opened_the_volume_reads_on_though_what_was_there_is_gone() {
    on_each_store(|world| {
        scattered(world, "v");
        let before = content(&world.volume("v").snapshot());
        world.volume("v").checkpoint().unwrap();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (reader, hydrated) = (reader_of(world, one.path()), reader_of(world, two.path()));
        compacted(&world.bucket, "v");
        assert!(drop_pushed_segments(world, "v") > 1);
        assert_eq!(content(&reader.snapshot()), before);
        hydrated.hydrate(&mut |done, total| assert!(done <= total)).unwrap();
        assert_eq!(content(&hydrated.snapshot()), before);
    });
}

#[test]
fn what_is_missing_is_damage_unless_history_does_not_keep_it() {
    let world = memory();
    scattered(&world, "v");
    let dir = tempfile::tempdir().unwrap();
    let reader = reader_of(&world, dir.path());
    drop_pushed_segments(&world, "v");
    let mut page = [0; 4096];
    // Nothing has written it since the first commit.
    let missing = PageIdx::new(20).unwrap();
    let error = reader.snapshot().read(missing, &mut page).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert_eq!(reader.hydrate(&mut |_, _| ()).unwrap_err().kind(), ErrorKind::NotFound);
    let log = quire_metastore::Embedded::new(world.bucket.clone(), quire_metastore::Options::default());
    let horizon = lsn(last_lsn(&world, "v") + 1);
    world.wait(log.state(&name("v"), 1, &Statement { horizon, ..Statement::all() })).unwrap();
    let error = reader.snapshot().read(missing, &mut page).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone, "{error:?}");
    assert!(error.remedy().is_some());
    assert_eq!(reader.hydrate(&mut |_, _| ()).unwrap_err().kind(), ErrorKind::Gone);
}

#[test]
fn a_follower_that_is_far_behind_learns_exactly_what_changed() {
    let world = memory();
    world.push("v", 1..=300);
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(dir.path(), &world.bucket)).unwrap();
    let follower = engine.existing(&name("v")).unwrap();
    content(&follower.snapshot());
    for n in 0..600 {
        world.push("v", [n % 90 * 3 + 1]);
    }
    assert!(compacted(&world.bucket, "v").pages > 200);
    let moved = follower.pull().unwrap();
    assert_eq!(moved.pages_changed, 90);
    assert_eq!(content(&follower.snapshot()), content(&world.volume("v").snapshot()));
}

#[test]
fn what_a_fork_inherits_stays_where_it_is() {
    let world = memory();
    scattered(&world, "v");
    world.engine.fork(&name("v"), Some(Moment::Lsn(lsn(20))), &name("fork")).unwrap();
    for n in 0..30 {
        world.push("fork", [n * 5 + 1]);
    }
    let lsns = last_lsn(&world, "fork");
    let before = history(&world.bucket, "fork", lsns);
    let done = compacted(&world.bucket, "fork");
    assert_eq!((done.pages, done.after.objects), (30, 1), "{done:?}");
    assert_eq!(history(&world.bucket, "fork", lsns), before);
    // The parent may be compacted too, and the child of the child.
    world.engine.fork(&name("fork"), None, &name("child")).unwrap();
    world.push("child", [2, 9]);
    assert!(compacted(&world.bucket, "v").steps > 0);
    assert_eq!(compacted(&world.bucket, "child").pages, 2);
    assert_eq!(history(&world.bucket, "fork", lsns), before);
    assert_eq!(head(&world.bucket, "child"), content(&world.volume("child").snapshot()));
}

#[test]
fn a_restored_volume_is_compacted_like_any_other() {
    let world = memory();
    scattered(&world, "v");
    compacted(&world.bucket, "v");
    world.engine.restore(&name("v"), Moment::Lsn(lsn(9))).unwrap();
    world.push("v", [3, 77]);
    let lsns = last_lsn(&world, "v");
    let before = history(&world.bucket, "v", lsns);
    assert!(compacted(&world.bucket, "v").steps > 0);
    assert_eq!(history(&world.bucket, "v", lsns), before);
    assert_eq!(compacted(&world.bucket, "v").steps, 0);
}

#[test]
fn a_page_that_cannot_be_read_ends_the_compaction_and_nothing_counts() {
    let world = memory();
    scattered(&world, "v");
    world.flip(&world.segment("v", 2), 3000);
    let error = compact_over(&world.bucket, "v", Options::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.remedy().is_some());
    let checkpoint = world.wait(async {
        let listed = world.bucket.list(&keys::checkpoints_prefix(&name("v")));
        listed.try_collect::<Vec<_>>().await.unwrap()
    });
    let places: Vec<u32> = checkpoint.iter().map(|meta| keys::checkpoint_of(&meta.key).unwrap().generation).collect();
    assert_eq!(places, [0]);
}

#[test]
fn a_volume_that_is_not_there_is_not_found() {
    let error = compact_over(&memory().bucket, "v", Options::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.remedy().is_some());
}

/// Where a request stands among others.
fn positions(requests: &[(&str, String)], what: &str, part: &str) -> Vec<usize> {
    let is_meant = |(_, (kind, key)): &(usize, &(&str, String))| *kind == what && format!("{key}/").contains(part);
    requests.iter().enumerate().filter(is_meant).map(|(n, _)| n).collect()
}

/// A collector that has not seen the marker may let go what an older look has found.
#[test]
fn a_checkpoint_leaves_its_marker_before_it_looks_at_what_it_is_made_from() {
    let world = memory();
    scattered(&world, "v");
    compacted(&world.bucket, "v");
    world.push("v", [5]);
    let line = Arc::new(Line::whole());
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(dir.path(), &line.to(&world.bucket))).unwrap();
    let volume = engine.existing(&name("v")).unwrap();
    content(&volume.snapshot());
    let before = line.requests().len();
    volume.checkpoint().unwrap();
    let requests = &line.requests()[before..];
    let marked = positions(requests, "put", "/mark/");
    assert_eq!(marked.len(), 1, "{requests:?}");
    let listed = positions(requests, "list", "/ck/");
    let looked = listed.iter().find(|n| **n > marked[0]).expect("it looks afresh");
    let read = positions(requests, "get", "/ck/");
    assert!(!read.is_empty() && read.iter().all(|n| n > looked), "{requests:?}");
}

#[test]
fn a_checkpoint_made_from_one_of_a_compaction_that_is_damaged_since_is_sound() {
    let world = memory();
    scattered(&world, "v");
    let done = compacted(&world.bucket, "v");
    world.push("v", [7]);
    world.volume("v").checkpoint().unwrap();
    assert!(world.deep("v").is_sound());
    let place = CheckpointPlace { lsn: done.lsn, generation: done.generation };
    world.flip(&keys::checkpoint(&name("v"), place), -1);
    let report = world.deep("v");
    let [damage] = &report.damage[..] else { panic!("one damaged object: {report:?}") };
    assert_eq!((damage.object, damage.pages.is_empty()), (Object::Checkpoint(place), true), "{damage:?}");
    assert_eq!((&report.touched[..], report.readable), (&[][..], Some(done.lsn.next())), "{report:?}");
}

#[test]
fn a_segment_of_a_compaction_that_is_damaged_is_found_with_the_snapshots_that_need_it() {
    let world = memory();
    scattered(&world, "v");
    let lsns = last_lsn(&world, "v");
    compacted(&world.bucket, "v");
    let listed = world.bucket.list(&keys::compacted_prefix(&name("v")));
    let segments: Vec<_> = world.wait(listed.map_ok(|meta| meta.key).try_collect()).unwrap();
    let [segment] = &segments[..] else { panic!("one segment: {segments:?}") };
    let check = |report: Report| {
        let [damage] = &report.damage[..] else { panic!("one damaged object: {report:?}") };
        assert!(matches!(damage.object, Object::Segment { id, .. } if id.generation > 0), "{damage:?}");
        // The compacted snapshot needs it; the one before is read by the log.
        assert_eq!(report.touched, [(lsn(lsns), lsn(lsns))], "{report:?}");
        assert!(report.lost.as_ref().is_some_and(|lost| !lost.is_empty()), "{report:?}");
        assert_eq!(report.readable, Some(lsn(lsns - 1)));
    };
    let bytes = world.read(segment);
    world.flip(segment, bytes.len() as i64 / 2);
    assert!(world.plain("v").is_sound(), "its length is right");
    check(world.deep("v"));
    world.delete(segment);
    check(world.plain("v"));
    check(world.deep("v"));
}
