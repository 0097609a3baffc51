//! Checkpoints for the tests.

use bytes::Bytes;
use ulid::Ulid;

use super::{
    CheckpointHead, CheckpointInfo, CheckpointLeaf, CheckpointWriter, FrameLocation, FrameObject, Origin, PageRun,
    PageSource,
};
use crate::{
    CommitHash, CommitId, DecodedFrame, EncodedFrame, Lsn, ObjectHash, PageCount, PageIdx, PageSet, PageSize, Result,
    SegmentId, SegmentRef, VolumeName, encode_frame,
};

pub(super) const LSN: u64 = 1000;

pub(super) fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

pub(super) fn page(n: u32) -> PageIdx {
    PageIdx::new(n).unwrap()
}

pub(super) fn info(page_count: u32) -> CheckpointInfo {
    CheckpointInfo {
        lsn: lsn(LSN),
        generation: 3,
        commit: CommitHash::of(b"the thousandth"),
        inputs: ObjectHash::of(b"what it was made from"),
        began: Lsn::FIRST,
        incarnation: CommitId::new([6; 16]),
        page_size: PageSize::try_new(512).unwrap(),
        page_count: PageCount::new(page_count),
        attributes: [("content".to_owned(), "sqlite".to_owned())].into(),
        origin: Some(Origin {
            volume: VolumeName::parse("parent").unwrap(),
            lsn: lsn(7),
            hash: CommitHash::of(b"the seventh"),
        }),
    }
}

pub(super) fn segment(n: u8) -> SegmentRef {
    let id = SegmentId { target: lsn(1 + u64::from(n)), generation: u32::from(n % 3), ulid: Ulid::from_bytes([n; 16]) };
    SegmentRef { id, len_bytes: 64 << 20, hash: ObjectHash::of(&[n]) }
}

/// A frame of the first pages, as they are needed at once.
pub(super) fn boot() -> EncodedFrame {
    let pages: PageSet = [1, 2, 5].into_iter().filter_map(PageIdx::new).collect();
    let mut data = vec![0; 3 * 512];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    encode_frame(&pages, PageSize::try_new(512).unwrap(), &data).unwrap()
}

/// Numbers that look random and are the same each time.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// So many runs of every kind; some frames are named by many of them.
pub(super) fn runs(seed: u64, n: usize) -> Vec<PageRun> {
    let mut numbers = Numbers(seed);
    let mut runs: Vec<PageRun> = Vec::new();
    let mut frames: Vec<FrameLocation> = Vec::new();
    let mut next = 1;
    for _ in 0..n {
        let source = match numbers.below(8) {
            0 => PageSource::Zero,
            1 => PageSource::Inherited,
            2 if !frames.is_empty() => {
                let most = frames.len().min(20) as u64;
                PageSource::Frame(frames[frames.len() - 1 - numbers.below(most) as usize])
            }
            kind => {
                let frame = FrameLocation {
                    owner: lsn(1 + numbers.below(LSN)),
                    object: match kind {
                        3 | 4 => FrameObject::Commit,
                        _ => FrameObject::Segment(segment(numbers.below(5) as u8).id),
                    },
                    offset: numbers.below(if kind == 3 { 1 } else { 1 << 20 }),
                    len_bytes: 1 + numbers.below(60_000) as u32,
                    page_count: 1 << 20,
                };
                frames.push(frame);
                PageSource::Frame(frame)
            }
        };
        let changed = match (source, numbers.below(4)) {
            (PageSource::Frame(frame), 1..) => frame.owner,
            _ => lsn(1 + numbers.below(LSN)),
        };
        let count = 1 + numbers.below(9) as u32;
        if runs.last().is_none_or(|last| last.source != source || last.changed != changed) {
            runs.push(PageRun { first: page(next), count, source, changed });
            next += count;
        }
    }
    runs
}

/// The checkpoint of these runs.
pub(super) fn checkpoint(runs: &[PageRun]) -> Result<Bytes> {
    let page_count = runs.last().map_or(0, |run| run.last().get());
    let mut writer = CheckpointWriter::new(info(page_count));
    runs.iter().try_for_each(|run| writer.push(*run))?;
    let boot = Some(boot()).filter(|_| page_count >= 5);
    writer.finish((0..5).map(segment), boot.as_slice())
}

/// All that a checkpoint says.
pub(super) struct Whole {
    pub(super) head: CheckpointHead,
    pub(super) leaves: Vec<CheckpointLeaf>,
    pub(super) segments: Vec<SegmentRef>,
    pub(super) boot: Vec<DecodedFrame>,
}

impl Whole {
    pub(super) fn read(object: &[u8]) -> Result<Whole> {
        let head = CheckpointHead::decode(object)?;
        let part = |range: std::ops::Range<u64>| {
            let end = object.len().min(range.end as usize);
            &object[end.min(range.start as usize)..end]
        };
        let leaves =
            head.leaves().map(|leaf| CheckpointLeaf::decode(&leaf, part(leaf.range()))).collect::<Result<_>>()?;
        let segments = head.decode_segments(part(head.segments_range()))?;
        let boot = head.boot_pages()?;
        Ok(Whole { head, leaves, segments, boot })
    }

    pub(super) fn runs(&self) -> Vec<PageRun> {
        self.leaves.iter().flat_map(CheckpointLeaf::runs).collect()
    }
}
