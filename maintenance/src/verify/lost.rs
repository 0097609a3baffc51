//! Which snapshots can be read, given which objects cannot.
//!
//! A snapshot lacks a page if the frame that it takes it from is damaged: that goes on from snapshot to snapshot as
//! pages themselves do (see [`Lineage`](quire_history::Lineage)), until a commit owns the page anew or cuts it off. A
//! commit of which not even the header is known hides everything behind it, except from who has a checkpoint at or
//! after it. So each snapshot stands twofold: as the log alone shows it, and as a reader sees it, by checkpoints.

use std::sync::Arc;

use quire_proto::{CommitHeader, Lsn, PageSet};

/// How much of a snapshot can be read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    /// There is none: the volume had ended, or had not begun.
    None,
    /// All but these pages.
    Lacks(Arc<PageSet>),
    /// Nothing.
    Unreadable,
    /// Nothing, and that is as it should be.
    Collected,
}

/// How a snapshot stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    /// By the log alone.
    pub(super) log: Standing,
    /// By the newest checkpoint at or before it.
    pub(super) seen: Standing,
    /// By the log and a roll-up that stands in for what cannot be read of it, from this LSN on.
    pub(super) rolled: Option<(Lsn, Standing)>,
}

impl Standing {
    pub(super) fn whole() -> Standing {
        Standing::Lacks(Arc::default())
    }

    /// After a commit that stands on this one, owns pages `owned`, and lacks some of them.
    fn after(&self, header: &CommitHeader, owned: &PageSet, lacks: &PageSet) -> Standing {
        match self {
            Standing::Lacks(pages) if pages.is_empty() && lacks.is_empty() => self.clone(),
            Standing::Lacks(pages) => {
                let mut pages = (**pages).clone();
                pages.truncate(header.min_count);
                pages.subtract(owned);
                pages.union_with(lacks);
                Standing::Lacks(Arc::new(pages))
            }
            Standing::None | Standing::Unreadable | Standing::Collected => self.clone(),
        }
    }

    fn is_touched(&self) -> bool {
        match self {
            Standing::Lacks(pages) => !pages.is_empty(),
            Standing::Unreadable => true,
            Standing::None | Standing::Collected => false,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Standing::Lacks(pages) if pages.is_empty())
    }
}

impl State {
    pub(super) fn same(standing: Standing) -> State {
        State { log: standing.clone(), seen: standing, rolled: None }
    }

    /// After a commit that stands on this one.
    pub(super) fn after(&self, header: &CommitHeader, owned: &PageSet, lacks: &PageSet) -> State {
        let log = self.log.after(header, owned, lacks);
        let seen = if self.seen == self.log { log.clone() } else { self.seen.after(header, owned, lacks) };
        let rolled = self.rolled.as_ref().map(|(from, standing)| (*from, standing.after(header, owned, lacks)));
        match rolled {
            Some((from, standing)) if from <= header.lsn => {
                let seen = if seen == Standing::Unreadable { standing.clone() } else { seen };
                State { log: standing, seen, rolled: None }
            }
            rolled => State { log, seen, rolled },
        }
    }

    /// Only from an LSN on, where a roll-up helps, it is like this.
    pub(super) fn hidden_until(self, from: Lsn) -> State {
        let standing = self.rolled.map_or(self.log, |(_, standing)| standing);
        State { log: Standing::Unreadable, seen: Standing::Unreadable, rolled: Some((from, standing)) }
    }
}

/// How the snapshots of a log stand, from its first commit on. Memory grows with the changes only.
#[derive(Default)]
pub(super) struct Path {
    /// From this LSN on, ascending.
    changes: Vec<(Lsn, State)>,
    last: Option<Lsn>,
    began: Option<Lsn>,
}

impl Path {
    /// Adds the next snapshot.
    pub(super) fn push(&mut self, lsn: Lsn, state: State) {
        if self.changes.last().is_none_or(|(_, last)| *last != state) {
            self.changes.push((lsn, state));
        }
        self.last = Some(lsn);
    }

    /// The incarnation that is the last one began here.
    pub(super) fn begin(&mut self, lsn: Lsn) {
        self.began = Some(lsn);
    }

    pub(super) fn began(&self) -> Lsn {
        self.began.unwrap_or(Lsn::FIRST)
    }

    /// How the newest snapshot stands.
    pub(super) fn newest(&self) -> State {
        self.changes.last().map_or_else(|| State::same(Standing::None), |(_, state)| state.clone())
    }

    /// How a snapshot stands.
    pub(super) fn at(&self, lsn: Lsn) -> State {
        let n = self.changes.partition_point(|(from, _)| *from <= lsn);
        n.checked_sub(1).map_or_else(|| State::same(Standing::None), |n| self.changes[n].1.clone())
    }

    /// Each stretch of snapshots that stand alike.
    fn stretches(&self) -> impl DoubleEndedIterator<Item = (Lsn, Lsn, &State)> {
        let ends = self.changes.iter().skip(1).map(|(next, _)| next.prev()).chain([self.last]).collect::<Vec<_>>();
        self.changes.iter().zip(ends).filter_map(|((first, state), last)| Some((*first, last?, state)))
    }

    /// Snapshots that cannot be read, or not entirely.
    pub(super) fn touched(&self) -> Vec<(Lsn, Lsn)> {
        let mut touched: Vec<(Lsn, Lsn)> = Vec::new();
        for (first, last, _) in self.stretches().filter(|(_, _, state)| state.seen.is_touched()) {
            match touched.last_mut() {
                Some(before) if before.1.next() == first => before.1 = last,
                _ => touched.push((first, last)),
            }
        }
        touched
    }

    /// The newest snapshot that can be read entirely.
    pub(super) fn newest_readable(&self) -> Option<Lsn> {
        self.stretches().rev().find(|(_, _, state)| state.seen.is_whole()).map(|(_, last, _)| last)
    }
}
