//! Whatever Quire writes is found sound.
#![allow(clippy::unwrap_used)] // a failed expectation is what a test is for

mod common;

use common::{World, commit, lsn, name, on_each_store};
use quire_engine::Moment;
use quire_maintenance::verify::Report;

fn is_sound(world: &World, volume: &str) -> Report {
    let plain = world.plain(volume);
    assert!(plain.is_sound() && plain.touched.is_empty(), "{plain:?}");
    let deep = world.deep(volume);
    assert!(deep.is_sound() && deep.touched.is_empty(), "{deep:?}");
    assert_eq!((plain.commits, plain.segments), (deep.commits, deep.segments));
    assert!(deep.bytes >= plain.bytes);
    deep
}

#[test]
fn volumes_of_every_page_size_are_sound() {
    on_each_store(|world| {
        for (n, page_size) in [512, 4096, 65536].into_iter().enumerate() {
            let volume = format!("of-{page_size}");
            world.push_sized(&volume, page_size, 1..=200);
            world.push_sized(&volume, page_size, (1..=200).step_by(n + 3));
            world.truncate(&volume, 50);
            world.push_sized(&volume, page_size, [90]);
            world.volume(&volume).checkpoint().unwrap();
            world.push_sized(&volume, page_size, [1]);
            let report = is_sound(world, &volume);
            // The first push of the largest pages is large enough for a checkpoint of its own.
            let checkpoints = if page_size == 65536 { 2 } else { 1 };
            assert_eq!((report.lsn, report.page_count.get(), report.checkpoints), (lsn(5), 90, checkpoints));
        }
    });
}

#[test]
fn forks_restores_renames_and_second_lives_are_sound() {
    on_each_store(|world| {
        world.app();
        world.engine.restore(&name("app"), Moment::Lsn(lsn(2))).unwrap();
        world.push("app", [3]);
        world.volume("app").checkpoint().unwrap();
        is_sound(world, "app");
        world.engine.fork(&name("app"), Some(Moment::Lsn(lsn(4))), &name("fork")).unwrap();
        world.push("fork", [1, 70]);
        world.volume("fork").checkpoint().unwrap();
        world.engine.fork(&name("fork"), None, &name("fork/2")).unwrap();
        is_sound(world, "fork");
        is_sound(world, "fork/2");
        world.engine.rename(&name("app"), &name("renamed")).unwrap();
        assert_eq!(is_sound(world, "renamed").page_count.get(), 40);
        world.engine.remove_replica(&name("fork"), true).unwrap();
        world.engine.delete_in_store(&name("fork")).unwrap();
        let ended = is_sound(world, "fork");
        assert_eq!((ended.readable, ended.restorable), (Some(lsn(2)), true));
        world.push("fork", [1, 2]);
        let again = is_sound(world, "fork");
        assert_eq!((again.readable, again.lsn, again.page_count.get()), (Some(lsn(4)), lsn(4), 2));
        // What was forked from its first life is still there.
        is_sound(world, "fork/2");
    });
}

#[test]
fn a_long_history_with_many_checkpoints_is_sound() {
    let world = World::in_folder();
    for n in 0..140 {
        world.push("app", [n % 50 + 1, n % 7 + 100]);
        if n % 40 == 39 {
            world.volume("app").checkpoint().unwrap();
        }
    }
    let report = is_sound(&world, "app");
    assert_eq!((report.commits, report.checkpoints), (140, 3));
}

#[test]
fn forks_of_forks_are_sound_however_many() {
    let world = World::of(quire_bucket::Bucket::open("memory://").unwrap());
    world.app();
    let fork = |n: u32| name(&if n == 0 { "app".to_owned() } else { format!("f{n}") });
    for n in 1..=1000 {
        world.engine.fork(&fork(n - 1), None, &fork(n)).unwrap();
        world.engine.remove_replica(&fork(n - 1), false).unwrap();
    }
    assert_eq!(is_sound(&world, "f1000").page_count.get(), 60);
    // What is damaged far below is known at the top.
    world.delete(&commit("app", 4));
    let report = world.plain("f1000");
    assert_eq!((report.damage.len(), report.touched.len()), (1, 1), "{report:?}");
    assert_eq!(report.damage[0].volume, name("app"));
}
