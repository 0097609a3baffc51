//! Reading headers back: to where a volume began, or to where a snapshot does
//! not go on from the commit before.

use quire_proto::{CommitHeader, Error, ErrorKind, Lsn, PageSet, Result, VolumeName};

use crate::Reader;

/// Headers are read back in pieces of so many.
const HEADERS_A_PIECE: u64 = 1024;

/// The header of the commit that began the volume's incarnation.
pub async fn beginning(reader: &Reader, volume: &VolumeName, head: &CommitHeader) -> Result<CommitHeader> {
    Ok(back_to(reader, volume, Lsn::FIRST, head, |header| header.kind.begins()).await?.swap_remove(0))
}

/// The headers up to `head` from the newest of which `is_first` holds, or from `lowest` if none does: LSN 1 must.
pub(crate) async fn back_to(
    reader: &Reader,
    volume: &VolumeName,
    lowest: Lsn,
    head: &CommitHeader,
    is_first: fn(&CommitHeader) -> bool,
) -> Result<Vec<CommitHeader>> {
    let mut newest_first = vec![head.clone()];
    loop {
        let oldest = newest_first[newest_first.len() - 1].clone();
        if is_first(&oldest) || (oldest.lsn == lowest && lowest > Lsn::FIRST) {
            newest_first.reverse();
            return Ok(newest_first);
        }
        if oldest.lsn <= lowest {
            return Err(Error::corrupt(format!("volume {volume} has no beginning")));
        }
        let low = Lsn::new(oldest.lsn.get().saturating_sub(HEADERS_A_PIECE)).unwrap_or(Lsn::FIRST).max(lowest);
        let piece = reader.headers(volume, low, &oldest).await?;
        for header in piece.into_iter().rev().skip(1) {
            let found = is_first(&header);
            newest_first.push(header);
            if found {
                break;
            }
        }
    }
}

/// The pages that commits of a volume changed, together.
pub async fn changed_by(reader: &Reader, volume: &VolumeName, commits: &[CommitHeader]) -> Result<PageSet> {
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
