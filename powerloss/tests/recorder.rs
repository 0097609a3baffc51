//! The recorder sees all that a program does to its disk: its recording, replayed, is the folder that is there.
//!
//! The recorded program is this test program, which the recorder starts anew with [`PROGRAM`] set.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of tests may panic like tests

use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use quire_powerloss::{Disk, Event, Image, read_events};
use rustix::fs::{FallocateFlags, OFlags};

const RECORDER: &str = env!("CARGO_BIN_EXE_quire-powerloss-recorder");
/// Which of the programs below is to run.
const PROGRAM: &str = "RECORDED_PROGRAM";

/// Runs the program of this name in `folder`, and records what it does there.
fn record(folder: &Path, recording: &Path, program: &str) -> Output {
    let mut command = Command::new(RECORDER);
    command.arg(folder).arg(recording).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "the_program_that_is_recorded", "--ignored", "--nocapture"]);
    command.env(PROGRAM, program).current_dir(folder).output().unwrap()
}

#[test]
#[ignore = "runs below the recorder only"]
fn the_program_that_is_recorded() {
    match std::env::var(PROGRAM).unwrap().as_str() {
        "everything" => do_everything(),
        "fail" => std::process::exit(7),
        "map" => {
            let file = File::options().read(true).write(true).create_new(true).open("f").unwrap();
            file.set_len(9).unwrap();
            let both = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
            // SAFETY: nobody looks at the mapped bytes.
            let _ = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 9, both, rustix::mm::MapFlags::SHARED, &file, 0) };
        }
        "copy" => {
            fs::write("f", "x").unwrap();
            let _ = fs::copy("f", "g");
        }
        "nameless" => drop(rustix::fs::open(".", OFlags::TMPFILE | OFlags::WRONLY, rustix::fs::Mode::RUSR)),
        "symlink" => symlink("a", "b").unwrap(),
        "move" => drop(fs::rename("/nowhere", "here")),
        "fork" => drop(Command::new("true").status()),
        program => panic!("there is no program {program}"),
    }
}

fn do_everything() {
    fs::create_dir("d").unwrap();
    fs::create_dir("gone").unwrap();
    fs::remove_dir("gone").unwrap();
    let mut file = File::options().read(true).write(true).create_new(true).open("d/f").unwrap();
    file.write_all(b"0123456789").unwrap();
    file.write_all_at(b"ab", 3).unwrap();
    assert_eq!(file.write_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"yz")]).unwrap(), 3);
    assert_eq!(rustix::io::pwritev(&file, &[IoSlice::new(b"P"), IoSlice::new(b"Q")], 0).unwrap(), 2);
    // This one goes past libc.
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 5000).unwrap();
    file.set_len(20).unwrap();
    file.sync_data().unwrap();
    let mut same = file.try_clone().unwrap();
    drop(file);
    same.write_all(b"!").unwrap();
    same.sync_all().unwrap();
    File::options().append(true).open("d/f").unwrap().write_all(b"end").unwrap();
    fs::hard_link("d/f", "d/g").unwrap();
    fs::rename("d/g", "h").unwrap();
    fs::rename("d", "e").unwrap();
    fs::write("e/t", "long").unwrap();
    fs::write("e/t", "t").unwrap();
    fs::write("u", "").unwrap();
    fs::remove_file("u").unwrap();
    File::open("e").unwrap().sync_all().unwrap();
    fs::write("/dev/null", "elsewhere").unwrap();
    assert!(fs::create_dir("e").is_err());
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                let mut file = File::create(format!("thread-{thread}")).unwrap();
                (0..200).for_each(|n| file.write_all(&[thread, n]).unwrap());
            });
        }
    });
    println!("done");
}

#[test]
fn a_recording_replayed_is_the_folder_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let recording = dir.path().join("recording");
    let output = record(&folder, &recording, "everything");
    assert!(output.status.success(), "{output:?}");
    let events = read_events(&recording).unwrap();
    let mut disk = Disk::new(&Image::default());
    events.iter().for_each(|event| disk.replay(event).unwrap());
    assert_eq!(disk.current().difference(&Image::read(&folder).unwrap()), None);
    assert_eq!(events.first(), Some(&Event::Started));
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Synced { .. })).count(), 3);
    let said = |event: &Event| matches!(event, Event::Said { bytes } if bytes.starts_with(b"done\n"));
    assert!(events.iter().any(said));
}

#[test]
fn the_status_of_the_program_is_that_of_the_recorder() {
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("recording");
    assert_eq!(record(dir.path(), &recording, "fail").status.code(), Some(7));
}

#[test]
fn what_cannot_be_recorded_is_refused() {
    for program in ["map", "copy", "nameless", "symlink", "move", "fork"] {
        let dir = tempfile::tempdir().unwrap();
        let output = record(dir.path(), &dir.path().join("recording"), program);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{program}: {output:?}");
        assert!(said.contains("quire-powerloss-recorder: the recorder"), "{program}: {said}");
    }
}
