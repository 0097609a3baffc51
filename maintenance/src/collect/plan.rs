//! What is to be kept of a volume's history.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures::TryStreamExt;
use quire_history::Index;
use quire_proto::{
    CheckpointPlace, CommitHeader, CommitKind, Error, ErrorKind, HEADERS_A_PIECE, Lsn, PageSet, Result, Retention,
    Span, Statement, VolumeName, log_back,
};

use super::Stores;
use super::markers::Markers;
use crate::shows_pages;
use crate::verify::{Compared, Opened, compare, is_listed};

/// Checkpoints are compared with so many commits, or a few more, at a time.
const COMPARED_TOGETHER: u64 = 4096;

/// Checkpoints that say what their commits say, or are the best that is known, by their LSNs.
pub(super) type Trusted = BTreeMap<Lsn, CheckpointPlace>;

/// What is to be kept.
pub(super) struct Plan {
    horizon: Lsn,
    /// Snapshots before the horizon.
    kept: BTreeSet<Lsn>,
    /// The checkpoints at the ends, once they were compared with their commits.
    compared: BTreeSet<CheckpointPlace>,
}

/// The newest commit that the store had at `time_ms`, such that all after it are younger and none before it is, down to
/// `horizon`: a store's clock may have been set back, as that of a folder's machine.
async fn since(stores: &Stores, volume: &VolumeName, time_ms: u64, horizon: Lsn) -> Result<Lsn> {
    let newest = stores.log.at_time(volume, time_ms).await?.unwrap_or(Lsn::FIRST);
    if newest <= horizon {
        return Ok(newest);
    }
    let times = stores.log.stored_times(volume, horizon, newest).await?;
    let younger = times.iter().find(|(_, stored_ms)| **stored_ms > time_ms);
    Ok(younger.map_or(newest, |(lsn, _)| lsn.prev().unwrap_or(Lsn::FIRST)))
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
            Span::Time(ms) => since(stores, volume, now_ms.saturating_sub(ms), before.horizon).await?,
        };
        let newest = newest_with_a_meaning(stores, volume, head).await?;
        let horizon = wanted.max(before.horizon).min(newest);
        let horizon = unmarked_move(stores, volume, head, before.horizon, horizon, markers).await?;
        let named = retention.named.iter().copied().filter(|lsn| before.keeps(*lsn));
        let mut kept: BTreeSet<Lsn> = named.chain(markers.held(before)).collect();
        kept.retain(|lsn| *lsn < horizon);
        Ok(Plan { horizon, kept, compared: BTreeSet::new() })
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

    /// Makes sure that each of these has a sound checkpoint, which says what its commits say: they may go. `places` are
    /// those that are there, and a report looks at no others: it is told which of these snapshots have none yet.
    /// `trusted` is what was compared before.
    pub(super) async fn ensure_checkpoints(
        &mut self,
        stores: &Stores,
        volume: &VolumeName,
        before: &Statement,
        places: &[(CheckpointPlace, u64)],
        trusted: &mut Trusted,
        report_only: bool,
    ) -> Result<Vec<CommitHeader>> {
        let there = |place: &CheckpointPlace| places.iter().any(|(there, _)| there == place);
        // The ends of what was kept before were compared then.
        let was_end = |place: &CheckpointPlace| place.lsn == before.horizon || before.kept.contains(&place.lsn);
        let ends_before = before.indexes.iter().filter(|place| was_end(place));
        let known = ends_before.chain(trusted.values()).filter(|place| there(place));
        let mut trusted_now: Trusted = known.map(|place| (place.lsn, *place)).collect();
        let (mut without, mut all_compared) = (Vec::new(), true);
        for header in self.ends(stores, volume).await? {
            if report_only {
                if places.iter().all(|(place, _)| place.lsn != header.lsn) {
                    without.push(header);
                    continue;
                }
            } else {
                match quire_history::checkpoint(&stores.reader, volume, &header, &[]).await {
                    // A statement had let it go before its holder was seen: the holder blocks what is below it.
                    Err(e) if e.kind() == ErrorKind::Gone && header.lsn < self.horizon => {
                        self.kept.remove(&header.lsn);
                        continue;
                    }
                    made => made?,
                };
            }
            let place = verify(stores, volume, &header).await?;
            if trusted_now.get(&place.lsn) != Some(&place) {
                all_compared &= agree(stores, volume, place, places, &mut trusted_now).await?;
            }
            self.compared.insert(place);
        }
        // What could not be compared was perhaps let go by another collector just then.
        if all_compared {
            *trusted = trusted_now;
        }
        Ok(without)
    }

    /// Whether what was compared is still what counts.
    pub(super) fn is_up_to_date(&self, places: &[(CheckpointPlace, u64)]) -> bool {
        // Of each LSN the highest generation comes first.
        let counts = |lsn: Lsn| places.iter().map(|(place, _)| *place).find(|place| place.lsn == lsn);
        self.compared.iter().all(|place| counts(place.lsn) == Some(*place))
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
        let to = Lsn::new(from.get().saturating_add(HEADERS_A_PIECE)).unwrap_or(horizon).min(horizon);
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
    let mut headers = pin!(log_back(&*stores.log, volume, head, Lsn::FIRST, 1));
    while let Some(header) = headers.try_next().await? {
        // What is conditional may have come to nothing.
        if header.kind != CommitKind::Void && header.condition.is_none() {
            return Ok(header.lsn);
        }
    }
    Ok(Lsn::FIRST)
}

/// A checkpoint that commits must not go for.
fn unsound(volume: &VolumeName, lsn: Lsn, problem: &str) -> Error {
    Error::corrupt(format!("volume {volume}: the checkpoint of LSN {lsn}: {problem}")).with_remedy(format!(
        "`quire verify {volume} --deep` says what is damaged. A checkpoint whose commits are there is written anew once it \
         is moved out of the volume's folder `ck`. Nothing is collected meanwhile."
    ))
}

fn differs(volume: &VolumeName, lsn: Lsn, pages: &PageSet) -> Error {
    unsound(volume, lsn, &format!("it does not say of {} pages what the commits say", pages.len()))
}

/// Compares a checkpoint with its commits, from a trusted one or the beginning on, while they are there. What others
/// wrote in between is compared too, so that no more than a part of a long log is held at a time. Where a commit is
/// damaged or gone there is nothing to compare with, and what is there is the best that is known: false.
async fn agree(
    stores: &Stores,
    volume: &VolumeName,
    place: CheckpointPlace,
    places: &[(CheckpointPlace, u64)],
    trusted: &mut Trusted,
) -> Result<bool> {
    let mut all_compared = true;
    let mut compared_to = trusted.range(..place.lsn).next_back().map_or(0, |(lsn, _)| lsn.get());
    // Each LSN's highest generation comes first of it, and it is the last that is put in.
    let ascending: BTreeMap<Lsn, CheckpointPlace> = places.iter().rev().map(|(place, _)| (place.lsn, *place)).collect();
    for between in ascending.range(..place.lsn).map(|(_, between)| *between) {
        if between.lsn.get() < compared_to + COMPARED_TOGETHER {
            continue;
        }
        match hold_against(stores, volume, between, trusted).await {
            Ok(Compared::Differing(pages)) if pages.is_empty() => {}
            Ok(Compared::Differing(pages)) => return Err(differs(volume, between.lsn, &pages)),
            // What comes after it can still be compared.
            Ok(Compared::Unknown(_)) => all_compared = false,
            // It is damaged, or has gone: nobody needs it.
            Err(e) if is_its_own(&e) => continue,
            Err(e) => return Err(e),
        }
        trusted.insert(between.lsn, between);
        compared_to = between.lsn.get();
    }
    match hold_against(stores, volume, place, trusted).await {
        Ok(Compared::Differing(pages)) if !pages.is_empty() => return Err(differs(volume, place.lsn, &pages)),
        Ok(Compared::Differing(_)) => {}
        Ok(Compared::Unknown(e)) => {
            tracing::warn!("volume {volume}: the checkpoint of LSN {} is the best that is known: {e}", place.lsn);
            all_compared = false;
        }
        Err(e) if is_its_own(&e) => return Err(unsound(volume, place.lsn, &e.to_string())),
        Err(e) => return Err(e),
    }
    trusted.insert(place.lsn, place);
    Ok(all_compared)
}

/// Whether the reason is in what was read, not in how.
fn is_its_own(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Invalid)
}

async fn hold_against(
    stores: &Stores,
    volume: &VolumeName,
    place: CheckpointPlace,
    trusted: &Trusted,
) -> Result<Compared> {
    let opened = Opened::open(&stores.reader, volume, place).await?;
    compare(&stores.reader, volume, &opened, trusted).await
}

/// Checks that the checkpoint of a snapshot is of it, complete, and that all it names is there.
async fn verify(stores: &Stores, volume: &VolumeName, header: &CommitHeader) -> Result<CheckpointPlace> {
    let problem = |problem: String| unsound(volume, header.lsn, &problem);
    let Some(index) = Index::in_force(&stores.reader, volume, header.lsn).await? else {
        return Err(problem("it is missing or damaged".into()));
    };
    if index.info().commit != header.hash() {
        return Err(problem("it is of another commit".into()));
    }
    let segments = index.segments(&stores.reader).await?;
    for place in index.head().leaves() {
        let leaf = index.leaf(&stores.reader, &place).await?;
        if let Some(run) = leaf.runs().find(|run| !is_listed(run, &segments)) {
            return Err(problem(format!("it says that page {} is in a segment which it does not list", run.first)));
        }
        index.forget(&place);
    }
    for segment in segments {
        stores.pages.verify(volume, segment.id, segment.len_bytes).await.map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::Corrupt => problem(e.to_string()),
            // No answer says nothing of the segment.
            _ => e,
        })?;
    }
    Ok(CheckpointPlace { lsn: header.lsn, generation: index.info().generation })
}
