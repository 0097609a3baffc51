//! SQLite's source as Debian has it, and its test program, built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{output, run};
use crate::{paths, tools};

/// A release of SQLite whose scripts are known.
pub(super) struct Release {
    pub(super) version: &'static str,
    /// The release of Debian that has it.
    suite: &'static str,
    /// Of the upstream archive.
    sha256: &'static str,
}

/// The first is the usual one: a stable Debian keeps what it has.
pub(super) static RELEASES: [Release; 2] = [
    Release {
        version: "3.46.1",
        suite: "trixie",
        sha256: "d0cdd2ece271b29e7ce18095745d892517ee26d0f270065b3a25c2e9eb11639c",
    },
    Release {
        version: "3.53.4",
        suite: "sid",
        sha256: "05366adc8ee80c6b1faa71285b49d133c2121238ca58934b077fdeb95934abd4",
    },
];

/// SQLite's source with what was built of it.
pub(super) struct Built {
    pub(super) version: &'static str,
    pub(super) folder: PathBuf,
    /// SQLite's own test program.
    pub(super) testfixture: PathBuf,
    /// `files.c`, which stands in for the files that scripts look into.
    pub(super) files: PathBuf,
}

/// The known release of this version.
pub(super) fn release(version: &str) -> Result<&'static Release> {
    let known = || RELEASES.iter().map(|release| release.version).collect::<Vec<_>>().join(" and ");
    RELEASES.iter().find(|release| release.version == version).with_context(|| format!("known are {}", known()))
}

/// Fetches and builds what is not there yet.
pub(super) fn built(release: &'static Release) -> Result<Built> {
    let folder = paths::target().join("sqlite").join(release.version);
    let source = folder.join("source");
    let testfixture = source.join("testfixture");
    if !testfixture.exists() {
        tools::tcl()?;
        let archive = fetched(release, &folder)?;
        paths::remove_folder(&source)?;
        fs::create_dir_all(&source)?;
        run(Command::new("tar").args(["--strip-components=1", "-C"]).arg(&source).arg("-xf").arg(&archive))?;
        build(&source, &folder.join("build.log"))?;
    }
    let files = folder.join("files.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-I"]).arg(&source).arg("-I").arg(source.join("src"));
    run(compiler.arg(paths::root().join("sqlite-vfs/scripts/files.c")).arg("-o").arg(&files))?;
    Ok(Built { version: release.version, folder: source, testfixture, files })
}

fn build(source: &Path, log: &Path) -> Result<()> {
    println!("building SQLite's testfixture in {}", source.display());
    let script = "./configure --enable-all --enable-load-extension && make testfixture";
    let file = fs::File::create(log)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(source).stdout(file.try_clone()?).stderr(file);
    run(&mut shell).with_context(|| format!("its output is in {}", log.display()))
}

/// The upstream archive, checked.
fn fetched(release: &Release, folder: &Path) -> Result<PathBuf> {
    let archive = folder.join(format!("sqlite3_{}.orig.tar.xz", release.version));
    if !archive.exists() {
        println!("fetching the source of SQLite {} from Debian {}", release.version, release.suite);
        fetch(release, folder)?;
    }
    let sum = output(Command::new("sha256sum").arg(&archive))?;
    if !sum.starts_with(release.sha256) {
        fs::remove_file(&archive)?;
        bail!("{} is not the archive that was pinned: its SHA-256 is {sum}", archive.display());
    }
    Ok(archive)
}

/// By Debian's client, with lists of its own, so that the machine's sources stay as they are.
fn fetch(release: &Release, folder: &Path) -> Result<()> {
    let apt = folder.join("apt");
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(part))?;
    }
    let sources = apt.join("sources.list");
    fs::write(&sources, format!("deb-src {} {} main\n", mirror()?, release.suite))?;
    let apt_get = |words: &[&str]| {
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        let mut command = Command::new("apt-get");
        command.current_dir(folder).args(["-q", "-o", "APT::Sandbox::User=root"]);
        for option in [
            option("Dir::Etc::SourceList", &sources),
            option("Dir::Etc::SourceParts", Path::new("/dev/null")),
            option("Dir::State::Lists", &apt.join("lists")),
            option("Dir::Cache", &apt.join("cache")),
            "APT::Update::Post-Invoke-Success::=".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        run(command.args(words))
    };
    apt_get(&["update"])?;
    apt_get(&["source", "--download-only", "sqlite3"])?;
    let wanted = format!("sqlite3_{}.orig.tar.xz", release.version);
    ensure!(
        folder.join(&wanted).exists(),
        "Debian {} has moved on to another SQLite than {}: pin the new one in {}, and see what changed",
        release.suite,
        release.version,
        file!()
    );
    Ok(())
}

/// Where this machine gets its Debian packages from.
fn mirror() -> Result<String> {
    let ask =
        || output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI) $(LABEL) $(COMPONENT)"]));
    let found = |text: String| {
        let main = text.lines().find_map(|line| line.strip_suffix(" Debian main"));
        main.map(str::to_owned)
    };
    let asked = ask().context("Debian's apt-get is needed to fetch SQLite's source")?;
    found(asked).context("apt-get knows no archive of Debian: run apt-get update")
}
