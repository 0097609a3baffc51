//! Data directories: where they lie, and copies of them as a kill would leave them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The files of a directory, by their place in it.
type Image = BTreeMap<PathBuf, Contents>;

/// A file's bytes. Most of a log file is zeros that wait for records, and
/// copying them would be a quarter of a run's time.
#[derive(PartialEq)]
struct Contents {
    /// All but the zeros at the end.
    bytes: Vec<u8>,
    len_bytes: usize,
}

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
    let mut made = PathBuf::new();
    for (place, contents) in image.into_iter().flatten() {
        let path = to.join(place);
        let written = make_folder_of(&path, &mut made).and_then(|()| contents.write(&path));
        written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

/// Files come in the order of their folders: the one `made` last is most often the one that is needed.
fn make_folder_of(path: &Path, made: &mut PathBuf) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| folder != made) {
        fs::create_dir_all(folder)?;
        *made = folder.to_owned();
    }
    Ok(())
}

impl Contents {
    /// Reads a file; `buffer` is used again for the next one.
    fn read(path: &Path, buffer: &mut Vec<u8>) -> io::Result<Contents> {
        buffer.clear();
        let len_bytes = fs::File::open(path)?.read_to_end(buffer)?;
        Ok(Contents { bytes: buffer[..without_zeros(buffer)].to_vec(), len_bytes })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::File::create_new(path)?;
        file.write_all(&self.bytes)?;
        file.set_len(self.len_bytes as u64)
    }
}

/// How many bytes there are before the zeros at the end.
fn without_zeros(bytes: &[u8]) -> usize {
    const BLOCK: [u8; 4096] = [0; 4096];
    let mut rest = bytes;
    while let Some(before) = rest.strip_suffix(&BLOCK) {
        rest = before;
    }
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
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
    match read_below(from, Path::new(""), &mut image, &mut Vec::new()) {
        Ok(()) => Some(image),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => panic!("copying {}: {e}", from.display()),
    }
}

fn read_below(root: &Path, place: &Path, image: &mut Image, buffer: &mut Vec<u8>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(place))? {
        let entry = entry?;
        let place = place.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            read_below(root, &place, image, buffer)?;
        } else {
            image.insert(place, Contents::read(&entry.path(), buffer)?);
        }
    }
    Ok(())
}
