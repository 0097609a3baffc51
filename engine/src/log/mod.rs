//! The replica's files of records: their names, the places in them, and the
//! appender that writes the newest one.
//!
//! Log files (`log/`) are the truth of a replica; cache files (`cache/`) hold
//! pages that can be fetched again. Both have the same format and share one
//! sequence of ids, so that a page table cell needs no kind.

mod appender;
mod file;
mod handle;
mod record;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quire_proto::{Error, Result};

pub(crate) use appender::{Appender, Batch, MAX_FILE_BYTES, MIN_FILE_BYTES, Unsynced};
pub(crate) use file::{DataFile, FILE_HEADER_BYTES};
pub(crate) use record::{
    HEADER_BYTES as RECORD_HEADER_BYTES, RecordHeader, RecordKind, check as check_record, parse_header as parse_record,
};
#[cfg(feature = "fuzz")]
pub(crate) use record::{begin as begin_record, finish as finish_record};

/// What to do when the disk has lost what it took.
pub(crate) const OPEN_AGAIN: &str = "Close every program that uses the volume, look after the disk, and open it again: \
                                     what was acknowledged as durable is there.";

/// The number of a data file in its replica; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(crate) u32);

impl From<FileId> for u64 {
    fn from(id: FileId) -> u64 {
        id.0.into()
    }
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: FileId,
    /// Less than 2^30: files stay far smaller.
    pub(crate) offset: u32,
}

/// All open data files of a replica.
pub(crate) type Files = HashMap<FileId, Arc<DataFile>>;

/// The kinds of data files, as folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Log,
    Cache,
}

impl Room {
    /// The folder inside a replica's folder.
    pub(crate) fn dir(self, replica: &Path) -> PathBuf {
        replica.join(match self {
            Room::Log => "log",
            Room::Cache => "cache",
        })
    }

    /// What to do about damage there.
    fn remedy(self) -> &'static str {
        match self {
            Room::Log => {
                "The local copy is damaged. Copy the data directory away, then `quire rm NAME --force` and `quire clone \
                 NAME` go back to what was pushed."
            }
            Room::Cache => "It holds nothing that is not in the store: remove it.",
        }
    }

    pub(crate) fn path(self, replica: &Path, id: FileId) -> PathBuf {
        self.dir(replica).join(format!("{:08x}.qlog", id.0))
    }

    /// The ids of the files there, ascending. Whatever has another ending was never ours: a file manager's, say, or what
    /// NFS calls a removed file that is in use.
    pub(crate) fn list(self, replica: &Path) -> Result<Vec<FileId>> {
        let dir = self.dir(replica);
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| Error::from_io(format!("reading {}", dir.display()), e))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::from_io(format!("reading {}", dir.display()), e))?;
            let name = entry.file_name();
            let Some(stem) = name.as_encoded_bytes().strip_suffix(b".qlog") else {
                tracing::warn!("{} is not a file of Quire", entry.path().display());
                continue;
            };
            let id = std::str::from_utf8(stem).ok().and_then(|n| u32::from_str_radix(n, 16).ok());
            let Some(id) = id else {
                return Err(Error::corrupt(format!("{} is not a file of Quire", entry.path().display()))
                    .with_remedy("Move it out of the data directory."));
            };
            ids.push(FileId(id));
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

/// An open folder, whose names can be made durable.
pub(crate) struct Folder {
    path: PathBuf,
    file: std::fs::File,
}

impl Folder {
    pub(crate) fn open(path: PathBuf) -> Result<Folder> {
        match std::fs::File::open(&path) {
            Ok(file) => Ok(Folder { path, file }),
            Err(e) => Err(Error::from_io(format!("opening folder {}", path.display()), e)),
        }
    }

    /// Makes the names of new and removed files durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::from_io(format!("syncing folder {}", self.path.display()), e))
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    Folder::open(dir.to_owned())?.sync()
}
