//! Writing a checkpoint: the index before it, with the commits since laid over.
//!
//! Everything it is made of is immutable, so anyone may write one, at any time
//! after the commit was acknowledged, and whoever comes first decides. It will
//! name segments that others wrote, so a marker comes before the first look at
//! what it is made from, and that look is never one of before: what a collector
//! has given up in between cannot get into it.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use quire_proto::{
    Base, CheckpointInfo, CheckpointPlace, CheckpointWriter, CommitHash, CommitHeader, CommitId, EncodedFrame, Error,
    ErrorKind, Lsn, Marker, MarkerTarget, ObjectHash, Origin, Overlay, OverlayStep, Result, SealedCommit, SegmentRef,
    VolumeName,
};

use crate::headers::{back_to, beginning};
use crate::index::Index;
use crate::kept::{MOST_LOOKS, gone_or};
use crate::{COMMITS_AT_ONCE, Reader};

/// A checkpoint that is there now.
#[derive(Clone, Copy, Debug)]
pub struct Checkpointed {
    /// The LSN of its snapshot.
    pub lsn: Lsn,
    /// Its length; 0 if it was there already.
    pub bytes: u64,
}

/// The commits from a snapshot that has an index, or from a root, to the one to be indexed.
struct Path {
    below: Option<Index>,
    commits: Vec<Arc<SealedCommit>>,
}

/// Writes the checkpoint of the snapshot that a commit of `volume` made, unless there is one. `boot` are pages that
/// whoever opens the volume needs at once, with their content in this snapshot. `Gone` if history does not keep that
/// snapshot any more, and for no other reason: a collector believes it.
pub async fn checkpoint(
    reader: &Reader,
    volume: &VolumeName,
    head: &CommitHeader,
    boot: &[EncodedFrame],
) -> Result<Checkpointed> {
    let place = CheckpointPlace { lsn: head.lsn, generation: 0 };
    let mut looks = 0;
    loop {
        let newest = reader.metastore.checkpoint(volume, Some(CheckpointPlace::last_of(head.lsn))).await?;
        if newest.is_some_and(|newest| newest.lsn == head.lsn) {
            return Ok(Checkpointed { lsn: head.lsn, bytes: 0 });
        }
        if looks == 0 {
            let base = (volume.clone(), head.lsn, head.hash());
            reader.metastore.mark(&Marker { base, target: MarkerTarget::Checkpoint(place) }).await?;
        }
        match write(reader, volume, head, place, boot).await {
            // A collector may have written it, or a newer one than it stands on, while that was looked for.
            Err(e) if e.kind() == ErrorKind::Gone => {
                let e = gone_or(reader, volume, head.lsn, e).await;
                if e.kind() != ErrorKind::Corrupt || looks == MOST_LOOKS {
                    return Err(e);
                }
                looks += 1;
            }
            written => return written,
        }
    }
}

async fn write(
    reader: &Reader,
    volume: &VolumeName,
    head: &CommitHeader,
    place: CheckpointPlace,
    boot: &[EncodedFrame],
) -> Result<Checkpointed> {
    let object = compose(reader, volume, head, boot).await?;
    let bytes = object.len() as u64;
    reader.metastore.put_checkpoint(volume, place, object).await?;
    Ok(Checkpointed { lsn: head.lsn, bytes })
}

/// What the checkpoint of generation 0 of a snapshot is, written or not.
pub async fn compose(
    reader: &Reader,
    volume: &VolumeName,
    head: &CommitHeader,
    boot: &[EncodedFrame],
) -> Result<Bytes> {
    let place = CheckpointPlace { lsn: head.lsn, generation: 0 };
    let path = path(reader, volume, head).await?;
    let info = info(reader, volume, head, place, &path).await?;
    let mut known = segments_below(reader, path.below.as_ref()).await?;
    let steps = path.commits.iter().map(|commit| OverlayStep::of(commit)).collect::<Result<Vec<_>>>()?;
    let below = path.below.as_ref().map(Index::info);
    let mut overlay = Overlay::new(below.map(|info| (info.lsn, info.page_size, info.page_count)), steps)?;
    known.extend(overlay.segments());
    let mut writer = CheckpointWriter::new(info);
    if let Some(index) = &path.below {
        for place in index.head().leaves() {
            let leaf = index.leaf(reader, &place).await?;
            leaf.runs().try_for_each(|run| overlay.push(run, |run| writer.push(run)))?;
            index.forget(&place);
        }
    }
    overlay.finish(|run| writer.push(run))?;
    writer.finish(known, boot)
}

/// Goes back from `head`: over a restore from the snapshot that was restored, to the newest index, or to the root.
async fn path(reader: &Reader, volume: &VolumeName, head: &CommitHeader) -> Result<Path> {
    let mut newest_first: Vec<CommitHeader> = Vec::new();
    let mut at = head.clone();
    let below = loop {
        let index = Index::in_force(reader, volume, at.lsn).await?;
        let lowest = index.as_ref().map_or(Lsn::FIRST, |index| index.info().lsn);
        let mut headers = back_to(reader, volume, lowest, &at, |header| header.base != Base::Previous).await?;
        let first = headers[0].clone();
        if let Some(index) = index.filter(|index| index.info().lsn == first.lsn) {
            if index.info().commit != first.hash() {
                return Err(Error::corrupt(format!("the checkpoint of LSN {} is of another commit", first.lsn))
                    .with_remedy("Move it out of the volume's folder `ck`: it is written anew."));
            }
            headers.remove(0);
            newest_first.extend(headers.into_iter().rev());
            break Some(index);
        }
        newest_first.extend(headers.into_iter().rev());
        match &first.base {
            Base::Older { lsn, hash } => at = reader.commit_of_log(volume, (*lsn, *hash)).await?.header().clone(),
            _ => break None,
        }
    };
    let places: Vec<(Lsn, CommitHash)> = newest_first.iter().rev().map(|h| (h.lsn, h.hash())).collect();
    let commits = futures::stream::iter(places)
        .map(|place| reader.commit_of_log(volume, place))
        .buffered(COMMITS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(Path { below, commits })
}

async fn info(
    reader: &Reader,
    volume: &VolumeName,
    head: &CommitHeader,
    place: CheckpointPlace,
    path: &Path,
) -> Result<CheckpointInfo> {
    let below = path.below.as_ref().map(Index::info);
    let root = path.commits.first().map(|commit| commit.header());
    let (began, incarnation) = match (below, root) {
        (Some(info), _) => (info.began, info.incarnation),
        (None, Some(root)) if root.kind.begins() => (root.lsn, root.id),
        _ => began(reader, volume, head).await?,
    };
    let origin = match (below, root.map(|root| &root.base)) {
        (Some(info), _) => info.origin.clone(),
        (None, Some(Base::Other { volume, lsn, hash })) => {
            Some(Origin { volume: volume.clone(), lsn: *lsn, hash: *hash })
        }
        _ => None,
    };
    let mut inputs = Vec::new();
    if let Some(index) = &path.below {
        inputs.extend_from_slice(index.head().hash().as_bytes());
    }
    path.commits.iter().for_each(|commit| inputs.extend_from_slice(CommitHash::as_bytes(&commit.hash())));
    Ok(CheckpointInfo {
        lsn: place.lsn,
        generation: place.generation,
        commit: head.hash(),
        inputs: ObjectHash::of(&inputs),
        began,
        incarnation,
        page_size: head.page_size,
        page_count: head.page_count,
        attributes: head.attributes.clone(),
        origin,
    })
}

async fn began(reader: &Reader, volume: &VolumeName, head: &CommitHeader) -> Result<(Lsn, CommitId)> {
    beginning(reader, volume, head).await.map(|header| (header.lsn, header.id))
}

/// What the index below knows of its segments.
async fn segments_below(reader: &Reader, below: Option<&Index>) -> Result<Vec<SegmentRef>> {
    match below {
        Some(index) => index.segments(reader).await,
        None => Ok(Vec::new()),
    }
}
