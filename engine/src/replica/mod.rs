//! One replica: its files, its state, its visible snapshot.
//!
//! Locks, in the order in which they are taken:
//! 1. `writer`: who may change the local content (a transaction, a pull, a reset).
//! 2. `push`: one push, pull or reset at a time talks to the store.
//! 3. `saving`, then `cache`: the table file, and the end of the page cache.
//! 4. `core`: the log's end and the state. Whoever appends a record that
//!    changes anything holds it until the change is visible, so the log's
//!    order is the order of the changes. Held only for local work.
//!
//! Readers take none of them: they load the visible snapshot, and the files by id.

mod cache;
mod commits;
mod saving;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, MutexGuard};
use quire_history::Lineage;
use quire_proto::{CommitHash, Error, ErrorKind, Lsn, PageIdx, PageSet, Result, VolumeName};

use crate::catalog::remove_folder;
use crate::engine::Shared;
use crate::log::{Appender, DataFile, FileId, Files, Place, Room};
use crate::recover::{self, Recovered, Undecided};
use crate::snapshot::{Snapshot, View};
use crate::state::{BaseState, Pending, State};
use crate::table::Table;
use crate::volume::Moved;
use crate::writer::Writer;

/// A replica may have this many files more than its bytes need.
pub(crate) const SPARE_FILES: usize = 64;

/// One replica, open.
pub(crate) struct Replica {
    engine: Arc<Shared>,
    name: ArcSwap<VolumeName>,
    dir: PathBuf,
    /// The data files by id; the readers' way from a page table cell to bytes.
    files: ArcSwap<Files>,
    next_file: Arc<AtomicU32>,
    version: AtomicU64,
    visible: ArcSwap<View>,
    writer: Mutex<Option<String>>,
    /// Serializes push, pull, fetch and reset.
    pub(crate) traffic: Mutex<()>,
    core: Mutex<Core>,
    /// The keeper has shortened the log, or finished.
    kept: Condvar,
    /// Held while a table file is made and written, before `core`, so that an
    /// older one never replaces a newer one.
    saving: Mutex<()>,
    pub(crate) cache: Mutex<Appender>,
    pub(crate) lineage: Mutex<Option<Arc<Lineage>>>,
    pub(crate) fetching: crate::fetch::Fetching,
    pub(crate) notes: Mutex<Notes>,
    /// It is not in the catalogue, or no more: it goes with the last that reads it.
    unnamed: AtomicBool,
    /// It is a snapshot of the past: nothing writes to it.
    past: AtomicBool,
}

/// What is only known, not stored: for `status`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    pub(crate) store_lsn: Option<Lsn>,
    pub(crate) last_error: Option<(String, Option<String>)>,
    /// The volume has ended in the store: what to say of it, and what to do.
    pub(crate) ended: Option<(String, String)>,
    /// A push in doubt that opening the replica has found in the store, until somebody is told.
    pub(crate) settled: Moved,
    /// What it stood on when it was opened, until the store was seen to have that: it may be another store by now.
    pub(crate) unconfirmed: Option<CommitHash>,
    /// The snapshot on which the store has this replica's marker.
    pub(crate) held: Option<BaseState>,
}

pub(crate) struct Core {
    pub(crate) state: State,
    log: Appender,
    pub(crate) undecided: Option<Undecided>,
    /// Shared by all snapshots since the last eviction.
    pin: Arc<()>,
    /// Files that go once the snapshots of their pin are gone, oldest first.
    doomed: Vec<(Weak<()>, Vec<FileId>)>,
    /// Files that go with their last reader, which the keeper will be.
    gone: Vec<Arc<DataFile>>,
    /// Oldest first.
    pub(crate) log_files: Vec<FileId>,
    /// How long they are together.
    pub(crate) log_bytes: u64,
    /// Records of the open transaction may stand in the log from here on.
    writing_from: Option<Place>,
    /// Nothing but pages of the open transaction was appended since it began.
    only_spilled: bool,
    pub(crate) cache_files: Vec<FileId>,
    /// The oldest log file that holds anything unpushed.
    first_unpushed: Option<FileId>,
    /// What was committed since the last roll-up was begun.
    pub(crate) since_freeze: Pending,
    /// Bytes of log that the table file does not know.
    since_table: u64,
    /// It lacks something else: pages were fetched or given back, or writing it failed.
    table_is_old: bool,
    /// The thread that writes a table file or compacts, if one was started.
    keeper: Option<std::thread::JoinHandle<()>>,
    /// It has not finished.
    keeping: bool,
    /// The catalogue has the replica.
    registered: bool,
    /// Why nothing may be written any more.
    broken: Option<Error>,
}

/// How [`Replica::change_state`] changes it.
#[derive(Default)]
pub(crate) struct StateChange<'a> {
    /// Pages that become absent.
    pub(crate) absent: std::borrow::Cow<'a, PageSet>,
    /// Whether the change must survive a loss of power before anything else happens.
    pub(crate) durable: bool,
    /// Whether readers will see other content.
    pub(crate) content: bool,
    /// The outcome of the undecided commit.
    pub(crate) settle: Option<bool>,
}

impl Replica {
    /// Opens what is in `dir`, or begins with `fresh` if nothing is.
    pub(crate) fn open(
        engine: &Arc<Shared>,
        name: &VolumeName,
        dir: PathBuf,
        version: u64,
        fresh: State,
        registered: bool,
    ) -> Result<Arc<Replica>> {
        let found = if registered { recover::recover(&dir, name.as_str())? } else { None };
        let unconfirmed = found.as_ref().and_then(|found| found.state.own_base()).map(|base| base.hash);
        let Recovered {
            state,
            table,
            undecided,
            files,
            end,
            next_file,
            replayed_bytes,
            log_files,
            cache_files,
            unsynced,
        } = found.unwrap_or_else(|| Recovered::nothing(fresh));
        let log_bytes = log_files.iter().filter_map(|id| files.get(id)?.len().ok()).sum();
        let next_file = Arc::new(AtomicU32::new(next_file));
        let pin = Arc::new(());
        let file_bytes = engine.file_bytes();
        let log = Appender::new(Room::Log, dir.clone(), file_bytes, next_file.clone()).continued(end, unsynced);
        // Where the unpushed began is not stored: everything in the log may be it.
        let first_unpushed = if state.is_ahead() || undecided.is_some() { log_files.first().copied() } else { None };
        let replica = Arc::new(Replica {
            engine: engine.clone(),
            name: ArcSwap::from_pointee(name.clone()),
            files: ArcSwap::from_pointee(files),
            version: AtomicU64::new(version),
            visible: ArcSwap::new(View::new(0, &state, Table::default(), pin.clone())),
            writer: Mutex::new(None),
            traffic: Mutex::new(()),
            core: Mutex::new(Core {
                state,
                log,
                undecided,
                pin,
                doomed: Vec::new(),
                gone: Vec::new(),
                log_files,
                log_bytes,
                writing_from: None,
                only_spilled: false,
                cache_files,
                first_unpushed,
                since_freeze: Pending::default(),
                since_table: replayed_bytes,
                table_is_old: false,
                keeper: None,
                keeping: false,
                registered,
                broken: None,
            }),
            kept: Condvar::new(),
            saving: Mutex::new(()),
            cache: Mutex::new(Appender::new(Room::Cache, dir.clone(), file_bytes, next_file.clone())),
            lineage: Mutex::new(None),
            fetching: crate::fetch::Fetching::default(),
            notes: Mutex::new(Notes { unconfirmed, ..Notes::default() }),
            unnamed: AtomicBool::new(false),
            past: AtomicBool::new(false),
            next_file,
            dir,
        });
        let mut core = replica.core.lock();
        let mut table = table;
        table.cover(core.state.page_count);
        replica.publish(&mut core, table, true);
        replica.decide_leftover(&mut core)?;
        drop(core);
        engine.note_replica(&replica);
        Ok(replica)
    }

    /// A prepared commit whose process died: its group's decision file tells.
    /// One that waits for a push is settled when that push is.
    fn decide_leftover(self: &Arc<Self>, core: &mut Core) -> Result<()> {
        let awaited = core.state.intent.as_ref().and_then(|i| i.tentative);
        let Some(undecided) = core.undecided.take_if(|u| Some(u.seq) != awaited) else { return Ok(()) };
        let decided = match undecided.commit.group {
            Some(group) => self.engine().groups.is_decided(group)?,
            None => false,
        };
        self.settle(core, undecided.seq, decided.then_some(&undecided.commit))?;
        if decided {
            self.make_visible(core, &undecided.commit, &undecided.pages);
        }
        Ok(())
    }

    pub(crate) fn engine(&self) -> &Arc<Shared> {
        &self.engine
    }

    /// The replica's name here, which `reset` and `rename` may change.
    pub(crate) fn name(&self) -> VolumeName {
        VolumeName::clone(&self.name.load())
    }

    pub(crate) fn set_name(&self, name: &VolumeName) {
        self.name.store(Arc::new(name.clone()));
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// The newest version that a snapshot has, or had been promised.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// An error if nothing can be written any more, until the replica is opened again.
    pub(crate) fn check_goes_on(&self) -> Result<()> {
        self.core().check_goes_on()
    }

    /// Whether nothing can be written any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.core().broken.is_some()
    }

    /// How many local commits are not known to be in the store.
    pub(crate) fn unpushed(&self) -> u64 {
        let core = self.core();
        core.state.unpushed() + u64::from(core.undecided.is_some())
    }

    /// Whether its base is this commit.
    pub(crate) fn stands_on(&self, commit: &CommitHash) -> bool {
        self.core().state.base.as_ref().is_some_and(|base| base.hash == *commit)
    }

    /// The visible snapshot.
    pub(crate) fn snapshot(self: &Arc<Self>) -> Snapshot {
        Snapshot::new(self.clone(), self.visible.load_full())
    }

    /// Whether commits go straight to the store (`sync=commit`).
    pub(crate) fn commits_to_store(&self) -> bool {
        self.engine.sync() == crate::options::SyncMode::Commit
    }

    // ----- the writer's lock

    /// Takes the writer's lock for `who`, or says who has it.
    pub(crate) fn lock_writer(&self, who: &str) -> Result<()> {
        if self.is_past() {
            return Err(Error::invalid(format!("{} is a snapshot of the past, which never changes", self.name()))
                .with_remedy(format!("`quire fork {} NEW` makes a volume of it.", self.name())));
        }
        let mut writer = self.writer.lock();
        if let Some(other) = &*writer {
            return Err(Error::new(ErrorKind::Busy, format!("volume {}: {other} is writing", self.name()))
                .with_remedy("Try again when it has finished."));
        }
        *writer = Some(who.to_owned());
        Ok(())
    }

    /// Does what needs the writer's lock, which is given back however that ends.
    pub(crate) fn with_writer<T>(self: &Arc<Self>, who: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        struct Locked<'a>(&'a Arc<Replica>);
        impl Drop for Locked<'_> {
            fn drop(&mut self) {
                self.0.release_writer(false);
            }
        }
        self.lock_writer(who)?;
        let _locked = Locked(self);
        work()
    }

    /// Gives the writer's lock back. With `burn` the next version is skipped:
    /// somebody may have seen the one that will not be.
    pub(crate) fn release_writer(self: &Arc<Self>, burn: bool) {
        self.end_transaction(burn);
        *self.writer.lock() = None;
    }

    /// As [`release_writer`](Self::release_writer), but the lock is kept for the next transaction.
    pub(crate) fn end_transaction(self: &Arc<Self>, burn: bool) {
        if burn {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        let mut core = self.core();
        let begun_at = core.writing_from.take();
        let Some(begun_at) = begun_at.filter(|_| core.only_spilled) else { return };
        match self.cut_log(&mut core, begun_at) {
            // Who is told that it is rolled back has the disk space again.
            Ok(gone) => MutexGuard::unlocked(&mut core, || drop(gone)),
            // The files go when the log is compacted.
            Err(e) => tracing::warn!("volume {}: giving back what a rolled back transaction wrote: {e}", self.name()),
        }
        self.after_append(&mut core);
    }

    pub(crate) fn writer_name(&self) -> Option<String> {
        self.writer.lock().clone()
    }

    /// Whether a transaction cannot begin before the store has said what became of the last one.
    pub(crate) fn is_in_doubt(&self) -> bool {
        let core = self.core();
        core.undecided.is_some() || (self.commits_to_store() && core.state.intent.is_some())
    }

    /// Begins a transaction on `on`, which must be the visible snapshot.
    pub(crate) fn begin(self: &Arc<Self>, on: &Snapshot, who: &str) -> Result<Writer> {
        self.lock_writer(who)?;
        self.begin_or_release(|| self.begin_locked(on))
    }

    /// Begins a transaction on what is visible, with the lock that the one before has kept.
    pub(crate) fn begin_next(self: &Arc<Self>) -> Result<Writer> {
        self.begin_or_release(|| self.begin_locked(&self.snapshot()))
    }

    fn begin_or_release(self: &Arc<Self>, begin: impl FnOnce() -> Result<Writer>) -> Result<Writer> {
        self.wait_for_keeper();
        let begun = self.clear_doubt().and_then(|()| begin());
        if begun.is_err() {
            self.release_writer(false);
        }
        begun
    }

    fn clear_doubt(self: &Arc<Self>) -> Result<()> {
        crate::push::settle_doubt(self).map(|_| ()).map_err(|e| match e.kind() {
            ErrorKind::Unavailable => Error::new(
                ErrorKind::Unavailable,
                format!("volume {}: whether the last commit reached the store is not known", self.name()),
            )
            .with_source(e)
            .with_remedy("Try again once the store can be reached: that settles it, and so does `quire push`."),
            _ => e,
        })
    }

    fn begin_locked(self: &Arc<Self>, on: &Snapshot) -> Result<Writer> {
        let visible = self.snapshot();
        if !Arc::ptr_eq(on.replica(), self) || visible.version() != on.version() {
            return Err(outdated(&self.name()));
        }
        let mut core = self.core();
        core.check_goes_on()?;
        core.state.seq += 1;
        core.writing_from = Some(core.log.end().unwrap_or(Place { file: FileId(0), offset: 0 }));
        core.only_spilled = true;
        Ok(Writer::new(self.clone(), visible, core.state.seq))
    }

    pub(crate) fn publish(self: &Arc<Self>, core: &mut Core, table: Table, content_changes: bool) -> Snapshot {
        if content_changes {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        let version =
            if content_changes { self.version.load(Ordering::Acquire) } else { self.visible.load().version() };
        let view = View::new(version, &core.state, table, core.pin.clone());
        self.visible.store(view.clone());
        Snapshot::new(self.clone(), view)
    }

    /// Copies the page at `place`.
    pub(crate) fn read_place(&self, place: Place, page: PageIdx, buf: &mut [u8], verify: bool) -> Result<()> {
        let files = self.files.load();
        let file = files.get(&place.file).ok_or_else(|| {
            Error::corrupt(format!(
                "volume {}: page {page} lies in file {} which is not there",
                self.name(),
                place.file.0
            ))
        })?;
        file.read_page(place, page.get(), buf, verify)
    }

    /// The replica is being removed: nothing more is written to it.
    pub(crate) fn abandon(&self) {
        let text = format!("volume {}: it was removed", self.name());
        self.core().broken = Some(Error::not_found(text).with_remedy("Open the volume again."));
    }

    /// Another replica has taken its place: nothing more is written to it, and its folder goes once nobody reads it.
    pub(crate) fn remove_after_readers(&self) {
        self.abandon();
        self.unnamed.store(true, Ordering::Release);
    }

    /// It is a snapshot of the past, as long as somebody reads it.
    pub(crate) fn make_past(&self) {
        self.past.store(true, Ordering::Release);
        self.unnamed.store(true, Ordering::Release);
    }

    /// Whether it is a snapshot of the past.
    pub(crate) fn is_past(&self) -> bool {
        self.past.load(Ordering::Acquire)
    }

    /// Makes the state of a replica that begins at a commit of the store durable.
    pub(crate) fn store_first_state(&self) -> Result<()> {
        let mut core = self.core();
        self.reserve_locked(&mut core, 0, true)?;
        core.log.sync()
    }

    /// Keeps an error for `status`.
    pub(crate) fn note_error(&self, e: &Error) {
        self.notes.lock().last_error = Some((e.to_string(), e.remedy().map(str::to_owned)));
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Every snapshot holds the replica: nobody reads it any more, nor what was retired.
        if *self.unnamed.get_mut() {
            // What is left of it after a crash goes when the data directory is opened.
            let _ = remove_folder(&self.dir);
            return;
        }
        if !self.core.get_mut().log.is_synced() {
            // A writer that outlived its volume has committed since: a decision may be all that says so after a loss of power.
            self.engine.groups.keep_all();
        }
        let files = self.files.load();
        let doomed = self.core.get_mut().doomed.iter().flat_map(|(_, ids)| ids);
        doomed.filter_map(|id| files.get(id)).for_each(|file| file.doom());
    }
}

/// Somebody else has committed, or pulled, since a snapshot was taken.
pub(crate) fn outdated(name: &VolumeName) -> Error {
    Error::new(ErrorKind::Conflict, format!("volume {name}: its snapshot is not the newest any more"))
        .with_remedy("Begin the transaction again, on the newest one.")
}

impl Core {
    fn check_goes_on(&self) -> Result<()> {
        self.broken.as_ref().map_or(Ok(()), |why| Err(why.duplicate()))
    }

    /// Log files before this one are sealed, and no open transaction has pages there.
    pub(crate) fn free_log_limit(&self) -> Option<FileId> {
        let newest = self.log_files.last().copied()?;
        // After a rollback whose end could not be written, the log ends in an older file.
        let end = self.log.end().map_or(newest, |end| end.file.min(newest));
        Some(self.writing_from.map_or(end, |from| from.file.min(end)))
    }
}
