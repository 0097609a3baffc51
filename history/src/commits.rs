//! The stores, with the commits that were needed lately at hand.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quire_proto::{
    CommitHash, CommitHeader, Error, Front, LogPart, Lsn, Metastore, Opened, Pagestore, Result, SealedCommit,
    VolumeName, VolumeState,
};

/// Commit objects are kept in memory up to this many bytes.
const COMMITS_BYTES: usize = 32 << 20;
/// What came along is kept for so many volumes at most that were opened and have not been read yet.
const MOST_AHEAD: usize = 16;

/// Reads the history of volumes from their stores.
pub struct Reader {
    pub(crate) metastore: Arc<dyn Metastore>,
    pub(crate) pagestore: Arc<dyn Pagestore>,
    commits: Mutex<Commits>,
    /// What came along with a head.
    ahead: Mutex<HashMap<(VolumeName, Lsn), Ahead>>,
}

/// What came along with a head, for who opens the volume there.
struct Ahead {
    /// The newest checkpoint with its first bytes, if that is known.
    front: Option<Front>,
    /// The headers since then.
    headers: Vec<CommitHeader>,
}

/// Commit objects that were needed lately.
#[derive(Default)]
struct Commits {
    by_place: HashMap<(VolumeName, Lsn), Arc<SealedCommit>>,
    bytes: usize,
}

impl Reader {
    /// A reader of these stores.
    pub fn new(metastore: Arc<dyn Metastore>, pagestore: Arc<dyn Pagestore>) -> Reader {
        Reader { metastore, pagestore, commits: Mutex::default(), ahead: Mutex::default() }
    }

    /// Who orders the commits.
    pub fn metastore(&self) -> &dyn Metastore {
        &*self.metastore
    }

    /// Who keeps the pages.
    pub fn pagestore(&self) -> &dyn Pagestore {
        &*self.pagestore
    }

    /// What a name stands for now. With it comes what is needed next by who opens the volume, or has `known` it up to an
    /// LSN, and is kept for him.
    pub async fn head(&self, volume: &VolumeName, known: Option<Lsn>) -> Result<VolumeState> {
        let Opened { state, front, log: LogPart { headers, commits } } = self.metastore.open(volume, known).await?;
        self.remember_all(volume, commits);
        if let Some(head) = state.head() {
            self.remember(volume.clone(), head.clone());
            let mut ahead = self.ahead.lock();
            // Nobody came for the others.
            if ahead.len() >= MOST_AHEAD {
                ahead.clear();
            }
            ahead.insert((volume.clone(), head.lsn()), Ahead { front, headers });
        }
        Ok(state)
    }

    /// The newest checkpoint at or before `lsn`, or that there was none, if that came along with that head. It is given once.
    pub(crate) fn take_front(&self, volume: &VolumeName, lsn: Lsn) -> Option<Front> {
        let front = self.ahead.lock().get_mut(&(volume.clone(), lsn))?.front.take();
        front.filter(|front| front.as_ref().is_none_or(|(place, _)| place.lsn <= lsn))
    }

    /// The headers of `first ..= last.lsn`: those that were fetched ahead, which are given once, or the store's.
    pub(crate) async fn headers(
        &self,
        volume: &VolumeName,
        first: Lsn,
        last: &CommitHeader,
    ) -> Result<Vec<CommitHeader>> {
        let ahead =
            self.ahead.lock().get_mut(&(volume.clone(), last.lsn)).map(|ahead| std::mem::take(&mut ahead.headers));
        let mut ahead = ahead.unwrap_or_default();
        ahead.retain(|header| header.lsn >= first);
        let begins = ahead.first().is_some_and(|header| header.lsn == first);
        if begins && ahead.last().is_some_and(|header| header.hash() == last.hash()) {
            return Ok(ahead);
        }
        let LogPart { headers, commits } = self.metastore.log(volume, first, last).await?;
        self.remember_all(volume, commits);
        Ok(headers)
    }

    /// The header of a commit.
    pub(crate) async fn header(&self, volume: &VolumeName, lsn: Lsn) -> Result<CommitHeader> {
        match self.at_hand(volume, lsn) {
            Some(commit) => Ok(commit.header().clone()),
            None => self.metastore.header(volume, lsn).await,
        }
    }

    /// What was fetched ahead of a volume is not the newest any more.
    pub fn forget_ahead(&self, volume: &VolumeName) {
        self.ahead.lock().retain(|(of, _), _| of != volume);
    }

    /// A whole commit.
    pub async fn commit(&self, volume: &VolumeName, lsn: Lsn) -> Result<Arc<SealedCommit>> {
        match self.at_hand(volume, lsn) {
            Some(commit) => Ok(commit),
            None => Ok(self.remember(volume.clone(), self.metastore.commit(volume, lsn).await?)),
        }
    }

    /// A whole commit, if it was needed lately.
    pub(crate) fn at_hand(&self, volume: &VolumeName, lsn: Lsn) -> Option<Arc<SealedCommit>> {
        self.commits.lock().by_place.get(&(volume.clone(), lsn)).cloned()
    }

    /// The commit of a log that names it by its hash. Another one in its place, though whole, is damage.
    pub async fn commit_of_log(
        &self,
        volume: &VolumeName,
        (lsn, hash): (Lsn, CommitHash),
    ) -> Result<Arc<SealedCommit>> {
        let commit = self.commit(volume, lsn).await?;
        if commit.hash() == hash {
            return Ok(commit);
        }
        // So that the next one looks again.
        self.forget(volume, lsn);
        Err(Error::corrupt(format!("LSN {lsn} of volume {volume} is not the commit that its log has"))
            .with_remedy("`quire verify NAME` shows what is damaged and what can still be restored."))
    }

    fn forget(&self, volume: &VolumeName, lsn: Lsn) {
        let mut commits = self.commits.lock();
        if let Some(commit) = commits.by_place.remove(&(volume.clone(), lsn)) {
            commits.bytes = commits.bytes.saturating_sub(commit.object().len());
        }
    }

    fn remember_all(&self, volume: &VolumeName, commits: Vec<SealedCommit>) {
        for commit in commits {
            self.remember(volume.clone(), commit);
        }
    }

    /// Keeps a commit at hand, as far as memory for it goes.
    pub fn remember(&self, volume: VolumeName, commit: SealedCommit) -> Arc<SealedCommit> {
        let commit = Arc::new(commit);
        let mut commits = self.commits.lock();
        if commits.bytes > COMMITS_BYTES {
            *commits = Commits::default();
        }
        commits.bytes += commit.object().len();
        if let Some(before) = commits.by_place.insert((volume, commit.lsn()), commit.clone()) {
            commits.bytes -= before.object().len();
        }
        commit
    }
}
