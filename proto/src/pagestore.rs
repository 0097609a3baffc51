//! The trait of whatever keeps pages.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{EncodedFrame, FrameIndex, Lsn, Result, SegmentId, VolumeName};

/// Frames on their way to the store, in page order.
pub type FrameStream<'a> = BoxStream<'a, Result<EncodedFrame>>;

/// One frame in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameAddress {
    /// The segment that holds it.
    pub segment: SegmentId,
    /// Where it begins there, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len_bytes: u32,
}

/// Keeps immutable segments of pages. Every method may be retried safely.
#[async_trait]
pub trait Pagestore: Send + Sync + 'static {
    /// Streams frames into as many segments as they need, in bounded memory.
    /// Returns once all of them are durable and complete. The segments are
    /// named for `target`, the LSN that the caller wants to make.
    async fn write(&self, volume: &VolumeName, target: Lsn, frames: FrameStream<'_>) -> Result<FrameIndex>;

    /// The bytes of some frames of a volume, in the order asked for, their
    /// checksums verified. Neighbours in one segment are fetched together, and
    /// different ones at the same time.
    async fn read(&self, volume: &VolumeName, frames: &[FrameAddress]) -> Result<Vec<Bytes>>;

    /// Checks that a segment is there with this length, without reading it.
    async fn verify(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> Result<()>;

    /// The bytes of a segment from the first to the last, in pieces, which are fetched as they are taken: memory does
    /// not grow with the segment. They are as they lie in the store, unchecked, for whoever verifies them. A segment
    /// of another length gives what it has of them, then a `Corrupt` error.
    fn scan(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> BoxStream<'static, Result<Bytes>>;
}
