//! Markers that are still to be left: of replicas that came to stand apart while the store was away. Whichever volume of
//! the data directory reaches the store next leaves them too, so that nobody has to open those replicas for it.
//!
//! Each is a file of its own below `unheld/`, named as its replica's folder. It is a note only: what is lost of it is made
//! up for by the traffic of the replica itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use quire_proto::{Error, Marker, Result};

use crate::catalog::ReplicaId;
use crate::engine::make_folder;

/// The markers that are still to be left.
pub(crate) struct Unheld {
    dir: PathBuf,
    /// Held while they are left, so that who takes one back does so before or after.
    markers: Mutex<BTreeMap<ReplicaId, Marker>>,
}

impl Unheld {
    /// Reads those of a data directory. One that is damaged goes.
    pub(crate) fn open(data_dir: &Path) -> Result<Unheld> {
        let dir = data_dir.join("unheld");
        let mut markers = BTreeMap::new();
        let reading = |e| Error::from_io(format!("reading {}", dir.display()), e);
        match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            entries => {
                for entry in entries.map_err(reading)? {
                    let path = entry.map_err(reading)?.path();
                    let marker = Marker::decode(&std::fs::read(&path).map_err(reading)?);
                    match (ReplicaId::of_folder(&path), marker) {
                        (Some(id), Ok(marker)) => drop(markers.insert(id, marker)),
                        _ => remove(&path),
                    }
                }
            }
        }
        Ok(Unheld { dir, markers: Mutex::new(markers) })
    }

    /// Notes that this replica's marker is to be left.
    pub(crate) fn add(&self, id: ReplicaId, marker: Marker) {
        let mut markers = self.markers.lock();
        if markers.get(&id) == Some(&marker) {
            return;
        }
        let path = self.path(id);
        let written = make_folder(&self.dir).and_then(|()| {
            let write = || {
                let mut file = File::create(&path)?;
                file.write_all(&marker.encode())?;
                file.sync_all()
            };
            write().map_err(|e| Error::from_io(format!("writing {}", path.display()), e))
        });
        if let Err(e) = written {
            tracing::warn!("{e}");
        }
        markers.insert(id, marker);
    }

    /// It has been left, or is not needed any more.
    pub(crate) fn remove(&self, id: ReplicaId) {
        if self.markers.lock().remove(&id).is_some() {
            remove(&self.path(id));
        }
    }

    /// Leaves all of them; those of which `leave` says that it is done are noted no more.
    pub(crate) fn leave(&self, mut leave: impl FnMut(ReplicaId, &Marker) -> bool) {
        self.markers.lock().retain(|id, marker| {
            let is_done = leave(*id, marker);
            if is_done {
                remove(&self.path(*id));
            }
            !is_done
        });
    }

    fn path(&self, id: ReplicaId) -> PathBuf {
        self.dir.join(id.folder())
    }
}

fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_file(path)
        && e.kind() != ErrorKind::NotFound
    {
        tracing::warn!("removing {}: {e}", path.display());
    }
}
