//! The table file, which spares the next opening the log; closing; and a
//! second replica of the same files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quire_proto::{Error, Result};

use super::{Core, Replica};
use crate::compact;
use crate::log::{FileId, Room, sync_dir};
use crate::tablefile::{self, StoredTable};

/// After this much log a table file is written, so that a crash leaves little to replay.
const TABLE_EVERY_BYTES: u64 = 32 << 20;

/// The keeper is at work, until this is dropped.
struct Keeping<'a>(&'a Replica);

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        self.0.core().keeping = false;
        self.0.kept.notify_all();
    }
}

impl Replica {
    pub(super) fn after_append(self: &Arc<Self>, core: &mut Core) {
        let gone = self.reclaim(core);
        core.gone.extend(gone);
        let compacts = compact::is_due(core, self.engine.file_bytes());
        let saves = core.since_table > TABLE_EVERY_BYTES;
        if core.keeping {
            // It may take long: what is to go must not become much meanwhile.
            core.gone.truncate(1);
            return;
        }
        if !(compacts || saves || !core.gone.is_empty()) {
            return;
        }
        let replica = self.clone();
        let gone = std::mem::take(&mut core.gone);
        let keeper = std::thread::Builder::new().name("quire-keeper".into()).spawn(move || {
            let _keeping = Keeping(&replica);
            drop(gone);
            let kept = match compacts {
                true => compact::compact(&replica),
                false if saves => replica.save_table(),
                false => Ok(()),
            };
            if let Err(e) = kept {
                tracing::warn!("volume {}: {e}", replica.name());
            }
        });
        match keeper {
            Ok(keeper) => {
                core.keeping = true;
                // The one before it has finished. It is waited for all the same: see `Bridge`.
                drop(core.keeper.replace(keeper).map(std::thread::JoinHandle::join));
            }
            Err(e) => tracing::warn!("volume {}: starting a thread: {e}", self.name()),
        }
    }

    /// Waits while the log is far too long and the keeper shortens it: commits must not outrun it.
    pub(super) fn wait_for_keeper(&self) {
        let mut core = self.core();
        while core.keeping && compact::is_overdue(&core) {
            self.kept.wait(&mut core);
        }
    }

    /// Writes the table file, so that opening replays little. Commits go on meanwhile.
    fn save_table(&self) -> Result<()> {
        let _saving = self.saving.lock();
        let stored = self.stored_table(&mut self.core())?;
        let saved = stored.map_or(Ok(()), |stored| tablefile::save(&self.dir, &stored));
        saved.inspect_err(|_| self.core().table_is_old = true)
    }

    pub(super) fn save_table_locked(&self, core: &mut Core) -> Result<()> {
        match self.stored_table(core)? {
            Some(stored) => tablefile::save(&self.dir, &stored).inspect_err(|_| core.table_is_old = true),
            None => Ok(()),
        }
    }

    fn stored_table(&self, core: &mut Core) -> Result<Option<StoredTable>> {
        if core.undecided.is_some() || core.broken.is_some() {
            return Ok(None);
        }
        core.log.sync()?;
        let Some(end) = core.log.end() else { return Ok(None) };
        // The records of an open transaction will be needed again.
        let position = core.writing_from.unwrap_or(end);
        if position.file == FileId(0) {
            // Nothing was ever committed.
            return Ok(None);
        }
        core.since_table = 0;
        let next_file = self.next_file.load(Ordering::Relaxed);
        Ok(Some(StoredTable {
            state: core.state.clone(),
            table: self.visible.load().table().clone(),
            position,
            next_file,
        }))
    }

    /// Leaves the replica so that the next opening is quick. Called once, when its last user goes.
    pub(crate) fn close(self: &Arc<Self>) -> Result<()> {
        self.fetching.close(self.engine());
        let keeper = self.core().keeper.take();
        if let Some(keeper) = keeper {
            // Its table is older than the one written below.
            let _ = keeper.join();
        }
        // A writer that outlives the volume may have started another.
        let _saving = self.saving.lock();
        let mut cache = self.cache.lock();
        let mut core = self.core();
        core.gone.clear();
        self.reclaim(&mut core);
        if core.registered && core.log.end().is_some() && core.broken.is_none() && !self.is_past() {
            core.log.seal();
            cache.seal();
            // Who only read leaves the table file as it is: of a large volume it is megabytes, which would be synced.
            if core.since_table > 0 || core.table_is_old {
                self.save_table_locked(&mut core).inspect_err(|_| self.engine.groups.keep_all())?;
            }
        }
        Ok(())
    }

    /// Makes `dir` a replica of the same content. Files are linked, not copied: each has been sealed, and is never
    /// written again. The caller holds the writer's lock and that of the traffic.
    pub(crate) fn link_files(&self, dir: &Path) -> Result<()> {
        let _saving = self.saving.lock();
        let mut cache = self.cache.lock();
        let mut core = self.core();
        core.check_goes_on()?;
        if core.undecided.is_some() {
            return Err(Error::unavailable(format!(
                "volume {}: whether its last commit reached the store is not known",
                self.name()
            ))
            .with_remedy(format!(
                "`quire push {0}` settles it, once the store can be reached. If that will never be: `quire export {0} FILE` \
                 saves what is here without that commit.",
                self.name()
            )));
        }
        if core.log.end().is_none() || core.state.page_size.is_none() {
            return Err(
                Error::invalid(format!("volume {} has no content yet", self.name())).with_remedy("Write to it first.")
            );
        }
        core.log.seal();
        cache.seal();
        self.save_table_locked(&mut core)?;
        let files = self.files.load();
        for file in core.log_files.iter().chain(&core.cache_files).filter_map(|id| files.get(id)) {
            link(&file.room.path(&self.dir, file.id), &file.room.path(dir, file.id))?;
        }
        link(&tablefile::path(&self.dir), &tablefile::path(dir))?;
        for room in [Room::Log, Room::Cache] {
            match room.path(dir, FileId(0)).parent() {
                Some(folder) if folder.is_dir() => sync_dir(folder)?,
                _ => {}
            }
        }
        sync_dir(dir)
    }
}

/// Gives a file a second name; on a file system that cannot, it is copied.
fn link(from: &Path, to: &Path) -> Result<()> {
    let wrong = |e| Error::from_io(format!("linking {} to {}", from.display(), to.display()), e);
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(wrong)?;
    }
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(from, to).and_then(|_| std::fs::File::open(to)?.sync_all()).map_err(wrong)
}
