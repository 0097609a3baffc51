//! A metastore behind a Quire server.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use quire_channel::{Connection, MAX_MESSAGE_BYTES, Service, pieces};
use quire_proto::wire::metastore_client::MetastoreClient;
use quire_proto::wire::{self, head_response, place_of, required, winner_of};
use quire_proto::{
    Appended, CheckpointPlace, CommitHeader, Error, ErrorKind, LogPart, LogUpkeep, Lsn, Marked, Marker, Metastore,
    Opened, Result, Retention, SealedCommit, Stated, Statement, VolumeName, VolumeState,
};
use tonic::{Response, Status};
use ulid::Ulid;

use crate::service::header;

type Client = MetastoreClient<Service>;

/// A metastore behind a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Remote {
    connection: Connection,
}

fn client(service: Service) -> Client {
    MetastoreClient::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

impl Remote {
    /// The metastore of the server at the other end.
    pub fn new(connection: Connection) -> Remote {
        Remote { connection }
    }

    async fn call<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.connection.call(|service| ask(client(service))).await.map_err(|status| self.connection.error_of(&status))
    }

    fn state(&self, found: wire::HeadResponse) -> Result<VolumeState> {
        self.connection.received(found.head.len() + found.ended_by.len());
        let commit = |object: Bytes| SealedCommit::decode(object).map(Box::new);
        Ok(match found.state() {
            head_response::State::Live => VolumeState::Live(commit(found.head)?),
            head_response::State::Ended => {
                VolumeState::Ended { by: commit(found.ended_by)?, head: commit(found.head)? }
            }
            head_response::State::Free => {
                let head = if found.head.is_empty() { None } else { Some(commit(found.head)?) };
                VolumeState::Free { next: Lsn::try_new(found.next_lsn)?, head }
            }
        })
    }

    async fn commit_of(&self, answer: Result<wire::CommitObject>) -> Result<SealedCommit> {
        let object = answer?.commit;
        self.connection.received(object.len());
        SealedCommit::decode(object)
    }

    /// Headers, and some of their commits. One that is damaged is asked for again when it is needed.
    fn log_part(&self, headers: &[Bytes], commits: Vec<Bytes>) -> Result<LogPart> {
        let headers = headers.iter().map(|bytes| header(bytes)).collect::<Result<Vec<_>>>()?;
        commits.iter().for_each(|object| self.connection.received(object.len()));
        let commits = commits.into_iter().filter_map(|object| SealedCommit::decode(object).ok()).collect();
        Ok(LogPart { headers, commits })
    }
}

/// Asks for one answer.
macro_rules! ask {
    ($self:ident.$method:ident, $request:ident) => {
        $self.call(|mut client| {
            let request = $request.clone();
            async move { client.$method(request).await }
        })
    };
}

/// Asks for a stream of answers.
macro_rules! stream {
    ($self:ident.$method:ident, $request:ident) => {
        $self.connection.stream(move |service| {
            let request = $request.clone();
            async move { client(service).$method(request).await }
        })
    };
}

/// Whether headers end where they should. The server's word is not enough: each names the hash of the one before.
fn is_linked(headers: &[CommitHeader], last: &CommitHeader) -> bool {
    let linked = headers.windows(2).all(|pair| pair[1].parent == Some(pair[0].hash()));
    linked && headers.last().is_some_and(|h| h.hash() == last.hash())
}

fn text(volume: &VolumeName) -> String {
    volume.as_str().to_owned()
}

#[async_trait]
impl Metastore for Remote {
    async fn head(&self, volume: &VolumeName) -> Result<VolumeState> {
        let request = wire::HeadRequest { volume: text(volume) };
        self.state(ask!(self.head, request).await?)
    }

    async fn open(&self, volume: &VolumeName, known: Option<Lsn>) -> Result<Opened> {
        let request = wire::OpenRequest { volume: text(volume), known_lsn: known.map_or(0, Lsn::get) };
        let opened = ask!(self.open, request).await?;
        let wire::OpenResponse { head, checkpoint, front, headers, no_checkpoint, commits } = opened;
        let state = self.state(required(head, "head")?)?;
        let place: Option<CheckpointPlace> = checkpoint.map(TryInto::try_into).transpose()?;
        self.connection.received(front.len());
        let log = self.log_part(&headers, commits)?;
        // What does not fit together is asked for again.
        let fits = state.head().is_some_and(|head| is_linked(&log.headers, head.header()));
        let front = place.map(|place| Some((place, front))).or(no_checkpoint.then_some(None));
        Ok(Opened { state, front, log: if fits { log } else { LogPart::default() } })
    }

    async fn append(&self, volume: &VolumeName, commit: &SealedCommit) -> Result<Appended> {
        let request = wire::AppendRequest { volume: text(volume), commit: commit.object().clone() };
        self.connection.sent(commit.object().len());
        let appended = self.connection.call(|service| {
            let request = request.clone();
            async move { client(service).append(request).await }
        });
        match appended.await {
            Ok(wire::AppendResponse {}) => Ok(Appended::Won),
            Err(status) => match winner_of(&status)? {
                Some(winner) => Ok(Appended::Lost(Box::new(winner))),
                None => Err(self.connection.error_of(&status)),
            },
        }
    }

    async fn commit(&self, volume: &VolumeName, lsn: Lsn) -> Result<SealedCommit> {
        let request = wire::GetCommitRequest { volume: text(volume), lsn: lsn.get() };
        let answer = ask!(self.get_commit, request).await;
        self.commit_of(answer).await
    }

    async fn header(&self, volume: &VolumeName, lsn: Lsn) -> Result<CommitHeader> {
        let request = wire::GetCommitRequest { volume: text(volume), lsn: lsn.get() };
        let answer = ask!(self.get_header, request).await?;
        header(&answer.header)
    }

    async fn log(&self, volume: &VolumeName, first: Lsn, last: &CommitHeader) -> Result<LogPart> {
        let request = wire::GetHeadersRequest { volume: text(volume), first_lsn: first.get(), last: last.encode()? };
        let batches = stream!(self.get_headers, request);
        let batches: Vec<wire::GetHeadersResponse> = batches.try_collect().await?;
        let mut log = LogPart::default();
        for wire::GetHeadersResponse { headers, commits } in batches {
            let part = self.log_part(&headers, commits)?;
            log.headers.extend(part.headers);
            log.commits.extend(part.commits);
        }
        match is_linked(&log.headers, last) && log.headers[0].lsn == first {
            true => Ok(log),
            false => Err(Error::corrupt(format!("volume {volume}: the headers from LSN {first} on are not linked"))),
        }
    }

    fn watch(&self, volume: &VolumeName, after: Option<Lsn>) -> BoxStream<'static, Result<SealedCommit>> {
        let subscription =
            wire::watch_request::Subscription { volume: text(volume), after_lsn: after.map_or(0, Lsn::get) };
        let request = wire::WatchRequest { subscribe: vec![subscription] };
        let connection = self.connection.clone();
        let told = async move {
            let watched = connection.call(|service| {
                let request = request.clone();
                async move { client(service).watch(stream::iter([request])).await }
            });
            let told = watched.await.map_err(|status| connection.error_of(&status))?;
            Ok::<_, Error>(connection.messages(told, true))
        };
        stream::once(told).try_flatten().map(|told| SealedCommit::decode(told?.commit)).boxed()
    }

    fn volumes(&self, prefix: &str) -> BoxStream<'static, Result<VolumeName>> {
        let request = wire::ListVolumesRequest { prefix: prefix.to_owned() };
        let batches = stream!(self.list_volumes, request);
        batches.map_ok(|batch| stream::iter(batch.names).map(|name| VolumeName::parse(&name))).try_flatten().boxed()
    }

    async fn tidy(&self, volume: &VolumeName, head: &CommitHeader) -> Result<()> {
        let request = wire::TidyRequest { volume: text(volume), header: head.encode()? };
        ask!(self.tidy, request).await.map(drop)
    }

    async fn delete(&self, volume: &VolumeName, expected: Lsn, author: &str) -> Result<SealedCommit> {
        let request =
            wire::DeleteRequest { volume: text(volume), expected_lsn: expected.get(), author: author.to_owned() };
        let answer = ask!(self.delete, request).await;
        self.commit_of(answer).await
    }

    async fn rename(&self, volume: &VolumeName, new: &VolumeName, author: &str) -> Result<SealedCommit> {
        let request = wire::RenameRequest { volume: text(volume), new_name: text(new), author: author.to_owned() };
        let answer = ask!(self.rename, request).await;
        self.commit_of(answer).await
    }

    async fn restore(&self, volume: &VolumeName, lsn: Lsn, expected: Lsn, author: &str) -> Result<SealedCommit> {
        let request = wire::RestoreRequest {
            volume: text(volume),
            lsn: lsn.get(),
            expected_lsn: expected.get(),
            author: author.to_owned(),
        };
        let answer = ask!(self.restore, request).await;
        self.commit_of(answer).await
    }

    async fn at_time(&self, volume: &VolumeName, time_ms: u64) -> Result<Option<Lsn>> {
        let request = wire::AtTimeRequest { volume: text(volume), time_ms };
        let answer = ask!(self.at_time, request).await?;
        Ok(Lsn::new(answer.lsn))
    }

    async fn stored_times(&self, volume: &VolumeName, first: Lsn, last: Lsn) -> Result<BTreeMap<Lsn, u64>> {
        let request =
            wire::GetStoredTimesRequest { volume: text(volume), first_lsn: first.get(), last_lsn: last.get() };
        let batches = stream!(self.get_stored_times, request);
        let batches: Vec<wire::GetStoredTimesResponse> = batches.try_collect().await?;
        let times = batches.into_iter().flat_map(|batch| batch.times);
        times.map(|time| Ok((Lsn::try_new(time.lsn)?, time.stored_ms))).collect()
    }

    async fn checkpoint(
        &self,
        volume: &VolumeName,
        at_most: Option<CheckpointPlace>,
    ) -> Result<Option<CheckpointPlace>> {
        let request = wire::FindCheckpointRequest { volume: text(volume), at_most: at_most.map(Into::into) };
        let answer = ask!(self.find_checkpoint, request).await?;
        answer.place.map(TryInto::try_into).transpose()
    }

    async fn read_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace, range: Range<u64>) -> Result<Bytes> {
        let request = wire::ReadCheckpointRequest {
            volume: text(volume),
            place: Some(place.into()),
            start: range.start,
            end: range.end,
        };
        let mut pieces = stream!(self.read_checkpoint, request);
        let Some(first) = pieces.try_next().await? else { return Ok(Bytes::new()) };
        let Some(second) = pieces.try_next().await? else {
            self.connection.received(first.data.len());
            return Ok(first.data);
        };
        let mut whole = BytesMut::from(first.data);
        whole.extend_from_slice(&second.data);
        while let Some(piece) = pieces.try_next().await? {
            whole.extend_from_slice(&piece.data);
        }
        self.connection.received(whole.len());
        Ok(whole.freeze())
    }

    async fn put_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace, object: Bytes) -> Result<()> {
        self.connection.sent(object.len());
        let first = wire::PutCheckpointRequest {
            volume: text(volume),
            place: Some(place.into()),
            len_bytes: object.len() as u64,
            ..Default::default()
        };
        self.call(|mut client| {
            let rest = pieces(object.clone()).map(|data| wire::PutCheckpointRequest { data, ..Default::default() });
            let messages = stream::iter([first.clone()].into_iter().chain(rest));
            async move { client.put_checkpoint(messages).await }
        })
        .await
        .map(drop)
    }

    async fn mark(&self, marker: &Marker) -> Result<()> {
        let request = wire::MarkRequest { marker: marker.encode().into() };
        ask!(self.mark, request).await.map(drop)
    }

    async fn unmark(&self, marker: &Marker) -> Result<()> {
        let request = wire::MarkRequest { marker: marker.encode().into() };
        ask!(self.unmark, request).await.map(drop)
    }

    async fn statement(&self, volume: &VolumeName) -> Result<Statement> {
        let request = wire::VolumeRequest { volume: text(volume) };
        let answer = ask!(self.get_statement, request).await?;
        Statement::decode(&answer.statement)
    }
}

#[async_trait]
impl LogUpkeep for Remote {
    async fn clock_ms(&self, volume: &VolumeName) -> Result<u64> {
        let request = wire::VolumeRequest { volume: text(volume) };
        let answer = ask!(self.read_clock, request).await?;
        Ok(answer.time_ms)
    }

    async fn retention(&self, volume: &VolumeName) -> Result<(u64, Retention)> {
        let request = wire::VolumeRequest { volume: text(volume) };
        let answer = ask!(self.get_retention, request).await?;
        Ok((answer.number, Retention::decode(&answer.retention)?))
    }

    async fn retain(&self, volume: &VolumeName, number: u64, retention: &Retention) -> Result<bool> {
        let request = wire::RetainRequest { volume: text(volume), number, retention: retention.encode().into() };
        Ok(ask!(self.retain, request).await?.done)
    }

    fn statements(&self, volume: &VolumeName) -> BoxStream<'static, Result<Stated>> {
        let request = wire::VolumeRequest { volume: text(volume) };
        let stated = stream!(self.list_statements, request);
        let stated = stated.map(|stated| {
            let wire::StatedObject { number, stored_ms, statement } = stated?;
            Ok(Stated { number, stored_ms, statement: Statement::decode(&statement)? })
        });
        stated.boxed()
    }

    async fn state(&self, volume: &VolumeName, number: u64, statement: &Statement) -> Result<bool> {
        let request = wire::PutStatementRequest { volume: text(volume), number, statement: statement.encode().into() };
        Ok(ask!(self.put_statement, request).await?.done)
    }

    fn markers(&self, volume: &VolumeName) -> BoxStream<'static, Result<Marked>> {
        let request = wire::VolumeRequest { volume: text(volume) };
        let marked = stream!(self.list_markers, request);
        let marked = marked.map(|marked| {
            let marked = marked?;
            let (lsn, ulid, stored_ms) = (Lsn::try_new(marked.lsn)?, marked.name()?, marked.stored_ms);
            let marker = match marked.problem {
                None => Marker::decode(&marked.marker),
                Some(problem) => Err(Error::new(ErrorKind::Corrupt, marked.message).with_remedy(problem.remedy)),
            };
            Ok(Marked { lsn, ulid, stored_ms, marker })
        });
        marked.boxed()
    }

    async fn drop_marker(&self, volume: &VolumeName, lsn: Lsn, ulid: Ulid) -> Result<()> {
        let ulid = Bytes::copy_from_slice(&ulid.to_bytes());
        let request = wire::DropMarkerRequest { volume: text(volume), lsn: lsn.get(), ulid };
        ask!(self.drop_marker, request).await.map(drop)
    }

    fn checkpoints(&self, volume: &VolumeName) -> BoxStream<'static, Result<(CheckpointPlace, u64)>> {
        let request = wire::VolumeRequest { volume: text(volume) };
        let listed = stream!(self.list_checkpoints, request);
        listed
            .map(|listed| {
                let listed = listed?;
                Ok((place_of(listed.place)?, listed.len_bytes))
            })
            .boxed()
    }

    async fn drop_checkpoint(&self, volume: &VolumeName, place: CheckpointPlace) -> Result<()> {
        let request = wire::CheckpointRequest { volume: text(volume), place: Some(place.into()) };
        ask!(self.drop_checkpoint, request).await.map(drop)
    }

    async fn stub(&self, volume: &VolumeName, lsn: Lsn) -> Result<u64> {
        let request = wire::GetCommitRequest { volume: text(volume), lsn: lsn.get() };
        let answer = ask!(self.stub, request).await?;
        Ok(answer.saved_bytes)
    }
}
