//! What the tests of every crate share: a real S3 server ([`S3Server`]), one
//! that must be refused ([`OverwritingS3`]), a proxy that counts, delays and breaks requests ([`Proxy`]), and random seeds
//! that replay ([`seed`]).
//!
//! Test-only: nothing here is part of Quire, and it knows nothing of Quire's
//! crates, so that each of them can depend on it. Its functions panic with the
//! reason instead of returning errors: a test that cannot set up its parts has
//! failed.

mod child;
mod overwriting;
mod proxy;
mod s3;
mod seed;
mod venv;

pub use overwriting::OverwritingS3;
pub use proxy::{Fault, Proxy, Request, Traffic};
pub use s3::{S3Server, SHARED_S3_VARIABLE};
pub use seed::seed;
pub use venv::Venv;
