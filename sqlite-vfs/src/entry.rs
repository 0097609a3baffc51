//! Where SQLite enters the loadable extension.

use std::ffi::{c_char, c_int};

use libsqlite3_sys as ffi;
use quire_engine::{Error, Result};
use tracing_subscriber::EnvFilter;

use crate::api::{self, Api};
use crate::error::guard;
use crate::home::Home;
use crate::instance::Instance;
use crate::pragmas::message;
use crate::{functions, rows};

/// Makes the VFS the default one of the process.
const DEFAULT_VFS_VAR: &str = "QUIRE_DEFAULT_VFS";

/// The entry point that SQLite finds by the extension's file name.
///
/// # Safety
/// SQLite calls it, with a connection and its table of routines.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sqlite3_quiresqlite_init(
    db: *mut ffi::sqlite3,
    error: *mut *mut c_char,
    table: *const ffi::sqlite3_api_routines,
) -> c_int {
    guard(ffi::SQLITE_ERROR, || {
        // SAFETY: as the caller promises.
        let loaded = unsafe { load(db, table) };
        match loaded {
            // SQLite keeps pointers into the library from here on.
            Ok(()) => ffi::SQLITE_OK_LOAD_PERMANENTLY,
            Err(text) => {
                // SAFETY: as the caller promises; SQLite frees the copy.
                unsafe { put_message(&text, error, table) };
                ffi::SQLITE_ERROR
            }
        }
    })
}

/// The entry point that SQLite tries first, whatever the file is called.
///
/// # Safety
/// As [`sqlite3_quiresqlite_init`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sqlite3_extension_init(
    db: *mut ffi::sqlite3,
    error: *mut *mut c_char,
    table: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { sqlite3_quiresqlite_init(db, error, table) }
}

/// # Safety
/// As [`sqlite3_quiresqlite_init`].
unsafe fn load(db: *mut ffi::sqlite3, table: *const ffi::sqlite3_api_routines) -> Result<(), String> {
    // SAFETY: as the caller promises; the table is read further only if its version is known to have it all.
    let api = unsafe {
        api::check_version(table)?;
        Api::from_table(table)?
    };
    let load = || {
        let instance = match Instance::find(table) {
            Some(instance) => instance,
            None => first_load(table, api)?,
        };
        // SAFETY: as the caller promises.
        unsafe { equip(instance, db) }
    };
    load().map_err(|error: Error| message(&error))
}

fn first_load(table: *const ffi::sqlite3_api_routines, api: Api) -> Result<&'static Instance> {
    let default = default_vfs_asked()?;
    log_to_standard_error()?;
    let instance = Instance::register_at(table, api, "quire", Home::Settings)?;
    instance.on_new_connections()?;
    if default {
        instance.be_default(true)?;
    }
    Ok(instance)
}

fn default_vfs_asked() -> Result<bool> {
    match std::env::var_os(DEFAULT_VFS_VAR) {
        None => Ok(false),
        Some(value) if value == "1" => Ok(true),
        Some(value) if value == "0" => Ok(false),
        Some(value) => Err(Error::invalid(format!("environment variable {DEFAULT_VFS_VAR}: {value:?} is not allowed"))
            .with_remedy("Allowed: 0 and 1.")),
    }
}

/// SQLite's codes say little, so what is behind them is told where the program's user may see it.
fn log_to_standard_error() -> Result<()> {
    let settings = quire_settings::load(&Default::default())?;
    let filter = EnvFilter::try_new(&settings.log).map_err(|e| settings.wrong(quire_settings::Key::Log, e))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time();
    // It fails where another registration in this process has set it up already.
    let _ = log.try_init();
    Ok(())
}

/// Called by SQLite for every connection that is opened after the first load.
///
/// # Safety
/// `db` is the new connection; `table` is its SQLite's table of routines.
pub(crate) unsafe extern "C" fn new_connection(
    db: *mut ffi::sqlite3,
    error: *mut *mut c_char,
    table: *const ffi::sqlite3_api_routines,
) -> c_int {
    guard(ffi::SQLITE_ERROR, || {
        let Some(instance) = Instance::find(table) else { return ffi::SQLITE_OK };
        // SAFETY: as the caller promises.
        match unsafe { equip(instance, db) } {
            Ok(()) => ffi::SQLITE_OK,
            Err(e) => {
                // SAFETY: SQLite frees the text.
                unsafe { *error = instance.api.text(&message(&e)) };
                ffi::SQLITE_ERROR
            }
        }
    })
}

/// # Safety
/// `db` is an open connection of the instance's SQLite.
unsafe fn equip(instance: &'static Instance, db: *mut ffi::sqlite3) -> Result<()> {
    // SAFETY: as the caller promises.
    unsafe {
        functions::register(instance, db)?;
        rows::register(instance, db)
    }
}

/// # Safety
/// `out` may be written; `table` is the one given to the entry point, of any version.
unsafe fn put_message(text: &str, out: *mut *mut c_char, table: *const ffi::sqlite3_api_routines) {
    let text = api::c_text(text);
    let bytes = text.as_bytes_with_nul();
    // SAFETY: as the caller promises; the copy fills exactly what was allocated.
    unsafe {
        let copy = api::old_malloc(table, bytes.len() as c_int).cast::<c_char>();
        if !copy.is_null() && !out.is_null() {
            copy.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len());
            *out = copy;
        }
    }
}
