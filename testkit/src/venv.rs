//! Programs from the Python package index, installed once for all tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of installed programs, kept in the build folder between runs.
#[derive(Clone, Debug)]
pub struct Venv {
    folder: PathBuf,
}

impl Venv {
    /// Makes sure that `package` (with its exact version) is installed. Test
    /// processes that run at the same time wait for each other.
    pub fn with(package: &str) -> Venv {
        let target = target_folder();
        let folder = target.join("testkit-venv");
        let installed = folder.join(format!("installed-{package}"));
        fs::create_dir_all(&target).unwrap_or_else(|e| panic!("{}: {e}", target.display()));
        let lock = target.join("testkit-venv.lock");
        let lock = File::create(&lock).unwrap_or_else(|e| panic!("{}: {e}", lock.display()));
        lock.lock().expect("a lock on the folder of test programs");
        if !installed.exists() {
            if !folder.join("bin/pip").exists() {
                run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
            }
            run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", package]));
            File::create(&installed).unwrap_or_else(|e| panic!("{}: {e}", installed.display()));
        }
        Venv { folder }
    }

    /// The path of an installed program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} did not start: {e}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}
