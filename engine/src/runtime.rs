//! The bridge between the blocking engine and the asynchronous stores: the one
//! place where anything waits for a future.

use std::future::Future;

use quire_proto::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};

/// The engine's own runtime. Nothing of it runs until the store is needed.
pub(crate) struct Bridge {
    runtime: Option<Runtime>,
}

impl Bridge {
    pub(crate) fn new() -> Result<Bridge> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("quire")
            .enable_all()
            .build()
            .map_err(|e| Error::from_io("starting the engine's threads", e))?;
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

    /// Lets blocking work run by itself.
    pub(crate) fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.runtime().spawn_blocking(work);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting here could block a host that drops the engine inside its own runtime.
            runtime.shutdown_background();
        }
    }
}
