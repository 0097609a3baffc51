//! The few bytes of a SQLite database's header that the VFS cares about. All
//! numbers are big-endian; <https://www.sqlite.org/fileformat2.html#the_database_header>.

use std::ops::Range;

use quire_engine::{PageCount, PageSize};

const PAGE_SIZE: Range<usize> = 16..18;
/// Write and read version: 2 asks for WAL mode.
const VERSIONS: Range<usize> = 18..20;
const CHANGE_COUNTER: Range<usize> = 24..28;
const PAGE_COUNT: Range<usize> = 28..32;
/// The change counter for which the page count in the header is valid.
const VALID_FOR: Range<usize> = 92..96;
/// The version of the SQLite that wrote last.
const WRITTEN_BY: Range<usize> = 96..100;

/// The header's length in bytes; no page is shorter.
pub(crate) const HEADER_BYTES: usize = 100;

/// The page size that page 1 declares, if it declares one.
pub(crate) fn page_size(page: &[u8]) -> Option<PageSize> {
    match u16::from_be_bytes([*page.get(PAGE_SIZE.start)?, *page.get(PAGE_SIZE.start + 1)?]) {
        1 => PageSize::try_new(65_536).ok(),
        bytes => PageSize::try_new(bytes.into()).ok(),
    }
}

/// The change counter as stored.
pub(crate) fn change_counter(page: &[u8]) -> u32 {
    number(page, CHANGE_COUNTER)
}

/// The page count that page 1 declares, if it is valid: old versions of SQLite did not keep it.
pub(crate) fn page_count(page: &[u8]) -> Option<PageCount> {
    let count = PageCount::new(number(page, PAGE_COUNT));
    (count > PageCount::ZERO && page[VALID_FOR] == page[CHANGE_COUNTER]).then_some(count)
}

fn number(page: &[u8], place: Range<usize>) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&page[place]);
    u32::from_be_bytes(bytes)
}

/// Puts another change counter in, also where the header repeats it.
pub(crate) fn set_change_counter(page: &mut [u8], counter: u32) {
    let repeated = page[VALID_FOR] == page[CHANGE_COUNTER];
    page[CHANGE_COUNTER].copy_from_slice(&counter.to_be_bytes());
    if repeated {
        page[VALID_FOR].copy_from_slice(&counter.to_be_bytes());
    }
}

/// Takes WAL mode out of the header; says whether it was there.
pub(crate) fn leave_wal_mode(page: &mut [u8]) -> bool {
    let asks = page[VERSIONS].contains(&2);
    if asks {
        page[VERSIONS].fill(1);
    }
    asks
}

/// Whether two first pages differ at most in what every commit of SQLite changes.
pub(crate) fn differ_only_in_counters(a: &[u8], b: &[u8]) -> bool {
    let (low, high) = (CHANGE_COUNTER, VALID_FOR.start..WRITTEN_BY.end);
    a.len() == b.len()
        && a[..low.start] == b[..low.start]
        && a[low.end..high.start] == b[low.end..high.start]
        && a[high.end..] == b[high.end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_size_is_read_from_the_header() {
        let mut page = [0; HEADER_BYTES];
        assert_eq!(page_size(&page), None);
        for (high, low, bytes) in [(2, 0, 512), (16, 0, 4096), (0x80, 0, 32_768), (0, 1, 65_536)] {
            page[16..18].copy_from_slice(&[high, low]);
            assert_eq!(page_size(&page).map(PageSize::bytes), Some(bytes));
        }
    }

    #[test]
    fn a_counter_is_repeated_only_where_it_was() {
        let mut page = [0; 512];
        set_change_counter(&mut page, 7);
        assert_eq!((change_counter(&page), &page[92..96]), (7, &[0, 0, 0, 7][..]));
        page[92] = 9;
        set_change_counter(&mut page, 8);
        assert_eq!((change_counter(&page), &page[92..96]), (8, &[9, 0, 0, 7][..]));
    }

    #[test]
    fn a_change_outside_the_counters_counts() {
        let page = [0; 512];
        for (at, only_counters) in [(23, false), (24, true), (27, true), (28, false), (91, false), (92, true)] {
            let mut other = page;
            other[at] = 1;
            assert_eq!(differ_only_in_counters(&page, &other), only_counters, "byte {at}");
        }
        for (at, only_counters) in [(99, true), (100, false), (511, false)] {
            let mut other = page;
            other[at] = 1;
            assert_eq!(differ_only_in_counters(&page, &other), only_counters, "byte {at}");
        }
        assert!(!differ_only_in_counters(&page, &page[..500]));
    }
}
