//! Writing pages anew: batch by batch the frames that hold them are fetched, and the pages go into frames of their own.

use std::collections::{HashMap, HashSet};

use futures::StreamExt;
use quire_history::Index;
use quire_proto::{
    CheckpointPlace, EncodedFrame, Error, FrameIndex, FrameLocation, FrameObject, FramePlace, PageIdx, PageSet,
    PageSize, Result, SegmentRef, encode_frame,
};

use super::Job;
use super::source::{batches, fetch};
use super::survey::Window;

/// Pages of so many bytes are put together at the same time.
const BATCH_BYTES: usize = 16 << 20;
/// So many bytes of frames become one segment.
const SEGMENT_BYTES: u64 = 60 << 20;

/// The hash of a page's content.
pub(super) type PageHash = [u8; blake3::OUT_LEN];

/// A page that was rewritten.
pub(super) struct Moved {
    pub(super) page: u32,
    pub(super) to: FrameLocation,
    /// What was read where it lay before.
    pub(super) hash: PageHash,
}

/// What a step has rewritten.
#[derive(Default)]
pub(super) struct Rewritten {
    /// In page order.
    pub(super) pages: Vec<Moved>,
    pub(super) segments: Vec<SegmentRef>,
}

/// A frame that waits for its segment.
struct Waiting {
    frame: EncodedFrame,
    pages: Vec<(u32, PageHash)>,
}

/// Rewrites groups of pages until `budget` bytes are written.
pub(super) async fn rewrite(
    job: &Job,
    index: &Index,
    to: CheckpointPlace,
    window: &Window,
    groups: Vec<Vec<u32>>,
    budget: u64,
) -> Result<Rewritten> {
    let page_size = index.info().page_size;
    let mut rewritten = Rewritten::default();
    let mut waiting = Vec::new();
    let (mut waiting_bytes, mut written_bytes) = (0, 0);
    let segment_bytes = SEGMENT_BYTES.min(budget);
    let largest = groups.iter().map(Vec::len).max().unwrap_or(1);
    let batch_bytes = usize::try_from(budget).unwrap_or(usize::MAX).min(BATCH_BYTES);
    let per_batch = (batch_bytes / (largest * page_size.bytes())).max(1);
    for batch in groups.chunks(per_batch) {
        for read in read(job, window, batch, page_size).await? {
            waiting_bytes += read.frame.bytes.len() as u64;
            waiting.push(read);
            // A step ends with a full segment, so that not every step leaves a small one.
            if waiting_bytes >= segment_bytes {
                flush(job, to, std::mem::take(&mut waiting), &mut rewritten).await?;
                written_bytes += std::mem::take(&mut waiting_bytes);
            }
        }
        if written_bytes >= budget && waiting.is_empty() {
            break;
        }
    }
    if !waiting.is_empty() {
        flush(job, to, waiting, &mut rewritten).await?;
    }
    rewritten.pages.sort_unstable_by_key(|moved| moved.page);
    Ok(rewritten)
}

/// Reads the pages of some groups, and makes a frame of each group.
async fn read(job: &Job, window: &Window, groups: &[Vec<u32>], page_size: PageSize) -> Result<Vec<Waiting>> {
    // Where each page goes.
    let mut places: HashMap<u32, (usize, usize)> = HashMap::new();
    let mut sets = Vec::with_capacity(groups.len());
    for (n, group) in groups.iter().enumerate() {
        let set: PageSet = group.iter().copied().filter_map(PageIdx::new).collect();
        places.extend(set.iter().enumerate().map(|(at, page)| (page.get(), (n, at))));
        sets.push(set);
    }
    let mut frames: Vec<FrameLocation> = Vec::new();
    let mut seen = HashSet::new();
    for page in groups.iter().flatten() {
        frames.extend(window.frame(*page).filter(|frame| seen.insert(*frame)));
    }
    let mut data: Vec<Vec<u8>> = sets.iter().map(|set| vec![0; set.len() as usize * page_size.bytes()]).collect();
    let mut missing: HashSet<u32> = places.keys().copied().collect();
    for batch in batches(&frames, |frame| *frame, page_size) {
        let fetched = fetch(&job.reader, &job.volume, batch, page_size).await?;
        for (location, frame) in batch.iter().zip(&fetched) {
            for (page, content) in frame.iter() {
                // An older content of a page may be in the frame of its neighbour.
                if let Some((n, at)) = places.get(&page.get()).copied()
                    && window.frame(page.get()) == Some(*location)
                {
                    data[n][at * page_size.bytes()..][..page_size.bytes()].copy_from_slice(content);
                    missing.remove(&page.get());
                }
            }
        }
    }
    if let Some(page) = missing.iter().min() {
        return Err(Error::corrupt(format!("volume {}: page {page} is not in its frame", job.volume))
            .with_remedy("`quire verify NAME --deep` shows all that is damaged."));
    }
    let made = sets.iter().zip(&data).map(|(set, data)| {
        let hashes = data.chunks_exact(page_size.bytes()).map(|content| *blake3::hash(content).as_bytes());
        let pages = set.iter().map(PageIdx::get).zip(hashes).collect();
        Ok(Waiting { frame: encode_frame(set, page_size, data)?, pages })
    });
    made.collect()
}

/// Writes frames into the store.
async fn flush(job: &Job, to: CheckpointPlace, mut waiting: Vec<Waiting>, rewritten: &mut Rewritten) -> Result<()> {
    waiting.sort_unstable_by_key(|waiting| waiting.frame.first);
    let (frames, pages): (Vec<_>, Vec<_>) = waiting.into_iter().map(|waiting| (waiting.frame, waiting.pages)).unzip();
    let stream = futures::stream::iter(frames.into_iter().map(Ok)).boxed();
    let index = job.pages.rewrite(&job.volume, to, stream).await?;
    if index.frames().len() != pages.len() {
        return Err(Error::corrupt("the store wrote other frames than it was given"));
    }
    for (location, pages) in locations(&index, to).zip(pages) {
        rewritten.pages.extend(pages.into_iter().map(|(page, hash)| Moved { page, to: location, hash }));
    }
    rewritten.segments.extend(index.segments());
    Ok(())
}

fn locations(index: &FrameIndex, to: CheckpointPlace) -> impl Iterator<Item = FrameLocation> + '_ {
    index.frames().iter().map(move |frame| {
        let object = match frame.place {
            FramePlace::Inline => FrameObject::Commit,
            FramePlace::Segment(n) => FrameObject::Segment(index.segments()[n as usize].id),
        };
        let (offset, len_bytes, page_count) = (frame.offset, frame.len_bytes, frame.page_count);
        FrameLocation { owner: to.lsn, object, offset, len_bytes, page_count }
    })
}
