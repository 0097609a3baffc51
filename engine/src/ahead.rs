//! How much is fetched at once.
//!
//! A miss on an idle replica fetches one frame: a query for one row costs a few
//! of them. A miss that continues where an earlier fetch ended belongs to a
//! scan, and each such miss fetches twice as much as the one before. And a
//! burst of misses wherever they lie says that the query wants many pages: the
//! unit doubles with every few of them, since few large requests beat many
//! small ones whenever round trips cost more than bytes.

use std::time::{Duration, Instant};

use quire_proto::PageIdx;

/// The most frames that one miss fetches besides its own: 8 MiB of pages.
const MAX_FRAMES: usize = 64;
/// The unit doubles with every so many misses of a burst.
const MISSES_A_DOUBLING: u32 = 8;
/// What a burst alone brings the unit to, at most.
const MAX_DOUBLINGS: u32 = 5;
/// Without a miss for this long the burst is over.
const BURST_ENDS_AFTER: Duration = Duration::from_secs(1);
/// Scans that are followed at the same time: a B-tree scan reads leaves and
/// interior pages from different places.
const MAX_SCANS: usize = 4;
/// A scan that fetches so many at once is believed to go on.
const STEADY_FRAMES: usize = 4;
/// A miss this many pages after the expected one still continues a scan.
const MAX_GAP_PAGES: u32 = 64;

/// How much is fetched with a page that was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Frames besides its own.
    pub(crate) frames: usize,
    /// It belongs to a scan that goes on steadily: what comes next is worth fetching before it is missed.
    pub(crate) is_scan: bool,
}

/// What the last misses were like.
#[derive(Default)]
pub(crate) struct Ahead {
    /// Where each scan's next miss is expected, and its unit; the latest last.
    scans: Vec<Scan>,
    misses: u32,
    last_miss: Option<Instant>,
}

struct Scan {
    next: u32,
    frames: usize,
}

impl Ahead {
    /// How much to fetch besides the frame that holds `page`.
    pub(crate) fn after_miss(&mut self, page: PageIdx, now: Instant) -> Unit {
        if self.last_miss.is_some_and(|last| now.saturating_duration_since(last) > BURST_ENDS_AFTER) {
            self.misses = 0;
            self.scans.clear();
        }
        self.last_miss = Some(now);
        let burst = (1 << (self.misses / MISSES_A_DOUBLING).min(MAX_DOUBLINGS)) - 1;
        self.misses += 1;
        let continued = self.scans.iter().position(|s| page.get() >= s.next && page.get() - s.next <= MAX_GAP_PAGES);
        let scan = match continued {
            Some(n) => {
                let scan = self.scans.remove(n);
                Scan { frames: (scan.frames * 2).clamp(1, MAX_FRAMES), ..scan }
            }
            None => Scan { next: 0, frames: 0 },
        };
        let unit = Unit { frames: scan.frames.max(burst), is_scan: scan.frames >= burst.max(STEADY_FRAMES) };
        if self.scans.len() >= MAX_SCANS {
            self.scans.remove(0);
        }
        self.scans.push(Scan { next: page.get().saturating_add(1), ..scan });
        unit
    }

    /// The unit of the scan that is expected at `next`.
    pub(crate) fn frames_at(&self, next: u32) -> usize {
        self.scans.iter().rfind(|scan| scan.next == next).map_or(0, |scan| scan.frames)
    }

    /// The same, which grows by that: it is fetched before it was missed.
    pub(crate) fn grown_at(&mut self, next: u32) -> usize {
        let scan = self.scans.iter_mut().rfind(|scan| scan.next == next);
        scan.map_or(0, |scan| {
            scan.frames = (scan.frames * 2).min(MAX_FRAMES);
            scan.frames
        })
    }

    /// The scan that was expected at `from` is expected at `next`.
    pub(crate) fn goes_on(&mut self, from: u32, next: u32) {
        if let Some(scan) = self.scans.iter_mut().rfind(|scan| scan.next == from) {
            scan.next = next;
        }
    }

    /// The miss of `page` was answered up to the page before `next`.
    pub(crate) fn fetched(&mut self, page: PageIdx, next: u32) {
        if let Some(scan) = self.scans.iter_mut().rfind(|s| s.next == page.get().saturating_add(1)) {
            scan.next = scan.next.max(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miss(ahead: &mut Ahead, page: u32, now: Instant) -> usize {
        let page = PageIdx::new(page).unwrap();
        let frames = ahead.after_miss(page, now).frames;
        ahead.fetched(page, page.get() + 32 * (frames as u32 + 1));
        frames
    }

    #[test]
    fn one_row_costs_single_frames() {
        let now = Instant::now();
        let mut ahead = Ahead::default();
        assert_eq!([1, 9000, 20_000, 5_000].map(|page| miss(&mut ahead, page, now)), [0; 4]);
    }

    #[test]
    fn a_scan_doubles_also_between_reads_elsewhere() {
        let now = Instant::now();
        let mut ahead = Ahead::default();
        let mut page = 10;
        let mut units = Vec::new();
        for n in 0..6 {
            let frames = miss(&mut ahead, page, now);
            units.push(frames);
            page += 32 * (frames as u32 + 1);
            miss(&mut ahead, 500_000 + n * 1000, now);
        }
        assert!(units.is_sorted() && units[5] >= 16, "{units:?}");
    }

    #[test]
    fn a_burst_of_scattered_misses_fetches_more_and_a_pause_ends_it() {
        let now = Instant::now();
        let mut ahead = Ahead::default();
        let units: Vec<usize> = (0..50).map(|n| miss(&mut ahead, 1_000_000 - n * 7919, now)).collect();
        assert_eq!((units[0], units[49]), (0, 31));
        assert_eq!(miss(&mut ahead, 3, now + Duration::from_secs(2)), 0);
    }
}
