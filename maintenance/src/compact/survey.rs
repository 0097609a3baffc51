//! What an index says of where its pages lie: of the whole volume as much as fits for each segment, of a window of
//! pages all.

use std::collections::{HashMap, HashSet};

use quire_history::{Index, Reader};
use quire_proto::{
    FrameLocation, FrameObject, Lsn, PageCount, PageIdx, PageRun, PageSource, Result, SegmentId, SegmentRef,
};

use super::Extent;
use super::order::Order;
use super::plan::{Facts, Placed, is_wasted};

/// Volumes that stay in page order are looked at in windows of so many pages.
const WINDOW_PAGES: u32 = 1 << 20;
/// Whoever walks over more leaves than this does not keep them.
const KEPT_LEAVES: usize = 64;
/// A segment has this much beside its frames, and so much more for each of them.
const FOOTER_BYTES: u64 = 1100;
const FOOTER_FRAME_BYTES: u64 = 15;
/// Segments are small if they have less than this, and than a part of what a step writes.
const SMALL_BYTES: u64 = 4 << 20;
/// So many small ones are one too many.
const MOST_SMALL: usize = 16;
/// No frame.
const NONE: u32 = u32::MAX;

/// How well the segments of a snapshot are used.
pub(super) struct Survey {
    /// Segments that are not worth keeping.
    poor: HashSet<SegmentId>,
    /// What the store needs to give the snapshot.
    pub(super) extent: Extent,
}

#[derive(Default)]
struct Use {
    bytes: u64,
    runs: u64,
}

impl Survey {
    /// Looks at the whole index, for a step that writes up to `budget` bytes.
    pub(super) async fn of(reader: &Reader, index: &Index, budget: u64) -> Result<Survey> {
        let segments = index.segments(reader).await?;
        let mut uses: HashMap<SegmentId, Use> = HashMap::new();
        let (mut commits, mut inline_bytes) = (HashSet::<Lsn>::new(), 0);
        each_run(reader, index, None, |run| {
            let PageSource::Frame(frame) = run.source else { return };
            let bytes = u64::from(frame.len_bytes) * u64::from(run.count) / u64::from(frame.page_count);
            match frame.object {
                FrameObject::Commit => {
                    commits.insert(frame.owner);
                    inline_bytes += bytes;
                }
                FrameObject::Segment(id) => {
                    let of = uses.entry(id).or_default();
                    of.bytes += bytes;
                    of.runs += 1;
                }
            }
        })
        .await?;
        let is_poor = |segment: &&SegmentRef| {
            let used = uses.get(&segment.id).map_or(0, |of| of.bytes + FOOTER_BYTES + FOOTER_FRAME_BYTES * of.runs);
            is_wasted(used, segment.len_bytes)
        };
        let mut poor: HashSet<SegmentId> = segments.iter().filter(is_poor).map(|segment| segment.id).collect();
        if index.info().page_count.get() <= WINDOW_PAGES {
            poor.extend(too_many_small(&segments, budget));
        }
        let bytes = segments.iter().map(|segment| segment.len_bytes).sum::<u64>();
        let bytes = bytes + inline_bytes + index.head().object_bytes();
        Ok(Survey { poor, extent: Extent { objects: (segments.len() + commits.len()) as u64, bytes } })
    }
}

/// Many small segments that become a few: no more of them than one step rewrites, or there would be no end to it.
fn too_many_small(segments: &[SegmentRef], budget: u64) -> Vec<SegmentId> {
    let small = segments.iter().filter(|segment| segment.len_bytes < SMALL_BYTES.min(budget / 32));
    let mut bytes = 0;
    let some = small.take_while(|segment| {
        bytes += segment.len_bytes;
        bytes <= budget / 2
    });
    let some: Vec<SegmentId> = some.map(|segment| segment.id).collect();
    if some.len() > MOST_SMALL { some } else { Vec::new() }
}

/// Shows the runs of an index, or those of them that have pages in a range, in page order.
pub(super) async fn each_run(
    reader: &Reader,
    index: &Index,
    pages: Option<(u32, u32)>,
    mut visit: impl FnMut(PageRun),
) -> Result<()> {
    let is_kept = index.head().leaves().count() <= KEPT_LEAVES;
    let (first, last) = pages.unwrap_or((1, u32::MAX));
    for place in index.head().leaves().filter(|leaf| leaf.first.get() <= last && first <= leaf.last.get()) {
        let leaf = index.leaf(reader, &place).await?;
        leaf.runs().filter(|run| run.first.get() <= last && first <= run.last().get()).for_each(&mut visit);
        if !is_kept {
            index.forget(&place);
        }
    }
    Ok(())
}

/// Neighbouring pages, and the frame of each.
pub(super) struct Window {
    first: u32,
    /// For each page a position in `frames`, or none.
    frame_of: Vec<u32>,
    frames: Vec<FrameLocation>,
    is_whole: bool,
}

impl Window {
    /// How many windows there are.
    pub(super) fn count(page_count: PageCount, is_whole: bool) -> u32 {
        if is_whole { page_count.get().min(1) } else { page_count.get().div_ceil(WINDOW_PAGES) }
    }

    /// Looks at one of them; at the whole volume, if it is in one.
    pub(super) async fn load(reader: &Reader, index: &Index, n: u32, is_whole: bool) -> Result<Window> {
        let count = index.info().page_count.get();
        let first = n * WINDOW_PAGES + 1;
        let last = if is_whole { count } else { count.min(first.saturating_add(WINDOW_PAGES - 1)) };
        let mut frame_of = vec![NONE; (last - first) as usize + 1];
        let mut frames = Vec::new();
        let mut known: HashMap<FrameLocation, u32> = HashMap::new();
        each_run(reader, index, Some((first, last)), |run| {
            let PageSource::Frame(frame) = run.source else { return };
            let n = *known.entry(frame).or_insert_with(|| {
                frames.push(frame);
                frames.len() as u32 - 1
            });
            let (from, to) = (run.first.get().max(first), run.last().get().min(last));
            frame_of[(from - first) as usize..=(to - first) as usize].fill(n);
        })
        .await?;
        Ok(Window { first, frame_of, frames, is_whole })
    }

    /// The frame of a page of the window.
    pub(super) fn frame(&self, page: u32) -> Option<FrameLocation> {
        let n = *self.frame_of.get(page.checked_sub(self.first)? as usize)?;
        self.frames.get(n as usize).copied()
    }

    /// Its pages that are in frames, in the order in which they belong.
    pub(super) fn sequence(&self, order: Option<&Order>) -> Vec<Placed> {
        let mut left = self.frame_of.clone();
        let mut sequence = Vec::with_capacity(left.len());
        let mut take = |page: u32| {
            let at = page.checked_sub(self.first).and_then(|n| left.get_mut(n as usize));
            match at.map(|frame| std::mem::replace(frame, NONE)) {
                None | Some(NONE) => {}
                Some(frame) => sequence.push((page, frame)),
            }
        };
        if let Some(Order::Listed(pages)) = order {
            pages.iter().copied().map(PageIdx::get).for_each(&mut take);
        }
        (0..self.frame_of.len() as u32).map(|n| self.first + n).for_each(&mut take);
        sequence
    }

    /// What is known of its frames.
    pub(super) fn facts(&self, survey: &Survey, group: usize) -> Vec<Facts> {
        let fact = |frame: &FrameLocation| {
            let is_poor = match frame.object {
                FrameObject::Commit => true,
                FrameObject::Segment(id) => survey.poor.contains(&id),
            };
            Facts { page_count: frame.page_count, is_poor, is_cut: false }
        };
        let mut facts: Vec<Facts> = self.frames.iter().map(fact).collect();
        if !self.is_whole {
            let len = self.frame_of.len();
            let ends = self.frame_of.iter().take(group).chain(&self.frame_of[len.saturating_sub(group)..]);
            for n in ends.filter(|n| **n != NONE) {
                facts[*n as usize].is_cut = true;
            }
        }
        facts
    }
}
