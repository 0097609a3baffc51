//! What local commits and reads cost, without SQLite and without a store: `cargo bench -p quire-engine --bench replica`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has failed")]

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use quire_engine::{Engine, Error, LEASE_AFTER, Options, PageIdx, PageSize, Snapshot, SyncMode, Volume, VolumeName};
use quire_testkit::measure;
use quire_testkit::rows::{PAGE_BYTES, leaf_page, scattered};
use tempfile::TempDir;

/// The pages of a volume of 105 MiB: three full files of its log and some.
const PAGES: u32 = 27_000;
/// Those that surely lie in full files.
const SEALED_PAGES: u32 = 20_000;
/// Their records have more than the 4 MiB that a transaction may keep in memory.
const SPILLED_PAGES: u32 = 1024;

fn main() {
    measure(50, |criterion| {
        reads(criterion);
        commits(criterion);
    });
}

/// A volume in a folder of its own, which goes with it.
struct Replica {
    volume: Volume,
    _engine: Engine,
    _folder: TempDir,
}

impl Replica {
    /// With full pages.
    fn new(pages: u32) -> Replica {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(Options {
            data_dir: folder.path().to_owned(),
            store_url: "none".into(),
            connect: Box::new(|| Box::pin(async { Err(Error::unavailable("no store in this benchmark")) })),
            sync: SyncMode::Manual,
            cache_size: 1 << 30,
            lease_after: LEASE_AFTER,
            author: "benches".into(),
        })
        .unwrap();
        let volume = engine.volume(&VolumeName::parse("a").unwrap()).unwrap();
        let replica = Replica { volume, _engine: engine, _folder: folder };
        replica.commit((1..=pages).map(|n| (page(n), leaf_page(n))));
        replica
    }

    fn commit(&self, pages: impl IntoIterator<Item = (PageIdx, [u8; PAGE_BYTES])>) -> Snapshot {
        let mut writer = self.volume.writer(&self.volume.snapshot(), "benches").unwrap();
        writer.set_page_size(PageSize::DEFAULT).unwrap();
        pages.into_iter().for_each(|(page, data)| writer.write(page, &data).unwrap());
        writer.commit(false).unwrap()
    }
}

fn page(n: u32) -> PageIdx {
    PageIdx::new(n).unwrap()
}

/// Pages in no order, from page 1 to the last.
fn some(last: u32) -> Vec<PageIdx> {
    (0..1000).map(|i| page(scattered(i, last.into()) as u32)).collect()
}

fn read(snapshot: &Snapshot, page: PageIdx) -> [u8; PAGE_BYTES] {
    let mut data = [0xEE; PAGE_BYTES];
    snapshot.read(page, &mut data).unwrap();
    data
}

fn reads(criterion: &mut Criterion) {
    let replica = Replica::new(PAGES);
    // The newest file still grows.
    let newest: Vec<PageIdx> = (SEALED_PAGES + 1..=SEALED_PAGES + 64).map(page).collect();
    let snapshot = replica.commit(newest.iter().map(|page| (*page, leaf_page(page.get() + PAGES))));
    let mut group = criterion.benchmark_group("warm read");
    group.throughput(Throughput::Bytes(PAGE_BYTES as u64));
    for (what, pages, newer) in [("of a full file", some(SEALED_PAGES), 0), ("of the file that grows", newest, PAGES)] {
        assert!(pages.iter().all(|page| read(&snapshot, *page) == leaf_page(page.get() + newer)));
        let mut next = pages.iter().cycle();
        let mut data = [0; PAGE_BYTES];
        group.bench_function(what, |bencher| {
            bencher.iter(|| snapshot.read(black_box(*next.next().unwrap()), &mut data));
        });
    }
    group.finish();
}

/// Commits that are not synced, to a volume so small that compacting its log, which goes on meanwhile, moves little.
fn commits(criterion: &mut Criterion) {
    let replica = Replica::new(SPILLED_PAGES);
    let content = leaf_page(0);
    let wanted = some(SPILLED_PAGES);
    let mut group = criterion.benchmark_group("commit");

    let snapshot = replica.commit([(wanted[0], content)]);
    assert_eq!((read(&snapshot, wanted[0]), read(&snapshot, wanted[1])), (content, leaf_page(wanted[1].get())));
    let mut next = wanted.iter().cycle();
    group.throughput(Throughput::Bytes(PAGE_BYTES as u64));
    group.bench_function("of one page", |bencher| {
        bencher.iter(|| replica.commit([(*next.next().unwrap(), content)]));
    });

    let all = |content| (1..=SPILLED_PAGES).map(move |n| (page(n), content));
    let before = replica.commit(all(leaf_page(1)));
    let after = replica.commit(all(content));
    assert!(all(content).all(|(page, content)| read(&after, page) == content));
    assert!(all(content).all(|(page, _)| read(&before, page) == leaf_page(1)));
    drop((snapshot, before, after));
    group.sample_size(20).throughput(Throughput::Bytes(u64::from(SPILLED_PAGES) * PAGE_BYTES as u64));
    group.bench_function("of 4 MiB, spilled", |bencher| bencher.iter(|| replica.commit(all(content))));
    group.finish();
}
