//! Reading headers back: to where a volume began, or to where a snapshot does
//! not go on from the commit before.

use std::pin::pin;

use futures::{Stream, TryStreamExt};
use quire_proto::{CommitHeader, Error, ErrorKind, HEADERS_A_PIECE, Lsn, PageSet, Result, VolumeName, headers_back};

use crate::Reader;

/// The header of the commit that began the volume's incarnation.
pub async fn beginning(reader: &Reader, volume: &VolumeName, head: &CommitHeader) -> Result<CommitHeader> {
    let mut headers = pin!(back(reader, volume, Lsn::FIRST, head));
    while let Some(header) = headers.try_next().await? {
        if header.kind.begins() {
            return Ok(header);
        }
    }
    Err(no_beginning(volume))
}

/// The headers up to `head` from the newest of which `is_first` holds, or from `lowest` if none does: LSN 1 must.
pub(crate) async fn back_to(
    reader: &Reader,
    volume: &VolumeName,
    lowest: Lsn,
    head: &CommitHeader,
    is_first: fn(&CommitHeader) -> bool,
) -> Result<Vec<CommitHeader>> {
    let mut headers = pin!(back(reader, volume, lowest, head));
    let mut newest_first = Vec::new();
    while let Some(header) = headers.try_next().await? {
        let found = is_first(&header) || (header.lsn == lowest && lowest > Lsn::FIRST);
        newest_first.push(header);
        if found {
            newest_first.reverse();
            return Ok(newest_first);
        }
    }
    Err(no_beginning(volume))
}

fn back<'a>(
    reader: &'a Reader,
    volume: &'a VolumeName,
    lowest: Lsn,
    head: &CommitHeader,
) -> impl Stream<Item = Result<CommitHeader>> + Send + 'a {
    let piece = move |low, last: CommitHeader| async move { reader.headers(volume, low, &last).await };
    headers_back(head.clone(), lowest, HEADERS_A_PIECE, piece)
}

fn no_beginning(volume: &VolumeName) -> Error {
    Error::corrupt(format!("volume {volume} has no beginning"))
}

/// The pages that commits of a volume changed, together.
pub(crate) async fn changed_by(reader: &Reader, volume: &VolumeName, commits: &[CommitHeader]) -> Result<PageSet> {
    let mut changed = PageSet::new();
    for header in commits {
        match &header.sets {
            Some(sets) => changed.union_with(&sets.changed),
            None => {
                let commit = reader.commit_of_log(volume, (header.lsn, header.hash())).await?;
                changed.union_with(&commit.body().sets.changed);
            }
        }
    }
    Ok(changed)
}

/// The store has another history than the one that somebody knows.
pub fn replaced(volume: &VolumeName, lsn: Lsn) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("volume {volume} in the store is another one now: its commit {lsn} is not the one this replica knows"),
    )
    .with_remedy("`quire reset NAME` goes over to it and keeps unpushed commits as NAME.dropped-N.")
}
