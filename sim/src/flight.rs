//! Operations that talk to the store. One of their requests may wait while
//! other steps are made: then the operation is a flight, on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use quire_engine::{Condition, Lsn, Moved, Reset, Result, Status, Volume};
use tokio::sync::oneshot;

use crate::care::Care;
use crate::content::{self, Change, Content, Stamp};
use crate::network::{Hold, Link, Progress};
use crate::step::Step;

/// What is asked of a volume.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Commit(Transaction),
    Push,
    Pull,
    Sync,
    Fetch,
    Reset,
    Hydrate,
    Care(Care),
}

/// A transaction, and what it makes of the volume.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) stamp: Stamp,
    pub(crate) changes: Vec<Change>,
    pub(crate) before: Arc<Content>,
    pub(crate) after: Arc<Content>,
    pub(crate) durable: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The transaction could not even begin.
    NotBegun(quire_engine::Error),
    Committed(Result<()>),
    Moved(Result<Moved>),
    Fetched(Result<Option<Lsn>>),
    Reset(Result<Reset>),
    Hydrated(Result<u64>),
    CaredFor(Result<()>),
}

/// How things were when an operation began.
pub(crate) struct Before {
    /// The newest LSN in the store.
    pub(crate) head: u64,
    /// The faults that its link had had.
    pub(crate) faults: u64,
    pub(crate) status: Status,
    /// The number of the newest statement of what is kept.
    pub(crate) stated: u64,
}

/// An operation of which a request waits.
pub(crate) struct Flight {
    pub(crate) client: usize,
    pub(crate) volume: usize,
    pub(crate) operation: Operation,
    pub(crate) before: Before,
    /// For how many steps.
    pub(crate) steps: u32,
    reads: bool,
    thread: Option<JoinHandle<Answer>>,
    goes_on: Option<oneshot::Sender<()>>,
}

/// An operation ended at once, or one of its requests waits.
pub(crate) enum Begun {
    Ended(Answer),
    Waits(Waiting),
}

/// An operation on its thread, of which a request waits.
pub(crate) struct Waiting {
    thread: JoinHandle<Answer>,
    goes_on: oneshot::Sender<()>,
    /// The request changes nothing.
    reads: bool,
}

/// Begins an operation, with the requests faring as the step says.
pub(crate) fn begin(link: &Link, volume: &Volume, operation: &Operation, step: &Step) -> Begun {
    let Some(pause) = step.pause else {
        link.order(step.seed, step.weather, None);
        return Begun::Ended(perform(volume, operation));
    };
    let (tells, hears) = channel();
    let (goes_on, held) = oneshot::channel();
    let hold = Hold { request: pause.request, after: pause.after, waits: tells.clone(), goes_on: held };
    link.order(step.seed, step.weather, Some(hold));
    let (volume, operation) = (volume.clone(), operation.clone());
    let thread = std::thread::spawn(move || {
        let _ended = Ended(tells);
        perform(&volume, &operation)
    });
    match hears.recv() {
        Ok(Progress::Waits { reads }) => Begun::Waits(Waiting { thread, goes_on, reads }),
        _ => Begun::Ended(join(thread)),
    }
}

struct Ended(Sender<Progress>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens to an operation that has waited before.
        let _ = self.0.send(Progress::Ended);
    }
}

fn join(thread: JoinHandle<Answer>) -> Answer {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn perform(volume: &Volume, operation: &Operation) -> Answer {
    match operation {
        Operation::Commit(transaction) => commit(volume, transaction),
        Operation::Push => Answer::Moved(volume.push()),
        Operation::Pull => Answer::Moved(volume.pull()),
        Operation::Sync => Answer::Moved(volume.sync()),
        Operation::Fetch => Answer::Fetched(volume.fetch()),
        Operation::Reset => Answer::Reset(volume.reset()),
        Operation::Hydrate => Answer::Hydrated(volume.hydrate(&mut |_, _| {})),
        Operation::Care(care) => Answer::CaredFor(care.perform()),
    }
}

fn commit(volume: &Volume, transaction: &Transaction) -> Answer {
    let mut writer = match volume.writer(&volume.snapshot(), "the simulation") {
        Ok(writer) => writer,
        Err(e) => return Answer::NotBegun(e),
    };
    let Transaction { stamp, changes, before, after, durable } = transaction;
    Answer::Committed(content::write(&mut writer, before.page_size, changes, *stamp).and_then(|()| {
        for page in [1, after.count / 2 + 1, after.count + 1] {
            // It may have to be fetched, and the store may be away: that spoils nothing of the transaction.
            let _ = after.check_in(&writer, page);
        }
        writer.commit(*durable).map(|_| ())
    }))
}

impl Flight {
    pub(crate) fn new(
        (client, volume): (usize, usize),
        operation: Operation,
        before: Before,
        steps: u32,
        Waiting { thread, goes_on, reads }: Waiting,
    ) -> Flight {
        Flight { client, volume, operation, before, steps, reads, thread: Some(thread), goes_on: Some(goes_on) }
    }

    /// Whether the request that waits may be for a page.
    pub(crate) fn fetches(&self) -> bool {
        let Status { unpushed, state, .. } = &self.before.status;
        match self.operation {
            Operation::Hydrate | Operation::Commit(_) => true,
            // Whoever has pushed makes a checkpoint, with pages that it may have to fetch.
            _ => self.reads && (*unpushed > 0 || *state == Condition::InDoubt),
        }
    }

    /// Whether it is a transaction.
    pub(crate) fn commits(&self) -> bool {
        matches!(self.operation, Operation::Commit(_))
    }

    /// Lets it go on to its end.
    pub(crate) fn land(&mut self) -> Option<Answer> {
        self.goes_on = None;
        self.thread.take().map(join)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.goes_on = None;
        if let Some(thread) = self.thread.take() {
            // The run has failed already, or the process was killed.
            let _ = thread.join();
        }
    }
}
