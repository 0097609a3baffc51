//! Pull: the replica's base moves to the store's head. Changed pages become
//! absent; none is downloaded. And reset: the same, after putting local work aside.

use std::sync::Arc;

use quire_proto::{
    CommitHeader, CommitKind, Error, ErrorKind, LocalTip, Lsn, PageSet, Result, SealedCommit, VolumeName, VolumeState,
};

use crate::engine::Shared;
use crate::lineage::replaced;
use crate::push::{diverged_error, settle_intent};
use crate::replica::{Replica, StateChange};
use crate::state::{BaseState, State};
use crate::volume::Moved;

/// Moves the base to the store's head.
pub(crate) fn pull(replica: &Arc<Replica>) -> Result<Moved> {
    let _traffic = replica.traffic.lock();
    pull_locked(replica).inspect_err(|e| replica.note_error(e))
}

pub(crate) fn pull_locked(replica: &Arc<Replica>) -> Result<Moved> {
    let engine = replica.engine();
    let mut moved = Moved::default();
    if let Some(pushed) = settle_intent(replica)? {
        moved.note_push(&pushed);
    }
    let state = replica.core().state.clone();
    if let Some(base) = &state.base
        && state.diverged.is_none()
        && is_head(replica, &state.remote, base)?
    {
        return Ok(moved);
    }
    let found = head(replica)?;
    let Some(head) = live_head(replica, &state, found)? else { return Ok(moved) };
    let Some(base) = &state.base else {
        return adopt(replica, &state, &head);
    };
    if head.lsn() == base.lsn {
        if head.hash() != base.hash {
            return Err(replaced(&state.remote, base.lsn));
        }
        return Ok(moved);
    }
    if head.lsn() < base.lsn {
        return Err(replaced(&state.remote, base.lsn));
    }
    let (newer, sets) = engine.bridge.wait(newer_commits(engine, &state.remote, base, &head))?;
    if state.is_ahead() && newer[0].local_tip == state.tip && newer[0].local_tip != LocalTip::ZERO {
        // Another copy of this data directory has pushed the very commits that are unpushed here.
        let ours = &newer[0];
        let base = BaseState { lsn: ours.lsn, hash: ours.hash(), page_count: ours.page_count };
        let mut core = replica.core();
        if core.state.tip == ours.local_tip {
            replica.change_state(&mut core, StateChange::default(), |state| {
                state.pending = Default::default();
                state.intent_won(base);
            })?;
            drop(core);
            return pull_locked(replica);
        }
    }
    let only_voids = newer.iter().all(|h| h.kind == CommitKind::Void);
    if state.is_ahead() && !only_voids {
        let mut core = replica.core();
        let lsn = head.lsn();
        replica.change_state(&mut core, StateChange::default(), |state| state.diverged = Some(lsn))?;
        let unpushed = core.state.unpushed();
        drop(core);
        return Err(diverged_error(replica, lsn, unpushed));
    }
    let known = replica.lineage.lock().clone();
    let longer = match known.filter(|l| l.head() == (base.lsn, base.hash)) {
        Some(known) => Some(engine.bridge.wait(known.extended(engine, newer))?),
        None => None,
    };
    engine.remember(state.remote.clone(), head.clone());
    let from = base.lsn;
    let pages_changed = move_base(replica, head.header(), &sets, only_voids)?;
    if longer.is_some() {
        *replica.lineage.lock() = longer;
    }
    moved.pulled = Some((Some(from), head.lsn()));
    moved.pages_changed = pages_changed;
    Ok(moved)
}

/// Whether no commit follows the base: one request, and no listing.
fn is_head(replica: &Replica, remote: &VolumeName, base: &BaseState) -> Result<bool> {
    let engine = replica.engine();
    let next = base.lsn.next();
    match engine.bridge.wait(async { engine.stores().await?.metastore.commit(remote, next).await }) {
        Ok(commit) => {
            engine.remember(remote.clone(), commit);
            Ok(false)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let mut notes = replica.notes.lock();
            notes.store_lsn = Some(base.lsn);
            notes.last_error = None;
            Ok(true)
        }
        Err(e) => Err(e),
    }
}

/// What the store has under the replica's name now.
pub(crate) fn head(replica: &Replica) -> Result<VolumeState> {
    let engine = replica.engine();
    let remote = replica.core().state.remote.clone();
    let state = engine.bridge.wait(async { engine.stores().await?.metastore.head(&remote).await })?;
    let mut notes = replica.notes.lock();
    notes.store_lsn = state.head().map(SealedCommit::lsn);
    notes.last_error = None;
    Ok(state)
}

/// The head of a live volume. `None`: there is nothing to pull. An error if
/// the volume that this replica stands on has ended.
fn live_head(replica: &Replica, state: &State, found: VolumeState) -> Result<Option<SealedCommit>> {
    match found {
        VolumeState::Live(head) => Ok(Some(*head)),
        VolumeState::Free { .. } if state.base.is_none() => Ok(None),
        VolumeState::Free { .. } => Err(replaced(&state.remote, state.base_lsn().unwrap_or(Lsn::FIRST))),
        VolumeState::Ended { .. } if state.base.is_none() => Ok(None),
        VolumeState::Ended { by: end, .. } => {
            let (what, remedy) = match &end.header().moved_to {
                Some(new) => (format!("was renamed to {new}"), format!("`quire clone {new}` follows it.")),
                None => ("was deleted".to_owned(), "`quire export` saves this replica's content as a file.".to_owned()),
            };
            let text = format!("volume {} {what} in the store at LSN {}", state.remote, end.lsn());
            replica.notes.lock().ended = Some(text.clone());
            Err(Error::new(ErrorKind::Gone, text).with_remedy(remedy))
        }
    }
}

/// The commits after `base` up to `head`, and what they changed.
async fn newer_commits(
    engine: &Arc<Shared>,
    remote: &VolumeName,
    base: &BaseState,
    head: &SealedCommit,
) -> Result<(Vec<CommitHeader>, PageSet)> {
    let first = base.lsn.next();
    let newer = if head.lsn() == first {
        vec![head.header().clone()]
    } else {
        engine.stores().await?.metastore.headers(remote, first, head.header()).await?
    };
    let follows = newer.first().is_some_and(|h| h.lsn == first && h.parent == Some(base.hash));
    if !follows || newer.iter().any(|h| h.kind.begins() || h.kind.ends()) {
        return Err(replaced(remote, base.lsn));
    }
    let mut changed = PageSet::new();
    for header in &newer {
        match &header.sets {
            Some(sets) => changed.union_with(&sets.changed),
            None => changed.union_with(&engine.commit(remote, header.lsn).await?.body().sets.changed),
        }
    }
    Ok((newer, changed))
}

/// Sets the base; `absent` are the pages that it changes. Under commits that
/// are not in the store it can be moved over `only_voids`.
fn move_base(replica: &Arc<Replica>, head: &CommitHeader, absent: &PageSet, only_voids: bool) -> Result<u64> {
    replica.lock_writer("a pull")?;
    let moved = {
        let mut core = replica.core();
        let keep_local = core.state.is_ahead();
        if keep_local && !only_voids {
            // It was committed while the store was asked.
            let unpushed = core.state.unpushed();
            let noted =
                replica.change_state(&mut core, StateChange::default(), |state| state.diverged = Some(head.lsn));
            noted.and(Err(diverged_error(replica, head.lsn, unpushed)))
        } else {
            let base = BaseState { lsn: head.lsn, hash: head.hash(), page_count: head.page_count };
            let content = !absent.is_empty() || (!keep_local && core.state.page_count != head.page_count);
            let change = StateChange { absent: std::borrow::Cow::Borrowed(absent), content, ..StateChange::default() };
            replica.change_state(&mut core, change, |state| {
                state.base = Some(base);
                if !keep_local {
                    state.page_size = Some(head.page_size);
                    state.page_count = head.page_count;
                    state.attributes = head.attributes.clone();
                }
                state.diverged = None;
            })
        }
    };
    replica.release_writer(false);
    moved.map(|()| absent.len())
}

/// A replica that has nothing yet takes the store's volume.
fn adopt(replica: &Arc<Replica>, state: &State, head: &SealedCommit) -> Result<Moved> {
    if state.is_ahead() {
        let mut core = replica.core();
        let lsn = head.lsn();
        replica.change_state(&mut core, StateChange::default(), |state| state.diverged = Some(lsn))?;
        let unpushed = core.state.unpushed();
        drop(core);
        return Err(diverged_error(replica, lsn, unpushed));
    }
    replica.engine().remember(state.remote.clone(), head.clone());
    move_base(replica, head.header(), &PageSet::new(), false)?;
    let pages_changed = u64::from(head.header().page_count.get());
    Ok(Moved { pulled: Some((None, head.lsn())), pages_changed, ..Moved::default() })
}
