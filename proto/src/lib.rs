//! The protocol of Quire: the nouns that every other crate speaks, the two
//! traits that a store implements ([`Metastore`], [`Pagestore`]), the byte
//! formats of what is stored (`FORMAT.md`), and the messages of the gRPC
//! services ([`wire`]).
//!
//! This crate performs no I/O, reads no clock and knows neither object storage
//! nor SQLite. Everything that decodes bytes treats them as hostile: a bad
//! input is an [`Error`] of kind [`ErrorKind::Corrupt`], never a panic, and
//! never an allocation that the input's own length does not justify.

mod allowance;
mod back;
mod checkpoint;
mod codec;
mod commit;
mod error;
mod frame;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod grant;
mod ids;
mod lsn;
mod marker;
mod metastore;
mod name;
mod page;
mod page_set;
mod pagestore;
mod retention;
mod rollup;
mod segment;
mod statement;
mod stub;
mod upkeep;
pub mod wire;

pub use allowance::Allowance;
pub use back::{HEADERS_A_PIECE, changed_since, headers_back, log_back};
pub use checkpoint::{
    Boot, CHECKPOINT_FRONT_BYTES, CHECKPOINT_MAGIC, CheckpointHead, CheckpointInfo, CheckpointLeaf, CheckpointWriter,
    FrameLocation, FrameObject, LEAF_RUNS, LeafRef, MAX_BOOT_BYTES, Origin, Overlay, OverlayBase, OverlayStep, PageRun,
    PageSource,
};
pub use codec::{Reader, Writer};
pub use commit::{
    Attributes, Base, Body, COMMIT_MAGIC, CommitHeader, CommitKind, Condition, INLINE_LIMIT_BYTES, MAX_HEADER_BYTES,
    PageSets, SealedCommit,
};
pub use error::{Error, ErrorKind, Result};
pub use frame::{
    DecodedFrame, EncodedFrame, FRAME_TARGET_BYTES, MAX_FRAME_BYTES, MAX_STORED_FRAME_BYTES, check_frame, decode_frame,
    encode_frame, encode_index_frame,
};
pub use grant::{Grant, Right, VolumePattern};
pub use ids::{CommitHash, CommitId, LocalTip, ObjectHash, SegmentId};
pub use lsn::Lsn;
pub use marker::{Marker, MarkerTarget};
pub use metastore::{
    Appended, CheckpointPlace, FAR_COMMITS, Front, LogPart, MOST_ALONG, MOST_HEADERS, Metastore, Opened, VolumeState,
    Winner,
};
pub use name::VolumeName;
pub use page::{PageCount, PageIdx, PageSize};
pub use page_set::PageSet;
pub use pagestore::{FrameAddress, FrameStream, Pagestore};
pub use retention::{Retention, Span};
pub use rollup::{ROLLUP_SPAN, Rollup};
pub use segment::{FrameIndex, FramePlace, FrameRef, SegmentRef};
pub use statement::Statement;
pub use stub::Stub;
pub use upkeep::{LogUpkeep, Marked, PageUpkeep, Stated};
