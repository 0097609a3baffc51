//! Is what the store keeps of a volume all there, and what was written?
//!
//! The log is read from its first commit to its last, each commit whole, with its segments: whether they are there
//! ([`Depth::Plain`]), or every byte of them ([`Depth::Deep`]). Checkpoints are decoded, and deep down compared with
//! the commits that they were made from. What is damaged is followed through all later snapshots (`lost.rs`), so that
//! the report can say which of them can still be read.
//!
//! Only what the store itself says is missing, or what it gives that was not written, is damage. Whatever could not
//! be found out is an error. Collected history is neither.

mod checkpoints;
mod compare;
mod content;
mod damage;
mod log;
mod lost;
mod note;
mod owners;
mod segment;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use quire_history::Reader;
use quire_proto::{
    Base, CommitHash, CommitHeader, Error, ErrorKind, Lsn, PageCount, PageSet, Result, VolumeName, VolumeState,
};
use tokio::sync::Semaphore;

pub(crate) use checkpoints::{Opened, is_listed};
pub(crate) use compare::{Compared, compare};
pub use damage::{Damage, Object};
pub use note::{Note, Notes};
pub use owners::owners;

use damage::Findings;
use lost::{Standing, State};

/// How many commits are read at the same time.
const COMMITS_AT_ONCE: usize = 32;
/// How many segments are read whole at the same time: each takes the memory of a few pieces.
const SCANS_AT_ONCE: usize = 4;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every commit; of segments whether they are there with their length; the newest checkpoint.
    Plain,
    /// Every byte, and whether the checkpoints say what the commits say.
    Deep,
}

/// What a verification found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The volume, as the store calls it.
    pub volume: VolumeName,
    /// How much was read.
    pub depth: Depth,
    /// The newest LSN.
    pub lsn: Lsn,
    /// How many pages its snapshot has.
    pub page_count: PageCount,
    /// How many commits were read, those of fork bases included.
    pub commits: u64,
    /// How many were collected: their snapshots cannot be had any more, and that is as it should be.
    pub collected: u64,
    /// How many segments there are.
    pub segments: u64,
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// How many bytes these commits and segments have, as far as they were read.
    pub bytes: u64,
    /// What is damaged, the first of it.
    pub damage: Vec<Damage>,
    /// How much more is.
    pub more_damage: u64,
    /// Snapshots that cannot be read, or not entirely: first and last LSN of each stretch.
    pub touched: Vec<(Lsn, Lsn)>,
    /// The pages of the newest snapshot that cannot be read; none if nothing of it can.
    pub lost: Option<PageSet>,
    /// The newest snapshot that can be read entirely.
    pub readable: Option<Lsn>,
    /// Whether that snapshot is of the volume as it is now, so that it can be restored.
    pub restorable: bool,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Verifies what the store keeps of a volume.
pub async fn verify(reader: Arc<Reader>, volume: VolumeName, depth: Depth) -> Result<Report> {
    let mut unreadable_head = None;
    let last = match reader.metastore().head(&volume).await {
        Ok(VolumeState::Live(head) | VolumeState::Ended { head, .. }) => (head.lsn(), head.header().page_count),
        Ok(VolumeState::Free { .. }) => {
            return Err(Error::not_found(format!("there is no volume {volume} in the store"))
                .with_remedy("`quire ls` shows the volumes there are."));
        }
        Err(e) if e.kind() == ErrorKind::Corrupt => match last_lsn(&reader, &volume).await? {
            Some(last) => {
                unreadable_head = Some(e);
                (last, PageCount::ZERO)
            }
            None => return Err(e),
        },
        Err(e) => return Err(e),
    };
    let mut job = Job {
        reader,
        depth,
        findings: Findings::default(),
        scans: Semaphore::new(SCANS_AT_ONCE),
        tally: Tally::default(),
        nested: 0,
        bases: HashMap::new(),
    };
    let path = job.log(&volume, Lsn::FIRST, (last.0, None)).await?;
    if let Some(e) = unreadable_head.filter(|_| job.findings.is_empty()) {
        let object = Object::Commit { lsn: last.0 };
        job.findings.add(Damage { volume: volume.clone(), object, problem: e.to_string(), pages: PageSet::new() });
    }
    let Job { findings, tally, .. } = job;
    let readable = path.newest_readable();
    let (damage, more_damage) = findings.into_parts();
    Ok(Report {
        volume,
        depth,
        lsn: last.0,
        page_count: last.1,
        commits: tally.commits,
        collected: tally.collected,
        segments: tally.segments,
        checkpoints: tally.checkpoints,
        bytes: tally.bytes,
        damage,
        more_damage,
        touched: path.touched(),
        lost: match path.at(last.0).seen {
            Standing::Lacks(pages) => Some((*pages).clone()),
            Standing::None | Standing::Collected => Some(PageSet::new()),
            Standing::Unreadable => None,
        },
        restorable: readable.is_some_and(|lsn| path.began() <= lsn),
        readable,
    })
}

/// What forks stand on is followed before it is looked at, except where it is damaged or made up: then so far only.
const MOST_NESTED: usize = 32;

/// What a verification works with, and what it has found so far.
struct Job {
    reader: Arc<Reader>,
    depth: Depth,
    findings: Findings,
    scans: Semaphore,
    tally: Tally,
    /// How many of them are being looked at, each for the one before.
    nested: usize,
    /// Snapshots that forks were made from, how they stand, and what was found of them.
    bases: HashMap<(VolumeName, Lsn), (State, Findings)>,
}

#[derive(Default)]
struct Tally {
    commits: u64,
    collected: u64,
    segments: u64,
    checkpoints: u64,
    bytes: u64,
}

/// Whether an error says that an object is missing, or is not what was written.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt)
}

/// Whether a log ends before an LSN.
async fn ends_before(reader: &Reader, volume: &VolumeName, lsn: Lsn) -> Result<bool> {
    match reader.metastore().head(volume).await {
        Ok(state) => Ok(state.next() <= lsn),
        Err(e) if is_damage(&e) || e.kind() == ErrorKind::Gone => {
            Ok(last_lsn(reader, volume).await?.is_none_or(|last| last < lsn))
        }
        Err(e) => Err(e),
    }
}

/// The newest LSN of a log whose newest commit cannot be read. It takes a list of all of it.
async fn last_lsn(reader: &Reader, volume: &VolumeName) -> Result<Option<Lsn>> {
    let times = reader.metastore().stored_times(volume, Lsn::FIRST, Lsn::try_new(Lsn::MAX)?).await?;
    Ok(times.last_key_value().map(|(lsn, _)| *lsn))
}

impl Job {
    /// How the snapshot stands that a fork was made from. Damage counts only as far as the fork needs it.
    fn base<'a>(&'a mut self, volume: &'a VolumeName, lsn: Lsn, hash: CommitHash) -> BoxFuture<'a, Result<State>> {
        Box::pin(async move {
            if self.nested == MOST_NESTED {
                return Ok(State::same(Standing::Unreadable));
            }
            self.nested += 1;
            // What stands on nothing first: there may be thousands of forks of forks.
            let (mut chain, mut seen) = (Vec::new(), HashSet::new());
            let mut next = Some((volume.clone(), lsn, hash));
            while let Some((volume, lsn, hash)) = next {
                let place = (volume, lsn);
                if self.bases.contains_key(&place) || !seen.insert(place.clone()) {
                    break;
                }
                let (first, below) = self.began(&place.0, lsn, hash).await?;
                chain.push((place, hash, first));
                next = below;
            }
            for (place, hash, first) in chain.into_iter().rev() {
                // A snapshot that stands on itself in the end is not there: only who makes up hashes can say so.
                self.bases.insert(place.clone(), (State::same(Standing::Unreadable), Findings::default()));
                let own = std::mem::take(&mut self.findings);
                let path = self.log(&place.0, first, (place.1, Some(hash))).await;
                let theirs = std::mem::replace(&mut self.findings, own);
                let state = path?.at(place.1);
                self.bases.insert(place, (state, theirs));
            }
            self.nested -= 1;
            let place = (volume.clone(), lsn);
            let Some((state, theirs)) = self.bases.get(&place) else {
                return Ok(State::same(Standing::Unreadable));
            };
            if self.findings.is_new_base(place) {
                match &state.seen {
                    Standing::Lacks(pages) => self.findings.add_needed(theirs.clone(), pages),
                    Standing::Unreadable => self.findings.add_all(theirs.clone()),
                    Standing::None | Standing::Collected => {}
                }
            }
            Ok(state.clone())
        })
    }

    /// Where the volume of a snapshot began, and what it stands on there if that is another one's.
    async fn began(
        &self,
        volume: &VolumeName,
        lsn: Lsn,
        hash: CommitHash,
    ) -> Result<(Lsn, Option<(VolumeName, Lsn, CommitHash)>)> {
        let beginning = async {
            let commit = self.reader.commit_of_log(volume, (lsn, hash)).await?;
            quire_history::beginning(&self.reader, volume, commit.header()).await
        };
        match beginning.await {
            Ok(CommitHeader { lsn, base: Base::Other { volume, lsn: on, hash }, .. }) => {
                Ok((lsn, Some((volume, on, hash))))
            }
            Ok(header) => Ok((header.lsn, None)),
            // Past the end of the log there is nothing to be told.
            Err(e) if e.kind() == ErrorKind::NotFound && ends_before(&self.reader, volume, lsn).await? => {
                Ok((lsn, None))
            }
            // The log tells what is wrong.
            Err(e) if is_damage(&e) || e.kind() == ErrorKind::Gone => Ok((Lsn::FIRST, None)),
            Err(e) => Err(e),
        }
    }
}
