//! Rounds of work, and losses of power in them.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use quire_e2e::{App, World};
use quire_powerloss::{Disk, Event, Image, Kept, read_events};
use quire_testkit::seed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::work::{History, Plan, Size, Step};

/// Lines that the program runs in a round.
const LINES: usize = 40;
/// Losses of power that are looked at in a round.
const CUTS: usize = 12;
/// So many times as many are enough to notice a lie, in so many histories at most.
const ATTEMPTS: usize = 5;
const RECORDINGS: usize = 12;

/// Whose disk loses what was not synced. The other one's loses nothing.
#[derive(Clone, Copy)]
pub(crate) enum Loser {
    Machine,
    Store,
    Both,
}

/// What a disk only says that it has done.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Lie {
    FilesAreSynced,
    NamesAreSynced,
}

/// A machine that loses its power again and again.
pub(crate) struct Life {
    name: &'static str,
    plan: Plan,
    loser: Loser,
    world: World,
    rng: StdRng,
    history: History,
}

/// What the program did in a round.
struct Recording {
    events: Vec<Event>,
    /// The lines that it was given, in order; each gets one answer.
    steps: Vec<Step>,
    /// What there was before.
    begin: Left,
}

/// What a loss of power has left: how many transactions are here, and how many in the store for each volume.
#[derive(Clone)]
struct Left {
    here: u64,
    in_store: Vec<u64>,
}

/// How many transactions there have to be, and may be.
struct Promised {
    here: RangeInclusive<u64>,
    in_store: RangeInclusive<u64>,
}

impl Life {
    pub(crate) fn new(name: &'static str, plan: Plan, loser: Loser) -> Life {
        let world = World::with_variables(vec![("QUIRE_CACHE_SIZE".to_owned(), plan.cache_size.to_owned())]);
        Life { name, plan, loser, world, rng: StdRng::seed_from_u64(seed()), history: History::default() }
    }

    pub(crate) fn run(mut self) {
        let rounds = std::env::var("QUIRE_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
        let mut image = Image::default();
        let mut left = Left { here: 0, in_store: vec![0] };
        for round in 1..=rounds {
            let recording = self.record(&image, left.clone());
            let mut seen = Vec::new();
            let next = self.rng.random_range(0..CUTS);
            for (n, (cut, after)) in self.images(&image, &recording, None).into_iter().enumerate() {
                let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-{}", self.name));
                let _kept = Kept { folder, image: &after, events: cut };
                let found = self.look(&after, &recording.promised(&self.plan, self.loser, cut));
                seen.push(found.here);
                if n == next {
                    (image, left) = (after.clone(), found);
                }
            }
            let (events, all) = (recording.events.len(), self.history.len());
            println!("round {round}: {events} events, {all} transactions; there were left {seen:?}");
            self.history.forget_from(left.here);
        }
    }

    /// Whether some loss of power looks wrong on a disk that lies.
    pub(crate) fn notices(mut self, lie: Lie) -> bool {
        (0..RECORDINGS).any(|_| {
            // Not every history does much that can be lost.
            self.history.forget_from(0);
            let recording = self.record(&Image::default(), Left { here: 0, in_store: vec![0] });
            (0..ATTEMPTS).any(|_| {
                let images = self.images(&Image::default(), &recording, Some(lie));
                images.into_iter().any(|(cut, image)| {
                    let promised = recording.promised(&self.plan, self.loser, cut);
                    catch_unwind(AssertUnwindSafe(|| self.look(&image, &promised))).is_err()
                })
            })
        })
    }

    /// Lets the program work on a disk.
    fn record(&mut self, image: &Image, begin: Left) -> Recording {
        image.write(self.world.folder()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recording");
        let machine = self.world.machine("machine");
        let start = || machine.recorded_app("first", "", &path);
        // Opening it gives an answer, and saying how it works another one.
        let mut steps = vec![Step::Open; 2];
        let mut app = start();
        app.sql(&self.plan.sql(Step::Open));
        while steps.len() < LINES {
            let step = self.history.random_step(&mut self.rng);
            if let Step::Open = step {
                app.finish();
                app = start();
                steps.push(step);
            }
            app.sql(&self.plan.sql(step));
            steps.push(step);
        }
        app.finish();
        let events = read_events(&path).unwrap();
        let mut disk = Disk::new(image);
        events.iter().for_each(|event| disk.replay(event).unwrap());
        let there = Image::read(self.world.folder()).unwrap();
        // A thread that is saving a table when its process ends is killed inside a call, which is then not recorded. The
        // file has a temporary name, and what it would have become is a cache.
        let past = disk.current().difference(&there).filter(|path| !path.ends_with("table.qtab.new"));
        assert_eq!(past, None, "something went past the recorder");
        Recording { events, steps, begin }
    }

    /// Random moments, in order. The hardest are those right after an answer.
    fn cuts(&mut self, recording: &Recording) -> Vec<usize> {
        let all = recording.events.len();
        let said = |n: &usize| matches!(recording.events[n - 1], Event::Said { .. });
        let answers: Vec<usize> = (1..=all).filter(said).collect();
        let mut cuts: Vec<usize> = (0..CUTS)
            .map(|n| match n % 2 {
                0 => answers[self.rng.random_range(0..answers.len())],
                _ => self.rng.random_range(0..=all),
            })
            .collect();
        cuts.sort_unstable();
        cuts
    }

    /// Disks after losses of power at random moments.
    fn images(&mut self, begin: &Image, recording: &Recording, lie: Option<Lie>) -> Vec<(usize, Image)> {
        let spared: &[&str] = match self.loser {
            Loser::Machine => &["store"],
            Loser::Store => &["machine"],
            Loser::Both => &[],
        };
        let mut disk = Disk::new(begin);
        let mut done = 0;
        let mut images = Vec::new();
        for cut in self.cuts(recording) {
            for event in &recording.events[done..cut] {
                let is_a_lie = match event {
                    Event::Synced { fd } if disk.is_folder(*fd) => lie == Some(Lie::NamesAreSynced),
                    Event::Synced { .. } => lie == Some(Lie::FilesAreSynced),
                    _ => false,
                };
                if !is_a_lie {
                    disk.replay(event).unwrap();
                }
            }
            done = cut;
            images.push((cut, disk.after_power_loss(spared, &mut self.rng)));
        }
        images
    }

    /// Looks at what a loss of power has left, and goes on working there.
    fn look(&self, image: &Image, promised: &Promised) -> Left {
        image.write(self.world.folder()).unwrap();
        let in_store = self.in_store(&self.history);
        for count in &in_store {
            assert!(promised.in_store.contains(count), "{:?} in the store, there are {in_store:?}", promised.in_store);
        }
        let mut app = self.world.machine("machine").app("first");
        app.sql(&self.plan.open());
        let counts = self.counts(&mut app, &self.history);
        let here = counts[0];
        assert!(counts.iter().all(|count| *count == here), "half a transaction over two volumes: {counts:?}");
        assert!(promised.here.contains(&here), "{:?} are promised, there are {here}", promised.here);
        assert!(in_store.iter().all(|count| *count <= here), "{in_store:?} in the store, and {here} here");

        let mut history = self.history.clone();
        history.forget_from(here);
        let next = history.commit(Size::Small);
        app.sql(&self.plan.sql(next));
        app.sql(&self.plan.sql(Step::Push));
        let expected = vec![here + 1; counts.len()];
        assert_eq!(self.counts(&mut app, &history), expected, "work does not go on");
        assert_eq!(self.in_store(&history), expected, "replication does not go on");
        assert_eq!(app.one("SELECT DISTINCT state FROM quire_status"), "clean");
        app.finish();
        Left { here, in_store }
    }

    /// How many transactions there are in each volume.
    fn counts(&self, app: &mut App, history: &History) -> Vec<u64> {
        self.plan.schemas().map(|schema| history.count(app, schema)).collect()
    }

    /// The same, for somebody who has never seen these volumes.
    fn in_store(&self, history: &History) -> Vec<u64> {
        let fresh = self.world.machine("fresh");
        let mut app = fresh.app("first");
        app.sql(&self.plan.open());
        let counts = self.counts(&mut app, history);
        app.finish();
        std::fs::remove_dir_all(fresh.data_dir()).unwrap();
        counts
    }
}

impl Recording {
    /// What holds if the power goes after so many events.
    fn promised(&self, plan: &Plan, loser: Loser, cut: usize) -> Promised {
        let said = self.events[..cut].iter().filter_map(|event| match event {
            Event::Said { bytes } => Some(bytes),
            _ => None,
        });
        // A row begins with '=', an answer ends with another line.
        let lines = said.flat_map(|bytes| bytes.split_inclusive(|byte| *byte == b'\n'));
        let answered = lines.filter(|line| line[0] != b'=').count();
        let (mut committed, mut begun) = (self.begin.here, self.begin.here);
        let mut pushed = *self.begin.in_store.iter().min().unwrap();
        let mut pushing = *self.begin.in_store.iter().max().unwrap();
        for (n, step) in self.steps.iter().enumerate().take(answered + 1) {
            let is_answered = n < answered;
            match step {
                Step::Commit(n, _) => {
                    begun = n + 1;
                    committed = if is_answered { begun } else { committed };
                }
                Step::Push => {
                    pushing = committed;
                    pushed = if is_answered { committed } else { pushed };
                }
                _ => {}
            }
        }
        let may_forget = plan.synchronous != "FULL" && !matches!(loser, Loser::Store);
        let kept = if may_forget { pushed } else { committed };
        Promised { here: kept..=begun, in_store: pushed..=pushing }
    }
}
