//! The calls of a VFS and of its files, made as SQLite makes them.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use libsqlite3_sys as ffi;

/// A registered VFS.
#[derive(Clone, Copy)]
pub(super) struct Vfs(*mut ffi::sqlite3_vfs);

/// A file that is open; dropping it closes it.
pub(super) struct File {
    /// The `sqlite3_file`, in words so that it is aligned.
    memory: Box<[u64]>,
    /// A database's name as SQLite gives it, with its journal's beside it; lives as long as the file.
    name: ffi::sqlite3_filename,
}

/// The methods of an open file.
macro_rules! call {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let file = $file.memory.as_mut_ptr().cast::<ffi::sqlite3_file>();
        // SAFETY: the file is open, so it has methods, and every file of a VFS has this one; the arguments live
        // through the call and are as long as they are said to be.
        unsafe { (*(*file).pMethods).$method.expect("a method of every file")(file $(, $argument)*) }
    }};
}

impl Vfs {
    /// The VFS of this name.
    pub(super) fn find(name: &CStr) -> Vfs {
        // SAFETY: the name ends in a zero byte.
        let vfs = unsafe { ffi::sqlite3_vfs_find(name.as_ptr()) };
        assert!(!vfs.is_null(), "{name:?} is registered");
        Vfs(vfs)
    }

    /// Opens a database, or the code of the failure.
    pub(super) fn open_database(self, name: &str) -> Result<File, c_int> {
        let (name, journal) = (text(name), text(&format!("{name}-journal")));
        // SAFETY: all names end in a zero byte, and there are no parameters.
        let name =
            unsafe { ffi::sqlite3_create_filename(name.as_ptr(), journal.as_ptr(), c"".as_ptr(), 0, ptr::null_mut()) };
        let flags = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE;
        self.open(name.cast(), flags, name)
    }

    /// Opens a journal by its name.
    pub(super) fn open_journal(self, name: &CStr, flags: c_int) -> Result<File, c_int> {
        self.open(name.as_ptr(), flags | ffi::SQLITE_OPEN_READWRITE, ptr::null())
    }

    fn open(self, name: *const c_char, flags: c_int, owned: ffi::sqlite3_filename) -> Result<File, c_int> {
        // SAFETY: a registered VFS stays where it is.
        let (bytes, open) = unsafe { ((*self.0).szOsFile as usize, (*self.0).xOpen.expect("every VFS opens")) };
        let mut file = File { memory: vec![0; bytes.div_ceil(8)].into_boxed_slice(), name: owned };
        let handle = file.memory.as_mut_ptr().cast::<ffi::sqlite3_file>();
        // SAFETY: the memory is as large as the VFS wants, and the name ends in a zero byte.
        let code = unsafe { open(self.0, name, handle, flags, ptr::null_mut()) };
        // SAFETY: the VFS has set the methods, or left them null.
        let is_open = unsafe { !(*handle).pMethods.is_null() };
        assert_eq!(is_open, code == ffi::SQLITE_OK, "a file has methods exactly if it was opened");
        if is_open { Ok(file) } else { Err(code) }
    }

    pub(super) fn delete(self, name: &CStr, sync_folder: bool) -> c_int {
        // SAFETY: a registered VFS has the method; the name ends in a zero byte.
        unsafe { (*self.0).xDelete.expect("every VFS deletes")(self.0, name.as_ptr(), sync_folder.into()) }
    }

    pub(super) fn exists(self, name: &CStr) -> bool {
        let mut found = -1;
        // SAFETY: as above; the answer outlives the call.
        let code = unsafe {
            (*self.0).xAccess.expect("every VFS looks")(self.0, name.as_ptr(), ffi::SQLITE_ACCESS_EXISTS, &mut found)
        };
        assert_eq!(code, ffi::SQLITE_OK);
        found != 0
    }
}

impl File {
    /// Reads, and says whether all of it lay before the end; past it come zeros.
    pub(super) fn read(&mut self, len: usize, offset: u64) -> (Vec<u8>, bool) {
        let mut buf = vec![0xEE; len];
        match call!(self, xRead, buf.as_mut_ptr().cast(), len as c_int, offset as i64) {
            ffi::SQLITE_OK => (buf, true),
            ffi::SQLITE_IOERR_SHORT_READ => (buf, false),
            code => panic!("reading {len} bytes at {offset} failed with {code}: {:?}", crate::last_error()),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> c_int {
        call!(self, xWrite, bytes.as_ptr().cast(), bytes.len() as c_int, offset as i64)
    }

    pub(super) fn truncate(&mut self, bytes: u64) -> c_int {
        call!(self, xTruncate, bytes as i64)
    }

    pub(super) fn sync(&mut self) -> c_int {
        call!(self, xSync, ffi::SQLITE_SYNC_NORMAL)
    }

    pub(super) fn size(&mut self) -> u64 {
        let mut size = -1;
        assert_eq!(call!(self, xFileSize, &mut size), ffi::SQLITE_OK);
        u64::try_from(size).expect("a size")
    }

    pub(super) fn lock(&mut self, level: c_int) -> c_int {
        call!(self, xLock, level)
    }

    pub(super) fn unlock(&mut self, level: c_int) -> c_int {
        call!(self, xUnlock, level)
    }

    pub(super) fn is_reserved(&mut self) -> bool {
        let mut held = -1;
        assert_eq!(call!(self, xCheckReservedLock, &mut held), ffi::SQLITE_OK);
        held != 0
    }

    pub(super) fn control(&mut self, op: c_int, argument: *mut c_void) -> c_int {
        call!(self, xFileControl, op, argument)
    }

    /// `PRAGMA name` or `PRAGMA name = argument`; the row that it gives, if the VFS answers it.
    pub(super) fn pragma(&mut self, name: &CStr, argument: Option<&CStr>) -> (c_int, Option<String>) {
        let argument = argument.map_or(ptr::null(), CStr::as_ptr);
        let mut words = [ptr::null_mut(), name.as_ptr().cast_mut(), argument.cast_mut(), ptr::null_mut()];
        let code = self.control(ffi::SQLITE_FCNTL_PRAGMA, words.as_mut_ptr().cast());
        if words[0].is_null() {
            return (code, None);
        }
        // SAFETY: the VFS answers with text in SQLite's memory that ends in a zero byte, for the caller to free.
        let row = unsafe {
            let row = CStr::from_ptr(words[0]).to_string_lossy().into_owned();
            ffi::sqlite3_free(words[0].cast());
            row
        };
        (code, Some(row))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let file = self.memory.as_mut_ptr().cast::<ffi::sqlite3_file>();
        // SAFETY: a file whose opening failed has no methods; an open one is closed once, and its name is used no more.
        unsafe {
            if let Some(methods) = (*file).pMethods.as_ref() {
                methods.xClose.expect("a method of every file")(file);
            }
            ffi::sqlite3_free_filename(self.name);
        }
    }
}

/// Text for C.
pub(super) fn text(text: &str) -> CString {
    CString::new(text).expect("no zero byte")
}
