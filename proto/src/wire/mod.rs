//! The messages and services of gRPC, compiled from `proto/quire/v1/*.proto`, which are their reference and carry the
//! comments; and what they mean in the crate's own words.

mod convert;
mod status;

use crate::Grant;

pub use convert::{place_of, required};
pub use status::{error_of, is_answer, retry_delay, status_of, status_of_limit, status_of_lost, winner_of};

/// What was asked, and what its caller may do. Whoever lets a call in has put the grant there: without one, nothing may be
/// done.
pub fn authorized<T>(request: tonic::Request<T>) -> Result<(Grant, T), tonic::Status> {
    let (_, mut extensions, asked) = request.into_parts();
    match extensions.remove::<Grant>() {
        Some(grant) => Ok((grant, asked)),
        None => Err(tonic::Status::unauthenticated("the call came without a grant")),
    }
}

/// Lets each call in, with all rights: where whoever reaches the server may do everything.
pub fn everyone(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    request.extensions_mut().insert(Grant::everything());
    Ok(request)
}

/// All of it, for clients that ask the server what it can do: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quire.bin"));

#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/quire.v1.rs"));
}
pub use generated::*;
