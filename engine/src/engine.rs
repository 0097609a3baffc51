//! One data directory, open: its lock, its catalogue, its store, its volumes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use parking_lot::Mutex;
use quire_proto::{Error, ErrorKind, Lsn, Result, SealedCommit, VolumeName, VolumeState};
use tokio::sync::OnceCell;

use crate::catalog::{Catalog, Change, ReplicaId};
use crate::groups::Groups;
use crate::log::{MAX_FILE_BYTES, MIN_FILE_BYTES};
use crate::options::{Options, Stores, SyncMode, Traffic};
use crate::replica::Replica;
use crate::runtime::Bridge;
use crate::state::{BaseState, State};
use crate::volume::{LogEntry, Open, Volume};
use crate::writer::group_id;

/// Commit objects are kept in memory up to this many bytes.
const COMMITS_BYTES: usize = 32 << 20;

/// One data directory, open. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// Counters since the engine was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Pages that were read without the store.
    pub pages_from_cache: u64,
    /// Pages that came from the store, those fetched ahead included.
    pub pages_fetched: u64,
    /// Requests to the store.
    pub requests: u64,
    /// Bytes received from the store.
    pub bytes_in: u64,
    /// Bytes sent to the store.
    pub bytes_out: u64,
    /// Local commits.
    pub commits: u64,
    /// Pushes that made a commit in the store.
    pub pushes: u64,
}

/// What all volumes of a data directory share.
pub(crate) struct Shared {
    options: Options,
    pub(crate) bridge: Bridge,
    stores: OnceCell<Stores>,
    pub(crate) catalog: Mutex<Catalog>,
    pub(crate) groups: Groups,
    pub(crate) volumes: Mutex<HashMap<VolumeName, Weak<Open>>>,
    pub(crate) counters: Counters,
    commits: Mutex<Commits>,
    trimming: AtomicBool,
    nonce: [u8; 16],
    _lock: File,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) pages_from_cache: AtomicU64,
    pub(crate) pages_fetched: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) pushes: AtomicU64,
}

/// Commit objects of the store that were needed lately.
#[derive(Default)]
struct Commits {
    by_place: HashMap<(VolumeName, Lsn), Arc<SealedCommit>>,
    bytes: usize,
}

impl Engine {
    /// Opens a data directory, which is made if it does not exist. Another
    /// process that has it is an error of kind `Busy` which names it.
    pub fn open(options: Options) -> Result<Engine> {
        let dir = &options.data_dir;
        std::fs::create_dir_all(dir).map_err(|e| {
            Error::from_io(format!("making the data directory {}", dir.display()), e)
                .with_remedy("Set QUIRE_DATA_DIR or data_dir to a folder that can be written.")
        })?;
        let lock = lock(dir)?;
        let shared = Arc::new(Shared {
            bridge: Bridge::new()?,
            stores: OnceCell::new(),
            catalog: Mutex::new(Catalog::open(dir)?),
            groups: Groups::new(dir),
            volumes: Mutex::default(),
            counters: Counters::default(),
            commits: Mutex::default(),
            trimming: AtomicBool::new(false),
            nonce: *quire_proto::CommitId::random()?.as_bytes(),
            options,
            _lock: lock,
        });
        let engine = Engine { shared };
        engine.settle_leftover_groups()?;
        Ok(engine)
    }

    /// Transactions over several volumes that a process left decided: opening
    /// each volume writes the decision into its log.
    fn settle_leftover_groups(&self) -> Result<()> {
        for (path, volumes) in self.shared.groups.leftover()? {
            for name in volumes {
                if self.shared.catalog.lock().get(&name).is_some() {
                    self.open_here(&name, None)?.replica().sync_log()?;
                }
            }
            std::fs::remove_file(&path).map_err(|e| Error::from_io(format!("removing {}", path.display()), e))?;
        }
        Ok(())
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.shared.options.data_dir
    }

    /// The store's URL, without credentials.
    pub fn store_url(&self) -> &str {
        &self.shared.options.store_url
    }

    /// Opens a volume: the replica here, or adopted from the store, or, if
    /// neither has it, a new one that its first commit makes. The store is
    /// asked only if there is no replica; if it cannot be reached then, the
    /// volume counts as new, and its first push settles it.
    pub fn volume(&self, name: &VolumeName) -> Result<Volume> {
        if let Some(volume) = self.opened(name) {
            return Ok(volume);
        }
        if self.shared.catalog.lock().get(name).is_some() {
            return self.open_here(name, None);
        }
        match self.shared.head(name) {
            Ok(VolumeState::Live(head)) => self.open_here(name, Some((name.clone(), *head))),
            Ok(_) => self.open_here(name, None),
            Err(e) if matches!(e.kind(), ErrorKind::Unavailable) => {
                let volume = self.open_here(name, None)?;
                volume.replica().note_error(&e);
                Ok(volume)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => self.open_here(name, None),
            Err(e) => Err(e),
        }
    }

    /// As [`volume`](Self::volume), but a name that neither this data
    /// directory nor the store has is `NotFound`.
    pub fn existing(&self, name: &VolumeName) -> Result<Volume> {
        if let Some(volume) = self.opened(name) {
            return Ok(volume);
        }
        if self.shared.catalog.lock().get(name).is_some() {
            return self.open_here(name, None);
        }
        let head = self.live(name)?;
        self.open_here(name, Some((name.clone(), head)))
    }

    /// Clones volume `remote` of the store into a replica called `local` here.
    pub fn clone_volume(&self, remote: &VolumeName, local: &VolumeName) -> Result<Volume> {
        if self.shared.catalog.lock().get(local).is_some() || self.opened(local).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("volume {local} is here already"))
                .with_remedy(format!("`quire pull {local}` brings it up to date; or clone under another name.")));
        }
        let head = self.live(remote)?;
        self.open_here(local, Some((remote.clone(), head)))
    }

    /// The newest commit of a live volume in the store.
    fn live(&self, name: &VolumeName) -> Result<SealedCommit> {
        let state = self.shared.head(name)?;
        let ended = state.head().and_then(|head| head.header().moved_to.clone());
        state.live().ok_or_else(|| {
            let error = Error::not_found(format!("there is no volume {name} in {}", self.store_url()));
            match ended {
                Some(new) => error.with_remedy(format!("It was renamed to {new}.")),
                None => error.with_remedy("`quire ls` shows the volumes there are."),
            }
        })
    }

    fn opened(&self, name: &VolumeName) -> Option<Volume> {
        self.shared.volumes.lock().get(name).and_then(Weak::upgrade).map(Volume::new)
    }

    /// Opens a replica of this data directory; `adopt` is the volume and head
    /// of the store that a new one begins with.
    fn open_here(&self, name: &VolumeName, adopt: Option<(VolumeName, SealedCommit)>) -> Result<Volume> {
        // Held while the replica is opened, so that nobody opens or closes it meanwhile.
        let mut volumes = self.shared.volumes.lock();
        if let Some(open) = volumes.get(name).and_then(Weak::upgrade) {
            return Ok(Volume::new(open));
        }
        let entry = self.shared.catalog.lock().get(name).cloned();
        let registered = entry.is_some();
        let (id, remote) = match (entry, &adopt) {
            (Some(entry), _) => (entry.id, entry.remote),
            (None, Some((remote, _))) => (ReplicaId::random()?, remote.clone()),
            (None, None) => (ReplicaId::random()?, name.clone()),
        };
        let mut state = State::new(remote.clone());
        if let (false, Some((remote, head))) = (registered, adopt) {
            let header = head.header();
            state.base =
                Some(BaseState { lsn: header.lsn, hash: header.hash(), page_count: header.page_count });
            state.page_size = Some(header.page_size);
            state.page_count = header.page_count;
            state.attributes = header.attributes.clone();
            self.shared.remember(remote, head);
        }
        let adopted = state.base.as_ref().map(|b| b.lsn);
        let version = Arc::new(AtomicU64::new(0));
        let replica =
            Replica::open(&self.shared, name, self.shared.replica_dir(id), version.clone(), state, registered)?;
        if let Some(lsn) = adopted {
            replica.notes.lock().store_lsn = Some(lsn);
            replica.store_first_state()?;
        }
        let open = Open::new(&self.shared, replica, version);
        volumes.insert(name.clone(), Arc::downgrade(&open));
        drop(volumes);
        open.start_background();
        Ok(Volume::new(open))
    }

    /// The names of the replicas in this data directory.
    pub fn local_volumes(&self) -> Result<Vec<VolumeName>> {
        Ok(self.shared.catalog.lock().names())
    }

    /// The names of the live volumes in the store that begin with `prefix`.
    pub fn store_volumes(&self, prefix: &str) -> Result<Vec<VolumeName>> {
        self.shared.bridge.wait(async {
            let stores = self.shared.stores().await?;
            let metastore = stores.metastore.clone();
            let checked = stores.metastore.volumes(prefix).map(|name| {
                let metastore = metastore.clone();
                async move {
                    let name = name?;
                    let live = matches!(metastore.head(&name).await?, VolumeState::Live(_));
                    Ok::<_, Error>(live.then_some(name))
                }
            });
            let mut checked = checked.buffered(16);
            let mut names = Vec::new();
            while let Some(name) = checked.next().await {
                names.extend(name?);
            }
            Ok(names)
        })
    }

    /// Decides the group of prepared writers: all of them count from here on, or, on an error, none.
    pub fn decide(&self, group: &str) -> Result<()> {
        self.shared.groups.decide(group_id(group))?;
        let finished = self.shared.groups.to_clean();
        if !finished.is_empty() {
            let open: Vec<Arc<Open>> = self.shared.volumes.lock().values().filter_map(Weak::upgrade).collect();
            for volume in open {
                volume.replica().sync_log()?;
            }
            self.shared.groups.forget(&finished);
        }
        Ok(())
    }

    /// Removes a replica. One with unpushed commits is `Conflict`, unless `force`.
    pub fn remove_replica(&self, name: &VolumeName, force: bool) -> Result<()> {
        let Some(entry) = self.shared.catalog.lock().get(name).cloned() else {
            return Err(Error::not_found(format!("there is no replica {name} in {}", self.data_dir().display()))
                .with_remedy("`quire ls` shows the volumes there are."));
        };
        let opened = if force { self.opened(name).map(Ok) } else { Some(self.open_here(name, None)) };
        if let Some(volume) = opened.transpose()? {
            let unpushed = volume.replica().core().state.unpushed();
            if unpushed > 0 && !force {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("replica {name} has {unpushed} commits that are not in the store"),
                )
                .with_remedy(format!("`quire push {name}` saves them; `quire rm {name} --force` gives them up.")));
            }
            volume.replica().lock_writer("its removal")?;
            volume.replica().abandon();
        }
        self.shared.catalog.lock().change(vec![Change::Remove { name: name.clone() }], true)?;
        self.shared.volumes.lock().remove(name);
        let dir = self.shared.replica_dir(entry.id);
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from_io(format!("removing {}", dir.display()), e))
            }
            _ => Ok(()),
        }
    }

    /// Deletes a volume in the store: a last commit says so, and its history
    /// stays until it is collected. Returns the LSN of that commit.
    pub fn delete_in_store(&self, name: &VolumeName) -> Result<Lsn> {
        let head = self.live(name)?;
        let deleted = self.shared.bridge.wait(async {
            let stores = self.shared.stores().await?;
            stores.metastore.delete(name, head.lsn(), self.shared.author()).await
        })?;
        Ok(deleted.lsn())
    }

    /// Renames a volume: in the store, if it is there, and the replica here, if there is one.
    pub fn rename(&self, old: &VolumeName, new: &VolumeName) -> Result<()> {
        let here = self.shared.catalog.lock().get(old).is_some() || self.opened(old).is_some();
        if self.shared.catalog.lock().get(new).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("volume {new} is here already")));
        }
        if !here {
            self.live(old)?;
            self.shared.rename_in_store(old, new)?;
            return Ok(());
        }
        let volume = self.open_here(old, None)?;
        volume.rename(new)
    }

    /// Counters since the engine was opened.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let traffic = self.shared.stores.get().map_or(Traffic::default(), |stores| (stores.traffic)());
        Stats {
            pages_from_cache: counters.pages_from_cache.load(Ordering::Relaxed),
            pages_fetched: counters.pages_fetched.load(Ordering::Relaxed),
            requests: traffic.requests,
            bytes_in: traffic.bytes_in,
            bytes_out: traffic.bytes_out,
            commits: counters.commits.load(Ordering::Relaxed),
            pushes: counters.pushes.load(Ordering::Relaxed),
        }
    }

    /// The newest commit of a volume in the store; no replica is needed.
    pub fn store_info(&self, name: &VolumeName) -> Result<LogEntry> {
        Ok(LogEntry::of(self.live(name)?.header()))
    }
}

/// Takes the data directory's lock and writes our pid into it.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let wrong = |e| Error::from_io(format!("opening {}", path.display()), e);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(wrong)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            let pid = std::process::id().to_string();
            file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).map_err(wrong)?;
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut pid));
            let holder = if pid.is_empty() { "another process".to_owned() } else { format!("process {pid}") };
            Err(Error::new(ErrorKind::Busy, format!("the data directory {} is in use by {holder}", dir.display()))
                .with_remedy("Close that program, or give this one a data directory of its own with QUIRE_DATA_DIR."))
        }
        Err(e) => Err(wrong(e.into())),
    }
}

impl Shared {
    /// The store, connected at first need.
    pub(crate) async fn stores(&self) -> Result<&Stores> {
        self.stores.get_or_try_init(|| (self.options.connect)()).await
    }

    pub(crate) fn sync(&self) -> SyncMode {
        self.options.sync
    }

    /// How long a data file becomes: the cache is given back file by file, so
    /// that a small cache needs small files.
    pub(crate) fn file_bytes(&self) -> u64 {
        (self.options.cache_size / 16).clamp(MIN_FILE_BYTES, MAX_FILE_BYTES)
    }

    pub(crate) fn store_url(&self) -> &str {
        &self.options.store_url
    }

    pub(crate) fn author(&self) -> &str {
        &self.options.author
    }

    /// Random bytes of this process, part of every local commit's digest.
    pub(crate) fn nonce(&self) -> [u8; 16] {
        self.nonce
    }

    /// The wall clock in milliseconds since 1970: informative only.
    pub(crate) fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    pub(crate) fn replica_dir(&self, id: ReplicaId) -> PathBuf {
        self.options.data_dir.join("replicas").join(format!("{:016x}", id.0))
    }

    /// Puts a new replica into the catalogue, before its first record is written.
    pub(crate) fn register(&self, name: &VolumeName, dir: &Path, remote: &VolumeName) -> Result<()> {
        let id = dir.file_name().and_then(|n| n.to_str()).and_then(|n| u64::from_str_radix(n, 16).ok());
        let id = ReplicaId(id.ok_or_else(|| Error::invalid(format!("{} is no replica's folder", dir.display())))?);
        std::fs::create_dir_all(dir).map_err(|e| Error::from_io(format!("making folder {}", dir.display()), e))?;
        if let Some(parent) = dir.parent() {
            crate::log::sync_dir(parent)?;
        }
        let put = Change::Put { name: name.clone(), id, remote: remote.clone() };
        self.catalog.lock().change(vec![put], true)
    }

    /// What the store has under a name.
    pub(crate) fn head(&self, name: &VolumeName) -> Result<VolumeState> {
        self.bridge.wait(async { self.stores().await?.metastore.head(name).await })
    }

    pub(crate) fn rename_in_store(&self, old: &VolumeName, new: &VolumeName) -> Result<SealedCommit> {
        self.bridge.wait(async { self.stores().await?.metastore.rename(old, new, self.author()).await })
    }

    /// A whole commit of the store.
    pub(crate) async fn commit(&self, volume: &VolumeName, lsn: Lsn) -> Result<Arc<SealedCommit>> {
        if let Some(commit) = self.commits.lock().by_place.get(&(volume.clone(), lsn)) {
            return Ok(commit.clone());
        }
        let commit = self.stores().await?.metastore.commit(volume, lsn).await?;
        Ok(self.remember(volume.clone(), commit))
    }

    /// Keeps a commit at hand, as far as memory for it goes.
    pub(crate) fn remember(&self, volume: VolumeName, commit: SealedCommit) -> Arc<SealedCommit> {
        let commit = Arc::new(commit);
        let mut commits = self.commits.lock();
        if commits.bytes > COMMITS_BYTES {
            *commits = Commits::default();
        }
        commits.bytes += commit.object().len();
        commits.by_place.insert((volume, commit.lsn()), commit.clone());
        commit
    }

    /// Lets blocking work run beside the callers.
    pub(crate) fn background(&self, work: impl FnOnce() + Send + 'static) {
        self.bridge.spawn_blocking(work);
    }

    /// Brings the cache of all open volumes back under its bound, in the background.
    pub(crate) fn trim_cache(self: &Arc<Self>) {
        if self.trimming.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::downgrade(self);
        self.background(move || {
            let Some(shared) = shared.upgrade() else { return };
            let open: Vec<Arc<Open>> = shared.volumes.lock().values().filter_map(Weak::upgrade).collect();
            let replicas: Vec<Arc<Replica>> = open.iter().map(|o| o.replica()).collect();
            let sizes: Vec<u64> = replicas.iter().map(|r| r.cache_bytes()).collect();
            let mut excess = sizes.iter().sum::<u64>().saturating_sub(shared.options.cache_size);
            let mut largest: Vec<_> = replicas.iter().zip(sizes).collect();
            largest.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
            for (replica, size) in largest {
                if excess == 0 {
                    break;
                }
                match replica.evict(size.saturating_sub(excess)) {
                    Ok(_) => excess = excess.saturating_sub(size.saturating_sub(replica.cache_bytes())),
                    Err(e) => tracing::warn!("volume {}: trimming the cache: {e}", replica.name()),
                }
            }
            shared.trimming.store(false, Ordering::Release);
        });
    }
}
