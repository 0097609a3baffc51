//! A pagestore behind a Quire server.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use quire_channel::{Connection, MAX_MESSAGE_BYTES, Service};
use quire_proto::wire::pagestore_client::PagestoreClient;
use quire_proto::wire::{self, required};
use quire_proto::{
    CheckpointPlace, EncodedFrame, Error, FrameAddress, FrameIndex, FrameStream, Lsn, PageUpkeep, Pagestore, Result,
    SegmentId, VolumeName, check_frame,
};
use tokio::sync::mpsc;

type Client = PagestoreClient<Service>;

/// Frames that are on their way to the server at the same time.
const FRAMES_ON_THE_WAY: usize = 4;

/// A pagestore behind a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Remote {
    connection: Connection,
}

fn client(service: Service) -> Client {
    PagestoreClient::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

impl Remote {
    /// The pagestore of the server at the other end.
    pub fn new(connection: Connection) -> Remote {
        Remote { connection }
    }

    /// Frames are a stream that comes once, so who is not there is waited for first; a call that breaks off is not
    /// repeated here, but by whoever has the pages.
    async fn upload(&self, first: wire::WriteFramesRequest, mut frames: FrameStream<'_>) -> Result<FrameIndex> {
        self.connection.ready().await?;
        let (sender, mut receiver) = mpsc::channel::<wire::WriteFramesRequest>(FRAMES_ON_THE_WAY);
        let messages = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut client = client(self.connection.service());
        let written = async { client.write_frames(messages).await.map_err(|status| self.connection.error_of(&status)) };
        let feed = async move {
            if self.connection.step(sender.send(first)).await?.is_err() {
                return Ok(());
            }
            while let Some(frame) = frames.try_next().await? {
                let frame: EncodedFrame = frame;
                check_frame(&frame.bytes).map_err(|e| e.context(format_args!("the frame of page {}", frame.first)))?;
                self.connection.sent(frame.bytes.len());
                let message = wire::WriteFramesRequest { frame: Some(frame.into()), ..Default::default() };
                if self.connection.step(sender.send(message)).await?.is_err() {
                    // The server has ended the call, and says why.
                    return Ok(());
                }
            }
            // Whoever drops this before it is here writes nothing.
            let end = wire::WriteFramesRequest { complete: true, ..Default::default() };
            let _ = self.connection.step(sender.send(end)).await?;
            Ok::<_, Error>(())
        };
        let mut feed = std::pin::pin!(feed);
        let mut written = std::pin::pin!(written);
        tokio::select! {
            biased;
            fed = &mut feed => fed?,
            written = &mut written => return written?.into_inner().try_into(),
        }
        self.connection.step(written).await??.into_inner().try_into()
    }
}

fn request(volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> wire::SegmentRequest {
    wire::SegmentRequest { volume: volume.as_str().to_owned(), segment: Some(segment.into()), len_bytes }
}

#[async_trait]
impl Pagestore for Remote {
    async fn write(&self, volume: &VolumeName, target: Lsn, frames: FrameStream<'_>) -> Result<FrameIndex> {
        let volume = volume.as_str().to_owned();
        self.upload(wire::WriteFramesRequest { volume, target_lsn: target.get(), ..Default::default() }, frames).await
    }

    async fn read(&self, volume: &VolumeName, frames: &[FrameAddress]) -> Result<Vec<Bytes>> {
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        let request = wire::ReadFramesRequest {
            volume: volume.as_str().to_owned(),
            frames: frames.iter().map(Into::into).collect(),
        };
        let answers = self.connection.stream(move |service| {
            let request = request.clone();
            async move { client(service).read_frames(request).await }
        });
        let read: Vec<Bytes> = answers.map_ok(|answer| answer.frame).try_collect().await?;
        if read.len() != frames.len() {
            return Err(Error::unavailable(format!("the server sent {} frames of {}", read.len(), frames.len())));
        }
        for (frame, address) in read.iter().zip(frames) {
            self.connection.received(frame.len());
            check_frame(frame)
                .map_err(|e| e.context(format_args!("volume {volume}, a frame at {}", address.offset)))?;
        }
        Ok(read)
    }

    async fn verify(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> Result<()> {
        let request = request(volume, segment, len_bytes);
        let verified = self.connection.call(|service| {
            let request = request.clone();
            async move { client(service).verify_segment(request).await }
        });
        verified.await.map(drop).map_err(|status| self.connection.error_of(&status))
    }

    fn scan(&self, volume: &VolumeName, segment: SegmentId, len_bytes: u64) -> BoxStream<'static, Result<Bytes>> {
        let request = request(volume, segment, len_bytes);
        let pieces = self.connection.stream(move |service| {
            let request = request.clone();
            async move { client(service).scan_segment(request).await }
        });
        pieces.map_ok(|piece| piece.data).boxed()
    }
}

#[async_trait]
impl PageUpkeep for Remote {
    async fn rewrite(
        &self,
        volume: &VolumeName,
        place: CheckpointPlace,
        frames: FrameStream<'_>,
    ) -> Result<FrameIndex> {
        let volume = volume.as_str().to_owned();
        let target_checkpoint = Some(place.into());
        self.upload(wire::WriteFramesRequest { volume, target_checkpoint, ..Default::default() }, frames).await
    }

    fn segments(&self, volume: &VolumeName) -> BoxStream<'static, Result<(SegmentId, u64)>> {
        let request = wire::ListSegmentsRequest { volume: volume.as_str().to_owned() };
        let listed = self.connection.stream(move |service| {
            let request = request.clone();
            async move { client(service).list_segments(request).await }
        });
        let listed = listed.map(|listed| {
            let listed = listed?;
            Ok((required(listed.segment, "segment")?.try_into()?, listed.len_bytes))
        });
        listed.boxed()
    }

    async fn drop_segment(&self, volume: &VolumeName, segment: SegmentId) -> Result<()> {
        let request = request(volume, segment, 0);
        let dropped = self.connection.call(|service| {
            let request = request.clone();
            async move { client(service).drop_segment(request).await }
        });
        dropped.await.map(drop).map_err(|status| self.connection.error_of(&status))
    }
}
