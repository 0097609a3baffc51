//! The cache: fetched pages are kept, and given back file by file, the oldest
//! first, once no snapshot reads them.

use std::sync::Arc;

use quire_proto::Result;

use super::{Core, Replica, SPARE_FILES};
use crate::log::{Batch, DataFile, FileId, Files, Place, Room};
use crate::snapshot::View;
use crate::table::{Cell, Table};

impl Replica {
    /// Whether the page at `place` can be fetched again.
    pub(crate) fn is_in_cache(&self, place: Place) -> bool {
        self.files.load().get(&place.file).is_some_and(|file| file.room == Room::Cache)
    }

    /// Keeps fetched pages, and fills the cells of `table` with their places.
    /// True: a new cache file was begun for them.
    pub(crate) fn append_to_cache(&self, batch: &mut Batch, table: &Table) -> Result<bool> {
        let bytes = batch.bytes() as u64;
        // Held until the cells are filled: eviction looks for them under this lock.
        let mut cache = self.cache.lock();
        let begins = !cache.has_room(bytes);
        if begins {
            let mut core = self.core();
            core.check_goes_on()?;
            let file = cache.begin(bytes)?;
            self.add_file(&file);
            core.cache_files.push(file.id);
            core.table_is_old = true;
        } else {
            cache.reserve(bytes)?;
        }
        let first = cache.append(batch)?;
        for (page, place) in batch.pages(first) {
            table.fill(page, place);
        }
        Ok(begins)
    }

    /// Bytes on disk that can be fetched again.
    pub(crate) fn cache_bytes(&self) -> u64 {
        let core = self.core();
        let files = self.files.load();
        let evictable = self.evictable(&core);
        evictable.iter().filter_map(|id| files.get(id)).filter_map(|f| f.len().ok()).sum()
    }

    /// Each session begins new files. More than these are too many to open.
    fn most_cache_files(&self) -> usize {
        (self.engine.cache_size() / self.engine.file_bytes()) as usize + SPARE_FILES
    }

    /// Whether the cache should shrink because of the number of its files.
    pub(crate) fn has_many_files(&self) -> bool {
        let core = self.core();
        self.evictable(&core).len() > self.most_cache_files()
    }

    /// Sealed files, oldest first, that hold nothing but pages which are in the store.
    fn evictable(&self, core: &Core) -> Vec<FileId> {
        if core.state.base.is_none() || core.undecided.is_some() {
            return core.cache_files.clone();
        }
        let limit = core.free_log_limit().map(|limit| core.first_unpushed.map_or(limit, |first| first.min(limit)));
        let logs = core.log_files.iter().copied().filter(|id| limit.is_some_and(|limit| *id < limit));
        let mut files: Vec<FileId> = logs.chain(core.cache_files.iter().copied()).collect();
        files.sort_unstable();
        files
    }

    /// Gives back the oldest cached files until at most `bound` bytes of cache
    /// are left. Snapshots that still read them keep them until they go.
    pub(crate) fn evict(self: &Arc<Self>, bound: u64) -> Result<u64> {
        let _saving = self.saving.lock();
        let mut cache = self.cache.lock();
        let mut core = self.core();
        self.reclaim(&mut core);
        let files = self.files.load_full();
        let evictable = self.evictable(&core);
        let sizes: Vec<u64> = evictable.iter().map(|id| files.get(id).map_or(0, |f| f.len().unwrap_or(0))).collect();
        let mut total: u64 = sizes.iter().sum();
        let mut victims = Vec::new();
        let mut count = sizes.len();
        for (id, size) in evictable.into_iter().zip(sizes) {
            if total <= bound && count <= self.most_cache_files() {
                break;
            }
            total -= size;
            count -= 1;
            victims.push(id);
        }
        if victims.is_empty() {
            return Ok(0);
        }
        // That they are in the store must survive what forgets where they are here.
        core.log.sync()?;
        if cache.end().is_some_and(|end| victims.contains(&end.file)) {
            cache.seal();
        }
        drop(cache);
        let mut table = self.visible.load().table().clone();
        let mut gone = Vec::new();
        table.for_each(|page, cell| {
            if let Cell::At { place, .. } = cell
                && victims.contains(&place.file)
            {
                gone.push(page);
            }
        });
        for page in &gone {
            table.set(*page, Cell::Absent);
        }
        self.publish(&mut core, table, false);
        core.table_is_old = true;
        let logs = victims.iter().any(|id| core.log_files.contains(id));
        self.retire(&mut core, victims);
        if logs {
            // The table file may go on from one of them. (Cells of cache files that are not there count as absent.)
            self.save_table_locked(&mut core)?;
        }
        self.reclaim(&mut core);
        Ok(gone.len() as u64)
    }

    /// Notes that no snapshot from now on reads these files.
    fn retire(&self, core: &mut Core, files: Vec<FileId>) {
        self.leave_out(core, &files);
        let old = std::mem::replace(&mut core.pin, Arc::new(()));
        core.doomed.push((Arc::downgrade(&old), files));
        // The visible snapshot does not read them: let it hold the new pin.
        let visible = self.visible.load();
        self.visible.store(View::new(visible.version(), &core.state, visible.table().clone(), core.pin.clone()));
    }

    /// These files are none of the log or the cache any more.
    pub(super) fn leave_out(&self, core: &mut Core, files: &[FileId]) {
        let known = self.files.load();
        let gone = core.log_files.iter().filter(|id| files.contains(id));
        let bytes: u64 = gone.filter_map(|id| known.get(id)?.len().ok()).sum();
        core.log_bytes = core.log_bytes.saturating_sub(bytes);
        core.log_files.retain(|id| !files.contains(id));
        core.cache_files.retain(|id| !files.contains(id));
    }

    /// A log file from which compaction has moved everything goes, once what
    /// was moved is durable.
    pub(crate) fn retire_log_file(self: &Arc<Self>, file: FileId) -> Result<()> {
        let _saving = self.saving.lock();
        let mut core = self.core();
        core.log.sync()?;
        self.retire(&mut core, vec![file]);
        self.save_table_locked(&mut core)?;
        let gone = self.reclaim(&mut core);
        drop(core);
        self.kept.notify_all();
        // Commits do not wait for it.
        drop(gone);
        Ok(())
    }

    /// Retired files that no snapshot can read any more. Each is unlinked when it is dropped, which takes milliseconds.
    pub(crate) fn reclaim(&self, core: &mut Core) -> Vec<Arc<DataFile>> {
        let mut all = Vec::new();
        while core.doomed.first().is_some_and(|(pin, _)| pin.strong_count() == 0) {
            let (_, ids) = core.doomed.remove(0);
            all.extend(self.take_files(&ids));
        }
        all
    }

    /// Nothing is read from these files any more: they go when they are dropped.
    pub(super) fn take_files(&self, ids: &[FileId]) -> Vec<Arc<DataFile>> {
        let before = self.files.rcu(|files| {
            let mut files = Files::clone(files);
            files.retain(|id, _| !ids.contains(id));
            files
        });
        let gone: Vec<_> = before.iter().filter(|(id, _)| ids.contains(id)).map(|(_, file)| file.clone()).collect();
        gone.iter().for_each(|file| file.doom());
        gone
    }
}
