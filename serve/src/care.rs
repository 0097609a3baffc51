//! What a server does for its store while nobody asks: a volume whose pushers have not come to write a checkpoint gets one,
//! so that whoever opens it reads no long log.

use std::time::Duration;

use futures::TryStreamExt;
use quire_history::{CHECKPOINT_SPAN, Reader, checkpoint};
use quire_proto::{Lsn, Result, SealedCommit, VolumeName, VolumeState};

use crate::metrics::Metrics;

/// Between two looks at all volumes: each costs a listing and two reads a volume.
const EVERY: Duration = Duration::from_secs(600);

/// Looks after the store for ever.
pub(crate) async fn take_care(reader: Reader, metrics: Metrics) {
    loop {
        match look(&reader).await {
            Ok(found) => {
                tracing::info!("{} checkpoints were due", found.written);
                metrics.looked(&found.volumes);
            }
            Err(e) => tracing::warn!("the store's volumes are not looked at: {e}"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What a look at all volumes has found and done.
#[derive(Default)]
struct Found {
    /// Each with its newest LSN, and when that was made, in milliseconds since 1970 UTC.
    volumes: Vec<(VolumeName, Lsn, u64)>,
    /// Checkpoints that were due, and are there now.
    written: u64,
}

async fn look(reader: &Reader) -> Result<Found> {
    let mut found = Found::default();
    let mut volumes = reader.metastore().volumes("");
    while let Some(volume) = volumes.try_next().await? {
        match look_at(reader, &volume, &mut found).await {
            Ok(()) => {}
            // The others have theirs; this one has its next turn.
            Err(e) => tracing::warn!("volume {volume} gets no checkpoint: {e}"),
        }
    }
    Ok(found)
}

async fn look_at(reader: &Reader, volume: &VolumeName, found: &mut Found) -> Result<()> {
    let VolumeState::Live(head) = reader.metastore().head(volume).await? else { return Ok(()) };
    found.volumes.push((volume.clone(), head.lsn(), head.header().time_ms));
    found.written += u64::from(write_if_due(reader, volume, &head).await?);
    Ok(())
}

async fn write_if_due(reader: &Reader, volume: &VolumeName, head: &SealedCommit) -> Result<bool> {
    let newest = reader.metastore().checkpoint(volume, None).await?.map_or(0, |place| place.lsn.get());
    if head.lsn().get() < newest + CHECKPOINT_SPAN {
        return Ok(false);
    }
    checkpoint(reader, volume, head.header(), &[]).await.map(|made| made.bytes > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use std::sync::Arc;

    use quire_bucket::Bucket;
    use quire_metastore::contract::commits::{commit, write};
    use quire_proto::{Appended, CommitKind, Metastore};

    use super::*;

    #[tokio::test]
    async fn a_volume_without_a_checkpoint_gets_one_when_it_is_due_and_no_other() {
        let bucket = Bucket::open("memory://").unwrap();
        let log = quire_metastore::Embedded::new(bucket.clone(), Default::default());
        for (name, commits) in [("long", CHECKPOINT_SPAN + 3), ("short", CHECKPOINT_SPAN - 1)] {
            let volume = VolumeName::parse(name).unwrap();
            let mut head = commit(None, CommitKind::Create);
            for n in 1..=commits {
                assert!(matches!(log.append(&volume, &head).await.unwrap(), Appended::Won), "LSN {n}");
                head = write(&head);
            }
        }
        let reader = Reader::new(Arc::new(log), Arc::new(quire_pagestore::Embedded::new(bucket)));
        let found = look(&reader).await.unwrap();
        assert_eq!((found.written, found.volumes.len()), (1, 2));
        let newest = async |name: &str| {
            let volume = VolumeName::parse(name).unwrap();
            reader.metastore().checkpoint(&volume, None).await.unwrap().map(|place| place.lsn)
        };
        assert_eq!(newest("long").await, Lsn::new(CHECKPOINT_SPAN + 3));
        assert_eq!(newest("short").await, None);
        assert_eq!(look(&reader).await.unwrap().written, 0);
    }
}
