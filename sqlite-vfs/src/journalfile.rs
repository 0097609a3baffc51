//! The calls that SQLite makes on an open journal.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use libsqlite3_sys as ffi;
use quire_engine::{ErrorKind, Result};

use crate::error::{guard, report};
use crate::journal::{Journal, Journals};

/// A `sqlite3_file` that is a handle on a [`Journal`].
#[repr(C)]
pub(crate) struct JournalFile {
    methods: *const ffi::sqlite3_io_methods,
    journals: *const Journals,
    journal: *const Journal,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

impl JournalFile {
    /// Makes a file of SQLite's out of a handle.
    ///
    /// # Safety
    /// `file` is memory for a [`JournalFile`], which SQLite gives back by `xClose`.
    pub(crate) unsafe fn install(file: *mut ffi::sqlite3_file, journals: &'static Journals, journal: Arc<Journal>) {
        let handle = JournalFile { methods: &raw const METHODS, journals, journal: Arc::into_raw(journal) };
        // SAFETY: as the caller promises.
        unsafe { file.cast::<JournalFile>().write(handle) }
    }
}

/// # Safety
/// `file` was made by [`JournalFile::install`] and is open.
unsafe fn parts<'a>(file: *mut ffi::sqlite3_file) -> (&'static Journals, &'a Journal) {
    // SAFETY: as the caller promises; the handle keeps the journal alive.
    unsafe {
        let handle = &*file.cast::<JournalFile>();
        (&*handle.journals, &*handle.journal)
    }
}

/// The code for an outcome; an error is made known on the way.
fn code<T>(journals: &Journals, outcome: Result<T>, io_error: c_int) -> Result<T, c_int> {
    outcome.map_err(|error| {
        let code = if error.kind() == ErrorKind::Full { ffi::SQLITE_FULL } else { io_error };
        report(&journals.api, code, error);
        code
    })
}

// SAFETY of all functions below: SQLite calls them with a file that `install`
// made, with buffers as long as it says, and with out pointers that it may write. A
// buffer from C has bytes of some value: no compiler sees where they came from.

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    guard(ffi::SQLITE_IOERR_CLOSE, || {
        // SAFETY: above; SQLite does not use the file again, so the handle's reference is ours.
        let (journals, journal) = unsafe {
            let handle = file.cast::<JournalFile>();
            (*handle).methods = std::ptr::null();
            (&*(*handle).journals, Arc::from_raw((*handle).journal))
        };
        journals.close(&journal);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, buf: *mut c_void, len: c_int, offset: i64) -> c_int {
    guard(ffi::SQLITE_IOERR_READ, || {
        // SAFETY: above.
        let ((journals, journal), buf) =
            unsafe { (parts(file), std::slice::from_raw_parts_mut(buf.cast::<u8>(), len as usize)) };
        let wanted = buf.len();
        match code(journals, journal.with(|spool| spool.read(buf, offset as u64)), ffi::SQLITE_IOERR_READ) {
            Ok(there) if there == wanted => ffi::SQLITE_OK,
            Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
            Err(code) => code,
        }
    })
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, buf: *const c_void, len: c_int, offset: i64) -> c_int {
    guard(ffi::SQLITE_IOERR_WRITE, || {
        // SAFETY: above.
        let ((journals, journal), bytes) =
            unsafe { (parts(file), std::slice::from_raw_parts(buf.cast::<u8>(), len as usize)) };
        let checked = journal.check_process().and_then(|()| {
            if journal.is_super_journal() {
                return journals.check_member(journal, bytes);
            }
            journal.note(bytes);
            Ok(())
        });
        let written = checked.and_then(|()| journal.with(|spool| spool.write(bytes, offset as u64)));
        code(journals, written, ffi::SQLITE_IOERR_WRITE).err().unwrap_or(ffi::SQLITE_OK)
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    guard(ffi::SQLITE_IOERR_TRUNCATE, || {
        // SAFETY: above.
        let (journals, journal) = unsafe { parts(file) };
        let truncated = journal.check_process().and_then(|()| {
            journal.with(|spool| {
                spool.truncate(size as u64);
                Ok(())
            })
        });
        code(journals, truncated, ffi::SQLITE_IOERR_TRUNCATE).err().unwrap_or(ffi::SQLITE_OK)
    })
}

/// A journal has nothing to outlive.
unsafe extern "C" fn sync(_file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    guard(ffi::SQLITE_IOERR_FSTAT, || {
        // SAFETY: above.
        let (journals, journal) = unsafe { parts(file) };
        match code(journals, journal.with(|spool| Ok(spool.len())), ffi::SQLITE_IOERR_FSTAT) {
            Ok(len) => {
                // SAFETY: above.
                unsafe { *size = len as i64 };
                ffi::SQLITE_OK
            }
            Err(code) => code,
        }
    })
}

/// SQLite locks databases only.
unsafe extern "C" fn lock(_file: *mut ffi::sqlite3_file, _level: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_file: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: above.
    unsafe { *held = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn control(_file: *mut ffi::sqlite3_file, _op: c_int, _arg: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SEQUENTIAL
}
