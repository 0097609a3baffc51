//! Programs from Debian's archive, unpacked once for all tests: nothing is installed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use crate::venv::{run, target_folder};

/// The path of a program in a Debian package, such as `usr/bin/promtool` in `prometheus`. It has to run on its own.
/// Test processes that run at the same time wait for each other.
pub fn debian_program(package: &str, path: &str) -> PathBuf {
    let folder = target_folder().join("testkit-debian");
    let unpacked = folder.join(package);
    fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let lock = folder.join("lock");
    let lock = File::create(&lock).unwrap_or_else(|e| panic!("{}: {e}", lock.display()));
    lock.lock().expect("a lock on the folder of test programs");
    if !unpacked.exists() {
        let new = folder.join(format!("{package}.new"));
        // What an interrupted run has left.
        let _ = fs::remove_dir_all(&new);
        fs::create_dir(&new).unwrap_or_else(|e| panic!("{}: {e}", new.display()));
        let mut download = Command::new("apt-get");
        download.args(["download", "-q", package]).current_dir(&new);
        if !download.output().is_ok_and(|output| output.status.success()) {
            // A machine that has never asked what there is.
            run(Command::new("apt-get").args(["update", "-q"]));
            run(&mut download);
        }
        let mut files = fs::read_dir(&new).unwrap_or_else(|e| panic!("{}: {e}", new.display())).flatten();
        let archive = files.next().unwrap_or_else(|| panic!("{package} was not downloaded")).path();
        run(Command::new("dpkg-deb").arg("-x").args([&archive, &new]));
        fs::rename(&new, &unpacked).unwrap_or_else(|e| panic!("{}: {e}", unpacked.display()));
    }
    unpacked.join(path)
}
