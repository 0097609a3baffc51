//! The past and its branches: snapshots by LSN and time, forks, restores.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::*;
use quire_bucket::Bucket;
use quire_engine::{Condition, Engine, Error, ErrorKind, Lsn, Moment, Volume};

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn at(n: u64) -> Moment {
    Moment::Lsn(lsn(n))
}

/// What pages 1 to `count` of a volume say.
fn stamps(volume: &Volume, count: u32) -> Vec<u64> {
    assert_eq!(volume.snapshot().page_count().get(), count);
    (1..=count).map(|n| read(volume, n)).collect()
}

/// A volume in the store whose LSN n writes page 1 with n, page n with 100 + n; at LSN 4 it is cut to 2 pages.
fn four_commits(engine: &Engine) -> Volume {
    let volume = engine.volume(&name("v")).unwrap();
    for n in 1..=4u32 {
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.set_page_size(page_size()).unwrap();
        writer.write(page(1), &content(n.into())).unwrap();
        match n {
            4 => writer.truncate(quire_engine::PageCount::new(2)).unwrap(),
            n => writer.write(page(n + 1), &content(101 + u64::from(n))).unwrap(),
        }
        writer.commit(false).unwrap();
        volume.push().unwrap();
    }
    volume
}

const SNAPSHOTS: [&[u64]; 4] = [&[1, 102], &[2, 102, 103], &[3, 102, 103, 104], &[4, 102]];

fn assert_snapshots(engine: &Engine, volume: &str) {
    for (n, expected) in SNAPSHOTS.iter().enumerate() {
        let old = engine.volume_at(&name(volume), at(n as u64 + 1)).unwrap();
        assert_eq!(stamps(&old, expected.len() as u32), *expected, "LSN {}", n + 1);
    }
}

#[test]
fn every_lsn_can_be_read_with_a_replica_and_without() {
    let (a_dir, b_dir, bucket) = (scratch(), scratch(), memory());
    let a = open(a_dir.path(), &bucket);
    let volume = four_commits(&a);
    assert_snapshots(&a, "v");
    assert_snapshots(&open(b_dir.path(), &bucket), "v");
    // Several at once, and the newest beside them.
    let (first, third) = (a.volume_at(&name("v"), at(1)).unwrap(), a.volume_at(&name("v"), at(3)).unwrap());
    write(&volume, &[(1, 50)]);
    assert_eq!((read(&first, 1), read(&third, 1), read(&volume, 1)), (1, 3, 50));
    assert!(a.local_volumes().unwrap() == [name("v")], "a snapshot of the past is no volume of its own");
}

#[test]
fn a_snapshot_of_the_past_is_not_written_and_not_moved() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    four_commits(&engine);
    let old = engine.volume_at(&name("v"), at(2)).unwrap();
    let error = old.writer(&old.snapshot(), "test").err().unwrap();
    assert!(error.to_string().contains("v@2"), "{error}");
    assert!(error.remedy().unwrap().contains("quire fork v@2 NEW"), "{error:?}");
    old.pull().unwrap_err();
    old.reset().unwrap_err();
    assert_eq!(stamps(&old, 3), SNAPSHOTS[1]);
}

#[test]
fn the_folder_of_a_past_snapshot_goes_with_its_last_reader() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    four_commits(&engine);
    let folders = || std::fs::read_dir(dir.path().join("replicas")).unwrap().count();
    assert_eq!(folders(), 1);
    let old = engine.volume_at(&name("v"), at(2)).unwrap();
    let snapshot = old.snapshot();
    let again = engine.volume_at(&name("v"), at(2)).unwrap();
    assert_eq!(folders(), 2, "both are one");
    drop((old, again));
    assert_eq!(read_at(&snapshot, 3), 103);
    drop(snapshot);
    assert_eq!(folders(), 1);
    // What a kill leaves of one goes when the data directory is opened.
    std::mem::forget(engine.volume_at(&name("v"), at(3)).unwrap());
    let copy = scratch();
    copy_dir(dir.path(), &copy.path().join("d"));
    let engine = open(&copy.path().join("d"), &bucket);
    assert_eq!(std::fs::read_dir(copy.path().join("d/replicas")).unwrap().count(), 1);
    assert_eq!(engine.local_volumes().unwrap(), [name("v")]);
}

#[test]
fn a_time_names_the_newest_commit_that_the_store_had_then() {
    let (store, dir) = (scratch(), scratch());
    let bucket = Bucket::open(&format!("file://{}/store", store.path().display())).unwrap();
    let engine = open(dir.path(), &bucket);
    four_commits(&engine);
    // A folder's clock is that of its files.
    let log = store.path().join("store/v/v/!/c/fffffffffffff");
    let second = |n: u64| UNIX_EPOCH + Duration::from_secs(1_700_000_000 + n);
    for n in 1..=4u64 {
        let file = std::fs::File::open(log.join(format!("{:03x}", 0xfff - n))).unwrap();
        file.set_modified(second(10 * n)).unwrap();
    }
    let ms = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    for (seconds, expected) in [(10, 1), (19, 1), (20, 2), (25, 2), (39, 3), (40, 4), (1_000_000, 4)] {
        let old = engine.volume_at(&name("v"), Moment::Time(ms(second(seconds)))).unwrap();
        assert_eq!(old.snapshot().base_lsn(), Some(lsn(expected)), "at {seconds}");
    }
    let error = engine.volume_at(&name("v"), Moment::Time(ms(second(9)))).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn what_is_not_there_is_named() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    four_commits(&engine);
    let error = engine.volume_at(&name("v"), at(5)).err().unwrap();
    assert_eq!((error.kind(), error.to_string().contains("no LSN 5")), (ErrorKind::NotFound, true), "{error}");
    let error = engine.volume_at(&name("nobody"), at(1)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    engine.delete_in_store(&name("v")).unwrap();
    let error = engine.volume_at(&name("v"), at(5)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
    assert!(error.remedy().unwrap().contains("v@4"), "{error:?}");
    assert_snapshots(&engine, "v");
}

#[test]
fn what_to_do_about_a_name_that_the_store_does_not_know_depends_on_the_name() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    four_commits(&engine);
    let remedy = |text: &str| engine.existing(&name(text)).map(|_| ()).unwrap_err().remedy().unwrap().to_owned();
    assert_eq!(remedy("nobody"), "`quire ls` shows the volumes there are.");
    assert_eq!(remedy("nobody@latest"), "`quire ls` shows the volumes there are.");
    for text in ["v@latest", "v@now"] {
        assert!(remedy(text).contains("v@7, v@2026-01-31T12:00:00Z"), "{}", remedy(text));
    }
    // It is here, and was never pushed.
    write(&engine.volume(&name("n1")).unwrap(), &[(1, 1)]);
    let cloned = engine.clone_volume(&name("n1"), &name("n3")).map(|_| ()).unwrap_err();
    let nowhere = |_, _| async { Err::<(), _>(Error::not_found("the store has no volume n1")) };
    let kept = engine.maintain(&name("n1"), nowhere).unwrap_err();
    for missing in [cloned, kept] {
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
        assert!(missing.remedy().unwrap().contains("`quire push n1`"), "{missing:?}");
    }
}

#[test]
fn a_name_that_stands_for_another_volume_here_is_not_deleted_in_the_store() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    four_commits(&engine);
    let own = engine.fork(&name("v"), Some(at(1)), &name("test")).unwrap();
    drop(own);
    engine.remove_replica(&name("test"), false).unwrap();
    let alias = engine.clone_volume(&name("v"), &name("test")).unwrap();
    assert_eq!((alias.status().name, alias.status().store_name), (name("test"), name("v")));
    let refused = engine.delete_in_store(&name("test")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused:?}");
    assert!(refused.message().contains("test here is volume v in the store"), "{refused:?}");
    assert!(refused.remedy().unwrap().contains("`quire rm v --store`"), "{refused:?}");
    assert_eq!(engine.store_volumes("").unwrap(), [name("test"), name("v")]);
    // With another name here there is no doubt.
    engine.rename(&name("test"), &name("mine")).unwrap();
    engine.delete_in_store(&name("test")).unwrap();
    assert_eq!(engine.store_volumes("").unwrap(), [name("v")]);
    alias.pull().unwrap();
}

#[test]
fn the_id_of_a_volume_is_known_to_whoever_made_it_and_stays_known() {
    let (a_dir, b_dir, bucket) = (scratch(), scratch(), memory());
    let id = {
        let a = open(a_dir.path(), &bucket);
        let volume = a.volume(&name("v")).unwrap();
        write(&volume, &[(1, 1)]);
        assert_eq!(volume.status().volume_id, None, "nothing has begun it yet");
        volume.push().unwrap();
        let id = volume.status().volume_id.unwrap();
        assert_eq!(id, volume.log().unwrap()[0].commit_id.to_string());
        write(&volume, &[(1, 2)]);
        volume.push().unwrap();
        assert_eq!(volume.status().volume_id.as_ref(), Some(&id));
        id
    };
    // Whoever reads the volume learns it.
    let b = open(b_dir.path(), &bucket);
    let theirs = b.existing(&name("v")).unwrap();
    assert_eq!((read(&theirs, 1), theirs.status().volume_id.as_ref()), (2, Some(&id)));
    write(&theirs, &[(1, 3)]);
    theirs.push().unwrap();
    let a = open(a_dir.path(), &bucket);
    let volume = a.volume(&name("v")).unwrap();
    assert_eq!(volume.status().volume_id.as_ref(), Some(&id), "also after a restart");
    volume.pull().unwrap();
    assert_eq!(volume.status().volume_id.as_ref(), Some(&id));
    // A fork is another volume.
    let fork = a.fork(&name("v"), None, &name("f")).unwrap().volume;
    let of_fork = fork.status().volume_id.unwrap();
    assert_ne!(of_fork, id);
    drop((fork, volume, a));
    let a = open(a_dir.path(), &bucket);
    assert_eq!(a.volume(&name("f")).unwrap().status().volume_id, Some(of_fork));
}

#[test]
fn a_fork_of_the_past_is_in_the_store_at_once_and_both_go_on() {
    let (a_dir, b_dir, bucket) = (scratch(), scratch(), memory());
    let a = open(a_dir.path(), &bucket);
    let parent = four_commits(&a);
    let fork = a.fork(&name("v"), Some(at(3)), &name("f")).unwrap();
    assert_eq!((fork.lsn, fork.base.clone()), (Some(lsn(1)), Some((name("v"), lsn(3)))));
    assert_eq!(stamps(&fork.volume, 4), SNAPSHOTS[2]);
    assert_eq!(fork.volume.status().state, Condition::Clean);
    write(&fork.volume, &[(2, 70)]);
    write(&parent, &[(2, 80)]);
    fork.volume.push().unwrap();
    parent.push().unwrap();
    let b = open(b_dir.path(), &bucket);
    assert_eq!(stamps(&b.existing(&name("f")).unwrap(), 4), [3, 70, 103, 104]);
    assert_eq!(stamps(&b.existing(&name("v")).unwrap(), 2), [4, 80]);
    // A fork of the fork, of what it had from its parent and what it wrote itself.
    let second = b.fork(&name("f"), None, &name("g")).unwrap();
    assert_eq!(second.lsn, Some(lsn(1)));
    assert_eq!(stamps(&second.volume, 4), [3, 70, 103, 104]);
    assert_eq!(stamps(&a.volume_at(&name("f"), at(1)).unwrap(), 4), SNAPSHOTS[2]);
    // The parent's deletion takes nothing from its forks.
    a.delete_in_store(&name("v")).unwrap();
    let c_dir = scratch();
    let c = open(c_dir.path(), &bucket);
    assert_eq!(stamps(&c.existing(&name("f")).unwrap(), 4), [3, 70, 103, 104]);
}

#[test]
fn a_fork_of_unpushed_work_needs_no_store_and_copies_nothing() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    let parent = four_commits(&engine);
    let many: Vec<(u32, u64)> = (1..=2000).map(|n| (n, 1000 + u64::from(n))).collect();
    write(&parent, &many);
    drop((parent, engine));
    let unreachable = open_unreachable(dir.path());
    let before = unique_bytes(dir.path());
    let fork = unreachable.fork(&name("v"), None, &name("f")).unwrap();
    assert_eq!((fork.lsn, fork.volume.status().state), (None, Condition::Ahead));
    assert!(unique_bytes(dir.path()) < before + (512 << 10), "the files are shared");
    // Each goes on alone.
    write(&fork.volume, &[(1, 7)]);
    let parent = unreachable.volume(&name("v")).unwrap();
    write(&parent, &[(1, 8)]);
    assert_eq!((read(&fork.volume, 1), read(&parent, 1)), (7, 8));
    assert_eq!((read(&fork.volume, 2000), read(&parent, 2000)), (3000, 3000));
    drop((fork, parent, unreachable));
    let engine = open(dir.path(), &bucket);
    for (volume, expected) in [("f", 7), ("v", 8)] {
        let volume = engine.volume(&name(volume)).unwrap();
        assert_eq!((read(&volume, 1), read(&volume, 2000)), (expected, 3000));
        volume.push().unwrap();
    }
    let (b_dir, c_dir) = (scratch(), scratch());
    let b = open(b_dir.path(), &bucket);
    let fork = b.existing(&name("f")).unwrap();
    assert_eq!((read(&fork, 1), read(&fork, 2), read(&fork, 2000)), (7, 1002, 3000));
    assert_eq!(fork.log().unwrap()[0].kind, "fork");
    // The parent's files may go: the fork's names of them stay.
    drop(fork);
    let parent = engine.volume(&name("v")).unwrap();
    drop(parent);
    engine.remove_replica(&name("v"), false).unwrap();
    assert_eq!(read(&engine.volume(&name("f")).unwrap(), 1500), 2500);
    drop(open(c_dir.path(), &bucket));
}

#[test]
fn forks_of_forks_are_read_however_many() {
    let (a_dir, b_dir, bucket) = (scratch(), scratch(), memory());
    let a = open(a_dir.path(), &bucket);
    four_commits(&a);
    let fork = |n: u32| name(&if n == 0 { "v".to_owned() } else { format!("f{n}") });
    for n in 1..=3000 {
        a.fork(&fork(n - 1), None, &fork(n)).unwrap();
        if n % 100 == 0 {
            a.volume(&fork(n)).unwrap().checkpoint().unwrap();
        }
        a.remove_replica(&fork(n - 1), false).unwrap();
    }
    let last = open(b_dir.path(), &bucket).volume(&fork(3000)).unwrap();
    assert_eq!(stamps(&last, 2), SNAPSHOTS[3]);
}

#[test]
fn a_diverged_volume_s_local_head_can_be_forked() {
    let (a_dir, b_dir, bucket) = (scratch(), scratch(), memory());
    let (a, b) = (open(a_dir.path(), &bucket), open(b_dir.path(), &bucket));
    let mine = four_commits(&a);
    let theirs = b.existing(&name("v")).unwrap();
    write(&mine, &[(2, 21)]);
    write(&theirs, &[(2, 22)]);
    theirs.push().unwrap();
    assert_eq!(mine.push().unwrap_err().kind(), ErrorKind::Conflict);
    let fork = a.fork(&name("v"), None, &name("mine")).unwrap();
    assert_eq!(fork.volume.status().state, Condition::Ahead);
    fork.volume.push().unwrap();
    mine.reset().unwrap();
    let c_dir = scratch();
    let c = open(c_dir.path(), &bucket);
    assert_eq!(stamps(&c.existing(&name("mine")).unwrap(), 2), [4, 21]);
    assert_eq!(stamps(&c.existing(&name("v")).unwrap(), 2), [4, 22]);
}

#[test]
fn a_name_that_is_taken_is_refused_and_leaves_nothing() {
    let (a_dir, b_dir, bucket) = (scratch(), scratch(), memory());
    let (a, b) = (open(a_dir.path(), &bucket), open(b_dir.path(), &bucket));
    four_commits(&a);
    for (taken, moment) in [("v", None), ("v", Some(at(1)))] {
        let error = a.fork(&name("v"), moment, &name(taken)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let theirs = b.volume(&name("taken")).unwrap();
    write(&theirs, &[(1, 1)]);
    theirs.push().unwrap();
    for moment in [None, Some(at(2))] {
        let error = a.fork(&name("v"), moment, &name("taken")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    assert_eq!(a.local_volumes().unwrap(), [name("v")]);
    assert_eq!(std::fs::read_dir(a_dir.path().join("replicas")).unwrap().count(), 1);
}

#[test]
fn a_restore_is_a_new_commit_and_everybody_follows() {
    let (a_dir, b_dir, bucket) = (scratch(), scratch(), memory());
    let (a, b) = (open(a_dir.path(), &bucket), open(b_dir.path(), &bucket));
    let mine = four_commits(&a);
    let theirs = b.existing(&name("v")).unwrap();
    assert_eq!(stamps(&theirs, 2), SNAPSHOTS[3]);
    let restored = a.restore(&name("v"), at(3)).unwrap();
    assert_eq!((restored.from, restored.lsn), (lsn(3), lsn(5)));
    assert_eq!(stamps(&mine, 4), SNAPSHOTS[2]);
    theirs.pull().unwrap();
    assert_eq!(stamps(&theirs, 4), SNAPSHOTS[2]);
    // On top of it, and back to before it, and to the restored one itself.
    write(&theirs, &[(3, 33)]);
    theirs.push().unwrap();
    a.restore(&name("v"), at(4)).unwrap();
    assert_eq!(stamps(&mine, 2), SNAPSHOTS[3]);
    a.restore(&name("v"), at(6)).unwrap();
    assert_eq!(stamps(&mine, 4), [3, 102, 33, 104]);
    theirs.pull().unwrap();
    assert_eq!(stamps(&theirs, 4), [3, 102, 33, 104]);
    assert_snapshots(&b, "v");
    let kinds: Vec<_> = mine.log().unwrap().iter().rev().map(|entry| entry.kind).collect();
    assert_eq!(kinds, ["create", "write", "write", "write", "restore", "write", "restore", "restore"]);
    let c_dir = scratch();
    let fresh = open(c_dir.path(), &bucket).existing(&name("v")).unwrap();
    assert_eq!(stamps(&fresh, 4), [3, 102, 33, 104]);
}

#[test]
fn a_restore_refuses_what_it_would_lose_or_cannot_reach() {
    let (dir, bucket) = (scratch(), memory());
    let engine = open(dir.path(), &bucket);
    let volume = four_commits(&engine);
    write(&volume, &[(1, 9)]);
    let error = engine.restore(&name("v"), at(1)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.remedy().unwrap().contains("quire push v"), "{error:?}");
    volume.push().unwrap();
    for moment in [at(5), at(6)] {
        engine.restore(&name("v"), moment).unwrap_err();
    }
    drop(volume);
    engine.delete_in_store(&name("v")).unwrap();
    engine.remove_replica(&name("v"), false).unwrap();
    let again = engine.volume(&name("v")).unwrap();
    write(&again, &[(1, 70)]);
    again.push().unwrap();
    let error = engine.restore(&name("v"), at(2)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.remedy().unwrap().contains("quire fork v@2 NEW"), "{error:?}");
    let old = engine.fork(&name("v"), Some(at(2)), &name("old")).unwrap();
    assert_eq!(stamps(&old.volume, 3), SNAPSHOTS[1]);
}

#[test]
fn who_relies_on_a_snapshot_marks_it_first() {
    let (store, dir) = (scratch(), scratch());
    let bucket = Bucket::open(&format!("file://{}/store", store.path().display())).unwrap();
    let engine = open(dir.path(), &bucket);
    four_commits(&engine);
    let marks = || {
        let found = std::fs::read_dir(store.path().join("store/v/v/!/mark/fffffffffffff/ffc"));
        found.map_or(0, |found| found.count())
    };
    assert_eq!(marks(), 0);
    engine.fork(&name("v"), Some(at(3)), &name("f")).unwrap();
    assert_eq!(marks(), 1);
    engine.restore(&name("v"), at(3)).unwrap();
    assert_eq!(marks(), 2);
}

/// An engine whose store cannot be reached.
fn open_unreachable(dir: &std::path::Path) -> Engine {
    open_when_free(|| {
        let mut options = options(dir, stores(&memory()));
        options.connect = Box::new(|| Box::pin(async { Err(Error::unavailable("no network")) }));
        options
    })
}

/// Bytes of a folder's files, each counted once however many names it has.
fn unique_bytes(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let (mut seen, mut folders, mut bytes) = (std::collections::HashSet::new(), vec![dir.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let (path, meta) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
            match meta.is_dir() {
                true => folders.push(path),
                false if seen.insert(meta.ino()) => bytes += meta.blocks() * 512,
                false => {}
            }
        }
    }
    bytes
}
