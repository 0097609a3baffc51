//! Walking from page to page: every page is taken once, whoever names it again.

use quire_proto::{ErrorKind, PageCount, PageIdx, PageSet, Result};

use crate::bytes::{page_at, u32_at};
use crate::cell::NEXT_PAGE_BYTES;
use crate::{BTreePage, DatabaseHeader, Overflow, Pages};

/// A walk over the pages of one database.
pub(crate) struct Walk<'a, P: ?Sized> {
    pages: &'a mut P,
    header: &'a DatabaseHeader,
    /// Those of the file that belong to the database.
    pub(crate) count: PageCount,
    /// Pages that have found their place.
    pub(crate) taken: PageSet,
    /// Pages that are not what others say of them, and pages that name what cannot be theirs.
    pub(crate) damaged: PageSet,
    buf: Vec<u8>,
}

impl<'a, P: Pages + ?Sized> Walk<'a, P> {
    pub(crate) fn new(pages: &'a mut P, header: &'a DatabaseHeader) -> Self {
        let count = header.page_count.map_or(pages.page_count(), |count| count.min(pages.page_count()));
        let buf = vec![0; header.page_size.bytes()];
        Walk { pages, header, count, taken: PageSet::new(), damaged: PageSet::new(), buf }
    }

    /// Takes a page that `by` names; false if it has its place already, or none.
    pub(crate) fn take(&mut self, page: PageIdx, by: PageIdx) -> bool {
        let taken = self.exists(page) && self.taken.insert(page);
        if !taken {
            self.damaged.insert(by);
        }
        taken
    }

    /// Whether the page can be part of a B-tree or of the freelist.
    pub(crate) fn exists(&self, page: PageIdx) -> bool {
        self.count.contains(page) && page != self.header.lock_page() && !self.header.is_pointer_map(page)
    }

    /// The part of a page that SQLite uses; `None` if the page is damaged.
    pub(crate) fn read(&mut self, page: PageIdx) -> Result<Option<&[u8]>> {
        match self.pages.read(page, &mut self.buf) {
            Ok(()) => Ok(Some(&self.buf[..self.header.usable_bytes()])),
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                self.damaged.insert(page);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// A page of a B-tree; `None` if it is none, or one of another kind than
    /// `expected` wants.
    pub(crate) fn node(&mut self, page: PageIdx, expected: impl Fn(&BTreePage) -> bool) -> Result<Option<BTreePage>> {
        let node = match self.read(page)? {
            Some(usable) => BTreePage::parse(page, usable, usable.len()).ok().filter(expected),
            None => None,
        };
        if node.is_none() {
            self.damaged.insert(page);
        }
        Ok(node)
    }

    /// An interior page of a table or an index; `None` if it is damaged.
    pub(crate) fn interior(&mut self, page: PageIdx, index: bool) -> Result<Option<BTreePage>> {
        self.node(page, |node| node.kind.is_index() == index && !node.kind.is_leaf())
    }

    /// Its children; none if it is damaged.
    pub(crate) fn children(&mut self, page: PageIdx, index: bool) -> Result<Vec<PageIdx>> {
        Ok(self.interior(page, index)?.map_or(Vec::new(), |node| node.children))
    }

    /// Takes the overflow pages of a payload on page `by`, and shows the part of
    /// the payload on each. The last page is read only if `last` says so: nobody
    /// needs its successor.
    pub(crate) fn overflow(
        &mut self,
        chain: Overflow,
        by: PageIdx,
        last: bool,
        mut visit: impl FnMut(PageIdx, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (mut page, mut by) = (chain.first, by);
        for left in (0..chain.pages).rev() {
            if !self.take(page, by) {
                break;
            }
            let usable = if left > 0 || last { self.read(page)? } else { None };
            let (next, content) =
                usable.map_or((None, &[][..]), |usable| (page_at(usable, 0), &usable[NEXT_PAGE_BYTES..]));
            visit(page, content)?;
            (page, by) = match next {
                Some(next) => (next, page),
                None if left > 0 => return Ok(_ = self.damaged.insert(page)),
                None => break,
            };
        }
        Ok(())
    }

    /// Takes the pages of the freelist. Reads its trunk pages.
    pub(crate) fn freelist(&mut self) -> Result<PageSet> {
        let mut free = PageSet::new();
        let (mut trunk, mut by) = (self.header.freelist, PageIdx::FIRST);
        while let Some(page) = trunk {
            if !self.take(page, by) {
                break;
            }
            free.insert(page);
            let Some(usable) = self.read(page)? else { break };
            let entries = u32_at(usable, 4).and_then(|n| usable.get(8..)?.get(..(n as usize).checked_mul(4)?));
            let Some(entries) = entries.map(<[u8]>::to_vec) else {
                self.damaged.insert(page);
                break;
            };
            trunk = page_at(usable, 0);
            for at in (0..entries.len()).step_by(4) {
                match page_at(&entries, at) {
                    Some(leaf) if self.take(leaf, page) => free.insert(leaf),
                    _ => self.damaged.insert(page),
                };
            }
            by = page;
        }
        Ok(free)
    }
}
