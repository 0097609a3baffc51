//! What the tests of every crate share: a real S3 server ([`S3Server`]), one that must be refused ([`OverwritingS3`]), a
//! proxy that counts, delays and breaks requests ([`Proxy`]), a line that breaks whatever is spoken on it ([`Line`]), the
//! command line as a server ([`Served`]), random seeds that replay ([`seed()`]), a real browser ([`browser_script`]), the
//! fuzzer's inputs ([`fuzz`]), and the rows of benchmarks ([`rows`]).
//!
//! Test-only: nothing here is part of Quire, and it knows nothing of Quire's
//! crates, so that each of them can depend on it. Its functions panic with the
//! reason instead of returning errors: a test that cannot set up its parts has
//! failed.

mod browser;
mod child;
mod debian;
pub mod fuzz;
mod line;
#[cfg(feature = "criterion")]
mod measure;
mod overwriting;
mod proxy;
pub mod rows;
mod s3;
mod seed;
mod served;
mod venv;

pub use browser::browser_script;
pub use debian::debian_program;
pub use line::{Line, Trouble};
#[cfg(feature = "criterion")]
pub use measure::measure;
pub use overwriting::OverwritingS3;
pub use proxy::{Fault, Proxy, Request, Traffic};
pub use s3::{S3Server, SHARED_S3_VARIABLE};
pub use seed::seed;
pub use served::Served;
pub use venv::Venv;

/// Names the folder into which cargo has built the workspace, if whoever runs
/// the tests has done so: a build from inside a test chooses other features of
/// shared dependencies, and takes minutes.
pub const BUILT_VARIABLE: &str = "QUIRE_TEST_BUILT";
