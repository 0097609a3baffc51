//! The admin service: checks what the caller may do, and translates calls.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt, poll_fn};
use quire_maintenance::collect;
use quire_maintenance::verify::Depth;
use quire_proto::wire::admin_server::Admin;
use quire_proto::wire::run_maintenance_request::Work as Asked;
use quire_proto::wire::{self, authorized, required, status_of};
use quire_proto::{
    Appended, Body, CommitHeader, CommitId, CommitKind, Error, ErrorKind, Grant, Lsn, PageSize, Result, Right,
    SealedCommit, VolumeName, VolumePattern, VolumeState,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use tonic_health::server::HealthReporter;

use crate::care::{Care, Work, now_ms, schedule};
use crate::facts::{Facts, check_operator};
use crate::tokens::SigningKey;
use crate::{LogFilter, Stopper};

/// How often a caller that waits for upkeep is told how far it is.
const TELL: Duration = Duration::from_secs(1);
/// Commits that are shown at once, unless it is said how many, and at most.
const COMMITS: u32 = 1000;
const MOST_COMMITS: u32 = 100_000;
/// A server says at most so long that it ends before it does.
const MOST_WAIT: Duration = Duration::from_secs(3600);

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// What those who look after a server may ask of it.
pub(crate) struct Service {
    pub(crate) facts: Facts,
    pub(crate) stopper: Stopper,
    pub(crate) health: HealthReporter,
    pub(crate) log_filter: Option<Arc<dyn LogFilter>>,
    pub(crate) signing_key: Option<Arc<SigningKey>>,
    /// Whose health is told.
    pub(crate) served: Vec<&'static str>,
    /// Whether callers have to show a token.
    pub(crate) tokens: bool,
}

async fn answer<T>(work: impl Future<Output = Result<T>>) -> Answer<T> {
    work.await.map(Response::new).map_err(|e| status_of(&e))
}

/// What concerns the server is for those who may do everything.
fn operator<T>(request: Request<T>) -> Result<T, Status> {
    let (grant, asked) = authorized(request)?;
    check_operator(&grant).map(|()| asked).map_err(|e| status_of(&e))
}

fn grant_info(grant: &Grant) -> wire::GrantInfo {
    let ms = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    wire::GrantInfo {
        subject: grant.subject.clone(),
        volumes: grant.volumes.iter().map(ToString::to_string).collect(),
        rights: grant.rights.iter().map(ToString::to_string).collect(),
        expires_ms: grant.expires.map(ms),
        from_lsn: grant.from_lsn.map_or(0, Lsn::get),
    }
}

/// The grant that a caller wants to give somebody: no more than his own.
fn narrowed(own: &Grant, asked: &wire::IssueTokenRequest, now: SystemTime) -> Result<Grant> {
    let valid = asked.valid_ms.map(|ms| {
        now.checked_add(Duration::from_millis(ms)).ok_or_else(|| Error::invalid("field `valid_ms`: it is too long"))
    });
    let expires = match (valid.transpose()?, own.expires) {
        (Some(asked), Some(own)) => Some(asked.min(own)),
        (asked, own) => asked.or(own),
    };
    let volumes = asked.volumes.iter().map(|text| VolumePattern::parse(text)).collect::<Result<Vec<_>>>();
    let rights = asked.rights.iter().map(|text| Right::parse(text)).collect::<Result<Vec<_>>>();
    // None or 0: as far back as the caller's own.
    let from_lsn = Lsn::new(asked.from_lsn).or(own.from_lsn);
    let grant = Grant { subject: asked.subject.clone(), volumes: volumes?, rights: rights?, expires, from_lsn };
    if grant.volumes.is_empty() || grant.rights.is_empty() {
        return Err(
            Error::invalid("a token without volumes or rights allows nothing").with_remedy("Name at least one.")
        );
    }
    if !own.covers(&grant) {
        return Err(Error::new(ErrorKind::Denied, "nobody can give what he has not got")
            .with_remedy("Ask for volumes and rights that your own token has."));
    }
    Ok(grant)
}

impl Service {
    /// Makes an empty volume.
    async fn create(&self, volume: &VolumeName, page_size: PageSize, author: &str) -> Result<()> {
        let Facts { log, hub, .. } = &self.facts;
        let exists = || {
            Error::new(ErrorKind::AlreadyExists, format!("the store has a volume {volume} already"))
                .with_remedy("Choose another name.")
        };
        let state = log.head(volume).await?;
        if matches!(state, VolumeState::Live(_)) {
            return Err(exists());
        }
        let mut header = CommitHeader::draft(state.next(), CommitKind::Create, CommitId::random()?, page_size);
        header.parent = state.head().map(SealedCommit::hash);
        header.time_ms = now_ms();
        author.clone_into(&mut header.author);
        let commit = SealedCommit::seal(header, Body::default())?;
        match log.append(volume, &commit).await? {
            Appended::Won => {
                hub.appended(volume, &commit);
                Ok(())
            }
            Appended::Lost(_) => Err(exists()),
        }
    }

    /// What the caller wants done, if he may have it done.
    async fn work(&self, grant: &Grant, volume: &VolumeName, asked: Asked) -> Result<Work> {
        match asked {
            Asked::Checkpoint(_) => grant.check(volume, Right::Write).map(|()| Work::Checkpoint),
            Asked::Compact(_) => {
                grant.check(volume, Right::Write)?;
                // Pages of the volume that this one was forked from would become its own.
                if self.tokens
                    && !grant.may_everywhere(Right::Read)
                    && schedule::is_forked(&self.facts.care, volume).await?
                {
                    return Err(Error::new(
                        ErrorKind::Denied,
                        format!("volume {volume} may hold pages of another one, which a compaction would give to it"),
                    )
                    .with_remedy("Ask with a token that allows read on `*`; a checkpoint (`quire checkpoint`) says whose they are."));
                }
                Ok(Work::Compact)
            }
            Asked::Collect(wire::CollectWork { grace_ms, dry_run }) => {
                grant.check(volume, if dry_run { Right::Read } else { Right::Admin })?;
                let report_at_ms = dry_run.then(now_ms);
                Ok(Work::Collect(collect::Options { grace_ms, report_at_ms, ..collect::Options::default() }))
            }
            Asked::Verify(wire::VerifyWork { deep }) => {
                grant.check(volume, Right::Read)?;
                Ok(Work::Verify(if deep { Depth::Deep } else { Depth::Plain }))
            }
        }
    }
}

/// Does the work, and tells how far it is until it is done. If nobody listens any more it ends.
fn run(care: Care, volume: VolumeName, work: Work, asked_by: String) -> Answers<wire::RunInfo> {
    let (teller, mut told) = mpsc::channel(1);
    tokio::spawn(async move {
        let run = care.asked(&volume, work, &asked_by);
        let id = run.id();
        let mut done = pin!(care.take_turn(run, &volume, work));
        loop {
            tokio::select! {
                done = &mut done => {
                    // Whoever has gone does not want to know.
                    let _ = teller.send(done.map_err(|e| status_of(&e))).await;
                    return;
                }
                () = tokio::time::sleep(TELL) => {
                    let info = care.runs().get(id).unwrap_or_default();
                    // Whoever has not read the last word gets the next one.
                    let _ = teller.try_send(Ok(info));
                }
                () = teller.closed() => return,
            }
        }
    });
    poll_fn(move |context| told.poll_recv(context)).boxed()
}

#[tonic::async_trait]
impl Admin for Service {
    async fn who_am_i(&self, request: Request<wire::Empty>) -> Answer<wire::GrantInfo> {
        let (grant, _) = authorized(request)?;
        Ok(Response::new(grant_info(&grant)))
    }

    async fn issue_token(&self, request: Request<wire::IssueTokenRequest>) -> Answer<wire::IssueTokenResponse> {
        let (own, asked) = authorized(request)?;
        answer(async {
            let key = self.signing_key.as_ref().ok_or_else(|| {
                Error::new(ErrorKind::Denied, "this server has no key that signs tokens").with_remedy(
                    "Sign it where the key is: `quire token new`; or start the server with --token-signing-key.",
                )
            })?;
            let now = SystemTime::now();
            let grant = narrowed(&own, &asked, now)?;
            let token = key.sign(&grant, now)?;
            tracing::info!("{:?} has issued a token for {:?}", own.subject, grant.subject);
            Ok(wire::IssueTokenResponse { token, grant: Some(grant_info(&grant)) })
        })
        .await
    }

    async fn get_server(&self, request: Request<wire::Empty>) -> Answer<wire::ServerInfo> {
        operator(request)?;
        Ok(Response::new(self.facts.server()))
    }

    type ListClientsStream = Answers<wire::ClientInfo>;
    async fn list_clients(&self, request: Request<wire::Empty>) -> Answer<Self::ListClientsStream> {
        operator(request)?;
        Ok(Response::new(stream::iter(self.facts.metrics.clients().list()).map(Ok).boxed()))
    }

    async fn get_log_filter(&self, request: Request<wire::Empty>) -> Answer<wire::LogFilter> {
        operator(request)?;
        answer(async { Ok(wire::LogFilter { filter: self.filter()?.get() }) }).await
    }

    async fn set_log_filter(&self, request: Request<wire::LogFilter>) -> Answer<wire::LogFilter> {
        let asked = operator(request)?;
        answer(async {
            let filter = self.filter()?;
            filter.set(&asked.filter)?;
            tracing::info!("what is logged from now on: {}", asked.filter);
            Ok(wire::LogFilter { filter: filter.get() })
        })
        .await
    }

    async fn drain(&self, request: Request<wire::DrainRequest>) -> Answer<wire::Empty> {
        let asked = operator(request)?;
        let wait = Duration::from_millis(asked.wait_ms);
        if wait > MOST_WAIT {
            return Err(status_of(&Error::invalid(format!("field `wait_ms`: {} is too long", asked.wait_ms))));
        }
        self.facts.ends.store(true, Ordering::Relaxed);
        for service in &self.served {
            self.health.set_service_status(*service, tonic_health::ServingStatus::NotServing).await;
        }
        tracing::info!("the server has been told to end in {wait:?}");
        let stopper = self.stopper.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            stopper.stop();
        });
        Ok(Response::new(wire::Empty {}))
    }

    type ListVolumesStream = Answers<wire::VolumeInfo>;
    async fn list_volumes(&self, request: Request<wire::ListVolumeInfosRequest>) -> Answer<Self::ListVolumesStream> {
        let (grant, asked) = authorized(request)?;
        let after = Some(&asked.after).filter(|after| !after.is_empty()).map(|after| VolumeName::parse(after));
        let after = after.transpose().map_err(|e| status_of(&e.context("field `after`")))?;
        let volumes = self.facts.volumes(&asked.prefix, after, move |volume| grant.may(volume, Right::Read));
        let limit = if asked.limit == 0 { usize::MAX } else { asked.limit as usize };
        Ok(Response::new(volumes.map_err(|e| status_of(&e)).take(limit).boxed()))
    }

    async fn describe_volume(&self, request: Request<wire::DescribeVolumeRequest>) -> Answer<wire::VolumeInfo> {
        let (grant, asked) = authorized(request)?;
        answer(async { self.facts.described(&grant.volume(&asked.volume, Right::Read)?, asked.sizes).await }).await
    }

    async fn create_volume(&self, request: Request<wire::CreateVolumeRequest>) -> Answer<wire::VolumeInfo> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let volume = grant.volume(&asked.volume, Right::Write)?;
            let page_size = match NonZeroU32::new(asked.page_size) {
                Some(bytes) => PageSize::try_new(bytes.get()).map_err(|e| e.context("field `page_size`"))?,
                None => PageSize::DEFAULT,
            };
            self.create(&volume, page_size, &grant.subject).await?;
            self.facts.volume(&volume).await
        })
        .await
    }

    async fn rename_volume(&self, request: Request<wire::RenameVolumeRequest>) -> Answer<wire::VolumeInfo> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let new = VolumeName::parse(&asked.new_name).map_err(|e| e.context("field `new_name`"))?;
            grant.check(&new, Right::Admin)?;
            let volume = grant.volume(&asked.volume, Right::Admin)?;
            let first = self.facts.log.rename(&volume, &new, &grant.subject).await?;
            self.facts.hub.renamed(&volume, &new, &first);
            self.facts.volume(&new).await
        })
        .await
    }

    async fn delete_volume(&self, request: Request<wire::DeleteVolumeRequest>) -> Answer<wire::VolumeInfo> {
        let (grant, asked) = authorized(request)?;
        answer(async {
            let volume = grant.volume(&asked.volume, Right::Admin)?;
            let expected = match Lsn::new(asked.expected_lsn) {
                Some(lsn) => lsn,
                None => match self.facts.log.head(&volume).await? {
                    VolumeState::Live(head) => head.lsn(),
                    _ => return Err(Error::not_found(format!("the store has no volume {volume}"))),
                },
            };
            let ended = self.facts.log.delete(&volume, expected, &grant.subject).await?;
            self.facts.hub.appended(&volume, &ended);
            self.facts.volume(&volume).await
        })
        .await
    }

    type GetLogStream = Answers<wire::CommitInfo>;
    async fn get_log(&self, request: Request<wire::GetLogRequest>) -> Answer<Self::GetLogStream> {
        let (grant, asked) = authorized(request)?;
        let commits = async {
            let volume = grant.volume(&asked.volume, Right::Read)?;
            let limit = if asked.limit == 0 { COMMITS } else { asked.limit.min(MOST_COMMITS) };
            self.facts.commits(&grant, &volume, Lsn::new(asked.before_lsn), limit.into()).await
        };
        let commits = commits.await.map_err(|e| status_of(&e))?;
        Ok(Response::new(stream::iter(commits).map(Ok).boxed()))
    }

    type RunMaintenanceStream = Answers<wire::RunInfo>;
    async fn run_maintenance(
        &self,
        request: Request<wire::RunMaintenanceRequest>,
    ) -> Answer<Self::RunMaintenanceStream> {
        let (grant, asked) = authorized(request)?;
        let work = async {
            let volume = grant.volume(&asked.volume, Right::Read)?;
            let work = self.work(&grant, &volume, required(asked.work, "work")?).await?;
            Ok((volume, work))
        };
        let (volume, work) = work.await.map_err(|e| status_of(&e))?;
        Ok(Response::new(run(self.facts.care.clone(), volume, work, grant.subject)))
    }

    type ListRunsStream = Answers<wire::RunInfo>;
    async fn list_runs(&self, request: Request<wire::ListRunsRequest>) -> Answer<Self::ListRunsStream> {
        let (grant, asked) = authorized(request)?;
        let volume = match asked.volume.as_str() {
            "" => None,
            volume => Some(grant.volume(volume, Right::Read).map_err(|e| status_of(&e))?),
        };
        let runs = self.facts.runs(&grant, volume.as_ref());
        Ok(Response::new(stream::iter(runs).map(Ok).boxed()))
    }
}

impl Service {
    fn filter(&self) -> Result<&dyn LogFilter> {
        self.log_filter.as_deref().ok_or_else(|| Error::invalid("what this server logs cannot be changed"))
    }
}
