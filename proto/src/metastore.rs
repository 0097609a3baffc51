//! The trait of whatever orders a volume's commits.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{CommitHeader, Lsn, Marker, ObjectHash, Result, SealedCommit, Statement, VolumeName};

/// The name of a checkpoint: the LSN of its snapshot, and which one of that LSN it is. The highest generation counts:
/// 0 is of the log alone, each compaction makes the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointPlace {
    /// The LSN of its snapshot.
    pub lsn: Lsn,
    /// Its generation, from 0.
    pub generation: u32,
}

impl CheckpointPlace {
    /// The last place that a checkpoint of this LSN can have.
    pub fn last_of(lsn: Lsn) -> CheckpointPlace {
        CheckpointPlace { lsn, generation: u32::MAX }
    }

    /// The place before this one: of the same LSN as long as there is a lower generation.
    pub fn prev(self) -> Option<CheckpointPlace> {
        match self.generation.checked_sub(1) {
            Some(generation) => Some(CheckpointPlace { generation, ..self }),
            None => self.lsn.prev().map(CheckpointPlace::last_of),
        }
    }
}

/// How an append ended.
#[derive(Clone, Debug)]
pub enum Appended {
    /// The commit is the volume's commit at its LSN, durably. Also the answer
    /// to a retry of an append that had already won.
    Won,
    /// Another commit has that LSN.
    Lost(Box<Winner>),
}

/// The commit that has an LSN which somebody else wanted.
#[derive(Clone, Debug)]
pub struct Winner {
    /// Its header.
    pub header: CommitHeader,
    /// The hash of its whole object.
    pub object_hash: ObjectHash,
}

/// What a name stands for now.
#[derive(Clone, Debug)]
pub enum VolumeState {
    /// No commit, or voids only: the name is free. `next` is the LSN that a
    /// creation takes, `head` the last void.
    Free {
        /// The LSN of the next commit.
        next: Lsn,
        /// The newest commit, if there is any.
        head: Option<Box<SealedCommit>>,
    },
    /// A volume lives under this name; this is its newest commit.
    Live(Box<SealedCommit>),
    /// The volume was deleted or moved, and the name is free again.
    Ended {
        /// The commit that says so.
        by: Box<SealedCommit>,
        /// The newest commit: `by` itself, or a void after it. The next
        /// creation takes the LSN after it.
        head: Box<SealedCommit>,
    },
}

impl VolumeState {
    /// The newest commit, whatever it is.
    pub fn head(&self) -> Option<&SealedCommit> {
        match self {
            VolumeState::Free { head, .. } => head.as_deref(),
            VolumeState::Live(head) | VolumeState::Ended { head, .. } => Some(head),
        }
    }

    /// The newest commit of a live volume.
    pub fn live(self) -> Option<SealedCommit> {
        match self {
            VolumeState::Live(head) => Some(*head),
            _ => None,
        }
    }

    /// The LSN that the next commit takes.
    pub fn next(&self) -> Lsn {
        self.head().map_or(Lsn::FIRST, |head| head.lsn().next())
    }
}

/// A checkpoint and its first bytes, or none.
pub type Front = Option<(CheckpointPlace, Bytes)>;

/// What whoever opens a volume needs first.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What the name stands for.
    pub state: VolumeState,
    /// The newest checkpoint and its first [`CHECKPOINT_FRONT_BYTES`](crate::CHECKPOINT_FRONT_BYTES), or that there is none;
    /// nothing if it could not be read, or is not needed.
    pub front: Option<Front>,
    /// The end of the log: from the checkpoint's commit on, from LSN 1, or from the LSN after the one that the caller
    /// knows. Empty where it is long.
    pub log: LogPart,
}

/// Neighbouring commits of a log.
#[derive(Clone, Debug, Default)]
pub struct LogPart {
    /// Their headers, ascending and linked.
    pub headers: Vec<CommitHeader>,
    /// Those of them, in any order, that came along whole: the front of a small commit is all of it.
    pub commits: Vec<SealedCommit>,
}

/// Who knows a volume up to an LSN that is this far behind is told by a checkpoint what has changed since; the headers
/// of fewer commits come with less.
pub const FAR_COMMITS: u64 = 512;

/// The end of a log that comes along with its head has at most so many commits.
pub const MOST_ALONG: u64 = 1024;

/// A part of a log has at most so many headers: [`headers_back`](crate::headers_back) reads a longer one.
pub const MOST_HEADERS: u64 = 2048;

/// Orders the commits of volumes. Every method may be retried safely. An
/// error of kind `Unavailable` means that the outcome is unknown, and
/// `NotFound` that the store has said so.
#[async_trait]
pub trait Metastore: Send + Sync + 'static {
    /// What a name stands for now: one listing and one read, and a few more
    /// where the newest commit is a void or the fork of a rename. A rename that
    /// was interrupted is settled on the way.
    async fn head(&self, volume: &VolumeName) -> Result<VolumeState>;

    /// As [`head`](Self::head), with what whoever opens the volume needs next, as far as it comes along at no further cost.
    /// `known` is an LSN up to which the caller knows the volume.
    async fn open(&self, volume: &VolumeName, known: Option<Lsn>) -> Result<Opened>;

    /// Makes `commit` the volume's commit at its LSN, if nobody else's is and
    /// the commit before it exists. The caller has made sure that every
    /// segment it names is durable. An LSN with a gap before it is `Invalid`,
    /// and so is a commit that the one before does not allow: a creation over a
    /// live volume, a write to a name without one. A commit that names another
    /// parent than the stored one is a `Conflict`.
    async fn append(&self, volume: &VolumeName, commit: &SealedCommit) -> Result<Appended>;

    /// The commit at `lsn`, whole. A fork with a condition may count as a void: `head` tells. `Gone` if history has
    /// collected what it held; [`header`](Self::header) still knows the rest.
    async fn commit(&self, volume: &VolumeName, lsn: Lsn) -> Result<SealedCommit>;

    /// The header of the commit at `lsn`, whose pages may have been collected.
    async fn header(&self, volume: &VolumeName, lsn: Lsn) -> Result<CommitHeader>;

    /// The headers of `first ..= last.lsn`, ascending, linked by their hashes
    /// and ending in `last`, which the caller got from this store; with the commits that come along at no further cost.
    /// More than [`MOST_HEADERS`] are `Invalid`.
    async fn log(&self, volume: &VolumeName, first: Lsn, last: &CommitHeader) -> Result<LogPart>;

    /// The headers only.
    async fn headers(&self, volume: &VolumeName, first: Lsn, last: &CommitHeader) -> Result<Vec<CommitHeader>> {
        self.log(volume, first, last).await.map(|log| log.headers)
    }

    /// Every commit after `after` as it appears, for ever; an error ends the stream.
    fn watch(&self, volume: &VolumeName, after: Option<Lsn>) -> BoxStream<'static, Result<SealedCommit>>;

    /// The names that begin with `prefix` and under which anything is stored,
    /// in order of their parts; `head` tells what each stands for.
    fn volumes(&self, prefix: &str) -> BoxStream<'static, Result<VolumeName>>;

    /// Does what makes later reads cheap once `head` is acknowledged (roll-ups).
    /// Never needed for correctness; a failure loses nothing.
    async fn tidy(&self, volume: &VolumeName, head: &CommitHeader) -> Result<()>;

    /// Ends the volume's incarnation; its history stays. Returns the commit that says so.
    /// `expected` is the head that the caller has seen: another one is `Conflict`,
    /// unless it is the deletion that this call would have made.
    async fn delete(&self, volume: &VolumeName, expected: Lsn, author: &str) -> Result<SealedCommit>;

    /// Gives the volume another name, which must be free (`AlreadyExists`
    /// otherwise). Returns the first commit under the new name. A commit that
    /// came in between is a `Conflict`, and the volume keeps its name.
    async fn rename(&self, volume: &VolumeName, new: &VolumeName, author: &str) -> Result<SealedCommit>;

    /// Makes snapshot `lsn` the volume's content again, by a new commit whose base it is: no data is copied, and
    /// nothing of the history goes. `expected` is the head that the caller has seen: another one is `Conflict`. A
    /// snapshot from before the volume was created anew is `Invalid`.
    async fn restore(&self, volume: &VolumeName, lsn: Lsn, expected: Lsn, author: &str) -> Result<SealedCommit>;

    /// The newest commit that the store had at `time_ms`, in milliseconds since 1970 by the store's own clock; none
    /// if the volume began later.
    async fn at_time(&self, volume: &VolumeName, time_ms: u64) -> Result<Option<Lsn>>;

    /// When the store got the commits `first ..= last`, in milliseconds since 1970 by its own clock, as
    /// [`at_time`](Self::at_time) goes by: the time of a commit names that one, or the last one of the same time. Of
    /// several, only those that history keeps are known: listings tell, and a collected commit has its time inside.
    async fn stored_times(&self, volume: &VolumeName, first: Lsn, last: Lsn) -> Result<BTreeMap<Lsn, u64>>;

    /// The newest checkpoint of a volume, or of those at or before a place: the highest generation of the highest LSN.
    async fn checkpoint(
        &self,
        volume: &VolumeName,
        at_most: Option<CheckpointPlace>,
    ) -> Result<Option<CheckpointPlace>>;

    /// Bytes of a checkpoint: fewer than asked for where a range from the object's beginning goes past its end.
    async fn read_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace, range: Range<u64>) -> Result<Bytes>;

    /// Makes a checkpoint, if nobody has made that one. Readers check that it is of the commit which has its LSN.
    async fn put_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace, object: Bytes) -> Result<()>;

    /// Notes, durably, that an object is about to rely on a snapshot; then looks whether history still keeps it, and
    /// says `Gone` if not. What is marked and kept will not be collected until the object is there.
    async fn mark(&self, marker: &Marker) -> Result<()>;

    /// Takes back the marker of a replica: its work is in the store, or given up. Nothing happens if there is none;
    /// another kind of marker is `Invalid`, as only a collector can tell that nothing stands on it.
    async fn unmark(&self, marker: &Marker) -> Result<()>;

    /// What is kept of a volume's history, by the newest word of a collector; all, if there was none.
    async fn statement(&self, volume: &VolumeName) -> Result<Statement>;
}
