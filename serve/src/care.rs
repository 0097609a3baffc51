//! What a server does for its store while nobody asks: a volume whose pushers have not come to write a checkpoint gets one,
//! so that whoever opens it reads no long log.

use std::time::Duration;

use futures::TryStreamExt;
use quire_history::{CHECKPOINT_SPAN, Reader, checkpoint};
use quire_proto::{Result, VolumeName, VolumeState};

/// Between two looks at all volumes: each costs a listing and two reads a volume.
const EVERY: Duration = Duration::from_secs(600);

/// Looks after the store for ever.
pub(crate) async fn take_care(reader: Reader) {
    loop {
        tokio::time::sleep(EVERY).await;
        match look(&reader).await {
            Ok(written) => tracing::info!("{written} checkpoints were due"),
            Err(e) => tracing::warn!("the store's volumes are not looked at: {e}"),
        }
    }
}

/// Writes the checkpoints that are due. Returns how many.
async fn look(reader: &Reader) -> Result<u64> {
    let mut written = 0;
    let mut volumes = reader.metastore().volumes("");
    while let Some(volume) = volumes.try_next().await? {
        match write_if_due(reader, &volume).await {
            Ok(was_due) => written += u64::from(was_due),
            // The others have theirs; this one has its next turn.
            Err(e) => tracing::warn!("volume {volume} gets no checkpoint: {e}"),
        }
    }
    Ok(written)
}

async fn write_if_due(reader: &Reader, volume: &VolumeName) -> Result<bool> {
    let VolumeState::Live(head) = reader.metastore().head(volume).await? else { return Ok(false) };
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
    use quire_proto::{Appended, CommitKind, Lsn, Metastore};

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
        assert_eq!(look(&reader).await.unwrap(), 1);
        let newest = async |name: &str| {
            let volume = VolumeName::parse(name).unwrap();
            reader.metastore().checkpoint(&volume, None).await.unwrap().map(|place| place.lsn)
        };
        assert_eq!(newest("long").await, Lsn::new(CHECKPOINT_SPAN + 3));
        assert_eq!(newest("short").await, None);
        assert_eq!(look(&reader).await.unwrap(), 0);
    }
}
