//! An ordinary SQLite program, which knows nothing of Quire: it may load an
//! extension, opens a database, and runs each line of its standard input as
//! SQL. What it answers is read by [`quire_e2e::App`].

use std::io::{BufRead, Write};

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, Error, OpenFlags, Result};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [extension, database] = words.as_slice() else {
        eprintln!("usage: quire-e2e-app EXTENSION DATABASE (an empty EXTENSION loads none)");
        std::process::exit(2);
    };
    let db = match open(extension, database) {
        Ok(db) => db,
        Err(error) => return answer(failure(&error)),
    };
    answer(String::from(".\n"));
    for line in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
        let mut rows = String::new();
        match run(&db, &line, &mut rows) {
            Ok(()) => answer(rows + ".\n"),
            Err(error) => answer(failure(&error)),
        }
    }
}

fn open(extension: &str, database: &str) -> Result<Connection> {
    if !extension.is_empty() {
        // It stays loaded when this connection is closed.
        let loader = Connection::open_in_memory()?;
        // SAFETY: whoever starts this program answers for the extension.
        unsafe {
            loader.load_extension_enable()?;
            loader.load_extension(extension, None::<&str>)?;
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(database, flags)?;
    // Whoever wants to wait for locks says so in SQL.
    db.busy_timeout(std::time::Duration::ZERO)?;
    Ok(db)
}

/// Runs all statements, and adds a line for each row that they give.
fn run(db: &Connection, sql: &str, rows: &mut String) -> Result<()> {
    let mut batch = Batch::new(db, sql);
    while let Some(mut statement) = batch.next()? {
        let columns = statement.column_count();
        let mut cursor = statement.query([])?;
        while let Some(row) = cursor.next()? {
            let values = (0..columns).map(|at| row.get_ref(at).map(text)).collect::<Result<Vec<_>>>()?;
            rows.push_str(&format!("={}\n", one_line(&values.join("|"))));
        }
    }
    Ok(())
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(x) => x.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn failure(error: &Error) -> String {
    let code = error.sqlite_error().map_or(0, |e| e.extended_code);
    format!("!{code} {}\n", one_line(&error.to_string()))
}

fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// One write: whoever kills this program reads a whole answer or none of it.
fn answer(text: String) {
    if std::io::stdout().lock().write_all(text.as_bytes()).is_err() {
        std::process::exit(1); // nobody listens any more
    }
}
