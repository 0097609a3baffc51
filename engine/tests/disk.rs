//! Disks that are full or broken: system calls fail at each place where the
//! replica relies on them. Linux only, by a seccomp filter on the one thread
//! that works, by their numbers on x86-64.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::*;
use quire_engine::{Condition, Engine, ErrorKind, Options, PageCount, Snapshot, SyncMode, Volume};

/// Runs `work` on a thread of its own in which these system calls fail with `errno`.
fn failing<T: Send>(calls: &[libc::c_long], errno: i32, work: impl FnOnce() -> T + Send) -> T {
    let mut program = vec![load(0)];
    for call in calls {
        program.extend([unless_equal(*call as u32, 1), answer(libc::SECCOMP_RET_ERRNO | errno as u32)]);
    }
    filtered(program, work)
}

/// As [`failing`], for one call on one file descriptor.
fn failing_on<T: Send>(call: libc::c_long, fd: u32, errno: i32, work: impl FnOnce() -> T + Send) -> T {
    const FIRST_ARGUMENT: u32 = 16;
    let fails = answer(libc::SECCOMP_RET_ERRNO | errno as u32);
    filtered(vec![load(0), unless_equal(call as u32, 3), load(FIRST_ARGUMENT), unless_equal(fd, 1), fails], work)
}

/// As [`failing`], for reserving so many bytes or more at once: the disk is nearly full.
fn without_space_for<T: Send>(bytes: u32, work: impl FnOnce() -> T + Send) -> T {
    const LENGTH_ARGUMENT: u32 = 40;
    let unless_less =
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16, jt: 0, jf: 1, k: bytes };
    let fails = answer(libc::SECCOMP_RET_ERRNO | libc::ENOSPC as u32);
    let calls = unless_equal(libc::SYS_fallocate as u32, 3);
    filtered(vec![load(0), calls, load(LENGTH_ARGUMENT), unless_less, fails], work)
}

/// Loads a field of the system call: 0 is its number.
fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

/// Skips so many steps unless what was loaded equals `k`.
fn unless_equal(k: u32, skipped: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: skipped, k }
}

fn answer(k: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k }
}

fn filtered<T: Send>(mut program: Vec<libc::sock_filter>, work: impl FnOnce() -> T + Send) -> T {
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
            // SAFETY: both calls take integers and a pointer to a filter that outlives them; they change this thread only.
            let installed = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                    && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
            };
            assert!(installed, "a seccomp filter: {}", std::io::Error::last_os_error());
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The descriptor of the newest log file under `dir`.
fn newest_log(dir: &Path) -> u32 {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let path = std::fs::read_link(entry.path()).ok()?;
        let is_log = path.starts_with(dir) && path.parent()?.ends_with("log");
        is_log.then(|| (path, entry.file_name().to_str().unwrap().parse().unwrap()))
    });
    open.max().unwrap().1
}

const SYNCS: [libc::c_long; 2] = [libc::SYS_fdatasync, libc::SYS_fsync];
const WRITES: [libc::c_long; 3] = [libc::SYS_pwrite64, libc::SYS_write, libc::SYS_writev];

fn opened(dir: &Path) -> (Engine, Volume) {
    let engine = open(dir, &memory());
    let volume = engine.volume(&name("v")).unwrap();
    (engine, volume)
}

fn commit(volume: &Volume, n: u32, stamp: u64, durable: bool) -> quire_engine::Result<Snapshot> {
    let mut writer = volume.writer(&volume.snapshot(), "test")?;
    writer.set_page_size(page_size())?;
    writer.write(page(n), &content(stamp))?;
    writer.commit(durable)
}

#[test]
fn a_full_disk_fails_the_commit_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let (_engine, volume) = opened(&dir);
    commit(&volume, 1, 1, true).unwrap();
    let calls: [&[libc::c_long]; 3] = [&WRITES, &[libc::SYS_fallocate], &[libc::SYS_pwrite64]];
    for (round, calls) in calls.into_iter().enumerate() {
        // A page and a transaction that spills, each of them into the current file and into a new one.
        for pages in [1, 9000, 20_000] {
            let work = || {
                let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
                for n in 1..=pages {
                    writer.write(page(n), &content(99))?;
                }
                writer.commit(true)
            };
            match failing(calls, libc::ENOSPC, work) {
                Ok(_) => {
                    // There was space reserved for it.
                    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
                    writer.truncate(PageCount::new(2.min(writer.page_count().get()))).unwrap();
                    writer.commit(true).unwrap();
                    commit(&volume, 1, round as u64 + 1, true).unwrap();
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Full, "{e:?}");
                    assert!(e.remedy().is_some(), "{e:?}");
                }
            }
            assert_eq!(read(&volume, 1), round as u64 + 1, "nothing of it is visible");
            commit(&volume, 1, round as u64 + 1, true).unwrap();
        }
        commit(&volume, 1, round as u64 + 2, true).unwrap();
        let copy = root.path().join(format!("killed-{round}"));
        copy_dir(&dir, &copy);
        assert_eq!(read(&opened(&copy).1, 1), round as u64 + 2);
    }
}

/// How many bytes the log files of the only volume have, and how many of those there are.
fn log_size(dir: &Path) -> (u64, usize) {
    let replica = replica(dir);
    let files = std::fs::read_dir(replica.join("log")).unwrap();
    let lens = files.map(|entry| entry.unwrap().metadata().unwrap().len());
    lens.fold((0, 0), |(bytes, files), len| (bytes + len, files + 1))
}

/// As [`opened`], with a cache so small that each spill has a log file of its own.
fn opened_small(dir: &Path) -> (Engine, Volume) {
    let stores = stores(&memory());
    let engine = Engine::open(Options { cache_size: 1 << 20, ..options(dir, stores) }).unwrap();
    let volume = engine.volume(&name("v")).unwrap();
    (engine, volume)
}

/// The newest log file of the only volume.
fn newest_log_path(dir: &Path) -> std::path::PathBuf {
    let replica = replica(dir);
    std::fs::read_dir(replica.join("log")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
}

/// Spills into several log files, which together are not so long that anything else is done about them.
fn write_much(writer: &mut quire_engine::Writer) {
    writer.set_page_size(page_size()).unwrap();
    for n in 1..=50_000 {
        writer.write(page(n), &content(99)).unwrap();
    }
}

#[test]
fn a_rolled_back_transaction_gives_its_space_back() {
    for commits in [0, 1] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("live");
        for stamp in 0..commits {
            commit(&opened_small(&dir).1, 1, stamp, true).unwrap();
        }
        for round in 0..4 {
            let (_engine, volume) = opened_small(&dir);
            let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
            write_much(&mut writer);
            let (before, _) = log_size(&dir);
            assert!(before > 20 << 20, "{before} bytes are spilled");
            // The second time the next transaction follows at once.
            drop(if round == 1 { writer.go_on().unwrap() } else { writer });
            let (after, files) = log_size(&dir);
            assert!(after <= 2 << 20 && files <= 3 + round, "{after} of {before} bytes are left, in {files} files");
            let copy = root.path().join(format!("killed-{round}"));
            copy_dir(&dir, &copy);
            let (_engine, volume) = opened_small(&copy);
            assert_eq!(volume.snapshot().page_count().get(), commits as u32);
        }
        commit(&opened_small(&dir).1, 1, 7, true).unwrap();
        assert_eq!(read(&opened_small(&dir).1, 1), 7);
    }
}

#[test]
fn giving_space_back_on_a_bad_disk_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let calls: [&[libc::c_long]; 4] = [&[libc::SYS_openat], &[libc::SYS_fallocate], &[libc::SYS_pwrite64], &SYNCS];
    for (round, calls) in calls.into_iter().enumerate() {
        let dir = root.path().join(format!("live-{round}"));
        let (engine, volume) = opened_small(&dir);
        commit(&volume, 1, 1, true).unwrap();
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        write_much(&mut writer);
        failing(calls, libc::EIO, || drop(writer));
        let copy = root.path().join(format!("killed-{round}"));
        copy_dir(&dir, &copy);
        assert_eq!(read(&opened_small(&copy).1, 1), 1);
        // Where the log's new file could not be synced, nothing can be promised to be durable.
        commit(&volume, 1, 2, calls != SYNCS).unwrap();
        drop((volume, engine));
        assert_eq!(read(&opened_small(&dir).1, 1), 2);
    }
}

/// With log files of the usual size: the file in which the transaction began gets shorter again.
#[test]
fn a_rolled_back_transaction_gives_the_end_of_a_log_file_back() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let (engine, volume) = opened(&dir);
    commit(&volume, 1, 1, true).unwrap();
    for round in 2..5 {
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        for n in 1..=40_000 {
            writer.write(page(n), &content(99)).unwrap();
        }
        assert!(log_size(&dir).0 > 15 << 20);
        drop(writer);
        let (left, files) = log_size(&dir);
        assert!(left < 64 << 10 && files == 1, "{left} bytes are left in {files} files");
        let copy = root.path().join(format!("killed-{round}"));
        copy_dir(&dir, &copy);
        assert_eq!(read(&opened(&copy).1, 1), round - 1);
        commit(&volume, 1, round, true).unwrap();
        assert_eq!(read(&volume, 1), round);
    }
    drop((volume, engine));
    assert_eq!(read(&opened(&dir).1, 1), 4);
}

/// What was committed before a rollback that cut the log, and never synced, may go with the power: nothing after it says
/// that it was durable.
#[test]
fn what_follows_a_rollback_proves_nothing_of_what_came_before() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let (_engine, volume) = opened_small(&dir);
    commit(&volume, 1, 1, true).unwrap();
    commit(&volume, 1, 2, false).unwrap();
    let first = newest_log_path(&dir);
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    // Not so much that the table is saved, which makes all of it durable.
    (1..=20_000).for_each(|n| writer.write(page(n), &content(99)).unwrap());
    drop(writer);
    commit(&volume, 1, 3, false).unwrap();
    let copy = root.path().join("lost");
    copy_dir(&dir, &copy);
    let lost = copy.join(first.strip_prefix(&dir).unwrap());
    let bytes = std::fs::read(&lost).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(&lost, &bytes[..end - 8]).unwrap();
    assert_eq!(read(&opened_small(&copy).1, 1), 1, "the last commits are lost, and nothing else");
}

#[test]
fn a_disk_that_is_nearly_full_takes_what_fits() {
    let root = tempfile::tempdir().unwrap();
    commit(&opened(root.path()).1, 1, 1, true).unwrap();
    let (_engine, volume) = opened(root.path());
    // Less space than a log file likes to begin with.
    let commits = || (2..100).map(|stamp| commit(&volume, 1, stamp, true)).collect::<Result<Vec<_>, _>>();
    without_space_for(512 << 10, commits).unwrap();
    assert_eq!(read(&volume, 1), 99);
}

#[test]
fn a_new_file_on_a_full_disk_gets_a_beginning_or_is_none() {
    let root = tempfile::tempdir().unwrap();
    let (engine, volume) = opened(root.path());
    commit(&volume, 1, 1, false).unwrap();
    // The current file becomes full, so that each try begins a new one.
    let mut stamp = 1;
    for calls in [&[libc::SYS_fallocate][..], &[libc::SYS_pwrite64], &[libc::SYS_openat], &[libc::SYS_fallocate]] {
        let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
        for n in 1..=65_000 {
            writer.write(page(n), &content(7)).unwrap();
        }
        drop(writer);
        let tried = failing(calls, libc::ENOSPC, || commit(&volume, 1, 99, true).map(|_| ()));
        if let Err(e) = tried {
            assert_eq!(e.kind(), ErrorKind::Full, "{e:?}");
        }
        stamp += 1;
        commit(&volume, 1, stamp, true).unwrap();
    }
    drop((volume, engine));
    // The log alone tells.
    for replica in std::fs::read_dir(root.path().join("replicas")).unwrap() {
        std::fs::remove_file(replica.unwrap().path().join("table.qtab")).unwrap();
    }
    assert_eq!(read(&opened(root.path()).1, 1), stamp);
}

#[test]
fn a_commit_that_could_not_be_synced_leaves_no_trace() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let (_engine, volume) = opened(&dir);
    commit(&volume, 1, 10, true).unwrap();
    commit(&volume, 2, 20, true).unwrap();
    // The new file that would say where the log ended cannot be synced either.
    let error = failing(&SYNCS[..1], libc::EIO, || commit(&volume, 1, 99, true).map(|_| ())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert_eq!(read(&volume, 1), 10);
    let copy = root.path().join("killed");
    copy_dir(&dir, &copy);
    let (_other, after) = opened(&copy);
    assert_eq!((read(&after, 1), read(&after, 2)), (10, 20), "no trace after a crash either");
    commit(&after, 1, 50, true).unwrap();
    // In the process itself the disk cannot be trusted any more, and it says so.
    let refused = commit(&volume, 1, 98, true).map(|_| ()).unwrap_err();
    assert!(refused.remedy().is_some_and(|remedy| remedy.contains("open it again")), "{refused:?}");
}

#[test]
fn a_log_file_that_could_not_be_synced_is_left_for_a_new_one() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let (_engine, volume) = opened(&dir);
    let mut stamp = 0;
    for round in 0..4 {
        for _ in 0..3 {
            stamp += 1;
            commit(&volume, 1, stamp, true).unwrap();
        }
        let log = newest_log(&dir);
        let tried = failing_on(libc::SYS_fdatasync, log, libc::EIO, || commit(&volume, 1, 99, true).map(|_| ()));
        assert_eq!(tried.unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(read(&volume, 1), stamp, "it is not there");
        commit(&volume, 2, stamp, true).unwrap();
        let copy = root.path().join(format!("killed-{round}"));
        copy_dir(&dir, &copy);
        let (_other, after) = opened(&copy);
        assert_eq!((read(&after, 1), read(&after, 2)), (stamp, stamp), "nor after a crash");
    }
}

#[test]
fn what_was_not_synced_is_never_called_durable_later() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let (_engine, volume) = opened(&dir);
    commit(&volume, 1, 1, true).unwrap();
    commit(&volume, 1, 2, false).unwrap();
    let pushed = failing(&SYNCS[..1], libc::EIO, || volume.push().map(|_| ())).unwrap_err();
    assert_eq!(pushed.kind(), ErrorKind::Io);
    // The kernel would say yes now, although it may have dropped the pages of commit 2.
    assert_eq!(commit(&volume, 1, 3, true).map(|_| ()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(volume.push().map(|_| ()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(read(&volume, 1), 2, "what was committed can be read");
    assert!(volume.status().last_error.is_some());
}

#[test]
fn a_clone_on_a_full_disk_can_be_repeated_and_is_never_an_empty_volume() {
    let bucket = memory();
    let root = tempfile::tempdir().unwrap();
    let first = open(&root.path().join("first"), &bucket);
    let volume = first.volume(&name("v")).unwrap();
    write(&volume, &[(1, 1)]);
    volume.push().unwrap();
    let calls = [&[libc::SYS_fallocate][..], &[libc::SYS_pwrite64], &SYNCS, &[libc::SYS_fsync], &[libc::SYS_fdatasync]];
    for (n, calls) in calls.into_iter().enumerate() {
        let dir = root.path().join(format!("clone-{n}"));
        let engine = open(&dir, &bucket);
        let error = failing(calls, libc::ENOSPC, || engine.existing(&name("v")).map(|_| ())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
        assert_eq!(read(&engine.volume(&name("v")).unwrap(), 1), 1);
    }
}

#[test]
fn a_reset_on_a_full_disk_changes_nothing() {
    let bucket = memory();
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (open(&root.path().join("a"), &bucket), open(&root.path().join("b"), &bucket));
    let (mine, theirs) = (a.volume(&name("v")).unwrap(), b.volume(&name("v")).unwrap());
    write(&mine, &[(1, 1)]);
    write(&theirs, &[(1, 2)]);
    theirs.push().unwrap();
    for calls in [&[libc::SYS_fallocate][..], &[libc::SYS_pwrite64], &[libc::SYS_write], &[libc::SYS_fsync]] {
        let error = failing(calls, libc::ENOSPC, || mine.reset().map(|_| ())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
        assert_eq!((read(&mine, 1), mine.status().unpushed, mine.status().writer), (1, 1, None));
        assert_eq!(a.local_volumes().unwrap(), [name("v")]);
        let folders = std::fs::read_dir(root.path().join("a/replicas")).unwrap().count();
        assert_eq!(folders, 1, "what was begun is gone");
    }
    write(&mine, &[(1, 1)]);
    assert_eq!(mine.reset().unwrap().kept_as, Some(name("v.dropped-1")));
    assert_eq!(read(&mine, 1), 2);
}

#[test]
fn a_removal_that_cannot_be_written_down_leaves_the_volume_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let (engine, volume) = opened(root.path());
    commit(&volume, 1, 1, true).unwrap();
    for calls in [&[libc::SYS_fsync][..], &[libc::SYS_write]] {
        let error = failing(calls, libc::ENOSPC, || engine.remove_replica(&name("v"), true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
        commit(&volume, 1, 2, true).unwrap();
        assert_eq!((read(&volume, 1), volume.status().writer), (2, None));
    }
    let unpushed = engine.remove_replica(&name("v"), false).unwrap_err();
    assert_eq!(unpushed.kind(), ErrorKind::Conflict);
    commit(&volume, 1, 3, true).unwrap();
    engine.remove_replica(&name("v"), true).unwrap();
    let gone = commit(&volume, 1, 4, true).map(|_| ()).unwrap_err();
    assert!(gone.remedy().is_some(), "{gone:?}");
    assert_eq!(engine.volume(&name("v")).unwrap().snapshot().page_count().get(), 0);
}

#[test]
fn a_decision_that_cannot_be_written_decides_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let engine = open(&dir, &memory());
    let volumes = ["a", "b"].map(|n| engine.volume(&name(n)).unwrap());
    volumes.iter().for_each(|v| write(v, &[(1, 1)]));
    for (n, calls) in [&SYNCS[..], &[libc::SYS_write], &[libc::SYS_rename, libc::SYS_renameat2]].into_iter().enumerate()
    {
        let mut writers: Vec<_> = volumes.iter().map(|v| v.writer(&v.snapshot(), "test").unwrap()).collect();
        for writer in &mut writers {
            writer.write(page(1), &content(99)).unwrap();
            writer.prepare("the group", true).unwrap();
        }
        failing(calls, libc::ENOSPC, || engine.decide("the group")).unwrap_err();
        for writer in writers {
            assert_eq!(writer.commit(true).map(|_| ()).unwrap_err().kind(), ErrorKind::Conflict);
        }
        assert_eq!((read(&volumes[0], 1), read(&volumes[1], 1)), (1, 1));
        let copy = root.path().join(format!("killed-{n}"));
        copy_dir(&dir, &copy);
        let after = open(&copy, &memory());
        for volume in ["a", "b"] {
            assert_eq!(read(&after.volume(&name(volume)).unwrap(), 1), 1);
        }
    }
    volumes.iter().for_each(|v| write(v, &[(1, 5)]));
}

#[test]
fn a_decided_transaction_counts_even_if_the_log_cannot_say_so() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let (engine, volume) = opened(&dir);
    commit(&volume, 1, 1, true).unwrap();
    volume.push().unwrap();
    let mut writer = volume.writer(&volume.snapshot(), "test").unwrap();
    writer.write(page(1), &content(2)).unwrap();
    writer.prepare("the group", true).unwrap();
    engine.decide("the group").unwrap();
    failing(&[libc::SYS_pwrite64], libc::EIO, || writer.commit(true).map(|_| ())).unwrap();
    assert_eq!(read(&volume, 1), 2);
    // The decision names the volume: put aside under another name, it would not be found.
    assert_eq!(volume.reset().map(|_| ()).unwrap_err().kind(), ErrorKind::Io);
    // A later commit would be replayed before this one.
    assert_eq!(commit(&volume, 1, 3, true).map(|_| ()).unwrap_err().kind(), ErrorKind::Io);
    let copy = root.path().join("killed");
    copy_dir(&dir, &copy);
    let (_other, after) = opened(&copy);
    assert_eq!(read(&after, 1), 2);
    commit(&after, 1, 3, true).unwrap();
    assert_eq!(read(&after, 1), 3);
}

#[test]
fn sync_commit_on_a_full_disk_fails_or_counts_and_goes_on() {
    let bucket = memory();
    let root = tempfile::tempdir().unwrap();
    let mut options = options(root.path(), stores(&bucket));
    options.sync = SyncMode::Commit;
    let engine = Engine::open(options).unwrap();
    let volume = engine.volume(&name("v")).unwrap();
    commit(&volume, 1, 1, true).unwrap();
    for stamp in 2..6 {
        let tried = failing(&[libc::SYS_pwrite64], libc::ENOSPC, || commit(&volume, 1, 99, true).map(|_| ()));
        assert_eq!(tried.unwrap_err().kind(), ErrorKind::Full);
        assert_eq!((read(&volume, 1), volume.status().state), (stamp - 1, Condition::Clean));
        commit(&volume, 1, stamp, true).unwrap();
    }
    let fresh = tempfile::tempdir().unwrap();
    assert_eq!(read(&open(fresh.path(), &bucket).existing(&name("v")).unwrap(), 1), 5);
}

#[test]
fn a_cache_on_a_full_disk_only_costs_speed() {
    let bucket = memory();
    let root = tempfile::tempdir().unwrap();
    let first = open(&root.path().join("first"), &bucket);
    let volume = first.volume(&name("v")).unwrap();
    write(&volume, &(1..=1000).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
    volume.push().unwrap();
    let engine = open(&root.path().join("second"), &bucket);
    let volume = engine.existing(&name("v")).unwrap();
    for calls in [&[libc::SYS_fallocate][..], &[libc::SYS_pwrite64], &[libc::SYS_openat]] {
        failing(calls, libc::ENOSPC, || {
            (1..=1000).step_by(100).for_each(|n| assert_eq!(read(&volume, n), u64::from(n)))
        });
        assert_eq!(volume.status().cached_pages, 0);
    }
    (1..=1000).for_each(|n| assert_eq!(read(&volume, n), u64::from(n)));
    assert_eq!(volume.status().cached_pages, 1000);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_an_error_with_a_remedy() {
    let root = tempfile::tempdir().unwrap();
    drop(opened(root.path()));
    let bucket = memory();
    for errno in [libc::EACCES, libc::EROFS] {
        let open = || Engine::open(options(root.path(), stores(&bucket))).map(|_| ());
        let error = failing(&[libc::SYS_openat], errno, open).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("QUIRE_DATA_DIR")), "{error:?}");
    }
}

/// What a kill leaves of a volume with durable commits, and with one after them that nobody has synced.
fn killed_with_an_unsynced_commit(root: &Path) -> std::path::PathBuf {
    let dir = root.join("live");
    let (_engine, volume) = opened(&dir);
    commit(&volume, 1, 1, true).unwrap();
    commit(&volume, 2, 2, false).unwrap();
    let copy = root.join("killed");
    copy_dir(&dir, &copy);
    copy
}

#[test]
fn what_a_killed_process_wrote_is_written_once_more_before_it_is_called_durable() {
    let root = tempfile::tempdir().unwrap();
    let dir = killed_with_an_unsynced_commit(root.path());
    let (engine, volume) = opened(&dir);
    let log = newest_log_path(&dir);
    let whole = std::fs::read(&log).unwrap();
    // Its process failed to sync it, so the kernel takes it for clean: once the memory is needed, this is what the disk has.
    let mut lost = whole.clone();
    let end = lost.iter().rposition(|byte| *byte != 0).unwrap();
    lost[end - 100..=end].fill(0);
    let write = |bytes: &[u8]| {
        use std::os::unix::fs::FileExt;
        std::fs::OpenOptions::new().write(true).open(&log).unwrap().write_all_at(bytes, 0).unwrap();
    };
    write(&lost);
    assert_eq!(volume.snapshot().read(page(2), &mut [0; PAGE]).unwrap_err().kind(), ErrorKind::Corrupt);
    let refused = commit(&volume, 3, 3, true).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io, "{refused:?}");
    assert!(refused.message().contains(".qlog"), "{refused:?}");
    assert!(refused.remedy().is_some_and(|says| says.contains("open it again")), "{refused:?}");
    drop((volume, engine));
    // Where it is whole, it is durable from then on, and proves what comes before the next commit.
    write(&whole);
    let (_engine, volume) = opened(&dir);
    // What could not be tried is none of that, also after a commit that need not be durable.
    commit(&volume, 4, 4, false).unwrap();
    let refused = failing(&[libc::SYS_openat], libc::EMFILE, || commit(&volume, 3, 4, true).map(|_| ())).unwrap_err();
    assert!(!refused.remedy().is_some_and(|says| says.contains("open it again")), "{refused:?}");
    commit(&volume, 3, 3, true).unwrap();
    commit(&volume, 5, 5, true).unwrap();
    assert_eq!((read(&volume, 1), read(&volume, 2), read(&volume, 3)), (1, 2, 3));
    let after = root.path().join("after");
    copy_dir(&dir, &after);
    write_over_newest_but_one(&after);
    assert_eq!(
        Engine::open(options(&after, stores(&memory()))).unwrap().volume(&name("v")).map(|_| ()).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

/// Damages the end of the log file before the newest.
fn write_over_newest_but_one(dir: &Path) {
    let newest = newest_log_path(dir);
    let mut files: Vec<_> =
        std::fs::read_dir(newest.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let file = &files[files.len() - 2];
    let mut bytes = std::fs::read(file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 100..=end].fill(0);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn pages_of_a_file_that_could_not_be_synced_are_checked_when_they_are_read() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let (_engine, volume) = opened(&dir);
    commit(&volume, 1, 1, true).unwrap();
    commit(&volume, 2, 2, false).unwrap();
    let log = newest_log_path(&dir);
    failing(&SYNCS[..1], libc::EIO, || volume.push().map(|_| ())).unwrap_err();
    assert_eq!((read(&volume, 1), read(&volume, 2)), (1, 2));
    // The kernel has dropped what it could not write.
    let len = log.metadata().unwrap().len();
    let blank = vec![0; len as usize - 64];
    {
        use std::os::unix::fs::FileExt;
        std::fs::OpenOptions::new().write(true).open(&log).unwrap().write_all_at(&blank, 64).unwrap();
    }
    let refused = volume.snapshot().read(page(2), &mut [0; PAGE]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused:?}");
    // Nor is it given to anybody else.
    assert!(volume.push().is_err());
}

#[test]
fn a_decision_stays_while_a_log_that_was_closed_may_not_say_what_came_of_it() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(root.path(), &memory());
    let volume = |n: &str| engine.volume(&name(n)).unwrap();
    let together = |names: &[&str], group: &str| {
        let volumes: Vec<Volume> = names.iter().map(|n| volume(n)).collect();
        let mut writers: Vec<_> = volumes.iter().map(|v| v.writer(&v.snapshot(), "test").unwrap()).collect();
        for writer in &mut writers {
            writer.set_page_size(page_size()).unwrap();
            writer.write(page(1), &content(9)).unwrap();
            writer.prepare(group, true).unwrap();
        }
        engine.decide(group).unwrap();
        writers.into_iter().for_each(|writer| drop(writer.commit(true).unwrap()));
        volumes
    };
    let others = ["a", "c"].map(volume);
    let mut both = together(&["a", "b"], "the first group");
    let b = both.pop().unwrap();
    failing(&SYNCS, libc::EIO, || drop(b));
    let groups = || std::fs::read_dir(root.path().join("groups")).unwrap().count();
    for n in 0..200 {
        together(&["a", "c"], &format!("group {n}"));
    }
    assert_eq!(groups(), 201, "each of them, the first one above all");
    drop((both, others));
    drop(engine);
    let engine = open(root.path(), &memory());
    assert_eq!(read(&engine.volume(&name("b")).unwrap(), 1), 9);
    assert_eq!(groups(), 0);
}

#[test]
fn without_file_descriptors_a_decision_gets_no_name_unless_it_was_ready() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    let engine = open(&dir, &memory());
    let volumes = ["a", "b"].map(|n| engine.volume(&name(n)).unwrap());
    volumes.iter().for_each(|v| write(v, &[(1, 1)]));
    let prepared = || {
        let mut writers = volumes.each_ref().map(|v| v.writer(&v.snapshot(), "test").unwrap());
        for writer in &mut writers {
            writer.write(page(1), &content(2)).unwrap();
            writer.prepare("the group", true).unwrap();
        }
        writers
    };
    let writers = prepared();
    failing(&[libc::SYS_openat], libc::EMFILE, || engine.decide("the group")).unwrap_err();
    assert!(std::fs::read_dir(dir.join("groups")).map_or(0, Iterator::count) == 0, "it has no name");
    drop(writers);
    let writers = prepared();
    engine.make_decidable("the group").unwrap();
    failing(&[libc::SYS_openat], libc::EMFILE, || engine.decide("the group")).unwrap();
    writers.into_iter().for_each(|writer| drop(writer.commit(true).unwrap()));
    assert_eq!(volumes.each_ref().map(|v| read(v, 1)), [2, 2]);
}

#[test]
fn what_cannot_be_opened_for_a_moment_is_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let bucket = memory();
    let (first, dir) = (root.path().join("first"), root.path().join("second"));
    {
        let engine = open(&first, &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        write(&volume, &(1..=500).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
        volume.push().unwrap();
    }
    open(&dir, &bucket).volume(&name("v")).unwrap().hydrate(&mut |_, _| {}).unwrap();
    let replica = replica(&dir);
    for file in
        [std::fs::read_dir(replica.join("cache")).unwrap().next().unwrap().unwrap().path(), replica.join("table.qtab")]
    {
        let aside = root.path().join("aside");
        std::fs::rename(&file, &aside).unwrap();
        // Opening it fails, and not as it is missing or damaged.
        std::os::unix::fs::symlink(&file, &file).unwrap();
        let refused = Engine::open(options(&dir, stores(&bucket))).unwrap().volume(&name("v")).map(|_| ()).unwrap_err();
        assert!(refused.message().contains(file.file_name().unwrap().to_str().unwrap()), "{refused:?}");
        assert!(refused.remedy().is_some(), "{refused:?}");
        std::fs::rename(&aside, &file).unwrap();
        let engine = open_when_free(|| options(&dir, stores(&bucket)));
        let volume = engine.volume(&name("v")).unwrap();
        let before = engine.stats().pages_fetched;
        assert_eq!((read(&volume, 400), engine.stats().pages_fetched - before), (400, 0), "all of it is here still");
    }
}

#[test]
fn the_number_of_a_file_that_the_power_took_is_not_used_again() {
    let root = tempfile::tempdir().unwrap();
    let bucket = memory();
    let (first, dir) = (root.path().join("first"), root.path().join("second"));
    {
        let engine = open(&first, &bucket);
        let volume = engine.volume(&name("v")).unwrap();
        write(&volume, &(1..=50).map(|n| (n, u64::from(n))).collect::<Vec<_>>());
        volume.push().unwrap();
    }
    {
        let engine = open(&dir, &bucket);
        // The log has its file before the cache.
        commit(&engine.volume(&name("v")).unwrap(), 1, 7, true).unwrap();
        engine.volume(&name("v")).unwrap().hydrate(&mut |_, _| {}).unwrap();
    }
    // The table was being written while pages came into a file of the cache that was begun later than it says; and that
    // file's name was never made durable.
    let replica = replica(&dir);
    let cached = std::fs::read_dir(replica.join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let first = cached.min().and_then(|path| u32::from_str_radix(path.file_stem()?.to_str()?, 16).ok()).unwrap();
    std::fs::remove_dir_all(replica.join("cache")).unwrap();
    let mut table = std::fs::read(replica.join("table.qtab")).unwrap();
    let head = 4..4 + u32::from_le_bytes(table[..4].try_into().unwrap()) as usize - 4;
    table[17..21].copy_from_slice(&first.to_le_bytes());
    let crc = crc32fast::hash(&table[head.clone()]);
    table[head.end..head.end + 4].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(replica.join("table.qtab"), &table).unwrap();
    let killed = root.path().join("killed");
    {
        let engine = open(&dir, &bucket);
        commit(&engine.volume(&name("v")).unwrap(), 1, 8, true).unwrap();
        copy_dir(&dir, &killed);
    }
    // The kill came before another table was written.
    let killed_replica = killed.join("replicas").join(replica.file_name().unwrap());
    std::fs::write(killed_replica.join("table.qtab"), &table).unwrap();
    let engine = open(&killed, &bucket);
    let volume = engine.volume(&name("v")).unwrap();
    for n in 2..=50 {
        assert_eq!(read(&volume, n), u64::from(n), "it comes from the store again");
    }
    assert_eq!(read(&volume, 1), 8);
}

#[test]
fn names_that_are_not_ours_close_no_volume() {
    let root = tempfile::tempdir().unwrap();
    {
        let (_engine, volume) = opened(root.path());
        commit(&volume, 1, 1, true).unwrap();
    }
    let log = newest_log_path(root.path());
    for stray in [".DS_Store", ".nfs000000000000000100000001", "00000001.qlog.part"] {
        std::fs::write(log.with_file_name(stray), "x").unwrap();
    }
    assert_eq!(read(&opened(root.path()).1, 1), 1);
    std::fs::write(log.with_file_name("copy of 1.qlog"), "x").unwrap();
    let refused = Engine::open(options(root.path(), stores(&memory()))).unwrap().volume(&name("v")).map(|_| ());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt, "that may be a part of the log");
}
