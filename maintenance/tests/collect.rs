//! Collection, and the accidents that other systems had with theirs.
#![allow(clippy::unwrap_used)]

#[path = "common/store.rs"]
mod store;

use futures::{StreamExt, TryStreamExt, stream};
use quire_bucket::{Bucket, keys};
use quire_engine::{Condition, Engine, ErrorKind, Moment, Volume};
use quire_maintenance::collect::{Collected, Holder, Options};
use quire_proto::{
    Appended, Base, Body, CheckpointPlace, CommitHeader, CommitId, CommitKind, Marker, MarkerTarget, PageCount,
    PageSet, PageSets, SealedCommit, Span, encode_frame,
};
use store::*;

#[test]
fn by_default_nothing_ever_goes() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    let shown = grow(&volume, 8);
    let before = store.keys();
    let collected = store.collect("v");
    assert_eq!((collected.horizon, collected.segments.objects, collected.waits_ms), (lsn(1), 0, None));
    assert_eq!(store.keys(), before);
    let fresh = store.client("fresh");
    for (n, shown) in shown.iter().enumerate() {
        assert_eq!(shows(&fresh, "v", n as u64 + 1), *shown);
    }
}

/// After a collection everything that is kept reads exactly, and what is not kept says so.
fn what_is_kept_reads_and_the_rest_is_gone(store: &Store) {
    let volume = store.client("a").volume(&name("v")).unwrap();
    let shown = grow(&volume, 40);
    store.keep("v", Span::Last(5), &[7, 20]);
    let first = store.collect("v");
    assert_eq!((first.horizon, &first.kept), (lsn(36), &[7, 20].map(lsn).into()));
    assert!(first.segments.objects > 20 && first.commits.objects > 20, "{first:?}");
    let fresh = store.client("fresh");
    for (n, shown) in (1..).zip(&shown) {
        match n >= 36 || n == 7 || n == 20 {
            true => assert_eq!(shows(&fresh, "v", n), *shown, "LSN {n}"),
            false => gone(&fresh, "v", n),
        }
    }
    assert_eq!(stamps(&fresh.existing(&name("v")).unwrap()), shown[39]);
    // The second time there is nothing left to be done.
    let keys = store.keys();
    let second = store.collect("v");
    let nothing = |collected: &Collected| {
        (collected.commits.objects, collected.segments.objects, collected.checkpoints.objects) == (0, 0, 0)
    };
    assert!(nothing(&second), "{second:?}");
    assert_eq!(store.keys(), keys);
    // Life goes on, and what is no longer named goes too.
    let shown = grow(&volume, 6);
    store.keep("v", Span::Last(5), &[20]);
    let third = store.collect("v");
    assert_eq!((third.horizon, &third.kept), (lsn(42), &[20].map(lsn).into()));
    assert!(!nothing(&third));
    let later = store.client("later");
    gone(&later, "v", 7);
    gone(&later, "v", 41);
    assert_eq!(stamps(&later.existing(&name("v")).unwrap()), shown[5]);
    assert_eq!(shows(&later, "v", 42), shown[1]);
}

#[test]
fn what_is_kept_reads_and_the_rest_is_gone_in_memory() {
    what_is_kept_reads_and_the_rest_is_gone(&Store::memory());
}

#[test]
fn what_is_kept_reads_and_the_rest_is_gone_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    what_is_kept_reads_and_the_rest_is_gone(&Store::on(Bucket::open(&url).unwrap()));
}

#[test]
fn what_writes_to_a_folder_left_that_were_cut_off_goes() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let store = Store::on(Bucket::open(&url).unwrap());
    let volume = store.client("a").volume(&name("v")).unwrap();
    let shown = grow(&volume, 2);
    let path = |key: &str| folder.path().join(key);
    let leave = |key: String, hours: u64| {
        let file = std::fs::File::create(path(&key)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_hours(hours)).unwrap();
        key
    };
    let segments = keys::segments_prefix(&name("v"));
    let segment = store.keys().into_iter().find(|key| key.starts_with(segments.as_str())).unwrap();
    let old = [leave(format!("{segment}#1"), 2), leave(format!("{segment}#23"), 30)];
    let others = [
        // It may still be written.
        leave(format!("{segment}#2"), 0),
        // Not Quire's.
        leave(format!("{segment}#draft"), 30),
        leave(format!("{}/#7", segments), 30),
    ];
    let options = Options { grace_ms: 0, report_at_ms: Some(u64::MAX), ..Options::default() };
    store.collect_with("v", &options);
    assert!(old.iter().all(|key| path(key).exists()), "a report removes nothing");
    store.collect("v");
    assert!(old.iter().all(|key| !path(key).exists()) && others.iter().all(|key| path(key).exists()));
    assert_eq!(stamps(&store.client("b").existing(&name("v")).unwrap()), shown[1]);
}

#[test]
fn what_is_kept_reads_and_the_rest_is_gone_on_s3() {
    let server = quire_testkit::S3Server::shared();
    let options = quire_bucket::Options { variables: Some(server.variables()), ..quire_bucket::Options::default() };
    let bucket = Bucket::open_with(&server.url("collect"), options).unwrap();
    what_is_kept_reads_and_the_rest_is_gone(&Store::on(bucket));
}

#[test]
fn a_report_writes_nothing_and_says_what_would_go() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 20);
    store.keep("v", Span::Last(3), &[]);
    let before = store.keys();
    let puts = store.bucket.counters();
    let report = store.collect_with("v", &Options { report_at_ms: Some(u64::MAX), ..Options::default() });
    let after = store.bucket.counters();
    assert_eq!((store.keys(), after.put, after.delete), (before, puts.put, puts.delete));
    // No checkpoint stands at the horizon; what it will name is known all the same.
    let done = store.collect("v");
    let told = |collected: &Collected| {
        (
            collected.horizon,
            collected.commits.objects,
            collected.segments,
            collected.segments_left,
            collected.commits_left,
        )
    };
    assert_eq!(told(&report), told(&done));
    assert!(report.commits.objects > 0 && report.segments.bytes > 0, "{report:?}");
    // Readers would have had the grace, from when it is stated what stays.
    let grace_ms = Options::default().grace_ms;
    assert_eq!((report.waits_ms, done.waits_ms), (Some(grace_ms), None));
    // With the grace nothing more has gone yet, and a report says what will.
    store.keep("v", Span::Last(1), &[]);
    let at_once = Options { grace_ms: 0, report_at_ms: Some(u64::MAX), ..Options::default() };
    assert_eq!(store.collect_with("v", &at_once).waits_ms, None);
    let waits = store.collect_with("v", &Options::default());
    assert_eq!((waits.horizon, waits.commits.objects), (lsn(20), 0));
    let now_ms = store.runtime.block_on(store.log().clock_ms(&name("v"))).unwrap();
    let report = store.collect_with("v", &Options { report_at_ms: Some(now_ms), ..Options::default() });
    assert!(report.waits_ms.is_some_and(|ms| (1..=grace_ms).contains(&ms)), "{report:?}");
    let report = store.collect_with("v", &Options { report_at_ms: Some(u64::MAX), ..Options::default() });
    assert_eq!(report.waits_ms, None);
    let done = store.collect("v");
    assert_eq!(told(&report), told(&done));
    assert_eq!(report.commits.objects, 2, "{report:?}");
}

#[test]
fn a_deleted_volume_leaves_nothing_but_stubs_once_its_time_is_over() {
    let store = Store::memory();
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    grow(&volume, 10);
    store.runtime.block_on(store.log().delete(&name("v"), lsn(10), "tests")).unwrap();
    assert_eq!(store.collect("v").segments.objects, 0, "all of it is kept until somebody says otherwise");
    store.keep("v", Span::Last(1), &[]);
    let collected = store.collect("v");
    assert_eq!((collected.horizon, collected.segments_left.objects), (lsn(11), 0));
    let left = store.keys();
    assert!(!left.iter().any(|key| key.contains("/seg/") || key.contains("/ck/")), "{left:?}");
    // The name begins anew above what was there.
    let volume = store.client("b").volume(&name("v")).unwrap();
    let shown = grow(&volume, 3);
    assert_eq!(volume.status().base_lsn, Some(lsn(14)));
    store.collect("v");
    assert_eq!(stamps(&store.client("c").existing(&name("v")).unwrap()), shown[2]);
}

// The accidents.

/// Uploads the pages of a push that aims at an LSN; the commit that names them is yet to come.
fn upload(store: &Store, after: &SealedCommit, stamp: u64) -> SealedCommit {
    let pages = PageSet::first(PageCount::new(3));
    let data: Vec<u8> = (1..=3).flat_map(|n| content(stamp + n)).collect();
    let frame = encode_frame(&pages, page_size(), &data).unwrap();
    let frames = stream::iter([Ok(frame)]).boxed();
    let at = after.lsn().next();
    let index = store.runtime.block_on(store.stores.pages.write(&name("v"), at, frames)).unwrap();
    let mut header = CommitHeader::draft(at, CommitKind::Write, CommitId::random().unwrap(), page_size());
    header.parent = Some(after.hash());
    header.page_count = after.header().page_count;
    header.min_count = header.page_count;
    header.attributes = after.header().attributes.clone();
    SealedCommit::seal(header, Body { sets: PageSets::same(pages), index, ..Body::default() }).unwrap()
}

fn head(store: &Store, volume: &str) -> SealedCommit {
    store.runtime.block_on(store.log().head(&name(volume))).unwrap().live().unwrap()
}

#[test]
fn a_push_in_flight_keeps_its_segments_however_slow_it_is() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 12);
    store.keep("v", Span::Last(1), &[]);
    let slow = upload(&store, &head(&store, "v"), 77_000);
    for _ in 0..3 {
        store.collect_abandoned("v");
    }
    let won = store.runtime.block_on(store.log().append(&name("v"), &slow)).unwrap();
    assert!(matches!(won, Appended::Won));
    store.collect_abandoned("v");
    assert_eq!(stamps(&store.client("b").existing(&name("v")).unwrap())[..3], [77_001, 77_002, 77_003]);
}

#[test]
fn what_a_push_leaves_that_lost_its_lsn_goes() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 3);
    let late = upload(&store, &head(&store, "v"), 77_000);
    let shown = grow(&volume, 1);
    let collected = store.collect("v");
    assert_eq!(collected.segments.objects, 1, "{collected:?}");
    let lost = store.runtime.block_on(store.log().append(&name("v"), &late)).unwrap();
    assert!(matches!(lost, Appended::Lost(_)));
    assert_eq!(stamps(&store.client("b").existing(&name("v")).unwrap()), shown[0]);
}

/// The commit of a fork of `base`, and its marker.
fn fork_of(base: &SealedCommit, new: &str) -> (Marker, SealedCommit) {
    let mut header = CommitHeader::draft(lsn(1), CommitKind::Fork, CommitId::random().unwrap(), page_size());
    header.base = Base::Other { volume: name("v"), lsn: base.lsn(), hash: base.hash() };
    header.page_count = base.header().page_count;
    header.min_count = header.page_count;
    header.attributes = base.header().attributes.clone();
    let sets = PageSets { changed: PageSet::first(header.page_count), owned: Some(PageSet::new()) };
    let fork = SealedCommit::seal(header, Body { sets, ..Body::default() }).unwrap();
    let target = MarkerTarget::Commit(name(new), lsn(1));
    (Marker { base: (name("v"), base.lsn(), base.hash()), target }, fork)
}

#[test]
fn a_fork_that_is_being_made_keeps_its_base() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    let shown = grow(&volume, 12);
    let base = store.runtime.block_on(store.log().commit(&name("v"), lsn(4))).unwrap();
    let (marker, fork) = fork_of(&base, "fork");
    store.runtime.block_on(store.log().mark(&marker)).unwrap();
    store.keep("v", Span::Last(1), &[]);
    let collected = store.collect("v");
    assert_eq!(collected.holds[0].holder, Holder::OpenCommit(name("fork"), lsn(1)));
    assert_eq!((collected.blocked, collected.kept.contains(&lsn(4))), (Some(lsn(4)), true));
    // It comes back after that.
    let won = store.runtime.block_on(store.log().append(&name("fork"), &fork)).unwrap();
    assert!(matches!(won, Appended::Won));
    let collected = store.collect_abandoned("v");
    assert_eq!((collected.blocked, &collected.kept), (None, &[lsn(4)].into()));
    assert!(collected.segments.objects > 0, "the rest goes now");
    assert_eq!(stamps(&store.client("b").existing(&name("fork")).unwrap()), shown[3]);
    gone(&store.client("c"), "v", 5);
}

#[test]
fn a_fork_that_was_given_up_holds_nothing_for_ever_and_cannot_come_back() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 12);
    let base = store.runtime.block_on(store.log().commit(&name("v"), lsn(4))).unwrap();
    let (marker, fork) = fork_of(&base, "fork");
    store.runtime.block_on(store.log().mark(&marker)).unwrap();
    store.keep("v", Span::Last(1), &[]);
    store.collect("v");
    let collected = store.collect_abandoned("v");
    assert_eq!((collected.blocked, collected.holds.len()), (None, 0), "{collected:?}");
    let late = store.runtime.block_on(store.log().append(&name("fork"), &fork)).unwrap();
    assert!(matches!(late, Appended::Lost(winner) if winner.header.kind == CommitKind::Void));
    gone(&store.client("b"), "v", 4);
}

#[test]
fn a_fork_and_a_restore_of_what_is_not_kept_are_refused_even_while_it_is_still_there() {
    let store = Store::memory();
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    grow(&volume, 12);
    store.keep("v", Span::Last(1), &[]);
    // The grace has not passed: all of it is still there.
    let collected = store.collect_with("v", &Options::default());
    assert!(collected.waits_ms.is_some_and(|ms| ms > 0) && collected.segments.objects == 0, "{collected:?}");
    for refused in [
        client.fork(&name("v"), Some(Moment::Lsn(lsn(4))), &name("fork")).err().unwrap(),
        client.restore(&name("v"), Moment::Lsn(lsn(4))).err().unwrap(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Gone, "{refused:?}");
    }
}

#[test]
fn a_restore_that_is_being_made_keeps_its_base_and_lets_it_go_later() {
    let store = Store::memory();
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    let shown = grow(&volume, 12);
    let base = store.runtime.block_on(store.log().commit(&name("v"), lsn(4))).unwrap();
    let target = MarkerTarget::Commit(name("v"), lsn(13));
    store.runtime.block_on(store.log().mark(&Marker { base: (name("v"), lsn(4), base.hash()), target })).unwrap();
    store.keep("v", Span::Last(1), &[]);
    assert_eq!(store.collect("v").blocked, Some(lsn(4)));
    client.restore(&name("v"), Moment::Lsn(lsn(4))).unwrap();
    store.keep("v", Span::Last(2), &[]);
    store.collect("v");
    assert_eq!(stamps(&store.client("b").existing(&name("v")).unwrap()), shown[3]);
    // Once the restored snapshot has a checkpoint at the horizon, what it was made from is not needed.
    grow(&volume_at_head(&client), 2);
    store.keep("v", Span::Last(1), &[]);
    let collected = store.collect("v");
    assert!(collected.kept.is_empty() || store.collect("v").kept.is_empty(), "{collected:?}");
    store.client("c").existing(&name("v")).map(|volume| stamps(&volume)).unwrap();
}

fn volume_at_head(client: &Engine) -> Volume {
    let volume = client.volume(&name("v")).unwrap();
    volume.pull().unwrap();
    volume
}

#[test]
fn a_parent_that_is_deleted_before_its_child_keeps_what_the_child_needs() {
    let store = Store::memory();
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    let shown = grow(&volume, 9);
    client.fork(&name("v"), Some(Moment::Lsn(lsn(5))), &name("child")).unwrap();
    client.fork(&name("child"), None, &name("grandchild")).unwrap();
    for parent in ["v", "child"] {
        let at = head(&store, parent).lsn();
        store.runtime.block_on(store.log().delete(&name(parent), at, "tests")).unwrap();
        store.keep(parent, Span::Last(1), &[]);
        store.collect_abandoned(parent);
        store.collect_abandoned(parent);
    }
    let fresh = store.client("b").existing(&name("grandchild")).unwrap();
    assert_eq!(stamps(&fresh), shown[4]);
    let collected = store.collect("v");
    assert!(collected.segments_left.objects < 9, "the rest has gone: {collected:?}");
}

#[test]
fn a_renamed_volume_keeps_its_pages_under_the_old_name() {
    let store = Store::memory();
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    let shown = grow(&volume, 6);
    store.runtime.block_on(store.log().rename(&name("v"), &name("w"), "tests")).unwrap();
    store.keep("v", Span::Last(1), &[]);
    store.collect_abandoned("v");
    store.collect_abandoned("v");
    assert_eq!(stamps(&store.client("b").existing(&name("w")).unwrap()), shown[5]);
}

#[test]
fn a_volume_that_was_renamed_before_there_were_markers_keeps_its_pages_too() {
    let store = Store::memory();
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    let shown = grow(&volume, 6);
    store.runtime.block_on(store.log().rename(&name("v"), &name("w"), "tests")).unwrap();
    store.runtime.block_on(async {
        let marked: Vec<_> = store.log().markers(&name("v")).try_collect().await.unwrap();
        assert_eq!(marked.len(), 1);
        store.log().drop_marker(&name("v"), marked[0].lsn, marked[0].ulid).await.unwrap();
    });
    store.keep("v", Span::Last(1), &[]);
    assert_eq!(store.collect_abandoned("v").horizon, lsn(6));
    // The name may have another life.
    grow(&store.client("b").volume(&name("v")).unwrap(), 3);
    assert_eq!(store.collect_abandoned("v").horizon, lsn(6));
    assert_eq!(stamps(&store.client("c").existing(&name("w")).unwrap()), shown[5]);
}

#[test]
fn a_kept_snapshot_is_restored_over_commits_whose_bodies_are_gone() {
    let store = Store::memory();
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    let shown = grow(&volume, 1);
    // Scattered so much that the header has no room for which pages changed.
    write(&volume, (1..9_000).step_by(3).map(|page| (page, 5_000_000 + u64::from(page))));
    volume.push().unwrap();
    grow(&volume, 4);
    store.keep("v", Span::Last(1), &[1]);
    store.collect("v");
    gone(&client, "v", 2);
    client.restore(&name("v"), Moment::Lsn(lsn(1))).unwrap();
    volume.pull().unwrap();
    assert_eq!(stamps(&volume), shown[0]);
    assert_eq!(stamps(&store.client("b").existing(&name("v")).unwrap()), shown[0]);
    let between = client.changed_between(&name("v"), Moment::Lsn(lsn(1)), Moment::Lsn(lsn(6))).unwrap();
    assert!(between.pages.len() >= 3_000);
}

#[test]
fn a_damaged_checkpoint_above_the_horizon_is_made_up_for_by_the_one_before() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 8);
    store.keep("v", Span::Last(3), &[]);
    store.collect("v");
    volume.checkpoint().unwrap();
    let shown = grow(&volume, 1);
    let at = quire_proto::CheckpointPlace { lsn: lsn(8), generation: 0 };
    let key = quire_bucket::keys::checkpoint(&name("v"), at);
    store.runtime.block_on(store.bucket.replace(&key, "damaged".into())).unwrap();
    assert_eq!(stamps(&store.client("b").existing(&name("v")).unwrap()), shown[0]);
}

#[test]
fn a_volume_that_was_emptied_goes_on_above_its_horizon() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 6);
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.truncate(PageCount::ZERO).unwrap();
    writer.commit(false).unwrap();
    volume.push().unwrap();
    store.keep("v", Span::Last(1), &[]);
    let collected = store.collect("v");
    assert_eq!((collected.horizon, collected.segments_left.objects), (lsn(7), 0), "{collected:?}");
    assert!(stamps(&store.client("b").existing(&name("v")).unwrap()).is_empty());
    let shown = grow(&volume, 2);
    assert_eq!(stamps(&store.client("c").existing(&name("v")).unwrap()), shown[1]);
    assert!(shows(&store.client("d"), "v", 7).is_empty());
}

#[test]
fn a_writer_who_slept_through_it_keeps_his_work_and_takes_no_lsn() {
    let store = Store::memory();
    let sleeper = store.client("sleeper");
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 3);
    let asleep = sleeper.clone_volume(&name("v"), &name("v")).unwrap();
    stamps(&asleep);
    write(&asleep, [(2, 5)]);
    grow(&volume, 30);
    store.keep("v", Span::Last(2), &[]);
    store.collect("v");
    let error = asleep.push().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Gone, "{error:?}");
    assert_eq!(asleep.status().state, Condition::Diverged);
    let kept = asleep.reset().unwrap().kept_as.unwrap();
    assert_eq!(stamps(&asleep), stamps(&volume));
    assert_eq!(stamps(&sleeper.existing(&kept).unwrap())[1], 5, "what was cached and written is there");
}

#[test]
fn a_follower_who_slept_through_it_catches_up() {
    let store = Store::memory();
    let follower = store.client("follower");
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 3);
    let asleep = follower.clone_volume(&name("v"), &name("v")).unwrap();
    stamps(&asleep);
    let shown = grow(&volume, 30);
    store.keep("v", Span::Last(1), &[]);
    store.collect("v");
    asleep.pull().unwrap();
    assert_eq!(stamps(&asleep), shown[29]);
}

#[test]
fn a_reader_who_is_pinned_the_whole_time_gets_his_pages_or_is_told_that_they_are_gone() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    let shown = grow(&volume, 6);
    let pinned = store.client("pinned").clone_volume(&name("v"), &name("v")).unwrap().snapshot();
    grow(&volume, 12);
    store.keep("v", Span::Last(1), &[]);
    // He is safe for the grace without doing anything.
    store.collect_with("v", &Options::default());
    let mut data = vec![0; PAGE];
    pinned.read(page(2), &mut data).unwrap();
    assert_eq!(data, content(shown[5][1]));
    store.collect("v");
    let mut told = 0;
    for (n, stamp) in (1..).zip(&shown[5]) {
        match pinned.read(page(n), &mut data) {
            Ok(()) => assert_eq!(data, content(*stamp), "page {n}"),
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::Gone), "page {n}: {e:?}");
                told += 1;
            }
        }
    }
    assert!(told > 0, "something has gone");
}

#[test]
fn retention_that_is_raised_again_brings_nothing_back_and_keeps_what_comes() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 12);
    store.keep("v", Span::Last(2), &[]);
    store.collect("v");
    store.keep("v", Span::All, &[]);
    let v = name("v");
    let named = quire_maintenance::collect::keep(&store.stores, &v, |kept| kept.named.extend([lsn(3)]));
    assert_eq!(store.runtime.block_on(named).unwrap_err().kind(), ErrorKind::Gone);
    let collected = store.collect("v");
    assert_eq!((collected.horizon, collected.kept.len()), (lsn(11), 0));
    let shown = grow(&volume, 10);
    assert_eq!(store.collect("v").horizon, lsn(11));
    let fresh = store.client("b");
    gone(&fresh, "v", 3);
    gone(&fresh, "v", 10);
    for (n, shown) in (13..).zip(&shown) {
        assert_eq!(shows(&fresh, "v", n), *shown);
    }
}

#[test]
fn what_is_kept_by_time_goes_by_the_stores_clock_and_nobody_elses() {
    let store = Store::memory();
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 5);
    // A commit whose author's clock is wrong by a day, one way or the other.
    for (n, time_ms) in [(6, 0), (7, u64::MAX / 2)] {
        let mut wrong = upload(&store, &head(&store, "v"), n * 100);
        let (mut header, body) = (wrong.header().clone(), wrong.body().clone());
        header.time_ms = time_ms;
        wrong = SealedCommit::seal(header, body).unwrap();
        store.runtime.block_on(store.log().append(&name("v"), &wrong)).unwrap();
    }
    store.keep("v", Span::Time(86_400_000), &[]);
    let collected = store.collect("v");
    assert_eq!((collected.horizon, collected.segments.objects), (lsn(1), 0), "all of it is of today");
}

#[test]
fn what_came_while_the_stores_clock_was_years_behind_takes_nothing_along_that_is_young() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::on(Bucket::open(&format!("file://{}", folder.path().display())).unwrap());
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 40);
    // Whoever looks for a time from the head down comes upon LSN 10.
    for n in 8..=12 {
        let object = folder.path().join(keys::commit(&name("v"), lsn(n)).as_str());
        let file = std::fs::File::options().write(true).open(object).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(60)).unwrap();
    }
    store.keep("v", Span::Time(86_400_000), &[]);
    let collected = store.collect("v");
    assert_eq!((collected.horizon, collected.segments.objects), (lsn(1), 0), "the first ones are of today");
}

#[test]
fn a_marker_on_a_commit_that_the_store_does_not_have_stops_no_collection_for_good() {
    let store = Store::memory();
    grow(&store.client("a").volume(&name("v")).unwrap(), 6);
    let place = CheckpointPlace { lsn: lsn(1_000), generation: 1 };
    let marker =
        Marker { base: (name("v"), place.lsn, head(&store, "v").hash()), target: MarkerTarget::Checkpoint(place) };
    store.runtime.block_on(store.log().mark(&marker)).unwrap();
    store.keep("v", Span::Last(2), &[]);
    assert_eq!(store.collect_abandoned("v").horizon, lsn(5));
}

#[test]
fn a_snapshot_that_is_kept_and_whose_checkpoint_is_damaged_is_not_called_gone() {
    let store = Store::memory();
    let writer = store.client("writer");
    let volume = writer.volume(&name("v")).unwrap();
    grow(&volume, 6);
    store.keep("v", Span::Last(1), &[]);
    store.collect("v");
    let list =
        async { store.bucket.list(&keys::checkpoints_prefix(&name("v"))).try_collect::<Vec<_>>().await.unwrap() };
    let found = store.runtime.block_on(list);
    assert_eq!(found.len(), 1, "what is kept stands on a checkpoint");
    let whole = store.runtime.block_on(store.bucket.get(&found[0].key)).unwrap().bytes;
    let mut refused = 0;
    for at in (0..whole.len()).step_by(23) {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x10;
        store.runtime.block_on(store.bucket.replace(&found[0].key, bytes.into())).unwrap();
        let reader = store.client("reader");
        let read = reader.existing(&name("v")).and_then(|volume| volume.snapshot().read(page(300), &mut content(0)));
        if let Err(e) = read {
            assert_eq!(e.kind(), ErrorKind::Corrupt, "byte {at}: {e:?}");
            assert!(e.remedy().is_some(), "byte {at}: {e:?}");
            refused += 1;
        }
        drop(reader);
        store.forget("reader");
    }
    assert!(refused > 0);
}
