//! The page table, for the benchmarks (`benches/`): nobody else has a use for one without a replica.

use quire_proto::{PageCount, PageIdx};

use crate::log::{FileId, Place};
use crate::table::{Cell, Pages, Table};

/// The file in which all pages lie.
const FILE: FileId = FileId(1);

/// See `Table`.
#[derive(Clone)]
pub struct PageTable(Table);

fn at(offset: u32) -> Cell {
    Cell::at(Place { file: FILE, offset })
}

impl PageTable {
    /// A table of these pages; each lies at the offset of its own number.
    pub fn of(pages: impl IntoIterator<Item = PageIdx>, count: PageCount) -> PageTable {
        let mut table = Table::default();
        pages.into_iter().for_each(|page| table.set(page, at(page.get())));
        table.cover(count);
        PageTable(table)
    }

    /// At which offset a page lies.
    pub fn get(&self, page: PageIdx) -> Option<u32> {
        match self.0.get(page) {
            Cell::At { place, .. } => Some(place.offset),
            Cell::Absent | Cell::Zero => None,
        }
    }

    /// The page lies somewhere else from now on.
    pub fn set(&mut self, page: PageIdx, offset: u32) {
        self.0.set(page, at(offset));
    }

    /// The table after a commit of one page: see `Replica::make_visible`.
    pub fn committed(&self, page: PageIdx, offset: u32, count: PageCount) -> PageTable {
        let mut table = self.0.clone();
        let staged = vec![(page, Place { file: FILE, offset })];
        Pages { spilled: Table::default(), staged }.for_each(|page, cell| table.set(page, cell));
        table.cover(count);
        PageTable(table)
    }

    /// Takes in the pages of another table, as of a transaction that was spilled: see `apply_commit`.
    pub fn take_in(&mut self, other: &PageTable) {
        other.0.for_each(|page, cell| self.0.set(page, cell));
    }
}
