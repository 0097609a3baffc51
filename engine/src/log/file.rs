//! A data file: a header, then records. The one at the end of a log (or of
//! the page cache) grows; all others are *sealed* and never change again.
//!
//! A sealed file is mapped and read without a system call; a growing one is
//! read by `pread`. A file is never truncated once it is mapped, and its id is
//! never used again. Dropping a *doomed* file unlinks it: the last snapshot
//! that may read it has gone by then.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use memmap2::Mmap;
use quire_proto::{Error, ErrorKind, Result};

use super::handle::Handle;
use super::record::{self, HEADER_BYTES, RecordHeader};
use super::{FileId, OPEN_AGAIN, Place, Room};

/// The length of a file's header.
pub(crate) const FILE_HEADER_BYTES: u64 = 32;
/// No file is longer: a place has 30 bits for the offset.
const MAX_BYTES: u64 = 1 << 30;
const MAGIC: [u8; 4] = *b"QLOG";
const VERSION: u8 = 1;

/// One file of records.
pub(crate) struct DataFile {
    pub(crate) id: FileId,
    pub(crate) room: Room,
    pub(crate) salt: u64,
    handle: Arc<Handle>,
    map: OnceLock<Mmap>,
    /// See [`suspect`](Self::suspect).
    suspect: AtomicBool,
    doomed: AtomicBool,
}

impl DataFile {
    /// Creates a file of a replica, which must not exist, and writes its header.
    pub(crate) fn create(room: Room, replica: &Path, id: FileId) -> Result<DataFile> {
        let path = room.path(replica, id);
        let wrong = |e| Error::from_io(format!("creating {}", path.display()), e);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(wrong)?;
        let mut salt = [0; 8];
        getrandom::fill(&mut salt)
            .map_err(|e| Error::unavailable("the operating system gave no random bytes").with_source(e.to_string()))?;
        let mut header = [0; FILE_HEADER_BYTES as usize];
        header[..4].copy_from_slice(&MAGIC);
        header[4] = VERSION;
        header[8..16].copy_from_slice(&u64::from(id).to_le_bytes());
        header[16..24].copy_from_slice(&salt);
        let crc = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        if let Err(e) = file.write_all_at(&header, 0) {
            let _ = std::fs::remove_file(&path);
            return Err(wrong(e));
        }
        Ok(DataFile::new(room, path, file, id, u64::from_le_bytes(salt)))
    }

    /// Opens an existing file, which is sealed by that. `Ok(None)`: it was
    /// created and never got its header, so nothing can be in it.
    pub(crate) fn open(room: Room, replica: &Path, id: FileId) -> Result<Option<DataFile>> {
        let path = room.path(replica, id);
        let wrong = |e| Error::from_io(format!("opening {}", path.display()), e);
        let file = File::open(&path).map_err(wrong)?;
        let len = file.metadata().map_err(wrong)?.len();
        let mut header = [0; FILE_HEADER_BYTES as usize];
        if len < FILE_HEADER_BYTES {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0).map_err(wrong)?;
        if header == [0; FILE_HEADER_BYTES as usize] {
            return Ok(None);
        }
        let corrupt =
            |problem: &str| Error::corrupt(format!("{}: {problem}", path.display())).with_remedy(room.remedy());
        if len > MAX_BYTES {
            return Err(corrupt("it is longer than any file of Quire"));
        }
        if header[..4] != MAGIC || crc32fast::hash(&header[..28]).to_le_bytes() != header[28..] {
            return Err(corrupt("its header is damaged"));
        }
        if header[4] != VERSION {
            return Err(corrupt(&format!("format version {}, and this program reads {VERSION}", header[4]))
                .with_remedy("It was written by a newer version of Quire: upgrade this one."));
        }
        if header[8..16] != u64::from(id).to_le_bytes() {
            return Err(corrupt("its header names another file"));
        }
        let mut salt = [0; 8];
        salt.copy_from_slice(&header[16..24]);
        let data = DataFile::new(room, path, file, id, u64::from_le_bytes(salt));
        data.seal()?;
        data.spare();
        Ok(Some(data))
    }

    fn new(room: Room, path: PathBuf, file: File, id: FileId, salt: u64) -> DataFile {
        DataFile {
            id,
            room,
            salt,
            handle: Handle::new(path, file),
            map: OnceLock::new(),
            suspect: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
        }
    }

    /// Maps the file as it is now. Nothing may be truncated from here on, nor written but with what is there.
    pub(crate) fn seal(&self) -> Result<()> {
        if self.map.get().is_none() {
            // SAFETY: a sealed file is not truncated by this process, nor written but with what it holds, and the data directory is
            // locked against others. Someone who truncates it behind our back kills the process by SIGBUS, as with
            // every mapped database.
            let map = self.handle.with(|file| unsafe { Mmap::map(file) }).map_err(|e| self.error("mapping", e))?;
            let _ = self.map.set(map);
        }
        Ok(())
    }

    /// A sealed file need not stay open: all of it is durable, or need never be.
    pub(crate) fn spare(&self) {
        self.handle.spare();
    }

    /// The mapped content of a sealed file.
    pub(crate) fn mapped(&self) -> Option<&[u8]> {
        self.map.get().map(|map| &map[..])
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        self.handle.path()
    }

    /// Its length on disk, in bytes.
    pub(crate) fn len(&self) -> Result<u64> {
        match self.map.get() {
            Some(map) => Ok(map.len() as u64),
            None => {
                self.handle.with(|file| Ok(file.metadata()?.len())).map_err(|e| self.error("reading the length of", e))
            }
        }
    }

    pub(crate) fn write_all(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.handle.with(|file| file.write_all_at(bytes, offset)).map_err(|e| self.error("writing", e))
    }

    /// Reserves disk space up to `len`: a full disk shows here, and later
    /// writes there change no metadata.
    pub(crate) fn allocate(&self, from: u64, len: u64) -> Result<()> {
        use rustix::io::Errno;
        let reserved = self.handle.with(|file| {
            match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, len - from) {
                // File systems without fallocate just grow.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
                Err(e) => Err(e.into()),
            }
        });
        reserved.map_err(|e| self.error("reserving space for", e))
    }

    /// Cuts off what was reserved and not used. Only before sealing.
    pub(crate) fn truncate(&self, len: u64) -> Result<()> {
        debug_assert!(self.map.get().is_none(), "nothing mapped is truncated");
        self.handle.with(|file| file.set_len(len)).map_err(|e| self.error("trimming", e))
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.handle.with(File::sync_data).map_err(|e| self.error("syncing", e))
    }

    /// What is read from here on may not be what was written: the kernel drops what it could not write, and takes the rest
    /// for clean. So every page is checked, until the file is trusted again.
    pub(crate) fn suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Relaxed);
    }

    /// Writes the records in `range` of a sealed file once more, as they are; its header too, where that begins at 0.
    /// Another process wrote them: it may have failed to sync them, and the kernel then takes them for clean. To sync them,
    /// the file that is returned has to be synced.
    pub(crate) fn write_again(&self, range: &Range<u64>) -> Result<File> {
        let wrong = |e| self.error("writing again", e);
        let lost = |at: u64, problem: &str| {
            let text = format!("{} at byte {at}: {problem}, and was whole a moment ago", self.path().display());
            Error::new(ErrorKind::Io, text).with_remedy(OPEN_AGAIN)
        };
        let bytes = self.mapped().and_then(|bytes| bytes.get(..range.end as usize));
        let bytes = bytes.ok_or_else(|| lost(range.end, "the file ends before it"))?;
        let file = OpenOptions::new().write(true).open(self.path()).map_err(wrong)?;
        if range.start < FILE_HEADER_BYTES {
            file.write_all_at(&bytes[..FILE_HEADER_BYTES as usize], 0).map_err(wrong)?;
        }
        let mut at = range.start.max(FILE_HEADER_BYTES);
        let mut record = Vec::new();
        while at < range.end {
            // A copy is checked: the kernel may have dropped the page since it was read.
            let rest = &bytes[at as usize..];
            let payload_bytes = record::parse_header(rest).map_or(0, |header| header.payload_bytes as usize);
            record.clear();
            record.extend_from_slice(&rest[..rest.len().min(HEADER_BYTES + payload_bytes)]);
            record::check(&record, self.salt, at).map_err(|e| lost(at, e.message()))?;
            file.write_all_at(&record, at).map_err(wrong)?;
            at += record.len() as u64;
        }
        Ok(file)
    }

    /// Copies the payload of the page record at `place` into `buf`. With
    /// `verify`, the checksum and that it is page `page` are checked first.
    pub(crate) fn read_page(&self, place: Place, page: u32, buf: &mut [u8], verify: bool) -> Result<()> {
        let offset = u64::from(place.offset);
        if verify || self.suspect.load(Ordering::Relaxed) {
            return self.read_verified(offset, page, buf);
        }
        let start = offset as usize + HEADER_BYTES;
        match self.map.get() {
            Some(map) => match map.get(start..start + buf.len()) {
                Some(bytes) => buf.copy_from_slice(bytes),
                None => return Err(self.damage(offset, page, "it lies past the end of the file")),
            },
            None => {
                self.handle.with(|file| file.read_exact_at(buf, start as u64)).map_err(|e| self.error("reading", e))?;
            }
        }
        Ok(())
    }

    /// A first touch goes by `pread`, so that reading a volume once, however
    /// large it is, does not make its mapped pages part of this process's memory.
    fn read_verified(&self, offset: u64, page: u32, buf: &mut [u8]) -> Result<()> {
        let mut bytes = vec![0; HEADER_BYTES + buf.len()];
        self.handle.with(|file| file.read_exact_at(&mut bytes, offset)).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.damage(offset, page, "it lies past the end of the file"),
            _ => self.error("reading", e),
        })?;
        let (header, payload) =
            record::check(&bytes, self.salt, offset).map_err(|e| self.damage(offset, page, e.message()))?;
        if header.page != page || payload.len() != buf.len() {
            return Err(self.damage(offset, page, "the record holds another page"));
        }
        buf.copy_from_slice(payload);
        Ok(())
    }

    fn damage(&self, offset: u64, page: u32, problem: &str) -> Error {
        Error::corrupt(format!("{}: page {page} at byte {offset}: {problem}", self.path().display()))
            .with_remedy(self.room.remedy())
    }

    fn error(&self, doing: &str, e: io::Error) -> Error {
        Error::from_io(format!("{doing} {}", self.path().display()), e)
    }

    /// The file goes once nobody can read it any more.
    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }

    /// The records of a sealed file, in order, up to the first that is not whole.
    pub(crate) fn records(&self, from: u64) -> Records<'_> {
        Records { file: self, offset: from.max(FILE_HEADER_BYTES) }
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        // NFS keeps a file that is in use under another name.
        drop(self.map.take());
        if self.doomed.load(Ordering::Relaxed)
            && let Err(e) = std::fs::remove_file(self.path())
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("removing {}: {e}", self.path().display());
        }
    }
}

/// See [`DataFile::records`].
pub(crate) struct Records<'a> {
    file: &'a DataFile,
    offset: u64,
}

impl Records<'_> {
    /// Where the next record is, or where the good ones end.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u64, RecordHeader, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.file.mapped()?.get(usize::try_from(offset).ok()?..)?;
        let (header, payload) = record::check(rest, self.file.salt, offset).ok()?;
        self.offset = offset + (HEADER_BYTES + payload.len()) as u64;
        Some((offset, header, payload))
    }
}
