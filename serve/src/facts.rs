//! What is known of the server and its volumes, as the admin service says it and the console shows it.

use std::future::ready;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use quire_metastore::Hub;
use quire_proto::wire::{Amount, CommitInfo, RunInfo, ServerInfo, UpkeepInfo, VolumeInfo};
use quire_proto::{
    CommitHeader, Error, ErrorKind, Grant, HEADERS_A_PIECE, LogUpkeep, Lsn, PageUpkeep, Result, Right, VolumeName,
    VolumeState, log_back,
};

use crate::Role;
use crate::care::Care;
use crate::metrics::Metrics;

/// So many volumes are looked at at the same time.
const AT_ONCE: usize = 16;

/// Where it is looked up. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) log: Arc<dyn LogUpkeep>,
    pub(crate) pages: Arc<dyn PageUpkeep>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) care: Care,
    pub(crate) metrics: Metrics,
    pub(crate) role: Role,
    pub(crate) keeps_frames: bool,
    pub(crate) quota_bytes: Option<NonZeroU64>,
    pub(crate) store_url: String,
    pub(crate) started_ms: u64,
    /// The server has been told to end.
    pub(crate) ends: Arc<AtomicBool>,
}

/// A commit's facts.
pub(crate) fn commit_info(header: &CommitHeader) -> CommitInfo {
    CommitInfo {
        lsn: header.lsn.get(),
        kind: header.kind.as_str().to_owned(),
        time_ms: header.time_ms,
        author: header.author.clone(),
        pages_changed: header.sets.as_ref().map(|sets| sets.changed.len()),
        page_count: header.page_count.get(),
        page_size: u32::try_from(header.page_size.bytes()).unwrap_or(u32::MAX),
        bytes: header.segment_bytes + header.inline_bytes(),
        commit_id: header.id.to_string(),
        hash: header.hash().to_string(),
    }
}

/// Whether a name comes after another one in the order of their parts.
fn is_after(name: &VolumeName, other: &VolumeName) -> bool {
    name.as_str().split('/').gt(other.as_str().split('/'))
}

/// What concerns the server is for those who may do everything.
pub(crate) fn check_operator(grant: &Grant) -> Result<()> {
    if grant.may_everywhere(Right::Admin) {
        return Ok(());
    }
    let who = if grant.subject.is_empty() { "this token" } else { &grant.subject };
    Err(Error::new(ErrorKind::Denied, format!("{who} has no right to administer the server"))
        .with_remedy("Ask for a token that allows admin on `*` (`quire token new --volumes '*' --allow admin`)."))
}

fn no_volume(volume: &VolumeName) -> Error {
    Error::not_found(format!("the store has no volume {volume}")).with_remedy("`quire ls` lists what there is.")
}

impl Facts {
    /// How the server is, and what it has done.
    pub(crate) fn server(&self) -> ServerInfo {
        let upkeep = self.care.upkeep();
        let mut info = self.metrics.figures();
        if let Some(store) = &mut info.store {
            store.url.clone_from(&self.store_url);
        }
        ServerInfo {
            role: self.role.as_str().to_owned(),
            started_ms: self.started_ms,
            draining: self.ends.load(Ordering::Relaxed),
            cache: self.keeps_frames.then(|| self.metrics.cache()),
            upkeep: Some(UpkeepInfo {
                scheduled: upkeep.scheduled,
                bytes_per_second: upkeep.bytes_per_second.map_or(0, NonZeroU64::get),
                verify_every_ms: upkeep.verify_every.map_or(0, |every| every.as_millis() as u64),
                looked_ms: self.metrics.looked_ms(),
            }),
            ..info
        }
    }

    /// The volumes whose names begin with `prefix`, after the one that is named, and that `may` be shown, in order.
    pub(crate) fn volumes(
        &self,
        prefix: &str,
        after: Option<VolumeName>,
        may: impl Fn(&VolumeName) -> bool + Send + 'static,
    ) -> BoxStream<'static, Result<VolumeInfo>> {
        let facts = self.clone();
        self.log
            .volumes(prefix)
            .try_filter(move |name| {
                std::future::ready(after.as_ref().is_none_or(|after| is_after(name, after)) && may(name))
            })
            .map_ok(move |name| {
                let facts = facts.clone();
                async move { facts.volume(&name).await }
            })
            .try_buffered(AT_ONCE)
            .boxed()
    }

    /// What a name stands for.
    pub(crate) async fn volume(&self, volume: &VolumeName) -> Result<VolumeInfo> {
        let state = match self.log.head(volume).await {
            Err(e) if e.kind() == ErrorKind::Corrupt => None,
            state => Some(state?),
        };
        let checkpoint = self.log.checkpoint(volume, None).await?;
        let verified = self.care.notes(volume).last_deep;
        Ok(VolumeInfo {
            volume: volume.to_string(),
            state: match &state {
                None => "damaged",
                Some(VolumeState::Free { .. }) => "free",
                Some(VolumeState::Live(_)) => "live",
                Some(VolumeState::Ended { .. }) => "ended",
            }
            .to_owned(),
            head: state.as_ref().and_then(VolumeState::head).map(|head| commit_info(head.header())),
            checkpoint_lsn: checkpoint.map_or(0, |place| place.lsn.get()),
            watchers: self.hub.watchers_of(volume) as u64,
            verified_ms: verified.map(|note| note.time_ms),
            verified_lsn: verified.map_or(0, |note| note.lsn),
            quota_bytes: self.quota_bytes.map_or(0, NonZeroU64::get),
            ..VolumeInfo::default()
        })
    }

    /// The same with all that is known of it; with `sizes`, after all its segments are listed.
    pub(crate) async fn described(&self, volume: &VolumeName, sizes: bool) -> Result<VolumeInfo> {
        let info = self.volume(volume).await?;
        if info.state == "free" && info.head.is_none() {
            return Err(no_volume(volume));
        }
        let segments = if sizes {
            let mut segments = self.pages.segments(volume);
            let mut amount = Amount::default();
            while let Some((_, bytes)) = segments.try_next().await? {
                amount.objects += 1;
                amount.bytes += bytes;
            }
            Some(amount)
        } else {
            None
        };
        Ok(VolumeInfo { keeps: self.log.retention(volume).await?.1.span.to_string(), segments, ..info })
    }

    /// The upkeep that a caller may know of, newest first: of one volume, or of all.
    pub(crate) fn runs(&self, grant: &Grant, volume: Option<&VolumeName>) -> Vec<RunInfo> {
        let mut runs = self.care.runs().list(volume);
        runs.retain(|run| VolumeName::parse(&run.volume).is_ok_and(|volume| grant.may(&volume, Right::Read)));
        runs
    }

    /// Commits of a volume that a caller may know of, newest first: at most `limit` before LSN `before`, or of all.
    pub(crate) async fn commits(
        &self,
        grant: &Grant,
        volume: &VolumeName,
        before: Option<Lsn>,
        limit: u64,
    ) -> Result<Vec<CommitInfo>> {
        let state = self.log.head(volume).await?;
        let head = state.head().ok_or_else(|| no_volume(volume))?;
        let last = match before {
            None => Some(head.lsn()),
            Some(before) => before.prev().map(|last| last.min(head.lsn())),
        };
        let Some(last) = last else { return Ok(Vec::new()) };
        let first = Lsn::new(last.get().saturating_sub(limit) + 1).unwrap_or(Lsn::FIRST);
        let header = if last == head.lsn() { head.header().clone() } else { self.log.header(volume, last).await? };
        let headers = log_back(&*self.log, volume, &header, first, HEADERS_A_PIECE);
        let known = headers.try_filter(|header| ready(grant.reaches(header.lsn)));
        known.map_ok(|header| commit_info(&header)).try_collect().await
    }

    /// The commits of a volume that appear from now on.
    pub(crate) fn appearing(&self, volume: &VolumeName, after: Lsn) -> BoxStream<'static, Result<CommitInfo>> {
        let commits = self.hub.watch(volume, Some(after));
        commits.map_ok(|commit| commit_info(commit.header())).boxed()
    }
}
