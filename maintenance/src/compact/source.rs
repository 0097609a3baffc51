//! The frames of a snapshot, from the store.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use quire_history::{Lineage, Located, Reader, fetch_frames};
use quire_proto::{DecodedFrame, Error, FrameLocation, PageCount, PageIdx, PageSize, Result, VolumeName};
use quire_sqlite_format::Pages;
use tokio::runtime::Handle;

/// No more bytes of pages are fetched at once, unless one frame has more.
const BATCH_BYTES: u64 = 32 << 20;
/// Frames are kept for those who come back to them, up to so many bytes of pages.
const KEPT_BYTES: usize = 64 << 20;

/// Splits frames into lists that may be fetched at once.
pub(super) fn batches<T>(frames: &[T], location: impl Fn(&T) -> FrameLocation, page_size: PageSize) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (n, frame) in frames.iter().enumerate() {
        let more = u64::from(location(frame).page_count) << page_size.log2();
        if n > from && bytes + more > BATCH_BYTES {
            batches.push(&frames[from..n]);
            (from, bytes) = (n, 0);
        }
        bytes += more;
    }
    if from < frames.len() {
        batches.push(&frames[from..]);
    }
    batches
}

/// Fetches and decodes frames of a volume, in the order asked for.
pub(super) async fn fetch(
    reader: &Reader,
    volume: &VolumeName,
    frames: &[FrameLocation],
    page_size: PageSize,
) -> Result<Vec<DecodedFrame>> {
    let wanted: Vec<Located> =
        frames.iter().map(|frame| Located { volume: volume.clone(), frame: *frame, commit: None }).collect();
    let decoded = fetch_frames(reader, &wanted).await?;
    match frames.iter().zip(&decoded).find(|(_, decoded)| decoded.page_size != page_size) {
        None => Ok(decoded),
        Some((FrameLocation { owner, offset, .. }, decoded)) => Err(Error::corrupt(format!(
            "volume {volume}, commit {owner}, frame at offset {offset}: pages of {}",
            decoded.page_size
        ))),
    }
}

/// The pages of a snapshot one by one, for those who follow them from one to the next. It waits for the store, so it
/// belongs on a thread that may.
pub(super) struct StorePages {
    runtime: Handle,
    reader: Arc<Reader>,
    lineage: Arc<Lineage>,
    page_size: PageSize,
    kept: HashMap<Located, DecodedFrame>,
    /// The kept ones, oldest first.
    ages: VecDeque<Located>,
    kept_bytes: usize,
}

impl StorePages {
    pub(super) fn new(reader: Arc<Reader>, lineage: Arc<Lineage>, page_size: PageSize) -> StorePages {
        let runtime = Handle::current();
        StorePages { runtime, reader, lineage, page_size, kept: HashMap::new(), ages: VecDeque::new(), kept_bytes: 0 }
    }

    fn frame(&mut self, page: PageIdx) -> Result<Option<&DecodedFrame>> {
        let located = self.runtime.block_on(self.lineage.locate(&self.reader, page))?;
        let Some((located, _)) = located else { return Ok(None) };
        if !self.kept.contains_key(&located) {
            let Located { volume, frame, .. } = &located;
            let fetch = fetch(&self.reader, volume, std::slice::from_ref(frame), self.page_size);
            let fetched = self.runtime.block_on(fetch)?.swap_remove(0);
            self.kept_bytes += fetched.data.len();
            self.kept.insert(located.clone(), fetched);
            self.ages.push_back(located.clone());
            while self.kept_bytes > KEPT_BYTES && self.ages.len() > 1 {
                if let Some(frame) = self.ages.pop_front().and_then(|oldest| self.kept.remove(&oldest)) {
                    self.kept_bytes -= frame.data.len();
                }
            }
        }
        Ok(self.kept.get(&located))
    }
}

impl Pages for StorePages {
    fn page_count(&self) -> PageCount {
        self.lineage.page_count()
    }

    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn read(&mut self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        match self.frame(page)? {
            None => buf.fill(0),
            Some(frame) => match frame.iter().find(|(at, _)| *at == page) {
                Some((_, data)) => buf.copy_from_slice(data),
                None => return Err(Error::corrupt(format!("page {page} is not in its frame"))),
            },
        }
        Ok(())
    }
}
