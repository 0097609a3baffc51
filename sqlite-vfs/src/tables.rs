//! The tables: they show things, as rows.

use std::sync::Arc;

use quire_engine::{Engine, Error, LogEntry, Lsn, Result, Stats, VolumeName};

use crate::database::Glance;
use crate::instance::Instance;
use crate::rows::{Row, Table, Value};
use crate::volumes::OpenVolume;

/// All tables.
pub(crate) static TABLES: [Table; 4] = [
    Table {
        name: c"quire_status",
        columns: c"CREATE TABLE x(name TEXT, volume_id TEXT, lsn INTEGER, base_lsn INTEGER, store_lsn INTEGER, \
                   unpushed INTEGER, state TEXT, last_error TEXT, remedy TEXT, writer TEXT, pages INTEGER, \
                   page_size INTEGER, cached_pages INTEGER, store TEXT, store_name TEXT)",
        argument: None,
        rows: |_, _| all_open().iter().map(|open| Ok(status(open))).collect(),
    },
    Table {
        name: c"quire_volumes",
        columns: c"CREATE TABLE x(name TEXT, here INTEGER, in_store INTEGER)",
        argument: None,
        rows: |database, _| volumes(database),
    },
    Table {
        name: c"quire_log",
        columns: c"CREATE TABLE x(lsn INTEGER, time TEXT, pages_changed INTEGER, page_count INTEGER, bytes INTEGER, \
                   commit_id TEXT, author TEXT, hash TEXT, volume TEXT HIDDEN, schema TEXT HIDDEN)",
        argument: Some(8),
        rows: log,
    },
    Table {
        name: c"quire_stats",
        columns: c"CREATE TABLE x(pages_from_cache INTEGER, pages_fetched INTEGER, requests INTEGER, \
                   bytes_in INTEGER, bytes_out INTEGER, commits INTEGER, pushes INTEGER)",
        argument: None,
        rows: |_, _| Ok(vec![stats()]),
    },
];

/// Each volume once, also where several copies of SQLite have it open.
fn all_open() -> Vec<Arc<OpenVolume>> {
    let mut open: Vec<_> = Instance::all().iter().flat_map(|instance| instance.volumes.all()).collect();
    open.sort_by_key(|open| (open.volume.name(), Arc::as_ptr(&open.engine)));
    open.dedup_by(|a, b| a.volume.name() == b.volume.name() && Arc::ptr_eq(&a.engine, &b.engine));
    open
}

fn status(open: &OpenVolume) -> Row {
    let status = open.volume.status();
    // What a connection met last is newer than what the replica noted, or the same.
    let (last_error, remedy) = match open.last_error() {
        Some((error, remedy)) => (Some(error), remedy),
        None => (status.last_error, status.remedy),
    };
    vec![
        status.name.as_str().into(),
        status.volume_id.into(),
        status.lsn.map(Lsn::get).into(),
        status.base_lsn.map(Lsn::get).into(),
        status.store_lsn.map(Lsn::get).into(),
        status.unpushed.into(),
        status.state.as_str().into(),
        last_error.into(),
        remedy.into(),
        status.writer.into(),
        status.pages.get().into(),
        status.page_size.map(|size| size.bytes() as u64).into(),
        status.cached_pages.into(),
        status.store.into(),
        status.store_name.as_str().into(),
    ]
}

/// The engine that this connection works on, or else one that the process has open.
fn engine(database: Option<&Glance>) -> Option<Arc<Engine>> {
    let opened = || Instance::all().iter().find_map(|instance| instance.home.opened());
    database.map(|database| database.open.engine.clone()).or_else(opened)
}

/// The volumes of the engine that this connection works on. Without an answer
/// from the store it is unknown (NULL) which of them are there too.
fn volumes(database: Option<&Glance>) -> Result<Vec<Row>> {
    let Some(engine) = engine(database) else { return Ok(Vec::new()) };
    let here = engine.local_volumes()?;
    let stored = match engine.store_volumes("") {
        Ok(stored) => Some(stored),
        Err(error) => {
            tracing::warn!("listing the store's volumes: {error:?}");
            None
        }
    };
    let in_store = |name: &VolumeName| {
        let remote = engine.remote_of(name);
        stored.as_ref().map(|stored| u64::from(stored.contains(&remote)))
    };
    let mut rows: Vec<(&VolumeName, u64, Option<u64>)> = here.iter().map(|name| (name, 1, in_store(name))).collect();
    // A clone may have a name here that the store gives to another volume.
    let is_elsewhere = |name: &VolumeName| !here.contains(name) || engine.remote_of(name) != *name;
    rows.extend(stored.iter().flatten().filter(|name| is_elsewhere(name)).map(|name| (name, 0, Some(1))));
    rows.sort();
    let row = |(name, here, in_store): (&VolumeName, u64, Option<u64>)| {
        vec![name.as_str().into(), here.into(), in_store.into()]
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The log of the volume that is named, or of the connection's own.
fn log(database: Option<&Glance>, name: Option<&str>) -> Result<Vec<Row>> {
    let wrong = |problem: &str, remedy: &str| Error::invalid(format!("quire_log: {problem}")).with_remedy(remedy);
    let volume = match (name, database) {
        (Some(name), _) => {
            let engine = engine(database).ok_or_else(|| {
                wrong("this process has no data directory open", "Open a volume first, as file:NAME?vfs=quire.")
            })?;
            engine.existing(&VolumeName::parse(name)?)?
        }
        (None, Some(database)) => database.open.volume.clone(),
        (None, None) => {
            return Err(wrong(
                "the main database of this connection is not a volume",
                "Name one, quire_log('NAME'), or the attached database that is one, quire_log(NULL, 'SCHEMA').",
            ));
        }
    };
    let row = |entry: LogEntry| {
        vec![
            entry.lsn.get().into(),
            entry.stored_ms.and_then(time).into(),
            entry.pages_changed.into(),
            entry.page_count.get().into(),
            entry.bytes.into(),
            entry.commit_id.to_string().into(),
            entry.author.into(),
            entry.hash.to_string().into(),
            volume.name().as_str().into(),
        ]
    };
    Ok(volume.log()?.into_iter().map(row).collect())
}

/// A moment as RFC 3339, in UTC.
fn time(unix_ms: u64) -> Option<String> {
    let moment = jiff::Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
    Some(moment.to_string())
}

/// The sums over all engines of this process.
fn stats() -> Row {
    let mut engines: Vec<_> = all_open().iter().map(|open| open.engine.clone()).collect();
    engines.extend(Instance::all().iter().filter_map(|instance| instance.home.opened()));
    engines.sort_by_key(Arc::as_ptr);
    engines.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let stats: Vec<Stats> = engines.iter().map(|engine| engine.stats()).collect();
    let sum = |of: fn(&Stats) -> u64| Value::from(stats.iter().map(of).sum::<u64>());
    vec![
        sum(|s| s.pages_from_cache),
        sum(|s| s.pages_fetched),
        sum(|s| s.requests),
        sum(|s| s.bytes_in),
        sum(|s| s.bytes_out),
        sum(|s| s.commits),
        sum(|s| s.pushes),
    ]
}
