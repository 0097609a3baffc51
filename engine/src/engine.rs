//! One data directory, open: its lock, its catalogue, its store, its volumes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use parking_lot::Mutex;
use quire_history::Reader;
use quire_proto::{
    CommitHeader, Error, ErrorKind, FRAME_TARGET_BYTES, Lsn, Result, SealedCommit, VolumeName, VolumeState,
};
use tokio::sync::OnceCell;

use crate::catalog::{Catalog, Change, Entry, ReplicaId, is_removed, remove_folder};
use crate::groups::Groups;
use crate::history::Past;
use crate::hold;
use crate::log::{MAX_FILE_BYTES, MIN_FILE_BYTES, sync_dir};
use crate::options::{Options, Stores, SyncMode, Traffic};
use crate::recover::recover;
use crate::replica::Replica;
use crate::runtime::{Bridge, ENDING};
use crate::state::State;
use crate::unheld::Unheld;
use crate::volume::{LogEntry, Open, Volume};
use crate::writer::group_id;

/// How long to wait for an engine of this very process to let its data directory go.
const OWN_LOCK_WAIT: Duration = ENDING.saturating_add(Duration::from_secs(1));

/// One data directory, open. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// An engine that is not kept open by this: it may be closed already, or still have background work to finish.
#[derive(Clone)]
pub struct WeakEngine {
    shared: Weak<Shared>,
}

impl WeakEngine {
    /// The engine, as long as anything of it is at work.
    pub fn upgrade(&self) -> Option<Engine> {
        self.shared.upgrade().map(|shared| Engine { shared })
    }
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
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) bridge: Bridge,
    stores: OnceCell<Connected>,
    pub(crate) catalog: Mutex<Catalog>,
    /// The catalogue is durable.
    names_synced: AtomicBool,
    pub(crate) groups: Groups,
    pub(crate) unheld: Unheld,
    pub(crate) volumes: Mutex<HashMap<VolumeName, Weak<Open>>>,
    pub(crate) past: Mutex<Past>,
    replicas: Mutex<HashMap<PathBuf, Weak<Replica>>>,
    pub(crate) counters: Counters,
    trimming: AtomicBool,
    nonce: [u8; 16],
    _lock: DirLock,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) pages_from_cache: AtomicU64,
    pub(crate) pages_fetched: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) pushes: AtomicU64,
}

/// The store, once it was needed.
struct Connected {
    stores: Stores,
    reader: Arc<Reader>,
}

impl Engine {
    /// Opens a data directory, which is made if it does not exist. Another
    /// process that has it is an error of kind `Busy` which names it.
    pub fn open(options: Options) -> Result<Engine> {
        Engine::open_with_clock(options, system_now_ms)
    }

    /// As [`open`](Self::open), with another clock than the system's, in
    /// milliseconds since 1970. Its time is written into commits and believed by nobody.
    pub fn open_with_clock(options: Options, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Result<Engine> {
        let dir = &options.data_dir;
        make_folder(dir)
            .map_err(|e| e.with_remedy("Set QUIRE_DATA_DIR or data_dir to a folder that can be written."))?;
        let lock = lock(dir)?;
        let shared = Arc::new(Shared {
            bridge: Bridge::new()?,
            stores: OnceCell::new(),
            catalog: Mutex::new(Catalog::open(dir)?),
            names_synced: AtomicBool::new(false),
            groups: Groups::new(dir),
            unheld: Unheld::open(dir)?,
            volumes: Mutex::default(),
            past: Mutex::default(),
            replicas: Mutex::default(),
            counters: Counters::default(),
            trimming: AtomicBool::new(false),
            nonce: *quire_proto::CommitId::random()?.as_bytes(),
            options,
            now_ms: Box::new(now_ms),
            _lock: lock,
        });
        let engine = Engine { shared };
        engine.find_lost_replicas()?;
        engine.settle_leftover_groups()?;
        Ok(engine)
    }

    /// A handle that does not keep it open.
    pub fn downgrade(&self) -> WeakEngine {
        WeakEngine { shared: Arc::downgrade(&self.shared) }
    }

    /// Folders of replicas that the catalogue does not name: what a removal or
    /// a reset that was cut short left behind, which goes; or, if there are
    /// commits in it that are nowhere else, what a damaged catalogue has
    /// forgotten, which gets its name back.
    fn find_lost_replicas(&self) -> Result<()> {
        let dir = self.shared.options.data_dir.join("replicas");
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|e| Error::from_io(format!("reading {}", dir.display()), e))?,
        };
        let mut catalog = self.shared.catalog.lock();
        let named: HashSet<ReplicaId> = catalog.ids().collect();
        for entry in entries {
            let path = entry.map_err(|e| Error::from_io(format!("reading {}", dir.display()), e))?.path();
            if is_removed(&path) {
                if let Err(e) = std::fs::remove_dir_all(&path) {
                    tracing::warn!("removing {}: {e}", path.display());
                }
                continue;
            }
            let Some(id) = ReplicaId::of_folder(&path).filter(|id| !named.contains(id)) else { continue };
            match recover(&path, "without a name") {
                Ok(Some(found)) if found.state.is_ahead() || found.undecided.is_some() => {
                    let remote = found.state.remote;
                    let name = if catalog.get(&remote).is_none() {
                        remote.clone()
                    } else {
                        catalog.name_for_dropped(&remote)?
                    };
                    tracing::warn!("{} was not in the catalogue any more: it is volume {name} now", path.display());
                    catalog.change(vec![Change::Put { name, id, remote }])?;
                }
                Ok(_) => {
                    if let Err(e) = remove_folder(&path) {
                        tracing::warn!("removing {}: {e}", path.display());
                    }
                }
                Err(e) => tracing::warn!("{} is not in the catalogue, and cannot be read: {e}", path.display()),
            }
        }
        Ok(())
    }

    /// Transactions over several volumes that a process left decided: opening
    /// each volume writes the decision into its log.
    fn settle_leftover_groups(&self) -> Result<()> {
        for (path, volumes) in self.shared.groups.leftover()? {
            let here = volumes.iter().filter(|name| self.shared.catalog.lock().get(name).is_some());
            let settled =
                here.map(|name| self.open_here(name, None)?.replica().sync_log()).collect::<Result<Vec<()>>>();
            let removed = settled.and_then(|_| {
                std::fs::remove_file(&path).map_err(|e| Error::from_io(format!("removing {}", path.display()), e))
            });
            if let Err(e) = removed {
                // The file stays, and with it the decision: whoever opens that volume sees the error.
                tracing::warn!("settling {}: {e}", path.display());
            }
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
        match self.shared.head_to_open(name) {
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
        let head = self.live_in(name, self.shared.head_to_open(name)?)?;
        self.open_here(name, Some((name.clone(), head)))
    }

    /// Clones volume `remote` of the store into a replica called `local` here.
    pub fn clone_volume(&self, remote: &VolumeName, local: &VolumeName) -> Result<Volume> {
        if self.shared.catalog.lock().get(local).is_some() || self.opened(local).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("volume {local} is here already"))
                .with_remedy(format!("`quire pull {local}` brings it up to date; or clone under another name.")));
        }
        let head = self.live_in(remote, self.shared.head_to_open(remote)?)?;
        self.open_here(local, Some((remote.clone(), head)))
    }

    /// The newest commit of a live volume in the store.
    pub(crate) fn live(&self, name: &VolumeName) -> Result<SealedCommit> {
        self.live_in(name, self.shared.head(name)?)
    }

    fn live_in(&self, name: &VolumeName, state: VolumeState) -> Result<SealedCommit> {
        let missing = format!("there is no volume {name} in {}", self.store_url());
        match state {
            VolumeState::Live(head) => Ok(*head),
            VolumeState::Ended { by, .. } => Err(match &by.header().moved_to {
                Some(new) => Error::not_found(missing).with_remedy(format!("It was renamed to {new}.")),
                None => {
                    let last = by.lsn().prev().unwrap_or(Lsn::FIRST);
                    Error::not_found(format!("{missing}: it was deleted at LSN {}", by.lsn()))
                        .with_remedy(format!("`quire fork {name}@{last} NEW` brings back what it was."))
                }
            }),
            VolumeState::Free { .. } => Err(Error::not_found(missing).with_remedy(self.way_to(name))),
        }
    }

    /// What to do about a name that the store does not know.
    fn way_to(&self, name: &VolumeName) -> String {
        let way = self.way_by_push(name).or_else(|| self.way_to_snapshot(name));
        way.unwrap_or_else(|| "`quire ls` shows the volumes there are.".to_owned())
    }

    /// A volume that is here, and that the store does not know as it was never pushed.
    pub(crate) fn way_by_push(&self, remote: &VolumeName) -> Option<String> {
        let name = self.shared.catalog.lock().name_of(remote)?;
        let volume = self.open_here(&name, None).ok()?;
        let was_pushed = volume.replica().core().state.own_base().is_some();
        (!was_pushed).then(|| format!("It is here only: `quire push {name}` brings it to the store."))
    }

    /// What follows an '@' was meant as a moment, if what stands before it is a volume.
    fn way_to_snapshot(&self, name: &VolumeName) -> Option<String> {
        let (volume, _) = name.as_str().rsplit_once('@')?;
        let before = VolumeName::parse(volume).ok()?;
        let is_here = self.shared.catalog.lock().get(&before).is_some();
        let is_there = || matches!(self.shared.head(&before), Ok(VolumeState::Live(_)));
        (is_here || is_there()).then(|| {
            format!("A snapshot of {volume} is named by its LSN or a time: {volume}@7, {volume}@2026-01-31T12:00:00Z.")
        })
    }

    pub(crate) fn opened(&self, name: &VolumeName) -> Option<Volume> {
        self.shared.volumes.lock().get(name).and_then(Weak::upgrade).map(Volume::new)
    }

    /// Opens a replica of this data directory; `adopt` is the volume and head
    /// of the store that a new one begins with.
    pub(crate) fn open_here(&self, name: &VolumeName, adopt: Option<(VolumeName, SealedCommit)>) -> Result<Volume> {
        let shared = &self.shared;
        // Held while the replica is opened, so that nobody opens or closes it meanwhile.
        let mut volumes = shared.volumes.lock();
        if let Some(open) = volumes.get(name).and_then(Weak::upgrade) {
            return Ok(Volume::new(open));
        }
        let entry = shared.catalog.lock().get(name).cloned();
        let replica = match (entry, adopt) {
            (Some(entry), _) => shared.open_replica(name, entry)?,
            (None, Some((remote, head))) => {
                let (id, replica) = shared.replica_at(name, &remote, head, 0)?;
                let put = Change::Put { name: name.clone(), id, remote };
                shared.catalog.lock().change(vec![put])?;
                replica
            }
            (None, None) => {
                let dir = shared.replica_dir(ReplicaId::random()?);
                Replica::open(shared, name, dir, 0, State::new(name.clone()), false)?
            }
        };
        let open = Open::new(shared, replica);
        volumes.insert(name.clone(), Arc::downgrade(&open));
        drop(volumes);
        open.start_background();
        // What a crash left in doubt. If the store cannot be reached, the next write asks again.
        let replica = open.replica();
        if let Ok(Some(pushed)) = crate::push::settle_doubt(&replica) {
            replica.notes.lock().settled.note_push(&pushed);
        }
        Ok(Volume::new(open))
    }

    /// The names of the replicas in this data directory.
    pub fn local_volumes(&self) -> Result<Vec<VolumeName>> {
        Ok(self.shared.catalog.lock().names())
    }

    /// Whether the store has a live volume of this name there.
    pub fn has_in_store(&self, remote: &VolumeName) -> Result<bool> {
        Ok(matches!(self.shared.head(remote)?, VolumeState::Live(_)))
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

    /// Makes everything durable that [`decide`](Self::decide) needs, as far as writers are prepared, for a caller whom
    /// nobody would listen to if that failed. What is left is to give a file its name.
    pub fn make_decidable(&self, group: &str) -> Result<()> {
        let id = group_id(group);
        self.sync_prepared(id)?;
        self.shared.groups.make_ready(id)
    }

    /// The decision will be durable: what it decides about has to be.
    fn sync_prepared(&self, group: [u8; 16]) -> Result<()> {
        let prepared = self.shared.groups.prepared(group);
        let replicas = self.shared.replicas();
        replicas.iter().filter(|replica| prepared.contains(&replica.name())).try_for_each(|replica| replica.sync_log())
    }

    /// Decides the group of prepared writers: all of them count from here on, or, on an error, none.
    pub fn decide(&self, group: &str) -> Result<()> {
        let (groups, id) = (&self.shared.groups, group_id(group));
        self.sync_prepared(id)?;
        groups.decide(id)?;
        let finished = groups.to_clean();
        if !finished.is_empty() {
            // From here on nothing may fail: the decision stands.
            match self.shared.replicas().iter().try_for_each(|replica| replica.sync_log()) {
                Ok(()) => groups.forget(&finished),
                Err(e) => {
                    tracing::warn!("{e}");
                    groups.keep(finished);
                }
            }
        }
        Ok(())
    }

    /// Removes a replica. One with unpushed commits is `Conflict`, unless `force`.
    pub fn remove_replica(&self, name: &VolumeName, force: bool) -> Result<()> {
        let Some(entry) = self.shared.catalog.lock().get(name).cloned() else {
            return Err(Error::not_found(format!("there is no replica {name} in {}", self.data_dir().display()))
                .with_remedy("`quire ls` shows the volumes there are."));
        };
        let dir = self.shared.replica_dir(entry.id);
        let replica = match self.open_here(name, None) {
            Ok(volume) => Some(volume.replica()),
            // One that is damaged can be removed by force.
            Err(_) if force => self.shared.live(&dir),
            Err(e) => return Err(e),
        };
        if let Some(replica) = &replica {
            // From here on nobody commits to it.
            replica.lock_writer("its removal")?;
            let unpushed = replica.unpushed();
            if unpushed > 0 && !force {
                replica.release_writer(false);
                let is_diverged = replica.core().state.diverged.is_some();
                let has_ended = replica.notes.lock().ended.is_some();
                let saved = match is_diverged || has_ended {
                    true => format!("`quire fork {name} NEW` saves them as a volume of their own"),
                    false => format!("`quire push {name}` saves them"),
                };
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("replica {name} has {unpushed} commits that are not in the store"),
                )
                .with_remedy(format!("{saved}; `quire rm {name} --force` gives them up.")));
            }
        }
        let removed = self.shared.catalog.lock().change(vec![Change::Remove { name: name.clone() }]);
        if let Some(replica) = &replica {
            if removed.is_ok() {
                replica.abandon();
                self.shared.volumes.lock().remove(name);
            }
            replica.release_writer(false);
        }
        removed?;
        // First, as the store may take its time: work whose folder is left without a name gets one again.
        let folder = remove_folder(&dir);
        if let Some(replica) = &replica {
            hold::give_up(replica);
        }
        match folder {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from_io(format!("removing {}", dir.display()), e))
            }
            _ => Ok(()),
        }
    }

    /// Deletes a volume in the store: a last commit says so, and its history
    /// stays until it is collected. Returns the LSN of that commit. A name that
    /// stands for another volume here is `Invalid`: everything else that is done to it is done to that one.
    pub fn delete_in_store(&self, name: &VolumeName) -> Result<Lsn> {
        // Its replica knows best; the catalogue follows, and may not have heard of a renaming that was cut short.
        let known = self.here(name).ok().flatten().map(|volume| volume.replica().core().state.remote.clone());
        let remote = known.unwrap_or_else(|| self.remote_of(name));
        if remote != *name {
            return Err(Error::invalid(format!("{name} here is volume {remote} in the store")).with_remedy(format!(
                "`quire rm {remote} --store` deletes that one, for everybody. If the store's own {name} is meant, give \
                 this replica another name first: quire mv {name} NEW"
            )));
        }
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
        if self.shared.catalog.lock().get(new).is_some() || self.opened(new).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("volume {new} is here already"))
                .with_remedy("Choose another name, or remove that one with `quire rm`."));
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
        let traffic = self.shared.stores.get().map_or(Traffic::default(), |stores| (stores.stores.traffic)());
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
        let head = self.live(name)?;
        self.shared.bridge.wait(self.shared.entry(name, head.header()))
    }
}

fn system_now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// The data directory's lock. It is given up when this is dropped, even while a
/// child that is being started still holds the same open file.
struct DirLock(File);

impl Drop for DirLock {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock);
    }
}

/// Takes the data directory's lock and writes our pid into it.
fn lock(dir: &Path) -> Result<DirLock> {
    let path = dir.join("lock");
    let wrong = |e| {
        Error::from_io(format!("opening {}", path.display()), e)
            .with_remedy("Set QUIRE_DATA_DIR or data_dir to a folder that can be written.")
    };
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(wrong)?;
    let since = Instant::now();
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let pid = std::process::id().to_string();
                let written =
                    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes()));
                written.map_err(wrong)?;
                return Ok(DirLock(file));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(e) => return Err(wrong(e.into())),
        }
        let mut pid = String::new();
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
        if pid == std::process::id().to_string() && since.elapsed() < OWN_LOCK_WAIT {
            // An engine of this process that was dropped may still be finishing background work.
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let holder = if pid.is_empty() { "another process".to_owned() } else { format!("process {pid}") };
        return Err(Error::new(ErrorKind::Busy, format!("the data directory {} is in use by {holder}", dir.display()))
            .with_remedy("Close that program, or give this one a data directory of its own with QUIRE_DATA_DIR."));
    }
}

/// Makes a folder, durably, and those above it that are missing: what is in a
/// folder is only as safe as the folder's own name.
pub(crate) fn make_folder(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().map(|above| if above == Path::new("") { Path::new(".") } else { above });
    above.map_or(Ok(()), make_folder)?;
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::from_io(format!("making folder {}", dir.display()), e))
        }
        _ => above.map_or(Ok(()), sync_dir),
    }
}

impl Shared {
    /// The store, connected at first need.
    pub(crate) async fn stores(&self) -> Result<&Stores> {
        self.connected().await.map(|connected| &connected.stores)
    }

    /// Who reads the history of volumes.
    pub(crate) async fn reader(&self) -> Result<&Arc<Reader>> {
        self.connected().await.map(|connected| &connected.reader)
    }

    async fn connected(&self) -> Result<&Connected> {
        let connect = || async {
            let stores = (self.options.connect)().await?;
            let reader = Arc::new(Reader::new(stores.metastore.clone(), stores.pagestore.clone()));
            Ok(Connected { stores, reader })
        };
        self.stores.get_or_try_init(connect).await
    }

    pub(crate) fn sync(&self) -> SyncMode {
        self.options.sync
    }

    /// The bound of the cache, in bytes.
    pub(crate) fn cache_size(&self) -> u64 {
        self.options.cache_size
    }

    /// How long a data file becomes: the cache is given back file by file, so
    /// that a small cache needs small files.
    pub(crate) fn file_bytes(&self) -> u64 {
        (self.options.cache_size / 16).clamp(MIN_FILE_BYTES, MAX_FILE_BYTES)
    }

    /// The most frames that one miss may fetch ahead: more than a part of the
    /// cache would push out what was just fetched.
    pub(crate) fn most_ahead_frames(&self) -> usize {
        usize::try_from(self.options.cache_size / 8).unwrap_or(usize::MAX) / FRAME_TARGET_BYTES
    }

    pub(crate) fn store_url(&self) -> &str {
        &self.options.store_url
    }

    pub(crate) fn lease_after(&self) -> Duration {
        self.options.lease_after
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
        (self.now_ms)()
    }

    pub(crate) fn replica_dir(&self, id: ReplicaId) -> PathBuf {
        self.options.data_dir.join("replicas").join(id.folder())
    }

    /// The open replica in a folder, if there is one that can be written.
    /// Snapshots and writers keep a replica open when its last volume has gone.
    fn live(&self, dir: &Path) -> Option<Arc<Replica>> {
        self.replicas.lock().get(dir).and_then(Weak::upgrade).filter(|replica| !replica.is_broken())
    }

    /// All open replicas.
    fn replicas(&self) -> Vec<Arc<Replica>> {
        self.replicas.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// Notes an open replica, so that nobody opens its folder a second time.
    pub(crate) fn note_replica(&self, replica: &Arc<Replica>) {
        let mut replicas = self.replicas.lock();
        replicas.retain(|_, replica| replica.strong_count() > 0);
        replicas.insert(replica.dir().to_owned(), Arc::downgrade(replica));
    }

    fn open_replica(self: &Arc<Self>, name: &VolumeName, entry: Entry) -> Result<Arc<Replica>> {
        let dir = self.replica_dir(entry.id);
        if let Some(replica) = self.live(&dir) {
            replica.set_name(name);
            replica.fetching.open_again();
            return Ok(replica);
        }
        let replica = Replica::open(self, name, dir, 0, State::new(entry.remote.clone()), true)?;
        let remote = replica.core().state.remote.clone();
        if remote != entry.remote {
            // A renaming was cut short: the replica follows the new name, and the catalogue did not hear of it.
            let put = Change::Put { name: name.clone(), id: entry.id, remote };
            if let Err(e) = self.catalog.lock().change(vec![put]) {
                tracing::warn!("volume {name}: noting what it is called in the store: {e}");
            }
        }
        Ok(replica)
    }

    /// A new replica that stands on a commit of the store, made durable. It is
    /// not in the catalogue yet. Its snapshots' versions go on from `version`.
    pub(crate) fn replica_at(
        self: &Arc<Self>,
        name: &VolumeName,
        remote: &VolumeName,
        head: SealedCommit,
        version: u64,
    ) -> Result<(ReplicaId, Arc<Replica>)> {
        let lsn = head.lsn();
        let (id, replica) = self.replica_in_state(name, State::at(remote.clone(), head.header()), version)?;
        replica.notes.lock().store_lsn = Some(lsn);
        self.remember(remote.clone(), head);
        Ok((id, replica))
    }

    /// A new replica that begins with `state`, made durable. It is not in the catalogue yet.
    pub(crate) fn replica_in_state(
        self: &Arc<Self>,
        name: &VolumeName,
        state: State,
        version: u64,
    ) -> Result<(ReplicaId, Arc<Replica>)> {
        let id = ReplicaId::random()?;
        let dir = self.replica_dir(id);
        let made = make_folder(&dir).and_then(|()| {
            let replica = Replica::open(self, name, dir.clone(), version, state, true)?;
            replica.store_first_state()?;
            Ok(replica)
        });
        if made.is_err() {
            let _ = remove_folder(&dir);
        }
        Ok((id, made?))
    }

    /// Before anything of a replica is called durable: so is its name, which may be that of a process that was killed.
    pub(crate) fn sync_names(&self) -> Result<()> {
        if !self.names_synced.load(Ordering::Relaxed) {
            self.catalog.lock().sync()?;
            self.names_synced.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Puts a new replica into the catalogue, before its first record is written.
    pub(crate) fn register(&self, name: &VolumeName, dir: &Path, remote: &VolumeName) -> Result<()> {
        let id = ReplicaId::of_folder(dir)
            .ok_or_else(|| Error::invalid(format!("{} is no replica's folder", dir.display())))?;
        make_folder(dir)?;
        // It may have been made by an attempt that failed to sync it.
        dir.parent().map_or(Ok(()), sync_dir)?;
        let put = Change::Put { name: name.clone(), id, remote: remote.clone() };
        self.catalog.lock().change(vec![put])
    }

    /// What the store has under a name.
    pub(crate) fn head(&self, name: &VolumeName) -> Result<VolumeState> {
        self.bridge.wait(async { self.stores().await?.metastore.head(name).await })
    }

    /// As [`head`](Self::head), for who is going to open the volume: what he needs next is fetched beside it.
    fn head_to_open(&self, name: &VolumeName) -> Result<VolumeState> {
        self.bridge.wait(async { self.reader().await?.head(name, None).await })
    }

    pub(crate) fn rename_in_store(&self, old: &VolumeName, new: &VolumeName) -> Result<SealedCommit> {
        self.bridge.wait(async { self.stores().await?.metastore.rename(old, new, self.author()).await })
    }

    /// A whole commit of the store.
    pub(crate) async fn commit(&self, volume: &VolumeName, lsn: Lsn) -> Result<Arc<SealedCommit>> {
        self.reader().await?.commit(volume, lsn).await
    }

    /// A commit of the store, with the time at which it came there.
    pub(crate) async fn entry(&self, volume: &VolumeName, header: &CommitHeader) -> Result<LogEntry> {
        let times = self.stores().await?.metastore.stored_times(volume, header.lsn, header.lsn).await?;
        Ok(LogEntry::of(header, times.get(&header.lsn).copied()))
    }

    /// Keeps a commit that the store has at hand.
    pub(crate) fn remember(&self, volume: VolumeName, commit: SealedCommit) {
        if let Some(connected) = self.stores.get() {
            connected.reader.remember(volume, commit);
        }
    }

    /// Lets blocking work run beside the callers.
    pub(crate) fn background(&self, work: impl FnOnce() + Send + 'static) {
        self.bridge.spawn_blocking(work);
    }

    /// Brings the cache of all open volumes back under its bound, in the background.
    pub(crate) fn trim_cache(self: &Arc<Self>) {
        let is_due = self.excess() > 0 || self.replicas().iter().any(|replica| replica.has_many_files());
        if !is_due || self.trimming.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::downgrade(self);
        self.background(move || {
            let Some(shared) = shared.upgrade() else { return };
            shared.trim();
            shared.trimming.store(false, Ordering::Release);
        });
    }

    /// How many bytes the cache has more than it should.
    fn excess(&self) -> u64 {
        self.replicas().iter().map(|replica| replica.cache_bytes()).sum::<u64>().saturating_sub(self.options.cache_size)
    }

    /// Takes from the largest replicas first, and some more than it must, so
    /// that not every new file costs another one.
    fn trim(&self) {
        let mut replicas: Vec<_> = self.replicas().into_iter().map(|r| (r.cache_bytes(), r)).collect();
        replicas.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        for (size, replica) in replicas {
            let excess = self.excess();
            if excess == 0 && !replica.has_many_files() {
                continue;
            }
            if let Err(e) = replica.evict(size.saturating_sub(excess + self.options.cache_size / 8)) {
                tracing::warn!("volume {}: trimming the cache: {e}", replica.name());
            }
        }
    }
}
