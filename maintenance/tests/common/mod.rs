//! Stores with volumes of known layout, and ways to damage them.
#![allow(clippy::unwrap_used, dead_code)] // helpers of tests may panic like tests; no test file uses all of them

use std::any::Any;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use quire_bucket::{Bucket, Created, Key, Options as BucketOptions, keys};
use quire_engine::{Engine, Options, Stores, SyncMode, Traffic, Volume};
use quire_maintenance::verify::{Depth, Report, verify};
use quire_proto::{
    CheckpointHead, CheckpointInfo, CheckpointLeaf, CheckpointPlace, CheckpointWriter, Error, FrameLocation,
    FrameObject, Lsn, ObjectHash, PageCount, PageIdx, PageRun, PageSize, PageSource, SegmentId, SegmentRef, VolumeName,
    Writer,
};
use quire_testkit::S3Server;

/// A store, and a data directory that writes to it.
pub(crate) struct World {
    pub(crate) bucket: Bucket,
    pub(crate) engine: Engine,
    runtime: tokio::runtime::Runtime,
    _keep: Box<dyn Any>,
}

/// Runs a test on a folder and on a real S3 server.
pub(crate) fn on_each_store(test: impl Fn(&World)) {
    test(&World::in_folder());
    test(&World::on_s3());
}

impl World {
    pub(crate) fn in_folder() -> World {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(&format!("file://{}", folder.path().join("store").display())).unwrap();
        World::new(bucket, folder)
    }

    pub(crate) fn on_s3() -> World {
        let server = S3Server::shared();
        let options = BucketOptions { variables: Some(server.variables()), ..BucketOptions::default() };
        World::new(Bucket::open_with(&server.url("verify"), options).unwrap(), ())
    }

    pub(crate) fn of(bucket: Bucket) -> World {
        World::new(bucket, ())
    }

    fn new(bucket: Bucket, keep: impl Any) -> World {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(options(dir.path(), &bucket)).unwrap();
        World { bucket, engine, runtime: tokio::runtime::Runtime::new().unwrap(), _keep: Box::new((dir, keep)) }
    }

    pub(crate) fn volume(&self, text: &str) -> Volume {
        self.engine.volume(&name(text)).unwrap()
    }

    /// Writes noise into these pages, of this volume, and pushes.
    pub(crate) fn push(&self, volume: &str, pages: impl IntoIterator<Item = u32>) {
        self.push_sized(volume, 4096, pages);
    }

    pub(crate) fn push_sized(&self, volume: &str, page_size: usize, pages: impl IntoIterator<Item = u32>) {
        let volume = self.volume(volume);
        let mut writer = volume.writer(&volume.snapshot(), "a test").unwrap();
        writer.set_page_size(PageSize::try_new(page_size as u32).unwrap()).unwrap();
        let salt = volume.status().lsn.map_or(0, Lsn::get);
        for page in pages {
            writer.write(PageIdx::new(page).unwrap(), &noise(page, salt, page_size)).unwrap();
        }
        writer.commit(false).unwrap();
        volume.push().unwrap();
    }

    /// Changes the page count, and pushes.
    pub(crate) fn truncate(&self, volume: &str, pages: u32) {
        let volume = self.volume(volume);
        let mut writer = volume.writer(&volume.snapshot(), "a test").unwrap();
        writer.truncate(PageCount::new(pages)).unwrap();
        writer.commit(false).unwrap();
        volume.push().unwrap();
    }

    /// LSN 1: pages 1 to 40, in a segment of two frames, 1 to 32 and 33 to 40. LSN 2: pages 2 and 3, in the commit.
    /// LSN 3: pages 33 to 60, in a segment of one frame. LSN 4: page 5; LSN 5: page 2, in the commit.
    pub(crate) fn app(&self) {
        self.push("app", 1..=40);
        self.push("app", 2..=3);
        self.push("app", 33..=60);
        self.push("app", [5]);
        self.push("app", [2]);
    }

    /// Verifies from a data directory that knows nothing.
    pub(crate) fn verify(&self, volume: &str, depth: Depth) -> Result<Report, Error> {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(options(dir.path(), &self.bucket)).unwrap();
        engine.maintain(&name(volume), |reader, volume| verify(reader, volume, depth))
    }

    pub(crate) fn plain(&self, volume: &str) -> Report {
        self.verify(volume, Depth::Plain).unwrap()
    }

    pub(crate) fn deep(&self, volume: &str) -> Report {
        self.verify(volume, Depth::Deep).unwrap()
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn read(&self, key: &Key) -> Vec<u8> {
        self.wait(self.bucket.get(key)).unwrap().bytes.to_vec()
    }

    pub(crate) fn delete(&self, key: &Key) {
        self.wait(self.bucket.delete(key)).unwrap();
    }

    /// Puts other bytes in the place of an object.
    pub(crate) fn replace(&self, key: &Key, bytes: impl Into<Bytes>) {
        self.delete(key);
        assert_eq!(self.wait(self.bucket.create(key, bytes.into())).unwrap(), Created::Won);
    }

    /// Writes a checkpoint of one leaf anew, after a change to what it says of its snapshot, of its pages, and of
    /// segments.
    pub(crate) fn forge(
        &self,
        checkpoint: &Key,
        change: impl FnOnce(&mut CheckpointInfo, &mut Vec<PageRun>, &mut Vec<SegmentRef>),
    ) {
        let object = self.read(checkpoint);
        let head = CheckpointHead::decode(&object).unwrap();
        let part = |range: Range<u64>| &object[range.start as usize..range.end as usize];
        let mut info = head.info().clone();
        let leaf = head.leaves().next().unwrap();
        let mut runs = CheckpointLeaf::decode(&leaf, part(leaf.range())).unwrap().runs().collect();
        let mut segments = head.decode_segments(part(head.segments_range())).unwrap();
        change(&mut info, &mut runs, &mut segments);
        let mut writer = CheckpointWriter::new(info);
        runs.into_iter().for_each(|run| writer.push(run).unwrap());
        self.replace(checkpoint, writer.finish(segments, &[]).unwrap());
    }

    /// A checkpoint now says of a page, which a run begins with, that it is zeros.
    pub(crate) fn lie(&self, checkpoint: &Key, page: u32) {
        self.forge(checkpoint, |_, runs, _| {
            runs.iter_mut().find(|run| run.first.get() == page).unwrap().source = PageSource::Zero;
        });
    }

    /// A checkpoint now says of a page, which a run begins with, that it is in a segment of the compaction `by`. Nobody
    /// has written that one, and the checkpoint's list of segments lacks it.
    pub(crate) fn misplace(&self, checkpoint: &Key, page: u32, by: CheckpointPlace) {
        let id = SegmentId::compacted(by).unwrap();
        self.forge(checkpoint, |_, runs, segments| {
            let run = runs.iter_mut().find(|run| run.first.get() == page).unwrap();
            let (object, page_count) = (FrameObject::Segment(id), run.count);
            run.source =
                PageSource::Frame(FrameLocation { owner: by.lsn, object, offset: 5, len_bytes: 100, page_count });
            segments.push(SegmentRef { id, len_bytes: 1000, hash: ObjectHash::of(b"nothing") });
        });
        self.unlist(checkpoint, id);
    }

    /// Takes a segment out of a checkpoint's list of segments, which no writer of checkpoints does: byte by byte.
    fn unlist(&self, checkpoint: &Key, unlisted: SegmentId) {
        let object = self.read(checkpoint);
        let head = CheckpointHead::decode(&object).unwrap();
        let (leaves_at, list_at) = (head.len_bytes(), head.segments_range().start as usize);
        let mut segments = head.decode_segments(&object[list_at..]).unwrap();
        segments.retain(|segment| segment.id != unlisted);
        let mut list = Writer::new();
        list.varint(segments.len() as u64);
        for SegmentRef { id, len_bytes, hash } in segments {
            list.varint(id.target.get());
            list.varint(id.generation.into());
            list.bytes(&id.ulid.to_bytes());
            list.varint(len_bytes);
            list.bytes(hash.as_bytes());
        }
        // The head has the list's length and digest.
        let part = |list: &[u8]| {
            let mut part = Writer::new();
            part.varint(list.len() as u64);
            part.bytes(&blake3::hash(list).as_bytes()[..16]);
            part.into_vec()
        };
        let (before, after) = (part(&object[list_at..]), part(list.as_slice()));
        let fields = &object[9..leaves_at - 4];
        let at = fields.windows(before.len()).position(|window| window == before).unwrap();
        let fields = [&fields[..at], after.as_slice(), &fields[at + before.len()..]].concat();
        let mut forged = Writer::new();
        forged.bytes(&object[..5]);
        forged.u32(fields.len() as u32);
        forged.bytes(&fields);
        let crc = crc32(forged.as_slice());
        forged.u32(crc);
        forged.bytes(&object[leaves_at..list_at]);
        forged.bytes(list.as_slice());
        self.replace(checkpoint, forged.into_vec());
    }

    /// Flips a bit; counted from the end if `at` is negative.
    pub(crate) fn flip(&self, key: &Key, at: i64) {
        let mut bytes = self.read(key);
        let at = if at < 0 { bytes.len() as i64 + at } else { at };
        bytes[at as usize] ^= 0x10;
        self.replace(key, bytes);
    }

    /// The one segment that was written for an LSN.
    pub(crate) fn segment(&self, volume: &str, lsn: u64) -> Key {
        let listed = self.bucket.list(&keys::segments_prefix(&name(volume)));
        let mut found: Vec<Key> = self
            .wait(listed.collect::<Vec<_>>())
            .into_iter()
            .map(|meta| meta.unwrap().key)
            .filter(|key| keys::segment_of(key).unwrap().target.get() == lsn)
            .collect();
        assert_eq!(found.len(), 1);
        found.remove(0)
    }
}

pub(crate) fn options(dir: &Path, bucket: &Bucket) -> Options {
    let counted = bucket.clone();
    let stores = Stores {
        metastore: Arc::new(quire_metastore::Embedded::new(bucket.clone(), quire_metastore::Options::default())),
        pagestore: Arc::new(quire_pagestore::Embedded::new(bucket.clone())),
        traffic: Arc::new(move || {
            let c = counted.counters();
            Traffic { requests: c.requests(), bytes_in: c.bytes_in, bytes_out: c.bytes_out }
        }),
    };
    Options {
        data_dir: dir.to_owned(),
        store_url: bucket.url().to_owned(),
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

pub(crate) fn name(text: &str) -> VolumeName {
    VolumeName::parse(text).unwrap()
}

pub(crate) fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

pub(crate) fn commit(volume: &str, n: u64) -> Key {
    keys::commit(&name(volume), lsn(n))
}

/// The checksum of stored objects.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// Bytes that do not compress, and that no other page has.
fn noise(page: u32, salt: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&page.to_le_bytes()).update(&salt.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
