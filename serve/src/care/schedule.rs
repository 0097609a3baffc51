//! What is due. A volume whose pushers have not come to write a checkpoint gets one, so that whoever opens it reads no long
//! log; one that many commits have scattered is compacted; what its owner does not want kept is let go; and every byte is
//! read from time to time.

use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt, TryStreamExt};
use quire_history::CHECKPOINT_SPAN;
use quire_maintenance::collect;
use quire_maintenance::verify::Depth;
use quire_proto::{
    CHECKPOINT_FRONT_BYTES, CheckpointHead, CommitHeader, HEADERS_A_PIECE, Result, SealedCommit, Span, VolumeName,
    VolumeState, headers_back,
};

use super::{Care, Work, now_ms};
use crate::metrics::Seen;

/// Between two looks at all volumes: each costs a listing and two or three reads a volume.
const EVERY: Duration = Duration::from_secs(600);
/// After so many commits a volume is compacted: what lies well by then stays where it is.
const COMPACT_SPAN: u64 = 4 * CHECKPOINT_SPAN;
/// A volume's history is collected so often, if not all of it is to be kept.
const COLLECT_EVERY: Duration = Duration::from_secs(6 * 3600);

/// Looks after the store for ever.
pub(crate) async fn take_care(care: Care, tokens: bool) {
    let mut schedule = Schedule { care, tokens, collected: HashMap::new(), compacted: HashMap::new() };
    let verifier = schedule.care.clone();
    let looks = async {
        loop {
            match survived(schedule.look()).await {
                Some(Ok(found)) => schedule.care.inner.metrics.looked(&found),
                Some(Err(e)) => tracing::warn!("the store's volumes are not looked at: {e}"),
                None => {}
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    let verified = async {
        while survived(verify_all(verifier.clone())).await.is_none() {
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::join!(looks, verified);
}

/// What work gives, unless it panics: a defect that shows on one volume must not end the service for all of them.
async fn survived<T>(work: impl Future<Output = T>) -> Option<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    if done.is_err() {
        tracing::error!("the upkeep panicked: this is a defect of Quire");
    }
    done.ok()
}

struct Schedule {
    care: Care,
    /// Who may read a volume may not always read those that it was forked from.
    tokens: bool,
    /// When a volume was collected last.
    collected: HashMap<VolumeName, Instant>,
    /// The LSN at which a volume was compacted last, also if there was nothing to be done.
    compacted: HashMap<VolumeName, u64>,
}

impl Schedule {
    /// Does what is due, and says how the volumes are.
    async fn look(&mut self) -> Result<Vec<Seen>> {
        let mut found = Vec::new();
        let mut volumes = self.care.inner.stores.log.volumes("");
        while let Some(volume) = volumes.try_next().await? {
            match self.care.inner.stores.log.head(&volume).await {
                Ok(VolumeState::Live(head)) => {
                    found.push(Seen {
                        volume: volume.clone(),
                        lsn: head.lsn(),
                        time_ms: head.header().time_ms,
                        verified_ms: self.care.notes(&volume).last_deep.map(|note| note.time_ms),
                    });
                    // The others have theirs; this one has its next turn.
                    if self.care.inner.upkeep.scheduled
                        && let Err(e) = self.look_after(&volume, &head).await
                    {
                        tracing::warn!("the upkeep of volume {volume}: {e}");
                    }
                }
                Ok(_) => {}
                Err(e) => tracing::warn!("volume {volume}: {e}"),
            }
        }
        let volumes: HashSet<&VolumeName> = found.iter().map(|seen| &seen.volume).collect();
        self.collected.retain(|volume, _| volumes.contains(volume));
        self.compacted.retain(|volume, _| volumes.contains(volume));
        Ok(found)
    }

    async fn look_after(&mut self, volume: &VolumeName, head: &SealedCommit) -> Result<()> {
        let log = &self.care.inner.stores.log;
        let newest = log.checkpoint(volume, None).await?.map_or(0, |place| place.lsn.get());
        if head.lsn().get() >= newest + CHECKPOINT_SPAN {
            self.care.due(volume, Work::Checkpoint).await?;
        }
        if head.lsn().get() >= self.compacted(volume, head).await? + COMPACT_SPAN && !self.is_of_others(volume).await? {
            self.compacted.insert(volume.clone(), head.lsn().get());
            self.care.due(volume, Work::Compact).await?;
        }
        let is_old = self.collected.get(volume).is_none_or(|at| at.elapsed() >= COLLECT_EVERY);
        if is_old && log.retention(volume).await?.1.span != Span::All {
            self.collected.insert(volume.clone(), Instant::now());
            self.care.due(volume, Work::Collect(collect::Options::default())).await?;
        }
        Ok(())
    }

    /// The LSN of the newest compacted checkpoint that is not too old to matter; 0 if there is none.
    async fn compacted(&self, volume: &VolumeName, head: &SealedCommit) -> Result<u64> {
        let known = self.compacted.get(volume).copied().unwrap_or(0);
        if head.lsn().get() < known + COMPACT_SPAN {
            return Ok(known);
        }
        let mut places = self.care.inner.stores.log.checkpoints(volume);
        while let Some((place, _)) = places.next().await.transpose()? {
            if place.generation > 0 {
                return Ok(place.lsn.get());
            }
            if place.lsn.get() + COMPACT_SPAN < head.lsn().get() {
                break;
            }
        }
        Ok(known)
    }

    /// Whether a compaction could give pages to who has no right to them: those of the volume that this one was forked from.
    async fn is_of_others(&self, volume: &VolumeName) -> Result<bool> {
        if !self.tokens {
            return Ok(false);
        }
        is_forked(&self.care, volume).await
    }
}

/// Whether a volume's pages may be another one's. It is one whose checkpoint says so, or that has none of itself: a volume
/// of this name that was deleted may have left one.
pub(crate) async fn is_forked(care: &Care, volume: &VolumeName) -> Result<bool> {
    let log = &care.inner.stores.log;
    let VolumeState::Live(head) = log.head(volume).await? else { return Ok(true) };
    let Some(place) = log.checkpoint(volume, None).await? else { return Ok(true) };
    if head.lsn() > place.lsn {
        let piece = |low, last: CommitHeader| async move { log.headers(volume, low, &last).await };
        let since = headers_back(head.header().clone(), place.lsn.next(), HEADERS_A_PIECE, piece);
        if pin!(since.try_filter(|header| ready(header.kind.begins()))).try_next().await?.is_some() {
            return Ok(true);
        }
    }
    let front = log.read_checkpoint(volume, place, 0..CHECKPOINT_FRONT_BYTES as u64).await?;
    Ok(CheckpointHead::decode(&front)?.info().origin.is_some())
}

/// Reads every byte of the volumes, each as often as it should be, the one that was read longest ago first. Who was never
/// read comes in a random order: a server that is restarted often gets through all of them all the same.
async fn verify_all(care: Care) {
    let Some(every) = care.inner.upkeep.verify_every.filter(|_| care.inner.upkeep.scheduled) else { return };
    let mut tried = HashMap::new();
    loop {
        match due_to_verify(&care, every, &mut tried).await {
            Ok(due) if due.is_empty() => tokio::time::sleep(EVERY).await,
            Ok(due) => {
                for volume in due {
                    tried.insert(volume.clone(), now_ms());
                    if let Err(e) = care.due(&volume, Work::Verify(Depth::Deep)).await {
                        tracing::warn!("volume {volume} is not verified: {e}");
                    }
                }
            }
            Err(e) => {
                tracing::warn!("the store's volumes are not verified: {e}");
                tokio::time::sleep(EVERY).await;
            }
        }
    }
}

/// The volumes whose turn has come. `tried` says when that was last, whatever came of it.
async fn due_to_verify(care: &Care, every: Duration, tried: &mut HashMap<VolumeName, u64>) -> Result<Vec<VolumeName>> {
    let due_before = now_ms().saturating_sub(u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
    // What was tried longer ago may be tried again.
    tried.retain(|_, at| *at > due_before);
    let mut due: Vec<(u64, u64, VolumeName)> = Vec::new();
    let mut volumes = care.inner.stores.log.volumes("");
    while let Some(volume) = volumes.try_next().await? {
        let last = care.notes(&volume).last_deep.map_or(0, |note| note.time_ms);
        if last <= due_before && !tried.contains_key(&volume) {
            due.push((last, rand::random(), volume));
        }
    }
    due.sort_unstable();
    Ok(due.into_iter().map(|(.., volume)| volume).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use std::sync::Arc;

    use quire_bucket::{Bucket, keys};
    use quire_metastore::Hub;
    use quire_metastore::contract::commits::{commit, draft, write};
    use quire_proto::wire::run_info::Outcome;
    use quire_proto::{Appended, Base, CommitKind, Lsn, Metastore};
    use tempfile::TempDir;

    use super::super::Upkeep;
    use super::*;
    use crate::metrics::Metrics;

    const DAY: Duration = Duration::from_secs(86_400);

    async fn append(
        log: &quire_metastore::Embedded,
        volume: &VolumeName,
        head: Option<SealedCommit>,
        commits: u64,
    ) -> SealedCommit {
        let mut head = head;
        for _ in 0..commits {
            let next = head.as_ref().map_or_else(|| commit(None, CommitKind::Create), write);
            assert!(matches!(log.append(volume, &next).await.unwrap(), Appended::Won));
            head = Some(next);
        }
        head.unwrap()
    }

    /// Begins a volume, after what was under its name before, as a fork of the volume "base".
    async fn fork(
        log: &quire_metastore::Embedded,
        volume: &str,
        before: Option<&SealedCommit>,
        base: &SealedCommit,
    ) -> SealedCommit {
        let mut forked = draft(before, CommitKind::Fork);
        forked.base = Base::Other { volume: name("base"), lsn: base.lsn(), hash: base.hash() };
        (forked.page_count, forked.min_count) = (base.header().page_count, base.header().page_count);
        let forked = SealedCommit::seal(forked, Default::default()).unwrap();
        assert!(matches!(log.append(&name(volume), &forked).await.unwrap(), Appended::Won));
        forked
    }

    struct House {
        _dir: TempDir,
        bucket: Bucket,
        log: quire_metastore::Embedded,
        schedule: Schedule,
    }

    impl House {
        fn new() -> House {
            let dir = tempfile::tempdir().unwrap();
            let bucket = Bucket::open("memory://").unwrap();
            let log = quire_metastore::Embedded::new(bucket.clone(), Default::default());
            let counted = bucket.clone();
            let upkeep = Upkeep {
                scheduled: true,
                bytes_per_second: None,
                verify_every: Some(DAY),
                notes: Some(dir.path().to_owned()),
                counters: Arc::new(move || counted.counters()),
                log: Arc::new(log.clone()),
                pages: Arc::new(quire_pagestore::Embedded::new(bucket.clone())),
            };
            let hub = Arc::new(Hub::new(upkeep.log.clone(), DAY));
            let metrics = Metrics::new(hub, upkeep.counters.clone(), Arc::default());
            let care = Care::new(upkeep, bucket.url().to_owned(), metrics);
            House {
                _dir: dir,
                bucket,
                log,
                schedule: Schedule { care, tokens: false, collected: HashMap::new(), compacted: HashMap::new() },
            }
        }

        async fn look(&mut self) -> Vec<(String, String)> {
            let before = self.schedule.care.runs().list(None).len();
            self.schedule.look().await.unwrap();
            let mut runs = self.schedule.care.runs().list(None);
            runs.truncate(runs.len() - before);
            assert!(
                runs.iter()
                    .all(|run| run.ended_ms.is_some() && !matches!(run.outcome, None | Some(Outcome::Failed(_))))
            );
            let mut runs: Vec<_> = runs.into_iter().map(|run| (run.volume, run.work)).collect();
            runs.sort_unstable();
            runs
        }
    }

    fn name(text: &str) -> VolumeName {
        VolumeName::parse(text).unwrap()
    }

    fn runs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(volume, work)| ((*volume).to_owned(), (*work).to_owned())).collect()
    }

    #[tokio::test]
    async fn each_volume_gets_what_is_due_and_nothing_twice() {
        let mut house = House::new();
        append(&house.log, &name("short"), None, CHECKPOINT_SPAN - 1).await;
        let long = append(&house.log, &name("long"), None, CHECKPOINT_SPAN + 4).await;
        assert_eq!(house.look().await, runs(&[("long", "checkpoint")]));
        let checkpoint = house.log.checkpoint(&name("long"), None).await.unwrap().unwrap();
        assert_eq!(checkpoint.lsn, long.lsn());
        assert_eq!(house.look().await, runs(&[]));

        let long = append(&house.log, &name("long"), Some(long), COMPACT_SPAN).await;
        assert_eq!(house.look().await, runs(&[("long", "checkpoint"), ("long", "compact")]));
        assert_eq!(house.look().await, runs(&[]));

        let stores = house.schedule.care.inner.stores.clone();
        collect::keep(&stores, &name("long"), |retention| retention.span = Span::Last(10)).await.unwrap();
        assert_eq!(house.look().await, runs(&[("long", "collect")]));
        assert_eq!(house.look().await, runs(&[]));
        // It has gone indeed: the statement says so.
        let statement = house.log.statement(&name("long")).await.unwrap();
        assert!(!statement.keeps(Lsn::FIRST) && statement.keeps(long.lsn()));
    }

    #[tokio::test]
    async fn with_tokens_a_fork_is_not_compacted_as_who_reads_it_may_have_no_right_to_its_base() {
        let mut house = House::new();
        house.schedule.tokens = true;
        let base = append(&house.log, &name("base"), None, 3).await;
        let forked = fork(&house.log, "fork", None, &base).await;
        append(&house.log, &name("fork"), Some(forked), COMPACT_SPAN).await;
        append(&house.log, &name("own"), None, COMPACT_SPAN).await;
        let done = house.look().await;
        assert_eq!(done, runs(&[("fork", "checkpoint"), ("own", "checkpoint"), ("own", "compact")]));
        house.schedule.tokens = false;
        assert_eq!(house.look().await, runs(&[("fork", "compact")]));
    }

    #[tokio::test]
    async fn a_fork_in_the_place_of_a_volume_that_was_deleted_is_one_though_that_left_a_checkpoint() {
        let mut house = House::new();
        let base = append(&house.log, &name("base"), None, 3).await;
        let own = append(&house.log, &name("v"), None, CHECKPOINT_SPAN).await;
        assert_eq!(house.look().await, runs(&[("v", "checkpoint")]));
        assert!(!is_forked(&house.schedule.care, &name("v")).await.unwrap());
        let next = append(&house.log, &name("v"), Some(own), 3).await;
        assert!(!is_forked(&house.schedule.care, &name("v")).await.unwrap());

        let ended = SealedCommit::seal(draft(Some(&next), CommitKind::Deleted), Default::default()).unwrap();
        assert!(matches!(house.log.append(&name("v"), &ended).await.unwrap(), Appended::Won));
        let forked = fork(&house.log, "v", Some(&ended), &base).await;
        append(&house.log, &name("v"), Some(forked), 3).await;
        assert!(is_forked(&house.schedule.care, &name("v")).await.unwrap());
    }

    #[tokio::test]
    async fn every_byte_is_read_as_often_as_it_should_be_and_damage_is_found() {
        let house = House::new();
        let care = &house.schedule.care;
        for volume in ["a", "b"] {
            append(&house.log, &name(volume), None, 5).await;
        }
        let due = async |tried: &mut HashMap<_, _>| {
            let mut due = due_to_verify(care, DAY, tried).await.unwrap();
            due.sort_unstable();
            due
        };
        let mut tried = HashMap::new();
        assert_eq!(due(&mut tried).await, [name("a"), name("b")]);
        care.due(&name("a"), Work::Verify(Depth::Deep)).await.unwrap();
        // Another server of this data directory would know.
        assert_eq!(due(&mut tried).await, [name("b")]);
        assert_eq!(care.notes(&name("a")).last_deep.unwrap().lsn, 5);

        let key = keys::commit(&name("b"), Lsn::new(3).unwrap());
        let whole = house.bucket.get(&key).await.unwrap().bytes;
        house.bucket.replace(&key, whole.slice(..whole.len() - 1)).await.unwrap();
        let run = care.due(&name("b"), Work::Verify(Depth::Deep)).await.unwrap();
        let Some(Outcome::Verify(report)) = run.outcome else { panic!("{run:?}") };
        assert!(!report.damage.is_empty());
        assert!(care.notes(&name("b")).last_deep.is_none());
        assert!(care.inner.metrics.text().contains("\nquire_volumes_damaged 1\n"));
        tried.insert(name("b"), now_ms());
        assert_eq!(due(&mut tried).await, []);
    }
}
