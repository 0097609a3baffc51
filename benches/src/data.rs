//! The rows, and the schema of the one table that they are in.

pub(crate) use quire_testkit::rows::{scattered, text};

/// The schema of the one table.
pub(crate) const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT NOT NULL)";
