//! Damaged and hostile databases: an error or `Unknown`, what is whole is still
//! told, and no page costs more than a few reads.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Database, Layout, open};
use quire_proto::{Error, ErrorKind, PageCount, PageIdx, PageSet, PageSize, Result};
use quire_sqlite_format::fuzz::{Image, sqlite_pages};
use quire_sqlite_format::{
    BTreePage, DatabaseHeader, Depth, Owner, Owners, Pages, Schema, TreeLevel, order, read_header, read_schema,
    upper_levels,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const PAGE: usize = 512;

/// A database with trees of several levels, overflow and free pages, and its file.
fn filled(layout: Layout) -> (Database, Vec<u8>) {
    let mut database = Database::create(layout);
    database.fill(quire_testkit::seed(), layout.page_size);
    database.shrink();
    let bytes = database.pages().bytes().to_vec();
    (database, bytes)
}

fn small() -> (Database, Vec<u8>) {
    filled(Layout { page_size: PAGE, ..Layout::default() })
}

fn image(bytes: &[u8]) -> Image {
    Image::new(bytes.to_vec(), PageSize::try_new(PAGE as u32).unwrap())
}

fn page(n: u32) -> PageIdx {
    PageIdx::new(n).unwrap()
}

/// The bytes of a page, to change them.
fn bytes_of(bytes: &mut [u8], page: PageIdx) -> &mut [u8] {
    &mut bytes[(page.get() as usize - 1) * PAGE..][..PAGE]
}

fn whole(pages: &mut impl Pages) -> (Schema, Owners) {
    let (header, schema) = open(pages);
    let owners = Owners::find(pages, &header, &schema, Depth::Whole).unwrap();
    (schema, owners)
}

fn set(owners: &Owners, all: &PageSet, owner: Owner) -> PageSet {
    all.iter().filter(|page| owners.owner(*page) == owner).collect()
}

fn object(schema: &Schema, name: &str) -> usize {
    schema.objects.iter().position(|object| object.name == name).unwrap()
}

#[test]
fn random_changes_never_panic_or_loop() {
    let rng = &mut StdRng::seed_from_u64(quire_testkit::seed());
    for (page_size, auto_vacuum) in [(512, "none"), (512, "full"), (4096, "incremental")] {
        let (_database, bytes) = filled(Layout { page_size, auto_vacuum, ..Layout::default() });
        for _ in 0..30 {
            let mut bytes = bytes.clone();
            for _ in 0..rng.random_range(1..400) {
                let at = rng.random_range(0..bytes.len());
                // The numbers that lead on lie at the beginning of pages; half of the changes go there.
                let at = if rng.random() { at } else { at / page_size * page_size + rng.random_range(0..16) };
                match rng.random_range(0..3) {
                    0 => bytes[at] ^= 1 << rng.random_range(0..8),
                    1 => bytes[at] = rng.random(),
                    _ => {
                        let to = rng.random_range(1..=(bytes.len() / page_size) as u32);
                        let at = at.min(bytes.len() - 4);
                        bytes[at..at + 4].copy_from_slice(&to.to_be_bytes());
                    }
                }
            }
            sqlite_pages(&bytes);
        }
    }
}

#[test]
fn a_torn_database_never_panics_or_loops() {
    let rng = &mut StdRng::seed_from_u64(quire_testkit::seed());
    let (database, before) = small();
    database.run("UPDATE plain SET b = zeroblob(700) WHERE id % 2 = 0; DELETE FROM keyed; VACUUM;");
    let after = database.pages().bytes().to_vec();
    for _ in 0..30 {
        let mut torn = before.clone();
        for (old, new) in torn.chunks_mut(PAGE).zip(after.chunks(PAGE)) {
            if rng.random() {
                old.copy_from_slice(new);
            }
        }
        sqlite_pages(&torn);
        sqlite_pages(&after[..rng.random_range(0..after.len())]);
    }
}

#[test]
fn a_child_that_is_its_own_ancestor_is_taken_once() {
    let (_database, mut bytes) = small();
    let (schema, before) = whole(&mut image(&bytes));
    let plain = object(&schema, "plain");
    let root = schema.objects[plain].root;
    let leaf = Owner::BTree { object: plain, level: TreeLevel::Leaf };
    let all = PageSet::first(image(&bytes).page_count());
    bytes_of(&mut bytes, root)[8..12].copy_from_slice(&root.get().to_be_bytes());
    let (_, after) = whole(&mut image(&bytes));
    assert!(after.damaged().contains(root));
    let (before_leaves, after_leaves) = (set(&before, &all, leaf), set(&after, &all, leaf));
    assert!(before_leaves.contains_all(&after_leaves) && !after_leaves.is_empty());
    assert!(after_leaves.len() < before_leaves.len());
    sqlite_pages(&bytes);
}

#[test]
fn a_chain_that_goes_round_is_taken_once() {
    let (_database, mut bytes) = small();
    let (schema, before) = whole(&mut image(&bytes));
    let all = PageSet::first(image(&bytes).page_count());
    let overflow = Owner::BTree { object: object(&schema, "plain"), level: TreeLevel::Overflow };
    let before = set(&before, &all, overflow);
    let of = |bytes: &mut [u8], page| u32::from_be_bytes(*bytes_of(bytes, page).first_chunk().unwrap());
    let turned = before.iter().find(|page| of(&mut bytes, *page) != 0).unwrap();
    let lost = page(of(&mut bytes, turned));
    bytes_of(&mut bytes, turned)[..4].copy_from_slice(&turned.get().to_be_bytes());
    let (_, after) = whole(&mut image(&bytes));
    assert_eq!(after.damaged().iter().collect::<Vec<_>>(), [turned]);
    assert_eq!((after.owner(turned), after.owner(lost)), (overflow, Owner::Unknown));
}

#[test]
fn a_freelist_that_goes_round_is_taken_once() {
    let (_database, mut bytes) = small();
    let header = read_header(&mut image(&bytes)).unwrap().unwrap();
    let trunk = header.freelist.unwrap();
    bytes_of(&mut bytes, trunk)[..4].copy_from_slice(&trunk.get().to_be_bytes());
    let (_, owners) = whole(&mut image(&bytes));
    assert_eq!(owners.owner(trunk), Owner::Freelist);
    assert_eq!(owners.damaged().iter().collect::<Vec<_>>(), [trunk]);
    bytes_of(&mut bytes, trunk)[4..8].fill(0xff);
    let (_, owners) = whole(&mut image(&bytes));
    let all = PageSet::first(image(&bytes).page_count());
    assert_eq!(set(&owners, &all, Owner::Freelist).iter().collect::<Vec<_>>(), [trunk]);
}

#[test]
fn two_objects_with_one_root_share_nothing() {
    let (database, _) = small();
    database.run(
        "PRAGMA writable_schema = on;
         UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'plain')
         WHERE name = 'many_3';
         UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'many_4';
         UPDATE sqlite_schema SET rootpage = 4000000000 WHERE name = 'many_5';",
    );
    let mut pages = database.pages();
    let (schema, owners) = whole(&mut pages);
    for run in owners.runs(&PageSet::first(pages.page_count())) {
        if let Owner::BTree { object, .. } = run.owner {
            assert!(!["many_3", "many_4", "many_5"].contains(&schema.objects[object].name.as_str()));
        }
    }
    assert_eq!(owners.owner(PageIdx::FIRST), Owner::Schema);
}

#[test]
fn a_damaged_page_of_the_schema_hides_its_rows_only() {
    let (_database, mut bytes) = small();
    let (header, schema) = open(&mut image(&bytes));
    let is_leaf = |page: &PageIdx| {
        let mut buf = [0; PAGE];
        image(&bytes).read(*page, &mut buf).unwrap();
        BTreePage::parse(*page, &buf, PAGE).is_ok_and(|page| page.kind.is_leaf())
    };
    let leaves: Vec<PageIdx> = schema.pages.iter().copied().filter(is_leaf).collect();
    assert!(leaves.len() > 3);
    let damaged = leaves[leaves.len() / 2];
    bytes_of(&mut bytes, damaged)[0] = 9;
    let found = read_schema(&mut image(&bytes), &header).unwrap();
    assert_eq!(found.damaged.iter().collect::<Vec<_>>(), [damaged]);
    let kept = schema.objects.iter().filter(|object| found.objects.contains(object)).count();
    let (before, after) = (schema.objects.len(), found.objects.len());
    assert!(kept == after && after < before && after > 10, "{kept} of {after}, {before} before");
    assert!(found.pages.contains(&damaged));

    bytes[100] = 0;
    assert_eq!(read_schema(&mut image(&bytes), &header).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Pages of which some cannot be read.
struct Failing {
    image: Image,
    fails: PageSet,
    kind: ErrorKind,
}

impl Pages for Failing {
    fn page_count(&self) -> PageCount {
        self.image.page_count()
    }

    fn page_size(&self) -> PageSize {
        self.image.page_size()
    }

    fn read(&mut self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        match self.fails.contains(page) {
            true => Err(Error::new(self.kind, format!("page {page}"))),
            false => self.image.read(page, buf),
        }
    }
}

#[test]
fn a_damaged_page_is_known_by_its_parent_and_hides_what_is_below() {
    let (_database, bytes) = small();
    let (schema, before) = whole(&mut image(&bytes));
    let all = PageSet::first(image(&bytes).page_count());
    let plain = object(&schema, "plain");
    let root = schema.objects[plain].root;
    // All pages that lie above leaves but two: neighbours of the first are damaged, the tree is not lost.
    let interior = set(&before, &all, Owner::BTree { object: plain, level: TreeLevel::Interior });
    let header = read_header(&mut image(&bytes)).unwrap().unwrap();
    let mut buf = vec![0; PAGE];
    image(&bytes).read(root, &mut buf).unwrap();
    let below_root = BTreePage::parse(root, &buf, PAGE).unwrap().children;
    assert!(below_root.len() > 2 && interior.contains(below_root[0]));
    let fails: PageSet = below_root[..2].iter().copied().collect();
    let mut pages = Failing { image: image(&bytes), fails: fails.clone(), kind: ErrorKind::Corrupt };
    for depth in [Depth::Trees, Depth::Whole] {
        let after = Owners::find(&mut pages, &header, &schema, depth).unwrap();
        assert_eq!(after.damaged(), &fails, "{depth:?}");
        let mut lost = PageSet::new();
        for page in all.iter() {
            match (before.owner(page), after.owner(page)) {
                (Owner::BTree { object, .. }, Owner::Unknown) if object == plain => _ = lost.insert(page),
                (Owner::BTree { level: TreeLevel::Overflow, .. }, Owner::Unknown) if depth == Depth::Trees => {}
                (before, after) => assert_eq!(before, after, "{depth:?}: page {page}"),
            }
        }
        assert!(!lost.is_empty() && lost.iter().all(|page| !fails.contains(page)));
    }
    let upper = upper_levels(&mut pages, &header, &schema, usize::MAX).unwrap();
    assert!(upper.contains(&root) && upper.len() > 20);
}

#[test]
fn an_answer_that_does_not_come_ends_the_walk() {
    let (_database, bytes) = small();
    let (header, schema) = open(&mut image(&bytes));
    let (root, trunk) = (schema.objects[0].root, header.freelist.unwrap());
    let failing =
        |page| Failing { image: image(&bytes), fails: PageSet::from_iter([page]), kind: ErrorKind::Unavailable };
    let unavailable = |result: Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    unavailable(read_header(&mut failing(PageIdx::FIRST)).map(drop));
    unavailable(read_schema(&mut failing(*schema.pages.last().unwrap()), &header).map(drop));
    unavailable(upper_levels(&mut failing(root), &header, &schema, 1_000).map(drop));
    for page in [root, trunk] {
        unavailable(Owners::find(&mut failing(page), &header, &schema, Depth::Trees).map(drop));
        unavailable(order(&mut failing(page), &header, &schema, Depth::Trees, |_, _| Ok(())));
    }
}

#[test]
fn a_visitor_may_end_the_order() {
    let (_database, bytes) = small();
    let (header, schema) = open(&mut image(&bytes));
    let mut left = 300;
    let visit = |_, _| {
        left -= 1;
        if left == 0 { Err(Error::new(ErrorKind::Full, "enough")) } else { Ok(()) }
    };
    let ended = order(&mut image(&bytes), &header, &schema, Depth::Whole, visit);
    assert_eq!((ended.unwrap_err().kind(), left), (ErrorKind::Full, 0));
}

#[test]
fn cells_that_share_bytes_are_damage() {
    let mut bytes = [0; PAGE];
    // A leaf whose 100 cells are all the one at byte 300.
    bytes[..8].copy_from_slice(&[13, 0, 0, 0, 100, 0, 0, 0]);
    for pointer in bytes[8..208].chunks_mut(2) {
        pointer.copy_from_slice(&300u16.to_be_bytes());
    }
    bytes[300] = 9;
    let parsed = BTreePage::parse(page(2), &bytes, PAGE);
    assert_eq!(parsed.unwrap_err().kind(), ErrorKind::Corrupt);
    bytes[4] = 1;
    assert!(BTreePage::parse(page(2), &bytes, PAGE).is_ok());
    assert!(BTreePage::parse(page(1), &bytes, PAGE).is_err(), "page 1 begins with the database's header");
    assert!(BTreePage::parse(page(2), &bytes, 479).is_err() && BTreePage::parse(page(2), &bytes, 513).is_err());
}

#[test]
fn a_header_that_promises_more_pages_than_there_are_is_not_believed() {
    let (_database, mut bytes) = small();
    let pages = image(&bytes).page_count();
    bytes[28..32].fill(0xff);
    let header = DatabaseHeader::parse(&bytes).unwrap();
    assert_eq!(header.page_count, Some(PageCount::new(u32::MAX)));
    let (_, owners) = whole(&mut image(&bytes));
    assert!(owners.damaged().is_empty());
    assert_eq!(owners.owner(page(pages.get() + 1)), Owner::Unknown);
}
