//! The messages and services of gRPC, compiled from `proto/quire/v1/*.proto`, which are their reference and carry the
//! comments; and what they mean in the crate's own words.

mod convert;
mod status;

pub use convert::{place_of, required};
pub use status::{error_of, is_answer, status_of, status_of_lost, winner_of};

/// All of it, for clients that ask the server what it can do: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quire.bin"));

#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/quire.v1.rs"));
}
pub use generated::*;
