//! A replica without a store: commits, rollbacks, reopening.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use quire_engine::{Engine, Error, ErrorKind, Options, PageCount, PageIdx, PageSize, SyncMode, Volume, VolumeName};

fn open(dir: &Path) -> Engine {
    Engine::open(Options {
        data_dir: dir.to_owned(),
        store_url: "none".into(),
        connect: Box::new(|| Box::pin(async { Err(Error::unavailable("no store in this test")) })),
        sync: SyncMode::Manual,
        cache_size: 1 << 30,
        lease_after: quire_engine::LEASE_AFTER,
        author: "tests".into(),
    })
    .unwrap()
}

fn name(text: &str) -> VolumeName {
    VolumeName::parse(text).unwrap()
}

fn page(n: u32) -> PageIdx {
    PageIdx::new(n).unwrap()
}

fn write(volume: &Volume, pages: &[(u32, u8)]) {
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.set_page_size(PageSize::DEFAULT).unwrap();
    for (n, byte) in pages {
        writer.write(page(*n), &[*byte; 4096]).unwrap();
    }
    writer.commit(false).unwrap();
}

fn byte(volume: &Volume, n: u32) -> u8 {
    let mut buf = [0xEE; 4096];
    volume.snapshot().read(page(n), &mut buf).unwrap();
    assert!(buf.iter().all(|b| *b == buf[0]), "a page is whole");
    buf[0]
}

#[test]
fn commits_survive_reopening_and_rollbacks_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    {
        let engine = open(dir.path());
        let volume = engine.volume(&name("a")).unwrap();
        assert_eq!(volume.snapshot().page_size(), None);
        write(&volume, &[(1, 1), (2, 2), (9, 9)]);
        write(&volume, &[(2, 22)]);
        let mut rolled_back = volume.writer(&volume.snapshot(), "test").unwrap();
        rolled_back.write(page(1), &[7; 4096]).unwrap();
        drop(rolled_back);
        assert_eq!((byte(&volume, 1), byte(&volume, 2), byte(&volume, 5), byte(&volume, 9)), (1, 22, 0, 9));
    }
    let engine = open(dir.path());
    let volume = engine.volume(&name("a")).unwrap();
    assert_eq!(volume.snapshot().page_count().get(), 9);
    assert_eq!((byte(&volume, 1), byte(&volume, 2), byte(&volume, 5), byte(&volume, 9)), (1, 22, 0, 9));
    assert_eq!(volume.status().unpushed, 2);
}

#[test]
fn a_snapshot_does_not_change_under_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let volume = engine.volume(&name("a")).unwrap();
    write(&volume, &[(1, 1), (2, 2)]);
    let before = volume.snapshot();
    write(&volume, &[(1, 100)]);
    let mut buf = [0; 4096];
    before.read(page(1), &mut buf).unwrap();
    assert_eq!(buf[0], 1);
    let stale = volume.writer(&before, "test").map(|_| ()).unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    let _held = volume.writer(&volume.snapshot(), "first").unwrap();
    let busy = volume.writer(&volume.snapshot(), "second").map(|_| ()).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(busy.to_string().contains("first"), "{busy}");
}

#[test]
fn truncated_and_regrown_pages_are_zeros() {
    let dir = tempfile::tempdir().unwrap();
    for reopened in [false, true] {
        let engine = open(dir.path());
        let volume = engine.volume(&name("a")).unwrap();
        if !reopened {
            write(&volume, &[(1, 1), (2, 2), (3, 3), (600, 60)]);
            let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
            writer.write(page(3), &[33; 4096]).unwrap();
            writer.truncate(PageCount::new(2)).unwrap();
            writer.write(page(1000), &[4; 4096]).unwrap();
            let mut buf = [1; 4096];
            writer.read(page(3), &mut buf).unwrap();
            assert_eq!(buf, [0; 4096], "read your truncations");
            writer.commit(false).unwrap();
        }
        for (n, want) in [(1, 1), (2, 2), (3, 0), (600, 0), (999, 0), (1000, 4)] {
            assert_eq!(byte(&volume, n), want, "page {n}, reopened: {reopened}");
        }
    }
}

#[test]
fn a_transaction_larger_than_memory_spills_and_commits() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let volume = engine.volume(&name("big")).unwrap();
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.set_page_size(PageSize::MAX).unwrap();
    for n in 1..=1500u32 {
        writer.write(page(n), &vec![n as u8; 65536]).unwrap();
    }
    writer.write(page(1), &vec![200; 65536]).unwrap();
    let mut buf = vec![0; 65536];
    writer.read(page(2), &mut buf).unwrap();
    assert_eq!(buf[0], 2);
    writer.commit(true).unwrap();
    drop(volume);
    drop(engine);
    let engine = open(dir.path());
    let snapshot = engine.volume(&name("big")).unwrap().snapshot();
    for n in 1..=1500u32 {
        snapshot.read(page(n), &mut buf).unwrap();
        assert_eq!(buf[17], if n == 1 { 200 } else { n as u8 }, "page {n}");
    }
}

#[test]
fn the_log_alone_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    {
        let engine = open(dir.path());
        let volume = engine.volume(&name("a")).unwrap();
        for n in 1..=200 {
            write(&volume, &[(n % 7 + 1, n as u8)]);
        }
    }
    let replica = std::fs::read_dir(dir.path().join("replicas")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(replica.join("table.qtab")).unwrap();
    let engine = open(dir.path());
    let volume = engine.volume(&name("a")).unwrap();
    for n in 194..=200 {
        assert_eq!(byte(&volume, n % 7 + 1), n as u8);
    }
}

#[test]
fn a_second_process_is_told_who_has_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _engine = open(dir.path());
    let options = |dir: &Path| Options {
        data_dir: dir.to_owned(),
        store_url: "none".into(),
        connect: Box::new(|| Box::pin(async { Err(Error::unavailable("no store")) })),
        sync: SyncMode::Manual,
        cache_size: 1,
        lease_after: quire_engine::LEASE_AFTER,
        author: String::new(),
    };
    let busy = Engine::open(options(dir.path())).map(|_| ()).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(busy.to_string().contains(&std::process::id().to_string()), "{busy}");
}

#[test]
fn a_group_counts_in_all_volumes_or_in_none_after_a_crash() {
    for decided in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        {
            let engine = open(dir.path());
            let volumes = ["a", "b"].map(|n| engine.volume(&name(n)).unwrap());
            volumes.iter().for_each(|v| write(v, &[(1, 1)]));
            let mut writers: Vec<_> = volumes.iter().map(|v| v.writer(&v.snapshot(), "test").unwrap()).collect();
            for writer in &mut writers {
                writer.write(page(1), &[2; 4096]).unwrap();
                writer.prepare("the group", true).unwrap();
            }
            if decided {
                engine.decide("the group").unwrap();
            }
            // The process dies before any of them publishes.
            let copy = dir.path().join("after-crash");
            copy_dir(dir.path(), &copy);
            drop(writers);
        }
        let engine = open(&dir.path().join("after-crash"));
        for n in ["a", "b"] {
            assert_eq!(byte(&engine.volume(&name(n)).unwrap(), 1), if decided { 2 } else { 1 }, "decided: {decided}");
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if entry.path() != to {
                copy_dir(&entry.path(), &target);
            }
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn readers_and_a_writer_run_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let volume = engine.volume(&name("a")).unwrap();
    write(&volume, &(1..=50).map(|n| (n, 0)).collect::<Vec<_>>());
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut buf = [0; 4096];
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let snapshot = volume.snapshot();
                    snapshot.read(page(1), &mut buf).unwrap();
                    let first = buf[0];
                    for n in 2..=50 {
                        snapshot.read(page(n), &mut buf).unwrap();
                        assert_eq!(buf[0], first, "all pages of a snapshot are of one commit");
                    }
                }
            });
        }
        for round in 1..=200u8 {
            write(&volume, &(1..=50).map(|n| (n, round)).collect::<Vec<_>>());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_replica_that_never_pushes_does_not_grow_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    {
        let engine = open(dir.path());
        let volume = engine.volume(&name("a")).unwrap();
        write(&volume, &(1..=500).map(|n| (n, 5)).collect::<Vec<_>>());
        for round in 0..1200u32 {
            // 50 hot pages: 240 MiB of log for 2 MiB of volume.
            write(&volume, &(1..=50).map(|n| (n, round as u8)).collect::<Vec<_>>());
            last = round as u8;
        }
    }
    let size = dir_bytes(dir.path());
    assert!(size < 110 << 20, "{} MiB on disk", size >> 20);
    for replica in std::fs::read_dir(dir.path().join("replicas")).unwrap() {
        std::fs::remove_file(replica.unwrap().path().join("table.qtab")).unwrap();
    }
    let engine = open(dir.path());
    let volume = engine.volume(&name("a")).unwrap();
    for n in 1..=500 {
        assert_eq!(byte(&volume, n), if n <= 50 { last } else { 5 }, "page {n}");
    }
}

fn dir_bytes(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() { dir_bytes(&entry.path()) } else { entry.metadata().unwrap().len() }
        })
        .sum()
}
