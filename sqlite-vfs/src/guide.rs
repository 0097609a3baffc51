//! What a query on a cold replica is going to need, told from its B-trees.
//!
//! SQLite asks for one page after the other, and each that is not here costs a
//! round trip. But pages that are here say more than what was asked of them:
//!
//! - The leaf of an index names the rows that a scan of it visits next. When the
//!   second of them is missed, those after it come along, ever more of them, but
//!   not those with another key if the first two had the same. So do the leaves at which searches for those rows end in other trees: a join
//!   looks up what belongs to a row by its id, mostly in an index of another table.
//! - Who misses leaf after leaf of one tree, wherever they lie in it, wants many.
//!   What lies around comes along, ever more of it, the sooner the smaller the
//!   tree is: of a large one most would come in vain.
//!
//! A query for one row costs what it did: nothing is told before the second miss.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quire_engine::{PageCount, PageIdx, PageSize, Result, Snapshot};
use quire_sqlite_format::{DatabaseHeader, Leaves, ObjectKind, Pages, read_header, read_schema, rows_of_index_leaf};

/// Trees are looked at until they have so many leaves together (512 MiB), which takes some MiB of memory. The connections
/// to a volume share them.
const MOST_LEAVES: usize = 1 << 17;
/// Trees of up to so many leaves (32 MiB) may come whole.
const WHOLE_LEAVES: usize = 1 << 13;
/// So many leaves around the one that is missed come with the second miss of a tree; four times as many with each one more.
const FIRST_LEAVES: usize = 64;
const MOST_AROUND: usize = 2048;
/// Of a larger tree so many misses bring twice as many as the ones before.
const LARGE_MISSES: u32 = 6;
const MOST_AROUND_LARGE: usize = 1024;
/// So many rows of an index leaf are looked ahead when the second one is recognized; twice as many with each one more.
const FIRST_ROWS: usize = 16;
const MOST_ROWS: usize = 256;
/// Index leaves that were read last: a join has several scans under way.
const RECENT: usize = 6;
/// So many pages above the leaves may be read with each miss to learn what came of them, some milliseconds' work.
const LOOKED_AT: usize = 256;
/// The first byte of an index leaf.
const INDEX_LEAF: u8 = 10;

/// What one connection has missed, and what that tells.
#[derive(Default)]
pub(crate) struct Guide {
    /// The snapshot that everything here is about, by its version.
    version: Option<u64>,
    misses: u32,
    /// Those since the trees were looked at.
    misses_since: usize,
    /// How often in a row that did not tell whose the page was.
    looks_in_vain: u32,
    trees: Option<Arc<Trees>>,
    /// How often leaves of each tree were missed.
    of_trees: Vec<u32>,
    /// The latest last.
    index_leaves: Vec<PageIdx>,
    /// By which row of which index leaf each tree was searched last.
    scans: HashMap<usize, Scan>,
    /// The row that led to a miss last: its leaf, and which of that one's.
    row: Option<(PageIdx, usize)>,
}

#[derive(Clone, Copy)]
struct Scan {
    leaf: PageIdx,
    /// Which of the leaf's rows.
    at: usize,
    goes_back: bool,
    /// Those with another key than this one's are not wanted.
    one_key: bool,
    /// How many pages came along; none: one row may be all that is wanted.
    ahead: usize,
}

/// The B-trees of a snapshot, as far as their upper levels were here.
pub(crate) struct Trees {
    /// The snapshot's.
    version: u64,
    header: DatabaseHeader,
    trees: Vec<Tree>,
    /// Each leaf with its tree and its place in that.
    of_page: HashMap<PageIdx, (usize, usize)>,
    /// How many pages were read to find them.
    read: usize,
}

struct Tree {
    /// Of an index the tree of its table.
    table: Option<usize>,
    leaves: Leaves,
}

/// A snapshot's pages as far as they are here, and how many were read.
struct Here<'a>(&'a Snapshot, usize);

impl Pages for Here<'_> {
    fn page_count(&self) -> PageCount {
        self.0.page_count()
    }

    fn page_size(&self) -> PageSize {
        self.0.page_size().unwrap_or(PageSize::DEFAULT)
    }

    fn read(&mut self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        if !self.0.is_here(page) {
            return Err(quire_engine::Error::unavailable(format!("page {page} is not here")));
        }
        self.1 += 1;
        self.0.read(page, buf)
    }
}

/// Where the search for a row ends.
struct End {
    page: PageIdx,
    /// As in [`IndexRow`](quire_sqlite_format::IndexRow).
    run: usize,
}

impl Guide {
    /// A page was read.
    pub(crate) fn note(guide: &RefCell<Guide>, page: PageIdx, bytes: &[u8]) {
        if bytes.first() == Some(&INDEX_LEAF) {
            let leaves = &mut guide.borrow_mut().index_leaves;
            if leaves.last() != Some(&page) {
                leaves.retain(|known| *known != page);
                if leaves.len() == RECENT {
                    leaves.remove(0);
                }
                leaves.push(page);
            }
        }
    }

    /// A page is not here: which others are going to be wanted? None: nothing is known of it. `shared` is what the
    /// connections to the volume know.
    pub(crate) fn on_miss(
        &mut self,
        snapshot: &Snapshot,
        page: PageIdx,
        shared: &Mutex<Option<Arc<Trees>>>,
    ) -> Option<Vec<PageIdx>> {
        if self.version != Some(snapshot.version()) {
            let index_leaves = std::mem::take(&mut self.index_leaves);
            *self = Guide { version: Some(snapshot.version()), index_leaves, ..Guide::default() };
        }
        self.misses += 1;
        self.misses_since += 1;
        if self.misses < 2 {
            return None;
        }
        if self.trees.is_none() {
            self.trees = shared.lock().clone().filter(|trees| trees.version == snapshot.version());
        }
        // What is above the leaves may have come meanwhile, and then more leaves can be told.
        let may_look = |trees: &Arc<Trees>| !trees.of_page.contains_key(&page) && self.may_look(trees);
        if self.misses.is_power_of_two() || self.trees.as_ref().is_none_or(may_look) {
            self.trees = Trees::find(snapshot).ok().map(Arc::new);
            self.misses_since = 0;
            let is_known = self.trees.as_ref().is_some_and(|trees| trees.of_page.contains_key(&page));
            self.looks_in_vain = if is_known { 0 } else { self.looks_in_vain + 1 };
            shared.lock().clone_from(&self.trees);
        }
        let trees = self.trees.clone()?;
        let (tree, place) = *trees.of_page.get(&page)?;
        self.of_trees.resize(trees.trees.len(), 0);
        self.of_trees[tree] += 1;
        let mut wanted = self
            .rows_ahead(&trees, snapshot, tree, page)
            .unwrap_or_else(|| trees.trees[tree].around(place, self.of_trees[tree]));
        wanted.retain(|wanted| *wanted != page && !snapshot.is_here(*wanted));
        Some(wanted)
    }

    /// Whether it is time to look once more whose a page is. It may be nobody's: overflow, say.
    fn may_look(&self, trees: &Trees) -> bool {
        self.misses_since * LOOKED_AT >= trees.read << self.looks_in_vain.min(16)
    }

    /// Where searches of `tree` for the rows end that come next in the leaf of an index by which `page` was found.
    fn rows_ahead(&mut self, trees: &Trees, snapshot: &Snapshot, tree: usize, page: PageIdx) -> Option<Vec<PageIdx>> {
        let index_of = |leaf: &PageIdx| trees.of_page.get(leaf).map(|(index, _)| *index);
        let latest = || self.index_leaves.iter().rev().copied();
        let is_own = |leaf: &PageIdx| index_of(leaf).is_some_and(|index| trees.trees[index].table == Some(tree));
        let is_others = |leaf: &PageIdx| index_of(leaf).is_some_and(|index| index != tree) && !is_own(leaf);
        let last = self.scans.get(&tree).copied();
        // SQLite has the leaf in hand: it reads it once, and many others before the next row.
        let in_hand = last.iter().map(|last| last.leaf);
        let leaves = latest().filter(is_own).chain(in_hand).chain(latest().filter(is_others));
        let (leaf, ends, from, at) = leaves.into_iter().find_map(|leaf| {
            let ends = trees.ends(snapshot, leaf, tree);
            // The other trees that are searched for the same row say which it is, where this one does not know its leaves yet.
            let from = self.row.filter(|(of, at)| *of == leaf && *at < ends.len()).map(|(_, at)| at);
            let at = nearest(&ends, page, from.unwrap_or(0))?;
            Some((leaf, ends, from, at))
        })?;
        self.row = Some((leaf, at));
        let run = |at: usize| ends.get(at).map(|end| end.run);
        let ahead = |last: Scan| (last.ahead * 2).clamp(FIRST_ROWS, MOST_ROWS);
        let scan = match last {
            // Its pages are found one level after the other.
            Some(last) if last.leaf == leaf && last.at == at => last,
            Some(last) if last.leaf == leaf => {
                let one_key = from.and_then(run) == run(at) && (last.one_key || last.ahead == 0);
                Scan { leaf, at, goes_back: at < last.at, one_key, ahead: ahead(last) }
            }
            Some(last) if last.ahead > 0 && trees.follows(leaf, last) => {
                Scan { leaf, at, one_key: false, ahead: ahead(last), ..last }
            }
            _ => Scan { leaf, at, goes_back: false, one_key: false, ahead: 0 },
        };
        self.scans.insert(tree, scan);
        if scan.ahead == 0 {
            return None;
        }
        let is_wanted = |end: &&End| !scan.one_key || Some(end.run) == run(at);
        let mut next: Vec<PageIdx> = match scan.goes_back {
            true => ends[..at].iter().rev().take_while(is_wanted).map(|end| end.page).collect(),
            false => ends[at + 1..].iter().take_while(is_wanted).map(|end| end.page).collect(),
        };
        next.dedup();
        next.retain(|end| *end != page);
        next.truncate(scan.ahead);
        Some(next)
    }
}

/// The first place of `page` from `at` on, else the last before.
fn nearest(ends: &[End], page: PageIdx, at: usize) -> Option<usize> {
    let (before, from) = ends.split_at(at);
    let ahead = from.iter().position(|end| end.page == page).map(|n| at + n);
    ahead.or_else(|| before.iter().rposition(|end| end.page == page))
}

impl Trees {
    fn find(snapshot: &Snapshot) -> Result<Trees> {
        let mut pages = Here(snapshot, 0);
        let header = read_header(&mut pages)?.ok_or_else(|| quire_engine::Error::invalid("no database"))?;
        let schema = read_schema(&mut pages, &header)?;
        let is_here = |page| snapshot.is_here(page);
        let version = snapshot.version();
        let mut found = Trees { version, header: header.clone(), trees: Vec::new(), of_page: HashMap::new(), read: 0 };
        let tables: HashMap<&str, usize> = schema
            .objects
            .iter()
            .enumerate()
            .filter(|(_, object)| object.kind == ObjectKind::Table)
            .map(|(n, object)| (object.name.as_str(), n))
            .collect();
        let mut most = MOST_LEAVES;
        for (n, object) in schema.objects.iter().enumerate() {
            let leaves = Leaves::find(&mut pages, &header, object.root, most, is_here);
            let leaves = leaves.ok().flatten().unwrap_or_default();
            most = most.saturating_sub(leaves.pages().len());
            found.of_page.extend(leaves.pages().iter().enumerate().map(|(place, page)| (*page, (n, place))));
            let table = tables.get(object.table.as_str()).copied().filter(|_| object.kind == ObjectKind::Index);
            found.trees.push(Tree { table, leaves });
        }
        found.read = pages.1;
        Ok(found)
    }

    /// The leaves at which searches of `tree` for the rows end that the leaf of an index names, in its order.
    fn ends(&self, snapshot: &Snapshot, leaf: PageIdx, tree: usize) -> Vec<End> {
        let mut bytes = vec![0; snapshot.page_size().map_or(0, PageSize::bytes)];
        if Here(snapshot, 0).read(leaf, &mut bytes).is_err() {
            return Vec::new();
        }
        let rows = rows_of_index_leaf(leaf, &bytes, &self.header).into_iter();
        let leaves = &self.trees[tree].leaves;
        rows.filter_map(|row| Some(End { page: leaves.of_integer(row.rowid)?, run: row.run })).collect()
    }

    /// Whether a scan goes on in this leaf.
    fn follows(&self, leaf: PageIdx, last: Scan) -> bool {
        let (Some((tree, place)), Some((of, before))) = (self.of_page.get(&leaf), self.of_page.get(&last.leaf)) else {
            return false;
        };
        let next = if last.goes_back { before.checked_sub(1) } else { Some(before + 1) };
        tree == of && next == Some(*place)
    }
}

impl Tree {
    /// The leaves around one, after so many misses.
    fn around(&self, place: usize, misses: u32) -> Vec<PageIdx> {
        let pages = self.leaves.pages();
        let count = match pages.len() <= WHOLE_LEAVES {
            _ if misses < 2 => return Vec::new(),
            true => (FIRST_LEAVES << (2 * (misses - 2)).min(16)).min(MOST_AROUND),
            false if misses < LARGE_MISSES => return Vec::new(),
            false => (FIRST_LEAVES << (misses / LARGE_MISSES - 1).min(16)).min(MOST_AROUND_LARGE),
        };
        let first = place.saturating_sub(count / 2);
        pages[first..(first + count).min(pages.len())].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use quire_engine::{Engine, VolumeName};
    use quire_settings::{Key, Overrides, Source, load, open_engine};
    use quire_sqlite_format::SchemaObject;

    use super::*;

    /// A database of 40,000 rows with an index, and as many that belong to them, with another one, in a store; and a replica
    /// of it that holds nothing but what is above the leaves.
    struct Cold {
        _dir: tempfile::TempDir,
        _engine: Engine,
        snapshot: Snapshot,
    }

    fn cold() -> Cold {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.db");
        let db = rusqlite::Connection::open(&file).unwrap();
        db.execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, who INTEGER, text TEXT); CREATE INDEX t_who ON t (who); BEGIN;
             WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 39999)
             INSERT INTO t SELECT i, i * 7919 % 100, hex(randomblob(100)) FROM n;
             CREATE TABLE note (t_id INTEGER, text TEXT); CREATE INDEX note_t ON note (t_id, text);
             INSERT INTO note SELECT id, hex(randomblob(16)) FROM t; COMMIT",
        )
        .unwrap();
        drop(db);
        let store = format!("file://{}", dir.path().join("store").display());
        let open = |name: &str| {
            let flag = || Source::Flag("test");
            let folder = dir.path().join(name);
            let overrides = Overrides::default().with(Key::DataDir, folder.to_str(), flag());
            open_engine(&load(&overrides.with(Key::Store, Some(&store), flag())).unwrap()).unwrap()
        };
        let name = VolumeName::parse("app").unwrap();
        let volume = open("here").volume(&name).unwrap();
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.set_page_size(PageSize::DEFAULT).unwrap();
        for (n, page) in std::fs::read(&file).unwrap().chunks_exact(4096).enumerate() {
            writer.write(PageIdx::new(n as u32 + 1).unwrap(), page).unwrap();
        }
        writer.commit(false).unwrap();
        volume.push().unwrap();
        let engine = open("there");
        let snapshot = engine.existing(&name).unwrap().snapshot();
        // It came with the checkpoint.
        snapshot.read(PageIdx::FIRST, &mut [0; 4096]).unwrap();
        Cold { _dir: dir, _engine: engine, snapshot }
    }

    impl Cold {
        fn leaves(&self, name: &str) -> Leaves {
            let mut pages = Here(&self.snapshot, 0);
            let header = read_header(&mut pages).unwrap().unwrap();
            let schema = read_schema(&mut pages, &header).unwrap();
            let SchemaObject { root, .. } = *schema.objects.iter().find(|object| object.name == name).unwrap();
            let is_here = |page| self.snapshot.is_here(page);
            Leaves::find(&mut pages, &header, root, usize::MAX, is_here).unwrap().unwrap()
        }

        fn fetch(&self, guide: &RefCell<Guide>, page: PageIdx) {
            let mut bytes = [0; 4096];
            self.snapshot.read(page, &mut bytes).unwrap();
            Guide::note(guide, page, &bytes);
        }
    }

    /// A scan of an index searches a tree for the rows that a leaf of it names.
    struct Searched {
        cold: Cold,
        guide: RefCell<Guide>,
        /// Where the searches end.
        pages: Vec<PageIdx>,
        /// The first that is for a row with another key than those before.
        other_key: usize,
    }

    impl Searched {
        fn new(tree: &str) -> Searched {
            let cold = cold();
            let (index, tree) = (cold.leaves("t_who").pages()[3], cold.leaves(tree));
            let guide = RefCell::default();
            cold.fetch(&guide, index);
            let mut bytes = [0; 4096];
            cold.snapshot.read(index, &mut bytes).unwrap();
            let header = read_header(&mut Here(&cold.snapshot, 0)).unwrap().unwrap();
            let rows = rows_of_index_leaf(index, &bytes, &header);
            let pages: Vec<PageIdx> = rows.iter().map(|row| tree.of_integer(row.rowid).unwrap()).collect();
            assert!(pages.windows(2).all(|pair| pair[0] != pair[1]), "each row lies on a page of its own");
            let other_key = rows.iter().position(|row| row.run > 0).unwrap();
            Searched { cold, guide, pages, other_key }
        }

        fn miss(&self, n: usize) -> Option<Vec<PageIdx>> {
            self.guide.borrow_mut().on_miss(&self.cold.snapshot, self.pages[n], &Mutex::default())
        }

        /// Some came with the leaf.
        fn absent(&self, rows: Range<usize>) -> Vec<PageIdx> {
            self.pages[rows].iter().copied().filter(|page| !self.cold.snapshot.is_here(*page)).collect()
        }
    }

    fn rows_are_looked_ahead(tree: &str) {
        let scan = Searched::new(tree);
        assert!(scan.other_key > 60 && scan.absent(0..60).len() > 40);
        assert_eq!(scan.miss(10), None, "the first miss tells nothing");
        assert_eq!(scan.miss(11), Some(Vec::new()), "the first row of a leaf that is recognized tells nothing");
        assert_eq!(scan.miss(12).unwrap(), scan.absent(13..29));
        assert_eq!(scan.miss(20).unwrap(), scan.absent(21..53));
        assert_eq!(
            scan.miss(18).unwrap(),
            scan.absent(0..18).into_iter().rev().collect::<Vec<_>>(),
            "the other way round"
        );
    }

    #[test]
    fn the_rows_of_an_index_are_looked_ahead_from_the_second_on() {
        rows_are_looked_ahead("t");
    }

    #[test]
    fn what_another_table_has_of_the_rows_of_an_index_is_looked_ahead_too() {
        rows_are_looked_ahead("note_t");
    }

    #[test]
    fn rows_with_another_key_are_left_alone_until_one_of_them_is_missed() {
        let scan = Searched::new("t");
        let end = scan.other_key;
        for n in [end - 5, end - 4] {
            scan.miss(n);
        }
        assert_eq!(scan.miss(end - 3).unwrap(), scan.absent(end - 2..end));
        assert_eq!(scan.miss(end).unwrap(), scan.absent(end + 1..end + 33));
    }

    #[test]
    fn misses_all_over_a_small_tree_bring_what_lies_around_them() {
        let cold = cold();
        let leaves = cold.leaves("t");
        let pages = leaves.pages();
        assert!(pages.len() > 2000, "{}", pages.len());
        let (mut guide, shared) = (Guide::default(), Mutex::default());
        let mut miss = |n: usize| guide.on_miss(&cold.snapshot, pages[n], &shared);
        assert_eq!(miss(100), None);
        assert_eq!(miss(1500), Some(Vec::new()), "the first miss that is told from others");
        assert_eq!(miss(700).unwrap().len(), FIRST_LEAVES - 1);
        let around = miss(1000).unwrap();
        assert_eq!(around.len(), 4 * FIRST_LEAVES - 1);
        assert!(around.contains(&pages[999]) && around.contains(&pages[1001]) && !around.contains(&pages[1000]));
        assert_eq!(miss(0).unwrap().first(), Some(&pages[1]), "no leaf lies before the first");
        assert!(shared.lock().as_ref().is_some_and(|trees| trees.version == cold.snapshot.version()));
    }

    #[test]
    fn a_page_that_belongs_to_no_tree_is_left_to_the_engine() {
        let cold = cold();
        let mut guide = Guide::default();
        let beyond = PageIdx::new(1_000_000).unwrap();
        assert_eq!([0; 4].map(|_| guide.on_miss(&cold.snapshot, beyond, &Mutex::default())), [const { None }; 4]);
    }
}
