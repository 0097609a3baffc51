//! The messages of the gRPC services, compiled from `proto/quire/v1/*.proto`,
//! which are their reference and carry the comments.

#![allow(missing_docs, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/quire.v1.rs"));
