//! What is left of a removal or a renaming that was killed in the middle, and that the next call goes on from there.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::hooked::{Call, Step, hooked};
use common::*;
use quire_bucket::Bucket;
use quire_engine::{Condition, Engine, ErrorKind};
use tempfile::TempDir;

/// Two data directories with the same volume `old`; the first one has renamed it to `new` in the store since.
fn renamed_elsewhere(bucket: &Bucket) -> (TempDir, Engine) {
    let root = scratch();
    let (dir, copy) = (root.path().join("first"), root.path().join("copy"));
    write_and_push(&open(&dir, bucket));
    copy_dir(&dir, &copy);
    open(&dir, bucket).rename(&name("old"), &name("new")).unwrap();
    (root, open(&copy, bucket))
}

fn write_and_push(engine: &Engine) {
    let volume = engine.volume(&name("old")).unwrap();
    write(&volume, &[(1, 1)]);
    volume.push().unwrap();
}

#[test]
fn a_renaming_that_the_store_has_decided_is_finished_here_by_the_same_call() {
    let bucket = memory();
    let (_root, killed) = renamed_elsewhere(&bucket);
    assert_eq!(killed.local_volumes().unwrap(), [name("old")]);
    killed.rename(&name("old"), &name("new")).unwrap();
    assert_eq!(killed.local_volumes().unwrap(), [name("new")]);
    let volume = killed.volume(&name("new")).unwrap();
    assert_eq!((volume.status().state, volume.status().last_error), (Condition::Clean, None));
    write(&volume, &[(1, 2)]);
    volume.push().unwrap();
    assert_eq!(read(&volume, 1), 2);
}

#[test]
fn a_renaming_of_which_the_catalogue_did_not_hear_is_known_by_the_replica() {
    let bucket = memory();
    let dir = scratch();
    write_and_push(&open(dir.path(), &bucket));
    let catalogue = dir.path().join("catalog.qcat");
    let before = std::fs::read(&catalogue).unwrap();
    open(dir.path(), &bucket).rename(&name("old"), &name("new")).unwrap();
    std::fs::write(&catalogue, before).unwrap();
    // Somebody else takes the name that is free.
    let elsewhere = scratch();
    write_and_push(&open(elsewhere.path(), &bucket));

    let killed = open(dir.path(), &bucket);
    let refused = killed.delete_in_store(&name("old")).unwrap_err();
    assert!(refused.to_string().contains("is volume new in the store"), "{refused}");
    assert_eq!(killed.remote_of(&name("old")), name("new"));
    assert_eq!(killed.existing(&name("old")).unwrap().status().store_name, name("new"));
    killed.rename(&name("old"), &name("new")).unwrap();
    assert_eq!(killed.local_volumes().unwrap(), [name("new")]);
}

#[test]
fn work_that_is_given_up_is_gone_before_the_store_hears_of_it() {
    let (bucket, root) = (memory(), scratch());
    let (dir, other) = (root.path().join("mine"), root.path().join("other"));
    write_and_push(&open(&other, &bucket));
    let asked = Arc::new(AtomicUsize::new(0));
    let hook = {
        let (dir, asked) = (dir.clone(), asked.clone());
        move |step| {
            if step == Step::Before(Call::Unmark) {
                assert!(
                    std::fs::read_dir(dir.join("replicas")).unwrap().next().is_none(),
                    "a kill would bring it back"
                );
                asked.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
    };
    let mine = Engine::open(options(&dir, hooked(stores(&bucket), Arc::new(hook)))).unwrap();
    let volume = mine.existing(&name("old")).unwrap();
    write(&volume, &[(1, 2)]);
    let theirs = open(&other, &bucket).existing(&name("old")).unwrap();
    write(&theirs, &[(1, 3)]);
    theirs.push().unwrap();
    assert_eq!(volume.pull().unwrap_err().kind(), ErrorKind::Conflict);
    drop(volume);
    mine.remove_replica(&name("old"), true).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the store is told that nothing stands there any more");
}

#[test]
fn a_renaming_to_another_name_than_the_store_has_decided_is_refused() {
    let bucket = memory();
    let (_root, other) = renamed_elsewhere(&bucket);
    let refused = other.rename(&name("old"), &name("newer")).unwrap_err();
    assert!(refused.to_string().contains("moved to new"), "{refused}");
    assert_eq!(other.local_volumes().unwrap(), [name("old")]);
}

#[test]
fn what_a_removal_has_left_of_a_folder_goes_when_the_data_directory_is_opened() {
    let dir = scratch();
    let bucket = memory();
    let engine = open(dir.path(), &bucket);
    write(&engine.volume(&name("v")).unwrap(), &[(1, 1)]);
    drop(engine);
    let replicas = dir.path().join("replicas");
    let folder = std::fs::read_dir(&replicas).unwrap().next().unwrap().unwrap().path();
    let left = replicas.join("0123456789abcdef.removed");
    copy_dir(&folder, &left);
    std::fs::remove_dir_all(left.join("log")).unwrap();

    let engine = open(dir.path(), &bucket);
    assert!(!left.exists());
    assert_eq!(engine.local_volumes().unwrap(), [name("v")]);
    assert_eq!(read(&engine.volume(&name("v")).unwrap(), 1), 1);
    engine.remove_replica(&name("v"), true).unwrap();
    assert_eq!(std::fs::read_dir(&replicas).unwrap().count(), 0);
}
