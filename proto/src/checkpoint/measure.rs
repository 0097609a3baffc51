//! What a checkpoint costs. `FORMAT.md` has the figures; `--nocapture` prints them.

use ulid::Ulid;

use super::samples::{Numbers, info, lsn, page};
use super::*;
use crate::{FrameIndex, ObjectHash, PageCount, PageSet, PageSets, PageSize, SegmentRef};

const PAGES_A_FRAME: u32 = 32;
const SEGMENT_BYTES: u64 = 64 << 20;

/// The runs of a volume that was imported at once, and its segments: frames of 128 KiB
/// of pages, whose lengths vary by some thousand bytes as those of compressed pages do.
fn imported(frames: u32) -> (Vec<PageRun>, Vec<SegmentRef>) {
    let mut segments: Vec<SegmentRef> = Vec::new();
    let mut numbers = Numbers(1);
    let mut offset = SEGMENT_BYTES;
    let runs = (0..frames).map(|n| {
        let len_bytes = 42_000 + (numbers.below(8000) + numbers.below(8000)) as u32;
        if offset + u64::from(len_bytes) > SEGMENT_BYTES {
            let hash = ObjectHash::of(&segments.len().to_le_bytes());
            let mut ulid = [0; 16];
            ulid.copy_from_slice(&hash.as_bytes()[..16]);
            let id = SegmentId { target: lsn(1), generation: 0, ulid: Ulid::from_bytes(ulid) };
            segments.push(SegmentRef { id, len_bytes: SEGMENT_BYTES, hash });
            offset = 5;
        }
        let object = FrameObject::Segment(segments[segments.len() - 1].id);
        let frame = FrameLocation { owner: lsn(1), object, offset, len_bytes, page_count: PAGES_A_FRAME };
        offset += u64::from(len_bytes);
        let first = page(n * PAGES_A_FRAME + 1);
        PageRun { first, count: PAGES_A_FRAME, source: PageSource::Frame(frame), changed: lsn(1) }
    });
    (runs.collect(), segments)
}

/// The sizes in bytes of the whole object, its head and its largest leaf.
fn sizes(name: &str, at: u64, runs: &[PageRun], segments: Vec<SegmentRef>) -> (usize, usize, u64) {
    let page_count = PageCount::new(runs[runs.len() - 1].last().get());
    let about = CheckpointInfo { lsn: lsn(at), page_size: PageSize::DEFAULT, page_count, ..info(0) };
    let mut writer = CheckpointWriter::new(about);
    runs.iter().for_each(|run| writer.push(*run).unwrap());
    let object = writer.finish(segments, &[]).unwrap();
    let head = CheckpointHead::decode(&object).unwrap();
    let largest = head.leaves().map(|leaf| leaf.range().end - leaf.range().start).max().unwrap();
    let columns: usize = runs.chunks(LEAF_RUNS).map(|runs| columns::columns(runs).len()).sum();
    println!(
        "{name}: {} runs, {} bytes, columns before zstd {columns}, head {}, {} leaves of at most {largest}",
        runs.len(),
        object.len(),
        head.len_bytes(),
        head.leaves().count()
    );
    assert!(2 * object.len() < columns, "zstd is worth its while");
    (object.len(), head.len_bytes(), largest)
}

#[test]
fn frames_of_an_import_cost_two_and_a_half_bytes_and_scattered_commits_a_dozen() {
    let (runs, segments) = imported(31_250);
    let (fresh, ..) = sizes("1,000,000 pages imported", 1, &runs, segments.clone());
    assert!(fresh < 31_250 * 5 / 2);

    let count = PageCount::new(1_000_000);
    let mut numbers = Numbers(2);
    let steps = (2..10_002).map(|at| {
        let changed = page(1 + numbers.below(1_000_000) as u32);
        OverlayStep {
            lsn: lsn(at),
            base: OverlayBase::Lsn(lsn(at - 1)),
            page_size: PageSize::DEFAULT,
            page_count: count,
            min_count: count,
            sets: PageSets::same(PageSet::from_iter([changed])),
            index: FrameIndex::inline([(changed, 1, 900 + numbers.below(400) as u32)]),
        }
    });
    let mut overlay = Overlay::new(Some((lsn(1), PageSize::DEFAULT, count)), steps.collect()).unwrap();
    let mut newer = Vec::new();
    let mut out = |run| {
        newer.push(run);
        Ok(())
    };
    runs.iter().for_each(|run| overlay.push(*run, &mut out).unwrap());
    overlay.finish(&mut out).unwrap();
    let (scattered, _, leaf) = sizes("and 10,000 scattered commits of one page", 10_001, &newer, segments);
    assert!(scattered - fresh < 10_000 * 14, "{} bytes for the commits", scattered - fresh);
    assert!(leaf < 20_000, "a point read of a large volume costs {leaf} bytes");
}

#[test]
fn the_front_holds_the_head_of_a_freshly_imported_tebibyte() {
    let head = |leaves: usize| {
        let (runs, segments) = imported((leaves * LEAF_RUNS) as u32);
        sizes("some leaves", 1, &runs, segments).1
    };
    let a_leaf = (head(33) - head(1)).div_ceil(32);
    let leaves = (1 << 40) / (PAGES_A_FRAME as usize * PageSize::DEFAULT.bytes() * LEAF_RUNS);
    assert!(head(1) + leaves * a_leaf + MAX_BOOT_BYTES <= CHECKPOINT_FRONT_BYTES);
}
