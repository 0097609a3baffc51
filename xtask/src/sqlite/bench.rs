//! Where the programs run, and what they get: each in a folder of its own, as
//! nobody, for whom files without permission are closed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};

use super::room::Room;
use super::source::Built;
use crate::paths;
use crate::process::{output, run, run_logged, with_store};

/// Far above what a program takes (with many faults injected, minutes), so that only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(3600);

/// What whoever runs a random search may say to it.
const SEARCH_VARIABLES: [&str; 2] = ["QUIRE_STEPS", "QUIRE_SEED"];

/// One run of programs on one SQLite.
pub(super) struct Bench {
    pub(super) source: Built,
    room: Room,
    extension: PathBuf,
    /// `files.c`, which stands in for the files that scripts look into.
    files: PathBuf,
    /// `witness.c`, which tells which VFS each database is on.
    witness: PathBuf,
    /// User and group of `nobody`, if this is root.
    nobody: Option<(u32, u32)>,
}

impl Bench {
    pub(super) fn new(source: Built, extension: &Path) -> Result<Bench> {
        let room = Room::take(&source.folder)?;
        // A copy, which no build replaces in the middle of a run.
        let copy = room.logs().join(extension.file_name().unwrap_or_default());
        fs::copy(extension, &copy).with_context(|| format!("cannot copy {}", extension.display()))?;
        let nobody = nobody()?;
        if let Some((user, group)) = nobody {
            chown(room.scratch(), Some(user), Some(group))?;
        }
        Ok(Bench {
            files: compiled(&source, "files", room.logs())?,
            witness: compiled(&source, "witness", room.logs())?,
            extension: copy,
            nobody,
            room,
            source,
        })
    }

    /// Where the logs are.
    pub(super) fn logs(&self) -> &Path {
        self.room.logs()
    }

    /// An empty folder for one program.
    pub(super) fn home(&self, name: &str) -> Result<PathBuf> {
        let home = self.room.scratch().join(name);
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        if let Some((user, group)) = self.nobody {
            chown(&home, Some(user), Some(group))?;
        }
        Ok(home)
    }

    /// Removes what a test has left: there is less memory than disk.
    pub(super) fn clear(&self, name: &str) -> Result<()> {
        paths::remove_folder(&self.room.scratch().join(name))
    }

    /// Runs a program in its folder with what is in the bench. What it prints is in the log `name`.
    pub(super) fn run(&self, command: &mut Command, home: &Path, name: &str) -> Result<(ExitStatus, String)> {
        with_store(command, &home.join("data"), &format!("file://{}", home.join("store").display()));
        command.envs(SEARCH_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.current_dir(home).env("QUIRE_LOG", "error").env("SCRIPTS_WITNESS", witness_file(home));
        command.env("SCRIPTS_EXTENSION", &self.extension).env("SCRIPTS_FILES", &self.files);
        command.env("SCRIPTS_WITNESS_LIBRARY", &self.witness);
        if let Some((user, group)) = self.nobody {
            command.uid(user).gid(group);
        }
        let log = self.logs().join(format!("{name}.log"));
        let status = run_logged(command, &log, LIMIT);
        // Scripts print what they find in broken databases, so it is not always text.
        let printed = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        Ok((status.with_context(|| format!("its output is in {}", log.display()))?, printed))
    }

    /// What a program that is built with `preload.c` loads, so that its databases are on Quire.
    pub(super) fn preloaded(&self) -> [(&'static str, std::ffi::OsString); 2] {
        let libraries = [self.extension.as_os_str(), self.witness.as_os_str()].join(OsStr::new(":"));
        [("SCRIPTS_PRELOAD", libraries), ("QUIRE_DEFAULT_VFS", "1".into())]
    }
}

/// What `witness.c` writes for the program of this folder.
pub(super) fn witness_file(home: &Path) -> PathBuf {
    home.join("witness.txt")
}

/// Where the scripts and their helpers are.
pub(super) fn scripts_folder() -> PathBuf {
    paths::root().join("sqlite-vfs/scripts")
}

/// Builds a loadable extension of that folder.
fn compiled(source: &Built, name: &str, folder: &Path) -> Result<PathBuf> {
    let library = folder.join(format!("{name}.so"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]).args(source.include());
    run(compiler.arg(scripts_folder().join(format!("{name}.c"))).arg("-o").arg(&library))?;
    Ok(library)
}

fn nobody() -> Result<Option<(u32, u32)>> {
    let id = |flag: &str, user: &str| -> Result<u32> {
        let text = output(Command::new("id").args([flag, user]))?;
        text.trim().parse().with_context(|| format!("id {flag} {user}"))
    };
    let is_root = output(Command::new("id").arg("-u"))?.trim() == "0";
    Ok(if is_root { Some((id("-u", "nobody")?, id("-g", "nobody")?)) } else { None })
}
