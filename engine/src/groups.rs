//! Transactions over several volumes of one data directory. Each volume's
//! commit is *prepared* in its own log; one small file, made durable, decides
//! that all of them count. Without it none does, also after a crash. Layout:
//! `FORMAT.md`, "Group decision".

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use quire_proto::{Error, Reader, Result, VolumeName, Writer};

use crate::log::{Folder, sync_dir};

const MAGIC: [u8; 4] = *b"QGRP";
const VERSION: u8 = 1;
/// Finished groups are cleaned up once there are this many.
const CLEAN_EVERY: usize = 64;

/// The groups of a data directory.
pub(crate) struct Groups {
    dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Prepared and not yet visible: the volumes of each group.
    open: HashMap<[u8; 16], Vec<VolumeName>>,
    /// Written and only to be named.
    ready: HashMap<[u8; 16], Ready>,
    decided: HashSet<[u8; 16]>,
    /// Decided groups all of whose volumes have settled.
    finished: Vec<[u8; 16]>,
    waiting: HashMap<[u8; 16], usize>,
    /// Groups whose decision failed, and could not be taken back for certain.
    unclear: HashSet<[u8; 16]>,
    /// The folder of the decisions is there, for certain.
    has_folder: bool,
    /// No decision is forgotten any more.
    keeps_all: bool,
}

/// A decision that has only to get its name.
struct Ready {
    volumes: Vec<VolumeName>,
    /// Where its name will be: open, so that a process without file descriptors is told before and not after.
    folder: Folder,
}

impl Groups {
    pub(crate) fn new(data_dir: &Path) -> Groups {
        Groups { dir: data_dir.join("groups"), known: Mutex::default() }
    }

    fn file(&self, group: [u8; 16]) -> PathBuf {
        let name: String = group.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(name)
    }

    /// A volume has prepared its part.
    pub(crate) fn join(&self, group: [u8; 16], volume: VolumeName) {
        self.known.lock().open.entry(group).or_default().push(volume);
    }

    /// A volume takes its part back. False: it was decided, and counts.
    pub(crate) fn leave(&self, group: [u8; 16], volume: &VolumeName) -> bool {
        let mut known = self.known.lock();
        if let Some(volumes) = known.open.get_mut(&group) {
            volumes.retain(|v| v != volume);
            if volumes.is_empty() {
                known.open.remove(&group);
                if known.ready.remove(&group).is_some() {
                    let _ = std::fs::remove_file(fresh(&self.file(group)));
                }
            }
        }
        !known.decided.contains(&group)
    }

    /// The volumes that have prepared their part of a group.
    pub(crate) fn prepared(&self, group: [u8; 16]) -> Vec<VolumeName> {
        self.known.lock().open.get(&group).cloned().unwrap_or_default()
    }

    /// Writes what is going to be decided, so that [`decide`](Self::decide) has only to give it its name.
    pub(crate) fn make_ready(&self, group: [u8; 16]) -> Result<()> {
        let mut known = self.known.lock();
        let volumes = known.open.get(&group).cloned().unwrap_or_default();
        let ready = self.write(&mut known, group, volumes)?;
        known.ready.insert(group, ready);
        Ok(())
    }

    /// Decides: every volume that joined counts from here on.
    pub(crate) fn decide(&self, group: [u8; 16]) -> Result<()> {
        let mut known = self.known.lock();
        let Some(volumes) = known.open.remove(&group) else { return Ok(()) };
        let ready = match known.ready.remove(&group).filter(|ready| ready.volumes == volumes) {
            Some(ready) => ready,
            None => self.write(&mut known, group, volumes)?,
        };
        let path = self.file(group);
        let named = std::fs::rename(fresh(&path), &path).map_err(writing(&path)).and_then(|()| ready.folder.sync());
        if let Err(e) = named {
            let _ = std::fs::remove_file(fresh(&path));
            // It may have got its name and not been made durable: it must not decide anything later.
            return match std::fs::remove_file(&path) {
                Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => Err(e),
                removed => {
                    let forgotten = removed.map_err(writing(&path)).and_then(|()| ready.folder.sync());
                    if forgotten.is_err() {
                        known.unclear.insert(group);
                    }
                    Err(e)
                }
            };
        }
        known.waiting.insert(group, ready.volumes.len());
        known.decided.insert(group);
        Ok(())
    }

    /// Writes a decision, which is none until it has its name.
    fn write(&self, known: &mut Known, group: [u8; 16], volumes: Vec<VolumeName>) -> Result<Ready> {
        let path = self.file(group);
        if !known.has_folder {
            std::fs::create_dir_all(&self.dir).map_err(writing(&path))?;
            self.dir.parent().map_or(Ok(()), sync_dir)?;
            known.has_folder = true;
        }
        let folder = Folder::open(self.dir.clone())?;
        let fresh = fresh(&path);
        let mut file = File::create(&fresh).map_err(writing(&path))?;
        file.write_all(&encode(&volumes)).and_then(|()| file.sync_all()).map_err(|e| {
            let _ = std::fs::remove_file(&fresh);
            writing(&path)(e)
        })?;
        Ok(Ready { volumes, folder })
    }

    /// Whether the group was decided, now or before a crash.
    pub(crate) fn is_decided(&self, group: [u8; 16]) -> Result<bool> {
        let known = self.known.lock();
        if known.decided.contains(&group) || known.unclear.contains(&group) {
            return Ok(known.decided.contains(&group));
        }
        drop(known);
        let path = self.file(group);
        path.try_exists().map_err(|e| Error::from_io(format!("looking for {}", path.display()), e))
    }

    /// Whether its decision failed, and may be found decided after a loss of power.
    pub(crate) fn is_unclear(&self, group: [u8; 16]) -> bool {
        self.known.lock().unclear.contains(&group)
    }

    /// A volume's log says what became of its part.
    pub(crate) fn settled(&self, group: [u8; 16]) {
        let mut known = self.known.lock();
        if let Some(left) = known.waiting.get_mut(&group) {
            *left -= 1;
            if *left == 0 {
                known.waiting.remove(&group);
                known.decided.remove(&group);
                known.finished.push(group);
            }
        }
    }

    /// The log of a volume could not be made durable, or cannot be written any more: from here on the decisions stay,
    /// for the next opening.
    pub(crate) fn keep_all(&self) {
        self.known.lock().keeps_all = true;
    }

    /// Finished groups whose outcome could not be made durable yet.
    pub(crate) fn keep(&self, groups: Vec<[u8; 16]>) {
        self.known.lock().finished.extend(groups);
    }

    /// Finished groups, once they are worth cleaning up. Their volumes' logs
    /// must be made durable before the files are [forgotten](Self::forget).
    pub(crate) fn to_clean(&self) -> Vec<[u8; 16]> {
        let mut known = self.known.lock();
        if known.keeps_all || known.finished.len() < CLEAN_EVERY {
            Vec::new()
        } else {
            std::mem::take(&mut known.finished)
        }
    }

    /// Removes the files of groups whose outcome is durable in every log.
    pub(crate) fn forget(&self, groups: &[[u8; 16]]) {
        let known = self.known.lock();
        for group in groups.iter().filter(|_| !known.keeps_all) {
            if let Err(e) = std::fs::remove_file(self.file(*group)) {
                tracing::warn!("removing {}: {e}", self.file(*group).display());
            }
        }
    }

    /// Groups that an earlier process decided, with their volumes.
    pub(crate) fn leftover(&self) -> Result<Vec<(PathBuf, Vec<VolumeName>)>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| Error::from_io(format!("reading {}", self.dir.display()), e))?,
        };
        let mut groups = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::from_io(format!("reading {}", self.dir.display()), e))?.path();
            if path.extension().is_some() {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            let bytes = std::fs::read(&path).map_err(|e| Error::from_io(format!("reading {}", path.display()), e))?;
            let volumes = decode(&bytes).map_err(|e| {
                Error::corrupt(format!("{}: {}", path.display(), e.message())).with_remedy(
                    "It decides a transaction over several volumes. Restore it from a copy, or remove it: the \
                     transaction then counts in those volumes only that were told already.",
                )
            })?;
            groups.push((path, volumes));
        }
        if !groups.is_empty() {
            // A process that was killed may have named them, and not made that durable: no log may say it before.
            sync_dir(&self.dir)?;
            self.dir.parent().map_or(Ok(()), sync_dir)?;
        }
        Ok(groups)
    }
}

/// What a decision is called before it is one.
fn fresh(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn writing(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::from_io(format!("writing {}", path.display()), e)
}

/// A decision file: the volumes whose prepared commits count.
pub(crate) fn encode(volumes: &[VolumeName]) -> Vec<u8> {
    let mut w = Writer::new();
    w.bytes(&MAGIC);
    w.u8(VERSION);
    w.varint(volumes.len() as u64);
    volumes.iter().for_each(|volume| w.block(volume.as_str().as_bytes()));
    let crc = crc32fast::hash(w.as_slice());
    w.u32(crc);
    w.into_vec()
}

/// Reads a decision file.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<VolumeName>> {
    let mut r = Reader::new("decision", bytes);
    let (covered, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| r.corrupt("it is cut off"))?;
    if crc32fast::hash(covered).to_le_bytes() != *crc {
        return Err(r.corrupt("its checksum is wrong"));
    }
    r = Reader::new("decision", covered);
    if r.array()? != MAGIC || r.u8()? != VERSION {
        return Err(r.corrupt("it is not one, or of a newer version of Quire"));
    }
    let count = r.count(1)?;
    let volumes = (0..count).map(|_| VolumeName::parse(r.text()?)).collect::<Result<_>>()?;
    r.finish()?;
    Ok(volumes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_that_cannot_be_looked_for_is_not_missing() {
        let dir = tempfile::tempdir().unwrap();
        let groups = Groups::new(dir.path());
        assert!(!groups.is_decided([1; 16]).unwrap());
        let folder = dir.path().join("groups");
        std::os::unix::fs::symlink(&folder, &folder).unwrap();
        let unknown = groups.is_decided([1; 16]).unwrap_err();
        assert!(unknown.message().contains("looking for"), "{unknown:?}");
    }
}
