//! `import` of a SQLite database, which may be in use.
//!
//! SQLite's backup API copies it page by page into the volume, so the page size
//! stays and nothing is held in memory. The source is read in one transaction:
//! the copy is one state of it and ends however busy its writers are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quire_engine::{Error, ErrorKind, Result, Volume};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::context::Context;
use crate::interrupt::Checkpoints;
use crate::progress::Progress;
use crate::sqlite::{self, sqlite_error};
use crate::stop::{Outcome, Stop};

/// How often the source is tried while another program has it locked, at least 10 s in all.
const TRIES: i32 = 10_000;
/// The pause between two tries. SQLite's own pauses grow to 100 ms: a program that writes without
/// a rest leaves gaps far shorter than that, and a reader would hardly ever hit one.
const PAUSE: Duration = Duration::from_millis(1);
/// How many pages are copied between two looks at Ctrl-C.
const STEP_PAGES: i32 = 256;

/// Copies the database in `path` into an empty volume, in one commit.
pub(crate) fn import_database(ctx: &Context, path: &Path, volume: &Volume) -> Outcome {
    let source = open_source(path)?;
    let engine = ctx.engine()?;
    let name = volume.name();
    let failed = |e| sqlite::volume_error(&name, &format!("importing {} into", path.display()), e);
    let mut target = sqlite::connect(engine, &name, None)?;
    let interrupted = Checkpoints::new();
    let mut progress = Progress::new(format!("importing {name}"));
    let page_size: u32 = source.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed)?;

    let backup = Backup::new(&source, &mut target).map_err(failed)?;
    loop {
        interrupted.check()?;
        let step = backup.step(STEP_PAGES).map_err(failed)?;
        let pages = backup.progress();
        let bytes = |pages: i32| u64::try_from(pages).unwrap_or(0) * u64::from(page_size);
        progress.bytes(bytes(pages.pagecount - pages.remaining), bytes(pages.pagecount));
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            // The source's transaction is open already, so it is the volume that somebody writes to.
            _ => {
                return Err(Stop::Failed(
                    Error::new(ErrorKind::Busy, format!("volume {name} is being written to"))
                        .with_remedy("Nothing was imported; try again, or choose another name."),
                ));
            }
        }
    }
}

/// Opens the source, and begins the transaction of the copy.
fn open_source(path: &Path) -> Result<Connection> {
    let explain = |e: rusqlite::Error| explain(path, e);
    // Reading only: nothing is rolled back or checkpointed in a file that is not ours. But a
    // write-ahead log that SQLite makes for a reader stays behind unless the reader may write.
    let access = match logs_beside(path).iter().any(|log| log.exists()) {
        true => OpenFlags::SQLITE_OPEN_READ_ONLY,
        false => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    // Not as a URI: '?' and '%' may stand in a file's name.
    let mut source = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(explain)?;
    source.busy_handler(Some(try_again)).map_err(explain)?;
    source.execute_batch("BEGIN").map_err(explain)?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map_err(explain)?;
    Ok(source)
}

fn try_again(tries: i32) -> bool {
    std::thread::sleep(PAUSE);
    tries < TRIES
}

/// Where the write-ahead log and the journal of the database in `path` lie, if it has any.
pub(crate) fn logs_beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-journal"].map(|suffix| {
        let mut log = path.as_os_str().to_owned();
        log.push(suffix);
        log.into()
    })
}

fn explain(path: &Path, error: rusqlite::Error) -> Error {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::invalid(format!("{path} begins like a SQLite database but is none, or is damaged"))
                .with_source(error)
                .with_remedy("Nothing was imported. To take its bytes as they are: quire import --bytes")
        }
        Some(ErrorCode::DatabaseBusy) => sqlite_error(format!("{path} is locked by another program"), error)
            .with_remedy("Nothing was imported; try again once that program's transaction has ended."),
        Some(ErrorCode::ReadOnly) => Error::new(
            ErrorKind::Denied,
            format!("{path} was left in the middle of a transaction, which has to be rolled back in the file first"),
        )
        .with_source(error)
        .with_remedy("Open it once with the program that owns it or with sqlite3, then import it again."),
        Some(ErrorCode::CannotOpen) => sqlite_error(format!("{path} can not be opened as a database"), error)
            .with_remedy("Import a copy from a folder that you may write, with its -wal file if it has one."),
        _ => sqlite_error(format!("reading {path}"), error),
    }
}
