//! The metastore inside the client's own process, straight on a bucket.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use quire_bucket::Bucket;
use quire_proto::{
    Appended, CheckpointPlace, CommitHeader, ErrorKind, LogPart, Lsn, Marker, Metastore, Opened, Result, SealedCommit,
    Statement, VolumeName, VolumeState,
};

use crate::tips::Tips;
use crate::{
    append, checkpoints, delete, headers, log, marks, moments, open, rename, restore, rollups, state, statements,
    volumes, watch,
};

/// What can be set on an [`Embedded`] metastore.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a watcher waits between two looks for the next commit.
    pub poll_interval: Duration,
    /// The clock for the informative time of the commits that the metastore
    /// makes itself: milliseconds since 1970 UTC.
    pub now_ms: fn() -> u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { poll_interval: Duration::from_secs(1), now_ms: system_now_ms }
    }
}

fn system_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A metastore on a bucket. Cheap to clone.
#[derive(Clone)]
pub struct Embedded {
    pub(crate) bucket: Bucket,
    pub(crate) tips: Arc<Tips>,
    pub(crate) options: Options,
}

impl Embedded {
    /// A metastore whose logs lie in `bucket`.
    pub fn new(bucket: Bucket, options: Options) -> Embedded {
        Embedded { bucket, tips: Arc::default(), options }
    }

    /// What a name stands for, whose newest LSN was `newest` a moment ago.
    pub(crate) async fn state(&self, volume: &VolumeName, mut newest: Option<Lsn>) -> Result<VolumeState> {
        let state = loop {
            let head = match newest {
                Some(lsn) => log::read(&self.bucket, volume, lsn).await,
                None => break VolumeState::Free { next: Lsn::FIRST, head: None },
            };
            match head {
                Ok(head) => break state::of(&self.bucket, volume, head).await?,
                // It is not the newest any more, and was collected.
                Err(e) if e.kind() == ErrorKind::Gone => {
                    let before = newest;
                    newest = log::newest(&self.bucket, volume).await?;
                    if newest <= before {
                        return Err(e);
                    }
                }
                Err(e) => return Err(e),
            }
        };
        self.tips.learn(volume, &state);
        Ok(state)
    }
}

#[async_trait]
impl Metastore for Embedded {
    async fn head(&self, volume: &VolumeName) -> Result<VolumeState> {
        let newest = log::newest(&self.bucket, volume).await?;
        self.state(volume, newest).await
    }

    async fn open(&self, volume: &VolumeName, known: Option<Lsn>) -> Result<Opened> {
        open::open(self, volume, known).await
    }

    async fn append(&self, volume: &VolumeName, commit: &SealedCommit) -> Result<Appended> {
        append::append(self, volume, commit).await
    }

    async fn commit(&self, volume: &VolumeName, lsn: Lsn) -> Result<SealedCommit> {
        log::read(&self.bucket, volume, lsn).await
    }

    async fn header(&self, volume: &VolumeName, lsn: Lsn) -> Result<CommitHeader> {
        log::read_front(&self.bucket, volume, lsn).await.map(|front| front.header)
    }

    async fn log(&self, volume: &VolumeName, first: Lsn, last: &CommitHeader) -> Result<LogPart> {
        headers::log(&self.bucket, volume, first, last).await
    }

    fn watch(&self, volume: &VolumeName, after: Option<Lsn>) -> BoxStream<'static, Result<SealedCommit>> {
        watch::watch(self.bucket.clone(), volume.clone(), after, self.options.poll_interval)
    }

    fn volumes(&self, prefix: &str) -> BoxStream<'static, Result<VolumeName>> {
        volumes::volumes(self.bucket.clone(), prefix.to_owned())
    }

    async fn tidy(&self, volume: &VolumeName, head: &CommitHeader) -> Result<()> {
        rollups::tidy(&self.bucket, volume, head.lsn).await
    }

    async fn delete(&self, volume: &VolumeName, expected: Lsn, author: &str) -> Result<SealedCommit> {
        delete::delete(self, volume, expected, author).await
    }

    async fn rename(&self, volume: &VolumeName, new: &VolumeName, author: &str) -> Result<SealedCommit> {
        rename::rename(self, volume, new, author).await
    }

    async fn restore(&self, volume: &VolumeName, lsn: Lsn, expected: Lsn, author: &str) -> Result<SealedCommit> {
        restore::restore(self, volume, lsn, expected, author).await
    }

    async fn at_time(&self, volume: &VolumeName, time_ms: u64) -> Result<Option<Lsn>> {
        moments::at_time(&self.bucket, volume, time_ms).await
    }

    async fn stored_times(&self, volume: &VolumeName, first: Lsn, last: Lsn) -> Result<BTreeMap<Lsn, u64>> {
        moments::stored_times(&self.bucket, volume, first, last).await
    }

    async fn checkpoint(
        &self,
        volume: &VolumeName,
        at_most: Option<CheckpointPlace>,
    ) -> Result<Option<CheckpointPlace>> {
        checkpoints::newest(&self.bucket, volume, at_most).await
    }

    async fn read_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace, range: Range<u64>) -> Result<Bytes> {
        checkpoints::read(&self.bucket, volume, place, range).await
    }

    async fn put_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace, object: Bytes) -> Result<()> {
        checkpoints::put(&self.bucket, volume, place, object).await
    }

    async fn mark(&self, marker: &Marker) -> Result<()> {
        marks::mark(&self.bucket, marker).await
    }

    async fn unmark(&self, marker: &Marker) -> Result<()> {
        marks::unmark(&self.bucket, marker).await
    }

    async fn statement(&self, volume: &VolumeName) -> Result<Statement> {
        statements::newest(&self.bucket, volume).await
    }
}
