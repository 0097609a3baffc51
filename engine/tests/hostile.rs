//! Schedules and leftovers that once broke the replica, or could have.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use common::hooked::{Call, Step, hooked};
use common::*;
use quire_bucket::Bucket;
use quire_engine::{Condition, Engine, ErrorKind, Lsn, Options, PageCount, Stores, Volume};

/// What a test does between two steps of the engine, once.
type Interruption = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Stores that run `interruption`, if one is set, when the head is asked for
/// the `nth` time from then on.
fn interrupted(bucket: &Bucket, interruption: &Interruption, nth: usize) -> Stores {
    let (interruption, asked) = (interruption.clone(), AtomicUsize::new(0));
    let hook = Arc::new(move |step| {
        let is_set = interruption.lock().unwrap().is_some();
        if matches!(step, Step::Before(Call::Head | Call::Open))
            && is_set
            && asked.fetch_add(1, Ordering::SeqCst) + 1 == nth
        {
            let act = interruption.lock().unwrap().take();
            act.into_iter().for_each(|act| act());
        }
        Ok(())
    });
    hooked(stores(bucket), hook)
}

/// Whose state [`sleeps`] looks at: this thread.
fn this_thread() -> PathBuf {
    Path::new("/proc").join(std::fs::read_link("/proc/thread-self").unwrap())
}

/// Whether a thread waits for something.
fn sleeps(thread: &Path) -> bool {
    std::fs::read_to_string(thread.join("stat")).unwrap().contains(") S ")
}

/// What a kill at this moment leaves on disk.
fn killed(dir: &Path, to: &Path) -> PathBuf {
    copy_dir(dir, to);
    to.to_owned()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    files
}

fn bytes_in(dir: &Path) -> u64 {
    files(dir).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// A volume of many pages in the store, and a replica of it with a tiny cache
/// that has none of them.
struct Cold {
    engine: Engine,
    volume: Volume,
    dir: PathBuf,
    _root: tempfile::TempDir,
}

const COLD_PAGES: u32 = 20_000;

impl Cold {
    fn new(bucket: &Bucket, cache_size: u64) -> Cold {
        let root = tempfile::tempdir().unwrap();
        let first = open(&root.path().join("first"), bucket);
        let volume = first.volume(&name("v")).unwrap();
        write(&volume, &(1..=COLD_PAGES).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
        volume.push().unwrap();
        let dir = root.path().join("cold");
        let mut options = options(&dir, stores(bucket));
        options.cache_size = cache_size;
        let engine = Engine::open(options).unwrap();
        let volume = engine.existing(&name("v")).unwrap();
        Cold { engine, volume, dir, _root: root }
    }
}

// ----- the table file and transactions that are not over

/// A volume that is ahead of the store, in a data directory with a tiny cache.
fn ahead(dir: &Path, bucket: &Bucket) -> (Engine, Volume) {
    let mut options = options(dir, stores(bucket));
    options.cache_size = 1 << 20;
    let engine = Engine::open(options).unwrap();
    let volume = engine.volume(&name("v")).unwrap();
    write(&volume, &(1..=10_000).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    (engine, volume)
}

/// What was pushed is cache, and too much for it: a table file gets written.
fn push_until_table_file(volume: &Volume, dir: &Path) {
    let table = replica(dir).join("table.qtab");
    assert!(!table.exists());
    volume.push().unwrap();
    until("a table file", || table.exists());
}

#[test]
fn a_table_file_written_during_a_transaction_does_not_lose_its_spilled_pages() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let dir = root.path().join("live");
    let (_engine, volume) = ahead(&dir, &bucket);
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    for n in 1..=9000 {
        writer.write(page(n), &content(1_000_000 + u64::from(n))).unwrap();
    }
    push_until_table_file(&volume, &dir);
    writer.commit(false).unwrap();
    let copy = open(&killed(&dir, &root.path().join("killed")), &bucket);
    let volume = copy.existing(&name("v")).unwrap();
    for n in 1..=10_000 {
        assert_eq!(read(&volume, n), if n <= 9000 { 1_000_000 + u64::from(n) } else { n.into() }, "page {n}");
    }
    assert_eq!(volume.status().unpushed, 1);
}

#[test]
fn a_table_file_written_between_prepare_and_decision_does_not_lose_the_commit() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let dir = root.path().join("live");
    let (engine, volume) = ahead(&dir, &bucket);
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.write(page(1), &content(77)).unwrap();
    writer.prepare("the group", true).unwrap();
    push_until_table_file(&volume, &dir);
    engine.decide("the group").unwrap();
    let copy = open(&killed(&dir, &root.path().join("killed")), &bucket);
    let volume = copy.existing(&name("v")).unwrap();
    assert_eq!((read(&volume, 1), read(&volume, 2), volume.status().unpushed), (77, 2, 1));
}

#[test]
fn a_commit_prepared_before_a_push_and_decided_after_it_is_no_cache() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let (engine, volume) = ahead(&root.path().join("live"), &bucket);
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    for n in 1..=5000 {
        writer.write(page(n), &content(1_000_000 + u64::from(n))).unwrap();
    }
    writer.prepare("the group", true).unwrap();
    volume.push().unwrap();
    engine.decide("the group").unwrap();
    writer.commit(false).unwrap();
    // Later commits begin other files, and what was pushed of all volumes goes.
    write(&volume, &(6000..=9000).map(|n| (n, 7)).collect::<Vec<_>>());
    let other = engine.volume(&name("other")).unwrap();
    write(&other, &(1..=10_000).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    other.push().unwrap();
    until("what was pushed goes", || other.status().cached_pages < 5000);
    let expected = |n: u32| {
        if n <= 5000 {
            1_000_000 + u64::from(n)
        } else if (6000..=9000).contains(&n) {
            7
        } else {
            n.into()
        }
    };
    for n in 1..=10_000 {
        assert_eq!(read(&volume, n), expected(n), "page {n}");
    }
    volume.push().unwrap();
    let fresh = open(&root.path().join("fresh"), &bucket);
    let clone = fresh.existing(&name("v")).unwrap();
    for n in 1..=10_000 {
        assert_eq!(read(&clone, n), expected(n), "page {n}");
    }
}

#[test]
fn a_prepared_commit_is_not_truncated_any_more() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let dir = root.path().join("live");
    let engine = open(&dir, &bucket);
    let volume = engine.volume(&name("v")).unwrap();
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.set_page_size(page_size()).unwrap();
    for n in 1..=10 {
        writer.write(page(n), &content(n.into())).unwrap();
    }
    writer.prepare("the group", true).unwrap();
    writer.truncate(PageCount::new(3)).unwrap();
    engine.decide("the group").unwrap();
    writer.commit(false).unwrap();
    let dead = killed(&dir, &root.path().join("killed"));
    volume.push().unwrap();
    drop((volume, engine));
    for dir in [dir, dead] {
        let engine = open(&dir, &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        assert_eq!(volume.snapshot().page_count().get(), 10);
        (1..=10).for_each(|n| assert_eq!(read(&volume, n), u64::from(n)));
    }
}

// ----- work that comes between the steps of another

#[test]
fn a_fork_that_waits_for_a_push_keeps_nobody_from_writing() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let (reached, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let asked = Arc::new(AtomicBool::new(false));
    let hook = {
        let (reached, go_on, asked) = (reached.clone(), go_on.clone(), asked.clone());
        let waited = AtomicBool::new(false);
        Arc::new(move |step| {
            if step == Step::Before(Call::Append) && !waited.swap(true, Ordering::SeqCst) {
                reached.wait();
                go_on.wait();
            }
            // The fork asks whether its name is free.
            asked.fetch_or(waited.load(Ordering::SeqCst) && step == Step::After(Call::Head), Ordering::SeqCst);
            Ok(())
        })
    };
    let engine = Engine::open(options(root.path(), hooked(stores(&bucket), hook))).unwrap();
    let volume = engine.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1)]);
    std::thread::scope(|scope| {
        let push = scope.spawn(|| volume.push().map(drop));
        reached.wait();
        write(&volume, &[(1, 2)]);
        let (tell, thread) = std::sync::mpsc::channel();
        let fork = scope.spawn(move || {
            tell.send(this_thread()).unwrap();
            engine.fork(&name("v"), None, &name("fork")).map(|forked| forked.volume)
        });
        let thread = thread.recv().unwrap();
        until("the fork waits", || asked.load(Ordering::SeqCst) && sleeps(&thread));
        let refused = (0..1000).find_map(|_| volume.writer(&volume.snapshot(), "test").err());
        go_on.wait();
        assert!(refused.is_none(), "{refused:?}");
        push.join().unwrap().unwrap();
        assert_eq!(read(&fork.join().unwrap().unwrap(), 1), 2);
    });
}

#[test]
fn a_commit_made_during_a_reset_is_kept() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let other = open(&root.path().join("other"), &bucket);
    let theirs = other.volume(&name("v")).unwrap();
    write(&theirs, &[(1, 1), (2, 2)]);
    theirs.push().unwrap();

    let interruption = Interruption::default();
    let engine = Engine::open(options(&root.path().join("mine"), interrupted(&bucket, &interruption, 2))).unwrap();
    let mine = engine.existing(&name("v")).unwrap();
    write(&theirs, &[(1, 10)]);
    theirs.push().unwrap();
    let writes = mine.clone();
    *interruption.lock().unwrap() = Some(Box::new(move || write(&writes, &[(2, 20)])));
    let reset = mine.reset().unwrap();
    assert!(interruption.lock().unwrap().is_none(), "the commit came between");
    let kept = engine.existing(&reset.kept_as.expect("the commit is kept")).unwrap();
    assert_eq!((read(&kept, 1), read(&kept, 2)), (1, 20));
    assert_eq!((read(&mine, 1), read(&mine, 2)), (10, 2));
}

/// Runs `second` on a thread of its own while `mine` is being reset: it has begun, and sleeps for its turn.
fn during_a_reset<T: Send + 'static>(
    mine: &Volume,
    interruption: &Interruption,
    second: impl FnOnce(&Volume) -> T + Send + 'static,
) -> (quire_engine::Reset, T) {
    let (of_second, handle) = std::sync::mpsc::channel();
    let volume = mine.clone();
    *interruption.lock().unwrap() = Some(Box::new(move || {
        let (tell, thread) = std::sync::mpsc::channel();
        let begun = std::thread::spawn(move || {
            tell.send(this_thread()).unwrap();
            second(&volume)
        });
        let thread = thread.recv().unwrap();
        until("the second one waits", || sleeps(&thread));
        of_second.send(begun).unwrap();
    }));
    let reset = mine.reset().unwrap();
    (reset, handle.recv().unwrap().join().unwrap())
}

/// A replica whose work the store went past (`diverged`), or that is only ahead, behind stores that `interruption` holds up.
fn about_to_be_reset(dir: &Path, bucket: &Bucket, interruption: &Interruption, diverged: bool) -> (Engine, Volume) {
    let other = open(&dir.with_extension("other"), bucket);
    let theirs = other.volume(&name("v")).unwrap();
    write(&theirs, &[(1, 1), (2, 2)]);
    theirs.push().unwrap();
    let engine = Engine::open(options(dir, interrupted(bucket, interruption, 1))).unwrap();
    let mine = engine.existing(&name("v")).unwrap();
    write(&mine, &[(2, 20)]);
    if diverged {
        write(&theirs, &[(1, 10)]);
        theirs.push().unwrap();
    }
    (engine, mine)
}

#[test]
fn two_resets_at_once_are_one_reset() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let (dir, interruption) = (root.path().join("mine"), Interruption::default());
    let (engine, mine) = about_to_be_reset(&dir, &bucket, &interruption, true);
    let (first, second) = during_a_reset(&mine, &interruption, |volume| volume.reset().unwrap());
    assert_eq!((first.kept_as, second.kept_as), (Some(name("v.dropped-1")), None));
    assert_eq!(mine.name(), name("v"));
    write(&mine, &[(3, 30)]);
    drop((mine, engine));
    let engine = open(&dir, &bucket);
    assert_eq!(engine.local_volumes().unwrap(), [name("v"), name("v.dropped-1")]);
    let pages = |volume: &str| [1, 2, 3].map(|n| read(&engine.existing(&name(volume)).unwrap(), n));
    assert_eq!(pages("v"), [10, 2, 30], "what was committed after both of them is where it was committed");
    assert_eq!(pages("v.dropped-1"), [1, 20, 0]);
}

#[test]
fn a_push_that_waited_for_a_reset_does_not_push_what_was_put_aside() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let (dir, interruption) = (root.path().join("mine"), Interruption::default());
    let (engine, mine) = about_to_be_reset(&dir, &bucket, &interruption, false);
    let (reset, pushed) = during_a_reset(&mine, &interruption, |volume| volume.push().unwrap());
    assert_eq!(reset.kept_as, Some(name("v.dropped-1")));
    assert!(pushed.pushed.is_none(), "{pushed}");
    assert_eq!(mine.fetch().unwrap(), Some(Lsn::FIRST));
    let kept = engine.existing(&name("v.dropped-1")).unwrap();
    assert_eq!((read(&mine, 2), read(&kept, 2), kept.status().unpushed), (2, 20, 1));
}

#[test]
fn a_first_commit_made_during_a_pull_does_not_land_on_another_volume() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let interruption = Interruption::default();
    let engine = Engine::open(options(&root.path().join("mine"), interrupted(&bucket, &interruption, 1))).unwrap();
    let mine = engine.volume(&name("v")).unwrap();
    let other = open(&root.path().join("other"), &bucket);
    let theirs = other.volume(&name("v")).unwrap();
    write(&theirs, &[(1, 1), (2, 2)]);
    theirs.push().unwrap();
    let writes = mine.clone();
    *interruption.lock().unwrap() = Some(Box::new(move || write(&writes, &[(2, 20)])));
    assert_eq!(mine.pull().unwrap_err().kind(), ErrorKind::Conflict);
    assert!(interruption.lock().unwrap().is_none(), "the commit came between");
    assert_eq!(mine.push().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(mine.status().state, Condition::Diverged);
    assert_eq!(theirs.fetch().unwrap(), Some(Lsn::FIRST), "nothing was put on top of it");
}

#[test]
fn a_copy_whose_work_is_in_the_store_already_reads_the_pages_it_never_had() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let first = open(&root.path().join("first"), &bucket);
    let volume = first.volume(&name("v")).unwrap();
    write(&volume, &(1..=500).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    volume.push().unwrap();
    let dir = root.path().join("a");
    {
        let a = open(&dir, &bucket);
        write(&a.existing(&name("v")).unwrap(), &[(1, 11)]);
    }
    let copy = killed(&dir, &root.path().join("b"));
    let (a, b) = (open(&dir, &bucket), open(&copy, &bucket));
    a.existing(&name("v")).unwrap().push().unwrap();
    let theirs = b.existing(&name("v")).unwrap();
    theirs.push().unwrap();
    assert_eq!(theirs.status().state, Condition::Clean);
    assert_eq!((read(&theirs, 1), read(&theirs, 400)), (11, 400));
}

#[test]
fn a_name_that_was_lost_and_became_free_again_can_be_pushed() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let (a, b) = (open(&root.path().join("a"), &bucket), open(&root.path().join("b"), &bucket));
    let (mine, theirs) = (a.volume(&name("v")).unwrap(), b.volume(&name("v")).unwrap());
    write(&mine, &[(1, 1)]);
    write(&theirs, &[(1, 2)]);
    theirs.push().unwrap();
    assert_eq!(mine.push().unwrap_err().kind(), ErrorKind::Conflict);
    b.delete_in_store(&name("v")).unwrap();
    assert_eq!(mine.push().unwrap().pushed, Lsn::new(3).map(|lsn| (lsn, 1)));
    assert_eq!(mine.status().state, Condition::Clean);
}

// ----- the cache

#[test]
fn readers_of_a_tiny_cache_always_get_their_pages() {
    let bucket = memory();
    let cold = Cold::new(&bucket, 64 << 10);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..4u32 {
            let (volume, failed) = (&cold.volume, &failed);
            scope.spawn(move || {
                let mut n = reader * 5000;
                for _ in 0..150 {
                    n = (n * 31 + 7) % COLD_PAGES;
                    let mut data = [0; PAGE];
                    if let Err(e) = volume.snapshot().read(page(n + 1), &mut data) {
                        failed.store(true, Ordering::SeqCst);
                        panic!("{e:?}");
                    }
                    assert_eq!(stamp(&data), u64::from(n + 1));
                }
            });
        }
    });
    assert!(!failed.load(Ordering::SeqCst));
}

#[test]
fn evicted_cache_files_leave_the_disk() {
    let bucket = memory();
    let cold = Cold::new(&bucket, 1 << 20);
    for n in 1..=COLD_PAGES {
        assert_eq!(read(&cold.volume, n), u64::from(n));
    }
    let cache = replica(&cold.dir).join("cache");
    // Files go with the fetches that follow, once no reader has them any more.
    let mut pages = (1..=COLD_PAGES).step_by(257).cycle();
    until("a small cache", || {
        read(&cold.volume, pages.next().unwrap());
        bytes_in(&cache) < 3 << 20
    });
}

#[test]
fn pushed_pages_are_cache_and_count_as_such() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let mut options = options(root.path(), stores(&bucket));
    options.cache_size = 1 << 20;
    let engine = Engine::open(options).unwrap();
    let volume = engine.volume(&name("v")).unwrap();
    for first in [0, 5000, 10_000, 15_000] {
        write(&volume, &(1..=5000).map(|n| (first + n, u64::from(n))).collect::<Vec<_>>());
    }
    volume.push().unwrap();
    // The newest file stays: it is still written to.
    until("a small log", || bytes_in(&replica(root.path()).join("log")) < 5 << 20);
    for n in [1, 5001, 20_000] {
        assert_eq!(read(&volume, n), u64::from((n - 1) % 5000 + 1));
    }
}

#[test]
fn a_damaged_page_of_the_cache_is_fetched_again() {
    let bucket = memory();
    let cold = Cold::new(&bucket, 1 << 30);
    for n in 1..=2000 {
        read(&cold.volume, n);
    }
    let Cold { engine, volume, dir, _root } = cold;
    drop((engine, volume));
    for file in files(&replica(&dir).join("cache")) {
        let mut bytes = std::fs::read(&file).unwrap();
        for at in (100..bytes.len()).step_by(1000) {
            bytes[at] ^= 0xFF;
        }
        bytes.truncate(bytes.len() - 5000);
        std::fs::write(&file, &bytes).unwrap();
    }
    let engine = open(&dir, &bucket);
    let volume = engine.existing(&name("v")).unwrap();
    volume.verify(&mut |_, _| {}).unwrap();
    for n in 1..=2000 {
        assert_eq!(read(&volume, n), u64::from(n));
    }
}

#[test]
fn verifying_names_every_damaged_page() {
    let store = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&format!("file://{}", store.path().display())).unwrap();
    let cold = Cold::new(&bucket, 1 << 30);
    let mut segment = store.path().join("v/v/!/seg");
    while segment.is_dir() {
        segment = files(&segment).pop().unwrap();
    }
    let mut bytes = std::fs::read(&segment).unwrap();
    let len = bytes.len();
    for at in [len / 4, len / 2] {
        bytes[at] ^= 1;
    }
    std::fs::write(&segment, bytes).unwrap();
    let error = cold.volume.verify(&mut |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let text = error.to_string();
    let places = text.split('(').nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    let ranges = places.split(", ").map(|range| range.split_once('-').unwrap());
    let ranges: Vec<(u32, u32)> = ranges.map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect();
    // Two frames, and not their neighbours that came along.
    assert!(ranges.len() == 2 && ranges.iter().all(|(first, last)| last - first < 256), "{text}");
    for n in 1..=COLD_PAGES {
        let is_damaged = ranges.iter().any(|(first, last)| (*first..=*last).contains(&n));
        assert_eq!(cold.volume.snapshot().read(page(n), &mut [0; PAGE]).is_err(), is_damaged, "page {n}: {text}");
    }
}

#[test]
fn hundreds_of_readers_of_one_cold_page_do_not_starve_the_one_who_fetches_it() {
    let store = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&format!("file://{}", store.path().display())).unwrap();
    let cold = Cold::new(&bucket, 1 << 30);
    let ready = std::sync::Barrier::new(700);
    std::thread::scope(|scope| {
        for _ in 0..700 {
            scope.spawn(|| {
                ready.wait();
                for n in [1, 5000, 10_000, 15_000] {
                    assert_eq!(read(&cold.volume, n), u64::from(n));
                }
            });
        }
    });
}

#[test]
fn pages_past_the_base_are_zeros_without_asking_the_store() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let engine = open(root.path(), &bucket);
    let volume = engine.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1)]);
    volume.push().unwrap();
    write(&volume, &[(1000, 5)]);
    let before = engine.stats().requests;
    assert_eq!((read(&volume, 500), read(&volume, 1000)), (0, 5));
    assert_eq!(volume.hydrate(&mut |_, _| {}).unwrap(), 0);
    assert_eq!(engine.stats().requests, before);
    assert_eq!(volume.status().cached_pages, 1000);
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.truncate(PageCount::new(10)).unwrap();
    writer.commit(false).unwrap();
    assert_eq!(volume.status().cached_pages, 10, "pages that are gone are not cached");
}

// ----- opening, closing, opening again

#[test]
fn many_short_sessions_leave_few_files() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    for session in 1..=300 {
        let engine = open(root.path(), &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        write(&volume, &[(1, session), (session as u32, session)]);
    }
    let engine = open(root.path(), &bucket);
    let volume = engine.volume(&name("v")).unwrap();
    assert_eq!((read(&volume, 1), read(&volume, 150)), (300, 150));
    let count = files(&replica(root.path()).join("log")).len();
    assert!(count < 200, "{count} log files");
}

#[test]
fn many_sessions_that_only_read_leave_few_files() {
    let bucket = memory();
    let cold = Cold::new(&bucket, 1 << 20);
    let Cold { engine, volume, dir, _root } = cold;
    drop((engine, volume));
    for session in 1..=150 {
        let engine = loop {
            let mut options = options(&dir, stores(&bucket));
            options.cache_size = 64 << 20;
            match Engine::open(options) {
                Ok(engine) => break engine,
                Err(e) => assert_eq!(e.kind(), ErrorKind::Busy),
            }
        };
        read(&engine.existing(&name("v")).unwrap(), session * 128);
    }
    let count = files(&replica(&dir).join("cache")).len();
    assert!(count < 120, "{count} cache files");
}

#[test]
fn a_writer_that_outlives_its_volume_shares_the_replica_with_the_next_one() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let engine = open(root.path(), &bucket);
    let volume = engine.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1), (2, 2)]);
    let mut writer = volume.writer(&volume.snapshot(), "the first").unwrap();
    writer.write(page(1), &content(11)).unwrap();
    drop(volume);
    let again = engine.volume(&name("v")).unwrap();
    let busy = again.writer(&again.snapshot(), "the second").map(|_| ()).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    writer.commit(false).unwrap();
    write(&again, &[(2, 22)]);
    assert_eq!((read(&again, 1), read(&again, 2)), (11, 22));
    drop((again, engine));
    let engine = open(root.path(), &bucket);
    let volume = engine.volume(&name("v")).unwrap();
    assert_eq!((read(&volume, 1), read(&volume, 2)), (11, 22));
}

#[test]
fn versions_of_a_volume_and_of_what_a_reset_kept_are_counted_apart() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let (a, b) = (open(&root.path().join("a"), &bucket), open(&root.path().join("b"), &bucket));
    let (mine, theirs) = (a.volume(&name("v")).unwrap(), b.volume(&name("v")).unwrap());
    write(&theirs, &[(1, 2)]);
    theirs.push().unwrap();
    write(&mine, &[(1, 1)]);
    let kept = mine.reset().unwrap().kept_as.unwrap();
    let kept = a.existing(&kept).unwrap();
    let before = mine.snapshot().version();
    write(&kept, &[(1, 3)]);
    write(&kept, &[(1, 4)]);
    write(&mine, &[(1, 5)]);
    assert_eq!(mine.snapshot().version(), before + 1);
}

#[test]
fn a_diverged_volume_with_the_longest_name_can_be_reset() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let (a, b) = (open(&root.path().join("a"), &bucket), open(&root.path().join("b"), &bucket));
    let long = name(&"x".repeat(200));
    let (mine, theirs) = (a.volume(&long).unwrap(), b.volume(&long).unwrap());
    write(&theirs, &[(1, 2)]);
    theirs.push().unwrap();
    write(&mine, &[(1, 1)]);
    mine.push().unwrap_err();
    let kept = mine.reset().unwrap().kept_as.unwrap();
    assert_eq!((read(&mine, 1), read(&a.existing(&kept).unwrap(), 1)), (2, 1));
}

// ----- loss of power

/// Cuts the last record off a log file: what it held had not reached the disk.
fn lose_tail(log: &Path) {
    let bytes = std::fs::read(log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(log, &bytes[..end - 100]).unwrap();
}

#[test]
fn a_tail_that_was_never_synced_may_vanish_with_the_power() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let live = open(&root.path().join("live"), &bucket);
    let volume = live.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1)]);
    write(&volume, &[(1, 2)]);
    let dir = killed(&root.path().join("live"), &root.path().join("second"));
    let second = open(&dir, &bucket);
    let volume = second.volume(&name("v")).unwrap();
    write(&volume, &[(1, 3)]);
    let dir = killed(&dir, &root.path().join("third"));
    // Nobody asked for any of it to be durable, and the first file comes back short.
    lose_tail(&files(&replica(&dir).join("log"))[0]);
    let third = open(&dir, &bucket);
    let volume = third.volume(&name("v")).unwrap();
    assert_eq!(read(&volume, 1), 1);
    write(&volume, &[(1, 4)]);
    drop((volume, third));
    assert_eq!(read(&open(&dir, &bucket).volume(&name("v")).unwrap(), 1), 4);
}

#[test]
fn a_synced_commit_proves_that_all_before_it_was_durable() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let live = open(&root.path().join("live"), &bucket);
    let volume = live.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1)]);
    write(&volume, &[(1, 2)]);
    let dir = killed(&root.path().join("live"), &root.path().join("second"));
    let second = open(&dir, &bucket);
    let volume = second.volume(&name("v")).unwrap();
    for stamp in [3, 4] {
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.write(page(1), &content(stamp)).unwrap();
        writer.commit(true).unwrap();
    }
    let dir = killed(&dir, &root.path().join("third"));
    let oldest = files(&replica(&dir).join("log"))[0].clone();
    lose_tail(&oldest);
    let error = open(&dir, &bucket).volume(&name("v")).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(oldest.to_str().unwrap()), "{error}");
    assert!(error.remedy().is_some());
    assert!(oldest.exists(), "an error destroys nothing");
}

#[test]
fn a_log_file_that_the_power_took_ends_the_log_before_it() {
    const PAGES: u32 = 200;
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let small_files = |dir: &Path| open_when_free(|| Options { cache_size: 1 << 20, ..options(dir, stores(&bucket)) });
    let live = small_files(&root.path().join("live"));
    let volume = live.volume(&name("v")).unwrap();
    for commit in 0..3 {
        write(&volume, &(1..=PAGES).map(|n| (commit * PAGES + n, u64::from(commit))).collect::<Vec<_>>());
    }
    // Nobody asked for any of it to be durable.
    type Loss = (&'static str, fn(&Path));
    let losses: [Loss; 5] = [
        ("it has no name", |log| std::fs::remove_file(log).unwrap()),
        ("it is empty", |log| std::fs::write(log, "").unwrap()),
        ("it has only zeros", |log| std::fs::write(log, vec![0; 1 << 16]).unwrap()),
        ("its first sector was never written", |log| blank(log, 0..512)),
        ("its first record was never written", |log| blank(log, 32..512)),
    ];
    for (what, lose) in losses {
        for nth in 0..3 {
            let dir = killed(&root.path().join("live"), &root.path().join(format!("{what} {nth}")));
            let logs = files(&replica(&dir).join("log"));
            assert_eq!(logs.len(), 3, "one file for each commit");
            lose(&logs[nth]);
            for stamp in [100, 101] {
                let engine = small_files(&dir);
                let volume = engine.volume(&name("v")).unwrap();
                let kept = nth as u32 * PAGES + u32::from(stamp == 101);
                assert_eq!(volume.snapshot().page_count().get(), kept, "{what}, file {nth}");
                (0..nth as u32).for_each(|n| assert_eq!(read(&volume, (n + 1) * PAGES), u64::from(n)));
                // The last one stays.
                write(&volume, &[(kept + 1, stamp)]);
                assert_eq!(read(&volume, kept + 1), stamp);
            }
        }
    }
}

/// Makes a part of a file zeros.
fn blank(file: &Path, part: std::ops::Range<usize>) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[part].fill(0);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_commit_that_begins_a_file_says_nothing_of_the_one_before() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let small_files = |dir: &Path| open_when_free(|| Options { cache_size: 1 << 20, ..options(dir, stores(&bucket)) });
    let live = small_files(&root.path().join("live"));
    let volume = live.volume(&name("v")).unwrap();
    for pages in [100, 200] {
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        writer.set_page_size(page_size()).unwrap();
        for n in 1..=pages {
            writer.write(page(n), &content(u64::from(pages))).unwrap();
        }
        writer.commit(true).unwrap();
    }
    // The power went while the second was made durable: its end had reached the disk, and a part before it not.
    let dir = killed(&root.path().join("live"), &root.path().join("killed"));
    let logs = files(&replica(&dir).join("log"));
    assert_eq!(logs.len(), 2, "one file for each commit");
    blank(&logs[1], 4096..8192);
    let engine = small_files(&dir);
    let volume = engine.volume(&name("v")).unwrap();
    assert_eq!((volume.snapshot().page_count().get(), read(&volume, 100)), (100, 100));
}

// ----- transactions over several volumes

#[test]
fn a_volume_that_cannot_be_opened_does_not_close_the_whole_data_directory() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let dir = root.path().join("live");
    let engine = open(&dir, &bucket);
    let volumes = ["a", "b", "c"].map(|n| engine.volume(&name(n)).unwrap());
    volumes.iter().for_each(|v| write(v, &[(1, 1)]));
    let mut writers: Vec<_> = volumes[..2].iter().map(|v| v.writer(&v.snapshot(), "test").unwrap()).collect();
    for writer in &mut writers {
        writer.write(page(1), &content(2)).unwrap();
        writer.prepare("the group", true).unwrap();
    }
    engine.decide("the group").unwrap();
    let dir = killed(&dir, &root.path().join("killed"));
    drop(writers);
    let mut broken = None;
    for replica in files(&dir.join("replicas")) {
        let log = files(&replica.join("log")).pop().unwrap();
        let mut bytes = std::fs::read(&log).unwrap();
        bytes[8] ^= 1; // in the file's header
        if broken.is_none() && bytes.windows(3).any(|w| w == [1, b'a', 0]) {
            std::fs::write(&log, &bytes).unwrap();
            broken = Some(log);
        }
    }
    let log = broken.expect("volume a has a log");
    let engine = open(&dir, &bucket);
    assert_eq!(read(&engine.volume(&name("b")).unwrap(), 1), 2);
    assert_eq!(read(&engine.volume(&name("c")).unwrap(), 1), 1);
    assert_eq!(engine.volume(&name("a")).map(|_| ()).unwrap_err().kind(), ErrorKind::Corrupt);
    drop(engine);
    // Once it is mended, the decision still stands.
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[8] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    assert_eq!(read(&open(&dir, &bucket).volume(&name("a")).unwrap(), 1), 2);
}

#[test]
fn a_decided_commit_that_nobody_publishes_counts_all_the_same() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let engine = open(root.path(), &bucket);
    let volumes = ["a", "b"].map(|n| engine.volume(&name(n)).unwrap());
    volumes.iter().for_each(|v| write(v, &[(1, 1)]));
    let mut writers: Vec<_> = volumes.iter().map(|v| v.writer(&v.snapshot(), "test").unwrap()).collect();
    for writer in &mut writers {
        writer.write(page(1), &content(2)).unwrap();
        writer.prepare("the group", false).unwrap();
    }
    engine.decide("the group").unwrap();
    drop(writers);
    assert_eq!((read(&volumes[0], 1), read(&volumes[1], 1)), (2, 2));
    // One that was not decided does not, and its name can be used again.
    let mut writer = volumes[0].writer(&volumes[0].snapshot(), "test").unwrap();
    writer.write(page(1), &content(3)).unwrap();
    writer.prepare("another", false).unwrap();
    drop(writer);
    engine.decide("another").unwrap();
    let mut writer = volumes[0].writer(&volumes[0].snapshot(), "test").unwrap();
    writer.write(page(1), &content(4)).unwrap();
    writer.prepare("another", false).unwrap();
    assert_eq!(writer.commit(false).map(|_| ()).unwrap_err().kind(), ErrorKind::Conflict, "nobody decided it");
    drop((volumes, engine));
    let engine = open(root.path(), &bucket);
    assert_eq!(read(&engine.volume(&name("a")).unwrap(), 1), 2);
}

#[test]
fn a_damaged_decision_is_an_error_that_names_it() {
    let (bucket, root) = (memory(), tempfile::tempdir().unwrap());
    let dir = root.path().join("live");
    let engine = open(&dir, &bucket);
    let volume = engine.volume(&name("a")).unwrap();
    write(&volume, &[(1, 1)]);
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.write(page(1), &content(2)).unwrap();
    writer.prepare("the group", true).unwrap();
    engine.decide("the group").unwrap();
    let dir = killed(&dir, &root.path().join("killed"));
    let decision = files(&dir.join("groups")).pop().unwrap();
    let bytes = std::fs::read(&decision).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        std::fs::write(&decision, &bad).unwrap();
        let error = Engine::open(options(&dir, stores(&bucket))).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
        assert!(error.to_string().contains(decision.to_str().unwrap()) && error.remedy().is_some(), "{error:?}");
    }
    std::fs::write(&decision, &bytes).unwrap();
    assert_eq!(read(&open(&dir, &bucket).volume(&name("a")).unwrap(), 1), 2);
}
