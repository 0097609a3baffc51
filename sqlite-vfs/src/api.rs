//! The routines of SQLite that Quire calls, as a table of pointers.
//!
//! The extension brings no SQLite of its own and needs none to be linked: it
//! calls the one that loaded it, through the table handed to its entry point.
//! Where SQLite is linked statically, [`crate::linked`] fills the same table.

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};

use libsqlite3_sys as ffi;

/// Where each routine stands in SQLite's table.
#[allow(dead_code, non_upper_case_globals)]
mod position {
    include!(concat!(env!("OUT_DIR"), "/positions.rs"));
}

/// The oldest SQLite that works, as `sqlite3_libversion_number` gives it.
const OLDEST: c_int = 3_037_000;

/// What SQLite calls for a new connection.
pub(crate) type EntryPoint =
    unsafe extern "C" fn(*mut ffi::sqlite3, *mut *mut c_char, *const ffi::sqlite3_api_routines) -> c_int;
type Scalar = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);
type Final = unsafe extern "C" fn(*mut ffi::sqlite3_context);
type Destroy = unsafe extern "C" fn(*mut c_void);

macro_rules! routines {
    ($($name:ident: $signature:ty;)*) => {
        /// The routines of one SQLite.
        #[derive(Clone, Copy)]
        pub(crate) struct Api {
            $(pub(crate) $name: $signature,)*
        }

        impl Api {
            /// Reads the table that SQLite gives to an extension. A SQLite that was built without some part of it
            /// has null there, which is an error for its user.
            ///
            /// # Safety
            /// `table` is that of a SQLite which [`check_version`] has accepted.
            pub(crate) unsafe fn from_table(table: *const ffi::sqlite3_api_routines) -> Result<Api, String> {
                let table = table.cast::<*const c_void>();
                // SAFETY: every member was in the table before the oldest accepted version, and the table only ever
                // grows at its end; a member's position and type are part of SQLite's ABI, and a pointer that is not
                // null is that routine.
                unsafe {
                    Ok(Api { $($name: match *table.add(position::$name) {
                        routine if routine.is_null() => return Err(missing(stringify!($name))),
                        routine => std::mem::transmute::<*const c_void, $signature>(routine),
                    },)* })
                }
            }

            /// Where each routine is.
            #[cfg(test)]
            pub(crate) fn addresses(&self) -> Vec<(&'static str, usize)> {
                vec![$((stringify!($name), self.$name as *const c_void as usize),)*]
            }
        }
    };
}

fn missing(routine: &str) -> String {
    format!("Quire needs sqlite3_{routine}; the SQLite of this program was built without it")
}

routines! {
    auto_extension: unsafe extern "C" fn(Option<EntryPoint>) -> c_int;
    column_int64: unsafe extern "C" fn(*mut ffi::sqlite3_stmt, c_int) -> i64;
    context_db_handle: unsafe extern "C" fn(*mut ffi::sqlite3_context) -> *mut ffi::sqlite3;
    create_function_v2: unsafe extern "C" fn(*mut ffi::sqlite3, *const c_char, c_int, c_int, *mut c_void,
        Option<Scalar>, Option<Scalar>, Option<Final>, Option<Destroy>) -> c_int;
    create_module_v2: unsafe extern "C" fn(*mut ffi::sqlite3, *const c_char, *const ffi::sqlite3_module, *mut c_void,
        Option<Destroy>) -> c_int;
    declare_vtab: unsafe extern "C" fn(*mut ffi::sqlite3, *const c_char) -> c_int;
    file_control: unsafe extern "C" fn(*mut ffi::sqlite3, *const c_char, c_int, *mut c_void) -> c_int;
    finalize: unsafe extern "C" fn(*mut ffi::sqlite3_stmt) -> c_int;
    get_autocommit: unsafe extern "C" fn(*mut ffi::sqlite3) -> c_int;
    libversion: unsafe extern "C" fn() -> *const c_char;
    log: unsafe extern "C" fn(c_int, *const c_char, ...);
    malloc64: unsafe extern "C" fn(u64) -> *mut c_void;
    prepare_v2: unsafe extern "C" fn(*mut ffi::sqlite3, *const c_char, c_int, *mut *mut ffi::sqlite3_stmt,
        *mut *const c_char) -> c_int;
    result_error: unsafe extern "C" fn(*mut ffi::sqlite3_context, *const c_char, c_int);
    result_error_code: unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int);
    result_int64: unsafe extern "C" fn(*mut ffi::sqlite3_context, i64);
    result_null: unsafe extern "C" fn(*mut ffi::sqlite3_context);
    result_text64: unsafe extern "C" fn(*mut ffi::sqlite3_context, *const c_char, u64, Option<Destroy>, c_uchar);
    step: unsafe extern "C" fn(*mut ffi::sqlite3_stmt) -> c_int;
    uri_boolean: unsafe extern "C" fn(*const c_char, *const c_char, c_int) -> c_int;
    uri_key: unsafe extern "C" fn(*const c_char, c_int) -> *const c_char;
    uri_parameter: unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_char;
    user_data: unsafe extern "C" fn(*mut ffi::sqlite3_context) -> *mut c_void;
    value_bytes: unsafe extern "C" fn(*mut ffi::sqlite3_value) -> c_int;
    value_int64: unsafe extern "C" fn(*mut ffi::sqlite3_value) -> i64;
    value_text: unsafe extern "C" fn(*mut ffi::sqlite3_value) -> *const c_uchar;
    value_type: unsafe extern "C" fn(*mut ffi::sqlite3_value) -> c_int;
    vfs_find: unsafe extern "C" fn(*const c_char) -> *mut ffi::sqlite3_vfs;
    vfs_register: unsafe extern "C" fn(*mut ffi::sqlite3_vfs, c_int) -> c_int;
}

/// Refuses a SQLite that is too old, with a message for its user.
///
/// # Safety
/// `table` is the one that SQLite gave to the extension's entry point.
pub(crate) unsafe fn check_version(table: *const ffi::sqlite3_api_routines) -> Result<(), String> {
    let table = table.cast::<*const c_void>();
    // SAFETY: these two members are in the table since 3.3, far below the oldest
    // SQLite that calls entry points of this kind.
    let (number, text) = unsafe {
        let number: unsafe extern "C" fn() -> c_int = std::mem::transmute(*table.add(position::libversion_number));
        let text: unsafe extern "C" fn() -> *const c_char = std::mem::transmute(*table.add(position::libversion));
        (number(), CStr::from_ptr(text()))
    };
    if number >= OLDEST {
        return Ok(());
    }
    Err(format!("Quire needs SQLite 3.37.0 or newer; this program has {}", text.to_string_lossy()))
}

/// The allocator of a SQLite of any version, for the message of a refused load.
///
/// # Safety
/// As [`check_version`].
pub(crate) unsafe fn old_malloc(table: *const ffi::sqlite3_api_routines, bytes: c_int) -> *mut c_void {
    // SAFETY: the member is in the table since 3.3.
    unsafe {
        let malloc = *table.cast::<*const c_void>().add(position::malloc);
        let malloc: unsafe extern "C" fn(c_int) -> *mut c_void = std::mem::transmute(malloc);
        malloc(bytes)
    }
}

impl Api {
    /// Text in SQLite's own memory, for SQLite to free; null if there is no memory.
    pub(crate) fn text(&self, text: &str) -> *mut c_char {
        let text = c_text(text);
        let bytes = text.as_bytes_with_nul();
        // SAFETY: the copy fills exactly what was allocated.
        unsafe {
            let copy = (self.malloc64)(bytes.len() as u64).cast::<c_char>();
            if !copy.is_null() {
                copy.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len());
            }
            copy
        }
    }

    /// Tells SQLite's error log.
    pub(crate) fn report(&self, code: c_int, message: &str) {
        let message = c_text(message);
        // SAFETY: the format takes one string, which outlives the call.
        unsafe { (self.log)(code, c"%s".as_ptr(), message.as_ptr()) }
    }
}

/// Text for C, up to its first zero byte.
pub(crate) fn c_text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn old_number() -> c_int {
        3_036_000
    }
    unsafe extern "C" fn oldest_number() -> c_int {
        OLDEST
    }
    unsafe extern "C" fn text() -> *const c_char {
        c"3.36.0".as_ptr()
    }

    #[test]
    fn a_sqlite_that_is_too_old_is_refused_by_name() {
        let check = |number: unsafe extern "C" fn() -> c_int| {
            let mut table = vec![std::ptr::null::<c_void>(); position::libversion_number + 1];
            table[position::libversion_number] = number as *const c_void;
            table[position::libversion] = text as *const c_void;
            // SAFETY: the table has the two members that are asked for.
            unsafe { check_version(table.as_ptr().cast()) }
        };
        assert_eq!(check(oldest_number), Ok(()));
        let refused = check(old_number).unwrap_err();
        assert!(refused.contains("3.37.0") && refused.contains("3.36.0"), "{refused}");
    }

    #[test]
    fn a_sqlite_that_was_built_without_a_part_is_refused_by_its_name() {
        let table = vec![std::ptr::null::<c_void>(); 1024];
        // SAFETY: the table is longer than any SQLite's, and null where it is looked at.
        let refused = unsafe { Api::from_table(table.as_ptr().cast()) }.err().unwrap();
        assert!(refused.contains("sqlite3_auto_extension"), "{refused}");
    }
}
