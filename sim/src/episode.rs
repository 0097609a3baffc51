//! A run: clients and volumes, and a list of steps, all from one seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::client::Events;
use crate::fault::Tally;
use crate::network::Treason;
use crate::step::Step;
use crate::world::World;

/// What there is before the first step.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many clients.
    pub clients: usize,
    /// How many volumes.
    pub volumes: usize,
    /// Bytes a page, to begin with.
    pub page_size: u32,
    /// How many pages a volume may have.
    pub most_pages: u32,
    /// The bound of each client's cache, in bytes.
    pub cache_size: u64,
    /// The store is a folder, not memory.
    pub folder: bool,
    /// History is collected, and pages are brought together. Then no listing is late: a collector and whoever marks
    /// what it needs find each other by listing, and every store that Quire knows lists what is there.
    pub cared_for: bool,
    /// What the store does that none may do.
    pub treason: Option<Treason>,
}

/// A run that has not been made yet.
#[derive(Clone, Debug)]
pub struct Episode {
    /// It all follows from this.
    pub seed: u64,
    /// What there is before the first step.
    pub setup: Setup,
    /// What happens.
    pub steps: Vec<Step>,
}

/// What happened in a run.
#[derive(Debug, Default)]
pub struct Report {
    /// How many steps were made.
    pub steps: u64,
    /// LSNs in the store.
    pub lsns: u64,
    /// What went wrong on the network.
    pub faults: Tally,
    /// What else happened, and how often.
    pub events: Events,
}

impl Episode {
    /// The run of this seed, with so many steps.
    pub fn random(seed: u64, steps: usize) -> Episode {
        let mut rng = StdRng::seed_from_u64(seed);
        // Now and then a transaction is larger than what is staged in memory.
        let page_size = if rng.random_ratio(1, 40) { 65536 } else { 512 << rng.random_range(0..6) };
        let bytes = if page_size == 65536 { 6 << 20 } else { 160 << 10 };
        let setup = Setup {
            clients: rng.random_range(2..=4),
            volumes: rng.random_range(1..=3),
            page_size,
            most_pages: bytes / page_size,
            cache_size: 64 << 10,
            folder: rng.random_ratio(1, 6),
            cared_for: rng.random_ratio(1, 2),
            treason: None,
        };
        let steps = (0..steps as u64).map(|n| Step::random(crate::mix(seed ^ n << 32))).collect();
        Episode { seed, setup, steps }
    }

    /// The same clients and volumes with other steps, given by their seeds.
    pub fn with_steps(self, seeds: impl IntoIterator<Item = u64>) -> Episode {
        Episode { steps: seeds.into_iter().map(Step::random).collect(), ..self }
    }

    /// Makes the run. Panics at the first thing that is not as it must be.
    pub fn run(&self) -> Report {
        let mut world = World::new(&self.setup);
        for step in &self.steps {
            world.step(step);
        }
        world.heal(self.seed);
        let report = Report {
            steps: self.steps.len() as u64,
            lsns: world.histories.iter().map(|history| history.head()).sum(),
            events: std::mem::take(&mut world.events),
            ..Report::default()
        };
        report.faults.add(&world.network.tally);
        report
    }
}

impl Report {
    /// Adds another run's.
    pub fn add(&mut self, other: &Report) {
        self.steps += other.steps;
        self.lsns += other.lsns;
        self.faults.add(&other.faults);
        self.events.add(&other.events);
    }

    /// How often something happened.
    pub fn count(&self, event: &str) -> u64 {
        self.events.0.get(event).copied().unwrap_or(0)
    }
}
