//! Reading pages that are not here.
//!
//! The unit of a fetch is the frame. Every page of a fetched frame that the
//! snapshot takes from the same commit is kept in a cache file, and its cell
//! filled. Several readers that miss one frame wait for one fetch.
//!
//! A frame that is gone is looked for once more by the newest index of the same
//! snapshot: a compaction may have moved its pages, and a collector may have let
//! go what nothing names any more.
//!
//! The fetch unit grows with need (`ahead.rs`): a single row costs single
//! frames, a scan or a burst of misses soon fetches many at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use quire_history::{Lineage, Located, MOST_LOOKS, fetch_frames, gone_or};
use quire_proto::{
    DecodedFrame, Error, ErrorKind, FRAME_TARGET_BYTES, FrameObject, Lsn, PageIdx, PageSize, Result, VolumeName,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::ahead::Ahead;
use crate::engine::Shared;
use crate::log::{Batch, Place, RecordKind};
use crate::replica::Replica;
use crate::snapshot::Snapshot;
use crate::table::Cell;

/// How far read-ahead looks for them: a sparse volume may have nothing for long.
const MAX_AHEAD_PAGES: u32 = 1 << 16;
/// A steady scan has so many units fetched before they are missed: enough for a link of 1 Gbit/s and 60 ms.
const UNITS_AHEAD: u32 = 3;
/// Pages that hydrating looks at together, which bounds its memory.
const HYDRATE_PAGES: u32 = 1 << 16;
/// Frames of one batch while hydrating, and how many batches are under way.
const HYDRATE_FRAMES: usize = 64;
const HYDRATE_BATCHES: usize = 3;

/// What is being fetched for a replica, and how far read-ahead has come.
#[derive(Default)]
pub(crate) struct Fetching {
    under_way: Mutex<HashSet<Located>>,
    arrived: Notify,
    ahead: Mutex<Ahead>,
    /// Pages of a steady scan, the first in the upper half and the last in the lower: whoever reads one of them for the
    /// first time has more fetched. 0: none.
    trigger: AtomicU64,
    background: Mutex<Background>,
}

/// The task that fetches before anybody misses it; one at a time.
#[derive(Default)]
struct Background {
    task: Option<JoinHandle<()>>,
    is_busy: bool,
    /// What it fetches next begins here.
    next: u32,
    /// It goes no further before a reader comes closer.
    until: u32,
    is_closed: bool,
}

impl Fetching {
    /// A reader of pages from `first` on, before `next`, has more fetched.
    fn expect(&self, first: u32, next: u32) {
        let first = first.min(next.saturating_sub(1));
        self.trigger.store(u64::from(first) << 32 | u64::from(next.saturating_sub(1)), Ordering::Relaxed);
    }

    /// What begins at `from` is being fetched, up to the page before `next`.
    fn advance(&self, from: u32, next: u32) {
        self.ahead.lock().goes_on(from, next);
        let mut background = self.background.lock();
        // Another scan may have taken its place.
        if background.next == from {
            background.next = next;
            let pages = self.trigger.load(Ordering::Relaxed);
            if pages != 0 {
                self.expect((pages >> 32) as u32, next);
            }
        }
    }

    /// Nothing is fetched any more that nobody waits for.
    pub(crate) fn close(&self, engine: &Shared) {
        let task = {
            let mut background = self.background.lock();
            background.is_closed = true;
            background.task.take()
        };
        if let Some(task) = task {
            task.abort();
            // Until it is gone it may write to the cache.
            let _ = engine.bridge.wait(task);
        }
    }

    /// Somebody uses the replica again that was closed.
    pub(crate) fn open_again(&self) {
        let mut background = self.background.lock();
        if background.is_closed {
            *background = Background::default();
        }
    }

    /// Returns once nobody fetches the frame (any more). Waits as a task, not
    /// as a thread: whoever fetches may need one.
    async fn wait(&self, key: &Located) {
        loop {
            let arrived = self.arrived.notified();
            if !self.under_way.lock().contains(key) {
                return;
            }
            arrived.await;
        }
    }
}

/// Copies an absent page of `snapshot` into `buf`. Of the pages that are `wanted` those that are absent too come along.
pub(crate) fn read_absent(
    snapshot: &Snapshot,
    page: PageIdx,
    buf: &mut [u8],
    wanted: Option<&[PageIdx]>,
) -> Result<()> {
    let replica = snapshot.replica();
    let engine = replica.engine();
    let fetched = engine.bridge.wait(fetch_page(engine, snapshot, page, wanted));
    if let Err(e) = &fetched {
        replica.note_error(e);
    }
    match fetched? {
        Some(data) => {
            if data.len() != buf.len() {
                return Err(Error::corrupt(format!("page {page} of {} bytes where {} belong", data.len(), buf.len())));
            }
            buf.copy_from_slice(&data);
        }
        None => buf.fill(0),
    }
    Ok(())
}

/// The content of an absent page; `None` is zeros.
async fn fetch_page(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    page: PageIdx,
    along: Option<&[PageIdx]>,
) -> Result<Option<Bytes>> {
    let replica = snapshot.replica();
    let mut lineage = lineage_of(engine, snapshot).await?;
    // The checkpoint may have brought it along.
    if let Cell::At { place, .. } = snapshot.table().get(page) {
        return read_kept(snapshot, place, page).map(Some);
    }
    let mut looks = 0;
    loop {
        let Some((key, last)) = locate(engine, snapshot, &mut lineage, page).await? else { return Ok(None) };
        if !begin(&replica.fetching, &key) {
            // Somebody else fetches it: wait, then look whether it is here.
            replica.fetching.wait(&key).await;
            if let Cell::At { place, .. } = snapshot.table().get(page) {
                touched(snapshot, page);
                return read_kept(snapshot, place, page).map(Some);
            }
            continue;
        }
        let mut guard = UnderWay { replica: replica.clone(), keys: vec![key.clone()] };
        let mut wanted = vec![key.clone()];
        let mut unit = replica.fetching.ahead.lock().after_miss(page, Instant::now());
        if along.is_some() && !unit.is_scan {
            unit.frames = 0;
        }
        // Neither what lies ahead nor what is to come along must fail the page that was asked for.
        let left_out = |e: &Error| tracing::debug!("volume {}: nothing comes along: {e}", replica.name());
        let next = page.get().saturating_add(1);
        let ahead = frames_from(engine, snapshot, &lineage, (next, unit.frames), Some(&key)).await;
        let (mut more, reach) = ahead.inspect_err(left_out).unwrap_or((Vec::new(), next));
        let reach = reach.max(last.get().saturating_add(1));
        replica.fetching.ahead.lock().fetched(page, reach);
        if let Some(along) = along.filter(|along| !along.is_empty()) {
            let absent = along.iter().copied().filter(|page| snapshot.table().get(*page) == Cell::Absent).collect();
            let along = frames_of(engine, &lineage, absent, engine.most_ahead_frames(), Some(&key)).await;
            more.extend(along.inspect_err(left_out).unwrap_or_default().into_iter().map(|(key, _)| key));
        }
        for more in more {
            if begin(&replica.fetching, &more) {
                guard.keys.push(more.clone());
                wanted.push(more);
            }
        }
        let frames = match fetch_frames(engine.reader().await?, &wanted).await {
            // What was to come along must not fail the page that was asked for.
            Err(e) if wanted.len() > 1 && (e.kind() == ErrorKind::Corrupt || is_missing(&e)) => {
                wanted.truncate(1);
                fetch_frames(engine.reader().await?, &wanted).await
            }
            fetched => fetched,
        };
        let frames = match frames {
            Err(e) if is_missing(&e) && looks < MOST_LOOKS => {
                tracing::debug!("{e}: looking for it in the newest index");
                lineage = newest_lineage(engine, snapshot, &lineage, &key.volume).await?;
                looks += 1;
                continue;
            }
            Err(e) if is_missing(&e) => {
                return Err(gone_or(engine.reader().await?, lineage.volume(), lineage.head().0, e).await);
            }
            frames => frames?,
        };
        if unit.is_scan {
            go_on(snapshot, page, reach);
        }
        for (key, frame) in wanted.iter().zip(&frames) {
            keep(snapshot, &lineage, key, frame);
        }
        // In its own frame only: what came along may hold an older content of it.
        let found = frames.first().and_then(|frame| {
            let (_, data) = frame.iter().find(|(p, _)| *p == page)?;
            Some(frame.data.slice_ref(data))
        });
        return match found {
            Some(data) => Ok(Some(data)),
            None => Err(Error::corrupt(format!(
                "volume {}: commit {} owns page {page}, and its frame does not hold it",
                key.volume, key.frame.owner
            ))),
        };
    }
}

/// The lineage of a snapshot's base, loaded at first need.
pub(crate) async fn lineage_of(engine: &Arc<Shared>, snapshot: &Snapshot) -> Result<Arc<Lineage>> {
    let base = snapshot.base().ok_or_else(|| Error::corrupt("a page is absent from a replica without base"))?;
    let replica = snapshot.replica();
    let known = replica.lineage.lock().clone();
    if let Some(lineage) = known.filter(|l| *l.volume() == base.volume && l.head() == (base.lsn, base.hash)) {
        return Ok(lineage);
    }
    let reader = engine.reader().await?.clone();
    let lineage = Lineage::load(reader, base.volume.clone(), base.lsn, base.hash, true).await?;
    keep_boot_pages(snapshot, &lineage);
    note_lineage(replica, &lineage);
    Ok(lineage)
}

/// Whether an error says that the object which held a frame is not there, or not whole, any more.
fn is_missing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Gone)
}

/// The lineage of the same snapshot by its newest index; `missing` is whose frame is not where it was.
async fn newest_lineage(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    lineage: &Lineage,
    missing: &VolumeName,
) -> Result<Arc<Lineage>> {
    let reader = engine.reader().await?;
    let (volume, (lsn, hash)) = (lineage.volume().clone(), lineage.head());
    reader.forget_ahead(&volume);
    reader.forget_ahead(missing);
    let lineage = Lineage::load(reader.clone(), volume, lsn, hash, true).await?;
    note_lineage(snapshot.replica(), &lineage);
    Ok(lineage)
}

/// Keeps a lineage for the next reader, unless there is one of a newer snapshot.
fn note_lineage(replica: &Replica, lineage: &Arc<Lineage>) {
    let mut slot = replica.lineage.lock();
    if slot.as_ref().is_none_or(|l| l.volume() != lineage.volume() || l.head().0 <= lineage.head().0) {
        *slot = Some(lineage.clone());
    }
}

/// The frame that holds an absent page, and the last page that it can hold; `None` is zeros. A checkpoint that is
/// damaged costs requests: the lineage is read again without it, and by the newest one if something is gone.
async fn locate(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    lineage: &mut Arc<Lineage>,
    page: PageIdx,
) -> Result<Option<(Located, PageIdx)>> {
    let reader = engine.reader().await?;
    let mut located = lineage.locate(reader, page).await;
    for _ in 0..MOST_LOOKS {
        if !located.as_ref().is_err_and(is_missing) {
            break;
        }
        let missing = lineage.volume().clone();
        *lineage = newest_lineage(engine, snapshot, lineage, &missing).await?;
        located = lineage.locate(reader, page).await;
    }
    match located {
        Err(e) if is_missing(&e) => Err(gone_or(engine.reader().await?, lineage.volume(), lineage.head().0, e).await),
        Err(e) if lineage.is_indexed() && e.kind() == ErrorKind::Corrupt => {
            tracing::warn!("{e}: the log is read instead");
            let (volume, (lsn, hash)) = (lineage.volume().clone(), lineage.head());
            let by_log = async {
                *lineage = Lineage::load(reader.clone(), volume, lsn, hash, false).await?;
                note_lineage(snapshot.replica(), lineage);
                lineage.locate(reader, page).await
            };
            match by_log.await {
                // The log before the checkpoint is collected: what is wrong is still the checkpoint.
                Err(missing) if is_missing(&missing) => Err(e.with_remedy(format!(
                    "`quire verify {}` says what is damaged, and what can still be read.",
                    lineage.volume()
                ))),
                located => located,
            }
        }
        located => located,
    }
}

/// A page that has been kept since.
fn read_kept(snapshot: &Snapshot, place: Place, page: PageIdx) -> Result<Bytes> {
    let mut data = vec![0; snapshot.page_size().map_or(0, PageSize::bytes)];
    snapshot.replica().read_place(place, page, &mut data, true)?;
    Ok(data.into())
}

/// Marks a frame as being fetched; false if it is already.
fn begin(fetching: &Fetching, key: &Located) -> bool {
    fetching.under_way.lock().insert(key.clone())
}

struct UnderWay {
    replica: Arc<Replica>,
    keys: Vec<Located>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.replica.fetching.under_way.lock();
        self.keys.iter().for_each(|key| {
            under_way.remove(key);
        });
        self.replica.fetching.arrived.notify_waiters();
    }
}

/// A page was read for the first time since it came: if nobody had missed it, and it brings the reader of a scan closer to
/// what was not fetched yet, more is.
pub(crate) fn touched(snapshot: &Snapshot, page: PageIdx) {
    let trigger = &snapshot.replica().fetching.trigger;
    let pages = trigger.load(Ordering::Relaxed);
    let (first, last) = ((pages >> 32) as u32, pages as u32);
    if pages != 0
        && (first..=last).contains(&page.get())
        && trigger.compare_exchange(pages, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        go_on(snapshot, page, last.saturating_add(1));
    }
}

/// Fetches what a scan that is at `page` will need from page `next` on, while it reads what is before.
fn go_on(snapshot: &Snapshot, page: PageIdx, next: u32) {
    let replica = snapshot.replica();
    let frames = replica.fetching.ahead.lock().frames_at(next).min(replica.engine().most_ahead_frames());
    let unit = u32::try_from(frames * pages_per_frame(snapshot)).unwrap_or(u32::MAX);
    if unit == 0 {
        return;
    }
    let mut background = replica.fetching.background.lock();
    if background.is_closed {
        return;
    }
    background.until = page.get().saturating_add(unit.saturating_mul(UNITS_AHEAD));
    background.next = next;
    replica.fetching.expect(page.get().saturating_add(unit), next);
    if background.is_busy {
        return;
    }
    background.is_busy = true;
    let snapshot = snapshot.clone();
    let task = async move {
        if let Err(e) = fetch_before_missed(&snapshot).await {
            // Who needs it meets the error again.
            tracing::debug!("volume {}: fetching ahead: {e}", snapshot.replica().name());
            snapshot.replica().fetching.background.lock().is_busy = false;
        }
    };
    background.task = Some(replica.engine().bridge.spawn(task));
}

/// Fetches unit after unit, a few at once, as long as readers come closer.
async fn fetch_before_missed(snapshot: &Snapshot) -> Result<()> {
    let replica = snapshot.replica();
    let engine = replica.engine();
    let fetching = &replica.fetching;
    let lineage = lineage_of(engine, snapshot).await?;
    let mut under_way = FuturesUnordered::new();
    loop {
        let next = {
            let mut background = fetching.background.lock();
            let wanted = background.next < background.until && snapshot.page_count().get() >= background.next;
            background.is_busy = wanted || !under_way.is_empty();
            if !background.is_busy {
                return Ok(());
            }
            wanted.then_some(background.next)
        };
        if let Some(from) = next.filter(|_| under_way.len() < UNITS_AHEAD as usize) {
            let count = fetching.ahead.lock().grown_at(from);
            let (frames, next) = frames_from(engine, snapshot, &lineage, (from, count), None).await?;
            let frames: Vec<Located> = frames.into_iter().filter(|key| begin(fetching, key)).collect();
            let guard = UnderWay { replica: replica.clone(), keys: frames.clone() };
            fetching.advance(from, next);
            if next == from {
                return Err(Error::not_found("there is nothing ahead"));
            }
            under_way.push(async move {
                let fetched = fetch_frames(engine.reader().await?, &frames).await?;
                Ok::<_, Error>((guard, frames, fetched))
            });
            continue;
        }
        if let Some(fetched) = under_way.next().await {
            let (_guard, keys, frames) = fetched?;
            for (key, frame) in keys.iter().zip(&frames) {
                keep(snapshot, &lineage, key, frame);
            }
        }
    }
}

/// How many pages a frame holds, as a rule.
fn pages_per_frame(snapshot: &Snapshot) -> usize {
    (FRAME_TARGET_BYTES / snapshot.page_size().map_or(FRAME_TARGET_BYTES, PageSize::bytes)).max(1)
}

/// The frames that hold absent pages from page `from` on, `count` at the most besides one that is `known`, and the page
/// after what they reach.
async fn frames_from(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    lineage: &Lineage,
    (from, count): (u32, usize),
    known: Option<&Located>,
) -> Result<(Vec<Located>, u32)> {
    let count = count.min(engine.most_ahead_frames());
    let within = from.saturating_add(MAX_AHEAD_PAGES).min(snapshot.page_count().get());
    let absent = (from..=within).filter_map(PageIdx::new);
    let absent = absent.filter(|at| snapshot.table().get(*at) == Cell::Absent);
    let window: Vec<PageIdx> = absent.take(count * pages_per_frame(snapshot)).collect();
    let frames = frames_of(engine, lineage, window, count, known).await?;
    let reach = frames.iter().map(|(_, last)| last.get().saturating_add(1)).fold(from, u32::max);
    Ok((frames.into_iter().map(|(key, _)| key).collect(), reach))
}

/// The frames that hold these pages, each with the last page that it can hold: `count` at the most, and not the one that
/// is `known`.
async fn frames_of(
    engine: &Arc<Shared>,
    lineage: &Lineage,
    pages: Vec<PageIdx>,
    count: usize,
    known: Option<&Located>,
) -> Result<Vec<(Located, PageIdx)>> {
    let reader = engine.reader().await?;
    lineage.bring(reader, pages.iter().copied()).await;
    let mut frames = Vec::new();
    let mut seen: HashSet<Located> = known.cloned().into_iter().collect();
    let mut fetches = 0;
    for page in pages {
        if fetches == count {
            break;
        }
        if let Some((key, last)) = lineage.locate(reader, page).await?
            && seen.insert(key.clone())
        {
            // A commit that is at hand costs nothing.
            fetches += usize::from(matches!(key.frame.object, FrameObject::Segment(_)));
            frames.push((key, last));
        }
    }
    Ok(frames)
}

/// Counts the pages of a fetched frame, and keeps those that `snapshot` takes from it.
fn keep(snapshot: &Snapshot, lineage: &Lineage, key: &Located, frame: &DecodedFrame) {
    let fetched = &snapshot.replica().engine().counters.pages_fetched;
    fetched.fetch_add(frame.pages.len(), Ordering::Relaxed);
    keep_pages(snapshot, frame, key.frame.owner, |page| lineage.takes(page, key));
}

/// Keeps what came with the checkpoint, as far as `snapshot` has it so.
fn keep_boot_pages(snapshot: &Snapshot, lineage: &Lineage) {
    match lineage.boot_pages() {
        Ok(frames) => frames.iter().for_each(|frame| {
            keep_pages(snapshot, frame, lineage.head().0, |page| lineage.takes_from_checkpoint(page));
        }),
        Err(e) => tracing::warn!("volume {}: {e}", lineage.volume()),
    }
}

/// Keeps those pages of a frame that the snapshot `takes` from it and has not got.
/// A full disk is no reason to fail: the page that was asked for is at hand.
fn keep_pages(snapshot: &Snapshot, frame: &DecodedFrame, lsn: Lsn, takes: impl Fn(PageIdx) -> bool) {
    let replica = snapshot.replica();
    if snapshot.page_size() != Some(frame.page_size) {
        return;
    }
    let mut batch = Batch::default();
    for (page, data) in frame.iter() {
        let wanted = snapshot.page_count().contains(page) && snapshot.table().get(page) == Cell::Absent && takes(page);
        if wanted {
            batch.push(RecordKind::Fetched, page.get(), lsn.get(), data);
        }
    }
    if batch.is_empty() {
        return;
    }
    match replica.append_to_cache(&mut batch, snapshot.table()) {
        Ok(false) => {}
        Ok(true) => replica.engine().trim_cache(),
        Err(e) => tracing::warn!("volume {}: a fetched page is not kept: {e}", replica.name()),
    }
}

/// Fetches every page of `snapshot` that is not here. Returns how many came.
pub(crate) fn hydrate(snapshot: &Snapshot, progress: &mut (dyn FnMut(u64, u64) + Send)) -> Result<u64> {
    let replica = snapshot.replica();
    let engine = replica.engine();
    let total = u64::from(snapshot.page_count().get());
    let here = snapshot.pages_here();
    let mut done = here;
    progress(done, total);
    let mut fetched = 0;
    let mut first = 1;
    while done < total && first <= snapshot.page_count().get() {
        let last = first.saturating_add(HYDRATE_PAGES - 1).min(snapshot.page_count().get());
        let absent = (first..=last).filter_map(PageIdx::new).filter(|page| !snapshot.is_here(*page));
        let absent: Vec<PageIdx> = absent.collect();
        if !absent.is_empty() {
            let before = done;
            let mut arrived = |pages: u64| {
                done += pages;
                progress(done, total);
            };
            let brought = engine.bridge.wait(hydrate_pages(engine, snapshot, &absent, &mut arrived));
            fetched += match brought {
                Err(e) if is_missing(&e) => {
                    done = before;
                    engine.bridge.wait(hydrate_again(engine, snapshot, &absent, &mut |pages| {
                        done += pages;
                        progress(done, total);
                    }))?
                }
                brought => brought?,
            };
        }
        let Some(next) = last.checked_add(1) else { break };
        first = next;
    }
    // What does not fit into the cache has been given back, or is going to be; and of a full disk a reader hears nothing.
    let visible = replica.snapshot();
    let gave_back = visible.version() == snapshot.version() && visible.pages_here() < here + fetched;
    if gave_back || replica.cache_bytes() > engine.cache_size() {
        let text =
            format!("volume {}: all of its {total} pages came, and the cache does not keep them", replica.name());
        return Err(Error::new(ErrorKind::Full, text)
            .with_remedy("Give it more room (`cache_size`), and look whether the disk is full."));
    }
    Ok(fetched)
}

/// As [`hydrate_pages`], by the newest index.
async fn hydrate_again(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    absent: &[PageIdx],
    arrived: &mut (dyn FnMut(u64) + Send),
) -> Result<u64> {
    let lineage = lineage_of(engine, snapshot).await?;
    let lineage = newest_lineage(engine, snapshot, &lineage, lineage.volume()).await?;
    match hydrate_pages(engine, snapshot, absent, arrived).await {
        Err(e) if is_missing(&e) => Err(gone_or(engine.reader().await?, lineage.volume(), lineage.head().0, e).await),
        hydrated => hydrated,
    }
}

/// Fetches pages that are absent; `arrived` is told of each few. Returns how
/// many came: the others are zeros.
async fn hydrate_pages(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    absent: &[PageIdx],
    arrived: &mut (dyn FnMut(u64) + Send),
) -> Result<u64> {
    let mut lineage = lineage_of(engine, snapshot).await?;
    lineage.bring(engine.reader().await?, absent.iter().copied()).await;
    // Frames by name, with how many of the absent pages each brings.
    let mut frames: Vec<Located> = Vec::new();
    let mut brings: HashMap<Located, u64> = HashMap::new();
    let mut zeros = 0;
    for page in absent {
        match locate(engine, snapshot, &mut lineage, *page).await? {
            None => zeros += 1,
            Some((key, _)) => {
                let count = brings.entry(key.clone()).or_default();
                *count += 1;
                if *count == 1 {
                    frames.push(key);
                }
            }
        }
    }
    arrived(zeros);
    let batches: Vec<Vec<_>> = frames.chunks(HYDRATE_FRAMES).map(<[_]>::to_vec).collect();
    let fetches = batches.into_iter().map(|batch| async move {
        let frames = fetch_frames(engine.reader().await?, &batch).await?;
        Ok::<_, Error>((batch, frames))
    });
    let mut batches = futures::stream::iter(fetches).buffered(HYDRATE_BATCHES);
    let mut fetched = 0;
    while let Some(batch) = batches.next().await {
        let (batch, frames) = batch?;
        let mut brought = 0;
        for (key, frame) in batch.iter().zip(&frames) {
            keep(snapshot, &lineage, key, frame);
            brought += brings.get(key).copied().unwrap_or(0);
        }
        fetched += brought;
        arrived(brought);
    }
    Ok(fetched)
}
