//! From the names that SQLite opens to volumes.

use quire_engine::{Error, Result, VolumeName};

/// Longest name of a database, in bytes. SQLite keeps names in a buffer of
/// this size while it reads a journal, whatever a VFS declares beyond it.
pub(crate) const MAX_NAME_BYTES: usize = 512;

/// The volume that a database's name means: the name itself, or below `fs/`
/// for an absolute path.
pub(crate) fn volume_of(name: &str) -> Result<VolumeName> {
    match name.strip_prefix('/') {
        Some(path) => VolumeName::parse(&format!("fs/{path}")),
        None => VolumeName::parse(name),
    }
}

/// A volume's name as it is, an absolute path without its detours.
pub(crate) fn full_name(name: &str) -> String {
    if name.starts_with('/') { without_detours(name) } else { name.to_owned() }
}

/// The path of a file name given to the default VFS: relative ones start at
/// the current folder, so that `app.db` in two folders is two databases.
pub(crate) fn full_path(name: &str) -> Result<String> {
    if name.starts_with('/') {
        return Ok(without_detours(name));
    }
    let folder = std::env::current_dir().map_err(|e| Error::from_io("finding the current folder", e))?;
    match folder.to_str() {
        Some(folder) => Ok(without_detours(&format!("{folder}/{name}"))),
        None => Err(Error::invalid(format!("the current folder {} is not UTF-8", folder.display()))
            .with_remedy("Open the database as file:NAME?vfs=quire.")),
    }
}

/// Takes `.`, `..` and doubled slashes out of an absolute path.
fn without_detours(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_is_a_volume_below_fs() {
        assert_eq!(volume_of("/home/ann/app.db").unwrap().as_str(), "fs/home/ann/app.db");
        assert_eq!(volume_of("team/app").unwrap().as_str(), "team/app");
        assert!(volume_of("../app").is_err());
    }

    #[test]
    fn two_ways_to_write_a_path_are_one_name() {
        assert_eq!(full_name("//a/./b/../c.db"), "/a/c.db");
        assert_eq!(full_name("/../a"), "/a");
        assert_eq!(full_name("a/../b"), "a/../b", "a volume's name is refused as it is, not repaired");
    }

    #[test]
    fn relative_paths_start_at_the_current_folder() {
        let folder = std::env::current_dir().unwrap();
        assert_eq!(full_path("./app.db").unwrap(), folder.join("app.db").to_str().unwrap());
    }
}
