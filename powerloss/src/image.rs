//! What a disk holds after a loss of power, as a folder.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

/// All files and folders below one folder, by their paths in it; folders have no bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub(crate) entries: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Image {
    /// Reads a folder.
    pub fn read(folder: &Path) -> io::Result<Image> {
        let mut image = Image::default();
        let mut open = vec![PathBuf::new()];
        while let Some(path) = open.pop() {
            for entry in std::fs::read_dir(folder.join(&path))? {
                let entry = entry?;
                let path = path.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    image.entries.insert(path.clone(), None);
                    open.push(path);
                } else {
                    image.entries.insert(path, Some(std::fs::read(entry.path())?));
                }
            }
        }
        Ok(image)
    }

    /// Makes a folder be this: what else is in it goes.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        // In order, so a folder comes before what is in it.
        for (path, bytes) in &self.entries {
            match bytes {
                None => std::fs::create_dir(folder.join(path))?,
                Some(bytes) => std::fs::write(folder.join(path), bytes)?,
            }
        }
        Ok(())
    }

    /// The first path at which two of them differ.
    pub fn difference(&self, other: &Image) -> Option<PathBuf> {
        let paths = self.entries.keys().chain(other.entries.keys());
        paths.filter(|path| self.entries.get(*path) != other.entries.get(*path)).min().cloned()
    }
}

/// How much a disk forgets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    /// All that was not synced.
    Everything,
    /// Nothing: only the program is gone.
    Nothing,
    /// Some of it; each write is kept, or torn, with these probabilities.
    Some { kept: f64, torn: f64 },
}

impl Mood {
    pub(crate) fn random(rng: &mut StdRng) -> Mood {
        match rng.random_range(0..8) {
            0 => Mood::Everything,
            1 => Mood::Nothing,
            _ => Mood::Some { kept: rng.random(), torn: rng.random::<f64>().powi(2) },
        }
    }

    pub(crate) fn keeps(self, rng: &mut StdRng) -> bool {
        match self {
            Mood::Everything => false,
            Mood::Nothing => true,
            Mood::Some { kept, .. } => rng.random_bool(kept),
        }
    }

    pub(crate) fn tears(self, rng: &mut StdRng) -> bool {
        matches!(self, Mood::Some { torn, .. } if rng.random_bool(torn))
    }

    /// How many of `all` ordered changes are kept.
    pub(crate) fn first_part(self, all: usize, rng: &mut StdRng) -> usize {
        match self {
            Mood::Everything => 0,
            Mood::Nothing => all,
            Mood::Some { .. } => rng.random_range(0..=all),
        }
    }
}
