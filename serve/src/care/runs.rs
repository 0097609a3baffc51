//! What upkeep is under way and was done lately.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use quire_proto::VolumeName;
use quire_proto::wire::RunInfo;
use quire_proto::wire::run_info::Outcome;

use crate::metrics::StoreCounters;

/// So many that have ended are remembered.
const MOST_ENDED: usize = 256;

/// The time of this machine's clock, in milliseconds since 1970 UTC.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// All runs of one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runs {
    all: Arc<Mutex<All>>,
    /// What all upkeep has asked of the store.
    counters: StoreCounters,
}

#[derive(Default)]
struct All {
    last_id: u64,
    /// Ascending.
    runs: VecDeque<Entry>,
}

struct Entry {
    info: RunInfo,
    /// What upkeep had read and written when this one began.
    bytes_before: (u64, u64),
}

/// A run that is not over; if this goes before an outcome is noted, it was given up.
pub(crate) struct Run {
    runs: Runs,
    id: u64,
}

impl Runs {
    pub(crate) fn new(counters: StoreCounters) -> Runs {
        Runs { all: Arc::default(), counters }
    }

    fn bytes(&self) -> (u64, u64) {
        let counters = (self.counters)();
        (counters.bytes_in, counters.bytes_out)
    }

    /// A run that waits for its turn.
    pub(crate) fn add(&self, volume: &VolumeName, work: &str, asked_by: Option<&str>) -> Run {
        let bytes_before = self.bytes();
        let mut all = self.all.lock();
        all.last_id += 1;
        let info = RunInfo {
            id: all.last_id,
            volume: volume.to_string(),
            work: work.to_owned(),
            asked_by: asked_by.unwrap_or_default().to_owned(),
            scheduled: asked_by.is_none(),
            began_ms: now_ms(),
            waiting: true,
            ..RunInfo::default()
        };
        let run = Run { runs: self.clone(), id: info.id };
        all.runs.push_back(Entry { info, bytes_before });
        let ended = all.runs.iter().filter(|run| run.info.ended_ms.is_some()).count();
        if ended >= MOST_ENDED
            && let Some(oldest) = all.runs.iter().position(|run| run.info.ended_ms.is_some())
        {
            all.runs.remove(oldest);
        }
        run
    }

    /// One run as it is now, unless it is forgotten.
    pub(crate) fn get(&self, id: u64) -> Option<RunInfo> {
        let bytes = self.bytes();
        self.all.lock().runs.iter().find(|run| run.info.id == id).map(|entry| entry.as_of(bytes))
    }

    /// Newest first; of one volume, or of all.
    pub(crate) fn list(&self, volume: Option<&VolumeName>) -> Vec<RunInfo> {
        let bytes = self.bytes();
        let all = self.all.lock();
        let of_volume = |entry: &&Entry| volume.is_none_or(|volume| entry.info.volume == volume.as_str());
        all.runs.iter().rev().filter(of_volume).map(|entry| entry.as_of(bytes)).collect()
    }
}

impl Entry {
    /// While it is under way, what upkeep has moved meanwhile.
    fn as_of(&self, (read, written): (u64, u64)) -> RunInfo {
        let mut info = self.info.clone();
        if info.ended_ms.is_none() && !info.waiting {
            info.bytes_read = read.saturating_sub(self.bytes_before.0);
            info.bytes_written = written.saturating_sub(self.bytes_before.1);
        }
        info
    }
}

impl Run {
    /// Its turn has come.
    pub(crate) fn begins(&self) {
        let bytes = self.runs.bytes();
        self.change(|entry| {
            entry.info.waiting = false;
            entry.bytes_before = bytes;
        });
    }

    /// It is over.
    pub(crate) fn ends(self, outcome: Outcome) -> RunInfo {
        self.end(outcome);
        self.runs.get(self.id).unwrap_or_default()
    }

    /// Its number.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    fn end(&self, outcome: Outcome) {
        let bytes = self.runs.bytes();
        self.change(|entry| {
            if entry.info.ended_ms.is_none() {
                entry.info =
                    RunInfo { ended_ms: Some(now_ms()), waiting: false, outcome: Some(outcome), ..entry.as_of(bytes) };
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.runs.all.lock().runs.iter_mut().find(|run| run.info.id == self.id) {
            change(entry);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end(Outcome::Failed("whoever asked for it has gone".into()));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use quire_bucket::Counters;
    use quire_proto::wire::CheckpointReport;

    use super::*;

    #[test]
    fn runs_are_seen_from_their_beginning_to_their_end_and_the_oldest_are_forgotten() {
        let read = Arc::new(AtomicU64::new(1000));
        let counter = read.clone();
        let runs =
            Runs::new(Arc::new(move || Counters { bytes_in: counter.load(Ordering::Relaxed), ..Counters::default() }));
        let name = |text| VolumeName::parse(text).unwrap();
        let given_up = runs.add(&name("a"), "compact", Some("ada"));
        let under_way = runs.add(&name("b"), "verify-deep", None);
        assert!(runs.list(None).iter().all(|run| run.waiting && run.ended_ms.is_none()));
        under_way.begins();
        read.fetch_add(500, Ordering::Relaxed);
        let now = runs.get(under_way.id()).unwrap();
        assert_eq!((now.bytes_read, now.waiting), (500, false));
        drop(given_up);
        let of_a = runs.list(Some(&name("a")));
        assert!(
            matches!(&of_a[..], [run] if run.ended_ms.is_some() && matches!(run.outcome, Some(Outcome::Failed(_))))
        );
        for n in 0..2 * MOST_ENDED as u64 {
            let run = runs.add(&name("c"), "checkpoint", None);
            run.begins();
            let ended = run.ends(Outcome::Checkpoint(CheckpointReport { lsn: n, bytes: 1 }));
            assert!(matches!(ended.outcome, Some(Outcome::Checkpoint(report)) if report.lsn == n));
        }
        // What is under way is never forgotten.
        let left = runs.list(None);
        assert_eq!(left.len(), MOST_ENDED + 1);
        assert_eq!(left.last().unwrap().work, "verify-deep");
        assert!(left.windows(2).all(|pair| pair[0].id > pair[1].id));
    }
}
