//! What one transaction of SQLite has written so far.
//!
//! SQLite writes whole pages, with two exceptions that the page number alone
//! does not tell: VACUUM to another page size writes the new database in pages
//! of the *old* size and only its header says the new one; and the last page
//! of such a database may be cut in the middle.

use std::sync::Arc;

use quire_engine::{PageCount, PageIdx, PageSize, Result, Snapshot, Writer};

use crate::header;
use crate::spool::Spool;
use crate::temp::VfsRef;
use crate::view::{FirstPage, page_at};
use crate::volumes::OpenVolume;

/// An open write transaction: the replica's writer lock, and what is staged.
pub(crate) struct Change {
    writer: Writer,
    /// Page 1, kept back until the commit: most commits only count up in it, and then it is not written.
    first_page: Option<Vec<u8>>,
    /// The size in bytes, where it is not a whole number of pages.
    odd_size: Option<u64>,
    /// Nothing of the snapshot's page 1 is left.
    is_rewritten: bool,
    /// The header asked for WAL mode, and does so in SQLite's cache still.
    pub(crate) left_wal_mode: bool,
    /// SQLite has announced the commit, or the end of a rollback.
    pub(crate) is_announced: bool,
    /// SQLite has asked for an fsync.
    pub(crate) wants_sync: bool,
    /// The super-journal that decides it.
    pub(crate) super_journal: Option<String>,
}

impl Change {
    /// Takes the writer's lock for a transaction on `snapshot`.
    pub(crate) fn begin(open: &Arc<OpenVolume>, snapshot: &Snapshot, who: &str) -> Result<Change> {
        Ok(Change::new(open.volume.writer(snapshot, who)?))
    }

    fn new(writer: Writer) -> Change {
        Change {
            writer,
            first_page: None,
            odd_size: None,
            is_rewritten: false,
            left_wal_mode: false,
            is_announced: false,
            wants_sync: false,
            super_journal: None,
        }
    }

    /// The snapshot that it began on.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        self.writer.snapshot()
    }

    /// The page size, once it is known.
    pub(crate) fn page_size(&self) -> Option<PageSize> {
        self.writer.page_size()
    }

    /// How many bytes the database has.
    pub(crate) fn size(&self) -> u64 {
        match (self.odd_size, self.writer.page_size()) {
            (Some(bytes), _) => bytes,
            (None, Some(size)) => {
                let kept_back = PageCount::new(u32::from(self.first_page.is_some()));
                self.writer.page_count().max(kept_back).bytes(size)
            }
            (None, None) => 0,
        }
    }

    /// Whether nothing has been written.
    pub(crate) fn is_untouched(&self) -> bool {
        self.first_page.is_none() && self.writer.is_empty()
    }

    /// Whether page 1 was written.
    pub(crate) fn has_first_page(&self) -> bool {
        self.first_page.is_some()
    }

    /// Copies a page as it is now.
    pub(crate) fn read(&self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        match &self.first_page {
            Some(first) if page == PageIdx::FIRST => {
                buf.copy_from_slice(first);
                Ok(())
            }
            _ => self.writer.read(page, buf),
        }
    }

    /// Stages `bytes` at `offset`. The first write to a new volume is one page long and says the page size.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let size = match self.writer.page_size() {
            Some(size) => size,
            None => {
                let size = PageSize::try_new(bytes.len() as u32)?;
                self.writer.set_page_size(size)?;
                size
            }
        };
        let page_bytes = size.bytes() as u64;
        let end = (offset + bytes.len() as u64).max(self.size());
        if bytes.len() == size.bytes() && offset.is_multiple_of(page_bytes) {
            self.write_page(page_at(offset, size)?, bytes)?;
        } else {
            self.write_across(bytes, offset, size)?;
        }
        self.odd_size = (!end.is_multiple_of(page_bytes)).then_some(end);
        Ok(())
    }

    fn write_across(&mut self, bytes: &[u8], mut offset: u64, size: PageSize) -> Result<()> {
        let mut page = vec![0; size.bytes()];
        let mut rest = bytes;
        while !rest.is_empty() {
            let start = (offset % size.bytes() as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(page.len() - start));
            let index = page_at(offset, size)?;
            self.read(index, &mut page)?;
            page[start..start + now.len()].copy_from_slice(now);
            self.write_page(index, &page)?;
            offset += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn write_page(&mut self, page: PageIdx, bytes: &[u8]) -> Result<()> {
        if page != PageIdx::FIRST {
            return self.writer.write(page, bytes);
        }
        let first = self.first_page.get_or_insert_default();
        first.clear();
        first.extend_from_slice(bytes);
        self.left_wal_mode |= header::leave_wal_mode(first);
        Ok(())
    }

    /// Cuts the database off at `bytes`, or lets it grow to them.
    pub(crate) fn truncate(&mut self, bytes: u64) -> Result<()> {
        let Some(size) = self.writer.page_size() else { return Ok(()) };
        let count = PageCount::of_bytes(bytes, size)?;
        if count == PageCount::ZERO {
            self.first_page = None;
            self.is_rewritten = true;
        }
        self.writer.truncate(count)?;
        self.odd_size = (!bytes.is_multiple_of(size.bytes() as u64)).then_some(bytes);
        Ok(())
    }

    /// Reserves the disk space that the commit needs.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        self.writer.stage()
    }

    /// Writes the commit so that it counts once `group` is decided.
    pub(crate) fn prepare(&mut self, stored: &mut FirstPage, group: &str, durable: bool) -> Result<()> {
        self.drop_undone_pages()?;
        self.hand_over_first_page(stored)?;
        self.note_content();
        self.writer.prepare(group, durable)
    }

    /// Commits, and gives the new snapshot, or none if nothing but counters
    /// would change; and the next transaction, for which the lock was kept.
    /// `stored` is page 1 as it was.
    pub(crate) fn commit(
        mut self,
        stored: &mut FirstPage,
        durable: bool,
        base: VfsRef,
    ) -> (Result<Option<Snapshot>>, Result<Change>) {
        if self.super_journal.is_none() {
            if let Err(e) = self.restage(base).and_then(|()| self.hand_over_first_page(stored)) {
                return (Err(e), self.go_on());
            }
            if self.writer.is_empty() {
                return (Ok(None), self.go_on());
            }
            self.note_content();
        }
        let (committed, next) = self.writer.commit_and_go_on(durable);
        (committed.map(Some), next.map(Change::new))
    }

    /// Rolls back.
    pub(crate) fn discard(mut self) {
        self.use_version_up();
    }

    /// Rolls back, and begins the next transaction, for which the lock is kept.
    pub(crate) fn go_on(mut self) -> Result<Change> {
        self.use_version_up();
        Ok(Change::new(self.writer.go_on()?))
    }

    /// If SQLite wrote page 1, the change counter in it is never served to
    /// anybody: the writer, having written something, uses its version up.
    fn use_version_up(&mut self) {
        if let (Some(first), None) = (&self.first_page, &self.super_journal)
            && let Err(e) = self.writer.write(PageIdx::FIRST, first)
        {
            tracing::debug!("rolling back: {e:?}");
        }
    }

    /// A volume that was taken in as a file, such as an empty one, is a database once SQLite
    /// has written to it: its length is that of its pages from then on.
    fn note_content(&mut self) {
        if self.writer.snapshot().attribute("content") == Some("file") {
            self.writer.set_attribute("content", "sqlite");
        }
    }

    /// Gives page 1 to the writer, unless only its counters changed: those are served, not stored.
    fn hand_over_first_page(&mut self, stored: &mut FirstPage) -> Result<()> {
        let Some(first) = &self.first_page else { return Ok(()) };
        let snapshot = self.writer.snapshot();
        if !self.is_rewritten
            && snapshot.page_count() > PageCount::ZERO
            && header::differ_only_in_counters(stored.stored(snapshot)?, first)
        {
            return Ok(());
        }
        self.writer.write(PageIdx::FIRST, first)
    }

    /// Pages that were spilled and undone again lie past the database's end. SQLite cuts them off when the commit is
    /// decided; a prepared one does not change any more.
    fn drop_undone_pages(&mut self) -> Result<()> {
        let declared = self.first_page.as_deref().and_then(header::page_count);
        match declared.filter(|count| *count < self.writer.page_count()) {
            Some(count) => self.writer.truncate(count),
            None => Ok(()),
        }
    }

    /// Stages everything again in pages of the size that the header says.
    fn restage(&mut self, base: VfsRef) -> Result<()> {
        let declared = self.first_page.as_deref().and_then(header::page_size);
        let (Some(from), Some(to)) = (self.writer.page_size(), declared) else { return Ok(()) };
        if from == to {
            return Ok(());
        }
        let bytes = self.size();
        let mut spool = Spool::new(base, Vec::new());
        let mut page = vec![0; from.bytes()];
        for index in pages(PageCount::of_bytes(bytes, from)?) {
            self.read(index, &mut page)?;
            spool.write(&page, index.offset(from))?;
        }
        self.first_page = None;
        self.odd_size = None;
        self.is_rewritten = true;
        self.writer.set_page_size(to)?;
        let mut page = vec![0; to.bytes()];
        for index in pages(PageCount::of_bytes(bytes, to)?) {
            spool.read(&mut page, index.offset(to))?;
            self.write_page(index, &page)?;
        }
        Ok(())
    }
}

fn pages(count: PageCount) -> impl Iterator<Item = PageIdx> {
    (1..=count.get()).filter_map(PageIdx::new)
}
