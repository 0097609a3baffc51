//! Every local commit that was ever tried: what it made of its volume, on top
//! of which other, and whether it may still count.

use std::collections::HashMap;
use std::sync::Arc;

use crate::content::{Content, Stamp};

/// All local commits of a run.
#[derive(Debug)]
pub(crate) struct Ledger {
    commits: HashMap<Stamp, Made>,
    empty: Arc<Content>,
    next: Stamp,
}

#[derive(Debug)]
struct Made {
    content: Arc<Content>,
    on: Stamp,
    alive: bool,
}

impl Ledger {
    /// None yet, of volumes whose pages are to have this size.
    pub(crate) fn new(page_size: u32) -> Ledger {
        Ledger { commits: HashMap::new(), empty: Arc::new(Content::empty(page_size)), next: 1 }
    }

    /// Reserves a stamp.
    pub(crate) fn stamp(&mut self) -> Stamp {
        self.next += 1;
        self.next - 1
    }

    /// A commit is about to be tried on top of `on`.
    pub(crate) fn note(&mut self, stamp: Stamp, on: Stamp, content: Content) {
        self.commits.insert(stamp, Made { content: Arc::new(content), on, alive: true });
    }

    /// It has failed for certain, or was rolled back: nobody may ever see it.
    pub(crate) fn bury(&mut self, stamp: Stamp) {
        if let Some(made) = self.commits.get_mut(&stamp) {
            made.alive = false;
        }
    }

    /// Whether it may be seen.
    pub(crate) fn is_alive(&self, stamp: Stamp) -> bool {
        stamp == 0 || self.commits.get(&stamp).is_some_and(|made| made.alive)
    }

    /// What a volume shows after it.
    pub(crate) fn content(&self, stamp: Stamp) -> Arc<Content> {
        match self.commits.get(&stamp) {
            Some(made) => made.content.clone(),
            None if stamp == 0 => self.empty.clone(),
            None => panic!("nobody made commit {stamp}"),
        }
    }

    /// How many commits `newer` is above `older`, if it stands on it.
    pub(crate) fn distance(&self, newer: Stamp, older: Stamp) -> Option<u64> {
        let mut at = newer;
        for n in 0.. {
            if at == older {
                return Some(n);
            }
            at = self.commits.get(&at)?.on;
        }
        None
    }

    /// Whether one of these commits is `old`, or stands on it.
    pub(crate) fn is_part_of_any(&self, old: Stamp, mut of: impl Iterator<Item = Stamp>) -> bool {
        of.any(|stamp| self.distance(stamp, old).is_some())
    }
}
