//! A store with clients and a collector, and volumes whose pages say which write made them.
#![allow(clippy::unwrap_used, dead_code)] // helpers of tests may panic like tests; no test file uses all of them

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use quire_bucket::{Bucket, keys};
use quire_engine::{Engine, ErrorKind, Lsn, Moment, PageIdx, PageSize, SyncMode, Traffic, Volume, VolumeName};
use quire_maintenance::collect::{Collected, Options, Stores, collect, keep};
use quire_proto::{LogUpkeep, Retention, Span};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const PAGE: usize = 512;

pub(crate) fn name(text: &str) -> VolumeName {
    VolumeName::parse(text).unwrap()
}

pub(crate) fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

pub(crate) fn page(n: u32) -> PageIdx {
    PageIdx::new(n).unwrap()
}

pub(crate) fn page_size() -> PageSize {
    PageSize::try_new(PAGE as u32).unwrap()
}

/// A page that does not compress and says which write made it.
pub(crate) fn content(stamp: u64) -> Vec<u8> {
    let mut data = vec![0; PAGE];
    let mut noise = blake3::Hasher::new();
    noise.update(&stamp.to_le_bytes()).finalize_xof().fill(&mut data);
    data[..8].copy_from_slice(&stamp.to_le_bytes());
    data
}

/// A store, and what it takes to collect in it.
pub(crate) struct Store {
    pub(crate) bucket: Bucket,
    pub(crate) stores: Stores,
    pub(crate) runtime: Runtime,
    dirs: TempDir,
}

impl Store {
    pub(crate) fn on(bucket: Bucket) -> Store {
        let stores = stores_on(&bucket);
        let dirs = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Store { bucket, stores, runtime: Runtime::new().unwrap(), dirs }
    }

    pub(crate) fn memory() -> Store {
        Store::on(Bucket::open("memory://").unwrap())
    }

    /// A client on a machine of its own.
    pub(crate) fn client(&self, machine: &str) -> Engine {
        engine(&self.dirs.path().join(machine), &self.bucket)
    }

    /// A machine that is not needed any more.
    pub(crate) fn forget(&self, machine: &str) {
        std::fs::remove_dir_all(self.dirs.path().join(machine)).unwrap();
    }

    pub(crate) fn log(&self) -> &dyn LogUpkeep {
        &*self.stores.log
    }

    pub(crate) fn keep(&self, volume: &str, span: Span, named: &[u64]) {
        let retention = Retention { span, named: named.iter().copied().map(lsn).collect() };
        let volume = name(volume);
        let kept = keep(&self.stores, &volume, |kept| *kept = retention.clone());
        assert_eq!(self.runtime.block_on(kept).unwrap().0, retention);
    }

    /// Collects, with nobody's reading in the way.
    pub(crate) fn collect(&self, volume: &str) -> Collected {
        self.collect_with(volume, &Options { grace_ms: 0, ..Options::default() })
    }

    pub(crate) fn collect_with(&self, volume: &str, options: &Options) -> Collected {
        self.runtime.block_on(collect(&self.stores, &name(volume), options)).unwrap().unwrap()
    }

    /// As if everybody whose outcome is open had given up.
    pub(crate) fn collect_abandoned(&self, volume: &str) -> Collected {
        self.collect_with(volume, &Options { grace_ms: 0, abandoned_ms: 0, report_at_ms: None })
    }

    pub(crate) fn keys(&self) -> BTreeSet<String> {
        let listed = self.bucket.list(&keys::volumes_prefix("").unwrap());
        self.runtime.block_on(listed.map_ok(|meta| meta.key.as_str().to_owned()).try_collect()).unwrap()
    }
}

pub(crate) fn engine(dir: &Path, bucket: &Bucket) -> Engine {
    engine_that_leases(dir, bucket, quire_engine::LEASE_AFTER)
}

/// One that leases what it reads after so long.
pub(crate) fn engine_that_leases(dir: &Path, bucket: &Bucket, lease_after: Duration) -> Engine {
    let counted = bucket.clone();
    let stores = quire_engine::Stores {
        metastore: Arc::new(quire_metastore::Embedded::new(bucket.clone(), quire_metastore::Options::default())),
        pagestore: Arc::new(quire_pagestore::Embedded::new(bucket.clone())),
        traffic: Arc::new(move || {
            let c = counted.counters();
            Traffic { requests: c.requests(), bytes_in: c.bytes_in, bytes_out: c.bytes_out }
        }),
    };
    let options = quire_engine::Options {
        data_dir: dir.to_owned(),
        store_url: "test".into(),
        connect: Box::new(move || {
            let stores = stores.clone();
            Box::pin(async move { Ok(stores) })
        }),
        sync: SyncMode::Manual,
        cache_size: 1 << 30,
        lease_after,
        author: "tests".into(),
    };
    Engine::open(options).unwrap()
}

pub(crate) fn write(volume: &Volume, pages: impl IntoIterator<Item = (u32, u64)>) {
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.set_page_size(page_size()).unwrap();
    for (n, stamp) in pages {
        writer.write(page(n), &content(stamp)).unwrap();
    }
    writer.commit(false).unwrap();
}

/// What the pages of a volume's visible snapshot say.
pub(crate) fn stamps(volume: &Volume) -> Vec<u64> {
    let snapshot = volume.snapshot();
    let mut data = vec![0; PAGE];
    let stamp = |n| {
        snapshot.read(page(n), &mut data).unwrap();
        let stamp = u64::from_le_bytes(data[..8].try_into().unwrap());
        assert!(stamp == 0 && data == [0; PAGE] || data == content(stamp), "a torn page");
        stamp
    };
    (1..=snapshot.page_count().get()).map(stamp).collect()
}

/// Pushes `commits` commits of 600 pages in all, each of which writes page 1 and two hundred others: too many for
/// a commit object, so there are segments. What each LSN shows.
pub(crate) fn grow(volume: &Volume, commits: u64) -> Vec<Vec<u64>> {
    let mut shown = vec![stamps(volume)];
    let begin = volume.status().base_lsn.map_or(0, Lsn::get);
    for n in begin + 1..=begin + commits {
        let first = 2 + (n as u32 % 3) * 200;
        write(volume, [1].into_iter().chain(first..first + 200).map(|page| (page, n * 1000 + u64::from(page))));
        volume.push().unwrap();
        shown.push(stamps(volume));
    }
    shown.remove(0);
    shown
}

pub(crate) fn shows(engine: &Engine, volume: &str, at: u64) -> Vec<u64> {
    stamps(&engine.volume_at(&name(volume), Moment::Lsn(lsn(at))).unwrap())
}

pub(crate) fn gone(engine: &Engine, volume: &str, at: u64) {
    let error = engine.volume_at(&name(volume), Moment::Lsn(lsn(at))).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Gone, "LSN {at}: {error:?}");
    assert!(error.remedy().is_some(), "{error:?}");
}

/// The stores in a bucket, for their upkeep.
pub(crate) fn stores_on(bucket: &Bucket) -> Stores {
    let log = Arc::new(quire_metastore::Embedded::new(bucket.clone(), quire_metastore::Options::default()));
    Stores::new(log, Arc::new(quire_pagestore::Embedded::new(bucket.clone())))
}
