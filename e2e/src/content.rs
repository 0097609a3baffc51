//! What a database holds, whatever its pages look like.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::app::App;

/// Each table with the number of its rows and the digest of all values in
/// them, in order; the schema; the pragmas that travel with a file.
pub type Content = BTreeMap<String, (u64, u64)>;

const PRAGMAS: [&str; 5] = ["page_size", "auto_vacuum", "user_version", "application_id", "encoding"];

/// Reads a whole database, which must be sound.
pub fn content(path: &Path) -> Content {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = Connection::open_with_flags(path, flags).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok", "{}", path.display());
    let mut queries = vec![("schema".to_owned(), "SELECT type, name, tbl_name, sql FROM sqlite_schema".to_owned())];
    queries.extend(PRAGMAS.map(|pragma| (format!("PRAGMA {pragma}"), format!("PRAGMA {pragma}"))));
    let mut tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    for table in tables.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        let table = table.unwrap();
        queries.push((format!("table {table}"), format!("SELECT * FROM \"{table}\"")));
    }
    queries.into_iter().map(|(name, sql)| (name, digest(&db, &sql))).collect()
}

/// Reads a whole database through a program that has it open as `schema`; it must be sound. A value counts by its text.
#[track_caller]
pub fn content_in(app: &mut App, schema: &str) -> Content {
    assert_eq!(app.one(&format!("PRAGMA {schema}.integrity_check")), "ok");
    let mut queries =
        vec![("schema".to_owned(), format!("SELECT type, name, tbl_name, sql FROM {schema}.sqlite_schema"))];
    queries.extend(PRAGMAS.map(|pragma| (format!("PRAGMA {pragma}"), format!("PRAGMA {schema}.{pragma}"))));
    for table in app.sql(&format!("SELECT name FROM {schema}.sqlite_schema WHERE type = 'table'")) {
        queries.push((format!("table {table}"), format!("SELECT * FROM {schema}.\"{table}\"")));
    }
    let digest = |rows: Vec<String>| {
        let mut hasher = DefaultHasher::new();
        rows.hash(&mut hasher);
        (rows.len() as u64, hasher.finish())
    };
    queries.into_iter().map(|(name, sql)| (name, digest(app.sql(&sql)))).collect()
}

fn digest(db: &Connection, sql: &str) -> (u64, u64) {
    let mut statement = db.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let (mut count, mut hasher) = (0, DefaultHasher::new());
    while let Some(row) = rows.next().unwrap_or_else(|e| panic!("{sql}: {e}")) {
        count += 1;
        for column in 0..columns {
            let value = row.get_ref(column).unwrap();
            std::mem::discriminant(&value).hash(&mut hasher);
            match value {
                ValueRef::Null => {}
                ValueRef::Integer(n) => n.hash(&mut hasher),
                ValueRef::Real(x) => x.to_bits().hash(&mut hasher),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.hash(&mut hasher),
            }
        }
    }
    (count, hasher.finish())
}
