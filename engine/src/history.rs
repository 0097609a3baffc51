//! The past and its branches: snapshots by LSN or time, forks, restores.
//!
//! A snapshot of the past is a replica that cannot be written, has no name in
//! the catalogue, and goes with its last reader. A fork begins as a replica on
//! another volume's snapshot; its first push makes the fork in the store. One
//! of a replica that is here links that one's files, so it needs no store and
//! copies nothing, whatever the volume's size.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use quire_proto::{
    Base, CommitId, CommitKind, Error, ErrorKind, LocalTip, Lsn, PageSet, Result, SealedCommit, VolumeName,
    VolumeState, changed_since,
};

use crate::catalog::{Change, REMOVED, ReplicaId, remove_folder};
use crate::engine::{Engine, Shared, make_folder};
use crate::hold;
use crate::lease;
use crate::log::sync_dir;
use crate::replica::{Replica, StateChange};
use crate::state::{BaseState, State};
use crate::volume::{LogEntry, Open, Volume};

/// Which snapshot of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The one that this LSN made.
    Lsn(Lsn),
    /// The newest that the store had then, in milliseconds since 1970 by the store's own clock.
    Time(u64),
}

/// Snapshots of the past that are open, by volume of the store and LSN.
pub(crate) type Past = HashMap<(VolumeName, Lsn), Weak<Open>>;

/// What a fork made.
pub struct Forked {
    /// The fork's replica.
    pub volume: Volume,
    /// The LSN that made it in the store. None: it is only here as yet, and its first push brings it there.
    pub lsn: Option<Lsn>,
    /// The volume and LSN that it was forked from, if that is in the store.
    pub base: Option<(VolumeName, Lsn)>,
    /// Why it is only here, if it should be in the store.
    pub not_pushed: Option<Error>,
}

/// What a restore made.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// The LSN whose content it is.
    pub from: Lsn,
    /// The LSN that it has.
    pub lsn: Lsn,
}

/// What differs between two snapshots of a volume.
#[derive(Clone, Debug)]
pub struct Between {
    /// The older one.
    pub from: LogEntry,
    /// The newer one.
    pub to: LogEntry,
    /// The pages that commits changed after the one, up to the other; those that only one of them has, too.
    pub pages: PageSet,
}

impl Engine {
    /// Opens a snapshot of a volume for reading, whether a replica of it is here or not. It can be used as any
    /// volume, except that nothing writes to it, and nothing moves it.
    pub fn volume_at(&self, name: &VolumeName, moment: Moment) -> Result<Volume> {
        let shared = &self.shared;
        let remote = self.remote_of(name);
        let commit = shared.bridge.wait(snapshot_commit(shared, &remote, moment))?;
        let place = (remote, commit.lsn());
        let mut past = shared.past.lock();
        past.retain(|_, open| open.strong_count() > 0);
        if let Some(open) = past.get(&place).and_then(Weak::upgrade) {
            return Ok(Volume::new(open));
        }
        let title = VolumeName::parse(&format!("{name}@{}", commit.lsn()))?;
        let (_, replica) = shared.replica_in_state(&title, State::at(place.0.clone(), commit.header()), 0)?;
        replica.make_past();
        replica.notes.lock().store_lsn = Some(commit.lsn());
        let open = Open::new(shared, replica);
        lease::keep(shared, &open, BaseState::of(&place.0, commit.header()));
        past.insert(place, Arc::downgrade(&open));
        Ok(Volume::new(open))
    }

    /// The commit that made a snapshot of a volume.
    pub fn info_at(&self, name: &VolumeName, moment: Moment) -> Result<LogEntry> {
        let (shared, remote) = (&self.shared, self.remote_of(name));
        shared.bridge.wait(async {
            let commit = snapshot_commit(shared, &remote, moment).await?;
            shared.entry(&remote, commit.header()).await
        })
    }

    /// What changed between two snapshots of a volume, whichever is the older.
    pub fn changed_between(&self, name: &VolumeName, a: Moment, b: Moment) -> Result<Between> {
        let shared = &self.shared;
        let remote = self.remote_of(name);
        shared.bridge.wait(async {
            let a = snapshot_commit(shared, &remote, a).await?;
            let b = snapshot_commit(shared, &remote, b).await?;
            let (from, to) = if a.lsn() <= b.lsn() { (a, b) } else { (b, a) };
            let (older, newer) = (from.header(), to.header());
            let mut pages = PageSet::new();
            if older.lsn < newer.lsn {
                let most_pages = older.page_count.max(newer.page_count);
                let log = &*shared.stores().await?.metastore;
                let changed = changed_since(log, &remote, older, newer).await?;
                pages = changed.unwrap_or_else(|| PageSet::first(most_pages));
                pages.truncate(most_pages);
            }
            Ok(Between { from: LogEntry::of(older, None), to: LogEntry::of(newer, None), pages })
        })
    }

    /// Makes volume `new` out of a snapshot of `name`: the visible one, with what is unpushed, or one of the past. A
    /// snapshot of the store is forked there at once, if the store can be reached; anything else at the first push.
    pub fn fork(&self, name: &VolumeName, moment: Option<Moment>, new: &VolumeName) -> Result<Forked> {
        let shared = &self.shared;
        let remote = self.remote_of(name);
        if *new == *name || *new == remote {
            return Err(Error::invalid(format!("a fork of volume {name} needs another name"))
                .with_remedy("Choose one that neither this data directory nor the store has."));
        }
        if shared.catalog.lock().get(new).is_some() || self.opened(new).is_some() {
            return Err(taken(new, "here"));
        }
        let away = match shared.head(new) {
            Ok(VolumeState::Live(_)) => return Err(taken(new, "in the store")),
            Ok(_) => None,
            // Its first push will tell.
            Err(e) if e.kind() == ErrorKind::Unavailable => Some(e),
            // There is no store yet: a fork that has nothing to do with it needs none.
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let here = self.here(name)?;
        let volume = match (here, moment) {
            (Some(source), None) => self.fork_replica(&source, new)?,
            (_, moment) => {
                let commit = match moment {
                    Some(moment) => shared.bridge.wait(snapshot_commit(shared, &remote, moment))?,
                    None => Arc::new(self.live(&remote)?),
                };
                let mut state = State::at(remote, commit.header());
                state.fork(new.clone(), fresh_tip()?);
                let (id, replica) = shared.replica_in_state(new, state, 0)?;
                self.name_replica(new, id, replica)?
            }
        };
        let (base, only_forked) = {
            let replica = volume.replica();
            let core = replica.core();
            let base = core.state.base.as_ref().map(|base| (base.volume.clone(), base.lsn));
            (base, core.state.unpushed() == 1 && core.state.pending.changed.is_empty())
        };
        let mut forked = Forked { volume, lsn: None, base, not_pushed: None };
        let to_push = only_forked && forked.base.is_some();
        if let Some(e) = away {
            hold::hold_later(&forked.volume.replica());
            forked.not_pushed = Some(e).filter(|_| to_push);
        } else if to_push {
            match forked.volume.push() {
                Ok(moved) => forked.lsn = moved.pushed.map(|(lsn, _)| lsn),
                Err(e) if e.kind() == ErrorKind::Unavailable => forked.not_pushed = Some(e),
                Err(e) => {
                    drop(forked.volume);
                    // There is nothing in it that is not in what it was forked from.
                    self.remove_replica(new, true)?;
                    return Err(e);
                }
            }
        } else if let Err(e) = hold::hold_now(&forked.volume.replica()) {
            tracing::warn!("{e}");
        }
        Ok(forked)
    }

    /// Makes a snapshot of the past the volume's content again, by a new commit in the store. Unpushed commits are in
    /// the way. The replica here follows.
    pub fn restore(&self, name: &VolumeName, moment: Moment) -> Result<Restored> {
        let shared = &self.shared;
        let here = self.here(name)?;
        if let Some(volume) = &here {
            let unpushed = volume.replica().unpushed();
            if unpushed > 0 {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("volume {name} has {unpushed} commits that are not in the store"),
                )
                .with_remedy(format!(
                    "`quire push {name}` saves them in its history; `quire reset {name}` puts them aside."
                )));
            }
        }
        let remote = self.remote_of(name);
        let from = shared.bridge.wait(snapshot_commit(shared, &remote, moment))?.lsn();
        let head = self.live(&remote)?;
        let restored = shared.bridge.wait(async {
            let metastore = &shared.stores().await?.metastore;
            metastore.restore(&remote, from, head.lsn(), shared.author()).await
        })?;
        let lsn = restored.lsn();
        shared.remember(remote, restored);
        if let Some(volume) = here {
            volume.pull()?;
        }
        Ok(Restored { from, lsn })
    }

    /// What a name is called in the store.
    pub fn remote_of(&self, name: &VolumeName) -> VolumeName {
        self.shared.catalog.lock().get(name).map_or_else(|| name.clone(), |entry| entry.remote.clone())
    }

    /// The volume, if a replica of it is here.
    pub(crate) fn here(&self, name: &VolumeName) -> Result<Option<Volume>> {
        if let Some(volume) = self.opened(name) {
            return Ok(Some(volume));
        }
        let is_here = self.shared.catalog.lock().get(name).is_some();
        is_here.then(|| self.open_here(name, None)).transpose()
    }

    /// A second replica of what is here, under another name.
    fn fork_replica(&self, source: &Volume, new: &VolumeName) -> Result<Volume> {
        let shared = &self.shared;
        let id = ReplicaId::random()?;
        let dir = shared.replica_dir(id);
        // Until all is in place it has the name of a removed one, which goes when the data directory is opened.
        let making = dir.with_extension(REMOVED);
        let made = fork_files(source, new, &making).and_then(|()| {
            std::fs::rename(&making, &dir).map_err(|e| Error::from_io(format!("renaming {}", making.display()), e))?;
            dir.parent().map_or(Ok(()), sync_dir)
        });
        if let Err(e) = made {
            let _ = std::fs::remove_dir_all(&making);
            return Err(e);
        }
        let put = Change::Put { name: new.clone(), id, remote: new.clone() };
        if let Err(e) = self.name_free(new, put) {
            let _ = remove_folder(&dir);
            return Err(e);
        }
        self.open_here(new, None)
    }

    /// Takes a name into the catalogue, which may have got it since it was looked for.
    fn name_free(&self, name: &VolumeName, put: Change) -> Result<()> {
        let mut catalog = self.shared.catalog.lock();
        if catalog.get(name).is_some() {
            return Err(taken(name, "here"));
        }
        catalog.change(vec![put])
    }

    /// Gives a new replica its name.
    fn name_replica(&self, name: &VolumeName, id: ReplicaId, replica: Arc<Replica>) -> Result<Volume> {
        let remote = replica.core().state.remote.clone();
        let put = Change::Put { name: name.clone(), id, remote };
        if let Err(e) = self.name_free(name, put) {
            replica.abandon();
            let _ = remove_folder(replica.dir());
            return Err(e);
        }
        self.open_here(name, None)
    }
}

/// Makes `dir` a replica of volume `new` that has what `source` has.
fn fork_files(source: &Volume, new: &VolumeName, dir: &Path) -> Result<()> {
    let replica = source.replica();
    match crate::push::settle_doubt(&replica).map(|_| ()) {
        // That both sides have moved on is no reason against a fork: rather one for it.
        Err(e) if e.kind() == ErrorKind::Conflict => {}
        settled => settled?,
    }
    // No push, and no transaction, is half in what is linked. A push may take long: nobody is kept from writing meanwhile.
    let replica = source.with_traffic(|replica| {
        replica.with_writer("a fork", || make_folder(dir).and_then(|()| replica.link_files(dir)))?;
        Ok(replica.clone())
    })?;
    let fork = Replica::open(replica.engine(), new, dir.to_owned(), 0, State::new(new.clone()), true)?;
    let tip = fresh_tip()?;
    let change = StateChange { durable: true, ..StateChange::default() };
    fork.change_state(&mut fork.core(), change, |state| state.fork(new.clone(), tip))?;
    fork.close()
}

/// A digest of local commits like no other's.
fn fresh_tip() -> Result<LocalTip> {
    Ok(LocalTip::new(*CommitId::random()?.as_bytes()))
}

fn taken(name: &VolumeName, place: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("volume {name} is {place} already"))
        .with_remedy("Choose another name, or remove that one with `quire rm`.")
}

/// The commit that made a snapshot which can be read.
async fn snapshot_commit(engine: &Arc<Shared>, volume: &VolumeName, moment: Moment) -> Result<Arc<SealedCommit>> {
    let lsn = match moment {
        Moment::Lsn(lsn) => lsn,
        Moment::Time(time_ms) => {
            let found = engine.stores().await?.metastore.at_time(volume, time_ms).await?;
            found.ok_or_else(|| none_there(volume, "had no commit in the store yet at that time"))?
        }
    };
    let metastore = &engine.stores().await?.metastore;
    let (commit, statement) = futures::future::join(engine.commit(volume, lsn), metastore.statement(volume)).await;
    let commit = commit.map_err(|e| match e.kind() {
        ErrorKind::NotFound => none_there(volume, &format!("has no LSN {lsn} in the store")),
        _ => e,
    })?;
    // After the LSN was chosen: what is kept now is kept while somebody begins to read it.
    if !statement?.keeps(lsn) {
        return Err(Error::new(ErrorKind::Gone, format!("LSN {lsn} of volume {volume} is not kept any more"))
            .with_remedy(format!("`quire keep {volume}` shows what is kept of its history.")));
    }
    // A void says what the commit before it said.
    let mut header = commit.header().clone();
    while header.kind == CommitKind::Void {
        let Some(before) = header.lsn.prev() else { return Err(no_volume(volume, lsn)) };
        header = metastore.header(volume, before).await?;
    }
    if header.kind.ends() {
        let what = if header.kind == CommitKind::Moved { "moved" } else { "deleted" };
        let last = header.lsn.prev().map_or_else(String::new, |last| format!("Its last snapshot is {volume}@{last}."));
        return Err(
            Error::new(ErrorKind::Gone, format!("volume {volume} was {what} at LSN {}", header.lsn)).with_remedy(last)
        );
    }
    if let (Some(condition), Base::Other { volume: old, lsn: last, .. }) = (&header.condition, &header.base) {
        // The name was reserved for a renaming: did that take place?
        let judge = metastore.header(old, last.next()).await?;
        if judge.id != condition.moved_id {
            return Err(no_volume(volume, lsn));
        }
    }
    Ok(commit)
}

fn none_there(volume: &VolumeName, what: &str) -> Error {
    Error::not_found(format!("volume {volume} {what}"))
        .with_remedy(format!("`quire log {volume}` shows the commits that it has."))
}

fn no_volume(volume: &VolumeName, lsn: Lsn) -> Error {
    none_there(volume, &format!("did not exist at LSN {lsn}"))
}
