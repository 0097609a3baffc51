//! What a query on a cold replica is going to need, told from its B-trees.
//!
//! SQLite asks for one page after the other, and each that is not here costs a
//! round trip. But pages that are here say more than what was asked of them:
//!
//! - The leaf of an index names the rows that a scan of it visits next. When the
//!   second of them is missed, those after it come along, ever more of them.
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
/// The first byte of an index leaf.
const INDEX_LEAF: u8 = 10;

/// What one connection has missed, and what that tells.
#[derive(Default)]
pub(crate) struct Guide {
    /// The snapshot that everything here is about, by its version.
    version: Option<u64>,
    misses: u32,
    trees: Option<Arc<Trees>>,
    /// How often leaves of each tree were missed.
    of_trees: Vec<u32>,
    /// The latest last.
    index_leaves: Vec<PageIdx>,
    /// The index leaf by which rows were found last, and where in it.
    scan: Option<(PageIdx, usize, usize)>,
}

/// The B-trees of a snapshot, as far as their upper levels were here.
pub(crate) struct Trees {
    /// The snapshot's.
    version: u64,
    header: DatabaseHeader,
    trees: Vec<Tree>,
    /// Each leaf with its tree and its place in that.
    of_page: HashMap<PageIdx, (usize, usize)>,
}

struct Tree {
    is_index: bool,
    /// Of an index the tree of its table.
    table: Option<usize>,
    leaves: Leaves,
}

/// A snapshot's pages as far as they are here.
struct Here<'a>(&'a Snapshot);

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
        self.0.read(page, buf)
    }
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
        if self.misses < 2 {
            return None;
        }
        if self.trees.is_none() {
            self.trees = shared.lock().clone().filter(|trees| trees.version == snapshot.version());
        }
        // What is above the leaves may have come meanwhile.
        if self.trees.is_none() || self.misses.is_power_of_two() {
            self.trees = Trees::find(snapshot).ok().map(Arc::new);
            shared.lock().clone_from(&self.trees);
        }
        let trees = self.trees.clone()?;
        let (tree, place) = *trees.of_page.get(&page)?;
        self.of_trees.resize(trees.trees.len(), 0);
        self.of_trees[tree] += 1;
        let rows = match trees.trees[tree].is_index {
            true => None,
            false => self.rows_ahead(&trees, snapshot, tree, page),
        };
        let mut wanted = rows.unwrap_or_else(|| trees.trees[tree].around(place, self.of_trees[tree]));
        wanted.retain(|wanted| *wanted != page && !snapshot.is_here(*wanted));
        Some(wanted)
    }

    /// The rows that come next in the leaf of an index by which `page` of the table was found.
    fn rows_ahead(&mut self, trees: &Trees, snapshot: &Snapshot, table: usize, page: PageIdx) -> Option<Vec<PageIdx>> {
        for leaf in self.index_leaves.iter().rev().copied() {
            let Some((index, _)) = trees.of_page.get(&leaf) else { continue };
            if trees.trees[*index].table != Some(table) {
                continue;
            }
            let rows = trees.rows(snapshot, leaf, table);
            let Some(at) = rows.iter().position(|row| *row == page) else { continue };
            let Some((_, before, count)) = self.scan.filter(|(of, before, _)| *of == leaf && *before != at) else {
                // One row may be all that is wanted of this leaf.
                self.scan = Some((leaf, at, FIRST_ROWS));
                return None;
            };
            self.scan = Some((leaf, at, (count * 2).min(MOST_ROWS)));
            return Some(match before < at {
                true => rows[at + 1..].iter().take(count).copied().collect(),
                false => rows[..at].iter().rev().take(count).copied().collect(),
            });
        }
        None
    }
}

impl Trees {
    fn find(snapshot: &Snapshot) -> Result<Trees> {
        let mut pages = Here(snapshot);
        let header = read_header(&mut pages)?.ok_or_else(|| quire_engine::Error::invalid("no database"))?;
        let schema = read_schema(&mut pages, &header)?;
        let is_here = |page| snapshot.is_here(page);
        let version = snapshot.version();
        let mut found = Trees { version, header: header.clone(), trees: Vec::new(), of_page: HashMap::new() };
        let tables: HashMap<&str, usize> = schema
            .objects
            .iter()
            .enumerate()
            .filter(|(_, object)| object.kind == ObjectKind::Table)
            .map(|(n, object)| (object.name.as_str(), n))
            .collect();
        for (n, object) in schema.objects.iter().enumerate() {
            let most = MOST_LEAVES - found.of_page.len().min(MOST_LEAVES);
            let leaves = Leaves::find(&mut pages, &header, object.root, most, is_here);
            let leaves = leaves.ok().flatten().unwrap_or_default();
            found.of_page.extend(leaves.pages().iter().enumerate().map(|(place, page)| (*page, (n, place))));
            let is_index = object.kind == ObjectKind::Index;
            let table = tables.get(object.table.as_str()).copied().filter(|_| is_index);
            found.trees.push(Tree { is_index, table, leaves });
        }
        Ok(found)
    }

    /// The pages of the rows that the leaf of an index names, in its order, each once for neighbours.
    fn rows(&self, snapshot: &Snapshot, leaf: PageIdx, table: usize) -> Vec<PageIdx> {
        let mut bytes = vec![0; snapshot.page_size().map_or(0, PageSize::bytes)];
        if Here(snapshot).read(leaf, &mut bytes).is_err() {
            return Vec::new();
        }
        let rows = rows_of_index_leaf(leaf, &bytes, &self.header).into_iter();
        let mut pages: Vec<PageIdx> = rows.filter_map(|row| self.trees[table].leaves.of_row(row)).collect();
        pages.dedup();
        pages
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
    use quire_engine::{Engine, VolumeName};
    use quire_settings::{Key, Overrides, Source, load, open_engine};
    use quire_sqlite_format::SchemaObject;

    use super::*;

    /// A database of 40,000 rows with an index, in a store, and a replica of it that holds nothing but what is above the
    /// leaves.
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
             INSERT INTO t SELECT i, i * 7919 % 100, hex(randomblob(100)) FROM n; COMMIT",
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
            let mut pages = Here(&self.snapshot);
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

    #[test]
    fn the_rows_of_an_index_are_looked_ahead_from_the_second_on() {
        let cold = cold();
        let table = cold.leaves("t");
        let index = cold.leaves("t_who").pages()[3];
        let (guide, shared) = (RefCell::default(), Mutex::default());
        cold.fetch(&guide, index);
        let mut bytes = [0; 4096];
        cold.snapshot.read(index, &mut bytes).unwrap();
        let header = read_header(&mut Here(&cold.snapshot)).unwrap().unwrap();
        let rows = rows_of_index_leaf(index, &bytes, &header);
        let mut pages: Vec<PageIdx> = rows.iter().map(|row| table.of_row(*row).unwrap()).collect();
        pages.dedup();
        // Some came with the leaf.
        let absent = |pages: &[PageIdx]| -> Vec<PageIdx> {
            pages.iter().copied().filter(|page| !cold.snapshot.is_here(*page)).collect()
        };
        assert!(absent(&pages).len() > 60);
        let miss = |n: usize| guide.borrow_mut().on_miss(&cold.snapshot, pages[n], &shared);
        assert_eq!(miss(10), None, "the first miss tells nothing");
        assert_eq!(miss(11), Some(Vec::new()), "the first row of a leaf that is recognized tells nothing");
        assert_eq!(miss(12).unwrap(), absent(&pages[13..29]));
        assert_eq!(miss(20).unwrap(), absent(&pages[21..53]));
        let back: Vec<PageIdx> = pages[..18].iter().rev().copied().collect();
        assert_eq!(miss(18).unwrap(), absent(&back), "the other way round");
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
