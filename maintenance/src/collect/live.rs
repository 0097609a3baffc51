//! What is still needed: everything that the checkpoints in force name.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use quire_history::Index;
use quire_proto::{
    CheckpointHead, CheckpointLeaf, CheckpointPlace, CommitHeader, ErrorKind, FrameLocation, FrameObject, Lsn,
    PageSource, Result, SegmentId, SegmentRef, Statement, VolumeName,
};

use super::Stores;

/// What checkpoints in force name.
pub(super) struct Live {
    pub(super) segments: HashSet<SegmentId>,
    /// Commits with inline frames.
    pub(super) commits: BTreeSet<Lsn>,
}

impl Live {
    /// Reads every checkpoint that a statement does not drop, or that is blocked.
    pub(super) async fn find(
        stores: &Stores,
        volume: &VolumeName,
        statement: &Statement,
        places: &[(CheckpointPlace, u64)],
        blocked: Option<Lsn>,
    ) -> Result<Live> {
        let mut live = Live { segments: HashSet::new(), commits: BTreeSet::new() };
        for (place, _) in places {
            if statement.drops(*place) && Some(place.lsn) > blocked {
                continue;
            }
            // What cannot be read may name anything: the error ends the collection.
            let index = match Index::at(&stores.reader, volume, *place).await {
                Ok(index) => index,
                // Another collector goes by a later statement. What that one keeps is read by checkpoints which this
                // one has not seen.
                Err(e) if e.kind() == ErrorKind::NotFound => return Err(super::overtaken(volume)),
                Err(e) => return Err(e),
            };
            live.add_segments(index.segments(&stores.reader).await?);
            for leaf in index.head().leaves() {
                live.add_leaf(&*index.leaf(&stores.reader, &leaf).await?);
                index.forget(&leaf);
            }
        }
        Ok(live)
    }

    /// Adds what a checkpoint would name that is not written yet.
    pub(super) async fn add_unwritten(
        &mut self,
        stores: &Stores,
        volume: &VolumeName,
        header: &CommitHeader,
    ) -> Result<()> {
        let object = quire_history::compose(&stores.reader, volume, header, &[]).await?;
        let head = CheckpointHead::decode(&object)?;
        let part = |range: Range<u64>| object.slice(range.start as usize..range.end as usize);
        self.add_segments(head.decode_segments(&part(head.segments_range()))?);
        for place in head.leaves() {
            self.add_leaf(&CheckpointLeaf::decode(&place, &part(place.range()))?);
        }
        Ok(())
    }

    fn add_segments(&mut self, segments: Vec<SegmentRef>) {
        self.segments.extend(segments.into_iter().map(|segment| segment.id));
    }

    fn add_leaf(&mut self, leaf: &CheckpointLeaf) {
        for run in leaf.runs() {
            match run.source {
                PageSource::Frame(FrameLocation { object: FrameObject::Commit, owner, .. }) => {
                    self.commits.insert(owner);
                }
                // Whatever the checkpoint's own list says.
                PageSource::Frame(FrameLocation { object: FrameObject::Segment(id), .. }) => {
                    self.segments.insert(id);
                }
                PageSource::Zero | PageSource::Inherited => {}
            }
        }
    }
}
