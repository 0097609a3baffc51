//! Making rewritten pages count: a new index that names them, which is believed only once every one of them was read
//! back by it.

use std::collections::HashMap;

use bytes::Bytes;
use quire_history::Index;
use quire_proto::{
    CHECKPOINT_FRONT_BYTES, CheckpointHead, CheckpointInfo, CheckpointLeaf, CheckpointPlace, CheckpointWriter,
    EncodedFrame, Error, ErrorKind, FrameLocation, ObjectHash, PageIdx, PageRun, PageSource, Result,
};

use super::Job;
use super::rewrite::{Moved, Rewritten};
use super::source::{batches, fetch};

/// What a step has brought.
#[derive(Clone, Copy)]
pub(super) struct Published {
    /// How many pages were rewritten.
    pub(super) pages: u64,
    /// How many bytes of segments were written.
    pub(super) bytes: u64,
}

/// Writes the checkpoint `to`: the index, with the rewritten pages where they are now. None if somebody else has it.
pub(super) async fn publish(
    job: &Job,
    index: &Index,
    to: CheckpointPlace,
    rewritten: Rewritten,
) -> Result<Option<Published>> {
    let object = object(job, index, to, &rewritten).await?;
    compare(job, &object, &rewritten.pages).await?;
    let hash = CheckpointHead::decode(&object)?.hash();
    let metastore = job.reader.metastore();
    metastore.put_checkpoint(&job.volume, to, object).await?;
    // Create-only: what is there now decides.
    let mut front = metastore.read_checkpoint(&job.volume, to, 0..CHECKPOINT_FRONT_BYTES as u64).await?;
    let len = CheckpointHead::len_of(&front)?;
    if len > front.len() {
        front = metastore.read_checkpoint(&job.volume, to, 0..len as u64).await?;
    }
    if CheckpointHead::decode(&front)?.hash() != hash {
        return Ok(None);
    }
    let bytes = rewritten.segments.iter().map(|segment| segment.len_bytes).sum();
    Ok(Some(Published { pages: rewritten.pages.len() as u64, bytes }))
}

/// The new index.
async fn object(job: &Job, index: &Index, to: CheckpointPlace, rewritten: &Rewritten) -> Result<Bytes> {
    let inputs = ObjectHash::of(index.head().hash().as_bytes());
    let mut writer =
        CheckpointWriter::new(CheckpointInfo { generation: to.generation, inputs, ..index.info().clone() });
    let mut moved = rewritten.pages.as_slice();
    for place in index.head().leaves() {
        let leaf = index.leaf(&job.reader, &place).await?;
        leaf.runs().try_for_each(|run| with_moved(run, &mut moved, |run| writer.push(run)))?;
        index.forget(&place);
    }
    let boot = index.head().boot().iter().zip(index.boot_pages()?).filter_map(|(boot, pages)| {
        let first = pages.pages.iter().next()?;
        Some(EncodedFrame { first, page_count: boot.page_count, bytes: boot.bytes.clone() })
    });
    let boot: Vec<EncodedFrame> = boot.collect();
    let segments = index.segments(&job.reader).await?.into_iter().chain(rewritten.segments.iter().copied());
    writer.finish(segments, &boot)
}

/// Brings out a run of the old index with those of its pages that have moved where they are now. When they changed
/// stays: followers go by it.
fn with_moved(run: PageRun, moved: &mut &[Moved], mut out: impl FnMut(PageRun) -> Result<()>) -> Result<()> {
    let last = run.last().get();
    let mut from = run.first.get();
    let part = |from: u32, count: u32, source| {
        let first = PageIdx::try_new(from)?;
        Ok::<_, Error>(PageRun { first, count, source, ..run })
    };
    while let Some(next) = moved.first().filter(|next| next.page <= last) {
        if from < next.page {
            out(part(from, next.page - from, run.source)?)?;
        }
        out(part(next.page, 1, PageSource::Frame(next.to))?)?;
        *moved = &moved[1..];
        if next.page == last {
            return Ok(());
        }
        from = next.page + 1;
    }
    out(part(from, last - from + 1, run.source)?)
}

/// Reads every rewritten page from the store, where the new index says that it is.
async fn compare(job: &Job, object: &Bytes, moved: &[Moved]) -> Result<()> {
    let head = CheckpointHead::decode(object)?;
    let page_size = head.info().page_size;
    let mut frames: HashMap<FrameLocation, Vec<&Moved>> = HashMap::new();
    let mut awaited = moved.iter().peekable();
    for place in head.leaves() {
        let range = place.range();
        let leaf = CheckpointLeaf::decode(&place, &object[range.start as usize..range.end as usize])?;
        while let Some(page) = awaited.next_if(|moved| moved.page <= place.last.get()) {
            let run = PageIdx::new(page.page).and_then(|page| leaf.find(page));
            match run.map(|run| run.source) {
                Some(PageSource::Frame(frame)) => frames.entry(frame).or_default().push(page),
                _ => return Err(not_the_same(job, page.page)),
            }
        }
    }
    if let Some(page) = awaited.next() {
        return Err(not_the_same(job, page.page));
    }
    let mut frames: Vec<(FrameLocation, Vec<&Moved>)> = frames.into_iter().collect();
    frames.sort_unstable_by_key(|(frame, pages)| (pages[0].page, frame.offset));
    for batch in batches(&frames, |(frame, _)| *frame, page_size) {
        let locations: Vec<FrameLocation> = batch.iter().map(|(frame, _)| *frame).collect();
        let fetched = fetch(&job.reader, &job.volume, &locations, page_size).await?;
        for ((_, pages), frame) in batch.iter().zip(&fetched) {
            let found: HashMap<u32, &[u8]> = frame.iter().map(|(page, content)| (page.get(), content)).collect();
            for page in pages {
                if found.get(&page.page).is_none_or(|content| *blake3::hash(content).as_bytes() != page.hash) {
                    return Err(not_the_same(job, page.page));
                }
            }
        }
    }
    Ok(())
}

fn not_the_same(job: &Job, page: u32) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "volume {}: page {page} was rewritten, and is not what it was: nothing of this step counts",
            job.volume
        ),
    )
    .with_remedy("Compact again; if that fails too, `quire verify NAME --deep` tells whether the store is damaged.")
}
