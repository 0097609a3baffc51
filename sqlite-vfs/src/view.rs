//! What a connection reads: its snapshot, and over it what its own
//! transaction has staged.

use std::cell::RefCell;

use quire_engine::{Error, PageCount, PageIdx, PagePlace, PageSize, Result, Snapshot};

use crate::change::Change;
use crate::guide::Guide;
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
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64, guide: &RefCell<Guide>) -> Result<bool> {
        let Some(size) = self.page_size() else {
            buf.fill(0);
            return Ok(false);
        };
        let end = self.size();
        let page_bytes = size.bytes() as u64;
        if buf.len() == size.bytes() && offset.is_multiple_of(page_bytes) && offset + page_bytes <= end {
            self.read_page(page_at(offset, size)?, buf, guide)?;
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
            self.read_page(page_at(at, size)?, &mut page, guide)?;
            now.copy_from_slice(&page[start..start + now.len()]);
            at += now.len() as u64;
            rest = later;
        }
        Ok(past_end.is_empty())
    }

    /// The header of the snapshot as it is served; none if the database is empty.
    pub(crate) fn header(&self, first_page: &mut FirstPage) -> Result<Option<[u8; HEADER_BYTES]>> {
        if self.snapshot.page_count() == PageCount::ZERO {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&first_page.stored(self.snapshot)?[..HEADER_BYTES]);
        self.serve(&mut header)?;
        Ok(Some(header))
    }

    /// Makes of the beginning of page 1 as it is stored what SQLite gets to see.
    fn serve(&self, first_page: &mut [u8]) -> Result<()> {
        header::set_change_counter(first_page, self.open.change_counter(self.snapshot)?);
        header::leave_wal_mode(first_page);
        Ok(())
    }

    /// Copies a page: as staged, else as in the snapshot. In page 1 of the
    /// snapshot the change counter is what the snapshot's place says, not what is stored.
    fn read_page(&self, page: PageIdx, buf: &mut [u8], guide: &RefCell<Guide>) -> Result<()> {
        match self.change {
            Some(change) => {
                change.read(page, buf)?;
                if page == PageIdx::FIRST && change.has_first_page() {
                    return Ok(());
                }
            }
            None => {
                self.snapshot
                    .read_along(page, buf, || guide.borrow_mut().on_miss(self.snapshot, page, &self.open.trees))?;
                Guide::note(guide, page, buf);
            }
        }
        if page == PageIdx::FIRST { self.serve(buf) } else { Ok(()) }
    }
}

/// Page 1 as it is stored, kept for as long as it lies where it lay: most commits only count up in it, and do not write
/// it. SQLite looks at it at the beginning and at the end of each transaction.
#[derive(Default)]
pub(crate) struct FirstPage {
    place: Option<PagePlace>,
    bytes: Vec<u8>,
}

impl FirstPage {
    /// Page 1 of a snapshot that has one.
    pub(crate) fn stored(&mut self, snapshot: &Snapshot) -> Result<&[u8]> {
        if !self.place.as_ref().is_some_and(|place| snapshot.lies_at(PageIdx::FIRST, place)) {
            self.place = None;
            self.bytes.resize(snapshot.page_size().map_or(0, PageSize::bytes), 0);
            snapshot.read(PageIdx::FIRST, &mut self.bytes)?;
            self.place = snapshot.place_of(PageIdx::FIRST);
        }
        Ok(&self.bytes)
    }
}

/// The page that holds byte `offset`.
pub(crate) fn page_at(offset: u64, size: PageSize) -> Result<PageIdx> {
    PageIdx::of_offset(offset, size)
        .ok_or_else(|| Error::invalid(format!("byte {offset} lies past the last page that a volume can have")))
}
