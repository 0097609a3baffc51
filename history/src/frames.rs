//! The frames of snapshots, from the store: out of segments, or out of the commits that carry them.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use quire_proto::{
    CommitHash, DecodedFrame, Error, FrameAddress, FrameLocation, FrameObject, Result, VolumeName, decode_frame,
};

use crate::{COMMITS_AT_ONCE, Located, Reader};

/// Fetches and decodes frames, all at once, in the order asked for.
pub async fn fetch_frames(reader: &Reader, wanted: &[Located]) -> Result<Vec<DecodedFrame>> {
    let mut bytes: Vec<Option<Bytes>> = vec![None; wanted.len()];
    let mut segments: BTreeMap<VolumeName, Vec<(usize, FrameAddress)>> = BTreeMap::new();
    let mut inline = Vec::new();
    for (n, Located { volume, frame, commit }) in wanted.iter().enumerate() {
        match frame.object {
            FrameObject::Commit => {
                inline.push(async move { Ok::<_, Error>((n, inline_frame(reader, volume, frame, *commit).await?)) })
            }
            FrameObject::Segment(segment) => {
                let address = FrameAddress { segment, offset: frame.offset, len_bytes: frame.len_bytes };
                segments.entry(volume.clone()).or_default().push((n, address));
            }
        }
    }
    let mut inline = futures::stream::iter(inline).buffered(COMMITS_AT_ONCE);
    while let Some((n, frame)) = inline.try_next().await? {
        bytes[n] = Some(frame);
    }
    for (volume, frames) in segments {
        let addresses: Vec<FrameAddress> = frames.iter().map(|(_, a)| *a).collect();
        let read = reader.pagestore.read(&volume, &addresses).await?;
        for ((n, _), frame) in frames.into_iter().zip(read) {
            bytes[n] = Some(frame);
        }
    }
    let mut decoded = Vec::with_capacity(wanted.len());
    for (Located { volume, frame, .. }, bytes) in wanted.iter().zip(bytes) {
        let bytes = bytes.ok_or_else(|| Error::corrupt("the store answered with fewer frames than asked for"))?;
        decoded.push(decode_frame(&bytes, frame.page_count).map_err(|e| {
            e.context(format!("volume {volume}, commit {}, frame at offset {}", frame.owner, frame.offset))
        })?);
    }
    Ok(decoded)
}

/// A frame that a commit carries itself.
async fn inline_frame(
    reader: &Reader,
    volume: &VolumeName,
    frame: &FrameLocation,
    hash: Option<CommitHash>,
) -> Result<Bytes> {
    let commit = match hash {
        Some(hash) => reader.commit_of_log(volume, (frame.owner, hash)).await?,
        None => reader.commit(volume, frame.owner).await?,
    };
    let inline = &commit.body().inline;
    let range =
        usize::try_from(frame.offset).ok().and_then(|from| Some(from..from.checked_add(frame.len_bytes as usize)?));
    match range.filter(|range| range.end <= inline.len()) {
        Some(range) => Ok(inline.slice(range)),
        None => Err(Error::corrupt(format!("volume {volume}: commit {} has no such frame", frame.owner))),
    }
}
