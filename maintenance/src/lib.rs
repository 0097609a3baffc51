//! The care of volumes in a store, after the fact: [`collect`] lets go what
//! history need not keep, [`verify`] proves that what is kept can be read.
//!
//! This crate holds a [`Reader`](quire_history::Reader) of both stores, never
//! knows whether they are embedded or remote, and knows nothing of replicas.

pub mod collect;
pub mod compact;
pub mod verify;
