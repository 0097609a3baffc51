//! The account of a segment, for the benchmarks (`benches/`): nobody else makes a segment without storing it.

use bytes::Bytes;
use quire_proto::{EncodedFrame, SegmentId, SegmentRef, VolumeName};

use crate::segment::SegmentBuilder;

/// See `SegmentBuilder`.
#[derive(Clone)]
pub struct Account(SegmentBuilder);

impl Account {
    /// Of a segment without frames.
    pub fn new(volume: &VolumeName, id: SegmentId) -> Account {
        Account(SegmentBuilder::new(volume, id).0)
    }

    /// As far as there is room, notes a frame. False if there is none.
    pub fn push(&mut self, frame: &EncodedFrame) -> bool {
        let has_room = self.0.has_room(frame);
        if has_room {
            self.0.push(frame);
        }
        has_room
    }

    /// The last bytes of the object, and what an index says of it.
    pub fn finish(self) -> (Bytes, SegmentRef) {
        let (end, segment, _) = self.0.finish();
        (end, segment)
    }
}
