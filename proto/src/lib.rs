//! The protocol of Quire: the nouns that every other crate speaks, the two
//! traits that a store implements ([`Metastore`], [`Pagestore`]), the byte
//! formats of what is stored (`FORMAT.md`), and the messages of the gRPC
//! services ([`wire`]).
//!
//! This crate performs no I/O, reads no clock and knows neither object storage
//! nor SQLite. Everything that decodes bytes treats them as hostile: a bad
//! input is an [`Error`] of kind [`ErrorKind::Corrupt`], never a panic, and
//! never an allocation that the input's own length does not justify.

mod codec;
mod commit;
mod error;
mod frame;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod ids;
mod lsn;
mod metastore;
mod name;
mod page;
mod page_set;
mod pagestore;
mod rollup;
mod segment;
pub mod wire;

pub use codec::{Reader, Writer};
pub use commit::{
    Attributes, Base, Body, COMMIT_MAGIC, CommitHeader, CommitKind, Condition, INLINE_LIMIT_BYTES, MAX_HEADER_BYTES,
    PageSets, SealedCommit,
};
pub use error::{Error, ErrorKind, Result};
pub use frame::{
    DecodedFrame, EncodedFrame, FRAME_TARGET_BYTES, MAX_FRAME_BYTES, check_frame, decode_frame, encode_frame,
};
pub use ids::{CommitHash, CommitId, LocalTip, ObjectHash, SegmentId};
pub use lsn::Lsn;
pub use metastore::{Appended, Metastore, VolumeState};
pub use name::VolumeName;
pub use page::{PageCount, PageIdx, PageSize};
pub use page_set::PageSet;
pub use pagestore::{FrameAddress, FrameStream, Pagestore};
pub use rollup::{ROLLUP_SPAN, Rollup};
pub use segment::{FrameIndex, FramePlace, FrameRef, SegmentRef};
