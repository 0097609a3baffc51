//! What is damaged, as it is reported.

use std::collections::HashSet;
use std::fmt;

use quire_proto::{CheckpointPlace, Lsn, PageSet, SegmentId, VolumeName};

/// So many are listed; the others are counted.
const MOST_LISTED: usize = 200;

/// Something that is not what was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Damage {
    /// Whose object it is: the volume's, or that of one which it was forked from.
    pub volume: VolumeName,
    /// The object.
    pub object: Object,
    /// What is wrong with it.
    pub problem: String,
    /// The pages whose content lies in what is damaged, as far as that is known.
    pub pages: PageSet,
}

/// An object of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// The commit that made an LSN.
    Commit {
        /// That LSN.
        lsn: Lsn,
    },
    /// A segment.
    Segment {
        /// Its name.
        id: SegmentId,
        /// The LSN of the commit, or of the checkpoint, that names it.
        lsn: Lsn,
    },
    /// A checkpoint.
    Checkpoint(CheckpointPlace),
}

impl Object {
    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Object::Commit { .. } => "commit",
            Object::Segment { .. } => "segment",
            Object::Checkpoint(_) => "checkpoint",
        }
    }

    /// The LSN that it belongs to.
    pub fn lsn(&self) -> Lsn {
        match self {
            Object::Commit { lsn } | Object::Segment { lsn, .. } => *lsn,
            Object::Checkpoint(place) => place.lsn,
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Commit { lsn } => write!(f, "commit {lsn}"),
            Object::Segment { id, lsn } => write!(f, "segment {id} of commit {lsn}"),
            Object::Checkpoint(place) => write!(f, "checkpoint of LSN {}", place.lsn),
        }
    }
}

/// What was found so far, each object once.
#[derive(Clone, Default)]
pub(super) struct Findings {
    listed: Vec<Damage>,
    objects: HashSet<(VolumeName, Object)>,
    more: u64,
    /// The bases whose findings are among them.
    bases: HashSet<(VolumeName, Lsn)>,
}

impl Findings {
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    pub(super) fn add(&mut self, damage: Damage) {
        let place = (damage.volume.clone(), damage.object);
        if self.objects.contains(&place) {
            return;
        }
        if self.listed.len() >= MOST_LISTED {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.objects.insert(place);
        self.listed.push(damage);
    }

    /// Pages turned out to lie in an object that is listed.
    pub(super) fn add_pages(&mut self, volume: &VolumeName, object: Object, pages: &PageSet) {
        let listed = self.listed.iter_mut().find(|damage| damage.volume == *volume && damage.object == object);
        if let Some(damage) = listed {
            damage.pages.union_with(pages);
        }
    }

    /// Whether the findings of a snapshot that forks stand on are yet to be added: once, however many ask.
    pub(super) fn is_new_base(&mut self, base: (VolumeName, Lsn)) -> bool {
        self.bases.insert(base)
    }

    pub(super) fn add_all(&mut self, others: Findings) {
        self.more = self.more.saturating_add(others.more);
        others.listed.into_iter().for_each(|damage| self.add(damage));
    }

    /// Adds what damages one of these pages, or nobody knows which.
    pub(super) fn add_needed(&mut self, others: Findings, pages: &PageSet) {
        if pages.is_empty() {
            return;
        }
        self.more = self.more.saturating_add(others.more);
        for mut damage in others.listed {
            let is_known = !damage.pages.is_empty();
            let mut spared = damage.pages.clone();
            spared.subtract(pages);
            damage.pages.subtract(&spared);
            if !is_known || !damage.pages.is_empty() {
                self.add(damage);
            }
        }
    }

    pub(super) fn into_parts(self) -> (Vec<Damage>, u64) {
        (self.listed, self.more)
    }
}
