//! The overlay against the plainest model there is: for each LSN a list of its
//! pages, each made from the list before by the rules of one commit.

use proptest::prelude::*;

use super::samples::{lsn, page, segment};
use super::*;
use crate::{
    Base, Body, CommitHash, CommitHeader, CommitId, CommitKind, FrameIndex, PageCount, PageSet, PageSets, PageSize,
    Result, SealedCommit, SegmentRef, VolumeName,
};

/// A commit as the generator describes it; what contradicts the history so far is bent to fit.
#[derive(Clone, Debug)]
struct Draft {
    kind: u8,
    /// The page count, and the smallest one on the way to it.
    count: u32,
    low: u32,
    owned: Vec<u32>,
    /// Said to be changed beside what must be.
    also_changed: Vec<u32>,
    per_frame: usize,
    is_inline: bool,
    /// Which older snapshot a restore brings back.
    older: prop::sample::Index,
}

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let pages = |most| proptest::collection::vec(1u32..80, 0..most);
    let draft =
        (0u8..12, 0u32..80, 0u32..80, pages(12), pages(3), 1usize..5, any::<bool>(), any::<prop::sample::Index>())
            .prop_map(|(kind, count, low, owned, also_changed, per_frame, is_inline, older)| Draft {
                kind,
                count,
                low,
                owned,
                also_changed,
                per_frame,
                is_inline,
                older,
            });
    proptest::collection::vec(draft, 1..25)
}

/// A snapshot: where each page is, and when it changed.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    page_size: Option<PageSize>,
    pages: Vec<(PageSource, Lsn)>,
    /// The LSN that its commit stands on.
    base: Option<u64>,
}

impl Snapshot {
    fn count(&self) -> u32 {
        self.pages.len() as u32
    }

    fn below(&self, at: u64) -> (Lsn, PageSize, PageCount) {
        (lsn(at), self.page_size.unwrap(), PageCount::new(self.count()))
    }

    fn runs(&self) -> impl Iterator<Item = PageRun> + '_ {
        (1..).zip(&self.pages).map(|(n, (source, changed))| PageRun {
            first: page(n),
            count: 1,
            source: *source,
            changed: *changed,
        })
    }
}

/// Commits and the snapshots that they made; position n - 1 is LSN n.
#[derive(Default)]
struct History {
    commits: Vec<SealedCommit>,
    snapshots: Vec<Snapshot>,
    changed: Vec<PageSet>,
}

impl History {
    fn of(drafts: &[Draft]) -> History {
        let mut history = History::default();
        drafts.iter().for_each(|draft| history.add(draft));
        history
    }

    fn add(&mut self, draft: &Draft) {
        let at = self.commits.len() as u64 + 1;
        let before = self.snapshots.last().cloned().unwrap_or_default();
        let size = before.page_size.unwrap_or(PageSize::DEFAULT);
        let mut header = CommitHeader::draft(lsn(at), CommitKind::Write, CommitId::new([at as u8; 16]), size);
        let mut base = self.snapshots.last().map(|_| at - 1);
        let mut count = draft.count;
        // What the other pages come from, and how many of them are kept.
        let mut standing = before.clone();
        let mut also_changed: PageSet = draft.also_changed.iter().copied().filter_map(PageIdx::new).collect();
        let mut owned: PageSet = draft.owned.iter().copied().filter_map(PageIdx::new).collect();
        let mut low = draft.low.min(count).min(standing.count());
        if draft.low.is_multiple_of(2) {
            low = count.min(standing.count());
        }
        match draft.kind {
            _ if at == 1 && draft.kind.is_multiple_of(2) => {
                header.kind = CommitKind::Fork;
                let volume = VolumeName::parse("parent").unwrap();
                header.base = Base::Other { volume, lsn: lsn(5), hash: CommitHash::ZERO };
                low = draft.low.min(count);
            }
            _ if at == 1 => {
                header.kind = CommitKind::Create;
                header.base = Base::Nothing;
                low = 0;
            }
            0 => {
                header.kind = CommitKind::Void;
                count = standing.count();
                low = count;
                owned = PageSet::new();
                also_changed = PageSet::new();
            }
            1 | 2 => {
                let older = draft.older.index(self.snapshots.len()) as u64 + 1;
                base = Some(older);
                standing = self.snapshots[older as usize - 1].clone();
                header.kind = CommitKind::Restore;
                header.base = Base::Older { lsn: lsn(older), hash: CommitHash::ZERO };
                header.page_size = standing.page_size.unwrap();
                count = standing.count();
                low = count;
                owned = PageSet::new();
                self.changed[older as usize..].iter().for_each(|changed| also_changed.union_with(changed));
            }
            3 => {
                let larger = PageSize::from_log2(9 + (size.log2() + 1 - 9) % 8).unwrap();
                header.page_size = larger;
                low = 0;
            }
            _ => {}
        }
        owned.truncate(PageCount::new(count));
        let mut changed = owned.clone();
        changed.union_with(&also_changed);
        changed.insert_range(low + 1, before.count().max(count));
        if header.kind == CommitKind::Fork {
            changed.insert_range(1, count);
        }
        if at > 1 {
            header.parent = Some(CommitHash::ZERO);
        }
        header.page_count = PageCount::new(count);
        header.min_count = PageCount::new(low);

        let (index, frame_of) = index(lsn(at), &owned, draft);
        let pages = (1..=count).map(|n| {
            let source = match frame_of(page(n)) {
                Some(frame) => PageSource::Frame(frame),
                None if n > low => PageSource::Zero,
                None if header.kind == CommitKind::Fork => PageSource::Inherited,
                None => standing.pages.get(n as usize - 1).map_or(PageSource::Zero, |(source, _)| *source),
            };
            let is_changed = changed.contains(page(n));
            (source, if is_changed { lsn(at) } else { before.pages[n as usize - 1].1 })
        });
        self.snapshots.push(Snapshot { page_size: Some(header.page_size), pages: pages.collect(), base });
        let sets = PageSets { changed: changed.clone(), owned: Some(owned) };
        self.changed.push(changed);
        self.commits.push(SealedCommit::seal(header, Body { sets, index, ..Body::default() }).unwrap());
    }

    /// The LSNs from `n` down to where the volume began, along the bases.
    fn way_down(&self, n: u64) -> Vec<u64> {
        std::iter::successors(Some(n), |at| self.snapshots[*at as usize - 1].base).collect()
    }

    fn steps(&self, lsns: impl Iterator<Item = u64>) -> Vec<OverlayStep> {
        lsns.map(|at| OverlayStep::of(&self.commits[at as usize - 1]).unwrap()).collect()
    }
}

/// An index of frames of a few pages each, and which frame holds a page.
fn index(
    owner: Lsn,
    owned: &PageSet,
    draft: &Draft,
) -> (FrameIndex, impl Fn(PageIdx) -> Option<FrameLocation> + use<>) {
    let pages: Vec<PageIdx> = owned.iter().collect();
    let mut frames: Vec<(FrameLocation, Vec<PageIdx>)> = Vec::new();
    let held = segment(owner.get() as u8);
    for (n, group) in pages.chunks(draft.per_frame).enumerate() {
        let object = if draft.is_inline { FrameObject::Commit } else { FrameObject::Segment(held.id) };
        let page_count = group.len() as u32;
        let location = FrameLocation { owner, object, offset: n as u64 * 10, len_bytes: 10, page_count };
        frames.push((location, group.to_vec()));
    }
    let parts = frames.iter().map(|(frame, pages)| (pages[0], frame.page_count, frame.offset, frame.len_bytes));
    let index = if draft.is_inline {
        FrameIndex::inline(parts.map(|(first, count, _, len)| (first, count, len)))
    } else {
        let mut index = FrameIndex::default();
        index.push_segment(SegmentRef { len_bytes: 10_000, ..held }, parts);
        index
    };
    let frame_of = move |page| frames.iter().find(|(_, pages)| pages.contains(&page)).map(|(frame, _)| *frame);
    (index, frame_of)
}

/// The pages that an overlay brings out, one by one.
fn overlaid(
    below: Option<(u64, &Snapshot)>,
    steps: Vec<OverlayStep>,
    mut runs: Vec<PageRun>,
) -> Result<Vec<(PageSource, Lsn)>> {
    let mut overlay = Overlay::new(below.map(|(at, snapshot)| snapshot.below(at)), steps)?;
    let mut pages = Vec::new();
    let mut out = |run: PageRun| {
        assert_eq!(run.first.get() as usize, pages.len() + 1, "in page order, without holes");
        pages.extend(std::iter::repeat_n((run.source, run.changed), run.count as usize));
        Ok(())
    };
    for run in runs.drain(..) {
        overlay.push(run, &mut out)?;
    }
    overlay.finish(&mut out)?;
    Ok(pages)
}

/// Neighbours that are one run as one.
fn merged(runs: impl Iterator<Item = PageRun>) -> Vec<PageRun> {
    let mut merged: Vec<PageRun> = Vec::new();
    for run in runs {
        match merged.last_mut() {
            Some(last) if (last.source, last.changed) == (run.source, run.changed) => last.count += run.count,
            _ => merged.push(run),
        }
    }
    merged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// From every snapshot below to the newest one, and from nothing.
    #[test]
    fn commits_laid_over_any_older_snapshot_make_the_newer_one(drafts in drafts(), single: bool) {
        let history = History::of(&drafts);
        let newest = drafts.len() as u64;
        let expected = &history.snapshots[newest as usize - 1].pages;
        let way = history.way_down(newest);
        for (n, below) in way.iter().enumerate() {
            let snapshot = &history.snapshots[*below as usize - 1];
            let steps = history.steps(way[..n].iter().rev().copied());
            let runs = if single { snapshot.runs().collect() } else { merged(snapshot.runs()) };
            prop_assert_eq!(&overlaid(Some((*below, snapshot)), steps, runs).unwrap(), expected, "from LSN {}", below);
        }
        let steps = history.steps(way.iter().rev().copied());
        prop_assert_eq!(&overlaid(None, steps, Vec::new()).unwrap(), expected, "from nothing");
    }
}

fn bare_step(at: u64, base: OverlayBase, count: u32) -> OverlayStep {
    OverlayStep {
        lsn: lsn(at),
        base,
        page_size: PageSize::DEFAULT,
        page_count: PageCount::new(count),
        min_count: PageCount::new(if base == OverlayBase::Nothing { 0 } else { count }),
        sets: PageSets::default(),
        index: FrameIndex::default(),
    }
}

#[test]
fn what_is_cut_off_and_added_has_changed_even_if_the_commit_does_not_say_so() {
    let steps = vec![
        bare_step(1, OverlayBase::Nothing, 9),
        bare_step(2, OverlayBase::Lsn(lsn(1)), 4),
        OverlayStep { min_count: PageCount::new(4), ..bare_step(3, OverlayBase::Lsn(lsn(2)), 7) },
    ];
    let pages = overlaid(None, steps, Vec::new()).unwrap();
    let changed: Vec<u64> = pages.iter().map(|(_, changed)| changed.get()).collect();
    assert_eq!(changed, [1, 1, 1, 1, 3, 3, 3]);
}

#[test]
fn steps_that_do_not_stand_on_each_other_are_refused() {
    let below = Some((lsn(5), PageSize::DEFAULT, PageCount::new(9)));
    let on = |at, base| bare_step(at, OverlayBase::Lsn(lsn(base)), 9);
    Overlay::new(below, vec![on(6, 5), on(9, 6)]).unwrap();
    Overlay::new(below, vec![on(6, 5), on(8, 7)]).expect_err("a commit is missing");
    Overlay::new(below, vec![on(4, 5)]).expect_err("back in time");
    Overlay::new(None, vec![on(6, 5)]).expect_err("nothing below");
    Overlay::new(below, vec![bare_step(6, OverlayBase::Nothing, 9)]).expect_err("something below");
    Overlay::new(None, Vec::new()).expect_err("nothing at all");
    let smaller = PageSize::try_new(512).unwrap();
    Overlay::new(below, vec![OverlayStep { page_size: smaller, ..on(6, 5) }]).expect_err("pages of two sizes");
}

#[test]
fn runs_that_are_missing_below_are_noticed() {
    let below = Some((lsn(5), PageSize::DEFAULT, PageCount::new(9)));
    let run = |first, count| PageRun { first: page(first), count, source: PageSource::Zero, changed: lsn(1) };
    let overlay = || Overlay::new(below, vec![bare_step(6, OverlayBase::Lsn(lsn(5)), 4)]).unwrap();
    let ignore = |_| Ok(());
    overlay().push(run(2, 8), ignore).expect_err("page 1 comes first");
    overlay().push(run(1, 10), ignore).expect_err("a page too many");
    let mut short = overlay();
    short.push(run(1, 3), ignore).unwrap();
    short.finish(ignore).expect_err("page 4 is missing");
    let mut enough = overlay();
    enough.push(run(1, 6), ignore).unwrap();
    enough.finish(ignore).unwrap();
}

#[test]
fn all_pages_there_can_be_are_laid_over_at_once() {
    let all = PageCount::new(u32::MAX);
    let below = Some((lsn(5), PageSize::DEFAULT, all));
    let step = OverlayStep { page_count: all, min_count: all, ..bare_step(6, OverlayBase::Lsn(lsn(5)), 0) };
    let mut overlay = Overlay::new(below, vec![step]).unwrap();
    let run = PageRun { first: page(1), count: u32::MAX, source: PageSource::Zero, changed: lsn(1) };
    let mut out = Vec::new();
    overlay
        .push(run, |run| {
            out.push(run);
            Ok(())
        })
        .unwrap();
    overlay.finish(|_| panic!("nothing is new")).unwrap();
    assert_eq!(out, [run]);
    let grown = Overlay::new(None, vec![OverlayStep { page_count: all, ..bare_step(6, OverlayBase::Nothing, 0) }]);
    grown
        .unwrap()
        .finish(|run| {
            assert_eq!(run.count, u32::MAX);
            Ok(())
        })
        .unwrap();
}
