//! What the engine's tests share: an engine over an embedded store.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "each test file uses its part")]

pub mod child;
pub mod damage;
pub mod history;
pub mod hooked;
mod served;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quire_bucket::Bucket;
use quire_engine::{
    Engine, ErrorKind, Options, PageIdx, PageSize, Snapshot, Stores, SyncMode, Traffic, Volume, VolumeName,
};
use quire_metastore::Embedded as Metastore;
use quire_pagestore::Embedded as Pagestore;

/// Pages of the tests: small ones, so that there are many.
pub const PAGE: usize = 512;

/// A bucket that nobody else has.
pub fn memory() -> Bucket {
    Bucket::open("memory://").unwrap()
}

/// The stores of a bucket; with `QUIRE_TEST_SERVED=1` there is a server of its own between, as each client would have one.
pub fn stores(bucket: &Bucket) -> Stores {
    if std::env::var_os("QUIRE_TEST_SERVED").is_some() {
        return served::stores(bucket);
    }
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
        lease_after: quire_engine::LEASE_AFTER,
        author: "tests".into(),
    }
}

/// An engine on `dir` whose store is `bucket`.
pub fn open(dir: &Path, bucket: &Bucket) -> Engine {
    open_when_free(|| options(dir, stores(bucket)))
}

/// Opens a data directory that this process has just left: a thread that trims
/// the cache, or a process that is being started, may hold its lock a moment longer.
pub fn open_when_free(options: impl Fn() -> Options) -> Engine {
    let start = Instant::now();
    loop {
        match Engine::open(options()) {
            Ok(engine) => return engine,
            Err(e) if e.kind() == ErrorKind::Busy && start.elapsed() < Duration::from_secs(30) => {
                std::thread::yield_now()
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// Waits for another thread's work.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} never came");
        std::thread::yield_now();
    }
}

/// The only replica's folder.
pub fn replica(dir: &Path) -> PathBuf {
    let mut replicas = std::fs::read_dir(dir.join("replicas")).unwrap();
    replicas.next().unwrap().unwrap().path()
}

/// A folder in memory where there is one: a process that is killed loses
/// nothing either way, and a real disk's syncs would be most of a test's time.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A number from the environment, for runs that are longer than the usual.
pub fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
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
    fill(&mut data, stamp);
    data
}

/// Makes a page of any size one that says which write made it.
pub fn fill(data: &mut [u8], stamp: u64) {
    for (n, chunk) in data.chunks_exact_mut(8).enumerate() {
        let word = if stamp > 0 { stamp ^ (n as u64) << 32 } else { 0 };
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

/// The stamp of a page, which must be whole.
pub fn stamp(data: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&data[..8]);
    let stamp = u64::from_le_bytes(first);
    let mut whole = vec![0; data.len()];
    fill(&mut whole, stamp);
    assert!(data == whole, "a torn page");
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

/// Fetches all pages into a cache that need not keep them.
pub fn hydrate_what_fits(volume: &Volume) {
    match volume.hydrate(&mut |_, _| {}) {
        Err(e) if e.kind() == ErrorKind::Full => {}
        hydrated => drop(hydrated.unwrap()),
    }
}

pub fn read(volume: &Volume, n: u32) -> u64 {
    read_at(&volume.snapshot(), n)
}

pub fn read_at(snapshot: &Snapshot, n: u32) -> u64 {
    let mut data = vec![0xEE; snapshot.page_size().map_or(PAGE, PageSize::bytes)];
    snapshot.read(page(n), &mut data).unwrap();
    stamp(&data)
}

/// Copies a data directory as it is at this moment: what a kill leaves, or a second machine begins with.
pub fn copy_dir(from: &Path, to: &Path) {
    assert!(!to.exists(), "it would be copied into {}", to.display());
    assert!(std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}
