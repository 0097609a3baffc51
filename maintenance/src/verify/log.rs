//! The log from one commit to another: each is there, names the one before it, and its pages are; and how the
//! snapshots stand that they make.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use quire_proto::{
    Base, CommitHash, CommitHeader, CommitKind, Error, ErrorKind, Lsn, PageSet, Result, Rollup, SegmentId, VolumeName,
};

use super::checkpoints::{Checked, Spare};
use super::content::{Content, Examined};
use super::lost::{Path, Standing, State};
use super::segment::hash;
use super::{COMMITS_AT_ONCE, Damage, Depth, Job, Object, is_damage};

/// What is known of a log while it is gone through.
pub(super) struct Walk<'a> {
    pub(super) volume: &'a VolumeName,
    pub(super) path: Path,
    /// What cannot be read, by the commit that owns it.
    pub(super) bad: HashMap<Lsn, Bad>,
    checkpoints: BTreeMap<Lsn, Checked>,
    segments: HashSet<SegmentId>,
    /// Segments of compactions that cannot be read: only checkpoints name them.
    pub(super) bad_segments: HashSet<SegmentId>,
}

/// What cannot be read of a commit.
pub(super) enum Bad {
    /// The object itself, so whatever lies in it; a checkpoint still says where its other frames are.
    Object,
    /// As `Object`, since it was collected: nobody should need it.
    Collected,
    /// These pages.
    Pages(PageSet),
}

/// What is known of the header of a commit that cannot be read.
enum Known {
    Nothing,
    /// It is still there.
    Header(Box<CommitHeader>),
    /// A roll-up has it, of which snapshots from this LSN on make use.
    ByRollup(Box<CommitHeader>, Lsn),
}

/// A commit whose turn comes once the one after it is known.
enum Waiting {
    There(Box<Content>),
    Broken(Lsn, Error, Known),
    Collected(Lsn),
}

impl Waiting {
    fn is_parent_of(&self, next: &CommitHeader) -> bool {
        matches!(self, Waiting::There(content) if next.parent == Some(content.header.hash()))
    }
}

/// The first of some headers; none if what is damaged or collected is in the way.
fn first_of(headers: Result<Vec<CommitHeader>>) -> Result<Option<CommitHeader>> {
    match headers {
        Ok(headers) => Ok(headers.into_iter().next()),
        Err(e) if is_damage(&e) || e.kind() == ErrorKind::Gone => Ok(None),
        Err(e) => Err(e),
    }
}

impl Job {
    /// Goes through the log of a volume from `first` to `last`, whose hash may be known.
    pub(super) async fn log(
        &mut self,
        volume: &VolumeName,
        first: Lsn,
        (last, hash): (Lsn, Option<CommitHash>),
    ) -> Result<Path> {
        let (checkpoints, spare) = self.checkpoints(volume, first, last).await?;
        let mut walk = Walk {
            volume,
            path: Path::default(),
            bad: HashMap::new(),
            checkpoints,
            segments: HashSet::new(),
            bad_segments: HashSet::new(),
        };
        let (compacted, spare): (Spare, Spare) = spare.into_iter().partition(|(id, _)| id.generation > 0);
        walk.bad_segments = self.spare_segments(&walk, &compacted).await?;
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut from = first;
        while from <= last {
            // The job is borrowed by those who read, so that what is found is taken up in between.
            let to = Lsn::new(from.get().saturating_add(COMMITS_AT_ONCE as u64 * 8)).map_or(last, |to| to.min(last));
            let lsns = (from.get()..=to.get()).filter_map(Lsn::new);
            let found: Vec<Examined> = {
                let job = &*self;
                let reads = futures::stream::iter(lsns).map(|lsn| job.examine(volume, lsn));
                reads.buffered(COMMITS_AT_ONCE).try_collect().await?
            };
            for examined in found {
                match examined {
                    Examined::Broken(lsn, e) => waiting.push(Waiting::Broken(lsn, e, Known::Nothing)),
                    Examined::Collected(lsn) => waiting.push(Waiting::Collected(lsn)),
                    Examined::There(content) => {
                        // Only a commit that the next one names tells who was replaced below it.
                        if waiting.last().is_some_and(|before| before.is_parent_of(&content.header)) {
                            self.link(volume, &mut waiting, Some(&content.header), last).await?;
                            for one in waiting.drain(..) {
                                self.take(&mut walk, one).await?;
                            }
                        }
                        waiting.push(Waiting::There(content));
                    }
                }
            }
            let Some(next) = to.get().checked_add(1).and_then(Lsn::new) else { break };
            from = next;
        }
        if let (Some(hash), Some(Waiting::There(content))) = (hash, waiting.last())
            && content.header.hash() != hash
        {
            let problem = Error::corrupt("it is not the commit that a fork names as its base");
            waiting.pop();
            waiting.push(Waiting::Broken(last, problem, Known::Nothing));
        }
        self.link(volume, &mut waiting, None, last).await?;
        for one in waiting {
            self.take(&mut walk, one).await?;
        }
        self.spare_segments(&walk, &spare).await?;
        Ok(walk.path)
    }

    /// Holds commits against the one after them, from the newest down. Of those that cannot be read, and of those
    /// that others have replaced, the header may still be known: from their first bytes, or a roll-up.
    async fn link(
        &self,
        volume: &VolumeName,
        waiting: &mut [Waiting],
        next: Option<&CommitHeader>,
        last: Lsn,
    ) -> Result<()> {
        let mut next = next.cloned();
        for one in waiting.iter_mut().rev() {
            if let Waiting::There(content) = one {
                if next.as_ref().is_none_or(|next| next.parent == Some(content.header.hash())) {
                    next = Some(content.header.clone());
                    continue;
                }
                let after = content.header.lsn.next();
                let problem = Error::corrupt(format!("it is not the commit that commit {after} names as its parent"));
                *one = Waiting::Broken(content.header.lsn, problem, Known::Nothing);
            }
            let Waiting::Broken(lsn, _, known) = one else {
                next = None;
                continue;
            };
            if let Some(next) = &next {
                *known = self.known(volume, *lsn, next, last).await?;
            }
            next = match known {
                Known::Nothing => None,
                Known::Header(header) | Known::ByRollup(header, _) => Some((**header).clone()),
            };
        }
        Ok(())
    }

    /// What is known of the header of the commit before `next`.
    async fn known(&self, volume: &VolumeName, lsn: Lsn, next: &CommitHeader, last: Lsn) -> Result<Known> {
        let metastore = self.reader.metastore();
        if let Some(header) = first_of(metastore.headers(volume, lsn, next).await)? {
            return Ok(Known::Header(Box::new(header)));
        }
        let rolled = Rollup::place(lsn);
        if rolled > last {
            return Ok(Known::Nothing);
        }
        let headers = async {
            let end = metastore.commit(volume, rolled).await?;
            metastore.headers(volume, lsn, end.header()).await
        };
        let header = first_of(headers.await)?.filter(|header| next.parent == Some(header.hash()));
        Ok(header.map_or(Known::Nothing, |header| Known::ByRollup(Box::new(header), rolled)))
    }

    /// Takes up the next LSN of a log.
    async fn take(&mut self, walk: &mut Walk<'_>, one: Waiting) -> Result<()> {
        self.tally.commits += 1;
        let before = walk.path.newest();
        let (lsn, header, state) = match one {
            Waiting::Collected(lsn) => {
                self.tally.collected += 1;
                walk.bad.insert(lsn, Bad::Collected);
                (lsn, None, State::same(Standing::Collected))
            }
            Waiting::Broken(lsn, error, known) => {
                let (header, rolled) = match known {
                    Known::Nothing => (None, None),
                    Known::Header(header) => (Some(header), None),
                    Known::ByRollup(header, rolled) => (Some(header), Some(rolled)),
                };
                let owned = header.as_ref().and_then(|header| header.sets.as_ref()).map(|sets| sets.owned().clone());
                let damage = Damage {
                    volume: walk.volume.clone(),
                    object: Object::Commit { lsn },
                    problem: error.to_string(),
                    pages: owned.clone().unwrap_or_default(),
                };
                self.findings.add(damage);
                walk.bad.insert(lsn, Bad::Object);
                // Without its page sets nobody can go on from it.
                let state = match (&header, owned) {
                    (Some(header), Some(owned)) => {
                        let state = self.state(walk, header, &before, &owned, &owned).await?;
                        match rolled {
                            Some(rolled) => state.hidden_until(rolled),
                            None => state,
                        }
                    }
                    _ => State::same(Standing::Unreadable),
                };
                (lsn, header.map(|header| *header), state)
            }
            Waiting::There(content) => {
                let Content { header, owned, bad, segments, bytes } = *content;
                self.tally.bytes += bytes;
                self.tally.segments += segments.len() as u64;
                walk.segments.extend(segments);
                let mut lacks = PageSet::new();
                for (object, problem, pages) in bad {
                    lacks.union_with(&pages);
                    self.findings.add(Damage { volume: walk.volume.clone(), object, problem, pages });
                }
                let state = self.state(walk, &header, &before, &owned, &lacks).await?;
                if !lacks.is_empty() {
                    walk.bad.insert(header.lsn, Bad::Pages(lacks));
                }
                (header.lsn, Some(header), state)
            }
        };
        let checkpoint = walk.checkpoints.remove(&lsn);
        let state = match checkpoint {
            Some(checked) => self.indexed(walk, &checked, header.as_ref(), state).await?,
            None => state,
        };
        walk.path.push(lsn, state);
        Ok(())
    }

    /// How the snapshot of a commit stands, by what it stands on.
    async fn state(
        &mut self,
        walk: &mut Walk<'_>,
        header: &CommitHeader,
        before: &State,
        owned: &PageSet,
        lacks: &PageSet,
    ) -> Result<State> {
        if header.kind.ends() {
            return Ok(State::same(Standing::None));
        }
        let below = match &header.base {
            Base::Previous => before.clone(),
            Base::Nothing => {
                State::same(if header.kind == CommitKind::Void { Standing::None } else { Standing::whole() })
            }
            Base::Older { lsn, .. } => walk.path.at(*lsn),
            Base::Other { volume, lsn, hash } => {
                if !self.counts(header, volume, *lsn).await? {
                    return Ok(before.clone());
                }
                self.base(volume, *lsn, *hash).await?
            }
        };
        if header.kind.begins() {
            walk.path.begin(header.lsn);
        }
        Ok(below.after(header, owned, lacks))
    }

    /// Whether a fork counts: that of a rename does if the rename took place.
    async fn counts(&self, fork: &CommitHeader, old: &VolumeName, base: Lsn) -> Result<bool> {
        let Some(condition) = &fork.condition else { return Ok(true) };
        match self.reader.metastore().commit(old, base.next()).await {
            Ok(judge) => Ok(judge.header().id == condition.moved_id),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            // Only the one that took place is ever followed by anything that could be damaged or collected.
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Gone) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Looks for segments that only checkpoints name, and with `--deep` reads them. Returns the bad ones.
    async fn spare_segments(&mut self, walk: &Walk<'_>, spare: &Spare) -> Result<HashSet<SegmentId>> {
        let mut bad = HashSet::new();
        for (id, (segment, lsn)) in spare.iter().filter(|(id, _)| !walk.segments.contains(id)) {
            self.tally.segments += 1;
            let problem = match self.reader.pagestore().verify(walk.volume, *id, segment.len_bytes).await {
                Ok(()) if self.depth == Depth::Deep => {
                    let scanned = hash(self.reader.pagestore(), walk.volume, segment).await?;
                    self.tally.bytes += scanned.bytes;
                    scanned.problem
                }
                Ok(()) => None,
                Err(e) if is_damage(&e) => Some(e.to_string()),
                Err(e) => return Err(e),
            };
            if let Some(problem) = problem {
                let (volume, object) = (walk.volume.clone(), Object::Segment { id: *id, lsn: *lsn });
                self.findings.add(Damage { volume, object, problem, pages: PageSet::new() });
                bad.insert(*id);
            }
        }
        Ok(bad)
    }
}
