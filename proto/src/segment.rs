//! Where a commit's pages lie: its segments, and the index of its frames.

use bytes::Bytes;

use crate::{ObjectHash, PageIdx, Reader, Result, SegmentId, Writer};

/// One immutable object that holds frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRef {
    /// Its name.
    pub id: SegmentId,
    /// Its length in the store, in bytes.
    pub len_bytes: u64,
    /// BLAKE3 of its bytes, for deep verification.
    pub hash: ObjectHash,
}

/// Which object holds a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramePlace {
    /// The commit object itself carries it; offsets count from the start of
    /// its inline frames.
    Inline,
    /// The segment with this position in [`FrameIndex::segments`].
    Segment(u32),
}

/// One frame of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// The lowest page in it.
    pub first: PageIdx,
    /// How many pages it holds.
    pub page_count: u32,
    /// Which object holds it.
    pub place: FramePlace,
    /// Where it begins there, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len_bytes: u32,
}

/// The frames of one commit in page order. A page that the commit owns lies in
/// the last frame that begins at or before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameIndex {
    segments: Vec<SegmentRef>,
    frames: Vec<FrameRef>,
}

impl FrameIndex {
    /// An index of frames carried inline, from (first page, pages, bytes) of
    /// each in order.
    pub fn inline(frames: impl IntoIterator<Item = (PageIdx, u32, u32)>) -> FrameIndex {
        let mut offset = 0;
        let frames = frames.into_iter().map(|(first, page_count, len_bytes)| {
            let frame = FrameRef { first, page_count, place: FramePlace::Inline, offset, len_bytes };
            offset += u64::from(len_bytes);
            frame
        });
        FrameIndex { segments: Vec::new(), frames: frames.collect() }
    }

    /// Adds a segment whose frames, given in order as (first page, pages, offset, bytes),
    /// come after all frames so far.
    pub fn push_segment(&mut self, segment: SegmentRef, frames: impl IntoIterator<Item = (PageIdx, u32, u64, u32)>) {
        let place = FramePlace::Segment(self.segments.len() as u32);
        self.segments.push(segment);
        self.frames.extend(frames.into_iter().map(|(first, page_count, offset, len_bytes)| FrameRef {
            first,
            page_count,
            place,
            offset,
            len_bytes,
        }));
        debug_assert!(self.frames.is_sorted_by(|a, b| a.first < b.first), "frames come in page order");
    }

    /// Adds an index of segments whose frames come after all frames so far.
    /// Panics if both refer to segments.
    pub fn append(&mut self, other: FrameIndex) {
        assert!(self.segments.is_empty() && other.inline_bytes() == 0, "inline frames first, then those in segments");
        self.segments = other.segments;
        self.frames.extend(other.frames);
        debug_assert!(self.frames.is_sorted_by(|a, b| a.first < b.first), "frames come in page order");
    }

    /// The segments, in the order in which frames refer to them.
    pub fn segments(&self) -> &[SegmentRef] {
        &self.segments
    }

    /// The frames in page order.
    pub fn frames(&self) -> &[FrameRef] {
        &self.frames
    }

    /// The position in [`frames`](Self::frames) of the frame that holds
    /// `page`, if the commit owns that page.
    pub fn position(&self, page: PageIdx) -> Option<usize> {
        self.frames.partition_point(|f| f.first <= page).checked_sub(1)
    }

    /// The bytes that the segments occupy in the store.
    pub fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.len_bytes).sum()
    }

    /// The bytes of the inline frames.
    pub fn inline_bytes(&self) -> u64 {
        let inline = self.frames.iter().filter(|f| f.place == FramePlace::Inline);
        inline.map(|f| u64::from(f.len_bytes)).sum()
    }

    /// Appends the index to `w` as `FORMAT.md` says.
    pub fn encode(&self, w: &mut Writer) {
        w.varint(self.segments.len() as u64);
        for segment in &self.segments {
            segment.id.encode_pushed(w);
            w.varint(segment.len_bytes);
            w.bytes(segment.hash.as_bytes());
        }
        w.varint(self.frames.len() as u64);
        let mut next: u64 = 1;
        let mut place = FramePlace::Inline;
        let mut end = 0;
        for frame in &self.frames {
            w.varint(u64::from(frame.first.get()) - next);
            w.varint(u64::from(frame.page_count));
            w.varint(u64::from(frame.len_bytes));
            // Frames usually follow each other in one object: 0 says so.
            if frame.place == place && frame.offset == end {
                w.varint(0);
            } else {
                w.varint(match frame.place {
                    FramePlace::Inline => 1,
                    FramePlace::Segment(n) => u64::from(n) + 2,
                });
                w.varint(frame.offset);
            }
            next = u64::from(frame.first.get()) + 1;
            place = frame.place;
            end = frame.offset + u64::from(frame.len_bytes);
        }
    }

    /// Reads an index and checks that every frame lies inside its object.
    /// `inline_bytes` is the length of the commit's inline frames.
    pub fn decode(r: &mut Reader<'_>, inline_bytes: u64) -> Result<FrameIndex> {
        let n = r.count(1 + 16 + 1 + ObjectHash::LEN)?;
        let mut segments = Vec::with_capacity(n);
        let mut total: u64 = 0;
        for _ in 0..n {
            let id = SegmentId::decode_pushed(r)?;
            let len_bytes = r.varint()?;
            let hash = ObjectHash::new(r.array()?);
            total = total.checked_add(len_bytes).ok_or_else(|| r.corrupt("segments that no store holds"))?;
            segments.push(SegmentRef { id, len_bytes, hash });
        }
        let n = r.count(4)?;
        if n == 0 && !segments.is_empty() {
            return Err(r.corrupt("segments without a frame"));
        }
        let mut frames: Vec<FrameRef> = Vec::with_capacity(n);
        let mut next: u64 = 1;
        let mut place = FramePlace::Inline;
        let mut end = 0;
        for _ in 0..n {
            let first = next.checked_add(r.varint()?).and_then(|n| u32::try_from(n).ok()).and_then(PageIdx::new);
            let first = first.ok_or_else(|| r.corrupt("a frame begins past the last page number"))?;
            let page_count = r.varint32()?;
            let len_bytes = r.varint32()?;
            match r.varint()? {
                0 => {}
                1 => (place, end) = (FramePlace::Inline, r.varint()?),
                n => {
                    let n = u32::try_from(n - 2).map_err(|_| r.corrupt("a frame in a segment that is not there"))?;
                    (place, end) = (FramePlace::Segment(n), r.varint()?);
                }
            }
            let offset = end;
            end = offset.checked_add(u64::from(len_bytes)).ok_or_else(|| r.corrupt("a frame without end"))?;
            let room = match place {
                FramePlace::Inline => inline_bytes,
                FramePlace::Segment(n) => match segments.get(n as usize) {
                    Some(segment) => segment.len_bytes,
                    None => return Err(r.corrupt("a frame in a segment that is not there")),
                },
            };
            if end > room || page_count == 0 {
                return Err(r.corrupt(format_args!("the frame of page {first} does not fit its object")));
            }
            frames.push(FrameRef { first, page_count, place, offset, len_bytes });
            next = u64::from(first.get()) + 1;
        }
        Ok(FrameIndex { segments, frames })
    }
}

/// The bytes of one inline frame.
pub(crate) fn inline_frame(inline: &Bytes, frame: &FrameRef) -> Bytes {
    let start = frame.offset as usize;
    inline.slice(start..start + frame.len_bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lsn;
    use proptest::prelude::*;
    use ulid::Ulid;

    const INLINE_BYTES: u64 = 40 * 100;

    /// Frames in page order, each in some object and at any offset there.
    fn any_index() -> impl Strategy<Value = FrameIndex> {
        let frame = (1u32..50, 0usize..4, 0u64..1000, 1u32..100);
        proptest::collection::btree_map(1u32.., frame, 1..40).prop_map(|frames| {
            let segment = |n: u8| SegmentRef {
                id: SegmentId { target: Lsn::FIRST, generation: 0, ulid: Ulid::from_bytes([n; 16]) },
                len_bytes: 5000,
                hash: ObjectHash::of(&[n]),
            };
            let frames = frames.into_iter().map(|(first, (page_count, place, offset, len_bytes))| FrameRef {
                first: PageIdx::new(first).unwrap(),
                page_count,
                place: if place == 0 { FramePlace::Inline } else { FramePlace::Segment(place as u32 - 1) },
                offset,
                len_bytes,
            });
            FrameIndex { segments: (0..3).map(segment).collect(), frames: frames.collect() }
        })
    }

    proptest! {
        #[test]
        fn indexes_come_back(index in any_index()) {
            let mut w = Writer::new();
            index.encode(&mut w);
            let mut r = Reader::new("test", w.as_slice());
            prop_assert_eq!(FrameIndex::decode(&mut r, INLINE_BYTES).unwrap(), index);
            prop_assert!(r.finish().is_ok());
        }

        #[test]
        fn damaged_indexes_are_indexes_or_errors(index in any_index(), at: prop::sample::Index, value: u8) {
            let mut w = Writer::new();
            index.encode(&mut w);
            let mut bytes = w.into_vec();
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = FrameIndex::decode(&mut Reader::new("test", &bytes), INLINE_BYTES);
        }
    }

    #[test]
    fn segments_that_cannot_be_are_refused() {
        let segments = |lens: &[u64], frames: u64| {
            let mut w = Writer::new();
            w.varint(lens.len() as u64);
            for len_bytes in lens {
                w.varint(1);
                w.bytes(&[7; 16]);
                w.varint(*len_bytes);
                w.bytes(&[9; 32]);
            }
            w.varint(frames);
            if frames > 0 {
                [0, 1, 1, 2, 0].into_iter().for_each(|field| w.varint(field));
            }
            FrameIndex::decode(&mut Reader::new("test", w.as_slice()), 0)
        };
        segments(&[1, u64::MAX - 1], 1).unwrap();
        segments(&[2, u64::MAX - 1], 1).expect_err("longer than a number can say");
        segments(&[5], 0).expect_err("nothing lies in it");
    }

    #[test]
    fn a_frame_of_the_largest_page_number_comes_back() {
        let index = FrameIndex::inline([(PageIdx::FIRST, 1, 10), (PageIdx::new(u32::MAX).unwrap(), 1, 10)]);
        let mut w = Writer::new();
        index.encode(&mut w);
        assert_eq!(FrameIndex::decode(&mut Reader::new("test", w.as_slice()), 20).unwrap(), index);
    }

    #[test]
    fn a_page_is_looked_up_in_the_last_frame_before_it() {
        let index = FrameIndex::inline([3, 10].map(|first| (PageIdx::new(first).unwrap(), 2, 10)));
        let position = |page| index.position(PageIdx::new(page).unwrap());
        assert_eq!([2, 3, 9, 10, 99].map(position), [None, Some(0), Some(0), Some(1), Some(1)]);
    }
}
