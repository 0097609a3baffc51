//! What a segment costs besides its frames: `cargo bench -p quire-pagestore`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has failed")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use quire_pagestore::bench::Account;
use quire_pagestore::{MAX_SEGMENT_BYTES, SegmentTable};
use quire_proto::{EncodedFrame, Lsn, PageCount, PageIdx, PageSet, PageSize, SegmentId, VolumeName, encode_frame};
use quire_testkit::measure;
use quire_testkit::rows::leaf_page;
use ulid::Ulid;

/// Pages of 4 KiB in a frame of 128 KiB.
const PAGES_A_FRAME: u32 = 32;

fn main() {
    measure(20, |criterion| {
        segments(criterion);
    });
}

/// One frame of rows, as if it were that of the pages from `first` on.
fn frame(rows: &EncodedFrame, first: u32) -> EncodedFrame {
    EncodedFrame { first: PageIdx::new(first).unwrap(), ..rows.clone() }
}

/// The account of a segment that takes no further frame, and how many it has.
fn full(rows: &EncodedFrame) -> (Account, u32) {
    let id = SegmentId { target: Lsn::FIRST, generation: 0, ulid: Ulid::from_bytes([9; 16]) };
    let mut account = Account::new(&VolumeName::parse("team/app.db").unwrap(), id);
    let frames = (0..).take_while(|n| account.push(&frame(rows, n * PAGES_A_FRAME + 1))).count();
    (account, frames as u32)
}

fn segments(criterion: &mut Criterion) {
    let pages = PageSet::first(PageCount::new(PAGES_A_FRAME));
    let data: Vec<u8> = pages.iter().flat_map(|page| leaf_page(page.get())).collect();
    let rows = encode_frame(&pages, PageSize::DEFAULT, &data).unwrap();
    let (account, frames) = full(&rows);
    let (end, segment) = account.clone().finish();
    assert!((MAX_SEGMENT_BYTES - 200_000..=MAX_SEGMENT_BYTES).contains(&segment.len_bytes));
    let table = SegmentTable::decode(&end, segment.len_bytes).unwrap();
    let firsts = (0..frames).map(|n| n * PAGES_A_FRAME + 1);
    assert!(table.frames.iter().map(|(first, ..)| first.get()).eq(firsts));

    let mut group = criterion.benchmark_group("segment of 64 MiB");
    group.throughput(Throughput::Bytes(segment.len_bytes));
    group.bench_function("account, hash included", |bencher| bencher.iter(|| full(black_box(&rows))));
    group.throughput(Throughput::Elements(frames.into()));
    group.bench_function("encode footer", |bencher| {
        bencher.iter_batched(|| account.clone(), Account::finish, BatchSize::SmallInput);
    });
    group.bench_function("decode footer", |bencher| {
        bencher.iter(|| SegmentTable::decode(black_box(&end), segment.len_bytes));
    });
    group.finish();
}
