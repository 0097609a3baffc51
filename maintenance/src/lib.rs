//! The care of volumes in a store, after the fact: [`collect`] lets go what
//! history need not keep, [`verify`] proves that what is kept can be read.
//!
//! This crate holds a [`Reader`](quire_history::Reader) of both stores, never
//! knows whether they are embedded or remote, and knows nothing of replicas.
//! Where a server is, [`Server`] has it do the work: nothing travels but reports.

pub mod collect;
pub mod compact;
mod server;
pub mod verify;
mod wire;

pub use server::Server;
