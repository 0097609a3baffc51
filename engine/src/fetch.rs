//! Reading pages that are not here.
//!
//! The unit of a fetch is the frame. Every page of a fetched frame that the
//! snapshot takes from the same commit is kept in a cache file, and its cell
//! filled. Several readers that miss one frame wait for one fetch. A miss that
//! continues the one before fetches ahead, twice as much each time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::{Condvar, Mutex};
use quire_proto::{
    DecodedFrame, Error, FrameAddress, FramePlace, Lsn, PageIdx, Result, SealedCommit, VolumeName, decode_frame,
};

use crate::engine::Shared;
use crate::lineage::{Lineage, Source};
use crate::log::{Batch, RecordKind};
use crate::replica::Replica;
use crate::snapshot::Snapshot;
use crate::table::Cell;

/// The most frames that one miss fetches ahead: 8 MiB of pages.
const MAX_AHEAD_FRAMES: usize = 64;
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
    arrived: Condvar,
    ahead: Mutex<Ahead>,
}

#[derive(Default)]
struct Ahead {
    /// Where the next miss of a sequential reader is expected.
    next: u32,
    frames: usize,
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
            let fetching = engine.clone();
            let waiting = replica.clone();
            let awaited = key.clone();
            let _ = tokio::task::spawn_blocking(move || {
                let _alive = fetching;
                let mut under_way = waiting.fetching.under_way.lock();
                while under_way.contains(&awaited) {
                    waiting.fetching.arrived.wait(&mut under_way);
                }
            })
            .await;
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
        let frames = fetch_frames(engine, &wanted).await?;
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
async fn locate(engine: &Arc<Shared>, lineage: &Lineage, page: PageIdx) -> Result<Option<(FrameKey, Arc<SealedCommit>)>> {
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
        self.replica.fetching.arrived.notify_all();
    }
}

/// The frames that a sequential reader will want after `first`.
async fn read_ahead(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    lineage: &Lineage,
    page: PageIdx,
    first: &FrameKey,
) -> Result<Vec<(FrameKey, Arc<SealedCommit>)>> {
    let count = {
        let mut ahead = snapshot.replica().fetching.ahead.lock();
        let continues = page.get() >= ahead.next && page.get() - ahead.next <= 64;
        ahead.frames = if continues { (ahead.frames * 2).clamp(1, MAX_AHEAD_FRAMES) } else { 0 };
        ahead.frames
    };
    let mut more: Vec<(FrameKey, Arc<SealedCommit>)> = Vec::new();
    let mut last = first.clone();
    let mut next = page.get();
    while more.len() < count {
        let Some(at) = next.checked_add(1).and_then(PageIdx::new) else { break };
        if !snapshot.page_count().contains(at) {
            break;
        }
        next = at.get();
        if snapshot.table().get(at) != Cell::Absent {
            continue;
        }
        if let Some((key, commit)) = locate(engine, lineage, at).await?
            && key != last
            && key != *first
            && !more.iter().any(|(k, _)| *k == key)
        {
            last = key.clone();
            more.push((key, commit));
        }
    }
    // The last frame reaches further than the page that led to it.
    let reach = more.last().map_or_else(|| first.clone(), |(key, _)| key.clone());
    let commit = engine.commit(&reach.volume, reach.lsn).await?;
    let frame = commit.body().index.frames()[reach.position];
    snapshot.replica().fetching.ahead.lock().next = next.max(frame.first.get() + frame.page_count - 1) + 1;
    Ok(more)
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
            e.context(format!("volume {}, commit {}, frame {} (page {})", key.volume, key.lsn, key.position, frame.first))
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
    let mut pages = Vec::new();
    for (page, data) in frame.iter() {
        let wanted = snapshot.page_count().contains(page)
            && snapshot.table().get(page) == Cell::Absent
            && lineage.find(page) == owner;
        if wanted {
            batch.push(RecordKind::Fetched, page.get(), key.lsn.get(), data);
            pages.push(page);
        }
    }
    if pages.is_empty() {
        return;
    }
    let mut cache = replica.cache.lock();
    let begun = cache.reserve(batch.bytes() as u64);
    let fresh = match begun {
        Ok(fresh) => fresh,
        Err(e) => return tracing::warn!("volume {}: a fetched page is not kept: {e}", replica.name()),
    };
    let is_fresh = fresh.is_some();
    if let Some(file) = fresh {
        replica.add_cache_file(&file);
    }
    let mut places = Vec::with_capacity(pages.len());
    if let Err(e) = cache.append(&mut batch, |_, place| places.push(place)) {
        return tracing::warn!("volume {}: a fetched page is not kept: {e}", replica.name());
    }
    drop(cache);
    for (page, place) in pages.into_iter().zip(places) {
        snapshot.table().fill(page, place);
    }
    if is_fresh {
        replica.engine().trim_cache();
    }
}

/// Fetches every page of `snapshot` that is not here. Returns how many came.
pub(crate) fn hydrate(snapshot: &Snapshot, progress: &mut (dyn FnMut(u64, u64) + Send)) -> Result<u64> {
    let replica = snapshot.replica();
    let engine = replica.engine();
    let total = u64::from(snapshot.page_count().get());
    let mut absent: Vec<PageIdx> = Vec::new();
    if snapshot.base().is_some() {
        absent.extend((1..=snapshot.page_count().get()).filter_map(PageIdx::new).filter(|p| !snapshot.is_here(*p)));
    }
    let mut done = total - absent.len() as u64;
    progress(done, total);
    if absent.is_empty() {
        return Ok(0);
    }
    let mut fetched = 0;
    engine.bridge.wait(async {
        let lineage = lineage_of(engine, snapshot).await?;
        // Frames by name, with how many of the absent pages each brings.
        let mut frames: Vec<(FrameKey, Arc<SealedCommit>)> = Vec::new();
        let mut brings: HashMap<FrameKey, u64> = HashMap::new();
        for page in absent {
            match locate(engine, &lineage, page).await? {
                None => done += 1,
                Some((key, commit)) => {
                    let count = brings.entry(key.clone()).or_default();
                    *count += 1;
                    if *count == 1 {
                        frames.push((key, commit));
                    }
                }
            }
        }
        let batches: Vec<Vec<_>> = frames.chunks(HYDRATE_FRAMES).map(<[_]>::to_vec).collect();
        let fetches = batches.into_iter().map(|batch| {
            let engine = engine.clone();
            async move {
                let frames = fetch_frames(&engine, &batch).await?;
                Ok::<_, Error>((batch, frames))
            }
        });
        let mut batches = futures::stream::iter(fetches).buffered(HYDRATE_BATCHES);
        while let Some(batch) = batches.next().await {
            let (batch, frames) = batch?;
            for ((key, _), frame) in batch.iter().zip(&frames) {
                engine.counters.pages_fetched.fetch_add(frame.pages.len(), Ordering::Relaxed);
                keep(snapshot, &lineage, key, frame);
                let brought = brings.get(key).copied().unwrap_or(0);
                fetched += brought;
                done += brought;
            }
            progress(done, total);
        }
        Ok(fetched)
    })
}
