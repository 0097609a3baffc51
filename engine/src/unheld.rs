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
    /// Never held over a request.
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    markers: BTreeMap<ReplicaId, Marker>,
    leaving: Vec<Leaving>,
}

/// A marker that the traffic of another replica is leaving.
struct Leaving {
    marker: Marker,
    /// Its replica has let it go meanwhile: whoever leaves it takes it back.
    is_over: bool,
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
        Ok(Unheld { dir, notes: Mutex::new(Notes { markers, leaving: Vec::new() }) })
    }

    /// Notes that this replica's marker is to be left.
    pub(crate) fn add(&self, id: ReplicaId, marker: Marker) {
        let mut notes = self.notes.lock();
        if notes.markers.get(&id) == Some(&marker) {
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
        notes.markers.insert(id, marker);
    }

    /// What is noted for a replica.
    pub(crate) fn of(&self, id: ReplicaId) -> Option<Marker> {
        self.notes.lock().markers.get(&id).cloned()
    }

    /// Its replica has left the marker itself, or it cannot be left.
    pub(crate) fn remove(&self, id: ReplicaId) {
        self.notes.lock().remove(id, &self.path(id));
    }

    /// Its replica lets the marker go. Whether it has to be taken back here: whoever is just leaving it does so itself.
    pub(crate) fn end(&self, id: ReplicaId, marker: &Marker) -> bool {
        let mut notes = self.notes.lock();
        if notes.markers.get(&id) == Some(marker) {
            notes.remove(id, &self.path(id));
        }
        match notes.leaving.iter_mut().find(|leaving| leaving.marker == *marker) {
            Some(leaving) => {
                leaving.is_over = true;
                false
            }
            None => true,
        }
    }

    /// Whether the marker is about to be taken back by whoever left it: to leave it again now would be in vain.
    pub(crate) fn is_going(&self, marker: &Marker) -> bool {
        self.notes.lock().leaving.iter().any(|leaving| leaving.is_over && leaving.marker == *marker)
    }

    /// Leaves all of them, by `leave`, which says whether its marker is there or will never be. What its replica has let
    /// go meanwhile goes by `take_back`. An error ends it.
    pub(crate) fn leave(
        &self,
        leave: impl Fn(ReplicaId, &Marker) -> Result<()>,
        take_back: impl Fn(&Marker),
    ) -> Result<()> {
        let mut last = None;
        while let Some((id, marker)) = self.start(last) {
            last = Some(id);
            let left = leave(id, &marker);
            if self.is_over(id, &marker, left.is_ok()) {
                take_back(&marker);
                self.notes.lock().leaving.retain(|leaving| leaving.marker != marker);
            }
            left?;
        }
        Ok(())
    }

    /// The first that nobody is leaving, of the replicas after `last`.
    fn start(&self, last: Option<ReplicaId>) -> Option<(ReplicaId, Marker)> {
        let mut notes = self.notes.lock();
        let Notes { markers, leaving } = &mut *notes;
        let next = markers.iter().find(|(id, marker)| {
            last.is_none_or(|last| **id > last) && leaving.iter().all(|leaving| leaving.marker != **marker)
        });
        let (id, marker) = next.map(|(id, marker)| (*id, marker.clone()))?;
        leaving.push(Leaving { marker: marker.clone(), is_over: false });
        Some((id, marker))
    }

    /// Whether the replica has let the marker go while it was left. If not, it is left by now, and noted no more if
    /// `is_done`.
    fn is_over(&self, id: ReplicaId, marker: &Marker, is_done: bool) -> bool {
        let mut notes = self.notes.lock();
        if notes.leaving.iter().any(|leaving| leaving.is_over && leaving.marker == *marker) {
            return true;
        }
        notes.leaving.retain(|leaving| leaving.marker != *marker);
        if is_done && notes.markers.get(&id) == Some(marker) {
            notes.remove(id, &self.path(id));
        }
        false
    }

    fn path(&self, id: ReplicaId) -> PathBuf {
        self.dir.join(id.folder())
    }
}

impl Notes {
    fn remove(&mut self, id: ReplicaId, path: &Path) {
        if self.markers.remove(&id).is_some() {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_file(path)
        && e.kind() != ErrorKind::NotFound
    {
        tracing::warn!("removing {}: {e}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use quire_proto::{CommitHash, Lsn, MarkerTarget, VolumeName};

    use super::*;

    fn marker(id: u64, lsn: u64) -> Marker {
        let base = (VolumeName::parse("app").unwrap(), Lsn::new(lsn).unwrap(), CommitHash::of(b"base"));
        Marker { base, target: MarkerTarget::Replica { id, author: "me".to_owned() } }
    }

    fn noted(dir: &Path) -> Vec<Option<Marker>> {
        let unheld = Unheld::open(dir).unwrap();
        (1..=3).map(|id| unheld.of(ReplicaId(id))).collect()
    }

    #[test]
    fn what_is_left_is_noted_no_more_and_what_is_not_stays_across_an_opening() {
        let dir = tempfile::tempdir().unwrap();
        let unheld = Unheld::open(dir.path()).unwrap();
        (1..=3).for_each(|id| unheld.add(ReplicaId(id), marker(id, 5)));
        unheld.add(ReplicaId(3), marker(3, 6));
        let leave = |ReplicaId(id), _: &Marker| if id == 2 { Err(Error::unavailable("away")) } else { Ok(()) };
        unheld.leave(leave, |_| panic!("nobody let go")).unwrap_err();
        assert_eq!(noted(dir.path()), [None, Some(marker(2, 5)), Some(marker(3, 6))]);
        std::fs::write(dir.path().join("unheld").join(ReplicaId(2).folder()), b"no marker").unwrap();
        assert_eq!(noted(dir.path()), [None, None, Some(marker(3, 6))]);
    }

    #[test]
    fn what_its_replica_lets_go_while_it_is_left_is_taken_back_by_who_left_it() {
        let dir = tempfile::tempdir().unwrap();
        let unheld = Unheld::open(dir.path()).unwrap();
        let (first, second, store) = (marker(1, 5), marker(2, 5), RefCell::new(Vec::new()));
        unheld.add(ReplicaId(1), first.clone());
        unheld.add(ReplicaId(2), second.clone());
        let leave = |id, marker: &Marker| {
            if id == ReplicaId(1) {
                let leave = |_, other: &Marker| {
                    store.borrow_mut().push(other.clone());
                    Ok(())
                };
                unheld.leave(leave, |_| panic!("nobody let go")).unwrap();
                assert_eq!(*store.borrow(), std::slice::from_ref(&second), "what somebody is leaving is his");
                assert!(!unheld.end(id, marker) && unheld.is_going(marker));
            }
            store.borrow_mut().push(marker.clone());
            Ok(())
        };
        let take_back = |gone: &Marker| {
            assert!(unheld.is_going(gone));
            store.borrow_mut().retain(|marker| marker != gone);
            // It is needed again: only a note, as long as it is going.
            unheld.add(ReplicaId(1), gone.clone());
        };
        unheld.leave(leave, take_back).unwrap();
        assert_eq!(store.into_inner(), [second]);
        assert!(!unheld.is_going(&first) && unheld.end(ReplicaId(3), &marker(3, 1)));
        assert_eq!(noted(dir.path()), [Some(first), None, None]);
    }
}
