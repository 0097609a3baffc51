//! The checkpoints of a volume: whether they decode, and what a reader sees by them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use quire_history::Reader;
use quire_proto::{
    CHECKPOINT_FRONT_BYTES, CheckpointHead, CheckpointInfo, CheckpointLeaf, CheckpointPlace, CommitHeader, Error,
    ErrorKind, FrameLocation, FrameObject, LeafRef, Lsn, PageRun, PageSet, PageSource, Result, SegmentId, SegmentRef,
    VolumeName,
};

use super::compare::{Compared, compare};
use super::log::{Bad, Walk};
use super::lost::{Standing, State};
use super::{Damage, Depth, Job, Object, is_damage};

/// How many leaves are fetched at the same time.
const LEAVES_AT_ONCE: usize = 8;

/// The segments that checkpoints name, each with the LSN of one that does.
pub(super) type Spare = HashMap<SegmentId, (SegmentRef, Lsn)>;

/// What is wrong with pages of which `is_listed` does not hold.
const UNLISTED: &str = "it says that these pages are in segments which it does not list";

/// A checkpoint that was looked at.
pub(super) struct Checked {
    place: CheckpointPlace,
    /// None: it is not sound, and readers do without it.
    info: Option<CheckpointInfo>,
    /// Pages of which it does not say what the commits say, or that are in segments which it does not list.
    wrong: PageSet,
}

/// A checkpoint that decodes.
struct Sound {
    opened: Opened,
    /// The segments that it lists.
    segments: Vec<SegmentRef>,
    /// The pages that it says are in others, if its leaves were looked at.
    unlisted: PageSet,
}

/// A checkpoint, open.
pub(crate) struct Opened {
    pub(super) place: CheckpointPlace,
    pub(super) head: CheckpointHead,
    /// The first bytes of the object.
    front: Bytes,
}

impl Opened {
    pub(crate) async fn open(reader: &Reader, volume: &VolumeName, place: CheckpointPlace) -> Result<Opened> {
        let read = |end: u64| reader.metastore().read_checkpoint(volume, place, 0..end);
        let mut front = read(CHECKPOINT_FRONT_BYTES as u64).await?;
        let len = CheckpointHead::len_of(&front)?;
        if len > front.len() {
            front = read(len as u64).await?;
        }
        let head = CheckpointHead::decode(&front)?;
        if (head.info().lsn, head.info().generation) != (place.lsn, place.generation) {
            return Err(Error::corrupt(format!("it says that it is of LSN {}", head.info().lsn)));
        }
        Ok(Opened { place, head, front })
    }

    async fn bytes(&self, reader: &Reader, volume: &VolumeName, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if range.end <= self.front.len() as u64 {
            return Ok(self.front.slice(range.start as usize..range.end as usize));
        }
        reader.metastore().read_checkpoint(volume, self.place, range).await
    }

    pub(super) async fn leaf(&self, reader: &Reader, volume: &VolumeName, place: LeafRef) -> Result<CheckpointLeaf> {
        let bytes = self.bytes(reader, volume, place.range()).await?;
        CheckpointLeaf::decode(&place, &bytes).map_err(|e| e.context(format_args!("page {} and after", place.first)))
    }

    /// Each run in page order.
    pub(super) async fn each_run(
        &self,
        reader: &Reader,
        volume: &VolumeName,
        mut each: impl FnMut(PageRun),
    ) -> Result<()> {
        let places: Vec<LeafRef> = self.head.leaves().collect();
        let leaves = futures::stream::iter(places).map(|place| self.leaf(reader, volume, place));
        let mut leaves = leaves.buffered(LEAVES_AT_ONCE);
        while let Some(leaf) = leaves.try_next().await? {
            leaf.runs().for_each(&mut each);
        }
        Ok(())
    }

    /// Whether all of it that `depth` asks for decodes.
    async fn check(self, reader: &Reader, volume: &VolumeName, with_leaves: bool) -> Result<Sound> {
        self.head.boot_pages()?;
        let segments = self.bytes(reader, volume, self.head.segments_range()).await?;
        let segments = self.head.decode_segments(&segments)?;
        let mut unlisted = PageSet::new();
        if with_leaves {
            let look = |run: PageRun| {
                if !is_listed(&run, &segments) {
                    unlisted.insert_range(run.first.get(), run.last().get());
                }
            };
            self.each_run(reader, volume, look).await?;
        }
        Ok(Sound { opened: self, segments, unlisted })
    }
}

/// Whether the segment that a run is in, if it is in one, is among those that its checkpoint lists, ascending, and has
/// room for it. Nobody looks for one that is not listed.
pub(crate) fn is_listed(run: &PageRun, segments: &[SegmentRef]) -> bool {
    match run.source {
        PageSource::Frame(FrameLocation { object: FrameObject::Segment(id), offset, len_bytes, .. }) => {
            let listed = segments.binary_search_by_key(&id, |segment| segment.id);
            listed.is_ok_and(|n| offset + u64::from(len_bytes) <= segments[n].len_bytes)
        }
        _ => true,
    }
}

impl Job {
    /// Looks at the checkpoints of the LSNs from `first` to `last`.
    pub(super) async fn checkpoints(
        &mut self,
        volume: &VolumeName,
        first: Lsn,
        last: Lsn,
    ) -> Result<(BTreeMap<Lsn, Checked>, Spare)> {
        let mut places: BTreeMap<Lsn, CheckpointPlace> = BTreeMap::new();
        let mut at_most = Some(last);
        while let Some(lsn) = at_most.filter(|lsn| *lsn >= first) {
            let Some(place) = self.reader.metastore().checkpoint(volume, Some(CheckpointPlace::last_of(lsn))).await?
            else {
                break;
            };
            if place.lsn >= first {
                places.insert(place.lsn, place);
            }
            at_most = place.lsn.prev();
        }
        let newest = places.keys().next_back().copied();
        let (mut checked, mut spare, mut trusted) = (BTreeMap::new(), Spare::new(), BTreeMap::new());
        for (lsn, place) in places {
            self.tally.checkpoints += 1;
            let with_leaves = self.depth == Depth::Deep || Some(lsn) == newest;
            let Some(sound) = self.open_sound(volume, place, with_leaves).await? else {
                checked.insert(lsn, Checked { place, info: None, wrong: PageSet::new() });
                continue;
            };
            let Sound { opened, segments, unlisted: mut wrong } = sound;
            spare.extend(segments.into_iter().map(|segment| (segment.id, (segment, lsn))));
            let mut problem = UNLISTED;
            if self.depth == Depth::Deep {
                let differing = match compare(&self.reader, volume, &opened, &trusted).await {
                    Ok(Compared::Differing(pages)) => pages,
                    Ok(Compared::Unknown(_)) => PageSet::new(),
                    // It does not even fit what is before it, which was told of that.
                    Err(e) if is_damage(&e) || e.kind() == ErrorKind::Invalid => PageSet::new(),
                    Err(e) => return Err(e),
                };
                if !differing.is_empty() {
                    problem = "it does not say of these pages what the commits say";
                    wrong.union_with(&differing);
                }
            }
            match wrong.is_empty() {
                true => drop(trusted.insert(lsn, place)),
                false => self.damaged_checkpoint(volume, place, problem, wrong.clone()),
            }
            checked.insert(lsn, Checked { place, info: Some(opened.head.info().clone()), wrong });
        }
        Ok((checked, spare))
    }

    /// Looks at one checkpoint that was not there when they were listed.
    pub(super) async fn checked(&mut self, volume: &VolumeName, place: CheckpointPlace) -> Result<Checked> {
        let Some(Sound { opened, unlisted, .. }) = self.open_sound(volume, place, true).await? else {
            return Ok(Checked { place, info: None, wrong: PageSet::new() });
        };
        if !unlisted.is_empty() {
            self.damaged_checkpoint(volume, place, UNLISTED, unlisted.clone());
        }
        Ok(Checked { place, info: Some(opened.head.info().clone()), wrong: unlisted })
    }

    /// Opens a checkpoint; none if it is damaged, which is noted.
    async fn open_sound(
        &mut self,
        volume: &VolumeName,
        place: CheckpointPlace,
        with_leaves: bool,
    ) -> Result<Option<Sound>> {
        let sound = async {
            let opened = Opened::open(&self.reader, volume, place).await?;
            opened.check(&self.reader, volume, with_leaves).await
        };
        match sound.await {
            Ok(sound) => Ok(Some(sound)),
            Err(e) if is_damage(&e) => {
                self.damaged_checkpoint(volume, place, &e.to_string(), PageSet::new());
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn damaged_checkpoint(&mut self, volume: &VolumeName, place: CheckpointPlace, problem: &str, pages: PageSet) {
        let (volume, object, problem) = (volume.clone(), Object::Checkpoint(place), problem.to_owned());
        self.findings.add(Damage { volume, object, problem, pages });
    }

    /// How a snapshot stands that has a checkpoint.
    pub(super) async fn indexed(
        &mut self,
        walk: &Walk<'_>,
        checked: &Checked,
        header: Option<&CommitHeader>,
        state: State,
    ) -> Result<State> {
        // Without a sound one readers read the log.
        let by_log = match state.log {
            Standing::Collected => Standing::Unreadable,
            _ => state.log.clone(),
        };
        let Some(info) = &checked.info else { return Ok(State { seen: by_log, ..state }) };
        match header {
            Some(header) if header.hash() != info.commit => {
                self.damaged_checkpoint(walk.volume, checked.place, "it is of another commit", PageSet::new());
                return Ok(State { seen: by_log, ..state });
            }
            None if state.log != Standing::Collected => return Ok(state),
            _ => {}
        }
        if state.log.is_whole() && checked.wrong.is_empty() && walk.bad_segments.is_empty() {
            return Ok(State::same(state.log));
        }
        let origin = match &info.origin {
            Some(origin) => Some(self.base(&origin.volume, origin.lsn, origin.hash).await?.seen),
            None => None,
        };
        let mut lacks = checked.wrong.clone();
        // What of collected commits the snapshot still needs.
        let mut needed: BTreeMap<Lsn, PageSet> = BTreeMap::new();
        let mut in_bad: BTreeMap<SegmentId, PageSet> = BTreeMap::new();
        let mut add = |run: PageRun| {
            let mut pages = PageSet::new();
            pages.insert_range(run.first.get(), run.last().get());
            let among = match (run.source, &origin) {
                (PageSource::Frame(FrameLocation { object: FrameObject::Segment(id), .. }), _)
                    if walk.bad_segments.contains_key(&id) =>
                {
                    in_bad.entry(id).or_default().union_with(&pages);
                    Some(&pages)
                }
                (PageSource::Frame(frame), _) if frame.is_compacted() => None,
                (PageSource::Frame(frame), _) => match (walk.bad.get(&frame.owner), frame.object) {
                    (Some(Bad::Object), FrameObject::Commit) => Some(&pages),
                    (Some(Bad::Collected), FrameObject::Commit) => {
                        needed.entry(frame.owner).or_default().union_with(&pages);
                        Some(&pages)
                    }
                    (Some(Bad::Pages(bad)), _) => Some(bad),
                    _ => None,
                },
                (PageSource::Inherited, Some(Standing::Lacks(lost))) => Some(&**lost),
                (PageSource::Inherited, Some(Standing::Unreadable)) => Some(&pages),
                _ => None,
            };
            if let Some(among) = among {
                let mut sound = pages.clone();
                sound.subtract(among);
                lacks.union_with(&pages);
                lacks.subtract(&sound);
            }
        };
        let seen = async {
            let opened = Opened::open(&self.reader, walk.volume, checked.place).await?;
            opened.each_run(&self.reader, walk.volume, &mut add).await
        };
        let seen = seen.await;
        for (id, pages) in in_bad {
            let lsn = walk.bad_segments[&id];
            self.findings.add_pages(walk.volume, Object::Segment { id, lsn }, &pages);
        }
        for (lsn, pages) in needed {
            let problem = format!("it was collected, and the checkpoint of LSN {} needs it", checked.place.lsn);
            let (volume, object) = (walk.volume.clone(), Object::Commit { lsn });
            self.findings.add(Damage { volume, object, problem, pages });
        }
        match seen {
            Ok(()) => Ok(State { seen: Standing::Lacks(lacks.into()), ..state }),
            Err(e) if is_damage(&e) => {
                self.damaged_checkpoint(walk.volume, checked.place, &e.to_string(), PageSet::new());
                Ok(State { seen: by_log, ..state })
            }
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use quire_proto::{ObjectHash, PageIdx};
    use ulid::Ulid;

    use super::*;

    #[test]
    fn a_page_is_in_a_segment_that_is_listed_and_not_past_its_end() {
        let id = |n: u8| SegmentId { target: Lsn::FIRST, generation: 0, ulid: Ulid::from_bytes([n; 16]) };
        let listed = [2, 4].map(|n| SegmentRef { id: id(n), len_bytes: 100, hash: ObjectHash::of(&[n]) });
        let run = |source| PageRun { first: PageIdx::FIRST, count: 1, source, changed: Lsn::FIRST };
        let run_in = |object, offset| {
            run(PageSource::Frame(FrameLocation { owner: Lsn::FIRST, object, offset, len_bytes: 40, page_count: 1 }))
        };
        for n in [2, 4] {
            assert!(is_listed(&run_in(FrameObject::Segment(id(n)), 60), &listed));
            assert!(!is_listed(&run_in(FrameObject::Segment(id(n)), 61), &listed));
        }
        assert!(!is_listed(&run_in(FrameObject::Segment(id(3)), 5), &listed));
        // Of a commit nothing is listed.
        assert!(is_listed(&run_in(FrameObject::Commit, 5), &[]) && is_listed(&run(PageSource::Zero), &[]));
    }
}
