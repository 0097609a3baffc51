//! Every byte of a small replica's files flipped, and each file cut at every
//! length: the right data, or an error of kind `Corrupt` that names the file
//! and says what to do; never other data, a panic or a hang.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::damage::*;
use common::*;
use quire_bucket::Bucket;
use quire_engine::{Engine, ErrorKind, Result, SyncMode};

/// How many cases an ordinary run of a test takes.
const CASES: u64 = 2_500;

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
        let bucket = memory();
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

    /// Damages the files in the ways of `damages`, one at a time, and looks at what comes of it.
    fn check(&self, damages: impl Fn(&Tree) -> Vec<Case>, is_right: impl Fn(&Seen) -> bool) {
        let dir = self.dir();
        let mut whole = read_tree(&dir);
        whole.retain(|path, _| !path.ends_with("lock"));
        let (mut right, mut errors) = (0, 0);
        for (path, damage) in sample(damages(&whole), CASES) {
            let mut tree = whole.clone();
            tree.insert(path.clone(), damage.of(&whole[&path]));
            write_tree(&dir, &tree);
            let what = format!("{}: {damage}", path.display());
            let (at, bucket) = (dir.clone(), self.bucket.clone());
            match watched(&what, move || look(&at, &bucket)) {
                Ok(seen) => {
                    assert!(is_right(&seen), "{what}: {seen:?}");
                    right += 1;
                }
                Err(e) => {
                    let names_it = e.to_string().contains(path.file_name().unwrap().to_str().unwrap());
                    assert!(e.kind() == ErrorKind::Corrupt && names_it && e.remedy().is_some(), "{what}: {e:?}");
                    errors += 1;
                }
            }
        }
        println!("{} files: {right} times the right data, {errors} times an error that names the file", whole.len());
        assert!(right > 0 && errors > 0);
        memory_stayed_small();
        write_tree(&dir, &whole);
        assert!(is_right(&look(&dir, &self.bucket).unwrap()), "the undamaged one");
    }
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

/// Two volumes with a transaction over both that was decided, in a data
/// directory whose process died before it told either of them.
fn decided_and_killed(dir: &Path, bucket: &Bucket) -> Tree {
    let engine = open(dir, bucket);
    let volumes = ["a", "b"].map(|n| engine.volume(&name(n)).unwrap());
    for volume in &volumes {
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.set_page_size(page_size()).unwrap();
        [1, 2].iter().for_each(|n| writer.write(page(*n), &content(1)).unwrap());
        writer.commit(true).unwrap();
    }
    let mut writers: Vec<_> = volumes.iter().map(|v| v.writer(&v.snapshot(), "test").unwrap()).collect();
    for writer in &mut writers {
        [1, 2].iter().for_each(|n| writer.write(page(*n), &content(2)).unwrap());
        writer.prepare("the group", true).unwrap();
    }
    engine.decide("the group").unwrap();
    let mut tree = read_tree(dir);
    drop((writers, volumes, engine));
    tree.retain(|path, _| !path.ends_with("lock"));
    for bytes in tree.values_mut() {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 40);
        bytes.truncate(end);
    }
    tree
}

/// Both pages of both volumes.
fn look_at_both(dir: &Path, bucket: &Bucket) -> Result<Vec<u64>> {
    let engine = Engine::open(options(dir, stores(bucket)))?;
    let mut pages = Vec::new();
    for volume in ["a", "b"] {
        let volume = engine.volume(&name(volume))?;
        let snapshot = volume.snapshot();
        for n in 1..=2 {
            let mut data = [0xEE; PAGE];
            snapshot.read(page(n), &mut data)?;
            pages.push(stamp(&data));
        }
    }
    Ok(pages)
}

#[test]
fn damage_takes_a_decided_transaction_from_the_damaged_log_at_most() {
    let (bucket, root) = (memory(), scratch());
    let dir = root.path().join("dir");
    let whole = decided_and_killed(&dir, &bucket);
    assert!(whole.keys().any(|path| path.parent().is_some_and(|folder| folder.ends_with("groups"))));
    let (mut right, mut errors) = (0, 0);
    let cases = flips(&whole).into_iter().chain(cuts(&whole)).collect();
    for (path, damage) in sample(cases, CASES) {
        let mut tree = whole.clone();
        tree.insert(path.clone(), damage.of(&whole[&path]));
        write_tree(&dir, &tree);
        let what = format!("{}: {damage}", path.display());
        let (at, store) = (dir.clone(), bucket.clone());
        match watched(&what, move || look_at_both(&at, &store)) {
            Ok(pages) => {
                // Nothing in the log itself proves that its last commit was whole; what came before is proven by it.
                let in_log = path.parent().is_some_and(|folder| folder.ends_with("log"));
                let without_last = pages == [1, 1, 2, 2] || pages == [2, 2, 1, 1];
                // A file that ends within its header is one that was just begun when the power went.
                let without_all = pages == [0, 0, 2, 2] || pages == [2, 2, 0, 0];
                let is_cut = matches!(damage, Damage::Cut { .. });
                let is_right = pages == [2; 4] || in_log && (without_last || is_cut && without_all);
                assert!(is_right, "{what}: {pages:?}");
                right += 1;
            }
            Err(e) => {
                let names_it = e.to_string().contains(path.file_name().unwrap().to_str().unwrap());
                assert!(e.kind() == ErrorKind::Corrupt && names_it && e.remedy().is_some(), "{what}: {e:?}");
                errors += 1;
            }
        }
    }
    println!("{} files: {right} times the right data, {errors} times an error that names the file", whole.len());
    assert!(right > 0 && errors > 0);
    memory_stayed_small();
}

#[test]
fn a_replica_whose_store_is_gone_says_so_when_its_cache_is_damaged() {
    let mut built = Built::new();
    built.session(false, &[(1, 11)]);
    let is_cache = |path: &Path| path.parent().is_some_and(|folder| folder.ends_with("cache"));
    let (cache, mut bytes) = read_tree(&built.dir()).into_iter().find(|(path, _)| is_cache(path)).unwrap();
    bytes.iter_mut().skip(60).for_each(|byte| *byte ^= 0x55);
    std::fs::write(built.dir().join(cache), bytes).unwrap();
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
