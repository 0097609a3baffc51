//! What opening a served volume costs a client that has nothing of it.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quire_bucket::Bucket;
use quire_engine::{Engine, PageIdx, PageSize, VolumeName};
use quire_serve::{CacheOptions, Options, Server};
use quire_settings::{Key, Overrides, Source, load, open_engine};

fn engine(folder: &Path, store: &str) -> Engine {
    let flag = || Source::Flag("test");
    let overrides =
        Overrides::default().with(Key::DataDir, folder.to_str(), flag()).with(Key::Store, Some(store), flag());
    open_engine(&load(&overrides).unwrap()).unwrap()
}

fn page(n: u8) -> [u8; 512] {
    [n; 512]
}

#[test]
fn the_first_row_comes_in_two_round_trips() {
    let bucket = Bucket::open("memory://").unwrap();
    let server = Server::bind(Options {
        poll_interval: Duration::from_secs(1),
        cache: CacheOptions { memory_bytes: 64 << 20, disk: None },
        ..Options::new(
            Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
            Arc::new(quire_pagestore::Embedded::new(bucket)),
        )
    })
    .unwrap();
    let url = format!("http://{}", server.address());
    let serving = server.spawn();
    let root = tempfile::tempdir().unwrap();
    let name = VolumeName::parse("app").unwrap();
    let index = |n: u32| PageIdx::new(n).unwrap();

    let here = engine(&root.path().join("here"), &url);
    let volume = here.volume(&name).unwrap();
    let commit = |n: u8, pages: std::ops::RangeInclusive<u32>| {
        let mut writer = volume.writer(&volume.snapshot(), "here").unwrap();
        if n == 1 {
            writer.set_page_size(PageSize::try_new(512).unwrap()).unwrap();
        }
        for at in pages {
            writer.write(index(at), &page(n)).unwrap();
        }
        writer.commit(true).unwrap();
        volume.push().unwrap();
    };
    commit(1, 1..=2000);
    // Of one that has just come; of a log without a checkpoint, whose commits are small and come along; of a log that
    // ends in a checkpoint, and of one that goes on after it.
    for round in 0..4 {
        if round == 2 {
            volume.checkpoint().unwrap();
        } else if round > 0 {
            (2..=40).for_each(|n| commit(n, 1..=1));
        }
        let there = engine(&root.path().join(format!("there-{round}")), &url);
        let mut read = [0; 512];
        let copy = there.clone_volume(&name, &name).unwrap();
        copy.snapshot().read(index(1500), &mut read).unwrap();
        assert_eq!(read, page(1));
        assert_eq!(there.stats().requests, 2, "round {round}");
        copy.snapshot().read(index(1), &mut read).unwrap();
        assert_eq!(read, page(if round == 0 { 1 } else { 40 }));
    }
    serving.stop().unwrap();
}
