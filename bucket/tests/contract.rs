//! One contract, kept by every kind of store: memory, a folder, a real S3 server.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use quire_bucket::{Bucket, Created, Key, PART_BYTES, keys};
use quire_proto::{ErrorKind, Lsn, VolumeName};
use quire_testkit::{S3Server, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Declares each test once for every kind of store.
macro_rules! contract {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Bucket::open("memory://").unwrap()).await;
            })*
        }
        mod folder {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("file://{}/new/st%20ore", folder.path().display());
                super::$name(super::Bucket::open(&url).unwrap()).await;
            })*
        }
        mod s3 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::s3(stringify!($name))).await;
            })*
        }
    };
}

contract! {
    an_object_comes_back
    a_second_create_loses_and_changes_nothing
    what_is_not_there_is_not_found
    deleting_twice_succeeds
    ranges_come_back_in_the_order_asked
    a_range_past_the_end_is_corrupt
    the_start_of_a_short_object_is_all_of_it
    listings_are_sorted_and_complete
    listings_go_on_past_a_page
    the_newest_commits_come_first
    names_are_listed_without_what_is_inside
    large_uploads_come_back
    small_uploads_are_one_put
    a_dropped_upload_leaves_nothing
    one_of_two_racing_creates_wins
}

fn s3(prefix: &str) -> Bucket {
    let server = S3Server::shared();
    let options = quire_bucket::Options { variables: Some(server.variables()), ..Default::default() };
    Bucket::open_with(&server.url(prefix), options).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn volume(name: &str) -> VolumeName {
    VolumeName::parse(name).unwrap()
}

fn random_bytes(rng: &mut StdRng, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes[..]);
    bytes.into()
}

async fn list(bucket: &Bucket, prefix: &str) -> Vec<String> {
    let metas: Vec<_> = bucket.list(&key(prefix)).try_collect().await.unwrap();
    metas.iter().map(|meta| meta.key.to_string()).collect()
}

async fn an_object_comes_back(bucket: Bucket) {
    let (key, bytes) = (keys::commit(&volume("team/caf\u{e9} +x"), Lsn::FIRST), Bytes::from_static(b"commit 1"));
    assert_eq!(bucket.create(&key, bytes.clone()).await.unwrap(), Created::Won);
    let object = bucket.get(&key).await.unwrap();
    assert_eq!((&object.bytes, object.len_bytes), (&bytes, 8));
    let meta = bucket.head(&key).await.unwrap();
    assert_eq!((meta.len_bytes, meta.last_modified_ms / 1000), (8, object.last_modified_ms / 1000));
    assert!(object.last_modified_ms > 1_700_000_000_000, "{} is no time of today", object.last_modified_ms);
    assert_eq!(meta.etag, object.etag);
    let listed = bucket.list_first(&keys::commits_prefix(&volume("team/caf\u{e9} +x")), 1).await.unwrap();
    assert_eq!(bucket.read_time_ms(listed[0].last_modified_ms), object.last_modified_ms);
    let counters = bucket.counters();
    assert_eq!(counters.retries, 0);
    assert!(counters.bytes_in >= 8 && counters.bytes_out >= 8 && counters.requests() >= 3, "{counters:?}");
}

async fn a_second_create_loses_and_changes_nothing(bucket: Bucket) {
    let key = key("v/a/!/c/1");
    assert_eq!(bucket.create(&key, Bytes::from_static(b"first")).await.unwrap(), Created::Won);
    assert_eq!(bucket.create(&key, Bytes::from_static(b"other")).await.unwrap(), Created::Lost);
    assert_eq!(bucket.get(&key).await.unwrap().bytes, "first");
    assert_eq!(bucket.create(&key, Bytes::from_static(b"first")).await.unwrap(), Created::Won, "a retry is safe");
    assert!(bucket.is_proven());
}

async fn what_is_not_there_is_not_found(bucket: Bucket) {
    bucket.create(&key("v/a/!/c/1"), Bytes::from_static(b"x")).await.unwrap();
    let missing = key("v/a/!/c/2");
    assert_eq!(bucket.get(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bucket.head(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
    let range = bucket.get_ranges(&missing, &[0..1, 5..6]).await.unwrap_err();
    assert_eq!(range.kind(), ErrorKind::NotFound);
    assert!(range.to_string().contains("v/a/!/c/2"), "{range}");
    assert!(list(&bucket, "v/b").await.is_empty());
    assert!(bucket.list_first(&key("v/b"), 3).await.unwrap().is_empty());
    assert_eq!(bucket.counters().retries, 0, "an absent object is an answer, not a failure");
}

async fn deleting_twice_succeeds(bucket: Bucket) {
    let key = key("v/a/!/seg/1");
    bucket.create(&key, Bytes::from_static(b"x")).await.unwrap();
    bucket.delete(&key).await.unwrap();
    assert_eq!(bucket.get(&key).await.unwrap_err().kind(), ErrorKind::NotFound);
    bucket.delete(&key).await.unwrap();
}

async fn ranges_come_back_in_the_order_asked(bucket: Bucket) {
    let rng = &mut StdRng::seed_from_u64(seed());
    let bytes = random_bytes(rng, 3_000_000);
    let key = key("v/a/!/seg/1");
    bucket.create(&key, bytes.clone()).await.unwrap();
    for _ in 0..5 {
        let mut ranges = Vec::new();
        for _ in 0..rng.random_range(0..20) {
            let start = rng.random_range(0..bytes.len() as u64);
            ranges.push(start..rng.random_range(start + 1..=(start + 100_000).min(bytes.len() as u64)));
        }
        let got = bucket.get_ranges(&key, &ranges).await.unwrap();
        assert_eq!(got.len(), ranges.len());
        for (got, range) in got.iter().zip(&ranges) {
            assert!(*got == bytes[range.start as usize..range.end as usize], "{range:?} is wrong");
        }
    }
    let before = bucket.counters().get;
    bucket.get_ranges(&key, &[5000..6000, 0..100, 100..200]).await.unwrap();
    assert_eq!(bucket.counters().get - before, 1, "neighbours are one request");
}

async fn a_range_past_the_end_is_corrupt(bucket: Bucket) {
    let key = key("v/a/!/seg/1");
    bucket.create(&key, Bytes::from_static(b"0123456789")).await.unwrap();
    for range in [5..11, 10..12, 100..200] {
        let e = bucket.get_ranges(&key, std::slice::from_ref(&range)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{range:?}: {e}");
        assert!(e.to_string().contains("v/a/!/seg/1") && e.remedy().is_some(), "{e:?}");
    }
    assert_eq!(bucket.get_ranges(&key, &[0..1, 3..3]).await.unwrap_err().kind(), ErrorKind::Invalid);
}

async fn the_start_of_a_short_object_is_all_of_it(bucket: Bucket) {
    let key = key("v/a/!/c/1");
    bucket.create(&key, Bytes::from_static(b"0123456789")).await.unwrap();
    let start = bucket.get_start(&key, 4).await.unwrap();
    assert_eq!((start.bytes, start.len_bytes), (Bytes::from_static(b"0123"), 10));
    assert_eq!(bucket.get_start(&key, 4096).await.unwrap().bytes, "0123456789");
}

async fn listings_are_sorted_and_complete(bucket: Bucket) {
    let rng = &mut StdRng::seed_from_u64(seed());
    let mut expected = BTreeSet::new();
    while expected.len() < 60 {
        // Names around '/' in the order of bytes, and folders at many depths.
        let part = |rng: &mut StdRng| ["a", "a-", "a.b", "a0", "!", "%41"][rng.random_range(0..6)].to_owned();
        let parts: Vec<_> = (0..rng.random_range(1..4)).map(|_| part(rng)).collect();
        expected.insert(format!("v/{}/{:02}", parts.join("/"), rng.random_range(0..20)));
    }
    for text in &expected {
        bucket.create(&key(text), Bytes::from_static(b"x")).await.unwrap();
    }
    let expected: Vec<String> = expected.into_iter().collect();
    let listed = list(&bucket, "v").await;
    let by_parts = |a: &String, b: &String| a.split('/').le(b.split('/'));
    assert!(listed.is_sorted() || listed.is_sorted_by(by_parts), "no order: {listed:?}");
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    assert_eq!(sorted(listed.clone()), expected);
    let below: Vec<_> = expected.iter().filter(|key| key.starts_with("v/a/")).cloned().collect();
    assert_eq!(sorted(list(&bucket, "v/a").await), below, "v/a- is not below v/a");
    for n in [1, 7, 60, 100] {
        let first = bucket.list_first(&key("v"), n).await.unwrap();
        let first: Vec<_> = first.iter().map(|meta| meta.key.to_string()).collect();
        assert_eq!(first, listed[..n.min(60)]);
    }
}

async fn listings_go_on_past_a_page(bucket: Bucket) {
    let keys: Vec<_> = (1..=2300).map(|n| keys::commit(&volume("a"), Lsn::new(n).unwrap())).collect();
    let creates = keys.iter().map(|key| bucket.create(key, Bytes::from_static(b"x")));
    futures::stream::iter(creates).buffer_unordered(16).try_collect::<Vec<_>>().await.unwrap();
    let listed: Vec<_> = bucket.list(&keys::commits_prefix(&volume("a"))).try_collect().await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|meta| meta.key).collect();
    assert!(listed.iter().eq(keys.iter().rev()), "{} of 2300 keys, or out of order", listed.len());
    let first = bucket.list_first(&key("v"), 2100).await.unwrap();
    assert!(first.iter().map(|meta| &meta.key).eq(keys.iter().rev().take(2100)));
}

async fn the_newest_commits_come_first(bucket: Bucket) {
    let name = volume("app");
    for n in [1, 2, 15, 16, 4095, 4096, 5000] {
        bucket.create(&keys::commit(&name, Lsn::new(n).unwrap()), Bytes::from(n.to_string())).await.unwrap();
    }
    bucket.create(&keys::commit(&volume("app/db"), Lsn::FIRST), Bytes::from_static(b"other")).await.unwrap();
    bucket.create(&keys::rollup(&name, Lsn::new(64).unwrap()), Bytes::from_static(b"roll-up")).await.unwrap();
    let before = bucket.counters();
    let newest = bucket.list_first(&keys::commits_prefix(&name), 3).await.unwrap();
    let newest: Vec<_> = newest.iter().map(|meta| keys::lsn_of_commit(&meta.key).unwrap().get()).collect();
    assert_eq!(newest, [5000, 4096, 4095]);
    assert_eq!(bucket.counters().requests() - before.requests(), 1);
}

async fn names_are_listed_without_what_is_inside(bucket: Bucket) {
    for text in ["v/app/!/c/1", "v/app/!/c/2", "v/app-x/!/c/1", "v/app/db/!/c/1", "v/note"] {
        bucket.create(&key(text), Bytes::from_static(b"x")).await.unwrap();
    }
    let names = bucket.list_names(&key("v")).await.unwrap();
    assert_eq!(names.folders.iter().map(Key::as_str).collect::<BTreeSet<_>>(), ["v/app", "v/app-x"].into());
    assert_eq!(names.objects.iter().map(|meta| meta.key.as_str()).collect::<Vec<_>>(), ["v/note"]);
    let names = bucket.list_names(&key("v/app")).await.unwrap();
    assert_eq!(names.folders.iter().map(Key::as_str).collect::<BTreeSet<_>>(), ["v/app/!", "v/app/db"].into());
}

async fn large_uploads_come_back(bucket: Bucket) {
    let rng = &mut StdRng::seed_from_u64(seed());
    for len in [PART_BYTES + 1, 3 * PART_BYTES, 5 * PART_BYTES + 77] {
        let bytes = random_bytes(rng, len);
        let key = key(&format!("v/a/!/seg/{len}"));
        let mut upload = bucket.upload(&key).await.unwrap();
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let n = rng.random_range(1..=rest.len().min(2 * PART_BYTES + 5));
            upload.write(rest.split_to(n)).await.unwrap();
        }
        assert_eq!(upload.finish().await.unwrap(), len as u64);
        assert!(bucket.get(&key).await.unwrap().bytes == bytes, "{len} bytes came back different");
    }
}

async fn small_uploads_are_one_put(bucket: Bucket) {
    bucket.create(&key("v/a/!/seg/0"), Bytes::from_static(b"warm")).await.unwrap();
    let before = bucket.counters();
    let key = key("v/a/!/seg/1");
    let mut upload = bucket.upload(&key).await.unwrap();
    upload.write(Bytes::from_static(b"01234")).await.unwrap();
    upload.write(Bytes::from_static(b"56789")).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), 10);
    let after = bucket.counters();
    assert_eq!((after.put - before.put, after.requests() - before.requests()), (1, 1));
    assert_eq!(bucket.get(&key).await.unwrap().bytes, "0123456789");
    let e = bucket.upload(&key).await.unwrap().finish().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
}

async fn a_dropped_upload_leaves_nothing(bucket: Bucket) {
    let key = key("v/a/!/seg/1");
    let mut upload = bucket.upload(&key).await.unwrap();
    upload.write(vec![7; 2 * PART_BYTES + 1].into()).await.unwrap();
    drop(upload);
    assert_eq!(bucket.get(&key).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(list(&bucket, "v").await.is_empty());
}

async fn one_of_two_racing_creates_wins(bucket: Bucket) {
    const KEYS: usize = 100;
    let race = |writer: u8| {
        let bucket = bucket.clone();
        tokio::spawn(async move {
            let mut won = Vec::new();
            for n in 0..KEYS {
                let bytes = Bytes::from(vec![writer; 100]);
                won.push(bucket.create(&key(&format!("v/a/!/c/{n:03}")), bytes).await.unwrap());
            }
            won
        })
    };
    let (a, b) = tokio::join!(race(1), race(2));
    for (n, outcomes) in a.unwrap().into_iter().zip(b.unwrap()).enumerate() {
        let winner = match outcomes {
            (Created::Won, Created::Lost) => 1,
            (Created::Lost, Created::Won) => 2,
            both => panic!("key {n}: {both:?}"),
        };
        assert_eq!(bucket.get(&key(&format!("v/a/!/c/{n:03}"))).await.unwrap().bytes, vec![winner; 100]);
    }
}
