//! What happened to a volume since a commit that somebody knows: commit by
//! commit, or, from far behind, by a checkpoint, which knows when each page last changed.

use std::sync::Arc;

use quire_proto::{
    CommitHash, CommitHeader, ErrorKind, FAR_COMMITS, Lsn, PageCount, PageSet, Result, SealedCommit, VolumeName,
};

use crate::headers::{back_to, changed_by, replaced};
use crate::{Lineage, Reader};

/// What came after a commit.
pub struct Since {
    /// The header of the commit after it.
    pub next: CommitHeader,
    /// The pages that changed, together.
    pub changed: PageSet,
    /// Every header since, ascending; none if a checkpoint said what changed.
    pub headers: Option<Vec<CommitHeader>>,
    /// What makes the snapshot, if a checkpoint said what changed.
    pub lineage: Option<Arc<Lineage>>,
}

/// What came to a volume after commit `base`, given with its snapshot's page count, up to `head`. An error of kind `Conflict` if `head` does not stand on
/// that commit, or the volume has begun anew.
pub async fn since(
    reader: &Arc<Reader>,
    volume: &VolumeName,
    base: (Lsn, CommitHash, PageCount),
    head: &SealedCommit,
) -> Result<Since> {
    let (lsn, hash, _) = base;
    if head.lsn().get() - lsn.get() > FAR_COMMITS
        && let Some(since) = by_checkpoint(reader, volume, base, head).await?
    {
        return Ok(since);
    }
    let first = lsn.next();
    let headers = back_to(reader, volume, first, head.header(), |_| false).await?;
    let follows = headers[0].lsn == first && headers[0].parent == Some(hash);
    if !follows || headers.iter().any(|h| h.kind.begins() || h.kind.ends()) {
        return Err(replaced(volume, lsn));
    }
    match changed_by(reader, volume, &headers).await {
        Ok(changed) => Ok(Since { next: headers[0].clone(), changed, headers: Some(headers), lineage: None }),
        // The checkpoint knows what commits changed that have been collected since.
        Err(e) if e.kind() == ErrorKind::Gone => by_checkpoint(reader, volume, base, head).await?.ok_or(e),
        Err(e) => Err(e),
    }
}

/// None also if the checkpoint turns out to be damaged, or has been let go meanwhile: it costs requests, never the catch-up.
async fn by_checkpoint(
    reader: &Arc<Reader>,
    volume: &VolumeName,
    base: (Lsn, CommitHash, PageCount),
    head: &SealedCommit,
) -> Result<Option<Since>> {
    match by_sound_checkpoint(reader, volume, base, head).await {
        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
            tracing::warn!("volume {volume} is caught up with by its log: {e}");
            Ok(None)
        }
        since => since,
    }
}

async fn by_sound_checkpoint(
    reader: &Arc<Reader>,
    volume: &VolumeName,
    (lsn, hash, page_count): (Lsn, CommitHash, PageCount),
    head: &SealedCommit,
) -> Result<Option<Since>> {
    let lineage = Lineage::load(reader.clone(), volume.clone(), head.lsn(), head.hash(), true).await?;
    let Some((index, tail)) = lineage.since_index() else { return Ok(None) };
    let info = index.info();
    if info.lsn <= lsn {
        return Ok(None);
    }
    let next = reader.header(volume, lsn.next()).await?;
    if info.began > lsn || next.parent != Some(hash) {
        return Err(replaced(volume, lsn));
    }
    let mut changed = PageSet::new();
    tail.for_each(|sets| changed.union_with(&sets.changed));
    for place in index.head().leaves() {
        let leaf = index.leaf(reader, &place).await?;
        leaf.runs()
            .filter(|run| run.changed > lsn)
            .for_each(|run| changed.insert_range(run.first.get(), run.last().get()));
    }
    // What was cut off before the checkpoint has no run there.
    changed.insert_range(info.page_count.get().saturating_add(1), page_count.get());
    Ok(Some(Since { next, changed, headers: None, lineage: Some(lineage.clone()) }))
}
