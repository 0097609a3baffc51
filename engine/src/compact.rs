//! Compaction of the log: what is still live in the oldest files moves to the
//! log's end, and the files go. Always the oldest first, so that the log stays
//! one chain; a whole round moves at most what is live, so that a replica that
//! never pushes stays within twice its size.

use std::sync::Arc;

use quire_proto::{PageIdx, PageSize, Result};

use crate::log::{Batch, FileId, Place, RecordKind};
use crate::replica::{Core, Replica, SPARE_FILES};
use crate::table::Cell;

/// The log may be this much longer than twice the live pages.
const SLACK_BYTES: u64 = 48 << 20;
/// And so much longer than that before commits wait for it.
const OVERDUE_BYTES: u64 = 16 << 20;
/// Pages that move together; commits wait no longer than this takes.
const MOVE_PAGES: usize = 64;

/// How long the log may become before it is compacted.
fn bound(core: &Core) -> u64 {
    let page_bytes = core.state.page_size.map_or(0, |size| core.state.page_count.bytes(size));
    2 * page_bytes + SLACK_BYTES
}

/// Whether the log is longer than it should be, or in more files: each session begins one.
pub(crate) fn is_due(core: &Core, file_bytes: u64) -> bool {
    core.log_bytes > bound(core) || core.log_files.len() > most_files(core, file_bytes) + SPARE_FILES
}

/// Whether commits must wait until it is shorter.
pub(crate) fn is_overdue(core: &Core) -> bool {
    core.log_bytes > bound(core) + OVERDUE_BYTES
}

fn most_files(core: &Core, file_bytes: u64) -> usize {
    (bound(core) / file_bytes) as usize
}

/// Compacts until the log is short enough, one round at the most.
pub(crate) fn compact(replica: &Arc<Replica>) -> Result<()> {
    let file_bytes = replica.engine().file_bytes();
    let rounds = replica.core().log_files.len();
    for _ in 0..rounds {
        let oldest = {
            let core = replica.core();
            let too_long = core.log_bytes > bound(&core) - SLACK_BYTES / 2
                || core.log_files.len() > most_files(&core, file_bytes) + SPARE_FILES / 2;
            match core.log_files.first() {
                Some(oldest)
                    if too_long
                        && core.undecided.is_none()
                        && core.free_log_limit().is_some_and(|limit| *oldest < limit) =>
                {
                    *oldest
                }
                _ => return Ok(()),
            }
        };
        if !move_file(replica, oldest)? {
            return Ok(());
        }
        replica.retire_log_file(oldest)?;
    }
    Ok(())
}

/// Moves what is live in a file. False: the volume's pages changed their size meanwhile.
fn move_file(replica: &Arc<Replica>, file: FileId) -> Result<bool> {
    let snapshot = replica.snapshot();
    let Some(size) = snapshot.page_size() else { return Ok(false) };
    let mut live: Vec<(PageIdx, Place)> = Vec::new();
    snapshot.table().for_each(|page, cell| {
        if let Cell::At { place, .. } = cell
            && place.file == file
        {
            live.push((page, place));
        }
    });
    for pages in live.chunks(MOVE_PAGES) {
        move_pages(replica, size, pages)?;
        if replica.snapshot().page_size() != Some(size) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn move_pages(replica: &Arc<Replica>, size: PageSize, pages: &[(PageIdx, Place)]) -> Result<()> {
    let mut contents = Vec::with_capacity(pages.len());
    for (page, place) in pages {
        let mut data = vec![0; size.bytes()];
        replica.read_place(*place, *page, &mut data, true)?;
        contents.push((*page, *place, data));
    }
    // From here on under the lock that orders the log: a page that has been
    // written meanwhile is newer than its copy, and stays where it is.
    let mut core = replica.core();
    let mut table = replica.snapshot().table().clone();
    contents.retain(|(page, old, _)| matches!(table.get(*page), Cell::At { place, .. } if place == *old));
    if contents.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::default();
    for (page, _, data) in &contents {
        batch.push(RecordKind::Moved, page.get(), 0, data);
    }
    let first = replica.append_locked(&mut core, &mut batch)?;
    for (page, place) in batch.pages(first) {
        table.set(page, Cell::At { place, verified: true });
    }
    replica.publish(&mut core, table, false);
    Ok(())
}
