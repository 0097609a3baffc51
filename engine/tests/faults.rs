//! Pushes that fail, lose their replies, or die at each step.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::hooked::{Call, Hook, Step, hooked};
use common::*;
use futures::TryStreamExt;
use quire_bucket::{Bucket, keys};
use quire_engine::{Condition, Engine, Error, ErrorKind, Lsn, SyncMode, Volume};

/// The steps of a push.
const STEPS: [Step; 4] = [
    Step::Before(Call::WriteSegments),
    Step::After(Call::WriteSegments),
    Step::Before(Call::Append),
    Step::After(Call::Append),
];

fn open_hooked(dir: &Path, bucket: &Bucket, sync: SyncMode, hook: Hook) -> Engine {
    let mut options = options(dir, hooked(stores(bucket), hook));
    options.sync = sync;
    Engine::open(options).unwrap()
}

fn unreachable_store() -> Error {
    Error::unavailable("the test cut the line")
}

/// Noise, so that a push of these pages does not fit into the commit.
fn big() -> Vec<(u32, u64)> {
    let noise = |n: u64| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (1..=9000).map(|n| (n, noise(n.into()))).collect()
}

#[test]
fn a_push_killed_at_any_step_goes_on_after_a_restart() {
    for step in STEPS {
        for first_push in [true, false] {
            let bucket = memory();
            let root = tempfile::tempdir().unwrap();
            let (dir, dead) = (root.path().join("a"), root.path().join("dead"));
            let mut expected = 1;
            if !first_push {
                let engine = open(&dir, &bucket);
                let volume = engine.volume(&name("v")).unwrap();
                write(&volume, &[(1, 1)]);
                volume.push().unwrap();
                expected = 2;
            }
            {
                let (from, to) = (dir.clone(), dead.clone());
                let hook: Hook = Arc::new(move |at| {
                    if at != step {
                        return Ok(());
                    }
                    copy_dir(&from, &to); // what a kill right here leaves on disk
                    Err(unreachable_store())
                });
                let engine = open_hooked(&dir, &bucket, SyncMode::Manual, hook);
                let volume = engine.volume(&name("v")).unwrap();
                write(&volume, &big());
                assert_eq!(volume.push().unwrap_err().kind(), ErrorKind::Unavailable, "{step:?}");
            }
            let engine = open(&dead, &bucket);
            let volume = engine.volume(&name("v")).unwrap();
            assert_eq!(volume.status().unpushed, 1, "{step:?}");
            write(&volume, &[(2, 22)]);
            volume.push().unwrap();
            assert_eq!(volume.status().state, Condition::Clean, "{step:?}");
            let lsns = volume.log().unwrap().len();
            assert!(lsns == expected || lsns == expected + 1, "{step:?}: {lsns} commits");
            let fresh = open(&root.path().join("fresh"), &bucket);
            let clone = fresh.existing(&name("v")).unwrap();
            for (n, stamp) in big() {
                assert_eq!(read(&clone, n), if n == 2 { 22 } else { stamp }, "{step:?}, page {n}");
            }
        }
    }
}

#[test]
fn a_renaming_settles_the_push_in_flight_first() {
    for step in [Step::Before(Call::Append), Step::After(Call::Append)] {
        let bucket = memory();
        let root = tempfile::tempdir().unwrap();
        let is_away = Arc::new(AtomicBool::new(true));
        let cut = is_away.clone();
        let hook: Hook =
            Arc::new(
                move |at| if at == step && cut.load(Ordering::SeqCst) { Err(unreachable_store()) } else { Ok(()) },
            );
        let engine = open_hooked(&root.path().join("a"), &bucket, SyncMode::Manual, hook);
        let volume = engine.volume(&name("old")).unwrap();
        write(&volume, &big());
        assert_eq!(volume.push().unwrap_err().kind(), ErrorKind::Unavailable, "{step:?}");
        // Its segments lie below the old name, and so may its commit.
        assert_eq!(engine.rename(&name("old"), &name("new")).unwrap_err().kind(), ErrorKind::Unavailable, "{step:?}");
        is_away.store(false, Ordering::SeqCst);
        engine.rename(&name("old"), &name("new")).unwrap();
        write(&volume, &[(2, 22)]);
        volume.push().unwrap();
        let fresh = open(&root.path().join("fresh"), &bucket);
        assert!(fresh.existing(&name("old")).is_err());
        let clone = fresh.existing(&name("new")).unwrap();
        for (n, stamp) in big() {
            assert_eq!(read(&clone, n), if n == 2 { 22 } else { stamp }, "{step:?}, page {n}");
        }
    }
}

#[test]
fn a_volume_whose_name_was_taken_meanwhile_can_have_another() {
    let bucket = memory();
    let root = tempfile::tempdir().unwrap();
    let is_away = Arc::new(AtomicBool::new(true));
    let cut = is_away.clone();
    let hook: Hook = Arc::new(move |at| match at {
        Step::Before(Call::Append) if cut.load(Ordering::SeqCst) => Err(unreachable_store()),
        _ => Ok(()),
    });
    let engine = open_hooked(&root.path().join("a"), &bucket, SyncMode::Manual, hook);
    let volume = engine.volume(&name("v")).unwrap();
    write(&volume, &big());
    volume.push().unwrap_err();
    let other = open(&root.path().join("other"), &bucket);
    let first = other.volume(&name("v")).unwrap();
    write(&first, &[(1, 1)]);
    first.push().unwrap();
    is_away.store(false, Ordering::SeqCst);
    engine.rename(&name("v"), &name("mine")).unwrap();
    volume.push().unwrap();
    let clone = other.existing(&name("mine")).unwrap();
    big().into_iter().for_each(|(n, stamp)| assert_eq!(read(&clone, n), stamp, "page {n}"));
}

#[test]
fn a_lost_reply_is_settled_by_the_next_push_and_counts_once() {
    let bucket = memory();
    let dir = tempfile::tempdir().unwrap();
    let cuts = Arc::new(AtomicUsize::new(3));
    let left = cuts.clone();
    let hook: Hook = Arc::new(move |at| {
        let cut = at == Step::After(Call::Append)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if cut { Err(unreachable_store()) } else { Ok(()) }
    });
    let engine = open_hooked(dir.path(), &bucket, SyncMode::Manual, hook);
    let volume = engine.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1)]);
    for _ in 0..3 {
        assert_eq!(volume.push().unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(volume.status().state, Condition::InDoubt);
        assert!(volume.status().remedy.is_some());
    }
    // Local work goes on meanwhile, and is not part of the push in doubt.
    write(&volume, &[(1, 2)]);
    let moved = volume.push().unwrap();
    assert_eq!(moved.pushed, Lsn::new(2).map(|lsn| (lsn, 2)));
    assert_eq!(volume.log().unwrap().len(), 2);
    assert_eq!(cuts.load(Ordering::SeqCst), 0);
}

#[test]
fn sync_commit_with_a_lost_reply_says_the_truth() {
    for step in [Step::Before(Call::Append), Step::After(Call::Append)] {
        let bucket = memory();
        let dir = tempfile::tempdir().unwrap();
        let cuts = Arc::new(AtomicUsize::new(0));
        let left = cuts.clone();
        let hook: Hook = Arc::new(move |at| {
            let cut = at == step && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if cut { Err(unreachable_store()) } else { Ok(()) }
        });
        let engine = open_hooked(dir.path(), &bucket, SyncMode::Commit, hook);
        let volume = engine.volume(&name("v")).unwrap();
        write(&volume, &[(1, 1), (2, 2)]);
        cuts.store(1, Ordering::SeqCst);
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.write(page(1), &content(11)).unwrap();
        match writer.commit(true) {
            // The commit was there: the void lost against it.
            Ok(_) => assert_eq!((step, read(&volume, 1)), (Step::After(Call::Append), 11)),
            // The void won: the transaction has failed for certain.
            Err(e) => {
                assert_eq!((step, e.kind(), read(&volume, 1)), (Step::Before(Call::Append), ErrorKind::Unavailable, 1))
            }
        }
        write(&volume, &[(2, 22)]);
        let fresh = tempfile::tempdir().unwrap();
        let clone = open(fresh.path(), &bucket).existing(&name("v")).unwrap();
        assert_eq!((read(&clone, 1), read(&clone, 2)), (read(&volume, 1), 22), "{step:?}");
    }
}

#[test]
fn sync_commit_without_a_store_is_in_doubt_and_comes_out_right() {
    for step in [Step::Before(Call::Append), Step::After(Call::Append)] {
        for killed in [false, true] {
            let bucket = memory();
            let root = tempfile::tempdir().unwrap();
            let mut dir = root.path().join("a");
            let down = Arc::new(AtomicUsize::new(0));
            let is_down = down.clone();
            let hook: Hook = Arc::new(move |at| {
                if is_down.load(Ordering::SeqCst) == 1 && at == step { Err(unreachable_store()) } else { Ok(()) }
            });
            let mut engine = open_hooked(&dir, &bucket, SyncMode::Commit, hook.clone());
            let mut volume = engine.volume(&name("v")).unwrap();
            write(&volume, &[(1, 1), (2, 2)]);
            down.store(1, Ordering::SeqCst);
            let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
            writer.write(page(1), &content(11)).unwrap();
            let doubt = writer.commit(true).map(|_| ()).unwrap_err();
            assert_eq!(doubt.kind(), ErrorKind::Unavailable);
            assert_eq!(volume.status().state, Condition::InDoubt);
            assert_eq!(read(&volume, 1), 1, "in doubt is not visible");
            let refused = volume.writer(&volume.snapshot(), "next").map(|_| ()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unavailable, "no write on top of a doubt");
            if killed {
                let copy = root.path().join("b");
                copy_dir(&dir, &copy);
                dir = copy;
                engine = open_hooked(&dir, &bucket, SyncMode::Commit, hook);
                volume = engine.volume(&name("v")).unwrap();
                assert_eq!((volume.status().state, read(&volume, 1)), (Condition::InDoubt, 1));
            }
            down.store(0, Ordering::SeqCst);
            volume.push().unwrap();
            assert_eq!(volume.status().state, Condition::Clean);
            assert_eq!(read(&volume, 1), 11, "{step:?}, killed: {killed}");
            write(&volume, &[(2, 22)]);
            let fresh = open(&root.path().join("fresh"), &bucket);
            let clone = fresh.existing(&name("v")).unwrap();
            assert_eq!((read(&clone, 1), read(&clone, 2)), (11, 22));
            drop(engine);
        }
    }
}

#[test]
fn a_commit_made_during_a_pull_is_no_divergence_if_a_twin_has_pushed_it() {
    for pushed_before in [true, false] {
        let bucket = memory();
        let root = tempfile::tempdir().unwrap();
        let (dir, twin_dir) = (root.path().join("a"), root.path().join("twin"));
        let mine: Arc<Mutex<Option<Volume>>> = Arc::default();
        // Once, while the pull has its answer already: a commit here, and a copy of this directory that pushes it.
        let (hooks_mine, from, store) = (mine.clone(), dir.clone(), bucket.clone());
        let hook: Hook = Arc::new(move |at| {
            let wanted = Step::Before(if pushed_before { Call::Commit } else { Call::Open });
            if let Some(mine) = hooks_mine.lock().unwrap().take_if(|_| at == wanted) {
                write(&mine, &[(1, 2)]);
                copy_dir(&from, &twin_dir);
                open(&twin_dir, &store).volume(&name("v")).unwrap().push().unwrap();
            }
            Ok(())
        });
        let engine = open_hooked(&dir, &bucket, SyncMode::Manual, hook);
        let volume = engine.volume(&name("v")).unwrap();
        if pushed_before {
            write(&volume, &[(1, 1)]);
            volume.push().unwrap();
        }
        *mine.lock().unwrap() = Some(volume.clone());
        volume.pull().unwrap();
        let status = volume.status();
        assert_eq!((status.state, status.unpushed), (Condition::Clean, 0), "{status:?}");
        assert_eq!(read(&volume, 1), 2);
        volume.push().unwrap();
    }
}

#[test]
fn a_frame_that_is_not_there_is_not_called_lost_before_the_store_has_said_what_it_keeps() {
    let bucket = memory();
    let root = tempfile::tempdir().unwrap();
    let writer = open(&root.path().join("a"), &bucket);
    let pushed = writer.volume(&name("v")).unwrap();
    write(&pushed, &big());
    pushed.push().unwrap();
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    let hook: Hook = Arc::new(move |at| match at == Step::Before(Call::Statement) && is_away.load(Ordering::SeqCst) {
        true => Err(unreachable_store()),
        false => Ok(()),
    });
    let engine = open_hooked(&root.path().join("b"), &bucket, SyncMode::Manual, hook);
    let volume = engine.volume(&name("v")).unwrap();
    let delete_all = async {
        let segments: Vec<_> = bucket.list(&keys::segments_prefix(&name("v"))).try_collect().await.unwrap();
        for meta in segments {
            bucket.delete(&meta.key).await.unwrap();
        }
    };
    tokio::runtime::Runtime::new().unwrap().block_on(delete_all);
    let read = || volume.snapshot().read(page(8000), &mut content(0)).unwrap_err().kind();
    assert_eq!(read(), ErrorKind::Unavailable);
    away.store(false, Ordering::SeqCst);
    assert_eq!(read(), ErrorKind::NotFound);
}

#[test]
fn a_push_in_doubt_that_opening_the_volume_settles_is_told_once() {
    for step in [Step::Before(Call::Append), Step::After(Call::Append)] {
        let bucket = memory();
        let dir = tempfile::tempdir().unwrap();
        {
            let down = Arc::new(AtomicBool::new(false));
            let is_down = down.clone();
            let hook: Hook = Arc::new(move |at| match at == step && is_down.load(Ordering::SeqCst) {
                true => Err(unreachable_store()),
                false => Ok(()),
            });
            let engine = open_hooked(dir.path(), &bucket, SyncMode::Commit, hook);
            let volume = engine.volume(&name("v")).unwrap();
            write(&volume, &[(1, 1)]);
            down.store(true, Ordering::SeqCst);
            let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
            writer.write(page(1), &content(11)).unwrap();
            assert_eq!(writer.commit(true).map(|_| ()).unwrap_err().kind(), ErrorKind::Unavailable);
        }
        let engine = open(dir.path(), &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        assert_eq!((volume.status().state, read(&volume, 1)), (Condition::Clean, 11), "{step:?}");
        let told = volume.account(volume.push()).unwrap();
        assert_eq!(told.pushed, Lsn::new(2).map(|lsn| (lsn, 1)), "{step:?}");
        assert!(told.to_string().starts_with("pushed 1 commit as LSN 2 (1 page"), "{told}");
        assert_eq!(volume.account(volume.push()).unwrap().to_string(), "nothing to do");
    }
}

#[test]
fn a_panic_in_the_background_sync_is_told_and_the_next_round_goes_on() {
    let bucket = memory();
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let hook: Hook = Arc::new(move |at| {
        let panics = at == Step::Before(Call::Append) && is_broken.load(Ordering::SeqCst);
        assert!(!panics, "seen in the test's output, on purpose");
        Ok(())
    });
    let engine = open_hooked(dir.path(), &bucket, SyncMode::Every(Duration::from_millis(20)), hook);
    let volume = engine.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1)]);
    until("the error", || volume.status().last_error.is_some_and(|e| e.contains("the background sync broke off")));
    assert!(volume.status().remedy.is_some());
    broken.store(false, Ordering::SeqCst);
    // The state shows before what `status` says beside it.
    until("the next round", || {
        let status = volume.status();
        status.state == Condition::Clean && status.last_error.is_none()
    });
    assert_eq!((volume.status().last_error, volume.log().unwrap().len()), (None, 1));
}
