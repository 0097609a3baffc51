//! The phases, in their order; each is the whole life of one worker process.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::contender::{self, Contender};
use crate::{Metrics, data, machine};

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Commits,
    Bulk,
    Open,
    Lookups,
    Scan,
    Push,
    SmallPushes,
    Clone,
    ColdScan,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) rows: i64,
    commits: i64,
    lookups: i64,
    small_pushes: i64,
}

impl Sizes {
    pub(crate) fn of_rows(rows: i64) -> Sizes {
        Sizes { rows, commits: (rows / 25).max(1), lookups: (rows / 5).max(1), small_pushes: 50 }
    }
}

impl Phase {
    pub(crate) const ALL: [Phase; 9] = [
        Phase::Commits,
        Phase::Bulk,
        Phase::Open,
        Phase::Lookups,
        Phase::Scan,
        Phase::Push,
        Phase::SmallPushes,
        Phase::Clone,
        Phase::ColdScan,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Commits => "commits",
            Phase::Bulk => "bulk",
            Phase::Open => "open",
            Phase::Lookups => "lookups",
            Phase::Scan => "scan",
            Phase::Push => "push",
            Phase::SmallPushes => "small-pushes",
            Phase::Clone => "clone",
            Phase::ColdScan => "cold-scan",
        }
    }

    /// Pushing and cloning concern those that push. With syncs only the
    /// commits differ enough to be worth the time.
    pub(crate) fn concerns(self, contender: &Contender) -> bool {
        let synced = [contender::PLAIN_SYNCED, contender::QUIRE_SYNCED].contains(&contender.name.as_str());
        match self {
            Phase::Commits => true,
            Phase::Bulk | Phase::Open | Phase::Lookups | Phase::Scan => !synced,
            Phase::Push | Phase::SmallPushes | Phase::Clone | Phase::ColdScan => !synced && contender.push.is_some(),
        }
    }
}

/// Everything that a worker needs, as its argument.
pub(crate) fn job(phase: Phase, contender: &Contender, sizes: &Sizes, folder: &Path) -> String {
    let (extension, vfs) = contender.vfs.clone().unzip();
    json!({
        "phase": phase.name(), "name": contender.name, "extension": extension, "vfs": vfs,
        "setup": contender.setup, "push": contender.push, "folder": folder, "rows": sizes.rows,
    })
    .to_string()
}

/// A worker's whole life: one phase, whose metrics it prints.
pub(crate) fn work(job: &str) -> Result<()> {
    let job: Value = serde_json::from_str(job)?;
    let text = |key: &str| job[key].as_str().map(str::to_owned);
    let contender = Contender {
        name: text("name").context("no name")?,
        vfs: text("extension").map(PathBuf::from).zip(text("vfs")),
        setup: text("setup").context("no setup")?,
        push: text("push"),
    };
    let wanted = text("phase").context("no phase")?;
    let phase = Phase::ALL.into_iter().find(|phase| phase.name() == wanted).context("an unknown phase")?;
    let folder = PathBuf::from(text("folder").context("no folder")?);
    let local = contender.local_folder(phase, &folder);
    std::fs::create_dir_all(&local)?;
    contender.load()?;
    let bench = Bench {
        contender,
        local,
        store: folder.join("store"),
        sizes: Sizes::of_rows(job["rows"].as_i64().context("no rows")?),
    };
    let metrics = match phase {
        Phase::Commits => bench.commits(),
        Phase::Bulk => bench.bulk(),
        Phase::Open => bench.open(),
        Phase::Lookups => bench.lookups(),
        Phase::Scan => bench.scan(),
        Phase::Push => bench.push(),
        Phase::SmallPushes => bench.small_pushes(),
        Phase::Clone => bench.clone_first_row(),
        Phase::ColdScan => bench.cold_scan(),
    }?;
    println!("{}", serde_json::to_string(&metrics)?);
    Ok(())
}

struct Bench {
    contender: Contender,
    /// The data directory.
    local: PathBuf,
    store: PathBuf,
    sizes: Sizes,
}

impl Bench {
    fn connect(&self) -> Result<Connection> {
        self.contender.open(&self.local)
    }

    /// One-row transactions, one after the other, in a database of their own.
    fn commits(&self) -> Result<Metrics> {
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
    fn bulk(&self) -> Result<Metrics> {
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
    fn open(&self) -> Result<Metrics> {
        let seconds = timed(|| {
            let db = self.connect()?;
            self.look_up(&db, self.sizes.rows / 2)
        })?;
        Ok(metrics([("open ms", seconds * 1000.0)]))
    }

    /// Single rows by key, all pages local, a SQLite cache too small to help.
    fn lookups(&self) -> Result<Metrics> {
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
    fn scan(&self) -> Result<Metrics> {
        let db = self.warm()?;
        let seconds = timed(|| self.scan_all(&db))?;
        Ok(metrics([("scan MiB/s", database_bytes(&db)? / seconds / 1_048_576.0)]))
    }

    /// Everything to an empty store.
    fn push(&self) -> Result<Metrics> {
        let db = self.connect()?;
        self.look_up(&db, 1)?;
        let before = machine::memory_mib("VmRSS")?;
        let seconds = timed(|| self.push_now(&db))?;
        let memory = machine::memory_mib("VmHWM")? - before;
        let stored = machine::file_bytes(&self.store)? as f64 / 1_048_576.0;
        Ok(metrics([("push s", seconds), ("push peak MiB", memory), ("stored MiB", stored)]))
    }

    /// One-row updates, each pushed by itself.
    fn small_pushes(&self) -> Result<Metrics> {
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
    fn clone_first_row(&self) -> Result<Metrics> {
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
    fn cold_scan(&self) -> Result<Metrics> {
        let db = self.connect()?;
        let seconds = timed(|| self.scan_all(&db))?;
        Ok(metrics([("cold scan MiB/s", database_bytes(&db)? / seconds / 1_048_576.0)]))
    }

    /// A connection with a small cache, after every page was read once.
    fn warm(&self) -> Result<Connection> {
        let db = self.connect()?;
        db.execute_batch("PRAGMA cache_size = -200")?;
        self.scan_all(&db)?;
        Ok(db)
    }

    fn look_up(&self, db: &Connection, id: i64) -> Result<()> {
        let text: String = db.query_row("SELECT x FROM t WHERE id = ?", [id], |row| row.get(0))?;
        ensure!(text.len() == 100, "row {id} is {text:?}");
        Ok(())
    }

    fn scan_all(&self, db: &Connection) -> Result<()> {
        let sql = "SELECT count(*), sum(length(x)) FROM t";
        let (count, length): (i64, i64) = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        ensure!(count == self.sizes.rows && length == 100 * count, "{count} rows with {length} bytes");
        Ok(())
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

fn database_bytes(db: &Connection) -> Result<f64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let bytes: i64 = db.query_row(sql, [], |row| row.get(0))?;
    Ok(bytes as f64)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

fn metrics<const N: usize>(values: [(&str, f64); N]) -> Metrics {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
