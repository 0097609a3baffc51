//! Every byte of a small store's objects flipped, and each object cut at every
//! length: a reader, a replica that lags behind and a replica that pushes get
//! the right data, or an error of kind `Corrupt` that names the object and says
//! what to do; never other data, a panic or a hang. How to run all cases:
//! `common/damage.rs`.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::damage::*;
use common::*;
use quire_bucket::{Bucket, Limits};
use quire_engine::{Engine, Error, ErrorKind, Lsn, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Pushes of one page: more than a roll-up has.
const PUSHES: u32 = 66;
/// Pages of the last push: more than a commit carries itself.
const LARGE_PAGES: u32 = 600;
/// Bytes of a page that do not compress, so that few pages make a segment.
const NOISE_BYTES: usize = 120;

/// A store, with what its newest snapshot holds.
struct World {
    objects: Tree,
    pages: Vec<Vec<u8>>,
    /// A replica that knows the first commits only, and has one of its pages.
    lagging: Tree,
    /// A replica that has everything, and a commit that the store has not.
    ahead: Tree,
}

fn noisy(rng: &mut StdRng) -> Vec<u8> {
    let mut data = vec![0; PAGE];
    data[..NOISE_BYTES].iter_mut().for_each(|byte| *byte = rng.random());
    data
}

impl World {
    fn new() -> World {
        let root = scratch();
        let mut rng = StdRng::seed_from_u64(7);
        let mut pages = vec![vec![0; PAGE]; 8];
        let writer = open(&root.path().join("writer"), &bucket(root.path()));
        let volume = writer.volume(&name("v")).unwrap();
        let mut lagging = Tree::new();
        for push in 0..=PUSHES {
            let changed = if push < PUSHES { push % 8..push % 8 + 1 } else { 4..LARGE_PAGES };
            let mut change = volume.writer(&volume.snapshot(), "test").unwrap();
            change.set_page_size(page_size()).unwrap();
            pages.resize(pages.len().max(changed.end as usize), Vec::new());
            for n in changed {
                pages[n as usize] = noisy(&mut rng);
                change.write(page(n + 1), &pages[n as usize]).unwrap();
            }
            change.commit(false).unwrap();
            volume.push().unwrap();
            if push == 2 {
                lagging = replica(root.path(), "lagging", |_| ());
            }
        }
        let ahead = replica(root.path(), "ahead", |volume| {
            let mut change = volume.writer(&volume.snapshot(), "test").unwrap();
            change.write(page(1), &[9; PAGE]).unwrap();
            change.commit(true).unwrap();
        });
        let objects = read_tree(&store_in(root.path()));
        let count = |part: &str| objects.keys().filter(|path| path.to_str().unwrap().contains(part)).count();
        let found = ["/!/c/", "/!/roll/", "/!/seg/", ".quire/"].map(count);
        assert_eq!(found, [PUSHES as usize + 1, 1, 1, 1], "an object of every kind");
        World { objects, pages, lagging, ahead }
    }

    /// Puts a damaged object into a copy of the store, in the place of the whole one.
    fn damage(&self, root: &Path, (path, damage): &Case) {
        std::fs::write(store_in(root).join(path), damage.of(&self.objects[path])).unwrap();
    }

    fn mend(&self, root: &Path, (path, _): &Case) {
        std::fs::write(store_in(root).join(path), &self.objects[path]).unwrap();
    }

    /// A copy of the store, all whole.
    fn put_store(&self, root: &Path) {
        write_tree(&store_in(root), &self.objects);
    }

    fn cases(&self, most: u64) -> Vec<Case> {
        sample(flips(&self.objects).into_iter().chain(cuts(&self.objects)).collect(), most)
    }
}

fn store_in(root: &Path) -> PathBuf {
    root.join("store")
}

fn bucket(root: &Path) -> Bucket {
    let limits = Limits { first_pause: Duration::from_millis(1), ..Limits::default() };
    let options = quire_bucket::Options { limits, ..Default::default() };
    Bucket::open_with(&format!("file://{}", store_in(root).display()), options).unwrap()
}

/// A new replica of the volume, as files.
fn replica(root: &Path, dir: &str, work: impl FnOnce(&quire_engine::Volume)) -> Tree {
    let dir = root.join(dir);
    let engine = open(&dir, &bucket(root));
    let volume = engine.existing(&name("v")).unwrap();
    volume.snapshot().read(page(1), &mut [0; PAGE]).unwrap();
    work(&volume);
    drop((volume, engine));
    let mut tree = read_tree(&dir);
    tree.retain(|path, _| !path.ends_with("lock"));
    tree
}

/// Every page of the newest snapshot.
fn read_all(volume: &quire_engine::Volume) -> Result<Vec<Vec<u8>>> {
    let snapshot = volume.snapshot();
    let read = |n| {
        let mut data = vec![0xEE; PAGE];
        snapshot.read(page(n), &mut data).map(|()| data)
    };
    (1..=snapshot.page_count().get()).map(read).collect()
}

/// The error names the object, by its key, and says what to do.
fn assert_names(e: &Error, key: &Path, what: &str) {
    let is_newer_marker = e.kind() == ErrorKind::Invalid && e.message().contains("format version");
    assert!(e.kind() == ErrorKind::Corrupt || is_newer_marker, "{what}: {e:?}");
    assert!(e.to_string().contains(key.to_str().unwrap()), "{what}: the error names no {}: {e:?}", key.display());
    assert!(e.remedy().is_some(), "{what}: {e:?}");
}

#[test]
fn a_reader_of_a_damaged_store_gets_the_right_pages_or_an_error_that_names_the_object() {
    let world = World::new();
    let look = |root: &Path, case: &Case| {
        world.damage(root, case);
        let what = format!("{}: {}", case.0.display(), case.1);
        let (dir, bucket) = (root.join("reader"), bucket(root));
        let at = dir.clone();
        let read = watched(&what, move || -> Result<_> {
            let engine = Engine::open(options(&at, stores(&bucket)))?;
            read_all(&engine.existing(&name("v"))?)
        });
        world.mend(root, case);
        std::fs::remove_dir_all(&dir).unwrap();
        match &read {
            Ok(pages) => assert!(*pages == world.pages, "{what}: wrong data"),
            Err(e) => assert_names(e, &case.0, &what),
        }
        read.is_ok()
    };
    let (right, errors) = run_all(world.cases(1_500), |root| world.put_store(root), look);
    println!("{right} times the right data, {errors} times an error that names the object");
    assert!(right > 0 && errors > 0);
    memory_stayed_small();
}

#[test]
fn a_replica_behind_a_damaged_store_catches_up_rightly_or_names_the_object_and_goes_on_once_it_is_mended() {
    let world = World::new();
    let look = |root: &Path, case: &Case| {
        let dir = root.join("lagging");
        write_tree(&dir, &world.lagging);
        world.damage(root, case);
        let what = format!("{}: {}", case.0.display(), case.1);
        let (at, store) = (dir.clone(), bucket(root));
        let read = watched(&what, move || -> Result<_> {
            let engine = Engine::open(options(&at, stores(&store)))?;
            let volume = engine.existing(&name("v"))?;
            volume.pull()?;
            read_all(&volume)
        });
        world.mend(root, case);
        match &read {
            Ok(pages) => assert!(*pages == world.pages, "{what}: wrong data"),
            Err(e) => {
                assert_names(e, &case.0, &what);
                let engine = open(&dir, &bucket(root));
                let volume = engine.existing(&name("v")).unwrap();
                volume.pull().unwrap();
                assert!(read_all(&volume).unwrap() == world.pages, "{what}: wrong data once it is mended");
            }
        }
        read.is_ok()
    };
    let (right, errors) = run_all(world.cases(800), |root| world.put_store(root), look);
    println!("{right} times the right data, {errors} times an error that names the object");
    assert!(right > 0 && errors > 0);
    memory_stayed_small();
}

#[test]
fn a_push_onto_a_damaged_store_succeeds_or_names_the_object_and_keeps_its_commit() {
    let world = World::new();
    let mut wanted = world.pages.clone();
    wanted[0] = vec![9; PAGE];
    // What a push looks at: the marker and the newest commits.
    let mut cases = flips(&world.objects);
    cases.extend(cuts(&world.objects));
    cases.retain(|(path, _)| path.starts_with(".quire") || is_newest(path));
    let look = |root: &Path, case: &Case| {
        let dir = root.join("ahead");
        write_tree(&dir, &world.ahead);
        world.damage(root, case);
        let what = format!("{}: {}", case.0.display(), case.1);
        let (at, store) = (dir.clone(), bucket(root));
        let outcome = watched(&what, move || -> Result<_> {
            let engine = Engine::open(options(&at, stores(&store)))?;
            engine.existing(&name("v"))?.push()
        });
        if let Err(e) = &outcome {
            assert_names(e, &case.0, &what);
        }
        world.mend(root, case);
        // The commit is there still, and goes on once the object is mended.
        let engine = open(&dir, &bucket(root));
        let volume = engine.existing(&name("v")).unwrap();
        volume.push().unwrap();
        assert_eq!(volume.status().unpushed, 0, "{what}");
        assert!(read_all(&volume).unwrap() == wanted, "{what}: wrong data");
        drop((volume, engine));
        world.put_store(root);
        outcome.is_ok()
    };
    let (pushed, errors) = run_all(sample(cases, 500), |root| world.put_store(root), look);
    println!("{pushed} times pushed, {errors} times an error that names the object");
    assert!(pushed > 0 && errors > 0);
    memory_stayed_small();
}

/// Whether an object is one of the two newest commits.
fn is_newest(path: &Path) -> bool {
    let head = u64::from(PUSHES) + 1;
    [head, head - 1].into_iter().filter_map(Lsn::new).any(|lsn| {
        let hex = format!("{:016x}", u64::MAX - lsn.get());
        path.ends_with(format!("c/{}/{}", &hex[..13], &hex[13..]))
    })
}
