//! Where a page of a snapshot is.
//!
//! The rule: at commit c, a page that c owns is in its frames; a page past the
//! smallest page count since c's base is zeros; any other is where it was at
//! c's base. A checkpoint says it of all pages of its snapshot, and ends the walk.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use quire_proto::{
    Base, CommitHash, CommitHeader, CommitKind, DecodedFrame, Error, ErrorKind, FrameLocation, FrameObject, FramePlace,
    Lsn, PageCount, PageIdx, PageSets, PageSource, Result, VolumeName,
};

use crate::headers::{back_to, replaced};
use crate::index::Index;
use crate::kept::{MOST_LOOKS, gone_or};
use crate::{COMMITS_AT_ONCE, Reader};

/// What a snapshot of the store is made of.
pub struct Lineage {
    volume: VolumeName,
    /// Whether checkpoints are believed.
    indexed: bool,
    /// From the index, or else from the newest commit that does not go on from the one before it, to the snapshot.
    commits: Vec<Commit>,
    /// What the first of them goes on from.
    index: Option<Arc<Index>>,
    /// Without an index, what the first of them goes on from, if that is not nothing: an older snapshot (restore), or
    /// another volume's (fork). With one, where its inherited pages are.
    below: Option<Arc<Lineage>>,
}

#[derive(Clone)]
struct Commit {
    header: Arc<CommitHeader>,
    sets: Arc<PageSets>,
}

/// Where the content of a page comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source<'a> {
    Zero,
    /// This commit owns it.
    Commit {
        volume: &'a VolumeName,
        lsn: Lsn,
        hash: CommitHash,
    },
    /// An index says that it is in this frame, which has its last neighbour at `last`.
    Frame {
        volume: &'a VolumeName,
        frame: FrameLocation,
        last: PageIdx,
    },
}

/// The frame that holds a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Located {
    /// Whose it is.
    pub volume: VolumeName,
    /// Where it is.
    pub frame: FrameLocation,
    /// The commit that owns it; none if only a checkpoint's word for it is known.
    pub commit: Option<CommitHash>,
}

impl Lineage {
    /// Learns what makes snapshot `lsn` of a volume. Without `indexed` no checkpoint is believed. `Gone` if history does
    /// not keep that snapshot any more.
    pub fn load(
        reader: Arc<Reader>,
        volume: VolumeName,
        lsn: Lsn,
        hash: CommitHash,
        indexed: bool,
    ) -> BoxFuture<'static, Result<Arc<Lineage>>> {
        Box::pin(async move {
            let mut looks = 0;
            loop {
                match Lineage::load_once(reader.clone(), volume.clone(), lsn, hash, indexed).await {
                    // Its checkpoint may have gone, for a newer one, while it was looked for.
                    Err(e) if e.kind() == ErrorKind::Gone => {
                        let e = gone_or(&reader, &volume, lsn, e).await;
                        if !indexed || e.kind() != ErrorKind::Corrupt || looks == MOST_LOOKS {
                            return Err(e);
                        }
                        looks += 1;
                    }
                    loaded => return loaded,
                }
            }
        })
    }

    fn load_once(
        reader: Arc<Reader>,
        volume: VolumeName,
        lsn: Lsn,
        hash: CommitHash,
        indexed: bool,
    ) -> BoxFuture<'static, Result<Arc<Lineage>>> {
        Box::pin(async move {
            let index = async { if indexed { Index::open(&reader, &volume, lsn).await } else { Ok(None) } };
            let (head, index) = futures::future::try_join(reader.commit(&volume, lsn), index).await?;
            if head.hash() != hash {
                return Err(replaced(&volume, lsn));
            }
            let mut lineage = Lineage { volume, indexed, commits: Vec::new(), index: None, below: None };
            let lowest = index.as_ref().map_or(Lsn::FIRST, |index| index.info().lsn);
            let first = |h: &CommitHeader| h.base != Base::Previous;
            let mut headers = back_to(&reader, &lineage.volume, lowest, head.header(), first).await?;
            if let Some(index) = index.filter(|index| headers[0].lsn == index.info().lsn) {
                if headers[0].hash() != index.info().commit {
                    tracing::warn!(
                        "the checkpoint of LSN {} of volume {} is not used: it is of another commit",
                        index.info().lsn,
                        lineage.volume
                    );
                    return Lineage::load_once(reader, lineage.volume, lsn, hash, false).await;
                }
                headers.remove(0);
                if let Some(origin) = &index.info().origin {
                    let (volume, lsn, hash) = (origin.volume.clone(), origin.lsn, origin.hash);
                    lineage.below = Some(Lineage::load(reader.clone(), volume, lsn, hash, indexed).await?);
                }
                lineage.index = Some(Arc::new(index));
            }
            lineage.add(&reader, headers).await?;
            Ok(Arc::new(lineage))
        })
    }

    /// The lineage of `volume` once `newer` commits are on top of this one.
    pub async fn extended(
        self: &Arc<Self>,
        reader: &Arc<Reader>,
        volume: &VolumeName,
        newer: Vec<CommitHeader>,
    ) -> Result<Arc<Lineage>> {
        let mut lineage = if *volume == self.volume {
            Lineage {
                volume: volume.clone(),
                indexed: self.indexed,
                commits: self.commits.clone(),
                index: self.index.clone(),
                below: self.below.clone(),
            }
        } else {
            // The first push of a fork, whose base this is.
            let below = Some(self.clone());
            Lineage { volume: volume.clone(), indexed: self.indexed, commits: Vec::new(), index: None, below }
        };
        lineage.add(reader, newer).await?;
        Ok(Arc::new(lineage))
    }

    async fn add(&mut self, reader: &Arc<Reader>, headers: Vec<CommitHeader>) -> Result<()> {
        for header in headers {
            let elsewhere = match &header.base {
                Base::Previous => None,
                Base::Nothing => {
                    self.restart(None);
                    None
                }
                Base::Older { lsn, hash } => Some((self.volume.clone(), *lsn, *hash)),
                Base::Other { volume, lsn, hash } => Some((volume.clone(), *lsn, *hash)),
            };
            if let Some((volume, lsn, hash)) = elsewhere {
                let known = self.below.take().filter(|below| below.volume == volume && below.head() == (lsn, hash));
                let below = match known {
                    Some(below) => below,
                    None => Lineage::load(reader.clone(), volume, lsn, hash, self.indexed).await?,
                };
                self.restart(Some(below));
            }
            let sets = match &header.sets {
                Some(sets) => sets.clone(),
                None => {
                    let place = (header.lsn, header.hash());
                    reader.commit_of_log(&self.volume, place).await?.body().sets.clone()
                }
            };
            self.commits.push(Commit { header: Arc::new(header), sets: Arc::new(sets) });
        }
        Ok(())
    }

    /// The next commit does not go on from the one before it.
    fn restart(&mut self, below: Option<Arc<Lineage>>) {
        self.commits.clear();
        (self.index, self.below) = (None, below);
    }

    /// The index that it relies on, if no commit since has another base, and what those commits changed.
    pub(crate) fn since_index(&self) -> Option<(&Index, impl Iterator<Item = &PageSets>)> {
        Some((self.index.as_deref()?, self.commits.iter().map(|commit| &*commit.sets)))
    }

    /// Brings at hand, all at once, the commits that hold some of these pages. What fails is met again by who needs it.
    pub async fn bring(&self, reader: &Reader, pages: impl Iterator<Item = PageIdx>) {
        let mut wanted = HashSet::new();
        for page in pages {
            if let Some(Source::Commit { volume, lsn, .. }) = self.find_now(page)
                && reader.at_hand(volume, lsn).is_none()
            {
                wanted.insert((volume, lsn));
            }
        }
        let wanted: Vec<_> = wanted.into_iter().map(|(volume, lsn)| reader.commit(volume, lsn)).collect();
        futures::stream::iter(wanted).buffer_unordered(COMMITS_AT_ONCE).for_each(async |_| ()).await;
    }

    /// Whose snapshot it is.
    pub fn volume(&self) -> &VolumeName {
        &self.volume
    }

    /// The LSN and hash of the snapshot.
    pub fn head(&self) -> (Lsn, CommitHash) {
        match (self.commits.last(), &self.index) {
            (Some(Commit { header, .. }), _) => (header.lsn, header.hash()),
            (None, Some(index)) => (index.info().lsn, index.info().commit),
            (None, None) => (Lsn::FIRST, CommitHash::ZERO),
        }
    }

    /// The page count of the snapshot.
    pub fn page_count(&self) -> PageCount {
        match (self.commits.last(), &self.index) {
            (Some(Commit { header, .. }), _) => header.page_count,
            (None, Some(index)) => index.info().page_count,
            (None, None) => PageCount::ZERO,
        }
    }

    /// The id of the commit that began the incarnation.
    pub fn incarnation(&self) -> String {
        match (self.commits.first(), &self.index, &self.below) {
            (_, Some(index), _) => index.info().incarnation.to_string(),
            (Some(Commit { header, .. }), None, Some(below)) if header.kind == CommitKind::Restore => {
                below.incarnation()
            }
            (first, ..) => first.map_or_else(String::new, |first| first.header.id.to_string()),
        }
    }

    /// Whether it relies on a checkpoint.
    pub fn is_indexed(&self) -> bool {
        self.index.is_some() || self.below.as_ref().is_some_and(|below| below.is_indexed())
    }

    /// What the commits say of a page; none if the index must be asked, or what is below.
    fn among_commits(&self, page: PageIdx) -> Option<Source<'_>> {
        for Commit { header, sets } in self.commits.iter().rev() {
            if sets.owned().contains(page) {
                return Some(Source::Commit { volume: &self.volume, lsn: header.lsn, hash: header.hash() });
            }
            if !header.min_count.contains(page) {
                return Some(Source::Zero);
            }
        }
        (self.index.is_none() && self.below.is_none()).then_some(Source::Zero)
    }

    /// Where a page is, as far as that is known without asking a store.
    fn find_now(&self, page: PageIdx) -> Option<Source<'_>> {
        let mut at = self;
        loop {
            if let Some(found) = at.among_commits(page) {
                return Some(found);
            }
            if let Some(index) = &at.index {
                let run = index.find_now(page)?;
                match run.source {
                    PageSource::Zero => return Some(Source::Zero),
                    PageSource::Frame(frame) => {
                        return Some(Source::Frame { volume: &at.volume, frame, last: run.last() });
                    }
                    PageSource::Inherited => {}
                }
            }
            at = at.below.as_ref()?;
        }
    }

    /// Where a page is.
    async fn find(&self, reader: &Reader, page: PageIdx) -> Result<Source<'_>> {
        let mut at = self;
        loop {
            if let Some(found) = at.among_commits(page) {
                return Ok(found);
            }
            if let Some(index) = &at.index {
                let run = index.find(reader, page).await?;
                match run.source {
                    PageSource::Zero => return Ok(Source::Zero),
                    PageSource::Frame(frame) => {
                        return Ok(Source::Frame { volume: &at.volume, frame, last: run.last() });
                    }
                    PageSource::Inherited => {}
                }
            }
            at = at.below.as_ref().ok_or_else(|| Error::corrupt(format!("page {page} is inherited from nowhere")))?;
        }
    }

    /// The frame that holds a page of the snapshot, and the last page of which the same can be true; `None` is zeros.
    pub async fn locate(&self, reader: &Reader, page: PageIdx) -> Result<Option<(Located, PageIdx)>> {
        if !self.page_count().contains(page) {
            return Ok(None);
        }
        let (volume, lsn, hash) = match self.find(reader, page).await? {
            Source::Zero => return Ok(None),
            Source::Frame { volume, frame, last } => {
                return Ok(Some((Located { volume: volume.clone(), frame, commit: None }, last)));
            }
            Source::Commit { volume, lsn, hash } => (volume, lsn, hash),
        };
        let commit = reader.commit_of_log(volume, (lsn, hash)).await?;
        let index = &commit.body().index;
        let frame = index.position(page).map(|n| index.frames()[n]).ok_or_else(|| {
            Error::corrupt(format!("volume {volume}: commit {lsn} owns page {page}, and its index does not hold it"))
        })?;
        let object = match frame.place {
            FramePlace::Inline => FrameObject::Commit,
            FramePlace::Segment(n) => FrameObject::Segment(index.segments()[n as usize].id),
        };
        let last = PageIdx::new(frame.first.get().saturating_add(frame.page_count - 1)).unwrap_or(page);
        let (offset, len_bytes, page_count) = (frame.offset, frame.len_bytes, frame.page_count);
        let frame = FrameLocation { owner: lsn, object, offset, len_bytes, page_count };
        Ok(Some((Located { volume: volume.clone(), frame, commit: Some(hash) }, last)))
    }

    /// Whether it is known that the snapshot takes `page` from this frame, which holds it.
    pub fn takes(&self, page: PageIdx, from: &Located) -> bool {
        match self.find_now(page) {
            Some(Source::Commit { volume, lsn, .. }) => *volume == from.volume && lsn == from.frame.owner,
            Some(Source::Frame { volume, frame, .. }) => *volume == from.volume && frame == from.frame,
            Some(Source::Zero) | None => false,
        }
    }

    /// Pages that came with the checkpoint, decoded and checked.
    pub fn boot_pages(&self) -> Result<Vec<DecodedFrame>> {
        self.index.as_ref().map_or(Ok(Vec::new()), |index| index.boot_pages())
    }

    /// Whether the snapshot has a page as the checkpoint has it.
    pub fn takes_from_checkpoint(&self, page: PageIdx) -> bool {
        self.index.is_some() && self.page_count().contains(page) && self.among_commits(page).is_none()
    }
}
