//! Where one run works: two of one SQLite at the same time must not meet.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::paths;

/// Programs are killed here, not machines: a disk would only take time (a tenfold one, for scripts that open a
/// database for each case).
const MEMORY_FOLDER: &str = "/dev/shm";

/// What one run has for itself.
pub(super) struct Room {
    logs: PathBuf,
    scratch: TempDir,
    /// Held as long as the room is.
    _lock: File,
}

impl Room {
    /// The first of `run-1`, `run-2`, … below `parent` that no other run holds, emptied.
    pub(super) fn take(parent: &Path) -> Result<Room> {
        let mut number = 1;
        let (logs, lock) = loop {
            let logs = parent.join(format!("run-{number}"));
            let name = logs.with_extension("lock");
            let mut options = File::options();
            let lock = options.read(true).write(true).create(true).truncate(false).open(&name);
            let lock = lock.with_context(|| format!("cannot open {}", name.display()))?;
            match lock.try_lock() {
                Ok(()) => break (logs, lock),
                Err(TryLockError::WouldBlock) => number += 1,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", name.display()));
                }
            }
        };
        // The lock's file says where the run before worked, in case that was killed.
        let left = std::io::read_to_string(&lock)?;
        if !left.is_empty() {
            paths::remove_folder(Path::new(&left))?;
        }
        paths::remove_folder(&logs)?;
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let memory = Path::new(MEMORY_FOLDER);
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("quire-sqlite-");
        let scratch = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() };
        let scratch = scratch.context("cannot create a scratch folder")?;
        fs::write(logs.with_extension("lock"), scratch.path().as_os_str().as_encoded_bytes())?;
        Ok(Room { logs, scratch, _lock: lock })
    }

    /// Where the logs stay after the run, and what was built for it.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Where programs work; it goes with the run.
    pub(super) fn scratch(&self) -> &Path {
        self.scratch.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_at_the_same_time_have_folders_of_their_own_and_the_next_one_begins_empty() {
        let parent = tempfile::tempdir().unwrap();
        let first = Room::take(parent.path()).unwrap();
        fs::write(first.logs().join("select1.log"), "ok").unwrap();
        let second = Room::take(parent.path()).unwrap();
        assert_ne!(first.logs(), second.logs());
        assert_ne!(first.scratch(), second.scratch());
        let (logs, scratch) = (first.logs().to_owned(), first.scratch().to_owned());
        drop(first);
        assert!(!scratch.exists());
        // As if it had been killed.
        fs::create_dir(&scratch).unwrap();
        let third = Room::take(parent.path()).unwrap();
        assert_eq!(third.logs(), logs);
        assert!(!scratch.exists());
        assert_eq!(fs::read_dir(third.logs()).unwrap().count(), 0);
    }
}
