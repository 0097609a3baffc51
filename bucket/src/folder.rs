//! What object_store's folder lacks: listing in key order, one directory at a
//! time, so that a store of millions of objects lists in bounded memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use quire_proto::{Error, Result};

use crate::failure::of_io;
use crate::{Key, Meta};

/// Runs file operations where they may block; `what` names them in errors.
pub(crate) async fn on_disk<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| of_io(what, &e)),
        Err(e) => Err(Error::unavailable(format!("{what}: the runtime is shutting down")).with_source(e)),
    }
}

/// Makes the entry of a file durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// What a directory holds.
enum Entry {
    Object(Meta),
    Directory(Key),
}

/// A walk through all objects below a directory, in key order.
pub(crate) struct Walk {
    root: PathBuf,
    /// How many objects of one directory are of interest.
    wanted: usize,
    /// The rest of each directory that has been entered, last first.
    open: Vec<std::vec::IntoIter<Entry>>,
}

impl Walk {
    /// Begins below `prefix`; nothing there is an empty walk. Whoever wants
    /// only the first few objects says so, and the others are not looked at.
    pub(crate) fn begin(root: PathBuf, prefix: &Key, wanted: usize) -> io::Result<Walk> {
        let entries = read_directory(&root, prefix, wanted)?;
        Ok(Walk { root, wanted, open: vec![entries.into_iter()] })
    }

    /// The next objects, at most `limit`; `None` at the end.
    pub(crate) fn next(&mut self, limit: usize) -> io::Result<Option<Vec<Meta>>> {
        let mut objects = Vec::new();
        while let Some(entries) = self.open.last_mut() {
            match entries.next() {
                Some(Entry::Object(meta)) => objects.push(meta),
                Some(Entry::Directory(key)) => {
                    let entries = read_directory(&self.root, &key, self.wanted)?;
                    self.open.push(entries.into_iter());
                }
                None => {
                    self.open.pop();
                }
            }
            if objects.len() >= limit {
                break;
            }
        }
        Ok((!objects.is_empty()).then_some(objects))
    }
}

/// The names directly below `prefix`: (folders, objects), each in key order.
pub(crate) fn names(root: &Path, prefix: &Key) -> io::Result<(Vec<Key>, Vec<Meta>)> {
    let (mut folders, mut objects) = (Vec::new(), Vec::new());
    for entry in read_directory(root, prefix, usize::MAX)? {
        match entry {
            Entry::Directory(key) => folders.push(key),
            Entry::Object(meta) => objects.push(meta),
        }
    }
    Ok((folders, objects))
}

/// Removes what writes below `prefix` that were cut off before `before_ms` have left: object_store writes an object
/// to a file named `KEY#N` first.
pub(crate) fn remove_unfinished(root: &Path, prefix: &Key, before_ms: u64) -> io::Result<()> {
    let mut directories = vec![root.join(prefix.as_str())];
    while let Some(directory) = directories.pop() {
        let listing = match fs::read_dir(&directory) {
            Ok(listing) => listing,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for entry in listing {
            let path = entry?.path();
            // Whoever has just finished it has taken it away.
            let metadata = match fs::metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_dir() {
                directories.push(path);
            } else if is_unfinished(&path) && modified_ms(&metadata)? < before_ms {
                match fs::remove_file(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    done => done?,
                }
            }
        }
    }
    Ok(())
}

/// The entries of one directory in key order, up to the first `wanted` objects.
/// Names that are no keys (unfinished writes, other programs' files) are not
/// Quire's and are passed over.
fn read_directory(root: &Path, directory: &Key, wanted: usize) -> io::Result<Vec<Entry>> {
    let path = root.join(directory.as_str());
    let listing = match fs::read_dir(&path) {
        Ok(listing) => listing,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(|name| Key::parse(&format!("{directory}/{name}")).ok())
        else {
            continue;
        };
        let kind = entry.file_type()?;
        let is_directory = if kind.is_symlink() { entry.path().is_dir() } else { kind.is_dir() };
        names.push((name, is_directory));
    }
    // A directory stands where its objects' keys sort: "app-x/…" before "app/…".
    names.sort_by_cached_key(|(key, is_directory)| format!("{key}{}", if *is_directory { "/" } else { "" }));
    let mut entries = Vec::new();
    let mut objects = 0;
    for (key, is_directory) in names {
        if is_directory {
            entries.push(Entry::Directory(key));
        } else if let Some(meta) = look_at(root, key)? {
            entries.push(Entry::Object(meta));
            objects += 1;
        }
        if objects >= wanted {
            break;
        }
    }
    Ok(entries)
}

/// `None` if the file is gone by now.
fn look_at(root: &Path, key: Key) -> io::Result<Option<Meta>> {
    let metadata = match fs::metadata(root.join(key.as_str())) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let last_modified_ms = modified_ms(&metadata)?;
    Ok(Some(Meta { key, len_bytes: metadata.len(), last_modified_ms, etag: None }))
}

/// Whether a file has the name that an object has while it is written.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.split_once('#')).is_some_and(|(key, n)| {
        Key::parse(key).is_ok() && !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit())
    })
}

fn modified_ms(metadata: &fs::Metadata) -> io::Result<u64> {
    let age = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}
