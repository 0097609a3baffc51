//! Deleting a volume: a commit that ends its incarnation. Nothing is removed here.

use quire_proto::{
    Appended, Body, CommitHeader, CommitId, CommitKind, Error, ErrorKind, Lsn, Metastore, Result, SealedCommit,
    VolumeName, VolumeState,
};

use crate::embedded::Embedded;

pub(crate) async fn delete(store: &Embedded, volume: &VolumeName, expected: Lsn, author: &str) -> Result<SealedCommit> {
    let head = match store.head(volume).await? {
        VolumeState::Live(head) => head,
        // A retry of a deletion whose reply was lost.
        VolumeState::Ended { by, .. }
            if by.header().kind == CommitKind::Deleted && by.lsn().prev() == Some(expected) =>
        {
            return Ok(*by);
        }
        ended => return Err(not_live(volume, &ended)),
    };
    if head.lsn() != expected {
        return Err(went_on(volume, head.header()));
    }
    let deleted = SealedCommit::seal(ending(store, head.header(), CommitKind::Deleted, author)?, Body::default())?;
    match store.append(volume, &deleted).await? {
        Appended::Won => Ok(deleted),
        Appended::Lost(winner) => Err(went_on(volume, &winner.header)),
    }
}

/// The draft of a commit that ends the volume whose newest commit is `head`.
pub(crate) fn ending(store: &Embedded, head: &CommitHeader, kind: CommitKind, author: &str) -> Result<CommitHeader> {
    let mut header = CommitHeader::draft(head.lsn.next(), kind, CommitId::random()?, head.page_size);
    header.parent = Some(head.hash());
    header.author = author.to_owned();
    header.time_ms = (store.options.now_ms)();
    header.page_count = head.page_count;
    header.min_count = head.page_count;
    header.attributes = head.attributes.clone();
    Ok(header)
}

/// Why nothing can be done with the volume that a name does not have.
pub(crate) fn not_live(volume: &VolumeName, state: &VolumeState) -> Error {
    match state {
        VolumeState::Ended { by, .. } => match &by.header().moved_to {
            Some(new) => Error::not_found(format!("volume {volume} was moved to {new} at LSN {}", by.lsn()))
                .with_remedy(format!("Use the name {new}.")),
            None => Error::not_found(format!("volume {volume} was deleted at LSN {}", by.lsn()))
                .with_remedy("Its history is still there: fork it at an LSN before that."),
        },
        _ => {
            Error::not_found(format!("the store has no volume {volume}")).with_remedy("`quire ls` shows those it has.")
        }
    }
}

pub(crate) fn went_on(volume: &VolumeName, newest: &CommitHeader) -> Error {
    let (kind, lsn) = (newest.kind.as_str(), newest.lsn);
    Error::new(ErrorKind::Conflict, format!("volume {volume} has gone on to LSN {lsn}, a {kind} commit"))
        .with_remedy("Look at its newest state, then try again.")
}
