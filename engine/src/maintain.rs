//! The way of maintenance to the stores that this data directory works with.

use std::future::Future;
use std::sync::Arc;

use quire_history::Reader;
use quire_proto::{ErrorKind, Result, VolumeName};

use crate::engine::Engine;

impl Engine {
    /// Does work on a volume of the store, which is given by the name that it has there. No replica is needed.
    pub fn maintain<T, F>(&self, name: &VolumeName, work: impl FnOnce(Arc<Reader>, VolumeName) -> F + Send) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let remote = self.remote_of(name);
        let volume = remote.clone();
        let done = self.shared.bridge.wait(async { work(self.shared.reader().await?.clone(), volume).await });
        done.map_err(|e| {
            let way = if e.kind() == ErrorKind::NotFound { self.way_by_push(&remote) } else { None };
            match way {
                Some(way) => e.with_remedy(way),
                None => e,
            }
        })
    }
}
