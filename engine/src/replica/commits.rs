//! The log: records go to its end, and what they change becomes visible.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quire_proto::{Error, ErrorKind, PageSet, Result};

use super::{Core, Replica, StateChange};
use crate::log::{Batch, DataFile, FILE_HEADER_BYTES, FileId, Files, OPEN_AGAIN, Place, RecordKind};
use crate::recover::{StateRecord, Undecided, apply_commit};
use crate::snapshot::{Snapshot, View};
use crate::state::{CommitRecord, Pending, State};
use crate::table::{Cell, Pages, Table};

impl Replica {
    /// Reserves disk space for a batch of this many bytes and its commit record.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<()> {
        let mut core = self.core();
        self.reserve_locked(&mut core, bytes + 64 * 1024, false)
    }

    /// With `durable` the records to come are going to be synced at once: if
    /// they begin a file, it can then say that all before it is durable.
    pub(super) fn reserve_locked(&self, core: &mut Core, bytes: u64, durable: bool) -> Result<()> {
        core.check_goes_on()?;
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

    pub(super) fn add_file(&self, file: &Arc<DataFile>) {
        self.files.rcu(|files| {
            let mut files = Files::clone(files);
            files.insert(file.id, file.clone());
            files
        });
    }

    /// Appends records that mean nothing yet (pages of an open transaction).
    pub(crate) fn append_spill(&self, batch: &mut Batch) -> Result<Place> {
        let mut core = self.core();
        self.reserve_locked(&mut core, batch.bytes() as u64, false)?;
        self.append_reserved(&mut core, batch)
    }

    /// Appends a batch that is not empty; says where its first record went.
    pub(crate) fn append_locked(&self, core: &mut Core, batch: &mut Batch) -> Result<Place> {
        core.only_spilled = false;
        self.reserve_locked(core, batch.bytes() as u64, false)?;
        self.append_reserved(core, batch)
    }

    /// The log ends at `end` again: what comes after it is nothing but pages of a transaction that was rolled back. Files
    /// after that one are forgotten, and unlinked when they are dropped; a file that was full before stays as it is.
    pub(super) fn cut_log(&self, core: &mut Core, end: Place) -> Result<Vec<Arc<DataFile>>> {
        if core.broken.is_some() {
            return Ok(Vec::new());
        }
        let before = core.log.end();
        if core.log.cut_tail(end)? {
            let bytes = before.map_or(0, |before| before.offset.saturating_sub(end.offset));
            core.log_bytes = core.log_bytes.saturating_sub(bytes.into());
            return Ok(Vec::new());
        }
        let own: Vec<FileId> = core.log_files.iter().copied().filter(|id| *id > end.file).collect();
        let Some((newest, rest)) = own.split_last() else { return Ok(Vec::new()) };
        core.log.cut((end.offset > 0).then_some(end));
        // On a full disk the space for the next step. Without it a log that is opened now just ends earlier.
        drop(self.forget_files(core, &[*newest]));
        // Only once a later file says durably where the log goes on can any of the others be missing.
        self.reserve_locked(core, 0, false)?;
        core.log.sync_tail()?;
        Ok(self.forget_files(core, rest))
    }

    fn forget_files(&self, core: &mut Core, ids: &[FileId]) -> Vec<Arc<DataFile>> {
        self.leave_out(core, ids);
        self.take_files(ids)
    }

    /// Appends a batch for which there is space in the current file.
    fn append_reserved(&self, core: &mut Core, batch: &mut Batch) -> Result<Place> {
        let first = core.log.append(batch)?;
        core.since_table += batch.bytes() as u64;
        core.log_bytes += batch.bytes() as u64;
        Ok(first)
    }

    /// Appends records that change something, for which there is space; with
    /// `durable` they are synced, or count for nothing.
    fn append_synced(&self, core: &mut Core, batch: &mut Batch, durable: bool) -> Result<Place> {
        core.only_spilled = false;
        if durable {
            self.engine().sync_names()?;
            // Before anything is written: what cannot be tried at the moment must not put these records in doubt.
            if !core.log.previous_synced() {
                core.log.sync()?;
            }
        }
        let first = self.append_reserved(core, batch)?;
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
    ) -> Result<Pages> {
        let mut crcs = crc32fast::Hasher::new();
        for n in 0..batch.len() {
            crcs.update(&batch.payload(n)[..batch.payload(n).len().min(64)]);
        }
        // The file that it goes to is begun before it says what of that file is durable.
        batch.push(RecordKind::Commit, 0, seq, &commit.encode());
        let bytes = batch.bytes() as u64;
        batch.pop();
        self.reserve_locked(core, bytes, durable)?;
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
        let staged = batch.pages(first).filter(|(page, _)| commit.changed.contains(*page)).collect();
        Ok(Pages { spilled: spilled.clone(), staged })
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
        let problem = format!("volume {}: {why}", self.name());
        core.broken = Some(Error::new(ErrorKind::Io, problem).with_remedy(OPEN_AGAIN));
        self.engine().groups.keep_all();
    }

    /// Appends a commit that counts only once its group is decided.
    pub(crate) fn prepare(
        &self,
        batch: &mut Batch,
        spilled: &Table,
        mut commit: CommitRecord,
        seq: u64,
        durable: bool,
    ) -> Result<(CommitRecord, Pages)> {
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

    /// Says in the log that the undecided commit `seq` never counts; durably, if its group may be found decided.
    pub(crate) fn take_back(&self, seq: u64, is_unclear: bool) -> Result<()> {
        let mut core = self.core();
        let mut said = self.settle(&mut core, seq, None);
        if is_unclear {
            said = said.and_then(|()| core.log.sync());
            if let Err(e) = &said {
                // It would count again after a restart, on top of what is committed later.
                self.stop(&mut core, format!("its log could not take a transaction back that may be decided ({e})"));
            }
        }
        said
    }

    /// Says in the log whether the undecided commit `seq` counts: with its record, or not. What says so has the whole
    /// state, so that it stands after the file of the commit is gone.
    pub(super) fn settle(&self, core: &mut Core, seq: u64, counts: Option<&CommitRecord>) -> Result<()> {
        let mut state = core.state.clone();
        if let Some(commit) = counts {
            state.apply_commit(commit);
        }
        let record = StateRecord { link: None, absent: PageSet::new(), settled: Some((seq, counts.is_some())), state };
        let mut batch = Batch::default();
        batch.push(RecordKind::State, 0, 0, &record.encode());
        self.append_locked(core, &mut batch).map(|_| ())
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
        pages: &Pages,
    ) -> (Snapshot, bool) {
        let mut core = self.core();
        let settled = self.settle(&mut core, seq, Some(commit));
        let snapshot = self.make_visible(&mut core, commit, pages);
        if let Err(e) = &settled {
            // A later commit would be replayed before this one.
            self.stop(&mut core, format!("its log could not take a decided transaction in ({e})"));
        }
        (snapshot, settled.is_ok())
    }

    /// Applies a commit whose record counts to state and table.
    pub(crate) fn make_visible(self: &Arc<Self>, core: &mut Core, commit: &CommitRecord, pages: &Pages) -> Snapshot {
        let mut table = self.visible.load().table().clone();
        // What it wrote is in the table from now on. A push that ended since it was prepared may have forgotten it.
        if let Some(from) = core.writing_from.take() {
            core.first_unpushed.get_or_insert(from.file);
        }
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
        let reserved = self.reserve_locked(core, batch.bytes() as u64, change.durable);
        if let Err(e) = reserved.and_then(|()| self.append_synced(core, &mut batch, change.durable)) {
            core.undecided = core.undecided.take().or(undecided);
            return Err(e);
        }
        if change.settle.is_some() {
            core.writing_from = None;
        }
        if !record.state.is_ahead() && core.undecided.is_none() {
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
        self.engine().sync_names()?;
        self.core().log.sync()
    }
}
