//! The pagestore inside the client's own process, straight on a bucket.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use quire_bucket::{Bucket, keys};
use quire_proto::{
    Error, ErrorKind, FrameAddress, FrameIndex, FrameStream, Lsn, Pagestore, Result, SegmentId, VolumeName,
};

use crate::{read, scan, write};

/// A pagestore on a bucket. It keeps no state of its own, so that any number
/// of them may work on one bucket. Cheap to clone.
#[derive(Clone)]
pub struct Embedded {
    pub(crate) bucket: Bucket,
}

impl Embedded {
    /// A pagestore whose segments lie in `bucket`.
    pub fn new(bucket: Bucket) -> Embedded {
        Embedded { bucket }
    }
}

#[async_trait]
impl Pagestore for Embedded {
    async fn write(&self, volume: &VolumeName, target: Lsn, frames: FrameStream<'_>) -> Result<FrameIndex> {
        write::write(&self.bucket, volume, &|| SegmentId::random(target), frames).await
    }

    async fn read(&self, volume: &VolumeName, frames: &[FrameAddress]) -> Result<Vec<Bytes>> {
        read::read(&self.bucket, volume, frames).await
    }

    async fn verify(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> Result<()> {
        let key = keys::segment(volume, segment);
        let meta = self.bucket.head(&key).await.map_err(|e| locate(e, &key))?;
        if meta.len_bytes == len_bytes { Ok(()) } else { Err(wrong_length(&key, meta.len_bytes, len_bytes)) }
    }

    fn scan(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> BoxStream<'static, Result<Bytes>> {
        scan::scan(self.bucket.clone(), keys::segment(volume, segment), len_bytes)
    }
}

/// A segment has another length than its commit says.
pub(crate) fn wrong_length(key: &quire_bucket::Key, found: u64, said: u64) -> Error {
    damaged(Error::corrupt(format!("segment {key}: {found} bytes where {said} belong")))
}

/// Says in which segment an error happened, and what a missing one means.
pub(crate) fn locate(error: Error, key: &quire_bucket::Key) -> Error {
    match error.kind() {
        // One with a remedy is about more than this segment: there is no store.
        ErrorKind::NotFound if error.remedy().is_none() => {
            Error::not_found(format!("segment {key} is not in the store"))
                .with_remedy("History may have been collected: open the volume at its newest LSN.")
                .with_source(error)
        }
        ErrorKind::Corrupt => damaged(error.context(format_args!("segment {key}"))),
        _ => error.context(format_args!("segment {key}")),
    }
}

/// Adds the way on from damaged pages.
pub(crate) fn damaged(error: Error) -> Error {
    error.with_remedy(
        "Run `quire verify NAME --deep` to see all that is damaged; a replica that has the pages cached can export them.",
    )
}
