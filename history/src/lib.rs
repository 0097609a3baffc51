//! What a snapshot is made of, and how that is found without reading a log.
//!
//! A page of a snapshot is in the newest commit that owns it, seen along the
//! bases of the commits (`PROTOCOL.md` of the design: the rule stands at
//! [`Lineage`]). A [`Lineage`] knows those commits back to a root, or to a
//! checkpoint: an index of every page, which [`checkpoint`] writes from the one
//! before it and the commits since.
//!
//! This crate holds both traits of `quire-proto` and never knows whether they
//! are embedded or remote. The engine reads through it, and writes checkpoints.

mod again;
mod boot;
mod catchup;
mod commits;
mod frames;
mod headers;
mod index;
mod kept;
mod lineage;
mod write;

pub use again::checkpoint_again;
pub use boot::boot_frames;
pub use catchup::{Since, since};
pub use commits::Reader;
pub use frames::fetch_frames;
pub use headers::{beginning, replaced};
pub use index::Index;
pub use kept::{MOST_LOOKS, gone_or};
pub use lineage::{Lineage, Located};
pub use write::{Checkpointed, checkpoint, compose};

/// How many commits are read at the same time.
const COMMITS_AT_ONCE: usize = 32;

/// A checkpoint is written when so many commits have come since the last one.
/// Opening a volume reads their headers, of which the roll-ups hold all but 64.
pub const CHECKPOINT_SPAN: u64 = 256;
