//! Numbered transactions: what number n does follows from a seed alone, so
//! that another process knows what a volume must hold after any of them.

use quire_engine::{PageCount, PageIdx, PageSize, Snapshot, Volume};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{fill, page, read_at};

/// Pages that every transaction writes: they tell which one was the last.
const ALWAYS: [u32; 2] = [1, 2];

/// What kind of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A few small pages; now and then many more than are staged in memory,
    /// or a truncation.
    Mixed,
    /// Large pages, over and over, so that the log grows fast.
    Churn,
}

impl Kind {
    pub fn parse(text: &str) -> Kind {
        [Kind::Mixed, Kind::Churn].into_iter().find(|kind| format!("{kind:?}") == text).unwrap()
    }

    fn page_bytes(self) -> usize {
        match self {
            Kind::Mixed => 512,
            Kind::Churn => 65536,
        }
    }
}

/// The content after a number of transactions.
pub struct History {
    seed: u64,
    kind: Kind,
    /// How many transactions there were.
    pub done: u64,
    /// The stamp of every page, from page 1 on.
    pages: Vec<u64>,
}

struct Change {
    truncate: Option<u32>,
    pages: Vec<u32>,
}

impl History {
    pub fn new(seed: u64, kind: Kind) -> History {
        History { seed, kind, done: 0, pages: Vec::new() }
    }

    fn change(&self, n: u64) -> Change {
        let mut rng = StdRng::seed_from_u64(self.seed ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut pages = ALWAYS.to_vec();
        let mut truncate = None;
        match self.kind {
            Kind::Churn => pages.extend((0..14).map(|_| rng.random_range(3..=96))),
            Kind::Mixed => {
                pages.extend((0..6).map(|_| rng.random_range(3..=300)));
                match n % 40 {
                    // The spilled pages make up more than 4 MiB.
                    39 => pages.extend(3..=9000),
                    0 | 17 => truncate = Some(rng.random_range(2..=250)),
                    5 | 25 => {
                        let first = rng.random_range(3..=1000);
                        pages.extend(first..first + 200);
                    }
                    _ => {}
                }
            }
        }
        Change { truncate, pages }
    }

    /// The next transaction happened.
    pub fn advance(&mut self) {
        let Change { truncate, pages } = self.change(self.done + 1);
        self.done += 1;
        if let Some(count) = truncate {
            self.pages.truncate(count as usize);
        }
        for n in pages {
            let at = n as usize - 1;
            self.pages.resize(self.pages.len().max(at + 1), 0);
            self.pages[at] = self.done;
        }
    }

    pub fn advance_to(&mut self, n: u64) {
        assert!(n >= self.done, "transaction {} was there, and now {n} is the last", self.done);
        (self.done..n).for_each(|_| self.advance());
    }

    /// Makes the next transaction.
    pub fn write(&mut self, volume: &Volume, durable: bool) {
        let Change { truncate, pages } = self.change(self.done + 1);
        if self.kind == Kind::Mixed && self.done % 40 == 12 {
            self.roll_back(volume);
        }
        let mut writer = volume.writer(&volume.snapshot(), "a child").unwrap();
        writer.set_page_size(PageSize::try_new(self.kind.page_bytes() as u32).unwrap()).unwrap();
        if let Some(count) = truncate.filter(|count| writer.page_count().get() > *count) {
            writer.truncate(PageCount::new(count)).unwrap();
        }
        let mut data = vec![0; self.kind.page_bytes()];
        fill(&mut data, self.done + 1);
        for n in pages {
            writer.write(page(n), &data).unwrap();
        }
        writer.commit(durable).unwrap();
        self.advance();
    }

    /// Gives up a transaction that was spilled several times.
    fn roll_back(&self, volume: &Volume) {
        let mut writer = volume.writer(&volume.snapshot(), "a child").unwrap();
        let mut data = vec![0; self.kind.page_bytes()];
        fill(&mut data, u64::MAX);
        (3..=30_000).for_each(|n| writer.write(page(n), &data).unwrap());
    }

    /// The number of the last transaction that a snapshot has.
    pub fn last_of(snapshot: &Snapshot) -> u64 {
        if snapshot.page_count().contains(PageIdx::FIRST) { read_at(snapshot, ALWAYS[0]) } else { 0 }
    }

    /// Every page is what the transactions so far made it: none is missing, none is there in part.
    pub fn check(&self, snapshot: &Snapshot) {
        assert_eq!(snapshot.page_count().get() as usize, self.pages.len(), "after transaction {}", self.done);
        for (at, stamp) in self.pages.iter().enumerate() {
            let n = at as u32 + 1;
            assert_eq!(read_at(snapshot, n), *stamp, "page {n} after transaction {}", self.done);
        }
    }
}
