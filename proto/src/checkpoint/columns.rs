//! How a leaf is stored: by columns, whose long repetitions zstd finds.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{FrameLocation, FrameObject, PageRun, PageSource};
use crate::{Error, Lsn, Reader, Result, SegmentId, Writer};

const CODING_RAW: u8 = 0;
const CODING_ZSTD: u8 = 1;
/// Of the columns of an import higher levels leave as much, of scattered commits 6 % less at 300 times the work.
const ZSTD_LEVEL: i32 = 3;
/// No honest leaf has longer columns: what a reader is ready to allocate for one.
const MAX_COLUMN_BYTES: usize = 512 * 1024;

/// Codes of a run's source. From `BACK` on it is a frame that an earlier run
/// introduced: how many frames were introduced after it.
pub(super) const ZERO: u64 = 0;
pub(super) const INHERITED: u64 = 1;
pub(super) const NEXT_FRAME: u64 = 2;
pub(super) const BACK: u64 = 3;
/// Codes of a frame's object. From `SEGMENT` on it is one that an earlier frame
/// introduced: its number.
pub(super) const COMMIT: u64 = 0;
pub(super) const NEXT_SEGMENT: u64 = 1;
pub(super) const SEGMENT: u64 = 2;

/// The bytes of a leaf with these runs.
pub(super) fn encode(runs: &[PageRun]) -> Result<Vec<u8>> {
    pack(columns(runs))
}

pub(super) fn columns(runs: &[PageRun]) -> Vec<u8> {
    let mut counts = Writer::new();
    let mut sources = Writer::new();
    let mut changes = Writer::new();
    let mut numbers: HashMap<FrameLocation, u64> = HashMap::new();
    let mut frames: Vec<FrameLocation> = Vec::new();
    let mut expected = 0;
    for run in runs {
        counts.varint(run.count.into());
        sources.varint(match run.source {
            PageSource::Zero => ZERO,
            PageSource::Inherited => INHERITED,
            PageSource::Frame(frame) => match numbers.get(&frame) {
                Some(number) => BACK + (frames.len() as u64 - 1 - number),
                None => {
                    numbers.insert(frame, frames.len() as u64);
                    frames.push(frame);
                    NEXT_FRAME
                }
            },
        });
        if let PageSource::Frame(frame) = run.source {
            expected = frame.owner.get();
        }
        changes.varint(step(expected, run.changed.get()));
        expected = run.changed.get();
    }
    let mut w = Writer::new();
    w.varint(runs.len() as u64);
    w.bytes(counts.as_slice());
    w.bytes(sources.as_slice());
    let segments = frame_columns(&mut w, &frames);
    w.bytes(changes.as_slice());
    segments.iter().for_each(|segment| segment.encode(&mut w));
    w.into_vec()
}

/// Appends the columns of the frames; the segments that they introduce.
fn frame_columns(w: &mut Writer, frames: &[FrameLocation]) -> Vec<SegmentId> {
    let (mut lens, mut page_counts) = (Writer::new(), Writer::new());
    let (mut objects, mut offsets) = (Writer::new(), Writer::new());
    let mut numbers: HashMap<SegmentId, u32> = HashMap::new();
    let mut segments = Vec::new();
    let mut ends = Ends::default();
    let mut owner = 0;
    for frame in frames {
        w.varint(step(owner, frame.owner.get()));
        owner = frame.owner.get();
        let segment = match frame.object {
            FrameObject::Commit => {
                objects.varint(COMMIT);
                None
            }
            FrameObject::Segment(id) => {
                let next = segments.len() as u32;
                let number = *numbers.entry(id).or_insert(next);
                if number == next {
                    segments.push(id);
                    objects.varint(NEXT_SEGMENT);
                } else {
                    objects.varint(SEGMENT + u64::from(number));
                }
                Some(number)
            }
        };
        lens.varint(frame.len_bytes.into());
        page_counts.varint(frame.page_count.into());
        offsets.varint(step(ends.last(segment, frame.owner), frame.offset));
        ends.note(segment, frame.owner, frame.offset, frame.len_bytes);
    }
    for column in [objects, lens, page_counts, offsets] {
        w.bytes(column.as_slice());
    }
    segments
}

/// Where the last frame of each object ended: the next one is expected there.
#[derive(Default)]
pub(super) struct Ends {
    segments: Vec<u64>,
    /// Of the last frame, if a commit carried it.
    commit: Option<(Lsn, u64)>,
}

impl Ends {
    pub(super) fn last(&self, segment: Option<u32>, owner: Lsn) -> u64 {
        match segment {
            Some(n) => self.segments.get(n as usize).copied().unwrap_or(0),
            None => self.commit.filter(|(lsn, _)| *lsn == owner).map_or(0, |(_, end)| end),
        }
    }

    pub(super) fn note(&mut self, segment: Option<u32>, owner: Lsn, offset: u64, len_bytes: u32) {
        let end = offset.wrapping_add(len_bytes.into());
        match segment {
            None => self.commit = Some((owner, end)),
            Some(n) => {
                let n = n as usize;
                self.segments.resize(self.segments.len().max(n + 1), 0);
                self.segments[n] = end;
            }
        }
    }
}

/// How to come from one number to another: small if they are near, whichever is larger.
fn step(from: u64, to: u64) -> u64 {
    let distance = to.wrapping_sub(from) as i64;
    ((distance << 1) ^ (distance >> 63)) as u64
}

/// Where a [`step`] leads.
pub(super) fn moved(from: u64, step: u64) -> u64 {
    from.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg())
}

fn pack(columns: Vec<u8>) -> Result<Vec<u8>> {
    let packed =
        zstd::bulk::compress(&columns, ZSTD_LEVEL).map_err(|e| Error::from_io("compressing a checkpoint", e))?;
    let mut w = Writer::new();
    if packed.len() + 4 < columns.len() {
        w.u8(CODING_ZSTD);
        w.varint(columns.len() as u64);
        w.bytes(&packed);
    } else {
        w.u8(CODING_RAW);
        w.bytes(&columns);
    }
    Ok(w.into_vec())
}

pub(super) fn unpack(mut r: Reader<'_>) -> Result<Cow<'_, [u8]>> {
    match r.u8()? {
        CODING_RAW => Ok(Cow::Borrowed(r.bytes(r.remaining())?)),
        CODING_ZSTD => {
            let len = r.varint()?;
            if len > MAX_COLUMN_BYTES as u64 {
                return Err(r.corrupt(format_args!("{len} bytes of columns are too many")));
            }
            let columns = zstd::bulk::decompress(r.bytes(r.remaining())?, len as usize)
                .map_err(|e| r.corrupt("its columns do not decompress").with_source(e))?;
            if columns.len() as u64 != len {
                return Err(r.corrupt(format_args!("{} bytes of columns where {len} belong", columns.len())));
            }
            Ok(Cow::Owned(columns))
        }
        other => Err(r
            .corrupt(format_args!("unknown coding {other}"))
            .with_remedy("It may have been written by a newer version of Quire: upgrade this one.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_is_a_step_from_every_other(from: u64, to: u64) {
            prop_assert_eq!(moved(from, step(from, to)), to);
        }
    }

    #[test]
    fn near_numbers_are_small_steps() {
        assert_eq!([step(7, 7), step(7, 6), step(7, 8), step(0, 60)], [0, 1, 2, 120]);
    }
}
