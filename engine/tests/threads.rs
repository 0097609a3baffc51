//! What an engine starts has ended when it goes. This file has one test only, as it looks at the whole process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use quire_bucket::Bucket;

/// The threads of this process that belong to an engine.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One may end while it is looked at.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).filter(|name| name.starts_with("quire")).collect()
}

#[test]
fn an_engine_takes_its_threads_along() {
    for _ in 0..200 {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), &Bucket::open("memory://").unwrap());
        let volume = engine.volume(&name("a")).unwrap();
        write(&volume, &[(1, 1)]);
        volume.push().unwrap();
        assert!(!threads().is_empty());
        drop((volume, engine));
        assert_eq!(threads(), Vec::<String>::new());
    }
}
