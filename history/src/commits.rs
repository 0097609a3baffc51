//! The stores, with the commits that were needed lately at hand.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quire_proto::{
    CHECKPOINT_FRONT_BYTES, CheckpointPlace, CommitHash, Error, Lsn, Metastore, Pagestore, Result, SealedCommit,
    VolumeName, VolumeState,
};

/// Commit objects are kept in memory up to this many bytes.
const COMMITS_BYTES: usize = 32 << 20;
/// No more checkpoints than these are kept for those who opened a volume and have not read it yet.
const MOST_FRONTS: usize = 16;

/// Reads the history of volumes from their stores.
pub struct Reader {
    pub(crate) metastore: Arc<dyn Metastore>,
    pub(crate) pagestore: Arc<dyn Pagestore>,
    commits: Mutex<Commits>,
    /// The newest checkpoints as of a head, fetched ahead with their first bytes.
    fronts: Mutex<HashMap<(VolumeName, Lsn), (CheckpointPlace, Bytes)>>,
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
        Reader { metastore, pagestore, commits: Mutex::default(), fronts: Mutex::default() }
    }

    /// Who orders the commits.
    pub fn metastore(&self) -> &dyn Metastore {
        &*self.metastore
    }

    /// Who keeps the pages.
    pub fn pagestore(&self) -> &dyn Pagestore {
        &*self.pagestore
    }

    /// What a name stands for now; beside it, the newest checkpoint is fetched, which who opens the volume needs next.
    pub async fn head(&self, volume: &VolumeName) -> Result<VolumeState> {
        let front = async {
            let Some(place) = self.metastore.checkpoint(volume, None).await? else { return Ok(None) };
            let front = self.metastore.read_checkpoint(volume, place, 0..CHECKPOINT_FRONT_BYTES as u64).await?;
            Ok::<_, Error>(Some((place, front)))
        };
        let (state, front) = futures::future::join(self.metastore.head(volume), front).await;
        let state = state?;
        // An error is met again when the checkpoint is needed.
        if let (Ok(Some(front)), Some(head)) = (front, state.head()) {
            let mut fronts = self.fronts.lock();
            // Nobody came for the others.
            if fronts.len() >= MOST_FRONTS {
                fronts.clear();
            }
            fronts.insert((volume.clone(), head.lsn()), front);
        }
        Ok(state)
    }

    /// The newest checkpoint at or before `lsn`, if it was fetched ahead with that head. It is given once.
    pub(crate) fn take_front(&self, volume: &VolumeName, lsn: Lsn) -> Option<(CheckpointPlace, Bytes)> {
        let mut fronts = self.fronts.lock();
        fronts.remove(&(volume.clone(), lsn)).filter(|(place, _)| place.lsn <= lsn)
    }

    /// What was fetched ahead of a volume's checkpoints is not the newest any more.
    pub fn forget_fronts(&self, volume: &VolumeName) {
        self.fronts.lock().retain(|(of, _), _| of != volume);
    }

    /// A whole commit.
    pub async fn commit(&self, volume: &VolumeName, lsn: Lsn) -> Result<Arc<SealedCommit>> {
        if let Some(commit) = self.commits.lock().by_place.get(&(volume.clone(), lsn)) {
            return Ok(commit.clone());
        }
        let commit = self.metastore.commit(volume, lsn).await?;
        Ok(self.remember(volume.clone(), commit))
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

    /// Keeps a commit at hand, as far as memory for it goes.
    pub fn remember(&self, volume: VolumeName, commit: SealedCommit) -> Arc<SealedCommit> {
        let commit = Arc::new(commit);
        let mut commits = self.commits.lock();
        if commits.bytes > COMMITS_BYTES {
            *commits = Commits::default();
        }
        commits.bytes += commit.object().len();
        commits.by_place.insert((volume, commit.lsn()), commit.clone());
        commit
    }
}
