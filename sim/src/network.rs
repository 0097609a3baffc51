//! The network between clients and one store. Each client has a [`Link`], a
//! layer over the store that breaks requests as its orders say; what it does
//! to which request follows from a seed and the requests that were made.
//!
//! No fault takes time: a client that "gives up waiting" is told so at once,
//! and a write that lands late lands when other requests are made. So a run is
//! as fast as its work, and does not depend on the clock.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{Error, ObjectStore, PutMode, PutOptions, PutPayload, Result};
use quire_proto::ErrorKind;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

use crate::fault::{Fault, Tally};

/// A write that arrives later lands with this chance at each later request.
const LANDING: f64 = 0.15;
/// More writes than these are not on their way at once: the oldest is lost for ever.
const MOST_LATE: usize = 32;
/// A listing may lack at most this many of the newest objects.
const MOST_UNLISTED: usize = 3;
/// Of so many requests in foul weather, one has a fault.
const FOUL: f64 = 0.25;
/// A client that was connected tries on for its deadline, which is long here: after so many it is refused.
const PATIENT: u32 = 40;

/// How a client's requests fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Every request is answered.
    Fair,
    /// Every now and then one goes wrong, in any way.
    Foul,
    /// The store cannot be reached.
    Away,
    /// After this many requests, the store refuses all others.
    CutAfter(u32),
}

/// A store that breaks its word, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treason {
    /// Create-only writes overwrite.
    Overwrites,
    /// Some writes are acknowledged and not done.
    Forgets,
    /// Some reads say that there is nothing.
    Hides,
}

/// What all links of one store share.
#[derive(Debug, Default)]
pub struct Network {
    /// What has happened so far.
    pub tally: Tally,
    treason: Mutex<Option<Treason>>,
    off: Mutex<Vec<Fault>>,
    late: Mutex<VecDeque<LateWrite>>,
    newest: Mutex<VecDeque<Path>>,
}

#[derive(Debug)]
struct LateWrite {
    below: Arc<dyn ObjectStore>,
    path: Path,
    payload: PutPayload,
    mode: PutMode,
}

/// What is heard of an operation of which a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The request waits.
    Waits {
        /// It changes nothing: it may be for a page, for which others may wait too.
        reads: bool,
    },
    /// The operation has ended.
    Ended,
}

/// Where a request is to wait until it is told to go on.
#[derive(Debug)]
pub struct Hold {
    /// The number of the request, from 1 on.
    pub request: u32,
    /// Whether it waits after the store has acted.
    pub after: bool,
    /// Is told once the request waits.
    pub waits: Sender<Progress>,
    /// Lets it go on; dropping the other end does, too.
    pub goes_on: oneshot::Receiver<()>,
}

/// One client's way to the store. Its process can be declared dead: then
/// nothing that it still does has any effect.
#[derive(Debug)]
pub struct Link {
    network: Arc<Network>,
    below: Arc<dyn ObjectStore>,
    orders: Mutex<Orders>,
    dead: AtomicBool,
    faults: AtomicU64,
}

#[derive(Debug)]
struct Orders {
    rng: StdRng,
    weather: Weather,
    requests: u32,
    hold: Option<Hold>,
}

/// A request that waits. Whoever gives it up, because another one beside it has failed, waits as long: nothing of an
/// operation goes on while it is taken to wait.
struct Held(Option<oneshot::Receiver<()>>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(goes_on) = self.0.take() {
            // On a thread of its own, as this one may drive a runtime.
            let _ = std::thread::spawn(|| goes_on.blocking_recv()).join();
        }
    }
}

/// A request that was let through.
pub(crate) struct Pass {
    pub(crate) fault: Option<Fault>,
    /// For choosing where a body is cut or flipped.
    pub(crate) dice: u64,
    reads: bool,
    hold: Option<Hold>,
}

impl Network {
    /// From now on the store breaks its word.
    pub fn betray(&self, treason: Treason) {
        *lock(&self.treason) = Some(treason);
    }

    /// From now on this fault does not happen.
    pub fn switch_off(&self, fault: Fault) {
        lock(&self.off).push(fault);
    }

    pub(crate) fn treason(&self) -> Option<Treason> {
        *lock(&self.treason)
    }

    /// Lets every write land that is still on its way.
    pub async fn settle(&self) {
        while self.land_one().await {}
    }

    /// Lands the oldest write on its way. Where it is create-only, what is there stays.
    async fn land_one(&self) -> bool {
        let Some(write) = lock(&self.late).pop_front() else { return false };
        let mode = self.put_mode(write.mode);
        let options = PutOptions { mode, ..PutOptions::default() };
        // Whether it was refused interests nobody any more.
        let _ = write.below.put_opts(&write.path, write.payload, options).await;
        true
    }

    pub(crate) fn put_mode(&self, asked: PutMode) -> PutMode {
        if self.treason() == Some(Treason::Overwrites) { PutMode::Overwrite } else { asked }
    }

    pub(crate) fn created(&self, path: &Path) {
        let mut newest = lock(&self.newest);
        newest.push_back(path.clone());
        if newest.len() > MOST_UNLISTED {
            newest.pop_front();
        }
    }

    pub(crate) fn newest(&self, n: usize) -> Vec<Path> {
        lock(&self.newest).iter().rev().take(n).cloned().collect()
    }
}

impl Link {
    /// A way to the store `below`.
    pub fn new(network: &Arc<Network>, below: Arc<dyn ObjectStore>) -> Link {
        let orders = Orders { rng: StdRng::seed_from_u64(0), weather: Weather::Fair, requests: 0, hold: None };
        Link {
            network: network.clone(),
            below,
            orders: Mutex::new(orders),
            dead: AtomicBool::new(false),
            faults: AtomicU64::new(0),
        }
    }

    /// What happens to the requests from here on.
    pub fn order(&self, seed: u64, weather: Weather, hold: Option<Hold>) {
        *lock(&self.orders) = Orders { rng: StdRng::seed_from_u64(seed), weather, requests: 0, hold };
    }

    /// The client's process is dead.
    pub fn kill(&self) {
        self.dead.store(true, SeqCst);
    }

    /// How many of its requests went wrong.
    pub fn faults(&self) -> u64 {
        self.faults.load(SeqCst)
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn below(&self) -> &Arc<dyn ObjectStore> {
        &self.below
    }

    pub(crate) fn note(&self, fault: Fault) {
        self.network.tally.note(fault);
        self.faults.fetch_add(1, SeqCst);
    }

    /// Decides what becomes of one request, to which only these faults can happen.
    pub(crate) async fn admit(&self, path: &Path, possible: &[Fault]) -> Result<Pass> {
        let (landing, weather, requests, mut pass) = self.decide(path, possible);
        if landing {
            self.network.land_one().await;
        }
        if let Some(hold) = pass.hold.take_if(|hold| !hold.after) {
            self.wait(hold, pass.reads).await;
        }
        self.check_alive(path)?;
        match weather {
            Weather::Away if requests <= PATIENT => {
                self.note(Fault::Unreached);
                Err(unreached())
            }
            Weather::CutAfter(n) if requests <= n => Ok(pass),
            Weather::Away | Weather::CutAfter(_) => {
                self.note(Fault::Denied);
                Err(denied(path))
            }
            Weather::Fair | Weather::Foul => Ok(pass),
        }
    }

    fn decide(&self, path: &Path, possible: &[Fault]) -> (bool, Weather, u32, Pass) {
        let mut orders = lock(&self.orders);
        orders.requests += 1;
        let requests = orders.requests;
        let landing = orders.rng.random_bool(LANDING);
        let goes_wrong = orders.rng.random_bool(FOUL) && orders.weather == Weather::Foul && !possible.is_empty();
        let which = orders.rng.random_range(0..possible.len().max(1));
        let dice = orders.rng.random();
        // What a bucket asks once, all its callers wait for.
        let is_marker = path.as_ref().contains(".quire/") || path.as_ref().ends_with("/!/store");
        let hold = orders.hold.take_if(|hold| hold.request <= requests && !is_marker);
        let fault = goes_wrong.then(|| possible[which]).filter(|fault| !lock(&self.network.off).contains(fault));
        // What changes something may have been done though no answer came.
        let reads = !possible.contains(&Fault::LostReply);
        let pass = Pass { fault, dice, reads, hold };
        (landing, orders.weather, requests, pass)
    }

    /// The store has acted: its answer sets out.
    pub(crate) async fn answer(&self, path: &Path, pass: &mut Pass) -> Result<()> {
        if let Some(hold) = pass.hold.take() {
            self.wait(hold, pass.reads).await;
        }
        self.check_alive(path)
    }

    async fn wait(&self, hold: Hold, reads: bool) {
        self.network.tally.note(Fault::Held);
        // Whoever has gone does not mind.
        let _ = hold.waits.send(Progress::Waits { reads });
        let mut held = Held(Some(hold.goes_on));
        if let Some(goes_on) = &mut held.0 {
            let _ = goes_on.await;
        }
        held.0 = None;
    }

    fn check_alive(&self, path: &Path) -> Result<()> {
        if self.dead.load(SeqCst) { Err(denied(path)) } else { Ok(()) }
    }

    /// The client gives up on a write that is still on its way.
    pub(crate) fn delay(&self, path: &Path, payload: PutPayload, mode: PutMode) -> Error {
        let mut late = lock(&self.network.late);
        late.push_back(LateWrite { below: self.below.clone(), path: path.clone(), payload, mode });
        if late.len() > MOST_LATE {
            late.pop_front();
        }
        broken(HttpErrorKind::Timeout, "no answer in time")
    }
}

/// A body as a fault leaves it.
pub(crate) fn spoil(fault: Fault, bytes: Bytes, dice: u64) -> Bytes {
    let at = (dice % bytes.len().max(1) as u64) as usize;
    match fault {
        Fault::ShortBody => bytes.slice(..at),
        Fault::FlippedBody => {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1 << (dice >> 32 & 7);
            bytes.into()
        }
        _ => bytes,
    }
}

/// The connection broke: the request may or may not have been seen.
pub(crate) fn interrupted() -> Error {
    broken(HttpErrorKind::Interrupted, "the connection broke")
}

fn unreached() -> Error {
    broken(HttpErrorKind::Connect, "no connection")
}

fn broken(kind: HttpErrorKind, why: &str) -> Error {
    Error::Generic { store: "network", source: Box::new(HttpError::new(kind, io::Error::other(why.to_owned()))) }
}

fn denied(path: &Path) -> Error {
    Error::PermissionDenied { path: path.to_string(), source: "the credentials have ended".into() }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a link to {}", self.below)
    }
}

/// Whether an error may be what a fault of the network looks like in the end.
pub fn is_of_the_network(e: &quire_proto::Error) -> bool {
    match e.kind() {
        ErrorKind::Unavailable | ErrorKind::Corrupt | ErrorKind::Denied => true,
        // A flipped bit in the version of the store's marker, which is looked at before its checksum.
        ErrorKind::Invalid => e.message().contains("format version"),
        _ => false,
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere is a finding of its own; it must not hide behind this one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
