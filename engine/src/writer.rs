//! One transaction on a replica.
//!
//! Pages are staged as the records that they will be in the log, so that a
//! small commit is one write. Past [`SPILL_BYTES`] they go to the log at once;
//! without a commit record after them they mean nothing. So memory stays
//! bounded whatever the transaction's size.

use std::collections::HashMap;
use std::sync::Arc;

use quire_proto::{Attributes, Error, ErrorKind, LocalTip, PageCount, PageIdx, PageSet, PageSize, Result};

use crate::log::{Batch, RecordKind};
use crate::replica::Replica;
use crate::snapshot::Snapshot;
use crate::state::CommitRecord;
use crate::table::{Cell, Pages, Table};

/// Staged pages above this many bytes are written to the log.
const SPILL_BYTES: usize = 4 << 20;

/// One transaction. Dropping it rolls back.
pub struct Writer {
    replica: Arc<Replica>,
    snapshot: Snapshot,
    seq: u64,
    page_size: Option<PageSize>,
    page_count: PageCount,
    low_count: PageCount,
    changed: PageSet,
    attributes: Attributes,
    /// Staged in memory; `slots` says which record holds a page.
    batch: Batch,
    slots: HashMap<PageIdx, usize>,
    /// Staged in the log.
    spilled: Table,
    touched: bool,
    prepared: Option<Prepared>,
    /// The lock stays taken when this is dropped.
    keeps_lock: bool,
}

/// A commit whose record is in the log and waits for its group's decision.
struct Prepared {
    group: [u8; 16],
    commit: CommitRecord,
}

impl Writer {
    pub(crate) fn new(replica: Arc<Replica>, snapshot: Snapshot, seq: u64) -> Writer {
        Writer {
            page_size: snapshot.page_size(),
            page_count: snapshot.page_count(),
            low_count: snapshot.page_count(),
            attributes: snapshot.attributes().clone(),
            replica,
            snapshot,
            seq,
            changed: PageSet::new(),
            batch: Batch::default(),
            slots: HashMap::new(),
            spilled: Table::default(),
            touched: false,
            prepared: None,
            keeps_lock: false,
        }
    }

    /// The snapshot that the transaction began on.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The size of the pages to be written. Must be said before the first
    /// [`write`](Self::write) to a new volume. A size other than the
    /// snapshot's (VACUUM changed it) drops what is staged: all pages of the
    /// new snapshot then come from this writer.
    pub fn set_page_size(&mut self, size: PageSize) -> Result<()> {
        if self.page_size == Some(size) {
            return Ok(());
        }
        self.touched |= self.page_size.is_some();
        self.page_size = Some(size);
        self.low_count = PageCount::ZERO;
        self.page_count = PageCount::ZERO;
        self.changed = PageSet::new();
        self.batch.clear();
        self.slots.clear();
        self.spilled = Table::default();
        Ok(())
    }

    /// The size of the transaction's pages, if it is known yet.
    pub fn page_size(&self) -> Option<PageSize> {
        self.page_size
    }

    /// Stages a page. `data` is one page long.
    pub fn write(&mut self, page: PageIdx, data: &[u8]) -> Result<()> {
        if self.page_size.map(PageSize::bytes) != Some(data.len()) {
            return Err(Error::invalid(format!("page {page} of {} bytes in a volume with other pages", data.len())));
        }
        self.touched = true;
        if let Some(slot) = self.slots.get(&page) {
            self.batch.payload_mut(*slot).copy_from_slice(data);
        } else {
            if self.batch.bytes() + data.len() > SPILL_BYTES {
                self.spill()?;
            }
            self.slots.insert(page, self.batch.len());
            self.batch.push(RecordKind::Page, page.get(), self.seq, data);
        }
        self.changed.insert(page);
        self.page_count = self.page_count.max(PageCount::new(page.get()));
        Ok(())
    }

    /// Copies a page into `buf`: as staged, else as in the snapshot.
    pub fn read(&self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        if let Some(slot) = self.slots.get(&page) {
            buf.copy_from_slice(self.batch.payload(*slot));
            return Ok(());
        }
        if let Cell::At { place, .. } = self.spilled.get(page) {
            return self.replica.read_place(place, page, buf, false);
        }
        if self.low_count.contains(page) {
            self.snapshot.read(page, buf)
        } else {
            buf.fill(0);
            Ok(())
        }
    }

    /// Pages past `count` go. If the volume grows again, what is not written reads as zeros. A commit that is
    /// [prepared](Self::prepare) stays as it is.
    pub fn truncate(&mut self, count: PageCount) -> Result<()> {
        if count == self.page_count || self.prepared.is_some() {
            return Ok(());
        }
        self.touched = true;
        if count < self.page_count {
            self.low_count = self.low_count.min(count);
            self.changed.truncate(count);
            self.slots.retain(|page, _| count.contains(*page));
            self.spilled.set_range(count.get().saturating_add(1), self.page_count.get(), Cell::Absent);
        }
        self.page_count = count;
        Ok(())
    }

    /// How many pages the volume has if the transaction commits.
    pub fn page_count(&self) -> PageCount {
        self.page_count
    }

    /// Whether a commit would change nothing.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
            && self.page_count == self.snapshot.page_count()
            && self.low_count == self.snapshot.page_count()
            && self.page_size == self.snapshot.page_size()
            && self.attributes == *self.snapshot.attributes()
    }

    /// Sets a small fact that travels with the volume.
    pub fn set_attribute(&mut self, key: &str, value: &str) {
        self.attributes.insert(key.to_owned(), value.to_owned());
    }

    fn spill(&mut self) -> Result<()> {
        let first = self.replica.append_spill(&mut self.batch)?;
        for (n, (page, place)) in self.batch.pages(first).enumerate() {
            // A page that was truncated away, and perhaps written again, has a record of its own that means nothing.
            if self.slots.get(&page) == Some(&n) {
                self.spilled.set(page, Cell::At { place, verified: true });
            }
        }
        self.batch.clear();
        self.slots.clear();
        Ok(())
    }

    /// Reserves the disk space of the commit, publishing nothing: a full disk shows here.
    pub fn stage(&mut self) -> Result<()> {
        self.replica.reserve(self.batch.bytes() as u64)
    }

    /// Writes the commit so that it counts only once [`Engine::decide`](crate::Engine::decide)
    /// has decided `group`, also after a crash. [`commit`](Self::commit) then only makes it visible.
    ///
    /// With `sync=commit` it is `Invalid`: the store takes the commit of one volume at a time.
    pub fn prepare(&mut self, group: &str, durable: bool) -> Result<()> {
        if self.replica.commits_to_store() {
            return Err(Error::invalid(format!(
                "volume {}: a transaction over several databases cannot be committed into the store at once",
                self.replica.name()
            ))
            .with_remedy(
                "With sync=commit, write to each of them in a transaction of its own (BEGIN IMMEDIATE takes in all that are \
                 attached: use BEGIN, or DETACH). Or use sync=manual, and push after.",
            ));
        }
        let group = group_id(group);
        let commit = self.record(Some(group))?;
        let (commit, pages) = self.replica.prepare(&mut self.batch, &self.spilled, commit, self.seq, durable)?;
        // Somebody may be served the version that it is going to have.
        self.touched = true;
        self.batch.clear();
        self.slots.clear();
        pages.staged.iter().for_each(|(page, place)| self.spilled.set(*page, Cell::at(*place)));
        self.replica.engine().groups.join(group, self.replica.name());
        self.prepared = Some(Prepared { group, commit });
        Ok(())
    }

    fn record(&self, group: Option<[u8; 16]>) -> Result<CommitRecord> {
        let Some(page_size) = self.page_size else {
            return Err(Error::invalid("nothing was written, so the volume has no page size yet"));
        };
        Ok(CommitRecord {
            page_size,
            page_count: self.page_count,
            low_count: self.low_count,
            changed: self.changed.clone(),
            attributes: self.attributes.clone(),
            tip: LocalTip::ZERO, // set when the log's order gives it a predecessor
            synced: 0,
            group,
        })
    }

    /// Commits: one sequential write, and one `fdatasync` if `durable`. On an
    /// error nothing of it is visible, now or after a crash.
    ///
    /// With `sync=commit` it returns once the commit is in the store.
    pub fn commit(mut self, durable: bool) -> Result<Snapshot> {
        self.make_commit(durable)
    }

    /// Commits, and begins the next transaction as [`go_on`](Self::go_on)
    /// does, whether the commit succeeded or not.
    pub fn commit_and_go_on(mut self, durable: bool) -> (Result<Snapshot>, Result<Writer>) {
        let committed = self.make_commit(durable);
        (committed, self.go_on())
    }

    /// Rolls back, and begins the next transaction on what is visible then.
    /// The writer's lock is kept: nobody writes in between.
    pub fn go_on(mut self) -> Result<Writer> {
        let replica = self.replica.clone();
        self.keeps_lock = true;
        drop(self);
        replica.begin_next()
    }

    fn make_commit(&mut self, durable: bool) -> Result<Snapshot> {
        if let Some(prepared) = self.prepared.take() {
            let refused = match self.replica.engine().groups.is_decided(prepared.group) {
                Ok(true) => return Ok(self.publish(&prepared)),
                Ok(false) => Error::new(ErrorKind::Conflict, "the transaction's other volumes did not commit")
                    .with_remedy("It is rolled back in all of them: run it again."),
                Err(e) => e,
            };
            self.prepared = Some(prepared);
            return Err(refused);
        }
        if self.is_empty() {
            return Ok(self.snapshot.clone());
        }
        let commit = self.record(None)?;
        let snapshot = if self.replica.commits_to_store() {
            let snapshot =
                crate::push::commit_to_store(&self.replica, self.seq, commit, &mut self.batch, &self.spilled)?;
            self.replica.engine().trim_cache();
            snapshot
        } else {
            self.replica.commit(&mut self.batch, &self.spilled, commit, self.seq, durable)?
        };
        self.touched = false;
        Ok(snapshot)
    }

    /// Makes a decided commit visible.
    fn publish(&mut self, prepared: &Prepared) -> Snapshot {
        self.touched = false;
        let pages = Pages { spilled: self.spilled.clone(), staged: Vec::new() };
        let (snapshot, settled) = self.replica.publish_prepared(self.seq, &prepared.commit, &pages);
        if settled {
            self.replica.engine().groups.settled(prepared.group);
        }
        snapshot
    }

    /// Takes a prepared commit back, or lets it count if it was decided after all.
    fn leave_group(&mut self, prepared: &Prepared) {
        let groups = &self.replica.engine().groups;
        if !groups.leave(prepared.group, &self.replica.name()) {
            self.publish(prepared);
            return;
        }
        if let Err(e) = self.replica.take_back(self.seq, groups.is_unclear(prepared.group)) {
            // Without a decision the commit does not count after a restart either.
            tracing::warn!("volume {}: {e}", self.replica.name());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            self.leave_group(&prepared);
        }
        if self.keeps_lock {
            self.replica.end_transaction(self.touched);
        } else {
            self.replica.release_writer(self.touched);
        }
    }
}

/// The id of a group of prepared commits.
pub(crate) fn group_id(group: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(group.as_bytes()).as_bytes()[..16]);
    id
}
