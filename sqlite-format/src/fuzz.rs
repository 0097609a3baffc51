//! What must hold of any file in the place of a database, for the fuzzer
//! (`fuzz/` at the root) and for the ordinary tests that replay what it found.

use quire_proto::fuzz::Check;
use quire_proto::{PageCount, PageIdx, PageSet, PageSize, Result};

use crate::{
    DatabaseHeader, Depth, Leaves, Owner, Owners, Pages, Schema, TreeLevel, order, read_header, read_schema,
    rows_of_index_leaf, upper_levels,
};

/// Every check with its name.
pub const TARGETS: [Check; 1] = [("sqlite_pages", sqlite_pages)];

/// So many trees, and pages, are looked at more closely.
const MOST_TREES: usize = 32;
/// A damaged page is read so many times at most, whatever names it.
const READS_A_PAGE: u64 = 12;

/// A file as pages; what is missing of the last one is zeros.
pub struct Image {
    bytes: Vec<u8>,
    size: PageSize,
    /// How many reads there were.
    pub reads: u64,
    /// Which pages were read.
    pub seen: PageSet,
}

impl Image {
    /// The bytes of a file, in pages of `size`.
    pub fn new(mut bytes: Vec<u8>, size: PageSize) -> Image {
        bytes.resize(bytes.len().next_multiple_of(size.bytes()), 0);
        Image { bytes, size, reads: 0, seen: PageSet::new() }
    }

    /// The bytes of all pages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what was read.
    pub fn forget(&mut self) {
        self.reads = 0;
        self.seen = PageSet::new();
    }
}

impl Pages for Image {
    fn page_count(&self) -> PageCount {
        PageCount::new((self.bytes.len() / self.size.bytes()) as u32)
    }

    fn page_size(&self) -> PageSize {
        self.size
    }

    fn read(&mut self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        self.reads += 1;
        self.seen.insert(page);
        let at = page.offset(self.size) as usize;
        buf.copy_from_slice(&self.bytes[at..at + self.size.bytes()]);
        Ok(())
    }
}

/// A file as it is, and once more with a beginning that makes it a database.
pub fn sqlite_pages(data: &[u8]) {
    database(data);
    let mut repaired = data.to_vec();
    if let Some(header) = repaired.first_chunk_mut::<100>() {
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[19] = 1;
        header[20] &= 31;
        header[21..24].copy_from_slice(&[64, 32, 32]);
        if PageSize::try_new(u16::from_be_bytes([header[16], header[17]]).into()).is_err() {
            header[16..18].copy_from_slice(&[2, 0]);
        }
        database(&repaired);
    }
}

/// Every page is visited once, and everyone who tells its owner says the same;
/// no page costs more than a few reads.
fn database(data: &[u8]) {
    let Some(header) = DatabaseHeader::parse(data) else { return };
    let mut pages = Image::new(data.to_vec(), header.page_size);
    assert_eq!(read_header(&mut pages).expect("no read fails"), Some(header.clone()));
    let bound = READS_A_PAGE * u64::from(pages.page_count().get());
    pages.forget();
    let Ok(schema) = read_schema(&mut pages, &header) else { return };
    assert!(pages.reads <= bound, "the schema: {} reads of {} pages", pages.reads, pages.page_count());
    for depth in [Depth::Trees, Depth::Whole] {
        pages.forget();
        let owners = Owners::find(&mut pages, &header, &schema, depth).expect("no read fails");
        assert!(pages.reads <= bound, "{depth:?}: {} reads of {} pages", pages.reads, pages.page_count());
        let mut seen = PageSet::new();
        let visit = |page, owner| {
            assert!(seen.insert(page), "page {page} came twice");
            assert_eq!(owners.owner(page), owner, "page {page}");
            Ok(())
        };
        order(&mut pages, &header, &schema, depth, visit).expect("no read fails");
        assert_eq!(seen, PageSet::first(pages.page_count()));
        assert!(seen.contains_all(owners.damaged()), "{:?}", owners.damaged());
        runs_are_the_owners(&owners, &seen);
    }
    for budget in [0, 1, 7, usize::MAX] {
        pages.forget();
        let upper = upper_levels(&mut pages, &header, &schema, budget).expect("no read fails");
        assert!(pages.reads <= bound, "upper levels: {} reads of {} pages", pages.reads, pages.page_count());
        assert!(upper.len() <= budget);
        let set: PageSet = upper.iter().copied().collect();
        assert!(set.len() == upper.len() as u64 && PageSet::first(pages.page_count()).contains_all(&set));
    }
    for (n, object) in schema.objects.iter().enumerate().take(MOST_TREES) {
        for most in [3, usize::MAX] {
            pages.forget();
            // Some pages are elsewhere.
            let is_here = |page: PageIdx| !(page.get() as usize + n).is_multiple_of(5);
            let found = Leaves::find(&mut pages, &header, object.root, most, is_here);
            assert!(pages.reads <= bound, "leaves: {} reads of {} pages", pages.reads, pages.page_count());
            assert!(pages.seen.iter().all(is_here));
            let Ok(Some(leaves)) = found else { continue };
            assert!(leaves.pages().len() <= most.max(1));
            for row in [i64::MIN, -1, 0, 1, i64::MAX] {
                assert!(leaves.of_integer(row).is_none_or(|page| leaves.pages().contains(&page)));
            }
        }
    }
    let mut page = vec![0; header.page_size.bytes()];
    for at in PageSet::first(pages.page_count()).iter().take(MOST_TREES) {
        pages.read(at, &mut page).expect("no read fails");
        assert!(rows_of_index_leaf(at, &page, &header).len() <= page.len());
    }
    let owners = Owners::find(&mut pages, &header, &schema, Depth::Trees).expect("no read fails");
    if owners.damaged().is_empty() {
        let upper = upper_levels(&mut pages, &header, &schema, usize::MAX).expect("no read fails");
        let expected =
            PageSet::first(pages.page_count()).iter().filter(|&page| is_upper(page, &owners, &schema)).collect();
        assert_eq!(upper.into_iter().collect::<PageSet>(), expected);
    }
}

fn is_upper(page: PageIdx, owners: &Owners, schema: &Schema) -> bool {
    match owners.owner(page) {
        Owner::Schema => true,
        Owner::BTree { object, level } => level == TreeLevel::Interior || schema.objects[object].root == page,
        _ => false,
    }
}

fn runs_are_the_owners(owners: &Owners, all: &PageSet) {
    let odd: PageSet = all.iter().filter(|page| page.get() % 3 > 0).collect();
    for among in [all, &odd] {
        let mut pages = among.iter();
        for run in owners.runs(among) {
            for page in run.first.get()..=run.last.get() {
                let page = PageIdx::new(page);
                assert_eq!(page, pages.next());
                assert_eq!(page.map(|page| owners.owner(page)), Some(run.owner));
            }
        }
        assert_eq!(pages.next(), None);
    }
}
