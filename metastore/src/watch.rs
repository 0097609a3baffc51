//! Watching a log on a bare bucket: asking for the one next key until it is there.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use quire_bucket::Bucket;
use quire_proto::{ErrorKind, Lsn, Result, SealedCommit, VolumeName};

use crate::log;

/// Every commit after `after`, in order; ends after an error.
pub(crate) fn watch(
    bucket: Bucket,
    volume: VolumeName,
    after: Option<Lsn>,
    poll_interval: Duration,
) -> BoxStream<'static, Result<SealedCommit>> {
    let next = after.map_or(Lsn::FIRST, Lsn::next);
    stream::unfold(Some(next), move |next| {
        let (bucket, volume) = (bucket.clone(), volume.clone());
        async move {
            let commit = appearance(&bucket, &volume, next?, poll_interval).await;
            let next = commit.as_ref().ok().map(|commit| commit.lsn().next());
            Some((commit, next))
        }
    })
    .boxed()
}

async fn appearance(bucket: &Bucket, volume: &VolumeName, lsn: Lsn, poll_interval: Duration) -> Result<SealedCommit> {
    loop {
        match log::read(bucket, volume, lsn).await {
            Err(e) if e.kind() == ErrorKind::NotFound => tokio::time::sleep(poll_interval).await,
            settled => return settled,
        }
    }
}
