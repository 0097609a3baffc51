//! Peak memory while a volume far larger than it is written, pushed, cloned
//! and hydrated: bounded, whatever the volume's size.
//!
//! What counts is what the kernel counts for a process, mapped files included,
//! but for readers: they read sealed files where the page cache has them, which
//! the kernel takes back when it likes, so only memory of their own counts.
//! `QUIRE_MEMORY_MIB=N` takes a volume of another size.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::Instant;

use common::child::{Child, Orders, tell};
use common::*;
use quire_bucket::Bucket;
use quire_engine::{PageSize, Volume};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const DEFAULT_MIB: u64 = 1024;
/// How much more than the program itself any step may take.
const BOUND_MIB: u64 = 128;
const PAGE_BYTES: usize = 4096;
const PAGES_PER_MIB: u64 = (1 << 20) / PAGE_BYTES as u64;

/// A page that compresses to half: random bytes, twice.
fn noise(n: u32, data: &mut [u8]) {
    let (first, second) = data.split_at_mut(PAGE_BYTES / 2);
    StdRng::seed_from_u64(n.into()).fill(first);
    second.copy_from_slice(first);
}

fn write_pages(volume: &Volume, pages: impl Iterator<Item = u64>) {
    let mut writer = volume.writer(&volume.snapshot(), "a child").unwrap();
    writer.set_page_size(PageSize::try_new(PAGE_BYTES as u32).unwrap()).unwrap();
    let mut data = vec![0; PAGE_BYTES];
    for n in pages {
        noise(n as u32, &mut data);
        writer.write(page(n as u32), &data).unwrap();
    }
    writer.commit(true).unwrap();
}

/// Every page, or each so many.
fn check_pages(volume: &Volume, last: u64, step: usize) {
    let (mut found, mut expected) = (vec![0; PAGE_BYTES], vec![0; PAGE_BYTES]);
    let snapshot = volume.snapshot();
    for n in (1..=last as u32).step_by(step) {
        snapshot.read(page(n), &mut found).unwrap();
        noise(n, &mut expected);
        assert!(found == expected, "page {n}");
    }
}

/// What the kernel says of this process.
#[derive(Clone, Copy)]
enum Figure {
    /// The highest resident size since it was [forgotten](forget_peak).
    Peak,
    /// What is resident and not a file's.
    Own,
}

impl Figure {
    fn kib(self) -> u64 {
        let key = match self {
            Figure::Peak => "VmHWM:",
            Figure::Own => "RssAnon:",
        };
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Does one step and tells how much more memory it took than the program had before.
fn measured<T>(figure: Figure, before_kib: u64, what: &str, step: impl FnOnce() -> T) -> T {
    forget_peak();
    let start = Instant::now();
    let done = step();
    let more = figure.kib().saturating_sub(before_kib);
    tell(&format!("{} {what} {:.1}", more / 1024, start.elapsed().as_secs_f64()));
    done
}

#[test]
fn peak_memory_does_not_grow_with_the_volume() {
    // On a disk: in a folder in memory the machine's memory would be the volume's size.
    let root = tempfile::tempdir().unwrap();
    let mib = setting("QUIRE_MEMORY_MIB", DEFAULT_MIB);
    let mut told = Vec::new();
    for role in ["source", "clone"] {
        let dir = root.path().join(role).display().to_string();
        let url = format!("file://{}/store", root.path().display());
        told.extend(Child::start(role, &[("DIR", dir), ("URL", url), ("MIB", mib.to_string())], &[]).finish());
    }
    for line in &told {
        let words: Vec<&str> = line.split(' ').collect();
        println!("{mib} MiB: {:8} {:>4} MiB over the program's own, {} s", words[1], words[0], words[2]);
    }
    assert_eq!(told.len(), 6, "{told:?}");
    for line in told {
        let more: u64 = line.split(' ').next().unwrap().parse().unwrap();
        assert!(more <= BOUND_MIB, "{line}: MiB over the program's own, what, seconds");
    }
}

/// Writes half of the volume in one transaction and half in many; pushes; reads all.
fn source(dir: &Path, bucket: &Bucket, mib: u64) {
    let (peak, own) = (Figure::Peak.kib(), Figure::Own.kib());
    let engine = open(dir, bucket);
    let volume = engine.volume(&name("v")).unwrap();
    let last = mib * PAGES_PER_MIB;
    measured(Figure::Peak, peak, "write", || {
        write_pages(&volume, 1..=last / 2);
        for first in (last / 2 + 1..=last).step_by(16 * PAGES_PER_MIB as usize) {
            write_pages(&volume, first..=(first + 16 * PAGES_PER_MIB - 1).min(last));
        }
    });
    measured(Figure::Peak, peak, "push", || volume.push().unwrap());
    measured(Figure::Own, own, "read", || check_pages(&volume, last, 16));
}

/// Clones; reads here and there; fetches the rest; reads all.
fn clone(dir: &Path, bucket: &Bucket, mib: u64) {
    let (peak, own) = (Figure::Peak.kib(), Figure::Own.kib());
    let engine = open(dir, bucket);
    let last = mib * PAGES_PER_MIB;
    let volume = measured(Figure::Peak, peak, "clone", || {
        let volume = engine.existing(&name("v")).unwrap();
        check_pages(&volume, last, 5003);
        volume
    });
    measured(Figure::Peak, peak, "hydrate", || hydrate_what_fits(&volume));
    measured(Figure::Own, own, "read", || check_pages(&volume, last, 16));
}

#[test]
#[ignore = "the other tests run it, in processes of their own"]
fn child() {
    let Some(orders) = Orders::of_this_process() else { return };
    let bucket = Bucket::open(&orders.text("URL")).unwrap();
    let dir = orders.text("DIR");
    match orders.role.as_str() {
        "source" => source(dir.as_ref(), &bucket, orders.number("MIB")),
        "clone" => clone(dir.as_ref(), &bucket, orders.number("MIB")),
        role => panic!("no role {role}"),
    }
}
