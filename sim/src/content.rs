//! What a volume must show: plain maps of pages.
//!
//! Every page that is ever written has a stamp of its own, and its bytes follow
//! from the stamp; every commit carries a stamp as an attribute. So whatever
//! snapshot is met, anywhere, says which commit it claims to be, and each of
//! its pages says whether it belongs there.

use std::collections::BTreeMap;

use quire_engine::{PageCount, PageIdx, PageSize, Result, Snapshot, Writer};
use rand::RngExt;
use rand::rngs::StdRng;

/// The attribute that holds a commit's stamp.
pub(crate) const STAMP: &str = "stamp";

/// The name of a commit; 0 is a volume without any.
pub(crate) type Stamp = u64;

/// The right content of a volume at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Content {
    /// Bytes a page.
    pub(crate) page_size: u32,
    /// How many pages there are.
    pub(crate) count: u32,
    pages: BTreeMap<u32, u64>,
}

/// One thing that a transaction does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Writes a page.
    Write(u32, u64),
    /// Pages past this one go.
    Truncate(u32),
    /// All pages go, and those to come have another size.
    Resize(u32),
}

impl Content {
    /// No pages yet.
    pub(crate) fn empty(page_size: u32) -> Content {
        Content { page_size, count: 0, pages: BTreeMap::new() }
    }

    /// The stamp of a page; 0 is zeros.
    pub(crate) fn get(&self, page: u32) -> u64 {
        self.pages.get(&page).copied().unwrap_or(0)
    }

    /// Does what a transaction does.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Write(page, stamp) => {
                self.pages.insert(page, stamp);
                self.count = self.count.max(page);
            }
            Change::Truncate(count) => {
                self.pages.retain(|page, _| *page <= count);
                self.count = count;
            }
            Change::Resize(page_size) => *self = Content::empty(page_size),
        }
    }

    /// A random transaction on this content; its pages' stamps begin after `stamp`.
    pub(crate) fn transaction(&self, stamp: Stamp, most_pages: u32, rng: &mut StdRng) -> Vec<Change> {
        let mut content = self.clone();
        let mut changes = Vec::new();
        let mut next = stamp << 20;
        let mut write = |page: u32, changes: &mut Vec<Change>| {
            next += 1;
            changes.push(Change::Write(page, next));
        };
        for _ in 0..rng.random_range(1..6) {
            let begin = changes.len();
            match rng.random_range(0..24) {
                0..2 if content.count > 1 => changes.push(Change::Truncate(rng.random_range(1..=content.count))),
                // Grows without writing what is between.
                2 => write(rng.random_range(1..=most_pages), &mut changes),
                3 => changes.push(Change::Truncate(rng.random_range(1..=most_pages))),
                4..6 => {
                    let first = rng.random_range(1..=most_pages);
                    let last = most_pages.min(first + rng.random_range(0..=most_pages / 3));
                    (first..=last).for_each(|page| write(page, &mut changes));
                }
                6 if rng.random_ratio(1, 8) => {
                    // As VACUUM does to change the page size: every page comes anew.
                    let to = if content.page_size == 65536 { 32768 } else { content.page_size * 2 };
                    changes.push(Change::Resize(to));
                    (1..=rng.random_range(1..=most_pages.min(12))).for_each(|page| write(page, &mut changes));
                }
                _ => write(rng.random_range(1..=content.count.clamp(1, 20)), &mut changes),
            }
            changes[begin..].iter().for_each(|change| content.apply(*change));
        }
        changes
    }

    /// Checks one page of `snapshot`. An error is the store's; wrong bytes are a panic.
    pub(crate) fn check_page(&self, snapshot: &Snapshot, page: u32, what: &str) -> Result<()> {
        let mut data = vec![0xEE; self.page_size as usize];
        snapshot.read(index(page), &mut data)?;
        self.check_bytes(page, &data, what);
        Ok(())
    }

    /// Checks one page as a transaction reads it.
    pub(crate) fn check_in(&self, writer: &Writer, page: u32) -> Result<()> {
        let mut data = vec![0xEE; self.page_size as usize];
        writer.read(index(page), &mut data)?;
        self.check_bytes(page, &data, "a writer reads what it wrote");
        Ok(())
    }

    fn check_bytes(&self, page: u32, data: &[u8], what: &str) {
        let stamp = self.get(page);
        let mut right = vec![0; data.len()];
        fill(&mut right, stamp);
        if data == right {
            return;
        }
        let wrong = data.iter().zip(&right).position(|(is, must)| is != must);
        panic!(
            "{what}: page {page} of {} is wrong from byte {} on: it begins with {:?}, write {stamp:#x} with {:?}",
            self.count,
            wrong.unwrap_or(0),
            &data[..8],
            &right[..8],
        );
    }

    /// Checks what needs no page: how many there are, and their size.
    pub(crate) fn check_shape(&self, snapshot: &Snapshot, what: &str) {
        assert_eq!(snapshot.page_count().get(), self.count, "{what}: its page count");
        if self.count > 0 {
            assert_eq!(
                snapshot.page_size().map(PageSize::bytes),
                Some(self.page_size as usize),
                "{what}: its page size"
            );
        }
    }
}

/// Does to a writer what a transaction does.
pub(crate) fn write(writer: &mut Writer, page_size: u32, changes: &[Change], stamp: Stamp) -> Result<()> {
    writer.set_page_size(size(page_size))?;
    let mut data = vec![0; page_size as usize];
    for change in changes {
        match *change {
            Change::Write(page, stamp) => {
                fill(&mut data, stamp);
                writer.write(index(page), &data)?;
            }
            Change::Truncate(count) => writer.truncate(PageCount::new(count))?,
            Change::Resize(bytes) => {
                writer.set_page_size(size(bytes))?;
                data = vec![0; bytes as usize];
            }
        }
    }
    writer.set_attribute(STAMP, &stamp.to_string());
    Ok(())
}

/// Which commit a snapshot claims to be.
pub(crate) fn stamp_of(snapshot: &Snapshot) -> Stamp {
    parse_stamp(snapshot.attribute(STAMP))
}

/// A stamp from an attribute.
pub(crate) fn parse_stamp(attribute: Option<&str>) -> Stamp {
    attribute.map_or(0, |text| text.parse().unwrap_or_else(|e| panic!("a commit with the stamp {text:?}: {e}")))
}

/// Bytes that cannot be compressed, so that small volumes have segments, too.
fn fill(data: &mut [u8], stamp: u64) {
    if stamp == 0 {
        return data.fill(0);
    }
    let mut word = stamp;
    for chunk in data.chunks_exact_mut(8) {
        word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
        chunk.copy_from_slice(&crate::mix(word).to_le_bytes());
    }
}

fn index(page: u32) -> PageIdx {
    PageIdx::new(page).unwrap_or(PageIdx::FIRST)
}

fn size(bytes: u32) -> PageSize {
    PageSize::try_new(bytes).unwrap_or(PageSize::DEFAULT)
}
