//! Whole checkpoints: what goes in comes out, and nothing else is believed.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::directory::Part;
use super::samples::{LSN, Whole, boot, checkpoint, info, lsn, page, runs, segment};
use super::*;
use crate::{EncodedFrame, ErrorKind, PageCount, PageSet, PageSize, SegmentRef, Writer, encode_frame};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn checkpoints_come_back(seed: u64, n in 0usize..10_000) {
        let runs = runs(seed, n);
        let object = checkpoint(&runs).unwrap();
        let whole = Whole::read(&object).unwrap();
        prop_assert_eq!(whole.runs(), &runs[..]);
        prop_assert_eq!(whole.leaves.len(), runs.len().div_ceil(LEAF_RUNS));
        prop_assert_eq!(whole.head.object_bytes(), object.len() as u64);
        let pages = runs.last().map_or(0, |run| run.last().get());
        prop_assert_eq!(whole.head.info(), &info(pages));
        let named: BTreeSet<SegmentId> = runs.iter().filter_map(|run| match run.source {
            PageSource::Frame(FrameLocation { object: FrameObject::Segment(id), .. }) => Some(id),
            _ => None,
        }).collect();
        let known: Vec<SegmentRef> = (0..5).map(segment).filter(|segment| named.contains(&segment.id)).collect();
        prop_assert_eq!(whole.segments, known);
    }

    #[test]
    fn a_page_is_found_in_its_leaf(seed: u64, n in 1usize..10_000) {
        let runs = runs(seed, n);
        let whole = Whole::read(&checkpoint(&runs).unwrap()).unwrap();
        let leaves: Vec<LeafRef> = whole.head.leaves().collect();
        for run in &runs {
            for page in [run.first, run.last()] {
                let place = whole.head.leaf_for(page).unwrap();
                let n = leaves.iter().position(|leaf| *leaf == place).unwrap();
                prop_assert_eq!(whole.leaves[n].find(page), Some(*run));
                let others = whole.leaves.iter().enumerate().filter(|(other, _)| *other != n);
                prop_assert!(others.map(|(_, leaf)| leaf.find(page)).all(|found| found.is_none()));
            }
        }
        let after = page(runs[runs.len() - 1].last().get() + 1);
        prop_assert_eq!(whole.head.leaf_for(after), None);
    }

    #[test]
    fn a_leaf_with_a_good_digest_is_a_leaf_or_an_error(seed: u64, at: prop::sample::Index, value: u8, cut: bool) {
        let runs = runs(seed, 12);
        let mut bytes = columns::encode(&runs).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if cut {
            bytes.truncate(at);
        }
        let place = LeafRef {
            first: page(1),
            last: runs[runs.len() - 1].last(),
            part: Part::of(&bytes),
            lsn: lsn(LSN),
            has_origin: seed % 2 == 0,
        };
        if let Ok(leaf) = CheckpointLeaf::decode(&place, &bytes) {
            let read: Vec<PageRun> = leaf.runs().collect();
            prop_assert_eq!(read.iter().map(|run| u64::from(run.count)).sum::<u64>(), u64::from(place.last.get()));
            prop_assert!(read.iter().all(|run| leaf.find(run.last()) == Some(*run) && run.changed <= place.lsn));
        }
    }

    #[test]
    fn a_head_with_a_good_checksum_is_a_head_or_an_error(at: prop::sample::Index, value: u8) {
        let mut object = checkpoint(&runs(1, 12)).unwrap().to_vec();
        let len = CheckpointHead::len_of(&object).unwrap();
        let at = 9 + at.index(len - 13);
        object[at] = value;
        let crc = crc32fast::hash(&object[..len - 4]);
        object[len - 4..len].copy_from_slice(&crc.to_le_bytes());
        let _ = Whole::read(&object);
    }
}

#[test]
fn neighbours_that_are_one_run_become_one() {
    let run = |first, count, at| PageRun { first: page(first), count, source: PageSource::Zero, changed: lsn(at) };
    let whole = Whole::read(&checkpoint(&[run(1, 4, 9), run(5, 1, 9), run(6, 2, 8)]).unwrap()).unwrap();
    assert_eq!(whole.runs(), [run(1, 5, 9), run(6, 2, 8)]);
}

#[test]
fn a_snapshot_without_pages_has_no_leaf() {
    let whole = Whole::read(&checkpoint(&[]).unwrap()).unwrap();
    assert_eq!((whole.leaves.len(), whole.segments.len()), (0, 0));
    assert_eq!(whole.head.leaf_for(page(1)), None);
}

#[test]
fn all_pages_there_can_be_are_one_run() {
    let run = PageRun { first: page(1), count: u32::MAX, source: PageSource::Inherited, changed: lsn(3) };
    let whole = Whole::read(&checkpoint(&[run]).unwrap()).unwrap();
    assert_eq!(whole.leaves[0].find(page(u32::MAX)), Some(run));
}

#[test]
fn boot_pages_come_back() {
    let whole = Whole::read(&checkpoint(&runs(5, 20)).unwrap()).unwrap();
    assert_eq!(whole.head.boot()[0].bytes, boot().bytes);
    assert_eq!(whole.boot[0].iter().map(|(page, _)| page.get()).collect::<Vec<_>>(), [1, 2, 5]);
}

#[test]
fn every_flipped_byte_and_every_truncation_is_noticed() {
    let object = checkpoint(&runs(2, 30)).unwrap();
    Whole::read(&object).unwrap();
    for at in 0..object.len() {
        let mut bytes = object.to_vec();
        bytes[at] ^= 0x41;
        assert_eq!(Whole::read(&bytes).err().map(|e| e.kind()), Some(ErrorKind::Corrupt), "byte {at}");
        assert_eq!(Whole::read(&object[..at]).err().map(|e| e.kind()), Some(ErrorKind::Corrupt), "{at} bytes");
    }
}

#[test]
fn a_front_that_is_too_short_says_how_much_is_needed() {
    let object = checkpoint(&runs(3, 30)).unwrap();
    let needed = CheckpointHead::len_of(&object[..64]).unwrap();
    CheckpointHead::decode(&object[..needed - 1]).expect_err("a byte is missing");
    assert_eq!(CheckpointHead::decode(&object[..needed]).unwrap().len_bytes(), needed);
}

#[test]
fn a_newer_version_is_named_as_such() {
    let mut object = checkpoint(&[]).unwrap().to_vec();
    object[4] = 2;
    let error = CheckpointHead::decode(&object).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
    assert!(error.remedy().unwrap().contains("upgrade"));
}

#[test]
fn sizes_that_are_claimed_take_no_memory() {
    let mut w = Writer::new();
    w.bytes(&CHECKPOINT_MAGIC);
    w.u8(1);
    w.u32(u32::MAX);
    CheckpointHead::len_of(w.as_slice()).expect_err("a head of 4 GiB");
    // One zstd frame that says that it holds 2^63 bytes.
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0];
    for said in [1, 1 << 20, u64::MAX] {
        let mut w = Writer::new();
        w.u8(1);
        w.varint(said);
        w.bytes(&zstd);
        let place =
            LeafRef { first: page(1), last: page(1), part: Part::of(w.as_slice()), lsn: lsn(1), has_origin: false };
        CheckpointLeaf::decode(&place, w.as_slice()).expect_err("not a leaf");
    }
}

#[test]
fn checkpoints_that_cannot_be_are_not_written() {
    let frame = FrameLocation { owner: lsn(4), object: FrameObject::Commit, offset: 0, len_bytes: 9, page_count: 2 };
    let run = |first, count, source| PageRun { first: page(first), count, source, changed: lsn(4) };
    let framed = |frame| run(1, 2, PageSource::Frame(frame));
    let unknown = FrameObject::Segment(segment(200).id);
    let refused: [(&str, Vec<PageRun>); 9] = [
        ("a hole", vec![run(1, 2, PageSource::Zero), run(4, 1, PageSource::Inherited)]),
        ("an empty run", vec![run(1, 0, PageSource::Zero)]),
        ("too many pages", vec![run(1, 3, PageSource::Frame(frame))]),
        (
            "too many pages in two runs",
            vec![framed(frame), run(3, 1, PageSource::Zero), run(4, 1, framed(frame).source)],
        ),
        ("a later owner", vec![framed(FrameLocation { owner: lsn(LSN + 1), ..frame })]),
        ("a later change", vec![PageRun { changed: lsn(LSN + 1), ..framed(frame) }]),
        ("no byte", vec![framed(FrameLocation { len_bytes: 0, ..frame })]),
        ("no end", vec![framed(FrameLocation { offset: u64::MAX - 8, ..frame })]),
        ("an unknown segment", vec![framed(FrameLocation { object: unknown, ..frame })]),
    ];
    for (problem, runs) in refused {
        let error = checkpoint(&runs).expect_err(problem);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{problem}: {error}");
    }
    let mut writer = CheckpointWriter::new(CheckpointInfo { origin: None, ..info(2) });
    writer.push(run(1, 2, PageSource::Inherited)).unwrap();
    writer.finish([], &[]).expect_err("inherited from nowhere");
    let mut writer = CheckpointWriter::new(info(3));
    writer.push(framed(frame)).unwrap();
    writer.finish([], &[]).expect_err("the last page is missing");
}

#[test]
fn boot_frames_are_bounded_and_of_this_snapshot() {
    let frame = |bytes: u32, pages: &[u32]| -> EncodedFrame {
        let size = PageSize::try_new(bytes).unwrap();
        let set: PageSet = pages.iter().copied().filter_map(PageIdx::new).collect();
        let mut data = vec![0; pages.len() * size.bytes()];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        encode_frame(&set, size, &data).unwrap()
    };
    let write = |size: u32, boot: &[EncodedFrame]| {
        let about = CheckpointInfo { page_size: PageSize::try_new(size).unwrap(), ..info(9000) };
        let mut writer = CheckpointWriter::new(about);
        writer.push(PageRun { first: page(1), count: 9000, source: PageSource::Zero, changed: lsn(1) }).unwrap();
        writer.finish([], boot)
    };
    let most: Vec<u32> = (1..=120).collect();
    write(512, &[frame(512, &most)]).unwrap();
    let more: Vec<u32> = (121..=140).collect();
    write(512, &[frame(512, &most), frame(512, &more)]).expect_err("more than 64 KiB");
    write(512, &[frame(1024, &[1])]).expect_err("pages of another size");
    write(512, &[frame(512, &[1, 9001])]).expect_err("a page past the end");
    let zeros = PageSet::first(PageCount::new(17));
    let zeros = encode_frame(&zeros, PageSize::MAX, &vec![0; 17 << 16]).unwrap();
    write(65_536, &[zeros]).expect_err("more than 1 MiB of pages");
}
