//! Frames that were read lately, in memory and, if told, on a disk: what many clients read comes from the store once.
//!
//! Frames never change, so nothing has to be kept up to date. Each one is checked again on its way out: a disk's damage
//! costs a request to the store, and is never served.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use foyer::{BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder};
use futures::future::join_all;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use quire_proto::{
    CheckpointPlace, Error, ErrorKind, FrameAddress, FrameIndex, FrameStream, Lsn, PageUpkeep, Pagestore, Result,
    SegmentId, VolumeName, check_frame,
};
use tokio::sync::watch;

/// The disk is used in blocks of so many bytes, each much longer than a frame.
const BLOCK_BYTES: usize = 8 << 20;
/// Fewer blocks than these are no cache.
const LEAST_DISK_BYTES: u64 = 8 * BLOCK_BYTES as u64;

/// Where frames are kept.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// In memory, in bytes. None are kept if it is 0.
    pub memory_bytes: u64,
    /// On a disk besides: the folder, and how many bytes.
    pub disk: Option<(PathBuf, u64)>,
}

/// What became of the frames that were asked for.
#[derive(Debug, Default)]
pub(crate) struct CacheCounts {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    /// Somebody else had just asked for it.
    pub(crate) joined: AtomicU64,
}

/// A frame that is on its way, for whoever wants it too: it is sent, or its reader has failed.
type Coming = watch::Receiver<Option<Bytes>>;

/// Frames that somebody reads: they are expected no more once this is dropped.
struct Expected {
    coming: Arc<Mutex<HashMap<String, Coming>>>,
    keys: Vec<String>,
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut coming = self.coming.lock();
        self.keys.iter().for_each(|key| drop(coming.remove(key)));
    }
}

/// A pagestore behind a cache. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cached {
    pages: Arc<dyn PageUpkeep>,
    frames: HybridCache<String, Bytes>,
    coming: Arc<Mutex<HashMap<String, Coming>>>,
    counts: Arc<CacheCounts>,
    /// As long as it is open the folder is this server's.
    _lock: Option<Arc<File>>,
}

/// Nobody else's frame has this name.
fn key(volume: &VolumeName, frame: &FrameAddress) -> String {
    format!("{}/!/{}@{}+{}", volume.encoded(), frame.segment, frame.offset, frame.len_bytes)
}

fn failed(what: &Path, e: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("the cache in {}: {e}", what.display()))
        .with_remedy("Name another folder with --cache-dir; what is in it can be deleted.")
}

fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
    let lock = File::create(folder.join("lock")).map_err(|e| failed(folder, e))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Error::new(ErrorKind::Busy, format!("the cache in {} is another server's", folder.display()))
                .with_remedy("Give each server a folder of its own with --cache-dir."))
        }
        Err(fs::TryLockError::Error(e)) => Err(failed(folder, e)),
    }
}

impl Cached {
    pub(crate) async fn open(pages: Arc<dyn PageUpkeep>, options: &CacheOptions) -> Result<Cached> {
        let memory = usize::try_from(options.memory_bytes).unwrap_or(usize::MAX);
        let builder = HybridCacheBuilder::new()
            .with_name("frames")
            .memory(memory)
            .with_weighter(|key: &String, frame: &Bytes| key.len() + frame.len())
            .storage();
        let (builder, folder, lock) = match &options.disk {
            None => (builder, PathBuf::new(), None),
            Some((folder, bytes)) => {
                if *bytes < LEAST_DISK_BYTES {
                    return Err(Error::invalid(format!("a cache of {bytes} bytes on disk is too small"))
                        .with_remedy(format!("It needs {} MiB at least (--cache-disk).", LEAST_DISK_BYTES >> 20)));
                }
                let lock = lock(folder)?;
                let capacity = usize::try_from(*bytes).unwrap_or(usize::MAX);
                let device = FsDeviceBuilder::new(folder.join("frames")).with_capacity(capacity);
                let device = device.build().map_err(|e| failed(folder, e))?;
                let engine = BlockEngineConfig::new(device).with_block_size(BLOCK_BYTES);
                (builder.with_engine_config(engine), folder.clone(), Some(Arc::new(lock)))
            }
        };
        Ok(Cached {
            pages,
            frames: builder.build().await.map_err(|e| failed(&folder, e))?,
            coming: Arc::default(),
            counts: Arc::default(),
            _lock: lock,
        })
    }

    pub(crate) fn counts(&self) -> Arc<CacheCounts> {
        self.counts.clone()
    }

    /// Brings what is in memory to the disk, if there is one.
    pub(crate) async fn close(&self) {
        if let Err(e) = self.frames.close().await {
            tracing::warn!("the cache is not kept for the next start: {e}");
        }
    }

    async fn kept(&self, key: &String) -> Option<Bytes> {
        // A disk that fails is no cache.
        let frame = self.frames.get(key).await.ok()??.value().clone();
        if check_frame(&frame).is_ok() {
            return Some(frame);
        }
        tracing::warn!("a frame in the cache is damaged: {key}");
        self.frames.remove(key);
        None
    }

    /// Reads frames of the store and gives them to all who wait for them; also if whoever asked does not wait any more.
    async fn fetch(
        &self,
        volume: &VolumeName,
        frames: Vec<(FrameAddress, String, watch::Sender<Option<Bytes>>)>,
    ) -> Result<Vec<Bytes>> {
        let (cached, volume) = (self.clone(), volume.clone());
        let fetched = tokio::spawn(async move {
            let addresses: Vec<FrameAddress> = frames.iter().map(|(address, ..)| *address).collect();
            let keys = frames.iter().map(|(_, key, _)| key.clone()).collect();
            // Also if the read panics: who joined it would look for it for ever.
            let _expected = Expected { coming: cached.coming.clone(), keys };
            let read = cached.pages.read(&volume, &addresses).await?;
            for ((_, key, sender), frame) in frames.into_iter().zip(&read) {
                cached.frames.insert(key, frame.clone());
                sender.send_replace(Some(frame.clone()));
            }
            Ok(read)
        });
        fetched.await.map_err(|e| Error::unavailable(format!("a read has broken off: {e}")))?
    }
}

#[async_trait]
impl Pagestore for Cached {
    async fn write(&self, volume: &VolumeName, target: Lsn, frames: FrameStream<'_>) -> Result<FrameIndex> {
        self.pages.write(volume, target, frames).await
    }

    async fn read(&self, volume: &VolumeName, frames: &[FrameAddress]) -> Result<Vec<Bytes>> {
        let keys: Vec<String> = frames.iter().map(|frame| key(volume, frame)).collect();
        let mut found: Vec<Option<Bytes>> = join_all(keys.iter().map(|key| self.kept(key))).await;
        let hits = found.iter().flatten().count() as u64;
        self.counts.hits.fetch_add(hits, Ordering::Relaxed);
        while found.contains(&None) {
            let (mut mine, mut others) = (Vec::new(), Vec::new());
            {
                let mut coming = self.coming.lock();
                for n in 0..keys.len() {
                    if found[n].is_some() {
                        continue;
                    }
                    match (coming.get(&keys[n]), self.frames.memory().get(&keys[n])) {
                        (Some(frame), _) => others.push((n, frame.clone())),
                        // It has come since it was looked for.
                        (None, Some(frame)) => found[n] = Some(frame.value().clone()),
                        (None, None) => {
                            let (sender, frame) = watch::channel(None);
                            coming.insert(keys[n].clone(), frame);
                            mine.push((n, sender));
                        }
                    }
                }
            }
            self.counts.misses.fetch_add(mine.len() as u64, Ordering::Relaxed);
            self.counts.joined.fetch_add(others.len() as u64, Ordering::Relaxed);
            if !mine.is_empty() {
                let places: Vec<usize> = mine.iter().map(|(n, _)| *n).collect();
                let wanted = mine.into_iter().map(|(n, sender)| (frames[n], keys[n].clone(), sender));
                let read = self.fetch(volume, wanted.collect()).await?;
                places.into_iter().zip(read).for_each(|(n, frame)| found[n] = Some(frame));
            }
            for (n, mut frame) in others {
                // Who has failed has not sent it: then it is asked for here.
                if let Ok(frame) = frame.wait_for(Option::is_some).await {
                    found[n] = frame.clone();
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    async fn verify(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> Result<()> {
        self.pages.verify(volume, segment, len_bytes).await
    }

    fn scan(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> BoxStream<'static, Result<Bytes>> {
        self.pages.scan(volume, segment, len_bytes)
    }
}

#[async_trait]
impl PageUpkeep for Cached {
    async fn rewrite(
        &self,
        volume: &VolumeName,
        place: CheckpointPlace,
        frames: FrameStream<'_>,
    ) -> Result<FrameIndex> {
        self.pages.rewrite(volume, place, frames).await
    }

    fn segments(&self, volume: &VolumeName) -> BoxStream<'static, Result<(SegmentId, u64)>> {
        self.pages.segments(volume)
    }

    async fn drop_segment(&self, volume: &VolumeName, segment: SegmentId) -> Result<()> {
        self.pages.drop_segment(volume, segment).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use std::sync::atomic::AtomicBool;

    use futures::stream;
    use quire_bucket::Bucket;
    use quire_proto::{EncodedFrame, PageIdx, PageSet, PageSize, encode_frame};
    use tokio::sync::Notify;

    use super::*;

    /// A store whose reads wait until they are let go, are counted, and may fail.
    struct Slow {
        pages: quire_pagestore::Embedded,
        reads: AtomicU64,
        fails: AtomicBool,
        panics: AtomicBool,
        /// So many reads stand still until there is a notice for each of them.
        stand_still: AtomicU64,
        go: Notify,
    }

    #[async_trait]
    impl Pagestore for Slow {
        async fn write(&self, volume: &VolumeName, target: Lsn, frames: FrameStream<'_>) -> Result<FrameIndex> {
            self.pages.write(volume, target, frames).await
        }
        async fn read(&self, volume: &VolumeName, frames: &[FrameAddress]) -> Result<Vec<Bytes>> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            let stands =
                self.stand_still.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if stands {
                self.go.notified().await;
            }
            if self.fails.swap(false, Ordering::SeqCst) {
                return Err(Error::unavailable("as told"));
            }
            assert!(!self.panics.swap(false, Ordering::SeqCst), "as told");
            self.pages.read(volume, frames).await
        }
        async fn verify(&self, _: &VolumeName, _: SegmentId, _: u64) -> Result<()> {
            unreachable!("nobody asks")
        }
        fn scan(&self, _: &VolumeName, _: SegmentId, _: u64) -> BoxStream<'static, Result<Bytes>> {
            unreachable!("nobody asks")
        }
    }

    #[async_trait]
    impl PageUpkeep for Slow {
        async fn rewrite(&self, _: &VolumeName, _: CheckpointPlace, _: FrameStream<'_>) -> Result<FrameIndex> {
            unreachable!("nobody asks")
        }
        fn segments(&self, _: &VolumeName) -> BoxStream<'static, Result<(SegmentId, u64)>> {
            unreachable!("nobody asks")
        }
        async fn drop_segment(&self, _: &VolumeName, _: SegmentId) -> Result<()> {
            unreachable!("nobody asks")
        }
    }

    struct House {
        slow: Arc<Slow>,
        volume: VolumeName,
        frames: Vec<FrameAddress>,
    }

    impl House {
        /// A segment of frames of one page each.
        async fn new(frames: u32) -> House {
            let slow = Slow {
                pages: quire_pagestore::Embedded::new(Bucket::open("memory://").unwrap()),
                reads: AtomicU64::new(0),
                fails: AtomicBool::new(false),
                panics: AtomicBool::new(false),
                stand_still: AtomicU64::new(0),
                go: Notify::new(),
            };
            let volume = VolumeName::parse("app").unwrap();
            let size = PageSize::try_new(4096).unwrap();
            let frame = |n: u32| -> Result<EncodedFrame> {
                let page: Vec<u8> = blake3::hash(&n.to_le_bytes()).as_bytes().repeat(128);
                encode_frame(&PageSet::from_iter(PageIdx::new(n)), size, &page)
            };
            let index = slow.write(&volume, Lsn::FIRST, Box::pin(stream::iter((1..=frames).map(frame)))).await.unwrap();
            let segment = index.segments()[0].id;
            let address = |frame: &quire_proto::FrameRef| FrameAddress {
                segment,
                offset: frame.offset,
                len_bytes: frame.len_bytes,
            };
            let frames = index.frames().iter().map(address).collect();
            House { slow: Arc::new(slow), volume, frames }
        }

        async fn cached(&self, memory_bytes: u64, disk: Option<(PathBuf, u64)>) -> Cached {
            Cached::open(self.slow.clone(), &CacheOptions { memory_bytes, disk }).await.unwrap()
        }

        fn reads(&self) -> u64 {
            self.slow.reads.load(Ordering::SeqCst)
        }

        async fn direct(&self) -> Vec<Bytes> {
            self.slow.pages.read(&self.volume, &self.frames).await.unwrap()
        }
    }

    /// What every pagestore must do, a cache in between or not.
    mod contract {
        use quire_pagestore::contract::Subject;

        use super::*;

        async fn empty() -> Subject {
            let bucket = Bucket::open("memory://").unwrap();
            let pages = Arc::new(quire_pagestore::Embedded::new(bucket.clone()));
            let cached = Cached::open(pages, &CacheOptions { memory_bytes: 8 << 20, disk: None }).await.unwrap();
            Subject { bucket, store: Arc::new(cached), keep: Box::new(()) }
        }

        quire_pagestore::pagestore_contract!(empty());
    }

    #[tokio::test]
    async fn a_thousand_who_read_one_frame_at_the_same_time_cost_one_read() {
        let house = House::new(3).await;
        let cached = house.cached(1 << 20, None).await;
        house.slow.stand_still.store(1, Ordering::SeqCst);
        let one = &house.frames[..1];
        let reads = join_all((0..1000).map(|_| cached.read(&house.volume, one)));
        let go = async {
            // All have asked, and wait.
            while cached.counts.joined.load(Ordering::Relaxed) < 999 {
                tokio::task::yield_now().await;
            }
            house.slow.go.notify_one();
        };
        let (read, ()) = tokio::join!(reads, go);
        let wanted = house.direct().await;
        assert!(read.into_iter().all(|frames| frames.unwrap() == wanted[..1]));
        assert_eq!(house.reads(), 1);
        // Of several, only those that are not there are read, together.
        assert_eq!(cached.read(&house.volume, &house.frames).await.unwrap(), wanted);
        assert_eq!(cached.read(&house.volume, &house.frames).await.unwrap(), wanted);
        assert_eq!(house.reads(), 2);
    }

    #[tokio::test]
    async fn who_waited_for_a_read_that_failed_reads_for_himself() {
        let fails: [fn(&Slow) -> &AtomicBool; 2] = [|slow| &slow.fails, |slow| &slow.panics];
        for fails in fails {
            let house = House::new(1).await;
            let cached = house.cached(1 << 20, None).await;
            house.slow.stand_still.store(1, Ordering::SeqCst);
            fails(&house.slow).store(true, Ordering::SeqCst);
            let go = async {
                while cached.counts.joined.load(Ordering::Relaxed) < 1 {
                    tokio::task::yield_now().await;
                }
                house.slow.go.notify_one();
            };
            let read = || cached.read(&house.volume, &house.frames);
            let (first, second, ()) = tokio::join!(read(), read(), go);
            let (failed, read) = if first.is_err() { (first, second) } else { (second, first) };
            assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
            assert_eq!(read.unwrap(), house.direct().await);
        }
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_nobody_s_frame_along() {
        let house = House::new(1).await;
        let cached = house.cached(1 << 20, None).await;
        house.slow.stand_still.store(1, Ordering::SeqCst);
        let mut leaves = Box::pin(cached.read(&house.volume, &house.frames));
        while house.reads() == 0 {
            assert!(futures::poll!(&mut leaves).is_pending());
            tokio::task::yield_now().await;
        }
        drop(leaves);
        let mut stays = Box::pin(cached.read(&house.volume, &house.frames));
        assert!(futures::poll!(&mut stays).is_pending());
        house.slow.go.notify_one();
        assert_eq!(stays.await.unwrap(), house.direct().await);
        assert_eq!(house.reads(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_memory_cannot_hold_lies_on_the_disk_and_damage_there_is_not_served() {
        let house = House::new(400).await;
        let folder = tempfile::tempdir().unwrap();
        let disk = Some((folder.path().to_owned(), LEAST_DISK_BYTES));
        let wanted = house.direct().await;
        let cached = house.cached(64 << 10, disk.clone()).await;
        let refused = Cached::open(house.slow.clone(), &CacheOptions { memory_bytes: 1, disk: disk.clone() }).await;
        assert_eq!(refused.map(drop).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(cached.read(&house.volume, &house.frames).await.unwrap(), wanted);
        cached.close().await;
        drop(cached);
        // The next server begins with it.
        let again = house.cached(64 << 10, disk.clone()).await;
        assert_eq!(again.read(&house.volume, &house.frames).await.unwrap(), wanted);
        let hits = again.counts.hits.load(Ordering::Relaxed);
        assert!(hits > 300, "{hits} of 400 frames");
        again.close().await;
        drop(again);
        for entry in fs::read_dir(folder.path().join("frames")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().skip(500).step_by(1000).for_each(|byte| *byte ^= 1);
            fs::write(&path, bytes).unwrap();
        }
        let damaged = house.cached(64 << 10, disk).await;
        assert_eq!(damaged.read(&house.volume, &house.frames).await.unwrap(), wanted);
    }
}
