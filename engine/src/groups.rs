//! Transactions over several volumes of one data directory. Each volume's
//! commit is *prepared* in its own log; one small file, made durable, decides
//! that all of them count. Without it none does, also after a crash.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use quire_proto::{Error, Result, VolumeName};

use crate::log::sync_dir;

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
    decided: HashSet<[u8; 16]>,
    /// Decided groups all of whose volumes have settled.
    finished: Vec<[u8; 16]>,
    waiting: HashMap<[u8; 16], usize>,
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

    /// Decides: every volume that joined counts from here on.
    pub(crate) fn decide(&self, group: [u8; 16]) -> Result<()> {
        let mut known = self.known.lock();
        let Some(volumes) = known.open.remove(&group) else { return Ok(()) };
        let path = self.file(group);
        let wrong = |e| Error::from_io(format!("writing {}", path.display()), e);
        let text: String = volumes.iter().map(|v| format!("{}\n", v.encoded())).collect();
        let written = std::fs::create_dir_all(&self.dir).map_err(wrong).and_then(|()| {
            let fresh = path.with_extension("new");
            let file = std::fs::File::create(&fresh).map_err(wrong)?;
            std::io::Write::write_all(&mut &file, text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
            std::fs::rename(&fresh, &path).map_err(wrong)?;
            sync_dir(&self.dir)
        });
        if let Err(e) = written {
            // It may have got its name and not been made durable: it must not decide anything later.
            match std::fs::remove_file(&path) {
                Err(gone) if gone.kind() != std::io::ErrorKind::NotFound => return Err(wrong(gone)),
                _ => return Err(e),
            }
        }
        known.waiting.insert(group, volumes.len());
        known.decided.insert(group);
        Ok(())
    }

    /// Whether the group was decided, now or before a crash.
    pub(crate) fn is_decided(&self, group: [u8; 16]) -> bool {
        self.known.lock().decided.contains(&group) || self.file(group).exists()
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

    /// Finished groups, once they are worth cleaning up. Their volumes' logs
    /// must be made durable before the files are [forgotten](Self::forget).
    pub(crate) fn to_clean(&self) -> Vec<[u8; 16]> {
        let mut known = self.known.lock();
        if known.finished.len() < CLEAN_EVERY { Vec::new() } else { std::mem::take(&mut known.finished) }
    }

    /// Removes the files of groups whose outcome is durable in every log.
    pub(crate) fn forget(&self, groups: &[[u8; 16]]) {
        for group in groups {
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
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Error::from_io(format!("reading {}", path.display()), e))?;
            let volumes = text.lines().map(VolumeName::decode).collect::<Result<Vec<_>>>();
            groups.push((path.clone(), volumes.map_err(|e| e.context(path.display()))?));
        }
        Ok(groups)
    }
}
