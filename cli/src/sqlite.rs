//! Connections of the SQLite in this binary to volumes, and its errors.

use std::sync::OnceLock;

use quire_engine::{Engine, Error, ErrorKind, Lsn, Result, VolumeName};
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Opens a volume as a SQLite database, by the VFS `quire`; with `at` a snapshot of its past.
pub(crate) fn connect(engine: &Engine, name: &VolumeName, at: Option<Lsn>) -> Result<Connection> {
    static REGISTERED: OnceLock<Result<()>> = OnceLock::new();
    REGISTERED.get_or_init(|| quire_sqlite::register_linked(engine.clone())).as_ref().map_err(Error::duplicate)?;
    let at = at.map_or_else(String::new, |lsn| format!("&lsn={lsn}"));
    let uri = format!("file:{}?vfs=quire{at}", name.encoded());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).map_err(|e| volume_error(name, "opening", e))
}

/// An error of SQLite on a volume. If the engine is behind it, the engine's own
/// error says more than SQLite's code.
pub(crate) fn volume_error(name: &VolumeName, doing: &str, error: rusqlite::Error) -> Error {
    use ErrorCode::{CannotOpen, DatabaseBusy, DatabaseCorrupt, DiskFull, SystemIoFailure};
    let doing = format!("{doing} {name}");
    let cause = quire_sqlite::last_error();
    match (error.sqlite_error_code(), cause) {
        (Some(CannotOpen | DatabaseBusy | DatabaseCorrupt | DiskFull | SystemIoFailure), Some(cause)) => {
            cause.context(doing)
        }
        _ => sqlite_error(doing, error),
    }
}

/// An error of SQLite, by its code; `doing` says what was going on.
pub(crate) fn sqlite_error(doing: impl Into<String>, error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        Some(ErrorCode::DiskFull) => ErrorKind::Full,
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::AuthorizationForStatementDenied) => {
            ErrorKind::Denied
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::OutOfMemory) => ErrorKind::Io,
        _ => ErrorKind::Invalid,
    };
    let doing = doing.into();
    match error {
        // SQLite's own words; the number of its code adds nothing to them.
        rusqlite::Error::SqlInputError { msg, .. } | rusqlite::Error::SqliteFailure(_, Some(msg)) => {
            Error::new(kind, format!("{doing}: {msg}"))
        }
        error => Error::new(kind, doing).with_source(error),
    }
}
