//! A temporary file of the VFS that SQLite had before Quire came: where the
//! program's temporary files go is its business, and stays so.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use libsqlite3_sys as ffi;
use quire_engine::{Error, ErrorKind, Result};

/// SQLite moves at most this many bytes in one call, and its VFSs rely on it.
const PART_BYTES: usize = 64 << 10;

/// A VFS of SQLite.
#[derive(Clone, Copy)]
pub(crate) struct VfsRef(NonNull<ffi::sqlite3_vfs>);

// SAFETY: a registered VFS lives as long as the process and may be called from any thread.
unsafe impl Send for VfsRef {}
// SAFETY: as above.
unsafe impl Sync for VfsRef {}

/// An open temporary file; it is deleted when it is dropped.
pub(crate) struct TempFile {
    /// A `sqlite3_file` of the base VFS, in words so that it is aligned.
    file: Box<[u64]>,
    methods: NonNull<ffi::sqlite3_io_methods>,
}

// SAFETY: SQLite's files may move between threads; whoever holds the file uses it from one at a time.
unsafe impl Send for TempFile {}

impl VfsRef {
    pub(crate) fn new(vfs: *mut ffi::sqlite3_vfs) -> Option<VfsRef> {
        NonNull::new(vfs).map(VfsRef)
    }

    pub(crate) fn as_ptr(self) -> *mut ffi::sqlite3_vfs {
        self.0.as_ptr()
    }

    /// Bytes that a file of it needs.
    pub(crate) fn file_bytes(self) -> c_int {
        // SAFETY: a registered VFS stays where it is.
        unsafe { self.0.as_ref() }.szOsFile
    }

    /// Opens a temporary file without a name.
    pub(crate) fn open_temp(self) -> Result<TempFile> {
        let words = (self.file_bytes() as usize).div_ceil(size_of::<u64>());
        let mut file = vec![0u64; words].into_boxed_slice();
        let handle = file.as_mut_ptr().cast::<ffi::sqlite3_file>();
        let flags = ffi::SQLITE_OPEN_READWRITE
            | ffi::SQLITE_OPEN_CREATE
            | ffi::SQLITE_OPEN_EXCLUSIVE
            | ffi::SQLITE_OPEN_DELETEONCLOSE
            | ffi::SQLITE_OPEN_TEMP_JOURNAL;
        // SAFETY: the buffer is as large as the VFS wants, and a null name asks for a temporary file.
        let (code, methods) = unsafe {
            let code = match self.0.as_ref().xOpen {
                Some(open) => open(self.0.as_ptr(), std::ptr::null(), handle, flags, std::ptr::null_mut()),
                None => ffi::SQLITE_CANTOPEN,
            };
            (code, (*handle).pMethods)
        };
        match NonNull::new(methods.cast_mut()) {
            Some(methods) if code == ffi::SQLITE_OK => Ok(TempFile { file, methods }),
            _ => Err(failed("opening", code)),
        }
    }
}

impl TempFile {
    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write(&mut self, bytes: &[u8], mut offset: u64) -> Result<()> {
        for part in bytes.chunks(PART_BYTES) {
            // SAFETY: the file is open; the buffer is as long as said.
            let code = unsafe {
                match self.methods.as_ref().xWrite {
                    Some(write) => write(self.handle(), part.as_ptr().cast(), part.len() as c_int, offset as i64),
                    None => ffi::SQLITE_IOERR_WRITE,
                }
            };
            if code != ffi::SQLITE_OK {
                return Err(failed("writing", code));
            }
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// Fills `bytes` from `offset`, which must have been written.
    pub(crate) fn read(&mut self, bytes: &mut [u8], mut offset: u64) -> Result<()> {
        for part in bytes.chunks_mut(PART_BYTES) {
            // SAFETY: the file is open; the buffer is as long as said.
            let code = unsafe {
                match self.methods.as_ref().xRead {
                    Some(read) => {
                        read(self.handle(), part.as_mut_ptr().cast::<c_void>(), part.len() as c_int, offset as i64)
                    }
                    None => ffi::SQLITE_IOERR_READ,
                }
            };
            if code != ffi::SQLITE_OK {
                return Err(failed("reading", code));
            }
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn handle(&mut self) -> *mut ffi::sqlite3_file {
        self.file.as_mut_ptr().cast()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // SAFETY: the file is open and not used any more.
        unsafe {
            if let Some(close) = self.methods.as_ref().xClose {
                close(self.handle());
            }
        }
    }
}

fn failed(doing: &str, code: c_int) -> Error {
    let kind = if code & 0xff == ffi::SQLITE_FULL { ErrorKind::Full } else { ErrorKind::Io };
    Error::new(kind, format!("{doing} a temporary file of SQLite failed with code {code}"))
        .with_remedy("SQLITE_TMPDIR names the folder of temporary files; it must be writable and have room.")
}
