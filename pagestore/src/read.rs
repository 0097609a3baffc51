//! Reading frames by address: one object's frames together, different objects
//! at the same time.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use quire_bucket::{Bucket, keys};
use quire_proto::{Error, FrameAddress, MAX_STORED_FRAME_BYTES, Result, SegmentId, VolumeName, check_frame};

use crate::embedded::{damaged, locate};

/// How many segments are read at the same time; the bucket bounds the requests to each.
const SEGMENTS_AT_ONCE: usize = 16;

pub(crate) async fn read(bucket: &Bucket, volume: &VolumeName, frames: &[FrameAddress]) -> Result<Vec<Bytes>> {
    let mut segments: BTreeMap<SegmentId, Vec<usize>> = BTreeMap::new();
    for (position, frame) in frames.iter().enumerate() {
        segments.entry(frame.segment).or_default().push(position);
    }
    let mut answers = vec![Bytes::new(); frames.len()];
    let reads = segments.into_iter();
    let reads = reads.map(|(segment, positions)| read_segment(bucket, volume, segment, positions, frames));
    let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(SEGMENTS_AT_ONCE);
    while let Some((positions, found)) = reads.try_next().await? {
        for (position, bytes) in positions.into_iter().zip(found) {
            answers[position] = bytes;
        }
    }
    Ok(answers)
}

async fn read_segment(
    bucket: &Bucket,
    volume: &VolumeName,
    segment: SegmentId,
    positions: Vec<usize>,
    frames: &[FrameAddress],
) -> Result<(Vec<usize>, Vec<Bytes>)> {
    let key = keys::segment(volume, segment);
    let ranges = positions.iter().map(|&p| range(&frames[p])).collect::<Result<Vec<_>>>()?;
    let found = bucket.get_ranges(&key, &ranges).await.map_err(|e| locate(e, &key))?;
    for (range, bytes) in ranges.iter().zip(&found) {
        check_frame(bytes).map_err(|e| damaged(e.context(format_args!("segment {key}, offset {}", range.start))))?;
    }
    Ok((positions, found))
}

fn range(frame: &FrameAddress) -> Result<Range<u64>> {
    match frame.offset.checked_add(u64::from(frame.len_bytes)) {
        // Nobody may make the reader hold gigabytes.
        Some(end) if end > frame.offset && frame.len_bytes as usize <= MAX_STORED_FRAME_BYTES => Ok(frame.offset..end),
        _ => Err(Error::invalid(format!(
            "a frame of {} bytes at offset {} of segment {} cannot be",
            frame.len_bytes, frame.offset, frame.segment
        ))),
    }
}
