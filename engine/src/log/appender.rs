//! Appends batches of records to the newest file of a room.
//!
//! A batch is written with one `pwrite`. Space is reserved ahead in steps, so
//! that a synced commit changes no file metadata. A file that failed to write
//! or to sync is sealed and never written or synced again: after a failed
//! `fdatasync` the kernel may have dropped the very pages that mattered.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quire_proto::{Error, ErrorKind, PageIdx, Result};

use super::file::FILE_HEADER_BYTES;
use super::record::{self, HEADER_BYTES, RecordKind};
use super::{DataFile, FileId, Folder, Place, Room};

/// A file is sealed once it is this long, at most.
pub(crate) const MAX_FILE_BYTES: u64 = 32 << 20;
/// And at least.
pub(crate) const MIN_FILE_BYTES: u64 = 64 << 10;
/// Space is reserved this much ahead.
const RESERVE_BYTES: u64 = 2 << 20;
/// Where records are small, as much as the file has is filled with zeros ahead, within these bounds. Writing 4,180
/// bytes takes 1.0 µs where something was written before, 2.5 µs into reserved blocks, 3.0 µs into new ones, and the
/// zeros cost 0.6 µs for each. And syncing such a write changes no metadata: 10,500 a second, against 6,700 into
/// reserved and 4,900 into new blocks (ext4, Linux 6.18).
const ZERO_AHEAD_BYTES: (u64, u64) = (64 << 10, 1 << 20);
/// They are written in pieces: the kernel keeps what one write brings in one large folio, and looks at each block of it
/// whenever something is written there. Pieces of 1 MiB, 256 KiB, 128 KiB, 64 KiB and 4 KiB made 2.2, 1.5, 1.5, 1.5 and
/// 3.0 µs of such a record, zeros included (ext4, Linux 6.18, 2026-11-30).
const ZERO_PIECE_BYTES: usize = 128 << 10;

static ZEROS: [u8; ZERO_PIECE_BYTES] = [0; ZERO_PIECE_BYTES];

/// Files that may have to be synced stay open, so as to hear of it if they
/// cannot be. Beyond so many, the oldest is synced at once.
const MAX_UNSYNCED: usize = 8;

/// Space for the record of a small commit.
const SPARE_BYTES: usize = 512;

/// Records on their way into a file, laid out as they will be there.
#[derive(Default)]
pub(crate) struct Batch {
    buf: Vec<u8>,
    starts: Vec<u32>,
}

impl Batch {
    /// Adds a record.
    pub(crate) fn push(&mut self, kind: RecordKind, page: u32, seq: u64, payload: &[u8]) {
        if self.buf.is_empty() {
            // Most batches are one page, and the record of its commit.
            self.buf.reserve(HEADER_BYTES + payload.len() + SPARE_BYTES);
        }
        self.starts.push(self.buf.len() as u32);
        record::begin(&mut self.buf, kind, page, seq, payload.len());
        self.buf.extend_from_slice(payload);
    }

    /// The payload of record `n`.
    pub(crate) fn payload(&self, n: usize) -> &[u8] {
        let (start, end) = self.bounds(n);
        &self.buf[start + HEADER_BYTES..end]
    }

    /// The payload of record `n`, to be overwritten with one of the same length.
    pub(crate) fn payload_mut(&mut self, n: usize) -> &mut [u8] {
        let (start, end) = self.bounds(n);
        &mut self.buf[start + HEADER_BYTES..end]
    }

    /// The page of each record and where it is, if the first one is at `first`.
    pub(crate) fn pages(&self, first: Place) -> impl Iterator<Item = (PageIdx, Place)> {
        (0..self.len()).filter_map(move |n| {
            let (start, end) = self.bounds(n);
            let page = record::parse_header(&self.buf[start..end])?.page;
            Some((PageIdx::new(page)?, Place { offset: first.offset + start as u32, ..first }))
        })
    }

    /// Takes the last record back.
    pub(crate) fn pop(&mut self) {
        if let Some(start) = self.starts.pop() {
            self.buf.truncate(start as usize);
        }
    }

    fn bounds(&self, n: usize) -> (usize, usize) {
        let end = self.starts.get(n + 1).map_or(self.buf.len(), |next| *next as usize);
        (self.starts[n] as usize, end)
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.buf.len()
    }

    pub(crate) fn clear(&mut self) {
        self.buf.clear();
        self.starts.clear();
    }
}

/// The end of a log or cache.
pub(crate) struct Appender {
    room: Room,
    replica: PathBuf,
    file_bytes: u64,
    next_id: Arc<AtomicU32>,
    tail: Option<Tail>,
    /// Sealed log files whose bytes may not be durable yet. (Cache files never
    /// need to be: what they lose is fetched again.)
    unsynced: Vec<Unsynced>,
    names_unsynced: bool,
    /// A folder could not be synced: the kernel may have dropped its names, and would say yes the next time.
    names_failed: bool,
    /// The folders whose names are to be synced: open before anything is written that needs it, so that a
    /// process without file descriptors is told before and not after.
    folders: Option<[Folder; 2]>,
    /// A file could not be synced: what it holds may be lost with the power,
    /// and nothing after it can be called durable.
    doubt: Option<Error>,
    /// Where the records of the last sealed file end.
    sealed_end: Option<Place>,
}

/// A sealed file whose bytes may not be durable.
pub(crate) struct Unsynced {
    pub(crate) file: Arc<DataFile>,
    /// Another process wrote it, this part of it after what is known to be durable.
    pub(crate) found: Option<Range<u64>>,
}

/// Why something is not durable.
enum Failed {
    /// It was not tried: it can be, later.
    Before(Error),
    /// It was, and what is on the disk is not known any more.
    Sync(Error),
}

impl Unsynced {
    fn sync(&self) -> Result<(), Failed> {
        match &self.found {
            Some(range) => {
                let file = self.file.write_again(range).map_err(Failed::Before)?;
                let wrong = |e| Error::from_io(format!("syncing {}", self.file.path().display()), e);
                file.sync_data().map_err(|e| Failed::Sync(wrong(e)))?;
                self.file.suspect(false);
            }
            None => self.file.sync().map_err(Failed::Sync)?,
        }
        self.file.spare();
        Ok(())
    }
}

struct Tail {
    file: Arc<DataFile>,
    end: u64,
    reserved: u64,
    synced: u64,
}

impl Appender {
    /// Appends from the next free id on; no file is made before the first append.
    /// A file is sealed once it has `file_bytes`.
    pub(crate) fn new(room: Room, replica: PathBuf, file_bytes: u64, next_id: Arc<AtomicU32>) -> Appender {
        Appender {
            room,
            replica,
            file_bytes,
            next_id,
            tail: None,
            unsynced: Vec::new(),
            names_unsynced: false,
            names_failed: false,
            folders: None,
            doubt: None,
            sealed_end: None,
        }
    }

    /// As [`new`](Self::new), after files that were found at opening: their
    /// records end at `end`, and those in `unsynced` may not be durable.
    pub(crate) fn continued(mut self, end: Option<Place>, unsynced: Vec<Unsynced>) -> Appender {
        self.names_unsynced = !unsynced.is_empty();
        self.sealed_end = end;
        self.unsynced = unsynced;
        self
    }

    /// Whether the current file takes `bytes` more.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.tail.as_ref().is_some_and(|t| t.end == FILE_HEADER_BYTES || t.end + bytes <= self.file_bytes)
    }

    /// Begins a new file, with space for `bytes`. The caller registers it
    /// before anybody can read from it.
    pub(crate) fn begin(&mut self, bytes: u64) -> Result<Arc<DataFile>> {
        self.seal();
        let id = FileId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let dir = self.room.dir(&self.replica);
        std::fs::create_dir_all(&dir).map_err(|e| Error::from_io(format!("creating folder {}", dir.display()), e))?;
        let file = Arc::new(DataFile::create(self.room, &self.replica, id)?);
        self.names_unsynced = true;
        self.tail = Some(Tail { file: file.clone(), end: FILE_HEADER_BYTES, reserved: FILE_HEADER_BYTES, synced: 0 });
        if let Err(e) = self.open_folders().and_then(|()| self.reserve(bytes)) {
            // Nothing was written to it; the id stays burnt.
            file.doom();
            self.tail = None;
            return Err(e);
        }
        Ok(file)
    }

    /// Makes sure that the disk has space for `bytes` more in the current file.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<()> {
        let Some(tail) = &mut self.tail else { return Ok(()) };
        if tail.end + bytes <= tail.reserved {
            return Ok(());
        }
        let (least, most) = ZERO_AHEAD_BYTES;
        let zeros = self.room == Room::Log && tail.end > FILE_HEADER_BYTES && bytes < most;
        let ahead = tail.end.next_power_of_two().clamp(least, most);
        let step = if zeros { ahead } else { RESERVE_BYTES }.min(self.file_bytes);
        let needed = tail.end + bytes;
        let extend = |reserved: u64| -> Result<u64> {
            if zeros {
                for at in (tail.reserved..reserved).step_by(ZERO_PIECE_BYTES) {
                    tail.file.write_all(&ZEROS[..ZERO_PIECE_BYTES.min((reserved - at) as usize)], at)?;
                }
            } else {
                tail.file.allocate(tail.reserved, reserved)?;
            }
            Ok(reserved)
        };
        tail.reserved = match extend(needed.next_multiple_of(step)) {
            // A disk that is nearly full still takes what fits.
            Err(e) if e.kind() == ErrorKind::Full => extend(needed)?,
            extended => extended?,
        };
        Ok(())
    }

    /// Writes a batch after everything so far, and says where its first record
    /// went. There must be a current file, with space [reserved](Self::reserve).
    pub(crate) fn append(&mut self, batch: &mut Batch) -> Result<Place> {
        let tail = self.tail.as_mut().expect("space was reserved before an append");
        for n in 0..batch.len() {
            let (start, end) = batch.bounds(n);
            record::finish(&mut batch.buf[start..end], tail.file.salt, tail.end + start as u64);
        }
        if let Err(e) = tail.file.write_all(&batch.buf, tail.end) {
            // A part may have been written: nothing may follow it in this file.
            self.seal();
            return Err(e);
        }
        let first = Place { file: tail.file.id, offset: tail.end as u32 };
        tail.end += batch.buf.len() as u64;
        Ok(first)
    }

    /// Gives up the current file from `place` on: the records there were
    /// written and could not be synced. Later files say that this one ends at
    /// `place`. True if everything before it is durable, so that the log can go on.
    pub(crate) fn give_up(&mut self, place: Place) -> bool {
        let synced = self.tail.as_ref().filter(|t| t.file.id == place.file).map(|t| t.synced);
        self.seal();
        self.sealed_end = Some(place);
        let proven = synced.is_some_and(|synced| u64::from(place.offset) <= synced)
            && self.unsynced.iter().all(|unsynced| unsynced.file.id == place.file)
            && !self.names_failed;
        if proven {
            for Unsynced { file, .. } in self.unsynced.drain(..) {
                file.suspect(false);
                file.spare();
            }
            self.doubt = None;
        }
        proven
    }

    /// Forgets what was appended to the current file from `end` on, if that lies there. True if it does.
    pub(crate) fn cut_tail(&mut self, end: Place) -> Result<bool> {
        let Some(tail) = self.tail.as_mut().filter(|tail| tail.file.id == end.file) else { return Ok(false) };
        let end = u64::from(end.offset);
        if end < tail.end {
            tail.file.truncate(end)?;
            (tail.end, tail.reserved, tail.synced) = (end, end, tail.synced.min(end));
        }
        Ok(true)
    }

    /// Forgets the files after that of `end`, of which nothing is needed. Later files say that the log ended at `end`.
    pub(crate) fn cut(&mut self, end: Option<Place>) {
        let last = end.map_or(FileId(0), |place| place.file);
        if let Some(tail) = self.tail.take_if(|tail| tail.file.id > last) {
            // What was reserved is none of the log's bytes.
            let _ = tail.file.truncate(tail.end);
        }
        self.unsynced.retain(|unsynced| unsynced.file.id <= last);
        self.sealed_end = end;
    }

    /// Makes everything appended so far durable. What failed to sync is never
    /// tried again: after a failed `fdatasync` the kernel may have dropped the
    /// very pages that mattered, and would say yes.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if let Some(doubt) = &self.doubt {
            return Err(doubt.duplicate());
        }
        self.open_folders()?;
        while let Some(unsynced) = self.unsynced.last() {
            match unsynced.sync() {
                Ok(()) => {}
                Err(Failed::Before(e)) => return Err(e),
                Err(Failed::Sync(e)) => {
                    self.doubt(&e);
                    return Err(e);
                }
            }
            self.unsynced.pop();
        }
        self.sync_tail()
    }

    /// Makes the current file durable, whatever became of those before.
    pub(crate) fn sync_tail(&mut self) -> Result<()> {
        self.open_folders()?;
        let synced = self.try_sync_tail();
        if let Err(e) = &synced {
            self.doubt(e);
        }
        synced
    }

    /// A sync failed.
    fn doubt(&mut self, why: &Error) {
        self.doubt = Some(why.duplicate());
        let tail = self.tail.iter().map(|tail| &tail.file);
        self.unsynced.iter().map(|unsynced| &unsynced.file).chain(tail).for_each(|file| file.suspect(true));
    }

    fn open_folders(&mut self) -> Result<()> {
        // A cache is never synced.
        if self.room == Room::Log && self.names_unsynced && self.folders.is_none() {
            self.folders = Some([Folder::open(self.room.dir(&self.replica))?, Folder::open(self.replica.clone())?]);
        }
        Ok(())
    }

    fn try_sync_tail(&mut self) -> Result<()> {
        if let Some(tail) = &mut self.tail
            && tail.synced < tail.end
        {
            tail.file.sync()?;
            tail.synced = tail.end;
        }
        if self.names_unsynced {
            let synced = self.folders.take().iter().flatten().try_for_each(Folder::sync);
            self.names_failed |= synced.is_err();
            synced?;
            self.names_unsynced = false;
        }
        Ok(())
    }

    /// Where the records end: the next one goes there, or into a new file.
    pub(crate) fn end(&self) -> Option<Place> {
        match &self.tail {
            Some(tail) => Some(Place { file: tail.file.id, offset: tail.end as u32 }),
            None => self.sealed_end,
        }
    }

    /// Up to which offset of the current file everything is durable, and all files before it.
    pub(crate) fn synced_in_file(&self) -> u32 {
        self.tail.as_ref().filter(|_| self.previous_synced()).map_or(0, |tail| tail.synced as u32)
    }

    /// Whether all files before the current one are durable.
    pub(crate) fn previous_synced(&self) -> bool {
        self.unsynced.is_empty() && self.doubt.is_none()
    }

    /// Whether everything appended so far is durable.
    pub(crate) fn is_synced(&self) -> bool {
        self.previous_synced() && self.tail.as_ref().is_none_or(|tail| tail.synced >= tail.end)
    }

    /// Ends the current file: trims what was reserved, maps it. Where that
    /// fails, the file stays longer, or is read without a map.
    pub(crate) fn seal(&mut self) {
        let Some(tail) = self.tail.take() else { return };
        if tail.end > FILE_HEADER_BYTES {
            self.sealed_end = Some(Place { file: tail.file.id, offset: tail.end as u32 });
        }
        let trimmed = if tail.end < tail.reserved { tail.file.truncate(tail.end) } else { Ok(()) };
        if let Err(e) = trimmed.and_then(|()| tail.file.seal()) {
            tracing::warn!("{e}");
        }
        if self.room == Room::Cache || tail.synced == tail.end {
            tail.file.spare();
            return;
        }
        self.unsynced.push(Unsynced { file: tail.file, found: None });
        if self.unsynced.len() > MAX_UNSYNCED && self.doubt.is_none() {
            match self.unsynced[0].sync() {
                Ok(()) => drop(self.unsynced.remove(0)),
                Err(Failed::Before(e)) => tracing::warn!("{e}"),
                Err(Failed::Sync(e)) => self.doubt(&e),
            }
        }
    }
}
