//! The commit matrix: every transaction is committed exactly or gone exactly,
//! whichever call fails or is the last one. `e2e/matrix/README.md` tells how.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::paths::{self, Profile};
use crate::{process, suite, tools};

/// The oldest SQLite and the newest one that it is run on.
const SQLITES: [(&str, Prepare); 2] = [("3.40.1", tools::debian_apsw), ("3.54.1", tools::python_environment)];

/// Gives a Python with `apsw`, which brings the SQLite.
type Prepare = fn() -> Result<PathBuf>;

/// Processes are killed here, not machines: a disk would only take time.
const MEMORY_FOLDER: &str = "/dev/shm";

/// Builds what the matrix needs, and runs it.
pub(crate) fn run() -> Result<()> {
    suite::cargo(&["build", "--package", "quire-sqlite"])?;
    run_built()
}

/// Runs it on every SQLite, against the debug build.
pub(crate) fn run_built() -> Result<()> {
    let program = paths::root().join("e2e/matrix/matrix.py");
    for (version, prepare) in SQLITES {
        println!("\n== commit matrix on SQLite {version}");
        let mut python = Command::new(prepare()?);
        // Python must not write compiled files beside the program.
        python.arg("-B").arg(&program).arg(paths::extension(Profile::Debug)).arg(version);
        if Path::new(MEMORY_FOLDER).is_dir() {
            python.env("TMPDIR", MEMORY_FOLDER);
        }
        process::run(&mut python)?;
    }
    Ok(())
}
