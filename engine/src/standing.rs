//! What the store has of what a replica stands on, and what to say if it has it no more: the volume was deleted or
//! renamed there, or it is another store.

use quire_history::replaced;
use quire_proto::{CommitHeader, Error, ErrorKind, Result, SealedCommit, VolumeState};

use crate::replica::Replica;
use crate::state::BaseState;

/// What the store has under the replica's name now.
pub(crate) fn head(replica: &Replica) -> Result<VolumeState> {
    let remote = replica.core().state.remote.clone();
    let state = replica.engine().head(&remote)?;
    check_end(replica, &state)?;
    note_head(replica, &state);
    Ok(state)
}

/// Before anybody is told that the volume has ended: is it the one that the replica stands on?
pub(crate) fn check_end(replica: &Replica, state: &VolumeState) -> Result<()> {
    let (VolumeState::Ended { by, .. }, Some(base)) = (state, own_base(replica)) else { return Ok(()) };
    if by.lsn() <= base.lsn {
        return Ok(());
    }
    check_once(replica).map_err(|e| match e.kind() {
        // There is nothing to go over to.
        ErrorKind::Conflict => another_store(replica, &base, state).unwrap_or(e),
        _ => e,
    })
}

/// Keeps what the store has for `status`.
pub(crate) fn note_head(replica: &Replica, state: &VolumeState) {
    {
        let mut notes = replica.notes.lock();
        notes.store_lsn = state.head().map(SealedCommit::lsn);
        notes.last_error = None;
    }
    if let VolumeState::Ended { by, .. } = state
        && own_base(replica).is_some_and(|base| by.lsn() > base.lsn && !is_unconfirmed(replica, &base))
    {
        ended(replica, by.header());
    }
}

/// The head of a live volume. `None`: there is none, and the replica stands on none. If it does, that is an error.
pub(crate) fn live_head(replica: &Replica, found: VolumeState) -> Result<Option<SealedCommit>> {
    let Some(base) = own_base(replica) else { return Ok(found.live()) };
    match found {
        VolumeState::Live(head) => Ok(Some(*head)),
        VolumeState::Ended { by, .. } if by.lsn() > base.lsn => Err(ended(replica, by.header())),
        VolumeState::Ended { .. } | VolumeState::Free { .. } => Err(behind_base(replica, &base)),
    }
}

/// The store lists nothing that is as new as what the replica stands on: it is another one, or its listing is late.
pub(crate) fn behind_base(replica: &Replica, base: &BaseState) -> Error {
    check_base(replica).err().unwrap_or_else(|| {
        let (volume, lsn) = (&base.volume, base.lsn);
        Error::unavailable(format!("volume {volume}: the store has LSN {lsn}, and does not list it"))
            .with_remedy("Nothing was lost. Its listing may be late: try again.")
    })
}

/// Whether the store has the commit that the replica stands on: one request if it has.
pub(crate) fn check_base(replica: &Replica) -> Result<()> {
    own_base(replica).map_or(Ok(()), |base| judge_base(replica, &base, ask_for(replica, &base)))
}

/// As [`check_base`]. Who may not know, as his token begins at a later LSN, is not told.
pub(crate) fn check_known(replica: &Replica) -> Result<()> {
    own_base(replica).map_or(Ok(()), |base| confirm(replica, &base, ask_for(replica, &base)))
}

fn ask_for(replica: &Replica, base: &BaseState) -> Result<CommitHeader> {
    let engine = replica.engine();
    engine.bridge.wait(async { engine.stores().await?.metastore.header(&base.volume, base.lsn).await })
}

/// What the store's answer says that was asked for the commit that the replica stands on.
fn judge_base(replica: &Replica, base: &BaseState, asked: Result<CommitHeader>) -> Result<()> {
    match asked {
        Ok(header) if header.hash() == base.hash => {
            let mut notes = replica.notes.lock();
            (notes.unconfirmed, notes.last_error) = (None, None);
            Ok(())
        }
        Ok(_) => Err(replaced(&base.volume, base.lsn)),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let found = replica.engine().head(&base.volume)?;
            note_head(replica, &found);
            Err(another_store(replica, base, &found).unwrap_or(e))
        }
        Err(e) => Err(e),
    }
}

/// As [`judge_base`]. Who may not know, as his token begins at a later LSN, is not told.
pub(crate) fn confirm(replica: &Replica, base: &BaseState, asked: Result<CommitHeader>) -> Result<()> {
    match judge_base(replica, base, asked) {
        Err(e) if e.kind() == ErrorKind::Denied => {
            replica.notes.lock().unconfirmed = None;
            Ok(())
        }
        judged => judged,
    }
}

/// Whether the replica stands on what it stood on when it was opened, and nobody has asked the store for that yet.
pub(crate) fn is_unconfirmed(replica: &Replica, base: &BaseState) -> bool {
    replica.notes.lock().unconfirmed == Some(base.hash)
}

/// Before anybody is told that nothing is left to do: is it the right store? It is asked once while the replica is open.
pub(crate) fn check_once(replica: &Replica) -> Result<()> {
    match own_base(replica).filter(|base| is_unconfirmed(replica, base)) {
        Some(_) => check_known(replica),
        None => Ok(()),
    }
}

/// As [`check_base`], for who was told that both sides moved on: perhaps the volume has ended.
pub(crate) fn check_store(replica: &Replica) -> Result<()> {
    check_base(replica)?;
    let is_diverged = replica.core().state.diverged.is_some();
    if is_diverged { live_head(replica, head(replica)?).map(|_| ()) } else { Ok(()) }
}

/// Why the store refuses a commit: perhaps it does not have what that goes on from. Only then it is asked.
pub(crate) fn why_refused(replica: &Replica, refused: Error) -> Error {
    if refused.kind() != ErrorKind::Invalid {
        return refused;
    }
    match check_base(replica) {
        Err(why) if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => why,
        _ => refused,
    }
}

/// The volume that the replica stands on has ended, by the commit with this header: `Conflict` if there is local work
/// on it, else `Gone`. From here on `status` says so.
pub(crate) fn ended(replica: &Replica, end: &CommitHeader) -> Error {
    let (name, lsn) = (replica.name(), end.lsn);
    let (remote, is_ahead, unpushed) = {
        let core = replica.core();
        (core.state.remote.clone(), core.state.is_ahead(), core.state.unpushed())
    };
    let mut text = match &end.moved_to {
        Some(new) => format!("volume {remote} was renamed to {new} in the store at LSN {lsn}"),
        None => format!("volume {remote} was deleted in the store at LSN {lsn}"),
    };
    if is_ahead {
        text += &format!(", and {unpushed} local commits are not there");
    }
    let remedy = match (&end.moved_to, is_ahead) {
        (Some(new), false) => format!("`quire clone {new}` follows it, `quire rm {name}` removes this replica."),
        (Some(new), true) => format!(
            "`quire clone {new}` follows it; `quire fork {name} NEW` makes another volume of what is here, local \
             commits included."
        ),
        (None, false) => format!(
            "`quire fork {name} NEW` brings it back under that name, `quire export {name} FILE` saves it as a file, \
             `quire rm {name}` removes this replica."
        ),
        (None, true) => format!(
            "`quire fork {name} NEW` makes a volume of what is here, local commits included, `quire export {name} \
             FILE` a file; then `quire rm {name} --force` removes this replica."
        ),
    };
    replica.notes.lock().ended = Some((text.clone(), remedy.clone()));
    Error::new(if is_ahead { ErrorKind::Conflict } else { ErrorKind::Gone }, text).with_remedy(remedy)
}

/// The store does not have the commit that a replica stands on: it is another one, or an older copy. None: its volume
/// has newer commits all the same.
fn another_store(replica: &Replica, base: &BaseState, found: &VolumeState) -> Option<Error> {
    const RIGHT_ONE: &str = "If so, set `store` to the one that has them: `quire config` shows where it is set.";
    let (name, url) = (replica.name(), replica.engine().store_url());
    let (volume, lsn) = (&base.volume, base.lsn);
    let error = match found {
        VolumeState::Live(head) if head.lsn() >= lsn => return None,
        VolumeState::Live(head) => Error::new(
            ErrorKind::Conflict,
            format!(
                "the store at {url} has volume {volume} up to LSN {} only, though this replica has its commits up to \
                 LSN {lsn}: is it another store, or an older copy?",
                head.lsn()
            ),
        )
        .with_remedy(format!(
            "{RIGHT_ONE} `quire reset {name}` goes to what this one has and keeps unpushed commits as {name}.dropped-N."
        )),
        VolumeState::Ended { .. } | VolumeState::Free { .. } => Error::not_found(format!(
            "the store at {url} has no volume {volume}, though this replica has its commits up to LSN {lsn}: is it \
             another store?"
        ))
        .with_remedy(format!(
            "{RIGHT_ONE} To begin the volume anew in this one: `quire export {name} FILE` while the old store can be \
             reached, then `quire import FILE NEW` and `quire push NEW`."
        )),
    };
    Some(error)
}

/// The commit of the volume's own log that the replica stands on.
fn own_base(replica: &Replica) -> Option<BaseState> {
    replica.core().state.own_base().cloned()
}
