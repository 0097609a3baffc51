//! Reading pages that are not here.
//!
//! The unit of a fetch is the frame. Every page of a fetched frame that the
//! snapshot takes from the same commit is kept in a cache file, and its cell
//! filled. Several readers that miss one frame wait for one fetch.
//!
//! The fetch unit grows with need (`ahead.rs`): a single row costs single
//! frames, a scan or a burst of misses soon fetches many at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use quire_proto::{
    DecodedFrame, Error, ErrorKind, FrameAddress, FramePlace, Lsn, PageIdx, Result, SealedCommit, VolumeName,
    decode_frame,
};
use tokio::sync::Notify;

use crate::ahead::Ahead;
use crate::engine::Shared;
use crate::lineage::{Lineage, Source};
use crate::log::{Batch, RecordKind};
use crate::replica::Replica;
use crate::snapshot::Snapshot;
use crate::table::Cell;

/// How far read-ahead looks for them: a sparse volume may have nothing for long.
const MAX_AHEAD_PAGES: u32 = 1 << 16;
/// Pages that hydrating looks at together, which bounds its memory.
const HYDRATE_PAGES: u32 = 1 << 16;
/// Frames of one batch while hydrating, and how many batches are under way.
const HYDRATE_FRAMES: usize = 64;
const HYDRATE_BATCHES: usize = 3;

/// The name of a frame in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct FrameKey {
    volume: VolumeName,
    lsn: Lsn,
    /// Its position in the commit's index.
    position: usize,
}

/// What is being fetched for a replica, and how far read-ahead has come.
#[derive(Default)]
pub(crate) struct Fetching {
    under_way: Mutex<HashSet<FrameKey>>,
    arrived: Notify,
    ahead: Mutex<Ahead>,
}

impl Fetching {
    /// Returns once nobody fetches the frame (any more). Waits as a task, not
    /// as a thread: whoever fetches may need one.
    async fn wait(&self, key: &FrameKey) {
        loop {
            let arrived = self.arrived.notified();
            if !self.under_way.lock().contains(key) {
                return;
            }
            arrived.await;
        }
    }
}

/// Copies an absent page of `snapshot` into `buf`.
pub(crate) fn read_absent(snapshot: &Snapshot, page: PageIdx, buf: &mut [u8]) -> Result<()> {
    let replica = snapshot.replica();
    let engine = replica.engine();
    let fetched = engine.bridge.wait(fetch_page(engine, snapshot, page));
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
async fn fetch_page(engine: &Arc<Shared>, snapshot: &Snapshot, page: PageIdx) -> Result<Option<Bytes>> {
    let replica = snapshot.replica();
    let lineage = lineage_of(engine, snapshot).await?;
    loop {
        let Some((key, commit)) = locate(engine, &lineage, page).await? else { return Ok(None) };
        if !begin(&replica.fetching, &key) {
            // Somebody else fetches it: wait, then look whether it is here.
            replica.fetching.wait(&key).await;
            if let Cell::At { place, .. } = snapshot.table().get(page) {
                let size = snapshot.page_size().map_or(0, quire_proto::PageSize::bytes);
                let mut data = vec![0; size];
                replica.read_place(place, page, &mut data, true)?;
                return Ok(Some(data.into()));
            }
            continue;
        }
        let mut guard = UnderWay { replica: replica.clone(), keys: vec![key.clone()] };
        let mut wanted = vec![(key.clone(), commit)];
        for more in read_ahead(engine, snapshot, &lineage, page, &key).await? {
            if begin(&replica.fetching, &more.0) {
                guard.keys.push(more.0.clone());
                wanted.push(more);
            }
        }
        let frames = match fetch_frames(engine, &wanted).await {
            // What was to come along must not fail the page that was asked for.
            Err(e) if wanted.len() > 1 && matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                wanted.truncate(1);
                fetch_frames(engine, &wanted).await?
            }
            fetched => fetched?,
        };
        let mut found = None;
        for ((key, _), frame) in wanted.iter().zip(&frames) {
            if found.is_none() {
                found = frame.iter().find(|(p, _)| *p == page).map(|(_, data)| frame.data.slice_ref(data));
            }
            engine.counters.pages_fetched.fetch_add(frame.pages.len(), Ordering::Relaxed);
            keep(snapshot, &lineage, key, frame);
        }
        return match found {
            Some(data) => Ok(Some(data)),
            None => Err(Error::corrupt(format!(
                "volume {}: commit {} owns page {page}, and its frame does not hold it",
                key.volume, key.lsn
            ))),
        };
    }
}

/// The lineage of a snapshot's base, loaded at first need.
pub(crate) async fn lineage_of(engine: &Arc<Shared>, snapshot: &Snapshot) -> Result<Arc<Lineage>> {
    let base = snapshot.base().ok_or_else(|| Error::corrupt("a page is absent from a replica without base"))?;
    let replica = snapshot.replica();
    let known = replica.lineage.lock().clone();
    if let Some(lineage) = known.filter(|l| l.head() == (base.lsn, base.hash)) {
        return Ok(lineage);
    }
    let lineage = Lineage::load(engine.clone(), snapshot.remote().clone(), base.lsn, base.hash).await?;
    let mut slot = replica.lineage.lock();
    if slot.as_ref().is_none_or(|l| l.head().0 < base.lsn) {
        *slot = Some(lineage.clone());
    }
    Ok(lineage)
}

/// The frame that holds an absent page, with its commit; `None` is zeros.
async fn locate(
    engine: &Arc<Shared>,
    lineage: &Lineage,
    page: PageIdx,
) -> Result<Option<(FrameKey, Arc<SealedCommit>)>> {
    if !lineage.page_count().contains(page) {
        return Ok(None);
    }
    let Source::Commit { volume, lsn } = lineage.find(page) else { return Ok(None) };
    let commit = engine.commit(&volume, lsn).await?;
    let position = commit.body().index.position(page).ok_or_else(|| {
        Error::corrupt(format!("volume {volume}: commit {lsn} owns page {page}, and its index does not hold it"))
    })?;
    Ok(Some((FrameKey { volume, lsn, position }, commit)))
}

/// Marks a frame as being fetched; false if it is already.
fn begin(fetching: &Fetching, key: &FrameKey) -> bool {
    fetching.under_way.lock().insert(key.clone())
}

struct UnderWay {
    replica: Arc<Replica>,
    keys: Vec<FrameKey>,
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

/// The frames after `first` that are fetched with it.
async fn read_ahead(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    lineage: &Lineage,
    page: PageIdx,
    first: &FrameKey,
) -> Result<Vec<(FrameKey, Arc<SealedCommit>)>> {
    let fetching = &snapshot.replica().fetching;
    let count = fetching.ahead.lock().frames_after_miss(page, Instant::now()).min(engine.most_ahead_frames());
    let mut more: Vec<(FrameKey, Arc<SealedCommit>)> = Vec::new();
    let mut seen = HashSet::from([first.clone()]);
    let mut reach = frame_end(engine, first).await?;
    let mut next = page.get();
    while more.len() < count && next - page.get() < MAX_AHEAD_PAGES {
        let Some(at) = next.checked_add(1).and_then(PageIdx::new) else { break };
        if !snapshot.page_count().contains(at) {
            break;
        }
        next = at.get();
        if snapshot.table().get(at) != Cell::Absent {
            continue;
        }
        if let Some((key, commit)) = locate(engine, lineage, at).await?
            && seen.insert(key.clone())
        {
            reach = reach.max(frame_end(engine, &key).await?);
            more.push((key, commit));
        }
    }
    fetching.ahead.lock().fetched(page, reach);
    Ok(more)
}

/// The page after a frame's last, if its pages are neighbours.
async fn frame_end(engine: &Arc<Shared>, key: &FrameKey) -> Result<u32> {
    let commit = engine.commit(&key.volume, key.lsn).await?;
    let frame = commit.body().index.frames()[key.position];
    Ok(frame.first.get().saturating_add(frame.page_count))
}

/// Fetches and decodes frames, all at once.
async fn fetch_frames(engine: &Arc<Shared>, wanted: &[(FrameKey, Arc<SealedCommit>)]) -> Result<Vec<DecodedFrame>> {
    let mut bytes: Vec<Option<Bytes>> = vec![None; wanted.len()];
    let mut remote: BTreeMap<VolumeName, Vec<(usize, FrameAddress)>> = BTreeMap::new();
    for (n, (key, commit)) in wanted.iter().enumerate() {
        let frame = &commit.body().index.frames()[key.position];
        match frame.place {
            FramePlace::Inline => bytes[n] = Some(commit.inline_frame(frame)),
            FramePlace::Segment(segment) => {
                let segment = commit.body().index.segments()[segment as usize].id;
                let address = FrameAddress { segment, offset: frame.offset, len_bytes: frame.len_bytes };
                remote.entry(key.volume.clone()).or_default().push((n, address));
            }
        }
    }
    if !remote.is_empty() {
        let stores = engine.stores().await?;
        for (volume, frames) in remote {
            let addresses: Vec<FrameAddress> = frames.iter().map(|(_, a)| *a).collect();
            let read = stores.pagestore.read(&volume, &addresses).await?;
            for ((n, _), frame) in frames.into_iter().zip(read) {
                bytes[n] = Some(frame);
            }
        }
    }
    let mut decoded = Vec::with_capacity(wanted.len());
    for ((key, commit), bytes) in wanted.iter().zip(bytes) {
        let frame = &commit.body().index.frames()[key.position];
        let bytes = bytes.ok_or_else(|| Error::corrupt("the store answered with fewer frames than asked for"))?;
        decoded.push(decode_frame(&bytes, frame.page_count).map_err(|e| {
            e.context(format!(
                "volume {}, commit {}, frame {} (page {})",
                key.volume, key.lsn, key.position, frame.first
            ))
        })?);
    }
    Ok(decoded)
}

/// Keeps the pages of a fetched frame that `snapshot` takes from its commit.
/// A full disk is no reason to fail: the page that was asked for is at hand.
fn keep(snapshot: &Snapshot, lineage: &Lineage, key: &FrameKey, frame: &DecodedFrame) {
    let replica = snapshot.replica();
    if snapshot.page_size() != Some(frame.page_size) {
        return;
    }
    let owner = Source::Commit { volume: key.volume.clone(), lsn: key.lsn };
    let mut batch = Batch::default();
    for (page, data) in frame.iter() {
        let wanted = snapshot.page_count().contains(page)
            && snapshot.table().get(page) == Cell::Absent
            && lineage.find(page) == owner;
        if wanted {
            batch.push(RecordKind::Fetched, page.get(), key.lsn.get(), data);
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
    let mut done = snapshot.pages_here();
    progress(done, total);
    let mut fetched = 0;
    let mut first = 1;
    while done < total && first <= snapshot.page_count().get() {
        let last = first.saturating_add(HYDRATE_PAGES - 1).min(snapshot.page_count().get());
        let absent = (first..=last).filter_map(PageIdx::new).filter(|page| !snapshot.is_here(*page));
        let absent: Vec<PageIdx> = absent.collect();
        if !absent.is_empty() {
            let brought = engine.bridge.wait(hydrate_pages(engine, snapshot, absent, &mut |pages| {
                done += pages;
                progress(done, total);
            }))?;
            fetched += brought;
        }
        let Some(next) = last.checked_add(1) else { break };
        first = next;
    }
    Ok(fetched)
}

/// Fetches pages that are absent; `arrived` is told of each few. Returns how
/// many came: the others are zeros.
async fn hydrate_pages(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    absent: Vec<PageIdx>,
    arrived: &mut (dyn FnMut(u64) + Send),
) -> Result<u64> {
    let lineage = lineage_of(engine, snapshot).await?;
    // Frames by name, with how many of the absent pages each brings.
    let mut frames: Vec<(FrameKey, Arc<SealedCommit>)> = Vec::new();
    let mut brings: HashMap<FrameKey, u64> = HashMap::new();
    let mut zeros = 0;
    for page in absent {
        match locate(engine, &lineage, page).await? {
            None => zeros += 1,
            Some((key, commit)) => {
                let count = brings.entry(key.clone()).or_default();
                *count += 1;
                if *count == 1 {
                    frames.push((key, commit));
                }
            }
        }
    }
    arrived(zeros);
    let batches: Vec<Vec<_>> = frames.chunks(HYDRATE_FRAMES).map(<[_]>::to_vec).collect();
    let fetches = batches.into_iter().map(|batch| async move {
        let frames = fetch_frames(engine, &batch).await?;
        Ok::<_, Error>((batch, frames))
    });
    let mut batches = futures::stream::iter(fetches).buffered(HYDRATE_BATCHES);
    let mut fetched = 0;
    while let Some(batch) = batches.next().await {
        let (batch, frames) = batch?;
        let mut brought = 0;
        for ((key, _), frame) in batch.iter().zip(&frames) {
            engine.counters.pages_fetched.fetch_add(frame.pages.len(), Ordering::Relaxed);
            keep(snapshot, &lineage, key, frame);
            brought += brings.get(key).copied().unwrap_or(0);
        }
        fetched += brought;
        arrived(brought);
    }
    Ok(fetched)
}
