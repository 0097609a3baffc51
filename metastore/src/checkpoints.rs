//! Checkpoints in the bucket: found by listing, newest first, and read in parts.

use std::ops::Range;

use bytes::Bytes;
use futures::TryStreamExt;
use quire_bucket::{Bucket, Key, keys};
use quire_proto::{CheckpointPlace, Error, ErrorKind, Result, VolumeName};

/// The newest checkpoint of those at or before a place.
pub(crate) async fn newest(
    bucket: &Bucket,
    volume: &VolumeName,
    at_most: Option<CheckpointPlace>,
) -> Result<Option<CheckpointPlace>> {
    let place = |e: Error| e.context(format_args!("looking for the newest checkpoint of volume {volume}"));
    let prefix = keys::checkpoints_prefix(volume);
    let newest = bucket.list_first(&prefix, 1).await.map_err(place)?;
    // Other names are passed over: a folder's file system has some of its own.
    let wanted = |key: &Key| keys::checkpoint_of(key).filter(|found| at_most.is_none_or(|at_most| *found <= at_most));
    let Some(newest) = newest.first() else { return Ok(None) };
    if let Some(newest) = wanted(&newest.key) {
        return Ok(Some(newest));
    }
    let mut listed = bucket.list(&prefix);
    while let Some(meta) = listed.try_next().await.map_err(place)? {
        if let Some(found) = wanted(&meta.key) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Bytes of a checkpoint.
pub(crate) async fn read(
    bucket: &Bucket,
    volume: &VolumeName,
    place: CheckpointPlace,
    range: Range<u64>,
) -> Result<Bytes> {
    let key = keys::checkpoint(volume, place);
    let read = if range.start == 0 {
        bucket.get_start(&key, range.end).await.map(|object| object.bytes)
    } else {
        bucket.get_ranges(&key, &[range]).await.map(|mut parts| parts.swap_remove(0))
    };
    read.map_err(|e| match e.kind() {
        ErrorKind::NotFound if e.remedy().is_none() => {
            Error::not_found(format!("volume {volume} has no checkpoint {key}"))
        }
        _ => e.context(format_args!("checkpoint {key}")),
    })
}

/// Writes a checkpoint. Another one of that place was made from the same commits.
pub(crate) async fn put(bucket: &Bucket, volume: &VolumeName, place: CheckpointPlace, object: Bytes) -> Result<()> {
    bucket.create(&keys::checkpoint(volume, place), object).await.map(|_| ())
}
