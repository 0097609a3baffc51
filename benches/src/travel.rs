//! The phases that go to the store and back: pushes, and replicas that begin
//! empty. The store is a real S3 server behind a proxy that adds latency, or `quire serve` beside it at the end of a long
//! line.

use anyhow::{Context, Result};
use rusqlite::Connection;

use crate::phase::{Bench, database_bytes, metrics, timed};
use crate::{Metrics, contender, data, machine};

/// What a replica goes to its store for, which may be a bucket or a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trip {
    SmallPushes,
    FirstRow,
    ColdLookups,
    ColdScan,
    Hydrate,
    CatchUp,
    LateFirstRow,
}

impl Trip {
    /// The names of its phases, on a bucket and through a server.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Trip::SmallPushes => ("small-pushes", "served-small-pushes"),
            Trip::FirstRow => ("first-row", "served-first-row"),
            Trip::ColdLookups => ("cold-lookups", "served-cold-lookups"),
            Trip::ColdScan => ("cold-scan", "served-cold-scan"),
            Trip::Hydrate => ("hydrate", "served-hydrate"),
            Trip::CatchUp => ("catch-up", "served-catch-up"),
            Trip::LateFirstRow => ("late-first-row", "served-late-first-row"),
        }
    }
}

impl Bench {
    pub(crate) fn trip(&self, trip: Trip) -> Result<Metrics> {
        match trip {
            Trip::SmallPushes => self.small_pushes(),
            Trip::FirstRow => self.first_row_of(self.sizes.rows / 2, "first row"),
            Trip::ColdLookups => self.cold_lookups(),
            Trip::ColdScan => self.cold_scan(),
            Trip::Hydrate => self.hydrate(),
            Trip::CatchUp => self.catch_up(),
            Trip::LateFirstRow => self.first_row_of(self.sizes.rows / 2, "late first row"),
        }
    }

    /// Everything to an empty store.
    pub(crate) fn push(&self) -> Result<Metrics> {
        let db = self.connect()?;
        self.look_up(&db, 1)?;
        let memory = machine::memory_mib("VmRSS")?;
        let before = traffic(&db)?;
        let seconds = timed(|| self.push_now(&db))?;
        let mut all = metrics([("push s", seconds), ("push peak MiB", machine::memory_mib("VmHWM")? - memory)]);
        count(&mut all, &db, before, "push", 1)?;
        self.contender.ask_id(&db, &self.id)?;
        Ok(all)
    }

    /// One-row updates, each pushed by itself.
    fn small_pushes(&self) -> Result<Metrics> {
        let db = self.connect()?;
        self.look_up(&db, 1)?;
        self.update_and_push(&db, 0)?;
        let before = traffic(&db)?;
        let seconds = timed(|| (1..=self.sizes.small_pushes).try_for_each(|i| self.update_and_push(&db, i)))?;
        let mut all = metrics([("small push ms", seconds * 1000.0 / self.sizes.small_pushes as f64)]);
        count(&mut all, &db, before, "small push", self.sizes.small_pushes)?;
        Ok(all)
    }

    /// Opens by name with an empty data directory and reads one row.
    pub(crate) fn first_row_of(&self, id: i64, what: &str) -> Result<Metrics> {
        let mut opened = None;
        let seconds = timed(|| {
            let db = opened.insert(self.begin_replica()?);
            self.look_up(db, id)
        })?;
        let db = opened.context("not open")?;
        let mut all = metrics([(&format!("{what} ms"), seconds * 1000.0)]);
        count(&mut all, &db, Some(Traffic::default()), what, 1)?;
        Ok(all)
    }

    /// Scattered rows on an empty replica that has just opened.
    fn cold_lookups(&self) -> Result<Metrics> {
        let db = self.begin_replica()?;
        self.look_up(&db, 1)?;
        let before = traffic(&db)?;
        let ids = (0..self.sizes.cold_lookups).map(|i| data::scattered(i, self.sizes.rows));
        let seconds = timed(|| ids.into_iter().try_for_each(|id| self.look_up(&db, id)))?;
        let mut all = metrics([("cold lookups s", seconds)]);
        count(&mut all, &db, before, "cold lookups", 1)?;
        Ok(all)
    }

    /// The whole table on an empty replica.
    fn cold_scan(&self) -> Result<Metrics> {
        let db = self.begin_replica()?;
        let seconds = timed(|| self.scan_all(&db))?;
        Ok(metrics([("cold scan MiB/s", database_bytes(&db)? / seconds / 1_048_576.0)]))
    }

    /// All pages to an empty replica.
    fn hydrate(&self) -> Result<Metrics> {
        let db = self.connect()?;
        self.look_up(&db, 1)?;
        let memory = machine::memory_mib("VmRSS")?;
        let seconds = timed(|| Ok(db.query_row("SELECT quire_hydrate()", [], |_| Ok(()))?))?;
        let speed = database_bytes(&db)? / seconds / 1_048_576.0;
        Ok(metrics([("hydrate MiB/s", speed), ("hydrate peak MiB", machine::memory_mib("VmHWM")? - memory)]))
    }

    /// What `catch_up` has to catch up with.
    pub(crate) fn many_pushes(&self) -> Result<Metrics> {
        let db = self.connect()?;
        (0..self.sizes.many_pushes).try_for_each(|i| self.update_and_push(&db, i))?;
        Ok(Metrics::new())
    }

    /// A replica that is many pushes behind pulls and reads one row.
    fn catch_up(&self) -> Result<Metrics> {
        let db = self.connect()?;
        let before = traffic(&db)?;
        let seconds = timed(|| {
            contender::run(&db, &self.contender.replica.as_ref().context("nothing to pull with")?.pull)?;
            self.look_up(&db, data::scattered(self.sizes.many_pushes - 1, self.sizes.rows))
        })?;
        let mut all = metrics([("catch up ms", seconds * 1000.0)]);
        count(&mut all, &db, before, "catch up", 1)?;
        Ok(all)
    }

    fn update_and_push(&self, db: &Connection, i: i64) -> Result<()> {
        let id = data::scattered(i, self.sizes.rows);
        // Another one in each phase.
        let text = data::text(-id - i - i64::from(std::process::id()) * self.sizes.rows);
        db.prepare_cached("UPDATE t SET x = ? WHERE id = ?")?.execute((text, id))?;
        self.push_now(db)
    }

    pub(crate) fn push_now(&self, db: &Connection) -> Result<()> {
        let sql = self.contender.push.as_deref().context("nothing to push with")?;
        contender::run(db, sql)
    }
}

/// What went to and came from the store since the extension was loaded.
#[derive(Clone, Copy, Default)]
pub(crate) struct Traffic {
    requests: f64,
    bytes_in: f64,
    bytes_out: f64,
}

/// Quire counts its own traffic; other extensions have no such table.
pub(crate) fn traffic(db: &Connection) -> Result<Option<Traffic>> {
    let Ok(mut select) = db.prepare("SELECT requests, bytes_in, bytes_out FROM quire_stats") else {
        return Ok(None);
    };
    let traffic = select
        .query_row([], |row| Ok(Traffic { requests: row.get(0)?, bytes_in: row.get(1)?, bytes_out: row.get(2)? }))?;
    Ok(Some(traffic))
}

/// Adds what went over the wire since `before`, for each of `times` repetitions.
pub(crate) fn count(all: &mut Metrics, db: &Connection, before: Option<Traffic>, what: &str, times: i64) -> Result<()> {
    if let (Some(before), Some(after)) = (before, traffic(db)?) {
        let since = Traffic {
            requests: after.requests - before.requests,
            bytes_in: after.bytes_in - before.bytes_in,
            bytes_out: after.bytes_out - before.bytes_out,
        };
        since.add_to(all, what, times);
    }
    Ok(())
}

impl Traffic {
    /// What a proxy counted.
    pub(crate) fn of_proxy(counted: &quire_testkit::Traffic) -> Traffic {
        let [requests, bytes_in, bytes_out] = [counted.total(), counted.bytes_down, counted.bytes_up].map(|n| n as f64);
        Traffic { requests, bytes_in, bytes_out }
    }

    /// Adds it, for each of `times` repetitions, where nothing is known yet.
    pub(crate) fn add_to(self, all: &mut Metrics, what: &str, times: i64) {
        let mut add = |unit: &str, total: f64| {
            all.entry(format!("{what} {unit}")).or_insert(total / times as f64);
        };
        add("requests", self.requests);
        add("KiB in", self.bytes_in / 1024.0);
        add("KiB out", self.bytes_out / 1024.0);
    }
}
