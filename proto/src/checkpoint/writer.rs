//! Writing a checkpoint: runs go in, in page order, and leaves pile up encoded.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::directory::{Directory, Part, encode_segments};
use super::{
    CheckpointHead, CheckpointInfo, CheckpointLeaf, FrameObject, LEAF_RUNS, LeafRef, PageRun, PageSource, columns, head,
};
use crate::{EncodedFrame, Error, Result, SegmentId, SegmentRef};

/// Writes one checkpoint. Beside the runs of one leaf it keeps only what is
/// encoded: its memory is bounded by twice the object.
#[derive(Debug)]
pub struct CheckpointWriter {
    info: CheckpointInfo,
    /// The run that came last: the next one may continue it.
    open: Option<PageRun>,
    /// The runs of the next leaf.
    runs: Vec<PageRun>,
    leaves: Directory,
    encoded: Vec<u8>,
    segments: BTreeSet<SegmentId>,
}

impl CheckpointWriter {
    /// A checkpoint of the snapshot that `info` describes.
    pub fn new(info: CheckpointInfo) -> CheckpointWriter {
        CheckpointWriter {
            info,
            open: None,
            runs: Vec::new(),
            leaves: Directory::default(),
            encoded: Vec::new(),
            segments: BTreeSet::new(),
        }
    }

    /// Takes the next pages. Runs come in page order without holes; neighbours
    /// that are one run become one.
    pub fn push(&mut self, run: PageRun) -> Result<()> {
        let next = self.open.map_or(1, |open| u64::from(open.last().get()) + 1);
        let first = u64::from(run.first.get());
        let after = first + u64::from(run.count);
        if first != next || run.count == 0 || after > u64::from(self.info.page_count.get()) + 1 {
            return Err(self.invalid(format_args!(
                "{} pages from page {first}, where page {next} of {} comes next",
                run.count, self.info.page_count
            )));
        }
        match &mut self.open {
            Some(open) if open.source == run.source && open.changed == run.changed => open.count += run.count,
            open => {
                if let Some(complete) = open.replace(run) {
                    self.add(complete)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, run: PageRun) -> Result<()> {
        if let PageSource::Frame(frame) = run.source
            && let FrameObject::Segment(id) = frame.object
        {
            self.segments.insert(id);
        }
        self.runs.push(run);
        if self.runs.len() == LEAF_RUNS { self.flush() } else { Ok(()) }
    }

    /// Encodes a leaf. What cannot be read is not kept: reading it checks the runs.
    fn flush(&mut self) -> Result<()> {
        let (Some(first), Some(last)) = (self.runs.first(), self.runs.last()) else { return Ok(()) };
        let bytes = columns::encode(&self.runs)?;
        let pages = last.last().get() - first.first.get() + 1;
        let place = LeafRef {
            first: first.first,
            last: last.last(),
            part: Part::of(&bytes),
            lsn: self.info.lsn,
            has_origin: self.info.origin.is_some(),
        };
        CheckpointLeaf::decode(&place, &bytes).map_err(|e| self.invalid(e))?;
        self.leaves.push(pages, place.part).ok_or_else(|| self.invalid("more pages than there can be"))?;
        self.encoded.extend_from_slice(&bytes);
        self.runs.clear();
        Ok(())
    }

    /// The finished object. `segments` tells of every segment that a run named,
    /// and may tell of more; `boot` are frames of pages that whoever opens the
    /// volume needs at once, with their content in this snapshot.
    pub fn finish(mut self, segments: impl IntoIterator<Item = SegmentRef>, boot: &[EncodedFrame]) -> Result<Bytes> {
        if let Some(last) = self.open.take() {
            self.add(last)?;
        }
        self.flush()?;
        let list = encode_segments(self.named(segments)?.values());
        let head = head::encode(&self.info, &self.leaves, &Part::of(&list), boot)?;
        // As with the leaves: pages that are not covered, boot frames that are too many.
        CheckpointHead::decode(&head).and_then(|head| head.boot_pages()).map_err(|e| self.invalid(e))?;
        Ok([head, self.encoded, list].concat().into())
    }

    /// What is known of the segments that the runs name.
    fn named(&self, known: impl IntoIterator<Item = SegmentRef>) -> Result<BTreeMap<SegmentId, SegmentRef>> {
        let known = known.into_iter().filter(|segment| self.segments.contains(&segment.id));
        let known: BTreeMap<SegmentId, SegmentRef> = known.map(|segment| (segment.id, segment)).collect();
        match self.segments.iter().find(|id| !known.contains_key(id)) {
            None => Ok(known),
            Some(id) => Err(self.invalid(format_args!("it names segment {id}, of which nothing is known"))),
        }
    }

    fn invalid(&self, problem: impl std::fmt::Display) -> Error {
        Error::invalid(format!("a checkpoint of LSN {} that cannot be: {problem}", self.info.lsn))
    }
}
