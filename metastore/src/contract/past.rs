//! The past: restores, moments, markers, checkpoints.

use bytes::Bytes;
use quire_bucket::keys;
use quire_proto::{Base, CheckpointPlace, CommitKind, ErrorKind, Marker, MarkerTarget, PageIdx, PageSet, Statement};

use super::commits::write;
use super::{Subject, assert_live, grow, lsn, volume, win};

pub async fn a_restore_stands_on_the_old_snapshot_and_changes_what_came_since(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 3).await;
    let restored = store.restore(&v, lsn(1), lsn(3), "tests").await.unwrap();
    let header = restored.header();
    assert_eq!((header.lsn, header.kind, header.author.as_str()), (lsn(4), CommitKind::Restore, "tests"));
    assert_eq!(header.base, Base::Older { lsn: lsn(1), hash: log[0].hash() });
    assert_eq!((header.parent, header.page_count), (Some(log[2].hash()), log[0].header().page_count));
    assert_eq!(restored.body().sets.changed, PageSet::from_iter([PageIdx::FIRST]));
    assert!(restored.body().sets.owned().is_empty());
    assert_live(&s.client().head(&v).await.unwrap(), &restored);
    let next = write(&restored);
    win(&*s.client(), &v, &next).await;
}

pub async fn a_restore_that_is_asked_for_again_is_the_same(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    grow(&*store, &v, 3).await;
    let restored = store.restore(&v, lsn(1), lsn(3), "tests").await.unwrap();
    let again = s.client().restore(&v, lsn(1), lsn(3), "tests").await.unwrap();
    assert_eq!(again.hash(), restored.hash());
    let other = s.client().restore(&v, lsn(2), lsn(3), "tests").await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict, "{other}");
    assert_live(&s.client().head(&v).await.unwrap(), &restored);
}

pub async fn a_restore_of_what_is_not_older_or_not_there_is_refused(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 3).await;
    let behind = store.restore(&v, lsn(1), lsn(2), "tests").await.unwrap_err();
    assert_eq!(behind.kind(), ErrorKind::Conflict, "{behind}");
    for at in [3, 4] {
        let error = store.restore(&v, lsn(at), lsn(3), "tests").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let nobody = store.restore(&volume("nobody"), lsn(1), lsn(2), "tests").await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NotFound, "{nobody}");
    store.delete(&v, lsn(3), "tests").await.unwrap();
    let ended = s.client().restore(&v, lsn(1), lsn(4), "tests").await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::NotFound, "{ended}");
    assert_eq!(s.client().commit(&v, lsn(1)).await.unwrap().hash(), log[0].hash(), "the history stays");
}

pub async fn a_moment_names_the_newest_commit_that_was_there(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    assert_eq!(store.at_time(&v, u64::MAX).await.unwrap(), None);
    grow(&*store, &v, 5).await;
    assert_eq!(store.at_time(&v, u64::MAX).await.unwrap(), Some(lsn(5)));
    assert_eq!(store.at_time(&v, 0).await.unwrap(), None);
    for n in 1..=5 {
        let stamp = s.bucket.head(&keys::commit(&v, lsn(n))).await.unwrap().last_modified_ms;
        let found = store.at_time(&v, stamp).await.unwrap();
        assert!(found >= Some(lsn(n)), "LSN {n} was there at {stamp}, and {found:?} is the newest");
    }
}

pub async fn the_time_of_a_commit_names_the_last_one_of_that_time(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 5).await;
    let times = s.client().stored_times(&v, lsn(1), lsn(5)).await.unwrap();
    assert_eq!(times.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5].map(lsn));
    for (n, time_ms) in &times {
        let last = *times.iter().rfind(|(_, other_ms)| *other_ms == time_ms).unwrap().0;
        assert_eq!(store.at_time(&v, *time_ms).await.unwrap(), Some(last), "LSN {n} in {times:?}");
        assert_eq!(store.stored_times(&v, *n, *n).await.unwrap()[n], *time_ms, "alone, and in a listing");
    }
    let some = s.client().stored_times(&v, lsn(2), lsn(4)).await.unwrap();
    assert_eq!(some.into_iter().collect::<Vec<_>>(), [2, 3, 4].map(|n| (lsn(n), times[&lsn(n)])));
    assert!(times.values().all(|time_ms| *time_ms > log[4].header().time_ms), "{times:?} are no author's");
}

pub async fn the_time_of_what_is_not_kept_is_told_of_single_commits_only(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    grow(&*store, &v, 4).await;
    let times = store.stored_times(&v, lsn(1), lsn(4)).await.unwrap();
    let kept = Statement { horizon: lsn(4), kept: [lsn(2)].into(), ..Statement::all() };
    assert!(store.state(&v, 1, &kept).await.unwrap());
    store.stub(&v, lsn(1)).await.unwrap();
    store.stub(&v, lsn(3)).await.unwrap();
    let still = s.client().stored_times(&v, lsn(1), lsn(4)).await.unwrap();
    assert_eq!(still.into_iter().collect::<Vec<_>>(), [2, 4].map(|n| (lsn(n), times[&lsn(n)])));
    for n in [1, 3].map(lsn) {
        assert_eq!(s.client().stored_times(&v, n, n).await.unwrap()[&n], times[&n]);
    }
}

pub async fn markers_lie_beside_the_snapshot_they_are_about(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 2).await;
    let marker =
        Marker { base: (v.clone(), lsn(2), log[1].hash()), target: MarkerTarget::Commit(volume("fork"), lsn(1)) };
    store.mark(&marker).await.unwrap();
    store.mark(&marker).await.unwrap();
    let listed = s.bucket.list_first(&keys::volume_prefix(&v), 10).await.unwrap();
    let markers: Vec<_> = listed.iter().filter(|meta| meta.key.as_str().contains("/mark/")).collect();
    assert_eq!(markers.len(), 2, "each under a name of its own: {listed:?}");
    let stored = s.bucket.get(&markers[0].key).await.unwrap();
    assert_eq!(Marker::decode(&stored.bytes).unwrap(), marker);
}

pub async fn the_newest_checkpoint_at_or_before_a_place_is_found(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    assert_eq!(store.checkpoint(&v, None).await.unwrap(), None);
    let place = |n, generation| CheckpointPlace { lsn: lsn(n), generation };
    for at in [place(256, 0), place(512, 0), place(512, 1), place(40, 0)] {
        store.put_checkpoint(&v, at, Bytes::from(format!("{at:?}"))).await.unwrap();
    }
    let newest = |at: Option<u64>| {
        let (store, v) = (s.client(), v.clone());
        async move { store.checkpoint(&v, at.map(|n| CheckpointPlace::last_of(lsn(n)))).await.unwrap() }
    };
    assert_eq!(newest(None).await, Some(place(512, 1)));
    assert_eq!(newest(Some(600)).await, Some(place(512, 1)));
    assert_eq!(newest(Some(511)).await, Some(place(256, 0)));
    assert_eq!(newest(Some(40)).await, Some(place(40, 0)));
    assert_eq!(newest(Some(39)).await, None);
    for (at, found) in [(place(512, 0), place(512, 0)), (place(256, 9), place(256, 0)), (place(41, 0), place(40, 0))] {
        assert_eq!(store.checkpoint(&v, Some(at)).await.unwrap(), Some(found));
    }
    assert_eq!(place(512, 1).prev(), Some(place(512, 0)));
    assert_eq!(place(512, 0).prev(), Some(CheckpointPlace::last_of(lsn(511))));
    assert_eq!(place(1, 0).prev(), None);
    assert_eq!(store.checkpoint(&volume("app/db"), None).await.unwrap(), None);
}

pub async fn a_checkpoint_is_made_once_and_read_in_parts(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let place = CheckpointPlace { lsn: lsn(7), generation: 0 };
    store.put_checkpoint(&v, place, Bytes::from_static(b"0123456789")).await.unwrap();
    store.put_checkpoint(&v, place, Bytes::from_static(b"another")).await.unwrap();
    let read = |range: std::ops::Range<u64>| {
        let (store, v) = (s.client(), v.clone());
        async move { store.read_checkpoint(&v, place, range).await }
    };
    assert_eq!(read(0..4).await.unwrap(), "0123");
    assert_eq!(read(0..1000).await.unwrap(), "0123456789", "no more than there is");
    assert_eq!(read(3..7).await.unwrap(), "3456");
    assert_eq!(read(8..12).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let absent = CheckpointPlace { lsn: lsn(8), generation: 0 };
    assert_eq!(store.read_checkpoint(&v, absent, 0..4).await.unwrap_err().kind(), ErrorKind::NotFound);
}
