//! The leaves of a B-tree, known by the pages above them: where a row is, without reading it.

use std::collections::HashSet;

use quire_proto::{PageIdx, Result};

use crate::btree::Cells;
use crate::record::last_integer;
use crate::{DatabaseHeader, PageKind, Pages};

/// No B-tree of SQLite is deeper.
const MOST_LEVELS: usize = 20;

/// The leaves of one B-tree in the order of their keys.
#[derive(Clone, Debug, Default)]
pub struct Leaves {
    pages: Vec<PageIdx>,
    /// Of a table with rowids: the greatest id on each leaf but the last.
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
                let (kind, rightmost) = (cells.kind, cells.rightmost);
                for cell in cells {
                    let cell = cell?;
                    below.pages.extend(cell.child);
                    below.bounds.extend(cell.rowid.filter(|_| kind == PageKind::TableInterior));
                }
                below.pages.extend(rightmost);
                // The rightmost child of a page goes as far as the page.
                below.bounds.extend(level.bounds.get(n).filter(|_| kind == PageKind::TableInterior));
                if below.pages.len() > most {
                    return Ok(None);
                }
            }
            if !below.pages.iter().all(|page| seen.insert(*page) || !is_here(*page)) {
                return Ok(None);
            }
            level = below;
        }
        Ok(Some(level))
    }

    /// The leaves in the order of their keys.
    pub fn pages(&self) -> &[PageIdx] {
        &self.pages
    }

    /// The leaf that has the row, if there is one.
    pub fn of_row(&self, rowid: i64) -> Option<PageIdx> {
        let n = self.bounds.partition_point(|bound| *bound < rowid);
        self.pages.get(n).copied().filter(|_| self.bounds.len() + 1 == self.pages.len())
    }
}

/// The rows that a leaf of an index names, in the order of the index; none of a page that is no such leaf. What overflows
/// is left out.
pub fn rows_of_index_leaf(page: PageIdx, bytes: &[u8], header: &DatabaseHeader) -> Vec<i64> {
    let Ok(cells) = Cells::parse(page, bytes, header.usable_bytes()) else { return Vec::new() };
    if cells.kind != PageKind::IndexLeaf {
        return Vec::new();
    }
    let row = |cell: crate::cell::Cell| {
        let payload = cell.payload.filter(|payload| payload.overflow.is_none())?;
        last_integer(bytes.get(payload.local)?)
    };
    cells.map_while(Result::ok).filter_map(row).collect()
}
