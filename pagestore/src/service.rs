//! The pagestore behind gRPC: checks what the caller may do, and translates calls. A segment lies under the name of its
//! volume, and is read under that name only: who may not read a volume reads none of its pages, whatever ids he guesses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use quire_proto::wire::pagestore_server::Pagestore;
use quire_proto::wire::{self, authorized, error_of, required, status_of};
use quire_proto::{
    Allowance, CheckpointPlace, EncodedFrame, Error, FrameAddress, Grant, Lsn, PageUpkeep, Result, Right, SegmentId,
    VolumeName,
};
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// Frames are read so many at a time, and so many bytes of them if there is more than one: this bounds the memory of a call.
const FRAMES_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: u64 = 16 << 20;

/// The service over a pagestore.
pub struct Service {
    pages: Arc<dyn PageUpkeep>,
    allowance: Option<Arc<dyn Allowance>>,
}

impl Service {
    /// Serves this one.
    pub fn new(pages: Arc<dyn PageUpkeep>) -> Service {
        Service { pages, allowance: None }
    }

    /// Writes no more than this allows.
    pub fn within(self, allowance: Arc<dyn Allowance>) -> Service {
        Service { allowance: Some(allowance), ..self }
    }
}

/// The segment that the caller names, if it may do this with the volume.
fn segment(grant: &Grant, request: &wire::SegmentRequest, right: Right) -> Result<(VolumeName, SegmentId)> {
    let volume = grant.volume(&request.volume, right)?;
    Ok((volume, required(request.segment.clone(), "segment")?.try_into()?))
}

/// The frames in the same order, as many together as are read at once.
fn batches(frames: Vec<FrameAddress>) -> impl Iterator<Item = Vec<FrameAddress>> + Send {
    let mut frames = frames.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut batch = vec![frames.next()?];
        let mut bytes = u64::from(batch[0].len_bytes);
        while let Some(frame) = frames.next_if(|frame| {
            bytes += u64::from(frame.len_bytes);
            batch.len() < FRAMES_AT_ONCE && bytes <= BYTES_AT_ONCE
        }) {
            batch.push(frame);
        }
        Some(batch)
    })
}

#[tonic::async_trait]
impl Pagestore for Service {
    async fn write_frames(
        &self,
        request: Request<Streaming<wire::WriteFramesRequest>>,
    ) -> Answer<wire::WriteFramesResponse> {
        let (grant, mut messages) = authorized(request)?;
        let first = messages.message().await?;
        let written = async {
            let first = required(first, "volume")?;
            let volume = grant.volume(&first.volume, Right::Write)?;
            let taken = AtomicU64::new(0);
            let frames = stream::try_unfold(messages, |mut messages| async move {
                let message = messages.message().await.map_err(|status| error_of(&status, "the client"))?;
                let message = message.ok_or_else(|| Error::invalid("the stream of frames ended before its end"))?;
                if message.complete {
                    return Ok(None);
                }
                let frame: EncodedFrame = required(message.frame, "frame")?.try_into()?;
                Ok::<_, Error>(Some((frame, messages)))
            });
            let frames = frames.and_then(|frame| async {
                if let Some(allowance) = &self.allowance {
                    let bytes = frame.bytes.len() as u64;
                    allowance.take(&volume, bytes).await?;
                    taken.fetch_add(bytes, Ordering::Relaxed);
                }
                Ok(frame)
            });
            let written = match first.target_checkpoint {
                None => self.pages.write(&volume, Lsn::try_new(first.target_lsn)?, frames.boxed()).await,
                Some(place) => self.pages.rewrite(&volume, CheckpointPlace::try_from(place)?, frames.boxed()).await,
            };
            if let (Some(allowance), Err(_)) = (&self.allowance, &written) {
                allowance.give_back(&volume, taken.load(Ordering::Relaxed));
            }
            written
        };
        let index = written.await.map_err(|e| status_of(&e))?;
        Ok(Response::new((&index).into()))
    }

    type ReadFramesStream = Answers<wire::ReadFramesResponse>;
    async fn read_frames(&self, request: Request<wire::ReadFramesRequest>) -> Answer<Self::ReadFramesStream> {
        let (grant, wire::ReadFramesRequest { volume, frames }) = authorized(request)?;
        let asked = (|| {
            let volume = grant.volume(&volume, Right::Read)?;
            let frames = frames.into_iter().map(TryInto::try_into);
            Ok((volume, frames.collect::<Result<Vec<FrameAddress>>>()?))
        })();
        let (volume, frames) = asked.map_err(|e| status_of(&e))?;
        let pages = self.pages.clone();
        let read = stream::iter(batches(frames)).then(move |batch| {
            let (pages, volume) = (pages.clone(), volume.clone());
            async move { pages.read(&volume, &batch).await }
        });
        let frames = read.map_ok(|frames| stream::iter(frames).map(Ok::<_, Error>)).try_flatten();
        let answers = frames.map_ok(|frame| wire::ReadFramesResponse { frame }).map_err(|e| status_of(&e));
        Ok(Response::new(answers.boxed()))
    }

    async fn verify_segment(&self, request: Request<wire::SegmentRequest>) -> Answer<wire::Empty> {
        let (grant, asked) = authorized(request)?;
        let verified = async {
            let (volume, segment) = segment(&grant, &asked, Right::Read)?;
            self.pages.verify(&volume, segment, asked.len_bytes).await
        };
        verified.await.map(|()| Response::new(wire::Empty {})).map_err(|e| status_of(&e))
    }

    type ScanSegmentStream = Answers<wire::ScanSegmentResponse>;
    async fn scan_segment(&self, request: Request<wire::SegmentRequest>) -> Answer<Self::ScanSegmentStream> {
        let (grant, asked) = authorized(request)?;
        let (volume, segment) = segment(&grant, &asked, Right::Read).map_err(|e| status_of(&e))?;
        let pieces = self.pages.scan(&volume, segment, asked.len_bytes);
        let pieces = pieces.map_ok(|data| stream::iter(quire_channel::pieces(data)).map(Ok::<_, Error>)).try_flatten();
        let answers = pieces.map_ok(|data| wire::ScanSegmentResponse { data }).map_err(|e| status_of(&e));
        Ok(Response::new(answers.boxed()))
    }

    type ListSegmentsStream = Answers<wire::ListSegmentsResponse>;
    async fn list_segments(&self, request: Request<wire::ListSegmentsRequest>) -> Answer<Self::ListSegmentsStream> {
        let (grant, asked) = authorized(request)?;
        let volume = grant.volume(&asked.volume, Right::Read).map_err(|e| status_of(&e))?;
        // Whoever knows the name of a segment may read it.
        grant.check_reach(&volume, Lsn::FIRST).map_err(|e| status_of(&e))?;
        let segments = self
            .pages
            .segments(&volume)
            .map_ok(|(segment, len_bytes)| wire::ListSegmentsResponse { segment: Some(segment.into()), len_bytes });
        Ok(Response::new(segments.map_err(|e| status_of(&e)).boxed()))
    }

    async fn drop_segment(&self, request: Request<wire::SegmentRequest>) -> Answer<wire::Empty> {
        let (grant, asked) = authorized(request)?;
        let dropped = async {
            let (volume, segment) = segment(&grant, &asked, Right::Admin)?;
            self.pages.drop_segment(&volume, segment).await
        };
        dropped.await.map(|()| Response::new(wire::Empty {})).map_err(|e| status_of(&e))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use super::*;

    #[test]
    fn a_call_never_holds_many_bytes_and_has_its_frames_in_their_order() {
        let id = SegmentId::random(Lsn::FIRST).unwrap();
        let frames = |lengths: &[u32]| -> Vec<FrameAddress> {
            let address = |(n, len): (usize, &u32)| FrameAddress { segment: id, offset: n as u64, len_bytes: *len };
            lengths.iter().enumerate().map(address).collect()
        };
        let large = BYTES_AT_ONCE as u32;
        for (lengths, sizes) in [
            (vec![], vec![]),
            (vec![1; 200], vec![64, 64, 64, 8]),
            (vec![large, 1, large, large / 2, large / 2, 1], vec![1, 1, 1, 2, 1]),
            (vec![u32::MAX, u32::MAX], vec![1, 1]),
        ] {
            let found: Vec<_> = batches(frames(&lengths)).collect();
            assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            assert_eq!(found.concat(), frames(&lengths));
        }
    }
}
