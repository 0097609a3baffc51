//! Quire for SQLite: the VFS `quire`, SQL functions that do things, and tables
//! that show things.
//!
//! A program that knows nothing of Quire loads this as an extension and opens
//! `file:NAME?vfs=quire`; the command line links it as a library and calls
//! [`register_linked`]. Either way SQLite's file calls become readers and
//! writers of the engine. This crate must not know what stands behind the
//! engine's volumes, and must not call a SQLite other than by `api.rs`.
//!
//! From the outside in: `entry.rs` meets SQLite, `vfs.rs` and `file.rs` are the
//! calls it makes, `database.rs` is what they mean for one connection and one
//! volume: the state machine to read first. `journal.rs` keeps SQLite's
//! rollback journals, which never leave the process. `functions.rs`,
//! `pragmas.rs` and `tables.rs` are what SQL sees.

mod api;
mod change;
mod database;
mod entry;
mod error;
mod file;
mod functions;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod guide;
mod header;
mod home;
mod instance;
mod journal;
mod journalfile;
mod linked;
mod names;
mod pragmas;
mod process;
mod rows;
mod spool;
mod tables;
mod temp;
mod vfs;
mod view;
mod volumes;

pub use error::last_error;
pub use linked::{register_linked, register_linked_as};
