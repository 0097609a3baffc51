//! Cells: what a B-tree page holds, and how much of a payload lies elsewhere.

use std::ops::Range;

use quire_proto::PageIdx;

use crate::PageKind;
use crate::bytes::{page_at, varint_at};

/// SQLite stores no payload of more bytes.
const MAX_PAYLOAD_BYTES: u64 = i32::MAX as u64;
/// Each overflow page begins with the number of the next.
pub(crate) const NEXT_PAGE_BYTES: usize = 4;

/// The overflow pages of one payload: a chain, each page naming the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// The first page.
    pub first: PageIdx,
    /// How many pages the payload's length asks for.
    pub pages: u32,
}

/// A payload: a table's row, or an index's key.
#[derive(Debug)]
pub(crate) struct Payload {
    /// The part of the page that holds its beginning.
    pub(crate) local: Range<usize>,
    /// Where the rest is.
    pub(crate) overflow: Option<Overflow>,
}

/// One cell.
#[derive(Debug)]
pub(crate) struct Cell {
    /// The part of the page that it fills.
    pub(crate) place: Range<usize>,
    /// The page with the smaller keys, on an interior page.
    pub(crate) child: Option<PageIdx>,
    /// On the pages of a table: the row's id, or on an interior page the greatest one below the child.
    pub(crate) rowid: Option<i64>,
    /// On all but a table's interior pages.
    pub(crate) payload: Option<Payload>,
}

impl Cell {
    /// The cell at `at` of a page of which SQLite uses `usable`; `None` if it
    /// runs out of the page or says what cannot be.
    pub(crate) fn parse(kind: PageKind, usable: &[u8], at: usize) -> Option<Cell> {
        let (start, mut at) = (at, at);
        let child = match kind.is_leaf() {
            true => None,
            false => {
                at += 4;
                Some(page_at(usable, at - 4)?)
            }
        };
        if kind == PageKind::TableInterior {
            let (rowid, end) = varint_at(usable, at)?;
            return Some(Cell { place: start..end, child, rowid: Some(rowid.cast_signed()), payload: None });
        }
        let (bytes, mut at) = varint_at(usable, at)?;
        let mut rowid = None;
        if kind == PageKind::TableLeaf {
            let (id, next) = varint_at(usable, at)?;
            (rowid, at) = (Some(id.cast_signed()), next);
        }
        if bytes > MAX_PAYLOAD_BYTES {
            return None;
        }
        let bytes = bytes as usize;
        let end = at + local_bytes(kind, bytes, usable.len());
        usable.get(at..end)?;
        let (overflow, cell_end) = match bytes - (end - at) {
            0 => (None, end),
            rest => {
                let pages = rest.div_ceil(usable.len() - NEXT_PAGE_BYTES) as u32;
                (Some(Overflow { first: page_at(usable, end)?, pages }), end + NEXT_PAGE_BYTES)
            }
        };
        Some(Cell { place: start..cell_end, child, rowid, payload: Some(Payload { local: at..end, overflow }) })
    }
}

/// How many of a payload's bytes lie in its cell: "Cell payload overflow
/// pages" in the description of the format, whose letters these are.
fn local_bytes(kind: PageKind, p: usize, u: usize) -> usize {
    let x = if kind == PageKind::TableLeaf { u - 35 } else { (u - 12) * 64 / 255 - 23 };
    if p <= x {
        return p;
    }
    let m = (u - 12) * 32 / 255 - 23;
    let k = m + (p - m) % (u - 4);
    if k <= x { k } else { m }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_spills_where_the_description_says() {
        let leaf = |p| local_bytes(PageKind::TableLeaf, p, 4096);
        assert_eq!([leaf(0), leaf(4061), leaf(4062)], [0, 4061, 489]);
        // One overflow page and as much as the cell may hold; one byte more.
        assert_eq!([leaf(4061 + 4092), leaf(4061 + 4093)], [4061, 489]);
        let index = |p| local_bytes(PageKind::IndexLeaf, p, 4096);
        assert_eq!([index(1002), index(1003), index(1002 + 4092), index(1003 + 4092)], [1002, 489, 1002, 489]);
        assert_eq!(local_bytes(PageKind::IndexInterior, 1003, 4096), index(1003));
        assert_eq!(local_bytes(PageKind::TableLeaf, 1 << 30, 480), 64);
    }

    #[test]
    fn a_cell_that_leaves_the_page_is_none() {
        let mut page = [0; 512];
        page[..4].copy_from_slice(&[0, 0, 0, 9]);
        assert_eq!(Cell::parse(PageKind::TableInterior, &page, 0).unwrap().child, PageIdx::new(9));
        assert!(Cell::parse(PageKind::TableInterior, &page, 4).is_none(), "there is no page 0");
        assert!(Cell::parse(PageKind::TableInterior, &page, 509).is_none());
        page[500..502].copy_from_slice(&[11, 1]);
        assert!(Cell::parse(PageKind::TableLeaf, &page, 500).is_none());
        page[500] = 10;
        assert_eq!(Cell::parse(PageKind::TableLeaf, &page, 500).unwrap().payload.unwrap().local, 502..512);
    }

    #[test]
    fn the_longest_payload_is_that_of_sqlite() {
        let mut page = [0; 512];
        page[..6].copy_from_slice(&[0x88, 0x80, 0x80, 0x80, 0x00, 1]);
        assert!(Cell::parse(PageKind::TableLeaf, &page, 0).is_none());
        page[..6].copy_from_slice(&[0x87, 0xff, 0xff, 0xff, 0x7f, 1]);
        assert!(Cell::parse(PageKind::TableLeaf, &page, 0).is_none(), "its overflow page is 0");
        page[6..].fill(7);
        let overflow = Cell::parse(PageKind::TableLeaf, &page, 0).unwrap().payload.unwrap().overflow.unwrap();
        assert_eq!((overflow.first.get(), overflow.pages), (0x0707_0707, 4_227_330));
    }
}
