//! Large databases: what is read of them, and what lies around their first GiB.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Database, Layout, open};
use quire_proto::{PageIdx, PageSet};
use quire_sqlite_format::{Depth, Owner, Owners, Pages, TreeLevel, order, upper_levels};

#[test]
fn of_a_large_database_a_small_part_is_read() {
    let database = Database::create(Layout::default());
    // 200 MiB: a million rows, an index that is as deep as its table, one in random order, and a keyed table.
    database.run(
        "BEGIN;
         CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT, body BLOB);
         CREATE INDEX by_name ON rows (name);
         CREATE INDEX by_chance ON rows (substr(name, 3, 5));
         CREATE TABLE keyed (a, b, PRIMARY KEY (b, a)) WITHOUT ROWID;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
         INSERT INTO rows SELECT i, printf('name %012d', i), zeroblob(120 + i % 37) FROM n;
         INSERT INTO keyed SELECT id, id / 7 FROM rows WHERE id < 300000;
         COMMIT;",
    );
    let mut pages = database.file();
    let count = u64::from(pages.page_count().get());
    assert!(count > 200 << 20 >> 12, "{count} pages");
    let (header, schema) = open(&mut pages);

    pages.forget();
    let upper = upper_levels(&mut pages, &header, &schema, 10_000).unwrap();
    println!("{count} pages, {} upper ones found with {} reads", upper.len(), pages.reads);
    // Of each tree the root, and, of four levels, the one page of the second; a page of each level, one leaf.
    assert!(pages.reads <= 40, "{} reads", pages.reads);
    assert!(upper.len() as u64 * 50 < count && upper.len() > 100, "{} upper pages", upper.len());

    pages.forget();
    let owners = Owners::find(&mut pages, &header, &schema, Depth::Trees).unwrap();
    println!("owners of all pages: {} reads of {} pages", pages.reads, pages.seen.len());
    let interior: PageSet = upper.iter().copied().collect();
    let read_besides = pages.seen.iter().filter(|page| !interior.contains(*page)).count();
    assert!(read_besides <= schema.objects.len(), "a leaf of each tree: {read_besides} pages");
    assert!(pages.reads <= 2 * upper.len() as u64 + 40, "{} reads", pages.reads);
    let all = PageSet::first(pages.page_count());
    assert!(owners.runs(&all).all(|run| run.owner != Owner::Unknown), "no row needs an overflow page");

    pages.forget();
    let mut visited = 0;
    let visit = |_, _| {
        visited += 1;
        Ok(())
    };
    order(&mut pages, &header, &schema, Depth::Trees, visit).unwrap();
    assert!(visited == count && pages.reads <= 2 * upper.len() as u64 + 40, "{visited} pages, {} reads", pages.reads);
}

/// SQLite leaves out the page at 1 GiB. With pages of this size a pointer map
/// would lie on it and moves; the file is sparse up to a few pages before.
#[test]
fn sqlite_and_quire_agree_on_the_pages_around_the_lock_byte() {
    for (page_size, auto_vacuum) in [(1024, "incremental"), (4096, "none"), (65_536, "incremental")] {
        let mut database = Database::create(Layout { page_size, auto_vacuum, ..Layout::default() });
        database.run("CREATE TABLE t (a, b)");
        let lock = (1 << 30) / page_size as u32 + 1;
        grow(&database, lock - 4, page_size);
        database.reopen();
        database.run("PRAGMA synchronous = off");
        for _ in 0..30 {
            database.run(&format!("INSERT INTO t VALUES ('row', zeroblob({}))", page_size * 2));
        }
        let mut pages = database.file();
        assert!(pages.page_count().get() > lock + 20);
        let (header, schema) = open(&mut pages);
        let owners = Owners::find(&mut pages, &header, &schema, Depth::Whole).unwrap();
        assert!(owners.damaged().is_empty(), "{:?}", owners.damaged());
        let mut known = PageSet::new();
        for stat in database.stat() {
            known.insert(stat.page);
            let is = owners.owner(stat.page);
            match stat.kind.as_str() {
                _ if stat.name == "sqlite_schema" => assert_eq!(is, Owner::Schema),
                "overflow" => assert_eq!(is, Owner::BTree { object: 0, level: TreeLevel::Overflow }),
                _ => assert!(matches!(is, Owner::BTree { object: 0, .. }), "{stat:?} is {is:?}"),
            }
        }
        let mut near = PageSet::new();
        near.insert_range(lock - 3, lock + 20);
        near.subtract(&known);
        let rest: Vec<Owner> = near.iter().map(|page| owners.owner(page)).collect();
        let mapped = auto_vacuum != "none" && page_size == 1024;
        let expected = if mapped { vec![Owner::LockByte, Owner::PointerMap] } else { vec![Owner::LockByte] };
        assert_eq!(rest, expected, "pages of {page_size} bytes: {near:?}");
        assert_eq!(near.iter().next(), PageIdx::new(lock));
    }
}

/// Makes the file longer without writing it, and its header say so.
fn grow(database: &Database, pages: u32, page_size: usize) {
    use std::os::unix::fs::FileExt;
    let file = database.file().file;
    file.set_len(u64::from(pages) * page_size as u64).unwrap();
    file.write_all_at(&pages.to_be_bytes(), 28).unwrap();
}
