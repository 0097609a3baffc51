//! What the page table costs: `cargo bench -p quire-engine --bench table`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has failed")]

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Throughput};
use quire_engine::bench::PageTable;
use quire_engine::{PageCount, PageIdx};
use quire_testkit::measure;
use quire_testkit::rows::scattered;

/// The pages of volumes of 105 MiB and of 10 GiB.
const SIZES: [u32; 2] = [27_000, 2_500_000];
/// So many are looked up or set in a row.
const LOOK_UPS: u32 = 1000;

fn main() {
    measure(50, |criterion| {
        for pages in SIZES {
            let mut group = criterion.benchmark_group(format!("table of {pages} pages"));
            one_by_one(&mut group, pages);
            commits(&mut group, pages);
            unions(&mut group, pages);
            group.finish();
        }
    });
}

/// The table of a snapshot that has all of its pages here.
fn full(pages: u32) -> PageTable {
    PageTable::of((1..=pages).filter_map(PageIdx::new), PageCount::new(pages))
}

/// Pages in no order.
fn some(n: u32, pages: u32) -> Vec<PageIdx> {
    (0..n).map(|i| PageIdx::new(scattered(i.into(), pages.into()) as u32).unwrap()).collect()
}

fn one_by_one(group: &mut BenchmarkGroup<'_, WallTime>, pages: u32) {
    let mut table = full(pages);
    let wanted = some(LOOK_UPS, pages);
    let sum = |table: &PageTable| wanted.iter().filter_map(|page| table.get(*page)).map(u64::from).sum::<u64>();
    assert_eq!(sum(&table), wanted.iter().map(|page| u64::from(page.get())).sum::<u64>());
    group.throughput(Throughput::Elements(LOOK_UPS.into()));
    group.bench_function("get", |bencher| bencher.iter(|| sum(black_box(&table))));
    let set = |table: &mut PageTable| wanted.iter().for_each(|page| table.set(*page, black_box(7)));
    set(&mut table);
    assert_eq!(sum(&table), 7 * u64::from(LOOK_UPS));
    group.bench_function("set", |bencher| bencher.iter(|| set(&mut table)));
}

/// Commits of one page, one after the other; the snapshot before each goes once the next one is there.
fn commits(group: &mut BenchmarkGroup<'_, WallTime>, pages: u32) {
    let count = PageCount::new(pages);
    let mut table = full(pages);
    let wanted = some(LOOK_UPS, pages);
    let after = table.committed(wanted[0], 7, count);
    let at = |table: &PageTable| (table.get(wanted[0]), table.get(wanted[1]));
    assert_eq!(at(&after), (Some(7), Some(wanted[1].get())));
    assert_eq!(at(&table), (Some(wanted[0].get()), Some(wanted[1].get())));
    let mut next = wanted.iter().cycle();
    group.throughput(Throughput::Elements(1));
    group.bench_function("commit of one page", |bencher| {
        bencher.iter(|| table = table.committed(*next.next().unwrap(), 7, count));
    });
}

/// What a commit does with the pages of a transaction that was too large for memory.
fn unions(group: &mut BenchmarkGroup<'_, WallTime>, pages: u32) {
    let before = full(pages);
    for (what, wanted) in [
        ("27,000 neighbouring pages", (1..=27_000).filter_map(PageIdx::new).collect()),
        ("1,000 scattered pages", some(1000, pages)),
    ] {
        let mut spilled = PageTable::of(wanted.iter().copied(), PageCount::new(pages));
        wanted.iter().for_each(|page| spilled.set(*page, 7));
        let mut after = before.clone();
        after.take_in(&spilled);
        assert!(wanted.iter().all(|page| (after.get(*page), before.get(*page)) == (Some(7), Some(page.get()))));
        group.throughput(Throughput::Elements(wanted.len() as u64));
        group.bench_function(BenchmarkId::new("union with", what), |bencher| {
            let shared = || before.clone();
            bencher.iter_batched_ref(shared, |table| table.take_in(black_box(&spilled)), BatchSize::SmallInput);
        });
    }
}
