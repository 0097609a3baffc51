//! SQLite's source as Debian has it, and its test program, built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::debian::Archive;
use crate::process::run;
use crate::{paths, tools};

/// A release of SQLite whose scripts are known.
pub(super) struct Release {
    pub(super) version: &'static str,
    archive: Archive,
}

/// The first is the usual one: a stable Debian keeps what it has.
pub(super) static RELEASES: [Release; 2] = [
    Release {
        version: "3.46.1",
        archive: Archive {
            package: "sqlite3",
            file: "sqlite3_3.46.1.orig.tar.xz",
            suite: "trixie",
            sha256: "d0cdd2ece271b29e7ce18095745d892517ee26d0f270065b3a25c2e9eb11639c",
        },
    },
    Release {
        version: "3.53.4",
        archive: Archive {
            package: "sqlite3",
            file: "sqlite3_3.53.4.orig.tar.xz",
            suite: "sid",
            sha256: "05366adc8ee80c6b1faa71285b49d133c2121238ca58934b077fdeb95934abd4",
        },
    },
];

/// SQLite's source with what was built of it.
pub(super) struct Built {
    /// What belongs to this release.
    pub(super) folder: PathBuf,
    pub(super) source: PathBuf,
    /// SQLite's own test program.
    pub(super) testfixture: PathBuf,
}

/// The known release of this version.
pub(super) fn release(version: &str) -> Result<&'static Release> {
    let known = || RELEASES.iter().map(|release| release.version).collect::<Vec<_>>().join(" and ");
    RELEASES.iter().find(|release| release.version == version).with_context(|| format!("known are {}", known()))
}

/// Fetches and builds what is not there yet.
pub(super) fn built(release: &'static Release) -> Result<Built> {
    let folder = paths::target().join("sqlite").join(release.version);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _alone = locked(&folder)?;
    let source = folder.join("source");
    let testfixture = source.join("testfixture");
    if !testfixture.exists() {
        tools::tcl()?;
        release.archive.unpacked(&folder, &source, &[])?;
        build(&source, &folder.join("build.log"))?;
    }
    Ok(Built { folder, source, testfixture })
}

impl Built {
    /// Where a C compiler finds SQLite's headers.
    pub(super) fn include(&self) -> [PathBuf; 2] {
        ["", "src"].map(|part| PathBuf::from(format!("-I{}", self.source.join(part).display())))
    }

    /// A file that `build` makes, once for this release.
    pub(super) fn built_once(&self, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let _alone = locked(&self.folder)?;
        let file = self.folder.join(name);
        if !file.exists() {
            let unfinished = self.folder.join(format!("new-{name}"));
            build(&unfinished)?;
            fs::rename(&unfinished, &file)?;
        }
        Ok(file)
    }
}

/// Two runs must not build in one folder at the same time.
pub(super) fn locked(folder: &Path) -> Result<fs::File> {
    let name = folder.join("build.lock");
    let lock = fs::File::create(&name).with_context(|| format!("cannot create {}", name.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", name.display()))?;
    Ok(lock)
}

fn build(source: &Path, log: &Path) -> Result<()> {
    println!("building SQLite's testfixture in {}", source.display());
    let script = "./configure --enable-all --enable-load-extension && make testfixture";
    let file = fs::File::create(log)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(source).stdout(file.try_clone()?).stderr(file);
    run(&mut shell).with_context(|| format!("its output is in {}", log.display()))
}
