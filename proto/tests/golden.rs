//! The stored formats as they were first written: each file of `golden/` must
//! keep its meaning for ever, and what is encoded the same way every time must
//! come out as the same bytes.
//!
//! `cargo test -p quire-proto --test golden -- --ignored` writes the files
//! that are missing; it never changes one that is there.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use quire_proto::{
    Base, Body, CheckpointHead, CheckpointInfo, CheckpointLeaf, CheckpointPlace, CheckpointWriter, CommitHash,
    CommitHeader, CommitId, CommitKind, Condition, EncodedFrame, FrameIndex, FrameLocation, FrameObject, LocalTip, Lsn,
    Marker, MarkerTarget, ObjectHash, Origin, PageCount, PageIdx, PageRun, PageSet, PageSets, PageSize, PageSource,
    ROLLUP_SPAN, Reader, Retention, Rollup, SealedCommit, SegmentId, SegmentRef, Span, Statement, Stub, VolumeName,
    Writer, decode_frame, encode_frame, encode_index_frame,
};
use ulid::Ulid;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str) -> Bytes {
    fs::read(path(name)).unwrap_or_else(|e| panic!("{name}: {e}")).into()
}

fn lsn(n: u64) -> Lsn {
    Lsn::new(n).unwrap()
}

fn pages(numbers: &[u32]) -> PageSet {
    numbers.iter().copied().filter_map(PageIdx::new).collect()
}

fn small_pages() -> PageSize {
    PageSize::try_new(512).unwrap()
}

/// Pages of text that compresses.
fn text(n: usize) -> Vec<u8> {
    b"All that is gold does not glitter; ".iter().copied().cycle().take(n * 512).collect()
}

/// Pages that do not compress.
fn noise(n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n * 512];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Pages of ascending records of seven bytes.
fn records(n: usize) -> Vec<u8> {
    (0..n as u32 * 512).map(|at| if at % 7 == 3 { (at / 7 * 3) as u8 } else { (at % 7 * 40) as u8 }).collect()
}

fn inline_commit(frame: Bytes) -> SealedCommit {
    let mut header = CommitHeader::draft(lsn(300), CommitKind::Write, CommitId::new([0xa1; 16]), small_pages());
    header.parent = Some(CommitHash::of(b"parent"));
    header.author = "laptop of Zo\u{eb}".into();
    header.time_ms = 1_795_000_000_123;
    header.page_count = PageCount::new(1000);
    header.min_count = PageCount::new(998);
    header.local_tip = LocalTip::new([0xb2; 16]);
    header.attributes.insert("content".into(), "sqlite".into());
    let index = FrameIndex::inline([(PageIdx::new(2).unwrap(), 3, frame.len() as u32)]);
    let sets = PageSets { changed: pages(&[2, 3, 700, 999, 1000]), owned: Some(pages(&[2, 3, 700])) };
    SealedCommit::seal(header, Body { sets, index, inline: frame }).unwrap()
}

fn segment(n: u8, len_bytes: u64) -> SegmentRef {
    let id = SegmentId { target: lsn(1), generation: 0, ulid: Ulid::from_bytes([n; 16]) };
    SegmentRef { id, len_bytes, hash: ObjectHash::of(&[n]) }
}

/// So many separate pages that their set goes to the body, in two segments.
fn large_commit() -> SealedCommit {
    let mut header = CommitHeader::draft(lsn(1), CommitKind::Create, CommitId::new([0xc3; 16]), PageSize::MAX);
    header.page_count = PageCount::new(40_000);
    let owned: PageSet = (0..10_000).filter_map(|n| PageIdx::new(n * 4 + 1)).collect();
    let firsts: Vec<PageIdx> = owned.iter().step_by(100).collect();
    let mut index = FrameIndex::default();
    index.push_segment(segment(1, 5000), firsts[..40].iter().zip(0..).map(|(first, n)| (*first, 100, 5 + n * 90, 90)));
    index.push_segment(segment(2, 9000), firsts[40..].iter().zip(0..).map(|(first, n)| (*first, 100, 5 + n * 99, 80)));
    SealedCommit::seal(header, Body { sets: PageSets::same(owned), index, inline: Bytes::new() }).unwrap()
}

fn moved_commit() -> SealedCommit {
    let mut header = CommitHeader::draft(lsn(8), CommitKind::Moved, CommitId::new([0xd4; 16]), PageSize::DEFAULT);
    header.parent = Some(CommitHash::of(b"the seventh"));
    header.page_count = PageCount::new(20);
    header.min_count = PageCount::new(20);
    header.moved_to = Some(VolumeName::parse("caf\u{e9}/menu").unwrap());
    SealedCommit::seal(header, Body::default()).unwrap()
}

fn reserving_fork() -> SealedCommit {
    let moved = moved_commit();
    let mut header = CommitHeader::draft(lsn(1), CommitKind::Fork, CommitId::new([0xe5; 16]), PageSize::DEFAULT);
    let volume = VolumeName::parse("caf\u{e9}").unwrap();
    header.base = Base::Other { volume, lsn: lsn(7), hash: CommitHash::of(b"the seventh") };
    header.page_count = PageCount::new(20);
    header.min_count = PageCount::new(20);
    header.condition = Some(Condition { moved_id: moved.header().id, moved_object: moved.object().clone() });
    let sets = PageSets { changed: PageSet::first(header.page_count), owned: Some(PageSet::new()) };
    SealedCommit::seal(header, Body { sets, ..Body::default() }).unwrap()
}

fn restore() -> SealedCommit {
    let mut header = CommitHeader::draft(lsn(70_000), CommitKind::Restore, CommitId::new([0xf6; 16]), small_pages());
    header.parent = Some(CommitHash::of(b"before"));
    header.base = Base::Older { lsn: lsn(69_000), hash: CommitHash::of(b"older") };
    header.page_count = PageCount::new(u32::MAX);
    let mut changed = PageSet::new();
    changed.insert_range(u32::MAX - 9, u32::MAX);
    SealedCommit::seal(header, Body { sets: PageSets { changed, owned: Some(PageSet::new()) }, ..Body::default() })
        .unwrap()
}

fn chain() -> Vec<SealedCommit> {
    let mut commits: Vec<SealedCommit> = Vec::new();
    for n in 1..=ROLLUP_SPAN {
        let kind = if n == 1 { CommitKind::Create } else { CommitKind::Write };
        let mut header = CommitHeader::draft(lsn(n), kind, CommitId::new([n as u8; 16]), PageSize::DEFAULT);
        header.parent = commits.last().map(SealedCommit::hash);
        commits.push(SealedCommit::seal(header, Body::default()).unwrap());
    }
    commits
}

fn rollup() -> Vec<u8> {
    Rollup::encode(chain().iter().map(SealedCommit::header_bytes)).unwrap()
}

fn checkpoint_info(page_count: u32, origin: Option<Origin>) -> CheckpointInfo {
    CheckpointInfo {
        lsn: lsn(512),
        generation: 2,
        commit: CommitHash::of(b"the 512th"),
        inputs: ObjectHash::of(b"inputs"),
        began: Lsn::new(3).unwrap(),
        incarnation: CommitId::new([6; 16]),
        page_size: small_pages(),
        page_count: PageCount::new(page_count),
        attributes: [("content".to_owned(), "sqlite".to_owned())].into(),
        origin,
    }
}

fn run(first: u32, count: u32, source: PageSource, changed: u64) -> PageRun {
    PageRun { first: PageIdx::new(first).unwrap(), count, source, changed: lsn(changed) }
}

fn small_checkpoint() -> (CheckpointInfo, Vec<PageRun>) {
    let volume = VolumeName::parse("caf\u{e9}").unwrap();
    let origin = Origin { volume, lsn: lsn(7), hash: CommitHash::of(b"the seventh") };
    let imported = FrameLocation {
        owner: lsn(2),
        object: FrameObject::Segment(segment(2, 0).id),
        offset: 5,
        len_bytes: 40_000,
        page_count: 32,
    };
    let inline =
        FrameLocation { owner: lsn(300), object: FrameObject::Commit, offset: 0, len_bytes: 67, page_count: 3 };
    let second = FrameLocation { offset: 67, len_bytes: 900, page_count: 1, ..inline };
    let runs = vec![
        run(1, 4, PageSource::Inherited, 1),
        run(5, 20, PageSource::Frame(imported), 2),
        run(25, 1, PageSource::Frame(inline), 300),
        run(26, 7, PageSource::Frame(imported), 2),
        run(33, 1, PageSource::Frame(second), 300),
        run(34, 2, PageSource::Frame(inline), 400),
        run(36, 65, PageSource::Zero, 512),
    ];
    (checkpoint_info(100, Some(origin)), runs)
}

/// Two leaves; every other frame is a later commit's.
fn large_checkpoint() -> (CheckpointInfo, Vec<PageRun>) {
    let mut offset = 5;
    let runs = (0..2500).flat_map(|n: u32| {
        let object = FrameObject::Segment(segment(1 + (n / 1000) as u8, 0).id);
        let len_bytes = 4000 + n * 7919 % 1000;
        let imported = FrameLocation { owner: lsn(1), object, offset, len_bytes, page_count: 32 };
        offset += u64::from(len_bytes);
        let owner = lsn(2 + u64::from(n * 31 % 500));
        let later =
            FrameLocation { owner, object: FrameObject::Commit, offset: 0, len_bytes: 300 + n % 90, page_count: 1 };
        let first = n * 33 + 1;
        [run(first, 32, PageSource::Frame(imported), 1), run(first + 32, 1, PageSource::Frame(later), owner.get())]
    });
    (checkpoint_info(2500 * 33, None), runs.collect())
}

fn checkpoint((info, runs): (CheckpointInfo, Vec<PageRun>), boot: &[EncodedFrame]) -> Bytes {
    let mut writer = CheckpointWriter::new(info);
    runs.into_iter().for_each(|run| writer.push(run).unwrap());
    writer.finish((1..4).map(|n| segment(n, 64 << 20)), boot).unwrap()
}

fn boot(bytes: Bytes) -> EncodedFrame {
    EncodedFrame { first: PageIdx::new(9).unwrap(), page_count: 2, bytes }
}

fn assert_checkpoint(name: &str, (info, runs): (CheckpointInfo, Vec<PageRun>)) -> CheckpointHead {
    let object = golden(name);
    let part = |range: std::ops::Range<u64>| &object[range.start as usize..range.end as usize];
    let head = CheckpointHead::decode(&object).unwrap();
    assert_eq!(head.info(), &info, "{name}");
    let leaves = head.leaves().map(|leaf| CheckpointLeaf::decode(&leaf, part(leaf.range())).unwrap());
    let leaves: Vec<CheckpointLeaf> = leaves.collect();
    assert!(leaves.iter().flat_map(CheckpointLeaf::runs).eq(runs), "{name}");
    let segments = head.decode_segments(part(head.segments_range())).unwrap();
    assert!(segments.iter().all(|found| (1..4).any(|n| *found == segment(n, 64 << 20))), "{name}");
    head
}

fn encoded(set: &PageSet) -> Vec<u8> {
    let mut w = Writer::new();
    set.encode(&mut w);
    w.into_vec()
}

fn many_ranges() -> PageSet {
    (1..=400).filter_map(|n| PageIdx::new(n * 1000)).collect()
}

/// What the file says is what was meant, and encodes to the same bytes again.
fn assert_commit(name: &str, meant: &SealedCommit) -> SealedCommit {
    let object = golden(name);
    let commit = SealedCommit::decode(object.clone()).unwrap();
    assert_eq!(commit.header(), meant.header(), "{name}");
    assert_eq!(commit.body(), meant.body(), "{name}");
    let again = SealedCommit::seal(commit.header().clone(), commit.body().clone()).unwrap();
    assert_eq!(again.object(), &object, "{name}");
    commit
}

#[test]
fn commits_keep_their_meaning() {
    let inline = assert_commit("commit-inline.bin", &inline_commit(golden("frame-zstd.bin")));
    assert_eq!((inline.lsn().get(), inline.header().kind.as_str()), (300, "write"));
    assert_eq!(inline.header().author, "laptop of Zo\u{eb}");
    let frame = inline.inline_frame(&inline.body().index.frames()[0]);
    assert_eq!(decode_frame(&frame, 3).unwrap().data, text(3));

    let large = assert_commit("commit-large.bin", &large_commit());
    assert!(large.header().sets.is_none(), "its page set is in the body");
    assert_eq!((large.header().segment_bytes, large.body().index.frames().len()), (14_000, 100));

    let fork = assert_commit("commit-fork.bin", &reserving_fork());
    let carried = fork.header().condition.clone().unwrap().moved_object;
    assert_eq!(carried, golden("commit-moved.bin"));
    let moved = assert_commit("commit-moved.bin", &moved_commit());
    assert_eq!(moved.header().moved_to.as_ref().unwrap().as_str(), "caf\u{e9}/menu");
    assert_commit("commit-restore.bin", &restore());
}

/// The hashes are part of the format: they link commits of different versions.
#[test]
fn hashes_stay_the_same() {
    let moved = SealedCommit::decode(golden("commit-moved.bin")).unwrap();
    assert_eq!(moved.hash().to_string(), "b0e6a4b40c832d9f919e67e0010635ffacf5a1b1e29619b8e74f8a257dd30224");
    assert_eq!(moved.object_hash().to_string(), "d38453847a7a200b9df70b822bb0e80b27747f2f73eae7374f0a9fa8bb0152ad");
}

#[test]
fn rollups_keep_their_meaning() {
    let object = golden("rollup.bin");
    assert_eq!(object, rollup());
    let headers = Rollup::decode(&object).unwrap().into_headers();
    let expected: Vec<CommitHeader> = chain().iter().map(CommitHeader::from).collect();
    assert_eq!(headers, expected);
}

#[test]
fn checkpoints_keep_their_meaning() {
    let head = assert_checkpoint("checkpoint-small.bin", small_checkpoint());
    assert_eq!(head.boot_pages().unwrap()[0].pages, pages(&[9, 10]));
    assert_eq!(head.hash().to_string(), "7edf14ecd0eeffc3f438a6d7d607d6eaf701c0b7fb6571181bed2d70f5544ff7");
    // So few runs are not compressed.
    assert_eq!(checkpoint(small_checkpoint(), &[boot(golden("frame-raw.bin"))]), golden("checkpoint-small.bin"));
    let head = assert_checkpoint("checkpoint-large.bin", large_checkpoint());
    assert_eq!((head.leaves().count(), head.boot().len()), (2, 0));
}

fn markers() -> [Marker; 4] {
    let base = (VolumeName::parse("caf\u{e9}/menu").unwrap(), lsn(300), CommitHash::of(b"base"));
    let targets = [
        MarkerTarget::Commit(VolumeName::parse("fork").unwrap(), lsn(2)),
        MarkerTarget::Checkpoint(CheckpointPlace { lsn: lsn(300), generation: 1 }),
        MarkerTarget::Replica { id: 0x1234_5678_9abc_def0, author: "ann@host".to_owned() },
        MarkerTarget::Reader { span_ms: 7_200_000, author: "ann@host".to_owned() },
    ];
    targets.map(|target| Marker { base: base.clone(), target })
}

fn stub() -> Vec<u8> {
    let commit = large_commit();
    let front = commit.object().len() - commit.header().body_bytes() as usize;
    Stub::encode(&commit.object()[..front], commit.object_hash(), 1_795_000_000_456)
}

fn statement() -> Statement {
    let place = |n, generation| CheckpointPlace { lsn: lsn(n), generation };
    Statement {
        horizon: lsn(1000),
        kept: [7, 300].map(lsn).into(),
        indexes: [place(7, 0), place(300, 2), place(1000, 1), place(1024, 0)].into(),
        collected: lsn(900),
        left: [8, 9, 40].map(lsn).into(),
    }
}

fn retention() -> Retention {
    Retention { span: Span::Time(7 * 86_400_000), named: [7, 300].map(lsn).into() }
}

#[test]
fn what_collection_writes_keeps_its_meaning() {
    let names = ["marker-commit.bin", "marker-checkpoint.bin", "marker-replica.bin", "marker-reader.bin"];
    for (name, meant) in names.into_iter().zip(markers()) {
        assert_eq!(Marker::decode(&golden(name)).unwrap(), meant, "{name}");
        assert_eq!(golden(name), meant.encode(), "{name}");
    }
    let left = Stub::decode(&golden("stub.bin")).unwrap();
    let was = large_commit();
    assert_eq!((&left.header, left.object_hash), (was.header(), was.object_hash()));
    assert_eq!((left.stored_ms, golden("stub.bin")), (1_795_000_000_456, stub().into()));
    assert_eq!(Statement::decode(&golden("statement.bin")).unwrap(), statement());
    assert_eq!(golden("statement.bin"), statement().encode());
    assert_eq!(Retention::decode(&golden("retention.bin")).unwrap(), retention());
    assert_eq!(golden("retention.bin"), retention().encode());
}

#[test]
fn frames_keep_their_meaning() {
    let raw = golden("frame-raw.bin");
    let frame = decode_frame(&raw, 2).unwrap();
    assert_eq!((&frame.pages, frame.page_size, &frame.data[..]), (&pages(&[9, 10]), small_pages(), &noise(2)[..]));
    assert_eq!(encode_frame(&frame.pages, frame.page_size, &frame.data).unwrap().bytes, raw);
    // Another zstd may find other bytes for the same pages.
    let frame = decode_frame(&golden("frame-zstd.bin"), 3).unwrap();
    assert_eq!((frame.pages, frame.page_size, frame.data), (pages(&[2, 3, 700]), small_pages(), text(3).into()));
    let strided = golden("frame-strided.bin");
    assert_eq!(strided[0], 2, "its coding");
    let frame = decode_frame(&strided, 2).unwrap();
    assert_eq!((frame.pages, frame.page_size, frame.data), (pages(&[4, 5]), small_pages(), records(2).into()));
}

#[test]
fn page_sets_keep_their_meaning() {
    for (name, meant) in [("pages-ranges.bin", pages(&[1, 2, 3, 100, u32::MAX])), ("pages-roaring.bin", many_ranges())]
    {
        let bytes = golden(name);
        let mut r = Reader::new("golden file", &bytes);
        assert_eq!(PageSet::decode(&mut r).unwrap(), meant, "{name}");
        r.finish().unwrap();
        assert_eq!(encoded(&meant), bytes, "{name}");
    }
}

#[test]
#[ignore = "writes the files that are missing"]
fn write_missing_files() {
    let zstd = encode_frame(&pages(&[2, 3, 700]), small_pages(), &text(3)).unwrap().bytes;
    let raw = encode_frame(&pages(&[9, 10]), small_pages(), &noise(2)).unwrap().bytes;
    let strided = encode_index_frame(&pages(&[4, 5]), small_pages(), &records(2)).unwrap().bytes;
    let files: [(&str, Vec<u8>); 20] = [
        ("commit-inline.bin", inline_commit(zstd.clone()).object().to_vec()),
        ("commit-large.bin", large_commit().object().to_vec()),
        ("commit-fork.bin", reserving_fork().object().to_vec()),
        ("commit-moved.bin", moved_commit().object().to_vec()),
        ("commit-restore.bin", restore().object().to_vec()),
        ("rollup.bin", rollup()),
        ("checkpoint-small.bin", checkpoint(small_checkpoint(), &[boot(raw.clone())]).to_vec()),
        ("checkpoint-large.bin", checkpoint(large_checkpoint(), &[]).to_vec()),
        ("frame-zstd.bin", zstd.to_vec()),
        ("frame-raw.bin", raw.to_vec()),
        ("frame-strided.bin", strided.to_vec()),
        ("pages-ranges.bin", encoded(&pages(&[1, 2, 3, 100, u32::MAX]))),
        ("pages-roaring.bin", encoded(&many_ranges())),
        ("marker-commit.bin", markers()[0].encode()),
        ("marker-checkpoint.bin", markers()[1].encode()),
        ("marker-replica.bin", markers()[2].encode()),
        ("marker-reader.bin", markers()[3].encode()),
        ("stub.bin", stub()),
        ("statement.bin", statement().encode()),
        ("retention.bin", retention().encode()),
    ];
    for (name, bytes) in files {
        match File::create_new(path(name)) {
            Ok(mut file) => file.write_all(&bytes).unwrap(),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::AlreadyExists, "{name}"),
        }
    }
}
