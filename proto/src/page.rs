//! Pages: an index, a count and a size are different types.

use std::fmt;
use std::num::NonZeroU32;

use crate::{Error, Result};

/// The number of a page in its volume, from 1 as SQLite numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIdx(NonZeroU32);

impl PageIdx {
    /// The first page.
    pub const FIRST: PageIdx = PageIdx(NonZeroU32::MIN);

    /// Page `n`, or `None` for 0.
    pub const fn new(n: u32) -> Option<PageIdx> {
        match NonZeroU32::new(n) {
            Some(n) => Some(PageIdx(n)),
            None => None,
        }
    }

    /// Checks a number that came from outside.
    pub fn try_new(n: u32) -> Result<PageIdx> {
        PageIdx::new(n).ok_or_else(|| Error::invalid("pages are numbered from 1, not 0"))
    }

    /// The page that holds byte `offset` of a volume with pages of `size`, or
    /// `None` past the last page that a volume can have.
    pub fn of_offset(offset: u64, size: PageSize) -> Option<PageIdx> {
        u32::try_from(offset >> size.log2()).ok().and_then(|n| n.checked_add(1)).and_then(PageIdx::new)
    }

    /// Where the page begins in a volume with pages of `size`, in bytes.
    pub fn offset(self, size: PageSize) -> u64 {
        u64::from(self.get() - 1) << size.log2()
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for PageIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many pages a snapshot has. Its last page, if any, has this index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageCount(u32);

impl PageCount {
    /// No page.
    pub const ZERO: PageCount = PageCount(0);

    /// `n` pages.
    pub const fn new(n: u32) -> PageCount {
        PageCount(n)
    }

    /// The pages that `bytes` bytes fill, the last one perhaps in part.
    pub fn of_bytes(bytes: u64, size: PageSize) -> Result<PageCount> {
        let n = bytes.div_ceil(size.bytes() as u64);
        u32::try_from(n).map(PageCount).map_err(|_| {
            Error::invalid(format!("{bytes} bytes are more than a volume with pages of {size} bytes can hold"))
                .with_remedy("Choose a larger page size.")
        })
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether the snapshot has this page.
    pub const fn contains(self, page: PageIdx) -> bool {
        page.get() <= self.0
    }

    /// The size of a volume with this many pages, in bytes.
    pub fn bytes(self, size: PageSize) -> u64 {
        u64::from(self.0) << size.log2()
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The size of a page: a power of two from 512 to 65,536 bytes, as SQLite has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize {
    log2: u8,
}

impl PageSize {
    /// SQLite's default, 4,096 bytes.
    pub const DEFAULT: PageSize = PageSize { log2: 12 };
    /// The largest page there is, 65,536 bytes.
    pub const MAX: PageSize = PageSize { log2: 16 };

    /// Checks a size in bytes.
    pub fn try_new(bytes: u32) -> Result<PageSize> {
        if bytes.is_power_of_two() && (512..=65_536).contains(&bytes) {
            Ok(PageSize { log2: bytes.trailing_zeros() as u8 })
        } else {
            Err(Error::invalid(format!("page size {bytes} is not a power of two from 512 to 65536")))
        }
    }

    /// From its logarithm, as stored.
    pub fn from_log2(log2: u8) -> Result<PageSize> {
        if (9..=16).contains(&log2) {
            Ok(PageSize { log2 })
        } else {
            Err(Error::corrupt(format!("page size 2^{log2} is outside 2^9..2^16")))
        }
    }

    /// The logarithm to base 2.
    pub const fn log2(self) -> u8 {
        self.log2
    }

    /// The size in bytes.
    pub const fn bytes(self) -> usize {
        1 << self.log2
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}
