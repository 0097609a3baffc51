//! What a network can do to a request, done to a real S3 server: replies lost
//! after the write, connections cut, errors, silence. No outcome may be wrong.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quire_bucket::{Bucket, Created, Key, Limits, Options, PART_BYTES};
use quire_proto::ErrorKind;
use quire_testkit::{Fault, Proxy, Request, S3Server, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A store of its own behind a proxy.
async fn behind_proxy() -> (Proxy, Bucket) {
    let server = S3Server::shared();
    let proxy = Proxy::start(&server.address()).await;
    let bucket = open(&server.url("faults"), &proxy, Limits::default());
    bucket.create(&key("v/warm"), Bytes::from_static(b"warm")).await.unwrap();
    proxy.reset_traffic();
    (proxy, bucket)
}

fn open(url: &str, proxy: &Proxy, limits: Limits) -> Bucket {
    let variables = Some(S3Server::shared().variables_through(&proxy.address()));
    Bucket::open_with(url, Options { limits, variables, assume_proven: false, folders: None }).unwrap()
}

/// The same store, for a caller with little time. It is used only while
/// everything fails: what is to succeed on a busy machine needs the patient one.
fn impatient(bucket: &Bucket, proxy: &Proxy) -> Bucket {
    let limits = Limits {
        deadline: Duration::from_secs(2),
        connect_deadline: Duration::from_millis(600),
        attempt: Duration::from_millis(500),
        ..Limits::default()
    };
    let variables = Some(S3Server::shared().variables_through(&proxy.address()));
    Bucket::open_with(bucket.url(), Options { limits, variables, assume_proven: true, folders: None }).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// Does `fault` to the first `n` requests of `method`.
fn first(n: u32, method: &'static str, fault: Fault) -> impl FnMut(&Request) -> Fault + Send + 'static {
    let left = Arc::new(AtomicU32::new(n));
    move |request| {
        let hit = request.method == method && left.try_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok();
        if hit { fault } else { Fault::None }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_reply_is_lost_is_won() {
    let (proxy, bucket) = behind_proxy().await;
    proxy.set_script(first(1, "PUT", Fault::DropReply));
    let outcome = bucket.create(&key("v/a/!/c/1"), Bytes::from_static(b"mine")).await.unwrap();
    assert_eq!(outcome, Created::Won);
    let traffic = proxy.traffic();
    assert_eq!((traffic.count("PUT"), traffic.count("GET")), (1, 1), "settled by reading, not by writing again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_to_a_lost_create_is_lost() {
    let (proxy, bucket) = behind_proxy().await;
    let key = key("v/a/!/c/1");
    bucket.create(&key, Bytes::from_static(b"theirs")).await.unwrap();
    proxy.set_script(first(1, "PUT", Fault::DropReply));
    assert_eq!(bucket.create(&key, Bytes::from_static(b"mine")).await.unwrap(), Created::Lost);
    assert_eq!(bucket.get(&key).await.unwrap().bytes, "theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_never_arrived_is_sent_again() {
    for fault in [Fault::Refuse, Fault::Status(503), Fault::Status(429)] {
        let (proxy, bucket) = behind_proxy().await;
        proxy.set_script(first(2, "PUT", fault));
        assert_eq!(bucket.create(&key("v/a/!/c/1"), Bytes::from_static(b"mine")).await.unwrap(), Created::Won);
        assert_eq!((proxy.traffic().count("PUT"), bucket.counters().retries), (3, 2), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_settled_is_unavailable_and_a_later_retry_knows() {
    let (proxy, bucket) = behind_proxy().await;
    let key = key("v/a/!/c/1");
    let mut put_came = false;
    proxy.set_script(move |request| match request.method.as_str() {
        "PUT" if !std::mem::replace(&mut put_came, true) => Fault::DropReply,
        // Credentials that ended in between are final, but settle nothing.
        _ => Fault::Status(403),
    });
    let e = impatient(&bucket, &proxy).create(&key, Bytes::from_static(b"mine")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
    assert!(e.to_string().contains("unknown") && e.remedy().is_some(), "{e:?}");
    proxy.clear_script();
    assert_eq!(bucket.create(&key, Bytes::from_static(b"mine")).await.unwrap(), Created::Won);
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_bodies_are_read_again_and_never_short() {
    let (proxy, bucket) = behind_proxy().await;
    let key = key("v/a/!/seg/1");
    let bytes = Bytes::from((0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    bucket.create(&key, bytes.clone()).await.unwrap();
    for cut in [0, 1, 4096, 100_000] {
        proxy.set_script(first(2, "GET", Fault::CutReply(cut)));
        assert!(bucket.get(&key).await.unwrap().bytes == bytes, "cut at {cut}");
        proxy.set_script(first(2, "GET", Fault::CutReply(cut)));
        let ranges = bucket.get_ranges(&key, &[0..200_000, 600_000..799_999]).await.unwrap();
        assert!(ranges[0] == bytes[..200_000] && ranges[1] == bytes[600_000..799_999], "cut at {cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_always_cut_is_an_error() {
    let (proxy, bucket) = behind_proxy().await;
    let key = key("v/a/!/seg/1");
    bucket.create(&key, vec![1; 10_000].into()).await.unwrap();
    proxy.set_script(first(u32::MAX, "GET", Fault::CutReply(9_999)));
    let e = impatient(&bucket, &proxy).get(&key).await.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt), "{e:?}");
    assert!(e.to_string().contains("v/a/!/seg/1"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_store_is_unavailable_in_time() {
    let (proxy, bucket) = behind_proxy().await;
    proxy.set_script(|_| Fault::Hang);
    let bucket = impatient(&bucket, &proxy);
    let start = Instant::now();
    let e = bucket.get(&key("v/a/!/c/1")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.to_string().contains("no answer within 0.5 s") && e.to_string().contains("tried"), "{e}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timed_out_read_is_not_an_absent_object() {
    let (proxy, bucket) = behind_proxy().await;
    bucket.create(&key("v/a/!/c/1"), Bytes::from_static(b"x")).await.unwrap();
    let bucket = impatient(&bucket, &proxy);
    for fault in [Fault::Hang, Fault::Refuse, Fault::Status(500), Fault::DropReply] {
        proxy.set_script(move |_| fault);
        for e in [
            bucket.get(&key("v/a/!/c/1")).await.unwrap_err(),
            bucket.head(&key("v/a/!/c/1")).await.unwrap_err(),
            bucket.list_first(&key("v/a"), 1).await.unwrap_err(),
        ] {
            assert_eq!(e.kind(), ErrorKind::Unavailable, "{fault:?}: {e}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_hangs_is_asked_for_once_more() {
    let (proxy, warm) = behind_proxy().await;
    warm.create(&key("v/a/!/c/1"), Bytes::from_static(b"x")).await.unwrap();
    // The first one is not given up meanwhile.
    let bucket = open(warm.url(), &proxy, Limits::default());
    bucket.get(&key("v/a/!/c/1")).await.unwrap();
    let before = bucket.counters();
    proxy.set_script(first(1, "GET", Fault::Hang));
    assert_eq!(&bucket.get(&key("v/a/!/c/1")).await.unwrap().bytes[..], b"x");
    let now = bucket.counters();
    assert_eq!((now.hedged - before.hedged, now.retries), (1, before.retries));
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_survive_cut_pages() {
    let (proxy, bucket) = behind_proxy().await;
    for n in 0..5 {
        bucket.create(&key(&format!("v/a/!/c/{n}")), Bytes::from_static(b"x")).await.unwrap();
    }
    for cut in [0, 10, 700] {
        proxy.set_script(first(1, "GET", Fault::CutReply(cut)));
        assert_eq!(bucket.list_first(&key("v/a"), 9).await.unwrap().len(), 5, "cut at {cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_lost_replies_at_every_step() {
    let (proxy, bucket) = behind_proxy().await;
    // POST begins and completes, PUT sends parts.
    for (method, fault) in [("POST", Fault::DropReply), ("PUT", Fault::DropReply), ("PUT", Fault::Status(503))] {
        for which in 0..2 {
            let mut seen = 0;
            proxy.set_script(move |request| {
                seen += u32::from(request.method == method);
                if request.method == method && seen == which + 1 { fault } else { Fault::None }
            });
            let key = key(&format!("v/a/!/seg/{method}{which}{}", fault == Fault::DropReply));
            let bytes: Bytes = vec![which as u8; PART_BYTES + 5].into();
            let mut upload = bucket.upload(&key).await.unwrap();
            upload.write(bytes.clone()).await.unwrap();
            upload.finish().await.unwrap_or_else(|e| panic!("{method} {which} {fault:?}: {e:?}"));
            assert!(bucket.get(&key).await.unwrap().bytes == bytes, "{method} {which} {fault:?}");
        }
    }
}

/// Two writers race for many keys while a third of all requests go wrong.
#[tokio::test(flavor = "multi_thread")]
async fn under_random_faults_every_key_has_one_winner_who_knows_it() {
    const KEYS: u64 = 60;
    let seed = seed();
    let limits = Limits { deadline: Duration::from_secs(120), ..Limits::default() };
    let (proxy, warm) = behind_proxy().await;
    let (one, two) = (open(warm.url(), &proxy, limits), open(warm.url(), &proxy, limits));
    let mut rng = StdRng::seed_from_u64(seed);
    proxy.set_script(move |_| match rng.random_range(0..12) {
        0 => Fault::DropReply,
        1 => Fault::Refuse,
        2 => Fault::Status(503),
        3 => Fault::CutReply(rng.random_range(0..100)),
        _ => Fault::None,
    });
    let race = |bucket: Bucket, writer: u8| async move {
        let mut outcomes = Vec::new();
        for n in 0..KEYS {
            outcomes.push(bucket.create(&key(&format!("v/a/!/c/{n:03}")), vec![writer; 100].into()).await.unwrap());
        }
        outcomes
    };
    let (ones, twos) = tokio::join!(tokio::spawn(race(one.clone(), 1)), tokio::spawn(race(two, 2)));
    proxy.clear_script();
    for (n, outcomes) in ones.unwrap().into_iter().zip(twos.unwrap()).enumerate() {
        let winner = one.get(&key(&format!("v/a/!/c/{n:03}"))).await.unwrap().bytes[0];
        let expected = if winner == 1 { (Created::Won, Created::Lost) } else { (Created::Lost, Created::Won) };
        assert_eq!(outcomes, expected, "key {n} was written by {winner}");
    }
}
