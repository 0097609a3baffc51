//! From the names that SQLite opens to volumes.

use quire_engine::{Error, Lsn, Result, VolumeName};

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

/// Refuses a new volume a name by which the command line would mean another volume's past: `app@7`.
pub(crate) fn check_new(name: &VolumeName) -> Result<()> {
    match name.as_str().rsplit_once('@') {
        Some((volume, moment)) if quire_settings::looks_like_moment(moment) => {
            let lsn = moment.parse().ok().and_then(Lsn::new).unwrap_or(Lsn::FIRST);
            let problem = format!("{name} means a moment of the past of `{volume}`: no new volume has such a name");
            Err(Error::invalid(problem).with_remedy(format!(
                "Open `{volume}` with `&lsn={lsn}`, or `&at=TIME`, in the URI; a new volume needs another name."
            )))
        }
        _ => Ok(()),
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
    fn no_new_volume_has_a_name_that_means_a_moment() {
        let check = |name: &str| check_new(&volume_of(name).unwrap());
        for (name, remedy) in [
            ("app@120", "Open `app` with `&lsn=120`, or `&at=TIME`, in the URI"),
            ("me@home@7", "Open `me@home` with `&lsn=7`"),
            ("/srv/app@7", "Open `fs/srv/app` with `&lsn=7`"),
            ("app@2026-01-31T12:00:00Z", "`&at=TIME`"),
            ("app@2026-01-31t12:00:00z", "`&at=TIME`"),
            ("app@2026-01-31", "`&at=TIME`"),
            ("app@0", "Open `app` with `&lsn=1`"),
        ] {
            let refused = check(name).unwrap_err();
            assert!(refused.message().contains("moment"), "{refused:?}");
            assert!(refused.remedy().is_some_and(|says| says.contains(remedy)), "{refused:?}");
        }
        for name in ["app", "me@home", "app@v1.2", "app@", "app@T", "app@2026-11-28/db", "app-7"] {
            assert!(check(name).is_ok(), "{name}");
        }
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
