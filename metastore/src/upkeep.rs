//! The upkeep of logs on a bucket.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use quire_bucket::keys;
use quire_proto::{
    CheckpointPlace, LogUpkeep, Lsn, Marked, Result, Retention, SegmentId, Stated, Statement, Stub, VolumeName,
};
use ulid::Ulid;

use crate::embedded::Embedded;
use crate::log::{self, Stored};
use crate::{marks, statements};

#[async_trait]
impl LogUpkeep for Embedded {
    async fn clock_ms(&self, volume: &VolumeName) -> Result<u64> {
        let key = keys::clock(volume, SegmentId::random(Lsn::FIRST)?.ulid);
        self.bucket.create(&key, Bytes::new()).await?;
        let now = self.bucket.head(&key).await?.last_modified_ms;
        self.bucket.delete(&key).await?;
        Ok(now)
    }

    async fn retention(&self, volume: &VolumeName) -> Result<(u64, Retention)> {
        statements::retention(&self.bucket, volume).await
    }

    async fn retain(&self, volume: &VolumeName, number: u64, retention: &Retention) -> Result<bool> {
        statements::retain(&self.bucket, volume, number, retention).await
    }

    fn statements(&self, volume: &VolumeName) -> BoxStream<'static, Result<Stated>> {
        statements::all(&self.bucket, volume)
    }

    async fn state(&self, volume: &VolumeName, number: u64, statement: &Statement) -> Result<bool> {
        statements::publish(&self.bucket, volume, number, statement).await
    }

    fn markers(&self, volume: &VolumeName) -> BoxStream<'static, Result<Marked>> {
        marks::all(&self.bucket, volume)
    }

    async fn drop_marker(&self, volume: &VolumeName, lsn: Lsn, ulid: Ulid) -> Result<()> {
        marks::remove(&self.bucket, volume, lsn, ulid).await
    }

    fn checkpoints(&self, volume: &VolumeName) -> BoxStream<'static, Result<(CheckpointPlace, u64)>> {
        let listed = self.bucket.list(&keys::checkpoints_prefix(volume));
        let place = |meta: quire_bucket::Meta| async move {
            Ok(keys::checkpoint_of(&meta.key).map(|place| (place, meta.len_bytes)))
        };
        listed.try_filter_map(place).boxed()
    }

    async fn drop_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace) -> Result<()> {
        self.bucket.delete(&keys::checkpoint(volume, place)).await
    }

    async fn drop_unfinished(&self, volume: &VolumeName, before_ms: u64) -> Result<()> {
        // Not among the commits, which are many, and small.
        for prefix in [keys::segments_prefix(volume), keys::compacted_prefix(volume), keys::checkpoints_prefix(volume)]
        {
            self.bucket.remove_unfinished(&prefix, before_ms).await?;
        }
        Ok(())
    }

    async fn stub(&self, volume: &VolumeName, lsn: Lsn) -> Result<u64> {
        let (Stored::Whole(commit), stored_ms) = log::stored(&self.bucket, volume, lsn).await? else { return Ok(0) };
        let len = commit.object().len() as u64;
        let front = commit.object().slice(..(len - commit.header().body_bytes()) as usize);
        let stub = Stub::encode(&front, commit.object_hash(), stored_ms);
        let Some(saved) = len.checked_sub(stub.len() as u64).filter(|saved| *saved > 0) else { return Ok(0) };
        self.bucket.replace(&keys::commit(volume, lsn), stub.into()).await?;
        Ok(saved)
    }
}
