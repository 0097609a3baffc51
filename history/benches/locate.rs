//! What finding a page costs once the checkpoint is here: `cargo bench -p quire-history`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has failed")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Throughput};
use futures::FutureExt;
use quire_bucket::Bucket;
use quire_history::{CHECKPOINT_SPAN, Lineage, Located, Reader, checkpoint};
use quire_proto::{
    Appended, Body, CommitHeader, CommitId, CommitKind, FrameIndex, FrameRef, Lsn, Metastore, ObjectHash, PageCount,
    PageIdx, PageSet, PageSets, PageSize, SealedCommit, SegmentId, SegmentRef, VolumeName, encode_frame,
};
use quire_testkit::measure;
use quire_testkit::rows::{leaf_page, scattered};
use tokio::runtime::Runtime;
use ulid::Ulid;

/// Pages of 4 KiB in a frame of 128 KiB.
const PAGES_A_FRAME: u32 = 32;
const FRAME_BYTES: u32 = 50_000;
/// As many commits as may come before the next checkpoint is due.
const COMMITS: u64 = CHECKPOINT_SPAN - 1;
/// So many pages are looked for in a row.
const LOOK_UPS: u32 = 1000;

fn main() {
    measure(50, |criterion| {
        let mut group = criterion.benchmark_group("locate");
        in_checkpoints(&mut group);
        below_commits(&mut group);
        group.finish();
    });
}

fn page(n: u32) -> PageIdx {
    PageIdx::new(n).unwrap()
}

/// A snapshot whose checkpoint has a run for each frame of an import, and commits of one page on top of it.
struct Snapshot {
    reader: Arc<Reader>,
    lineage: Arc<Lineage>,
    imported: SealedCommit,
    /// Which page each of the commits changed.
    changed: Vec<PageIdx>,
}

impl Snapshot {
    async fn new(runs: u32, commits: u64) -> Snapshot {
        let bucket = Bucket::open("memory://").unwrap();
        let metastore = Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default()));
        let reader = Arc::new(Reader::new(metastore.clone(), Arc::new(quire_pagestore::Embedded::new(bucket))));
        let volume = VolumeName::parse("a").unwrap();
        let append = async |commit: &SealedCommit| {
            assert!(matches!(metastore.append(&volume, commit).await.unwrap(), Appended::Won));
        };
        let imported = import(runs);
        append(&imported).await;
        assert!(checkpoint(&reader, &volume, imported.header(), &[]).await.unwrap().bytes > 0);
        let pages = imported.header().page_count.get();
        let changed: Vec<PageIdx> = (0..commits).map(|n| page(scattered(n as i64, pages.into()) as u32)).collect();
        let mut head = imported.clone();
        for page in &changed {
            head = write(&head, *page);
            append(&head).await;
        }
        let lineage = Lineage::load(reader.clone(), volume, head.lsn(), head.hash(), true).await.unwrap();
        assert!(lineage.is_indexed());
        Snapshot { reader, lineage, imported, changed }
    }

    /// Pages in no order that no commit since the import has changed.
    fn unchanged(&self) -> Vec<PageIdx> {
        let pages = self.imported.header().page_count.get();
        let some = (0..LOOK_UPS).map(|n| page(scattered(-i64::from(n), pages.into()) as u32));
        some.filter(|page| !self.changed.contains(page)).collect()
    }

    /// The frame in which the import put a page.
    fn frame(&self, page: PageIdx) -> FrameRef {
        let index = &self.imported.body().index;
        index.frames()[index.position(page).unwrap()]
    }

    /// Where a page is, of which all is here that must be known.
    fn locate(&self, page: PageIdx) -> Located {
        let located = self.lineage.locate(&self.reader, page).now_or_never();
        located.expect("nothing has to be fetched").unwrap().unwrap().0
    }

    /// Looks for all of these pages, and adds up what comes of it.
    fn locate_all(&self, pages: &[PageIdx]) -> u64 {
        pages.iter().map(|page| self.locate(*page).frame.offset).fold(0, u64::wrapping_add)
    }

    /// Fetches what must be known of these pages.
    async fn bring(&self, pages: &[PageIdx]) {
        for page in pages {
            self.lineage.locate(&self.reader, *page).await.unwrap();
        }
    }
}

/// A commit with that many frames in a segment that nobody reads.
fn import(frames: u32) -> SealedCommit {
    let id = SegmentId { target: Lsn::FIRST, generation: 0, ulid: Ulid::from_bytes([7; 16]) };
    let len_bytes = u64::from(frames) * u64::from(FRAME_BYTES);
    let mut index = FrameIndex::default();
    index.push_segment(
        SegmentRef { id, len_bytes, hash: ObjectHash::of(b"segment") },
        (0..frames)
            .map(|n| (page(n * PAGES_A_FRAME + 1), PAGES_A_FRAME, u64::from(n) * u64::from(FRAME_BYTES), FRAME_BYTES)),
    );
    let count = PageCount::new(frames * PAGES_A_FRAME);
    let mut header = CommitHeader::draft(Lsn::FIRST, CommitKind::Create, CommitId::new([1; 16]), PageSize::DEFAULT);
    header.page_count = count;
    let sets = PageSets::same(PageSet::first(count));
    SealedCommit::seal(header, Body { sets, index, inline: Bytes::new() }).unwrap()
}

/// The commit after `before`, which changes a page and carries it.
fn write(before: &SealedCommit, page: PageIdx) -> SealedCommit {
    let pages = PageSet::from_iter([page]);
    let frame = encode_frame(&pages, PageSize::DEFAULT, &leaf_page(page.get())).unwrap();
    let id = CommitId::new((u128::from(before.lsn().get()) + 1).to_le_bytes());
    let mut header = CommitHeader::draft(before.lsn().next(), CommitKind::Write, id, PageSize::DEFAULT);
    header.parent = Some(before.hash());
    (header.page_count, header.min_count) = (before.header().page_count, before.header().page_count);
    let index = FrameIndex::inline([(frame.first, frame.page_count, frame.bytes.len() as u32)]);
    SealedCommit::seal(header, Body { sets: PageSets::same(pages), index, inline: frame.bytes }).unwrap()
}

/// Looks for pages that no commit has changed since the checkpoint.
fn in_checkpoint(group: &mut BenchmarkGroup<'_, WallTime>, snapshot: &Snapshot, what: &str) {
    let pages = snapshot.unchanged();
    Runtime::new().unwrap().block_on(snapshot.bring(&pages));
    for page in &pages {
        let (frame, expected) = (snapshot.locate(*page).frame, snapshot.frame(*page));
        assert_eq!((frame.owner, frame.offset, frame.page_count), (Lsn::FIRST, expected.offset, PAGES_A_FRAME));
    }
    group.throughput(Throughput::Elements(pages.len() as u64));
    group.bench_function(BenchmarkId::new("a page of a checkpoint", what), |bencher| {
        bencher.iter(|| snapshot.locate_all(black_box(&pages)));
    });
}

fn in_checkpoints(group: &mut BenchmarkGroup<'_, WallTime>) {
    for (runs, what) in [(1, "1 run"), (1000, "1,000 runs"), (100_000, "100,000 runs")] {
        let snapshot = Runtime::new().unwrap().block_on(Snapshot::new(runs, 0));
        in_checkpoint(group, &snapshot, what);
    }
}

fn below_commits(group: &mut BenchmarkGroup<'_, WallTime>) {
    let runtime = Runtime::new().unwrap();
    let snapshot = runtime.block_on(Snapshot::new(1000, COMMITS));
    in_checkpoint(group, &snapshot, "1,000 runs, below 255 commits");
    runtime.block_on(snapshot.bring(&snapshot.changed));
    for page in &snapshot.changed {
        let newest = snapshot.changed.iter().rposition(|changed| changed == page).unwrap() as u64 + 2;
        assert_eq!(snapshot.locate(*page).frame.owner.get(), newest);
    }
    group.throughput(Throughput::Elements(COMMITS));
    group.bench_function(BenchmarkId::new("a page of a commit", "one of 255"), |bencher| {
        bencher.iter(|| snapshot.locate_all(black_box(&snapshot.changed)));
    });
}
