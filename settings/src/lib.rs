//! The settings of every face of Quire: the command line and the SQLite
//! extension read the same keys, from the same places, with the same errors.
//!
//! A value comes from the first of these that has it: a flag or URI parameter,
//! the environment, `quire.toml` in the current folder, `quire.toml` in the
//! platform's configuration folder, the default. Each value remembers its
//! source, so that an error can name it. [`open_engine`] turns settings into an
//! engine: the one place that chooses what stands behind the engine's traits.
//!
//! This crate must not know about command lines or SQLite.

mod connect;
mod file;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod key;
mod load;
mod nearest;
mod place;
mod source;
mod store;
mod sync;
mod time;
mod token;

pub use connect::{Upkeep, open_engine, open_served, open_server, open_upkeep};
pub use key::Key;
pub use load::{Explained, Overrides, Settings, load, load_from};
pub use place::Place;
pub use source::Source;
pub use store::{StoreKind, StoreUrl};
pub use sync::{parse_duration, parse_sync};
pub use time::{looks_like_moment, parse_time};
pub use token::Token;
