//! The upkeep of volumes by the server that has them, and what else those ask of it who look after it.

use std::time::Duration;

use futures::TryStreamExt;
use quire_channel::{Connection, MAX_MESSAGE_BYTES, Service};
use quire_proto::wire;
use quire_proto::wire::admin_client::AdminClient;
use quire_proto::wire::run_info::Outcome;
use quire_proto::wire::run_maintenance_request::Work;
use quire_proto::{Error, Grant, Lsn, Result, VolumeName};
use tonic::{Response, Status};

use crate::collect::{Collected, Options};
use crate::compact::Compacted;
use crate::verify::{Depth, Report};
use crate::wire::collected;

/// A Quire server, for those who look after it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server {
    connection: Connection,
}

fn client(service: Service) -> AdminClient<Service> {
    AdminClient::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

impl Server {
    /// The server at the other end.
    pub fn new(connection: Connection) -> Server {
        Server { connection }
    }

    async fn call<T, F>(&self, ask: impl Fn(AdminClient<Service>) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.connection.call(|service| ask(client(service))).await.map_err(|status| self.connection.error_of(&status))
    }

    /// Who the caller is to it.
    pub async fn who_am_i(&self) -> Result<wire::GrantInfo> {
        self.call(|mut client| async move { client.who_am_i(wire::Empty {}).await }).await
    }

    /// A token for somebody else, who gets no more than the caller has. `valid`: as long as the caller's without it.
    pub async fn issue_token(&self, grant: &Grant, valid: Option<Duration>) -> Result<wire::IssueTokenResponse> {
        let asked = wire::IssueTokenRequest {
            subject: grant.subject.clone(),
            volumes: grant.volumes.iter().map(ToString::to_string).collect(),
            rights: grant.rights.iter().map(ToString::to_string).collect(),
            from_lsn: grant.from_lsn.map_or(0, Lsn::get),
            valid_ms: valid.map(|valid| u64::try_from(valid.as_millis()).unwrap_or(u64::MAX)),
        };
        self.call(|mut client| {
            let asked = asked.clone();
            async move { client.issue_token(asked).await }
        })
        .await
    }

    /// How it is, and what it has done.
    pub async fn info(&self) -> Result<wire::ServerInfo> {
        self.call(|mut client| async move { client.get_server(wire::Empty {}).await }).await
    }

    /// Who is connected.
    pub async fn clients(&self) -> Result<Vec<wire::ClientInfo>> {
        let ask = |service| async move { client(service).list_clients(wire::Empty {}).await };
        self.connection.stream(ask).try_collect().await
    }

    /// What is logged.
    pub async fn log_filter(&self) -> Result<String> {
        let answer = self.call(|mut client| async move { client.get_log_filter(wire::Empty {}).await });
        answer.await.map(|answer| answer.filter)
    }

    /// Changes what is logged until the server ends.
    pub async fn set_log_filter(&self, filter: &str) -> Result<String> {
        let answer = self.call(|mut client| {
            let asked = wire::LogFilter { filter: filter.to_owned() };
            async move { client.set_log_filter(asked).await }
        });
        answer.await.map(|answer| answer.filter)
    }

    /// Ends it, after it has said for so long that it is not ready.
    pub async fn drain(&self, wait: Duration) -> Result<()> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let asked = wire::DrainRequest { wait_ms };
        self.call(|mut client| async move { client.drain(asked).await }).await.map(|_: wire::Empty| ())
    }

    /// A volume, with what it takes in the store.
    pub async fn describe(&self, volume: &VolumeName) -> Result<wire::VolumeInfo> {
        self.call(|mut client| {
            let asked = wire::DescribeVolumeRequest { volume: volume.to_string(), sizes: true };
            async move { client.describe_volume(asked).await }
        })
        .await
    }

    /// What upkeep it has done lately and is doing, newest first; of one volume, or of all.
    pub async fn runs(&self, volume: Option<&VolumeName>) -> Result<Vec<wire::RunInfo>> {
        let volume = volume.map(ToString::to_string).unwrap_or_default();
        let ask = move |service| {
            let asked = wire::ListRunsRequest { volume: volume.clone() };
            async move { client(service).list_runs(asked).await }
        };
        self.connection.stream(ask).try_collect().await
    }

    /// As [`compact`](crate::compact::compact).
    pub async fn compact(&self, volume: VolumeName) -> Result<Compacted> {
        match self.run(&volume, Work::Compact(wire::Empty {})).await? {
            Outcome::Compact(report) => report.try_into(),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`collect`](crate::collect::collect). The clock of the server counts.
    pub async fn collect(&self, volume: &VolumeName, options: &Options) -> Result<Option<Collected>> {
        let work = wire::CollectWork { grace_ms: options.grace_ms, dry_run: options.report_at_ms.is_some() };
        match self.run(volume, Work::Collect(work)).await? {
            Outcome::Collect(report) => collected(report),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`verify`](crate::verify::verify).
    pub async fn verify(&self, volume: VolumeName, depth: Depth) -> Result<Report> {
        match self.run(&volume, Work::Verify(wire::VerifyWork { deep: depth == Depth::Deep })).await? {
            Outcome::Verify(report) => report.try_into(),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for the outcome; the server says again and again that it is at work.
    async fn run(&self, volume: &VolumeName, work: Work) -> Result<Outcome> {
        let asked = wire::RunMaintenanceRequest { volume: volume.to_string(), work: Some(work) };
        let mut told = self.connection.stream(move |service| {
            let asked = asked.clone();
            async move { client(service).run_maintenance(asked).await }
        });
        let mut last = None;
        while let Some(info) = told.try_next().await? {
            last = info.outcome;
        }
        last.ok_or_else(|| {
            Error::unavailable(format!("the server has ended its work on volume {volume} without a word"))
                .with_remedy("Do it again: what was done stays done.")
        })
    }
}

fn unexpected(outcome: &Outcome) -> Error {
    Error::invalid(format!("the server has answered with another report: {outcome:?}"))
}
