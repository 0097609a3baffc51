//! Sets of pages.

use std::ops::RangeInclusive;

use roaring::RoaringBitmap;

use crate::{PageCount, PageIdx, Reader, Result, Writer};

/// Above this many ranges a set is stored as a roaring bitmap.
const MAX_RANGES: usize = 256;
/// So many pages are added to a set one by one.
const FEW: u64 = 64;
const TAG_RANGES: u8 = 0;
const TAG_ROARING: u8 = 1;

/// A set of pages, small however its members are spread.
#[derive(Clone, Default, PartialEq)]
pub struct PageSet {
    bits: RoaringBitmap,
}

impl PageSet {
    /// The empty set.
    pub fn new() -> PageSet {
        PageSet::default()
    }

    /// All pages of a snapshot with `count` pages.
    pub fn first(count: PageCount) -> PageSet {
        let mut set = PageSet::new();
        set.insert_range(1, count.get());
        set
    }

    /// Adds a page; true if it was not there.
    pub fn insert(&mut self, page: PageIdx) -> bool {
        self.bits.insert(page.get())
    }

    /// Adds the pages from `first` to `last`, both included; nothing if `first > last`.
    pub fn insert_range(&mut self, first: u32, last: u32) {
        if first <= last {
            self.bits.insert_range(first.max(1)..=last);
        }
    }

    /// Takes a page out; true if it was there.
    pub fn remove(&mut self, page: PageIdx) -> bool {
        self.bits.remove(page.get())
    }

    /// Takes out every page past `count`.
    pub fn truncate(&mut self, count: PageCount) {
        if self.bits.max().is_some_and(|last| last > count.get()) {
            self.bits.remove_range(count.get() + 1..);
        }
    }

    /// Adds every page of `other`.
    pub fn union_with(&mut self, other: &PageSet) {
        // A union of bitmaps makes their containers anew, however little is added.
        match other.len() <= FEW {
            true => self.bits.extend(&other.bits),
            false => self.bits |= &other.bits,
        }
    }

    /// Takes out every page of `other`.
    pub fn subtract(&mut self, other: &PageSet) {
        self.bits -= &other.bits;
    }

    /// Whether the page is in the set.
    pub fn contains(&self, page: PageIdx) -> bool {
        self.bits.contains(page.get())
    }

    /// Whether every page of `other` is in this set.
    pub fn contains_all(&self, other: &PageSet) -> bool {
        other.bits.is_subset(&self.bits)
    }

    /// How many pages are in the set.
    pub fn len(&self) -> u64 {
        self.bits.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// The largest page.
    pub fn last(&self) -> Option<PageIdx> {
        self.bits.max().and_then(PageIdx::new)
    }

    /// The pages in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PageIdx> + '_ {
        self.bits.iter().filter_map(PageIdx::new)
    }

    /// The maximal runs of neighbouring pages, ascending, as (first, last).
    pub fn ranges(&self) -> Ranges<'_> {
        Ranges { iter: self.bits.iter() }
    }

    /// Appends the set to `w` as `FORMAT.md` says.
    pub fn encode(&self, w: &mut Writer) {
        let ranges: Vec<_> = self.ranges().take(MAX_RANGES + 1).collect();
        if ranges.len() <= MAX_RANGES {
            w.u8(TAG_RANGES);
            w.varint(ranges.len() as u64);
            let mut next = 1;
            for (first, last) in ranges {
                w.varint(u64::from(first - next));
                w.varint(u64::from(last - first));
                next = last.saturating_add(1);
            }
        } else {
            let mut bits = self.bits.clone();
            bits.optimize();
            let mut bytes = Vec::with_capacity(bits.serialized_size());
            bits.serialize_into(&mut bytes).expect("writing to a Vec cannot fail");
            w.u8(TAG_ROARING);
            w.block(&bytes);
        }
    }

    /// Reads a set.
    pub fn decode(r: &mut Reader<'_>) -> Result<PageSet> {
        match r.u8()? {
            TAG_RANGES => {
                let n = r.count(2)?;
                if n > MAX_RANGES {
                    return Err(r.corrupt("too many page ranges"));
                }
                let mut set = PageSet::new();
                let mut next: u64 = 1;
                for _ in 0..n {
                    let first = next.checked_add(r.varint()?);
                    let last = first.and_then(|f| r.varint().ok().and_then(|len| f.checked_add(len)));
                    match (first, last) {
                        (Some(first), Some(last)) if last <= u64::from(u32::MAX) => {
                            set.insert_range(first as u32, last as u32);
                            next = last + 1;
                        }
                        _ => return Err(r.corrupt("a page range ends past the last page number")),
                    }
                }
                Ok(set)
            }
            TAG_ROARING => {
                let bytes = r.block()?;
                let bits = RoaringBitmap::deserialize_from(bytes)
                    .map_err(|e| r.corrupt("a page set is damaged").with_source(e))?;
                if bits.contains(0) {
                    return Err(r.corrupt("a page set holds page 0"));
                }
                Ok(PageSet { bits })
            }
            tag => Err(r.corrupt(format_args!("page set of unknown coding {tag}"))),
        }
    }
}

impl FromIterator<PageIdx> for PageSet {
    fn from_iter<T: IntoIterator<Item = PageIdx>>(pages: T) -> Self {
        PageSet { bits: pages.into_iter().map(PageIdx::get).collect() }
    }
}

impl Extend<PageIdx> for PageSet {
    fn extend<T: IntoIterator<Item = PageIdx>>(&mut self, pages: T) {
        self.bits.extend(pages.into_iter().map(PageIdx::get));
    }
}

impl std::fmt::Debug for PageSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown: Vec<_> = self.ranges().take(8).collect();
        write!(f, "PageSet({} pages: {shown:?}…)", self.len())
    }
}

/// See [`PageSet::ranges`].
pub struct Ranges<'a> {
    iter: roaring::bitmap::Iter<'a>,
}

impl Iterator for Ranges<'_> {
    type Item = (u32, u32);

    fn next(&mut self) -> Option<(u32, u32)> {
        self.iter.next_range().map(RangeInclusive::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_set() -> impl Strategy<Value = PageSet> {
        let ranges = proptest::collection::vec((1u32..5_000_000, 0u32..3_000), 0..600);
        ranges.prop_map(|ranges| {
            let mut set = PageSet::new();
            for (first, len) in ranges {
                set.insert_range(first, first + len);
            }
            set
        })
    }

    proptest! {
        #[test]
        fn sets_come_back(set in any_set()) {
            let mut w = Writer::new();
            set.encode(&mut w);
            let mut r = Reader::new("test", w.as_slice());
            prop_assert_eq!(PageSet::decode(&mut r).unwrap(), set);
            prop_assert!(r.finish().is_ok());
        }

        #[test]
        fn any_bytes_are_a_set_or_an_error(tag in 0u8..3, bytes: Vec<u8>) {
            let input = [vec![tag], bytes].concat();
            let _ = PageSet::decode(&mut Reader::new("test", &input));
        }

        #[test]
        fn ranges_cover_the_set_and_do_not_touch(set in any_set()) {
            let ranges: Vec<_> = set.ranges().collect();
            prop_assert!(ranges.windows(2).all(|w| w[0].1 + 1 < w[1].0));
            prop_assert_eq!(ranges.iter().map(|r| u64::from(r.1 - r.0) + 1).sum::<u64>(), set.len());
        }
    }

    #[test]
    fn the_largest_page_number_is_a_page() {
        let mut set = PageSet::new();
        set.insert_range(u32::MAX - 1, u32::MAX);
        let mut w = Writer::new();
        set.encode(&mut w);
        assert_eq!(PageSet::decode(&mut Reader::new("test", w.as_slice())).unwrap(), set);
        set.truncate(PageCount::new(u32::MAX));
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn all_pages_there_can_be_are_one_range_found_at_once() {
        let mut set = PageSet::first(PageCount::new(u32::MAX));
        assert_eq!(set.ranges().collect::<Vec<_>>(), [(1, u32::MAX)]);
        set.remove(PageIdx::new(1 << 20).unwrap());
        assert_eq!(set.ranges().collect::<Vec<_>>(), [(1, (1 << 20) - 1), ((1 << 20) + 1, u32::MAX)]);
        let mut w = Writer::new();
        set.encode(&mut w);
        assert_eq!(PageSet::decode(&mut Reader::new("test", w.as_slice())).unwrap(), set);
    }

    #[test]
    fn one_page_costs_a_few_bytes() {
        let mut w = Writer::new();
        PageSet::from_iter(PageIdx::new(20_000)).encode(&mut w);
        assert!(w.len() <= 6, "{} bytes", w.len());
    }
}
