//! Upkeep of the store by the server: what somebody asks for, and what is due.
//!
//! All of it goes through a handle of the store that takes no more than a budget of bytes a second, so that clients do not
//! wait for it. Nothing is remembered but in the store and, of verifications, in the data directory: a server that ends in
//! the middle of anything has done part of it, and the next one goes on.

mod runs;
pub(crate) mod schedule;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quire_history::checkpoint;
use quire_maintenance::collect::{self, Stores};
use quire_maintenance::compact;
use quire_maintenance::verify::{self, Depth, Note, Notes};
use quire_proto::wire::run_info::Outcome;
use quire_proto::wire::{CheckpointReport, CollectReport, RunInfo};
use quire_proto::{Error, LogUpkeep, PageUpkeep, Result, VolumeName, VolumeState};
use tokio::sync::Semaphore;

pub(crate) use runs::{Run, Runs, now_ms};

use crate::metrics::{Metrics, StoreCounters};

/// What a server does for its store besides answering.
#[derive(Clone)]
pub struct Upkeep {
    /// It looks by itself for what is due; otherwise it only does what somebody asks for.
    pub scheduled: bool,
    /// So many bytes a second `log` and `pages` read and write at most together; without it, as many as it takes.
    pub bytes_per_second: Option<NonZeroU64>,
    /// So often every byte of each volume is read; without it, only when somebody asks for it.
    pub verify_every: Option<Duration>,
    /// The data directory, which remembers when that was; without it, nobody does.
    pub notes: Option<PathBuf>,
    /// What the store was asked through `log` and `pages`.
    pub counters: StoreCounters,
    /// The logs, within the budget.
    pub log: Arc<dyn LogUpkeep>,
    /// The pages, within the budget.
    pub pages: Arc<dyn PageUpkeep>,
}

/// One kind of work on one volume.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Checkpoint,
    Compact,
    Collect(collect::Options),
    Verify(Depth),
}

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Checkpoint => "checkpoint",
            Work::Compact => "compact",
            Work::Collect(_) => "collect",
            Work::Verify(Depth::Plain) => "verify",
            Work::Verify(Depth::Deep) => "verify-deep",
        }
    }

    /// Of what callers ask for, one thing of each kind is done at a time.
    fn turn(self) -> usize {
        match self {
            Work::Checkpoint | Work::Compact => 0,
            Work::Collect(_) => 1,
            Work::Verify(_) => 2,
        }
    }
}

/// Who looks after the store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Care {
    inner: Arc<Inner>,
}

struct Inner {
    stores: Stores,
    upkeep: Upkeep,
    store_url: String,
    runs: Runs,
    metrics: Metrics,
    turns: [Semaphore; 3],
}

impl Care {
    pub(crate) fn new(upkeep: Upkeep, store_url: String, metrics: Metrics) -> Care {
        let stores = Stores::new(upkeep.log.clone(), upkeep.pages.clone());
        let runs = Runs::new(upkeep.counters.clone());
        let turns = std::array::from_fn(|_| Semaphore::new(1));
        Care { inner: Arc::new(Inner { stores, upkeep, store_url, runs, metrics, turns }) }
    }

    pub(crate) fn upkeep(&self) -> &Upkeep {
        &self.inner.upkeep
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.inner.runs
    }

    /// The verifications that are remembered of a volume.
    pub(crate) fn notes(&self, volume: &VolumeName) -> Notes {
        match &self.inner.upkeep.notes {
            Some(data_dir) => Notes::read(data_dir, &self.inner.store_url, volume),
            None => Notes::default(),
        }
    }

    /// A run that somebody has asked for, from its beginning.
    pub(crate) fn asked(&self, volume: &VolumeName, work: Work, asked_by: &str) -> Run {
        self.inner.runs.add(volume, work.name(), Some(asked_by))
    }

    /// Does what was asked for, once it is its turn.
    pub(crate) async fn take_turn(&self, run: Run, volume: &VolumeName, work: Work) -> Result<RunInfo> {
        // It is never closed.
        let _turn = self.inner.turns[work.turn()].acquire().await;
        self.perform(run, volume, work).await
    }

    /// Does what is due.
    async fn due(&self, volume: &VolumeName, work: Work) -> Result<RunInfo> {
        let run = self.inner.runs.add(volume, work.name(), None);
        self.perform(run, volume, work).await
    }

    async fn perform(&self, run: Run, volume: &VolumeName, work: Work) -> Result<RunInfo> {
        run.begins();
        let done = self.work(volume, work).await;
        self.inner.metrics.ran(work.name(), done.is_ok());
        match done {
            Ok(outcome) => Ok(run.ends(outcome)),
            Err(e) => {
                run.ends(Outcome::Failed(e.to_string()));
                Err(e)
            }
        }
    }

    async fn work(&self, volume: &VolumeName, work: Work) -> Result<Outcome> {
        let Stores { pages, reader, .. } = &self.inner.stores;
        match work {
            Work::Checkpoint => {
                let VolumeState::Live(head) = reader.metastore().head(volume).await? else {
                    return Err(Error::not_found(format!("the store has no volume {volume}")));
                };
                let made = checkpoint(reader, volume, head.header(), &[]).await?;
                Ok(Outcome::Checkpoint(CheckpointReport { lsn: made.lsn.get(), bytes: made.bytes }))
            }
            Work::Compact => {
                let options = compact::Options::default();
                let done = compact::compact(reader.clone(), pages.clone(), volume.clone(), options).await?;
                Ok(Outcome::Compact((&done).into()))
            }
            Work::Collect(options) => {
                let done = collect::collect(&self.inner.stores, volume, &options).await?;
                let nothing = CollectReport { no_volume: true, ..CollectReport::default() };
                Ok(Outcome::Collect(done.as_ref().map_or(nothing, Into::into)))
            }
            Work::Verify(depth) => {
                let report = verify::verify(reader.clone(), volume.clone(), depth).await?;
                self.verified(volume, &report);
                Ok(Outcome::Verify((&report).into()))
            }
        }
    }

    fn verified(&self, volume: &VolumeName, report: &verify::Report) {
        let deep = report.depth == Depth::Deep;
        self.inner.metrics.verified(volume, report.is_sound(), deep.then(now_ms));
        if !report.is_sound() {
            let found = report.damage.len() as u64 + report.more_damage;
            tracing::error!(
                "volume {volume} is damaged in the store: {found} objects; `quire verify {volume} --deep` lists them"
            );
            return;
        }
        if let Some(data_dir) = &self.inner.upkeep.notes {
            let note = Note { lsn: report.lsn.get(), time_ms: now_ms(), deep };
            if let Err(e) = self.notes(volume).add(data_dir, volume, note) {
                tracing::warn!("nobody will remember that volume {volume} is sound: {e}");
            }
        }
    }
}
