//! Where a page of a snapshot is.
//!
//! The rule: at commit c, a page that c owns is in its frames; a page past the
//! smallest page count since c's base is zeros; any other is where it was at
//! c's base. A checkpoint says it of all pages of its snapshot, and ends the walk.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use quire_proto::{
    Base, CommitHash, CommitHeader, CommitKind, DecodedFrame, Error, ErrorKind, FrameLocation, FrameObject, FramePlace,
    Lsn, PageCount, PageIdx, PageSets, PageSource, Result, VolumeName,
};

use crate::headers::{back_to, replaced};
use crate::index::Index;
use crate::kept::{MOST_LOOKS, gone_or};
use crate::{CHECKPOINT_SPAN, COMMITS_AT_ONCE, Reader};

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
    /// How many commits came on top since it was loaded.
    grown: usize,
}

/// A lineage that has grown by so many commits is loaded anew: by then there is a newer checkpoint, and each commit costs
/// memory, and time for every page that is looked for.
const MOST_GROWN: usize = 2 * CHECKPOINT_SPAN as usize;

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

/// A snapshot of a volume.
type Place = (VolumeName, Lsn, CommitHash);

/// What a commit of `volume` stands on, if that is not the commit before it.
fn elsewhere(volume: &VolumeName, header: &CommitHeader) -> Option<Place> {
    match &header.base {
        Base::Previous | Base::Nothing => None,
        Base::Older { lsn, hash } => Some((volume.clone(), *lsn, *hash)),
        Base::Other { volume, lsn, hash } => Some((volume.clone(), *lsn, *hash)),
    }
}

/// Whether a snapshot is looked for once more of which something is gone; an error if not.
async fn again(
    reader: &Reader,
    (volume, lsn): (&VolumeName, Lsn),
    gone: Error,
    indexed: bool,
    looks: &mut u32,
) -> Result<()> {
    let e = gone_or(reader, volume, lsn, gone).await;
    if !indexed || e.kind() != ErrorKind::Corrupt || *looks == MOST_LOOKS {
        return Err(e);
    }
    *looks += 1;
    Ok(())
}

impl Drop for Lineage {
    /// One after the other, as there may be thousands.
    fn drop(&mut self) {
        let mut below = self.below.take();
        while let Some(mut last) = below.and_then(Arc::into_inner) {
            below = last.below.take();
        }
    }
}

impl Lineage {
    /// Learns what makes snapshot `lsn` of a volume. Without `indexed` no checkpoint is believed. `Gone` if history does
    /// not keep that snapshot any more.
    pub async fn load(
        reader: Arc<Reader>,
        volume: VolumeName,
        lsn: Lsn,
        hash: CommitHash,
        indexed: bool,
    ) -> Result<Arc<Lineage>> {
        let mut looks = 0;
        loop {
            match Lineage::load_levels(&reader, &volume, (lsn, hash), indexed).await {
                // What it stood on may have gone, for a newer checkpoint, while it was looked for.
                Err(e) if e.kind() == ErrorKind::Gone => again(&reader, (&volume, lsn), e, indexed, &mut looks).await?,
                loaded => return loaded,
            }
        }
    }

    /// One level after the other, as there may be thousands: each fork of a fork stands on one more.
    async fn load_levels(
        reader: &Arc<Reader>,
        volume: &VolumeName,
        (lsn, hash): (Lsn, CommitHash),
        mut indexed: bool,
    ) -> Result<Arc<Lineage>> {
        let (mut levels, mut seen) = (Vec::new(), HashSet::new());
        let mut next = Some((volume.clone(), lsn, hash));
        while let Some((volume, lsn, hash)) = next {
            if !seen.insert((volume.clone(), lsn)) {
                return Err(Error::corrupt(format!("LSN {lsn} of volume {volume} stands on itself in the end"))
                    .with_remedy(format!(
                        "`quire verify {volume} --deep` says which checkpoint says so: move it away."
                    )));
            }
            let mut looks = 0;
            let (level, below) = loop {
                match Lineage::load_once(reader, volume.clone(), (lsn, hash), indexed).await {
                    // Its checkpoint may have, for a newer one.
                    Err(e) if e.kind() == ErrorKind::Gone => {
                        again(reader, (&volume, lsn), e, indexed, &mut looks).await?;
                    }
                    loaded => break loaded?,
                }
            };
            indexed = level.indexed;
            levels.push(level);
            next = below;
        }
        let mut lineage = None;
        for mut level in levels.into_iter().rev() {
            level.below = lineage;
            lineage = Some(Arc::new(level));
        }
        lineage.ok_or_else(|| Error::corrupt("a snapshot without a commit"))
    }

    /// A snapshot without what is below it, which is told.
    async fn load_once(
        reader: &Arc<Reader>,
        volume: VolumeName,
        (lsn, hash): (Lsn, CommitHash),
        indexed: bool,
    ) -> Result<(Lineage, Option<Place>)> {
        let index = async { if indexed { Index::open(reader, &volume, lsn).await } else { Ok(None) } };
        let (head, mut index) = futures::future::try_join(reader.commit(&volume, lsn), index).await?;
        if head.hash() != hash {
            return Err(replaced(&volume, lsn));
        }
        let mut lineage = Lineage { volume, indexed, commits: Vec::new(), index: None, below: None, grown: 0 };
        let first = |h: &CommitHeader| h.base != Base::Previous;
        let headers = loop {
            let lowest = index.as_ref().map_or(Lsn::FIRST, |index| index.info().lsn);
            let mut headers = back_to(reader, &lineage.volume, lowest, head.header(), first).await?;
            let Some(found) = index.take().filter(|index| headers[0].lsn == index.info().lsn) else { break headers };
            if headers[0].hash() == found.info().commit {
                headers.remove(0);
                lineage.index = Some(Arc::new(found));
                break headers;
            }
            let (lsn, volume) = (found.info().lsn, &lineage.volume);
            tracing::warn!("the checkpoint of LSN {lsn} of volume {volume} is not used: it is of another commit");
            lineage.indexed = false;
        };
        let below = match (&lineage.index, headers.first()) {
            (Some(index), _) => index.info().origin.as_ref().map(|o| (o.volume.clone(), o.lsn, o.hash)),
            (None, Some(first)) => elsewhere(&lineage.volume, first),
            (None, None) => None,
        };
        for header in headers {
            lineage.push(reader, header).await?;
        }
        Ok((lineage, below))
    }

    /// The lineage of `volume` once `newer` commits are on top of this one. None: it would be so long that it is better
    /// loaded anew.
    pub async fn extended(
        self: &Arc<Self>,
        reader: &Arc<Reader>,
        volume: &VolumeName,
        newer: Vec<CommitHeader>,
    ) -> Result<Option<Arc<Lineage>>> {
        let grown = self.grown + newer.len();
        if grown > MOST_GROWN {
            return Ok(None);
        }
        let mut lineage = if *volume == self.volume {
            Lineage {
                volume: volume.clone(),
                indexed: self.indexed,
                commits: self.commits.clone(),
                index: self.index.clone(),
                below: self.below.clone(),
                grown,
            }
        } else {
            // The first push of a fork, whose base this is.
            let below = Some(self.clone());
            Lineage { volume: volume.clone(), indexed: self.indexed, commits: Vec::new(), index: None, below, grown }
        };
        lineage.add(reader, newer).await?;
        Ok(Some(Arc::new(lineage)))
    }

    async fn add(&mut self, reader: &Arc<Reader>, headers: Vec<CommitHeader>) -> Result<()> {
        for header in headers {
            if let Some((volume, lsn, hash)) = elsewhere(&self.volume, &header) {
                let known = self.below.take().filter(|below| below.volume == volume && below.head() == (lsn, hash));
                let below = match known {
                    Some(below) => below,
                    None => Lineage::load(reader.clone(), volume, lsn, hash, self.indexed).await?,
                };
                self.restart(Some(below));
            } else if header.base == Base::Nothing {
                self.restart(None);
            }
            self.push(reader, header).await?;
        }
        Ok(())
    }

    /// Adds a commit, which goes on from what is there.
    async fn push(&mut self, reader: &Reader, header: CommitHeader) -> Result<()> {
        let sets = match &header.sets {
            Some(sets) => sets.clone(),
            None => {
                let place = (header.lsn, header.hash());
                reader.commit_of_log(&self.volume, place).await?.body().sets.clone()
            }
        };
        self.commits.push(Commit { header: Arc::new(header), sets: Arc::new(sets) });
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
        let mut at = self;
        loop {
            at = match (at.commits.first(), &at.index, &at.below) {
                (_, Some(index), _) => return index.info().incarnation.to_string(),
                (Some(Commit { header, .. }), None, Some(below)) if header.kind == CommitKind::Restore => below,
                (first, ..) => return first.map_or_else(String::new, |first| first.header.id.to_string()),
            }
        }
    }

    /// Whether it relies on a checkpoint.
    pub fn is_indexed(&self) -> bool {
        std::iter::successors(Some(self), |at| at.below.as_deref()).any(|at| at.index.is_some())
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use quire_bucket::Bucket;
    use quire_proto::{Body, CommitId, PageSize, SealedCommit};

    #[test]
    fn a_lineage_does_not_grow_for_ever() {
        let bucket = Bucket::open("memory://").unwrap();
        let metastore = quire_metastore::Embedded::new(bucket.clone(), Default::default());
        let reader = Arc::new(Reader::new(Arc::new(metastore), Arc::new(quire_pagestore::Embedded::new(bucket))));
        let volume = VolumeName::parse("v").unwrap();
        let fresh = || Lineage {
            volume: volume.clone(),
            indexed: true,
            commits: Vec::new(),
            index: None,
            below: None,
            grown: 0,
        };
        let (mut lineage, mut before) = (Arc::new(fresh()), None);
        for n in 1..=2 * MOST_GROWN as u64 {
            let lsn = Lsn::new(n).unwrap();
            let kind = if n == 1 { CommitKind::Create } else { CommitKind::Write };
            let mut header = CommitHeader::draft(lsn, kind, CommitId::new([1; 16]), PageSize::DEFAULT);
            header.parent = before;
            let header = SealedCommit::seal(header, Body::default()).unwrap().header().clone();
            before = Some(header.hash());
            // Headers that say what they changed need no store.
            let longer = lineage.extended(&reader, &volume, vec![header]).now_or_never().unwrap().unwrap();
            assert_eq!(longer.is_some(), lineage.commits.len() < MOST_GROWN);
            lineage = longer.unwrap_or_else(|| Arc::new(fresh()));
            assert!(lineage.commits.len() <= MOST_GROWN);
        }
    }
}
