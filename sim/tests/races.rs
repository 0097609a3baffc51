//! Writers race for the LSNs of volumes while a quarter of all their requests
//! go wrong. Everything that a metastore answers is written down, with when it
//! was asked and when it answered, and a checker looks for one order of all
//! calls that explains it: first the rules of a log, then time. In the end the
//! store's log holds exactly what was acknowledged.
//!
//! `QUIRE_ROUNDS=N` makes a longer race. Threads decide what happens here, so
//! a seed replays the faults, but not their order.
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use quire_bucket::{Bucket, Limits, Options};
use quire_metastore::Embedded;
use quire_metastore::contract::commits::{commit, write};
use quire_proto::{
    Appended, CommitId, CommitKind, ErrorKind, HEADERS_A_PIECE, Lsn, Metastore, SealedCommit, VolumeName, log_back,
};
use quire_sim::{Fault, Layer, Link, Network, Treason, Weather, is_of_the_network, mix, setting};
use quire_testkit::S3Server;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use todc_utils::{Action, History, Specification, WGLChecker};

/// How many calls a writer makes between two checks of what was answered.
const CALLS: usize = 8;

/// The answer to a call.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// Not a call: the log when the others began.
    Begin(u64, Option<CommitId>),
    /// The newest commit, if there is one.
    Head(Option<(u64, CommitId)>),
    /// An append at an LSN.
    Append(u64, CommitId, Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Won,
    /// The other commit has the LSN.
    Lost(CommitId),
    /// There is nothing at the LSN before.
    Gap,
    /// At the LSN before is another commit.
    OtherHistory,
}

/// A log as a metastore has to keep it: what came since a check, on top of what was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Log {
    before: u64,
    last_before: Option<CommitId>,
    commits: Vec<CommitId>,
}

impl Log {
    fn head(&self) -> u64 {
        self.before + self.commits.len() as u64
    }

    fn at(&self, lsn: u64) -> Option<CommitId> {
        match lsn.checked_sub(self.before + 1) {
            Some(n) => self.commits.get(n as usize).copied(),
            None if lsn == self.before => self.last_before,
            None => None,
        }
    }
}

impl Specification for Log {
    type State = Log;
    type Operation = Call;

    fn init() -> Log {
        Log { before: 0, last_before: None, commits: Vec::new() }
    }

    fn apply(call: &Call, log: &Log) -> (bool, Log) {
        let mut after = log.clone();
        let is_right = match *call {
            Call::Begin(before, last_before) => {
                after = Log { before, last_before, commits: Vec::new() };
                true
            }
            Call::Head(None) => log.head() == 0,
            Call::Head(Some((lsn, id))) => log.head() == lsn && log.at(lsn) == Some(id),
            Call::Append(lsn, id, Outcome::Won) => {
                after.commits.push(id);
                log.head() + 1 == lsn
            }
            Call::Append(lsn, id, Outcome::Lost(other)) => log.at(lsn) == Some(other) && other != id,
            Call::Append(lsn, _, Outcome::Gap) => log.head() + 1 < lsn,
            Call::Append(lsn, _, Outcome::OtherHistory) => log.head() + 1 >= lsn,
        };
        (is_right, after)
    }
}

/// Everything that was called and answered, in the order of time.
type Record = Mutex<Vec<Vec<(usize, Action<Call>)>>>;

/// A race, to be.
struct Race {
    raw: Bucket,
    writers: usize,
    volumes: usize,
    rounds: u64,
    limits: Limits,
}

/// What came of it.
struct Result {
    network: Arc<Network>,
    calls: usize,
    won: u64,
}

/// No pause between attempts takes longer than it must.
const EAGER: Limits = Limits {
    deadline: Duration::from_secs(600),
    connect_deadline: Duration::from_secs(600),
    attempt: Duration::from_secs(60),
    first_pause: Duration::ZERO,
    hedge: None,
};

fn volume(n: usize) -> VolumeName {
    VolumeName::parse(&format!("race/{n}")).unwrap()
}

impl Race {
    /// Runs it; the error is the history that no order explains.
    fn run(&self, seed: u64, treason: Option<Treason>) -> std::result::Result<Result, String> {
        let network = Arc::new(Network::default());
        // The head of a log comes from a listing: every store that Quire runs on lists what was written.
        network.switch_off(Fault::LateList);
        if let Some(treason) = treason {
            network.betray(treason);
        }
        let mut logs = vec![Log::init(); self.volumes];
        let mut result = Result { network: network.clone(), calls: 0, won: 0 };
        let clients: Vec<Embedded> = (0..self.writers).map(|n| self.client(&network, mix(seed ^ n as u64))).collect();
        for round in 0..self.rounds {
            let record: Record = Mutex::new(vec![Vec::new(); self.volumes]);
            let start = Barrier::new(self.writers);
            std::thread::scope(|scope| {
                for (n, client) in clients.iter().enumerate() {
                    let (record, start) = (&record, &start);
                    let rng = StdRng::seed_from_u64(mix(seed ^ round << 8 ^ n as u64));
                    scope.spawn(move || {
                        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                        start.wait();
                        runtime.block_on(Writer { n, client, record, rng }.race(self.volumes));
                    });
                }
            });
            for (v, calls) in record.into_inner().unwrap().into_iter().enumerate() {
                result.calls += calls.len() / 2;
                result.won += check(&mut logs[v], calls).map_err(|calls| format!("volume {v}: {calls}"))?;
            }
        }
        self.check_store(&logs, result.won)?;
        Ok(result)
    }

    fn client(&self, network: &Arc<Network>, seed: u64) -> Embedded {
        let bucket = self.raw.through(self.limits, |below| {
            let link = Link::new(network, below);
            link.order(seed, Weather::Foul, None);
            Arc::new(Layer(Arc::new(link)))
        });
        Embedded::new(bucket, Default::default())
    }

    /// The store holds every commit that was acknowledged, and no other.
    fn check_store(&self, logs: &[Log], won: u64) -> std::result::Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let fresh = Embedded::new(self.raw.clone(), Default::default());
        let mut there = 0;
        for (v, log) in logs.iter().enumerate() {
            let head = runtime.block_on(fresh.head(&volume(v))).map_err(|e| format!("volume {v}: {e}"))?;
            let last = head.head().map(|head| (head.lsn().get(), head.header().id));
            let expected = log.at(log.head()).map(|id| (log.head(), id));
            if last != expected {
                return Err(format!("volume {v}: the head is {last:?}, and {expected:?} was acknowledged"));
            }
            there += log.head();
            if let Some(head) = head.head() {
                let name = volume(v);
                let headers = log_back(&fresh, &name, head.header(), Lsn::FIRST, HEADERS_A_PIECE);
                let counted = runtime.block_on(headers.try_fold(0, async |n, _| Ok(n + 1)));
                assert_eq!(counted.map_err(|e| format!("volume {v}: {e}"))?, log.head());
            }
        }
        assert_eq!(there, won, "as many LSNs as appends that won");
        Ok(())
    }
}

/// One thread of a race.
struct Writer<'a> {
    n: usize,
    client: &'a Embedded,
    record: &'a Record,
    rng: StdRng,
}

impl Writer<'_> {
    async fn race(&mut self, volumes: usize) {
        let mut made = 0;
        while made < CALLS {
            let v = self.rng.random_range(0..volumes);
            let Some(head) = self.head(v).await else { continue };
            let mut next = match &head {
                Some(head) => write(head),
                None => commit(None, CommitKind::Create),
            };
            if self.rng.random_ratio(1, 8) {
                // One too far: the commit before it is in no log.
                next = write(&next);
            }
            self.append(v, &next).await;
            made += 2;
        }
    }

    fn note(&self, v: usize, action: Action<Call>) {
        self.record.lock().unwrap()[v].push((self.n, action));
    }

    /// None: damage on the way; it was not answered, and changes nothing.
    async fn head(&self, v: usize) -> Option<Option<SealedCommit>> {
        let asked = self.record.lock().unwrap()[v].len();
        let call = Call::Head(None);
        self.note(v, Action::Call(call));
        let answer = loop {
            match self.client.head(&volume(v)).await {
                Ok(state) => break state,
                Err(e) => assert!(is_of_the_network(&e), "head of {v}: {e:?} (call {asked})"),
            }
        };
        let head = answer.head().cloned();
        self.note(v, Action::Response(Call::Head(head.as_ref().map(|head| (head.lsn().get(), head.header().id)))));
        Some(head)
    }

    /// Appends, again and again until it is answered: that is always safe.
    async fn append(&self, v: usize, commit: &SealedCommit) {
        let (lsn, id) = (commit.lsn().get(), commit.header().id);
        self.note(v, Action::Call(Call::Append(lsn, id, Outcome::Won)));
        let outcome = loop {
            match self.client.append(&volume(v), commit).await {
                Ok(Appended::Won) => break Outcome::Won,
                Ok(Appended::Lost(other)) => break Outcome::Lost(other.header.id),
                Err(e) if e.kind() == ErrorKind::Conflict => break Outcome::OtherHistory,
                Err(e) if e.kind() == ErrorKind::Invalid && !is_of_the_network(&e) => break Outcome::Gap,
                Err(e) => assert!(is_of_the_network(&e), "append at {lsn} of {v}: {e:?}"),
            }
        };
        self.note(v, Action::Response(Call::Append(lsn, id, outcome)));
    }
}

/// Finds an order of the calls, and takes what won into the log. The error is the history.
fn check(log: &mut Log, calls: Vec<(usize, Action<Call>)>) -> std::result::Result<u64, String> {
    if calls.is_empty() {
        return Ok(0);
    }
    let begin = Call::Begin(log.head(), log.at(log.head()));
    let mut history = vec![(0, Action::Call(begin)), (0, Action::Response(begin))];
    history.extend(calls.iter().cloned());
    if !WGLChecker::<Log>::is_linearizable(History::from_actions(history)) {
        return Err(calls.iter().map(|(n, action)| format!("\n{n:3} {action:?}")).collect());
    }
    let mut won: Vec<(u64, CommitId)> = calls
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Response(Call::Append(lsn, id, Outcome::Won)) => Some((*lsn, *id)),
            _ => None,
        })
        .collect();
    won.sort_unstable_by_key(|(lsn, _)| *lsn);
    let (before, last_before) = (log.head(), log.at(log.head()));
    *log = Log { before, last_before, commits: won.iter().map(|(_, id)| *id).collect() };
    assert!(won.iter().map(|(lsn, _)| *lsn).eq(before + 1..=log.head()), "no gap: {won:?}");
    Ok(won.len() as u64)
}

fn report(what: &str, race: &Race, done: &Result, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{what}: {} writers, {} calls, {} won, {seconds:.1} s; {}",
        race.writers, done.calls, done.won, done.network.tally
    );
    for fault in [Fault::LostRequest, Fault::LostReply, Fault::LateWrite, Fault::ShortBody, Fault::FlippedBody] {
        assert!(done.network.tally.count(fault) > 0, "{fault:?} never happened");
    }
}

#[test]
fn sixteen_writers_in_memory_see_one_log() {
    let race = Race {
        raw: Bucket::open("memory://").unwrap(),
        writers: 16,
        volumes: 1,
        rounds: setting("QUIRE_ROUNDS", 40),
        limits: EAGER,
    };
    let start = Instant::now();
    let done = race.run(quire_testkit::seed(), None).unwrap();
    report("memory", &race, &done, start);
}

#[test]
fn sixteen_writers_on_a_folder_see_one_log() {
    let folder = quire_sim::scratch();
    let race = Race {
        raw: Bucket::open(&format!("file://{}", folder.path().display())).unwrap(),
        writers: 16,
        volumes: 1,
        rounds: setting("QUIRE_ROUNDS", 30),
        limits: EAGER,
    };
    let start = Instant::now();
    let done = race.run(quire_testkit::seed(), None).unwrap();
    report("folder", &race, &done, start);
}

#[test]
fn a_few_writers_on_s3_see_one_log_of_each_of_many_volumes() {
    let server = S3Server::shared();
    let options = Options { variables: Some(server.variables()), assume_proven: true, ..Options::default() };
    let race = Race {
        raw: Bucket::open_with(&server.url("races"), options).unwrap(),
        writers: 3,
        volumes: 24,
        rounds: setting("QUIRE_ROUNDS", 20),
        limits: EAGER,
    };
    let start = Instant::now();
    let done = race.run(quire_testkit::seed(), None).unwrap();
    report("S3", &race, &done, start);
}

/// The checker can fail: it finds out what a store may not do.
#[test]
fn a_store_that_breaks_its_word_is_found_out_by_racing_writers() {
    for treason in [Treason::Overwrites, Treason::Forgets] {
        let raw = Bucket::open("memory://").unwrap();
        let race = Race { raw, writers: 8, volumes: 1, rounds: 40, limits: EAGER };
        let seed = quire_testkit::seed();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| race.run(seed, Some(treason)).err()));
        assert!(!matches!(found, Ok(None)), "nobody noticed that the store {treason:?}");
    }
}
