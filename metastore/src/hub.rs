//! Watching for many: each volume is looked at once for all who watch it, however many they are, and what is appended
//! through this server is told at once.
//!
//! The newest commits are kept for those who keep up. Whoever is slower, or begins further back, reads the log itself, one
//! commit when it has taken the one before: a slow watcher costs no memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use quire_proto::{ErrorKind, LogUpkeep, Lsn, Result, SealedCommit, VolumeName, VolumeState};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// Of each watched volume, so many of the newest commits are kept, if they are not longer than this together.
const KEPT_COMMITS: usize = 32;
const KEPT_BYTES: usize = 4 << 20;

/// All who watch through one server.
pub struct Hub {
    log: Arc<dyn LogUpkeep>,
    poll_interval: Duration,
    topics: Mutex<HashMap<VolumeName, Weak<Topic>>>,
}

/// One volume that is watched.
struct Topic {
    told: Arc<Told>,
    looks: AbortHandle,
}

/// What the watchers of a volume are told.
struct Told {
    tail: watch::Sender<Tail>,
    look_now: Notify,
}

/// The end of a log.
#[derive(Default)]
struct Tail {
    /// The LSN that the next commit will have; none before the first look.
    next: Option<Lsn>,
    /// The newest commits, ascending and without a gap, up to `next`.
    commits: VecDeque<SealedCommit>,
    /// Something is wrong with the log: whoever waits looks for himself.
    is_stuck: bool,
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.looks.abort();
    }
}

impl Tail {
    /// Takes a commit in if it is the next one.
    fn push(&mut self, commit: &SealedCommit) -> bool {
        if self.next != Some(commit.lsn()) {
            return false;
        }
        self.next = Some(commit.lsn().next());
        self.is_stuck = false;
        self.commits.push_back(commit.clone());
        let bytes = |commits: &VecDeque<SealedCommit>| commits.iter().map(|c| c.object().len()).sum::<usize>();
        while self.commits.len() > KEPT_COMMITS || bytes(&self.commits) > KEPT_BYTES {
            self.commits.pop_front();
        }
        true
    }

    fn get(&self, lsn: Lsn) -> Option<SealedCommit> {
        let first = self.commits.front()?.lsn();
        let at = lsn.get().checked_sub(first.get())?;
        self.commits.get(usize::try_from(at).ok()?).cloned()
    }
}

impl Hub {
    /// For those who watch this log. Volumes that are watched are looked at once in each poll interval, for what others
    /// append.
    pub fn new(log: Arc<dyn LogUpkeep>, poll_interval: Duration) -> Hub {
        Hub { log, poll_interval, topics: Mutex::default() }
    }

    /// How many volumes are watched, and how many watch them.
    pub fn watched(&self) -> (usize, usize) {
        let topics = self.topics.lock();
        let watchers = topics.values().filter_map(Weak::upgrade).map(|topic| topic.told.tail.receiver_count());
        watchers.fold((0, 0), |(volumes, all), watchers| (volumes + 1, all + watchers))
    }

    /// How many watch a volume.
    pub fn watchers_of(&self, volume: &VolumeName) -> usize {
        self.topics.lock().get(volume).and_then(Weak::upgrade).map_or(0, |topic| topic.told.tail.receiver_count())
    }

    /// A volume got another name here, under which `first` is its first commit: tells who watches either name.
    pub fn renamed(&self, old: &VolumeName, new: &VolumeName, first: &SealedCommit) {
        self.appended(new, first);
        if let Some(topic) = self.topics.lock().get(old).and_then(Weak::upgrade) {
            topic.told.look_now.notify_one();
        }
    }

    /// Tells who watches a volume that this commit of it was appended here.
    pub fn appended(&self, volume: &VolumeName, commit: &SealedCommit) {
        let Some(topic) = self.topics.lock().get(volume).and_then(Weak::upgrade) else { return };
        let mut is_next = false;
        topic.told.tail.send_if_modified(|tail| {
            is_next = tail.push(commit);
            is_next
        });
        if !is_next {
            topic.told.look_now.notify_one();
        }
    }

    /// Every commit after `after`, as it appears; an error ends the stream.
    pub fn watch(&self, volume: &VolumeName, after: Option<Lsn>) -> BoxStream<'static, Result<SealedCommit>> {
        let topic = self.topic(volume);
        let tail = topic.told.tail.subscribe();
        let next = after.map_or(Lsn::FIRST, Lsn::next);
        let watcher = Watcher { log: self.log.clone(), volume: volume.clone(), tail, _topic: topic };
        stream::unfold(Some((next, watcher)), |state| async {
            let (next, mut watcher) = state?;
            let commit = watcher.appearance(next).await;
            let next = commit.as_ref().ok().map(|commit| (commit.lsn().next(), watcher));
            Some((commit, next))
        })
        .boxed()
    }

    fn topic(&self, volume: &VolumeName) -> Arc<Topic> {
        let mut topics = self.topics.lock();
        if let Some(topic) = topics.get(volume).and_then(Weak::upgrade) {
            return topic;
        }
        // Those that nobody watches any more are forgotten when the map would grow.
        if topics.len() == topics.capacity() {
            topics.retain(|_, topic| topic.strong_count() > 0);
        }
        let told = Arc::new(Told { tail: watch::Sender::default(), look_now: Notify::new() });
        let looks = look(self.log.clone(), volume.clone(), told.clone(), self.poll_interval);
        let topic = Arc::new(Topic { told, looks: tokio::spawn(looks).abort_handle() });
        topics.insert(volume.clone(), Arc::downgrade(&topic));
        topic
    }
}

/// One who watches a volume.
struct Watcher {
    log: Arc<dyn LogUpkeep>,
    volume: VolumeName,
    tail: watch::Receiver<Tail>,
    /// It is looked after as long as somebody watches.
    _topic: Arc<Topic>,
}

impl Watcher {
    async fn appearance(&mut self, lsn: Lsn) -> Result<SealedCommit> {
        loop {
            let (kept, is_there) = {
                let tail = self.tail.borrow_and_update();
                (tail.get(lsn), tail.is_stuck || tail.next.is_some_and(|next| lsn < next))
            };
            if let Some(commit) = kept {
                return Ok(commit);
            }
            if is_there {
                match self.log.commit(&self.volume, lsn).await {
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    settled => return settled,
                }
            }
            // The hub has not gone: the topic is held.
            let _ = self.tail.changed().await;
        }
    }
}

/// Looks for the next commit of a volume again and again.
async fn look(log: Arc<dyn LogUpkeep>, volume: VolumeName, told: Arc<Told>, poll_interval: Duration) {
    loop {
        let next = told.tail.borrow().next;
        let found = match next {
            None => log.head(&volume).await.map(|state| begin(&told, &state)),
            Some(next) => log.commit(&volume, next).await.map(|commit| {
                told.tail.send_if_modified(|tail| tail.push(&commit));
            }),
        };
        match found {
            // There may be more.
            Ok(()) => continue,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) if e.kind() == ErrorKind::Unavailable => tracing::debug!("looking at volume {volume}: {e}"),
            Err(e) => {
                tracing::debug!("watchers of volume {volume} look for themselves: {e}");
                told.tail.send_modify(|tail| tail.is_stuck = true);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(poll_interval) => {}
            () = told.look_now.notified() => {}
        }
    }
}

fn begin(told: &Told, state: &VolumeState) {
    told.tail.send_modify(|tail| {
        tail.next = Some(state.next());
        tail.is_stuck = false;
    });
}

#[cfg(all(test, feature = "contract"))]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use futures::TryStreamExt;
    use quire_bucket::Bucket;
    use quire_proto::{Appended, CommitKind, Metastore};

    use super::*;
    use crate::contract::commits::{commit, write};
    use crate::{Embedded, Options};

    /// Far longer than any test: only what is told at once is seen.
    const NEVER: Duration = Duration::from_secs(1 << 20);

    struct House {
        bucket: Bucket,
        log: Embedded,
        volume: VolumeName,
        head: Option<SealedCommit>,
    }

    impl House {
        fn new() -> House {
            let bucket = Bucket::open("memory://").unwrap();
            let log = Embedded::new(bucket.clone(), Options::default());
            House { bucket, log, volume: VolumeName::parse("team/app").unwrap(), head: None }
        }

        fn hub(&self, poll_interval: Duration) -> Hub {
            Hub::new(Arc::new(self.log.clone()), poll_interval)
        }

        async fn append(&mut self) -> SealedCommit {
            let made = self.head.as_ref().map_or_else(|| commit(None, CommitKind::Create), write);
            assert!(matches!(self.log.append(&self.volume, &made).await.unwrap(), Appended::Won));
            self.head = Some(made.clone());
            made
        }
    }

    #[tokio::test]
    async fn who_watches_is_told_of_an_append_at_once_and_begins_anywhere() {
        let mut house = House::new();
        for _ in 0..3 {
            house.append().await;
        }
        let hub = house.hub(NEVER);
        let mut early = hub.watch(&house.volume, None);
        let mut late = hub.watch(&house.volume, Lsn::new(2));
        for lsn in 1..=3 {
            assert_eq!(early.try_next().await.unwrap().unwrap().lsn().get(), lsn);
        }
        assert_eq!(late.try_next().await.unwrap().unwrap().lsn().get(), 3);
        for _ in 0..100 {
            let made = house.append().await;
            hub.appended(&house.volume, &made);
        }
        // One keeps up, the other one has fallen out of what is kept; both see all.
        for watcher in [&mut early, &mut late] {
            for lsn in 4..=103 {
                assert_eq!(watcher.try_next().await.unwrap().unwrap().lsn().get(), lsn);
            }
        }
        // Of one that was made elsewhere, the next one made here tells.
        house.append().await;
        let made = house.append().await;
        hub.appended(&house.volume, &made);
        for lsn in 104..=105 {
            assert_eq!(early.try_next().await.unwrap().unwrap().lsn().get(), lsn);
        }
    }

    #[tokio::test]
    async fn a_volume_is_looked_at_once_for_all_who_watch_it_and_by_nobody_after_them() {
        let mut house = House::new();
        house.append().await;
        let hub = house.hub(Duration::from_millis(20));
        let watchers: Vec<_> = (0..500).map(|_| hub.watch(&house.volume, Lsn::new(1))).collect();
        let before = house.bucket.counters().requests();
        let told = futures::future::join_all(watchers.into_iter().map(|mut watcher| async move {
            let commit = watcher.try_next().await.unwrap().unwrap();
            (commit.lsn().get(), watcher)
        }));
        let append = async {
            // Not through the hub: it has to be looked for.
            tokio::task::yield_now().await;
            house.append().await;
        };
        let (told, ()) = tokio::join!(told, append);
        assert!(told.iter().all(|(lsn, _)| *lsn == 2));
        let requests = house.bucket.counters().requests() - before;
        assert!(requests < 100, "{requests} requests for 500 watchers");
        assert_eq!(hub.watched(), (1, 500));
        drop(told);
        assert_eq!(hub.watched(), (0, 0));
    }

    #[tokio::test]
    async fn who_watches_a_volume_that_is_renamed_sees_its_own_log_and_no_other() {
        let mut house = House::new();
        house.append().await;
        house.append().await;
        // The new name was used before: the next LSN is the same under both.
        let new = VolumeName::parse("team/new").unwrap();
        let made = commit(None, CommitKind::Create);
        assert!(matches!(house.log.append(&new, &made).await.unwrap(), Appended::Won));
        house.log.delete(&new, Lsn::FIRST, "").await.unwrap();
        let hub = house.hub(NEVER);
        let mut of_old = hub.watch(&house.volume, Lsn::new(1));
        let mut of_new = hub.watch(&new, Lsn::new(1));
        for watcher in [&mut of_old, &mut of_new] {
            assert_eq!(watcher.try_next().await.unwrap().unwrap().lsn().get(), 2);
        }
        let first = house.log.rename(&house.volume, &new, "").await.unwrap();
        hub.renamed(&house.volume, &new, &first);
        for (watcher, kind) in [(&mut of_old, CommitKind::Moved), (&mut of_new, CommitKind::Fork)] {
            let told = watcher.try_next().await.unwrap().unwrap();
            assert_eq!((told.lsn().get(), told.header().kind), (3, kind));
        }
    }

    #[tokio::test]
    async fn a_volume_that_is_not_there_yet_is_waited_for() {
        let mut house = House::new();
        let hub = house.hub(Duration::from_millis(5));
        let mut watcher = hub.watch(&house.volume, None);
        assert!(futures::poll!(watcher.next()).is_pending());
        house.append().await;
        assert_eq!(watcher.try_next().await.unwrap().unwrap().lsn().get(), 1);
    }
}
