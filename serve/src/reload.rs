//! Files that are read again when they have changed: keys and certificates, without a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quire_proto::{Error, Result};

type Parse<T> = dyn Fn(&[PathBuf], &[Vec<u8>]) -> Result<T> + Send + Sync;

/// What some files mean.
pub(crate) struct Reloaded<T> {
    files: Vec<PathBuf>,
    parse: Box<Parse<T>>,
    texts: Mutex<Vec<Vec<u8>>>,
    current: ArcSwap<(u64, Arc<T>)>,
}

fn read(files: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let read = |file: &Path| fs::read(file).map_err(|e| Error::from_io(format!("reading {}", file.display()), e));
    files.iter().map(|file| read(file)).collect()
}

impl<T> Reloaded<T> {
    pub(crate) fn load(
        files: Vec<PathBuf>,
        parse: impl Fn(&[PathBuf], &[Vec<u8>]) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Reloaded<T>> {
        let texts = read(&files)?;
        let current = ArcSwap::from_pointee((0, Arc::new(parse(&files, &texts)?)));
        Ok(Reloaded { files, parse: Box::new(parse), texts: Mutex::new(texts), current })
    }

    /// What the files meant when they were last read, and a number that each change counts up.
    pub(crate) fn current(&self) -> (u64, Arc<T>) {
        let current = self.current.load();
        (current.0, current.1.clone())
    }

    /// Reads the files. Ones that mean nothing, such as half of a pair, change nothing.
    pub(crate) fn reload_if_changed(&self) {
        let found = read(&self.files).and_then(|texts| {
            let mut known = self.texts.lock();
            if *known == texts {
                return Ok(());
            }
            let parsed = (self.parse)(&self.files, &texts)?;
            *known = texts;
            let generation = self.current.load().0 + 1;
            self.current.store(Arc::new((generation, Arc::new(parsed))));
            tracing::info!("read again: {}", self.files[0].display());
            Ok(())
        });
        if let Err(e) = found {
            tracing::warn!("the server goes on with what it has read before: {e}");
        }
    }
}
