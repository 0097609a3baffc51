//! The leaves of a B-tree, known by the pages above them: where a search ends, without reading that page.

use std::collections::HashSet;

use quire_proto::{PageIdx, Result};

use crate::btree::Cells;
use crate::cell::Cell;
use crate::record::{Value, first_value, first_values, last_integer};
use crate::{DatabaseHeader, PageKind, Pages};

/// No B-tree of SQLite is deeper.
const MOST_LEVELS: usize = 20;

/// The leaves of one B-tree in the order of their keys.
#[derive(Clone, Debug, Default)]
pub struct Leaves {
    pages: Vec<PageIdx>,
    /// What lies between each leaf and the one after it: of a table with rowids the greatest one on the first, of an index
    /// the first value of the key between them. Empty unless all of them are integers that ascend.
    bounds: Vec<i64>,
}

impl Leaves {
    /// Finds the leaves below `root`; none if there are more than `most`. Reads the pages above them that are here: one that
    /// is not stands for the leaves below it, and pages whose children are all elsewhere are taken for the lowest ones above
    /// the leaves. What is damaged ends it with an error.
    pub fn find(
        pages: &mut (impl Pages + ?Sized),
        header: &DatabaseHeader,
        root: PageIdx,
        most: usize,
        is_here: impl Fn(PageIdx) -> bool,
    ) -> Result<Option<Leaves>> {
        let count = pages.page_count();
        let is_here = |page| count.contains(page) && is_here(page);
        let mut level = Leaves { pages: vec![root], bounds: Vec::new() };
        let mut seen = HashSet::from([root]);
        let mut buf = vec![0; pages.page_size().bytes()];
        for _ in 0..MOST_LEVELS {
            let Some(known) = level.pages.iter().copied().find(|page| is_here(*page)) else { break };
            pages.read(known, &mut buf)?;
            if Cells::parse(known, &buf, header.usable_bytes())?.kind.is_leaf() {
                break;
            }
            let mut below = Leaves::default();
            for (n, page) in level.pages.iter().copied().enumerate() {
                if !is_here(page) {
                    below.pages.push(page);
                    below.bounds.extend(level.bounds.get(n));
                    continue;
                }
                pages.read(page, &mut buf)?;
                let cells = Cells::parse(page, &buf, header.usable_bytes())?;
                let rightmost = cells.rightmost;
                for cell in cells {
                    let cell = cell?;
                    let Some(child) = cell.child else { continue };
                    below.pages.push(child);
                    below.bounds.extend(cell.rowid.or_else(|| first_integer(&cell, &buf)));
                }
                below.pages.extend(rightmost);
                // The rightmost child of a page goes as far as the page.
                below.bounds.extend(level.bounds.get(n));
                if below.pages.len() > most {
                    return Ok(None);
                }
            }
            if !below.pages.iter().all(|page| seen.insert(*page) || !is_here(*page)) {
                return Ok(None);
            }
            level = below;
        }
        if level.bounds.len() + 1 != level.pages.len() || !level.bounds.is_sorted() {
            level.bounds = Vec::new();
        }
        Ok(Some(level))
    }

    /// The leaves in the order of their keys.
    pub fn pages(&self) -> &[PageIdx] {
        &self.pages
    }

    /// The leaf at which a search for an integer ends: for a rowid in a table, for the first value in an index. None if
    /// that is not known.
    pub fn of_integer(&self, key: i64) -> Option<PageIdx> {
        let n = self.bounds.partition_point(|bound| *bound < key);
        self.pages.get(n).copied().filter(|_| self.bounds.len() + 1 == self.pages.len())
    }
}

/// The first value of a cell of `page`.
fn first_integer(cell: &Cell, page: &[u8]) -> Option<i64> {
    match first_values(page.get(cell.payload.as_ref()?.local.clone())?)? {
        [Value::Integer(number)] => Some(number),
        [_] => None,
    }
}

/// A row that a leaf of an index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// Its id.
    pub rowid: i64,
    /// Neighbours with the same number have the same first value.
    pub run: usize,
}

/// The rows that a leaf of an index names, in the order of the index; none of a page that is no such leaf. What overflows
/// is left out.
pub fn rows_of_index_leaf(page: PageIdx, bytes: &[u8], header: &DatabaseHeader) -> Vec<IndexRow> {
    let Ok(cells) = Cells::parse(page, bytes, header.usable_bytes()) else { return Vec::new() };
    if cells.kind != PageKind::IndexLeaf {
        return Vec::new();
    }
    let (mut run, mut before) = (0, None);
    let row = |cell: Cell| {
        let payload = cell.payload.filter(|payload| payload.overflow.is_none())?;
        let record = bytes.get(payload.local)?;
        let (rowid, first) = (last_integer(record)?, first_value(record)?);
        run += usize::from(before.is_some_and(|before| before != first));
        before = Some(first);
        Some(IndexRow { rowid, run })
    };
    cells.map_while(Result::ok).filter_map(row).collect()
}
