//! What the end-to-end tests share: data directories over one store
//! ([`World`]), the command line in them, ordinary SQLite programs in them
//! ([`App`]), and what a database holds ([`content`]).
//!
//! Test-only. It knows nothing of Quire's crates: it runs what users run, the
//! built extension and the built binary. Its functions panic with the reason
//! instead of returning errors.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod app;
mod built;
mod content;
mod files;
mod memory;
mod world;

pub use app::{Answer, App, Failure};
pub use content::{Content, content, content_in};
pub use files::{files_below, text_of};
pub use memory::{Measured, measure};
pub use quire_testkit::Served;
pub use world::{Ended, Machine, World};
