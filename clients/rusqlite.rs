//! The client scenario in rusqlite, with a SQLite linked statically that knows
//! nothing of Quire: `client-rusqlite EXTENSION NAME ROLE` (see README.md).

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rusqlite::Connection;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [extension, name, role] = arguments.as_slice() else {
        bail!("usage: client-rusqlite EXTENSION NAME ROLE");
    };
    let loader = Connection::open_in_memory()?;
    // SAFETY: the caller names the extension under test, which is trusted code.
    unsafe {
        loader.load_extension_enable()?;
        loader.load_extension(extension, None::<&str>)?;
    }
    let mut db = Connection::open(format!("file:{name}?vfs=quire"))?;
    db.busy_timeout(Duration::from_secs(5))?;
    ensure!(text(&db, "SELECT group_concat(name) FROM quire_status")? == *name, "the volume is not open");
    match role.as_str() {
        "write" => write(&mut db)?,
        "clone" => clone(&db)?,
        "append" => append(&db)?,
        "pull" => pull(&db)?,
        other => bail!("unknown role: {other}"),
    }
    ensure!(text(&db, "PRAGMA integrity_check")? == "ok", "the volume is damaged");
    db.close().map_err(|(_, error)| error.into())
}

fn write(db: &mut Connection) -> Result<()> {
    db.execute("CREATE TABLE track(id INTEGER PRIMARY KEY, title TEXT NOT NULL, seconds REAL)", [])?;
    let transaction = db.transaction()?;
    for i in 1..=1000 {
        let track = (i, format!("Track {i}"), f64::from(i) / 4.0);
        transaction.prepare_cached("INSERT INTO track VALUES(?, ?, ?)")?.execute(track)?;
    }
    transaction.commit()?;
    let transaction = db.transaction()?;
    transaction.execute("DELETE FROM track", [])?;
    ensure_tracks(&transaction, 0, None)?;
    transaction.rollback()?;
    ensure_tracks(db, 1000, Some(125_125.0))?;
    ensure!(text(db, "SELECT state FROM quire_status")? == "ahead", "commits are not waiting for a push");
    println!("{}", text(db, "SELECT quire_push()")?);
    ensure!(text(db, "SELECT state FROM quire_status")? == "clean", "the push left something");
    Ok(())
}

fn clone(db: &Connection) -> Result<()> {
    ensure_tracks(db, 1000, Some(125_125.0))?;
    ensure!(text(db, "SELECT title FROM track WHERE id = 500")? == "Track 500", "a wrong row");
    Ok(())
}

fn append(db: &Connection) -> Result<()> {
    db.execute("INSERT INTO track VALUES(?, ?, ?)", (1001, "Coda", 61.5))?;
    ensure_tracks(db, 1001, Some(125_186.5))?;
    println!("{}", text(db, "SELECT quire_push()")?);
    Ok(())
}

fn pull(db: &Connection) -> Result<()> {
    ensure_tracks(db, 1000, Some(125_125.0))?;
    println!("{}", text(db, "SELECT quire_pull()")?);
    ensure_tracks(db, 1001, Some(125_186.5))
}

fn text(db: &Connection, sql: &str) -> Result<String> {
    Ok(db.query_row(sql, [], |row| row.get(0))?)
}

fn ensure_tracks(db: &Connection, count: i64, seconds: Option<f64>) -> Result<()> {
    let sql = "SELECT count(*), sum(seconds) FROM track";
    let got: (i64, Option<f64>) = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    ensure!(got == (count, seconds), "tracks: got {got:?}, wanted {:?}", (count, seconds));
    Ok(())
}
