//! What a connection reads: its snapshot, and over it what its own
//! transaction has staged.

use quire_engine::{Error, PageCount, PageIdx, PageSize, Result, Snapshot};

use crate::change::Change;
use crate::header::{self, HEADER_BYTES};
use crate::volumes::OpenVolume;

/// The database as one connection sees it now.
pub(crate) struct View<'a> {
    pub(crate) open: &'a OpenVolume,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) change: Option<&'a Change>,
}

impl View<'_> {
    fn page_size(&self) -> Option<PageSize> {
        match self.change {
            Some(change) => change.page_size(),
            None => self.snapshot.page_size(),
        }
    }

    /// How many bytes the database has.
    pub(crate) fn size(&self) -> u64 {
        match self.change {
            Some(change) => change.size(),
            None => self.snapshot.page_size().map_or(0, |size| self.snapshot.page_count().bytes(size)),
        }
    }

    /// Copies what is at `offset`; zeros past the end. Says whether all of it lay before the end.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<bool> {
        let Some(size) = self.page_size() else {
            buf.fill(0);
            return Ok(false);
        };
        let end = self.size();
        let page_bytes = size.bytes() as u64;
        if buf.len() == size.bytes() && offset.is_multiple_of(page_bytes) && offset + page_bytes <= end {
            self.read_page(page_at(offset, size)?, buf)?;
            return Ok(true);
        }
        let there = end.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (mut rest, past_end) = buf.split_at_mut(there);
        past_end.fill(0);
        let mut page = vec![0; size.bytes()];
        let mut at = offset;
        while !rest.is_empty() {
            let start = (at % page_bytes) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(page.len() - start));
            self.read_page(page_at(at, size)?, &mut page)?;
            now.copy_from_slice(&page[start..start + now.len()]);
            at += now.len() as u64;
            rest = later;
        }
        Ok(past_end.is_empty())
    }

    /// The header of the snapshot as it is served; none if the database is empty.
    pub(crate) fn header(&self) -> Result<Option<[u8; HEADER_BYTES]>> {
        let Some(size) = self.snapshot.page_size().filter(|_| self.snapshot.page_count() > PageCount::ZERO) else {
            return Ok(None);
        };
        let mut page = vec![0; size.bytes()];
        self.read_page(PageIdx::FIRST, &mut page)?;
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&page[..HEADER_BYTES]);
        Ok(Some(header))
    }

    /// Copies a page: as staged, else as in the snapshot. In page 1 of the
    /// snapshot the change counter is what the snapshot's place says, not what is stored.
    fn read_page(&self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        match self.change {
            Some(change) => {
                change.read(page, buf)?;
                if page == PageIdx::FIRST && change.has_first_page() {
                    return Ok(());
                }
            }
            None => self.snapshot.read(page, buf)?,
        }
        if page == PageIdx::FIRST {
            header::set_change_counter(buf, self.open.change_counter(self.snapshot)?);
            header::leave_wal_mode(buf);
        }
        Ok(())
    }
}

/// The page that holds byte `offset`.
pub(crate) fn page_at(offset: u64, size: PageSize) -> Result<PageIdx> {
    PageIdx::of_offset(offset, size)
        .ok_or_else(|| Error::invalid(format!("byte {offset} lies past the last page that a volume can have")))
}
