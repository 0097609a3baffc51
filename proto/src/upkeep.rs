//! What the upkeep of a store needs beyond the traits that clients use: lists
//! of what is there, and the few methods that let something go. Only
//! `quire-maintenance` calls them, by the rules of collection.

use async_trait::async_trait;
use futures::stream::BoxStream;
use ulid::Ulid;

use crate::{
    CheckpointPlace, FrameIndex, FrameStream, Lsn, Marker, Metastore, Pagestore, Result, Retention, SegmentId,
    Statement, VolumeName,
};

/// A statement with its place in the chain.
#[derive(Clone, Debug)]
pub struct Stated {
    /// Its number, from 1.
    pub number: u64,
    /// When the store got it, by its own clock, in milliseconds since 1970.
    pub stored_ms: u64,
    /// What it says.
    pub statement: Statement,
}

/// A marker with its place.
#[derive(Debug)]
pub struct Marked {
    /// The LSN beside which it lies.
    pub lsn: Lsn,
    /// Its own name.
    pub ulid: Ulid,
    /// When the store got it, by its own clock, in milliseconds since 1970.
    pub stored_ms: u64,
    /// What it says; an error if it is damaged, or of a newer version.
    pub marker: Result<Marker>,
}

/// The upkeep of logs.
#[async_trait]
pub trait LogUpkeep: Metastore {
    /// The time of the store's own clock, in milliseconds since 1970: that of an object which is written for it.
    async fn clock_ms(&self, volume: &VolumeName) -> Result<u64>;

    /// What its owner wants kept of a volume, and how often he has said so.
    async fn retention(&self, volume: &VolumeName) -> Result<(u64, Retention)>;

    /// Says what to keep, as word number `number`; `false` if somebody else had that one.
    async fn retain(&self, volume: &VolumeName, number: u64, retention: &Retention) -> Result<bool>;

    /// The statements of a volume, newest first.
    fn statements(&self, volume: &VolumeName) -> BoxStream<'static, Result<Stated>>;

    /// Publishes a statement; `false` if somebody else has that number.
    async fn state(&self, volume: &VolumeName, number: u64, statement: &Statement) -> Result<bool>;

    /// The markers on snapshots of a volume.
    fn markers(&self, volume: &VolumeName) -> BoxStream<'static, Result<Marked>>;

    /// Removes a marker that holds nothing any more.
    async fn drop_marker(&self, volume: &VolumeName, lsn: Lsn, ulid: Ulid) -> Result<()>;

    /// All checkpoints of a volume with their lengths in bytes, newest first.
    fn checkpoints(&self, volume: &VolumeName) -> BoxStream<'static, Result<(CheckpointPlace, u64)>>;

    /// Deletes a checkpoint.
    async fn drop_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace) -> Result<()>;

    /// Removes what writes have left in the volume's place that were cut off before `before_ms`, by the store's own clock,
    /// in milliseconds since 1970. Nothing where somebody else does it: behind a server, in a bucket.
    async fn drop_unfinished(&self, _volume: &VolumeName, _before_ms: u64) -> Result<()> {
        Ok(())
    }

    /// Puts a stub in the place of a commit with a body. Returns how many bytes that saved; none if nothing was to be saved.
    async fn stub(&self, volume: &VolumeName, lsn: Lsn) -> Result<u64>;
}

/// The upkeep of pages.
#[async_trait]
pub trait PageUpkeep: Pagestore {
    /// As [`write`](Pagestore::write), for a compaction that wants to make the checkpoint `place`.
    async fn rewrite(&self, volume: &VolumeName, place: CheckpointPlace, frames: FrameStream<'_>)
    -> Result<FrameIndex>;

    /// All segments of a volume with their lengths in bytes.
    fn segments(&self, volume: &VolumeName) -> BoxStream<'static, Result<(SegmentId, u64)>>;

    /// Deletes a segment.
    async fn drop_segment(&self, volume: &VolumeName, segment: SegmentId) -> Result<()>;
}
