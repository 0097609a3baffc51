//! Letting go.

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use quire_proto::{CheckpointPlace, ErrorKind, Lsn, Result, SegmentId, Statement, VolumeName};

use super::live::Live;
use super::{Collected, Options, Stores};

/// How many objects are let go at the same time.
const AT_ONCE: usize = 16;

pub(super) struct Sweep<'a> {
    pub(super) stores: &'a Stores,
    pub(super) volume: &'a VolumeName,
    /// The newest LSN when this began.
    pub(super) head: Lsn,
    /// The statement by which things go.
    pub(super) ripe: &'a Statement,
    pub(super) blocked: Option<Lsn>,
    pub(super) live: &'a Live,
    pub(super) places: &'a [(CheckpointPlace, u64)],
    pub(super) options: &'a Options,
}

impl Sweep<'_> {
    fn is_blocked(&self, lsn: Lsn) -> bool {
        Some(lsn) <= self.blocked
    }

    /// Checkpoints that nobody needs.
    pub(super) async fn checkpoints(&self, collected: &mut Collected) -> Result<()> {
        let dropped = self.places.iter().filter(|(place, _)| self.ripe.drops(*place) && !self.is_blocked(place.lsn));
        for (place, bytes) in dropped {
            collected.checkpoints.add(*bytes);
            if !self.options.report_only() {
                self.stores.log.drop_checkpoint(self.volume, *place).await?;
            }
        }
        Ok(())
    }

    /// Segments that nothing names, and that nothing can name any more.
    pub(super) async fn segments(&self, collected: &mut Collected) -> Result<()> {
        let mut named: HashMap<Lsn, BTreeSet<SegmentId>> = HashMap::new();
        let mut all = self.stores.pages.segments(self.volume);
        while let Some((segment, bytes)) = all.try_next().await? {
            if !self.may_go(segment, &mut named).await? {
                collected.segments_left.add(bytes);
                continue;
            }
            collected.segments.add(bytes);
            if !self.options.report_only() {
                self.stores.pages.drop_segment(self.volume, segment).await?;
            }
        }
        Ok(())
    }

    async fn may_go(&self, segment: SegmentId, named: &mut HashMap<Lsn, BTreeSet<SegmentId>>) -> Result<bool> {
        let at = segment.target;
        if self.live.segments.contains(&segment) || self.is_blocked(at) {
            return Ok(false);
        }
        if segment.generation > 0 {
            // The checkpoint that was to name it is there, or will not count.
            let place = CheckpointPlace { lsn: at, generation: segment.generation };
            let made = self.places.iter().any(|(there, _)| there.lsn == at && there.generation >= place.generation);
            return Ok(made || !self.ripe.keeps(at));
        }
        // Whoever wants to make the LSN may still come.
        if at > self.head {
            return Ok(false);
        }
        if at < self.ripe.horizon && !self.ripe.kept.contains(&at) {
            return Ok(true);
        }
        // Only the commit at this LSN can name it; a push that lost it has left it.
        if !named.contains_key(&at) {
            named.clear();
            let segments = match self.stores.log.commit(self.volume, at).await {
                Ok(commit) => commit.body().index.segments().iter().map(|segment| segment.id).collect(),
                Err(e) if e.kind() == ErrorKind::Gone => return Ok(false),
                Err(e) => return Err(e),
            };
            named.insert(at, segments);
        }
        Ok(!named[&at].contains(&segment))
    }

    /// The bodies of commits that nobody needs; the statement with what has been looked at.
    pub(super) async fn commits(&self, notes: &Statement, collected: &mut Collected) -> Result<Statement> {
        let new = (notes.collected.get()..self.ripe.horizon.get()).filter_map(Lsn::new);
        let candidates: Vec<Lsn> = notes.left.iter().copied().chain(new).collect();
        let (stay, go): (Vec<Lsn>, Vec<Lsn>) = candidates
            .into_iter()
            .partition(|lsn| self.ripe.keeps(*lsn) || self.live.commits.contains(lsn) || self.is_blocked(*lsn));
        collected.commits_left = stay.iter().filter(|lsn| !self.ripe.keeps(**lsn)).count() as u64;
        if self.options.report_only() {
            collected.commits.objects = go.len() as u64;
        } else {
            let mut saved =
                stream::iter(go).map(|lsn| self.stores.log.stub(self.volume, lsn)).buffer_unordered(AT_ONCE);
            while let Some(bytes) = saved.try_next().await? {
                if bytes > 0 {
                    collected.commits.add(bytes);
                }
            }
        }
        let mut progress = notes.clone();
        progress.collected = notes.collected.max(self.ripe.horizon);
        progress.left = stay.into_iter().collect();
        Ok(progress)
    }
}
