//! Reading the headers of a range of commits in few round trips: roll-ups and
//! single headers at the same time, from the newest down, so that each is
//! confirmed by the hash that the one after it names. A single one is read by
//! the front of its commit, and most commits are no longer than that.

use futures::stream::{self, StreamExt, TryStreamExt};
use quire_bucket::{Bucket, keys};
use quire_proto::{
    CommitHash, CommitHeader, Error, LogPart, Lsn, MOST_HEADERS, Result, Rollup, SealedCommit, VolumeName,
};

use crate::log;
use crate::rollups::{self, HEADERS_AT_ONCE};

/// Commits that came along whole are kept up to so many bytes of one part of a log.
const COMMITS_BYTES: usize = 1 << 20;

/// LSNs whose headers come together: a single one from its commit, several
/// from the roll-up that ends at or after `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    first: Lsn,
    last: Lsn,
}

/// What was found of a log before its last commit, from the newest down; yet to be linked.
pub(crate) struct Found {
    bucket: Bucket,
    volume: VolumeName,
    pieces: Vec<(Piece, Answer)>,
}

/// What was found of a piece.
enum Answer {
    Rollup(Vec<CommitHeader>),
    Single(Box<(CommitHeader, Option<SealedCommit>)>),
    /// There is no sound roll-up.
    Nothing,
}

/// Looks for what `first .. end` was, where `end` is a commit of the log.
pub(crate) async fn find(bucket: &Bucket, volume: &VolumeName, first: Lsn, end: Lsn) -> Result<Found> {
    let pieces = stream::iter(pieces(first, end))
        .map(|piece| async move { fetch(bucket, volume, piece).await.map(|answer| (piece, answer)) })
        .buffered(HEADERS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(Found { bucket: bucket.clone(), volume: volume.clone(), pieces })
}

impl Found {
    /// All of it, ascending, linked to the commit after it.
    pub(crate) async fn linked(self, last: &CommitHeader) -> Result<LogPart> {
        let Found { bucket, volume, pieces } = self;
        let (bucket, volume) = (&bucket, &volume);
        let mut chain = Chain { descending: vec![last.clone()], commits: Vec::new(), bytes: 0 };
        for (piece, answer) in pieces {
            match answer {
                Answer::Single(single) => chain.add(volume, single.0, single.1)?,
                Answer::Rollup(headers) if chain.confirms(&headers) => {
                    headers.into_iter().rev().try_for_each(|header| chain.add(volume, header, None))?;
                }
                Answer::Rollup(_) => {
                    let key = keys::rollup(volume, Rollup::place(piece.last));
                    rollups::warn_unsound(&key, &"the commit after it names another parent");
                    chain.add_singles(bucket, volume, piece).await?;
                }
                Answer::Nothing => chain.add_singles(bucket, volume, piece).await?,
            }
        }
        chain.descending.reverse();
        Ok(LogPart { headers: chain.descending, commits: chain.commits })
    }
}

/// The headers of `first ..= last.lsn`, ascending and linked to `last`.
pub(crate) async fn log(bucket: &Bucket, volume: &VolumeName, first: Lsn, last: &CommitHeader) -> Result<LogPart> {
    if first > last.lsn {
        let range = format!("{first} to {}", last.lsn);
        return Err(Error::invalid(format!("the headers {range} of volume {volume} were asked for: an empty range")));
    }
    if last.lsn.get() - first.get() >= MOST_HEADERS {
        let range = format!("{first} to {}", last.lsn);
        return Err(Error::invalid(format!(
            "the headers {range} of volume {volume} were asked for: {MOST_HEADERS} at most come at once"
        )));
    }
    find(bucket, volume, first, last.lsn).await?.linked(last).await
}

/// Headers from the newest down, each the parent of the one in front of it.
struct Chain {
    descending: Vec<CommitHeader>,
    commits: Vec<SealedCommit>,
    /// Of those commits.
    bytes: usize,
}

impl Chain {
    /// The hash that the next header must have.
    fn parent(&self) -> Option<CommitHash> {
        self.descending.last().and_then(|header| header.parent)
    }

    /// Whether the last of these ascending headers is the parent of what is there.
    fn confirms(&self, headers: &[CommitHeader]) -> bool {
        headers.last().map(CommitHeader::hash) == self.parent()
    }

    /// Adds the commit below what is there.
    fn add(&mut self, volume: &VolumeName, header: CommitHeader, whole: Option<SealedCommit>) -> Result<()> {
        if Some(header.hash()) != self.parent() {
            return Err(Error::corrupt(format!(
                "LSN {} of volume {volume} is not the parent that the commit after it names",
                header.lsn
            ))
            .with_remedy(
                "An object of the volume's log was replaced: restore it from the store's versions or a copy.",
            ));
        }
        self.descending.push(header);
        if let Some(whole) = whole.filter(|whole| self.bytes + whole.object().len() <= COMMITS_BYTES) {
            self.bytes += whole.object().len();
            self.commits.push(whole);
        }
        Ok(())
    }

    /// Adds a piece, commit by commit.
    async fn add_singles(&mut self, bucket: &Bucket, volume: &VolumeName, piece: Piece) -> Result<()> {
        let lsns = (piece.first.get()..=piece.last.get()).rev().filter_map(Lsn::new);
        let mut fronts = stream::iter(lsns.map(|lsn| log::read_front(bucket, volume, lsn))).buffered(HEADERS_AT_ONCE);
        while let Some(front) = fronts.try_next().await? {
            self.add(volume, front.header, front.whole)?;
        }
        Ok(())
    }
}

/// What to fetch for `first .. end`, from the newest down, where `end` is a
/// commit of the log: roll-ups of the spans that are complete with it, and the rest one by one.
fn pieces(first: Lsn, end: Lsn) -> impl Iterator<Item = Piece> {
    // One after the other: a caller may have made up the end, of a log that is not there.
    let mut last = end.prev().filter(|last| *last >= first);
    std::iter::from_fn(move || {
        let at = last?;
        let rolled = Rollup::place(at) <= end;
        let low = if rolled { Rollup::first(Rollup::place(at)).max(first) } else { at };
        last = low.prev().filter(|last| *last >= first);
        Some(Piece { first: low, last: at })
    })
}

/// What there is of a piece.
async fn fetch(bucket: &Bucket, volume: &VolumeName, piece: Piece) -> Result<Answer> {
    if piece.first == piece.last {
        let front = log::read_front(bucket, volume, piece.last).await?;
        return Ok(Answer::Single(Box::new((front.header, front.whole))));
    }
    let Some(rollup) = rollups::read(bucket, volume, Rollup::place(piece.last)).await? else {
        // Nor is there a log, if somebody made up its end: that ends the search.
        log::read_front(bucket, volume, piece.last).await?;
        return Ok(Answer::Nothing);
    };
    let headers = rollup.into_headers().into_iter();
    Ok(Answer::Rollup(headers.filter(|header| (piece.first..=piece.last).contains(&header.lsn)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(first: u64, end: u64) -> Vec<(u64, u64)> {
        let pieces = pieces(Lsn::new(first).unwrap(), Lsn::new(end).unwrap());
        pieces.map(|piece| (piece.first.get(), piece.last.get())).collect()
    }

    #[test]
    fn whole_spans_come_from_rollups_and_the_rest_one_by_one() {
        assert_eq!(covered(1, 1), []);
        assert_eq!(covered(1, 3), [(2, 2), (1, 1)]);
        assert_eq!(covered(60, 66), [(65, 65), (60, 64)]);
        assert_eq!(covered(64, 66), [(65, 65), (64, 64)]);
        assert_eq!(covered(1, 130), [(129, 129), (65, 128), (1, 64)]);
        assert_eq!(covered(2, 65), [(2, 64)]);
        assert_eq!(covered(2, 64), [(2, 63)]);
    }

    #[test]
    fn a_thousand_commits_need_few_requests() {
        let requests = (1000..1064).map(|end| covered(1, end).len()).max();
        assert!(requests <= Some(80), "{requests:?}");
    }
}
