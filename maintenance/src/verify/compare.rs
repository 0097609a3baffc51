//! Does a checkpoint say what its commits say? It is made once more, from the one before it and the commits since,
//! and held against what is stored, run by run.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;

use futures::{StreamExt, TryStreamExt};
use quire_history::Reader;
use quire_proto::{
    Base, CheckpointInfo, CheckpointPlace, CommitHash, CommitHeader, Error, ErrorKind, FrameLocation, FrameObject,
    HEADERS_A_PIECE, LeafRef, Lsn, Origin, Overlay, OverlayStep, PageCount, PageRun, PageSet, PageSource, Result,
    SegmentId, VolumeName, log_back,
};

use super::checkpoints::Opened;
use super::{COMMITS_AT_ONCE, is_damage};

/// What came of a comparison.
pub(crate) enum Compared {
    /// The pages of which the checkpoint says something else than its commits.
    Differing(PageSet),
    /// A commit, or the checkpoint before, is damaged or collected: there is nothing to compare with.
    Unknown(Error),
}

/// What a checkpoint is made from.
struct Source {
    head: CommitHeader,
    /// A trusted checkpoint; none if the volume began since.
    below: Option<Opened>,
    /// The commit of that checkpoint, or the one that began the volume.
    root: CommitHeader,
    /// Those after the checkpoint, or from the root on.
    commits: Vec<OverlayStep>,
}

/// Holds a checkpoint against its commits, from a trusted one or from a root on.
pub(crate) async fn compare(
    reader: &Reader,
    volume: &VolumeName,
    checkpoint: &Opened,
    trusted: &BTreeMap<Lsn, CheckpointPlace>,
) -> Result<Compared> {
    let unknown = |e: &Error| is_damage(e) || e.kind() == ErrorKind::Gone;
    let source = match source(reader, volume, checkpoint.place.lsn, trusted).await {
        Err(e) if unknown(&e) => return Ok(Compared::Unknown(e)),
        source => source?,
    };
    if !is_of(checkpoint.head.info(), &source) {
        let pages = checkpoint.head.info().page_count.max(source.head.page_count).max(PageCount::new(1));
        return Ok(Compared::Differing(PageSet::first(pages)));
    }
    let Source { below, commits, .. } = source;
    let info = below.as_ref().map(|below| below.head.info());
    let mut overlay = Overlay::new(info.map(|info| (info.lsn, info.page_size, info.page_count)), commits)?;
    let mut comparison = Comparison {
        place: checkpoint.place,
        expected: VecDeque::new(),
        found: VecDeque::new(),
        leaves: checkpoint.head.leaves().collect(),
        wrong: PageSet::new(),
    };
    if let Some(below) = &below {
        for place in below.head.leaves() {
            let leaf = match below.leaf(reader, volume, place).await {
                Err(e) if unknown(&e) => return Ok(Compared::Unknown(e)),
                leaf => leaf?,
            };
            for run in leaf.runs() {
                overlay.push(run, |run| comparison.expect(run))?;
            }
            settle(reader, volume, checkpoint, &mut comparison).await?;
        }
    }
    overlay.finish(|run| comparison.expect(run))?;
    settle(reader, volume, checkpoint, &mut comparison).await?;
    while let Some(place) = comparison.leaves.pop_front() {
        comparison.found.extend(checkpoint.leaf(reader, volume, place).await?.runs());
    }
    Ok(Compared::Differing(comparison.finish()))
}

/// Reads what the checkpoint of an LSN is made from.
async fn source(
    reader: &Reader,
    volume: &VolumeName,
    lsn: Lsn,
    trusted: &BTreeMap<Lsn, CheckpointPlace>,
) -> Result<Source> {
    let head = reader.commit(volume, lsn).await?.header().clone();
    let (root, commits) = steps(reader, volume, &head, trusted).await?;
    let commits = futures::stream::iter(commits).map(|(lsn, hash)| async move {
        let commit = reader.commit(volume, lsn).await?;
        // One that was replaced is reported as that.
        if commit.hash() == hash { OverlayStep::of(&commit) } else { Err(replaced(lsn)) }
    });
    let commits = commits.buffered(COMMITS_AT_ONCE).try_collect().await?;
    let below = match trusted.get(&root.lsn) {
        Some(place) => Some(Opened::open(reader, volume, *place).await?),
        None => None,
    };
    Ok(Source { head, below, root, commits })
}

/// Whether what a checkpoint says besides its runs follows from what it is made from.
fn is_of(info: &CheckpointInfo, source: &Source) -> bool {
    let Source { head, below, root, .. } = source;
    let below = below.as_ref().map(|below| below.head.info());
    let origin = match (below, &root.base) {
        (Some(below), _) => below.origin.clone(),
        (None, Base::Other { volume, lsn, hash }) => Some(Origin { volume: volume.clone(), lsn: *lsn, hash: *hash }),
        (None, _) => None,
    };
    // Creations and forks go on from nothing here: they begin a volume.
    let began = below.map_or((root.lsn, root.id), |below| (below.began, below.incarnation));
    (info.began, info.incarnation) == began
        && info.origin == origin
        && info.commit == head.hash()
        && (info.page_size, info.page_count, &info.attributes) == (head.page_size, head.page_count, &head.attributes)
}

/// Compares what is expected so far.
async fn settle(reader: &Reader, volume: &VolumeName, checkpoint: &Opened, comparison: &mut Comparison) -> Result<()> {
    while comparison.settle() {
        let Some(place) = comparison.leaves.pop_front() else {
            comparison.miss();
            break;
        };
        let leaf = checkpoint.leaf(reader, volume, place).await?;
        comparison.found.extend(leaf.runs());
    }
    Ok(())
}

/// Goes back from `head`, over a restore from the snapshot that was restored, to the commit of a trusted checkpoint or
/// to a root. Returns that one, and the commits on the way: those after the checkpoint, or from the root on.
async fn steps(
    reader: &Reader,
    volume: &VolumeName,
    head: &CommitHeader,
    trusted: &BTreeMap<Lsn, CheckpointPlace>,
) -> Result<(CommitHeader, Vec<(Lsn, CommitHash)>)> {
    let mut newest_first: Vec<(Lsn, CommitHash)> = Vec::new();
    let mut at = head.clone();
    let root = loop {
        let mut headers = pin!(log_back(reader.metastore(), volume, &at, Lsn::FIRST, HEADERS_A_PIECE));
        let (oldest, is_trusted) = loop {
            let Some(header) = headers.try_next().await? else { return Err(replaced(at.lsn)) };
            if trusted.contains_key(&header.lsn) {
                break (header, true);
            }
            newest_first.push((header.lsn, header.hash()));
            if header.base != Base::Previous {
                break (header, false);
            }
        };
        match oldest.base {
            Base::Older { lsn, hash } if !is_trusted => {
                at = reader.commit(volume, lsn).await?.header().clone();
                if at.hash() != hash {
                    return Err(replaced(lsn));
                }
            }
            _ => break oldest,
        }
    };
    newest_first.reverse();
    Ok((root, newest_first))
}

fn replaced(lsn: Lsn) -> Error {
    Error::corrupt(format!("LSN {lsn} is not the commit that its log has"))
}

/// Runs of two indexes of one snapshot, which cut its pages differently.
struct Comparison {
    /// The checkpoint that is compared.
    place: CheckpointPlace,
    expected: VecDeque<PageRun>,
    found: VecDeque<PageRun>,
    /// The leaves that were not fetched yet.
    leaves: VecDeque<LeafRef>,
    wrong: PageSet,
}

impl Comparison {
    fn expect(&mut self, run: PageRun) -> Result<()> {
        self.expected.push_back(run);
        Ok(())
    }

    /// Compares as far as both go. True: more must be found.
    fn settle(&mut self) -> bool {
        while let Some(expected) = self.expected.front_mut() {
            let Some(found) = self.found.front_mut() else { return true };
            let count = expected.count.min(found.count);
            if !alike(expected, found, self.place) || expected.first != found.first {
                let first = expected.first.get();
                self.wrong.insert_range(first, first + count - 1);
            }
            if advance(expected, count) {
                self.expected.pop_front();
            }
            if advance(found, count) {
                self.found.pop_front();
            }
        }
        false
    }

    /// What is wrong, now that all is there which was expected; what is more is wrong too.
    fn finish(mut self) -> PageSet {
        for run in self.found {
            self.wrong.insert_range(run.first.get(), run.last().get());
        }
        self.wrong
    }

    /// Nothing more is there of what is expected.
    fn miss(&mut self) {
        for run in self.expected.drain(..) {
            self.wrong.insert_range(run.first.get(), run.last().get());
        }
    }
}

/// Takes pages from the front of a run. True: none are left.
fn advance(run: &mut PageRun, count: u32) -> bool {
    run.count -= count;
    match quire_proto::PageIdx::new(run.first.get().saturating_add(count)) {
        Some(first) if run.count > 0 => {
            run.first = first;
            false
        }
        _ => true,
    }
}

/// Whether the checkpoint `place` may say either of the same pages.
fn alike(a: &PageRun, b: &PageRun, place: CheckpointPlace) -> bool {
    let same_source = match (a.source, b.source) {
        (PageSource::Frame(a), PageSource::Frame(b)) => a == b || may_move(&a, &b, place) || may_move(&b, &a, place),
        (a, b) => a == b,
    };
    same_source && a.changed == b.changed
}

/// Whether the checkpoint `place` may know that a compaction has moved pages from one frame to another: one of this
/// snapshot or of an earlier one, which had them already. The pages were compared when they were moved.
fn may_move(from: &FrameLocation, to: &FrameLocation, place: CheckpointPlace) -> bool {
    let FrameObject::Segment(SegmentId { target, generation, .. }) = to.object else { return false };
    generation > 0 && from.owner <= target && CheckpointPlace { lsn: target, generation } <= place
}

#[cfg(test)]
mod tests {
    use quire_proto::PageIdx;
    use ulid::Ulid;

    use super::*;

    fn lsn(n: u64) -> Lsn {
        Lsn::new(n).unwrap()
    }

    /// Pages of a frame that a commit carries.
    fn pushed(owner: u64) -> PageRun {
        let frame =
            FrameLocation { owner: lsn(owner), object: FrameObject::Commit, offset: 0, len_bytes: 100, page_count: 1 };
        PageRun { first: PageIdx::FIRST, count: 1, source: PageSource::Frame(frame), changed: lsn(2) }
    }

    /// The same pages in a frame that a compaction wrote.
    fn compacted(target: u64, generation: u32) -> PageRun {
        let id = SegmentId { target: lsn(target), generation, ulid: Ulid::from_bytes([7; 16]) };
        let frame = FrameLocation {
            owner: lsn(target),
            object: FrameObject::Segment(id),
            offset: 5,
            len_bytes: 100,
            page_count: 1,
        };
        PageRun { source: PageSource::Frame(frame), ..pushed(target) }
    }

    #[test]
    fn a_compaction_moves_what_was_there_and_what_is_written_later_knows_of_it() {
        let of = |lsn, generation| CheckpointPlace { lsn, generation };
        let later = of(lsn(9), 0);
        for (a, b) in [(pushed(2), compacted(4, 1)), (pushed(4), compacted(4, 1)), (compacted(4, 1), compacted(6, 2))] {
            assert!(alike(&a, &b, later) && alike(&b, &a, later), "{a:?}, {b:?}");
        }
        // What came after it.
        assert!(!alike(&pushed(5), &compacted(4, 1), later));
        // A compaction of this snapshot, which makes the next generation, and one of a later one.
        assert!(alike(&pushed(2), &compacted(9, 1), of(lsn(9), 1)));
        assert!(!alike(&pushed(2), &compacted(9, 1), later));
        assert!(!alike(&pushed(2), &compacted(10, 1), of(lsn(9), 3)));
        // Nothing but compactions moves anything, and none changes a page.
        assert!(!alike(&pushed(2), &pushed(1), later));
        assert!(!alike(&PageRun { source: PageSource::Zero, ..pushed(2) }, &compacted(4, 1), later));
        assert!(!alike(&PageRun { changed: lsn(1), ..pushed(2) }, &compacted(4, 1), later));
    }
}
