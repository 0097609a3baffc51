//! Work that is not in the store, and that no push is going to put there on top of what it stands on: both sides moved
//! on, or it is a fork that was not pushed yet. Collection must not let go of the snapshot below it, so the replica
//! leaves a marker there as soon as it can, and takes it back once the work is in the store or given up.
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
pub(crate) fn around<T>(replica: &Replica, traffic: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = base(replica);
    let done = traffic();
    if matches!(&done, Err(e) if e.kind() == ErrorKind::Unavailable) {
        return done;
    }
    let now = base(replica);
    if let Some(before) = before.filter(|before| now.as_ref() != Some(before)) {
        let_go(replica, &before);
    }
    match now.map_or(Ok(()), |now| hold(replica, &now)) {
        Err(e) if e.kind() == ErrorKind::Gone => Err(e),
        Err(e) => {
            tracing::warn!("volume {}: nobody knows yet what its local commits stand on: {e}", replica.name());
            done
        }
        Ok(()) => done,
    }
}

/// Leaves the marker of a replica whose work is about to be put aside.
pub(crate) fn hold_now(replica: &Replica) -> Result<()> {
    base(replica).map_or(Ok(()), |base| hold(replica, &base))
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

fn hold(replica: &Replica, base: &BaseState) -> Result<()> {
    if replica.notes.lock().held.as_ref() == Some(base) {
        return Ok(());
    }
    let Some(marker) = marker(replica, base) else { return Ok(()) };
    let engine = replica.engine();
    engine.bridge.wait(async { engine.stores().await?.metastore.mark(&marker).await }).map_err(|e| match e.kind() {
        ErrorKind::Gone => {
            take_back(engine, replica, &marker);
            gone(replica, base)
        }
        _ => e,
    })?;
    replica.notes.lock().held = Some(base.clone());
    Ok(())
}

fn let_go(replica: &Replica, base: &BaseState) {
    replica.notes.lock().held = None;
    if let Some(marker) = marker(replica, base) {
        take_back(replica.engine(), replica, &marker);
    }
}

fn take_back(engine: &Arc<Shared>, replica: &Replica, marker: &Marker) {
    let taken = engine.bridge.wait(async { engine.stores().await?.metastore.unmark(marker).await });
    if let Err(e) = taken {
        let (volume, lsn, _) = &marker.base;
        tracing::warn!(
            "volume {}: its marker on {volume}@{lsn} stays, and so does that snapshot: {e}; `quire keep {volume}@{lsn} \
             --no-longer` removes it",
            replica.name()
        );
    }
}

fn marker(replica: &Replica, base: &BaseState) -> Option<Marker> {
    let ReplicaId(id) = ReplicaId::of_folder(replica.dir())?;
    let author = replica.engine().author().to_owned();
    let target = MarkerTarget::Replica { id, author };
    Some(Marker { base: (base.volume.clone(), base.lsn, base.hash), target })
}

fn gone(replica: &Replica, base: &BaseState) -> Error {
    let (name, unpushed) = (replica.name(), replica.unpushed());
    Error::new(
        ErrorKind::Gone,
        format!(
            "volume {name} has {unpushed} local commits on LSN {} of {}, which is not kept any more: of its pages only \
             those that are here can be read",
            base.lsn, base.volume
        ),
    )
    .with_remedy(format!(
        "`quire reset {name}` goes to the store's head and keeps the local commits as {name}.dropped-N, with the pages \
         that are here."
    ))
}
