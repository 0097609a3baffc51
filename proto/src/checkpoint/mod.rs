//! The checkpoint: the complete page index of one snapshot in one object, so
//! that nobody replays a log to find a page. Layout: `FORMAT.md`, "Checkpoint".
//!
//! A small [head](CheckpointHead) at the front says which snapshot it is,
//! carries the pages that whoever opens the volume needs at once, and lists the
//! [leaves](CheckpointLeaf): a page is found with the head and one leaf, however
//! large the volume. The digests in the head cover every other byte.
//!
//! A [writer](CheckpointWriter) takes the runs of pages in order. They come from
//! the checkpoint before, with the commits since then [laid over](Overlay) it.

mod boot;
mod columns;
mod directory;
mod head;
mod leaf;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod model;
mod overlay;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
mod writer;

pub use boot::Boot;
pub use directory::LeafRef;
#[cfg(feature = "fuzz")]
pub(crate) use head::repaired;
pub use head::{CheckpointHead, CheckpointInfo, Origin};
pub use leaf::CheckpointLeaf;
pub use overlay::{Overlay, OverlayBase, OverlayStep};
pub use writer::CheckpointWriter;

use crate::{Lsn, PageIdx, SegmentId};

/// The first bytes of every checkpoint.
pub const CHECKPOINT_MAGIC: [u8; 4] = *b"QCKP";
/// A reader asks for so many bytes first. They hold the head with all boot
/// frames there can be of a freshly imported volume of 1 TiB, the whole object of
/// one of a few GiB, and take no longer than a frame does.
pub const CHECKPOINT_FRONT_BYTES: usize = 128 * 1024;
/// Boot frames are never more bytes than this in all.
pub const MAX_BOOT_BYTES: usize = 64 * 1024;
/// A leaf holds at most so many runs: what a point read of a large volume costs.
pub const LEAF_RUNS: usize = 4096;

const VERSION: u8 = 1;

/// Neighbouring pages that come from one place and last changed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// The first page.
    pub first: PageIdx,
    /// How many pages, at least one.
    pub count: u32,
    /// Where their content is.
    pub source: PageSource,
    /// The LSN in this volume at which their content last changed.
    pub changed: Lsn,
}

/// Where the content of a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageSource {
    /// Nowhere: it is zeros.
    Zero,
    /// At the same page of the checkpoint's [`Origin`].
    Inherited,
    /// In this frame.
    Frame(FrameLocation),
}

/// A frame of this volume, and where it is: equal ones are the same frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameLocation {
    /// The commit that wrote it.
    pub owner: Lsn,
    /// Which object holds it.
    pub object: FrameObject,
    /// Where it begins there, in bytes; among a commit's inline frames from the first of them.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len_bytes: u32,
    /// How many pages it holds.
    pub page_count: u32,
}

/// Which object holds a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameObject {
    /// The commit that wrote it, among its inline frames.
    Commit,
    /// A segment.
    Segment(SegmentId),
}

impl PageRun {
    /// The last page.
    pub fn last(&self) -> PageIdx {
        PageIdx::new(self.first.get().saturating_add(self.count.saturating_sub(1))).unwrap_or(self.first)
    }
}

impl FrameLocation {
    /// Whether a compaction wrote it, and not the push that made its owner.
    pub fn is_compacted(&self) -> bool {
        matches!(self.object, FrameObject::Segment(id) if id.generation > 0)
    }

    /// What no frame of a snapshot at `lsn` may say, of what this one says.
    fn contradiction(&self, lsn: Lsn) -> Option<&'static str> {
        let checks = [
            (self.owner <= lsn, "a frame that a later commit wrote"),
            (self.page_count > 0, "a frame without a page"),
            (self.len_bytes > 0, "a frame without a byte"),
            (self.offset.checked_add(self.len_bytes.into()).is_some(), "a frame without end"),
        ];
        checks.iter().find(|(ok, _)| !ok).map(|(_, problem)| *problem)
    }
}
