//! What is still needed: everything that the checkpoints in force name.

use std::collections::{BTreeSet, HashSet};

use quire_history::Index;
use quire_proto::{CheckpointPlace, ErrorKind, FrameObject, Lsn, PageSource, Result, SegmentId, Statement, VolumeName};

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
            live.segments.extend(index.segments(&stores.reader).await?.into_iter().map(|segment| segment.id));
            for leaf in index.head().leaves() {
                for run in index.leaf(&stores.reader, &leaf).await?.runs() {
                    if let PageSource::Frame(frame) = run.source
                        && frame.object == FrameObject::Commit
                    {
                        live.commits.insert(frame.owner);
                    }
                }
                index.forget(&leaf);
            }
        }
        Ok(live)
    }
}
