//! For programs that link SQLite statically, such as the command line: the
//! same table of routines, filled from the linked symbols. Nothing in the
//! loadable extension refers to this file, so its linker drops it, and the
//! SQLite behind it, from the extension.

use libsqlite3_sys as ffi;
use quire_engine::{Engine, Result};

use crate::api::Api;
use crate::home::Home;
use crate::instance::Instance;

/// Registers the VFS `quire` with the linked SQLite, on a data directory that
/// is open already; connections opened later have the functions and tables.
/// Called once for each process.
pub fn register_linked(engine: Engine) -> Result<()> {
    register_linked_as("quire", engine)
}

/// As [`register_linked`], with another name for the VFS: for a process that
/// works on several data directories at once.
pub fn register_linked_as(name: &str, engine: Engine) -> Result<()> {
    Instance::register(linked_api(), name, Home::given(engine))?.on_new_connections()
}

pub(crate) fn linked_api() -> Api {
    Api {
        auto_extension: ffi::sqlite3_auto_extension,
        column_int64: ffi::sqlite3_column_int64,
        context_db_handle: ffi::sqlite3_context_db_handle,
        create_function_v2: ffi::sqlite3_create_function_v2,
        create_module_v2: ffi::sqlite3_create_module_v2,
        declare_vtab: ffi::sqlite3_declare_vtab,
        file_control: ffi::sqlite3_file_control,
        finalize: ffi::sqlite3_finalize,
        get_autocommit: ffi::sqlite3_get_autocommit,
        libversion: ffi::sqlite3_libversion,
        log: ffi::sqlite3_log,
        malloc64: ffi::sqlite3_malloc64,
        prepare_v2: ffi::sqlite3_prepare_v2,
        result_error: ffi::sqlite3_result_error,
        result_error_code: ffi::sqlite3_result_error_code,
        result_int64: ffi::sqlite3_result_int64,
        result_null: ffi::sqlite3_result_null,
        result_text64: ffi::sqlite3_result_text64,
        step: ffi::sqlite3_step,
        uri_boolean: ffi::sqlite3_uri_boolean,
        uri_key: ffi::sqlite3_uri_key,
        uri_parameter: ffi::sqlite3_uri_parameter,
        user_data: ffi::sqlite3_user_data,
        value_bytes: ffi::sqlite3_value_bytes,
        value_int64: ffi::sqlite3_value_int64,
        value_text: ffi::sqlite3_value_text,
        value_type: ffi::sqlite3_value_type,
        vfs_find: ffi::sqlite3_vfs_find,
        vfs_register: ffi::sqlite3_vfs_register,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::{c_char, c_int};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The table of routines that the linked SQLite gives to extensions.
    static TABLE: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn extension(
        _db: *mut ffi::sqlite3,
        _error: *mut *mut c_char,
        table: *const ffi::sqlite3_api_routines,
    ) -> c_int {
        TABLE.store(table as usize, Ordering::SeqCst);
        ffi::SQLITE_OK
    }

    #[test]
    fn every_routine_stands_where_the_header_says() {
        // SAFETY: the extension does not touch the connection.
        unsafe { ffi::sqlite3_auto_extension(Some(extension)) };
        drop(rusqlite::Connection::open_in_memory().unwrap());
        let table = TABLE.load(Ordering::SeqCst) as *const ffi::sqlite3_api_routines;
        // SAFETY: the linked SQLite's table has everything.
        let read = unsafe { Api::from_table(table) }.unwrap();
        assert_eq!(read.addresses(), linked_api().addresses());
    }
}
