//! One step of a run, complete in itself: dropping others changes nothing of
//! what it tries to do. That is what makes a history replay, and shrink.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::network::Weather;

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A transaction.
    Commit {
        /// Whether it asks for a sync.
        durable: bool,
    },
    /// A transaction that is given up.
    Rollback,
    /// `push` of the volume.
    Push,
    /// `pull`.
    Pull,
    /// `sync`.
    Sync,
    /// `fetch`.
    Fetch,
    /// `reset`.
    Reset,
    /// `hydrate`.
    Hydrate,
    /// `verify`.
    Verify,
    /// `log`.
    Log,
    /// Every page is read.
    ReadAll,
    /// A snapshot of the past is read.
    Past,
    /// The volume is forked.
    Fork {
        /// From a snapshot of the past.
        of_past: bool,
    },
    /// A snapshot of the past becomes the content again.
    Restore,
    /// A checkpoint is written.
    Checkpoint,
    /// `keep`: what is to be kept of the history is said.
    Keep,
    /// `gc`.
    Collect,
    /// `compact`.
    Compact,
    /// A snapshot is taken, and read a long while later.
    HoldSnapshot,
    /// The engine is closed and opened again.
    Reopen {
        /// Its table files are lost meanwhile.
        without_tables: bool,
    },
    /// The process is killed, whatever it is at.
    Crash,
    /// A copy of the data directory goes on as another client, beside it.
    Twin,
    /// The clock of all machines is set.
    SetClock {
        /// So many days from where it should be.
        days: i32,
    },
}

/// A request of the step's that waits while the next steps are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Its number, from 1 on.
    pub request: u32,
    /// Whether it waits after the store has acted.
    pub after: bool,
    /// For how many steps.
    pub steps: u32,
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Who: taken modulo the number of clients.
    pub client: usize,
    /// With what: modulo the number of volumes.
    pub volume: usize,
    /// What.
    pub action: Action,
    /// How the client's requests fare.
    pub weather: Weather,
    /// What waits.
    pub pause: Option<Pause>,
    /// For everything random inside the step.
    pub seed: u64,
}

impl Step {
    /// The step with this seed.
    pub fn random(seed: u64) -> Step {
        let mut rng = StdRng::seed_from_u64(seed);
        let action = match rng.random_range(0..1000) {
            0..430 => Action::Commit { durable: rng.random_ratio(1, 20) },
            430..450 => Action::Rollback,
            450..458 => Action::Keep,
            458..478 => Action::Collect,
            478..490 => Action::Compact,
            490..600 => Action::Push,
            600..700 => Action::Pull,
            700..740 => Action::Sync,
            740..760 => Action::Fetch,
            760..800 => Action::Reset,
            800..820 => Action::Hydrate,
            820..835 => Action::Verify,
            835..842 => Action::Log,
            842..852 => Action::ReadAll,
            852..858 => Action::Checkpoint,
            858..870 => Action::Past,
            870..880 => Action::Fork { of_past: rng.random() },
            880..890 => Action::Restore,
            890..920 => Action::HoldSnapshot,
            920..945 => Action::Reopen { without_tables: rng.random_ratio(1, 3) },
            945..975 => Action::Crash,
            975..985 => Action::Twin,
            _ => Action::SetClock { days: rng.random_range(-400..=400) },
        };
        let weather = match rng.random_range(0..20) {
            0..10 => Weather::Fair,
            10..17 => Weather::Foul,
            17..18 => Weather::Away,
            _ => Weather::CutAfter(rng.random_range(0..8)),
        };
        let pause = rng.random_ratio(1, 3).then(|| Pause {
            request: rng.random_range(1..8),
            after: rng.random(),
            steps: rng.random_range(1..8),
        });
        Step { client: rng.random_range(0..12), volume: rng.random_range(0..12), action, weather, pause, seed }
    }
}
