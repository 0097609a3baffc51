//! The upkeep of pages on a bucket.

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use quire_bucket::keys;
use quire_proto::{CheckpointPlace, Error, FrameIndex, FrameStream, PageUpkeep, Result, SegmentId, VolumeName};

use crate::embedded::{Embedded, locate};
use crate::write;

#[async_trait]
impl PageUpkeep for Embedded {
    async fn rewrite(
        &self,
        volume: &VolumeName,
        place: CheckpointPlace,
        frames: FrameStream<'_>,
    ) -> Result<FrameIndex> {
        if place.generation == 0 {
            return Err(Error::invalid("no compaction writes the checkpoint of generation 0"));
        }
        write::write(&self.bucket, volume, &|| SegmentId::compacted(place), frames).await
    }

    fn segments(&self, volume: &VolumeName) -> BoxStream<'static, Result<(SegmentId, u64)>> {
        let pushed = self.bucket.list(&keys::segments_prefix(volume));
        let compacted = self.bucket.list(&keys::compacted_prefix(volume));
        let segment = |meta: quire_bucket::Meta| async move {
            Ok(keys::segment_of(&meta.key).map(|segment| (segment, meta.len_bytes)))
        };
        pushed.chain(compacted).try_filter_map(segment).boxed()
    }

    async fn drop_segment(&self, volume: &VolumeName, segment: SegmentId) -> Result<()> {
        let key = keys::segment(volume, segment);
        self.bucket.delete(&key).await.map_err(|e| locate(e, &key))
    }
}
