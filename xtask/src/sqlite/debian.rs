//! Source archives as Debian has them, which its client fetches and this file checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::paths;
use crate::process::{output, run};

/// An archive of one upstream release.
pub(super) struct Archive {
    /// Debian's name for the source.
    pub(super) package: &'static str,
    /// The file's name in Debian's archive.
    pub(super) file: &'static str,
    /// The release of Debian that has it.
    pub(super) suite: &'static str,
    pub(super) sha256: &'static str,
}

impl Archive {
    /// Unpacks it into `target`, which is emptied: all of it, or only the folders named. `folder` keeps the archive.
    pub(super) fn unpacked(&self, folder: &Path, target: &Path, only: &[&str]) -> Result<()> {
        let archive = self.fetched(folder)?;
        paths::remove_folder(target)?;
        fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
        let mut tar = Command::new("tar");
        tar.args(["--strip-components=1", "--wildcards", "-C"]).arg(target).arg("-xf").arg(&archive);
        run(tar.args(only.iter().map(|part| format!("*/{part}"))))
    }

    /// The archive, checked.
    fn fetched(&self, folder: &Path) -> Result<PathBuf> {
        let archive = folder.join(self.file);
        if !archive.exists() {
            println!("fetching {} from Debian {}", self.file, self.suite);
            self.fetch(folder)?;
        }
        let sum = output(Command::new("sha256sum").arg(&archive))?;
        if !sum.starts_with(self.sha256) {
            fs::remove_file(&archive)?;
            bail!("{} is not the archive that was pinned: its SHA-256 is {sum}", archive.display());
        }
        Ok(archive)
    }

    /// By Debian's client, with lists of its own, so that the machine's sources stay as they are.
    fn fetch(&self, folder: &Path) -> Result<()> {
        let apt = folder.join("apt");
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.join(part))?;
        }
        let sources = apt.join("sources.list");
        fs::write(&sources, format!("deb-src {} {} main\n", mirror()?, self.suite))?;
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
        apt_get(&["source", "--download-only", self.package])?;
        ensure!(
            folder.join(self.file).exists(),
            "Debian {} has moved on from {}: pin the new one below xtask/src/sqlite, and see what changed",
            self.suite,
            self.file
        );
        Ok(())
    }
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
