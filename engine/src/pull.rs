//! Pull: the replica's base moves to the store's head. Changed pages become
//! absent; none is downloaded. And reset: the same, after putting local work aside.

use std::sync::Arc;

use parking_lot::MutexGuard;
use quire_history::{Since, beginning, replaced, since};
use quire_proto::{CommitHeader, CommitKind, ErrorKind, Lsn, PageSet, Result, SealedCommit, VolumeName, VolumeState};

use crate::hold;
use crate::push::{diverge, settle_intent};
use crate::replica::{Core, Replica, StateChange};
use crate::standing;
use crate::state::{BaseState, State};
use crate::volume::Moved;

/// Moves the base to the store's head. The caller has the lock of the traffic.
pub(crate) fn pull(replica: &Arc<Replica>) -> Result<Moved> {
    hold::around(replica, || pull_locked(replica)).inspect_err(|e| replica.note_error(e))
}

pub(crate) fn pull_locked(replica: &Arc<Replica>) -> Result<Moved> {
    let engine = replica.engine();
    let mut moved = Moved::default();
    if let Some(pushed) = settle_intent(replica)? {
        moved.note_push(&pushed);
    }
    let state = replica.core().state.clone();
    if let Some(base) = state.own_base()
        && state.diverged.is_none()
        && is_head(replica, &state.remote, base)?
    {
        return Ok(moved);
    }
    let found = head_after(replica, state.base_lsn())?;
    let Some(head) = standing::live_head(replica, found)? else { return Ok(moved) };
    let Some(base) = state.own_base() else {
        return adopt(replica, &state, &head);
    };
    if head.lsn() == base.lsn {
        if head.hash() != base.hash {
            return Err(replaced(&state.remote, base.lsn));
        }
        if state.diverged.is_some() {
            // The store has nothing that this replica does not stand on: whoever said so looked at an older listing.
            let mut core = replica.core();
            replica.change_state(&mut core, StateChange::default(), |state| state.diverged = None)?;
        }
        return Ok(moved);
    }
    if head.lsn() < base.lsn {
        return Err(standing::behind_base(replica, base));
    }
    let known = (base.lsn, base.hash, base.page_count);
    let Since { next, changed, headers, lineage } =
        engine.bridge.wait(async { since(engine.reader().await?, &state.remote, known, &head).await })?;
    let only_voids = headers.as_ref().is_some_and(|headers| headers.iter().all(|h| h.kind == CommitKind::Void));
    {
        // What was committed while the store was asked counts, too.
        let core = replica.core();
        if core.state.is_tip(&next) {
            stand_on(replica, core, &next)?;
            return pull_locked(replica);
        }
        if core.state.is_ahead() && !only_voids {
            return Err(diverge(replica, core, head.lsn()));
        }
    }
    let known = replica.lineage.lock().clone();
    let longer = match (known.filter(|l| l.head() == (base.lsn, base.hash)), headers) {
        (Some(known), Some(newer)) => {
            let longer = async { known.extended(engine.reader().await?, &state.remote, newer).await };
            // A fault here only makes it be read again.
            engine.bridge.wait(longer).ok().flatten()
        }
        _ => lineage,
    };
    let from = base.lsn;
    let Some(pages_changed) = move_base(replica, head.header(), &changed, only_voids)? else {
        return pull_locked(replica);
    };
    if longer.is_some() {
        *replica.lineage.lock() = longer;
    }
    moved.pulled = Some((Some(from), head.lsn()));
    moved.pages_changed = pages_changed;
    Ok(moved)
}

/// What is unpushed is in the store as `ours`: the base moves there, and nothing that is visible changes.
fn stand_on(replica: &Arc<Replica>, mut core: MutexGuard<'_, Core>, ours: &CommitHeader) -> Result<()> {
    replica.change_state(&mut core, StateChange::default(), |state| state.found_in_store(ours))
}

/// Whether no commit follows the base: one request, and no listing. The first time another one beside it asks for the
/// base: where that is missing, it is another store.
fn is_head(replica: &Replica, remote: &VolumeName, base: &BaseState) -> Result<bool> {
    let engine = replica.engine();
    let is_unconfirmed = standing::is_unconfirmed(replica, base);
    let (next, found) = engine.bridge.wait(async {
        let metastore = &engine.stores().await?.metastore;
        let next = metastore.commit(remote, base.lsn.next());
        if !is_unconfirmed {
            return Ok((next.await, None));
        }
        let (next, found) = futures::join!(next, metastore.header(remote, base.lsn));
        Ok((next, Some(found)))
    })?;
    let confirm = |found| standing::confirm(replica, base, found);
    match next {
        Ok(commit) => {
            if commit.header().parent != Some(base.hash) {
                return Err(replaced(remote, base.lsn));
            }
            replica.notes.lock().unconfirmed = None;
            engine.remember(remote.clone(), commit);
            Ok(false)
        }
        // So long ago that history has collected it.
        Err(e) if e.kind() == ErrorKind::Gone => found.map_or(Ok(()), confirm).map(|()| false),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            found.map_or(Ok(()), confirm)?;
            let mut notes = replica.notes.lock();
            notes.store_lsn = Some(base.lsn);
            notes.last_error = None;
            Ok(true)
        }
        Err(e) => Err(e),
    }
}

/// What the store has under the replica's name now; what a pull from `known` needs next is fetched beside it.
fn head_after(replica: &Replica, known: Option<Lsn>) -> Result<VolumeState> {
    let engine = replica.engine();
    let remote = replica.core().state.remote.clone();
    let state = engine.bridge.wait(async { engine.reader().await?.head(&remote, known).await })?;
    standing::check_end(replica, &state)?;
    standing::note_head(replica, &state);
    Ok(state)
}

/// Sets the base; `absent` are the pages that it changes. Under commits that
/// are not in the store it can be moved over `only_voids`. None: it was
/// committed while the store was asked. Whether that is a divergence, or what
/// another copy of this data directory has pushed, is to be found out afresh.
fn move_base(replica: &Arc<Replica>, head: &CommitHeader, absent: &PageSet, only_voids: bool) -> Result<Option<u64>> {
    replica.with_writer("a pull", || {
        let mut core = replica.core();
        let keep_local = core.state.is_ahead();
        if keep_local && !only_voids {
            return Ok(None);
        }
        let content = !absent.is_empty() || (!keep_local && core.state.page_count != head.page_count);
        let change = StateChange { absent: std::borrow::Cow::Borrowed(absent), content, ..StateChange::default() };
        let moved = replica.change_state(&mut core, change, |state| {
            state.stand_on(head);
            if !keep_local {
                state.page_size = Some(head.page_size);
                state.page_count = head.page_count;
                state.attributes = head.attributes.clone();
            }
            state.diverged = None;
        });
        moved.map(|()| Some(absent.len()))
    })
}

/// A replica that has nothing yet takes the store's volume.
fn adopt(replica: &Arc<Replica>, state: &State, head: &SealedCommit) -> Result<Moved> {
    if state.is_ahead() {
        let engine = replica.engine();
        let begin =
            engine.bridge.wait(async { beginning(engine.reader().await?, &state.remote, head.header()).await })?;
        let core = replica.core();
        if core.state.is_tip(&begin) {
            stand_on(replica, core, &begin)?;
            return pull_locked(replica);
        }
        return Err(diverge(replica, core, head.lsn()));
    }
    if move_base(replica, head.header(), &PageSet::new(), false)?.is_none() {
        return pull_locked(replica);
    }
    let pages_changed = u64::from(head.header().page_count.get());
    Ok(Moved { pulled: Some((None, head.lsn())), pages_changed, ..Moved::default() })
}
