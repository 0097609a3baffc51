//! The metastore of Quire: it orders the commits of volumes.
//!
//! A volume is its name's log, one create-only object per LSN, so the bucket
//! decides every race and a metastore keeps no state that matters: any number
//! of them, in servers and in clients, work on one bucket. [`Embedded`] holds
//! all the logic, [`Service`] offers it over gRPC, and [`Remote`] is the same trait at the other end.
//!
//! This crate knows nothing of pages and segments; that a commit's segments
//! are durable before it is appended is its author's duty.

mod append;
mod checkpoints;
#[cfg(feature = "contract")]
pub mod contract;
mod delete;
mod embedded;
mod headers;
mod hub;
mod log;
mod marks;
mod moments;
mod open;
mod remote;
mod rename;
mod restore;
mod rollups;
mod service;
mod state;
mod statements;
mod tips;
mod upkeep;
mod volumes;
mod watch;

pub use embedded::{Embedded, Options};
pub use hub::Hub;
pub use remote::Remote;
pub use service::Service;
