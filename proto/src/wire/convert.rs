//! Between the messages and the crate's own nouns. What comes over the wire is checked here.

use bytes::Bytes;
use ulid::Ulid;

use super::generated as wire;
use crate::{
    CheckpointPlace, EncodedFrame, Error, FrameAddress, FrameIndex, FramePlace, Lsn, ObjectHash, PageIdx, Result,
    SegmentId, SegmentRef,
};

/// A field without which a message means nothing.
pub fn required<T>(field: Option<T>, name: &str) -> Result<T> {
    field.ok_or_else(|| Error::invalid(format!("the message lacks its field `{name}`")))
}

/// The place that a message names.
pub fn place_of(place: Option<wire::CheckpointPlace>) -> Result<CheckpointPlace> {
    required(place, "place")?.try_into()
}

impl From<CheckpointPlace> for wire::CheckpointPlace {
    fn from(place: CheckpointPlace) -> Self {
        wire::CheckpointPlace { lsn: place.lsn.get(), generation: place.generation }
    }
}

impl TryFrom<wire::CheckpointPlace> for CheckpointPlace {
    type Error = Error;
    fn try_from(place: wire::CheckpointPlace) -> Result<Self> {
        Ok(CheckpointPlace { lsn: Lsn::try_new(place.lsn)?, generation: place.generation })
    }
}

impl From<SegmentId> for wire::SegmentId {
    fn from(id: SegmentId) -> Self {
        wire::SegmentId {
            target_lsn: id.target.get(),
            ulid: Bytes::copy_from_slice(&id.ulid.to_bytes()),
            generation: id.generation,
        }
    }
}

impl TryFrom<wire::SegmentId> for SegmentId {
    type Error = Error;
    fn try_from(id: wire::SegmentId) -> Result<Self> {
        let ulid = ulid(&id.ulid)?;
        Ok(SegmentId { target: Lsn::try_new(id.target_lsn)?, generation: id.generation, ulid })
    }
}

/// Sixteen bytes.
fn ulid(bytes: &[u8]) -> Result<Ulid> {
    let bytes = bytes.try_into().map_err(|_| Error::invalid(format!("{} bytes where a ULID has 16", bytes.len())))?;
    Ok(Ulid::from_bytes(bytes))
}

impl wire::DropMarkerRequest {
    /// Its name.
    pub fn name(&self) -> Result<Ulid> {
        ulid(&self.ulid)
    }
}

impl wire::MarkedObject {
    /// Its name.
    pub fn name(&self) -> Result<Ulid> {
        ulid(&self.ulid)
    }
}

impl From<EncodedFrame> for wire::Frame {
    fn from(frame: EncodedFrame) -> Self {
        wire::Frame { first_page: frame.first.get(), page_count: frame.page_count, data: frame.bytes }
    }
}

impl TryFrom<wire::Frame> for EncodedFrame {
    type Error = Error;
    fn try_from(frame: wire::Frame) -> Result<Self> {
        Ok(EncodedFrame { first: page(frame.first_page)?, page_count: frame.page_count, bytes: frame.data })
    }
}

fn page(n: u32) -> Result<PageIdx> {
    PageIdx::new(n).ok_or_else(|| Error::invalid("there is no page 0"))
}

impl From<&FrameAddress> for wire::FrameAddress {
    fn from(frame: &FrameAddress) -> Self {
        wire::FrameAddress { segment: Some(frame.segment.into()), offset: frame.offset, len_bytes: frame.len_bytes }
    }
}

impl TryFrom<wire::FrameAddress> for FrameAddress {
    type Error = Error;
    fn try_from(frame: wire::FrameAddress) -> Result<Self> {
        let segment = required(frame.segment, "segment")?.try_into()?;
        Ok(FrameAddress { segment, offset: frame.offset, len_bytes: frame.len_bytes })
    }
}

impl From<&FrameIndex> for wire::WriteFramesResponse {
    /// Of an index without inline frames.
    fn from(index: &FrameIndex) -> Self {
        let segment = |(n, segment): (u32, &SegmentRef)| wire::WrittenSegment {
            segment: Some(segment.id.into()),
            len_bytes: segment.len_bytes,
            hash: Bytes::copy_from_slice(segment.hash.as_bytes()),
            frames: index
                .frames()
                .iter()
                .filter(|frame| frame.place == FramePlace::Segment(n))
                .map(|frame| wire::WrittenFrame {
                    first_page: frame.first.get(),
                    page_count: frame.page_count,
                    offset: frame.offset,
                    len_bytes: frame.len_bytes,
                })
                .collect(),
        };
        wire::WriteFramesResponse { segments: (0..).zip(index.segments()).map(segment).collect() }
    }
}

impl TryFrom<wire::WriteFramesResponse> for FrameIndex {
    type Error = Error;
    fn try_from(written: wire::WriteFramesResponse) -> Result<Self> {
        let mut index = FrameIndex::default();
        for segment in written.segments {
            let id = required(segment.segment, "segment")?.try_into()?;
            let hash: [u8; ObjectHash::LEN] = segment.hash.as_ref().try_into().map_err(|_| {
                Error::invalid(format!("{} bytes where a hash has {}", segment.hash.len(), ObjectHash::LEN))
            })?;
            let frames = segment
                .frames
                .iter()
                .map(|frame| Ok((page(frame.first_page)?, frame.page_count, frame.offset, frame.len_bytes)))
                .collect::<Result<Vec<_>>>()?;
            let segment = SegmentRef { id, len_bytes: segment.len_bytes, hash: ObjectHash::new(hash) };
            index.push_segment(segment, frames);
        }
        Ok(index)
    }
}
