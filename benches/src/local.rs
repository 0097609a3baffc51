//! The phases of local work: no store is touched.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use rusqlite::Connection;

use crate::phase::{Bench, database_bytes, metrics, timed};
use crate::{Metrics, data, machine};

/// What is in the log when the process of phase `crash` ends.
const CRASH_BYTES: i64 = 64 << 20;

/// How long the threads of phase `together` read.
const READING_TIME: Duration = Duration::from_secs(2);

impl Bench {
    /// One-row transactions, one after the other, in a database of their own.
    pub(crate) fn commits(&self) -> Result<Metrics> {
        let db = self.connect()?;
        db.execute_batch(data::SCHEMA)?;
        let mut insert = db.prepare("INSERT INTO t VALUES(?, ?)")?;
        let seconds = timed(|| {
            for id in 1..=self.sizes.commits {
                insert.execute((id, data::text(id)))?;
            }
            Ok(())
        })?;
        let count: i64 = db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
        ensure!(count == self.sizes.commits, "{count} rows instead of {}", self.sizes.commits);
        Ok(metrics([("commits/s", self.sizes.commits as f64 / seconds)]))
    }

    /// All rows in one transaction.
    pub(crate) fn bulk(&self) -> Result<Metrics> {
        let mut db = self.connect()?;
        let before = machine::memory_mib("VmRSS")?;
        let seconds = timed(|| {
            let transaction = db.transaction()?;
            transaction.execute_batch(data::SCHEMA)?;
            let mut insert = transaction.prepare("INSERT INTO t VALUES(?, ?)")?;
            for id in 1..=self.sizes.rows {
                insert.execute((id, data::text(id)))?;
            }
            drop(insert);
            Ok(transaction.commit()?)
        })?;
        let memory = machine::memory_mib("VmHWM")? - before;
        let size = database_bytes(&db)?;
        db.close().map_err(|(_, error)| error)?;
        let disk = machine::disk_bytes(&self.local)? as f64 / size;
        Ok(metrics([("bulk rows/s", self.sizes.rows as f64 / seconds), ("bulk peak MiB", memory), ("bulk disk", disk)]))
    }

    /// From nothing to the first row, in a process that has the extension loaded.
    pub(crate) fn open(&self) -> Result<Metrics> {
        let seconds = timed(|| {
            let db = self.connect()?;
            self.look_up(&db, self.sizes.rows / 2)
        })?;
        Ok(metrics([("open ms", seconds * 1000.0)]))
    }

    /// Single rows by key, all pages local, a SQLite cache too small to help.
    pub(crate) fn lookups(&self) -> Result<Metrics> {
        let db = self.warm()?;
        let mut select = db.prepare("SELECT x FROM t WHERE id = ?")?;
        let seconds = timed(|| {
            for i in 0..self.sizes.lookups {
                let id = data::scattered(i, self.sizes.rows);
                let length: usize = select.query_row([id], |row| Ok(row.get_ref(0)?.as_str()?.len()))?;
                ensure!(length == 100, "row {id} is {length} long");
            }
            Ok(())
        })?;
        Ok(metrics([("lookups/s", self.sizes.lookups as f64 / seconds)]))
    }

    /// The whole table, all pages local, a SQLite cache too small to help.
    pub(crate) fn scan(&self) -> Result<Metrics> {
        let db = self.warm()?;
        let seconds = timed(|| self.scan_all(&db))?;
        Ok(metrics([("scan MiB/s", database_bytes(&db)? / seconds / 1_048_576.0)]))
    }

    /// One-row transactions all over the table.
    pub(crate) fn updates(&self) -> Result<Metrics> {
        let db = self.connect()?;
        let mut update = db.prepare("UPDATE t SET x = ? WHERE id = ?")?;
        let seconds = timed(|| {
            for i in 0..self.sizes.updates {
                update.execute((data::text(-i), data::scattered(-i, self.sizes.rows)))?;
            }
            Ok(())
        })?;
        Ok(metrics([("updates/s", self.sizes.updates as f64 / seconds)]))
    }

    /// Eight threads that read, alone and then beside one that writes.
    pub(crate) fn together(&self) -> Result<Metrics> {
        let alone = self.reads_in_a_while(8, READING_TIME, false)?;
        let beside = self.reads_in_a_while(8, READING_TIME, true)?;
        Ok(metrics([("reads beside a writer", beside / alone)]))
    }

    /// How many rows so many threads look up.
    pub(crate) fn reads_in_a_while(&self, readers: usize, time: Duration, with_writer: bool) -> Result<f64> {
        let stop = AtomicBool::new(false);
        let work_until_stopped = |step: &dyn Fn(&Connection, i64) -> Result<()>| -> Result<i64> {
            let db = self.connect()?;
            db.busy_timeout(Duration::from_secs(10))?;
            let mut steps = 0;
            while !stop.load(Ordering::Relaxed) {
                step(&db, steps)?;
                steps += 1;
            }
            Ok(steps)
        };
        let read = |db: &Connection, i| self.look_up(db, data::scattered(i, self.sizes.rows));
        let write = |db: &Connection, i| {
            let id = data::scattered(i, self.sizes.rows);
            db.prepare_cached("UPDATE t SET x = ? WHERE id = ?")?.execute((data::text(-id), id))?;
            Ok(())
        };
        thread::scope(|scope| {
            let readers: Vec<_> = (0..readers).map(|_| scope.spawn(|| work_until_stopped(&read))).collect();
            let writer = with_writer.then(|| scope.spawn(|| work_until_stopped(&write)));
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            let ended = "a thread panicked";
            writer.map(|writer| writer.join().map_err(|_| anyhow!(ended))?).transpose()?;
            let reads = readers.into_iter().map(|reader| reader.join().map_err(|_| anyhow!(ended))?);
            Ok(reads.sum::<Result<i64>>()? as f64)
        })
    }

    /// Leaves 64 MiB of committed work behind without closing anything.
    pub(crate) fn crash(&self) -> Result<Metrics> {
        let db = self.connect()?;
        // Plain SQLite must not tidy up either.
        db.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
        db.execute_batch(data::SCHEMA)?;
        let rows = CRASH_BYTES / 100;
        for first in (0..rows).step_by(1000) {
            db.execute_batch("BEGIN")?;
            let mut insert = db.prepare_cached("INSERT INTO t VALUES(?, ?)")?;
            for id in first..rows.min(first + 1000) {
                insert.execute((id, data::text(id)))?;
            }
            db.execute_batch("COMMIT")?;
        }
        // The process ends with the connection open.
        std::mem::forget(db);
        Ok(Metrics::new())
    }

    /// Opens what `crash` left, and reads one row.
    pub(crate) fn recover(&self) -> Result<Metrics> {
        let seconds = timed(|| self.look_up(&self.connect()?, CRASH_BYTES / 200))?;
        Ok(metrics([("recover ms", seconds * 1000.0)]))
    }

    /// As many one-row updates as there are rows, of the same 1,000 rows, and never a push.
    pub(crate) fn churn(&self) -> Result<Metrics> {
        let db = self.connect()?;
        db.execute_batch(data::SCHEMA)?;
        let mut insert = db.prepare("INSERT INTO t VALUES(?, ?)")?;
        for id in 1..=1000 {
            insert.execute((id, data::text(id)))?;
        }
        let mut update = db.prepare("UPDATE t SET x = ? WHERE id = ?")?;
        for i in 0..self.sizes.rows {
            let id = data::scattered(i, 1000);
            update.execute((data::text(i), id))?;
        }
        let beyond = machine::disk_bytes(&self.local)? as f64 - 2.0 * database_bytes(&db)?;
        Ok(metrics([("churn MiB", beyond / 1_048_576.0)]))
    }

    /// A connection with a small cache, after every page was read once.
    fn warm(&self) -> Result<Connection> {
        let db = self.connect()?;
        db.execute_batch("PRAGMA cache_size = -200")?;
        self.scan_all(&db)?;
        Ok(db)
    }
}
