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

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use quire_proto::{CommitHash, Error, ErrorKind, Lsn, PageIdx, PageSet, Result, VolumeName};

use crate::compact;
use crate::engine::Shared;
use crate::lineage::Lineage;
use crate::log::{Appender, Batch, DataFile, FILE_HEADER_BYTES, FileId, Files, Place, RecordKind, Room};
use crate::recover::{self, Recovered, StateRecord, Undecided, apply_commit};
use crate::snapshot::{Snapshot, View};
use crate::state::{CommitRecord, Pending, State};
use crate::table::{Cell, Table};
use crate::tablefile::{self, StoredTable};
use crate::writer::Writer;

/// After this much log a table file is written, so that a crash leaves little to replay.
const TABLE_EVERY_BYTES: u64 = 32 << 20;

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
    /// Held while a table file is made and written, before `core`, so that an
    /// older one never replaces a newer one.
    saving: Mutex<()>,
    pub(crate) cache: Mutex<Appender>,
    pub(crate) lineage: Mutex<Option<Arc<Lineage>>>,
    pub(crate) fetching: crate::fetch::Fetching,
    pub(crate) notes: Mutex<Notes>,
}

/// What is only known, not stored: for `status`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    pub(crate) store_lsn: Option<Lsn>,
    pub(crate) last_error: Option<(String, Option<String>)>,
    /// The volume in the store has ended or is another one now.
    pub(crate) ended: Option<String>,
}

pub(crate) struct Core {
    pub(crate) state: State,
    log: Appender,
    pub(crate) undecided: Option<Undecided>,
    /// Shared by all snapshots since the last eviction.
    pin: Arc<()>,
    /// Files that go once the snapshots of their pin are gone, oldest first.
    doomed: Vec<(Weak<()>, Vec<FileId>)>,
    /// Oldest first.
    pub(crate) log_files: Vec<FileId>,
    /// How long they are together.
    pub(crate) log_bytes: u64,
    /// Records of the open transaction may stand in the log from here on.
    writing_from: Option<Place>,
    pub(crate) cache_files: Vec<FileId>,
    /// The oldest log file that holds anything unpushed.
    first_unpushed: Option<FileId>,
    /// What was committed since the last roll-up was begun.
    pub(crate) since_freeze: Pending,
    since_table: u64,
    /// The thread that writes a table file or compacts, if one was started.
    keeper: Option<std::thread::JoinHandle<()>>,
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
                log_files,
                log_bytes,
                writing_from: None,
                cache_files,
                first_unpushed,
                since_freeze: Pending::default(),
                since_table: replayed_bytes,
                keeper: None,
                registered,
                broken: None,
            }),
            saving: Mutex::new(()),
            cache: Mutex::new(Appender::new(Room::Cache, dir.clone(), file_bytes, next_file.clone())),
            lineage: Mutex::new(None),
            fetching: crate::fetch::Fetching::default(),
            notes: Mutex::new(Notes::default()),
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
        let decided = undecided.commit.group.is_some_and(|group| self.engine().groups.is_decided(group));
        self.settle_locked(core, undecided.seq, decided)?;
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
        let mut writer = self.writer.lock();
        if let Some(other) = &*writer {
            return Err(Error::new(ErrorKind::Busy, format!("volume {}: {other} is writing", self.name()))
                .with_remedy("Try again when it has finished."));
        }
        *writer = Some(who.to_owned());
        Ok(())
    }

    /// Gives the writer's lock back. With `burn` the next version is skipped:
    /// somebody may have seen the one that will not be.
    pub(crate) fn release_writer(&self, burn: bool) {
        self.end_transaction(burn);
        *self.writer.lock() = None;
    }

    /// As [`release_writer`](Self::release_writer), but the lock is kept for the next transaction.
    pub(crate) fn end_transaction(&self, burn: bool) {
        if burn {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        self.core().writing_from = None;
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
        let begun = self.clear_doubt().and_then(|()| begin());
        if begun.is_err() {
            self.release_writer(false);
        }
        begun
    }

    fn clear_doubt(self: &Arc<Self>) -> Result<()> {
        crate::push::settle_doubt(self).map_err(|e| match e.kind() {
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
        if let Some(why) = &core.broken {
            return Err(why.duplicate());
        }
        core.state.seq += 1;
        core.writing_from = Some(core.log.end().unwrap_or(Place { file: FileId(0), offset: 0 }));
        Ok(Writer::new(self.clone(), visible, core.state.seq))
    }

    // ----- the log

    /// Reserves disk space for a batch of this many bytes and its commit record.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<()> {
        let mut core = self.core();
        self.reserve_locked(&mut core, bytes + 64 * 1024, false)
    }

    /// With `durable` the records to come are going to be synced at once: if
    /// they begin a file, it can then say that all before it is durable.
    fn reserve_locked(&self, core: &mut Core, bytes: u64, durable: bool) -> Result<()> {
        if let Some(why) = &core.broken {
            return Err(why.duplicate());
        }
        if !core.registered {
            self.engine().register(&self.name(), &self.dir, &core.state.remote)?;
            core.registered = true;
        }
        if core.log.has_room(bytes) {
            return core.log.reserve(bytes);
        }
        core.log.seal();
        if durable {
            core.log.sync()?;
        }
        let link = core.log.end().map(|place| (place, core.log.previous_synced()));
        let mut batch = Batch::default();
        let record = StateRecord { link, absent: PageSet::new(), settled: None, state: core.state.clone() };
        batch.push(RecordKind::State, 0, 0, &record.encode());
        let file = core.log.begin(batch.bytes() as u64 + bytes)?;
        self.add_file(&file);
        core.log_files.push(file.id);
        core.log_bytes += FILE_HEADER_BYTES + batch.bytes() as u64;
        core.log.append(&mut batch).map(|_| ())
    }

    fn add_file(&self, file: &Arc<DataFile>) {
        self.files.rcu(|files| {
            let mut files = Files::clone(files);
            files.insert(file.id, file.clone());
            files
        });
    }

    /// Appends records that mean nothing yet (pages of an open transaction).
    pub(crate) fn append(&self, batch: &mut Batch) -> Result<Place> {
        self.append_locked(&mut self.core(), batch, false)
    }

    /// Appends a batch that is not empty; says where its first record went.
    pub(crate) fn append_locked(&self, core: &mut Core, batch: &mut Batch, durable: bool) -> Result<Place> {
        self.reserve_locked(core, batch.bytes() as u64, durable)?;
        let first = core.log.append(batch)?;
        core.since_table += batch.bytes() as u64;
        core.log_bytes += batch.bytes() as u64;
        Ok(first)
    }

    /// Appends records that change something; with `durable` they are synced,
    /// or count for nothing.
    fn append_synced(&self, core: &mut Core, batch: &mut Batch, durable: bool) -> Result<Place> {
        let first = self.append_locked(core, batch, durable)?;
        if durable && let Err(e) = core.log.sync() {
            self.disown(core, first);
            return Err(e);
        }
        Ok(first)
    }

    /// Appends the pages of a batch and the commit record after them, whose
    /// predecessor is filled in. Returns where all pages of the transaction lie.
    fn append_commit(
        &self,
        core: &mut Core,
        batch: &mut Batch,
        spilled: &Table,
        commit: &mut CommitRecord,
        seq: u64,
        durable: bool,
    ) -> Result<Table> {
        let mut crcs = crc32fast::Hasher::new();
        for n in 0..batch.len() {
            crcs.update(&batch.payload(n)[..batch.payload(n).len().min(64)]);
        }
        let place = core.log.end().map_or([0; 8], |p| (u64::from(p.file.0) << 32 | u64::from(p.offset)).to_le_bytes());
        commit.tip = core.state.tip.extend(&[
            &self.engine().nonce(),
            &seq.to_le_bytes(),
            &place,
            &crcs.finalize().to_le_bytes(),
        ]);
        commit.synced = core.log.synced_in_file();
        batch.push(RecordKind::Commit, 0, seq, &commit.encode());
        let appended = self.append_synced(core, batch, durable);
        batch.pop();
        let first = appended?;
        if core.first_unpushed.is_none() {
            core.first_unpushed = Some(core.writing_from.map_or(first.file, |from| from.file));
        }
        let mut pages = spilled.clone();
        for (page, place) in batch.pages(first).filter(|(page, _)| commit.changed.contains(*page)) {
            pages.set(page, Cell::At { place, verified: true });
        }
        Ok(pages)
    }

    /// The records from `place` on were written and could not be made durable:
    /// a new file says that the log ended before them. If more than them is in
    /// doubt, nothing can be promised any more until the replica is opened again.
    fn disown(&self, core: &mut Core, place: Place) {
        let proven = core.log.give_up(place);
        let said = self.reserve_locked(core, FILE_HEADER_BYTES, false).and_then(|()| core.log.sync_tail());
        if !proven || said.is_err() {
            let why = said.err().map_or_else(String::new, |e| format!(" ({e})"));
            self.stop(core, format!("its disk failed to sync what was committed before{why}"));
        }
    }

    /// Nothing may be written any more until the replica is opened again.
    fn stop(&self, core: &mut Core, why: String) {
        core.broken = Some(Error::new(ErrorKind::Io, format!("volume {}: {why}", self.name())).with_remedy(
            "Close every program that uses the volume, look after the disk, and open it again: what was acknowledged \
             as durable is there.",
        ));
    }

    /// Appends a commit that counts only once its group is decided.
    pub(crate) fn prepare(
        &self,
        batch: &mut Batch,
        spilled: &Table,
        mut commit: CommitRecord,
        seq: u64,
        durable: bool,
    ) -> Result<(CommitRecord, Table)> {
        let pages = self.append_commit(&mut self.core(), batch, spilled, &mut commit, seq, durable)?;
        Ok((commit, pages))
    }

    /// Appends, durably, a commit that counts only if the push that carries it
    /// wins. Returns what it makes of the replica, and what was unpushed before.
    pub(crate) fn append_tentative(
        self: &Arc<Self>,
        batch: &mut Batch,
        spilled: &Table,
        mut commit: CommitRecord,
        seq: u64,
    ) -> Result<(State, Snapshot, Pending)> {
        let mut core = self.core();
        let pages = self.append_commit(&mut core, batch, spilled, &mut commit, seq, true)?;
        let carries = core.state.pending.clone();
        let mut future = core.state.clone();
        let mut table = self.visible.load().table().clone();
        apply_commit(&mut future, &mut table, &commit, &pages);
        let view = View::new(0, &future, table, core.pin.clone());
        core.undecided = Some(Undecided { seq, commit, pages });
        Ok((future, Snapshot::new(self.clone(), view), carries))
    }

    /// Says in the log whether the undecided commit `seq` counts.
    pub(crate) fn settle(&self, seq: u64, counts: bool) -> Result<()> {
        self.settle_locked(&mut self.core(), seq, counts)
    }

    pub(crate) fn settle_locked(&self, core: &mut Core, seq: u64, counts: bool) -> Result<()> {
        let mut batch = Batch::default();
        batch.push(RecordKind::Settled, 0, seq, &[u8::from(counts)]);
        self.append_locked(core, &mut batch, false).map(|_| ())
    }

    /// Commits a transaction.
    pub(crate) fn commit(
        self: &Arc<Self>,
        batch: &mut Batch,
        spilled: &Table,
        mut commit: CommitRecord,
        seq: u64,
        durable: bool,
    ) -> Result<Snapshot> {
        let mut core = self.core();
        let pages = self.append_commit(&mut core, batch, spilled, &mut commit, seq, durable)?;
        Ok(self.make_visible(&mut core, &commit, &pages))
    }

    /// A prepared commit was decided: only now it is seen. False: the log could
    /// not be told, so the decision must be kept.
    pub(crate) fn publish_prepared(
        self: &Arc<Self>,
        seq: u64,
        commit: &CommitRecord,
        pages: &Table,
    ) -> (Snapshot, bool) {
        let mut core = self.core();
        let settled = self.settle_locked(&mut core, seq, true);
        let snapshot = self.make_visible(&mut core, commit, pages);
        if let Err(e) = &settled {
            // A later commit would be replayed before this one.
            self.stop(&mut core, format!("its log could not take a decided transaction in ({e})"));
        }
        (snapshot, settled.is_ok())
    }

    /// Applies a commit whose record counts to state and table.
    pub(crate) fn make_visible(self: &Arc<Self>, core: &mut Core, commit: &CommitRecord, pages: &Table) -> Snapshot {
        let mut table = self.visible.load().table().clone();
        // What it wrote is in the table from now on.
        core.writing_from = None;
        core.since_freeze.add(commit, core.state.page_size, core.state.page_count);
        apply_commit(&mut core.state, &mut table, commit, pages);
        self.engine().counters.commits.fetch_add(1, Ordering::Relaxed);
        let snapshot = self.publish(core, table, true);
        self.after_append(core);
        snapshot
    }

    /// Changes the state by a record of its own, and makes the result visible.
    pub(crate) fn change_state(
        self: &Arc<Self>,
        core: &mut Core,
        change: StateChange<'_>,
        apply: impl FnOnce(&mut State),
    ) -> Result<()> {
        let mut state = core.state.clone();
        let mut table = self.visible.load().table().clone();
        let undecided = if change.settle.is_some() { core.undecided.take() } else { None };
        if let (Some(true), Some(undecided)) = (change.settle, &undecided) {
            apply_commit(&mut state, &mut table, &undecided.commit, &undecided.pages);
        }
        apply(&mut state);
        let settled = undecided.as_ref().zip(change.settle).map(|(u, counts)| (u.seq, counts));
        let record = StateRecord { link: None, absent: change.absent.clone().into_owned(), settled, state };
        let mut batch = Batch::default();
        batch.push(RecordKind::State, 0, 0, &record.encode());
        if let Err(e) = self.append_synced(core, &mut batch, change.durable) {
            core.undecided = core.undecided.take().or(undecided);
            return Err(e);
        }
        if change.settle.is_some() {
            core.writing_from = None;
        }
        if !record.state.is_ahead() {
            core.first_unpushed = None;
        }
        core.state = record.state;
        for (first, last) in change.absent.ranges() {
            table.set_range(first, last, Cell::Absent);
        }
        table.cover(core.state.page_count);
        self.publish(core, table, change.content);
        Ok(())
    }

    /// Makes everything in the log durable.
    pub(crate) fn sync_log(&self) -> Result<()> {
        self.core().log.sync()
    }

    // ----- snapshots and files

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

    /// Whether the page at `place` can be fetched again.
    pub(crate) fn is_in_cache(&self, place: Place) -> bool {
        self.files.load().get(&place.file).is_some_and(|file| file.room == Room::Cache)
    }

    /// Keeps fetched pages, and fills the cells of `table` with their places.
    /// True: a new cache file was begun for them.
    pub(crate) fn append_to_cache(&self, batch: &mut Batch, table: &Table) -> Result<bool> {
        let bytes = batch.bytes() as u64;
        // Held until the cells are filled: eviction looks for them under this lock.
        let mut cache = self.cache.lock();
        let begins = !cache.has_room(bytes);
        if begins {
            let mut core = self.core();
            if let Some(why) = &core.broken {
                return Err(why.duplicate());
            }
            let file = cache.begin(bytes)?;
            self.add_file(&file);
            core.cache_files.push(file.id);
        } else {
            cache.reserve(bytes)?;
        }
        let first = cache.append(batch)?;
        for (page, place) in batch.pages(first) {
            table.fill(page, place);
        }
        Ok(begins)
    }

    /// Bytes on disk that can be fetched again.
    pub(crate) fn cache_bytes(&self) -> u64 {
        let core = self.core();
        let files = self.files.load();
        let evictable = self.evictable(&core);
        evictable.iter().filter_map(|id| files.get(id)).filter_map(|f| f.len().ok()).sum()
    }

    /// Each session begins new files. More than these are too many to open.
    fn most_cache_files(&self) -> usize {
        (self.engine.cache_size() / self.engine.file_bytes()) as usize + SPARE_FILES
    }

    /// Whether the cache should shrink because of the number of its files.
    pub(crate) fn has_many_files(&self) -> bool {
        let core = self.core();
        self.evictable(&core).len() > self.most_cache_files()
    }

    /// Sealed files, oldest first, that hold nothing but pages which are in the store.
    fn evictable(&self, core: &Core) -> Vec<FileId> {
        if core.state.base.is_none() || core.undecided.is_some() {
            return core.cache_files.clone();
        }
        let limit = core.free_log_limit().map(|limit| core.first_unpushed.map_or(limit, |first| first.min(limit)));
        let logs = core.log_files.iter().copied().filter(|id| limit.is_some_and(|limit| *id < limit));
        let mut files: Vec<FileId> = logs.chain(core.cache_files.iter().copied()).collect();
        files.sort_unstable();
        files
    }

    /// Gives back the oldest cached files until at most `bound` bytes of cache
    /// are left. Snapshots that still read them keep them until they go.
    pub(crate) fn evict(self: &Arc<Self>, bound: u64) -> Result<u64> {
        let _saving = self.saving.lock();
        let mut cache = self.cache.lock();
        let mut core = self.core();
        self.reclaim(&mut core);
        let files = self.files.load_full();
        let evictable = self.evictable(&core);
        let sizes: Vec<u64> = evictable.iter().map(|id| files.get(id).map_or(0, |f| f.len().unwrap_or(0))).collect();
        let mut total: u64 = sizes.iter().sum();
        let mut victims = Vec::new();
        let mut count = sizes.len();
        for (id, size) in evictable.into_iter().zip(sizes) {
            if total <= bound && count <= self.most_cache_files() {
                break;
            }
            total -= size;
            count -= 1;
            victims.push(id);
        }
        if victims.is_empty() {
            return Ok(0);
        }
        // That they are in the store must survive what forgets where they are here.
        core.log.sync()?;
        if cache.end().is_some_and(|end| victims.contains(&end.file)) {
            cache.seal();
        }
        drop(cache);
        let mut table = self.visible.load().table().clone();
        let mut gone = Vec::new();
        table.for_each(|page, cell| {
            if let Cell::At { place, .. } = cell
                && victims.contains(&place.file)
            {
                gone.push(page);
            }
        });
        for page in &gone {
            table.set(*page, Cell::Absent);
        }
        self.publish(&mut core, table, false);
        let logs = victims.iter().any(|id| core.log_files.contains(id));
        self.retire(&mut core, victims);
        if logs {
            // The table file may go on from one of them. (Cells of cache files that are not there count as absent.)
            self.save_table_locked(&mut core)?;
        }
        self.reclaim(&mut core);
        Ok(gone.len() as u64)
    }

    /// Notes that no snapshot from now on reads these files.
    fn retire(&self, core: &mut Core, files: Vec<FileId>) {
        let known = self.files.load();
        let gone = core.log_files.iter().filter(|id| files.contains(id));
        let bytes: u64 = gone.filter_map(|id| known.get(id)?.len().ok()).sum();
        core.log_bytes = core.log_bytes.saturating_sub(bytes);
        core.log_files.retain(|id| !files.contains(id));
        core.cache_files.retain(|id| !files.contains(id));
        let old = std::mem::replace(&mut core.pin, Arc::new(()));
        core.doomed.push((Arc::downgrade(&old), files));
        // The visible snapshot does not read them: let it hold the new pin.
        let visible = self.visible.load();
        self.visible.store(View::new(visible.version(), &core.state, visible.table().clone(), core.pin.clone()));
    }

    /// A log file from which compaction has moved everything goes, once what
    /// was moved is durable.
    pub(crate) fn retire_log_file(self: &Arc<Self>, file: FileId) -> Result<()> {
        let _saving = self.saving.lock();
        let mut core = self.core();
        core.log.sync()?;
        self.retire(&mut core, vec![file]);
        self.save_table_locked(&mut core)?;
        self.reclaim(&mut core);
        Ok(())
    }

    /// Unlinks retired files that no snapshot can read any more.
    pub(crate) fn reclaim(&self, core: &mut Core) {
        while core.doomed.first().is_some_and(|(pin, _)| pin.strong_count() == 0) {
            let (_, ids) = core.doomed.remove(0);
            self.files.rcu(|files| {
                let mut files = Files::clone(files);
                files.retain(|id, file| {
                    let goes = ids.contains(id);
                    if goes {
                        file.doom();
                    }
                    !goes
                });
                files
            });
        }
    }

    // ----- the table file

    fn after_append(self: &Arc<Self>, core: &mut Core) {
        self.reclaim(core);
        let busy = core.keeper.as_ref().is_some_and(|keeper| !keeper.is_finished());
        let compacts = compact::is_due(core, self.engine.file_bytes());
        if busy || !(compacts || core.since_table > TABLE_EVERY_BYTES) {
            return;
        }
        let replica = self.clone();
        let keeper = std::thread::Builder::new().name("quire-keeper".into()).spawn(move || {
            let kept = if compacts { compact::compact(&replica) } else { replica.save_table() };
            if let Err(e) = kept {
                tracing::warn!("volume {}: {e}", replica.name());
            }
        });
        match keeper {
            Ok(keeper) => core.keeper = Some(keeper),
            Err(e) => tracing::warn!("volume {}: starting a thread: {e}", self.name()),
        }
    }

    /// Writes the table file, so that opening replays little. Commits go on meanwhile.
    fn save_table(&self) -> Result<()> {
        let _saving = self.saving.lock();
        let stored = self.stored_table(&mut self.core())?;
        stored.map_or(Ok(()), |stored| tablefile::save(&self.dir, &stored))
    }

    fn save_table_locked(&self, core: &mut Core) -> Result<()> {
        match self.stored_table(core)? {
            Some(stored) => tablefile::save(&self.dir, &stored),
            None => Ok(()),
        }
    }

    fn stored_table(&self, core: &mut Core) -> Result<Option<StoredTable>> {
        if core.undecided.is_some() || core.broken.is_some() {
            return Ok(None);
        }
        core.log.sync()?;
        let Some(end) = core.log.end() else { return Ok(None) };
        // The records of an open transaction will be needed again.
        let position = core.writing_from.unwrap_or(end);
        core.since_table = 0;
        let next_file = self.next_file.load(Ordering::Relaxed);
        Ok(Some(StoredTable {
            state: core.state.clone(),
            table: self.visible.load().table().clone(),
            position,
            next_file,
        }))
    }

    /// Leaves the replica so that the next opening is quick. Called once, when its last user goes.
    pub(crate) fn close(self: &Arc<Self>) -> Result<()> {
        let keeper = self.core().keeper.take();
        if let Some(keeper) = keeper {
            // Its table is older than the one written below.
            let _ = keeper.join();
        }
        let mut cache = self.cache.lock();
        let mut core = self.core();
        self.reclaim(&mut core);
        if core.registered && core.log.end().is_some() && core.broken.is_none() {
            core.log.seal();
            cache.seal();
            self.save_table_locked(&mut core)?;
        }
        Ok(())
    }

    /// The replica is being removed: nothing more is written to it.
    pub(crate) fn abandon(&self) {
        let text = format!("volume {}: it was removed", self.name());
        self.core().broken = Some(Error::not_found(text).with_remedy("Open the volume again."));
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
        // Every snapshot holds the replica: nobody reads what was retired any more.
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
    /// Log files before this one are sealed, and no open transaction has pages there.
    pub(crate) fn free_log_limit(&self) -> Option<FileId> {
        let newest = self.log_files.last().copied()?;
        Some(self.writing_from.map_or(newest, |from| from.file.min(newest)))
    }
}
