//! The database header, and the pages whose place follows from it.

use quire_proto::{PageCount, PageIdx, PageSize, Result};

use crate::bytes::{page_at, u16_at, u32_at};
use crate::{Owner, Pages};

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const PAGE_SIZE: usize = 16;
const READ_VERSION: usize = 19;
const RESERVED: usize = 20;
const PAYLOAD_FRACTIONS: usize = 21;
const CHANGE_COUNTER: usize = 24;
const PAGE_COUNT: usize = 28;
const FREELIST_TRUNK: usize = 32;
const FREELIST_COUNT: usize = 36;
const SCHEMA_FORMAT: usize = 44;
const LARGEST_ROOT: usize = 52;
const TEXT_ENCODING: usize = 56;
const INCREMENTAL: usize = 64;
/// The change counter for which the page count is valid.
const VALID_FOR: usize = 92;

/// The header's length in bytes; the B-tree page begins behind it.
pub(crate) const HEADER_BYTES: usize = 100;
/// SQLite reads no page that leaves it fewer bytes.
pub(crate) const MIN_USABLE_BYTES: usize = 480;
/// Nothing is stored on the page of this byte: SQLite's locks lie there.
const LOCK_BYTE: u64 = 1 << 30;
/// A pointer map's entry: a kind and a page number.
const POINTER_BYTES: u32 = 5;

/// How text is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextEncoding {
    /// UTF-8.
    Utf8,
    /// UTF-16, the low byte first.
    Utf16Le,
    /// UTF-16, the high byte first.
    Utf16Be,
}

/// Whether free pages leave the file; if at all, there are pointer-map pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoVacuum {
    /// They stay on the freelist.
    Off,
    /// At each commit.
    Full,
    /// When asked.
    Incremental,
}

/// What the header of page 1 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseHeader {
    /// The size of a page.
    pub page_size: PageSize,
    /// Bytes at each page's end that SQLite leaves to extensions.
    pub reserved_bytes: u8,
    /// The number of pages, if the last writer kept it.
    pub page_count: Option<PageCount>,
    /// The freelist's first trunk page.
    pub freelist: Option<PageIdx>,
    /// How many pages the freelist is said to have.
    pub freelist_count: u32,
    /// The format of the schema, 1 to 4; 0 while there is none.
    pub schema_format: u32,
    /// How text is stored.
    pub text_encoding: TextEncoding,
    /// Whether free pages leave the file.
    pub auto_vacuum: AutoVacuum,
}

/// The header of the database in `pages`; `None` if they are no SQLite
/// database, or one with pages of another size. Reads page 1.
pub fn read_header(pages: &mut (impl Pages + ?Sized)) -> Result<Option<DatabaseHeader>> {
    if !pages.page_count().contains(PageIdx::FIRST) {
        return Ok(None);
    }
    let mut page = vec![0; pages.page_size().bytes()];
    pages.read(PageIdx::FIRST, &mut page)?;
    Ok(DatabaseHeader::parse(&page).filter(|header| header.page_size == pages.page_size()))
}

impl DatabaseHeader {
    /// Reads the first bytes of page 1. `None` is what SQLite calls "not a
    /// database", an encrypted one included.
    pub fn parse(page: &[u8]) -> Option<DatabaseHeader> {
        let page = page.first_chunk::<HEADER_BYTES>()?;
        let page_size = match u16_at(page, PAGE_SIZE)? {
            1 => PageSize::MAX,
            bytes => PageSize::try_new(bytes.into()).ok()?,
        };
        let reserved_bytes = page[RESERVED];
        let readable = page.starts_with(MAGIC)
            && page[READ_VERSION] <= 2
            && page[PAYLOAD_FRACTIONS..CHANGE_COUNTER] == [64, 32, 32]
            && page_size.bytes() - usize::from(reserved_bytes) >= MIN_USABLE_BYTES;
        if !readable {
            return None;
        }
        let count_is_valid = u32_at(page, CHANGE_COUNTER) == u32_at(page, VALID_FOR);
        Some(DatabaseHeader {
            page_size,
            reserved_bytes,
            page_count: u32_at(page, PAGE_COUNT).filter(|&n| n > 0 && count_is_valid).map(PageCount::new),
            freelist: page_at(page, FREELIST_TRUNK),
            freelist_count: u32_at(page, FREELIST_COUNT)?,
            schema_format: u32_at(page, SCHEMA_FORMAT)?,
            text_encoding: match u32_at(page, TEXT_ENCODING)? & 3 {
                2 => TextEncoding::Utf16Le,
                3 => TextEncoding::Utf16Be,
                _ => TextEncoding::Utf8,
            },
            auto_vacuum: match (u32_at(page, LARGEST_ROOT)?, u32_at(page, INCREMENTAL)?) {
                (0, _) => AutoVacuum::Off,
                (_, 0) => AutoVacuum::Full,
                _ => AutoVacuum::Incremental,
            },
        })
    }

    /// The bytes of each page that SQLite uses.
    pub fn usable_bytes(&self) -> usize {
        self.page_size.bytes() - usize::from(self.reserved_bytes)
    }

    /// The page that holds nothing because of SQLite's locks, in a database that is large enough.
    pub fn lock_page(&self) -> PageIdx {
        PageIdx::of_offset(LOCK_BYTE, self.page_size).expect("2^30 bytes are at most 2^21 pages")
    }

    /// Whether the page is a pointer map.
    pub fn is_pointer_map(&self, page: PageIdx) -> bool {
        page.get() >= 2 && self.pointer_map_about(page) == Some(page)
    }

    /// Whose a page is that nothing names; `count` pages belong to the database.
    pub(crate) fn owner_by_place(&self, page: PageIdx, count: PageCount) -> Owner {
        match page {
            _ if !count.contains(page) => Owner::Unknown,
            _ if page == self.lock_page() => Owner::LockByte,
            _ if self.is_pointer_map(page) => Owner::PointerMap,
            _ => Owner::Unknown,
        }
    }

    /// The first pointer map at or after `page`.
    pub(crate) fn pointer_map_from(&self, page: PageIdx) -> Option<PageIdx> {
        let page = page.get().max(2);
        let here = self.pointer_map_about(PageIdx::new(page)?)?;
        if here.get() >= page {
            return Some(here);
        }
        let group = (page - 2) / self.pointer_map_span();
        self.pointer_map_of_group(group.checked_add(1)?)
    }

    /// The pointer map in whose group `page` lies.
    fn pointer_map_about(&self, page: PageIdx) -> Option<PageIdx> {
        self.pointer_map_of_group((page.get() - 2) / self.pointer_map_span())
    }

    /// A group is a pointer map and the pages it tells about, from page 2 on. The lock page moves it by one.
    fn pointer_map_of_group(&self, group: u32) -> Option<PageIdx> {
        if self.auto_vacuum == AutoVacuum::Off {
            return None;
        }
        let first = group.checked_mul(self.pointer_map_span())?.checked_add(2)?;
        PageIdx::new(if first == self.lock_page().get() { first + 1 } else { first })
    }

    fn pointer_map_span(&self) -> u32 {
        self.usable_bytes() as u32 / POINTER_BYTES + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_1() -> Vec<u8> {
        let mut page = vec![0; 512];
        page[..16].copy_from_slice(MAGIC);
        page[16..24].copy_from_slice(&[4, 0, 1, 1, 0, 64, 32, 32]);
        page[52..56].copy_from_slice(&[0, 0, 0, 9]);
        page
    }

    #[test]
    fn what_sqlite_calls_no_database_is_none() {
        assert_eq!(DatabaseHeader::parse(&page_1()).unwrap().page_size.bytes(), 1024);
        for (at, byte) in [(0, b's'), (16, 3), (17, 1), (19, 3), (21, 65), (22, 31), (23, 0)] {
            let mut page = page_1();
            page[at] = byte;
            assert_eq!(DatabaseHeader::parse(&page), None, "byte {at}");
        }
        assert_eq!(DatabaseHeader::parse(&page_1()[..99]), None);
        let mut page = page_1();
        page[16] = 2;
        page[20] = 32;
        assert_eq!(DatabaseHeader::parse(&page).unwrap().usable_bytes(), 480);
        page[20] = 33;
        assert_eq!(DatabaseHeader::parse(&page), None);
    }

    #[test]
    fn a_page_size_of_1_is_65536() {
        let mut page = page_1();
        page[16..18].copy_from_slice(&[0, 1]);
        let header = DatabaseHeader::parse(&page).unwrap();
        assert_eq!((header.page_size, header.lock_page().get()), (PageSize::MAX, 16_385));
    }

    #[test]
    fn a_page_count_holds_while_the_change_counter_does() {
        let mut page = page_1();
        assert_eq!(DatabaseHeader::parse(&page).unwrap().page_count, None);
        page[31] = 8;
        assert_eq!(DatabaseHeader::parse(&page).unwrap().page_count, Some(PageCount::new(8)));
        page[27] = 1;
        assert_eq!(DatabaseHeader::parse(&page).unwrap().page_count, None);
        page[95] = 1;
        assert_eq!(DatabaseHeader::parse(&page).unwrap().page_count, Some(PageCount::new(8)));
    }

    #[test]
    fn a_pointer_map_gives_way_to_the_lock_page() {
        let header = DatabaseHeader::parse(&page_1()).unwrap();
        let maps = |first: u32, last: u32| -> Vec<u32> {
            (first..=last).filter(|&n| header.is_pointer_map(PageIdx::new(n).unwrap())).collect()
        };
        assert_eq!(maps(1, 500), [2, 207, 412]);
        // Pages of 1024 bytes: every 205th is a map, and one would lie on the lock page.
        assert_eq!(header.lock_page().get(), 1_048_577);
        assert_eq!(maps(1_048_300, 1_048_900), [1_048_372, 1_048_578, 1_048_782]);
    }

    #[test]
    fn the_next_pointer_map_is_found_from_any_page() {
        let header = DatabaseHeader::parse(&page_1()).unwrap();
        for page in (1..2_000).chain(1_048_000..1_049_000).filter_map(PageIdx::new) {
            let next = (page.get()..).filter_map(PageIdx::new).find(|page| header.is_pointer_map(*page));
            assert_eq!(header.pointer_map_from(page), next, "from page {page}");
        }
        assert_eq!(header.pointer_map_from(PageIdx::new(u32::MAX).unwrap()), None);
    }
}
