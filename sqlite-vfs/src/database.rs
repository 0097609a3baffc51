//! One connection's handle on one volume: what SQLite's locks, reads, writes
//! and commits mean there.
//!
//! | SQLite | Quire |
//! |---|---|
//! | `SHARED` | holds the visible snapshot; reads come from it until `NONE` |
//! | `RESERVED` | holds the replica's writer lock, on that snapshot |
//! | writes, truncation | are staged in a [`Change`] |
//! | `FCNTL_SYNC` | the disk space is reserved; with a super-journal the commit is prepared |
//! | `FCNTL_COMMIT_PHASETWO` | **the commit** |
//! | below `RESERVED` without it | the rollback |
//!
//! `FCNTL_SYNC` cannot be the commit: SQLite sends it also when it rolls back
//! after spilling, and before the final truncation. `PHASETWO` comes last, never
//! in a rollback, in every journal mode; and its error reaches the user.
//!
//! In `locking_mode=EXCLUSIVE` no unlock comes between transactions, and the
//! writer's lock is kept. Then a write or a second `FCNTL_SYNC` after the first
//! one, without `PHASETWO`, shows that a transaction was rolled back; and a look
//! at the change counter, that one failed with its journal ended. Either way
//! the staging begins again from the snapshot.

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::Arc;

use libsqlite3_sys as ffi;
use quire_engine::{Error, ErrorKind, Result, Snapshot};

use crate::change::Change;
use crate::guide::Guide;
use crate::header::{self, HEADER_BYTES};
use crate::instance::Instance;
use crate::journal::{Handles, Writing};
use crate::process;
use crate::view::{FirstPage, View};
use crate::volumes::OpenVolume;

/// What `synchronous` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Synchronous {
    /// SQLite does not even ask for syncs.
    Off,
    /// Commits may be lost with the power.
    Normal,
    /// They may not.
    Full,
}

/// Offset and length of the read by which SQLite finds out whether its cache
/// is still good. It does so between transactions only.
const CHANGE_CHECK: (u64, usize) = (24, 16);

/// A connection may write without a lock of its own: with `nolock=1`, or in exclusive mode once the lock could not be kept
/// after a commit. If somebody else has committed, SQLite's cache is old then, and has to go. After one write has failed
/// SQLite rolls back: it writes what it had read back, from its journal, and keeps its cache. It drops it only if that
/// fails too, or the commit. Then it tries once more, into an empty cache, and looks at the change counter, which is when
/// the newest snapshot is taken. What it writes before that is of the old one, goes nowhere, and cannot be committed.
const DROPS_CACHE: u8 = 2;

/// One connection's handle on one volume.
pub(crate) struct Database {
    pub(crate) instance: &'static Instance,
    pub(crate) open: Arc<OpenVolume>,
    /// The name that SQLite knows it by.
    name: String,
    handles: Arc<Handles>,
    writing: Option<Writing>,
    who: String,
    pid: u32,
    /// No lock calls will come (`immutable=1`, `nolock=1`).
    is_unlocked: bool,
    level: c_int,
    snapshot: Option<Snapshot>,
    change: Option<Change>,
    pub(crate) synchronous: Synchronous,
    pub(crate) journal_mode: &'static str,
    /// Where SQLite keeps the connection that this handle belongs to.
    pub(crate) connection: *mut *mut ffi::sqlite3,
    first_page: FirstPage,
    guide: RefCell<Guide>,
    /// How many writes were refused because no transaction could begin; see [`DROPS_CACHE`].
    refusals: u8,
    /// SQLite's cache is not what was stored: the next look at the change counter must say so.
    distrusts_cache: bool,
}

/// What a connection has open at one moment, for its SQL functions and tables: with `cache=shared` another thread may use
/// the same handle as soon as SQLite's lock on it is given back.
pub(crate) struct Glance {
    pub(crate) open: Arc<OpenVolume>,
    /// The snapshot that is read.
    pub(crate) snapshot: Snapshot,
    /// Whether the connection holds the replica's writer lock.
    pub(crate) is_writing: bool,
}

impl Database {
    /// A handle on an open volume, for the database that SQLite calls `name`.
    pub(crate) fn new(instance: &'static Instance, open: Arc<OpenVolume>, name: &str, is_unlocked: bool) -> Database {
        let handles = instance.journals.add_database(name);
        let pid = process::id();
        Database {
            instance,
            snapshot: is_unlocked.then(|| open.volume.snapshot()),
            open,
            name: name.to_owned(),
            // No lock will tell when it writes.
            writing: is_unlocked.then(|| Writing::begin(&handles)),
            handles,
            who: format!("a SQLite connection of process {pid}"),
            pid,
            is_unlocked,
            level: ffi::SQLITE_LOCK_NONE,
            change: None,
            synchronous: Synchronous::Full,
            journal_mode: "delete",
            connection: std::ptr::null_mut(),
            first_page: FirstPage::default(),
            guide: RefCell::default(),
            refusals: 0,
            distrusts_cache: false,
        }
    }

    /// Whether this process is the one that opened it, not a fork's child.
    pub(crate) fn is_at_home(&self) -> bool {
        self.pid == process::id()
    }

    /// Refuses a fork's child. SQLite asks for no lock where the parent had it at the fork, so each call looks.
    pub(crate) fn check_process(&self) -> Result<()> {
        process::check(self.pid, || format!("volume {}", self.name))
    }

    /// The lock that SQLite holds.
    pub(crate) fn level(&self) -> c_int {
        self.level
    }

    /// The snapshot that is read now.
    fn snapshot(&self) -> Snapshot {
        self.snapshot.clone().unwrap_or_else(|| self.open.volume.snapshot())
    }

    pub(crate) fn glance(&self) -> Result<Glance> {
        self.check_process()?;
        Ok(Glance { open: self.open.clone(), snapshot: self.snapshot(), is_writing: self.change.is_some() })
    }

    pub(crate) fn lock(&mut self, level: c_int) -> Result<()> {
        self.check_process()?;
        if self.snapshot.is_none() {
            self.snapshot = Some(self.open.volume.snapshot());
        }
        if level >= ffi::SQLITE_LOCK_RESERVED && self.change.is_none() {
            self.change = Some(Change::begin(&self.open, &self.snapshot(), &self.who)?);
        }
        if level >= ffi::SQLITE_LOCK_RESERVED {
            self.writing.get_or_insert_with(|| Writing::begin(&self.handles));
        }
        self.level = self.level.max(level);
        Ok(())
    }

    pub(crate) fn unlock(&mut self, level: c_int) {
        if level < ffi::SQLITE_LOCK_RESERVED {
            self.roll_back();
            self.writing.take_if(|_| !self.is_unlocked);
        }
        if level == ffi::SQLITE_LOCK_NONE && !self.is_unlocked {
            self.snapshot = None;
            self.refusals = 0;
        }
        self.level = level;
    }

    fn roll_back(&mut self) {
        let Some(change) = self.change.take() else { return };
        if !self.is_at_home() {
            // The files are the parent's.
            std::mem::forget(change);
            return;
        }
        let super_journal = change.super_journal.clone();
        change.discard();
        self.leave_group(super_journal);
    }

    /// Rolls back and keeps the writer's lock, as `locking_mode=EXCLUSIVE` needs it.
    fn start_over(&mut self) {
        if !self.is_at_home() {
            return self.roll_back();
        }
        let Some(change) = self.change.take() else { return };
        let super_journal = change.super_journal.clone();
        let next = change.go_on();
        self.leave_group(super_journal);
        self.go_on(next);
    }

    fn go_on(&mut self, next: Result<Change>) {
        match next {
            Ok(next) => {
                self.snapshot = Some(next.snapshot().clone());
                self.change = Some(next);
            }
            // The next write tries again, and tells the user.
            Err(e) => tracing::debug!("after a transaction: {e:?}"),
        }
    }

    fn leave_group(&self, super_journal: Option<String>) {
        if let Some(name) = super_journal {
            self.instance.journals.leave_group(&name);
        }
    }

    fn view<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        // A snapshot is shared by all readers: counting references at each page would slow them all down.
        let of = |snapshot: &Snapshot| look(View { open: &self.open, snapshot, change: self.change.as_ref() });
        match &self.snapshot {
            Some(snapshot) => of(snapshot),
            None => of(&self.open.volume.snapshot()),
        }
    }

    /// How many bytes the database has.
    pub(crate) fn size(&self) -> u64 {
        self.view(|view| view.size())
    }

    /// Copies what is at `offset`; zeros past the end. Says whether all of it lay before the end.
    pub(crate) fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<bool> {
        self.check_process()?;
        if (offset, buf.len()) == CHANGE_CHECK {
            if self.change.as_ref().is_some_and(|change| !change.is_untouched()) {
                self.start_over();
            }
            if std::mem::take(&mut self.refusals) > 0 {
                let newest = self.open.volume.snapshot();
                if self.level >= ffi::SQLITE_LOCK_RESERVED {
                    // SQLite believes that it has the lock still.
                    self.change = Change::begin(&self.open, &newest, &self.who).ok();
                }
                self.snapshot = Some(newest);
            }
        }
        if self.change.is_none() && offset + buf.len() as u64 <= HEADER_BYTES as u64 {
            return self.read_header(buf, offset as usize);
        }
        self.view(|view| view.read(buf, offset, &self.guide))
    }

    /// SQLite looks at the header at the beginning of every transaction.
    fn read_header(&mut self, buf: &mut [u8], offset: usize) -> Result<bool> {
        let mut first_page = std::mem::take(&mut self.first_page);
        let header = self.view(|view| view.header(&mut first_page));
        self.first_page = first_page;
        let Some(mut header) = header? else {
            buf.fill(0);
            return Ok(false);
        };
        if self.distrusts_cache && (self.level > ffi::SQLITE_LOCK_NONE || self.is_unlocked) {
            self.distrusts_cache = false;
            let counter = header::change_counter(&header);
            header::set_change_counter(&mut header, !counter);
        }
        buf.copy_from_slice(&header[offset..offset + buf.len()]);
        Ok(true)
    }

    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.check_process()?;
        if self.change.as_ref().is_some_and(|change| change.is_announced) {
            self.start_over();
        }
        if self.refusals >= DROPS_CACHE {
            return Ok(());
        }
        self.staging()?.write(bytes, offset)
    }

    pub(crate) fn truncate(&mut self, bytes: u64) -> Result<()> {
        self.check_process()?;
        if self.refusals >= DROPS_CACHE {
            return Ok(());
        }
        self.staging()?.truncate(bytes)
    }

    /// The open transaction. If none is, SQLite holds its lock from an earlier
    /// one (`locking_mode=EXCLUSIVE`) or takes no locks (`nolock=1`).
    fn staging(&mut self) -> Result<&mut Change> {
        if self.change.is_none() {
            match Change::begin(&self.open, &self.snapshot(), &self.who) {
                Ok(change) => (self.change, self.refusals) = (Some(change), 0),
                Err(e) => {
                    self.refusals = self.refusals.saturating_add(1);
                    return Err(e);
                }
            }
        }
        self.change.as_mut().ok_or_else(|| Error::invalid("no transaction is open"))
    }

    /// Only a commit asks: one whose writes went nowhere is none.
    fn check_nothing_was_refused(&self) -> Result<()> {
        match self.refusals {
            0 => Ok(()),
            _ => Err(Error::new(ErrorKind::Conflict, format!("volume {}: its snapshot was not the newest", self.name))
                .with_remedy("Run the transaction again: it begins on the newest one then.")),
        }
    }

    /// SQLite asks for an fsync, which is made when it commits.
    pub(crate) fn sync(&mut self) {
        if let Some(change) = &mut self.change {
            change.wants_sync = true;
        }
    }

    /// `FCNTL_SYNC`: everything is written. A full disk must show now, and
    /// with a super-journal every other failure too: after its deletion SQLite
    /// does not listen any more.
    pub(crate) fn announce(&mut self, super_journal: Option<&str>) -> Result<()> {
        self.check_process()?;
        if self.change.as_ref().is_some_and(|change| change.is_announced) {
            self.start_over();
        }
        if super_journal.is_some() {
            self.check_nothing_was_refused()?;
        }
        let durable = self.synchronous >= Synchronous::Full;
        let Some(change) = self.change.as_mut().filter(|change| !change.is_untouched()) else { return Ok(()) };
        change.is_announced = true;
        let Some(name) = super_journal else { return change.reserve() };
        let journals = &self.instance.journals;
        let group = journals.join_group(name, &self.open.engine);
        // Another VFS's super-journal goes without a word to this one: the decision follows it when nobody listens.
        let is_ours = journals.is_super(name);
        let prepared = change
            .prepare(&mut self.first_page, &group, durable)
            .and_then(|()| if is_ours { Ok(()) } else { self.open.engine.make_decidable(&group) });
        match prepared {
            Ok(()) => change.super_journal = Some(name.to_owned()),
            Err(_) => journals.leave_group(name),
        }
        prepared
    }

    /// `FCNTL_COMMIT_PHASETWO`: the commit.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.check_process()?;
        self.check_nothing_was_refused()?;
        let Some(change) = self.change.take_if(|change| !change.is_untouched()) else { return Ok(()) };
        let durable = change.wants_sync && self.synchronous >= Synchronous::Full;
        let left_wal_mode = change.left_wal_mode;
        let super_journal = change.super_journal.clone();
        // Decided already, unless the super-journal is another VFS's; then it is now.
        let decided = super_journal.as_ref().map_or(Ok(()), |name| self.instance.journals.decide(name));
        let (committed, next) = match decided {
            Ok(()) => change.commit(&mut self.first_page, durable, self.instance.base),
            Err(e) => (Err(e), change.go_on()),
        };
        self.leave_group(super_journal);
        if let Ok(Some(snapshot)) = &committed {
            self.snapshot = Some(snapshot.clone());
        }
        if !self.is_unlocked {
            // SQLite holds its lock still. In exclusive mode it goes on to write with it,
            // so nobody else may come in between; else an unlock follows.
            self.go_on(next);
        }
        committed?;
        self.distrusts_cache |= left_wal_mode;
        self.open.forget_error();
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.roll_back();
        self.instance.journals.remove_database(&self.name);
    }
}
