//! The log from one commit to another: each is there, names the one before it, and its pages are; and how the
//! snapshots stand that they make.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use quire_proto::{
    Base, CheckpointPlace, CommitHash, CommitHeader, CommitKind, Error, ErrorKind, Lsn, PageSet, Result, Rollup,
    SegmentId, Statement, VolumeName,
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
    /// What collectors keep.
    statement: Statement,
    /// The snapshot that somebody stands on who is verified.
    base: Option<Lsn>,
    segments: HashSet<SegmentId>,
    /// Segments that cannot be read and that only checkpoints name, each with the LSN of one that does: those of
    /// compactions, and of commits that were collected.
    pub(super) bad_segments: HashMap<SegmentId, Lsn>,
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
    Collected(Box<CommitHeader>),
}

impl Waiting {
    fn header(&self) -> Option<&CommitHeader> {
        match self {
            Waiting::There(content) => Some(&content.header),
            Waiting::Collected(header) => Some(header),
            Waiting::Broken(..) => None,
        }
    }

    fn is_parent_of(&self, next: &CommitHeader) -> bool {
        self.header().is_some_and(|header| next.parent == Some(header.hash()))
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
        let statement = self.reader.metastore().statement(volume).await?;
        let (checkpoints, spare) = self.checkpoints(volume, first, last).await?;
        let mut walk = Walk {
            volume,
            path: Path::default(),
            bad: HashMap::new(),
            checkpoints,
            statement,
            base: hash.map(|_| last),
            segments: HashSet::new(),
            bad_segments: HashMap::new(),
        };
        let untold = self.untold(&walk, &spare).await?;
        let (untold, spare): (Spare, Spare) =
            spare.into_iter().partition(|(id, _)| id.generation > 0 || untold.contains(&id.target));
        walk.bad_segments = self.spare_segments(&walk, &untold).await?;
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
                let one = match examined {
                    Examined::Broken(lsn, e) => Waiting::Broken(lsn, e, Known::Nothing),
                    Examined::Collected(header) => Waiting::Collected(header),
                    Examined::There(content) => Waiting::There(content),
                };
                // Only a commit that the next one names tells who was replaced below it.
                if let Some(header) = one.header()
                    && waiting.last().is_some_and(|before| before.is_parent_of(header))
                {
                    self.link(volume, &mut waiting, Some(header), last).await?;
                    for one in waiting.drain(..) {
                        self.take(&mut walk, one).await?;
                    }
                }
                waiting.push(one);
            }
            let Some(next) = to.get().checked_add(1).and_then(Lsn::new) else { break };
            from = next;
        }
        if let (Some(hash), Some(header)) = (hash, waiting.last().and_then(Waiting::header))
            && header.hash() != hash
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
            if let Some(header) = one.header() {
                if next.as_ref().is_none_or(|next| next.parent == Some(header.hash())) {
                    next = Some(header.clone());
                    continue;
                }
                let (lsn, after) = (header.lsn, header.lsn.next());
                let problem = Error::corrupt(format!("it is not the commit that commit {after} names as its parent"));
                *one = Waiting::Broken(lsn, problem, Known::Nothing);
            }
            let Waiting::Broken(lsn, _, known) = one else { continue };
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
            Waiting::Collected(header) => {
                self.tally.collected += 1;
                walk.bad.insert(header.lsn, Bad::Collected);
                (header.lsn, Some(*header), State::same(Standing::Collected))
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
                    // Nobody is to read it, nor what follows by the log only.
                    _ if !walk.statement.keeps(lsn) => State::same(Standing::Collected),
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
        let state = match &header {
            Some(header) if state.seen == Standing::Collected => self.kept(walk, header, state).await?,
            _ => state,
        };
        walk.path.push(lsn, state);
        Ok(())
    }

    /// How a snapshot stands of which nothing is left but its header: if it is to be kept, that is damage.
    async fn kept(&mut self, walk: &Walk<'_>, header: &CommitHeader, state: State) -> Result<State> {
        let (volume, lsn) = (walk.volume, header.lsn);
        let is_base = walk.base == Some(lsn);
        if !(is_base || walk.statement.keeps(lsn)) {
            return Ok(state);
        }
        let reader = self.reader.clone();
        let metastore = reader.metastore();
        match crate::shows_pages(metastore, volume, header).await {
            Ok(false) => return Ok(state),
            Err(e) if !is_damage(&e) => return Err(e),
            Ok(true) | Err(_) => {}
        }
        // A collector may have been here since the statement was read, and the checkpoints were listed.
        if !is_base && !metastore.statement(volume).await?.keeps(lsn) {
            return Ok(state);
        }
        let place = CheckpointPlace { lsn, generation: 0 };
        let now = metastore.checkpoint(volume, Some(CheckpointPlace::last_of(lsn))).await?;
        if let Some(now) = now.filter(|now| now.lsn == lsn) {
            let checked = self.checked(volume, now).await?;
            return self.indexed(walk, &checked, Some(header), state).await;
        }
        let wanted = if is_base { "somebody stands on" } else { "is to be kept" };
        let problem = format!("it is missing, and without it LSN {lsn}, which {wanted}, cannot be read");
        let object = Object::Checkpoint(place);
        self.findings.add(Damage { volume: volume.clone(), object, problem, pages: PageSet::new() });
        Ok(State { seen: Standing::Unreadable, ..state })
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

    /// Of the commits of which checkpoints name segments, those that were collected: nobody else looks at the segments.
    async fn untold(&self, walk: &Walk<'_>, spare: &Spare) -> Result<BTreeSet<Lsn>> {
        let targets = spare.keys().filter(|id| id.generation == 0).map(|id| id.target);
        let targets: BTreeSet<Lsn> = targets.filter(|lsn| !walk.statement.keeps(*lsn)).collect();
        let reads = futures::stream::iter(targets).map(|lsn| async move {
            match self.reader.metastore().commit(walk.volume, lsn).await {
                Ok(_) => Ok(None),
                Err(e) if is_damage(&e) || e.kind() == ErrorKind::Gone => Ok(Some(lsn)),
                Err(e) => Err(e),
            }
        });
        let read: Vec<Option<Lsn>> = reads.buffered(COMMITS_AT_ONCE).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    /// Looks for segments that only checkpoints name, and with `--deep` reads them. Returns the bad ones.
    async fn spare_segments(&mut self, walk: &Walk<'_>, spare: &Spare) -> Result<HashMap<SegmentId, Lsn>> {
        let mut bad = HashMap::new();
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
                bad.insert(*id, *lsn);
            }
        }
        Ok(bad)
    }
}
