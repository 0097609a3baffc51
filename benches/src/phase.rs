//! The phases, in their order; each is the whole life of one worker process.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::Metrics;
use crate::contender::{self, Contender};
use crate::scale::Scale;
use crate::social::Question;
use crate::travel::Trip;

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Commits,
    Bulk,
    Open,
    Lookups,
    Scan,
    Updates,
    Together,
    Crash,
    Recover,
    Churn,
    Push,
    ManyPushes,
    Trip(Trip),
    /// The same through a server.
    Served(Trip),
    Scale(Scale),
    SocialImport,
    Social(Question),
    /// The same on a link of 100 Mbit/s.
    SlowSocial(Question),
}

/// Phases in their order, but for what changes with scale and for the questions, which come after them.
const PLAIN_PHASES: [Phase; 27] = [
    Phase::Commits,
    Phase::Bulk,
    Phase::Open,
    Phase::Lookups,
    Phase::Scan,
    Phase::Updates,
    Phase::Together,
    Phase::Crash,
    Phase::Recover,
    Phase::Churn,
    Phase::Push,
    Phase::Trip(Trip::FirstRow),
    Phase::Trip(Trip::ColdLookups),
    Phase::Trip(Trip::ColdScan),
    Phase::Trip(Trip::Hydrate),
    Phase::Served(Trip::FirstRow),
    Phase::Served(Trip::ColdLookups),
    Phase::Served(Trip::ColdScan),
    Phase::Served(Trip::Hydrate),
    Phase::Trip(Trip::SmallPushes),
    Phase::Served(Trip::SmallPushes),
    Phase::ManyPushes,
    Phase::Trip(Trip::CatchUp),
    Phase::Served(Trip::CatchUp),
    Phase::Trip(Trip::LateFirstRow),
    Phase::Served(Trip::LateFirstRow),
    Phase::SocialImport,
];

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) rows: i64,
    pub(crate) commits: i64,
    pub(crate) lookups: i64,
    pub(crate) updates: i64,
    pub(crate) small_pushes: i64,
    pub(crate) many_pushes: i64,
    pub(crate) cold_lookups: i64,
}

impl Sizes {
    pub(crate) fn of_rows(rows: i64) -> Sizes {
        Sizes {
            rows,
            commits: (rows / 25).max(1),
            lookups: (rows / 5).max(1),
            updates: 5000,
            small_pushes: 50,
            many_pushes: 1000,
            cold_lookups: 1000,
        }
    }
}

impl Phase {
    pub(crate) fn all() -> impl Iterator<Item = Phase> {
        let questions = Question::ALL.into_iter();
        let scales = Scale::all().map(Phase::Scale);
        PLAIN_PHASES
            .into_iter()
            .chain(scales)
            .chain(questions.clone().map(Phase::Social))
            .chain(questions.map(Phase::SlowSocial))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Commits => "commits",
            Phase::Bulk => "bulk",
            Phase::Open => "open",
            Phase::Lookups => "lookups",
            Phase::Scan => "scan",
            Phase::Updates => "updates",
            Phase::Together => "together",
            Phase::Crash => "crash",
            Phase::Recover => "recover",
            Phase::Churn => "churn",
            Phase::Push => "push",
            Phase::ManyPushes => "many-pushes",
            Phase::Trip(trip) => trip.names().0,
            Phase::Served(trip) => trip.names().1,
            Phase::Scale(scale) => scale.name(),
            Phase::SocialImport => "social-import",
            Phase::Social(question) => question.names().0,
            Phase::SlowSocial(question) => question.names().1,
        }
    }

    /// The data directory that it works on, in the contender's folder.
    pub(crate) fn data_dir(self) -> &'static str {
        match self {
            Phase::Commits => "commits",
            Phase::Bulk | Phase::Open | Phase::Lookups | Phase::Scan | Phase::Updates | Phase::Together => "primary",
            Phase::Push | Phase::ManyPushes => "primary",
            Phase::Trip(Trip::SmallPushes) | Phase::Served(Trip::SmallPushes) => "primary",
            Phase::Crash | Phase::Recover => "crashed",
            Phase::Churn => "churned",
            Phase::Trip(Trip::CatchUp) => Phase::Trip(Trip::FirstRow).data_dir(),
            Phase::Served(Trip::CatchUp) => Phase::Served(Trip::FirstRow).data_dir(),
            Phase::Scale(scale) => scale.data_dir(),
            Phase::SocialImport => "social",
            Phase::Trip(_) | Phase::Served(_) | Phase::Social(_) | Phase::SlowSocial(_) => self.name(),
        }
    }

    /// What the proxy adds to each request. It makes round trips visible; what
    /// is bounded by processors and disks is measured without.
    pub(crate) fn latency(self) -> Duration {
        match self {
            Phase::Push | Phase::ManyPushes | Phase::SocialImport => Duration::ZERO,
            Phase::Scale(scale) if !scale.is_far() => Duration::ZERO,
            _ => Duration::from_millis(30),
        }
    }

    /// What the link carries, in bytes a second; 0: all.
    pub(crate) fn bandwidth(self) -> u64 {
        match self {
            Phase::SlowSocial(_) => 100_000_000 / 8,
            _ => 0,
        }
    }

    /// Whether its store is a server.
    pub(crate) fn is_served(self) -> bool {
        matches!(self, Phase::Served(_))
    }

    /// The volume that it works on.
    fn volume(self) -> &'static str {
        match self {
            Phase::SocialImport | Phase::Social(_) | Phase::SlowSocial(_) => "social",
            Phase::Scale(Scale::Grow(_) | Scale::Begin(_)) => "grows",
            _ => "bench",
        }
    }

    /// The name under which the traffic of the phase is shown, and by how much it is divided.
    pub(crate) fn traffic_of(self, sizes: &Sizes) -> Option<(&'static str, i64)> {
        match self {
            Phase::Push => Some(("push", 1)),
            Phase::Trip(Trip::FirstRow) => Some(("first row", 1)),
            Phase::Trip(Trip::ColdLookups) => Some(("cold lookups", 1)),
            Phase::Trip(Trip::SmallPushes) => Some(("small push", sizes.small_pushes + 1)),
            Phase::Trip(Trip::CatchUp) => Some(("catch up", 1)),
            Phase::Trip(Trip::LateFirstRow) => Some(("late first row", 1)),
            _ => None,
        }
    }

    /// Pushes concern whoever pushes, replicas whoever has them, servers and questions Quire. With syncs only the
    /// commits differ enough to be worth the time.
    pub(crate) fn concerns(self, contender: &Contender) -> bool {
        let synced = [contender::PLAIN_SYNCED, contender::QUIRE_SYNCED].contains(&contender.name.as_str());
        match self {
            Phase::Commits => true,
            Phase::Push | Phase::Trip(Trip::SmallPushes) => !synced && contender.push.is_some(),
            Phase::Trip(Trip::Hydrate) | Phase::Served(_) => contender.name == contender::QUIRE,
            Phase::Trip(_) | Phase::ManyPushes => !synced && contender.replica.is_some(),
            Phase::SocialImport | Phase::Social(_) | Phase::SlowSocial(_) => contender.name == contender::QUIRE,
            Phase::Scale(scale) => !synced && scale.concerns(contender),
            _ => !synced,
        }
    }
}

/// A phase by its name.
pub(crate) fn parse(name: &str) -> Result<Phase> {
    let names = || Phase::all().map(Phase::name).collect::<Vec<_>>().join(", ");
    Phase::all().find(|phase| phase.name() == name).with_context(|| format!("the phases are {}", names()))
}

/// Everything that a worker needs, as its argument.
#[derive(Deserialize, Serialize)]
pub(crate) struct Job {
    phase: String,
    contender: Contender,
    folder: PathBuf,
    rows: i64,
}

impl Job {
    pub(crate) fn new(phase: Phase, contender: &Contender, sizes: &Sizes, folder: &Path) -> Job {
        let (contender, folder) = (contender.clone(), folder.to_owned());
        Job { phase: phase.name().to_owned(), contender, folder, rows: sizes.rows }
    }
}

/// A worker's whole life: one phase, whose metrics it prints.
pub(crate) fn work(job: &str) -> Result<()> {
    let Job { phase, contender, folder, rows } = serde_json::from_str(job)?;
    let phase = parse(&phase)?;
    let local = folder.join(phase.data_dir());
    std::fs::create_dir_all(&local)?;
    contender.load()?;
    let bench = Bench { contender, volume: phase.volume(), local, id: folder.join("id"), sizes: Sizes::of_rows(rows) };
    let metrics = match phase {
        Phase::Commits => bench.commits(),
        Phase::Bulk => bench.bulk(),
        Phase::Open => bench.open(),
        Phase::Lookups => bench.lookups(),
        Phase::Scan => bench.scan(),
        Phase::Updates => bench.updates(),
        Phase::Together => bench.together(),
        Phase::Crash => bench.crash(),
        Phase::Recover => bench.recover(),
        Phase::Churn => bench.churn(),
        Phase::Push => bench.push(),
        Phase::ManyPushes => bench.many_pushes(),
        Phase::Trip(trip) => bench.trip(trip),
        Phase::Served(trip) => bench.trip(trip).map(served),
        Phase::Scale(scale) => bench.scale(scale),
        Phase::SocialImport => bench.social_import(),
        Phase::Social(question) => bench.social(question, "social"),
        Phase::SlowSocial(question) => bench.social(question, "slow"),
    }?;
    println!("{}", serde_json::to_string(&metrics)?);
    Ok(())
}

/// What was measured through a server, under names of its own.
fn served(metrics: Metrics) -> Metrics {
    metrics.into_iter().map(|(name, value)| (format!("served {name}"), value)).collect()
}

/// A worker at its phase.
pub(crate) struct Bench {
    pub(crate) contender: Contender,
    volume: &'static str,
    /// The data directory.
    pub(crate) local: PathBuf,
    /// The file in which whoever pushed says what a replica has to name.
    pub(crate) id: PathBuf,
    pub(crate) sizes: Sizes,
}

impl Bench {
    pub(crate) fn connect(&self) -> Result<Connection> {
        self.contender.open(&self.local, self.volume)
    }

    /// A replica in an empty data directory.
    pub(crate) fn begin_replica(&self) -> Result<Connection> {
        self.contender.begin_replica(&self.local, self.volume, &self.id)
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
