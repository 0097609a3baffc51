//! Reading a log back from a commit, a piece at a time: a log may be longer than memory.

use std::pin::pin;

use futures::stream::{self, Stream, StreamExt, TryStreamExt};

use crate::{CommitHeader, Error, ErrorKind, Lsn, Metastore, PageSet, ROLLUP_SPAN, Result, VolumeName};

/// A long log is read in pieces of so many headers.
pub const HEADERS_A_PIECE: u64 = 1984;

/// The headers of a log from `newest` down to that of `lowest`, each the parent of the one before it. `piece` reads
/// those of a range as [`Metastore::headers`] does. No more than a piece is held at a time: the first one has
/// `first_piece` headers below `newest`, or up to 63 more, and each further one eight times as many, up to
/// [`HEADERS_A_PIECE`].
pub fn headers_back<'a, F>(
    newest: CommitHeader,
    lowest: Lsn,
    first_piece: u64,
    piece: impl Fn(Lsn, CommitHeader) -> F + Send + 'a,
) -> impl Stream<Item = Result<CommitHeader>> + Send + 'a
where
    F: Future<Output = Result<Vec<CommitHeader>>> + Send + 'a,
{
    let below = stream::try_unfold((newest.clone(), first_piece, piece), move |(oldest, size, piece)| async move {
        if oldest.lsn <= lowest {
            return Ok(None);
        }
        let mut low = oldest.lsn.get().saturating_sub(size);
        if size >= ROLLUP_SPAN {
            // Below it, whole roll-ups follow.
            low -= low.saturating_sub(1) % ROLLUP_SPAN;
        }
        let low = Lsn::new(low).unwrap_or(Lsn::FIRST).max(lowest);
        let mut headers = piece(low, oldest).await?;
        headers.pop();
        let next = headers.first().cloned().ok_or_else(|| Error::corrupt(format!("there is no LSN {low} in a log")))?;
        let newest_first = stream::iter(headers.into_iter().rev().map(Ok));
        Ok(Some((newest_first, (next, size.saturating_mul(8).min(HEADERS_A_PIECE), piece))))
    });
    stream::iter([Ok(newest)]).chain(below.try_flatten())
}

/// As [`headers_back`], of a store.
pub fn log_back<'a, M>(
    log: &'a M,
    volume: &'a VolumeName,
    newest: &CommitHeader,
    lowest: Lsn,
    first_piece: u64,
) -> impl Stream<Item = Result<CommitHeader>> + Send + 'a
where
    M: Metastore + ?Sized,
{
    let piece = move |low, last: CommitHeader| async move { log.headers(volume, low, &last).await };
    headers_back(newest.clone(), lowest, first_piece, piece)
}

/// The pages that differ, or may, between a snapshot of a volume and a newer one; none if it began anew in between.
pub async fn changed_since<M>(
    log: &M,
    volume: &VolumeName,
    older: &CommitHeader,
    newer: &CommitHeader,
) -> Result<Option<PageSet>>
where
    M: Metastore + ?Sized,
{
    let mut headers = pin!(log_back(log, volume, newer, older.lsn, HEADERS_A_PIECE));
    // None: it may be any page.
    let mut changed = Some(PageSet::new());
    let mut most_pages = older.page_count;
    while let Some(header) = headers.try_next().await? {
        if header.lsn <= older.lsn {
            if header.hash() != older.hash() {
                return Err(Error::corrupt(format!("LSN {} of volume {volume} is another commit now", older.lsn)));
            }
            break;
        }
        if header.kind.begins() {
            return Ok(None);
        }
        most_pages = most_pages.max(header.page_count);
        if header.page_size != older.page_size {
            changed = None;
        }
        let Some(pages) = &mut changed else { continue };
        match &header.sets {
            Some(sets) => pages.union_with(&sets.changed),
            None => match log.commit(volume, header.lsn).await {
                Ok(commit) if commit.hash() != header.hash() => {
                    let lsn = header.lsn;
                    return Err(Error::corrupt(format!(
                        "LSN {lsn} of volume {volume} is not what the next one stands on"
                    )));
                }
                Ok(commit) => pages.union_with(&commit.body().sets.changed),
                // Nobody knows any more.
                Err(e) if e.kind() == ErrorKind::Gone => changed = None,
                Err(e) => return Err(e),
            },
        }
    }
    Ok(Some(changed.unwrap_or_else(|| PageSet::first(most_pages))))
}
