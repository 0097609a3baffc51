//! Every touch of object storage: URLs and credentials, the layout of keys,
//! create-only writes whose outcome is certain, reads that are whole or an
//! error, listings in key order, retries with a deadline, and counts of all of it.
//!
//! This crate knows keys and bytes, not what they mean: neither commits nor
//! segments are decoded here. Nothing above it names `object_store`, retries a
//! request, or asks whether a store is a folder; only a layer that
//! [`Bucket::through`] puts between speaks its language. Layout: `FORMAT.md`.

mod answers;
mod bucket;
mod budget;
mod counters;
mod create;
mod failure;
mod folder;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod hedge;
mod key;
pub mod keys;
mod list;
mod marker;
mod patience;
mod ranges;
mod store;
mod upload;

pub use bucket::{Bucket, Meta, Object, Options};
pub use counters::Counters;
pub use create::Created;
pub use key::Key;
pub use list::Names;
pub use patience::Limits;
pub use upload::{PART_BYTES, Upload};
