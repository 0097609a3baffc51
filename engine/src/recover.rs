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
//! A file that the chain goes on with and that is not there was compacted away,
//! unless pages that were never pushed are missing with it: then the power took
//! it before anything made it durable, and the log ends before it.
//! Nothing is removed before everything was found to be right.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use quire_proto::{Error, ErrorKind, PageCount, PageIdx, PageSet, Reader, Result, Writer};

use crate::log::{
    DataFile, FILE_HEADER_BYTES, FileId, Files, Place, RECORD_HEADER_BYTES, RecordHeader, RecordKind, Room, Unsynced,
    check_record, parse_record,
};
use crate::state::{CommitRecord, State};
use crate::table::{Cell, Pages, Table};
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

    /// Reads the payload of a STATE record.
    pub(crate) fn decode(payload: &[u8]) -> Result<StateRecord> {
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
    pub(crate) pages: Pages,
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
    /// Log files that a process wrote which may not have made them durable.
    pub(crate) unsynced: Vec<Unsynced>,
}

impl Recovered {
    /// A replica of which nothing is on disk yet.
    pub(crate) fn nothing(state: State) -> Recovered {
        Recovered {
            state,
            table: Table::default(),
            undecided: None,
            files: Files::new(),
            end: None,
            next_file: 1,
            replayed_bytes: 0,
            log_files: Vec::new(),
            cache_files: Vec::new(),
            unsynced: Vec::new(),
        }
    }
}

/// Makes the commit visible in `state` and `table`; `pages` says where its pages lie.
pub(crate) fn apply_commit(state: &mut State, table: &mut Table, commit: &CommitRecord, pages: &Pages) {
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
pub(crate) fn recover(dir: &Path, name: &str) -> Result<Option<Recovered>> {
    let log_ids = Room::Log.list(dir)?;
    let cache_ids = Room::Cache.list(dir)?;
    let next_file = log_ids.iter().chain(&cache_ids).map(|id| id.0.saturating_add(1)).max().unwrap_or(1);
    let mut logs = Vec::new();
    for id in &log_ids {
        logs.extend(DataFile::open(Room::Log, dir, *id)?.map(Arc::new));
    }
    let mut found = replayed(&logs, &cache_ids, dir, name)?;
    let is_needed = |id: &FileId| found.as_ref().is_some_and(|found| found.files.contains_key(id));
    let stale = [(Room::Log, &log_ids), (Room::Cache, &cache_ids)].map(|(room, ids)| {
        let stale = ids.iter().filter(|id| !is_needed(id));
        stale.map(|id| room.path(dir, *id)).collect::<Vec<_>>()
    });
    let unfinished = Some(tablefile::unfinished(dir)).filter(|path| path.exists());
    for path in stale.concat().into_iter().chain(unfinished) {
        tracing::debug!("volume {name}: {} is not needed any more", path.display());
        if let Err(e) = std::fs::remove_file(&path) {
            tracing::warn!("removing {}: {e}", path.display());
        }
    }
    if let Some(found) = &mut found {
        found.next_file = found.next_file.max(next_file);
    }
    Ok(found)
}

/// What these log files hold, oldest first.
fn replayed(logs: &[Arc<DataFile>], cache_ids: &[FileId], dir: &Path, name: &str) -> Result<Option<Recovered>> {
    let mut chain = chain(logs)?;
    let stored = tablefile::load(dir)?.transpose().map_err(|e| {
        tracing::warn!("volume {name}: {e}: rebuilding the page table from the log");
    });
    // Up to which file the table proves the log to be durable: all of it, for all that a damaged one says.
    let proven = stored.as_ref().map_or(FileId(u32::MAX), |s| s.as_ref().map_or(FileId(0), |s| s.position.file));
    let stored = match stored.ok().flatten() {
        Some(stored) => of_this_log(stored, &chain, dir)?,
        None => None,
    };
    if chain.is_empty() {
        return Ok(None);
    }
    let next_file = stored.as_ref().map_or(1, |s| s.next_file);
    let knows_cache = stored.is_some();
    let mut replay = Replay::start(stored, &chain);
    let end = replay.run(&mut chain)?;

    let mut files: Files = chain.iter().map(|link| (link.file.id, link.file.clone())).collect();
    let log_files: Vec<FileId> = chain.iter().map(|link| link.file.id).collect();
    let mut cache_files = Vec::new();
    // Without its table a cache file says nothing; all of it can be fetched again.
    for id in cache_ids.iter().filter(|_| knows_cache) {
        let file = match DataFile::open(Room::Cache, dir, *id) {
            Err(e) if e.kind() == ErrorKind::Corrupt => None,
            opened => opened
                .map_err(|e| {
                    e.with_remedy("Try again. If it stays so, remove this file: what it holds is fetched again.")
                })?
                .filter(|_| !files.contains_key(id)),
        };
        if let Some(file) = file {
            files.insert(*id, Arc::new(file));
            cache_files.push(*id);
        }
    }
    let oldest = &chain[0];
    let lost = replay.drop_lost_cells(&files, dir, &oldest.first);
    // A table that is being written takes in what is fetched meanwhile, also into files that are begun later than it says.
    let next_file = next_file.max(lost.as_ref().map_or(0, |lost| lost.map_or(0, |id| id.0.saturating_add(1))));
    if let Err(e) = lost {
        let before = oldest.first.link.map_or(FileId(0), |(place, _)| place.file);
        if before <= proven || proves_all_before(&chain) {
            return Err(e);
        }
        // The file before went with the power, and nothing says that it was durable: what came after it never happened.
        let older = logs.iter().take_while(|file| file.id < oldest.file.id).count();
        return replayed(&logs[..older], cache_ids, dir, name);
    }
    replay.fill_truncated();
    Ok(Some(Recovered {
        unsynced: replay.unsynced(&chain, end),
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

/// The table file, if the log goes on from it. `None`: compaction has moved
/// the log on since. A log that ends before it has lost what was durable.
fn of_this_log(stored: StoredTable, chain: &[Link], dir: &Path) -> Result<Option<StoredTable>> {
    let wanted = stored.position.file;
    if let Some(link) = chain.iter().find(|link| link.file.id == wanted) {
        if link.file.len()? < stored.position.offset.into() {
            return Err(damaged(
                &link.file,
                link.file.len()?,
                "it ends there, and the table file proves that it was longer",
            ));
        }
        return Ok(Some(stored));
    }
    if chain.first().is_some_and(|oldest| oldest.file.id > wanted) {
        return Ok(None);
    }
    let path = Room::Log.path(dir, wanted);
    Err(Error::corrupt(format!(
        "log file {} is missing or empty, and the table file beside it proves that it was not",
        path.display()
    ))
    .with_remedy(DAMAGED))
}

/// A disk writes this much at once, or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

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
            let was_whole =
                proves_all_before(&chain) || was_begun(file) || proves_what_was_before(file, FILE_HEADER_BYTES);
            if was_whole {
                return Err(damaged(file, FILE_HEADER_BYTES, "its first record is damaged"));
            }
            // The power went before this file's beginning reached the disk: it and what came later never happened.
            chain.clear();
            wanted = None;
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

const DAMAGED: &str = "Bytes that were acknowledged are damaged. Copy the data directory away, then `quire rm NAME \
                       --force` and `quire clone NAME` go back to what was pushed.";

fn damaged(file: &DataFile, offset: u64, problem: &str) -> Error {
    Error::corrupt(format!("log file {} at byte {offset}: {problem}", file.path().display())).with_remedy(DAMAGED)
}

/// Whether a file's first record, which is bad, was written: good ones follow,
/// and no sector of it is still zeros, as those are that the power took.
fn was_begun(file: &DataFile) -> bool {
    let Some((next, ..)) = good_records(file, FILE_HEADER_BYTES, |_| true).next() else { return false };
    let bytes = file.mapped().unwrap_or_default();
    let payload_bytes = parse_record(&bytes[FILE_HEADER_BYTES as usize..]).map_or(0, |header| header.payload_bytes);
    // A length that reaches into the next record is damaged itself.
    let end = (FILE_HEADER_BYTES as usize + RECORD_HEADER_BYTES + payload_bytes as usize).min(next as usize);
    !has_blank_sector(bytes, FILE_HEADER_BYTES as usize..end)
}

/// Whether what lies in `range` of one of a file's sectors is all zeros, as what the power took is.
pub(crate) fn has_blank_sector(bytes: &[u8], range: Range<usize>) -> bool {
    let mut at = range.start;
    while at < range.end {
        let end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        if bytes[at..end.min(range.end)].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = end;
    }
    false
}

/// Up to where these files say that the log was durable.
fn durable_to(chain: &[Link]) -> Option<Place> {
    chain.iter().filter_map(|link| link.end).filter(|(_, durable)| *durable).map(|(place, _)| place).max()
}

/// Whether these files say that everything before them was durable.
fn proves_all_before(chain: &[Link]) -> bool {
    let says = |link: &Link| link.first.link.is_some_and(|(_, durable)| durable);
    chain.iter().any(|link| says(link) || proves_what_was_before(&link.file, FILE_HEADER_BYTES))
}

/// Whole records of a kind at or after `from`, and where they begin.
fn good_records(
    file: &DataFile,
    from: u64,
    wanted: impl Fn(RecordKind) -> bool,
) -> impl Iterator<Item = (u64, RecordHeader, &[u8])> {
    let bytes = file.mapped().unwrap_or_default();
    let last = (bytes.len() as u64).saturating_sub(RECORD_HEADER_BYTES as u64);
    (from..last).filter_map(move |at| {
        // Most of a file's end is zeros, and no record is of kind 0.
        (bytes[at as usize + 4] != 0).then_some(())?;
        let rest = &bytes[at as usize..];
        parse_record(rest).filter(|header| wanted(header.kind))?;
        let (header, payload) = check_record(rest, file.salt, at).ok()?;
        Some((at, header, payload))
    })
}

/// Whether a commit at or after `from` says that everything before it was
/// durable when it was written, all files before it included.
fn proves_what_was_before(file: &DataFile, from: u64) -> bool {
    good_records(file, from, |kind| kind == RecordKind::Commit)
        .any(|(_, _, payload)| CommitRecord::synced_before(payload).is_some_and(|synced| u64::from(synced) > from))
}

struct Replay {
    state: State,
    table: Table,
    from: Place,
    staged: (u64, Table),
    undecided: Option<Undecided>,
    bytes: u64,
}

impl Replay {
    fn start(stored: Option<StoredTable>, chain: &[Link]) -> Replay {
        let oldest = &chain[0];
        let beginning = Place { file: oldest.file.id, offset: FILE_HEADER_BYTES as u32 };
        let (state, table, from) = match stored {
            Some(stored) => (stored.state, stored.table, stored.position),
            None => (oldest.first.state.clone(), Table::default(), beginning),
        };
        let staged = (0, Table::default());
        Replay { state, table, from, staged, undecided: None, bytes: 0 }
    }

    /// Applies the records from `from` on; returns where they end. Files that
    /// come after an end which the power cut short leave the chain.
    fn run(&mut self, chain: &mut Vec<Link>) -> Result<Place> {
        let durable = durable_to(chain);
        let mut end = self.from;
        let mut done = 0;
        let first = self.from.file;
        for (n, link) in chain.iter().enumerate().skip_while(|(_, link)| link.file.id < first) {
            let file = &link.file;
            let from = if file.id == self.from.file { self.from.offset.into() } else { FILE_HEADER_BYTES };
            let stop = link.end.map(|(place, _)| place);
            let mut records = file.records(from);
            loop {
                end = Place { file: file.id, offset: records.offset() as u32 };
                if stop.is_some_and(|stop| end >= stop) {
                    break;
                }
                let Some((offset, header, payload)) = records.next() else { break };
                let place = Place { file: file.id, offset: offset as u32 };
                self.bytes += (RECORD_HEADER_BYTES + payload.len()) as u64;
                self.record(place, &header, payload).map_err(|e| damaged(file, offset, e.message()))?;
            }
            done = n + 1;
            if stop.is_some_and(|stop| end >= stop) {
                continue;
            }
            let later = &chain[done..];
            let was_whole = durable.is_some_and(|durable| durable > end)
                || proves_what_was_before(file, end.offset.into())
                || later.iter().any(|link| proves_what_was_before(&link.file, FILE_HEADER_BYTES));
            if was_whole {
                return Err(damaged(
                    file,
                    end.offset.into(),
                    "a record is damaged, and later ones prove that it was whole",
                ));
            }
            // Power was lost before the file's end reached the disk: what came later never happened.
            break;
        }
        chain.truncate(done);
        Ok(end)
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
                let page = PageIdx::try_new(header.page)?;
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
                let spilled =
                    if self.staged.0 == header.seq { std::mem::take(&mut self.staged.1) } else { Table::default() };
                let pages = Pages { spilled, staged: Vec::new() };
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

    /// The records that were replayed, which end at `end`, as far as nothing proves that they are durable. Until they are,
    /// what is read of them is checked.
    fn unsynced(&self, chain: &[Link], end: Place) -> Vec<Unsynced> {
        let from = durable_to(chain).map_or(self.from, |durable| durable.max(self.from));
        let replayed = chain.iter().filter(|link| end > from && link.file.id >= from.file);
        let part = |link: &Link| {
            let is_first = link.file.id == from.file && u64::from(from.offset) > FILE_HEADER_BYTES;
            let begin = if is_first { from.offset } else { 0 };
            let stop = if link.file.id == end.file { end } else { link.end.map_or(end, |(place, _)| place) };
            link.file.suspect(true);
            Unsynced { file: link.file.clone(), found: Some(begin.into()..stop.offset.into()) }
        };
        replayed.map(part).collect()
    }

    /// Pages past the smallest page count since the base that nobody wrote are
    /// zeros, also if the commit that truncated them has been compacted away.
    fn fill_truncated(&mut self) {
        let carried = self.state.intent.as_ref().map(|i| &i.carries);
        let unpushed = carried.into_iter().chain([&self.state.pending]).filter(|p| p.commits > 0);
        let Some(low) = unpushed.map(|p| p.min_count.get()).min() else { return };
        // A later commit may bring back pages that only the base has had.
        let base_count = self.state.base.as_ref().map_or(PageCount::ZERO, |base| base.page_count);
        let last = self.state.page_count.max(base_count).get();
        for (first, last) in self.table.absent(low.saturating_add(1), last) {
            self.table.set_range(first, last, Cell::Zero);
        }
    }

    /// Cells that point into files which are not there: such a page can be
    /// fetched again if it is in the store, and is lost otherwise. Returns the newest of those files.
    fn drop_lost_cells(&mut self, files: &Files, dir: &Path, oldest: &StateRecord) -> Result<Option<FileId>> {
        let pending = &self.state.pending;
        let mut unpushed = pending.changed.clone();
        if let Some(intent) = &self.state.intent {
            let mut carried = intent.carries.changed.clone();
            if pending.commits > 0 {
                // What was cut off since is nowhere any more, and need not be.
                carried.truncate(pending.min_count);
            }
            unpushed.union_with(&carried);
        }
        unpushed.truncate(self.state.page_count);
        let mut lost: Vec<(PageIdx, FileId)> = Vec::new();
        // Both are in the order of the pages: one walk, as a volume of gigabytes has many.
        let mut unseen = unpushed.iter();
        let (mut next, mut absent) = (unseen.next(), None);
        // Neighbours mostly lie in the same file.
        let mut there = None;
        self.table.for_each(|page, cell| {
            while next.is_some_and(|next| next < page) {
                absent = absent.or(next);
                next = unseen.next();
            }
            if next == Some(page) {
                next = unseen.next();
            }
            if let Cell::At { place, .. } = cell
                && there != Some(place.file)
            {
                match files.contains_key(&place.file) {
                    true => there = Some(place.file),
                    false => lost.push((page, place.file)),
                }
            }
        });
        let missing = |page: PageIdx, file: FileId| {
            let path = Room::Log.path(dir, file);
            Err(Error::corrupt(format!("page {page} was never pushed, and log file {} is missing", path.display()))
                .with_remedy(DAMAGED))
        };
        let newest = lost.iter().map(|(_, file)| *file).max();
        for (page, file) in lost {
            if unpushed.contains(page) {
                return missing(page, file);
            }
            self.table.set(page, Cell::Absent);
        }
        // What the oldest file follows may have been collected, unless it held one of these.
        let before = oldest.link.map_or(FileId(0), |(place, _)| place.file);
        match absent.or(next) {
            Some(page) => missing(page, before),
            None => Ok(newest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::commit;
    use crate::state::{BaseState, Intent};
    use quire_proto::{CommitHash, Lsn, PageSize, VolumeName};

    fn page(n: u32) -> PageIdx {
        PageIdx::new(n).unwrap()
    }

    /// What is known without a table file, once the log's beginning was compacted away: nothing but the state.
    fn without_table(state: State) -> Replay {
        let from = Place { file: FileId(1), offset: FILE_HEADER_BYTES as u32 };
        Replay { state, table: Table::default(), from, staged: (0, Table::default()), undecided: None, bytes: 0 }
    }

    fn on_a_base_of(pages: u32) -> State {
        let mut state = State::new(VolumeName::parse("v").unwrap());
        let (volume, page_count) = (state.remote.clone(), PageCount::new(pages));
        state.base = Some(BaseState { volume, lsn: Lsn::FIRST, hash: CommitHash::of(b"base"), page_count });
        (state.page_size, state.page_count) = (Some(PageSize::DEFAULT), page_count);
        state
    }

    #[test]
    fn pages_that_were_cut_off_do_not_come_back_with_a_later_commit() {
        let mut state = on_a_base_of(1000);
        state.apply_commit(&commit(63, 63, &[]));
        let mut replay = without_table(state);
        replay.fill_truncated();
        apply_commit(&mut replay.state, &mut replay.table, &commit(500, 63, &[500]), &Pages::default());
        for (n, cell) in [(63, Cell::Absent), (64, Cell::Zero), (499, Cell::Zero), (1000, Cell::Zero)] {
            assert_eq!(replay.table.get(page(n)), cell, "page {n}");
        }
        assert_eq!(replay.table.get(page(1001)), Cell::Absent);
    }

    #[test]
    fn a_page_of_a_push_in_flight_that_was_cut_off_since_is_not_missed() {
        let (dir, nothing) = (tempfile::tempdir().unwrap(), State::new(VolumeName::parse("v").unwrap()));
        let oldest = StateRecord { link: None, absent: PageSet::default(), settled: None, state: nothing };
        for cut_off in [true, false] {
            let mut state = on_a_base_of(10);
            state.apply_commit(&commit(12, 10, &[12]));
            let carries = std::mem::take(&mut state.pending);
            state.intent = Some(Intent { target: Lsn::FIRST.next(), object: Vec::new(), carries, tentative: None });
            if cut_off {
                state.apply_commit(&commit(5, 5, &[]));
                state.apply_commit(&commit(12, 5, &[]));
            }
            let mut replay = without_table(state);
            let lost = replay.drop_lost_cells(&Files::new(), dir.path(), &oldest);
            assert_eq!(lost.is_ok(), cut_off, "{lost:?}");
            if let Err(e) = lost {
                assert!(e.message().contains("page 12 was never pushed"), "{e}");
            }
        }
    }
}
