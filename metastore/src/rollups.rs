//! Roll-ups in the bucket. They are a convenience made from commits: a missing
//! or damaged one costs requests, never correctness.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use quire_bucket::{Bucket, Key, keys};
use quire_proto::{ErrorKind, Lsn, ROLLUP_SPAN, Result, Rollup, VolumeName};

use crate::log;

/// How many headers are read at the same time.
pub(crate) const HEADERS_AT_ONCE: usize = 64;

/// The roll-up whose last LSN is `last`, if there is a sound one.
pub(crate) async fn read(bucket: &Bucket, volume: &VolumeName, last: Lsn) -> Result<Option<Rollup>> {
    let key = keys::rollup(volume, last);
    let read = bucket.get(&key).await.and_then(|object| Rollup::decode(&object.bytes));
    match read {
        Ok(rollup) => Ok(Some(rollup)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == ErrorKind::Corrupt => {
            warn_unsound(&key, &e);
            Ok(None)
        }
        Err(e) => Err(e.context(format_args!("the roll-up at LSN {last} of volume {volume}"))),
    }
}

/// A roll-up is not believed; its commits are read instead.
pub(crate) fn warn_unsound(key: &Key, problem: &dyn std::fmt::Display) {
    tracing::warn!("the roll-up {key} is not used: {problem}");
}

/// Once LSN `head` is acknowledged: if a roll-up ends there, writes it, and the
/// one before it too if its writer did not get to it.
pub(crate) async fn tidy(bucket: &Bucket, volume: &VolumeName, head: Lsn) -> Result<()> {
    if !head.get().is_multiple_of(ROLLUP_SPAN) {
        return Ok(());
    }
    make(bucket, volume, head).await?;
    let Some(before) = Lsn::new(head.get() - ROLLUP_SPAN) else { return Ok(()) };
    match bucket.head(&keys::rollup(volume, before)).await {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => make(bucket, volume, before).await,
        Err(e) => Err(e),
    }
}

/// Writes the roll-up that ends at `last`, from its commits. Whoever comes
/// first decides; all would write the same.
async fn make(bucket: &Bucket, volume: &VolumeName, last: Lsn) -> Result<()> {
    let lsns = (Rollup::first(last).get()..=last.get()).filter_map(Lsn::new);
    let headers: Vec<Bytes> = stream::iter(lsns)
        .map(|lsn| async move { log::read_front(bucket, volume, lsn).await.map(|front| front.bytes) })
        .buffered(HEADERS_AT_ONCE)
        .try_collect()
        .await?;
    let object = Rollup::encode(headers.iter().map(Bytes::as_ref))?;
    bucket.create(&keys::rollup(volume, last), object.into()).await.map(|_| ())
}
