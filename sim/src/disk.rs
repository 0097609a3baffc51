//! Data directories: where they lie, and copies of them as a kill would leave them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files of a directory, by their place in it.
type Image = BTreeMap<PathBuf, Vec<u8>>;

/// A folder in memory where there is one: nothing here asks for a loss of
/// power, and a real disk's syncs would be most of a run's time.
pub fn scratch() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    folder.unwrap_or_else(|e| panic!("a folder for the data directories: {e}"))
}

/// Copies a data directory that is in use. What a thread of the engine changes
/// meanwhile would make it a state that never was, so it is read until it
/// reads the same twice.
pub(crate) fn copy(from: &Path, to: &Path) {
    let mut image = read(from);
    loop {
        let again = read(from);
        if image.is_some() && image == again {
            break;
        }
        image = again;
    }
    for (place, bytes) in image.into_iter().flatten() {
        let path = to.join(place);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, bytes));
        written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

/// Removes what can be made again from the log.
pub(crate) fn lose_tables(data_dir: &Path) {
    for replica in fs::read_dir(data_dir.join("replicas")).into_iter().flatten().flatten() {
        // It has none yet.
        let _ = fs::remove_file(replica.path().join("table.qtab"));
    }
}

/// None: something went while it was read.
fn read(from: &Path) -> Option<Image> {
    let mut image = Image::new();
    match read_below(from, Path::new(""), &mut image) {
        Ok(()) => Some(image),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => panic!("copying {}: {e}", from.display()),
    }
}

fn read_below(root: &Path, place: &Path, image: &mut Image) -> io::Result<()> {
    for entry in fs::read_dir(root.join(place))? {
        let entry = entry?;
        let place = place.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            read_below(root, &place, image)?;
        } else {
            image.insert(place, fs::read(entry.path())?);
        }
    }
    Ok(())
}
