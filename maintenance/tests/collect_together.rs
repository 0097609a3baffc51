//! Collectors that are killed anywhere, that meet each other, and that cannot see all.
#![allow(clippy::unwrap_used)]

#[path = "common/line.rs"]
mod line;
#[path = "common/store.rs"]
mod store;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use line::Line;
use quire_bucket::Bucket;
use quire_engine::{ErrorKind, Moment};
use quire_maintenance::collect::{Options, collect};
use quire_maintenance::compact::{self, compact};
use quire_proto::Span;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use store::*;

const NOW: Options = Options { grace_ms: 0, abandoned_ms: 0, report_at_ms: None };

/// A volume with forks, restores and markers of all kinds, of which little is to be kept. What each LSN that is kept
/// shows, and what the fork does.
fn a_life(store: &Store) -> (Vec<(u64, Vec<u64>)>, Vec<u64>) {
    let client = store.client("a");
    let volume = client.volume(&name("v")).unwrap();
    let mut shown = grow(&volume, 8);
    volume.checkpoint().unwrap();
    client.fork(&name("v"), Some(Moment::Lsn(lsn(3))), &name("fork")).unwrap();
    client.restore(&name("v"), Moment::Lsn(lsn(2))).unwrap();
    volume.pull().unwrap();
    shown.push(stamps(&volume));
    shown.extend(grow(&volume, 4));
    store.keep("v", Span::Last(3), &[6]);
    let kept = [6, 11, 12, 13].map(|n: u64| (n, shown[n as usize - 1].clone())).into();
    (kept, shown[2].clone())
}

fn check(store: &Store, machine: &str, kept: &[(u64, Vec<u64>)], fork: &[u64]) {
    let client = store.client(machine);
    for (n, shown) in kept {
        assert_eq!(shows(&client, "v", *n), *shown, "LSN {n}");
    }
    assert_eq!(stamps(&client.existing(&name("v")).unwrap()), kept[kept.len() - 1].1);
    assert_eq!(stamps(&client.existing(&name("fork")).unwrap()), fork);
}

/// The keys of a store without what says when and how often.
fn things(store: &Store) -> BTreeSet<String> {
    let keys = store.keys().into_iter();
    keys.filter(|key| !key.contains("/keep/") && !key.contains("/now/") && !key.contains("/mark/"))
        .map(|key| key.rsplit_once('/').map_or(key.clone(), |(place, _)| place.to_owned()))
        .collect()
}

#[test]
fn a_collector_that_is_killed_at_any_request_leaves_what_is_kept_and_the_next_one_finishes() {
    let sample = Store::memory();
    a_life(&sample);
    let line = Arc::new(Line::whole());
    let stores = stores_on(&line.to(&sample.bucket));
    sample.runtime.block_on(collect(&stores, &name("v"), &NOW)).unwrap();
    sample.collect_abandoned("v");
    let requests = line.requests().len();
    assert!(requests > 40, "{:?}", line.requests());
    for at in 1..=requests {
        for after in [false, true] {
            let store = Store::memory();
            let (kept, fork) = a_life(&store);
            let line = Arc::new(Line::cut(at, after));
            let stores = stores_on(&line.to(&store.bucket));
            let killed = store.runtime.block_on(collect(&stores, &name("v"), &NOW));
            match killed {
                Ok(_) => assert!(at > line.requests().len(), "request {at}"),
                // A request without an answer says nothing of what it asked for: it is no damage.
                Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "cut at request {at}, after it: {after}: {e:?}"),
            }
            check(&store, "b", &kept, &fork);
            store.collect_abandoned("v");
            store.collect_abandoned("v");
            check(&store, "c", &kept, &fork);
            assert_eq!(things(&store).len(), things(&sample).len(), "cut at request {at}, after it: {after}");
        }
    }
}

#[test]
fn a_collector_that_another_one_overtakes_at_any_request_lets_go_of_nothing_that_is_kept() {
    let mut at = 0;
    loop {
        at += 1;
        let store = Arc::new(Store::memory());
        let (mut kept, fork) = a_life(&store);
        let overtaken = Arc::new(AtomicBool::new(false));
        let line = Arc::new(Line::before(1, move |number, _, _| number == at, {
            let (store, overtaken) = (store.clone(), overtaken.clone());
            move || {
                let client = store.client("another");
                let volume = client.volume(&name("v")).unwrap();
                volume.pull().unwrap();
                grow(&volume, 1);
                store.collect_abandoned("v");
                overtaken.store(true, SeqCst);
            }
        }));
        let stores = stores_on(&line.to(&store.bucket));
        match store.runtime.block_on(collect(&stores, &name("v"), &NOW)) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::Busy, "overtaken at request {at}: {e:?}"),
        }
        if !overtaken.load(SeqCst) {
            assert!(at > 40, "{:?}", line.requests());
            return;
        }
        // The other one moved the end of what is kept by one.
        kept.retain(|(n, _)| *n != 11);
        let client = store.client("b");
        kept.push((14, stamps(&client.existing(&name("v")).unwrap())));
        check(&store, "c", &kept, &fork);
        store.collect_abandoned("v");
        check(&store, "d", &kept, &fork);
    }
}

/// Says that it is over as soon as this goes out of scope, also by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Two compactors and two collectors, each of which is killed at every second of its runs, at any request, beside a
/// writer who forks and checkpoints.
fn workers_and_a_writer_at_once(bucket: Bucket) {
    let seed = quire_testkit::seed();
    let store = Store::on(bucket);
    let (kept, fork) = a_life(&store);
    let done = AtomicBool::new(false);
    let (store, done) = (&store, &done);
    let shown = std::thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed.wrapping_add(worker));
                while !done.load(SeqCst) {
                    let kill = rng.random();
                    let stores = match kill {
                        true => {
                            let line = Line::cut(rng.random_range(1..120), rng.random());
                            stores_on(&Arc::new(line).to(&store.bucket))
                        }
                        false => stores_on(&store.bucket),
                    };
                    let worked = store.runtime.block_on(async {
                        match worker < 2 {
                            true => collect(&stores, &name("v"), &NOW).await.map(|_| ()),
                            false => {
                                let options = compact::Options { budget_bytes: rng.random_range(50_000..500_000) };
                                compact(stores.reader.clone(), stores.pages.clone(), name("v"), options)
                                    .await
                                    .map(|_| ())
                            }
                        }
                    });
                    if let Err(e) = worked {
                        let killed = kill && e.kind() == ErrorKind::Unavailable;
                        // A compactor may find its snapshot collected under its hands.
                        let overtaken = matches!(e.kind(), ErrorKind::Busy | ErrorKind::Gone);
                        assert!(killed || overtaken, "worker {worker}: {e:?}");
                    }
                }
            });
        }
        // Whatever becomes of the writer, the others end.
        let _ends = Ends(done);
        let client = store.client("writer");
        let volume = client.volume(&name("v")).unwrap();
        volume.pull().unwrap();
        let mut shown = Vec::new();
        for n in 0..12 {
            shown.extend(grow(&volume, 1));
            if n % 3 == 0 {
                volume.checkpoint().unwrap();
            }
            if n % 4 == 0 {
                let new = name(&format!("fork-{n}"));
                let fork = client.fork(&name("v"), Some(Moment::Lsn(volume.status().base_lsn.unwrap())), &new).unwrap();
                assert_eq!(stamps(&fork.volume), *shown.last().unwrap());
            }
        }
        shown
    });
    store.collect_abandoned("v");
    let fresh = store.client("fresh");
    assert_eq!(shows(&fresh, "v", 6), kept[0].1);
    for (n, shown) in (14u64..).zip(&shown).skip(9) {
        assert_eq!(shows(&fresh, "v", n), *shown, "LSN {n}");
    }
    assert_eq!(stamps(&fresh.existing(&name("fork")).unwrap()), fork);
    for n in [0, 4, 8] {
        assert_eq!(stamps(&fresh.existing(&name(&format!("fork-{n}"))).unwrap()), shown[n]);
    }
}

#[test]
fn two_compactors_two_collectors_and_a_writer_at_once_in_memory() {
    workers_and_a_writer_at_once(Bucket::open("memory://").unwrap());
}

#[test]
fn two_compactors_two_collectors_and_a_writer_at_once_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    workers_and_a_writer_at_once(Bucket::open(&format!("file://{}", folder.path().display())).unwrap());
}

#[test]
fn two_compactors_two_collectors_and_a_writer_at_once_on_s3() {
    let server = quire_testkit::S3Server::shared();
    let options = quire_bucket::Options { variables: Some(server.variables()), ..quire_bucket::Options::default() };
    workers_and_a_writer_at_once(Bucket::open_with(&server.url("together"), options).unwrap());
}

#[test]
fn a_look_that_times_out_is_not_absent() {
    let store = Store::memory();
    let (kept, fork) = a_life(&store);
    let line = Arc::new(Line::whole());
    let stores = stores_on(&line.to(&store.bucket));
    store.runtime.block_on(collect(&stores, &name("v"), &Options { report_at_ms: Some(1), ..NOW })).unwrap();
    // The look at the fork, whose commit holds LSN 3.
    let requests = line.requests();
    let at = requests.iter().position(|(what, key)| *what == "get" && key.contains("v/fork/!/c/")).unwrap() + 1;
    let before = store.keys();
    let stores = stores_on(&Arc::new(Line::cut(at, false)).to(&store.bucket));
    let failed = store.runtime.block_on(collect(&stores, &name("v"), &NOW)).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{failed:?}");
    assert_eq!(store.keys().difference(&before).count(), 0, "nothing is said, and nothing has gone");
    check(&store, "b", &kept, &fork);
}
