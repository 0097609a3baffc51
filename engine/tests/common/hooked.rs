//! Stores in front of others. A test's hook is asked before and after each call, where it may do something, or fail
//! the call: before it, nothing has happened; after it, only the reply is lost.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use quire_engine::{Lsn, Stores, VolumeName};
use quire_proto::{
    Appended, CheckpointPlace, CommitHeader, FrameAddress, FrameIndex, FrameStream, LogPart, Marker, Metastore, Opened,
    Pagestore, Result, SealedCommit, SegmentId, Statement, VolumeState,
};

/// What the stores are asked to do. Streams begin with no call of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Head,
    Open,
    Append,
    Commit,
    Headers,
    Tidy,
    Delete,
    Rename,
    Restore,
    AtTime,
    StoredTimes,
    Checkpoint,
    ReadCheckpoint,
    PutCheckpoint,
    Mark,
    Unmark,
    Statement,
    WriteSegments,
    ReadFrames,
    VerifySegment,
}

/// Where a call is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Before(Call),
    After(Call),
}

/// What a test does at each step. It may block, and use engines.
pub type Hook = Arc<dyn Fn(Step) -> Result<()> + Send + Sync>;

/// Both stores with a hook.
pub fn hooked(stores: Stores, hook: Hook) -> Stores {
    let traffic = stores.traffic.clone();
    let hooked = Arc::new(Hooked { metastore: stores.metastore, pagestore: stores.pagestore, hook });
    Stores { metastore: hooked.clone(), pagestore: hooked, traffic }
}

struct Hooked {
    metastore: Arc<dyn Metastore>,
    pagestore: Arc<dyn Pagestore>,
    hook: Hook,
}

impl Hooked {
    async fn ask(&self, step: Step) -> Result<()> {
        let hook = self.hook.clone();
        tokio::task::spawn_blocking(move || hook(step)).await.unwrap()
    }

    async fn around<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.ask(Step::Before(call)).await?;
        let done = work.await?;
        self.ask(Step::After(call)).await?;
        Ok(done)
    }
}

#[async_trait]
impl Metastore for Hooked {
    async fn head(&self, volume: &VolumeName) -> Result<VolumeState> {
        self.around(Call::Head, self.metastore.head(volume)).await
    }
    async fn append(&self, volume: &VolumeName, commit: &SealedCommit) -> Result<Appended> {
        self.around(Call::Append, self.metastore.append(volume, commit)).await
    }
    async fn commit(&self, volume: &VolumeName, lsn: Lsn) -> Result<SealedCommit> {
        self.around(Call::Commit, self.metastore.commit(volume, lsn)).await
    }
    async fn header(&self, volume: &VolumeName, lsn: Lsn) -> Result<CommitHeader> {
        self.around(Call::Headers, self.metastore.header(volume, lsn)).await
    }
    async fn open(&self, volume: &VolumeName, known: Option<Lsn>) -> Result<Opened> {
        self.around(Call::Open, self.metastore.open(volume, known)).await
    }
    async fn log(&self, volume: &VolumeName, first: Lsn, last: &CommitHeader) -> Result<LogPart> {
        self.around(Call::Headers, self.metastore.log(volume, first, last)).await
    }
    fn watch(&self, volume: &VolumeName, after: Option<Lsn>) -> BoxStream<'static, Result<SealedCommit>> {
        self.metastore.watch(volume, after)
    }
    fn volumes(&self, prefix: &str) -> BoxStream<'static, Result<VolumeName>> {
        self.metastore.volumes(prefix)
    }
    async fn tidy(&self, volume: &VolumeName, head: &CommitHeader) -> Result<()> {
        self.around(Call::Tidy, self.metastore.tidy(volume, head)).await
    }
    async fn delete(&self, volume: &VolumeName, expected: Lsn, author: &str) -> Result<SealedCommit> {
        self.around(Call::Delete, self.metastore.delete(volume, expected, author)).await
    }
    async fn rename(&self, volume: &VolumeName, new: &VolumeName, author: &str) -> Result<SealedCommit> {
        self.around(Call::Rename, self.metastore.rename(volume, new, author)).await
    }
    async fn restore(&self, volume: &VolumeName, lsn: Lsn, expected: Lsn, author: &str) -> Result<SealedCommit> {
        self.around(Call::Restore, self.metastore.restore(volume, lsn, expected, author)).await
    }
    async fn at_time(&self, volume: &VolumeName, time_ms: u64) -> Result<Option<Lsn>> {
        self.around(Call::AtTime, self.metastore.at_time(volume, time_ms)).await
    }
    async fn stored_times(&self, volume: &VolumeName, first: Lsn, last: Lsn) -> Result<BTreeMap<Lsn, u64>> {
        self.around(Call::StoredTimes, self.metastore.stored_times(volume, first, last)).await
    }
    async fn checkpoint(
        &self,
        volume: &VolumeName,
        at_most: Option<CheckpointPlace>,
    ) -> Result<Option<CheckpointPlace>> {
        self.around(Call::Checkpoint, self.metastore.checkpoint(volume, at_most)).await
    }
    async fn read_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace, range: Range<u64>) -> Result<Bytes> {
        self.around(Call::ReadCheckpoint, self.metastore.read_checkpoint(volume, place, range)).await
    }
    async fn put_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace, object: Bytes) -> Result<()> {
        self.around(Call::PutCheckpoint, self.metastore.put_checkpoint(volume, place, object)).await
    }
    async fn mark(&self, marker: &Marker) -> Result<()> {
        self.around(Call::Mark, self.metastore.mark(marker)).await
    }
    async fn unmark(&self, marker: &Marker) -> Result<()> {
        self.around(Call::Unmark, self.metastore.unmark(marker)).await
    }
    async fn statement(&self, volume: &VolumeName) -> Result<Statement> {
        self.around(Call::Statement, self.metastore.statement(volume)).await
    }
}

#[async_trait]
impl Pagestore for Hooked {
    async fn write(&self, volume: &VolumeName, target: Lsn, frames: FrameStream<'_>) -> Result<FrameIndex> {
        self.around(Call::WriteSegments, self.pagestore.write(volume, target, frames)).await
    }
    async fn read(&self, volume: &VolumeName, frames: &[FrameAddress]) -> Result<Vec<Bytes>> {
        self.around(Call::ReadFrames, self.pagestore.read(volume, frames)).await
    }
    async fn verify(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> Result<()> {
        self.around(Call::VerifySegment, self.pagestore.verify(volume, segment, len_bytes)).await
    }
    fn scan(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> BoxStream<'static, Result<Bytes>> {
        self.pagestore.scan(volume, segment, len_bytes)
    }
}
