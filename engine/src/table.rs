//! The page table: where each page of a snapshot lies.
//!
//! Three levels: a vector of groups, each with [`GROUP_CHUNKS`] chunks, each
//! with [`CHUNK_PAGES`] cells of eight bytes. Snapshots share groups and chunks; a
//! change copies only those that it touches, and the vector. A cell of a *shared* chunk changes only from absent to the place of the
//! page's content as it is in every snapshot that shares the chunk (a reader
//! fetched it), by gaining the mark that it was verified, or back to absent if
//! that copy is damaged. Readers therefore take no lock, and a snapshot never
//! changes under them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use quire_proto::{PageCount, PageIdx};

use crate::log::{FileId, Place};

/// Cells in a chunk: 4 KiB of them.
pub(crate) const CHUNK_PAGES: usize = 512;

/// Chunks in a group: 32 MiB of pages of 4 KiB. A commit copies a group, and the list of all groups.
const GROUP_CHUNKS: usize = 16;

const ABSENT: u64 = 0;
const ZERO: u64 = 1;
const PRESENT: u64 = 1 << 63;
const VERIFIED: u64 = 1 << 62;
const OFFSET_BITS: u32 = 30;

/// What a cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Not here: its content comes from the base.
    Absent,
    /// Nothing but zeros.
    Zero,
    /// In a data file.
    At {
        place: Place,
        /// Its checksum was right since the file was opened.
        verified: bool,
    },
}

impl Cell {
    /// Of a page that this process has written, or read and checked.
    pub(crate) fn at(place: Place) -> Cell {
        Cell::At { place, verified: true }
    }

    pub(crate) fn from_bits(bits: u64) -> Cell {
        match bits {
            ABSENT => Cell::Absent,
            ZERO => Cell::Zero,
            _ => {
                let offset = (bits & ((1 << OFFSET_BITS) - 1)) as u32;
                let file = FileId((bits >> OFFSET_BITS) as u32);
                Cell::At { place: Place { file, offset }, verified: bits & VERIFIED != 0 }
            }
        }
    }

    pub(crate) fn to_bits(self) -> u64 {
        match self {
            Cell::Absent => ABSENT,
            Cell::Zero => ZERO,
            Cell::At { place, verified } => {
                let place = u64::from(place.file.0) << OFFSET_BITS | u64::from(place.offset);
                PRESENT | place | if verified { VERIFIED } else { 0 }
            }
        }
    }
}

/// The cells of [`CHUNK_PAGES`] neighbouring pages.
pub(crate) struct Chunk {
    cells: [AtomicU64; CHUNK_PAGES],
}

impl Chunk {
    fn filled(bits: u64) -> Chunk {
        Chunk { cells: std::array::from_fn(|_| AtomicU64::new(bits)) }
    }

    /// The cells as they are at this moment.
    pub(crate) fn bits(&self) -> [u64; CHUNK_PAGES] {
        std::array::from_fn(|n| self.cells[n].load(Ordering::Acquire))
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Chunk {
        Chunk { cells: self.bits().map(AtomicU64::new) }
    }
}

/// Neighbouring chunks. One that is not there is all absent; the first fill makes it.
#[derive(Clone)]
struct Group {
    chunks: [OnceLock<Arc<Chunk>>; GROUP_CHUNKS],
}

impl Group {
    fn absent() -> Arc<Group> {
        Arc::new(Group { chunks: [const { OnceLock::new() }; GROUP_CHUNKS] })
    }
}

/// Where the pages of one snapshot lie.
#[derive(Clone, Default)]
pub(crate) struct Table {
    /// The same holds for groups.
    groups: Vec<OnceLock<Arc<Group>>>,
}

/// Where the pages of one transaction lie: of a large one in a table, of the rest one by one.
#[derive(Clone, Default)]
pub(crate) struct Pages {
    pub(crate) spilled: Table,
    /// They count before those that were spilled.
    pub(crate) staged: Vec<(PageIdx, Place)>,
}

impl Pages {
    /// Each page with its cell; of one that comes twice the last counts.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(PageIdx, Cell)) {
        self.spilled.for_each(&mut visit);
        self.staged.iter().for_each(|(page, place)| visit(*page, Cell::at(*place)));
    }
}

/// The chunk of a page and its cell there.
fn split(page: PageIdx) -> (usize, usize) {
    let n = page.get() as usize - 1;
    (n / CHUNK_PAGES, n % CHUNK_PAGES)
}

impl Table {
    fn slot(&self, page: PageIdx) -> Option<&AtomicU64> {
        let (chunk, cell) = split(page);
        let group = self.groups.get(chunk / GROUP_CHUNKS)?.get()?;
        Some(&group.chunks[chunk % GROUP_CHUNKS].get()?.cells[cell])
    }

    /// The place of a chunk in this table alone: a shared group is copied first.
    fn chunk_mut(&mut self, chunk: usize) -> &mut OnceLock<Arc<Chunk>> {
        let n = chunk / GROUP_CHUNKS;
        if n >= self.groups.len() {
            self.groups.resize(n + 1, OnceLock::new());
        }
        let slot = &mut self.groups[n];
        slot.get_or_init(Group::absent);
        let group = slot.get_mut().expect("the group was made just now");
        &mut Arc::make_mut(group).chunks[chunk % GROUP_CHUNKS]
    }

    /// Whether a chunk lies in no group: then nobody shares it, and all of it is absent. (One that is not there in a group
    /// may be filled by whoever shares the group.)
    fn is_nowhere(&self, chunk: usize) -> bool {
        self.groups.get(chunk / GROUP_CHUNKS).and_then(OnceLock::get).is_none()
    }

    /// Where a page lies.
    pub(crate) fn get(&self, page: PageIdx) -> Cell {
        self.slot(page).map_or(Cell::Absent, |cell| Cell::from_bits(cell.load(Ordering::Acquire)))
    }

    /// Sets a cell of this table alone; a shared chunk is copied first.
    pub(crate) fn set(&mut self, page: PageIdx, cell: Cell) {
        let (chunk, n) = split(page);
        if cell == Cell::Absent && self.is_nowhere(chunk) {
            return;
        }
        let slot = self.chunk_mut(chunk);
        slot.get_or_init(|| Arc::new(Chunk::filled(ABSENT)));
        let chunk = slot.get_mut().expect("the chunk was made just now");
        *Arc::make_mut(chunk).cells[n].get_mut() = cell.to_bits();
    }

    /// Sets the cells from `first` to `last`, both included.
    pub(crate) fn set_range(&mut self, first: u32, last: u32, cell: Cell) {
        let mut whole: Option<Arc<Chunk>> = None;
        let mut next = first.max(1);
        while next <= last {
            let (Some(page), per) = (PageIdx::new(next), CHUNK_PAGES as u32) else { return };
            let (chunk, n) = split(page);
            if n == 0 && last - next >= per - 1 {
                let filled = match cell {
                    Cell::Absent => OnceLock::new(),
                    _ => whole.get_or_insert_with(|| Arc::new(Chunk::filled(cell.to_bits()))).clone().into(),
                };
                if filled.get().is_some() || !self.is_nowhere(chunk) {
                    *self.chunk_mut(chunk) = filled;
                }
                next = next.saturating_add(per);
                if next == u32::MAX {
                    return;
                }
            } else {
                self.set(page, cell);
                match next.checked_add(1) {
                    Some(n) => next = n,
                    None => return,
                }
            }
        }
    }

    /// Puts a fetched page where it was absent. False if it was not absent any more. Its
    /// next reader treats it as one from disk: see `DataFile::read_verified`.
    pub(crate) fn fill(&self, page: PageIdx, place: Place) -> bool {
        let cell = Cell::At { place, verified: false }.to_bits();
        let (chunk, n) = split(page);
        self.groups.get(chunk / GROUP_CHUNKS).is_some_and(|slot| {
            let group = slot.get_or_init(Group::absent);
            let chunk = group.chunks[chunk % GROUP_CHUNKS].get_or_init(|| Arc::new(Chunk::filled(ABSENT)));
            chunk.cells[n].compare_exchange(ABSENT, cell, Ordering::AcqRel, Ordering::Acquire).is_ok()
        })
    }

    /// Notes that the page at `place` was verified.
    pub(crate) fn mark_verified(&self, page: PageIdx, place: Place) {
        if let Some(slot) = self.slot(page) {
            let old = Cell::At { place, verified: false }.to_bits();
            let _ = slot.compare_exchange(old, old | VERIFIED, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Makes a page absent again whose copy at `place` turned out to be damaged.
    pub(crate) fn forget(&self, page: PageIdx, place: Place) {
        if let Some(slot) = self.slot(page) {
            for verified in [false, true] {
                let old = Cell::At { place, verified }.to_bits();
                let _ = slot.compare_exchange(old, ABSENT, Ordering::AcqRel, Ordering::Acquire);
            }
        }
    }

    /// Makes sure that every page up to `count` can be [filled](Self::fill).
    pub(crate) fn cover(&mut self, count: PageCount) {
        let groups = (count.get() as usize).div_ceil(CHUNK_PAGES * GROUP_CHUNKS);
        if self.groups.len() < groups {
            self.groups.resize(groups, OnceLock::new());
        }
    }

    /// Every cell that is not absent, ascending.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(PageIdx, Cell)) {
        for (n, chunk) in self.known_chunks() {
            for (m, cell) in chunk.cells.iter().enumerate() {
                let bits = cell.load(Ordering::Acquire);
                if bits != ABSENT
                    && let Some(page) = PageIdx::new((n * CHUNK_PAGES + m + 1) as u32)
                {
                    visit(page, Cell::from_bits(bits));
                }
            }
        }
    }

    /// The maximal ranges of absent pages among those from `first` to `last`, both included.
    pub(crate) fn absent(&self, first: u32, last: u32) -> Vec<(u32, u32)> {
        let mut ranges = Vec::new();
        // None: there is no page after the last one that was seen.
        let mut next = Some(first);
        if first <= last {
            self.for_each(|page, _| {
                let page = page.get();
                if let Some(begin) = next.filter(|begin| (*begin..=last).contains(&page)) {
                    ranges.extend((begin < page).then(|| (begin, page - 1)));
                    next = page.checked_add(1);
                }
            });
        }
        ranges.extend(next.filter(|begin| *begin <= last).map(|begin| (begin, last)));
        ranges
    }

    /// The chunks that have any cell, with their numbers, for storing.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u32, &Chunk)> {
        self.known_chunks().map(|(n, chunk)| (n as u32, &**chunk))
    }

    /// The chunks that are there, with their numbers.
    fn known_chunks(&self) -> impl Iterator<Item = (usize, &Arc<Chunk>)> {
        let groups = self.groups.iter().enumerate().filter_map(|(n, group)| Some((n, group.get()?)));
        groups.flat_map(|(n, group)| {
            let chunks = group.chunks.iter().enumerate();
            chunks.filter_map(move |(m, chunk)| Some((n * GROUP_CHUNKS + m, chunk.get()?)))
        })
    }

    /// Puts back a chunk that was stored.
    pub(crate) fn set_chunk(&mut self, n: u32, cells: impl Fn(usize) -> u64) {
        *self.chunk_mut(n as usize) =
            Arc::new(Chunk { cells: std::array::from_fn(|m| AtomicU64::new(cells(m))) }).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(n: u32) -> PageIdx {
        PageIdx::new(n).unwrap()
    }

    fn at(file: u32, offset: u32) -> Cell {
        Cell::At { place: Place { file: FileId(file), offset }, verified: true }
    }

    #[test]
    fn cells_come_back() {
        for cell in [Cell::Absent, Cell::Zero, at(0, 0), at(u32::MAX, (1 << 30) - 1)] {
            assert_eq!(Cell::from_bits(cell.to_bits()), cell);
        }
    }

    #[test]
    fn a_change_is_not_seen_by_the_snapshot_before() {
        let mut table = Table::default();
        table.set(page(5), at(1, 32));
        let before = table.clone();
        table.set(page(5), at(2, 64));
        table.set(page(5000), Cell::Zero);
        assert_eq!(before.get(page(5)), at(1, 32));
        assert_eq!(before.get(page(5000)), Cell::Absent);
        assert_eq!(table.get(page(5)), at(2, 64));
    }

    #[test]
    fn a_fill_is_seen_by_all_who_share_and_never_overwrites() {
        let mut table = Table::default();
        table.cover(PageCount::new(10));
        assert!(table.fill(page(1), Place { file: FileId(3), offset: 0 }), "the first fill makes the chunk");
        let other = table.clone();
        let place = Place { file: FileId(3), offset: 99 };
        assert!(other.fill(page(10), place));
        assert_eq!(table.get(page(10)), Cell::At { place, verified: false });
        assert!(!table.fill(page(10), Place { file: FileId(4), offset: 1 }));
    }

    #[test]
    fn what_becomes_absent_is_filled_for_none_but_those_who_have_it_so() {
        let chunk = CHUNK_PAGES as u32;
        let place = |offset| Place { file: FileId(3), offset };
        let mut before = Table::default();
        before.cover(PageCount::new(4 * chunk));
        // The group is there; the chunks of the pages below are not.
        assert!(before.fill(page(1), place(1)));
        let mut after = before.clone();
        after.set(page(chunk + 5), Cell::Absent);
        after.set_range(2 * chunk + 1, 3 * chunk, Cell::Absent);
        for n in [chunk + 5, 2 * chunk + 9] {
            assert!(after.fill(page(n), place(n)));
            assert_eq!(before.get(page(n)), Cell::Absent, "page {n} is another one there");
            assert!(before.fill(page(n), place(n + 1)));
            assert_eq!(after.get(page(n)), Cell::At { place: place(n), verified: false });
        }
    }

    #[test]
    fn what_is_far_away_is_not_seen_by_the_snapshot_before() {
        let far = (CHUNK_PAGES * GROUP_CHUNKS) as u32;
        let mut table = Table::default();
        for n in [1, far, far + 1, 20 * far] {
            table.set(page(n), at(1, n));
        }
        let before = table.clone();
        table.set_range(1, 20 * far, Cell::Zero);
        table.set_range(far + 1, 2 * far, Cell::Absent);
        for n in [1, far, far + 1, 20 * far] {
            assert_eq!(before.get(page(n)), at(1, n));
        }
        let cells = [1, far, far + 1, 2 * far, 2 * far + 1, 20 * far].map(|n| table.get(page(n)));
        let (zero, absent) = (Cell::Zero, Cell::Absent);
        assert_eq!(cells, [zero, zero, absent, absent, zero, zero]);
        let mut seen = 0;
        table.for_each(|_, _| seen += 1);
        assert_eq!(seen, 19 * far);
    }

    #[test]
    fn what_is_absent_is_what_says_so_page_by_page() {
        let mut table = Table::default();
        assert_eq!(table.absent(1, u32::MAX), [(1, u32::MAX)]);
        table.set(page(u32::MAX), Cell::Zero);
        assert_eq!(table.absent(u32::MAX - 1, u32::MAX), [(u32::MAX - 1, u32::MAX - 1)]);
        assert_eq!(table.absent(u32::MAX, u32::MAX), []);
        for n in [3, 4, 9, 600, 601, 1024, 1025, 9000] {
            table.set(page(n), at(1, n));
        }
        for first in [1, 2, 3, 4, 5, 9, 10, 601, 1026, 9001] {
            for last in [0, 1, 3, 8, 9, 700, 1024, 8999, 9000, 9500] {
                let ranges = table.absent(first, last);
                let found: Vec<u32> = ranges.iter().flat_map(|(first, last)| *first..=*last).collect();
                let expected: Vec<u32> = (first..=last).filter(|n| table.get(page(*n)) == Cell::Absent).collect();
                assert_eq!(found, expected, "{first} to {last}");
                assert!(ranges.windows(2).all(|two| two[0].1 + 1 < two[1].0), "{ranges:?} are maximal");
            }
        }
    }

    #[test]
    fn ranges_cross_chunks_and_reach_the_last_page_there_can_be() {
        let mut table = Table::default();
        table.set_range(500, 2000, Cell::Zero);
        for n in [499, 2001] {
            assert_eq!(table.get(page(n)), Cell::Absent);
        }
        for n in [500, 513, 1024, 2000] {
            assert_eq!(table.get(page(n)), Cell::Zero, "{n}");
        }
        table.set_range(1, u32::MAX, Cell::Absent);
        let mut left = 0;
        table.for_each(|_, _| left += 1);
        assert_eq!(left, 0);
        table.set_range(u32::MAX - 2, u32::MAX, Cell::Zero);
        assert_eq!(table.get(page(u32::MAX)), Cell::Zero);
    }
}
