//! Appending: the bucket's create-only write makes the LSN; before it, the
//! commit's parent must be known to exist.

use quire_bucket::{Created, keys};
use quire_proto::{Appended, CommitHeader, CommitKind, Error, ErrorKind, Lsn, Result, SealedCommit, VolumeName};

use crate::embedded::Embedded;
use crate::tips::Tip;
use crate::{log, state};

pub(crate) async fn append(store: &Embedded, volume: &VolumeName, commit: &SealedCommit) -> Result<Appended> {
    let header = commit.header();
    if store.tips.get(volume).is_some_and(|tip| tip.lsn >= header.lsn) {
        return outcome(store, volume, commit).await;
    }
    let live = match header.lsn.prev() {
        None => false,
        Some(before) => {
            let parent = match parent(store, volume, before).await {
                // Only what has commits after it is collected: the LSN is taken.
                Err(e) if e.kind() == ErrorKind::Gone => return outcome(store, volume, commit).await,
                parent => parent?,
            };
            if header.parent != Some(parent.hash) {
                return Err(other_history(volume, before));
            }
            // In a folder its own directory is synced with a commit: who wrote the one before may not have come to that.
            let [old, new] = [before, header.lsn].map(|lsn| keys::commit(volume, lsn));
            if old.directory() != new.directory() {
                store.bucket.make_durable(&old).await?;
            }
            parent.live
        }
    };
    allowed(volume, header, live)?;
    match store.bucket.create(&keys::commit(volume, header.lsn), commit.object().clone()).await? {
        Created::Won => {
            store.tips.appended(volume, header, live);
            Ok(Appended::Won)
        }
        Created::Lost => outcome(store, volume, commit).await,
    }
}

/// Who has the LSN that `commit` wants, now that it is taken. A retry of an
/// append that had won finds its own bytes.
async fn outcome(store: &Embedded, volume: &VolumeName, commit: &SealedCommit) -> Result<Appended> {
    let there = log::stored(&store.bucket, volume, commit.lsn()).await?.0.winner();
    if there.object_hash != commit.object_hash() {
        return Ok(Appended::Lost(Box::new(there)));
    }
    // Seen, but not yet safe: perhaps it is a retry because syncing has failed.
    store.bucket.make_durable(&keys::commit(volume, commit.lsn())).await?;
    Ok(Appended::Won)
}

/// The commit before, from memory if this process has seen it.
async fn parent(store: &Embedded, volume: &VolumeName, lsn: Lsn) -> Result<Tip> {
    if let Some(tip) = store.tips.get(volume).filter(|tip| tip.lsn == lsn) {
        return Ok(tip);
    }
    let parent = match log::read(&store.bucket, volume, lsn).await {
        Ok(parent) => parent,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(gap(volume, lsn)),
        Err(e) => return Err(e),
    };
    let (lsn, hash) = (parent.lsn(), parent.hash());
    let state = state::of(&store.bucket, volume, parent).await?;
    store.tips.learn(volume, &state);
    Ok(Tip::of(&state).unwrap_or(Tip { lsn, hash, live: false }))
}

/// Refuses what would end a live volume unsaid, or go on with one that is not there.
fn allowed(volume: &VolumeName, header: &CommitHeader, live: bool) -> Result<()> {
    match (header.kind, live) {
        (CommitKind::Void, _) | (CommitKind::Create | CommitKind::Fork, false) => Ok(()),
        (CommitKind::Create | CommitKind::Fork, true) => {
            Err(Error::invalid(format!("LSN {} would begin volume {volume} anew, and it exists", header.lsn))
                .with_remedy("Choose another name, or delete the volume first."))
        }
        (_, true) => Ok(()),
        (kind, false) => Err(Error::invalid(format!(
            "LSN {} of {volume} is a {} commit, and no volume lives under this name",
            header.lsn,
            kind.as_str()
        ))
        .with_remedy("It was deleted or moved, or never created: `quire status` tells.")),
    }
}

fn gap(volume: &VolumeName, before: Lsn) -> Error {
    Error::invalid(format!("volume {volume} has no LSN {before} yet, so none can come after it"))
        .with_remedy("Append the commits of a volume one after the other; check that the store is the right one.")
}

fn other_history(volume: &VolumeName, before: Lsn) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("LSN {before} of volume {volume} in the store is another commit than this replica's"),
    )
    .with_remedy("Check that the store is the right one; `quire reset NAME` goes to the store's history and keeps this one under another name.")
}
