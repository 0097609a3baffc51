//! The bridge between the blocking engine and the asynchronous stores: the one
//! place where anything waits for a future.

use std::future::Future;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use quire_proto::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// How many threads drive the traffic with the stores.
const DRIVERS: usize = 2;
/// How long what they are in the middle of may take when the engine goes; then it is left to itself.
pub(crate) const ENDING: Duration = Duration::from_secs(5);

/// The engine's own runtime. Nothing of it runs until the store is needed.
pub(crate) struct Bridge {
    runtime: Option<Runtime>,
}

impl Bridge {
    pub(crate) fn new() -> Result<Bridge> {
        const WHAT: &str = "starting the engine's threads";
        can_start(DRIVERS + 1).map_err(|e| {
            Error::from_io(WHAT, e)
                .with_remedy("Raise the limits of threads (`ulimit -u`) and of memory (`ulimit -v`), then try again.")
        })?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(DRIVERS)
            .thread_name("quire")
            .enable_all()
            .build()
            .map_err(|e| Error::from_io(WHAT, e))?;
        // A thread for what blocks: where there is one, work waits for it if no other can be started.
        runtime.spawn_blocking(|| ());
        Ok(Bridge { runtime: Some(runtime) })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the runtime lives as long as the engine")
    }

    /// Waits for a future. Also inside a host's own runtime, where a thread
    /// that drives tasks may not wait: there another thread does.
    pub(crate) fn wait<F>(&self, future: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        if Handle::try_current().is_err() {
            return self.runtime().block_on(future);
        }
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| self.runtime().block_on(future));
            waiter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Lets a task run by itself.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime().spawn(task)
    }

    /// Lets blocking work run by itself.
    pub(crate) fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.runtime().spawn_blocking(work);
    }
}

/// Threads that end runtimes, of which nobody can wait for the last ones.
static ENDING_ELSEWHERE: Mutex<Vec<std::thread::JoinHandle<()>>> = Mutex::new(Vec::new());

impl Drop for Bridge {
    /// Its threads end before their handles go: glibc's `pthread_detach` reads a thread once more after it has let go of it,
    /// and if that is ending at this very moment the host program crashes.
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if Handle::try_current().is_err() {
            runtime.shutdown_timeout(ENDING);
            return;
        }
        // Inside a runtime, perhaps this one, nobody may wait; a thread does, whose handle is kept for the same reason.
        let runtime = Arc::new(Mutex::new(Some(runtime)));
        let theirs = runtime.clone();
        let ends = move || {
            if let Some(runtime) = theirs.lock().take() {
                runtime.shutdown_timeout(ENDING);
            }
        };
        match std::thread::Builder::new().name("quire-end".into()).spawn(ends) {
            Ok(thread) => {
                let mut ending = ENDING_ELSEWHERE.lock();
                ending.extract_if(.., |thread| thread.is_finished()).for_each(|thread| drop(thread.join()));
                ending.push(thread);
            }
            Err(_) => {
                if let Some(runtime) = runtime.lock().take() {
                    runtime.shutdown_background();
                }
            }
        }
    }
}

/// Whether this many threads can be had at once. A runtime that gets fewer panics, or waits for ever.
fn can_start(count: usize) -> io::Result<()> {
    let mut started = Vec::new();
    for _ in 0..count {
        let (release, held) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("quire".into()).spawn(move || held.recv().is_err())?;
        started.push((release, thread));
    }
    for (release, thread) in started {
        drop(release);
        // It does nothing that could fail.
        let _ = thread.join();
    }
    Ok(())
}
