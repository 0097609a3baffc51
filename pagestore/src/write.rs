//! Writing frames: they flow into one segment after the other, and each
//! segment into the store part by part, so that memory does not grow with the push.

use futures::TryStreamExt;
use quire_bucket::{Bucket, Upload, keys};
use quire_proto::{EncodedFrame, Error, FrameIndex, FrameStream, PageIdx, Result, SegmentId, VolumeName, check_frame};

use crate::embedded::locate;
use crate::segment::SegmentBuilder;

/// Writes frames into segments, each under a fresh name from `name`.
pub(crate) async fn write(
    bucket: &Bucket,
    volume: &VolumeName,
    name: &(dyn Fn() -> Result<SegmentId> + Sync),
    mut frames: FrameStream<'_>,
) -> Result<FrameIndex> {
    let mut index = FrameIndex::default();
    let mut open: Option<OpenSegment> = None;
    let mut last: Option<PageIdx> = None;
    while let Some(frame) = frames.try_next().await? {
        check(&frame, last)?;
        last = Some(frame.first);
        let mut segment = match open.take() {
            Some(segment) if segment.builder.has_room(&frame) => segment,
            full => {
                if let Some(full) = full {
                    full.finish(&mut index).await?;
                }
                OpenSegment::begin(bucket, volume, name()?).await?
            }
        };
        segment.push(frame).await?;
        open = Some(segment);
    }
    if let Some(segment) = open {
        segment.finish(&mut index).await?;
    }
    Ok(index)
}

/// A frame that is damaged or out of place is found now, by its writer, and
/// not by a reader long after.
fn check(frame: &EncodedFrame, last: Option<PageIdx>) -> Result<()> {
    if last.is_some_and(|last| frame.first <= last) || frame.page_count == 0 {
        return Err(Error::invalid(format!("the frame of page {} is out of page order or empty", frame.first)));
    }
    check_frame(&frame.bytes).map_err(|e| e.context(format_args!("the frame of page {} on its way out", frame.first)))
}

/// A segment on its way to the store. Dropping it aborts the upload.
struct OpenSegment {
    key: quire_bucket::Key,
    builder: SegmentBuilder,
    upload: Upload,
}

impl OpenSegment {
    async fn begin(bucket: &Bucket, volume: &VolumeName, id: SegmentId) -> Result<OpenSegment> {
        let key = keys::segment(volume, id);
        let (builder, header) = SegmentBuilder::new(volume, id);
        let mut upload = bucket.upload(&key).await.map_err(|e| locate(e, &key))?;
        upload.write(header).await.map_err(|e| locate(e, &key))?;
        Ok(OpenSegment { key, builder, upload })
    }

    async fn push(&mut self, frame: EncodedFrame) -> Result<()> {
        self.builder.push(&frame);
        self.upload.write(frame.bytes).await.map_err(|e| locate(e, &self.key))
    }

    async fn finish(self, index: &mut FrameIndex) -> Result<()> {
        let OpenSegment { key, builder, mut upload } = self;
        let (footer, segment, frames) = builder.finish();
        upload.write(footer).await.map_err(|e| locate(e, &key))?;
        let stored = upload.finish().await.map_err(|e| locate(e, &key))?;
        if stored != segment.len_bytes {
            let problem = format!("segment {key}: {stored} bytes arrived of {}", segment.len_bytes);
            return Err(Error::unavailable(problem).with_remedy("Push again: nothing refers to what arrived."));
        }
        index.push_segment(segment, frames);
        Ok(())
    }
}
