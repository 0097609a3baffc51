//! Renaming, in two appends that a crash may part:
//!
//! 1. (new, k), a fork of (old, n) on condition that the rename takes place:
//!    it reserves the name and carries the exact bytes of the second commit.
//! 2. (old, n+1), the `moved` commit: the only decision. Whoever finds it
//!    missing may append it; whoever writes to the old name first prevents it.

use quire_proto::{
    Appended, Base, Body, CommitHeader, CommitId, CommitKind, Condition, Error, ErrorKind, Marker, MarkerTarget,
    Metastore, PageSet, PageSets, Result, SealedCommit, VolumeName, VolumeState,
};

use crate::delete::{ending, not_live};
use crate::embedded::Embedded;

pub(crate) async fn rename(store: &Embedded, old: &VolumeName, new: &VolumeName, author: &str) -> Result<SealedCommit> {
    if old == new {
        return Err(
            Error::invalid(format!("volume {old} already has the name {new}")).with_remedy("Choose another name.")
        );
    }
    // In this order: looking at a name settles a rename to it that was left
    // undecided, and an earlier attempt at this one must not be taken for a rival.
    let source = store.head(old).await?;
    let target = store.head(new).await?;
    if let Some(fork) = finished(old, &source, &target) {
        return Ok(fork);
    }
    let VolumeState::Live(head) = source else { return Err(not_live(old, &source)) };
    if matches!(target, VolumeState::Live(_)) {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("volume {new} exists, so {old} cannot take its name"),
        )
        .with_remedy("Choose another name, or delete that volume first."));
    }
    let moved = moved(store, head.header(), new, author)?;
    let fork = reservation(store, old, head.header(), &target, &moved, author)?;
    // Before the new name relies on the old one's pages: they stay where they are.
    let base = (old.clone(), head.lsn(), head.hash());
    store.mark(&Marker { base, target: MarkerTarget::Commit(new.clone(), fork.lsn()) }).await?;
    if let Appended::Lost(_) = store.append(new, &fork).await? {
        return Err(overtaken(format!("the name {new} was taken just now"), old));
    }
    match store.append(old, &moved).await {
        Ok(Appended::Won) => Ok(fork),
        Ok(Appended::Lost(winner)) => {
            Err(overtaken(format!("volume {old} got LSN {} while it was to become {new}", winner.header.lsn), old))
        }
        Err(e) => Err(e.context(format_args!(
            "whether {old} became {new} is unknown; the same rename again settles it, and so does opening {new}"
        ))),
    }
}

/// The newest commit under the new name, if it is the first of just this
/// rename: made by an earlier call, or settled by the look at the new name.
fn finished(old: &VolumeName, source: &VolumeState, target: &VolumeState) -> Option<SealedCommit> {
    let VolumeState::Live(fork) = target else { return None };
    let condition = fork.header().condition.as_ref()?;
    let Base::Other { volume, lsn, .. } = &fork.header().base else { return None };
    let same = match source {
        VolumeState::Ended { by, .. } => by.header().id == condition.moved_id,
        VolumeState::Live(head) => head.lsn() == *lsn,
        VolumeState::Free { .. } => false,
    };
    (same && volume == old).then(|| fork.as_ref().clone())
}

fn moved(store: &Embedded, head: &CommitHeader, new: &VolumeName, author: &str) -> Result<SealedCommit> {
    let mut header = ending(store, head, CommitKind::Moved, author)?;
    header.moved_to = Some(new.clone());
    SealedCommit::seal(header, Body::default())
}

fn reservation(
    store: &Embedded,
    old: &VolumeName,
    head: &CommitHeader,
    target: &VolumeState,
    moved: &SealedCommit,
    author: &str,
) -> Result<SealedCommit> {
    let lsn = target.next();
    let mut header = CommitHeader::draft(lsn, CommitKind::Fork, CommitId::random()?, head.page_size);
    header.parent = target.head().map(SealedCommit::hash);
    header.base = Base::Other { volume: old.clone(), lsn: head.lsn, hash: head.hash() };
    header.author = author.to_owned();
    header.time_ms = (store.options.now_ms)();
    header.page_count = head.page_count;
    header.min_count = head.page_count;
    header.attributes = head.attributes.clone();
    header.condition = Some(Condition { moved_id: moved.header().id, moved_object: moved.object().clone() });
    let sets = PageSets { changed: PageSet::first(head.page_count), owned: Some(PageSet::new()) };
    SealedCommit::seal(header, Body { sets, ..Body::default() })
}

fn overtaken(what: String, old: &VolumeName) -> Error {
    Error::new(ErrorKind::Conflict, format!("{what}; {old} keeps its name")).with_remedy("Rename it again.")
}
