//! What the embedded metastore asks of its bucket, counted.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use quire_bucket::{Bucket, Counters};
use quire_metastore::contract::commits::{commit, write};
use quire_metastore::{Embedded, Options};
use quire_proto::{
    Appended, CommitKind, ErrorKind, HEADERS_A_PIECE, Lsn, Metastore, SealedCommit, VolumeName, log_back,
};

fn client(bucket: &Bucket) -> Embedded {
    Embedded::new(bucket.clone(), Options { poll_interval: Duration::from_millis(1), ..Options::default() })
}

fn app() -> VolumeName {
    VolumeName::parse("team/app").unwrap()
}

async fn win(store: &Embedded, commit: &SealedCommit) {
    assert!(matches!(store.append(&app(), commit).await.unwrap(), Appended::Won));
}

/// Requests since `before`, as (get, put, list, head).
fn since(bucket: &Bucket, before: Counters) -> (u64, u64, u64, u64) {
    let now = bucket.counters();
    (now.get - before.get, now.put - before.put, now.list - before.list, now.head - before.head)
}

/// A volume with `n` commits, made and tidied by one client.
async fn grown(bucket: &Bucket, n: u64) -> Vec<SealedCommit> {
    let store = client(bucket);
    let mut log = vec![commit(None, CommitKind::Create)];
    win(&store, &log[0]).await;
    while (log.len() as u64) < n {
        log.push(write(&log[log.len() - 1]));
        win(&store, &log[log.len() - 1]).await;
        store.tidy(&app(), log[log.len() - 1].header()).await.unwrap();
    }
    log
}

#[tokio::test]
async fn whoever_has_seen_the_head_appends_with_one_put() {
    let bucket = Bucket::open("memory://").unwrap();
    let log = grown(&bucket, 3).await;
    let store = client(&bucket);
    let before = bucket.counters();
    let head = store.head(&app()).await.unwrap().live().unwrap();
    assert_eq!(since(&bucket, before), (1, 0, 1, 0), "the head is one listing and one read");
    assert_eq!(head.object(), log[2].object());

    let before = bucket.counters();
    let mut last = head;
    for n in 1..=5 {
        last = write(&last);
        win(&store, &last).await;
        assert_eq!(since(&bucket, before), (0, n, 0, 0));
    }
    let void = commit(Some(&last), CommitKind::Void);
    win(&store, &void).await;
    win(&store, &write(&void)).await;
    assert_eq!(since(&bucket, before), (0, 7, 0, 0), "a void is not looked behind");
}

#[tokio::test]
async fn whoever_has_seen_nothing_reads_the_parent_once() {
    let bucket = Bucket::open("memory://").unwrap();
    let log = grown(&bucket, 3).await;
    let store = client(&bucket);
    let before = bucket.counters();
    let fourth = write(&log[2]);
    win(&store, &fourth).await;
    assert_eq!(since(&bucket, before), (1, 1, 0, 0));
    win(&store, &write(&fourth)).await;
    assert_eq!(since(&bucket, before), (1, 2, 0, 0));
    let creation = bucket.counters();
    let other = VolumeName::parse("other").unwrap();
    store.append(&other, &commit(None, CommitKind::Create)).await.unwrap();
    assert_eq!(since(&bucket, creation), (0, 1, 0, 0), "LSN 1 has nothing before it");
}

#[tokio::test]
async fn catching_up_with_a_thousand_commits_takes_few_requests() {
    let bucket = Bucket::open("memory://").unwrap();
    let log = grown(&bucket, 1001).await;
    let before = bucket.counters();
    let headers = client(&bucket).headers(&app(), Lsn::new(2).unwrap(), log[1000].header()).await.unwrap();
    assert_eq!(headers.len(), 1000);
    // 15 roll-ups up to LSN 960, then 961 to 1000; 1001 is known.
    assert_eq!(since(&bucket, before), (55, 0, 0, 0));
    let bytes = bucket.counters().bytes_in - before.bytes_in;
    assert!(bytes <= 256 * 1024, "{bytes} bytes");
}

#[tokio::test]
async fn a_log_is_read_back_in_pieces_that_cost_no_more_than_the_whole() {
    let bucket = Bucket::open("memory://").unwrap();
    let log = grown(&bucket, 4000).await;
    let (store, app) = (client(&bucket), app());
    let whole = store.headers(&app, Lsn::FIRST, log[3999].header()).await.unwrap_err();
    assert_eq!(whole.kind(), ErrorKind::Invalid, "{whole:?}");
    let before = bucket.counters();
    let back = log_back(&store, &app, log[3999].header(), Lsn::FIRST, HEADERS_A_PIECE);
    let lsns: Vec<u64> = back.map_ok(|header| header.lsn.get()).try_collect().await.unwrap();
    assert!(lsns.into_iter().eq((1..=4000).rev()));
    // 3,969 to 3,999 one by one, and 62 roll-ups; 4,000 is known.
    assert_eq!(since(&bucket, before), (31 + 62, 0, 0, 0));
    let some = log_back(&store, &app, log[99].header(), Lsn::new(98).unwrap(), HEADERS_A_PIECE);
    let lsns: Vec<u64> = some.map_ok(|header| header.lsn.get()).try_collect().await.unwrap();
    assert_eq!(lsns, [100, 99, 98]);
}

#[tokio::test]
async fn thousands_of_voids_are_looked_behind_in_few_requests() {
    let bucket = Bucket::open("memory://").unwrap();
    let mut log = grown(&bucket, 1).await;
    let store = client(&bucket);
    for _ in 0..3000 {
        let void = commit(log.last(), CommitKind::Void);
        win(&store, &void).await;
        store.tidy(&app(), void.header()).await.unwrap();
        log.push(void);
    }
    let fresh = client(&bucket);
    let before = bucket.counters();
    assert_eq!(fresh.head(&app()).await.unwrap().live().unwrap().lsn().get(), 3001);
    let requests = bucket.counters().requests() - before.requests();
    assert!(requests < 200, "{requests}");
}

#[tokio::test]
async fn most_commits_cost_nothing_to_tidy() {
    let bucket = Bucket::open("memory://").unwrap();
    let log = grown(&bucket, 127).await;
    let (store, before) = (client(&bucket), bucket.counters());
    store.tidy(&app(), log[126].header()).await.unwrap();
    assert_eq!(since(&bucket, before), (0, 0, 0, 0));
    let last = write(&log[126]);
    win(&store, &last).await;
    let before = bucket.counters();
    store.tidy(&app(), last.header()).await.unwrap();
    assert_eq!(since(&bucket, before), (64, 1, 0, 1), "64 headers, one roll-up, a look at the one before");
}

#[tokio::test]
async fn an_idle_watcher_asks_for_one_key_and_never_lists() {
    let bucket = Bucket::open("memory://").unwrap();
    let log = grown(&bucket, 2).await;
    let before = bucket.counters();
    let mut watch = client(&bucket).watch(&app(), Some(Lsn::new(2).unwrap()));
    let goes_on = async {
        while since(&bucket, before).0 < 10 {
            tokio::task::yield_now().await;
        }
        win(&client(&bucket), &write(&log[1])).await;
    };
    let (seen, ()) = futures::join!(watch.next(), goes_on);
    assert_eq!(seen.unwrap().unwrap().lsn().get(), 3);
    let (_, puts, lists, heads) = since(&bucket, before);
    assert_eq!((puts, lists, heads), (1, 0, 0));
}
