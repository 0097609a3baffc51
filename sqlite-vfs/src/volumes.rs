//! The volumes that connections of this process have open.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use quire_engine::{Engine, Error, ErrorKind, Lsn, Moment, PageCount, PageIdx, Result, Snapshot, Volume, VolumeName};

use crate::guide::Trees;
use crate::header;
use crate::names;

/// The open volumes of one SQLite.
#[derive(Default)]
pub(crate) struct Volumes {
    by_name: Mutex<HashMap<Opened, Weak<OpenVolume>>>,
}

/// A volume's name, and the LSN if it is a snapshot of the past.
type Opened = (VolumeName, Option<Lsn>);

/// A volume, as long as a connection has it open.
pub(crate) struct OpenVolume {
    pub(crate) volume: Volume,
    /// What it was opened as, without the LSN.
    pub(crate) name: VolumeName,
    /// After the volume, so that it is closed after it.
    pub(crate) engine: Arc<Engine>,
    /// Added to a snapshot's version it gives the change counter that SQLite reads.
    counter_base: OnceLock<u32>,
    /// Nothing is written to it.
    pub(crate) is_past: bool,
    /// What is known of the B-trees of a snapshot of it; see [`crate::guide`].
    pub(crate) trees: Mutex<Option<Arc<Trees>>>,
    last_error: Mutex<Option<(String, Option<String>)>>,
}

impl Volumes {
    /// Opens a volume, or shares it with those who have it open. With
    /// `create` a volume that nobody has is begun by its first commit.
    pub(crate) fn open(&self, engine: &Arc<Engine>, name: &VolumeName, create: bool) -> Result<Arc<OpenVolume>> {
        let volume = match names::check_new(name) {
            Ok(()) if create => engine.volume(name)?,
            Ok(()) => engine.existing(name)?,
            // One that is there already is meant, whatever its name.
            Err(refused) => match engine.existing(name) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Err(refused),
                existing => existing?,
            },
        };
        Ok(self.share(engine, (name.clone(), None), volume))
    }

    /// Opens a snapshot of the past.
    pub(crate) fn open_at(&self, engine: &Arc<Engine>, name: &VolumeName, moment: Moment) -> Result<Arc<OpenVolume>> {
        let volume = engine.volume_at(name, moment)?;
        let lsn = volume.snapshot().base_lsn();
        Ok(self.share(engine, (name.clone(), lsn), volume))
    }

    fn share(&self, engine: &Arc<Engine>, opened: Opened, volume: Volume) -> Arc<OpenVolume> {
        let mut by_name = self.by_name.lock();
        if let Some(open) = by_name.get(&opened).and_then(Weak::upgrade)
            && Arc::ptr_eq(&open.engine, engine)
        {
            return open;
        }
        by_name.retain(|_, open| open.strong_count() > 0);
        let counter_base = OnceLock::new();
        let snapshot = volume.snapshot();
        if snapshot.page_count() == PageCount::ZERO {
            // Its first writer reads no counter before it caches what it writes, and counts from zero.
            let _ = counter_base.set(0u32.wrapping_sub(snapshot.version() as u32));
        }
        let open = Arc::new(OpenVolume {
            volume,
            name: opened.0.clone(),
            engine: engine.clone(),
            counter_base,
            is_past: opened.1.is_some(),
            trees: Mutex::default(),
            last_error: Mutex::default(),
        });
        by_name.insert(opened, Arc::downgrade(&open));
        open
    }

    /// All that are open.
    pub(crate) fn all(&self) -> Vec<Arc<OpenVolume>> {
        self.by_name.lock().values().filter_map(Weak::upgrade).collect()
    }
}

impl OpenVolume {
    /// The change counter of a snapshot, by which SQLite decides whether its
    /// cache is still good. It counts as the snapshots do; so the counter that
    /// a writer puts into its page 1, one above what it read, is what everybody
    /// reads afterwards exactly if its commit is the next snapshot. It begins at
    /// the stored one, so that the first snapshot is served as it is stored.
    pub(crate) fn change_counter(&self, snapshot: &Snapshot) -> Result<u32> {
        let version = snapshot.version() as u32;
        if let Some(base) = self.counter_base.get() {
            return Ok(base.wrapping_add(version));
        }
        let stored = match snapshot.page_size() {
            Some(size) => {
                let mut page = vec![0; size.bytes()];
                snapshot.read(PageIdx::FIRST, &mut page)?;
                header::change_counter(&page)
            }
            None => 0,
        };
        Ok(self.counter_base.get_or_init(|| stored.wrapping_sub(version)).wrapping_add(version))
    }

    pub(crate) fn note_error(&self, error: &Error) {
        *self.last_error.lock() = Some((error.to_string(), error.remedy().map(str::to_owned)));
    }

    pub(crate) fn forget_error(&self) {
        *self.last_error.lock() = None;
    }

    /// What failed last in a connection, and the remedy.
    pub(crate) fn last_error(&self) -> Option<(String, Option<String>)> {
        self.last_error.lock().clone()
    }
}
