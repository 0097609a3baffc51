//! What is left of a removal or a renaming that was killed in the middle, and that the next call goes on from there.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use quire_bucket::Bucket;
use quire_engine::{Condition, Engine};
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
