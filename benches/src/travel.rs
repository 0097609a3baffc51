//! The phases that go to the store and back: pushes, and replicas that begin empty.

use anyhow::{Context, Result};
use rusqlite::Connection;

use crate::phase::{Bench, database_bytes, metrics, timed};
use crate::{Metrics, data, machine};

impl Bench {
    /// Everything to an empty store.
    pub(crate) fn push(&self) -> Result<Metrics> {
        let db = self.connect()?;
        self.look_up(&db, 1)?;
        let before = machine::memory_mib("VmRSS")?;
        let seconds = timed(|| self.push_now(&db))?;
        let memory = machine::memory_mib("VmHWM")? - before;
        let stored = machine::file_bytes(&self.store)? as f64 / 1_048_576.0;
        Ok(metrics([("push s", seconds), ("push peak MiB", memory), ("stored MiB", stored)]))
    }

    /// One-row updates, each pushed by itself.
    pub(crate) fn small_pushes(&self) -> Result<Metrics> {
        let db = self.connect()?;
        self.look_up(&db, 1)?;
        let before = traffic(&db)?;
        let seconds = timed(|| {
            for i in 0..self.sizes.small_pushes {
                let id = data::scattered(i, self.sizes.rows);
                db.execute("UPDATE t SET x = ? WHERE id = ?", (data::text(-id), id))?;
                self.push_now(&db)?;
            }
            Ok(())
        })?;
        let after = traffic(&db)?;
        let each = |total: f64| total / self.sizes.small_pushes as f64;
        let mut all = metrics([("small push ms", each(seconds) * 1000.0)]);
        if let (Some(before), Some(after)) = (before, after) {
            all.insert("small push requests".to_owned(), each(after.requests - before.requests));
            all.insert("small push bytes".to_owned(), each(after.bytes_out - before.bytes_out));
        }
        Ok(all)
    }

    /// Opens by name with an empty data directory and reads one row.
    pub(crate) fn clone_first_row(&self) -> Result<Metrics> {
        let mut opened = None;
        let seconds = timed(|| {
            let db = opened.insert(self.connect()?);
            self.look_up(db, self.sizes.rows / 2)
        })?;
        let db = opened.context("not open")?;
        let mut all = metrics([("first row ms", seconds * 1000.0)]);
        if let Some(traffic) = traffic(&db)? {
            all.insert("first row requests".to_owned(), traffic.requests);
            all.insert("first row KiB".to_owned(), traffic.bytes_in / 1024.0);
        }
        Ok(all)
    }

    /// Reads the whole table while hardly any of it is local.
    pub(crate) fn cold_scan(&self) -> Result<Metrics> {
        let db = self.connect()?;
        let seconds = timed(|| self.scan_all(&db))?;
        Ok(metrics([("cold scan MiB/s", database_bytes(&db)? / seconds / 1_048_576.0)]))
    }

    fn push_now(&self, db: &Connection) -> Result<()> {
        let sql = self.contender.push.as_deref().context("nothing to push with")?;
        Ok(db.query_row(sql, [], |_| Ok(()))?)
    }
}

/// What went over the wire since the extension was loaded.
struct Traffic {
    requests: f64,
    bytes_in: f64,
    bytes_out: f64,
}

/// Quire counts its own traffic; other extensions have no such table.
fn traffic(db: &Connection) -> Result<Option<Traffic>> {
    let Ok(mut select) = db.prepare("SELECT requests, bytes_in, bytes_out FROM quire_stats") else {
        return Ok(None);
    };
    Ok(Some(
        select.query_row([], |row| {
            Ok(Traffic { requests: row.get(0)?, bytes_in: row.get(1)?, bytes_out: row.get(2)? })
        })?,
    ))
}
