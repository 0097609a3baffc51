//! Files that are no database: in, through the store, and out again.
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{World, names_in, noise};

#[test]
fn every_length_comes_back_byte_for_byte_on_another_machine() {
    let world = World::new();
    let (here, there) = (world.machine("here"), world.machine("there"));
    for (len, page_size) in
        [(0, "4096"), (1, "512"), (4096, "4096"), (4097, "4096"), (300_000, "65536"), (2_500_001, "1024")]
    {
        let name = format!("files/of-{len}");
        let bytes = noise(len as u64, len);
        let file = world.file("source", &bytes);
        let imported = here.json(&["import", "--page-size", page_size, file.to_str().unwrap(), &name]);
        assert_eq!(imported["content"], "file");
        assert_eq!(imported["bytes"], len);
        assert_eq!(imported["page_size"].to_string(), page_size);
        here.ok(&["push", &name]);

        there.ok(&["clone", &name]);
        assert_eq!(there.json(&["info", &name])["bytes"], len);
        let copy = world.path(&format!("copy-{len}"));
        there.ok(&["export", &name, copy.to_str().unwrap()]);
        assert!(std::fs::read(&copy).unwrap() == bytes, "{len} bytes came back different");
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o600, 0o600);
    }
    assert_eq!(there.json(&["ls", "files/"]).as_array().unwrap().len(), 6);
}

#[test]
fn an_export_replaces_a_file_only_by_force_and_leaves_nothing_else() {
    let world = World::new();
    let here = world.machine("here");
    let source = world.file("source", noise(1, 10_000));
    here.ok(&["import", source.to_str().unwrap(), "v"]);
    std::fs::create_dir(world.path("out")).unwrap();
    let target = world.file("out/target", "precious");
    let target = target.to_str().unwrap();

    here.run(&["export", "v", target]).failed(1, "exists already");
    assert_eq!(std::fs::read(target).unwrap(), b"precious");
    here.ok(&["export", "--force", "v", target]);
    assert!(std::fs::read(target).unwrap() == std::fs::read(&source).unwrap());

    here.run(&["export", "v", world.path("out").to_str().unwrap()]).failed(2, "is a directory");
    let nowhere = here.run(&["export", "v", "no/such folder/file"]);
    nowhere.failed(1, "writing no/such folder/file: there is no folder no/such folder");
    assert!(nowhere.stderr.contains("mkdir -p 'no/such folder'"), "{nowhere:?}");
    assert_eq!(names_in(&world.path("out")), ["target"]);

    // SQLite would play it into the database that takes the place of the one it was written for.
    for log in ["target-wal", "target-journal"] {
        let left = world.file(&format!("out/{log}"), "of a program that was killed");
        let refused = here.run(&["export", "--force", "v", target]);
        refused.failed(3, &format!("{log} lies there"));
        std::fs::write(left, "").unwrap();
        here.ok(&["export", "--force", "v", target]);
    }
}

#[test]
fn an_export_takes_the_place_of_ordinary_files_only() {
    let world = World::new();
    let here = world.machine("here");
    let source = world.file("source", noise(1, 10_000));
    here.ok(&["import", source.to_str().unwrap(), "v"]);
    std::os::unix::fs::symlink(world.file("precious", "as it was"), world.path("link")).unwrap();
    for (target, what) in [("-", "standard output"), ("/dev/null", "a device"), ("link", "a link")] {
        here.run(&["export", "v", target, "--force"]).failed(2, what);
    }
    assert!(!world.path("-").exists() && world.path("link").is_symlink());
    assert_eq!(std::fs::read(world.path("precious")).unwrap(), b"as it was");
}

#[test]
fn an_import_refuses_what_it_can_not_take_and_changes_nothing() {
    let world = World::new();
    let here = world.machine("here");
    let file = world.file("file", "hello");
    let file = file.to_str().unwrap();
    here.ok(&["import", file, "taken"]);

    here.run(&["import", file, "taken"]).failed(1, "volume taken exists already");
    here.run(&["import", world.path("missing").to_str().unwrap(), "v"]).failed(1, "there is no file");
    here.run(&["import", world.path("").to_str().unwrap(), "v"]).failed(2, "is a directory");
    here.run(&["import", "/dev/null", "v"]).failed(2, "not a regular file");
    here.run(&["import", file, "../v"]).failed(2, "'..'");
    let path = here.run(&["import", file, "/srv/my.db"]);
    path.failed(2, "has an empty part");
    assert!(path.stderr.contains("such as team/app.db") && path.stderr.contains("fs/srv/my.db"), "{path:?}");
    assert_eq!(here.run(&["import", "--page-size", "1000", file, "v"]).status, Some(2));
    assert_eq!(here.json(&["ls"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_created_volume_can_be_filled_and_keeps_its_page_size() {
    let world = World::new();
    let here = world.machine("here");
    let file = world.file("file", noise(2, 5_000));
    here.ok(&["create", "--page-size", "1024", "v"]);
    here.run(&["create", "v"]).failed(1, "volume v exists already");
    let imported = here.json(&["import", file.to_str().unwrap(), "v"]);
    assert_eq!((imported["page_size"].as_u64(), imported["pages"].as_u64()), (Some(1024), Some(5)));
}
