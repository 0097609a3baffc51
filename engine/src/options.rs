//! What an engine is opened with. Where the values come from (flags,
//! environment, files) is the faces' business.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quire_proto::{Metastore, Pagestore, Result};

/// How a transaction's commit and the store relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Push and pull only when told.
    Manual,
    /// A commit returns only once it is in the store.
    Commit,
    /// Push and pull in the background this often.
    Every(Duration),
}

/// Whoever reads the past for less writes nothing into the store.
pub const LEASE_AFTER: Duration = Duration::from_secs(600);

/// The two traits behind a store URL. The faces choose the implementation.
#[derive(Clone)]
pub struct Stores {
    /// Orders the commits.
    pub metastore: Arc<dyn Metastore>,
    /// Keeps the pages.
    pub pagestore: Arc<dyn Pagestore>,
    /// What went to and came from the store so far.
    pub traffic: Arc<dyn Fn() -> Traffic + Send + Sync>,
}

/// What went to and came from a store since it was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Requests of all kinds.
    pub requests: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

/// Connects to the store; called at first need, inside the engine's runtime.
pub type Connect = Box<dyn Fn() -> BoxFuture<'static, Result<Stores>> + Send + Sync>;

/// What an [`Engine`](crate::Engine) is opened with.
pub struct Options {
    /// Where replicas lie. Made if it does not exist.
    pub data_dir: PathBuf,
    /// The store's URL without credentials, for messages.
    pub store_url: String,
    /// Connects to the store.
    pub connect: Connect,
    /// How commits and the store relate.
    pub sync: SyncMode,
    /// The bound, in bytes, of cached pages that can be fetched again.
    pub cache_size: u64,
    /// A snapshot of the past that is open for longer is leased in the store, so that collection keeps it:
    /// [`LEASE_AFTER`], as a rule.
    pub lease_after: Duration,
    /// Written into commits as their author: at most 128 bytes.
    pub author: String,
}
