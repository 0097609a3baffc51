//! Flipped bits, cut files and missing ones, in the store and in a data
//! directory: found each time, and never taken for right.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::fs;
use std::path::{Path, PathBuf};

use quire_e2e::{World, content, files_below, text_of};
use quire_testkit::seed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// SQLite's code, without what extends it.
const IOERR: i32 = 10;

#[test]
fn damage_in_the_store_is_found_and_never_taken_for_right() {
    let mut rng = StdRng::seed_from_u64(seed());
    for rows in [20, 2000] {
        let world = World::new();
        let here = world.machine("here");
        let file = here.import_sample("app", rows);
        here.ok(&["push", "app"]);
        let expected = content(&file);
        let objects: Vec<PathBuf> = files_below(&world.path("store/v"));
        // A small commit carries its pages. A large one has a segment, and a checkpoint with its marker after it.
        assert_eq!(objects.len(), if rows == 20 { 1 } else { 4 }, "{objects:?}");
        for object in &objects {
            let sound = fs::read(object).unwrap();
            for _ in 0..12 {
                let at = rng.random_range(0..sound.len());
                let mut damaged = sound.clone();
                damaged[at] ^= 1 << rng.random_range(0..8);
                fs::write(object, damaged).unwrap();
                let there = world.machine("there");
                let ended = there.run(&["export", "--force", "app", text_of(&world.path("copy.db"))]);
                let what = format!("byte {at} of {}", object.display());
                if ended.status == Some(0) {
                    // Not all bytes of a segment are read: its own directory of pages is for those who lost the commit.
                    assert_eq!(content(&world.path("copy.db")), expected, "{what}");
                } else {
                    assert_eq!(ended.status, Some(4), "{what}: {ended:?}");
                    assert!(ended.stderr.contains("\nremedy: "), "{what}: {ended:?}");
                }
                fs::write(object, &sound).unwrap();
                there.holds("app", &file);
                fs::remove_dir_all(there.data_dir()).unwrap();
            }
        }
        // A file that is cut is damage, too, and so is one that is gone. But nothing depends on a checkpoint and its marker.
        for object in &objects {
            let sound = fs::read(object).unwrap();
            fs::write(object, &sound[..sound.len() / 2]).unwrap();
            let there = world.machine("there");
            if ["/ck/", "/mark/"].iter().any(|part| text_of(object).contains(part)) {
                there.holds("app", &file);
                fs::remove_file(object).unwrap();
                fs::remove_dir_all(there.data_dir()).unwrap();
                there.holds("app", &file);
                fs::write(object, &sound).unwrap();
                fs::remove_dir_all(there.data_dir()).unwrap();
                continue;
            }
            there.run(&["export", "app", "nothing"]).failed(4, "app");
            assert!(!world.path("nothing").exists());
            fs::remove_file(object).unwrap();
            let _ = fs::remove_dir_all(there.data_dir());
            let ended = there.run(&["export", "app", "nothing"]);
            assert!(matches!(ended.status, Some(1 | 4)) && ended.stderr.contains("\nremedy: "), "{ended:?}");
            fs::write(object, &sound).unwrap();
            let _ = fs::remove_dir_all(there.data_dir());
        }
    }
}

#[test]
fn damage_of_fetched_pages_reaches_a_program_as_an_error() {
    let world = World::new();
    let here = world.machine("here");
    let file = here.import_sample("app", 2000);
    here.ok(&["push", "app"]);
    let segment = files_below(&world.path("store/v/app/!/seg")).swap_remove(0);
    let sound = fs::read(&segment).unwrap();
    let mut damaged = sound.clone();
    // In the middle lie pages in the middle of the table.
    damaged[sound.len() / 2] ^= 1;
    fs::write(&segment, damaged).unwrap();
    let there = world.machine("there");
    let mut app = there.app("app");
    assert_eq!(app.one("SELECT count(*) FROM t WHERE n < 10"), "9", "what is sound can be read");
    let failure = app.failure("SELECT sum(length(body)) FROM t");
    assert_eq!(failure.code & 0xff, IOERR, "{failure:?}");
    let status = app.one("SELECT last_error, remedy FROM quire_status");
    assert!(status.contains("checksum") && !status.ends_with("|NULL"), "{status}");
    fs::write(&segment, sound).unwrap();
    assert_eq!(app.one("SELECT count(*) FROM t"), "2000", "the same connection goes on");
    app.finish();
    there.holds("app", &file);
}

#[test]
fn damage_in_a_data_directory_is_found_and_never_taken_for_right() {
    let mut rng = StdRng::seed_from_u64(seed());
    let world = World::new();
    let here = world.machine("here");
    let file = here.import_sample("app", 300);
    here.ok(&["push", "app"]);
    let expected = content(&file);
    let there = world.machine("there");
    there.ok(&["clone", "app"]);
    there.ok(&["hydrate", "app"]);
    for machine in [&here, &there] {
        let original = world.path("original");
        copy_folder(machine.data_dir(), &original);
        for _ in 0..40 {
            let all = files_below(machine.data_dir());
            let victim = &all[rng.random_range(0..all.len())];
            let mut bytes = fs::read(victim).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
            fs::write(victim, bytes).unwrap();
            let ended = machine.run(&["export", "--force", "app", text_of(&world.path("copy.db"))]);
            let what = format!("byte {at} of {}", victim.display());
            if ended.status == Some(0) {
                assert_eq!(content(&world.path("copy.db")), expected, "{what}");
            } else {
                assert_eq!(ended.status, Some(4), "{what}: {ended:?}");
                assert!(ended.stderr.contains("\nremedy: "), "{what}: {ended:?}");
            }
            fs::remove_dir_all(machine.data_dir()).unwrap();
            copy_folder(&original, machine.data_dir());
        }
        fs::remove_dir_all(original).unwrap();
        machine.holds("app", &file);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}
