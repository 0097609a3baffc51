//! One page of a B-tree.

use quire_proto::{Error, PageIdx, Result};

use crate::Overflow;
use crate::bytes::{page_at, u16_at};
use crate::cell::Cell;
use crate::header::{HEADER_BYTES, MIN_USABLE_BYTES};

const CELL_COUNT: usize = 3;
const RIGHTMOST_CHILD: usize = 8;

/// The four kinds of B-tree pages. A table with rowids is a table B-tree; every
/// index, and a table WITHOUT ROWID, is an index B-tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Children and rowids.
    TableInterior,
    /// Rows.
    TableLeaf,
    /// Children and keys.
    IndexInterior,
    /// Keys.
    IndexLeaf,
}

impl PageKind {
    fn from_byte(byte: u8) -> Option<PageKind> {
        match byte {
            2 => Some(PageKind::IndexInterior),
            5 => Some(PageKind::TableInterior),
            10 => Some(PageKind::IndexLeaf),
            13 => Some(PageKind::TableLeaf),
            _ => None,
        }
    }

    /// Whether it has no children.
    pub fn is_leaf(self) -> bool {
        matches!(self, PageKind::TableLeaf | PageKind::IndexLeaf)
    }

    /// Whether it belongs to an index B-tree.
    pub fn is_index(self) -> bool {
        matches!(self, PageKind::IndexLeaf | PageKind::IndexInterior)
    }
}

/// What a B-tree page says about other pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BTreePage {
    /// Its kind.
    pub kind: PageKind,
    /// The pages below it, in the order of their keys.
    pub children: Vec<PageIdx>,
    /// The payloads that go on elsewhere, in the order of their keys.
    pub overflow: Vec<Overflow>,
}

impl BTreePage {
    /// Reads the bytes of `page`, of which SQLite uses the first
    /// `usable_bytes`. A page with one wrong cell is wrong as a whole.
    pub fn parse(page: PageIdx, bytes: &[u8], usable_bytes: usize) -> Result<BTreePage> {
        let (mut children, mut overflow) = (Vec::new(), Vec::new());
        let cells = Cells::parse(page, bytes, usable_bytes)?;
        let (kind, rightmost) = (cells.kind, cells.rightmost);
        for cell in cells {
            let cell = cell?;
            children.extend(cell.child);
            overflow.extend(cell.payload.and_then(|payload| payload.overflow));
        }
        children.extend(rightmost);
        Ok(BTreePage { kind, children, overflow })
    }
}

/// The cells of a page, in the order of their keys.
pub(crate) struct Cells<'a> {
    page: PageIdx,
    usable: &'a [u8],
    pub(crate) kind: PageKind,
    /// The page with the greatest keys, on an interior page.
    pub(crate) rightmost: Option<PageIdx>,
    /// Where the next cell's place is noted.
    pointer: usize,
    pointers_end: usize,
    /// Bytes that the cells to come can fill; no two cells share one.
    free_bytes: usize,
}

impl<'a> Cells<'a> {
    pub(crate) fn parse(page: PageIdx, bytes: &'a [u8], usable_bytes: usize) -> Result<Cells<'a>> {
        let wrong = |what: &str| Error::corrupt(format!("page {page} is not a B-tree page: {what}"));
        let usable = bytes.get(..usable_bytes).filter(|usable| usable.len() >= MIN_USABLE_BYTES);
        let usable = usable.ok_or_else(|| wrong("it is too short"))?;
        let header = if page == PageIdx::FIRST { HEADER_BYTES } else { 0 };
        let kind = PageKind::from_byte(usable[header]).ok_or_else(|| wrong("unknown kind"))?;
        let rightmost = match kind.is_leaf() {
            true => None,
            false => Some(page_at(usable, header + RIGHTMOST_CHILD).ok_or_else(|| wrong("a child is page 0"))?),
        };
        let pointer = header + if kind.is_leaf() { 8 } else { 12 };
        let cells = u16_at(usable, header + CELL_COUNT).map_or(0, usize::from);
        let pointers_end = pointer + 2 * cells;
        if pointers_end > usable.len() {
            return Err(wrong("more cells than fit"));
        }
        Ok(Cells { page, usable, kind, rightmost, pointer, pointers_end, free_bytes: usable.len() - pointers_end })
    }
}

impl Cells<'_> {
    fn cell(&mut self, at: usize) -> Option<Cell> {
        let cell = Cell::parse(self.kind, self.usable, at).filter(|_| at >= self.pointers_end)?;
        self.free_bytes = self.free_bytes.checked_sub(cell.place.len())?;
        Some(cell)
    }
}

impl Iterator for Cells<'_> {
    type Item = Result<Cell>;

    fn next(&mut self) -> Option<Result<Cell>> {
        if self.pointer == self.pointers_end {
            return None;
        }
        let at = usize::from(u16_at(self.usable, self.pointer)?);
        self.pointer += 2;
        let cell = self.cell(at);
        Some(cell.ok_or_else(|| Error::corrupt(format!("page {}: the cell at byte {at} is damaged", self.page))))
    }
}
