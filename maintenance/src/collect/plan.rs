//! What is to be kept of a volume's history.

use std::collections::BTreeSet;

use quire_history::Index;
use quire_proto::{
    CheckpointPlace, CommitHeader, CommitKind, Error, ErrorKind, Lsn, Result, Retention, Span, Statement, VolumeName,
};

use super::Stores;
use super::markers::Markers;
use crate::shows_pages;

/// Headers are read in pieces of so many.
const HEADERS_AT_ONCE: u64 = 1024;

/// What is to be kept.
pub(super) struct Plan {
    horizon: Lsn,
    /// Snapshots before the horizon.
    kept: BTreeSet<Lsn>,
}

impl Plan {
    pub(super) async fn make(
        stores: &Stores,
        volume: &VolumeName,
        head: &CommitHeader,
        retention: &Retention,
        before: &Statement,
        markers: &Markers,
        now_ms: u64,
    ) -> Result<Plan> {
        let wanted = match retention.span {
            Span::All => Lsn::FIRST,
            Span::Last(n) => Lsn::new(head.lsn.get().saturating_sub(n - 1)).unwrap_or(Lsn::FIRST),
            Span::Time(ms) => stores.log.at_time(volume, now_ms.saturating_sub(ms)).await?.unwrap_or(Lsn::FIRST),
        };
        let newest = newest_with_a_meaning(stores, volume, head).await?;
        let horizon = wanted.max(before.horizon).min(newest);
        let horizon = unmarked_move(stores, volume, head, before.horizon, horizon, markers).await?;
        let named = retention.named.iter().copied().filter(|lsn| before.keeps(*lsn));
        let mut kept: BTreeSet<Lsn> = named.chain(markers.held(before)).collect();
        kept.retain(|lsn| *lsn < horizon);
        Ok(Plan { horizon, kept })
    }

    /// The snapshots at the lower ends of what is kept which a checkpoint of their own makes independent of all before.
    async fn ends(&self, stores: &Stores, volume: &VolumeName) -> Result<Vec<CommitHeader>> {
        let mut ends = Vec::new();
        for lsn in self.kept.iter().copied().chain([self.horizon]).filter(|lsn| *lsn != Lsn::FIRST) {
            let header = stores.log.header(volume, lsn).await?;
            if shows_pages(&*stores.log, volume, &header).await? {
                ends.push(header);
            }
        }
        Ok(ends)
    }

    /// Makes sure that each of these has a sound checkpoint.
    pub(super) async fn ensure_checkpoints(&mut self, stores: &Stores, volume: &VolumeName) -> Result<()> {
        for header in self.ends(stores, volume).await? {
            match quire_history::checkpoint(&stores.reader, volume, &header, &[]).await {
                // A statement had let it go before its holder was seen: the holder blocks what is below it.
                Err(e) if e.kind() == ErrorKind::Gone && header.lsn < self.horizon => {
                    self.kept.remove(&header.lsn);
                    continue;
                }
                made => made?,
            };
            verify(stores, volume, &header).await?;
        }
        Ok(())
    }

    /// For a report, which writes none: those that have no checkpoint yet.
    pub(super) async fn without_checkpoint(
        &self,
        stores: &Stores,
        volume: &VolumeName,
        places: &[(CheckpointPlace, u64)],
    ) -> Result<Vec<CommitHeader>> {
        let mut ends = self.ends(stores, volume).await?;
        ends.retain(|header| places.iter().all(|(place, _)| place.lsn != header.lsn));
        Ok(ends)
    }

    /// The statement that says it.
    pub(super) fn statement(self, places: &[(CheckpointPlace, u64)], before: &Statement) -> Statement {
        let mut statement = Statement { horizon: self.horizon, kept: self.kept, ..before.clone() };
        statement.indexes = BTreeSet::new();
        // Newest first, and of each LSN the highest generation first.
        let mut last = None;
        for (place, _) in places {
            if last != Some(place.lsn) && statement.keeps(place.lsn) {
                statement.indexes.insert(*place);
            }
            last = Some(place.lsn);
        }
        statement
    }
}

/// A volume that was renamed has its pages under its old name, and says so with a marker. A renaming from before there
/// were markers has none: the horizon stays before it.
async fn unmarked_move(
    stores: &Stores,
    volume: &VolumeName,
    head: &CommitHeader,
    mut from: Lsn,
    horizon: Lsn,
    markers: &Markers,
) -> Result<Lsn> {
    while from < horizon {
        let to = Lsn::new(from.get().saturating_add(HEADERS_AT_ONCE)).unwrap_or(horizon).min(horizon);
        let last = if to == head.lsn { head.clone() } else { stores.log.header(volume, to).await? };
        for header in stores.log.headers(volume, from, &last).await? {
            if header.kind == CommitKind::Moved
                && let Some(moved) = header.lsn.prev()
                && !markers.holds(moved)
            {
                return Ok(horizon.min(moved));
            }
        }
        from = to;
    }
    Ok(horizon)
}

/// The newest commit that says more than the one before it: it and all after it stay as they are.
async fn newest_with_a_meaning(stores: &Stores, volume: &VolumeName, head: &CommitHeader) -> Result<Lsn> {
    let mut at = head.clone();
    // What is conditional may have come to nothing.
    while at.kind == CommitKind::Void || at.condition.is_some() {
        let Some(before) = at.lsn.prev() else { break };
        at = stores.log.header(volume, before).await?;
    }
    Ok(at.lsn)
}

/// Checks that the checkpoint of a snapshot is of it, complete, and that all it names is there.
async fn verify(stores: &Stores, volume: &VolumeName, header: &CommitHeader) -> Result<()> {
    let problem = |problem: String| {
        Error::corrupt(format!("volume {volume}: the checkpoint of LSN {}: {problem}", header.lsn)).with_remedy(
            format!("`quire verify {volume} --deep` says what is damaged; nothing is collected meanwhile."),
        )
    };
    let Some(index) = Index::in_force(&stores.reader, volume, header.lsn).await? else {
        return Err(problem("it is missing or damaged".into()));
    };
    if index.info().commit != header.hash() {
        return Err(problem("it is of another commit".into()));
    }
    for place in index.head().leaves() {
        index.leaf(&stores.reader, &place).await?;
        index.forget(&place);
    }
    for segment in index.segments(&stores.reader).await? {
        stores.pages.verify(volume, segment.id, segment.len_bytes).await.map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::Corrupt => problem(e.to_string()),
            // No answer says nothing of the segment.
            _ => e,
        })?;
    }
    Ok(())
}
