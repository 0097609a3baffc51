//! The SQL functions: they do things. Each takes the name of an attached
//! database as a last argument that may be left out.

use std::ffi::{CStr, c_int, c_void};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use libsqlite3_sys as ffi;
use quire_engine::{Error, ErrorKind, Lsn, Moment, PageCount, PageIdx, Result, Snapshot};

use crate::api::{Api, c_text};
use crate::database::Glance;
use crate::error::{guard, guarded, remember};
use crate::file::DatabaseFile;
use crate::instance::{Instance, MAX_INSTANCES};
use crate::names;
use crate::pragmas::message;
use crate::volumes::OpenVolume;

/// One function: its name, how many arguments it takes, and what it does.
struct Function {
    name: &'static CStr,
    arguments: std::ops::RangeInclusive<c_int>,
    run: fn(&Call<'_>) -> Result<String>,
}

static FUNCTIONS: [Function; 13] = [
    Function { name: c"quire_push", arguments: 0..=1, run: |call| push(&call.database(0)?.open) },
    Function { name: c"quire_pull", arguments: 0..=1, run: |call| pull(&call.idle_database(0)?.open) },
    Function { name: c"quire_sync", arguments: 0..=1, run: |call| sync(&call.idle_database(0)?.open) },
    Function { name: c"quire_fetch", arguments: 0..=1, run: |call| fetch(&call.database(0)?.open) },
    Function { name: c"quire_hydrate", arguments: 0..=1, run: |call| hydrate(&call.database(0)?.open) },
    Function { name: c"quire_checkpoint", arguments: 0..=1, run: |call| checkpoint(&call.database(0)?.open) },
    Function { name: c"quire_verify", arguments: 0..=1, run: |call| verify(&call.database(0)?.open) },
    Function { name: c"quire_wait", arguments: 1..=2, run: wait },
    Function { name: c"quire_reset", arguments: 0..=1, run: |call| reset(&call.idle_database(0)?.open) },
    Function { name: c"quire_fork", arguments: 1..=2, run: fork },
    Function { name: c"quire_export", arguments: 1..=3, run: export },
    Function { name: c"quire_version", arguments: 0..=0, run: |call| Ok(version(&call.instance.api)) },
    Function { name: c"quire_default_vfs", arguments: 1..=1, run: default_vfs },
];

/// What SQLite keeps for each function of a connection.
struct Bound {
    function: &'static Function,
}

/// A function as SQLite calls it. It does not say which SQLite calls, and only
/// that one's routines may look into the call; so each registration has a
/// function of its own.
type Called = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);
const CALLED: [Called; MAX_INSTANCES] =
    [called::<0>, called::<1>, called::<2>, called::<3>, called::<4>, called::<5>, called::<6>, called::<7>];

/// Gives a connection the functions.
///
/// # Safety
/// `db` is an open connection of the instance's SQLite.
pub(crate) unsafe fn register(instance: &'static Instance, db: *mut ffi::sqlite3) -> Result<()> {
    // SAFETY: as the caller promises.
    FUNCTIONS.iter().try_for_each(|function| unsafe { register_one(instance, db, function) })
}

/// # Safety
/// As [`register`].
unsafe fn register_one(instance: &'static Instance, db: *mut ffi::sqlite3, function: &'static Function) -> Result<()> {
    let api = &instance.api;
    for arguments in function.arguments.clone() {
        let bound = Box::into_raw(Box::new(Bound { function })).cast();
        // Not from triggers and views: whoever queries a foreign database must not push it.
        let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DIRECTONLY;
        let called = Some(CALLED[instance.slot()]);
        // SAFETY: the connection is open, and `bound` is freed by `unbind` only.
        let code = unsafe {
            let name = function.name.as_ptr();
            (api.create_function_v2)(db, name, arguments, flags, bound, called, None, None, Some(unbind))
        };
        // Busy: the connection has the function, and a statement is running: `SELECT load_extension(…)`, again.
        if code != ffi::SQLITE_OK && code != ffi::SQLITE_BUSY {
            return Err(Error::invalid(format!("SQLite refused the function {:?} with code {code}", function.name)));
        }
    }
    Ok(())
}

unsafe extern "C" fn unbind(bound: *mut c_void) {
    // SAFETY: SQLite gives back what `register` gave it, once.
    drop(unsafe { Box::from_raw(bound.cast::<Bound>()) });
}

unsafe extern "C" fn called<const SLOT: usize>(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    // It is there: it has registered the function.
    let Some(instance) = Instance::all().get(SLOT).copied() else { return };
    let api = &instance.api;
    // SAFETY: SQLite calls what `register` gave to it, with as many values as it says.
    let (bound, call) = unsafe {
        let bound = &*(api.user_data)(context).cast::<Bound>();
        let values = if count > 0 { std::slice::from_raw_parts(values, count as usize) } else { &[] };
        (bound, Call { instance, db: (api.context_db_handle)(context), values })
    };
    match guarded(|| (bound.function.run)(&call)) {
        // SAFETY: SQLite copies the text before the call returns.
        Ok(text) => unsafe {
            let copied = ffi::SQLITE_TRANSIENT();
            (api.result_text64)(context, text.as_ptr().cast(), text.len() as u64, copied, ffi::SQLITE_UTF8 as u8);
        },
        Err(error) => {
            let text = c_text(&message(&error));
            let code = if error.kind() == ErrorKind::Busy { ffi::SQLITE_BUSY } else { ffi::SQLITE_ERROR };
            // SAFETY: SQLite copies the message; the code that follows keeps it.
            unsafe {
                (api.result_error)(context, text.as_ptr(), -1);
                (api.result_error_code)(context, code);
            }
            // The statement fails already, also if a log panics: a result that nobody has set is NULL, and no error.
            guard((), || remember(api, code, error));
        }
    }
}

/// One call of a function.
struct Call<'a> {
    instance: &'static Instance,
    db: *mut ffi::sqlite3,
    values: &'a [*mut ffi::sqlite3_value],
}

impl Call<'_> {
    /// The argument at `at` as text; none if it is missing or NULL.
    fn text(&self, at: usize) -> Result<Option<String>> {
        let Some(value) = self.values.get(at) else { return Ok(None) };
        // SAFETY: the value is one of this call.
        unsafe { text_of(&self.instance.api, *value) }
    }

    fn integer(&self, at: usize) -> i64 {
        // SAFETY: the value is one of this call.
        self.values.get(at).map_or(0, |value| unsafe { (self.instance.api.value_int64)(*value) })
    }

    /// The volume of the attached database that the argument at `at` names, or of `main`.
    fn database(&self, at: usize) -> Result<Glance> {
        let schema = self.text(at)?.unwrap_or_else(|| "main".to_owned());
        // SAFETY: the connection is calling this function.
        unsafe { glance_at(&self.instance.api, self.db, &schema) }
    }

    /// As [`database`](Self::database), for what takes the writer's lock: a
    /// transaction of this very connection would wait for itself.
    fn idle_database(&self, at: usize) -> Result<Glance> {
        let database = self.database(at)?;
        if database.is_writing {
            return Err(Error::new(ErrorKind::Busy, "this connection is in a write transaction").with_remedy(
                "COMMIT or ROLLBACK first; with locking_mode=EXCLUSIVE, go back to NORMAL and read once.",
            ));
        }
        Ok(database)
    }
}

/// The text of a value; none for NULL.
///
/// # Safety
/// `value` is valid now.
pub(crate) unsafe fn text_of(api: &Api, value: *mut ffi::sqlite3_value) -> Result<Option<String>> {
    // SAFETY: as the caller promises; the text is asked for before its length.
    let bytes = unsafe {
        if (api.value_type)(value) == ffi::SQLITE_NULL {
            return Ok(None);
        }
        let text = (api.value_text)(value);
        if text.is_null() {
            return Err(Error::new(ErrorKind::Full, "there is no memory for an argument"));
        }
        std::slice::from_raw_parts(text, (api.value_bytes)(value) as usize)
    };
    let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("an argument is not UTF-8"))?;
    Ok(Some(text.to_owned()))
}

/// What a connection has open under the name of a schema, which must be a volume.
///
/// # Safety
/// `db` is a connection that is used on this thread now.
pub(crate) unsafe fn glance_at(api: &Api, db: *mut ffi::sqlite3, schema: &str) -> Result<Glance> {
    // SAFETY: as the caller promises.
    unsafe { DatabaseFile::glance(api, db, &c_text(schema)) }.unwrap_or_else(|| {
        Err(Error::invalid(format!("database {schema} of this connection is not a volume"))
            .with_remedy("Open one as file:NAME?vfs=quire, or give the name of the attached one as the last argument."))
    })
}

/// Pushes; one line says what moved.
pub(crate) fn push(open: &OpenVolume) -> Result<String> {
    open.volume.push().map(|moved| moved.to_string())
}

/// Pulls. The snapshot of a transaction that is open stays.
pub(crate) fn pull(open: &OpenVolume) -> Result<String> {
    open.volume.pull().map(|moved| moved.to_string())
}

/// Pulls if behind, pushes if ahead.
pub(crate) fn sync(open: &OpenVolume) -> Result<String> {
    open.volume.sync().map(|moved| moved.to_string())
}

/// Learns the store's newest LSN.
pub(crate) fn fetch(open: &OpenVolume) -> Result<String> {
    Ok(match open.volume.fetch()? {
        Some(lsn) => format!("the store is at LSN {lsn}"),
        None => "the store does not have the volume yet".to_owned(),
    })
}

/// Fetches all missing pages of the visible snapshot.
pub(crate) fn hydrate(open: &OpenVolume) -> Result<String> {
    let pages = open.volume.hydrate(&mut |_, _| {})?;
    Ok(format!("fetched {pages} pages"))
}

/// Writes a checkpoint of the commit that the replica stands on.
pub(crate) fn checkpoint(open: &OpenVolume) -> Result<String> {
    let made = open.volume.checkpoint()?;
    Ok(match made.bytes {
        0 => format!("LSN {} has a checkpoint already", made.lsn),
        bytes => format!("LSN {} has a checkpoint, of {bytes} bytes", made.lsn),
    })
}

/// Checks every page of the visible snapshot.
pub(crate) fn verify(open: &OpenVolume) -> Result<String> {
    let verified = open.volume.verify(&mut |_, _| {})?;
    Ok(format!("verified {} pages, {} bytes", verified.pages, verified.bytes))
}

fn reset(open: &OpenVolume) -> Result<String> {
    let reset = open.volume.reset()?;
    let at = reset.lsn.map_or("at the beginning".to_owned(), |lsn| format!("at LSN {lsn}"));
    Ok(match reset.kept_as {
        Some(name) => format!("{at}; what was not pushed is kept as {name}"),
        None => at,
    })
}

/// The version of Quire, and of the SQLite that runs it.
pub(crate) fn version(api: &Api) -> String {
    // SAFETY: the text is a constant of SQLite.
    let sqlite = unsafe { CStr::from_ptr((api.libversion)()) };
    format!("{} (SQLite {})", env!("CARGO_PKG_VERSION"), sqlite.to_string_lossy())
}

/// `quire_fork(NEW, SCHEMA)`: the visible snapshot, or the one of the past that the connection has open, as a volume of its own.
fn fork(call: &Call<'_>) -> Result<String> {
    let new = call.text(0)?.ok_or_else(|| Error::invalid("quire_fork takes the name of the new volume"))?;
    let new = names::volume_of(&new)?;
    names::check_new(&new)?;
    let open = call.idle_database(1)?.open;
    let moment = open.volume.snapshot().base_lsn().filter(|_| open.is_past).map(Moment::Lsn);
    let forked = open.engine.fork(&open.name, moment, &new)?;
    Ok(match (forked.lsn, &forked.not_pushed) {
        (Some(lsn), _) => format!("{new} is in the store at LSN {lsn}"),
        (None, Some(why)) => format!("{new} is here; push it once the store can be reached ({why})"),
        (None, None) => format!("{new} is here; its first push brings it to the store"),
    })
}

fn wait(call: &Call<'_>) -> Result<String> {
    let lsn = u64::try_from(call.integer(0)).ok().and_then(Lsn::new);
    let lsn = lsn.ok_or_else(|| Error::invalid("quire_wait takes an LSN: a whole number from 1"))?;
    let timeout = busy_timeout(&call.instance.api, call.db)?;
    let volume = &call.database(1)?.open.volume;
    // Asking takes a moment itself, which a timeout of 0 does not leave.
    if volume.fetch()? < Some(lsn) {
        volume.wait(lsn, timeout)?;
    }
    Ok(format!("LSN {lsn} is in the store"))
}

/// The connection's busy timeout, which only a pragma tells.
fn busy_timeout(api: &Api, db: *mut ffi::sqlite3) -> Result<Duration> {
    let mut statement = std::ptr::null_mut();
    // SAFETY: the connection is calling a function, and may run statements; this one is finalized.
    let milliseconds = unsafe {
        let sql = c"PRAGMA busy_timeout".as_ptr();
        let mut milliseconds = None;
        if (api.prepare_v2)(db, sql, -1, &raw mut statement, std::ptr::null_mut()) == ffi::SQLITE_OK
            && (api.step)(statement) == ffi::SQLITE_ROW
        {
            milliseconds = u64::try_from((api.column_int64)(statement, 0)).ok();
        }
        (api.finalize)(statement);
        milliseconds
    };
    milliseconds.map(Duration::from_millis).ok_or_else(|| Error::invalid("SQLite does not tell its busy timeout"))
}

fn default_vfs(call: &Call<'_>) -> Result<String> {
    // As text: SQLite takes any word for the integer 0.
    let asked = call.text(0)?;
    let default = match asked.as_deref().and_then(|text| text.trim().parse::<i64>().ok()) {
        Some(0) => false,
        Some(1) => true,
        _ => {
            let asked = asked.as_deref().unwrap_or("NULL");
            return Err(Error::invalid(format!("quire_default_vfs takes 1 or 0, not {asked}"))
                .with_remedy("1 makes the VFS the default one of the process, 0 the one that was it before."));
        }
    };
    call.instance.be_default(default)?;
    let is = if default { "is" } else { "is not" };
    Ok(format!("{} {is} the default VFS", call.instance.name()))
}

/// `quire_export(PATH, SCHEMA, REPLACE)`: the snapshot that this connection reads, as an ordinary file.
fn export(call: &Call<'_>) -> Result<String> {
    let path = call.text(0)?.ok_or_else(|| Error::invalid("quire_export takes the path of a file"))?;
    let database = call.database(1)?;
    if database.is_writing {
        return Err(Error::new(ErrorKind::Busy, "this connection is in a write transaction")
            .with_remedy("COMMIT or ROLLBACK first: what is not committed is not exported."));
    }
    let pages = write_snapshot(&database.snapshot, Path::new(&path), call.integer(2) != 0)?;
    Ok(format!("wrote {pages} pages to {path}"))
}

/// Writes a snapshot to a file that appears, complete and durable, or not at all.
fn write_snapshot(snapshot: &Snapshot, path: &Path, replace: bool) -> Result<PageCount> {
    let failed = |e| Error::from_io(format!("exporting to {}", path.display()), e);
    let exists = || {
        Error::new(ErrorKind::AlreadyExists, format!("{} exists", path.display()))
            .with_remedy("Choose another path, or replace it: quire_export(PATH, 'main', 1).")
    };
    if !replace && path.exists() {
        return Err(exists());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut page = vec![0; snapshot.page_size().map_or(0, |size| size.bytes())];
    for index in (1..=snapshot.page_count().get()).filter_map(PageIdx::new) {
        snapshot.read(index, &mut page)?;
        file.write_all(&page).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    if replace {
        file.persist(path).map_err(|e| failed(e.error))?;
    } else {
        file.persist_noclobber(path).map_err(|e| match e.error.kind() {
            std::io::ErrorKind::AlreadyExists => exists(),
            _ => failed(e.error),
        })?;
    }
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(snapshot.page_count())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::home::Home;
    use crate::linked::linked_api;

    static PANICKING: Function =
        Function { name: c"panicking", arguments: 0..=0, run: |_| panic!("seen in the test's output, on purpose") };

    #[test]
    fn a_statement_fails_whose_function_panics() {
        let instance = Instance::register(linked_api(), "panicking-function", Home::Settings).unwrap();
        let db = Connection::open_in_memory().unwrap();
        // SAFETY: the connection is open, and the linked SQLite's.
        unsafe { register_one(instance, db.handle(), &PANICKING) }.unwrap();
        let failed = db.query_row("SELECT panicking()", [], |row| row.get::<_, Option<String>>(0)).unwrap_err();
        assert_eq!(failed.sqlite_error().map(|error| error.extended_code), Some(ffi::SQLITE_ERROR));
        let said = failed.to_string();
        assert!(said.contains("a bug in Quire: seen in the test's output"), "{said}");
    }
}
