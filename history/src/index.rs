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
/// So often the newest checkpoint may go, for a newer one, between being listed and being read.
const MOST_LET_GO: usize = 8;

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
        match reader.take_front(volume, lsn) {
            None => {}
            Some(None) => return Ok(None),
            Some(Some((place, front))) => match Index::read(reader, volume, place, Some(front)).await {
                Ok(index) => return Ok(Some(index)),
                Err(e) => not_used(volume, place, e)?,
            },
        }
        Index::newest(reader, volume, lsn).await
    }

    /// As [`open`](Self::open), with what is the newest one now.
    pub async fn newest(reader: &Reader, volume: &VolumeName, lsn: Lsn) -> Result<Option<Index>> {
        Index::first_sound(reader, volume, lsn, CheckpointPlace::prev).await
    }

    /// As [`newest`](Self::newest), of each LSN the highest generation only: what is to be named by a new checkpoint is
    /// named by that one, or a collector may let it go.
    pub async fn in_force(reader: &Reader, volume: &VolumeName, lsn: Lsn) -> Result<Option<Index>> {
        let next = |unsound: CheckpointPlace| unsound.lsn.prev().map(CheckpointPlace::last_of);
        Index::first_sound(reader, volume, lsn, next).await
    }

    /// Where one is not sound, `next` says where to go on.
    async fn first_sound(
        reader: &Reader,
        volume: &VolumeName,
        lsn: Lsn,
        next: fn(CheckpointPlace) -> Option<CheckpointPlace>,
    ) -> Result<Option<Index>> {
        let mut at_most = CheckpointPlace::last_of(lsn);
        let (mut unsound, mut let_go) = (0, 0);
        while unsound < MOST_UNSOUND {
            let Some(place) = reader.metastore.checkpoint(volume, Some(at_most)).await? else { return Ok(None) };
            match Index::read(reader, volume, place, None).await {
                Ok(index) => return Ok(Some(index)),
                // A collector has let it go since it was listed, for one of a higher generation that is there now.
                Err(e) if e.kind() == ErrorKind::NotFound && let_go < MOST_LET_GO => let_go += 1,
                Err(e) => {
                    not_used(volume, place, e)?;
                    unsound += 1;
                    let Some(next) = next(place) else { return Ok(None) };
                    at_most = next;
                }
            }
        }
        Ok(None)
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
        let leaf = self.part(reader, place.range(), |bytes| CheckpointLeaf::decode(place, bytes)).await?;
        Ok(self.leaves.lock().entry(place.first).or_insert(Arc::new(leaf)).clone())
    }

    /// A part of the object, decoded.
    pub(crate) async fn part<T>(
        &self,
        reader: &Reader,
        range: Range<u64>,
        decode: impl Fn(&[u8]) -> Result<T>,
    ) -> Result<T> {
        if range.end <= self.front.len() as u64
            // What was damaged on its way here must not stay damaged.
            && let Ok(part) = decode(&self.front[range.start as usize..range.end as usize])
        {
            return Ok(part);
        }
        let bytes = match range.is_empty() {
            true => Bytes::new(),
            false => reader.metastore.read_checkpoint(&self.volume, self.place, range).await?,
        };
        decode(&bytes)
            .map_err(|e| e.context(format_args!("the checkpoint of LSN {} of volume {}", self.place.lsn, self.volume)))
    }

    /// Every segment that its leaves name.
    pub async fn segments(&self, reader: &Reader) -> Result<Vec<SegmentRef>> {
        self.part(reader, self.head.segments_range(), |bytes| self.head.decode_segments(bytes)).await
    }

    /// A leaf is not needed again soon.
    pub fn forget(&self, place: &LeafRef) {
        self.leaves.lock().remove(&place.first);
    }
}

/// An error that a checkpoint does not deserve, or a warning that it is not used.
fn not_used(volume: &VolumeName, place: CheckpointPlace, error: Error) -> Result<()> {
    if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) {
        return Err(error);
    }
    tracing::warn!("the checkpoint of LSN {} of volume {volume} is not used: {error}", place.lsn);
    Ok(())
}
