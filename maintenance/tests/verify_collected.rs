//! History that was collected is no damage, unless somebody still needs it.
#![allow(clippy::unwrap_used)] // a failed expectation is what a test is for

mod common;

use std::sync::Arc;

use common::{World, commit, lsn, name, on_each_store, options};
use quire_bucket::keys;
use quire_engine::{Engine, Moment};
use quire_maintenance::collect::{Options, Stores, collect, keep};
use quire_maintenance::verify::{Object, Report};
use quire_proto::{
    Body, CheckpointInfo, CheckpointPlace, CommitHash, CommitHeader, CommitId, CommitKind, FrameIndex, LogUpkeep, Lsn,
    Metastore, Origin, PageCount, PageIdx, PageSet, PageSets, PageSize, Retention, SealedCommit, Span, Statement,
    encode_frame,
};

/// As if a collector that keeps what is from `horizon` on had let go the first commits, up to `last`.
fn stub(world: &World, last: u64, horizon: u64) {
    let store = quire_metastore::Embedded::new(world.bucket.clone(), quire_metastore::Options::default());
    let statement = Statement { horizon: lsn(horizon), ..Statement::all() };
    assert!(world.wait(store.state(&name("app"), 1, &statement)).unwrap());
    for n in 1..=last {
        world.wait(store.stub(&name("app"), lsn(n))).unwrap();
    }
}

fn stores(world: &World) -> Stores {
    let store = Arc::new(quire_metastore::Embedded::new(world.bucket.clone(), quire_metastore::Options::default()));
    Stores::new(store, Arc::new(quire_pagestore::Embedded::new(world.bucket.clone())))
}

/// Collects what is older than the newest commits, and not one of those named; the new horizon.
fn collect_all_but(world: &World, newest: u64, named: &[u64]) -> Result<Lsn, quire_proto::Error> {
    let (stores, app) = (stores(world), name("app"));
    let named = named.iter().copied().map(lsn).collect();
    let wanted = Retention { span: Span::Last(newest), named };
    world.wait(keep(&stores, &app, |kept| *kept = wanted.clone())).unwrap();
    let options = Options { grace_ms: 0, ..Options::default() };
    Ok(world.wait(collect(&stores, &app, &options))?.unwrap().horizon)
}

/// A volume of seven commits of which the last and LSN 3 were kept.
fn collected(world: &World) {
    for n in 1..=7 {
        world.push("app", 20 * n..20 * n + 60);
    }
    collect_all_but(world, 1, &[3]).unwrap();
    for report in [world.plain("app"), world.deep("app")] {
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.collected, report.readable), (5, Some(lsn(7))));
    }
}

fn checkpoint(n: u64) -> quire_bucket::Key {
    keys::checkpoint(&name("app"), CheckpointPlace { lsn: lsn(n), generation: 0 })
}

/// A log of so many commits, of which each writes one page of fifty.
fn long_log(world: &World, last: u64) {
    let (page_size, page_count) = (PageSize::try_new(512).unwrap(), PageCount::new(50));
    let mut parent = None;
    for n in 1..=last {
        let kind = if n == 1 { CommitKind::Create } else { CommitKind::Write };
        let mut header = CommitHeader::draft(lsn(n), kind, CommitId::new(u128::from(n).to_le_bytes()), page_size);
        (header.parent, header.page_count) = (parent, page_count);
        if n > 1 {
            header.min_count = page_count;
        }
        let pages = PageSet::from_iter(PageIdx::new(1 + (n % 50) as u32));
        let frame = encode_frame(&pages, page_size, &[n as u8; 512]).unwrap();
        let index = FrameIndex::inline([(frame.first, frame.page_count, frame.bytes.len() as u32)]);
        let body = Body { sets: PageSets::same(pages), index, inline: frame.bytes };
        let commit_n = SealedCommit::seal(header, body).unwrap();
        parent = Some(commit_n.hash());
        world.wait(world.bucket.create(&commit("app", n), commit_n.object().clone())).unwrap();
    }
}

/// A copy of the newest snapshot that can be read according to a report.
fn can_be_saved(world: &World, report: &Report) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(dir.path(), &world.bucket)).unwrap();
    let at = engine.volume_at(&name("app"), Moment::Lsn(report.readable.unwrap())).unwrap();
    at.hydrate(&mut |_, _| ()).unwrap();
}

#[test]
fn a_checkpoint_without_which_nothing_can_be_read_is_missed() {
    on_each_store(|world| {
        collected(world);
        world.delete(&checkpoint(7));
        for report in [world.plain("app"), world.deep("app")] {
            let damage = &report.damage[0];
            assert_eq!(damage.object, Object::Checkpoint(CheckpointPlace { lsn: lsn(7), generation: 0 }), "{report:?}");
            assert!(damage.problem.contains("LSN 7, which is to be kept, cannot be read"), "{damage:?}");
            assert_eq!((report.damage.len(), &report.lost), (1, &None));
            assert_eq!((&report.touched[..], report.readable), (&[(lsn(7), lsn(7))][..], Some(lsn(3))));
            can_be_saved(world, &report);
        }
    });
}

#[test]
fn commits_do_not_go_for_a_checkpoint_that_says_something_else() {
    on_each_store(|world| {
        world.app();
        world.volume("app").checkpoint().unwrap();
        world.lie(&checkpoint(5), 5);
        let stays = |newest| {
            let error = collect_all_but(world, newest, &[]).unwrap_err();
            assert_eq!(error.kind(), quire_proto::ErrorKind::Corrupt, "{error:?}");
            assert!(error.to_string().contains("LSN 5: it does not say of 1 pages what the commits say"), "{error}");
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("verify app --deep")), "{error:?}");
            let store = quire_metastore::Embedded::new(world.bucket.clone(), quire_metastore::Options::default());
            assert_eq!(world.wait(store.statement(&name("app"))).unwrap().horizon, lsn(1));
        };
        stays(1);
        // What was made from it says the same, and goes the same way.
        world.push("app", [7]);
        world.volume("app").checkpoint().unwrap();
        assert!(collect_all_but(world, 1, &[]).unwrap_err().to_string().contains("LSN 6: it does not say"));
        stays(2);
        // Without them all is well, and what goes are the commits.
        world.delete(&checkpoint(5));
        world.delete(&checkpoint(6));
        assert_eq!(collect_all_but(world, 2, &[]).unwrap(), lsn(5));
        assert!(world.deep("app").is_sound());
    });
}

#[test]
fn commits_do_not_go_for_a_checkpoint_that_stands_on_something_else() {
    let forgeries: [&dyn Fn(&mut CheckpointInfo); 5] = [
        &|info| info.origin = Some(Origin { volume: name("other"), lsn: lsn(1), hash: CommitHash::new([1; 32]) }),
        &|info| drop(info.attributes.insert("content".into(), "forged".into())),
        &|info| info.page_size = PageSize::try_new(8192).unwrap(),
        // Replicas would be told that the volume is another one.
        &|info| info.began = lsn(5),
        &|info| info.incarnation = CommitId::new([9; 16]),
    ];
    for forgery in forgeries {
        let world = World::in_folder();
        world.app();
        world.volume("app").checkpoint().unwrap();
        world.forge(&checkpoint(5), |info, _, _| forgery(info));
        let error = collect_all_but(&world, 1, &[]).unwrap_err();
        assert!(error.to_string().contains("LSN 5: it does not say of 60 pages what the commits say"), "{error}");
        let damage = world.deep("app").damage;
        let told = damage.iter().any(|damage| damage.object.kind() == "checkpoint" && damage.pages.len() == 60);
        assert!(told, "{damage:?}");
    }
}

#[test]
fn commits_do_not_go_for_a_checkpoint_whose_pages_are_in_a_segment_that_it_does_not_list() {
    on_each_store(|world| {
        world.app();
        world.volume("app").checkpoint().unwrap();
        world.misplace(&checkpoint(5), 5, CheckpointPlace { lsn: lsn(4), generation: 1 });
        let error = collect_all_but(world, 1, &[]).unwrap_err();
        assert_eq!(error.kind(), quire_proto::ErrorKind::Corrupt, "{error:?}");
        assert!(error.to_string().contains("LSN 5: it says that page 5 is in a segment which it does not"), "{error}");
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("verify app --deep")), "{error:?}");
        for report in [world.plain("app"), world.deep("app")] {
            assert_eq!(report.damage.len(), 1, "{report:?}");
            let damage = &report.damage[0];
            assert_eq!(damage.object, Object::Checkpoint(CheckpointPlace { lsn: lsn(5), generation: 0 }));
            assert!(damage.problem.contains("segments which it does not list"), "{damage:?}");
            assert_eq!(damage.pages.ranges().collect::<Vec<_>>(), [(5, 5)]);
            assert_eq!(report.lost.as_ref().unwrap().ranges().collect::<Vec<_>>(), [(5, 5)]);
            assert_eq!((&report.touched[..], report.readable), (&[(lsn(5), lsn(5))][..], Some(lsn(4))));
            can_be_saved(world, &report);
        }
    });
}

#[test]
fn a_damaged_commit_does_not_hide_what_is_wrong_with_checkpoints_after_it() {
    let world = World::of(quire_bucket::Bucket::open("memory://").unwrap());
    // So long that a checkpoint in between is compared too.
    long_log(&world, 4200);
    let (stores, app) = (stores(&world), name("app"));
    for n in [4100, 4200] {
        let head = world.wait(stores.log.header(&app, lsn(n))).unwrap();
        world.wait(quire_history::checkpoint(&stores.reader, &app, &head, &[])).unwrap();
    }
    world.flip(&commit("app", 100), -1);
    world.lie(&checkpoint(4200), 7);
    let error = collect_all_but(&world, 1, &[]).unwrap_err();
    assert!(error.to_string().contains("LSN 4200: it does not say of 1 pages what the commits say"), "{error}");
    assert_eq!(world.wait(stores.log.statement(&app)).unwrap().horizon, lsn(1));
}

#[test]
fn a_report_says_that_nothing_can_go() {
    let world = World::in_folder();
    world.app();
    world.volume("app").checkpoint().unwrap();
    world.lie(&checkpoint(5), 5);
    let stores = stores(&world);
    let app = name("app");
    world.wait(keep(&stores, &app, |kept| kept.span = Span::Last(1))).unwrap();
    let options = Options { report_at_ms: Some(u64::MAX), ..Options::default() };
    let error = world.wait(collect(&stores, &app, &options)).unwrap_err();
    assert!(error.to_string().contains("LSN 5: it does not say of 1 pages"), "{error}");
}

#[test]
fn the_checkpoint_of_a_snapshot_that_is_kept_is_missed() {
    on_each_store(|world| {
        collected(world);
        world.engine.fork(&name("app"), Some(Moment::Lsn(lsn(3))), &name("fork")).unwrap();
        world.delete(&checkpoint(3));
        for report in [world.plain("app"), world.deep("app")] {
            assert_eq!(report.damage.len(), 1, "{report:?}");
            assert!(report.damage[0].problem.contains("LSN 3, which is to be kept, cannot be read"), "{report:?}");
            assert_eq!((&report.touched[..], report.readable), (&[(lsn(3), lsn(3))][..], Some(lsn(7))));
            can_be_saved(world, &report);
        }
        for report in [world.plain("fork"), world.deep("fork")] {
            assert!(report.damage[0].problem.contains("LSN 3, which somebody stands on"), "{report:?}");
            assert_eq!((&report.lost, report.readable), (&None, None));
        }
    });
}

#[test]
fn a_segment_of_a_collected_commit_is_missed_by_those_who_need_it() {
    on_each_store(|world| {
        collected(world);
        let lost = world.segment("app", 2);
        let bytes = world.read(&lost);
        world.delete(&lost);
        for report in [world.plain("app"), world.deep("app")] {
            assert_eq!(report.damage.len(), 1, "{report:?}");
            // LSN 7 takes pages 40 to 59 from it, and LSN 3 too.
            assert_eq!(report.damage[0].pages.ranges().collect::<Vec<_>>(), [(40, 59)], "{report:?}");
            assert_eq!(report.lost.as_ref().unwrap().ranges().collect::<Vec<_>>(), [(40, 59)]);
            assert_eq!(report.touched, [(lsn(3), lsn(3)), (lsn(7), lsn(7))]);
            assert_eq!(report.readable, None);
        }
        world.replace(&lost, bytes);
        world.flip(&world.segment("app", 6), 100);
        assert!(world.plain("app").is_sound());
        let report = world.deep("app");
        assert_eq!((report.damage.len(), report.readable), (1, Some(lsn(3))), "{report:?}");
        assert!(!report.lost.as_ref().unwrap().is_empty());
        can_be_saved(world, &report);
    });
}

#[test]
fn a_stub_of_another_commit_is_noticed() {
    on_each_store(|world| {
        collected(world);
        for n in 1..=5 {
            world.push("other", n..20);
        }
        let store = quire_metastore::Embedded::new(world.bucket.clone(), quire_metastore::Options::default());
        world.wait(store.stub(&name("other"), lsn(4))).unwrap();
        world.replace(&commit("app", 4), world.read(&commit("other", 4)));
        for report in [world.plain("app"), world.deep("app")] {
            assert_eq!(report.damage.len(), 1, "{report:?}");
            assert_eq!(report.damage[0].object, Object::Commit { lsn: lsn(4) });
            assert!(report.damage[0].problem.contains("commit 5 names as its parent"), "{report:?}");
            assert_eq!((&report.touched[..], report.readable), (&[][..], Some(lsn(7))), "nobody needs it");
        }
    });
}

#[test]
fn collected_commits_are_no_damage() {
    on_each_store(|world| {
        world.push("app", 1..=40);
        world.push("app", 33..=60);
        world.push("app", 1..=40);
        world.volume("app").checkpoint().unwrap();
        world.push("app", [5]);
        // Of the first nobody needs anything any more, of the second its segment.
        stub(world, 2, 3);
        world.delete(&world.segment("app", 1));
        for report in [world.plain("app"), world.deep("app")] {
            assert!(report.is_sound() && report.touched.is_empty(), "{report:?}");
            assert_eq!((report.commits, report.collected, report.readable), (4, 2, Some(lsn(4))));
        }
    });
}

#[test]
fn what_a_checkpoint_needs_of_a_collected_commit_is_damage() {
    on_each_store(|world| {
        world.app();
        world.volume("app").checkpoint().unwrap();
        world.push("app", [7]);
        // LSN 2 has page 3 of the newest snapshot in itself.
        stub(world, 2, 5);
        for report in [world.plain("app"), world.deep("app")] {
            assert_eq!(report.damage.len(), 1, "{report:?}");
            let damage = &report.damage[0];
            assert_eq!(damage.object, Object::Commit { lsn: lsn(2) });
            assert!(damage.problem.contains("checkpoint of LSN 5 needs it"), "{damage:?}");
            assert_eq!(damage.pages.ranges().collect::<Vec<_>>(), [(3, 3)]);
            assert_eq!(report.touched, [(lsn(5), lsn(6))]);
        }
    });
}
