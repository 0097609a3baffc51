//! CPython's own tests of its `sqlite3` module, with the Python of the system
//! and the SQLite that it uses. `sqlite-vfs/scripts/cpython.py` runs them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::bench::{Bench, scripts_folder};
use super::debian::Archive;
use super::script::{self, Outcome};
use super::source;
use crate::process::output;
use crate::{paths, tools};

/// Tests belong to a Python: those of another one would test what it does not have.
const PYTHON: &str = "3.11";

static ARCHIVE: Archive = Archive {
    package: "python3.11",
    file: "python3.11_3.11.2.orig.tar.gz",
    suite: "bookworm",
    sha256: "2411c74bda5bbcfcddaf4531f66d1adc73f247f529aee981b029513aefdbf849",
};

/// The parts of the archive that are needed.
const PARTS: [&str; 3] = ["Lib/test/__init__.py", "Lib/test/support", "Lib/test/test_sqlite3"];

/// Runs them all.
pub(super) fn run(bench: &Bench, name: &str) -> Result<Outcome> {
    let python = tools::python()?;
    let version = output(Command::new(&python).args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]))?;
    ensure!(
        version.trim() == PYTHON,
        "the tests are those of Python {PYTHON}, and {} is {}: pin its source in {}",
        python.display(),
        version.trim(),
        file!()
    );
    let home = bench.home(name)?;
    let mut command = Command::new(python);
    command.arg("-B").arg(scripts_folder().join("cpython.py")).arg(tests()?.join("Lib"));
    Ok(script::outcome(bench.run(&mut command, &home, name)?))
}

/// The folder with the tests, fetched once.
fn tests() -> Result<PathBuf> {
    let folder = paths::target().join("sqlite/cpython");
    let unpacked = folder.join("source");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _alone = source::locked(&folder)?;
    let all = folder.join("complete");
    if !all.exists() {
        ARCHIVE.unpacked(&folder, &unpacked, &PARTS)?;
        fs::write(&all, "")?;
    }
    Ok(unpacked)
}
