//! A replica whose store does not have what it stands on: another store, an older copy, a volume that was deleted there.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::hooked::{Call, Hook, Step, hooked};
use common::*;
use quire_bucket::Bucket;
use quire_engine::{Condition, Error, ErrorKind, Lsn, Moved, Options, PageCount, Result, SyncMode, Volume};

/// A data directory with volume v, whose page 1 has said 1 and then 2, both of them pushed.
fn pushed_twice(dir: &Path, bucket: &Bucket) {
    for n in 1..=2 {
        let engine = open(dir, bucket);
        let volume = engine.volume(&name("v")).unwrap();
        write(&volume, &[(1, n)]);
        volume.push().unwrap();
    }
}

/// A store with a volume of some other history, `commits` long.
fn another_store(commits: u64) -> (Bucket, tempfile::TempDir) {
    let (bucket, dir) = (memory(), tempfile::tempdir().unwrap());
    let engine = open(dir.path(), &bucket);
    let volume = engine.volume(&name("v")).unwrap();
    for n in 1..=commits {
        write(&volume, &[(1, 1000 + n)]);
        volume.push().unwrap();
    }
    (bucket, dir)
}

#[test]
fn a_replica_whose_store_has_another_history_can_always_be_reset() {
    for (ahead, theirs) in [(false, 1), (false, 2), (false, 3), (true, 1), (true, 2), (true, 3)] {
        let root = tempfile::tempdir().unwrap();
        {
            let engine = open(root.path(), &another_store(0).0);
            let volume = engine.volume(&name("v")).unwrap();
            for n in 1..=2 {
                write(&volume, &[(1, n), (2, n)]);
                volume.push().unwrap();
            }
            if ahead {
                write(&volume, &[(1, 3)]);
            }
        }
        let (bucket, _dir) = another_store(theirs);
        let engine = open(root.path(), &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        if ahead {
            for _ in 0..2 {
                let refused = volume.push().unwrap_err();
                assert!(refused.remedy().is_some(), "{refused:?}");
            }
            assert_ne!(volume.status().state, Condition::Clean);
        }
        let reset = volume.reset().unwrap();
        assert_eq!(read(&volume, 1), 1000 + theirs, "ahead: {ahead}, their LSN {theirs}");
        assert_eq!(reset.kept_as.is_some(), ahead);
        if let Some(kept) = reset.kept_as {
            assert_eq!(read(&engine.existing(&kept).unwrap(), 1), 3);
        }
        write(&volume, &[(1, 7)]);
        assert_eq!(volume.push().unwrap().pushed, Lsn::new(theirs + 1).map(|lsn| (lsn, 1)));
    }
}

#[test]
fn a_store_that_lacks_what_a_replica_stands_on_is_told_and_the_right_one_goes_on() {
    let (root, bucket) = (tempfile::tempdir().unwrap(), memory());
    let dir = root.path().join("a");
    {
        let engine = open(&dir, &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        for n in 1..=2 {
            write(&volume, &[(1, n)]);
            volume.push().unwrap();
        }
    }
    let (none, _none) = another_store(0);
    let (shorter, _shorter) = another_store(1);
    let (other, _other) = another_store(3);
    for is_ahead in [false, true] {
        if is_ahead {
            write(&open(&dir, &bucket).volume(&name("v")).unwrap(), &[(1, 3)]);
        }
        for (wrong, kind, says) in [
            (&none, ErrorKind::NotFound, "has no volume v, though this replica has its commits up to LSN 2"),
            (&shorter, ErrorKind::Conflict, "up to LSN 1 only"),
            (&other, ErrorKind::Conflict, "another"),
        ] {
            let copy = root.path().join(format!("{is_ahead}-{}", says.len()));
            copy_dir(&dir, &copy);
            let engine = open(&copy, wrong);
            let volume = engine.volume(&name("v")).unwrap();
            for moved in [volume.push(), volume.sync(), volume.pull(), volume.push()] {
                let refused = volume.account(moved).unwrap_err();
                assert_eq!(refused.kind(), kind, "ahead: {is_ahead}, {refused:?}");
                assert!(refused.message().contains(says) && refused.remedy().is_some(), "{refused:?}");
            }
            assert_eq!(volume.check_store().unwrap_err().kind(), kind);
            let status = volume.status();
            assert!(status.last_error.is_some() && status.remedy.is_some(), "{status:?}");
            if kind == ErrorKind::NotFound {
                assert_eq!(volume.reset().unwrap_err().kind(), kind, "there is nothing to go to");
            }
            assert_eq!(read(&volume, 1), if is_ahead { 3 } else { 2 });
            drop((volume, engine));
            // Back at the right one, nothing has happened.
            let volume = open(&copy, &bucket).volume(&name("v")).unwrap();
            volume.check_store().unwrap();
        }
    }
    let volume = open(&dir, &bucket).volume(&name("v")).unwrap();
    assert_eq!(volume.push().unwrap().pushed, Lsn::new(3).map(|lsn| (lsn, 1)));
}

#[test]
fn segments_that_lie_in_another_store_go_up_again_before_a_commit_names_them() {
    // More than a commit carries itself.
    let large: Vec<(u32, u64)> = (1..=10_000).map(|n| (n, u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    let check = |bucket: &Bucket| {
        let dir = tempfile::tempdir().unwrap();
        let reader = open(dir.path(), bucket).existing(&name("v")).unwrap();
        let found: Vec<u64> = large.iter().map(|(n, _)| read(&reader, *n)).collect();
        assert!(found.iter().zip(&large).all(|(found, (_, written))| found == written));
    };
    for begun in [false, true] {
        for sync in [SyncMode::Manual, SyncMode::Commit] {
            let (root, bucket, wrong) = (tempfile::tempdir().unwrap(), memory(), memory());
            let dir = root.path().join("a");
            if begun {
                let engine = open(&dir, &bucket);
                let volume = engine.volume(&name("v")).unwrap();
                write(&volume, &[(1, 1)]);
                volume.push().unwrap();
            }
            {
                let cut = |at: Step| match at {
                    Step::Before(Call::Append) => Err(Error::unavailable("the network is gone")),
                    _ => Ok(()),
                };
                let options = || Options { sync, ..options(&dir, hooked(stores(&wrong), Arc::new(cut))) };
                let engine = open_when_free(options);
                let volume = engine.volume(&name("v")).unwrap();
                let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
                writer.set_page_size(page_size()).unwrap();
                for (n, stamp) in &large {
                    writer.write(page(*n), &content(*stamp)).unwrap();
                }
                let committed = writer.commit(true).map(|_| ());
                let refused = committed.and_then(|()| volume.push().map(|_| ())).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
                assert!(engine.stats().bytes_out > 64 * 1024, "segments lie there");
            }
            let engine = open_when_free(|| options(&dir, stores(&bucket)));
            let volume = engine.volume(&name("v")).unwrap();
            if sync == SyncMode::Commit {
                // It was never in this store, nor will be: it has failed for certain.
                assert_ne!(volume.status().state, Condition::InDoubt);
                assert_eq!(volume.snapshot().page_count(), PageCount::new(u32::from(begun)));
                write(&volume, &large);
            }
            assert_eq!(volume.push().unwrap().pushed, Lsn::new(1 + u64::from(begun)).map(|lsn| (lsn, 1)));
            check(&bucket);
        }
    }
}

#[test]
fn a_push_whose_reply_was_lost_is_not_settled_by_another_store() {
    // More than a commit carries itself.
    let large = |stamp: u64| (1..=10_000).map(move |n| (n, (stamp + u64::from(n)).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    for sync in [SyncMode::Manual, SyncMode::Commit] {
        let (root, bucket, wrong) = (tempfile::tempdir().unwrap(), memory(), memory());
        let dir = root.path().join("a");
        pushed_twice(&dir, &bucket);
        {
            let lost = |at: Step| match at {
                Step::After(Call::Append) => Err(Error::unavailable("the reply is lost")),
                _ => Ok(()),
            };
            let options = || Options { sync, ..options(&dir, hooked(stores(&bucket), Arc::new(lost))) };
            let engine = open_when_free(options);
            let volume = engine.volume(&name("v")).unwrap();
            let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
            for (n, stamp) in large(3) {
                writer.write(page(n), &content(stamp)).unwrap();
            }
            let committed = writer.commit(true).map(|_| ());
            let unsaid = committed.and_then(|()| volume.push().map(|_| ())).unwrap_err();
            assert_eq!(unsaid.kind(), ErrorKind::Unavailable, "{unsaid:?}");
        }
        {
            let engine = open_when_free(|| options(&dir, stores(&wrong)));
            let volume = engine.volume(&name("v")).unwrap();
            for moved in [volume.push(), volume.pull(), volume.sync()] {
                assert_eq!(moved.map(drop).unwrap_err().kind(), ErrorKind::NotFound, "it is another store");
            }
            if sync == SyncMode::Commit {
                assert_eq!(volume.status().state, Condition::InDoubt);
            } else {
                write(&volume, &[(2, 4)]);
            }
        }
        let engine = open_when_free(|| options(&dir, stores(&bucket)));
        let volume = engine.volume(&name("v")).unwrap();
        let moved = volume.push().unwrap();
        if sync == SyncMode::Manual {
            assert_eq!(moved.pushed, Lsn::new(4).map(|lsn| (lsn, 2)), "what was there already, and what came after it");
        }
        assert_eq!(volume.status().state, Condition::Clean);
        let fresh = open(&root.path().join("fresh"), &bucket).existing(&name("v")).unwrap();
        for volume in [&volume, &fresh] {
            assert_eq!(read(volume, 2), if sync == SyncMode::Manual { 4 } else { large(3).nth(1).unwrap().1 });
            assert_eq!(read(volume, 9_999), large(3).nth(9_998).unwrap().1);
        }
    }
}

#[test]
fn a_transaction_that_another_store_refuses_is_in_doubt_and_not_reported_as_rolled_back() {
    let (root, bucket) = (tempfile::tempdir().unwrap(), memory());
    let dir = root.path().join("a");
    pushed_twice(&dir, &bucket);
    let (other, _other) = another_store(3);
    {
        let at_once = || Options { sync: SyncMode::Commit, ..options(&dir, stores(&other)) };
        let engine = open_when_free(at_once);
        let volume = engine.volume(&name("v")).unwrap();
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.write(page(1), &content(3)).unwrap();
        assert_eq!(writer.commit(true).map(|_| ()).unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!((volume.status().state, read(&volume, 1)), (Condition::InDoubt, 2));
    }
    let volume = open(&dir, &bucket).volume(&name("v")).unwrap();
    assert_eq!((volume.status().state, read(&volume, 1)), (Condition::Clean, 3));
}

#[test]
fn another_history_that_ended_is_not_taken_for_the_end_of_ones_own() {
    let (root, bucket) = (tempfile::tempdir().unwrap(), memory());
    let dir = root.path().join("a");
    pushed_twice(&dir, &bucket);
    for commits in [2, 3] {
        let (other, theirs) = another_store(commits);
        open(theirs.path(), &other).delete_in_store(&name("v")).unwrap();
        for is_ahead in [false, true] {
            let copy = root.path().join(format!("{commits}-{is_ahead}"));
            copy_dir(&dir, &copy);
            let engine = open(&copy, &other);
            let volume = engine.volume(&name("v")).unwrap();
            let check = |refused: Error, kind: ErrorKind, says: &str| {
                assert_eq!(refused.kind(), kind, "{refused:?}");
                assert!(refused.message().contains(says) && refused.remedy().is_some(), "{refused:?}");
                let told = volume.status().last_error.unwrap();
                assert!(!refused.message().contains("deleted") && !told.contains("deleted"), "{refused:?}, {told}");
            };
            if is_ahead {
                write(&volume, &[(1, 3)]);
            }
            check(volume.fetch().unwrap_err(), ErrorKind::NotFound, "is it another store?");
            for moved in [volume.pull(), volume.push(), volume.sync()] {
                check(volume.account(moved).unwrap_err(), ErrorKind::Conflict, "another one now");
            }
            check(volume.reset().unwrap_err(), ErrorKind::NotFound, "is it another store?");
            assert_eq!(read(&volume, 1), if is_ahead { 3 } else { 2 });
            drop((volume, engine));
            open(&copy, &bucket).volume(&name("v")).unwrap().check_store().unwrap();
        }
    }
}

#[test]
fn the_sync_in_the_background_tells_that_it_is_another_store() {
    let (root, bucket, none) = (tempfile::tempdir().unwrap(), memory(), memory());
    {
        let engine = open(root.path(), &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        write(&volume, &[(1, 1)]);
        volume.push().unwrap();
    }
    let often = || Options { sync: SyncMode::Every(Duration::from_millis(10)), ..options(root.path(), stores(&none)) };
    let engine = open_when_free(often);
    let volume = engine.volume(&name("v")).unwrap();
    until("the error", || volume.status().last_error.is_some_and(|told| told.contains("is it another store?")));
    assert!(volume.status().remedy.is_some());
}

#[test]
fn who_can_not_ask_is_told_so_until_he_can_and_who_may_not_know_goes_on() {
    let (root, bucket) = (tempfile::tempdir().unwrap(), memory());
    {
        let engine = open(root.path(), &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        write(&volume, &[(1, 1)]);
        volume.push().unwrap();
    }
    let answer = Arc::new(Mutex::new(Some(ErrorKind::Unavailable)));
    let answers = answer.clone();
    let hook: Hook = Arc::new(move |at| match (at, *answers.lock().unwrap()) {
        (Step::Before(Call::Headers), Some(kind)) => Err(Error::new(kind, "no")),
        _ => Ok(()),
    });
    let open = || open_when_free(|| options(root.path(), hooked(stores(&bucket), hook.clone())));
    let nothing_to_do: [fn(&Volume) -> Result<Moved>; 3] = [Volume::push, Volume::pull, Volume::sync];
    for attempt in nothing_to_do {
        *answer.lock().unwrap() = Some(ErrorKind::Unavailable);
        let engine = open();
        let volume = engine.volume(&name("v")).unwrap();
        assert_eq!(attempt(&volume).unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(volume.status().last_error.is_some());
        *answer.lock().unwrap() = None;
        assert_eq!(attempt(&volume).unwrap().to_string(), "nothing to do");
        assert_eq!(volume.status().last_error, None);
    }
    *answer.lock().unwrap() = Some(ErrorKind::Denied);
    let engine = open();
    let volume = engine.volume(&name("v")).unwrap();
    for attempt in nothing_to_do {
        assert_eq!(attempt(&volume).unwrap().to_string(), "nothing to do");
    }
    assert_eq!(volume.status().last_error, None);
}

#[test]
fn when_nothing_is_to_be_done_the_store_is_asked_once_whether_it_is_the_right_one() {
    let (root, bucket) = (tempfile::tempdir().unwrap(), memory());
    let requests = |move_it: &dyn Fn() -> Result<Moved>| {
        let before = bucket.counters().requests();
        move_it().unwrap();
        bucket.counters().requests() - before
    };
    {
        let engine = open(root.path(), &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        write(&volume, &[(1, 1)]);
        volume.push().unwrap();
        assert_eq!(requests(&|| volume.push()), 0, "it has just made that commit there");
        assert_eq!(requests(&|| volume.pull()), 1);
        write(&volume, &[(1, 2)]);
        assert_eq!(requests(&|| volume.push()), 1, "one commit, and no question");
    }
    let first: [fn(&Volume) -> Result<Moved>; 3] = [Volume::push, Volume::pull, Volume::sync];
    for (first, expected) in first.into_iter().zip([1, 2, 2]) {
        let engine = open(root.path(), &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        assert_eq!(requests(&|| first(&volume)), expected);
        assert_eq!(requests(&|| volume.push()), 0);
        assert_eq!(requests(&|| volume.pull()), 1);
        assert_eq!(requests(&|| volume.sync()), 1);
    }
}

#[test]
fn a_volume_that_was_deleted_in_the_store_says_so_and_every_way_that_it_names_is_one() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let [a, b, c] = ["a", "b", "c"].map(|dir| root.path().join(dir));
    let owner = open(&a, &bucket);
    let volume = owner.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1), (2, 2)]);
    volume.push().unwrap();
    let (engine, reader) = (open(&b, &bucket), open(&c, &bucket));
    let (theirs, unchanged) = (engine.existing(&name("v")).unwrap(), reader.existing(&name("v")).unwrap());
    write(&theirs, &[(2, 20)]);
    owner.delete_in_store(&name("v")).unwrap();

    let check = |refused: &quire_engine::Error, kind: ErrorKind| {
        assert_eq!(refused.kind(), kind, "{refused:?}");
        assert!(refused.message().contains("volume v was deleted in the store at LSN 2"), "{refused:?}");
        let remedy = refused.remedy().unwrap();
        assert!(remedy.contains("`quire fork v NEW`") && remedy.contains("`quire rm v"), "{remedy}");
        assert!(!remedy.contains("quire reset") && !remedy.contains("quire push"), "{remedy}");
    };
    check(&theirs.push().unwrap_err(), ErrorKind::Conflict);
    let status = theirs.status();
    assert_eq!(status.state, Condition::Diverged);
    assert!(status.last_error.unwrap().contains("was deleted") && status.remedy.unwrap().contains("quire fork v NEW"));
    check(&theirs.reset().unwrap_err(), ErrorKind::Conflict);
    check(&theirs.pull().unwrap_err(), ErrorKind::Conflict);
    // As another process meets it.
    drop((theirs, engine));
    let engine = open(&b, &bucket);
    let theirs = engine.existing(&name("v")).unwrap();
    check(&theirs.account(theirs.push()).unwrap_err(), ErrorKind::Conflict);
    let kept = engine.remove_replica(&name("v"), false).unwrap_err();
    assert!(kept.remedy().unwrap().contains("`quire fork v NEW`"), "{kept:?}");
    let fork = engine.fork(&name("v"), None, &name("mine")).unwrap().volume;
    fork.push().unwrap();
    drop(theirs);
    engine.remove_replica(&name("v"), true).unwrap();
    let copy = owner.existing(&name("mine")).unwrap();
    assert_eq!((read(&copy, 1), read(&copy, 2)), (1, 20));

    // Without work of its own.
    check(&unchanged.pull().unwrap_err(), ErrorKind::Gone);
    let status = unchanged.status();
    assert_eq!(status.state, Condition::Behind);
    assert!(status.last_error.is_some() && status.remedy.unwrap().contains("quire fork v NEW"));
    check(&unchanged.reset().unwrap_err(), ErrorKind::Gone);
    assert_eq!(reader.fork(&name("v"), None, &name("again")).unwrap().lsn, Some(Lsn::FIRST));
    // Who has nothing of it here is told the LSN to go back to.
    let missing = engine.existing(&name("v")).map(|_| ()).unwrap_err();
    assert!(missing.message().contains("it was deleted at LSN 2"), "{missing:?}");
    assert!(missing.remedy().unwrap().contains("`quire fork v@1 NEW`"), "{missing:?}");
}
