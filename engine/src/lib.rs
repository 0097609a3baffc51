//! SKELETON of the engine's public API (bodies follow): faces build against this.
#![allow(missing_docs, unused_variables, clippy::todo)]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use quire_proto::{Error, ErrorKind, Lsn, PageCount, PageIdx, PageSize, Result, VolumeName};
use quire_proto::{CommitHash, CommitId, Metastore, Pagestore};

/// How a transaction's commit and the store relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Only push and pull when told.
    Manual,
    /// A commit returns only once it is in the store.
    Commit,
    /// Push and pull in the background this often.
    Every(Duration),
}

/// The two traits behind a store URL; the faces (cli, sqlite-vfs) choose the implementation.
#[derive(Clone)]
pub struct Stores {
    pub metastore: Arc<dyn Metastore>,
    pub pagestore: Arc<dyn Pagestore>,
    /// The store's URL without credentials, for messages.
    pub url: String,
    /// (requests, bytes in, bytes out) so far.
    pub traffic: Arc<dyn Fn() -> Traffic + Send + Sync>,
}

/// What went to and came from the store, since the store was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic { pub requests: u64, pub bytes_in: u64, pub bytes_out: u64 }

/// Connects to the store; called once, at first need, inside the engine's runtime.
pub type Connect = Box<dyn Fn() -> futures::future::BoxFuture<'static, Result<Stores>> + Send + Sync>;

pub struct Options {
    pub data_dir: PathBuf,
    /// Shown in status before the store is connected.
    pub store_url: String,
    pub connect: Connect,
    pub sync: SyncMode,
    /// Bound of the cache of pages that can be fetched again, in bytes.
    pub cache_size: u64,
    /// Written into commits as their author.
    pub author: String,
}

/// One data directory, open. Cheap to clone.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    /// Takes the data directory's lock (Busy, naming the pid, if another process has it).
    pub fn open(options: Options) -> Result<Engine> { todo!() }
    pub fn data_dir(&self) -> &Path { todo!() }
    pub fn store_url(&self) -> &str { todo!() }
    /// Opens a volume: this replica, or adopted from the store, or neither: then it
    /// is created by its first commit. The store is asked only if there is no replica here.
    /// Opening one volume twice gives the same replica.
    pub fn volume(&self, name: &VolumeName) -> Result<Volume> { todo!() }
    /// As `volume`, but NotFound if neither this data directory nor the store has it.
    pub fn existing(&self, name: &VolumeName) -> Result<Volume> { todo!() }
    /// Clones volume `remote` of the store into a replica that is called `local` here.
    pub fn clone_volume(&self, remote: &VolumeName, local: &VolumeName) -> Result<Volume> { todo!() }
    /// Names of replicas in this data directory.
    pub fn local_volumes(&self) -> Result<Vec<VolumeName>> { todo!() }
    /// Names of live volumes in the store.
    pub fn store_volumes(&self, prefix: &str) -> Result<Vec<VolumeName>> { todo!() }
    /// Decides the group of prepared writers: all of them count from here on, or (on error) none.
    pub fn decide(&self, group: &str) -> Result<()> { todo!() }
    /// Removes the replica (refused with Conflict if it has unpushed commits, unless `force`).
    pub fn remove_replica(&self, name: &VolumeName, force: bool) -> Result<()> { todo!() }
    /// Deletes the volume in the store (its history stays until collected).
    pub fn delete_in_store(&self, name: &VolumeName) -> Result<Lsn> { todo!() }
    /// Renames the volume in the store and its replica here.
    pub fn rename(&self, old: &VolumeName, new: &VolumeName) -> Result<()> { todo!() }
    pub fn stats(&self) -> Stats { todo!() }
    /// The metadata of one volume in the store (no replica needed).
    pub fn store_info(&self, name: &VolumeName) -> Result<LogEntry> { todo!() }
}

/// Counters since the engine was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub pages_from_cache: u64, pub pages_fetched: u64, pub requests: u64,
    pub bytes_in: u64, pub bytes_out: u64, pub commits: u64, pub pushes: u64,
}

/// One replica, open. Cheap to clone.
#[derive(Clone)]
pub struct Volume {}

impl Volume {
    pub fn name(&self) -> &VolumeName { todo!() }
    /// The visible snapshot: O(1), never blocks.
    pub fn snapshot(&self) -> Snapshot { todo!() }
    /// Takes the replica's writer lock. Busy: another writer, a pull or a reset has it.
    /// Conflict: `on` is not the visible snapshot any more.
    pub fn writer(&self, on: &Snapshot, who: &str) -> Result<Writer> { todo!() }
    pub fn status(&self) -> Status { todo!() }
    pub fn push(&self) -> Result<Moved> { todo!() }
    pub fn pull(&self) -> Result<Moved> { todo!() }
    /// Pull if behind, push if ahead.
    pub fn sync(&self) -> Result<Moved> { todo!() }
    /// Learns the store's newest LSN; nothing visible changes.
    pub fn fetch(&self) -> Result<Option<Lsn>> { todo!() }
    /// Goes to the store's head; unpushed commits are kept as replica `NAME.dropped-N`, which is returned.
    pub fn reset(&self) -> Result<Reset> { todo!() }
    /// Returns once LSN is durable in the store, or Unavailable after `timeout`.
    pub fn wait(&self, lsn: Lsn, timeout: Duration) -> Result<()> { todo!() }
    /// Fetches every missing page of the visible snapshot; `progress(done, total)` in pages.
    pub fn hydrate(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<u64> { todo!() }
    /// Checks every page of the visible snapshot, in cache and in the store, against its checksum.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified> { todo!() }
    /// The store's log, newest first.
    pub fn log(&self) -> Result<Vec<LogEntry>> { todo!() }
    /// Waits for the next commit in the store after `after` (blocking, for `quire watch`).
    pub fn watch(&self, after: Option<Lsn>, each: &mut dyn FnMut(LogEntry) -> bool) -> Result<()> { todo!() }
    /// Small facts that travel with the volume: content=sqlite|file, length=<bytes>.
    pub fn attribute(&self, key: &str) -> Option<String> { todo!() }
}

/// What push, pull or sync did; Display gives one line for people.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// LSN pushed to, number of local commits rolled up, pages and bytes sent.
    pub pushed: Option<(Lsn, u64)>, pub pages_pushed: u64, pub bytes_pushed: u64,
    /// LSN pulled to and from.
    pub pulled: Option<(Option<Lsn>, Lsn)>, pub pages_changed: u64,
}
impl std::fmt::Display for Moved { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { todo!() } }
#[derive(Clone, Debug)]
pub struct Reset { pub lsn: Option<Lsn>, pub kept_as: Option<VolumeName> }
#[derive(Clone, Copy, Debug, Default)]
pub struct Verified { pub pages: u64, pub bytes: u64 }
#[derive(Clone, Debug)]
pub struct LogEntry {
    pub lsn: Lsn, pub kind: &'static str, pub time_ms: u64, pub pages_changed: u64, pub page_count: PageCount,
    pub page_size: PageSize, pub bytes: u64, pub commit_id: CommitId, pub author: String, pub hash: CommitHash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State { Clean, Ahead, Behind, Diverged, InDoubt }
impl State { pub fn as_str(self) -> &'static str { todo!() } }

#[derive(Clone, Debug)]
pub struct Status {
    pub name: VolumeName, pub volume_id: Option<String>, pub lsn: Option<Lsn>, pub base_lsn: Option<Lsn>, pub store_lsn: Option<Lsn>,
    pub unpushed: u64, pub state: State, pub last_error: Option<String>, pub remedy: Option<String>, pub writer: Option<String>,
    pub pages: PageCount, pub page_size: Option<PageSize>, pub cached_pages: u64, pub store: String,
}

/// A volume at one moment; never changes. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {}

impl Snapshot {
    /// Counts up by exactly one at every change of the volume's visible snapshot in this
    /// process; a writer that wrote and was dropped uses one up too.
    pub fn version(&self) -> u64 { todo!() }
    /// None before the first commit of a new volume.
    pub fn page_size(&self) -> Option<PageSize> { todo!() }
    pub fn page_count(&self) -> PageCount { todo!() }
    /// The store's LSN that it is based on.
    pub fn base_lsn(&self) -> Option<Lsn> { todo!() }
    /// Copies a page into `buf`, which is one page long; zeros past the end. Fetches it if it is absent.
    pub fn read(&self, page: PageIdx, buf: &mut [u8]) -> Result<()> { todo!() }
}

/// One transaction. Dropping it rolls back.
pub struct Writer {}

impl Writer {
    pub fn snapshot(&self) -> &Snapshot { todo!() }
    /// The size of the pages to be written. Must be called before the first `write` of a new volume; a size other
    /// than the snapshot's (VACUUM) drops what is staged and makes all pages of the new snapshot come from this writer.
    pub fn set_page_size(&mut self, size: PageSize) -> Result<()> { todo!() }
    pub fn page_size(&self) -> Option<PageSize> { todo!() }
    /// Stages a page (read-your-writes; spills to the log past a bound).
    pub fn write(&mut self, page: PageIdx, data: &[u8]) -> Result<()> { todo!() }
    /// A staged page, or the snapshot's.
    pub fn read(&self, page: PageIdx, buf: &mut [u8]) -> Result<()> { todo!() }
    /// Pages past `count` go; if they are written again later, what is between reads as zeros.
    pub fn truncate(&mut self, count: PageCount) -> Result<()> { todo!() }
    pub fn page_count(&self) -> PageCount { todo!() }
    /// Whether a commit would change anything.
    pub fn is_empty(&self) -> bool { todo!() }
    pub fn set_attribute(&mut self, key: &str, value: &str) { todo!() }
    /// Appends all staged pages and reserves the commit record's space, publishing nothing: a full disk shows here.
    pub fn stage(&mut self) -> Result<()> { todo!() }
    /// As `stage`, and writes the commit record so that it counts only once `Engine::decide(group)` succeeded
    /// (also after a crash). `commit` then only publishes and cannot fail.
    pub fn prepare(&mut self, group: &str, durable: bool) -> Result<()> { todo!() }
    /// Commits: one sequential write, one fdatasync if `durable`. With SyncMode::Commit it returns once the
    /// commit is in the store. On error nothing of it is visible, now or after a crash.
    pub fn commit(self, durable: bool) -> Result<Snapshot> { todo!() }
}
