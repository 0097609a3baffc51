//! The world of a run, and how one step of it is made.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use quire_bucket::Bucket;
use quire_engine::{Condition, VolumeName};
use quire_maintenance::collect;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;

use crate::branch::Fork;
use crate::care::ground;
use crate::client::{self, Client, Events, Place, Replica};
use crate::content::{Change, Stamp};
use crate::disk;
use crate::episode::Setup;
use crate::fault::Fault;
use crate::flight::{self, Before, Begun, Flight, Operation, Transaction};
use crate::history::History;
use crate::ledger::Ledger;
use crate::network::Network;
use crate::step::{Action, Step};

const DAY_MS: i64 = 86_400_000;
/// So many snapshots of a replica are held at most.
const MOST_HELD: usize = 2;

/// Everything of a run.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) flights: Vec<Flight>,
    pub(crate) clients: Vec<Client>,
    pub(crate) histories: Vec<History>,
    pub(crate) ledger: Ledger,
    pub(crate) network: Arc<Network>,
    /// The store itself, past the network.
    pub(crate) raw: Bucket,
    /// For looking at what is kept, past the network.
    pub(crate) care: collect::Stores,
    pub(crate) runtime: Runtime,
    pub(crate) events: Events,
    /// Milliseconds that the machines' clock is off.
    clock: Arc<AtomicI64>,
    dirs: u64,
    pub(crate) forks_in_store: Vec<Fork>,
    /// Prints what happens.
    traces: bool,
    root: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(setup: &Setup) -> World {
        let root = disk::scratch();
        let url = if setup.folder { format!("file://{}/store", root.path().display()) } else { "memory://".to_owned() };
        let raw = Bucket::open(&url).unwrap_or_else(|e| panic!("{url}: {e:?}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let network = Arc::new(Network::default());
        if let Some(treason) = setup.treason {
            network.betray(treason);
        }
        if setup.cared_for {
            network.switch_off(Fault::LateList);
        }
        let names: Vec<_> = (0..setup.volumes).map(volume_name).collect();
        let mut world = World {
            setup: setup.clone(),
            flights: Vec::new(),
            clients: Vec::new(),
            histories: names.iter().cloned().map(History::new).collect(),
            ledger: Ledger::new(setup.page_size),
            network,
            care: client::care(&raw),
            raw,
            runtime,
            events: Events::default(),
            clock: Arc::default(),
            dirs: 0,
            forks_in_store: Vec::new(),
            traces: std::env::var_os("QUIRE_TRACE").is_some(),
            root,
        };
        for c in 0..setup.clients {
            let dir = world.fresh_dir();
            let replicas = names.iter().cloned().map(Replica::new).collect();
            let client = world.open_client(dir, c % 3 == 2, setup.cache_size, replicas);
            world.clients.push(client);
        }
        world
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.traces {
            eprintln!("{}", line());
        }
    }

    pub(crate) fn fresh_dir(&mut self) -> PathBuf {
        self.dirs += 1;
        self.root.path().join(format!("data-{}", self.dirs))
    }

    /// A name that no volume has yet.
    pub(crate) fn fork_name(&mut self) -> VolumeName {
        self.dirs += 1;
        VolumeName::parse(&format!("fork/{}", self.dirs)).expect("a right name")
    }

    pub(crate) fn open_client(
        &self,
        dir: PathBuf,
        commits_to_store: bool,
        cache_size: u64,
        replicas: Vec<Replica>,
    ) -> Client {
        let (raw, network, clock) = (&self.raw, &self.network, &self.clock);
        Client::open(Place { dir, raw, network, clock, commits_to_store, cache_size }, replicas)
    }

    /// Takes in what has come to a volume's log in the store.
    pub(crate) fn read_store(&mut self, v: usize) {
        self.runtime.block_on(self.histories[v].read_on(&self.raw, &self.ledger));
    }

    /// Makes one step, and checks what it touched.
    pub(crate) fn step(&mut self, step: &Step) {
        self.trace(|| format!("{step:?}"));
        self.land_due();
        let (c, v) = (step.client % self.clients.len(), step.volume % self.setup.volumes);
        if self.is_busy(c, v, step.action) {
            return;
        }
        let mut rng = StdRng::seed_from_u64(crate::mix(step.seed));
        self.clients[c].link.order(step.seed, step.weather, None);
        match step.action {
            Action::Reopen { without_tables } => self.reopen(c, without_tables, &mut rng),
            Action::Crash => self.crash(c, &mut rng),
            Action::Twin => self.twin(c, &mut rng),
            Action::SetClock { days } => {
                self.clock.store(i64::from(days) * DAY_MS, SeqCst);
                self.events.note(if days < 0 { "clock set back" } else { "clock set forward" });
            }
            _ => {}
        }
        // It may be another process by now.
        self.clients[c].link.order(step.seed, step.weather, None);
        if !self.open(c, v) {
            return;
        }
        match step.action {
            Action::Commit { durable } => self.commit(c, v, step, durable, &mut rng),
            Action::Push => self.operate(c, v, Operation::Push, step),
            Action::Pull => self.operate(c, v, Operation::Pull, step),
            Action::Sync => self.operate(c, v, Operation::Sync, step),
            Action::Fetch => self.operate(c, v, Operation::Fetch, step),
            Action::Reset => self.operate(c, v, Operation::Reset, step),
            Action::Hydrate => self.operate(c, v, Operation::Hydrate, step),
            Action::Past => self.read_past(c, v, &mut rng),
            Action::Fork { of_past } => self.fork(c, v, of_past, &mut rng),
            Action::Restore => self.restore(c, v, &mut rng),
            Action::Checkpoint => self.checkpoint(c, v),
            Action::Keep | Action::Collect | Action::Compact => self.take_care(c, v, step, &mut rng),
            Action::Rollback => self.roll_back(c, v, &mut rng),
            Action::Verify => self.verify(c, v),
            Action::Log => self.log(c, v),
            Action::HoldSnapshot => self.hold_snapshot(c, v),
            Action::ReadAll | Action::Reopen { .. } | Action::Crash | Action::Twin | Action::SetClock { .. } => {}
        }
        let thorough =
            matches!(step.action, Action::ReadAll | Action::Crash | Action::Reset) || rng.random_ratio(1, 24);
        self.look(c, v, &mut rng, thorough);
    }

    /// Whether an operation that waits keeps the client from this action.
    fn is_busy(&self, c: usize, v: usize, action: Action) -> bool {
        if matches!(action, Action::Crash | Action::Twin | Action::Reopen { .. }) {
            return false;
        }
        let Some(flight) = self.flights.iter().find(|flight| (flight.client, flight.volume) == (c, v)) else {
            return false;
        };
        let is_local = match action {
            Action::Commit { .. } => !self.clients[c].commits_to_store,
            Action::Rollback | Action::HoldSnapshot | Action::ReadAll | Action::SetClock { .. } => true,
            _ => false,
        };
        // Before a transaction begins, a doubt is settled: that would wait for the flight.
        let Client { replicas, commits_to_store, .. } = &self.clients[c];
        let is_open = || replicas[v].volume().status().state == Condition::InDoubt;
        let in_doubt = !replicas[v].maybe.is_empty() || *commits_to_store && is_open();
        !is_local || flight.fetches() || in_doubt
    }

    fn land_due(&mut self) {
        self.flights.iter_mut().for_each(|flight| flight.steps = flight.steps.saturating_sub(1));
        while let Some(at) = self.flights.iter().position(|flight| flight.steps == 0) {
            self.land(at);
        }
    }

    /// Lets every operation come to its end.
    pub(crate) fn land_all(&mut self) {
        while !self.flights.is_empty() {
            self.land(0);
        }
    }

    fn land(&mut self, at: usize) {
        let mut flight = self.flights.remove(at);
        if let Some(answer) = flight.land() {
            self.events.note("others in between");
            let (c, v) = (flight.client, flight.volume);
            self.judge(c, v, &flight.operation, &flight.before, answer, true);
        }
    }

    /// The client's process is killed: what it was at ends without a trace.
    fn kill(&mut self, c: usize) {
        self.clients[c].link.kill();
        let (killed, rest) = std::mem::take(&mut self.flights).into_iter().partition(|flight| flight.client == c);
        self.flights = rest;
        let killed: Vec<Flight> = killed;
        for flight in killed {
            self.events.note("killed inside an operation");
            if let Operation::Commit(transaction) = &flight.operation {
                self.clients[c].replicas[flight.volume].maybe.push(transaction.stamp);
            }
        }
        self.clients[c].close();
    }

    /// Opens a volume, and takes in what it found in the store if there was nothing here.
    fn open(&mut self, c: usize, v: usize) -> bool {
        let was_open = self.clients[c].replicas[v].volume.is_some();
        if !self.clients[c].open_volume(v) {
            self.events.note("could not be opened");
            return false;
        }
        if !was_open {
            self.adopt(c, v);
        }
        true
    }

    pub(crate) fn operate(&mut self, c: usize, v: usize, operation: Operation, step: &Step) {
        self.read_store(v);
        // One of a client's at a time waits: the other may need what it has, and a request of
        // this one, of which several are under way, would wait in the other's place.
        let waits = self.flights.iter().any(|flight| flight.client == c);
        let step = &Step { pause: step.pause.filter(|_| !waits), ..*step };
        let client = &self.clients[c];
        let volume = client.replicas[v].volume();
        let before = Before {
            head: self.histories[v].head(),
            faults: client.link.faults(),
            status: volume.status(),
            stated: self.stated(v),
        };
        match flight::begin(&client.link, &volume, &operation, step) {
            Begun::Ended(answer) => self.judge(c, v, &operation, &before, answer, false),
            Begun::Waits(waiting) => {
                let steps = step.pause.map_or(1, |pause| pause.steps);
                self.flights.push(Flight::new((c, v), operation, before, steps, waiting));
            }
        }
    }

    fn commit(&mut self, c: usize, v: usize, step: &Step, durable: bool, rng: &mut StdRng) {
        let transaction = self.transaction(c, v, durable, rng);
        self.operate(c, v, Operation::Commit(transaction), step);
    }

    fn transaction(&mut self, c: usize, v: usize, durable: bool, rng: &mut StdRng) -> Transaction {
        let on: Stamp = self.clients[c].replicas[v].visible;
        let stamp = self.ledger.stamp();
        let before = self.ledger.content(on);
        let changes: Vec<Change> = before.transaction(stamp, self.setup.most_pages, rng);
        let mut after = (*before).clone();
        changes.iter().for_each(|change| after.apply(*change));
        self.ledger.note(stamp, on, after);
        Transaction { stamp, changes, before, after: self.ledger.content(stamp), durable }
    }

    /// A transaction that is given up, or one that turns out to change nothing.
    fn roll_back(&mut self, c: usize, v: usize, rng: &mut StdRng) {
        let transaction = self.transaction(c, v, false, rng);
        self.ledger.bury(transaction.stamp);
        let volume = self.clients[c].replicas[v].volume();
        // In doubt about the last one, none can begin.
        let Ok(mut writer) = volume.writer(&volume.snapshot(), "the simulation") else { return };
        if rng.random_ratio(1, 3) {
            let same = writer.commit(false).unwrap_or_else(|e| panic!("a commit of nothing: {e:?}"));
            assert_eq!(same.version(), volume.snapshot().version(), "a commit of nothing makes no snapshot");
            return;
        }
        let page_size = transaction.before.page_size;
        let staged = crate::content::write(&mut writer, page_size, &transaction.changes, transaction.stamp);
        staged.unwrap_or_else(|e| panic!("staging: {e:?}"));
        if rng.random_ratio(1, 2) {
            writer.stage().unwrap_or_else(|e| panic!("reserving space: {e:?}"));
        }
        drop(writer);
        self.events.note("rolled back");
    }

    fn hold_snapshot(&mut self, c: usize, v: usize) {
        let replica = &mut self.clients[c].replicas[v];
        let snapshot = replica.volume().snapshot();
        let stamp = crate::content::stamp_of(&snapshot);
        replica.held.push((snapshot, stamp));
        if replica.held.len() > MOST_HELD {
            let (snapshot, stamp) = replica.held.remove(0);
            self.check_pages(c, &snapshot, stamp, None, ground(v, &snapshot), "a snapshot that was held");
            self.events.note("old snapshot read");
        }
    }

    fn reopen(&mut self, c: usize, without_tables: bool, rng: &mut StdRng) {
        while let Some(at) = self.flights.iter().position(|flight| flight.client == c) {
            self.land(at);
        }
        let client = &mut self.clients[c];
        client.close();
        if without_tables {
            disk::lose_tables(&client.dir);
        }
        let replicas = std::mem::take(&mut client.replicas);
        let dir = client.dir.clone();
        let commits_to_store = client.commits_to_store ^ rng.random_ratio(1, 6);
        let cache_size = self.setup.cache_size << rng.random_range(0..3);
        let forks = std::mem::take(&mut self.clients[c].forks);
        self.clients[c] = Client { forks, ..self.open_client(dir, commits_to_store, cache_size, replicas) };
        self.give_up_kept(c);
        self.events.note(if without_tables { "reopened without tables" } else { "reopened" });
    }

    /// The data directory as it is at this moment is all that is left.
    fn crash(&mut self, c: usize, rng: &mut StdRng) {
        let dir = self.fresh_dir();
        disk::copy(&self.clients[c].dir, &dir);
        self.kill(c);
        let replicas = self.clients[c].replicas.iter().map(Replica::copied).collect();
        let forks = self.clients[c].forks.clone();
        self.replace(c, dir, self.clients[c].commits_to_store ^ rng.random_ratio(1, 12), replicas);
        self.clients[c].forks = forks;
        self.events.note("crashed");
    }

    /// A copy of the client's data directory goes on in another client's place.
    fn twin(&mut self, c: usize, rng: &mut StdRng) {
        let t = (c + rng.random_range(1..self.clients.len())) % self.clients.len();
        // The outcome of what is under way would be another here than there.
        if self.flights.iter().any(|flight| flight.client == c && flight.commits()) {
            return;
        }
        let dir = self.fresh_dir();
        disk::copy(&self.clients[c].dir, &dir);
        self.kill(t);
        let replicas = self.clients[c].replicas.iter().map(Replica::copied).collect();
        let forks = self.clients[c].forks.clone();
        self.replace(t, dir, self.clients[c].commits_to_store, replicas);
        self.clients[t].forks = forks;
        self.events.note("copied and run twice");
    }

    fn replace(&mut self, c: usize, dir: PathBuf, commits_to_store: bool, replicas: Vec<Replica>) {
        let old = std::mem::replace(&mut self.clients[c].dir, dir.clone());
        // A thread of the client that was killed may be at its last write.
        while let Err(e) = fs::remove_dir_all(&old) {
            assert_eq!(e.kind(), io::ErrorKind::DirectoryNotEmpty, "{}: {e}", old.display());
            std::thread::yield_now();
        }
        self.clients[c] = self.open_client(dir, commits_to_store, self.setup.cache_size, replicas);
    }
}

pub(crate) fn volume_name(n: usize) -> VolumeName {
    VolumeName::parse(&format!("volume/{n}")).expect("a right name")
}
