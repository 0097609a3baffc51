//! A checkpoint, open: its head, and the leaves that were needed.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quire_proto::{
    CHECKPOINT_FRONT_BYTES, CheckpointHead, CheckpointInfo, CheckpointLeaf, CheckpointPlace, DecodedFrame, Error,
    ErrorKind, LeafRef, Lsn, PageIdx, PageRun, Result, SegmentRef, VolumeName,
};

use crate::Reader;

/// After so many unsound checkpoints the log is read.
const MOST_UNSOUND: usize = 8;

/// The complete page index of one snapshot.
pub struct Index {
    volume: VolumeName,
    place: CheckpointPlace,
    head: CheckpointHead,
    /// The first bytes of the object.
    front: Bytes,
    /// By their first pages.
    leaves: Mutex<HashMap<PageIdx, Arc<CheckpointLeaf>>>,
}

impl Index {
    /// Opens the newest sound checkpoint of a volume at or before `lsn`, if there is one. One that is not sound costs
    /// requests, never correctness. It may be one that was the newest when the head of the volume was asked for.
    pub async fn open(reader: &Reader, volume: &VolumeName, lsn: Lsn) -> Result<Option<Index>> {
        if let Some((place, front)) = reader.take_front(volume, lsn)
            && let Some(index) = Index::sound(reader, volume, place, Some(front)).await?
        {
            return Ok(Some(index));
        }
        Index::newest(reader, volume, lsn).await
    }

    /// As [`open`](Self::open), with what is the newest one now.
    pub async fn newest(reader: &Reader, volume: &VolumeName, lsn: Lsn) -> Result<Option<Index>> {
        let (mut at_most, mut looked_again) = (lsn, false);
        for _ in 0..MOST_UNSOUND {
            let Some(place) = reader.metastore.checkpoint(volume, Some(at_most)).await? else { return Ok(None) };
            if let Some(index) = Index::sound(reader, volume, place, None).await? {
                return Ok(Some(index));
            }
            // A collector may have let it go since it was listed, for one of a higher generation.
            if !looked_again {
                looked_again = true;
                continue;
            }
            match place.lsn.prev() {
                Some(before) => at_most = before,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// A checkpoint, if it is sound.
    async fn sound(
        reader: &Reader,
        volume: &VolumeName,
        place: CheckpointPlace,
        front: Option<Bytes>,
    ) -> Result<Option<Index>> {
        match Index::read(reader, volume, place, front).await {
            Ok(index) => Ok(Some(index)),
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                tracing::warn!("the checkpoint of LSN {} of volume {volume} is not used: {e}", place.lsn);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Opens a certain checkpoint.
    pub async fn at(reader: &Reader, volume: &VolumeName, place: CheckpointPlace) -> Result<Index> {
        Index::read(reader, volume, place, None).await
    }

    async fn read(reader: &Reader, volume: &VolumeName, place: CheckpointPlace, front: Option<Bytes>) -> Result<Index> {
        let first = 0..CHECKPOINT_FRONT_BYTES as u64;
        let mut front = match front {
            Some(front) => front,
            None => reader.metastore.read_checkpoint(volume, place, first).await?,
        };
        let len = CheckpointHead::len_of(&front)?;
        if len > front.len() {
            front = reader.metastore.read_checkpoint(volume, place, 0..len as u64).await?;
        }
        let head = CheckpointHead::decode(&front)?;
        if (head.info().lsn, head.info().generation) != (place.lsn, place.generation) {
            return Err(Error::corrupt(format!("it says that it is of LSN {}", head.info().lsn)));
        }
        Ok(Index { volume: volume.clone(), place, head, front, leaves: Mutex::default() })
    }

    /// Its name.
    pub fn place(&self) -> CheckpointPlace {
        self.place
    }

    /// What it is of.
    pub fn info(&self) -> &CheckpointInfo {
        self.head.info()
    }

    /// Its head.
    pub fn head(&self) -> &CheckpointHead {
        &self.head
    }

    /// Pages that whoever opens the volume needs at once.
    pub fn boot_pages(&self) -> Result<Vec<DecodedFrame>> {
        self.head.boot_pages()
    }

    /// The run that holds `page`, from a leaf that is here; none if that has to be fetched.
    pub(crate) fn find_now(&self, page: PageIdx) -> Option<PageRun> {
        let place = self.head.leaf_for(page)?;
        self.leaves.lock().get(&place.first)?.find(page)
    }

    /// The run that holds `page`.
    pub(crate) async fn find(&self, reader: &Reader, page: PageIdx) -> Result<PageRun> {
        let place = self.head.leaf_for(page).ok_or_else(|| self.hole(page))?;
        self.leaf(reader, &place).await?.find(page).ok_or_else(|| self.hole(page))
    }

    fn hole(&self, page: PageIdx) -> Error {
        let Index { volume, place, .. } = self;
        Error::corrupt(format!("the checkpoint of LSN {} of volume {volume} does not hold page {page}", place.lsn))
    }

    /// A leaf, fetched if it is not here.
    pub async fn leaf(&self, reader: &Reader, place: &LeafRef) -> Result<Arc<CheckpointLeaf>> {
        if let Some(leaf) = self.leaves.lock().get(&place.first) {
            return Ok(leaf.clone());
        }
        let bytes = self.bytes(reader, place.range()).await?;
        let leaf = CheckpointLeaf::decode(place, &bytes).map_err(|e| {
            e.context(format_args!("the checkpoint of LSN {} of volume {}", self.place.lsn, self.volume))
        })?;
        Ok(self.leaves.lock().entry(place.first).or_insert(Arc::new(leaf)).clone())
    }

    /// A part of the object.
    pub(crate) async fn bytes(&self, reader: &Reader, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if range.end <= self.front.len() as u64 {
            return Ok(self.front.slice(range.start as usize..range.end as usize));
        }
        reader.metastore.read_checkpoint(&self.volume, self.place, range).await
    }

    /// Every segment that its leaves name.
    pub async fn segments(&self, reader: &Reader) -> Result<Vec<SegmentRef>> {
        let bytes = self.bytes(reader, self.head.segments_range()).await?;
        self.head
            .decode_segments(&bytes)
            .map_err(|e| e.context(format_args!("the checkpoint of LSN {} of volume {}", self.place.lsn, self.volume)))
    }

    /// A leaf is not needed again soon.
    pub fn forget(&self, place: &LeafRef) {
        self.leaves.lock().remove(&place.first);
    }
}
