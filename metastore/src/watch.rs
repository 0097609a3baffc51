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
    let next = after.map_or(Ok(Lsn::FIRST), log::after);
    stream::unfold(Some(next), move |next| {
        let (bucket, volume) = (bucket.clone(), volume.clone());
        async move {
            let commit = match next? {
                Ok(lsn) => appearance(&bucket, &volume, lsn, poll_interval).await,
                Err(e) => Err(e),
            };
            let next = commit.as_ref().ok().map(|commit| log::after(commit.lsn()));
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
