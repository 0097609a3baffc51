//! What changes as there is more of something: more commits in a log, more volumes in a data directory, more readers.
//! The values are named `VALUE @ NUMBER THINGS`.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::contender::{Contender, QUIRE};
use crate::phase::{Bench, metrics, timed};
use crate::{Metrics, data};

const READERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const VOLUMES: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const READING_TIME: Duration = Duration::from_millis(500);
/// How many commits a log has, and the names of its phases.
const LOGS: [(i64, &str, &str); 4] = [
    (10, "grow-10", "begin-10"),
    (100, "grow-100", "begin-100"),
    (1_000, "grow-1000", "begin-1000"),
    (10_000, "grow-10000", "begin-10000"),
];
/// The rows of the volume of which the log grows.
const ROWS: i64 = 1_000;

/// What there is more and more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Threads that read.
    Readers,
    /// Volumes in a data directory.
    Volumes,
    /// The log of a volume grows, to one of `LOGS`.
    Grow(usize),
    /// A replica of it begins.
    Begin(usize),
}

impl Scale {
    pub(crate) fn all() -> impl Iterator<Item = Scale> {
        let logs = (0..LOGS.len()).flat_map(|log| [Scale::Grow(log), Scale::Begin(log)]);
        [Scale::Readers, Scale::Volumes].into_iter().chain(logs)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Scale::Readers => "readers",
            Scale::Volumes => "volumes",
            Scale::Grow(log) => LOGS[log].1,
            Scale::Begin(log) => LOGS[log].2,
        }
    }

    pub(crate) fn data_dir(self) -> &'static str {
        match self {
            Scale::Readers => "primary",
            Scale::Grow(_) => "grows",
            Scale::Volumes | Scale::Begin(_) => self.name(),
        }
    }

    /// Whether round trips are to be visible.
    pub(crate) fn is_far(self) -> bool {
        matches!(self, Scale::Begin(_))
    }

    /// Only replicas have a data directory of volumes; the length of a log is asked of Quire.
    pub(crate) fn concerns(self, contender: &Contender) -> bool {
        match self {
            Scale::Readers => true,
            Scale::Volumes => contender.push.is_some(),
            Scale::Grow(_) | Scale::Begin(_) => contender.name == QUIRE,
        }
    }
}

impl Bench {
    pub(crate) fn scale(&self, scale: Scale) -> Result<Metrics> {
        match scale {
            Scale::Readers => self.readers(),
            Scale::Volumes => self.volumes(),
            Scale::Grow(log) => self.grow(LOGS[log].0),
            Scale::Begin(log) => self.begin(LOGS[log].0),
        }
    }

    fn readers(&self) -> Result<Metrics> {
        let mut all = Metrics::new();
        for readers in READERS {
            let reads = self.reads_in_a_while(readers, READING_TIME, false)?;
            all.insert(format!("lookups/s @ {readers} readers"), reads / READING_TIME.as_secs_f64());
        }
        Ok(all)
    }

    /// Opens one of so many volumes, none of which is open, and reads a row of it.
    fn volumes(&self) -> Result<Metrics> {
        let (mut all, mut made) = (Metrics::new(), 0);
        for volumes in VOLUMES {
            let before = made;
            let seconds = timed(|| {
                // The data directory stays open as long as one of them does.
                let mut last = None;
                for n in made..volumes {
                    let db = self.contender.open(&self.local, &format!("volume-{n}"))?;
                    db.execute_batch(data::SCHEMA)?;
                    db.execute("INSERT INTO t VALUES(1, ?)", [data::text(1)])?;
                    last = Some(db);
                }
                drop(last);
                Ok(())
            })?;
            made = volumes;
            all.insert(format!("new volumes/s @ {volumes} volumes"), (volumes - before) as f64 / seconds);
            let seconds =
                timed(|| self.look_up(&self.contender.open(&self.local, &format!("volume-{}", volumes / 2))?, 1))?;
            all.insert(format!("open ms @ {volumes} volumes"), seconds * 1000.0);
        }
        Ok(all)
    }

    /// Pushes one-row updates until the log has so many commits.
    fn grow(&self, commits: i64) -> Result<Metrics> {
        let db = self.connect()?;
        db.execute_batch(&data::SCHEMA.replace("TABLE", "TABLE IF NOT EXISTS"))?;
        let begins: bool = db.query_row("SELECT count(*) = 0 FROM t", [], |row| row.get(0))?;
        if begins {
            db.execute_batch("BEGIN")?;
            (1..=ROWS).try_for_each(|id| {
                db.prepare_cached("INSERT INTO t VALUES(?, ?)")?.execute((id, data::text(id))).map(|_| ())
            })?;
            db.execute_batch("COMMIT")?;
            self.push_now(&db)?;
        }
        let base = "SELECT base_lsn FROM quire_status";
        let made: i64 = db.query_row(base, [], |row| row.get(0)).context("the LSN of what is pushed")?;
        let seconds = timed(|| {
            (made..commits).try_for_each(|i| {
                let id = data::scattered(i, ROWS);
                db.prepare_cached("UPDATE t SET x = ? WHERE id = ?")?.execute((data::text(-i), id))?;
                self.push_now(&db)
            })
        })?;
        let name = format!("pushes/s @ {commits} commits");
        Ok(metrics([(&name, (commits - made) as f64 / seconds)]))
    }

    /// An empty replica opens what has so long a log, and reads a row.
    fn begin(&self, commits: i64) -> Result<Metrics> {
        let first = self.first_row_of(ROWS / 2, "first row")?;
        Ok(first.into_iter().map(|(name, value)| (format!("{name} @ {commits} commits"), value)).collect())
    }
}
