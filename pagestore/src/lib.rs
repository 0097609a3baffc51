//! The pagestore of Quire: immutable segments of pages in object storage.
//!
//! [`Embedded`] holds all the logic, over a [`Bucket`](quire_bucket::Bucket):
//! frames stream into segments in bounded memory, and come back by address in
//! few ranged requests, verified. The bytes of a segment are in `FORMAT.md`. [`Service`] offers it over gRPC, and
//! [`Remote`] is the same trait at the other end.
//!
//! This crate knows nothing of commits, of their order, or of who reads the
//! pages: whoever names a segment knows why it is there.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
#[cfg(feature = "contract")]
pub mod contract;
mod embedded;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod read;
mod remote;
mod scan;
mod segment;
mod service;
mod upkeep;
mod write;

pub use embedded::Embedded;
pub use remote::Remote;
pub use segment::{MAX_SEGMENT_BYTES, SEGMENT_MAGIC, SegmentTable, TRAILER_BYTES};
pub use service::Service;
