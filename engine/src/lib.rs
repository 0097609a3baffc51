//! The client: the local replica of a volume, readers and writers on it, and
//! its traffic with a store.
//!
//! Reading a page that is here and committing locally take no part of the
//! asynchronous world; everything that needs the store goes through the two
//! traits of `quire-proto`, and this crate never knows whether they are
//! embedded or remote. It knows nothing of SQLite.
//!
//! Where to begin reading: [`Engine`] opens a data directory and [`Volume`]s
//! in it; a [`Snapshot`] is read, a [`Writer`] changes. `replica/` holds
//! what they share and its locks; `log/` and `recover.rs` are the truth on
//! disk (`FORMAT.md`); `push.rs` and `pull.rs` move it.

mod ahead;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod catalog;
mod checkpoint;
mod compact;
mod engine;
mod fetch;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod golden;
mod groups;
mod history;
mod hold;
mod lease;
mod log;
mod maintain;
mod options;
mod pull;
mod push;
mod recover;
mod replica;
mod runtime;
mod snapshot;
mod standing;
mod state;
mod table;
mod tablefile;
mod unheld;
mod volume;
mod writer;

pub use engine::{Engine, Stats, WeakEngine};
pub use history::{Between, Forked, Moment, Restored};
pub use options::{Connect, LEASE_AFTER, Options, Stores, SyncMode, Traffic};
pub use quire_history::Checkpointed;
pub use quire_proto::{Error, ErrorKind, Lsn, PageCount, PageIdx, PageSet, PageSize, Result, VolumeName};
pub use snapshot::{PagePlace, Snapshot};
pub use volume::{Condition, LogEntry, Moved, Reset, Status, Verified, Volume};
pub use writer::Writer;
