//! What a volume of many one-row pushes takes in the store: before it is cared for, after, and against a fresh import.
//! `QUIRE_PUSHES=10000` makes so many, `QUIRE_PAGES=27000` on so many pages.
#![allow(clippy::unwrap_used)] // a failed expectation is what a test is for

#[path = "common/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use quire_bucket::{Bucket, keys};
use quire_engine::Volume;
use quire_maintenance::compact::{self, compact};
use quire_proto::Span;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use store::*;

const PAGE_BYTES: usize = 4096;
const ROW_BYTES: usize = 100;
/// What stays of a commit: its header, in a stub, and in a roll-up.
const LEFT_OF_A_COMMIT: u64 = 400;

/// A leaf of a table whose rows are words and numbers.
fn leaf(n: u32) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    for (row, bytes) in page.chunks_exact_mut(ROW_BYTES).enumerate() {
        fill(bytes, u64::from(n) << 8 | row as u64);
    }
    page
}

fn fill(row: &mut [u8], key: u64) {
    let words = ["amber", "basalt", "cedar", "dune", "ember", "fjord", "grove", "heath"];
    let hash = blake3::hash(&key.to_le_bytes());
    let text: String = hash.as_bytes()[..16].iter().map(|b| format!("{} {b} ", words[usize::from(*b) % 8])).collect();
    let len = row.len();
    row.copy_from_slice(&text.as_bytes()[..len]);
}

fn push_pages<'a>(volume: &Volume, pages: impl IntoIterator<Item = (u32, &'a [u8])>) {
    let mut writer = volume.writer(&volume.snapshot(), "a test").unwrap();
    writer.set_page_size(quire_engine::PageSize::try_new(PAGE_BYTES as u32).unwrap()).unwrap();
    for (n, bytes) in pages {
        writer.write(page(n), bytes).unwrap();
    }
    writer.commit(false).unwrap();
    volume.push().unwrap();
}

/// Objects and bytes under a volume's name, and by kind.
fn taken(store: &Store, volume: &str) -> (u64, u64, BTreeMap<String, (u64, u64)>) {
    let listed = store.bucket.list(&keys::volume_prefix(&name(volume)));
    let metas: Vec<_> = store.runtime.block_on(listed.try_collect()).unwrap();
    let mut kinds = BTreeMap::new();
    for meta in &metas {
        let kind = meta.key.as_str().split("/!/").nth(1).unwrap().split('/').next().unwrap().to_owned();
        let (objects, bytes): &mut (u64, u64) = kinds.entry(kind).or_default();
        (*objects, *bytes) = (*objects + 1, *bytes + meta.len_bytes);
    }
    (metas.len() as u64, metas.iter().map(|meta| meta.len_bytes).sum(), kinds)
}

#[test]
fn after_many_one_row_pushes_a_volume_takes_what_a_fresh_import_takes() {
    let setting = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (pushes, pages) = (setting("QUIRE_PUSHES", 600), setting("QUIRE_PAGES", 4_000) as u32);
    let seed = quire_testkit::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let store = Store::on(Bucket::open("memory://").unwrap());
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    let mut model: Vec<Vec<u8>> = (1..=pages).map(leaf).collect();
    push_pages(&volume, (1..).zip(model.iter().map(Vec::as_slice)));
    let imported = taken(&store, "v");
    for n in 0..pushes {
        let at = rng.random_range(0..pages as usize);
        let row = rng.random_range(0..PAGE_BYTES / ROW_BYTES) * ROW_BYTES;
        fill(&mut model[at][row..row + ROW_BYTES], u64::MAX - n);
        push_pages(&volume, [(at as u32 + 1, model[at].as_slice())]);
    }
    let before = taken(&store, "v");
    store.keep("v", Span::Last(1), &[]);
    let reader = Arc::new(quire_history::Reader::new(store.stores.log.clone(), store.stores.pages.clone()));
    let compacted = compact(reader, store.stores.pages.clone(), name("v"), compact::Options::default());
    store.runtime.block_on(compacted).unwrap();
    // The second lets go what the first one still had to look at.
    store.collect_abandoned("v");
    store.collect_abandoned("v");
    let after = taken(&store, "v");
    push_pages(&client.volume(&name("fresh")).unwrap(), (1..).zip(model.iter().map(Vec::as_slice)));
    let fresh = taken(&store, "fresh");
    println!("{pushes} pushes of one row each onto {pages} pages of {PAGE_BYTES} bytes:");
    let told = [("first import", &imported), ("before", &before), ("after", &after), ("fresh import", &fresh)];
    for (what, (objects, bytes, kinds)) in told {
        println!("{what}: {objects} objects, {bytes} bytes: {kinds:?}");
    }
    let snapshot = store.client("b").existing(&name("v")).unwrap().snapshot();
    let mut data = vec![0; PAGE_BYTES];
    for (n, page_bytes) in (1..).zip(&model) {
        snapshot.read(page(n), &mut data).unwrap();
        assert!(data == *page_bytes, "page {n}");
    }
    let segments = after.2["iseg"].1 + after.2.get("seg").map_or(0, |(_, bytes)| *bytes);
    assert!(segments <= fresh.1 * 105 / 100, "its pages");
    assert!(after.1 <= fresh.1 * 105 / 100 + pushes * LEFT_OF_A_COMMIT, "in all");
    assert!(after.1 < before.1);
}
