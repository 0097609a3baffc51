//! What the engine's tests share: an engine over an embedded store.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::Arc;

use quire_bucket::Bucket;
use quire_engine::{Engine, Options, PageIdx, PageSize, Stores, SyncMode, Traffic, Volume, VolumeName};
use quire_metastore::Embedded as Metastore;
use quire_pagestore::Embedded as Pagestore;

/// Pages of the tests: small ones, so that there are many.
pub const PAGE: usize = 512;

pub fn stores(bucket: &Bucket) -> Stores {
    let counted = bucket.clone();
    Stores {
        metastore: Arc::new(Metastore::new(bucket.clone(), quire_metastore::Options::default())),
        pagestore: Arc::new(Pagestore::new(bucket.clone())),
        traffic: Arc::new(move || {
            let c = counted.counters();
            Traffic { requests: c.requests(), bytes_in: c.bytes_in, bytes_out: c.bytes_out }
        }),
    }
}

pub fn options(dir: &Path, stores: Stores) -> Options {
    Options {
        data_dir: dir.to_owned(),
        store_url: "test".into(),
        connect: Box::new(move || {
            let stores = stores.clone();
            Box::pin(async move { Ok(stores) })
        }),
        sync: SyncMode::Manual,
        cache_size: 1 << 30,
        author: "tests".into(),
    }
}

/// An engine on `dir` whose store is `bucket`.
pub fn open(dir: &Path, bucket: &Bucket) -> Engine {
    Engine::open(options(dir, stores(bucket))).unwrap()
}

pub fn name(text: &str) -> VolumeName {
    VolumeName::parse(text).unwrap()
}

pub fn page(n: u32) -> PageIdx {
    PageIdx::new(n).unwrap()
}

pub fn page_size() -> PageSize {
    PageSize::try_new(PAGE as u32).unwrap()
}

/// A page that says which write made it.
pub fn content(stamp: u64) -> [u8; PAGE] {
    let mut data = [0; PAGE];
    if stamp > 0 {
        for (n, chunk) in data.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&(stamp ^ (n as u64) << 32).to_le_bytes());
        }
    }
    data
}

/// The stamp of a page, which must be whole.
pub fn stamp(data: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&data[..8]);
    let stamp = u64::from_le_bytes(first);
    assert!(data == content(stamp), "a torn page");
    stamp
}

pub fn write(volume: &Volume, pages: &[(u32, u64)]) {
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.set_page_size(page_size()).unwrap();
    for (n, stamp) in pages {
        writer.write(page(*n), &content(*stamp)).unwrap();
    }
    writer.commit(false).unwrap();
}

pub fn read(volume: &Volume, n: u32) -> u64 {
    let mut data = [0xEE; PAGE];
    volume.snapshot().read(page(n), &mut data).unwrap();
    stamp(&data)
}
