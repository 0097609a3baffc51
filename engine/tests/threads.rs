//! No thread is let go of that may be ending: this file has one test only, as it looks at the whole process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use quire_bucket::Bucket;

static LET_GO: AtomicUsize = AtomicUsize::new(0);

/// In the place of the C library's, which a thread handle calls that is dropped and not joined. It lets nothing go.
#[unsafe(no_mangle)]
extern "C" fn pthread_detach(_: usize) -> i32 {
    LET_GO.fetch_add(1, Ordering::Relaxed);
    0
}

#[test]
fn an_engine_waits_for_its_threads() {
    std::thread::spawn(|| ());
    assert_eq!(LET_GO.swap(0, Ordering::Relaxed), 1, "the C library's own is called");
    for commits in [1, 1, 1, 1, 6000] {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), &Bucket::open("memory://").unwrap());
        let volume = engine.volume(&name("a")).unwrap();
        for n in 1..=commits {
            // The last writes so much that the keeper is started again and again.
            write(&volume, &(1..=100).map(|page| (page, n)).collect::<Vec<_>>());
        }
        volume.push().unwrap();
        drop((volume, engine));
        assert_eq!(LET_GO.load(Ordering::Relaxed), 0);
    }
}
