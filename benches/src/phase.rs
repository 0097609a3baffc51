//! The phases, in their order; each is the whole life of one worker process.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::Metrics;
use crate::contender::{self, Contender};

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Commits,
    Bulk,
    Open,
    Lookups,
    Scan,
    Together,
    Crash,
    Recover,
    Churn,
    Push,
    SmallPushes,
    Clone,
    ColdScan,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) rows: i64,
    pub(crate) commits: i64,
    pub(crate) lookups: i64,
    pub(crate) small_pushes: i64,
}

impl Sizes {
    pub(crate) fn of_rows(rows: i64) -> Sizes {
        Sizes { rows, commits: (rows / 25).max(1), lookups: (rows / 5).max(1), small_pushes: 50 }
    }
}

impl Phase {
    pub(crate) const ALL: [Phase; 13] = [
        Phase::Commits,
        Phase::Bulk,
        Phase::Open,
        Phase::Lookups,
        Phase::Scan,
        Phase::Together,
        Phase::Crash,
        Phase::Recover,
        Phase::Churn,
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
            Phase::Together => "together",
            Phase::Crash => "crash",
            Phase::Recover => "recover",
            Phase::Churn => "churn",
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
            Phase::Push | Phase::SmallPushes | Phase::Clone | Phase::ColdScan => !synced && contender.push.is_some(),
            _ => !synced,
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
        Phase::Together => bench.together(),
        Phase::Crash => bench.crash(),
        Phase::Recover => bench.recover(),
        Phase::Churn => bench.churn(),
        Phase::Push => bench.push(),
        Phase::SmallPushes => bench.small_pushes(),
        Phase::Clone => bench.clone_first_row(),
        Phase::ColdScan => bench.cold_scan(),
    }?;
    println!("{}", serde_json::to_string(&metrics)?);
    Ok(())
}

/// A worker at its phase.
pub(crate) struct Bench {
    pub(crate) contender: Contender,
    /// The data directory.
    pub(crate) local: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) sizes: Sizes,
}

impl Bench {
    pub(crate) fn connect(&self) -> Result<Connection> {
        self.contender.open(&self.local)
    }

    pub(crate) fn look_up(&self, db: &Connection, id: i64) -> Result<()> {
        let mut select = db.prepare_cached("SELECT x FROM t WHERE id = ?")?;
        let text: String = select.query_row([id], |row| row.get(0))?;
        ensure!(text.len() == 100, "row {id} is {text:?}");
        Ok(())
    }

    pub(crate) fn scan_all(&self, db: &Connection) -> Result<()> {
        let sql = "SELECT count(*), sum(length(x)) FROM t";
        let (count, length): (i64, i64) = db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        ensure!(count == self.sizes.rows && length == 100 * count, "{count} rows with {length} bytes");
        Ok(())
    }
}

pub(crate) fn database_bytes(db: &Connection) -> Result<f64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let bytes: i64 = db.query_row(sql, [], |row| row.get(0))?;
    Ok(bytes as f64)
}

pub(crate) fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

pub(crate) fn metrics<const N: usize>(values: [(&str, f64); N]) -> Metrics {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
