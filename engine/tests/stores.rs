//! Two data directories and one store, of each kind: memory, a folder, a real S3 server.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::MetadataExt;

use common::*;
use quire_bucket::Bucket;
use quire_engine::{Condition, ErrorKind, Lsn, Volume};
use quire_testkit::S3Server;

/// Declares each scenario once for every kind of store.
macro_rules! over_every_store {
    ($($name:ident)*) => {
        mod memory {
            $(#[test]
            fn $name() {
                super::$name(&super::memory());
            })*
        }
        mod folder {
            $(#[test]
            fn $name() {
                let folder = super::scratch();
                super::$name(&super::Bucket::open(&format!("file://{}/store", folder.path().display())).unwrap());
            })*
        }
        mod s3 {
            $(#[test]
            fn $name() {
                let server = super::S3Server::shared();
                let variables = Some(server.variables());
                let options = quire_bucket::Options { variables, ..Default::default() };
                super::$name(&super::Bucket::open_with(&server.url(stringify!($name)), options).unwrap());
            })*
        }
    };
}

over_every_store! {
    what_one_pushes_another_clones_and_pulls
    both_sides_of_a_divergence_stay_and_reset_keeps_the_loser
    a_truncated_and_regrown_volume_reads_zeros_everywhere
    a_name_that_the_store_has_already_is_a_divergence_not_a_loss
    a_copied_data_directory_does_not_diverge_over_the_same_commits
    a_copy_made_before_the_first_push_does_not_diverge_over_the_same_commits
    a_renamed_volume_goes_on_under_its_new_name
    a_small_cache_gives_pages_back_and_fetches_them_again
    who_only_reads_leaves_the_table_file_and_what_was_fetched_is_known_afterwards
    sync_commit_puts_each_transaction_into_the_store_or_fails_it
    a_transaction_that_comes_after_a_twin_s_push_leaves_nothing_that_diverges
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn what_one_pushes_another_clones_and_pulls(bucket: &Bucket) {
    let (a_dir, b_dir) = (scratch(), scratch());
    let (a, b) = (open(a_dir.path(), bucket), open(b_dir.path(), bucket));
    let mine = a.volume(&name("v")).unwrap();
    let pages: Vec<(u32, u64)> = (1..=3000).map(|n| (n, u64::from(n) * 7)).collect();
    write(&mine, &pages);
    let moved = mine.push().unwrap();
    assert_eq!(moved.pushed, Some((lsn(1), 1)));
    assert_eq!(mine.status().state, Condition::Clean);

    let theirs = b.existing(&name("v")).unwrap();
    assert_eq!(theirs.snapshot().page_count().get(), 3000);
    assert_eq!(theirs.status().cached_pages, 0, "a clone downloads nothing");
    assert_eq!(read(&theirs, 1234), 1234 * 7);
    assert!(theirs.status().cached_pages < 400, "one read brings one frame");

    write(&mine, &[(5, 1), (3001, 2)]);
    write(&mine, &[(6, 3)]);
    assert_eq!(mine.push().unwrap().pushed, Some((lsn(2), 2)));
    let old = theirs.snapshot();
    assert_eq!(theirs.pull().unwrap().pulled, Some((Some(lsn(1)), lsn(2))));
    assert_eq!((read(&theirs, 5), read(&theirs, 6), read(&theirs, 3001), read(&theirs, 7)), (1, 3, 2, 49));
    let mut data = [0; PAGE];
    old.read(page(5), &mut data).unwrap();
    assert_eq!(stamp(&data), 35, "a snapshot does not change under its reader");

    assert!(theirs.hydrate(&mut |_, _| {}).unwrap() > 0);
    assert_eq!(theirs.status().cached_pages, 3001);
    for n in 7..=3000 {
        assert_eq!(read(&theirs, n), u64::from(n) * 7);
    }
}

fn both_sides_of_a_divergence_stay_and_reset_keeps_the_loser(bucket: &Bucket) {
    let (a_dir, b_dir) = (scratch(), scratch());
    let (a, b) = (open(a_dir.path(), bucket), open(b_dir.path(), bucket));
    let mine = a.volume(&name("v")).unwrap();
    write(&mine, &[(1, 1), (2, 2)]);
    mine.push().unwrap();
    let theirs = b.existing(&name("v")).unwrap();
    write(&mine, &[(1, 10)]);
    write(&theirs, &[(2, 20)]);
    mine.push().unwrap();
    let lost = theirs.push().unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    assert!(lost.remedy().unwrap().contains("reset"), "{lost:?}");
    assert_eq!(theirs.status().state, Condition::Diverged);
    assert_eq!((read(&theirs, 1), read(&theirs, 2)), (1, 20), "its own work is intact");
    assert_eq!(theirs.pull().unwrap_err().kind(), ErrorKind::Conflict);

    let held = theirs.snapshot();
    let reset = theirs.reset().unwrap();
    assert_eq!(reset.kept_as, Some(name("v.dropped-1")));
    assert_eq!((read(&theirs, 1), read(&theirs, 2)), (10, 2));
    let mut data = [0; PAGE];
    held.read(page(2), &mut data).unwrap();
    assert_eq!(stamp(&data), 20);
    drop((held, theirs, b));
    let b = open(b_dir.path(), bucket);
    let kept = b.existing(&name("v.dropped-1")).unwrap();
    assert_eq!((read(&kept, 1), read(&kept, 2)), (1, 20));
    let theirs = b.existing(&name("v")).unwrap();
    write(&theirs, &[(2, 21)]);
    assert_eq!(theirs.push().unwrap().pushed, Some((lsn(3), 1)));
}

fn a_truncated_and_regrown_volume_reads_zeros_everywhere(bucket: &Bucket) {
    let (a_dir, b_dir) = (scratch(), scratch());
    let (a, b) = (open(a_dir.path(), bucket), open(b_dir.path(), bucket));
    let mine = a.volume(&name("v")).unwrap();
    write(&mine, &(1..=40).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    mine.push().unwrap();
    let theirs = b.existing(&name("v")).unwrap();
    theirs.hydrate(&mut |_, _| {}).unwrap();
    let mut writer = mine.writer(&mine.snapshot(), "test").unwrap();
    writer.truncate(quire_engine::PageCount::new(10)).unwrap();
    writer.commit(false).unwrap();
    write(&mine, &[(30, 300)]);
    mine.push().unwrap();
    theirs.pull().unwrap();
    let fresh = scratch();
    let c = open(fresh.path(), bucket);
    for volume in [&mine, &theirs, &c.existing(&name("v")).unwrap()] {
        assert_eq!(volume.snapshot().page_count().get(), 30);
        for n in 1..=30 {
            let want = if n <= 10 {
                u64::from(n)
            } else if n == 30 {
                300
            } else {
                0
            };
            assert_eq!(read(volume, n), want, "page {n}");
        }
    }
}

fn a_name_that_the_store_has_already_is_a_divergence_not_a_loss(bucket: &Bucket) {
    let (a_dir, b_dir) = (scratch(), scratch());
    let (a, b) = (open(a_dir.path(), bucket), open(b_dir.path(), bucket));
    let theirs = b.volume(&name("v")).unwrap();
    write(&theirs, &[(1, 2)]);
    let mine = a.volume(&name("v")).unwrap();
    write(&mine, &[(1, 1)]);
    mine.push().unwrap();
    assert_eq!(theirs.push().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(read(&theirs, 1), 2);
    assert_eq!(theirs.reset().unwrap().kept_as, Some(name("v.dropped-1")));
    assert_eq!(read(&theirs, 1), 1);
}

fn a_copied_data_directory_does_not_diverge_over_the_same_commits(bucket: &Bucket) {
    let a_dir = scratch();
    {
        let a = open(a_dir.path(), bucket);
        let mine = a.volume(&name("v")).unwrap();
        write(&mine, &[(1, 1)]);
        mine.push().unwrap();
        write(&mine, &[(1, 2)]);
    }
    let copies = scratch();
    copy_dir(a_dir.path(), &copies.path().join("b"));
    let (a, b) = (open(a_dir.path(), bucket), open(&copies.path().join("b"), bucket));
    let (mine, copy) = (a.volume(&name("v")).unwrap(), b.volume(&name("v")).unwrap());
    write(&copy, &[(9, 9)]);
    mine.push().unwrap();
    // The copy has one commit more than what was pushed: a real divergence.
    assert_eq!(copy.push().unwrap_err().kind(), ErrorKind::Conflict);
    let third = copies.path().join("c");
    drop((mine, a));
    copy_dir(a_dir.path(), &third);
    let (a, c) = (open(a_dir.path(), bucket), open(&third, bucket));
    let (mine, copy) = (a.volume(&name("v")).unwrap(), c.volume(&name("v")).unwrap());
    write(&mine, &[(2, 5)]);
    drop((mine, a));
    let fourth = copies.path().join("d");
    copy_dir(a_dir.path(), &fourth);
    let (a, d) = (open(a_dir.path(), bucket), open(&fourth, bucket));
    let (mine, same) = (a.volume(&name("v")).unwrap(), d.volume(&name("v")).unwrap());
    mine.push().unwrap();
    same.push().unwrap();
    assert_eq!(same.status().state, Condition::Clean, "its work is in the store already");
    assert_eq!(same.status().base_lsn, Some(lsn(3)));
    assert_eq!(read(&copy, 2), 0);
    copy.pull().unwrap();
    assert_eq!(read(&copy, 2), 5);
}

fn a_copy_made_before_the_first_push_does_not_diverge_over_the_same_commits(bucket: &Bucket) {
    let (a_dir, copies) = (scratch(), scratch());
    write(&open(a_dir.path(), bucket).volume(&name("v")).unwrap(), &[(1, 1)]);
    for copy in ["b", "c", "d"] {
        copy_dir(a_dir.path(), &copies.path().join(copy));
    }
    let engines = [open(a_dir.path(), bucket), open(&copies.path().join("b"), bucket)];
    let [mine, copy] = engines.map(|engine| engine.volume(&name("v")).unwrap());
    mine.push().unwrap();
    copy.push().unwrap();
    assert_eq!((copy.status().state, copy.status().base_lsn), (Condition::Clean, Some(lsn(1))));
    // Nor once the volume has gone on in the store.
    write(&mine, &[(1, 2)]);
    mine.push().unwrap();
    let late = open(&copies.path().join("c"), bucket).volume(&name("v")).unwrap();
    late.push().unwrap();
    late.pull().unwrap();
    let later = open(&copies.path().join("d"), bucket).volume(&name("v")).unwrap();
    later.pull().unwrap();
    for copy in [late, later] {
        assert_eq!((copy.status().state, copy.status().base_lsn), (Condition::Clean, Some(lsn(2))));
        assert_eq!(read(&copy, 1), 2);
    }
}

fn a_renamed_volume_goes_on_under_its_new_name(bucket: &Bucket) {
    let (a_dir, b_dir) = (scratch(), scratch());
    let (a, b) = (open(a_dir.path(), bucket), open(b_dir.path(), bucket));
    let mine = a.volume(&name("old")).unwrap();
    write(&mine, &[(1, 1), (2, 2)]);
    mine.push().unwrap();
    let theirs = b.existing(&name("old")).unwrap();
    a.rename(&name("old"), &name("new")).unwrap();
    assert_eq!(a.local_volumes().unwrap(), [name("new")]);
    assert_eq!((read(&mine, 1), mine.name()), (1, name("new")));
    write(&mine, &[(1, 10)]);
    assert_eq!(mine.push().unwrap().pushed, Some((lsn(2), 1)));
    let gone = theirs.pull().unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Gone);
    assert!(gone.to_string().contains("renamed to new"), "{gone}");
    let fresh = scratch();
    let c = open(fresh.path(), bucket);
    let there = c.existing(&name("new")).unwrap();
    assert_eq!((read(&there, 1), read(&there, 2)), (10, 2), "pages come through the fork's base");
    assert_eq!(c.existing(&name("old")).map(|_| ()).unwrap_err().kind(), ErrorKind::NotFound);
}

fn a_small_cache_gives_pages_back_and_fetches_them_again(bucket: &Bucket) {
    let (a_dir, b_dir) = (scratch(), scratch());
    let a = open(a_dir.path(), bucket);
    let mine = a.volume(&name("v")).unwrap();
    write(&mine, &(1..=6000).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    mine.push().unwrap();
    let mut small = options(b_dir.path(), stores(bucket));
    small.cache_size = 1 << 20;
    let b = quire_engine::Engine::open(small).unwrap();
    let theirs = b.existing(&name("v")).unwrap();
    for round in 0..3 {
        for n in (1..=6000).rev() {
            assert_eq!(read(&theirs, n), u64::from(n), "round {round}");
        }
    }
    assert!(b.stats().pages_fetched > 6000, "pages were fetched again: {:?}", b.stats());
}

fn who_only_reads_leaves_the_table_file_and_what_was_fetched_is_known_afterwards(bucket: &Bucket) {
    let (a_dir, b_dir) = (scratch(), scratch());
    let a = open(a_dir.path(), bucket);
    let mine = a.volume(&name("v")).unwrap();
    write(&mine, &(1..=6000).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    mine.push().unwrap();
    // How many pages are here when it is opened, and which file the table is once it is closed.
    let session = |work: &dyn Fn(&Volume)| {
        let b = open(b_dir.path(), bucket);
        let theirs = b.existing(&name("v")).unwrap();
        let here = theirs.status().cached_pages;
        work(&theirs);
        drop((theirs, b));
        (here, replica(b_dir.path()).join("table.qtab").metadata().unwrap().ino())
    };
    let look = |volume: &Volume| assert_eq!(read(volume, 6000), 6000);
    let (none, fetched) = session(&look);
    let (some, looked) = session(&look);
    assert!(none == 0 && some > 0 && some < 6000, "{none}, then {some}");
    assert_eq!(fetched, looked, "nothing was to be kept");
    let (_, hydrated) = session(&|volume| assert!(volume.hydrate(&mut |_, _| {}).unwrap() > 0));
    let (all, written) = session(&|volume| write(volume, &[(1, 10)]));
    let (still_all, _) = session(&|volume| assert_eq!((read(volume, 1), read(volume, 2)), (10, 2)));
    assert_eq!((all, still_all), (6000, 6000));
    assert!(hydrated != looked && written != hydrated, "what changed is kept");
}

fn sync_commit_puts_each_transaction_into_the_store_or_fails_it(bucket: &Bucket) {
    let (a_dir, b_dir) = (scratch(), scratch());
    let mut at_once = options(a_dir.path(), stores(bucket));
    at_once.sync = quire_engine::SyncMode::Commit;
    let a = quire_engine::Engine::open(at_once).unwrap();
    let mine = a.volume(&name("v")).unwrap();
    write(&mine, &[(1, 1)]);
    write(&mine, &[(2, 2)]);
    assert_eq!(mine.status().base_lsn, Some(lsn(2)));
    let b = open(b_dir.path(), bucket);
    let theirs = b.existing(&name("v")).unwrap();
    assert_eq!((read(&theirs, 1), read(&theirs, 2)), (1, 2));
    write(&theirs, &[(1, 11)]);
    theirs.push().unwrap();
    let mut writer = mine.writer(&mine.snapshot(), "test").unwrap();
    writer.write(page(2), &content(22)).unwrap();
    assert_eq!(writer.commit(true).map(|_| ()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(read(&mine, 2), 2, "the transaction left no trace");
    mine.pull().unwrap();
    write(&mine, &[(2, 23)]);
    theirs.pull().unwrap();
    assert_eq!((read(&theirs, 1), read(&theirs, 2)), (11, 23));
}

fn a_transaction_that_comes_after_a_twin_s_push_leaves_nothing_that_diverges(bucket: &Bucket) {
    for before in 0..2 {
        let volume = name(&format!("v{before}"));
        let (a_dir, copies) = (scratch(), scratch());
        let a = open(a_dir.path(), bucket);
        let mine = a.volume(&volume).unwrap();
        for n in 0..before {
            write(&mine, &[(1, n)]);
            mine.push().unwrap();
        }
        write(&mine, &[(1, 5)]);
        let copy = copies.path().join("b");
        copy_dir(a_dir.path(), &copy);
        mine.push().unwrap();
        let mut at_once = options(&copy, stores(bucket));
        at_once.sync = quire_engine::SyncMode::Commit;
        let twin = quire_engine::Engine::open(at_once).unwrap().volume(&volume).unwrap();
        let mut writer = twin.writer(&twin.snapshot(), "test").unwrap();
        writer.write(page(2), &content(6)).unwrap();
        assert_eq!(writer.commit(true).map(|_| ()).unwrap_err().kind(), ErrorKind::Conflict);
        assert_ne!(twin.status().state, Condition::Diverged, "what is left is what the other one has pushed");
        twin.push().unwrap();
        assert_eq!((twin.status().state, twin.status().base_lsn), (Condition::Clean, Some(lsn(before + 1))));
        assert_eq!((read(&twin, 1), read(&twin, 2)), (5, 0));
    }
}
