//! The calls that SQLite makes on the VFS itself: opening files by their kind,
//! and names. What is not about volumes goes to the VFS that was there before:
//! temporary files, libraries, time and randomness.

use std::ffi::{CStr, c_char, c_int, c_void};

use libsqlite3_sys as ffi;
use quire_engine::{Error, ErrorKind, Lsn, Moment, Result};

use crate::database::Database;
use crate::error::{Doing, guard, report};
use crate::file::DatabaseFile;
use crate::instance::Instance;
use crate::journal::is_super_name;
use crate::journalfile::JournalFile;
use crate::names;
use crate::temp::VfsRef;

/// Kinds of files that stay with the VFS that was there before.
const TEMPORARY: c_int = ffi::SQLITE_OPEN_TEMP_DB
    | ffi::SQLITE_OPEN_TRANSIENT_DB
    | ffi::SQLITE_OPEN_TEMP_JOURNAL
    | ffi::SQLITE_OPEN_SUBJOURNAL;

/// The VFS whose names are volumes'. `zName` and `pAppData`, the [`Instance`], are still to be set.
pub(crate) fn describe(base: VfsRef) -> ffi::sqlite3_vfs {
    let ours = size_of::<DatabaseFile>().max(size_of::<JournalFile>()) as c_int;
    ffi::sqlite3_vfs {
        iVersion: 2,
        // A temporary file of the base VFS lies in the same memory.
        szOsFile: ours.max(base.file_bytes()),
        mxPathname: names::MAX_NAME_BYTES as c_int,
        pNext: std::ptr::null_mut(),
        zName: std::ptr::null(),
        pAppData: std::ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_name),
        xDlOpen: Some(dl_open),
        xDlError: Some(dl_error),
        xDlSym: Some(dl_sym),
        xDlClose: Some(dl_close),
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(get_last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// The VFS whose names are paths, for being the default one.
pub(crate) fn describe_paths(base: VfsRef) -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs { xFullPathname: Some(full_path), ..describe(base) }
}

/// # Safety
/// `vfs` was described here and is registered.
unsafe fn instance(vfs: *mut ffi::sqlite3_vfs) -> &'static Instance {
    // SAFETY: registration put an instance there that lives as long as the process.
    unsafe { &*(*vfs).pAppData.cast::<Instance>() }
}

/// # Safety
/// `name` is null or ends in a zero byte, and lives as long as it is used.
unsafe fn text<'a>(name: *const c_char) -> Result<Option<&'a str>> {
    if name.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().map(Some).map_err(|_| Error::invalid(format!("the name {name:?} is not UTF-8")))
}

// SAFETY of all functions below: SQLite calls them with a VFS that is registered,
// with names that end in a zero byte, and with out pointers that it may write.

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    guard(ffi::SQLITE_CANTOPEN, || {
        // SAFETY: above. Until it is installed the file has no methods, so that SQLite does not close it.
        let instance = unsafe {
            (*file).pMethods = std::ptr::null();
            instance(vfs)
        };
        if name.is_null() || flags & TEMPORARY != 0 {
            let base = instance.base.as_ptr();
            // SAFETY: the memory is large enough for the base VFS's file, see `describe`.
            return unsafe {
                (*base).xOpen.map_or(ffi::SQLITE_CANTOPEN, |open| open(base, name, file, flags, out_flags))
            };
        }
        // SAFETY: above.
        let opened = unsafe { open_named(instance, name, file, flags) };
        match opened {
            Ok(flags) => {
                if !out_flags.is_null() {
                    // SAFETY: above.
                    unsafe { *out_flags = flags };
                }
                ffi::SQLITE_OK
            }
            Err(error) => {
                let code = Doing::Open.code(&error);
                report(&instance.api, code, error);
                code
            }
        }
    })
}

/// Opens a file of Quire's; returns with which flags.
///
/// # Safety
/// As [`open`], and the name is not null.
unsafe fn open_named(
    instance: &'static Instance,
    c_name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
) -> Result<c_int> {
    // SAFETY: as the caller promises.
    let name = unsafe { text(c_name) }?.unwrap_or_default();
    let create = flags & ffi::SQLITE_OPEN_CREATE != 0;
    if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
        // SAFETY: SQLite's name of a main database carries its URI parameters.
        let parameters = unsafe { Parameters::read(instance, c_name) }?;
        let database = open_database(instance, name, create, &parameters)?;
        let is_past = database.open.is_past;
        // SAFETY: the file has room for ours.
        unsafe { DatabaseFile::install(file, database) };
        // SQLite refuses by itself to write to what was opened for reading.
        let writing = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
        return Ok(if is_past { flags & !writing | ffi::SQLITE_OPEN_READONLY } else { flags });
    }
    let is_super = flags & ffi::SQLITE_OPEN_SUPER_JOURNAL != 0;
    if !is_super && flags & ffi::SQLITE_OPEN_MAIN_JOURNAL == 0 {
        return Err(Error::invalid(format!("{name}: a volume has no write-ahead log")));
    }
    match instance.journals.open(name, is_super, create) {
        // SAFETY: the file has room for ours.
        Some(journal) => unsafe { JournalFile::install(file, &instance.journals, journal) },
        None => return Err(Error::not_found(format!("there is no journal {name}"))),
    }
    Ok(flags)
}

/// The URI parameters that Quire reads.
const OURS: [&str; 3] = ["lsn", "at", "sync"];
/// Those that SQLite reads itself.
const OF_SQLITE: [&str; 7] = ["vfs", "mode", "cache", "psow", "nolock", "immutable", "modeof"];

/// What the URI says beyond the name.
struct Parameters {
    sync: Option<String>,
    moment: Option<Moment>,
    is_unlocked: bool,
}

impl Parameters {
    /// # Safety
    /// `name` is that of a main database, as SQLite gave it.
    unsafe fn read(instance: &Instance, name: *const c_char) -> Result<Parameters> {
        let api = &instance.api;
        // SAFETY: as the caller promises; the keys are constants.
        let value = |key: &CStr| unsafe { text((api.uri_parameter)(name, key.as_ptr())) };
        // SAFETY: the same.
        let is_set = |key: &CStr| unsafe { (api.uri_boolean)(name, key.as_ptr(), 0) != 0 };
        // As the default VFS, Quire gets URIs that were not written for it.
        if value(c"vfs")?.is_some() {
            // SAFETY: the same.
            let keys = (0..).map(|n| unsafe { text((api.uri_key)(name, n)) });
            for key in keys.map_while(Result::transpose) {
                check_key(key?)?;
            }
        }
        let moment = moment(value(c"lsn")?, value(c"at")?)?;
        let is_unlocked = is_set(c"immutable") || is_set(c"nolock");
        Ok(Parameters { sync: value(c"sync")?.map(str::to_owned), moment, is_unlocked })
    }
}

/// A parameter that nobody reads is a misspelt one.
fn check_key(key: &str) -> Result<()> {
    if OURS.contains(&key) || OF_SQLITE.contains(&key) {
        return Ok(());
    }
    Err(Error::invalid(format!("URI parameter {key}: there is none of that name")).with_remedy(format!(
        "Quire knows {}; SQLite itself {}.",
        OURS.join(", "),
        OF_SQLITE.join(", ")
    )))
}

/// The snapshot that the parameters `lsn` and `at` name.
fn moment(lsn: Option<&str>, at: Option<&str>) -> Result<Option<Moment>> {
    let wrong = |what: String, remedy: &str| Err(Error::invalid(format!("URI parameter {what}")).with_remedy(remedy));
    match (lsn, at) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => wrong("lsn beside at".to_owned(), "Name the snapshot by one of them."),
        (Some(text), None) => match text.parse().ok().and_then(Lsn::new) {
            Some(lsn) => Ok(Some(Moment::Lsn(lsn))),
            None => wrong(format!("lsn={text}: not an LSN"), "An LSN is a whole number from 1."),
        },
        (None, Some(text)) => match quire_settings::parse_time(text) {
            Some(time_ms) => Ok(Some(Moment::Time(time_ms))),
            None => wrong(
                format!("at={text}: not a time"),
                "Write it as RFC 3339 says: at=2026-01-31T12:00:00Z; a '+' in a URI is %2B.",
            ),
        },
    }
}

fn open_database(instance: &'static Instance, name: &str, create: bool, parameters: &Parameters) -> Result<Database> {
    let volume = names::volume_of(name)?;
    let engine = instance.home.engine(parameters.sync.as_deref())?;
    let open = match parameters.moment {
        Some(moment) => instance.volumes.open_at(&engine, &volume, moment)?,
        None => instance.volumes.open(&engine, &volume, create)?,
    };
    Ok(Database::new(instance, open, name, parameters.is_unlocked))
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR_DELETE, || {
        // SAFETY: above.
        let (instance, name) = unsafe { (instance(vfs), text(name)) };
        let Ok(Some(name)) = name else { return ffi::SQLITE_IOERR_DELETE };
        // Deleting a super-journal for good is how SQLite decides a transaction over several databases.
        if sync_folder != 0 && instance.journals.is_super(name) {
            if let Err(error) = instance.journals.decide(name) {
                let code = Doing::Write.code(&error);
                report(&instance.api, code, error);
                return code;
            }
            instance.journals.note_decision(name);
        }
        instance.journals.delete(name);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    c_name: *const c_char,
    flags: c_int,
    found: *mut c_int,
) -> c_int {
    guard(ffi::SQLITE_IOERR_ACCESS, || {
        // SAFETY: above.
        let (instance, name) = unsafe { (instance(vfs), text(c_name)) };
        let Ok(Some(name)) = name else { return ffi::SQLITE_IOERR_ACCESS };
        if flags == ffi::SQLITE_ACCESS_READWRITE {
            // Asked of folders only, by `PRAGMA temp_store_directory`.
            let base = instance.base.as_ptr();
            // SAFETY: the arguments are passed on as they are.
            return unsafe {
                (*base).xAccess.map_or(ffi::SQLITE_IOERR_ACCESS, |access| access(base, c_name, flags, found))
            };
        }
        let journals = &instance.journals;
        let exists = journals.exists(name)
            || (is_super_name(name) && journals.is_undecided(name))
            || (!is_companion(name) && database_exists(instance, name));
        // SAFETY: above.
        unsafe { *found = exists.into() };
        ffi::SQLITE_OK
    })
}

/// Names that SQLite makes from a database's.
fn is_companion(name: &str) -> bool {
    name.ends_with("-journal") || name.ends_with("-wal") || is_super_name(name)
}

/// Whether there is a volume. Unknown is answered with no: SQLite asks only to spare itself an opening.
fn database_exists(instance: &Instance, name: &str) -> bool {
    let found = names::volume_of(name).and_then(|volume| instance.home.engine(None)?.existing(&volume));
    match found {
        Ok(_) => true,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!("looking for {name}: {error:?}");
            }
            false
        }
    }
}

unsafe extern "C" fn full_name(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: above.
    unsafe { put_name(vfs, name, room, out, |name| Ok(names::full_name(name))) }
}

unsafe extern "C" fn full_path(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: above.
    unsafe { put_name(vfs, name, room, out, names::full_path) }
}

/// # Safety
/// `out` has `room` bytes; the rest as above.
unsafe fn put_name(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
    full: impl FnOnce(&str) -> Result<String>,
) -> c_int {
    guard(ffi::SQLITE_CANTOPEN, || {
        // SAFETY: as the caller promises.
        let (instance, name) = unsafe { (instance(vfs), text(name)) };
        let full = name.and_then(|name| full(name.unwrap_or_default())).and_then(|full| {
            if full.len() < room as usize {
                Ok(full)
            } else {
                Err(Error::invalid(format!("the name {full:?} is too long"))
                    .with_remedy(format!("SQLite takes names of less than {room} bytes.")))
            }
        });
        match full {
            Ok(full) => {
                // SAFETY: the name and its zero byte are at most `room` bytes.
                unsafe {
                    out.copy_from_nonoverlapping(full.as_ptr().cast(), full.len());
                    out.add(full.len()).write(0);
                }
                ffi::SQLITE_OK
            }
            Err(error) => {
                report(&instance.api, ffi::SQLITE_CANTOPEN, error);
                ffi::SQLITE_CANTOPEN
            }
        }
    })
}

/// Passes a call on to the VFS that was there before.
macro_rules! to_base {
    ($(fn $name:ident = $method:ident($($arg:ident: $ty:ty),*) -> $ret:ty, or $missing:expr;)*) => {
        $(unsafe extern "C" fn $name(vfs: *mut ffi::sqlite3_vfs, $($arg: $ty),*) -> $ret {
            // SAFETY: above; the arguments are passed on as they are.
            unsafe {
                let base = instance(vfs).base.as_ptr();
                match (*base).$method {
                    Some(method) => method(base, $($arg),*),
                    None => $missing,
                }
            }
        })*
    };
}

type Symbol = unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char);

to_base! {
    fn dl_open = xDlOpen(path: *const c_char) -> *mut c_void, or std::ptr::null_mut();
    fn dl_error = xDlError(room: c_int, out: *mut c_char) -> (), or ();
    fn dl_sym = xDlSym(library: *mut c_void, name: *const c_char) -> Option<Symbol>, or None;
    fn dl_close = xDlClose(library: *mut c_void) -> (), or ();
    fn randomness = xRandomness(room: c_int, out: *mut c_char) -> c_int, or 0;
    fn sleep = xSleep(microseconds: c_int) -> c_int, or 0;
    fn current_time = xCurrentTime(days: *mut f64) -> c_int, or ffi::SQLITE_ERROR;
    fn get_last_error = xGetLastError(room: c_int, out: *mut c_char) -> c_int, or 0;
    fn current_time_int64 = xCurrentTimeInt64(milliseconds: *mut i64) -> c_int, or ffi::SQLITE_ERROR;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_sqlite_makes_are_told_from_volumes() {
        for name in ["app-journal", "a/b.db-wal", "app-mj0A1B2C93F"] {
            assert!(is_companion(name), "{name}");
        }
        for name in ["app", "-mj", "app-mj", "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}x"] {
            assert!(!is_companion(name), "{name}");
        }
    }
}
