//! The care of volumes in the store, by clients, while all else goes on: what
//! is to be kept is said, history is collected, pages are brought together.
//! And the one place that decides what may be gone because of it.

use futures::TryStreamExt;
use quire_engine::{ErrorKind, Lsn, Result, Snapshot, VolumeName};
use quire_maintenance::{collect, compact};
use quire_proto::{Retention, Span, Stated};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::flight::Operation;
use crate::network::Weather;
use crate::step::{Action, Pause, Step};
use crate::world::World;

/// A collection or compaction makes about so many times the requests of a push.
const LONGER: u32 = 12;

/// What is done for a volume in the store.
#[derive(Clone)]
pub(crate) struct Care {
    pub(crate) stores: collect::Stores,
    pub(crate) volume: VolumeName,
    pub(crate) task: Task,
}

/// What, exactly.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    Keep(Retention),
    Collect(collect::Options),
    Compact(compact::Options),
}

impl std::fmt::Debug for Care {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.task.fmt(f)
    }
}

/// A snapshot of a volume in the store, on which something stands.
pub(crate) type Ground = Option<(usize, Lsn)>;

/// What a snapshot of this volume stands on.
pub(crate) fn ground(v: usize, snapshot: &Snapshot) -> Ground {
    snapshot.base_lsn().map(|lsn| (v, lsn))
}

impl Care {
    pub(crate) fn perform(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let Care { stores, volume, task } = self;
        runtime.block_on(async {
            match task {
                Task::Keep(retention) => {
                    collect::keep(stores, volume, |kept| *kept = retention.clone()).await.map(drop)
                }
                Task::Collect(options) => collect::collect(stores, volume, options).await.map(drop),
                Task::Compact(options) => {
                    let (reader, pages) = (stores.reader.clone(), stores.pages.clone());
                    compact::compact(reader, pages, volume.clone(), *options).await.map(drop)
                }
            }
        })
    }
}

impl Task {
    fn event(&self) -> &'static str {
        match self {
            Task::Keep(_) => "retention said",
            Task::Collect(_) => "collected",
            Task::Compact(_) => "compacted",
        }
    }
}

impl World {
    /// Takes care of a volume, over the client's link.
    pub(crate) fn take_care(&mut self, c: usize, v: usize, step: &Step, rng: &mut StdRng) {
        if !self.setup.cared_for {
            return;
        }
        let task = match step.action {
            Action::Keep => Task::Keep(self.retention(v, rng)),
            Action::Collect => Task::Collect(collect::Options {
                grace_ms: if rng.random_ratio(1, 4) { u64::MAX / 2 } else { 0 },
                abandoned_ms: u64::MAX / 2,
                report_at_ms: None,
            }),
            _ => Task::Compact(compact::Options { budget_bytes: rng.random_range(10_000..200_000) }),
        };
        let longer = rng.random_range(1..=LONGER);
        let weather = match step.weather {
            Weather::CutAfter(n) => Weather::CutAfter(n * longer),
            weather => weather,
        };
        let pause = step.pause.map(|pause| Pause { request: pause.request * longer, ..pause });
        let client = &self.clients[c];
        let care = Care { stores: client.care.clone(), volume: client.replicas[v].name.clone(), task };
        self.operate(c, v, Operation::Care(care), &Step { weather, pause, ..*step });
    }

    /// What somebody wants kept from now on.
    fn retention(&mut self, v: usize, rng: &mut StdRng) -> Retention {
        self.read_store(v);
        let head = self.histories[v].head();
        let span =
            if rng.random_ratio(1, 6) { Span::All } else { Span::Last([1, 2, 5, 12, 30][rng.random_range(0..5)]) };
        if let Span::Last(n) = span {
            // Even if this fails: its write may land later.
            let least = &mut self.histories[v].least_kept;
            *least = Some(least.map_or(n, |least| least.min(n)));
        }
        let named = (head > 0 && rng.random()).then(|| Lsn::new(rng.random_range(1..=head))).flatten();
        let named = named.filter(|lsn| !self.is_let_go(Some((v, *lsn))));
        Retention { span, named: named.into_iter().collect() }
    }

    /// Checks the answer to somebody who took care of a volume.
    pub(crate) fn judge_care(
        &mut self,
        (v, head_before): (usize, u64),
        care: &Care,
        done: &Result<()>,
        in_between: bool,
        broken: bool,
    ) -> &'static [ErrorKind] {
        match done {
            Ok(()) => self.events.note(care.task.event()),
            Err(_) => self.events.note("care that failed"),
        }
        self.check_kept_enough(v);
        let is_new = head_before == 0;
        match care.task {
            Task::Keep(_) if is_new => &[ErrorKind::NotFound],
            // What it names may have been let go meanwhile.
            Task::Keep(_) => &[ErrorKind::Gone, ErrorKind::Busy],
            Task::Collect(_) => &[ErrorKind::Busy],
            Task::Compact(_) if is_new => &[ErrorKind::NotFound],
            // Its snapshot was the newest one when it began.
            Task::Compact(_) if in_between && !broken => &[ErrorKind::Gone, ErrorKind::Busy],
            Task::Compact(_) if in_between => &[ErrorKind::Gone, ErrorKind::Busy, ErrorKind::AlreadyExists],
            // An upload whose reply was lost is read back, and what comes may be damaged.
            Task::Compact(_) if broken => &[ErrorKind::AlreadyExists],
            Task::Compact(_) => &[],
        }
    }

    /// No collector lets go what everybody has wanted kept.
    fn check_kept_enough(&self, v: usize) {
        let head = self.histories[v].head();
        let first = self.histories[v].least_kept.map_or(1, |n| (head + 1).saturating_sub(n).max(1));
        for lsn in (first..=head).filter_map(Lsn::new) {
            assert!(
                !self.is_let_go(Some((v, lsn))),
                "LSN {lsn} of {head} is not kept, but from {first} on all must be"
            );
        }
    }

    /// Whether what stands on this snapshot may be gone, where it is not here: the newest statement in the store
    /// does not keep it, and no reader is given any time. Nothing else excuses an answer of `gone`.
    ///
    /// This excuses replicas that are behind, and work of theirs that diverged or was forked here before it could mark
    /// what it stands on; once it has, the statement keeps that, and this is false.
    pub(crate) fn is_let_go(&self, ground: Ground) -> bool {
        let Some((v, lsn)) = ground.filter(|_| self.setup.cared_for) else { return false };
        let statement = self.runtime.block_on(self.care.log.statement(self.histories[v].volume()));
        !statement.unwrap_or_else(|e| panic!("the newest statement: {e:?}")).keeps(lsn)
    }

    /// The number of the newest statement of a volume.
    pub(crate) fn stated(&self, v: usize) -> u64 {
        if !self.setup.cared_for {
            return 0;
        }
        let mut statements = self.care.log.statements(self.histories[v].volume());
        let newest = self.runtime.block_on(statements.try_next());
        newest.unwrap_or_else(|e| panic!("the newest statement: {e:?}")).map_or(0, |stated| stated.number)
    }

    /// Whether any statement from a number on has let go of a snapshot. One that comes later may keep it once more: a
    /// holder was seen late.
    pub(crate) fn was_let_go(&self, (v, lsn): (usize, Lsn), number: u64) -> bool {
        if !self.setup.cared_for {
            return false;
        }
        let statements = self.care.log.statements(self.histories[v].volume());
        let statements: Vec<Stated> =
            self.runtime.block_on(statements.try_collect()).unwrap_or_else(|e| panic!("the statements: {e:?}"));
        statements.iter().any(|stated| stated.number >= number && !stated.statement.keeps(lsn))
    }

    /// Whether an error says that this is gone, and it may be.
    pub(crate) fn is_gone(&self, kind: ErrorKind, ground: Ground) -> bool {
        kind == ErrorKind::Gone && self.is_let_go(ground)
    }
}
