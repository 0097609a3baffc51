//! Pushes that fail, lose their replies, or die at each step.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use common::*;
use futures::stream::BoxStream;
use quire_bucket::Bucket;
use quire_engine::{Condition, Engine, Error, ErrorKind, Lsn, Stores, SyncMode, VolumeName};
use quire_proto::{
    Appended, CommitHeader, FrameAddress, FrameIndex, FrameStream, Metastore, Pagestore, Result, SealedCommit,
    SegmentId, VolumeState,
};

/// Where a push can be hit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    BeforeSegments,
    AfterSegments,
    BeforeAppend,
    AfterAppend,
}

const STEPS: [Step; 4] = [Step::BeforeSegments, Step::AfterSegments, Step::BeforeAppend, Step::AfterAppend];

type Hook = Arc<dyn Fn(Step) -> Result<()> + Send + Sync>;

/// A store that asks a hook at every step; its error is the step's.
struct Hooked {
    inner: Stores,
    hook: Hook,
}

#[async_trait]
impl Metastore for Hooked {
    async fn head(&self, volume: &VolumeName) -> Result<VolumeState> {
        self.inner.metastore.head(volume).await
    }
    async fn append(&self, volume: &VolumeName, commit: &SealedCommit) -> Result<Appended> {
        (self.hook)(Step::BeforeAppend)?;
        let appended = self.inner.metastore.append(volume, commit).await?;
        (self.hook)(Step::AfterAppend)?;
        Ok(appended)
    }
    async fn commit(&self, volume: &VolumeName, lsn: Lsn) -> Result<SealedCommit> {
        self.inner.metastore.commit(volume, lsn).await
    }
    async fn headers(&self, volume: &VolumeName, first: Lsn, last: &CommitHeader) -> Result<Vec<CommitHeader>> {
        self.inner.metastore.headers(volume, first, last).await
    }
    fn watch(&self, volume: &VolumeName, after: Option<Lsn>) -> BoxStream<'static, Result<SealedCommit>> {
        self.inner.metastore.watch(volume, after)
    }
    fn volumes(&self, prefix: &str) -> BoxStream<'static, Result<VolumeName>> {
        self.inner.metastore.volumes(prefix)
    }
    async fn tidy(&self, volume: &VolumeName, head: &CommitHeader) -> Result<()> {
        self.inner.metastore.tidy(volume, head).await
    }
    async fn delete(&self, volume: &VolumeName, expected: Lsn, author: &str) -> Result<SealedCommit> {
        self.inner.metastore.delete(volume, expected, author).await
    }
    async fn rename(&self, volume: &VolumeName, new: &VolumeName, author: &str) -> Result<SealedCommit> {
        self.inner.metastore.rename(volume, new, author).await
    }
}

#[async_trait]
impl Pagestore for Hooked {
    async fn write(&self, volume: &VolumeName, target: Lsn, frames: FrameStream<'_>) -> Result<FrameIndex> {
        (self.hook)(Step::BeforeSegments)?;
        let index = self.inner.pagestore.write(volume, target, frames).await?;
        (self.hook)(Step::AfterSegments)?;
        Ok(index)
    }
    async fn read(&self, volume: &VolumeName, frames: &[FrameAddress]) -> Result<Vec<bytes::Bytes>> {
        self.inner.pagestore.read(volume, frames).await
    }
    async fn verify(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> Result<()> {
        self.inner.pagestore.verify(volume, segment, len_bytes).await
    }
}

fn hooked(bucket: &Bucket, hook: Hook) -> Stores {
    let inner = stores(bucket);
    let traffic = inner.traffic.clone();
    let hooked = Arc::new(Hooked { inner, hook });
    Stores { metastore: hooked.clone(), pagestore: hooked, traffic }
}

fn open_hooked(dir: &Path, bucket: &Bucket, sync: SyncMode, hook: Hook) -> Engine {
    let mut options = options(dir, hooked(bucket, hook));
    options.sync = sync;
    Engine::open(options).unwrap()
}

fn unreachable_store() -> Error {
    Error::unavailable("the test cut the line")
}

/// Noise, so that a push of these pages does not fit into the commit.
fn big() -> Vec<(u32, u64)> {
    let noise = |n: u64| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (1..=9000).map(|n| (n, noise(n.into()))).collect()
}

fn copy_dir(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_push_killed_at_any_step_goes_on_after_a_restart() {
    for step in STEPS {
        for first_push in [true, false] {
            let bucket = Bucket::open("memory://").unwrap();
            let root = tempfile::tempdir().unwrap();
            let (dir, dead) = (root.path().join("a"), root.path().join("dead"));
            let mut expected = 1;
            if !first_push {
                let engine = open(&dir, &bucket);
                let volume = engine.volume(&name("v")).unwrap();
                write(&volume, &[(1, 1)]);
                volume.push().unwrap();
                expected = 2;
            }
            {
                let (from, to) = (dir.clone(), dead.clone());
                let hook: Hook = Arc::new(move |at| {
                    if at != step {
                        return Ok(());
                    }
                    copy_dir(&from, &to); // what a kill right here leaves on disk
                    Err(unreachable_store())
                });
                let engine = open_hooked(&dir, &bucket, SyncMode::Manual, hook);
                let volume = engine.volume(&name("v")).unwrap();
                write(&volume, &big());
                assert_eq!(volume.push().unwrap_err().kind(), ErrorKind::Unavailable, "{step:?}");
            }
            let engine = open(&dead, &bucket);
            let volume = engine.volume(&name("v")).unwrap();
            assert_eq!(volume.status().unpushed, 1, "{step:?}");
            write(&volume, &[(2, 22)]);
            volume.push().unwrap();
            assert_eq!(volume.status().state, Condition::Clean, "{step:?}");
            let lsns = volume.log().unwrap().len();
            assert!(lsns == expected || lsns == expected + 1, "{step:?}: {lsns} commits");
            let fresh = open(&root.path().join("fresh"), &bucket);
            let clone = fresh.existing(&name("v")).unwrap();
            for (n, stamp) in big() {
                assert_eq!(read(&clone, n), if n == 2 { 22 } else { stamp }, "{step:?}, page {n}");
            }
        }
    }
}

#[test]
fn a_lost_reply_is_settled_by_the_next_push_and_counts_once() {
    let bucket = Bucket::open("memory://").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cuts = Arc::new(AtomicUsize::new(3));
    let left = cuts.clone();
    let hook: Hook = Arc::new(move |at| {
        let cut = at == Step::AfterAppend
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if cut { Err(unreachable_store()) } else { Ok(()) }
    });
    let engine = open_hooked(dir.path(), &bucket, SyncMode::Manual, hook);
    let volume = engine.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1)]);
    for _ in 0..3 {
        assert_eq!(volume.push().unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(volume.status().state, Condition::InDoubt);
        assert!(volume.status().remedy.is_some());
    }
    // Local work goes on meanwhile, and is not part of the push in doubt.
    write(&volume, &[(1, 2)]);
    let moved = volume.push().unwrap();
    assert_eq!(moved.pushed, Lsn::new(2).map(|lsn| (lsn, 2)));
    assert_eq!(volume.log().unwrap().len(), 2);
    assert_eq!(cuts.load(Ordering::SeqCst), 0);
}

#[test]
fn sync_commit_with_a_lost_reply_says_the_truth() {
    for step in [Step::BeforeAppend, Step::AfterAppend] {
        let bucket = Bucket::open("memory://").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cuts = Arc::new(AtomicUsize::new(0));
        let left = cuts.clone();
        let hook: Hook = Arc::new(move |at| {
            let cut = at == step && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if cut { Err(unreachable_store()) } else { Ok(()) }
        });
        let engine = open_hooked(dir.path(), &bucket, SyncMode::Commit, hook);
        let volume = engine.volume(&name("v")).unwrap();
        write(&volume, &[(1, 1), (2, 2)]);
        cuts.store(1, Ordering::SeqCst);
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.write(page(1), &content(11)).unwrap();
        match writer.commit(true) {
            // The commit was there: the void lost against it.
            Ok(_) => assert_eq!((step, read(&volume, 1)), (Step::AfterAppend, 11)),
            // The void won: the transaction has failed for certain.
            Err(e) => assert_eq!((step, e.kind(), read(&volume, 1)), (Step::BeforeAppend, ErrorKind::Unavailable, 1)),
        }
        write(&volume, &[(2, 22)]);
        let fresh = tempfile::tempdir().unwrap();
        let clone = open(fresh.path(), &bucket).existing(&name("v")).unwrap();
        assert_eq!((read(&clone, 1), read(&clone, 2)), (read(&volume, 1), 22), "{step:?}");
    }
}

#[test]
fn sync_commit_without_a_store_is_in_doubt_and_comes_out_right() {
    for step in [Step::BeforeAppend, Step::AfterAppend] {
        for killed in [false, true] {
            let bucket = Bucket::open("memory://").unwrap();
            let root = tempfile::tempdir().unwrap();
            let mut dir = root.path().join("a");
            let down = Arc::new(AtomicUsize::new(0));
            let is_down = down.clone();
            let hook: Hook = Arc::new(move |at| {
                if is_down.load(Ordering::SeqCst) == 1 && at == step { Err(unreachable_store()) } else { Ok(()) }
            });
            let mut engine = open_hooked(&dir, &bucket, SyncMode::Commit, hook.clone());
            let mut volume = engine.volume(&name("v")).unwrap();
            write(&volume, &[(1, 1), (2, 2)]);
            down.store(1, Ordering::SeqCst);
            let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
            writer.write(page(1), &content(11)).unwrap();
            let doubt = writer.commit(true).map(|_| ()).unwrap_err();
            assert_eq!(doubt.kind(), ErrorKind::Unavailable);
            assert_eq!(volume.status().state, Condition::InDoubt);
            assert_eq!(read(&volume, 1), 1, "in doubt is not visible");
            let refused = volume.writer(&volume.snapshot(), "next").map(|_| ()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unavailable, "no write on top of a doubt");
            if killed {
                let copy = root.path().join("b");
                copy_dir(&dir, &copy);
                dir = copy;
                engine = open_hooked(&dir, &bucket, SyncMode::Commit, hook);
                volume = engine.volume(&name("v")).unwrap();
                assert_eq!((volume.status().state, read(&volume, 1)), (Condition::InDoubt, 1));
            }
            down.store(0, Ordering::SeqCst);
            volume.push().unwrap();
            assert_eq!(volume.status().state, Condition::Clean);
            assert_eq!(read(&volume, 1), 11, "{step:?}, killed: {killed}");
            write(&volume, &[(2, 22)]);
            let fresh = open(&root.path().join("fresh"), &bucket);
            let clone = fresh.existing(&name("v")).unwrap();
            assert_eq!((read(&clone, 1), read(&clone, 2)), (11, 22));
            drop(engine);
        }
    }
}
