//! Many who watch: what it costs the server and the store, and how soon they are told. `--nocapture` shows the figures.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use quire_bucket::Bucket;
use quire_channel::{Connection, Limits};
use quire_metastore::contract::commits::{commit, write};
use quire_metastore::{Embedded, Remote};
use quire_proto::{Appended, CommitKind, Lsn, Metastore, SealedCommit, VolumeName};
use quire_serve::{CacheOptions, Options, Role, Server, Serving};

const POLL: Duration = Duration::from_millis(200);

struct House {
    bucket: Bucket,
    direct: Embedded,
    client: Remote,
    _serving: Serving,
}

impl House {
    fn new() -> House {
        let bucket = Bucket::open("memory://").unwrap();
        let direct = Embedded::new(bucket.clone(), Default::default());
        let server = Server::bind(Options {
            poll_interval: POLL,
            role: Role::Metastore,
            cache: CacheOptions { memory_bytes: 64 << 20, disk: None },
            ..Options::new(Arc::new(direct.clone()), Arc::new(quire_pagestore::Embedded::new(bucket.clone())))
        })
        .unwrap();
        let url = format!("http://{}", server.address()).parse().unwrap();
        let serving = server.spawn();
        let client = Remote::new(Connection::open(&url, None, Limits::default()).unwrap());
        House { bucket, direct, client, _serving: serving }
    }

    async fn create(&self, volume: &VolumeName) -> SealedCommit {
        let made = commit(None, CommitKind::Create);
        assert!(matches!(self.client.append(volume, &made).await.unwrap(), Appended::Won));
        made
    }
}

fn name(text: &str) -> VolumeName {
    VolumeName::parse(text).unwrap()
}

/// What this process holds in memory, in bytes: server and clients.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_watchers_of_one_volume_are_told_of_each_commit_by_one_look_at_the_store() {
    let house = House::new();
    let volume = name("app");
    let mut head = house.create(&volume).await;
    let before = resident();
    let watchers = join_all((0..1000).map(|_| async {
        let mut watcher = house.client.watch(&volume, None);
        // It is told what was there: from now on it waits.
        assert_eq!(watcher.next().await.unwrap().unwrap().lsn(), Lsn::FIRST);
        watcher
    }));
    let mut watchers = watchers.await;
    let mut latencies = Vec::new();
    let requests = house.bucket.counters().requests();
    let began = Instant::now();
    for _ in 0..20 {
        head = write(&head);
        let appended = async {
            assert!(matches!(house.client.append(&volume, &head).await.unwrap(), Appended::Won));
            Instant::now()
        };
        let told = join_all(watchers.iter_mut().map(|watcher| async {
            assert_eq!(watcher.next().await.unwrap().unwrap().lsn(), head.lsn());
            Instant::now()
        }));
        let (acknowledged, told) = tokio::join!(appended, told);
        latencies.extend(told.into_iter().map(|told| told.saturating_duration_since(acknowledged)));
    }
    let looks = (began.elapsed().as_millis() / POLL.as_millis()) as u64;
    let requests = house.bucket.counters().requests() - requests;
    latencies.sort();
    let grown = resident().saturating_sub(before) >> 20;
    println!(
        "1,000 watchers, 20 commits: told after {:?} (median), {:?} (p99), {:?} (last); {requests} requests to the store; {grown} MiB",
        percentile(&latencies, 50),
        percentile(&latencies, 99),
        percentile(&latencies, 100),
    );
    // Each append and each look are a few requests, however many watch.
    assert!(requests < 20 * 10 + looks * 2 + 50, "{requests} requests in {looks} looks");
    assert!(grown < 256, "{grown} MiB for clients and server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_volumes_are_watched_for_what_others_commit() {
    let house = House::new();
    let volumes: Vec<VolumeName> = (0..1000).map(|n| name(&format!("team/{n}"))).collect();
    let heads = join_all(volumes.iter().map(|volume| house.create(volume))).await;
    let before = resident();
    let mut watchers: Vec<_> = volumes.iter().map(|volume| house.client.watch(volume, Some(Lsn::FIRST))).collect();
    // Not through the server.
    let mut latencies = Vec::new();
    for _ in 0..3 {
        let told = join_all(watchers.iter_mut().map(|watcher| async {
            let commit = watcher.next().await.unwrap().unwrap();
            (commit, Instant::now())
        }));
        let direct = async {
            let mut done = Vec::new();
            for (volume, head) in volumes.iter().zip(&heads) {
                let newest = house.direct.head(volume).await.unwrap().head().unwrap_or(head).clone();
                assert!(matches!(house.direct.append(volume, &write(&newest)).await.unwrap(), Appended::Won));
                done.push(Instant::now());
            }
            done
        };
        let (told, done) = tokio::join!(told, direct);
        latencies.extend(told.iter().zip(done).map(|((_, told), done)| told.saturating_duration_since(done)));
    }
    latencies.sort();
    let grown = resident().saturating_sub(before) >> 20;
    println!(
        "1,000 volumes, commits made elsewhere, looked for every {POLL:?}: told after {:?} (median), {:?} (p99); {grown} MiB",
        percentile(&latencies, 50),
        percentile(&latencies, 99),
    );
    assert!(grown < 256, "{grown} MiB for clients and server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_costs_no_memory_and_misses_nothing() {
    let house = House::new();
    let volume = name("app");
    let mut head = house.create(&volume).await;
    let mut slow = house.client.watch(&volume, None);
    assert_eq!(slow.next().await.unwrap().unwrap().lsn(), Lsn::FIRST);
    for _ in 0..3000 {
        head = write(&head);
        assert!(matches!(house.client.append(&volume, &head).await.unwrap(), Appended::Won));
    }
    for lsn in 2..=head.lsn().get() {
        assert_eq!(slow.next().await.unwrap().unwrap().lsn().get(), lsn);
    }
}
