//! One registration of the VFS with one SQLite. A process can have several
//! copies of SQLite, and they may load the extension each for itself.

use std::ffi::{CStr, CString, c_int, c_void};

use libsqlite3_sys as ffi;
use parking_lot::Mutex;
use quire_engine::{Error, Result};

use crate::api::{Api, c_text};
use crate::entry;
use crate::home::Home;
use crate::journal::Journals;
use crate::temp::VfsRef;
use crate::vfs;
use crate::volumes::Volumes;

/// The VFS as one SQLite knows it. Lives as long as the process.
pub(crate) struct Instance {
    pub(crate) api: Api,
    name: CString,
    slot: usize,
    pub(crate) home: Home,
    /// The VFS that was the default before.
    pub(crate) base: VfsRef,
    pub(crate) journals: Journals,
    pub(crate) volumes: Volumes,
    /// The address of SQLite's table of routines, to know it again; null for the linked SQLite.
    table: usize,
    /// The VFS that takes volumes' names, and the one that takes paths and can
    /// be the default: one name means the same whatever the default is.
    by_name: VfsRef,
    by_path: VfsRef,
}

/// A process has room for this many copies of SQLite.
pub(crate) const MAX_INSTANCES: usize = 8;

static INSTANCES: Mutex<Vec<&'static Instance>> = Mutex::new(Vec::new());

impl Instance {
    /// Registers the VFS under `name`.
    pub(crate) fn register(api: Api, name: &str, home: Home) -> Result<&'static Instance> {
        Instance::register_at(std::ptr::null(), api, name, home)
    }

    /// As [`register`](Self::register), for the SQLite with this table of routines.
    pub(crate) fn register_at(
        table: *const ffi::sqlite3_api_routines,
        api: Api,
        name: &str,
        home: Home,
    ) -> Result<&'static Instance> {
        let mut instances = INSTANCES.lock();
        if instances.len() == MAX_INSTANCES {
            return Err(Error::invalid(format!("this process has more than {MAX_INSTANCES} copies of SQLite")));
        }
        // SAFETY: a null name asks for the default VFS.
        let base = VfsRef::new(unsafe { (api.vfs_find)(std::ptr::null()) })
            .ok_or_else(|| Error::invalid("this SQLite has no VFS, so it has no place for temporary files"))?;
        let path_name: &'static CStr = Box::leak(c_text(&format!("{name}-paths")).into_boxed_c_str());
        let by_name: *mut ffi::sqlite3_vfs = Box::leak(Box::new(vfs::describe(base)));
        let by_path: *mut ffi::sqlite3_vfs = Box::leak(Box::new(vfs::describe_paths(base)));
        let (Some(named), Some(pathed)) = (VfsRef::new(by_name), VfsRef::new(by_path)) else {
            return Err(Error::invalid("there is no memory for the VFS"));
        };
        let instance: &'static Instance = Box::leak(Box::new(Instance {
            api,
            name: c_text(name),
            slot: instances.len(),
            home,
            base,
            journals: Journals::new(api, base)?,
            volumes: Volumes::default(),
            table: table as usize,
            by_name: named,
            by_path: pathed,
        }));
        let data = (instance as *const Instance).cast_mut().cast::<c_void>();
        // SAFETY: both were allocated above, and SQLite does not know them yet.
        unsafe {
            ((*by_name).zName, (*by_name).pAppData) = (instance.name.as_ptr(), data);
            ((*by_path).zName, (*by_path).pAppData) = (path_name.as_ptr(), data);
        }
        instance.announce(instance.by_name, false)?;
        instances.push(instance);
        Ok(instance)
    }

    /// The registration with the SQLite whose table of routines this is.
    pub(crate) fn find(table: *const ffi::sqlite3_api_routines) -> Option<&'static Instance> {
        let instances = INSTANCES.lock();
        let with = |table: usize| instances.iter().find(|i| i.table == table).copied();
        // A statically linked SQLite gives its table too, which registration did not know.
        with(table as usize).or_else(|| with(0))
    }

    /// All registrations in this process.
    pub(crate) fn all() -> Vec<&'static Instance> {
        INSTANCES.lock().clone()
    }

    /// The VFS's name.
    pub(crate) fn name(&self) -> &str {
        self.name.to_str().unwrap_or("quire")
    }

    /// Its place among [`all`](Self::all).
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Gives functions and tables to connections that are opened from now on.
    pub(crate) fn on_new_connections(&self) -> Result<()> {
        // SAFETY: the entry point may be called for every new connection.
        match unsafe { (self.api.auto_extension)(Some(entry::new_connection)) } {
            ffi::SQLITE_OK => Ok(()),
            code => Err(refused("to run the extension for new connections", code)),
        }
    }

    /// Makes the VFS the default of this SQLite, or the one that it was before.
    pub(crate) fn be_default(&self, default: bool) -> Result<()> {
        if default { self.announce(self.by_path, true) } else { self.announce(self.base, true) }
    }

    fn announce(&self, vfs: VfsRef, default: bool) -> Result<()> {
        // SAFETY: the VFS is valid and stays where it is for as long as the process lives.
        match unsafe { (self.api.vfs_register)(vfs.as_ptr(), c_int::from(default)) } {
            ffi::SQLITE_OK => Ok(()),
            code => Err(refused("to register the VFS", code)),
        }
    }
}

fn refused(what: &str, code: c_int) -> Error {
    Error::invalid(format!("SQLite refused {what} with code {code}"))
}
