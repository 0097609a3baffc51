//! The calls that SQLite makes on an open database file, translated: pointers
//! become slices, errors become codes, and nothing panics into C.

use std::ffi::{CStr, c_char, c_int, c_void};

use libsqlite3_sys as ffi;
use quire_engine::Result;

use crate::api::Api;
use crate::database::{Database, Glance};
use crate::error::{Doing, guard, remember, report};
use crate::pragmas::{self, Answer};

/// A control of Quire's own, for its own files: its argument is an `Option<Glance>` to be filled. SQLite keeps the numbers
/// below 100 for itself.
const GLANCE: c_int = 0x5155_4952;

/// A `sqlite3_file` that is a [`Database`].
#[repr(C)]
pub(crate) struct DatabaseFile {
    methods: *const ffi::sqlite3_io_methods,
    database: *mut Database,
}

/// Version 1: no shared memory, because there is no WAL.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
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

impl DatabaseFile {
    /// Makes a file of SQLite's out of a handle.
    ///
    /// # Safety
    /// `file` is memory for a [`DatabaseFile`], which SQLite gives back by `xClose`.
    pub(crate) unsafe fn install(file: *mut ffi::sqlite3_file, database: Database) {
        let database = Box::into_raw(Box::new(database));
        // SAFETY: as the caller promises.
        unsafe { file.cast::<DatabaseFile>().write(DatabaseFile { methods: &raw const METHODS, database }) }
    }

    /// What a connection has open under the name of a schema, if it is one of ours.
    ///
    /// # Safety
    /// `db` is a connection that is used on this thread now.
    pub(crate) unsafe fn glance(api: &Api, db: *mut ffi::sqlite3, schema: &CStr) -> Option<Result<Glance>> {
        let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
        let mut glance: Option<Result<Glance>> = None;
        // SAFETY: as the caller promises. The first control gives the schema's open file, whose methods tell whose it is.
        // The second one comes to `control`, while SQLite keeps others from the file.
        unsafe {
            let schema = schema.as_ptr();
            let code = (api.file_control)(db, schema, ffi::SQLITE_FCNTL_FILE_POINTER, (&raw mut file).cast());
            if code != ffi::SQLITE_OK || file.is_null() || !std::ptr::eq((*file).pMethods, &raw const METHODS) {
                return None;
            }
            (api.file_control)(db, schema, GLANCE, (&raw mut glance).cast());
        }
        glance
    }
}

/// # Safety
/// `file` was made by [`DatabaseFile::install`] and is open. SQLite calls on one file from one thread at a time.
unsafe fn database<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Database {
    // SAFETY: as the caller promises.
    unsafe { &mut *(*file.cast::<DatabaseFile>()).database }
}

/// The code for an outcome; an error is made known on the way.
fn code(database: &Database, doing: Doing, outcome: Result<c_int>) -> c_int {
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let code = doing.code(&error);
            let api = &database.instance.api;
            if code & 0xff == ffi::SQLITE_BUSY {
                remember(api, code, error);
            } else {
                database.open.note_error(&error);
                report(api, code, error);
            }
            code
        }
    }
}

fn done(database: &Database, doing: Doing, outcome: Result<()>) -> c_int {
    code(database, doing, outcome.map(|()| ffi::SQLITE_OK))
}

// SAFETY of all functions below: SQLite calls them with a file that `install`
// made, with buffers as long as it says, and with out pointers that it may write. A
// buffer from C has bytes of some value: no compiler sees where they came from.

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    guard(ffi::SQLITE_IOERR_CLOSE, || {
        // SAFETY: above; SQLite does not use the file again.
        let database = unsafe {
            (*file).pMethods = std::ptr::null();
            Box::from_raw((*file.cast::<DatabaseFile>()).database)
        };
        if !database.is_at_home() {
            // Closing would write to files that are the parent's.
            std::mem::forget(database);
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, buf: *mut c_void, len: c_int, offset: i64) -> c_int {
    guard(ffi::SQLITE_IOERR_READ, || {
        // SAFETY: above.
        let (database, buf) =
            unsafe { (database(file), std::slice::from_raw_parts_mut(buf.cast::<u8>(), len as usize)) };
        let whole = database.read(buf, offset as u64);
        let outcome = whole.map(|whole| if whole { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ });
        code(database, Doing::Read, outcome)
    })
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, buf: *const c_void, len: c_int, offset: i64) -> c_int {
    guard(ffi::SQLITE_IOERR_WRITE, || {
        // SAFETY: above.
        let (database, bytes) = unsafe { (database(file), std::slice::from_raw_parts(buf.cast(), len as usize)) };
        let outcome = database.write(bytes, offset as u64);
        done(database, Doing::Write, outcome)
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    guard(ffi::SQLITE_IOERR_TRUNCATE, || {
        // SAFETY: above.
        let database = unsafe { database(file) };
        let outcome = database.truncate(size as u64);
        done(database, Doing::Write, outcome)
    })
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR_FSYNC, || {
        // SAFETY: above.
        unsafe { database(file) }.sync();
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    guard(ffi::SQLITE_IOERR_FSTAT, || {
        // SAFETY: above.
        unsafe { *size = database(file).size() as i64 };
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR_LOCK, || {
        // SAFETY: above.
        let database = unsafe { database(file) };
        let outcome = database.lock(level);
        done(database, Doing::Lock, outcome)
    })
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR_UNLOCK, || {
        // SAFETY: above.
        unsafe { database(file) }.unlock(level);
        ffi::SQLITE_OK
    })
}

/// SQLite asks only to learn whether a journal that it has found is somebody's, or was left by a crash and has to be
/// replayed. None ever has to be: they are this process's own, and end with their handles. To say that nobody writes,
/// because the writer has just finished, would make its last journal look like one that was left.
unsafe extern "C" fn check_reserved_lock(_file: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: above.
    unsafe { *held = 1 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// A commit is all or nothing, and nothing is written out of order.
unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SEQUENTIAL
}

unsafe extern "C" fn control(file: *mut ffi::sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    guard(ffi::SQLITE_IOERR, || {
        // SAFETY: above.
        let database = unsafe { database(file) };
        match op {
            ffi::SQLITE_FCNTL_COMMIT_PHASETWO => {
                let outcome = database.commit();
                done(database, Doing::Write, outcome)
            }
            ffi::SQLITE_FCNTL_SYNC => {
                // SAFETY: the argument is the name of the super-journal, or null.
                let outcome = unsafe { optional_text(arg.cast()) }.and_then(|name| database.announce(name));
                done(database, Doing::Write, outcome)
            }
            ffi::SQLITE_FCNTL_LOCKSTATE => {
                // SAFETY: the argument is an int.
                unsafe { *arg.cast::<c_int>() = database.level() };
                ffi::SQLITE_OK
            }
            ffi::SQLITE_FCNTL_VFSNAME => {
                let name = database.instance.api.text(database.instance.name());
                // SAFETY: the argument is where to put text that SQLite will free.
                unsafe { *arg.cast::<*mut c_char>() = name };
                ffi::SQLITE_OK
            }
            ffi::SQLITE_FCNTL_HAS_MOVED => {
                // SAFETY: the argument is an int.
                unsafe { *arg.cast::<c_int>() = 0 };
                ffi::SQLITE_OK
            }
            GLANCE => {
                // SAFETY: only `DatabaseFile::glance` sends it.
                unsafe { *arg.cast::<Option<Result<Glance>>>() = Some(database.glance()) };
                ffi::SQLITE_OK
            }
            ffi::SQLITE_FCNTL_PDB => {
                database.connection = arg.cast();
                ffi::SQLITE_OK
            }
            // SAFETY: the arguments are those of SQLITE_FCNTL_PRAGMA.
            ffi::SQLITE_FCNTL_PRAGMA => unsafe { pragma(database, arg.cast()) },
            _ => ffi::SQLITE_NOTFOUND,
        }
    })
}

/// # Safety
/// `args` are the answer, the pragma's name, and its argument or null.
unsafe fn pragma(database: &mut Database, args: *mut *mut c_char) -> c_int {
    // SAFETY: as the caller promises.
    let (name, argument) = unsafe { (optional_text(*args.add(1)), optional_text(*args.add(2))) };
    let (Ok(Some(name)), Ok(argument)) = (name, argument) else { return ffi::SQLITE_NOTFOUND };
    let (text, code) = match pragmas::run(database, name, argument) {
        Answer::NotMine => return ffi::SQLITE_NOTFOUND,
        Answer::Row(text) => (text, ffi::SQLITE_OK),
        Answer::Failed(error) => {
            let text = pragmas::message(&error);
            remember(&database.instance.api, ffi::SQLITE_ERROR, error);
            (text, ffi::SQLITE_ERROR)
        }
    };
    // SAFETY: as above; SQLite frees the text.
    unsafe { *args = database.instance.api.text(&text) };
    code
}

/// # Safety
/// `text` is null or ends in a zero byte, and lives as long as it is used.
unsafe fn optional_text<'a>(text: *const c_char) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| quire_engine::Error::invalid(format!("{text:?} is not UTF-8")))
}
