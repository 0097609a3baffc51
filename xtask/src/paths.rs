//! Where things are: the workspace, its target folder, what was built.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The cargo profile that a chore builds and uses.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Debug,
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Profile::Debug => "debug",
            Profile::Release => "release",
        }
    }
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Where cargo puts what it builds.
pub(crate) fn folder(profile: Profile) -> PathBuf {
    target().join(profile.folder())
}

/// The loadable SQLite extension.
pub(crate) fn extension(profile: Profile) -> PathBuf {
    folder(profile).join(format!("{DLL_PREFIX}quire_sqlite{DLL_SUFFIX}"))
}

/// A program of the workspace.
pub(crate) fn program(profile: Profile, name: &str) -> PathBuf {
    folder(profile).join(format!("{name}{EXE_SUFFIX}"))
}

/// An example program of this package.
pub(crate) fn example(profile: Profile, name: &str) -> PathBuf {
    folder(profile).join("examples").join(format!("{name}{EXE_SUFFIX}"))
}

/// An empty folder of this name under the target folder; what was there before is gone.
pub(crate) fn fresh_folder(name: &str) -> Result<PathBuf> {
    let folder = target().join(name);
    remove_folder(&folder)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Removes a folder with all it holds; one that is not there is fine.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The bytes of all files below a folder, and their number.
pub(crate) fn folder_size(folder: &Path) -> Result<(u64, u64)> {
    let (mut bytes, mut files) = (0, 0);
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let (inner_bytes, inner_files) = folder_size(&entry.path())?;
            (bytes, files) = (bytes + inner_bytes, files + inner_files);
        } else {
            (bytes, files) = (bytes + entry.metadata()?.len(), files + 1);
        }
    }
    Ok((bytes, files))
}
