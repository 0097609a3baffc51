//! Reading the headers of a range of commits in few round trips: roll-ups and
//! single headers at the same time, from the newest down, so that each is
//! confirmed by the hash that the one after it names.

use futures::stream::{self, StreamExt, TryStreamExt};
use quire_bucket::{Bucket, keys};
use quire_proto::{CommitHash, CommitHeader, Error, Lsn, Result, Rollup, VolumeName};

use crate::log;
use crate::rollups::{self, HEADERS_AT_ONCE};

/// LSNs whose headers come together: a single one from its commit, several
/// from the roll-up that ends at or after `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    first: Lsn,
    last: Lsn,
}

/// The headers of `first ..= last.lsn`, ascending and linked to `last`.
pub(crate) async fn headers(
    bucket: &Bucket,
    volume: &VolumeName,
    first: Lsn,
    last: &CommitHeader,
) -> Result<Vec<CommitHeader>> {
    if first > last.lsn {
        let range = format!("{first} to {}", last.lsn);
        return Err(Error::invalid(format!("the headers {range} of volume {volume} were asked for: an empty range")));
    }
    let mut chain = Chain { descending: vec![last.clone()] };
    let mut fetched = stream::iter(pieces(first, last.lsn))
        .map(|piece| async move { fetch(bucket, volume, piece).await.map(|headers| (piece, headers)) })
        .buffered(HEADERS_AT_ONCE);
    while let Some((piece, headers)) = fetched.try_next().await? {
        match headers {
            Some(headers) if piece.is_single() || chain.confirms(&headers) => chain.extend(volume, headers)?,
            Some(_) => {
                let key = keys::rollup(volume, Rollup::place(piece.last));
                rollups::warn_unsound(&key, &"the commit after it names another parent");
                chain.extend(volume, singles(bucket, volume, piece).await?)?;
            }
            None => chain.extend(volume, singles(bucket, volume, piece).await?)?,
        }
    }
    chain.descending.reverse();
    Ok(chain.descending)
}

/// Headers from the newest down, each the parent of the one in front of it.
struct Chain {
    descending: Vec<CommitHeader>,
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

    /// Adds ascending headers below what is there.
    fn extend(&mut self, volume: &VolumeName, headers: Vec<CommitHeader>) -> Result<()> {
        for header in headers.into_iter().rev() {
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
        }
        Ok(())
    }
}

impl Piece {
    fn is_single(self) -> bool {
        self.first == self.last
    }
}

/// What to fetch for `first .. end`, from the newest down, where `end` is a
/// commit of the log: roll-ups of the spans that are complete with it, and the rest one by one.
fn pieces(first: Lsn, end: Lsn) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut last = end.prev().filter(|last| *last >= first);
    while let Some(at) = last {
        let rolled = Rollup::place(at) <= end;
        let low = if rolled { Rollup::first(Rollup::place(at)).max(first) } else { at };
        pieces.push(Piece { first: low, last: at });
        last = low.prev().filter(|last| *last >= first);
    }
    pieces
}

/// The headers of a piece, ascending; `None` if there is no sound roll-up.
async fn fetch(bucket: &Bucket, volume: &VolumeName, piece: Piece) -> Result<Option<Vec<CommitHeader>>> {
    if piece.is_single() {
        let front = log::read_front(bucket, volume, piece.last).await?;
        return Ok(Some(vec![front.header]));
    }
    let rollup = rollups::read(bucket, volume, Rollup::place(piece.last)).await?;
    Ok(rollup.map(|rollup| {
        let headers = rollup.into_headers().into_iter();
        headers.filter(|header| (piece.first..=piece.last).contains(&header.lsn)).collect()
    }))
}

/// The headers of a piece from its commits.
async fn singles(bucket: &Bucket, volume: &VolumeName, piece: Piece) -> Result<Vec<CommitHeader>> {
    stream::iter((piece.first.get()..=piece.last.get()).filter_map(Lsn::new))
        .map(|lsn| async move { log::read_front(bucket, volume, lsn).await.map(|front| front.header) })
        .buffered(HEADERS_AT_ONCE)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(first: u64, end: u64) -> Vec<(u64, u64)> {
        let pieces = pieces(Lsn::new(first).unwrap(), Lsn::new(end).unwrap());
        pieces.iter().map(|piece| (piece.first.get(), piece.last.get())).collect()
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
