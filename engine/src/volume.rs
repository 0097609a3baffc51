//! One replica as its users hold it.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::{StreamExt, TryStreamExt};
use parking_lot::{Condvar, Mutex};
use quire_proto::{
    CommitHash, CommitHeader, CommitId, Error, ErrorKind, HEADERS_A_PIECE, Lsn, PageCount, PageIdx, PageSet, PageSize,
    Result, VolumeName, log_back,
};

use crate::catalog::{Change, remove_folder};
use crate::engine::Shared;
use crate::hold;
use crate::options::SyncMode;
use crate::replica::{Replica, StateChange};
use crate::snapshot::Snapshot;
use crate::standing;
use crate::writer::Writer;
use crate::{fetch, pull, push};

/// One replica, open. Cheap to clone; the replica is closed when the last clone goes.
#[derive(Clone)]
pub struct Volume {
    open: Arc<Open>,
}

/// What the clones of a [`Volume`] share.
pub(crate) struct Open {
    engine: Arc<Shared>,
    /// Another one after `reset`.
    replica: ArcSwap<Replica>,
    closing: Arc<(Mutex<bool>, Condvar)>,
}

impl Open {
    pub(crate) fn new(engine: &Arc<Shared>, replica: Arc<Replica>) -> Arc<Open> {
        Arc::new(Open { engine: engine.clone(), replica: ArcSwap::new(replica), closing: Arc::default() })
    }

    pub(crate) fn replica(&self) -> Arc<Replica> {
        self.replica.load_full()
    }

    /// Does some traffic with the store, alone. While it waits for its turn a reset may put another replica in this one's
    /// place: what was put aside must not go to the store in the volume's name, nor be put aside again. One that has stopped
    /// stays where it is: a decision that its log lacks finds it by its name, when it is opened again.
    fn with_traffic<T>(&self, traffic: impl FnOnce(&Arc<Replica>) -> Result<T>) -> Result<T> {
        loop {
            let replica = self.replica();
            let _traffic = replica.traffic.lock();
            if Arc::ptr_eq(&replica, &self.replica()) {
                replica.check_goes_on()?;
                return traffic(&replica);
            }
        }
    }

    /// Pushes and pulls every so often, if the setting says so, until the volume is closed.
    pub(crate) fn start_background(self: &Arc<Self>) {
        let SyncMode::Every(period) = self.engine.sync() else { return };
        let weak = Arc::downgrade(self);
        let closing = self.closing.clone();
        let started = std::thread::Builder::new().name("quire-sync".into()).spawn(move || {
            loop {
                {
                    let (closed, changed) = &*closing;
                    let mut closed = closed.lock();
                    if !*closed {
                        changed.wait_for(&mut closed, period);
                    }
                    if *closed {
                        return;
                    }
                }
                let Some(open) = weak.upgrade() else { return };
                let synced = std::panic::catch_unwind(AssertUnwindSafe(|| open.with_traffic(sync)));
                let replica = open.replica();
                match synced {
                    Ok(Ok(_)) => {}
                    // It stands in `quire_status`; the next round tries again.
                    Ok(Err(e)) => tracing::debug!("volume {}: background sync: {e}", replica.name()),
                    Err(panic) => replica.note_error(&panicked(&replica.name(), &*panic)),
                }
            }
        });
        if let Err(e) = started {
            tracing::warn!("starting the background sync: {e}");
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let (closed, changed) = &*self.closing;
        *closed.lock() = true;
        changed.notify_all();
        let replica = self.replica();
        let mut volumes = self.engine.volumes.lock();
        if volumes.get(&replica.name()).is_some_and(|open| open.strong_count() == 0) {
            volumes.remove(&replica.name());
        }
        // Under the lock, so that nobody opens the replica while it is being left.
        if let Err(e) = replica.close() {
            tracing::warn!("closing volume {}: {e}", replica.name());
        }
    }
}

impl Volume {
    pub(crate) fn new(open: Arc<Open>) -> Volume {
        Volume { open }
    }

    pub(crate) fn replica(&self) -> Arc<Replica> {
        self.open.replica()
    }

    /// Does some traffic with the store, alone.
    pub(crate) fn with_traffic<T>(&self, traffic: impl FnOnce(&Arc<Replica>) -> Result<T>) -> Result<T> {
        self.open.with_traffic(traffic)
    }

    /// Its name here.
    pub fn name(&self) -> VolumeName {
        self.replica().name()
    }

    /// The visible snapshot. Takes no lock and never waits.
    pub fn snapshot(&self) -> Snapshot {
        self.open.replica.load().snapshot()
    }

    /// Begins a transaction on `on`. `Busy`: another writer, a pull or a reset
    /// is at it. `Conflict`: `on` is not the visible snapshot any more.
    /// `who` is shown to others meanwhile.
    pub fn writer(&self, on: &Snapshot, who: &str) -> Result<Writer> {
        let replica = self.replica();
        let writer = replica.begin(on, who)?;
        if !Arc::ptr_eq(&replica, &self.replica()) {
            // A reset has put another replica in its place since; this one goes by another name now.
            return Err(crate::replica::outdated(&self.name()));
        }
        Ok(writer)
    }

    /// Pushes what is unpushed.
    pub fn push(&self) -> Result<Moved> {
        self.with_traffic(push::push)
    }

    /// Moves to the store's head.
    pub fn pull(&self) -> Result<Moved> {
        self.with_traffic(pull::pull)
    }

    /// Pulls if behind, pushes if ahead.
    pub fn sync(&self) -> Result<Moved> {
        self.with_traffic(sync)
    }

    /// Learns the store's newest LSN; nothing visible changes.
    pub fn fetch(&self) -> Result<Option<Lsn>> {
        self.with_traffic(|replica| {
            let state = standing::head(replica).inspect_err(|e| replica.note_error(e))?;
            Ok(state.live().map(|head| head.lsn()))
        })
    }

    /// Whether the store has what the replica stands on, by one request: if not, it is another store, or the volume has
    /// ended there.
    pub fn check_store(&self) -> Result<()> {
        self.with_traffic(|replica| standing::check_store(replica).inspect_err(|e| replica.note_error(e)))
    }

    /// What came of a [`push`](Self::push), [`pull`](Self::pull) or [`sync`](Self::sync), for somebody who asked for it
    /// and waits. A push in doubt that opening the volume has found in the store counts, too. Where both sides moved on,
    /// the store is [asked](Self::check_store) whether it is the right one.
    pub fn account(&self, moved: Result<Moved>) -> Result<Moved> {
        match moved {
            Ok(moved) => {
                let settled = std::mem::take(&mut self.replica().notes.lock().settled);
                Ok(moved.after(&settled))
            }
            Err(e) if e.kind() == ErrorKind::Conflict => Err(match self.check_store() {
                Err(why) if matches!(why.kind(), ErrorKind::Conflict | ErrorKind::Gone | ErrorKind::NotFound) => why,
                _ => {
                    self.replica().note_error(&e);
                    e
                }
            }),
            Err(e) => Err(e),
        }
    }

    /// Fetches every page of the visible snapshot that is not here; returns
    /// how many came. `progress` is told (pages here, pages in all).
    pub fn hydrate(&self, progress: &mut (dyn FnMut(u64, u64) + Send)) -> Result<u64> {
        fetch::hydrate(&self.snapshot(), progress)
    }

    /// Checks every page of the visible snapshot against its checksum: those
    /// here as they lie on disk, the others in the store, by fetching them.
    /// Damage does not end it: the error at the end names every damaged page.
    pub fn verify(&self, progress: &mut (dyn FnMut(u64, u64) + Send)) -> Result<Verified> {
        let snapshot = self.snapshot();
        let Some(size) = snapshot.page_size() else { return Ok(Verified::default()) };
        let mut buf = vec![0; size.bytes()];
        let total = u64::from(snapshot.page_count().get());
        let mut damaged = PageSet::new();
        let mut first = None;
        for page in (1..=snapshot.page_count().get()).filter_map(PageIdx::new) {
            match snapshot.read_as_on_disk(page, &mut buf) {
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    damaged.insert(page);
                    first.get_or_insert(e);
                }
                read => read?,
            }
            if page.get().is_multiple_of(1024) {
                progress(page.get().into(), total);
            }
        }
        progress(total, total);
        if let Some(first) = first {
            return Err(first.context(format_args!(
                "volume {}: {} of {total} pages are damaged ({}); the first",
                self.name(),
                damaged.len(),
                ranges_in_words(&damaged)
            )));
        }
        Ok(Verified { pages: total, bytes: snapshot.page_count().bytes(size) })
    }

    /// Returns once `lsn` is durable in the store, or fails after `timeout`.
    pub fn wait(&self, lsn: Lsn, timeout: Duration) -> Result<()> {
        let replica = self.replica();
        let engine = replica.engine();
        let remote = replica.core().state.remote.clone();
        engine.bridge.wait(async {
            let reached = async {
                let metastore = &engine.stores().await?.metastore;
                let head = metastore.head(&remote).await?.head().map(|head| head.lsn());
                if head >= Some(lsn) {
                    return Ok(());
                }
                let mut commits = metastore.watch(&remote, head);
                while let Some(commit) = commits.next().await {
                    if commit?.lsn() >= lsn {
                        return Ok(());
                    }
                }
                Err(Error::unavailable("the store ended the watch"))
            };
            tokio::time::timeout(timeout, reached).await.unwrap_or_else(|_| {
                Err(Error::unavailable(format!("volume {remote}: LSN {lsn} is not in the store after {timeout:?}"))
                    .with_remedy("Push it, or wait longer."))
            })
        })
    }

    /// The log in the store, newest first, back to where the volume began.
    pub fn log(&self) -> Result<Vec<LogEntry>> {
        let replica = self.replica();
        let engine = replica.engine();
        let remote = replica.core().state.remote.clone();
        engine.bridge.wait(async {
            let metastore = &engine.stores().await?.metastore;
            let state = metastore.head(&remote).await?;
            let Some(head) = state.head() else { return Ok(Vec::new()) };
            let headers = log_back(&**metastore, &remote, head.header(), Lsn::FIRST, HEADERS_A_PIECE);
            let entries = headers.map_ok(|header| LogEntry::of(&header, None)).try_collect();
            let times = metastore.stored_times(&remote, Lsn::FIRST, head.lsn());
            let (mut entries, times): (Vec<LogEntry>, _) = futures::future::try_join(entries, times).await?;
            for entry in &mut entries {
                entry.stored_ms = times.get(&entry.lsn).copied();
            }
            Ok(entries)
        })
    }

    /// Hands over every commit after `after` as it appears in the store, until
    /// `each` returns false. Blocks.
    pub fn watch(&self, after: Option<Lsn>, each: &mut (dyn FnMut(LogEntry) -> bool + Send)) -> Result<()> {
        let replica = self.replica();
        let engine = replica.engine();
        let remote = replica.core().state.remote.clone();
        engine.bridge.wait(async {
            let mut commits = engine.stores().await?.metastore.watch(&remote, after);
            while let Some(commit) = commits.next().await {
                if !each(engine.entry(&remote, commit?.header()).await?) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// A small fact that travels with the volume, such as `content` or `length`.
    pub fn attribute(&self, key: &str) -> Option<String> {
        self.snapshot().attribute(key).map(str::to_owned)
    }

    /// What the replica knows of itself and of the store; asks nobody.
    pub fn status(&self) -> Status {
        let replica = self.replica();
        let notes = replica.notes.lock().clone();
        let lineage = replica.lineage.lock().clone();
        let core = replica.core();
        let state = &core.state;
        let by_lineage = || lineage.filter(|l| *l.volume() == state.remote).map(|l| l.incarnation());
        let volume_id = state.volume_id.map(|id| id.to_string()).or_else(by_lineage).filter(|id| !id.is_empty());
        let base_lsn = state.base_lsn();
        let unpushed = state.unpushed() + u64::from(core.undecided.is_some());
        let condition = if state.diverged.is_some() || (notes.ended.is_some() && unpushed > 0) {
            Condition::Diverged
        } else if state.intent.is_some() || core.undecided.is_some() {
            Condition::InDoubt
        } else if unpushed > 0 {
            Condition::Ahead
        } else if notes.store_lsn > base_lsn || notes.ended.is_some() {
            Condition::Behind
        } else {
            Condition::Clean
        };
        let name = replica.name();
        let (last_error, error_remedy) = notes.last_error.unzip();
        let (ended, ended_remedy) = notes.ended.unzip();
        let remedy = match condition {
            Condition::Diverged => ended_remedy.or(Some(format!("quire reset {name}"))),
            Condition::InDoubt => error_remedy.flatten().or(Some(format!("quire push {name}"))),
            _ => error_remedy.flatten().or(ended_remedy),
        };
        let (pages, page_size) = (state.page_count, state.page_size);
        let lsn = if unpushed > 0 { None } else { base_lsn };
        let (store_name, diverged_at) = (state.remote.clone(), state.diverged);
        drop(core);
        let cached_pages = self.snapshot().pages_here();
        Status {
            name,
            store_name,
            volume_id,
            lsn,
            base_lsn,
            store_lsn: notes.store_lsn.max(base_lsn).max(diverged_at),
            unpushed,
            state: condition,
            last_error: last_error.or(ended),
            remedy,
            writer: replica.writer_name(),
            pages,
            page_size,
            cached_pages,
            store: replica.engine().store_url().to_owned(),
        }
    }

    /// Goes to the store's head, whatever is here. Unpushed commits are first
    /// kept as replica `NAME.dropped-N`.
    pub fn reset(&self) -> Result<Reset> {
        self.with_traffic(|replica| self.reset_locked(replica))
    }

    /// The caller has the lock of the traffic.
    fn reset_locked(&self, old: &Arc<Replica>) -> Result<Reset> {
        if old.core().state.intent.is_some() {
            // A push whose outcome is unknown may be in the store: first learn it.
            match push::settle_intent(old) {
                Ok(_) => {}
                // It cannot be put there: diverged, or the store has another history, or a shorter one, or none.
                Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
        let found = standing::head(old).and_then(|found| standing::live_head(old, found));
        let Some(head) = found.inspect_err(|e| old.note_error(e))? else {
            let (name, remote) = (old.name(), old.core().state.remote.clone());
            return Err(Error::not_found(format!("there is no volume {remote} in the store to go to"))
                .with_remedy(format!("Unpushed commits are untouched: `quire push {name}` brings them there.")));
        };
        if !old.core().state.is_ahead() {
            match pull::pull_locked(old) {
                Ok(moved) if moved.pulled.is_some() || old.stands_on(&head.hash()) => {
                    return Ok(Reset { lsn: old.core().state.base_lsn(), kept_as: None });
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Conflict || e.kind() == ErrorKind::Gone => {}
                Err(e) => return Err(e),
            }
        }
        put_aside(old, head.header())?;
        old.with_writer("a reset", || self.replace(old, head))
    }

    /// Puts a replica that begins at `head` in the place of `old`, whose
    /// writer's lock is held: nothing is committed to it meanwhile.
    fn replace(&self, old: &Arc<Replica>, head: quire_proto::SealedCommit) -> Result<Reset> {
        let engine = &self.open.engine;
        let name = old.name();
        let keep = old.core().state.is_ahead();
        old.sync_log()?;
        let lsn = head.lsn();
        let remote = old.core().state.remote.clone();
        let (id, fresh) = engine.replica_at(&name, &remote, head, old.version())?;

        // From here on under the lock that opening takes, so that nobody sees half of it.
        let mut volumes = engine.volumes.lock();
        let mut catalog = engine.catalog.lock();
        let mut changes = vec![Change::Put { name: name.clone(), id, remote: remote.clone() }];
        let mut kept_as = None;
        if keep && let Some(entry) = catalog.get(&name).cloned() {
            let dropped = catalog.name_for_dropped(&name)?;
            changes.push(Change::Put { name: dropped.clone(), id: entry.id, remote });
            kept_as = Some(dropped);
        }
        if let Err(e) = catalog.change(changes) {
            fresh.abandon();
            let _ = remove_folder(fresh.dir());
            return Err(e);
        }
        drop(catalog);
        self.open.replica.store(fresh);
        match &kept_as {
            Some(dropped) => {
                // Snapshots may still read it; whoever opens the dropped volume gets this same replica.
                old.set_name(dropped);
                let open = Open::new(engine, old.clone());
                volumes.insert(dropped.clone(), Arc::downgrade(&open));
                drop(volumes);
                drop(open);
            }
            None => {
                drop(volumes);
                old.remove_after_readers();
            }
        }
        Ok(Reset { lsn: Some(lsn), kept_as })
    }

    /// Gives the volume another name, in the store too if it is there.
    pub(crate) fn rename(&self, new: &VolumeName) -> Result<()> {
        let replica = self.replica();
        let is_its_own = {
            let core = replica.core();
            core.state.own_base().is_some() && core.state.remote == replica.name() && !core.state.is_ahead()
        };
        if is_its_own {
            match self.pull() {
                // Perhaps by this very renaming, which was cut short when the store had decided it: it goes on below.
                Err(e) if e.kind() == ErrorKind::Gone => {}
                Err(e) => return Err(e),
                Ok(_) => {}
            }
        }
        self.with_traffic(|replica| {
            // A push in flight has written segments, and a commit, for the old name.
            match push::settle_intent(replica) {
                // It is not there and never will be, for want of a place: another name may help.
                Err(_) if replica.core().state.intent.is_none() => {}
                settled => {
                    settled?;
                }
            }
            hold::settle(replica);
            // A transaction's decision names its volumes.
            replica.with_writer("a renaming", || self.rename_locked(replica, new))
        })
    }

    /// The caller has the locks of the traffic and of the writer.
    fn rename_locked(&self, replica: &Arc<Replica>, new: &VolumeName) -> Result<()> {
        let engine = replica.engine();
        let old = replica.name();
        let remote = replica.core().state.remote.clone();
        let in_store = replica.core().state.own_base().is_some();
        if in_store && remote == old {
            let first = engine.rename_in_store(&old, new)?;
            let header = first.header();
            let mut core = replica.core();
            let stands_there = match &header.base {
                quire_proto::Base::Other { lsn, .. } => core.state.base_lsn() == Some(*lsn),
                _ => false,
            };
            if !stands_there {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("volume {old} is now {new} in the store, and this replica stands on an older commit of it"),
                )
                .with_remedy(format!("`quire clone {new}` follows it; the replica {old} stays as it is.")));
            }
            replica.change_state(&mut core, StateChange { durable: true, ..StateChange::default() }, |state| {
                state.remote = new.clone();
                state.stand_on(header);
            })?;
            drop(core);
            {
                let mut notes = replica.notes.lock();
                notes.store_lsn = Some(header.lsn);
                (notes.ended, notes.last_error) = (None, None);
            }
            *replica.lineage.lock() = None;
        } else if !in_store {
            let mut core = replica.core();
            replica.change_state(&mut core, StateChange { durable: true, ..StateChange::default() }, |state| {
                state.remote = new.clone();
            })?;
        }
        replica.sync_log()?;
        let remote = replica.core().state.remote.clone();
        let mut volumes = engine.volumes.lock();
        let mut catalog = engine.catalog.lock();
        if let Some(entry) = catalog.get(&old).cloned() {
            let put = Change::Put { name: new.clone(), id: entry.id, remote };
            catalog.change(vec![Change::Remove { name: old.clone() }, put])?;
        }
        drop(catalog);
        replica.set_name(new);
        let weak: Weak<Open> = Arc::downgrade(&self.open);
        volumes.remove(&old);
        volumes.insert(new.clone(), weak);
        Ok(())
    }
}

/// Before a replica's unpushed work is put aside: if the store has moved on without it, what it stands on is held.
fn put_aside(old: &Arc<Replica>, head: &CommitHeader) -> Result<()> {
    {
        let mut core = old.core();
        let state = &core.state;
        let is_passed = state.own_base().is_some_and(|base| base.hash != head.hash());
        if state.is_ahead() && state.diverged.is_none() && is_passed {
            old.change_state(&mut core, StateChange::default(), |state| state.diverged = Some(head.lsn))?;
        }
    }
    match hold::hold_now(old) {
        Err(e) if e.kind() == ErrorKind::Unavailable => Err(e),
        // What is here is kept all the same.
        Err(e) => {
            tracing::warn!("{e}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// A bug has ended a round of the background sync; its message went to standard error, too.
fn panicked(name: &VolumeName, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("it does not say why");
    Error::new(ErrorKind::Io, format!("volume {name}: the background sync broke off: {text}")).with_remedy(
        "Nothing was lost, and the next round tries again. It is a bug: please report it, and what stands on stderr.",
    )
}

/// Pulls if behind, pushes if ahead. The caller has the lock of the traffic.
fn sync(replica: &Arc<Replica>) -> Result<Moved> {
    let moved = hold::around(replica, || {
        if replica.core().state.is_ahead() {
            return push::push_locked(replica);
        }
        match pull::pull_locked(replica) {
            // Committed since: the next round pushes it.
            Err(e) if e.kind() == ErrorKind::Busy => Ok(Moved::default()),
            pulled => pulled,
        }
    });
    moved.inspect_err(|e| replica.note_error(e))
}

/// What a push, a pull or a sync did. Its display is one line for people.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// The LSN that was made, and how many local commits it carries.
    pub pushed: Option<(Lsn, u64)>,
    /// Pages that were sent.
    pub pages_pushed: u64,
    /// Bytes that the store got.
    pub bytes_pushed: u64,
    /// From which LSN to which the base moved.
    pub pulled: Option<(Option<Lsn>, Lsn)>,
    /// Pages that the pull changed.
    pub pages_changed: u64,
}

impl Moved {
    /// Whether nothing was to be done.
    fn is_nothing(&self) -> bool {
        self.pushed.is_none() && self.pulled.is_none()
    }

    /// This and what was settled before it.
    fn after(mut self, settled: &Moved) -> Moved {
        if let Some((lsn, commits)) = settled.pushed {
            let (lsn, later) = self.pushed.unwrap_or((lsn, 0));
            self.pushed = Some((lsn, commits + later));
        }
        self.pages_pushed += settled.pages_pushed;
        self.bytes_pushed += settled.bytes_pushed;
        self
    }

    pub(crate) fn note_push(&mut self, pushed: &push::Pushed) {
        let before = self.pushed.map_or(0, |(_, commits)| commits);
        self.pushed = Some((pushed.lsn, before + pushed.commits));
        self.pages_pushed += pushed.pages;
        self.bytes_pushed += pushed.bytes;
    }
}

/// `1-3, 9, ...`: no more than a line of it.
fn ranges_in_words(pages: &PageSet) -> String {
    const MOST: usize = 10;
    let word = |(first, last): (u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let mut words: Vec<String> = pages.ranges().take(MOST + 1).map(word).collect();
    if words.len() > MOST {
        words[MOST] = "...".to_owned();
    }
    words.join(", ")
}

/// `1 page`, `2 pages`.
fn counted(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((lsn, commits)) = self.pushed {
            write!(
                f,
                "pushed {} as LSN {lsn} ({}, {} bytes)",
                counted(commits, "commit"),
                counted(self.pages_pushed, "page"),
                self.bytes_pushed
            )?;
        }
        if let Some((from, to)) = self.pulled {
            let comma = if self.pushed.is_some() { "; " } else { "" };
            let pages = counted(self.pages_changed, "page");
            match from {
                Some(from) => write!(f, "{comma}pulled LSN {from} to {to} ({pages} changed)")?,
                None => write!(f, "{comma}pulled LSN {to} ({pages})")?,
            }
        }
        if self.is_nothing() {
            f.write_str("nothing to do")?;
        }
        Ok(())
    }
}

/// What a reset did.
#[derive(Clone, Debug)]
pub struct Reset {
    /// The LSN that the replica is at now.
    pub lsn: Option<Lsn>,
    /// The name of the replica that keeps what was unpushed.
    pub kept_as: Option<VolumeName>,
}

/// What a verification checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verified {
    /// Pages.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One commit of a volume's log, for showing.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// The LSN that it made.
    pub lsn: Lsn,
    /// What it did: create, write, void, deleted, moved, fork or restore.
    pub kind: &'static str,
    /// When the store got it, by the store's clock, in milliseconds since 1970 UTC: at that moment it was the newest.
    /// None where nobody asked, or where the log was listed and history does not keep the commit.
    pub stored_ms: Option<u64>,
    /// When it was made, by its author's clock, in milliseconds since 1970 UTC: informative only.
    pub author_ms: u64,
    /// Pages that it changed; unknown for changes so scattered that only the commit's body lists them.
    pub pages_changed: Option<u64>,
    /// Pages of the snapshot.
    pub page_count: PageCount,
    /// Their size.
    pub page_size: PageSize,
    /// Bytes of pages that the commit stored.
    pub bytes: u64,
    /// The name of the attempt.
    pub commit_id: CommitId,
    /// Who made it.
    pub author: String,
    /// The commit's hash.
    pub hash: CommitHash,
}

impl LogEntry {
    pub(crate) fn of(header: &CommitHeader, stored_ms: Option<u64>) -> LogEntry {
        LogEntry {
            lsn: header.lsn,
            kind: header.kind.as_str(),
            stored_ms,
            author_ms: header.time_ms,
            pages_changed: header.sets.as_ref().map(|sets| sets.changed.len()),
            page_count: header.page_count,
            page_size: header.page_size,
            bytes: header.segment_bytes + header.inline_bytes(),
            commit_id: header.id,
            author: header.author.clone(),
            hash: header.hash(),
        }
    }
}

/// How a replica and the store relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The same.
    Clean,
    /// This side has commits that the store has not.
    Ahead,
    /// The store has commits that this side has not.
    Behind,
    /// Both have.
    Diverged,
    /// Whether the last push reached the store is not known.
    InDoubt,
}

impl Condition {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Clean => "clean",
            Condition::Ahead => "ahead",
            Condition::Behind => "behind",
            Condition::Diverged => "diverged",
            Condition::InDoubt => "in_doubt",
        }
    }
}

/// What a replica knows of itself and of the store.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its name here.
    pub name: VolumeName,
    /// The volume's name in the store: that of a clone may be another one here.
    pub store_name: VolumeName,
    /// The id of the commit that began the volume, once it is known.
    pub volume_id: Option<String>,
    /// The LSN that the visible snapshot is; none with unpushed commits on top.
    pub lsn: Option<Lsn>,
    /// The LSN that it stands on.
    pub base_lsn: Option<Lsn>,
    /// The newest LSN in the store that is known here.
    pub store_lsn: Option<Lsn>,
    /// Local commits that are not known to be in the store.
    pub unpushed: u64,
    /// How both relate.
    pub state: Condition,
    /// The last thing that failed.
    pub last_error: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Who holds the writer's lock.
    pub writer: Option<String>,
    /// Pages of the visible snapshot.
    pub pages: PageCount,
    /// Their size.
    pub page_size: Option<PageSize>,
    /// Pages of it that can be read without the store.
    pub cached_pages: u64,
    /// The store's URL.
    pub store: String,
}
