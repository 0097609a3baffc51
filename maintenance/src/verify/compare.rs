//! Does a checkpoint say what its commits say? It is made once more, from the one before it and the commits since,
//! and held against what is stored, run by run.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;

use futures::{StreamExt, TryStreamExt};
use quire_history::Reader;
use quire_proto::{
    Base, CheckpointInfo, CheckpointPlace, CommitHash, CommitHeader, Error, ErrorKind, HEADERS_A_PIECE, LeafRef, Lsn,
    Origin, Overlay, OverlayStep, PageCount, PageRun, PageSet, PageSource, Result, VolumeName, log_back,
};

use super::checkpoints::Opened;
use super::{COMMITS_AT_ONCE, is_damage};

/// The commits from a checkpoint, or a root, to the one whose checkpoint is compared.
struct Steps {
    below: Option<CheckpointPlace>,
    /// What the first of them goes on from, if there is nothing below.
    root: Base,
    commits: Vec<(Lsn, CommitHash)>,
}

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
    below: Option<Opened>,
    root: Base,
    commits: Vec<OverlayStep>,
}

/// Holds a checkpoint against its commits, from a trusted one or from a root on. If `moved`, compactions may have moved
/// frames of what is trusted as well.
pub(crate) async fn compare(
    reader: &Reader,
    volume: &VolumeName,
    checkpoint: &Opened,
    trusted: &BTreeMap<Lsn, CheckpointPlace>,
    moved: bool,
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
    // A compaction moves frames.
    let is_of_the_log = |opened: &Opened| opened.place.generation == 0;
    let exact = !moved && is_of_the_log(checkpoint) && below.as_ref().is_none_or(is_of_the_log);
    let mut comparison = Comparison {
        expected: VecDeque::new(),
        found: VecDeque::new(),
        leaves: checkpoint.head.leaves().collect(),
        exact,
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
    let Steps { below, root, commits } = steps(reader, volume, &head, trusted).await?;
    let commits = futures::stream::iter(commits).map(|(lsn, hash)| async move {
        let commit = reader.commit(volume, lsn).await?;
        // One that was replaced is reported as that.
        if commit.hash() == hash { OverlayStep::of(&commit) } else { Err(replaced(lsn)) }
    });
    let commits = commits.buffered(COMMITS_AT_ONCE).try_collect().await?;
    let below = match below {
        Some(place) => Some(Opened::open(reader, volume, place).await?),
        None => None,
    };
    Ok(Source { head, below, root, commits })
}

/// Whether what a checkpoint says besides its runs follows from what it is made from.
fn is_of(info: &CheckpointInfo, source: &Source) -> bool {
    let Source { head, below, root, .. } = source;
    let below = below.as_ref().map(|below| below.head.info());
    let origin = match (below, root) {
        (Some(below), _) => below.origin.clone(),
        (None, Base::Other { volume, lsn, hash }) => Some(Origin { volume: volume.clone(), lsn: *lsn, hash: *hash }),
        (None, _) => None,
    };
    let began = below.is_none_or(|below| (below.began, below.incarnation) == (info.began, info.incarnation));
    began
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

/// Goes back from `head`, over a restore from the snapshot that was restored, to a trusted checkpoint or a root.
async fn steps(
    reader: &Reader,
    volume: &VolumeName,
    head: &CommitHeader,
    trusted: &BTreeMap<Lsn, CheckpointPlace>,
) -> Result<Steps> {
    let mut newest_first: Vec<(Lsn, CommitHash)> = Vec::new();
    let mut at = head.clone();
    loop {
        let mut headers = pin!(log_back(reader.metastore(), volume, &at, Lsn::FIRST, HEADERS_A_PIECE));
        let base = loop {
            let Some(header) = headers.try_next().await? else { return Err(replaced(at.lsn)) };
            if let Some(place) = trusted.get(&header.lsn) {
                newest_first.reverse();
                return Ok(Steps { below: Some(*place), root: header.base, commits: newest_first });
            }
            newest_first.push((header.lsn, header.hash()));
            if header.base != Base::Previous {
                break header.base;
            }
        };
        match base {
            Base::Older { lsn, hash } => {
                at = reader.commit(volume, lsn).await?.header().clone();
                if at.hash() != hash {
                    return Err(replaced(lsn));
                }
            }
            root => {
                newest_first.reverse();
                return Ok(Steps { below: None, root, commits: newest_first });
            }
        }
    }
}

fn replaced(lsn: Lsn) -> Error {
    Error::corrupt(format!("LSN {lsn} is not the commit that its log has"))
}

/// Runs of two indexes of one snapshot, which cut its pages differently.
struct Comparison {
    expected: VecDeque<PageRun>,
    found: VecDeque<PageRun>,
    /// The leaves that were not fetched yet.
    leaves: VecDeque<LeafRef>,
    exact: bool,
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
            if !alike(expected, found, self.exact) || expected.first != found.first {
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

fn alike(a: &PageRun, b: &PageRun, exact: bool) -> bool {
    let same_source = match (a.source, b.source) {
        // What a compaction has moved is somebody else's frame; its pages were compared when they were moved.
        (PageSource::Frame(a), PageSource::Frame(b)) => a == b || !exact && (a.is_compacted() || b.is_compacted()),
        (a, b) => a == b,
    };
    same_source && a.changed == b.changed
}
