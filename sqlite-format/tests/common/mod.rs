//! Databases made by SQLite, and what SQLite itself says about their pages.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::path::PathBuf;

use std::fs::File;
use std::os::unix::fs::FileExt;

use quire_proto::{PageCount, PageIdx, PageSet, PageSize};
use quire_sqlite_format::fuzz::Image;
use quire_sqlite_format::{DatabaseHeader, Pages, Schema, read_header, read_schema};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::{Connection, ffi, params};
use tempfile::TempDir;

/// How a database is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub page_size: usize,
    pub auto_vacuum: &'static str,
    pub encoding: &'static str,
    pub reserved: u8,
}

impl Default for Layout {
    fn default() -> Self {
        Layout { page_size: 4096, auto_vacuum: "none", encoding: "UTF-8", reserved: 0 }
    }
}

/// A database file and a connection to it.
pub struct Database {
    pub sql: Connection,
    path: PathBuf,
    _dir: TempDir,
}

/// What SQLite says of a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat {
    pub name: String,
    pub kind: String,
    pub page: PageIdx,
}

impl Database {
    pub fn create(layout: Layout) -> Database {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let sql = Connection::open(&path).unwrap();
        let Layout { page_size, auto_vacuum, encoding, reserved } = layout;
        if reserved > 0 {
            let mut bytes = c_int::from(reserved);
            // SAFETY: the connection is open, "main" ends with 0, and the control takes a pointer to an int.
            let code = unsafe {
                let bytes = (&raw mut bytes).cast();
                ffi::sqlite3_file_control(sql.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_RESERVE_BYTES, bytes)
            };
            assert_eq!(code, ffi::SQLITE_OK);
        }
        sql.execute_batch(&format!(
            "PRAGMA encoding = '{encoding}'; PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum};
             PRAGMA journal_mode = memory; PRAGMA synchronous = off; PRAGMA cache_spill = off;"
        ))
        .unwrap();
        Database { sql, path, _dir: dir }
    }

    /// Tables, indexes and payloads of every kind; small pages make deep trees of them.
    pub fn fill(&mut self, seed: u64, page_size: usize) {
        let page_size = page_size as i64;
        let rng = &mut StdRng::seed_from_u64(seed);
        let sql = self.sql.transaction().unwrap();
        sql.execute_batch(
            "CREATE TABLE plain (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b BLOB);
             CREATE INDEX plain_a ON plain (a);
             CREATE TABLE keyed (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID;
             CREATE TABLE \"ünïcode 表\" (x UNIQUE, y);
             CREATE VIEW seen AS SELECT a FROM plain;
             CREATE TRIGGER noted AFTER DELETE ON plain BEGIN INSERT INTO \"ünïcode 表\" VALUES (OLD.id, OLD.a); END;
             CREATE VIRTUAL TABLE words USING fts5 (body);
             CREATE VIRTUAL TABLE boxes USING rtree (id, x0, x1, y0, y1);
             CREATE TABLE empty (a);",
        )
        .unwrap();
        // A schema row whose names lie on overflow pages.
        let long = "n".repeat(3 * page_size.min(4096) as usize);
        sql.execute_batch(&format!("CREATE TABLE {long} (a UNIQUE); INSERT INTO {long} VALUES (1)")).unwrap();
        // So many that small pages hold the schema in three levels.
        for i in 0..if page_size == 512 { 250 } else { 40 } {
            let columns: Vec<String> = (0..rng.random_range(1..40)).map(|c| format!("column_{c} TEXT")).collect();
            sql.execute_batch(&format!("CREATE TABLE many_{i} ({})", columns.join(", "))).unwrap();
        }
        for i in 0..2_500 {
            let text: String = (0..rng.random_range(1..40)).map(|_| rng.random_range('a'..='z')).collect();
            let bytes =
                if rng.random_ratio(1, 20) { rng.random_range(0..4 * page_size) } else { rng.random_range(0..90) };
            sql.execute("INSERT INTO plain (a, b) VALUES (?, zeroblob(?))", params![text, bytes]).unwrap();
            if i % 4 == 0 {
                let key_bytes = match i {
                    // So many in a row that one of them comes to lie on an interior page.
                    2_000..2_100 => page_size,
                    _ if rng.random_ratio(1, 8) => rng.random_range(0..2 * page_size),
                    _ => 60,
                };
                let key = format!("{i:09}{}", "k".repeat(key_bytes as usize));
                sql.execute("INSERT INTO keyed VALUES (?, zeroblob(?))", params![key, rng.random_range(0..30)])
                    .unwrap();
                sql.execute("INSERT INTO words VALUES (?)", [&text]).unwrap();
                sql.execute("INSERT INTO boxes VALUES (?, ?, ?, ?, ?)", params![i, i, i + 1, i * 2, i * 2 + 3])
                    .unwrap();
            }
        }
        sql.commit().unwrap();
        self.sql.execute_batch("ANALYZE").unwrap();
    }

    /// Leaves free pages, and pages in another order than they were made in.
    pub fn shrink(&self) {
        self.sql
            .execute_batch(
                "DELETE FROM plain WHERE id % 3 = 0; DELETE FROM keyed WHERE k < '000000800'; DROP TABLE words;
                 UPDATE plain SET b = zeroblob(length(b) * 2) WHERE id % 50 = 1;
                 DELETE FROM boxes WHERE id > 900; DROP TABLE many_7; DROP INDEX plain_a;",
            )
            .unwrap();
    }

    pub fn run(&self, sql: &str) {
        self.sql.execute_batch(sql).unwrap();
    }

    fn page_size(&self) -> PageSize {
        PageSize::try_new(self.number("PRAGMA page_size") as u32).unwrap()
    }

    /// The whole file, in memory.
    pub fn pages(&self) -> Image {
        Image::new(std::fs::read(&self.path).unwrap(), self.page_size())
    }

    /// The file where it is, for one that is large.
    pub fn file(&self) -> FilePages {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        FilePages { file, size: self.page_size(), reads: 0, seen: PageSet::new() }
    }

    /// Opens the file anew, as it is now.
    pub fn reopen(&mut self) {
        self.sql = Connection::open(&self.path).unwrap();
    }

    /// The pages of all B-trees as SQLite walks them: in the order of their keys.
    pub fn stat(&self) -> Vec<Stat> {
        let mut query = self.sql.prepare("SELECT name, pagetype, pageno FROM dbstat").unwrap();
        let stat = |row: &rusqlite::Row<'_>| {
            Ok(Stat { name: row.get(0)?, kind: row.get(1)?, page: PageIdx::new(row.get(2)?).unwrap() })
        };
        query.query_map([], stat).unwrap().map(Result::unwrap).collect()
    }

    /// Name, table and root of every table and index, by SQLite's own reading.
    pub fn objects(&self) -> BTreeMap<String, (String, String, u32)> {
        let sql = "SELECT name, type, tbl_name, rootpage FROM sqlite_schema WHERE rootpage > 0";
        let mut query = self.sql.prepare(sql).unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    pub fn number(&self, sql: &str) -> u64 {
        self.sql.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as u64
    }
}

/// A file as pages.
pub struct FilePages {
    pub file: File,
    size: PageSize,
    pub reads: u64,
    pub seen: PageSet,
}

impl FilePages {
    pub fn forget(&mut self) {
        self.reads = 0;
        self.seen = PageSet::new();
    }
}

impl Pages for FilePages {
    fn page_count(&self) -> PageCount {
        PageCount::of_bytes(self.file.metadata().unwrap().len(), self.size).unwrap()
    }

    fn page_size(&self) -> PageSize {
        self.size
    }

    fn read(&mut self, page: PageIdx, buf: &mut [u8]) -> quire_proto::Result<()> {
        self.reads += 1;
        self.seen.insert(page);
        self.file.read_exact_at(buf, page.offset(self.size)).unwrap();
        Ok(())
    }
}

/// The header and the schema of a database that is whole.
pub fn open(pages: &mut impl Pages) -> (DatabaseHeader, Schema) {
    let header = read_header(pages).unwrap().expect("a SQLite database");
    let schema = read_schema(pages, &header).unwrap();
    assert!(schema.damaged.is_empty(), "{:?}", schema.damaged);
    (header, schema)
}
