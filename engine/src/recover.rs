//! Opening a replica: the table file, if it is good, then the log from there.
//!
//! Log files form a chain: the first record of each names the place where the
//! file before it ended, and whether that was durable by then. The chain is
//! followed backwards from the newest file. So a record that was written and
//! then disowned (its sync failed, or the power went and its file came back
//! shorter) is never taken for good, although it may read well.
//!
//! A bad record ends the log there. It is a torn tail if nothing says that the
//! place was durable; if a later record, a later file or the table file says
//! so, bytes that were acknowledged have been damaged: that is `Corrupt`.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use quire_proto::{Error, PageSet, Reader, Result, VolumeName, Writer};

use crate::log::{DataFile, FILE_HEADER_BYTES, FileId, Files, Place, RECORD_HEADER_BYTES, RecordHeader, RecordKind, Room};
use crate::log::check_record;
use crate::state::{CommitRecord, State};
use crate::table::{Cell, Table};
use crate::tablefile::{self, StoredTable};

/// The payload of a [`RecordKind::State`] record.
pub(crate) struct StateRecord {
    /// For the first record of a file: where the file before ended, and
    /// whether everything up to there was durable.
    pub(crate) link: Option<(Place, bool)>,
    /// Pages that are absent from here on.
    pub(crate) absent: PageSet,
    /// The undecided commit with this number counts from here on, or never will.
    /// `state` has its effect already, the page table has not.
    pub(crate) settled: Option<(u64, bool)>,
    pub(crate) state: State,
}

impl StateRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self.link {
            None => w.u8(0),
            Some((place, durable)) => {
                w.u8(1 + u8::from(durable));
                w.u32(place.file.0);
                w.u32(place.offset);
            }
        }
        self.absent.encode(&mut w);
        match self.settled {
            None => w.u8(0),
            Some((seq, counts)) => {
                w.u8(1 + u8::from(counts));
                w.varint(seq);
            }
        }
        self.state.encode(&mut w);
        w.into_vec()
    }

    fn decode(payload: &[u8]) -> Result<StateRecord> {
        let mut r = Reader::new("state record", payload);
        let link = match r.u8()? {
            0 => None,
            flag @ (1 | 2) => Some((Place { file: FileId(r.u32()?), offset: r.u32()? }, flag == 2)),
            flag => return Err(r.corrupt(format_args!("unknown link {flag}"))),
        };
        let absent = PageSet::decode(&mut r)?;
        let settled = match r.u8()? {
            0 => None,
            flag @ (1 | 2) => Some((r.varint()?, flag == 2)),
            flag => return Err(r.corrupt(format_args!("unknown outcome {flag}"))),
        };
        let state = State::decode(&mut r)?;
        r.finish()?;
        Ok(StateRecord { link, absent, settled, state })
    }
}

/// A commit that was written and neither settled nor dropped yet.
pub(crate) struct Undecided {
    pub(crate) seq: u64,
    pub(crate) commit: CommitRecord,
    pub(crate) pages: Table,
}

/// A replica as found on disk.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) table: Table,
    pub(crate) undecided: Option<Undecided>,
    pub(crate) files: Files,
    /// Where the good records end.
    pub(crate) end: Option<Place>,
    pub(crate) next_file: u32,
    /// How many bytes of log were replayed.
    pub(crate) replayed_bytes: u64,
    pub(crate) log_files: Vec<FileId>,
    pub(crate) cache_files: Vec<FileId>,
}

/// Makes the commit visible in `state` and `table`; `pages` says where its pages lie.
pub(crate) fn apply_commit(state: &mut State, table: &mut Table, commit: &CommitRecord, pages: &Table) {
    let old_count = state.page_count.get();
    if state.page_size.is_some_and(|size| size != commit.page_size) {
        table.set_range(1, old_count.max(commit.page_count.get()), Cell::Zero);
    } else {
        table.set_range(commit.low_count.get().saturating_add(1), old_count, Cell::Zero);
    }
    pages.for_each(|page, cell| {
        if commit.changed.contains(page) {
            table.set(page, cell);
        }
    });
    state.apply_commit(commit);
    table.cover(state.page_count);
}

/// Reads a replica's files. `Ok(None)`: there is no log, so nothing was ever stored here.
pub(crate) fn recover(dir: &Path, name: &VolumeName) -> Result<Option<Recovered>> {
    let log_ids = Room::Log.list(dir)?;
    let cache_ids = Room::Cache.list(dir)?;
    let top_id = log_ids.iter().chain(&cache_ids).map(|id| id.0 + 1).max().unwrap_or(1);
    let mut logs = Vec::new();
    for id in &log_ids {
        match DataFile::open(Room::Log.path(dir, *id), *id)? {
            Some(file) => logs.push(Arc::new(file)),
            None => remove(&Room::Log.path(dir, *id)),
        }
    }
    let chain = chain(&logs)?;
    if chain.is_empty() {
        return Ok(None);
    }
    let mut stored = tablefile::load(dir).unwrap_or_else(|e| {
        tracing::warn!("volume {name}: {e}: rebuilding the page table from the log");
        None
    });
    if let Some(table) = &stored
        && !chain.iter().any(|link| link.file.id == table.position.file)
    {
        // A table of a log that is not there any more cannot be trusted.
        stored = None;
    }

    let mut files = Files::new();
    for file in &logs {
        if chain.iter().any(|link| link.file.id == file.id) {
            files.insert(file.id, file.clone());
        } else {
            tracing::warn!("volume {name}: {} is not part of the log any more", file.path().display());
            file.doom();
        }
    }
    let mut cache_files = Vec::new();
    for id in cache_ids {
        let path = Room::Cache.path(dir, id);
        match DataFile::open(path.clone(), id) {
            Ok(Some(file)) if stored.is_some() => {
                files.insert(id, Arc::new(file));
                cache_files.push(id);
            }
            // Without its table a cache file says nothing; all of it can be fetched again.
            _ => remove(&path),
        }
    }

    let next_file = top_id.max(stored.as_ref().map_or(1, |s| s.next_file));
    let log_files = chain.iter().map(|link| link.file.id).collect();
    let mut replay = Replay::start(stored, &chain)?;
    let end = replay.run(&chain)?;
    replay.drop_lost_cells(&files, name)?;
    replay.fill_truncated();
    Ok(Some(Recovered {
        state: replay.state,
        table: replay.table,
        undecided: replay.undecided,
        files,
        end: Some(end),
        next_file,
        replayed_bytes: replay.bytes,
        log_files,
        cache_files,
    }))
}

fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_file(path) {
        tracing::warn!("removing {}: {e}", path.display());
    }
}

/// A log file and where the one after it says that it ends.
struct Link {
    file: Arc<DataFile>,
    first: StateRecord,
    end: Option<(Place, bool)>,
}

/// The files of the log, oldest first, followed backwards from the newest.
fn chain(logs: &[Arc<DataFile>]) -> Result<Vec<Link>> {
    let mut chain: Vec<Link> = Vec::new();
    let mut wanted: Option<(Place, bool)> = None;
    for file in logs.iter().rev() {
        if wanted.is_some_and(|(place, _)| place.file != file.id) {
            continue;
        }
        let first = file.records(0).next().filter(|(_, header, _)| header.kind == RecordKind::State);
        let Some((_, _, payload)) = first else {
            if wanted.is_some() || has_good_record(file, FILE_HEADER_BYTES) {
                return Err(damaged(file, FILE_HEADER_BYTES, "its first record is damaged"));
            }
            continue;
        };
        let first = StateRecord::decode(payload).map_err(|e| damaged(file, FILE_HEADER_BYTES, e.message()))?;
        let link = first.link;
        chain.push(Link { file: file.clone(), first, end: wanted });
        wanted = link;
        if wanted.is_none() {
            break;
        }
    }
    // The oldest files may have been collected: the chain then begins with
    // whatever is left, whose first record has the whole state.
    chain.reverse();
    Ok(chain)
}

fn damaged(file: &DataFile, offset: u64, problem: &str) -> Error {
    Error::corrupt(format!("log file {} at byte {offset}: {problem}", file.path().display())).with_remedy(
        "Bytes that were acknowledged are damaged. Copy the data directory away, then `quire rm NAME --force` and \
         `quire clone NAME` go back to what was pushed.",
    )
}

/// Whether any whole record stands in the file at or after `from`.
fn has_good_record(file: &DataFile, from: u64) -> bool {
    good_records(file, from).next().is_some()
}

/// Whole records at or after `from`, wherever they begin.
fn good_records(file: &DataFile, from: u64) -> impl Iterator<Item = (RecordHeader, &[u8])> {
    let bytes = file.mapped().unwrap_or_default();
    let last = (bytes.len() as u64).saturating_sub(RECORD_HEADER_BYTES as u64);
    (from..last).filter_map(move |at| {
        // Most of a file's end is zeros, and no record begins with four of them and kind 0.
        (bytes[at as usize + 4] != 0).then_some(())?;
        check_record(&bytes[at as usize..], file.salt, at).ok()
    })
}

struct Replay {
    state: State,
    table: Table,
    from: Place,
    durable: Place,
    staged: (u64, Table),
    undecided: Option<Undecided>,
    bytes: u64,
}

impl Replay {
    fn start(stored: Option<StoredTable>, chain: &[Link]) -> Result<Replay> {
        let oldest = &chain[0];
        let beginning = Place { file: oldest.file.id, offset: FILE_HEADER_BYTES as u32 };
        let (state, table, from) = match stored {
            Some(stored) => (stored.state, stored.table, stored.position),
            None => (oldest.first.state.clone(), Table::default(), beginning),
        };
        let staged = (0, Table::default());
        Ok(Replay { state, table, from, durable: from, staged, undecided: None, bytes: 0 })
    }

    fn run(&mut self, chain: &[Link]) -> Result<Place> {
        let mut end = self.from;
        let first = self.from.file;
        for link in chain.iter().filter(|link| link.file.id >= first) {
            let file = &link.file;
            let from = if file.id == self.from.file { self.from.offset.into() } else { FILE_HEADER_BYTES };
            if let Some((place, true)) = link.end {
                self.durable = self.durable.max(place);
            }
            let mut records = file.records(from);
            loop {
                end = Place { file: file.id, offset: records.offset() as u32 };
                if link.end.is_some_and(|(stop, _)| end >= stop) {
                    break;
                }
                let Some((offset, header, payload)) = records.next() else { break };
                let place = Place { file: file.id, offset: offset as u32 };
                self.bytes += (RECORD_HEADER_BYTES + payload.len()) as u64;
                self.record(place, &header, payload).map_err(|e| damaged(file, offset, e.message()))?;
            }
            if end < self.durable && end.file == self.durable.file || self.is_said_durable(file, end) {
                return Err(damaged(file, end.offset.into(), "a record is damaged, and later ones prove that it was whole"));
            }
            if link.end.is_some_and(|(stop, _)| end < stop) {
                // Power was lost before the file's end reached the disk: what came later never happened.
                break;
            }
        }
        Ok(end)
    }

    /// Whether a good commit after `end` says that `end` was durable when it was written.
    fn is_said_durable(&self, file: &DataFile, end: Place) -> bool {
        good_records(file, u64::from(end.offset) + 1)
            .filter(|(header, _)| header.kind == RecordKind::Commit)
            .any(|(_, payload)| CommitRecord::synced_before(payload).is_some_and(|synced| synced > end.offset))
    }

    fn record(&mut self, place: Place, header: &RecordHeader, payload: &[u8]) -> Result<()> {
        match header.kind {
            RecordKind::State => {
                let record = StateRecord::decode(payload)?;
                if let Some((seq, counts)) = record.settled
                    && let Some(undecided) = self.undecided.take_if(|u| u.seq == seq)
                    && counts
                {
                    apply_commit(&mut self.state, &mut self.table, &undecided.commit, &undecided.pages);
                }
                for (first, last) in record.absent.ranges() {
                    self.table.set_range(first, last, Cell::Absent);
                }
                self.state = record.state;
                self.table.cover(self.state.page_count);
            }
            RecordKind::Page | RecordKind::Moved => {
                let page = quire_proto::PageIdx::try_new(header.page)?;
                let cell = Cell::At { place, verified: true };
                if header.kind == RecordKind::Moved {
                    self.table.set(page, cell);
                } else {
                    if self.staged.0 != header.seq {
                        self.staged = (header.seq, Table::default());
                    }
                    self.staged.1.set(page, cell);
                    self.state.seq = self.state.seq.max(header.seq);
                }
            }
            RecordKind::Commit => {
                let commit = CommitRecord::decode(payload)?;
                let pages = if self.staged.0 == header.seq { std::mem::take(&mut self.staged.1) } else { Table::default() };
                self.state.seq = self.state.seq.max(header.seq);
                if commit.group.is_some() {
                    self.undecided = Some(Undecided { seq: header.seq, commit, pages });
                } else {
                    apply_commit(&mut self.state, &mut self.table, &commit, &pages);
                }
            }
            RecordKind::Settled => {
                if let Some(undecided) = self.undecided.take_if(|u| u.seq == header.seq)
                    && payload == [1]
                {
                    apply_commit(&mut self.state, &mut self.table, &undecided.commit, &undecided.pages);
                }
            }
            RecordKind::Fetched => return Err(Error::corrupt("a fetched page stands in a log")),
        }
        Ok(())
    }

    /// Pages past the smallest page count since the base that nobody wrote are
    /// zeros, also if the commit that truncated them has been compacted away.
    fn fill_truncated(&mut self) {
        let carried = self.state.intent.as_ref().map(|i| &i.carries);
        let unpushed = carried.into_iter().chain([&self.state.pending]).filter(|p| p.commits > 0);
        let Some(low) = unpushed.map(|p| p.min_count.get()).min() else { return };
        for n in low.saturating_add(1)..=self.state.page_count.get() {
            if let Some(page) = quire_proto::PageIdx::new(n)
                && self.table.get(page) == Cell::Absent
            {
                self.table.set(page, Cell::Zero);
            }
        }
    }

    /// Cells that point into files which are not there: such a page can be
    /// fetched again if it is in the store, and is lost otherwise.
    fn drop_lost_cells(&mut self, files: &Files, name: &VolumeName) -> Result<()> {
        let mut lost = Vec::new();
        let mut missing: HashSet<FileId> = HashSet::new();
        self.table.for_each(|page, cell| {
            if let Cell::At { place, .. } = cell
                && !files.contains_key(&place.file)
            {
                missing.insert(place.file);
                lost.push(page);
            }
        });
        let carried = self.state.intent.as_ref().map(|i| &i.carries.changed);
        for page in lost {
            if self.state.pending.changed.contains(page) || carried.is_some_and(|set| set.contains(page)) {
                return Err(Error::corrupt(format!(
                    "volume {name}: page {page} was never pushed, and the file with it is missing: {missing:?}"
                )));
            }
            self.table.set(page, Cell::Absent);
        }
        let unpushed = carried.into_iter().chain([&self.state.pending.changed]).flat_map(PageSet::iter);
        for page in unpushed.filter(|page| self.state.page_count.contains(*page)) {
            if self.table.get(page) == Cell::Absent {
                return Err(Error::corrupt(format!("volume {name}: page {page} was never pushed, and its file is missing")));
            }
        }
        Ok(())
    }
}
