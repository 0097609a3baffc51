//! Work that is not in the store, and that no push is going to put there on top of what it stands on: both sides moved
//! on, or it is a fork that was not pushed yet. Collection must not let go of the snapshot below it, so the replica
//! leaves a marker there as soon as it can, and takes it back once the work is in the store or given up. If the store is
//! away then, the next traffic of any volume of the data directory leaves it.
//!
//! The marker has the replica's own name, so leaving it again changes nothing. A copy of the data directory has the same
//! one: whichever takes it back first does so for both.

use std::sync::Arc;

use quire_proto::{Error, ErrorKind, Marker, MarkerTarget, Result};

use crate::catalog::ReplicaId;
use crate::engine::Shared;
use crate::replica::Replica;
use crate::state::BaseState;

/// Does some traffic with the store, then brings the marker in line with what came of it.
pub(crate) fn around<T>(replica: &Arc<Replica>, traffic: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = base(replica);
    let done = traffic();
    if matches!(&done, Err(e) if e.kind() == ErrorKind::Unavailable) {
        hold_later(replica);
        return done;
    }
    let now = base(replica);
    if let Some(before) = before.filter(|before| now.as_ref() != Some(before)) {
        let_go(replica, &before);
    }
    settle(replica);
    match now.map_or(Ok(()), |now| hold(replica, &now)) {
        Err(e) if e.kind() == ErrorKind::Gone => Err(e),
        Err(e) => {
            tracing::warn!("volume {}: nobody knows yet what its local commits stand on: {e}", replica.name());
            done
        }
        Ok(()) => {
            if done.is_ok() {
                hold_others(replica.engine());
            }
            done
        }
    }
}

/// Leaves the marker of a replica whose work is about to be put aside.
pub(crate) fn hold_now(replica: &Arc<Replica>) -> Result<()> {
    base(replica).map_or(Ok(()), |base| hold(replica, &base))
}

/// The store is away: the marker is left when it is reached again, by whichever volume.
pub(crate) fn hold_later(replica: &Replica) {
    let Some(base) = base(replica) else { return };
    if replica.notes.lock().held.as_ref() != Some(&base)
        && let Some((id, marker)) = marker(replica, &base)
    {
        replica.engine().unheld.add(id, marker);
    }
}

/// Leaves the markers that could not be left before. A failure is for the traffic of their own replicas to tell.
fn hold_others(engine: &Arc<Shared>) {
    let leave_noted = |id, marker: &Marker| {
        if !engine.catalog.lock().has(id) {
            return Ok(());
        }
        let Err(e) = leave(engine, marker) else { return Ok(()) };
        let (volume, lsn, _) = &marker.base;
        tracing::warn!("nobody knows yet what local commits on LSN {lsn} of volume {volume} stand on: {e}");
        if e.kind() == ErrorKind::Gone { Ok(()) } else { Err(e) }
    };
    // Told by then.
    let _ = engine.unheld.leave(leave_noted, |marker| take_back(engine, marker));
}

/// Leaves a marker in the store. One that is refused, as what it stands on is gone, is taken back: it may be there by now.
fn leave(engine: &Arc<Shared>, marker: &Marker) -> Result<()> {
    let left = engine.bridge.wait(async { engine.stores().await?.metastore.mark(marker).await });
    if matches!(&left, Err(e) if e.kind() == ErrorKind::Gone) {
        take_back(engine, marker);
    }
    left
}

/// Lets go of a noted marker that the replica needs no more: a push whose outcome was in doubt is in the store, or the
/// process was killed before the note went.
pub(crate) fn settle(replica: &Replica) {
    let Some(id) = ReplicaId::of_folder(replica.dir()) else { return };
    let Some(noted) = replica.engine().unheld.of(id) else { return };
    let needed = base(replica).map(|base| (base.volume, base.lsn, base.hash));
    if needed.as_ref() != Some(&noted.base) {
        end(replica.engine(), id, &noted);
    }
}

/// The work of a replica is given up: takes back its marker.
pub(crate) fn give_up(replica: &Replica) {
    if let Some(base) = base(replica) {
        let_go(replica, &base);
    }
}

/// What is to be held.
fn base(replica: &Replica) -> Option<BaseState> {
    replica.core().state.stands_apart_on().cloned()
}

fn hold(replica: &Arc<Replica>, base: &BaseState) -> Result<()> {
    if replica.notes.lock().held.as_ref() == Some(base) {
        return Ok(());
    }
    let Some((id, marker)) = marker(replica, base) else { return Ok(()) };
    let engine = replica.engine();
    if engine.unheld.is_going(&marker) {
        engine.unheld.add(id, marker);
        return Err(Error::new(ErrorKind::Busy, "the marker of before is still being taken back"));
    }
    match leave(engine, &marker) {
        Ok(()) => {
            engine.unheld.remove(id);
            replica.notes.lock().held = Some(base.clone());
            Ok(())
        }
        Err(e) if e.kind() == ErrorKind::Gone => {
            engine.unheld.remove(id);
            Err(gone(replica, base))
        }
        Err(e) => {
            engine.unheld.add(id, marker);
            Err(e)
        }
    }
}

fn let_go(replica: &Replica, base: &BaseState) {
    replica.notes.lock().held = None;
    if let Some((id, marker)) = marker(replica, base) {
        end(replica.engine(), id, &marker);
    }
}

fn end(engine: &Arc<Shared>, id: ReplicaId, marker: &Marker) {
    if engine.unheld.end(id, marker) {
        take_back(engine, marker);
    }
}

fn take_back(engine: &Arc<Shared>, marker: &Marker) {
    let taken = engine.bridge.wait(async { engine.stores().await?.metastore.unmark(marker).await });
    if let Err(e) = taken {
        let (volume, lsn, _) = &marker.base;
        tracing::warn!(
            "the marker of local commits on {volume}@{lsn} stays, and so does that snapshot: {e}; `quire keep \
             {volume}@{lsn} --no-longer` removes it"
        );
    }
}

fn marker(replica: &Replica, base: &BaseState) -> Option<(ReplicaId, Marker)> {
    let id = ReplicaId::of_folder(replica.dir())?;
    let author = replica.engine().author().to_owned();
    let target = MarkerTarget::Replica { id: id.0, author };
    Some((id, Marker { base: (base.volume.clone(), base.lsn, base.hash), target }))
}

fn gone(replica: &Arc<Replica>, base: &BaseState) -> Error {
    let (name, unpushed) = (replica.name(), replica.unpushed());
    Error::new(
        ErrorKind::Gone,
        format!(
            "volume {name} has {unpushed} local commits on LSN {} of {}, which is not kept any more: of its pages only \
             those that are here can be read",
            base.lsn, base.volume
        ),
    )
    .with_remedy(remedy(replica))
}

/// What can be done about work whose base is gone: a fork that was never pushed has nothing in the store to go to.
fn remedy(replica: &Arc<Replica>) -> String {
    let name = replica.name();
    let was_pushed = {
        let core = replica.core();
        core.state.own_base().is_some() || core.state.diverged.is_some()
    };
    if was_pushed {
        return format!(
            "`quire reset {name}` goes to the store's head and keeps the local commits as {name}.dropped-N, with the \
             pages that are here."
        );
    }
    let snapshot = replica.snapshot();
    let (here, all) = (snapshot.pages_here(), u64::from(snapshot.page_count().get()));
    let saved = if here == all {
        format!(
            "All of its pages are here: `quire export {name} FILE` saves them, and `quire import FILE NEW` makes a volume \
             of them."
        )
    } else if here > 0 {
        format!("{here} of its {all} pages are here: `quire sql {name} \"SELECT ...\"` reads what they hold.")
    } else {
        "None of its pages is here.".to_owned()
    };
    format!("{saved} `quire rm {name} --force` gives it up.")
}
