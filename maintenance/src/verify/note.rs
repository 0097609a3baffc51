//! What a data directory remembers of verifications: one small file a volume.

use std::io::Write;
use std::path::{Path, PathBuf};

use quire_proto::{Error, Lsn, Result, VolumeName};
use serde::{Deserialize, Serialize};

/// The folder in the data directory.
const FOLDER: &str = "verified";

/// A verification that found nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The newest LSN that was verified.
    pub lsn: u64,
    /// When it ended, in milliseconds since 1970 by this machine's clock.
    pub time_ms: u64,
    /// Whether every byte was read.
    pub deep: bool,
}

/// The verifications that are remembered of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// Where they were made: a note of another store with the same name counts for nothing.
    store: String,
    name: String,
    /// The last one.
    pub last: Option<Note>,
    /// The last one that read every byte.
    pub last_deep: Option<Note>,
}

impl Notes {
    /// What `data_dir` remembers of volume `name` of a store. A missing or damaged file says: never.
    pub fn read(data_dir: &Path, store: &str, name: &VolumeName) -> Notes {
        let read = std::fs::read(path(data_dir, store, name)).ok();
        let found = read.and_then(|bytes| serde_json::from_slice::<Notes>(&bytes).ok());
        let sound = |note: &Option<Note>| note.is_none_or(|note| Lsn::new(note.lsn).is_some());
        found
            .filter(|notes| notes.store == store && notes.name == name.as_str())
            .filter(|notes| sound(&notes.last) && sound(&notes.last_deep))
            .unwrap_or_else(|| Notes { store: store.to_owned(), name: name.to_string(), ..Notes::default() })
    }

    /// Remembers one more, in one step: nobody finds half a file.
    pub fn add(mut self, data_dir: &Path, name: &VolumeName, note: Note) -> Result<Notes> {
        self.last = Some(note);
        if note.deep {
            self.last_deep = Some(note);
        }
        let path = path(data_dir, &self.store, name);
        let wrong = |e| Error::from_io(format!("writing {}", path.display()), e);
        let folder = path.parent().unwrap_or(data_dir);
        std::fs::create_dir_all(folder).map_err(wrong)?;
        let bytes = serde_json::to_vec(&self).map_err(|e| wrong(e.into()))?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(wrong)?;
        file.write_all(&bytes).map_err(wrong)?;
        file.persist(&path).map_err(|e| wrong(e.error))?;
        Ok(self)
    }
}

/// A name may be longer than a file's, so its hash is the file's name.
fn path(data_dir: &Path, store: &str, name: &VolumeName) -> PathBuf {
    let hash = blake3::Hasher::new().update(store.as_bytes()).update(&[0]).update(name.as_str().as_bytes()).finalize();
    data_dir.join(FOLDER).join(format!("{}.json", &hash.to_hex()[..32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str = "file:///store";

    fn name() -> VolumeName {
        VolumeName::parse("team/app.db").unwrap()
    }

    fn note(lsn: u64, deep: bool) -> Note {
        Note { lsn, time_ms: 1_769_860_800_000, deep }
    }

    #[test]
    fn the_last_verification_and_the_last_deep_one_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let never = Notes::read(dir.path(), STORE, &name());
        assert_eq!((never.last, never.last_deep), (None, None));
        never.add(dir.path(), &name(), note(3, true)).unwrap();
        Notes::read(dir.path(), STORE, &name()).add(dir.path(), &name(), note(9, false)).unwrap();
        let notes = Notes::read(dir.path(), STORE, &name());
        assert_eq!((notes.last, notes.last_deep), (Some(note(9, false)), Some(note(3, true))));
    }

    #[test]
    fn another_store_or_volume_was_never_verified() {
        let dir = tempfile::tempdir().unwrap();
        Notes::read(dir.path(), STORE, &name()).add(dir.path(), &name(), note(3, true)).unwrap();
        assert_eq!(Notes::read(dir.path(), "file:///other", &name()).last, None);
        assert_eq!(Notes::read(dir.path(), STORE, &VolumeName::parse("team/app").unwrap()).last, None);
    }

    #[test]
    fn a_damaged_note_says_never_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Notes::read(dir.path(), STORE, &name()).add(dir.path(), &name(), note(3, true)).unwrap();
        let path = path(dir.path(), STORE, &name());
        let sound = std::fs::read(&path).unwrap();
        let no_lsn = String::from_utf8(sound.clone()).unwrap().replace("\"lsn\":3", "\"lsn\":0");
        for damaged in [&sound[..sound.len() / 2], b"", b"\xff\xfe", no_lsn.as_bytes()] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Notes::read(dir.path(), STORE, &name()).last, None, "{damaged:?}");
        }
        Notes::read(dir.path(), STORE, &name()).add(dir.path(), &name(), note(4, false)).unwrap();
        assert_eq!(Notes::read(dir.path(), STORE, &name()).last, Some(note(4, false)));
    }
}
