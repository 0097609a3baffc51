//! Compaction of SQLite databases: their pages lie together by B-tree, and a volume of many small commits takes about
//! as much as a fresh import of it.
#![allow(clippy::unwrap_used)] // a failed expectation is what a test is for

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{World, name, options};
use quire_bucket::Bucket;
use quire_engine::Engine;
use quire_maintenance::compact::{Compacted, Options, compact};
use quire_proto::{PageIdx, PageSize};
use rusqlite::Connection;

const PAGE: usize = 4096;
const ROWS: i64 = 40_000;
const COMMITS: i64 = 200;
const UPDATES_A_COMMIT: i64 = 50;

fn compacted(bucket: &Bucket, volume: &str) -> Compacted {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(dir.path(), bucket)).unwrap();
    let pages = Arc::new(quire_pagestore::Embedded::new(bucket.clone()));
    engine.maintain(&name(volume), |reader, volume| compact(reader, pages, volume, Options::default())).unwrap()
}

/// A database with two tables whose rows came by turns, and an index.
fn database(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = {PAGE}; PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;
             CREATE TABLE a(id INTEGER PRIMARY KEY, text TEXT); CREATE TABLE b(id INTEGER PRIMARY KEY, text TEXT);
             CREATE INDEX by_text ON a(text);
             CREATE TRIGGER turns AFTER INSERT ON a BEGIN INSERT INTO b VALUES (new.id, new.text || new.text); END;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             INSERT INTO a SELECT i, printf('row %08x, %08x', i * 2654435761 % 4294967296, i * 40503) FROM n;"
        ))
        .unwrap();
    connection
}

/// Brings those pages of a file into the volume that are not as they were.
fn push_changes(world: &World, volume: &str, path: &Path, before: &mut Vec<u8>) {
    let now = std::fs::read(path).unwrap();
    let volume = world.volume(volume);
    let mut writer = volume.writer(&volume.snapshot(), "a test").unwrap();
    writer.set_page_size(PageSize::try_new(PAGE as u32).unwrap()).unwrap();
    for (n, page) in (1..).zip(now.chunks_exact(PAGE)) {
        if before.get((n as usize - 1) * PAGE..n as usize * PAGE) != Some(page) {
            writer.write(PageIdx::new(n).unwrap(), page).unwrap();
        }
    }
    writer.commit(false).unwrap();
    volume.push().unwrap();
    *before = now;
}

/// What the head of a volume is, for whoever knows nothing of it; and the requests that this took.
fn read_all(bucket: &Bucket, volume: &str) -> (Vec<u8>, u64) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(options(dir.path(), bucket)).unwrap();
    let before = bucket.counters().requests();
    let volume = engine.existing(&name(volume)).unwrap();
    volume.hydrate(&mut |_, _| ()).unwrap();
    let snapshot = volume.snapshot();
    let mut bytes = vec![0; snapshot.page_count().get() as usize * PAGE];
    for (n, page) in (1..).zip(bytes.chunks_exact_mut(PAGE)) {
        snapshot.read(PageIdx::new(n).unwrap(), page).unwrap();
    }
    (bytes, bucket.counters().requests() - before)
}

#[test]
fn after_ten_thousand_scattered_updates_a_volume_takes_what_a_fresh_import_takes() {
    let world = World::of(Bucket::open("memory://").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let connection = database(&path);
    let mut file = Vec::new();
    push_changes(&world, "app", &path, &mut file);
    for commit in 0..COMMITS {
        connection.execute_batch("BEGIN").unwrap();
        for n in 0..UPDATES_A_COMMIT {
            let id = (commit * UPDATES_A_COMMIT + n) * 7919 % ROWS + 1;
            connection.execute("UPDATE b SET text = upper(text) WHERE id = ?", [id]).unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        push_changes(&world, "app", &path, &mut file);
    }
    world.volume("app").checkpoint().unwrap();
    let (scattered, requests_before) = read_all(&world.bucket, "app");
    assert!(scattered == file);
    let done = compacted(&world.bucket, "app");
    let (together, requests_after) = read_all(&world.bucket, "app");
    assert!(together == file, "the same pages");
    assert_eq!(compacted(&world.bucket, "app").steps, 0, "nothing is left to do");

    push_changes(&world, "fresh", &path, &mut Vec::new());
    world.volume("fresh").checkpoint().unwrap();
    let (_, requests_fresh) = read_all(&world.bucket, "fresh");
    let fresh = bytes_of(&world, "fresh");
    println!(
        "{} pages: {} objects, {} bytes, {requests_before} requests before; {} objects, {} bytes, {requests_after} \
         requests after; a fresh import {} bytes, {requests_fresh} requests",
        file.len() / PAGE,
        done.before.objects,
        done.before.bytes,
        done.after.objects,
        done.after.bytes,
        fresh
    );
    assert!(done.after.bytes * 10 <= fresh * 12, "{done:?}, fresh {fresh}");
    assert!(requests_after <= requests_fresh + 8 && requests_after * 4 < requests_before);
}

/// The bytes of a fresh import, before anything of it is rewritten.
fn bytes_of(world: &World, volume: &str) -> u64 {
    compacted(&world.bucket, volume).before.bytes
}

#[test]
fn a_damaged_b_tree_costs_its_order_and_nothing_else() {
    let world = World::of(Bucket::open("memory://").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    drop(database(&path));
    let sound = std::fs::read(&path).unwrap();
    let mut hash = blake3::Hasher::new().finalize_xof();
    // The header's page count and freelist, the schema, and interior pages wherever they are.
    for (volume, places) in [("header", 16..100), ("schema", 100..4000), ("pages", 5000..400_000)] {
        let mut damaged = sound.clone();
        let step = if places.len() > 10_000 { 97 } else { 1 };
        for at in places.skip(if volume == "header" { 16 } else { 0 }).step_by(step) {
            hash.fill(&mut damaged[at..=at]);
        }
        std::fs::write(&path, &damaged).unwrap();
        push_changes(&world, volume, &path, &mut Vec::new());
        for at in (0..damaged.len()).step_by(PAGE * 5) {
            damaged[at + 4000] ^= 1;
        }
        let mut before = std::fs::read(&path).unwrap();
        std::fs::write(&path, &damaged).unwrap();
        push_changes(&world, volume, &path, &mut before);
        assert!(compacted(&world.bucket, volume).steps > 0);
        assert!(read_all(&world.bucket, volume).0 == damaged, "{volume}");
        assert_eq!(compacted(&world.bucket, volume).steps, 0, "{volume}");
    }
}
