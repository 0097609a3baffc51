//! Every byte of a small replica's files flipped, and each file cut at every
//! length: the right data, or an error of kind `Corrupt` that names the file
//! and says what to do; never other data, a panic or a hang.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::*;
use quire_bucket::Bucket;
use quire_engine::{Engine, ErrorKind, Result, SyncMode};

/// The files of a data directory.
type Tree = BTreeMap<PathBuf, Vec<u8>>;

fn read_tree(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tree.append(&mut read_tree(&path));
        } else {
            tree.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    tree
}

/// Makes `dir` hold these files and no others.
fn write_tree(dir: &Path, tree: &Tree) {
    std::fs::remove_dir_all(dir).unwrap();
    for (path, bytes) in tree {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// What a reader of the volume sees: each page, and how many commits are unpushed.
type Seen = (Vec<u64>, u64);

fn look(dir: &Path, bucket: &Bucket) -> Result<Seen> {
    let engine = Engine::open(options(dir, stores(bucket)))?;
    let volume = engine.volume(&name("v"))?;
    let snapshot = volume.snapshot();
    let mut pages = Vec::new();
    for n in 1..=snapshot.page_count().get() {
        let mut data = [0xEE; PAGE];
        snapshot.read(page(n), &mut data)?;
        pages.push(stamp(&data));
    }
    Ok((pages, volume.status().unpushed))
}

/// A data directory with pages that were fetched, pages that were committed,
/// and zeros; each session of `commits` ends in its own way.
struct Built {
    bucket: Bucket,
    root: tempfile::TempDir,
    /// What is to be seen after each commit, the last one last.
    states: Vec<Seen>,
}

impl Built {
    fn new() -> Built {
        let bucket = Bucket::open("memory://").unwrap();
        let root = scratch();
        let first = open(&root.path().join("first"), &bucket);
        let volume = first.volume(&name("v")).unwrap();
        write(&volume, &[(1, 1), (2, 2), (3, 3), (4, 4)]);
        volume.push().unwrap();
        Built { bucket, root, states: vec![(vec![1, 2, 3, 4], 0)] }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("dir")
    }

    fn commit(&mut self, volume: &quire_engine::Volume, n: u32, stamp: u64) {
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.write(page(n), &content(stamp)).unwrap();
        writer.commit(true).unwrap();
        let (mut pages, unpushed) = self.states.last().unwrap().clone();
        pages.resize(pages.len().max(n as usize), 0);
        pages[n as usize - 1] = stamp;
        self.states.push((pages, unpushed + 1));
    }

    fn session(&mut self, killed: bool, commits: &[(u32, u64)]) {
        let engine = open(&self.dir(), &self.bucket);
        let volume = engine.volume(&name("v")).unwrap();
        for n in 1..=4 {
            read(&volume, n);
        }
        for (n, stamp) in commits {
            self.commit(&volume, *n, *stamp);
        }
        if killed {
            let tree = read_tree(&self.dir());
            drop((volume, engine));
            // A file's end that was reserved and never written is not worth a million flips.
            let trimmed = tree.into_iter().map(|(path, bytes)| {
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 40);
                (path, bytes[..end.min(bytes.len())].to_vec())
            });
            write_tree(&self.dir(), &trimmed.collect());
        }
    }

    /// Damages every file in every way of `damage`, and looks at what comes of it.
    fn check(&self, damages: impl Fn(&[u8]) -> Vec<(String, Vec<u8>)>, is_right: impl Fn(&Seen) -> bool) {
        let whole = read_tree(&self.dir());
        let (mut right, mut errors) = (0, 0);
        for (path, bytes) in &whole {
            if path.ends_with("lock") {
                continue;
            }
            for (what, damaged) in damages(bytes) {
                let mut tree = whole.clone();
                tree.insert(path.clone(), damaged);
                write_tree(&self.dir(), &tree);
                match look(&self.dir(), &self.bucket) {
                    Ok(seen) => {
                        assert!(is_right(&seen), "{}, {what}: {seen:?}", path.display());
                        right += 1;
                    }
                    Err(e) => {
                        let names_it = e.to_string().contains(path.file_name().unwrap().to_str().unwrap());
                        let is_good = e.kind() == ErrorKind::Corrupt && names_it && e.remedy().is_some();
                        assert!(is_good, "{}, {what}: {e:?}", path.display());
                        errors += 1;
                    }
                }
            }
        }
        println!("{} files: {right} times the right data, {errors} times an error that names the file", whole.len());
        assert!(right > 0 && errors > 0);
        write_tree(&self.dir(), &whole);
        assert!(is_right(&look(&self.dir(), &self.bucket).unwrap()), "the undamaged one");
    }
}

/// One bit of every byte. Zeros far from a file's beginning are all alike: of them every eighth.
fn flips(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let flipped = |at: usize| {
        let mut bad = bytes.to_vec();
        bad[at] ^= 1 << (at % 8);
        (format!("byte {at}"), bad)
    };
    (0..bytes.len()).filter(|at| *at < 600 || bytes[*at] != 0 || at % 8 == 0).map(flipped).collect()
}

fn cuts(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    (0..bytes.len()).map(|len| (format!("cut to {len} bytes"), bytes[..len].to_vec())).collect()
}

#[test]
fn a_flipped_byte_of_a_closed_replica_is_noticed_or_does_not_matter() {
    let mut built = Built::new();
    built.session(false, &[(1, 11), (7, 77)]);
    built.session(false, &[(2, 22)]);
    let last = built.states.last().unwrap().clone();
    built.check(flips, |seen| *seen == last);
}

#[test]
fn a_closed_replica_that_lost_the_end_of_a_file_says_so_or_does_not_need_it() {
    let mut built = Built::new();
    built.session(false, &[(1, 11), (7, 77)]);
    built.session(false, &[(2, 22)]);
    let last = built.states.last().unwrap().clone();
    built.check(cuts, |seen| *seen == last);
}

#[test]
fn a_flipped_byte_of_a_killed_replica_costs_the_last_commit_at_most() {
    let mut built = Built::new();
    built.session(true, &[(1, 11), (7, 77)]);
    built.session(true, &[(2, 22), (5, 55), (6, 66)]);
    let n = built.states.len();
    // The very last record looks torn if it is damaged: nothing later proves that it was whole.
    let allowed = built.states[n - 2..].to_vec();
    built.check(flips, |seen| allowed.contains(seen));
}

#[test]
fn a_killed_replica_whose_files_end_early_is_what_it_was_after_some_commit() {
    let mut built = Built::new();
    built.session(true, &[(1, 11), (7, 77)]);
    built.session(true, &[(2, 22), (5, 55)]);
    let allowed = built.states.clone();
    built.check(cuts, |seen| allowed.contains(seen));
}

#[test]
fn a_replica_whose_store_is_gone_says_so_when_its_cache_is_damaged() {
    let mut built = Built::new();
    built.session(false, &[(1, 11)]);
    let cache = read_tree(&built.dir()).into_keys().find(|path| path.to_str().unwrap().contains("/cache/")).unwrap();
    let mut bytes = std::fs::read(&cache).unwrap();
    bytes.iter_mut().skip(60).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&cache, bytes).unwrap();
    let mut options = options(&built.dir(), stores(&built.bucket));
    options.sync = SyncMode::Manual;
    options.connect = Box::new(|| {
        Box::pin(async { Err(quire_engine::Error::unavailable("the store is gone").with_remedy("Wait.")) })
    });
    let engine = Engine::open(options).unwrap();
    let volume = engine.volume(&name("v")).unwrap();
    let mut data = [0; PAGE];
    let error = volume.snapshot().read(page(3), &mut data).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(read(&volume, 1), 11, "what is here can be read");
}
