//! What the stored formats cost: `cargo bench -p quire-proto --bench codecs`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has failed")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use quire_proto::{
    Body, CheckpointHead, CheckpointInfo, CheckpointLeaf, CheckpointWriter, CommitHash, CommitHeader, CommitId,
    CommitKind, EncodedFrame, FrameIndex, FrameLocation, FrameObject, FramePlace, Lsn, ObjectHash, Overlay,
    OverlayBase, OverlayStep, PageCount, PageIdx, PageRun, PageSet, PageSets, PageSize, PageSource, Reader, Result,
    SealedCommit, SegmentId, SegmentRef, Writer, decode_frame, encode_frame, encode_index_frame,
};
use quire_testkit::measure;
use quire_testkit::rows::{interior_pages, leaf_page, noise_page, scattered};
use ulid::Ulid;

/// Pages of 4 KiB in a frame of 128 KiB.
const PAGES_A_FRAME: u32 = 32;
const SEGMENT_BYTES: u64 = 64 << 20;
/// The pages of a volume of 4 GiB, which is imported as 31,250 frames.
const IMPORTED_PAGES: u32 = 1_000_000;

fn main() {
    measure(50, |criterion| {
        frames(criterion);
        commits(criterion);
        frame_indexes(criterion);
        checkpoints(criterion);
    });
}

fn page(n: u32) -> PageIdx {
    PageIdx::new(n).unwrap()
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

/// A page of a volume, the same for each `n`.
fn scattered_page(n: u64, pages: u32) -> PageIdx {
    page(scattered(n as i64, pages.into()) as u32)
}

type Encode = fn(&PageSet, PageSize, &[u8]) -> Result<EncodedFrame>;

fn frames(criterion: &mut Criterion) {
    let pages = PageSet::first(PageCount::new(PAGES_A_FRAME));
    let noise: Vec<u8> = (1..=PAGES_A_FRAME).flat_map(noise_page).collect();
    let rows: Vec<u8> = (1..=PAGES_A_FRAME).flat_map(leaf_page).collect();
    let codings: [(&str, Vec<u8>, Encode); 3] = [
        ("coding 0, noise", noise, encode_frame),
        ("coding 1, rows", rows, encode_frame),
        ("coding 2, upper levels", interior_pages(PAGES_A_FRAME, 4), encode_index_frame),
    ];
    let mut group = criterion.benchmark_group("frame of 32 pages");
    for (coding, (what, data, encode)) in codings.iter().enumerate() {
        let frame = encode(&pages, PageSize::DEFAULT, data).unwrap();
        assert_eq!(usize::from(frame.bytes[0]), coding, "the coding of {what}");
        assert_eq!(decode_frame(&frame.bytes, PAGES_A_FRAME).unwrap().data, data);
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(BenchmarkId::new("encode", what), |bencher| {
            bencher.iter(|| encode(&pages, PageSize::DEFAULT, black_box(data)));
        });
        group.bench_function(BenchmarkId::new("decode", what), |bencher| {
            bencher.iter(|| decode_frame(black_box(&frame.bytes), PAGES_A_FRAME));
        });
    }
    group.finish();
}

/// Where the frames of an import lie, of lengths that vary as those of compressed rows do.
fn imported(pages: u32) -> FrameIndex {
    let mut index = FrameIndex::default();
    let mut frames = Vec::new();
    let mut end = 5;
    for n in 0..pages.div_ceil(PAGES_A_FRAME) {
        let len_bytes = 42_000 + scattered(n.into(), 16_000) as u32;
        if end + u64::from(len_bytes) > SEGMENT_BYTES {
            index.push_segment(segment(index.segments().len()), std::mem::take(&mut frames));
            end = 5;
        }
        let first = n * PAGES_A_FRAME + 1;
        frames.push((page(first), PAGES_A_FRAME.min(pages - first + 1), end, len_bytes));
        end += u64::from(len_bytes);
    }
    index.push_segment(segment(index.segments().len()), frames);
    index
}

fn segment(n: usize) -> SegmentRef {
    let hash = ObjectHash::of(&n.to_le_bytes());
    let ulid = Ulid::from_bytes(*hash.as_bytes().first_chunk().unwrap());
    SegmentRef { id: SegmentId { target: Lsn::FIRST, generation: 0, ulid }, len_bytes: SEGMENT_BYTES, hash }
}

/// The header of a commit to a volume of that many pages, to be sealed.
fn draft(page_count: u32) -> CommitHeader {
    let mut header = CommitHeader::draft(lsn(1000), CommitKind::Write, CommitId::new([5; 16]), PageSize::DEFAULT);
    header.parent = Some(CommitHash::of(b"parent"));
    header.author = "laptop".into();
    header.time_ms = 1_795_000_000_000;
    (header.page_count, header.min_count) = (PageCount::new(page_count), PageCount::new(page_count));
    header.attributes.insert("content".into(), "sqlite".into());
    header
}

/// A commit of four scattered pages, which carries them itself.
fn small_body() -> Body {
    let pages: PageSet = (0..4).map(|n| scattered_page(n, IMPORTED_PAGES)).collect();
    let data: Vec<u8> = pages.iter().flat_map(|page| leaf_page(page.get())).collect();
    let frame = encode_frame(&pages, PageSize::DEFAULT, &data).unwrap();
    let index = FrameIndex::inline([(frame.first, frame.page_count, frame.bytes.len() as u32)]);
    Body { sets: PageSets::same(pages), index, inline: frame.bytes }
}

/// A commit of about 27,000 scattered pages, which lie in a segment; only the body says which they are.
fn scattered_body() -> Body {
    let pages: PageSet = (0..27_000).map(|n| scattered_page(n, IMPORTED_PAGES)).collect();
    let numbers: Vec<PageIdx> = pages.iter().collect();
    let mut index = FrameIndex::default();
    let frames = numbers.chunks(PAGES_A_FRAME as usize).zip(imported(27_000).frames().to_vec());
    index.push_segment(
        segment(0),
        frames.map(|(pages, frame)| (pages[0], pages.len() as u32, frame.offset, frame.len_bytes)),
    );
    Body { sets: PageSets::same(pages), index, inline: Bytes::new() }
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    for (what, body) in [("4 pages inline", small_body()), ("27,000 scattered pages", scattered_body())] {
        let header = draft(IMPORTED_PAGES);
        let commit = SealedCommit::seal(header.clone(), body.clone()).unwrap();
        let back = SealedCommit::decode(commit.object().clone()).unwrap();
        assert_eq!((back.header(), back.body()), (commit.header(), &body));
        group.throughput(Throughput::Bytes(commit.object().len() as u64));
        group.bench_function(BenchmarkId::new("encode", what), |bencher| {
            let parts = || (header.clone(), body.clone());
            bencher.iter_batched(parts, |(header, body)| SealedCommit::seal(header, body), BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("decode", what), |bencher| {
            bencher.iter(|| SealedCommit::decode(black_box(commit.object()).clone()));
        });
    }
    group.finish();
}

/// The index of the frames in about one segment, as the commit that names it has it.
fn frame_indexes(criterion: &mut Criterion) {
    let index = imported(43_000);
    let mut encoded = Writer::new();
    index.encode(&mut encoded);
    let decode = |bytes: &[u8]| FrameIndex::decode(&mut Reader::new("frame index", bytes), 0);
    assert_eq!(decode(encoded.as_slice()).unwrap(), index);
    let mut group = criterion.benchmark_group("frame index of a segment");
    group.throughput(Throughput::Elements(index.frames().len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            let mut w = Writer::new();
            black_box(&index).encode(&mut w);
            w
        });
    });
    group.bench_function("decode", |bencher| bencher.iter(|| decode(black_box(encoded.as_slice()))));
    group.finish();
}

fn info() -> CheckpointInfo {
    CheckpointInfo {
        lsn: lsn(1000),
        generation: 0,
        commit: CommitHash::of(b"the thousandth"),
        inputs: ObjectHash::of(b"what it was made from"),
        began: Lsn::FIRST,
        incarnation: CommitId::new([6; 16]),
        page_size: PageSize::DEFAULT,
        page_count: PageCount::new(IMPORTED_PAGES),
        attributes: [("content".to_owned(), "sqlite".to_owned())].into(),
        origin: None,
    }
}

/// A run for each frame of an import.
fn runs(index: &FrameIndex) -> Vec<PageRun> {
    let run = |frame: &quire_proto::FrameRef| {
        let object = match frame.place {
            FramePlace::Inline => FrameObject::Commit,
            FramePlace::Segment(n) => FrameObject::Segment(index.segments()[n as usize].id),
        };
        let (offset, len_bytes, page_count) = (frame.offset, frame.len_bytes, frame.page_count);
        let source = PageSource::Frame(FrameLocation { owner: Lsn::FIRST, object, offset, len_bytes, page_count });
        PageRun { first: frame.first, count: page_count, source, changed: Lsn::FIRST }
    };
    index.frames().iter().map(run).collect()
}

/// A commit of one page for each LSN after the checkpoint's.
fn steps(commits: u64) -> Vec<OverlayStep> {
    let count = PageCount::new(IMPORTED_PAGES);
    let step = |n| {
        let changed = scattered_page(n, IMPORTED_PAGES);
        OverlayStep {
            lsn: lsn(1001 + n),
            base: OverlayBase::Lsn(lsn(1000 + n)),
            page_size: PageSize::DEFAULT,
            page_count: count,
            min_count: count,
            sets: PageSets::same(PageSet::from_iter([changed])),
            index: FrameIndex::inline([(changed, 1, 1100)]),
        }
    };
    (0..commits).map(step).collect()
}

fn write_checkpoint(runs: &[PageRun], segments: &[SegmentRef]) -> Result<Bytes> {
    let mut writer = CheckpointWriter::new(info());
    runs.iter().try_for_each(|run| writer.push(*run))?;
    writer.finish(segments.iter().copied(), &[])
}

fn read_checkpoint(object: &[u8]) -> Result<Vec<CheckpointLeaf>> {
    let head = CheckpointHead::decode(object)?;
    let leaf = |place: quire_proto::LeafRef| {
        let range = place.range();
        CheckpointLeaf::decode(&place, &object[range.start as usize..range.end as usize])
    };
    head.leaves().map(leaf).collect()
}

/// How many runs there are once commits are laid over these.
fn laid_over(runs: &[PageRun], steps: Vec<OverlayStep>) -> Result<u64> {
    let mut overlay = Overlay::new(Some((lsn(1000), PageSize::DEFAULT, PageCount::new(IMPORTED_PAGES))), steps)?;
    let mut made = 0;
    let mut count = |_| {
        made += 1;
        Ok(())
    };
    runs.iter().try_for_each(|run| overlay.push(*run, &mut count))?;
    overlay.finish(count)?;
    Ok(made)
}

fn checkpoints(criterion: &mut Criterion) {
    let index = imported(IMPORTED_PAGES);
    let (runs, segments) = (runs(&index), index.segments());
    let object = write_checkpoint(&runs, segments).unwrap();
    let back: Vec<PageRun> = read_checkpoint(&object).unwrap().iter().flat_map(CheckpointLeaf::runs).collect();
    assert_eq!(back, runs);
    // Each commit of a page inside a frame makes three runs of one.
    let made = laid_over(&runs, steps(256)).unwrap();
    assert!((runs.len() as u64 + 480..=runs.len() as u64 + 512).contains(&made), "{made} runs");
    let mut group = criterion.benchmark_group("checkpoint of 31,250 runs");
    group.throughput(Throughput::Elements(runs.len() as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| write_checkpoint(black_box(&runs), segments)));
    group.bench_function("decode", |bencher| bencher.iter(|| read_checkpoint(black_box(&object))));
    group.bench_function("lay 256 commits over", |bencher| {
        bencher.iter_batched(|| steps(256), |steps| laid_over(black_box(&runs), steps), BatchSize::SmallInput);
    });
    leaf_of(&mut group, &object);
    group.finish();
}

/// What the first page of a checkpoint costs that is already here: its head and one leaf.
fn leaf_of(group: &mut BenchmarkGroup<'_, WallTime>, object: &[u8]) {
    let find = |page| {
        let head = CheckpointHead::decode(object)?;
        let place = head.leaf_for(page).unwrap();
        let range = place.range();
        CheckpointLeaf::decode(&place, &object[range.start as usize..range.end as usize])
    };
    assert_eq!(find(page(500_001)).unwrap().find(page(500_001)).unwrap().count, PAGES_A_FRAME);
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode head and one leaf", |bencher| bencher.iter(|| find(black_box(page(500_001)))));
}
