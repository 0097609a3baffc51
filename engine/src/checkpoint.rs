//! Checkpoints of what a replica stands on: made when somebody asks, and by
//! pushers every so often, after their push was acknowledged.

use std::sync::Arc;

use quire_history::{CHECKPOINT_SPAN, Checkpointed, boot_frames};
use quire_proto::{CheckpointPlace, CommitHeader, Error, Lsn, PageCount, PageIdx, PageSize, ROLLUP_SPAN, Result};
use quire_sqlite_format::Pages;

use crate::engine::{Engine, Shared};
use crate::history::Moment;
use crate::replica::Replica;
use crate::snapshot::Snapshot;
use crate::volume::Volume;

/// A push is followed by a checkpoint if it brought so many bytes, and this part of the volume's pages: the checkpoint
/// costs about a hundredth of that, and whoever opens the volume finds all he needs in one place.
const LARGE_BYTES: u64 = 1024 * 1024;
const LARGE_PART: u64 = 4;

impl Pages for Snapshot {
    fn page_count(&self) -> PageCount {
        Snapshot::page_count(self)
    }

    fn page_size(&self) -> PageSize {
        Snapshot::page_size(self).unwrap_or(PageSize::DEFAULT)
    }

    fn read(&mut self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        Snapshot::read(self, page, buf)
    }
}

impl Volume {
    /// Writes a checkpoint of the commit that the replica stands on, unless there is one: whoever opens the volume from
    /// then on reads no commit before it.
    pub fn checkpoint(&self) -> Result<Checkpointed> {
        let replica = self.replica();
        let Some(lsn) = replica.core().state.base_lsn() else {
            return Err(Error::invalid(format!("volume {} is not in the store yet", replica.name()))
                .with_remedy(format!("`quire push {}` brings it there.", replica.name())));
        };
        let engine = replica.engine();
        let remote = replica.core().state.remote.clone();
        let commit = engine.bridge.wait(engine.commit(&remote, lsn))?;
        checkpoint(&replica, commit.header())
    }
}

/// After a push that made `head`: a roll-up where one belongs, and a checkpoint if the last one is long ago, or most of
/// the volume is new, as after an import. Nothing depends on them: a failure is noted, and somebody else makes up for it.
pub(crate) fn tidy(replica: &Arc<Replica>, head: &CommitHeader, pages: u64) {
    let engine = replica.engine();
    let remote = replica.core().state.remote.clone();
    let is_large = head.segment_bytes >= LARGE_BYTES && pages * LARGE_PART >= head.page_count.get().into();
    let ends_span = head.lsn.get().is_multiple_of(ROLLUP_SPAN);
    let tidied = || {
        if ends_span {
            engine.bridge.wait(async { engine.stores().await?.metastore.tidy(&remote, head).await })?;
        }
        if is_large || (ends_span && is_due(engine, replica, head.lsn)?) {
            checkpoint(replica, head)?;
        }
        Ok(())
    };
    let tidied: Result<()> = tidied();
    if let Err(e) = tidied {
        tracing::warn!("volume {remote}: after LSN {}: {e}", head.lsn);
    }
}

fn is_due(engine: &Arc<Shared>, replica: &Arc<Replica>, lsn: Lsn) -> Result<bool> {
    let remote = replica.core().state.remote.clone();
    let newest = engine.bridge.wait(async {
        engine.stores().await?.metastore.checkpoint(&remote, Some(CheckpointPlace::last_of(lsn))).await
    })?;
    Ok(lsn.get() - newest.map_or(0, |newest| newest.lsn.get()) >= CHECKPOINT_SPAN)
}

/// What is visible, if it is the snapshot that `commit` made and nothing else. A push may be on its way: that there is
/// nothing on top of the commit has to be true of the very snapshot.
fn visible(replica: &Arc<Replica>, commit: &CommitHeader) -> Option<Snapshot> {
    let core = replica.core();
    let state = &core.state;
    let is_it = state.own_base().is_some_and(|base| (base.lsn, base.hash) == (commit.lsn, commit.hash()));
    (is_it && !state.is_ahead() && core.undecided.is_none()).then(|| replica.snapshot())
}

/// Writes the checkpoint of a commit that the replica stands on.
fn checkpoint(replica: &Arc<Replica>, commit: &CommitHeader) -> Result<Checkpointed> {
    let engine = replica.engine();
    let mut snapshot = match visible(replica, commit) {
        Some(visible) => visible,
        None => {
            let past = Engine { shared: engine.clone() };
            past.volume_at(&replica.name(), Moment::Lsn(commit.lsn))?.snapshot()
        }
    };
    let boot = boot_frames(&mut snapshot)?;
    let remote = snapshot.remote().clone();
    engine.bridge.wait(async { quire_history::checkpoint(engine.reader().await?, &remote, commit, &boot).await })
}
