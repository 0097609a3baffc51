//! Databases of every layout: whose a page is, SQLite itself says (`dbstat`).

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{Database, Layout, Stat, open};
use quire_proto::{PageIdx, PageSet};
use quire_sqlite_format::Pages;
use quire_sqlite_format::fuzz::Image;
use quire_sqlite_format::{
    AutoVacuum, DatabaseHeader, Depth, Leaves, ObjectKind, Owner, Owners, Schema, TextEncoding, TreeLevel, order,
    read_header, read_schema, rows_of_index_leaf, upper_levels,
};

/// Everything that this crate says of a database, against what SQLite says.
fn check(database: &Database, note: &str) {
    let mut pages = database.pages();
    let (header, schema) = open(&mut pages);
    check_schema(database, &schema);
    let stats = database.stat();
    assert!(!stats.is_empty());
    for object in &schema.objects {
        let leaves = Leaves::find(&mut pages, &header, object.root, usize::MAX, |_| true).unwrap().unwrap();
        let of_sqlite = stats.iter().filter(|stat| stat.name == object.name && stat.kind == "leaf");
        assert_eq!(leaves.pages(), of_sqlite.map(|stat| stat.page).collect::<Vec<_>>(), "{note}: {}", object.name);
    }
    let free = database.number("PRAGMA freelist_count");
    assert_eq!(u64::from(header.freelist_count), free);
    for depth in [Depth::Trees, Depth::Whole] {
        let owners = Owners::find(&mut pages, &header, &schema, depth).unwrap();
        assert!(owners.damaged().is_empty(), "{note}, {depth:?}: {:?}", owners.damaged());
        let mut rest = PageSet::first(pages.page_count());
        for stat in &stats {
            let found = owners.owner(stat.page);
            assert_eq!(found, owner(stat, &schema, depth), "{note}, {depth:?}: {stat:?}");
            assert!(rest.remove(stat.page));
        }
        let listed = rest.iter().filter(|&page| owners.owner(page) == Owner::Freelist).count();
        let maps = rest.iter().filter(|&page| owners.owner(page) == Owner::PointerMap).count() as u64;
        assert_eq!(listed as u64, free, "{note}");
        assert_eq!(rest.len(), free + maps, "{note}: every page has an owner");
        assert_eq!(maps > 0, header.auto_vacuum != AutoVacuum::Off);
        check_order(&mut pages, &header, &schema, &stats, depth);
    }
    check_upper(&mut pages, &header, &schema, &stats);
}

fn owner(stat: &Stat, schema: &Schema, depth: Depth) -> Owner {
    let level = match stat.kind.as_str() {
        "internal" => TreeLevel::Interior,
        "leaf" => TreeLevel::Leaf,
        "overflow" => TreeLevel::Overflow,
        other => panic!("a page of kind {other}"),
    };
    match schema.objects.iter().position(|object| object.name == stat.name) {
        None => Owner::Schema,
        Some(_) if (depth, level) == (Depth::Trees, TreeLevel::Overflow) => Owner::Unknown,
        Some(object) => Owner::BTree { object, level },
    }
}

fn check_schema(database: &Database, schema: &Schema) {
    let found: BTreeMap<_, _> = schema
        .objects
        .iter()
        .map(|object| {
            let kind = if object.kind == ObjectKind::Table { "table" } else { "index" };
            (object.name.clone(), (kind.to_owned(), object.table.clone(), object.root.get()))
        })
        .collect();
    assert_eq!(found, database.objects());
}

/// Pages come tree by tree, and the leaves and a table's overflow pages as SQLite walks them.
fn check_order(pages: &mut Image, header: &DatabaseHeader, schema: &Schema, stats: &[Stat], depth: Depth) {
    let mut visited = Vec::new();
    let visit = |page, owner| {
        visited.push((page, owner));
        Ok(())
    };
    order(pages, header, schema, depth, visit).unwrap();
    let all: PageSet = visited.iter().map(|(page, _)| *page).collect();
    assert_eq!((visited.len() as u64, &all), (all.len(), &PageSet::first(pages.page_count())));

    let in_trees = visited.iter().take_while(|(_, owner)| matches!(owner, Owner::Schema | Owner::BTree { .. })).count();
    assert!(visited[..in_trees].is_sorted_by_key(|(_, owner)| *owner), "by object, then by level");
    assert!(visited[in_trees..].is_sorted(), "the rest by number");
    for (i, object) in schema.objects.iter().enumerate() {
        let pages = |level| {
            let wanted = Owner::BTree { object: i, level };
            visited.iter().filter(move |(_, owner)| *owner == wanted).map(|(page, _)| *page).collect::<Vec<_>>()
        };
        let stat = |kind: &str| -> Vec<PageIdx> {
            stats.iter().filter(|stat| stat.name == object.name && stat.kind == kind).map(|stat| stat.page).collect()
        };
        assert_eq!(pages(TreeLevel::Leaf), stat("leaf"), "{}", object.name);
        if depth == Depth::Whole && object.kind == ObjectKind::Table && object.name != "keyed" {
            assert_eq!(pages(TreeLevel::Overflow), stat("overflow"), "{}", object.name);
        }
    }
}

/// The schema, every root and every interior page, in this order, and no other leaf.
fn check_upper(pages: &mut Image, header: &DatabaseHeader, schema: &Schema, stats: &[Stat]) {
    let upper = upper_levels(pages, header, schema, usize::MAX).unwrap();
    let roots: Vec<PageIdx> = schema.objects.iter().map(|object| object.root).collect();
    assert!(upper.starts_with(&schema.pages));
    assert!(upper[schema.pages.len()..].starts_with(&roots));
    let is_upper = |stat: &&Stat| {
        let in_schema = schema.objects.iter().all(|object| object.name != stat.name);
        in_schema || stat.kind == "internal" || roots.contains(&stat.page)
    };
    let expected: PageSet = stats.iter().filter(is_upper).map(|stat| stat.page).collect();
    assert_eq!(upper.iter().copied().collect::<PageSet>(), expected);
    assert_eq!(upper.len() as u64, expected.len());
    for budget in [0, 1, schema.pages.len() + 3, upper.len() - 1] {
        assert_eq!(upper_levels(pages, header, schema, budget).unwrap(), upper[..budget]);
    }
}

fn every_step_of_a_life(layout: Layout) {
    let seed = quire_testkit::seed();
    let mut database = Database::create(layout);
    database.fill(seed, layout.page_size);
    check(&database, &format!("{layout:?} filled"));
    database.shrink();
    check(&database, &format!("{layout:?} shrunk"));
    database.run("PRAGMA incremental_vacuum(7)");
    check(&database, &format!("{layout:?} vacuumed in part"));
    database.run("VACUUM");
    check(&database, &format!("{layout:?} vacuumed"));
}

#[test]
fn small_pages() {
    every_step_of_a_life(Layout { page_size: 512, ..Layout::default() });
    every_step_of_a_life(Layout { page_size: 512, reserved: 32, encoding: "UTF-16be", ..Layout::default() });
}

#[test]
fn small_pages_with_auto_vacuum() {
    every_step_of_a_life(Layout { page_size: 512, auto_vacuum: "full", encoding: "UTF-16le", ..Layout::default() });
    every_step_of_a_life(Layout { page_size: 1024, auto_vacuum: "incremental", reserved: 7, ..Layout::default() });
}

#[test]
fn ordinary_pages() {
    every_step_of_a_life(Layout::default());
    every_step_of_a_life(Layout { auto_vacuum: "incremental", encoding: "UTF-16le", ..Layout::default() });
    every_step_of_a_life(Layout { auto_vacuum: "full", reserved: 255, ..Layout::default() });
}

#[test]
fn large_pages() {
    every_step_of_a_life(Layout { page_size: 16_384, auto_vacuum: "full", ..Layout::default() });
    every_step_of_a_life(Layout { page_size: 65_536, encoding: "UTF-16be", ..Layout::default() });
    every_step_of_a_life(Layout { page_size: 65_536, auto_vacuum: "incremental", reserved: 64, ..Layout::default() });
}

#[test]
fn the_header_says_how_a_database_is_laid_out() {
    let layout = Layout { page_size: 1024, auto_vacuum: "incremental", encoding: "UTF-16le", reserved: 9 };
    let database = Database::create(layout);
    database.run("CREATE TABLE t (a); CREATE TABLE u (a); DROP TABLE u;");
    let mut pages = database.pages();
    let header = read_header(&mut pages).unwrap().unwrap();
    assert_eq!((header.page_size.bytes(), header.reserved_bytes, header.usable_bytes()), (1024, 9, 1015));
    assert_eq!((header.text_encoding, header.auto_vacuum), (TextEncoding::Utf16Le, AutoVacuum::Incremental));
    assert_eq!((header.page_count, header.schema_format), (Some(pages.page_count()), 4));
    assert_eq!((header.freelist.map(PageIdx::get), header.freelist_count), (Some(4), 1));
}

#[test]
fn an_empty_schema_is_page_1() {
    let database = Database::create(Layout::default());
    database.run("CREATE TABLE t (a); DROP TABLE t; VACUUM;");
    let mut pages = database.pages();
    let (header, schema) = open(&mut pages);
    assert_eq!((schema.objects.len(), &schema.pages), (0, &vec![PageIdx::FIRST]));
    assert_eq!(upper_levels(&mut pages, &header, &schema, 9).unwrap(), [PageIdx::FIRST]);
}

#[test]
fn another_file_is_no_database() {
    let size = quire_proto::PageSize::DEFAULT;
    for bytes in [vec![], b"SQLite format 2".to_vec(), vec![0; 8192], vec![0xff; 4096]] {
        assert_eq!(read_header(&mut Image::new(bytes, size)).unwrap(), None);
    }
}

#[test]
fn a_database_in_pages_of_another_size_is_just_a_file() {
    let database = Database::create(Layout { page_size: 1024, ..Layout::default() });
    database.run("CREATE TABLE t (a)");
    let file = database.pages();
    assert_eq!(read_header(&mut Image::new(file.bytes().to_vec(), quire_proto::PageSize::DEFAULT)).unwrap(), None);
}

#[test]
fn pages_past_the_end_of_the_database_are_unknown() {
    let database = Database::create(Layout::default());
    database.run("CREATE TABLE t (a)");
    let mut bytes = database.pages().bytes().to_vec();
    bytes.resize(5 * 4096, 7);
    let mut pages = Image::new(bytes, quire_proto::PageSize::DEFAULT);
    let (header, schema) = open(&mut pages);
    let owners = Owners::find(&mut pages, &header, &schema, Depth::Whole).unwrap();
    let all = PageSet::first(pages.page_count());
    let runs: Vec<_> = owners.runs(&all).map(|run| (run.first.get(), run.last.get(), run.owner)).collect();
    let table = Owner::BTree { object: 0, level: TreeLevel::Leaf };
    assert_eq!(runs, [(1, 1, Owner::Schema), (2, 2, table), (3, 5, Owner::Unknown)]);
}

#[test]
fn reading_a_schema_reads_its_pages_only() {
    let seed = quire_testkit::seed();
    let mut database = Database::create(Layout { page_size: 512, ..Layout::default() });
    database.fill(seed, 512);
    let mut pages = database.pages();
    let header = read_header(&mut pages).unwrap().unwrap();
    pages.forget();
    let schema = read_schema(&mut pages, &header).unwrap();
    assert_eq!(pages.seen, schema.pages.iter().copied().collect());
}

/// What the tests above look at is there.
#[test]
fn the_test_databases_have_every_shape() {
    let mut database = Database::create(Layout { page_size: 512, ..Layout::default() });
    database.fill(quire_testkit::seed(), 512);
    database.shrink();
    database.run("CREATE TEMP TABLE stat AS SELECT * FROM dbstat");
    let below_interior = "SELECT count(*) FROM stat o JOIN stat p
        ON p.name = o.name AND p.path = substr(o.path, 1, length(o.path) - 10)
        WHERE o.pagetype = 'overflow' AND p.pagetype = 'internal'";
    assert!(database.number(below_interior) > 0, "keys of interior pages that overflow");
    let levels = "SELECT max(length(path)) / 4 + 1 FROM stat WHERE pagetype = 'leaf' AND name =";
    assert!(database.number(&format!("{levels} 'plain'")) >= 3);
    assert!(database.number(&format!("{levels} 'keyed'")) >= 4);
    assert!(database.number(&format!("{levels} 'sqlite_schema'")) >= 3);
    assert!(database.number("SELECT count(*) FROM stat WHERE name = 'sqlite_schema' AND pagetype = 'overflow'") > 9);
    assert!(database.number("PRAGMA freelist_count") > 250, "two trunk pages and more");
}

/// Rows with scattered ids, some of them negative, and an index whose order is another one.
fn scattered_rows() -> (Database, Vec<(i64, String)>) {
    let database = Database::create(Layout { page_size: 512, ..Layout::default() });
    database.run("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT NOT NULL); CREATE INDEX by_text ON t (text)");
    let rows: Vec<(i64, String)> = (0..4000_i64)
        .map(|n| ((n * 7919 - 9_000_000) * 1_000_003, format!("row {:06} of many, {n}", n * 7907 % 4000)))
        .collect();
    database.run("BEGIN");
    for (id, text) in &rows {
        database.run(&format!("INSERT INTO t VALUES ({id}, '{text}')"));
    }
    database.run("COMMIT");
    (database, rows)
}

#[test]
fn a_row_is_found_by_the_pages_above_it() {
    let (database, mut rows) = scattered_rows();
    let mut pages = database.pages();
    let (header, schema) = open(&mut pages);
    let root = |name: &str| schema.objects.iter().find(|object| object.name == name).unwrap().root;
    let whole = Leaves::find(&mut pages, &header, root("t"), usize::MAX, |_| true).unwrap().unwrap();
    let holds = |page: PageIdx, text: &str| {
        let at = page.offset(header.page_size) as usize;
        let bytes = &pages.bytes()[at..at + header.page_size.bytes()];
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    for (id, text) in &rows {
        assert!(holds(whole.of_integer(*id).unwrap(), text), "row {id}");
    }
    // The rows of the index's leaves, one leaf after the other, are in its order; some lie above the leaves.
    let by_text = Leaves::find(&mut pages, &header, root("by_text"), usize::MAX, |_| true).unwrap().unwrap();
    let mut named = Vec::new();
    for leaf in by_text.pages() {
        let at = leaf.offset(header.page_size) as usize;
        let rows = rows_of_index_leaf(*leaf, &pages.bytes()[at..at + header.page_size.bytes()], &header);
        assert!(rows.iter().enumerate().all(|(n, row)| row.run == n), "no two texts are the same");
        named.extend(rows.iter().map(|row| row.rowid));
    }
    rows.sort_by(|a, b| a.1.cmp(&b.1));
    let mut in_order = rows.iter();
    assert!(named.iter().all(|id| in_order.any(|(row, _)| row == id)));
    assert!(named.len() * 10 > rows.len() * 9, "{} of {}", named.len(), rows.len());
    assert_eq!(rows_of_index_leaf(whole.pages()[0], &pages.bytes()[..512], &header), [], "a table has none");
}

#[test]
fn a_key_is_found_by_the_pages_above_it_if_all_of_them_begin_with_integers_that_ascend() {
    let database = Database::create(Layout { page_size: 512, ..Layout::default() });
    database.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, of INTEGER, text TEXT);
         CREATE TABLE keyed (a INTEGER PRIMARY KEY, b) WITHOUT ROWID;
         WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
         INSERT INTO t SELECT i, (i * 7919 % 3000 - 100) * 1000000, 'text ' || i FROM n;
         INSERT INTO keyed SELECT id, text FROM t;
         CREATE INDEX up ON t (of, text); CREATE INDEX down ON t (of DESC); CREATE INDEX by_text ON t (text);
         CREATE INDEX mixed ON t (CASE id % 5 WHEN 0 THEN text ELSE of END)",
    );
    let mut pages = database.pages();
    let (header, schema) = open(&mut pages);
    let mut leaves = |name: &str| {
        let root = schema.objects.iter().find(|object| object.name == name).unwrap().root;
        Leaves::find(&mut pages, &header, root, usize::MAX, |_| true).unwrap().unwrap()
    };
    assert_eq!(["down", "by_text", "mixed"].map(|name| leaves(name).of_integer(5)), [None; 3]);
    let (up, keyed) = (leaves("up"), leaves("keyed"));
    let mut first = database.sql.prepare("SELECT of, id, min(text) FROM t GROUP BY of").unwrap();
    let first = first.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let first: Vec<(i64, i64)> = first.map(|row| row.unwrap()).collect();
    let there = first.iter().filter(|(of, id)| {
        let page = up.of_integer(*of).unwrap();
        let at = page.offset(header.page_size) as usize;
        let rows = rows_of_index_leaf(page, &pages.bytes()[at..at + header.page_size.bytes()], &header);
        let run = rows.iter().find(|row| row.rowid == *id).map(|row| row.run);
        let same: Vec<i64> = rows.iter().filter(|row| Some(row.run) == run).map(|row| row.rowid).collect();
        assert!(same.iter().all(|id| database.number(&format!("SELECT of = {of} FROM t WHERE id = {id}")) == 1));
        run.is_some() && same[0] == *id
    });
    // The others lie between two leaves.
    let (there, above) = (there.count(), up.pages().len() - 1);
    assert!(first.len() == 3000 && there >= first.len() - above && above * 7 < first.len(), "{there}, {above}");
    let place = |id| keyed.pages().iter().position(|page| Some(*page) == keyed.of_integer(id));
    assert!((0..9999).is_sorted_by_key(place) && place(9999) == Some(keyed.pages().len() - 1));
}

#[test]
fn a_page_that_is_not_here_stands_for_the_leaves_below_it() {
    let (database, rows) = scattered_rows();
    let mut pages = database.pages();
    let (header, schema) = open(&mut pages);
    let root = schema.objects.iter().find(|object| object.name == "t").unwrap().root;
    let whole = Leaves::find(&mut pages, &header, root, usize::MAX, |_| true).unwrap().unwrap();
    let above: Vec<PageIdx> = database
        .stat()
        .into_iter()
        .filter(|stat| stat.name == "t" && stat.kind == "internal" && stat.page != root)
        .map(|stat| stat.page)
        .collect();
    assert!(above.len() > 2, "{above:?}");
    let missing = above[1];
    let is_here = |page: PageIdx| page != missing && !whole.pages().contains(&page);
    pages.forget();
    let part = Leaves::find(&mut pages, &header, root, usize::MAX, is_here).unwrap().unwrap();
    assert!(pages.seen.iter().all(is_here), "only what is here was read");
    let known = |leaves: &Leaves| rows.iter().map(|(id, _)| leaves.of_integer(*id).unwrap()).collect::<Vec<_>>();
    let (all, some) = (known(&whole), known(&part));
    let away = some.iter().filter(|page| **page == missing).count();
    assert!(away > 0 && away < rows.len(), "{away}");
    assert!(all.iter().zip(&some).all(|(leaf, found)| leaf == found || *found == missing));
    assert!(Leaves::find(&mut pages, &header, root, 3, |_| true).unwrap().is_none(), "it has more than three");
}
