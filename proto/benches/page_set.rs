//! What sets of pages cost: `cargo bench -p quire-proto --bench page_set`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has failed")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use quire_proto::{PageIdx, PageSet, Reader, Writer};
use quire_testkit::measure;
use quire_testkit::rows::scattered;

/// The pages of a volume of 10 GiB.
const VOLUME_PAGES: i64 = 2_500_000;

fn main() {
    measure(50, |criterion| {
        members(criterion);
        unions(criterion);
        ranges(criterion);
        codecs(criterion);
    });
}

/// Pages of a volume in no order, others for each `seed`; a few of many come twice.
fn pages(seed: i64, n: i64) -> Vec<PageIdx> {
    (0..n).map(|i| PageIdx::new(scattered(seed << 32 | i, VOLUME_PAGES) as u32).unwrap()).collect()
}

/// That many ranges of ten pages with a gap after each.
fn ranges_of_ten(n: u32) -> PageSet {
    let mut set = PageSet::new();
    (0..n).for_each(|i| set.insert_range(i * 1000 + 1, i * 1000 + 10));
    set
}

fn members(criterion: &mut Criterion) {
    let pages = pages(1, 27_000);
    let insert = |pages: &[PageIdx]| {
        let mut set = PageSet::new();
        pages.iter().for_each(|page| _ = set.insert(*page));
        set
    };
    let set = insert(&pages);
    assert!(set == pages.iter().copied().collect() && set.len() > 26_000);
    let others = self::pages(2, 27_000);
    let found = |pages: &[PageIdx]| pages.iter().filter(|page| set.contains(**page)).count();
    assert_eq!(found(&pages), pages.len());
    assert!((1..1000).contains(&found(&others)), "about one of a hundred");
    let mut group = criterion.benchmark_group("set of 27,000 scattered pages");
    group.throughput(Throughput::Elements(pages.len() as u64));
    group.bench_function("insert each", |bencher| bencher.iter(|| insert(black_box(&pages))));
    group.bench_function("contains, pages of it", |bencher| bencher.iter(|| found(black_box(&pages))));
    group.bench_function("contains, other pages", |bencher| bencher.iter(|| found(black_box(&others))));
    group.finish();
}

/// What each commit does to the set of all that is unpushed.
fn unions(criterion: &mut Criterion) {
    let many: PageSet = pages(3, 250_000).into_iter().collect();
    let mut group = criterion.benchmark_group("union of 250,000 scattered pages");
    for n in [1, 32, 1000] {
        let few: PageSet = pages(4, n).into_iter().collect();
        let mut both = many.clone();
        both.union_with(&few);
        assert!(both.contains_all(&many) && both.contains_all(&few) && both.len() <= many.len() + few.len());
        group.throughput(Throughput::Elements(few.len()));
        group.bench_function(BenchmarkId::new("with", n), |bencher| {
            bencher.iter_batched_ref(|| many.clone(), |set| set.union_with(black_box(&few)), BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn ranges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ranges");
    for (what, set) in [
        ("27,000 scattered pages", pages(1, 27_000).into_iter().collect::<PageSet>()),
        ("2,000 ranges of ten pages", ranges_of_ten(2000)),
    ] {
        let sum = |set: &PageSet| set.ranges().map(|(first, last)| u64::from(last - first) + 1).sum::<u64>();
        assert_eq!(sum(&set), set.len());
        group.throughput(Throughput::Elements(set.ranges().count() as u64));
        group.bench_function(what, |bencher| bencher.iter(|| sum(black_box(&set))));
    }
    group.finish();
}

fn codecs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("page set");
    for (what, set) in [
        ("200 ranges of ten pages", ranges_of_ten(200)),
        ("27,000 scattered pages", pages(1, 27_000).into_iter().collect()),
    ] {
        let encode = |set: &PageSet| {
            let mut w = Writer::new();
            set.encode(&mut w);
            w.into_vec()
        };
        let bytes = encode(&set);
        assert_eq!(PageSet::decode(&mut Reader::new("set", &bytes)).unwrap(), set);
        group.throughput(Throughput::Elements(set.len()));
        group.bench_function(BenchmarkId::new("encode", what), |bencher| bencher.iter(|| encode(black_box(&set))));
        group.bench_function(BenchmarkId::new("decode", what), |bencher| {
            bencher.iter(|| PageSet::decode(&mut Reader::new("set", black_box(&bytes))));
        });
    }
    group.finish();
}
