//! SQLite's rollback journals and super-journals.
//!
//! They are needed only while a transaction is open: what the volume holds is
//! decided by the engine's commits. So they stay in this process, and a
//! rollback journal is gone with the last handle on it: one that was left over
//! would be replayed over a volume that never needed it.
//!
//! A super-journal stands for a transaction over several databases. SQLite
//! closes it, and decides the transaction by deleting it; so it is kept until
//! then, together with the *group* of the engine that its volumes' prepared
//! commits belong to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use quire_engine::{Engine, Error, Result};
use quire_proto::CommitId;

use crate::api::Api;
use crate::process;
use crate::spool::Spool;
use crate::temp::VfsRef;

/// Buffers that are kept for the next journals.
const MAX_BUFFERS: usize = 8;

/// The journals of one SQLite.
pub(crate) struct Journals {
    pub(crate) api: Api,
    base: VfsRef,
    by_name: RwLock<HashMap<String, Arc<Journal>>>,
    /// How many there are, for the question that every read transaction asks: is there one?
    count: AtomicUsize,
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Names of databases that are open.
    databases: Mutex<HashMap<String, Arc<Handles>>>,
    groups: Mutex<Groups>,
}

/// The handles on databases of one name.
#[derive(Default)]
pub(crate) struct Handles {
    open: AtomicUsize,
    /// How many of them are in a write transaction.
    writing: AtomicUsize,
}

/// A handle is in a write transaction, until this is dropped.
pub(crate) struct Writing(Arc<Handles>);

impl Writing {
    pub(crate) fn begin(handles: &Arc<Handles>) -> Writing {
        handles.writing.fetch_add(1, Ordering::AcqRel);
        Writing(handles.clone())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.writing.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One journal: what all handles on it share.
pub(crate) struct Journal {
    name: String,
    /// A fork's child must not write into what it shares with its parent.
    pid: u32,
    is_super: bool,
    spool: Mutex<Option<Spool>>,
    /// The super-journal that a rollback journal says it belongs to.
    belongs_to: Mutex<Option<String>>,
    /// The journals that a super-journal names.
    members: Mutex<HashSet<String>>,
    handles: AtomicUsize,
}

/// Transactions over several volumes, by the names of their super-journals.
struct Groups {
    nonce: String,
    next: u64,
    open: HashMap<String, Group>,
}

struct Group {
    id: String,
    /// More than one only where a program registered several data directories.
    engines: Vec<Arc<Engine>>,
    members: usize,
}

impl Journals {
    pub(crate) fn new(api: Api, base: VfsRef) -> Result<Journals> {
        let nonce = format!("{:?}", CommitId::random()?);
        Ok(Journals {
            api,
            base,
            by_name: RwLock::default(),
            count: AtomicUsize::new(0),
            buffers: Mutex::default(),
            databases: Mutex::default(),
            groups: Mutex::new(Groups { nonce, next: 0, open: HashMap::new() }),
        })
    }

    /// Opens the journal of this name. With `create` a rollback journal is begun: it is one connection's, whoever else writes
    /// one of that name. A super-journal that is not known is another VFS's, as
    /// SQLite opens those that exist only: it has no journals of volumes to name, and begins empty and without its name.
    pub(crate) fn open(&self, name: &str, is_super: bool, create: bool) -> Option<Arc<Journal>> {
        let mut by_name = self.by_name.write();
        let journal = match by_name.get(name) {
            Some(journal) if is_super || !create => journal.clone(),
            _ if create || is_super => {
                let buffer = self.buffers.lock().pop().unwrap_or_default();
                let journal = Arc::new(Journal {
                    name: name.to_owned(),
                    pid: process::id(),
                    is_super,
                    spool: Mutex::new(Some(Spool::new(self.base, buffer))),
                    belongs_to: Mutex::new(None),
                    members: Mutex::default(),
                    handles: AtomicUsize::new(0),
                });
                if create {
                    by_name.insert(name.to_owned(), journal.clone());
                    self.count.store(by_name.len(), Ordering::Release);
                }
                journal
            }
            _ => return None,
        };
        journal.handles.fetch_add(1, Ordering::AcqRel);
        Some(journal)
    }

    /// Gives a handle back. The last one on a rollback journal ends it.
    pub(crate) fn close(&self, journal: &Arc<Journal>) {
        let mut by_name = self.by_name.write();
        if journal.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let is_named = by_name.get(&journal.name).is_some_and(|named| Arc::ptr_eq(named, journal));
        if journal.is_super && is_named {
            return;
        }
        if is_named {
            by_name.remove(&journal.name);
            self.count.store(by_name.len(), Ordering::Release);
        }
        drop(by_name);
        let spool = journal.spool.lock().take();
        let mut buffers = self.buffers.lock();
        if let (Some(spool), true) = (spool, buffers.len() < MAX_BUFFERS) {
            buffers.push(spool.into_buffer());
        }
    }

    /// Whether there is a journal of this name.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.by_name.read().contains_key(name)
    }

    /// Whether a journal belongs to this super-journal, of whichever VFS, whose transaction is not
    /// [decided](Self::note_decision).
    pub(crate) fn is_undecided(&self, super_journal: &str) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.by_name.read().values().any(|j| j.belongs_to.lock().as_deref() == Some(super_journal))
    }

    /// The transaction with this super-journal counts, whatever SQLite is told: its journals roll nothing back.
    pub(crate) fn note_decision(&self, super_journal: &str) {
        for journal in self.by_name.read().values() {
            journal.belongs_to.lock().take_if(|name| name == super_journal);
        }
    }

    /// Whether the journal of this name is a super-journal.
    pub(crate) fn is_super(&self, name: &str) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.by_name.read().get(name).is_some_and(|j| j.is_super)
    }

    /// Takes a journal's name away; handles on it go on.
    pub(crate) fn delete(&self, name: &str) {
        let mut by_name = self.by_name.write();
        by_name.remove(name);
        self.count.store(by_name.len(), Ordering::Release);
    }

    /// A database was opened under this name.
    pub(crate) fn add_database(&self, name: &str) -> Arc<Handles> {
        let mut databases = self.databases.lock();
        let handles = databases.entry(name.to_owned()).or_default();
        handles.open.fetch_add(1, Ordering::AcqRel);
        handles.clone()
    }

    /// And closed.
    pub(crate) fn remove_database(&self, name: &str) {
        let mut databases = self.databases.lock();
        if databases.get(name).is_some_and(|handles| handles.open.fetch_sub(1, Ordering::AcqRel) == 1) {
            databases.remove(name);
        }
    }

    /// Checks what SQLite writes into a super-journal: the name of one
    /// database's journal. If that database were an ordinary file, the process
    /// could die between its half of the transaction and the decision; its own
    /// recovery would look for the super-journal as a file, find none, and take
    /// the half for the whole. A file may have a volume's name: then the
    /// volume is not being written to, or the name comes twice.
    pub(crate) fn check_member(&self, super_journal: &Journal, journal: &[u8]) -> Result<()> {
        let name = String::from_utf8_lossy(journal);
        let name = name.trim_end_matches('\0');
        let database = name.strip_suffix("-journal").unwrap_or(name);
        let is_first = super_journal.members.lock().insert(name.to_owned());
        let is_written = |handles: &Arc<Handles>| handles.writing.load(Ordering::Acquire) > 0;
        if is_first && self.databases.lock().get(database).is_some_and(is_written) {
            return Ok(());
        }
        Err(Error::invalid(format!("one transaction over a volume and over {database}, which is not a volume"))
            .with_remedy("Write to them in two transactions, or put both into volumes."))
    }

    /// The group of the transaction with this super-journal; the caller is a member from now on.
    pub(crate) fn join_group(&self, super_journal: &str, engine: &Arc<Engine>) -> String {
        let mut groups = self.groups.lock();
        groups.next += 1;
        let id = format!("{} {}", groups.nonce, groups.next);
        let group =
            groups.open.entry(super_journal.to_owned()).or_insert(Group { id, engines: Vec::new(), members: 0 });
        group.members += 1;
        if !group.engines.iter().any(|known| Arc::ptr_eq(known, engine)) {
            group.engines.push(engine.clone());
        }
        group.id.clone()
    }

    /// A member's part is over, one way or the other.
    pub(crate) fn leave_group(&self, super_journal: &str) {
        let mut groups = self.groups.lock();
        if let Some(group) = groups.open.get_mut(super_journal) {
            group.members -= 1;
            if group.members == 0 {
                groups.open.remove(super_journal);
            }
        }
    }

    /// Decides that the transaction with this super-journal counts.
    pub(crate) fn decide(&self, super_journal: &str) -> Result<()> {
        let (engines, id) = match self.groups.lock().open.get(super_journal) {
            Some(group) => (group.engines.clone(), group.id.clone()),
            None => return Ok(()),
        };
        engines.iter().try_for_each(|engine| engine.decide(&id))
    }
}

impl Journal {
    /// Refuses a fork's child.
    pub(crate) fn check_process(&self) -> Result<()> {
        process::check(self.pid, || format!("journal {}", self.name))
    }

    pub(crate) fn is_super_journal(&self) -> bool {
        self.is_super
    }

    /// Learns the super-journal from what SQLite writes: its name, in one piece.
    pub(crate) fn note(&self, bytes: &[u8]) {
        // Pages, and what is written of them, have other lengths or other ends.
        if bytes.len() < 512
            && let Ok(name) = std::str::from_utf8(bytes)
            && is_super_name(name)
        {
            *self.belongs_to.lock() = Some(name.to_owned());
        }
    }

    /// Does something with the bytes.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Spool) -> Result<T>) -> Result<T> {
        match &mut *self.spool.lock() {
            Some(spool) => work(spool),
            None => Err(Error::invalid(format!("journal {} is closed", self.name))),
        }
    }
}

/// Whether SQLite gives such names to super-journals.
pub(crate) fn is_super_name(name: &str) -> bool {
    let end = name.len().checked_sub("-mjXXXXXX9XX".len()).and_then(|at| name.get(at..));
    end.is_some_and(|end| end.starts_with("-mj"))
}
