//! The metastore behind gRPC: translates calls, nothing else.

use std::future::Future;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, SelectAll, StreamExt, TryStreamExt};
use quire_channel::pieces;
use quire_proto::wire::metastore_server::Metastore;
use quire_proto::wire::{self, head_response, place_of, required, status_of, status_of_lost};
use quire_proto::{
    Appended, CommitHeader, Error, LogUpkeep, Lsn, Marker, Result, Retention, SealedCommit, Statement, VolumeName,
    VolumeState,
};
use tonic::{Request, Response, Status, Streaming};

/// Names of volumes and headers go in messages of so many.
const BATCH: usize = 256;
/// Watchers of one stream may watch so many volumes.
const MOST_WATCHED: usize = 10_000;

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// The service over a metastore.
pub struct Service {
    log: Arc<dyn LogUpkeep>,
}

impl Service {
    /// Serves this one.
    pub fn new(log: Arc<dyn LogUpkeep>) -> Service {
        Service { log }
    }
}

async fn answer<T>(work: impl Future<Output = Result<T>>) -> Answer<T> {
    work.await.map(Response::new).map_err(|e| status_of(&e))
}

fn answers<T: Send + 'static>(messages: impl futures::Stream<Item = Result<T>> + Send + 'static) -> Answer<Answers<T>> {
    Ok(Response::new(messages.map_err(|e| status_of(&e)).boxed()))
}

fn name(text: &str) -> Result<VolumeName> {
    VolumeName::parse(text).map_err(|e| e.context("field `volume`"))
}

fn lsn(n: u64) -> Result<Lsn> {
    Lsn::try_new(n)
}

/// A header as it came.
pub(crate) fn header(bytes: &[u8]) -> Result<CommitHeader> {
    CommitHeader::decode(bytes).map(|(header, _)| header)
}

fn object(commit: &SealedCommit) -> wire::CommitObject {
    wire::CommitObject { commit: commit.object().clone() }
}

#[tonic::async_trait]
impl Metastore for Service {
    async fn head(&self, request: Request<wire::HeadRequest>) -> Answer<wire::HeadResponse> {
        answer(async {
            let state = self.log.head(&name(&request.get_ref().volume)?).await?;
            let next_lsn = state.next().get();
            let bytes = |commit: &SealedCommit| commit.object().clone();
            let head = state.head().map(bytes).unwrap_or_default();
            let (state, ended_by) = match &state {
                VolumeState::Free { .. } => (head_response::State::Free, Bytes::new()),
                VolumeState::Live(_) => (head_response::State::Live, Bytes::new()),
                VolumeState::Ended { by, .. } => (head_response::State::Ended, bytes(by)),
            };
            Ok(wire::HeadResponse { state: state.into(), head, ended_by, next_lsn })
        })
        .await
    }

    async fn append(&self, request: Request<wire::AppendRequest>) -> Answer<wire::AppendResponse> {
        let wire::AppendRequest { volume, commit } = request.into_inner();
        let appended = async { self.log.append(&name(&volume)?, &SealedCommit::decode(commit)?).await };
        match appended.await.map_err(|e| status_of(&e))? {
            Appended::Won => Ok(Response::new(wire::AppendResponse {})),
            Appended::Lost(winner) => Err(status_of_lost(&winner).unwrap_or_else(|e| status_of(&e))),
        }
    }

    async fn get_commit(&self, request: Request<wire::GetCommitRequest>) -> Answer<wire::CommitObject> {
        let wire::GetCommitRequest { volume, lsn: at } = request.into_inner();
        answer(async { Ok(object(&self.log.commit(&name(&volume)?, lsn(at)?).await?)) }).await
    }

    async fn get_header(&self, request: Request<wire::GetCommitRequest>) -> Answer<wire::HeaderObject> {
        let wire::GetCommitRequest { volume, lsn: at } = request.into_inner();
        answer(async {
            let header = self.log.header(&name(&volume)?, lsn(at)?).await?.encode()?;
            Ok(wire::HeaderObject { header })
        })
        .await
    }

    type GetHeadersStream = Answers<wire::GetHeadersResponse>;
    async fn get_headers(&self, request: Request<wire::GetHeadersRequest>) -> Answer<Self::GetHeadersStream> {
        let wire::GetHeadersRequest { volume, first_lsn, last } = request.into_inner();
        let headers = async { self.log.headers(&name(&volume)?, lsn(first_lsn)?, &header(&last)?).await };
        let headers = headers.await.map_err(|e| status_of(&e))?;
        let batches = stream::iter(headers).chunks(BATCH).map(|headers| {
            let headers = headers.iter().map(CommitHeader::encode).collect::<Result<Vec<_>>>()?;
            Ok(wire::GetHeadersResponse { headers })
        });
        answers(batches)
    }

    type WatchStream = Answers<wire::WatchResponse>;
    async fn watch(&self, request: Request<Streaming<wire::WatchRequest>>) -> Answer<Self::WatchStream> {
        let watch =
            Watch { log: self.log.clone(), asked: request.into_inner(), ended: false, watched: SelectAll::new() };
        answers(stream::try_unfold(watch, |mut watch| async move {
            Ok(watch.next().await?.map(|message| (message, watch)))
        }))
    }

    type ListVolumesStream = Answers<wire::ListVolumesResponse>;
    async fn list_volumes(&self, request: Request<wire::ListVolumesRequest>) -> Answer<Self::ListVolumesStream> {
        let names = self.log.volumes(&request.get_ref().prefix).map_ok(|name| name.as_str().to_owned());
        answers(names.try_chunks(BATCH).map(|names| match names {
            Ok(names) => Ok(wire::ListVolumesResponse { names }),
            Err(e) => Err(e.1),
        }))
    }

    async fn tidy(&self, request: Request<wire::TidyRequest>) -> Answer<wire::Empty> {
        let wire::TidyRequest { volume, header: bytes } = request.into_inner();
        answer(async {
            self.log.tidy(&name(&volume)?, &header(&bytes)?).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Answer<wire::CommitObject> {
        let wire::DeleteRequest { volume, expected_lsn, author } = request.into_inner();
        answer(async { Ok(object(&self.log.delete(&name(&volume)?, lsn(expected_lsn)?, &author).await?)) }).await
    }

    async fn rename(&self, request: Request<wire::RenameRequest>) -> Answer<wire::CommitObject> {
        let wire::RenameRequest { volume, new_name, author } = request.into_inner();
        answer(async {
            let new = VolumeName::parse(&new_name).map_err(|e| e.context("field `new_name`"))?;
            Ok(object(&self.log.rename(&name(&volume)?, &new, &author).await?))
        })
        .await
    }

    async fn restore(&self, request: Request<wire::RestoreRequest>) -> Answer<wire::CommitObject> {
        let wire::RestoreRequest { volume, lsn: at, expected_lsn, author } = request.into_inner();
        answer(async {
            let restored = self.log.restore(&name(&volume)?, lsn(at)?, lsn(expected_lsn)?, &author).await?;
            Ok(object(&restored))
        })
        .await
    }

    async fn at_time(&self, request: Request<wire::AtTimeRequest>) -> Answer<wire::AtTimeResponse> {
        let wire::AtTimeRequest { volume, time_ms } = request.into_inner();
        answer(async {
            let lsn = self.log.at_time(&name(&volume)?, time_ms).await?.map_or(0, Lsn::get);
            Ok(wire::AtTimeResponse { lsn })
        })
        .await
    }

    async fn find_checkpoint(
        &self,
        request: Request<wire::FindCheckpointRequest>,
    ) -> Answer<wire::FindCheckpointResponse> {
        let wire::FindCheckpointRequest { volume, at_most } = request.into_inner();
        answer(async {
            let at_most = at_most.map(TryInto::try_into).transpose()?;
            let place = self.log.checkpoint(&name(&volume)?, at_most).await?.map(Into::into);
            Ok(wire::FindCheckpointResponse { place })
        })
        .await
    }

    type ReadCheckpointStream = Answers<wire::Piece>;
    async fn read_checkpoint(
        &self,
        request: Request<wire::ReadCheckpointRequest>,
    ) -> Answer<Self::ReadCheckpointStream> {
        let wire::ReadCheckpointRequest { volume, place, start, end } = request.into_inner();
        let read = async { self.log.read_checkpoint(&name(&volume)?, place_of(place)?, start..end).await };
        answers(stream::iter(pieces(read.await.map_err(|e| status_of(&e))?)).map(|data| Ok(wire::Piece { data })))
    }

    async fn put_checkpoint(&self, request: Request<Streaming<wire::PutCheckpointRequest>>) -> Answer<wire::Empty> {
        let mut messages = request.into_inner();
        let first = messages.message().await?;
        let mut object = BytesMut::new();
        let most = first.as_ref().map_or(0, |first| first.len_bytes);
        while let Some(piece) = messages.message().await?
            && object.len() as u64 <= most
        {
            object.extend_from_slice(&piece.data);
        }
        answer(async {
            let first = required(first, "volume")?;
            if object.len() as u64 != first.len_bytes {
                return Err(Error::invalid(format!("{} bytes of a checkpoint of {}", object.len(), first.len_bytes)));
            }
            self.log.put_checkpoint(&name(&first.volume)?, place_of(first.place)?, object.freeze()).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn mark(&self, request: Request<wire::MarkRequest>) -> Answer<wire::Empty> {
        answer(async {
            self.log.mark(&Marker::decode(&request.get_ref().marker)?).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn unmark(&self, request: Request<wire::MarkRequest>) -> Answer<wire::Empty> {
        answer(async {
            self.log.unmark(&Marker::decode(&request.get_ref().marker)?).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn get_statement(&self, request: Request<wire::VolumeRequest>) -> Answer<wire::StatementObject> {
        answer(async {
            let statement = self.log.statement(&name(&request.get_ref().volume)?).await?;
            Ok(wire::StatementObject { statement: statement.encode().into() })
        })
        .await
    }

    async fn read_clock(&self, request: Request<wire::VolumeRequest>) -> Answer<wire::ReadClockResponse> {
        answer(async {
            let time_ms = self.log.clock_ms(&name(&request.get_ref().volume)?).await?;
            Ok(wire::ReadClockResponse { time_ms })
        })
        .await
    }

    async fn get_retention(&self, request: Request<wire::VolumeRequest>) -> Answer<wire::RetentionObject> {
        answer(async {
            let (number, retention) = self.log.retention(&name(&request.get_ref().volume)?).await?;
            Ok(wire::RetentionObject { number, retention: retention.encode().into() })
        })
        .await
    }

    async fn retain(&self, request: Request<wire::RetainRequest>) -> Answer<wire::DoneResponse> {
        let wire::RetainRequest { volume, number, retention } = request.into_inner();
        answer(async {
            let done = self.log.retain(&name(&volume)?, number, &Retention::decode(&retention)?).await?;
            Ok(wire::DoneResponse { done })
        })
        .await
    }

    type ListStatementsStream = Answers<wire::StatedObject>;
    async fn list_statements(&self, request: Request<wire::VolumeRequest>) -> Answer<Self::ListStatementsStream> {
        let name = name(&request.get_ref().volume).map_err(|e| status_of(&e))?;
        answers(self.log.statements(&name).map_ok(|stated| wire::StatedObject {
            number: stated.number,
            stored_ms: stated.stored_ms,
            statement: stated.statement.encode().into(),
        }))
    }

    async fn put_statement(&self, request: Request<wire::PutStatementRequest>) -> Answer<wire::DoneResponse> {
        let wire::PutStatementRequest { volume, number, statement } = request.into_inner();
        answer(async {
            let done = self.log.state(&name(&volume)?, number, &Statement::decode(&statement)?).await?;
            Ok(wire::DoneResponse { done })
        })
        .await
    }

    type ListMarkersStream = Answers<wire::MarkedObject>;
    async fn list_markers(&self, request: Request<wire::VolumeRequest>) -> Answer<Self::ListMarkersStream> {
        let name = name(&request.get_ref().volume).map_err(|e| status_of(&e))?;
        answers(self.log.markers(&name).map_ok(|marked| {
            let (marker, problem, message) = match &marked.marker {
                Ok(marker) => (marker.encode().into(), None, String::new()),
                Err(e) => {
                    let remedy = e.remedy().unwrap_or_default().to_owned();
                    let problem = wire::Problem { kind: e.kind().as_str().to_owned(), remedy, winner: None };
                    (Bytes::new(), Some(problem), e.to_string())
                }
            };
            let ulid = Bytes::copy_from_slice(&marked.ulid.to_bytes());
            wire::MarkedObject { lsn: marked.lsn.get(), ulid, stored_ms: marked.stored_ms, marker, problem, message }
        }))
    }

    async fn drop_marker(&self, request: Request<wire::DropMarkerRequest>) -> Answer<wire::Empty> {
        answer(async {
            let marker = request.get_ref();
            self.log.drop_marker(&name(&marker.volume)?, lsn(marker.lsn)?, marker.name()?).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    type ListCheckpointsStream = Answers<wire::ListCheckpointsResponse>;
    async fn list_checkpoints(&self, request: Request<wire::VolumeRequest>) -> Answer<Self::ListCheckpointsStream> {
        let name = name(&request.get_ref().volume).map_err(|e| status_of(&e))?;
        let places = self.log.checkpoints(&name);
        answers(
            places.map_ok(|(place, len_bytes)| wire::ListCheckpointsResponse { place: Some(place.into()), len_bytes }),
        )
    }

    async fn drop_checkpoint(&self, request: Request<wire::CheckpointRequest>) -> Answer<wire::Empty> {
        let wire::CheckpointRequest { volume, place } = request.into_inner();
        answer(async {
            self.log.drop_checkpoint(&name(&volume)?, place_of(place)?).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn stub(&self, request: Request<wire::GetCommitRequest>) -> Answer<wire::StubResponse> {
        let wire::GetCommitRequest { volume, lsn: at } = request.into_inner();
        answer(async {
            let saved_bytes = self.log.stub(&name(&volume)?, lsn(at)?).await?;
            Ok(wire::StubResponse { saved_bytes })
        })
        .await
    }
}

type Watched = BoxStream<'static, Result<wire::WatchResponse>>;

/// What one stream watches. A commit is fetched only when the one before it has been taken, so a slow watcher costs no
/// memory.
struct Watch {
    log: Arc<dyn LogUpkeep>,
    asked: Streaming<wire::WatchRequest>,
    /// Nothing more will be asked.
    ended: bool,
    watched: SelectAll<Watched>,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<wire::WatchResponse>> {
        loop {
            if self.ended && self.watched.is_empty() {
                return Ok(None);
            }
            let has_some = !self.watched.is_empty();
            tokio::select! {
                asked = self.asked.message(), if !self.ended => match asked {
                    Ok(Some(asked)) => self.subscribe(asked)?,
                    // It only listens from now on.
                    Ok(None) => self.ended = true,
                    Err(_) => return Ok(None),
                },
                told = self.watched.next(), if has_some => {
                    if let Some(told) = told {
                        return told.map(Some);
                    }
                }
            }
        }
    }

    fn subscribe(&mut self, asked: wire::WatchRequest) -> Result<()> {
        for subscription in asked.subscribe {
            if self.watched.len() >= MOST_WATCHED {
                return Err(Error::invalid(format!("one stream watches at most {MOST_WATCHED} volumes")));
            }
            let volume = name(&subscription.volume)?;
            let commits = self.log.watch(&volume, Lsn::new(subscription.after_lsn));
            let told = commits.map_ok(move |commit| wire::WatchResponse {
                volume: volume.as_str().to_owned(),
                commit: commit.object().clone(),
            });
            self.watched.push(told.boxed());
        }
        Ok(())
    }
}
