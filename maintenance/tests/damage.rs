//! Each kind of object, damaged in each way: the report names it, its pages, and what can still be read.
#![allow(clippy::unwrap_used)] // a failed expectation is what a test is for

mod common;

use common::{World, commit, lsn, name, on_each_store};
use quire_bucket::keys;
use quire_maintenance::verify::{Damage, Depth, Object, Report};
use quire_proto::{
    Base, Body, CheckpointPlace, CommitHash, CommitHeader, CommitId, CommitKind, ErrorKind, Lsn, PageSet, PageSize,
    SealedCommit,
};

/// The damage, of which there must be one.
fn the_damage(report: &Report) -> &Damage {
    assert_eq!((report.damage.len(), report.more_damage), (1, 0), "{:?}", report.damage);
    &report.damage[0]
}

fn ranges(pages: &PageSet) -> Vec<(u32, u32)> {
    pages.ranges().collect()
}

fn touched(report: &Report) -> Vec<(u64, u64)> {
    report.touched.iter().map(|(first, last)| (first.get(), last.get())).collect()
}

/// What is lost of the newest snapshot.
fn lost(report: &Report) -> Option<Vec<(u32, u32)>> {
    report.lost.as_ref().map(ranges)
}

fn readable(report: &Report) -> Option<(u64, bool)> {
    report.readable.map(|lsn| (lsn.get(), report.restorable))
}

fn is_sound(report: &Report) {
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((touched(report), lost(report)), (vec![], Some(vec![])));
    assert_eq!(readable(report), Some((report.lsn.get(), true)));
}

#[test]
fn a_missing_segment_is_found_at_either_depth() {
    on_each_store(|world| {
        world.app();
        is_sound(&world.plain("app"));
        is_sound(&world.deep("app"));
        world.delete(&world.segment("app", 3));
        for report in [world.plain("app"), world.deep("app")] {
            let damage = the_damage(&report);
            assert!(matches!(damage.object, Object::Segment { lsn: at, .. } if at == lsn(3)), "{damage:?}");
            assert!(damage.problem.contains("not in the store"), "{damage:?}");
            assert_eq!(ranges(&damage.pages), [(33, 60)]);
            assert_eq!((touched(&report), lost(&report)), (vec![(3, 5)], Some(vec![(33, 60)])));
            assert_eq!(readable(&report), Some((2, true)));
        }
        // What later commits own anew is not lost in the newest snapshot.
        world.delete(&world.segment("app", 1));
        let report = world.plain("app");
        assert_eq!(report.damage.len(), 2);
        assert_eq!(lost(&report), Some(vec![(1, 1), (4, 4), (6, 60)]));
        assert_eq!((touched(&report), readable(&report)), (vec![(1, 5)], None));
    });
}

#[test]
fn a_flipped_byte_of_a_frame_touches_that_frames_pages() {
    on_each_store(|world| {
        world.app();
        // The second frame of LSN 1, whose pages LSN 3 owns anew.
        let key = world.segment("app", 1);
        world.flip(&key, -1000);
        is_sound(&world.plain("app"));
        let report = world.deep("app");
        let damage = the_damage(&report);
        assert!(matches!(damage.object, Object::Segment { lsn: at, .. } if at == lsn(1)), "{damage:?}");
        assert!(damage.problem.contains("the frame of page 33"), "{damage:?}");
        assert_eq!(ranges(&damage.pages), [(33, 40)]);
        assert_eq!((touched(&report), lost(&report)), (vec![(1, 2)], Some(vec![])));
        assert_eq!(readable(&report), Some((5, true)));
    });
}

#[test]
fn a_flipped_byte_of_a_segments_footer_loses_no_page() {
    on_each_store(|world| {
        world.app();
        for at in [-1, -20, 2] {
            world.flip(&world.segment("app", 3), at);
            let report = world.deep("app");
            let damage = the_damage(&report);
            assert!(matches!(damage.object, Object::Segment { lsn: at, .. } if at == lsn(3)), "{damage:?}");
            assert!(damage.pages.is_empty() && damage.problem.contains("hash"), "{damage:?}");
            assert_eq!((touched(&report), readable(&report)), (vec![], Some((5, true))));
            world.flip(&world.segment("app", 3), at);
        }
        is_sound(&world.deep("app"));
    });
}

#[test]
fn a_segment_that_was_cut_keeps_the_frames_before_the_cut() {
    on_each_store(|world| {
        world.app();
        let key = world.segment("app", 1);
        let object = world.read(&key);
        world.replace(&key, object[..object.len() - 3000].to_vec());
        let plain = world.plain("app");
        assert_eq!(ranges(&the_damage(&plain).pages), [(1, 40)]);
        let deep = world.deep("app");
        assert!(the_damage(&deep).problem.contains("bytes where"), "{deep:?}");
        assert_eq!(ranges(&the_damage(&deep).pages), [(33, 40)]);
        assert_eq!((touched(&deep), readable(&deep)), (vec![(1, 2)], Some((5, true))));
    });
}

#[test]
fn a_commit_that_is_missing_hides_what_came_after_it() {
    on_each_store(|world| {
        world.app();
        world.delete(&commit("app", 4));
        for report in [world.plain("app"), world.deep("app")] {
            let damage = the_damage(&report);
            assert_eq!(damage.object, Object::Commit { lsn: lsn(4) });
            assert!(damage.problem.contains("no LSN 4"), "{damage:?}");
            assert_eq!((touched(&report), lost(&report)), (vec![(4, 5)], None));
            assert_eq!(readable(&report), Some((3, true)));
        }
    });
}

#[test]
fn behind_a_missing_commit_a_checkpoint_still_shows_all_but_its_pages() {
    on_each_store(|world| {
        world.app();
        world.volume("app").checkpoint().unwrap();
        world.delete(&commit("app", 4));
        world.delete(&commit("app", 3));
        for report in [world.plain("app"), world.deep("app")] {
            let objects: Vec<_> = report.damage.iter().map(|damage| damage.object).collect();
            assert_eq!(objects, [Object::Commit { lsn: lsn(3) }, Object::Commit { lsn: lsn(4) }]);
            // The segment of LSN 3 is there, and the checkpoint knows it.
            assert_eq!((touched(&report), lost(&report)), (vec![(3, 5)], Some(vec![(5, 5)])));
            assert_eq!(readable(&report), Some((2, true)));
        }
    });
}

#[test]
fn a_damaged_body_of_a_commit_touches_the_pages_that_it_owns() {
    on_each_store(|world| {
        world.app();
        let whole = world.read(&commit("app", 2));
        for damaged in [[&whole[..whole.len() - 1], b"?"].concat(), whole[..whole.len() - 100].to_vec()] {
            world.replace(&commit("app", 2), damaged);
            let report = world.plain("app");
            let damage = the_damage(&report);
            assert_eq!((damage.object, ranges(&damage.pages)), (Object::Commit { lsn: lsn(2) }, vec![(2, 3)]));
            assert_eq!((touched(&report), lost(&report)), (vec![(2, 5)], Some(vec![(3, 3)])));
            assert_eq!(readable(&report), Some((1, true)));
        }
        // The header says who comes before and what is changed: without it, nothing behind it can be read.
        world.replace(&commit("app", 2), whole);
        world.flip(&commit("app", 2), 20);
        let report = world.plain("app");
        assert_eq!(the_damage(&report).object, Object::Commit { lsn: lsn(2) });
        assert_eq!((touched(&report), lost(&report)), (vec![(2, 5)], None));
    });
}

#[test]
fn a_damaged_newest_commit_leaves_the_one_before_it() {
    on_each_store(|world| {
        world.app();
        world.flip(&commit("app", 5), 20);
        for report in [world.plain("app"), world.deep("app")] {
            assert_eq!(the_damage(&report).object, Object::Commit { lsn: lsn(5) });
            assert_eq!((report.lsn, touched(&report), lost(&report)), (lsn(5), vec![(5, 5)], None));
            assert_eq!(readable(&report), Some((4, true)));
        }
    });
}

#[test]
fn a_commit_that_another_one_replaced_is_named() {
    on_each_store(|world| {
        world.app();
        world.push("other", 1..=3);
        world.push("other", [1]);
        let other = world.read(&commit("other", 2));
        world.replace(&commit("app", 2), other);
        let report = world.plain("app");
        let damage = the_damage(&report);
        assert_eq!(damage.object, Object::Commit { lsn: lsn(2) });
        assert!(damage.problem.contains("commit 3 names as its parent"), "{damage:?}");
        assert_eq!((touched(&report), readable(&report)), (vec![(2, 5)], Some((1, true))));
    });
}

#[test]
fn a_commit_that_another_one_replaced_is_not_read() {
    let world = World::in_folder();
    // The roll-up of LSN 1 to 64 has the headers, so that nothing but a page asks for commit 20.
    for n in 0..70 {
        world.push("app", [n + 1]);
        world.push("other", [n + 1, n + 100]);
    }
    let own = world.read(&commit("app", 20));
    world.replace(&commit("app", 20), world.read(&commit("other", 20)));
    let dir = tempfile::tempdir().unwrap();
    let engine = quire_engine::Engine::open(common::options(dir.path(), &world.bucket)).unwrap();
    let volume = engine.volume(&name("app")).unwrap();
    volume.pull().unwrap();
    let (mut page, at) = (vec![0; 4096], |n| quire_proto::PageIdx::new(n).unwrap());
    volume.snapshot().read(at(19), &mut page).unwrap();
    let error = volume.snapshot().read(at(20), &mut page).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.to_string().contains("LSN 20 of volume app is not the commit that its log has"), "{error}");
    assert_eq!(volume.hydrate(&mut |_, _| {}).unwrap_err().kind(), ErrorKind::Corrupt);
    // Once it is back, nothing remembers the other one.
    world.replace(&commit("app", 20), own);
    volume.snapshot().read(at(20), &mut page).unwrap();
}

#[test]
fn a_rollup_knows_the_pages_of_a_commit_that_is_gone() {
    let world = World::in_folder();
    for n in 0..70 {
        world.push("app", [n % 7 + 1]);
    }
    world.delete(&commit("app", 20));
    let report = world.plain("app");
    let damage = the_damage(&report);
    // LSN 20 owns page (19 % 7) + 1, which LSN 27 owns anew. Snapshots before LSN 64 have no roll-up.
    assert_eq!((damage.object, ranges(&damage.pages)), (Object::Commit { lsn: lsn(20) }, vec![(6, 6)]));
    assert_eq!((touched(&report), lost(&report)), (vec![(20, 63)], Some(vec![])));
    assert_eq!(readable(&report), Some((70, true)));
}

#[test]
fn a_damaged_checkpoint_costs_no_page() {
    on_each_store(|world| {
        world.app();
        world.volume("app").checkpoint().unwrap();
        is_sound(&world.deep("app"));
        let place = CheckpointPlace { lsn: lsn(5), generation: 0 };
        let key = keys::checkpoint(&name("app"), place);
        let whole = world.read(&key);
        let head = quire_proto::CheckpointHead::decode(&whole).unwrap();
        let leaf = head.leaves().next().unwrap().range().start as i64;
        let boot = (head.len_bytes() - 50) as i64;
        for at in [10, boot, leaf, -1] {
            world.flip(&key, at);
            for report in [world.plain("app"), world.deep("app")] {
                let damage = the_damage(&report);
                assert_eq!((damage.object, damage.pages.is_empty()), (Object::Checkpoint(place), true), "byte {at}");
                assert_eq!((touched(&report), readable(&report)), (vec![], Some((5, true))));
            }
            world.replace(&key, whole.clone());
        }
        world.replace(&key, whole[..whole.len() / 2].to_vec());
        assert_eq!(the_damage(&world.plain("app")).object, Object::Checkpoint(place));
        // With a commit missing besides, only the checkpoint could have helped.
        world.delete(&commit("app", 4));
        let report = world.plain("app");
        assert_eq!((report.damage.len(), touched(&report), lost(&report)), (2, vec![(4, 5)], None));
    });
}

#[test]
fn a_checkpoint_that_says_something_else_than_its_commits_is_found_deep_down() {
    let world = World::in_folder();
    world.app();
    world.volume("app").checkpoint().unwrap();
    let place = CheckpointPlace { lsn: lsn(5), generation: 0 };
    world.lie(&keys::checkpoint(&name("app"), place), 5);
    is_sound(&world.plain("app"));
    let report = world.deep("app");
    let damage = the_damage(&report);
    assert_eq!((damage.object, ranges(&damage.pages)), (Object::Checkpoint(place), vec![(5, 5)]));
    assert_eq!((touched(&report), lost(&report)), (vec![(5, 5)], Some(vec![(5, 5)])));
    assert_eq!(readable(&report), Some((4, true)));
}

#[test]
fn a_restore_reaches_back_over_what_is_damaged() {
    on_each_store(|world| {
        world.app();
        world.engine.restore(&name("app"), quire_engine::Moment::Lsn(lsn(2))).unwrap();
        world.push("app", [7]);
        world.delete(&world.segment("app", 3));
        let report = world.plain("app");
        assert_eq!(ranges(&the_damage(&report).pages), [(33, 60)]);
        assert_eq!((touched(&report), lost(&report)), (vec![(3, 5)], Some(vec![])));
        assert_eq!(readable(&report), Some((7, true)));
    });
}

#[test]
fn a_fork_is_verified_down_into_its_base_as_far_as_it_needs_that() {
    on_each_store(|world| {
        world.app();
        let at = quire_engine::Moment::Lsn(lsn(4));
        world.engine.fork(&name("app"), Some(at), &name("fork")).unwrap();
        world.push("fork", 33..=60);
        is_sound(&world.deep("fork"));
        // After the fork's base: not its business.
        world.flip(&commit("app", 5), 20);
        is_sound(&world.deep("fork"));
        // Owned anew before the fork's base: neither.
        world.flip(&world.segment("app", 1), -1000);
        is_sound(&world.deep("fork"));
        world.flip(&world.segment("app", 1), -1000);
        world.delete(&world.segment("app", 3));
        world.flip(&commit("app", 2), -1);
        let report = world.deep("fork");
        let found: Vec<_> =
            report.damage.iter().map(|d| (d.volume.as_str(), d.object.lsn(), ranges(&d.pages))).collect();
        assert_eq!(found, [("app", lsn(2), vec![(2, 3)]), ("app", lsn(3), vec![(33, 60)])]);
        assert_eq!((touched(&report), lost(&report)), (vec![(1, 2)], Some(vec![(2, 3)])));
        assert_eq!(readable(&report), None);
    });
}

#[test]
fn a_commit_whose_pages_nobody_knows_is_damage_to_a_fork_that_lacks_some() {
    on_each_store(|world| {
        world.app();
        world.volume("app").checkpoint().unwrap();
        world.engine.fork(&name("app"), None, &name("fork")).unwrap();
        world.push("fork", [1]);
        is_sound(&world.deep("fork"));
        world.delete(&commit("app", 4));
        for report in [world.plain("fork"), world.deep("fork")] {
            let damage = the_damage(&report);
            assert_eq!((damage.volume.as_str(), damage.object), ("app", Object::Commit { lsn: lsn(4) }));
            assert_eq!(lost(&report), Some(vec![(5, 5)]));
        }
    });
}

#[test]
fn what_is_damaged_below_a_chain_of_forks_is_counted_once() {
    let world = World::of(quire_bucket::Bucket::open("memory://").unwrap());
    for n in 0..210 {
        world.push("app", [n + 1]);
    }
    for (base, fork) in [("app", "fork"), ("fork", "fork/2")] {
        world.engine.fork(&name(base), None, &name(fork)).unwrap();
        world.push(fork, [1]);
        // Which says too what it stands on.
        world.volume(fork).checkpoint().unwrap();
    }
    for n in 1..=205 {
        world.delete(&commit("app", n));
    }
    for fork in ["fork", "fork/2"] {
        let report = world.plain(fork);
        assert_eq!((report.damage.len(), report.more_damage), (200, 5), "{fork}");
    }
}

#[test]
fn of_much_damage_the_first_is_listed_and_the_rest_counted() {
    let world = World::in_folder();
    for n in 0..210 {
        world.push("app", [n + 1]);
    }
    for n in 1..=205 {
        world.delete(&commit("app", n));
    }
    let report = world.plain("app");
    assert_eq!((report.damage.len(), report.more_damage), (200, 5));
    assert_eq!(report.lsn, lsn(210));
}

#[test]
fn what_cannot_be_reached_is_an_error_and_no_damage() {
    let world = World::in_folder();
    world.app();
    let error = world.verify("nobody", Depth::Deep).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let folder = world.bucket.url().strip_prefix("file://").unwrap().to_owned();
    std::fs::rename(&folder, format!("{folder}.away")).unwrap();
    let error = world.verify("app", Depth::Deep).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.remedy().is_some(), "{error:?}");
}

#[test]
fn a_store_that_does_not_answer_is_an_error_and_no_damage() {
    let server = quire_testkit::S3Server::start();
    let limits =
        quire_bucket::Limits { connect_deadline: std::time::Duration::ZERO, ..quire_bucket::Limits::default() };
    let options =
        quire_bucket::Options { variables: Some(server.variables()), limits, ..quire_bucket::Options::default() };
    let world = World::of(quire_bucket::Bucket::open_with(&server.url("gone"), options).unwrap());
    world.app();
    drop(server);
    let error = world.verify("app", Depth::Plain).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// As above, thousands deep: each is damaged, as it is no commit that the next one names.
#[test]
fn a_made_up_chain_of_forks_is_damage_and_takes_no_stack() {
    let world = World::of(quire_bucket::Bucket::open("memory://").unwrap());
    let volume = |n: u32| name(&format!("f{n}"));
    let draft = |at: u64, kind| CommitHeader::draft(lsn(at), kind, CommitId::new([7; 16]), PageSize::DEFAULT);
    for n in 1..=3000 {
        let mut fork = draft(1, CommitKind::Fork);
        fork.base = Base::Other { volume: volume(n - 1), lsn: lsn(2), hash: CommitHash::new([1; 32]) };
        let fork = SealedCommit::seal(fork, Body::default()).unwrap();
        let mut write = draft(2, CommitKind::Write);
        write.parent = Some(fork.hash());
        for commit in [&fork, &SealedCommit::seal(write, Body::default()).unwrap()] {
            let key = keys::commit(&volume(n), commit.lsn());
            world.wait(world.bucket.create(&key, commit.object().clone())).unwrap();
        }
    }
    for depth in [Depth::Plain, Depth::Deep] {
        let report = world.verify("f3000", depth).unwrap();
        assert!(!report.is_sound() && report.readable.is_none(), "{report:?}");
    }
}

/// Who can write to a log can say there what he likes. Hashes that were made up confirm nothing.
#[test]
fn volumes_that_claim_to_stand_on_each_other_are_damage_and_no_loop() {
    let world = World::in_folder();
    let put = |volume: &str, commit: &SealedCommit| {
        let key = keys::commit(&name(volume), commit.lsn());
        world.wait(world.bucket.create(&key, commit.object().clone())).unwrap();
    };
    let made_up = CommitHash::new([1; 32]);
    let draft = |at: u64, kind| CommitHeader::draft(lsn(at), kind, CommitId::new([7; 16]), PageSize::DEFAULT);
    for (volume, other, last) in [("a", "b", 2), ("b", "a", 2), ("alone", "alone", 2), ("far", "a", Lsn::MAX)] {
        let mut fork = draft(1, CommitKind::Fork);
        fork.base = Base::Other { volume: name(other), lsn: lsn(last), hash: made_up };
        let fork = SealedCommit::seal(fork, Body::default()).unwrap();
        let mut write = draft(2, CommitKind::Write);
        write.parent = Some(fork.hash());
        put(volume, &fork);
        put(volume, &SealedCommit::seal(write, Body::default()).unwrap());
    }
    for volume in ["a", "b", "alone", "far"] {
        for depth in [Depth::Plain, Depth::Deep] {
            match world.verify(volume, depth) {
                Ok(report) => assert!(!report.is_sound(), "{volume}: {report:?}"),
                Err(e) => assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound), "{volume}: {e:?}"),
            }
        }
    }
    let mut restore = draft(2, CommitKind::Restore);
    restore.parent = Some(made_up);
    restore.base = Base::Older { lsn: lsn(2), hash: made_up };
    SealedCommit::seal(restore, Body::default()).expect_err("a restore of what it makes itself");
}
