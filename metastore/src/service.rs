//! The metastore behind gRPC: checks what the caller may do, and translates calls.

use std::future::Future;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, SelectAll, StreamExt, TryStreamExt};
use quire_channel::pieces;
use quire_proto::wire::get_stored_times_response::StoredTime;
use quire_proto::wire::metastore_server::Metastore;
use quire_proto::wire::{self, authorized, error_of, head_response, place_of, required, status_of, status_of_lost};
use quire_proto::{
    Allowance, Appended, Base, CheckpointHead, CommitHeader, CommitKind, Error, ErrorKind, Grant, INLINE_LIMIT_BYTES,
    LogPart, LogUpkeep, Lsn, Marker, MarkerTarget, Result, Retention, Right, SealedCommit, Statement, VolumeName,
    VolumeState,
};
use tonic::{Request, Response, Status, Streaming};

use crate::hub::Hub;

/// Names of volumes and headers go in messages of so many.
const BATCH: usize = 256;
/// Small commits come along with their headers up to so many bytes.
const COMMITS_BYTES: usize = 64 * 1024;
/// Watchers of one stream may watch so many volumes.
const MOST_WATCHED: usize = 10_000;

/// A checkpoint that is uploaded is held in memory: that of a volume whose every page lies elsewhere has about eight bytes
/// a page, so this is one of 500 GiB.
const MOST_CHECKPOINT_BYTES: u64 = 1 << 30;

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// The service over a metastore.
pub struct Service {
    log: Arc<dyn LogUpkeep>,
    hub: Arc<Hub>,
    allowance: Option<Arc<dyn Allowance>>,
}

impl Service {
    /// Serves this one; who watches it does so through the hub.
    pub fn new(log: Arc<dyn LogUpkeep>, hub: Arc<Hub>) -> Service {
        Service { log, hub, allowance: None }
    }

    /// Appends no more than this allows.
    pub fn within(self, allowance: Arc<dyn Allowance>) -> Service {
        Service { allowance: Some(allowance), ..self }
    }

    /// What was committed here is told to those who watch.
    fn told(&self, volume: &VolumeName, commit: SealedCommit) -> wire::CommitObject {
        self.hub.appended(volume, &commit);
        object(&commit)
    }
}

/// An append may end a volume, or begin it with the pages of another one.
fn check_append(grant: &Grant, volume: &VolumeName, commit: &CommitHeader) -> Result<()> {
    if matches!(commit.kind, CommitKind::Deleted | CommitKind::Moved) {
        grant.check(volume, Right::Admin)?;
    }
    // It carries the commit that ends the other volume, which anybody who reads this one appends there.
    if let (Some(_), Base::Other { volume: old, .. }) = (&commit.condition, &commit.base) {
        grant.check(old, Right::Admin)?;
        grant.check(volume, Right::Admin)?;
    }
    match &commit.base {
        Base::Other { volume: base, lsn, .. } => {
            grant.check(base, Right::Read)?;
            grant.check_reach(base, *lsn)
        }
        Base::Older { lsn, .. } => grant.check_reach(volume, *lsn),
        Base::Nothing | Base::Previous => Ok(()),
    }
}

/// A checkpoint says where pages are: whoever reads or compacts the volume gets them, so its author must be able to.
fn check_checkpoint(grant: &Grant, object: &[u8]) -> Result<()> {
    if grant.may_everywhere(Right::Read) {
        return Ok(());
    }
    match &CheckpointHead::decode(object)?.info().origin {
        Some(origin) => grant.check(&origin.volume, Right::Read),
        None => Ok(()),
    }
}

/// A marker keeps a snapshot from collection, for something that will be written elsewhere.
fn check_marker(grant: &Grant, marker: &Marker) -> Result<()> {
    let (base, lsn, _) = &marker.base;
    grant.check(base, Right::Read)?;
    grant.check_reach(base, *lsn)?;
    match &marker.target {
        MarkerTarget::Commit(volume, _) => grant.check(volume, Right::Write),
        MarkerTarget::Checkpoint(_) => grant.check(base, Right::Write),
        MarkerTarget::Replica { .. } | MarkerTarget::Reader { .. } => Ok(()),
    }
}

/// The volume that a call names, if its caller may read what it was at an LSN.
fn readable(grant: &Grant, volume: &str, at: u64) -> Result<(VolumeName, Lsn)> {
    // The right first: whoever has none learns nothing.
    let volume = grant.volume(volume, Right::Read)?;
    let at = lsn(at)?;
    grant.check_reach(&volume, at).map(|()| (volume, at))
}

/// What a name stands for, if the caller may know that.
fn known(grant: &Grant, volume: &VolumeName, state: VolumeState) -> Result<VolumeState> {
    if let Some(head) = state.head() {
        grant.check_reach(volume, head.lsn())?;
    }
    Ok(state)
}

async fn answer<T>(work: impl Future<Output = Result<T>>) -> Answer<T> {
    work.await.map(Response::new).map_err(|e| status_of(&e))
}

fn answers<T: Send + 'static>(messages: impl futures::Stream<Item = Result<T>> + Send + 'static) -> Answer<Answers<T>> {
    Ok(Response::new(messages.map_err(|e| status_of(&e)).boxed()))
}

fn lsn(n: u64) -> Result<Lsn> {
    Lsn::try_new(n)
}

/// A header as it came.
pub(crate) fn header(bytes: &[u8]) -> Result<CommitHeader> {
    CommitHeader::decode(bytes).map(|(header, _)| header)
}

/// The objects of commits that came along, the newest of them, as far as they are worth their bytes.
fn along(mut commits: Vec<SealedCommit>) -> Vec<Bytes> {
    commits.sort_by_key(|commit| std::cmp::Reverse(commit.lsn()));
    let mut bytes = 0;
    let fits = |object: &Bytes| {
        bytes += object.len();
        bytes <= COMMITS_BYTES
    };
    commits.iter().map(|commit| commit.object().clone()).take_while(fits).collect()
}

fn head_response(state: &VolumeState) -> wire::HeadResponse {
    let next_lsn = state.next().get();
    let bytes = |commit: &SealedCommit| commit.object().clone();
    let head = state.head().map(bytes).unwrap_or_default();
    let (state, ended_by) = match state {
        VolumeState::Free { .. } => (head_response::State::Free, Bytes::new()),
        VolumeState::Live(_) => (head_response::State::Live, Bytes::new()),
        VolumeState::Ended { by, .. } => (head_response::State::Ended, bytes(by)),
    };
    wire::HeadResponse { state: state.into(), head, ended_by, next_lsn }
}

fn object(commit: &SealedCommit) -> wire::CommitObject {
    wire::CommitObject { commit: commit.object().clone() }
}

#[tonic::async_trait]
impl Metastore for Service {
    async fn open(&self, request: Request<wire::OpenRequest>) -> Answer<wire::OpenResponse> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let volume = grant.volume(&asked.volume, Right::Read)?;
            let mut opened = self.log.open(&volume, Lsn::new(asked.known_lsn)).await?;
            opened.state = known(&grant, &volume, opened.state)?;
            // What may not be read is as if it were not known: the client asks, and is told.
            let first = opened.front.as_ref().map(|front| front.as_ref().map_or(Lsn::FIRST, |(place, _)| place.lsn));
            if first.is_some_and(|first| !grant.reaches(first)) {
                opened.front = None;
            }
            if opened.log.headers.first().is_some_and(|first| !grant.reaches(first.lsn)) {
                opened.log = LogPart::default();
            }
            let LogPart { headers, commits } = opened.log;
            let no_checkpoint = opened.front == Some(None);
            let front = opened.front.flatten();
            let (checkpoint, front) = front.map_or((None, Bytes::new()), |(place, front)| (Some(place), front));
            Ok(wire::OpenResponse {
                head: Some(head_response(&opened.state)),
                checkpoint: checkpoint.map(Into::into),
                front,
                headers: headers.iter().map(CommitHeader::encode).collect::<Result<Vec<_>>>()?,
                no_checkpoint,
                commits: along(commits),
            })
        })
        .await
    }

    async fn head(&self, request: Request<wire::HeadRequest>) -> Answer<wire::HeadResponse> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let volume = grant.volume(&asked.volume, Right::Read)?;
            Ok(head_response(&known(&grant, &volume, self.log.head(&volume).await?)?))
        })
        .await
    }

    async fn append(&self, request: Request<wire::AppendRequest>) -> Answer<wire::AppendResponse> {
        let (grant, wire::AppendRequest { volume, commit }) = authorized(request)?;
        let appended = async {
            let (volume, commit) = (grant.volume(&volume, Right::Write)?, SealedCommit::decode(commit)?);
            check_append(&grant, &volume, commit.header())?;
            // A quota counts what lies in segments.
            if commit.header().inline_bytes() > INLINE_LIMIT_BYTES as u64 {
                return Err(Error::invalid(format!(
                    "a commit with {} bytes of pages in itself, of which at most {INLINE_LIMIT_BYTES} are allowed",
                    commit.header().inline_bytes()
                )));
            }
            if let Some(allowance) = self.allowance.as_ref().filter(|_| !commit.header().kind.ends()) {
                allowance.take(&volume, commit.object().len() as u64).await?;
            }
            let appended = self.log.append(&volume, &commit).await?;
            if let Appended::Won = appended {
                self.hub.appended(&volume, &commit);
            }
            Ok(appended)
        };
        match appended.await.map_err(|e: Error| status_of(&e))? {
            Appended::Won => Ok(Response::new(wire::AppendResponse {})),
            Appended::Lost(winner) => Err(status_of_lost(&winner).unwrap_or_else(|e| status_of(&e))),
        }
    }

    async fn get_commit(&self, request: Request<wire::GetCommitRequest>) -> Answer<wire::CommitObject> {
        let (grant, wire::GetCommitRequest { volume, lsn: at }) = authorized(request)?;
        answer(async {
            let (volume, at) = readable(&grant, &volume, at)?;
            Ok(object(&self.log.commit(&volume, at).await?))
        })
        .await
    }

    async fn get_header(&self, request: Request<wire::GetCommitRequest>) -> Answer<wire::HeaderObject> {
        let (grant, wire::GetCommitRequest { volume, lsn: at }) = authorized(request)?;
        answer(async {
            let (volume, at) = readable(&grant, &volume, at)?;
            let header = self.log.header(&volume, at).await?.encode()?;
            Ok(wire::HeaderObject { header })
        })
        .await
    }

    type GetHeadersStream = Answers<wire::GetHeadersResponse>;
    async fn get_headers(&self, request: Request<wire::GetHeadersRequest>) -> Answer<Self::GetHeadersStream> {
        let (grant, wire::GetHeadersRequest { volume, first_lsn, last }) = authorized(request)?;
        let log = async {
            let (volume, first) = readable(&grant, &volume, first_lsn)?;
            self.log.log(&volume, first, &header(&last)?).await
        };
        let LogPart { headers, commits } = log.await.map_err(|e| status_of(&e))?;
        let commits = wire::GetHeadersResponse { headers: Vec::new(), commits: along(commits) };
        let batches = stream::iter(headers).chunks(BATCH).map(|headers| {
            let headers = headers.iter().map(CommitHeader::encode).collect::<Result<Vec<_>>>()?;
            Ok(wire::GetHeadersResponse { headers, commits: Vec::new() })
        });
        answers(batches.chain(stream::iter((!commits.commits.is_empty()).then_some(Ok(commits)))))
    }

    type WatchStream = Answers<wire::WatchResponse>;
    async fn watch(&self, request: Request<Streaming<wire::WatchRequest>>) -> Answer<Self::WatchStream> {
        let (grant, asked) = authorized(request)?;
        let watch = Watch { hub: self.hub.clone(), grant, asked, ended: false, watched: SelectAll::new() };
        answers(stream::try_unfold(watch, |mut watch| async move {
            Ok(watch.next().await?.map(|message| (message, watch)))
        }))
    }

    type ListVolumesStream = Answers<wire::ListVolumesResponse>;
    async fn list_volumes(&self, request: Request<wire::ListVolumesRequest>) -> Answer<Self::ListVolumesStream> {
        let (grant, asked) = authorized(request)?;
        let names = self.log.volumes(&asked.prefix);
        let names = names.try_filter(move |name| std::future::ready(grant.may(name, Right::Read)));
        let names = names.map_ok(|name| name.as_str().to_owned());
        answers(names.try_chunks(BATCH).map(|names| match names {
            Ok(names) => Ok(wire::ListVolumesResponse { names }),
            Err(e) => Err(e.1),
        }))
    }

    async fn tidy(&self, request: Request<wire::TidyRequest>) -> Answer<wire::Empty> {
        let (grant, wire::TidyRequest { volume, header: bytes }) = authorized(request)?;
        answer(async {
            self.log.tidy(&grant.volume(&volume, Right::Write)?, &header(&bytes)?).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Answer<wire::CommitObject> {
        let (grant, wire::DeleteRequest { volume, expected_lsn, author }) = authorized(request)?;
        answer(async {
            let volume = grant.volume(&volume, Right::Admin)?;
            Ok(self.told(&volume, self.log.delete(&volume, lsn(expected_lsn)?, &author).await?))
        })
        .await
    }

    async fn rename(&self, request: Request<wire::RenameRequest>) -> Answer<wire::CommitObject> {
        let (grant, wire::RenameRequest { volume, new_name, author }) = authorized(request)?;
        answer(async {
            let new = VolumeName::parse(&new_name).map_err(|e| e.context("field `new_name`"))?;
            grant.check(&new, Right::Admin)?;
            let volume = grant.volume(&volume, Right::Admin)?;
            let first = self.log.rename(&volume, &new, &author).await?;
            self.hub.renamed(&volume, &new, &first);
            Ok(object(&first))
        })
        .await
    }

    async fn restore(&self, request: Request<wire::RestoreRequest>) -> Answer<wire::CommitObject> {
        let (grant, wire::RestoreRequest { volume, lsn: at, expected_lsn, author }) = authorized(request)?;
        answer(async {
            let volume = grant.volume(&volume, Right::Write)?;
            let at = lsn(at)?;
            grant.check_reach(&volume, at)?;
            Ok(self.told(&volume, self.log.restore(&volume, at, lsn(expected_lsn)?, &author).await?))
        })
        .await
    }

    async fn at_time(&self, request: Request<wire::AtTimeRequest>) -> Answer<wire::AtTimeResponse> {
        let (grant, wire::AtTimeRequest { volume, time_ms }) = authorized(request)?;
        answer(async {
            let volume = grant.volume(&volume, Right::Read)?;
            let found = self.log.at_time(&volume, time_ms).await?;
            if let Some(lsn) = found {
                grant.check_reach(&volume, lsn)?;
            }
            Ok(wire::AtTimeResponse { lsn: found.map_or(0, Lsn::get) })
        })
        .await
    }

    type GetStoredTimesStream = Answers<wire::GetStoredTimesResponse>;
    async fn get_stored_times(
        &self,
        request: Request<wire::GetStoredTimesRequest>,
    ) -> Answer<Self::GetStoredTimesStream> {
        let (grant, wire::GetStoredTimesRequest { volume, first_lsn, last_lsn }) = authorized(request)?;
        let times = async {
            let (volume, first) = readable(&grant, &volume, first_lsn)?;
            self.log.stored_times(&volume, first, lsn(last_lsn)?).await
        };
        let times = times.await.map_err(|e| status_of(&e))?;
        let times = times.into_iter().map(|(lsn, stored_ms)| StoredTime { lsn: lsn.get(), stored_ms });
        let batches = stream::iter(times).chunks(BATCH);
        answers(batches.map(|times| Ok(wire::GetStoredTimesResponse { times })))
    }

    async fn find_checkpoint(
        &self,
        request: Request<wire::FindCheckpointRequest>,
    ) -> Answer<wire::FindCheckpointResponse> {
        let (grant, wire::FindCheckpointRequest { volume, at_most }) = authorized(request)?;
        answer(async {
            let at_most = at_most.map(TryInto::try_into).transpose()?;
            let place = self.log.checkpoint(&grant.volume(&volume, Right::Read)?, at_most).await?;
            let place = place.filter(|place| grant.reaches(place.lsn)).map(Into::into);
            Ok(wire::FindCheckpointResponse { place })
        })
        .await
    }

    type ReadCheckpointStream = Answers<wire::Piece>;
    async fn read_checkpoint(
        &self,
        request: Request<wire::ReadCheckpointRequest>,
    ) -> Answer<Self::ReadCheckpointStream> {
        let (grant, wire::ReadCheckpointRequest { volume, place, start, end }) = authorized(request)?;
        let read = async {
            let volume = grant.volume(&volume, Right::Read)?;
            let place = place_of(place)?;
            grant.check_reach(&volume, place.lsn)?;
            self.log.read_checkpoint(&volume, place, start..end).await
        };
        answers(stream::iter(pieces(read.await.map_err(|e| status_of(&e))?)).map(|data| Ok(wire::Piece { data })))
    }

    async fn put_checkpoint(&self, request: Request<Streaming<wire::PutCheckpointRequest>>) -> Answer<wire::Empty> {
        let (grant, mut messages) = authorized(request)?;
        let first = messages.message().await?;
        answer(async {
            let first = required(first, "volume")?;
            let volume = grant.volume(&first.volume, Right::Write)?;
            let place = place_of(first.place)?;
            if first.len_bytes > MOST_CHECKPOINT_BYTES {
                return Err(Error::invalid(format!("a checkpoint of {} bytes is too long", first.len_bytes))
                    .with_remedy("Write it on the store itself, without a server."));
            }
            let mut object = BytesMut::new();
            while let Some(piece) = messages.message().await.map_err(|status| error_of(&status, "the client"))?
                && object.len() as u64 <= first.len_bytes
            {
                object.extend_from_slice(&piece.data);
            }
            if object.len() as u64 != first.len_bytes {
                return Err(Error::invalid(format!("{} bytes of a checkpoint of {}", object.len(), first.len_bytes)));
            }
            check_checkpoint(&grant, &object)?;
            self.log.put_checkpoint(&volume, place, object.freeze()).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn mark(&self, request: Request<wire::MarkRequest>) -> Answer<wire::Empty> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let marker = Marker::decode(&asked.marker)?;
            check_marker(&grant, &marker)?;
            self.log.mark(&marker).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn unmark(&self, request: Request<wire::MarkRequest>) -> Answer<wire::Empty> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let marker = Marker::decode(&asked.marker)?;
            check_marker(&grant, &marker)?;
            self.log.unmark(&marker).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn get_statement(&self, request: Request<wire::VolumeRequest>) -> Answer<wire::StatementObject> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let statement = self.log.statement(&grant.volume(&asked.volume, Right::Read)?).await?;
            Ok(wire::StatementObject { statement: statement.encode().into() })
        })
        .await
    }

    async fn read_clock(&self, request: Request<wire::VolumeRequest>) -> Answer<wire::ReadClockResponse> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let time_ms = self.log.clock_ms(&grant.volume(&asked.volume, Right::Read)?).await?;
            Ok(wire::ReadClockResponse { time_ms })
        })
        .await
    }

    async fn get_retention(&self, request: Request<wire::VolumeRequest>) -> Answer<wire::RetentionObject> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let (number, retention) = self.log.retention(&grant.volume(&asked.volume, Right::Read)?).await?;
            Ok(wire::RetentionObject { number, retention: retention.encode().into() })
        })
        .await
    }

    async fn retain(&self, request: Request<wire::RetainRequest>) -> Answer<wire::DoneResponse> {
        let (grant, wire::RetainRequest { volume, number, retention }) = authorized(request)?;
        answer(async {
            let volume = grant.volume(&volume, Right::Admin)?;
            let done = self.log.retain(&volume, number, &Retention::decode(&retention)?).await?;
            Ok(wire::DoneResponse { done })
        })
        .await
    }

    type ListStatementsStream = Answers<wire::StatedObject>;
    async fn list_statements(&self, request: Request<wire::VolumeRequest>) -> Answer<Self::ListStatementsStream> {
        let (grant, asked) = authorized(request)?;
        let name = grant.volume(&asked.volume, Right::Read).map_err(|e| status_of(&e))?;
        answers(self.log.statements(&name).map_ok(|stated| wire::StatedObject {
            number: stated.number,
            stored_ms: stated.stored_ms,
            statement: stated.statement.encode().into(),
        }))
    }

    async fn put_statement(&self, request: Request<wire::PutStatementRequest>) -> Answer<wire::DoneResponse> {
        let (grant, wire::PutStatementRequest { volume, number, statement }) = authorized(request)?;
        answer(async {
            let volume = grant.volume(&volume, Right::Admin)?;
            let done = self.log.state(&volume, number, &Statement::decode(&statement)?).await?;
            Ok(wire::DoneResponse { done })
        })
        .await
    }

    type ListMarkersStream = Answers<wire::MarkedObject>;
    async fn list_markers(&self, request: Request<wire::VolumeRequest>) -> Answer<Self::ListMarkersStream> {
        let (grant, asked) = authorized(request)?;
        let name = grant.volume(&asked.volume, Right::Read).map_err(|e| status_of(&e))?;
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
        let (grant, asked) = authorized(request)?;
        answer(async {
            let marker = asked;
            let volume = grant.volume(&marker.volume, Right::Admin)?;
            self.log.drop_marker(&volume, lsn(marker.lsn)?, marker.name()?).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    type ListCheckpointsStream = Answers<wire::ListCheckpointsResponse>;
    async fn list_checkpoints(&self, request: Request<wire::VolumeRequest>) -> Answer<Self::ListCheckpointsStream> {
        let (grant, asked) = authorized(request)?;
        let name = grant.volume(&asked.volume, Right::Read).map_err(|e| status_of(&e))?;
        let places = self.log.checkpoints(&name);
        let places = places.try_filter(move |(place, _)| std::future::ready(grant.reaches(place.lsn)));
        answers(
            places.map_ok(|(place, len_bytes)| wire::ListCheckpointsResponse { place: Some(place.into()), len_bytes }),
        )
    }

    async fn drop_checkpoint(&self, request: Request<wire::CheckpointRequest>) -> Answer<wire::Empty> {
        let (grant, wire::CheckpointRequest { volume, place }) = authorized(request)?;
        answer(async {
            self.log.drop_checkpoint(&grant.volume(&volume, Right::Admin)?, place_of(place)?).await?;
            Ok(wire::Empty {})
        })
        .await
    }

    async fn stub(&self, request: Request<wire::GetCommitRequest>) -> Answer<wire::StubResponse> {
        let (grant, wire::GetCommitRequest { volume, lsn: at }) = authorized(request)?;
        answer(async {
            let saved_bytes = self.log.stub(&grant.volume(&volume, Right::Admin)?, lsn(at)?).await?;
            Ok(wire::StubResponse { saved_bytes })
        })
        .await
    }
}

type Watched = BoxStream<'static, Result<wire::WatchResponse>>;

/// What one stream watches. A commit is fetched only when the one before it has been taken, so a slow watcher costs no
/// memory.
struct Watch {
    hub: Arc<Hub>,
    grant: Grant,
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
            let left = self.grant.left();
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
                () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => {
                    return Err(Error::new(ErrorKind::Denied, "the token has expired").with_remedy("Ask for a new one."));
                }
            }
        }
    }

    fn subscribe(&mut self, asked: wire::WatchRequest) -> Result<()> {
        for subscription in asked.subscribe {
            if self.watched.len() >= MOST_WATCHED {
                return Err(Error::invalid(format!("one stream watches at most {MOST_WATCHED} volumes")));
            }
            let volume = self.grant.volume(&subscription.volume, Right::Read)?;
            let after = Lsn::new(subscription.after_lsn);
            self.grant.check_reach(&volume, after.map_or(Lsn::FIRST, Lsn::next))?;
            let commits = self.hub.watch(&volume, after);
            let told = commits.map_ok(move |commit| wire::WatchResponse {
                volume: volume.as_str().to_owned(),
                commit: commit.object().clone(),
            });
            self.watched.push(told.boxed());
        }
        Ok(())
    }
}
