//! Open files of data files. A volume may have thousands of those, and a
//! process may have few open files, often 1,024: beyond some, the longest open
//! one that can be spared is closed, and opened again when it is needed.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

/// How many files that can be spared stay open, in the whole process.
const SPARED: usize = 64;

/// Those that can be spared, the longest open first.
static CLOSABLE: Mutex<VecDeque<Weak<Handle>>> = Mutex::new(VecDeque::new());

/// A file that may be closed meanwhile.
pub(crate) struct Handle {
    path: PathBuf,
    file: ArcSwapOption<File>,
}

impl Handle {
    /// Stays open until [`spare`](Self::spare) is called.
    pub(crate) fn new(path: PathBuf, file: File) -> Arc<Handle> {
        Arc::new(Handle { path, file: ArcSwapOption::from_pointee(file) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does something with the file, which is opened for reading if it was closed.
    pub(crate) fn with<T>(self: &Arc<Handle>, act: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        if let Some(file) = &*self.file.load() {
            return act(file);
        }
        let file = Arc::new(File::open(&self.path)?);
        self.file.store(Some(file.clone()));
        self.spare();
        act(&file)
    }

    /// The file may be closed from now on: nothing more is written to it, and
    /// nobody waits to hear whether what was written became durable.
    pub(crate) fn spare(self: &Arc<Handle>) {
        let mut closable = CLOSABLE.lock();
        closable.push_back(Arc::downgrade(self));
        while closable.len() > SPARED {
            if let Some(handle) = closable.pop_front().and_then(|handle| handle.upgrade()) {
                handle.file.store(None);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn many_files_are_read_through_few_open_ones() {
        let dir = tempfile::tempdir().unwrap();
        let handles: Vec<Arc<Handle>> = (0..3 * SPARED)
            .map(|n| {
                let path = dir.path().join(n.to_string());
                std::fs::write(&path, [n as u8]).unwrap();
                let handle = Handle::new(path.clone(), File::open(path).unwrap());
                handle.spare();
                handle
            })
            .collect();
        for round in 0..2 {
            for (n, handle) in handles.iter().enumerate() {
                let mut byte = [0];
                handle.with(|file| file.read_exact_at(&mut byte, 0)).unwrap();
                assert_eq!(byte, [n as u8], "round {round}");
            }
            let open = handles.iter().filter(|handle| handle.file.load().is_some()).count();
            assert!(open <= SPARED, "{open} are open");
        }
    }
}
