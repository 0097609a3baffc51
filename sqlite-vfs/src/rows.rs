//! Read-only tables that need no CREATE: each makes all its rows when it is
//! scanned. SQLite's interface to them, once for all tables.

use std::ffi::{CStr, c_char, c_int, c_void};

use libsqlite3_sys as ffi;
use quire_engine::{ErrorKind, Result};

use crate::database::Glance;
use crate::error::{guard, guarded, remember};
use crate::functions::{glance_at, text_of};
use crate::instance::Instance;
use crate::pragmas::message;
use crate::tables::TABLES;

/// One table.
pub(crate) struct Table {
    pub(crate) name: &'static CStr,
    /// The columns, as a CREATE TABLE statement.
    pub(crate) columns: &'static CStr,
    /// The first of the two hidden columns that take the arguments of `table('NAME', 'SCHEMA')`.
    pub(crate) argument: Option<c_int>,
    /// Makes the rows for a NAME and a database: the one that SCHEMA says, or else `main`, if that is a volume.
    pub(crate) rows: fn(Option<&Glance>, Option<&str>) -> Result<Vec<Row>>,
}

/// The values of the columns.
pub(crate) type Row = Vec<Value>;

/// A value in a row.
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
}

impl From<u64> for Value {
    fn from(n: u64) -> Value {
        Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(n: u32) -> Value {
        Value::Integer(n.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// The arguments that a scan is given, as bits of its plan's number.
const NAME: c_int = 1;
const SCHEMA: c_int = 2;

/// What SQLite keeps for each table of a connection.
struct Bound {
    instance: &'static Instance,
    table: &'static Table,
}

/// A table in use by a connection.
#[repr(C)]
struct Connected {
    base: ffi::sqlite3_vtab,
    instance: &'static Instance,
    table: &'static Table,
    db: *mut ffi::sqlite3,
}

/// A scan.
#[repr(C)]
struct Cursor {
    base: ffi::sqlite3_vtab_cursor,
    rows: Vec<Row>,
    at: usize,
}

/// No `xCreate`: the tables are there by themselves.
static MODULE: ffi::sqlite3_module = ffi::sqlite3_module {
    iVersion: 0,
    xCreate: None,
    xConnect: Some(connect),
    xBestIndex: Some(best_index),
    xDisconnect: Some(disconnect),
    xDestroy: None,
    xOpen: Some(open),
    xClose: Some(close),
    xFilter: Some(filter),
    xNext: Some(next),
    xEof: Some(eof),
    xColumn: Some(column),
    xRowid: Some(rowid),
    xUpdate: None,
    xBegin: None,
    xSync: None,
    xCommit: None,
    xRollback: None,
    xFindFunction: None,
    xRename: None,
    xSavepoint: None,
    xRelease: None,
    xRollbackTo: None,
    xShadowName: None,
    xIntegrity: None,
};

/// Gives a connection the tables.
///
/// # Safety
/// `db` is an open connection of the instance's SQLite.
pub(crate) unsafe fn register(instance: &'static Instance, db: *mut ffi::sqlite3) -> Result<()> {
    // SAFETY: as the caller promises.
    TABLES.iter().try_for_each(|table| unsafe { register_one(instance, db, table) })
}

/// # Safety
/// As [`register`].
unsafe fn register_one(instance: &'static Instance, db: *mut ffi::sqlite3, table: &'static Table) -> Result<()> {
    let bound = Box::into_raw(Box::new(Bound { instance, table })).cast();
    // SAFETY: the connection is open, and `bound` is freed by `unbind` only.
    let code =
        unsafe { (instance.api.create_module_v2)(db, table.name.as_ptr(), &raw const MODULE, bound, Some(unbind)) };
    if code != ffi::SQLITE_OK {
        let name = table.name;
        return Err(quire_engine::Error::invalid(format!("SQLite refused the table {name:?} with code {code}")));
    }
    Ok(())
}

unsafe extern "C" fn unbind(bound: *mut c_void) {
    // SAFETY: SQLite gives back what `register` gave it, once.
    drop(unsafe { Box::from_raw(bound.cast::<Bound>()) });
}

// SAFETY of all functions below: SQLite calls them with what `connect` and `open`
// made, until `disconnect` and `close`, and with out pointers that it may write.

unsafe extern "C" fn connect(
    db: *mut ffi::sqlite3,
    bound: *mut c_void,
    _argc: c_int,
    _argv: *const *const c_char,
    out: *mut *mut ffi::sqlite3_vtab,
    _message: *mut *mut c_char,
) -> c_int {
    guard(ffi::SQLITE_ERROR, || {
        // SAFETY: above; `bound` is what `register` gave.
        let Bound { instance, table } = unsafe { &*bound.cast::<Bound>() };
        // SAFETY: SQLite is connecting a table of this connection.
        let code = unsafe { (instance.api.declare_vtab)(db, table.columns.as_ptr()) };
        if code == ffi::SQLITE_OK {
            let connected = Connected { base: Default::default(), instance, table, db };
            // SAFETY: above.
            unsafe { *out = Box::into_raw(Box::new(connected)).cast() };
        }
        code
    })
}

unsafe extern "C" fn disconnect(table: *mut ffi::sqlite3_vtab) -> c_int {
    // SAFETY: above.
    drop(unsafe { Box::from_raw(table.cast::<Connected>()) });
    ffi::SQLITE_OK
}

/// The one plan: make all rows, for the arguments that there are.
unsafe extern "C" fn best_index(table: *mut ffi::sqlite3_vtab, info: *mut ffi::sqlite3_index_info) -> c_int {
    guard(ffi::SQLITE_ERROR, || {
        // SAFETY: above; the constraints are as many as SQLite says, and their usages too.
        let (table, info, constraints, usages) = unsafe {
            let info = &mut *info;
            let (constraints, usages) = match info.nConstraint {
                0 => (&[][..], &mut [][..]),
                count => (
                    std::slice::from_raw_parts(info.aConstraint, count as usize),
                    std::slice::from_raw_parts_mut(info.aConstraintUsage, count as usize),
                ),
            };
            ((*table.cast::<Connected>()).table, info, constraints, usages)
        };
        info.estimatedCost = 1000.0;
        let mut given = 0;
        for (column, bit) in table.argument.into_iter().flat_map(|first| [(first, NAME), (first + 1, SCHEMA)]) {
            let at = constraints.iter().position(|constraint| {
                constraint.iColumn == column && c_int::from(constraint.op) == ffi::SQLITE_INDEX_CONSTRAINT_EQ
            });
            let Some(at) = at else { continue };
            if constraints[at].usable == 0 {
                return ffi::SQLITE_CONSTRAINT;
            }
            given += 1;
            usages[at].argvIndex = given;
            usages[at].omit = 1;
            info.idxNum |= bit;
            info.estimatedCost = 100.0;
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn open(_table: *mut ffi::sqlite3_vtab, out: *mut *mut ffi::sqlite3_vtab_cursor) -> c_int {
    let cursor = Cursor { base: Default::default(), rows: Vec::new(), at: 0 };
    // SAFETY: above.
    unsafe { *out = Box::into_raw(Box::new(cursor)).cast() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
    // SAFETY: above.
    drop(unsafe { Box::from_raw(cursor.cast::<Cursor>()) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn filter(
    cursor: *mut ffi::sqlite3_vtab_cursor,
    plan: c_int,
    _text: *const c_char,
    argc: c_int,
    argv: *mut *mut ffi::sqlite3_value,
) -> c_int {
    guard(ffi::SQLITE_ERROR, || {
        // SAFETY: above; SQLite has set the cursor's table, and the arguments are as many as it says.
        let (cursor, connected, values) = unsafe {
            let cursor = &mut *cursor.cast::<Cursor>();
            let connected = &mut *cursor.base.pVtab.cast::<Connected>();
            let values = if argc > 0 { std::slice::from_raw_parts(argv, argc as usize) } else { &[] };
            (cursor, connected, values)
        };
        let api = &connected.instance.api;
        let mut values = values.iter();
        let mut argument = |bit: c_int| {
            let value = if plan & bit == 0 { None } else { values.next() };
            // SAFETY: the value is one of this scan.
            value.map_or(Ok(None), |value| unsafe { text_of(api, *value) })
        };
        let rows = guarded(|| {
            let (name, schema) = (argument(NAME)?, argument(SCHEMA)?);
            // SAFETY: the connection is running this scan.
            let database = unsafe {
                match schema {
                    Some(schema) => Some(glance_at(api, connected.db, &schema)?),
                    None => match glance_at(api, connected.db, "main") {
                        // In a fork's child nothing is looked at.
                        Err(e) if e.kind() == ErrorKind::Denied => return Err(e),
                        found => found.ok(),
                    },
                }
            };
            (connected.table.rows)(database.as_ref(), name.as_deref())
        });
        match rows {
            Ok(rows) => {
                (cursor.rows, cursor.at) = (rows, 0);
                ffi::SQLITE_OK
            }
            Err(error) => {
                // SQLite frees the message, and gives it to the user.
                connected.base.zErrMsg = api.text(&message(&error));
                remember(api, ffi::SQLITE_ERROR, error);
                ffi::SQLITE_ERROR
            }
        }
    })
}

unsafe extern "C" fn next(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
    // SAFETY: above.
    unsafe { (*cursor.cast::<Cursor>()).at += 1 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn eof(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
    // SAFETY: above.
    let cursor = unsafe { &*cursor.cast::<Cursor>() };
    (cursor.at >= cursor.rows.len()).into()
}

unsafe extern "C" fn column(
    cursor: *mut ffi::sqlite3_vtab_cursor,
    context: *mut ffi::sqlite3_context,
    column: c_int,
) -> c_int {
    guard(ffi::SQLITE_ERROR, || {
        // SAFETY: above; SQLite copies the text before the call returns.
        unsafe {
            let cursor = &*cursor.cast::<Cursor>();
            let api = &(*cursor.base.pVtab.cast::<Connected>()).instance.api;
            match cursor.rows.get(cursor.at).and_then(|row| row.get(column as usize)) {
                Some(Value::Integer(n)) => (api.result_int64)(context, *n),
                Some(Value::Text(text)) => {
                    let (start, len) = (text.as_ptr().cast(), text.len() as u64);
                    (api.result_text64)(context, start, len, ffi::SQLITE_TRANSIENT(), ffi::SQLITE_UTF8 as u8);
                }
                Some(Value::Null) | None => (api.result_null)(context),
            }
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn rowid(cursor: *mut ffi::sqlite3_vtab_cursor, out: *mut i64) -> c_int {
    // SAFETY: above.
    unsafe { *out = (*cursor.cast::<Cursor>()).at as i64 };
    ffi::SQLITE_OK
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::home::Home;
    use crate::linked::linked_api;

    static PANICKING: Table = Table {
        name: c"panicking",
        columns: c"CREATE TABLE x(n INTEGER)",
        argument: None,
        rows: |_, _| panic!("seen in the test's output, on purpose"),
    };

    #[test]
    fn a_statement_fails_whose_table_panics() {
        let instance = Instance::register(linked_api(), "panicking-table", Home::Settings).unwrap();
        let db = Connection::open_in_memory().unwrap();
        // SAFETY: the connection is open, and the linked SQLite's.
        unsafe { register_one(instance, db.handle(), &PANICKING) }.unwrap();
        let failed = db.query_row("SELECT count(*) FROM panicking", [], |row| row.get::<_, i64>(0)).unwrap_err();
        let said = failed.to_string();
        assert!(said.contains("a bug in Quire: seen in the test's output"), "{said}");
    }
}
