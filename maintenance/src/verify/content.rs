//! One commit: is it there, whole, and are its pages?

use futures::{StreamExt, TryStreamExt};
use quire_proto::{
    CommitHeader, Error, ErrorKind, FramePlace, Lsn, PageSet, Result, SealedCommit, SegmentId, VolumeName,
};

use super::segment::{Expected, Scanned, check, pages_of, scan};
use super::{Depth, Job, Object, SCANS_AT_ONCE, is_damage};

/// How many segments of one commit are looked for at the same time.
const SEGMENTS_AT_ONCE: usize = 32;

/// What was found at an LSN.
pub(super) enum Examined {
    /// A commit.
    There(Box<Content>),
    /// What should be a commit, or nothing.
    Broken(Lsn, Error),
    /// It was collected; its header stays.
    Collected(Box<CommitHeader>),
}

/// A commit that is whole, and its pages.
pub(super) struct Content {
    pub(super) header: CommitHeader,
    pub(super) owned: PageSet,
    /// Objects with pages that cannot be read.
    pub(super) bad: Vec<(Object, String, PageSet)>,
    pub(super) segments: Vec<SegmentId>,
    pub(super) bytes: u64,
}

impl Job {
    /// Reads a commit and looks at its segments.
    pub(super) async fn examine(&self, volume: &VolumeName, lsn: Lsn) -> Result<Examined> {
        let commit = match self.reader.metastore().commit(volume, lsn).await {
            Ok(commit) => commit,
            Err(e) if e.kind() == ErrorKind::Gone => {
                return match self.reader.metastore().header(volume, lsn).await {
                    Ok(header) => Ok(Examined::Collected(Box::new(header))),
                    Err(e) if is_damage(&e) => Ok(Examined::Broken(lsn, e)),
                    Err(e) => Err(e),
                };
            }
            Err(e) if is_damage(&e) => return Ok(Examined::Broken(lsn, e)),
            Err(e) => return Err(e),
        };
        let index = &commit.body().index;
        let owned = commit.body().sets.owned().clone();
        let mut content = Content {
            header: commit.header().clone(),
            bad: Vec::new(),
            segments: index.segments().iter().map(|segment| segment.id).collect(),
            bytes: commit.object().len() as u64,
            owned,
        };
        if let Some((problem, pages)) = self.own_problem(&commit) {
            content.bad.push((Object::Commit { lsn }, problem, pages));
        }
        let mut frames = vec![Vec::new(); index.segments().len()];
        for (n, frame) in index.frames().iter().enumerate() {
            if let FramePlace::Segment(segment) = frame.place {
                frames[segment as usize].push(n);
            }
        }
        let checks = frames.into_iter().enumerate().map(|(n, frames)| self.segment(volume, &commit, n, frames));
        let at_once = if self.depth == Depth::Deep { SCANS_AT_ONCE } else { SEGMENTS_AT_ONCE };
        let mut checks = futures::stream::iter(checks.collect::<Vec<_>>()).buffered(at_once);
        let mut n = 0;
        while let Some(scanned) = checks.try_next().await? {
            content.bytes += scanned.bytes;
            if let Some(problem) = scanned.problem {
                let pages = pages_of(index.frames(), &scanned.bad, &content.owned);
                content.bad.push((Object::Segment { id: index.segments()[n].id, lsn }, problem, pages));
            }
            n += 1;
        }
        Ok(Examined::There(Box::new(content)))
    }

    /// What is wrong with a commit whose bytes are right: an index that does not say where each page is, or inline
    /// frames that do not hold them.
    fn own_problem(&self, commit: &SealedCommit) -> Option<(String, PageSet)> {
        let (index, owned) = (&commit.body().index, commit.body().sets.owned());
        let frames = index.frames();
        let mut unheld: Vec<u64> = frames.iter().map(|frame| u64::from(frame.page_count)).collect();
        for page in owned.iter() {
            match index.position(page).map(|n| &mut unheld[n]) {
                Some(left) if *left > 0 => *left -= 1,
                _ => return Some((format!("its index does not say where page {page} is"), owned.clone())),
            }
        }
        if self.depth == Depth::Plain {
            return None;
        }
        let expected = Expected { frames: Vec::new(), owned, page_size: commit.header().page_size };
        let inline = frames.iter().enumerate().filter(|(_, frame)| frame.place == FramePlace::Inline);
        let bad = inline.filter_map(|(n, frame)| Some((n, check(frame, commit.inline_frame(frame), &expected).err()?)));
        let bad: Vec<(usize, Error)> = bad.collect();
        let problem = bad.first().map(|(n, e)| format!("the frame of page {}: {e}", frames[*n].first))?;
        let numbers: Vec<usize> = bad.iter().map(|(n, _)| *n).collect();
        Some((problem, pages_of(frames, &numbers, owned)))
    }

    /// Looks at one segment of a commit, given with the numbers of the frames in it.
    async fn segment(
        &self,
        volume: &VolumeName,
        commit: &SealedCommit,
        n: usize,
        mut frames: Vec<usize>,
    ) -> Result<Scanned> {
        let index = &commit.body().index;
        let segment = &index.segments()[n];
        let store = self.reader.pagestore();
        if self.depth == Depth::Plain {
            return match store.verify(volume, segment.id, segment.len_bytes).await {
                Ok(()) => Ok(Scanned::default()),
                Err(e) if is_damage(&e) => {
                    // Frames before the end of one that was cut may be sound: only reading them tells.
                    Ok(Scanned { problem: Some(e.to_string()), bad: frames, bytes: 0 })
                }
                Err(e) => Err(e),
            };
        }
        frames.sort_by_key(|&n| index.frames()[n].offset);
        let frames = frames.into_iter().map(|n| (n, index.frames()[n])).collect();
        let _turn = self.scans.acquire().await.map_err(|e| Error::invalid(e.to_string()))?;
        let expected = Expected { frames, owned: commit.body().sets.owned(), page_size: commit.header().page_size };
        scan(store, volume, segment, expected).await
    }
}
