//! SQLite's file format, as far as a store of pages needs it: which pages a
//! replica wants first ([`upper_levels`]), which pages belong together
//! ([`order`]), and whose a page is ([`Owners`]).
//!
//! Everything begins with page 1: [`read_header`] says whether the volume is a
//! SQLite database at all, [`read_schema`] what is in it.
//!
//! This crate performs no I/O: pages come through [`Pages`]. It knows neither
//! SQL nor rows nor Quire's volumes, and it trusts no byte. A damaged or
//! hostile database costs at most a few reads a page and memory that grows
//! with its pages, and what cannot be told stays [`Owner::Unknown`].
//!
//! The format is that of <https://www.sqlite.org/fileformat2.html>.

mod btree;
mod bytes;
mod cell;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod header;
mod leaves;
mod levels;
mod order;
mod owner;
mod owners;
mod pages;
mod record;
mod schema;
mod shares;
mod trees;
mod upper;
mod walk;

pub use btree::{BTreePage, PageKind};
pub use cell::Overflow;
pub use header::{AutoVacuum, DatabaseHeader, TextEncoding, read_header};
pub use leaves::{IndexRow, Leaves, rows_of_index_leaf};
pub use order::order;
pub use owner::{Owner, TreeLevel};
pub use owners::{Owners, Run};
pub use pages::Pages;
pub use schema::{ObjectKind, Schema, SchemaObject, read_schema};
pub use shares::{Share, Shares};
pub use trees::Depth;
pub use upper::upper_levels;
