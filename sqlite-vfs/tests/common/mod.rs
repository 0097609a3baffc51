//! Two data directories over one store, and connections to volumes in them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quire_bucket::Bucket;
use quire_engine::Engine;
use quire_serve::{CacheOptions, Server};
use quire_settings::{Key, Overrides, Settings, Source};
use quire_testkit::S3Server;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// What all tests of one process share; each uses volumes of its own.
pub struct House {
    pub dir: TempDir,
    pub here: Engine,
    pub there: Engine,
}

static HOUSE: OnceLock<House> = OnceLock::new();

// SAFETY: it is declared as in C's <stdlib.h>.
unsafe extern "C" {
    /// Calls a function when the process ends by itself.
    safe fn atexit(call: extern "C" fn()) -> std::ffi::c_int;
}

/// What is static is never dropped, and so the folder's guard does nothing.
extern "C" fn remove_house() {
    if let Some(house) = HOUSE.get() {
        // A folder that cannot be removed is no failure of a test.
        let _ = std::fs::remove_dir_all(house.dir.path());
    }
}

pub fn house() -> &'static House {
    HOUSE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let folder = format!("file://{}", dir.path().join("store").display());
        let store = match std::env::var("QUIRE_TEST_SERVED").as_deref() {
            Ok("s3") => {
                let s3 = S3Server::shared();
                served(&s3.url("served"), Some(s3.variables()))
            }
            Ok(_) => served(&folder, None),
            Err(_) => folder,
        };
        let here = engine(&dir.path().join("here"), &store);
        let there = engine(&dir.path().join("there"), &store);
        quire_sqlite::register_linked(here.clone()).unwrap();
        quire_sqlite::register_linked_as("quire-there", there.clone()).unwrap();
        assert_eq!(atexit(remove_house), 0, "the folder of the tests would stay behind");
        House { dir, here, there }
    })
}

fn engine(data_dir: &Path, store: &str) -> Engine {
    let overrides = Overrides::default().with(Key::DataDir, data_dir.to_str(), Source::Flag("--data-dir"));
    quire_settings::open_engine(&settings(overrides, store)).unwrap()
}

fn settings(overrides: Overrides, store: &str) -> Settings {
    quire_settings::load(&overrides.with(Key::Store, Some(store), Source::Flag("--store"))).unwrap()
}

/// A server of a store, until the process ends. Credentials are among the variables.
fn served(store: &str, variables: Option<Vec<(String, String)>>) -> String {
    let bucket = Bucket::open_with(store, quire_bucket::Options { variables, ..Default::default() }).unwrap();
    let server = Server::bind(quire_serve::Options {
        poll_interval: Duration::from_millis(50),
        cache: CacheOptions { memory_bytes: 64 << 20, disk: None },
        ..quire_serve::Options::new(
            Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
            Arc::new(quire_pagestore::Embedded::new(bucket)),
        )
    })
    .unwrap();
    let url = format!("http://{}", server.address());
    std::thread::spawn(move || server.run().unwrap());
    url
}

/// A connection to a volume in the first data directory.
pub fn open(name: &str) -> Connection {
    open_with(name, "vfs=quire").unwrap()
}

/// The same volume in the other data directory.
pub fn open_there(name: &str) -> Connection {
    open_with(name, "vfs=quire-there").unwrap()
}

/// With URI parameters of its own. It does not wait for locks, so that tests see them.
pub fn open_with(name: &str, parameters: &str) -> rusqlite::Result<Connection> {
    house();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(format!("file:{name}?{parameters}"), flags)?;
    db.busy_timeout(Duration::ZERO)?;
    Ok(db)
}

/// The one value that a statement gives, as text; NULL is "NULL".
pub fn one(db: &Connection, sql: &str) -> String {
    try_one(db, sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

pub fn try_one(db: &Connection, sql: &str) -> rusqlite::Result<String> {
    use rusqlite::types::ValueRef;
    db.query_row(sql, [], |row| {
        Ok(match row.get_ref(0)? {
            ValueRef::Null => "NULL".to_owned(),
            ValueRef::Integer(n) => n.to_string(),
            ValueRef::Real(x) => x.to_string(),
            ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
        })
    })
}

pub fn run(db: &Connection, sql: &str) {
    db.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// The extended code and message of a statement that fails.
pub fn error(db: &Connection, sql: &str) -> (i32, String) {
    match db.execute_batch(sql) {
        Ok(()) => panic!("{sql}: it did not fail"),
        Err(rusqlite::Error::SqliteFailure(e, message)) => (e.extended_code, message.unwrap_or_default()),
        Err(e) => panic!("{sql}: {e}"),
    }
}

/// Everything in the database, as one text: equal texts are equal databases.
pub fn dump(db: &Connection) -> String {
    let mut out = String::new();
    let tables = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut tables = db.prepare(tables).unwrap();
    let names: Vec<(String, String)> =
        tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    for (name, sql) in names {
        out.push_str(&format!("{sql}\n"));
        if sql.starts_with("CREATE VIRTUAL") {
            continue;
        }
        let mut rows = db.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..columns).map(|n| format!("{:?}", row.get_ref(n).unwrap())).collect();
            out.push_str(&format!("{}\n", values.join("|")));
        }
    }
    out
}

/// Rows for a table `t(id, body)`, some of them longer than a page.
pub fn fill(db: &Connection, rows: u32) {
    run(
        db,
        &format!(
            "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body BLOB);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO t(body) SELECT randomblob(50 + (i % 17 = 0) * 9000) FROM n;"
        ),
    );
}
