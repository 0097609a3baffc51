//! The index of a snapshot out of an older one and the commits since: what
//! `PROTOCOL.md`, "Page reads", says of one page, for all pages in order.
//!
//! Before the first run comes, the commits are gone through once from the newest
//! to the oldest, each taking the pages that no newer one has taken. What is
//! left is one list of page ranges, so that the runs below stream through
//! whatever their number. Memory is bounded by the commits' own indexes.

use super::{FrameLocation, FrameObject, PageRun, PageSource};
use crate::{
    Base, Error, FrameIndex, FramePlace, FrameRef, Lsn, PageCount, PageIdx, PageSet, PageSets, PageSize, Result,
    SealedCommit, SegmentRef,
};

/// One commit on the way from the snapshot below to the one on top.
#[derive(Clone, Debug)]
pub struct OverlayStep {
    /// The LSN that it made.
    pub lsn: Lsn,
    /// Where the pages come from that it does not own.
    pub base: OverlayBase,
    /// The size of its snapshot's pages.
    pub page_size: PageSize,
    /// How many pages its snapshot has.
    pub page_count: PageCount,
    /// The smallest page count since the base.
    pub min_count: PageCount,
    /// The pages that it changed and owns.
    pub sets: PageSets,
    /// The frames that hold the owned ones.
    pub index: FrameIndex,
}

/// What a step stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayBase {
    /// Nothing: a creation.
    Nothing,
    /// A snapshot of another volume: a fork.
    Origin,
    /// This LSN of the same volume.
    Lsn(Lsn),
}

impl OverlayStep {
    /// What a commit does to the index.
    pub fn of(commit: &SealedCommit) -> Result<OverlayStep> {
        let (header, body) = (commit.header(), commit.body());
        if header.kind.ends() {
            return Err(Error::invalid(format!("LSN {} ends the volume: it has no pages to index", header.lsn)));
        }
        let base = match (&header.base, header.lsn.prev()) {
            (Base::Other { .. }, _) => OverlayBase::Origin,
            (Base::Older { lsn, .. }, _) => OverlayBase::Lsn(*lsn),
            (Base::Previous, Some(lsn)) => OverlayBase::Lsn(lsn),
            (Base::Nothing | Base::Previous, _) => OverlayBase::Nothing,
        };
        Ok(OverlayStep {
            lsn: header.lsn,
            base,
            page_size: header.page_size,
            page_count: header.page_count,
            min_count: header.min_count,
            sets: body.sets.clone(),
            index: body.index.clone(),
        })
    }
}

/// Lays commits over the index of an older snapshot. Runs of the older one are
/// [pushed](Self::push) in page order; runs of the newer one come out in page
/// order. [`finish`](Self::finish) adds what the volume has grown by.
#[derive(Debug)]
pub struct Overlay {
    /// The commits' LSNs and frames; what their sets say is in the spans.
    owners: Vec<(Lsn, FrameIndex)>,
    /// Pages that do not come from below.
    sources: Spans<Source>,
    /// Pages that changed since.
    changes: Spans<Lsn>,
    /// The page that comes out next, and the one that is awaited from below.
    next: u64,
    awaited: u64,
    /// How many pages there are below, and how many on top.
    below: PageCount,
    page_count: PageCount,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Zero,
    Inherited,
    /// The commit at this position owns them.
    Step(usize),
}

impl Overlay {
    /// An overlay on the snapshot `below`, of which LSN, page size and page
    /// count are given; on nothing if the first step creates or forks the volume.
    ///
    /// `steps` ascend, and each stands on the one before: over a restore the way
    /// goes on from the LSN that was restored, without the commits between.
    pub fn new(below: Option<(Lsn, PageSize, PageCount)>, steps: Vec<OverlayStep>) -> Result<Overlay> {
        let mut under = below;
        for step in &steps {
            let stands = match (under, step.base) {
                (Some((lsn, ..)), OverlayBase::Lsn(base)) => lsn == base && base < step.lsn,
                (None, OverlayBase::Nothing | OverlayBase::Origin) => true,
                _ => false,
            };
            if !stands {
                return Err(Error::invalid(format!("commit {} does not stand on what is below it", step.lsn)));
            }
            // Pages of another size cannot come from below.
            if step.min_count.get() > 0 && under.is_some_and(|(_, size, _)| size != step.page_size) {
                return Err(Error::corrupt(format!("commit {} keeps pages of another size", step.lsn)));
            }
            under = Some((step.lsn, step.page_size, step.page_count));
        }
        let Some((_, _, page_count)) = under else {
            return Err(Error::invalid("an overlay of nothing on nothing"));
        };
        let below = below.map_or(PageCount::ZERO, |(_, _, count)| count);
        let sources = sources(&steps, page_count);
        let changes = changes(&steps, below, page_count);
        let owners = steps.into_iter().map(|step| (step.lsn, step.index)).collect();
        Ok(Overlay { owners, sources, changes, next: 1, awaited: 1, below, page_count })
    }

    /// The segments of the commits.
    pub fn segments(&self) -> impl Iterator<Item = SegmentRef> + '_ {
        self.owners.iter().flat_map(|(_, index)| index.segments()).copied()
    }

    /// Takes the next run of the snapshot below; `out` gets the runs that become of it.
    pub fn push(&mut self, run: PageRun, mut out: impl FnMut(PageRun) -> Result<()>) -> Result<()> {
        let after = u64::from(run.first.get()) + u64::from(run.count);
        if u64::from(run.first.get()) != self.awaited || run.count == 0 || after > u64::from(self.below.get()) + 1 {
            return Err(Error::invalid(format!(
                "an overlay on {} pages awaits page {}, not {} pages from page {}",
                self.below, self.awaited, run.count, run.first
            )));
        }
        self.awaited = after;
        self.emit(run.last().get().min(self.page_count.get()), Some(&run), &mut out)
    }

    /// Ends the index: `out` gets the pages that are new.
    pub fn finish(mut self, mut out: impl FnMut(PageRun) -> Result<()>) -> Result<()> {
        if self.awaited <= self.below.min(self.page_count).get().into() {
            return Err(Error::invalid(format!("an overlay still awaits page {}", self.awaited)));
        }
        self.emit(self.page_count.get(), None, &mut out)
    }

    /// Brings out the pages up to `last`; what no commit says of them, `below` does.
    fn emit(&mut self, last: u32, below: Option<&PageRun>, out: &mut impl FnMut(PageRun) -> Result<()>) -> Result<()> {
        while let Some(first) = u32::try_from(self.next).ok().filter(|next| *next <= last).and_then(PageIdx::new) {
            let (source, sources_end) = self.sources.at(first);
            let (changed, changes_end) = self.changes.at(first);
            let mut end = last.min(sources_end).min(changes_end);
            let source = match source {
                None => below.map_or(PageSource::Zero, |run| run.source),
                Some(Source::Zero) => PageSource::Zero,
                Some(Source::Inherited) => PageSource::Inherited,
                Some(Source::Step(n)) => {
                    let (lsn, index) = &self.owners[n];
                    let (frame, frame_end) = frame_of(*lsn, index, first)?;
                    end = end.min(frame_end);
                    PageSource::Frame(frame)
                }
            };
            let changed = changed.or(below.map(|run| run.changed));
            let changed = changed.ok_or_else(|| Error::corrupt(format!("no commit says when page {first} came")))?;
            out(PageRun { first, count: end - first.get() + 1, source, changed })?;
            self.next = u64::from(end) + 1;
        }
        Ok(())
    }
}

/// The frame of a page that a commit owns, and the last page that can be in it.
fn frame_of(owner: Lsn, index: &FrameIndex, page: PageIdx) -> Result<(FrameLocation, u32)> {
    let Some(n) = index.position(page) else {
        return Err(Error::corrupt(format!("commit {owner} owns page {page}, and its index does not")));
    };
    let FrameRef { place, offset, len_bytes, page_count, .. } = index.frames()[n];
    let object = match place {
        FramePlace::Inline => FrameObject::Commit,
        FramePlace::Segment(n) => FrameObject::Segment(index.segments()[n as usize].id),
    };
    let last = index.frames().get(n + 1).map_or(u32::MAX, |next| next.first.get() - 1);
    Ok((FrameLocation { owner, object, offset, len_bytes, page_count }, last))
}

/// Who decides where each page is that does not come from below.
fn sources(steps: &[OverlayStep], page_count: PageCount) -> Spans<Source> {
    let mut spans = Taking::new(page_count);
    for (n, step) in steps.iter().enumerate().rev() {
        spans.take(step.sets.owned().clone(), Source::Step(n));
        spans.take(beyond(step.min_count, page_count), Source::Zero);
        match step.base {
            OverlayBase::Lsn(_) => {}
            OverlayBase::Nothing => spans.take(PageSet::first(page_count), Source::Zero),
            OverlayBase::Origin => spans.take(PageSet::first(page_count), Source::Inherited),
        }
    }
    spans.into_spans()
}

/// When each page changed last that has changed since the snapshot below.
///
/// What commits own, and what they cut off or add, changed even where their set
/// of changed pages does not say so: a follower may look at a page for nothing,
/// but must never miss one.
fn changes(steps: &[OverlayStep], below: PageCount, page_count: PageCount) -> Spans<Lsn> {
    let mut spans = Taking::new(page_count);
    for (n, step) in steps.iter().enumerate().rev() {
        let (kept, before) = match step.base {
            OverlayBase::Nothing | OverlayBase::Origin => (PageCount::ZERO, PageCount::ZERO),
            OverlayBase::Lsn(_) => (step.min_count, n.checked_sub(1).map_or(below, |n| steps[n].page_count)),
        };
        let mut changed = step.sets.changed.clone();
        changed.union_with(step.sets.owned());
        changed.union_with(&beyond(kept.min(before), before.max(step.page_count)));
        spans.take(changed, step.lsn);
    }
    spans.into_spans()
}

/// The pages after `count`, up to the last one of `end`.
fn beyond(count: PageCount, end: PageCount) -> PageSet {
    let mut pages = PageSet::new();
    if count < end {
        pages.insert_range(count.get() + 1, end.get());
    }
    pages
}

/// Page ranges that are given away, each page once.
struct Taking<T> {
    page_count: PageCount,
    taken: PageSet,
    spans: Vec<(u32, u32, T)>,
}

impl<T: Copy> Taking<T> {
    fn new(page_count: PageCount) -> Taking<T> {
        Taking { page_count, taken: PageSet::new(), spans: Vec::new() }
    }

    /// Gives `value` to those of `pages` that nobody has taken.
    fn take(&mut self, mut pages: PageSet, value: T) {
        pages.truncate(self.page_count);
        pages.subtract(&self.taken);
        self.spans.extend(pages.ranges().map(|(first, last)| (first, last, value)));
        self.taken.union_with(&pages);
    }

    fn into_spans(mut self) -> Spans<T> {
        self.spans.sort_unstable_by_key(|(first, ..)| *first);
        Spans { spans: self.spans, at: 0 }
    }
}

/// Disjoint page ranges, ascending, looked at in page order.
#[derive(Debug)]
struct Spans<T> {
    spans: Vec<(u32, u32, T)>,
    at: usize,
}

impl<T: Copy> Spans<T> {
    /// What is said of `page`, if anything, and the last page of which the same is said.
    fn at(&mut self, page: PageIdx) -> (Option<T>, u32) {
        while self.spans.get(self.at).is_some_and(|(_, last, _)| *last < page.get()) {
            self.at += 1;
        }
        match self.spans.get(self.at) {
            None => (None, u32::MAX),
            Some((first, last, value)) if *first <= page.get() => (Some(*value), *last),
            Some((first, ..)) => (None, first - 1),
        }
    }
}
