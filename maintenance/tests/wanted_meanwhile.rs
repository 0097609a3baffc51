//! What is wanted while a collector is about to let it go.
#![allow(clippy::unwrap_used)]

#[path = "common/line.rs"]
mod line;
#[path = "common/store.rs"]
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use line::Line;
use quire_bucket::keys;
use quire_engine::{Engine, ErrorKind, Moment};
use quire_maintenance::collect::{Options, collect, keep};
use quire_maintenance::compact::{self, compact};
use quire_proto::{FAR_COMMITS, Marker, MarkerTarget, SegmentId, Span};
use store::*;

const NOW: Options = Options { grace_ms: 0, abandoned_ms: 3_600_000, report_at_ms: None };

/// A volume of eight commits of which little is wanted, and what each LSN shows.
fn little_is_wanted(store: &Store) -> Vec<Vec<u64>> {
    let volume = store.client("a").volume(&name("v")).unwrap();
    let shown = grow(&volume, 8);
    store.keep("v", Span::Last(1), &[]);
    shown
}

/// Collects, and lets somebody come in before the collector publishes.
fn overtaken(store: &Arc<Store>, options: &Options, other: impl Fn(&Store) + Send + Sync + 'static) {
    let line = Arc::new(Line::before(1, |_, what, key| what == "put" && key.contains("/keep/"), {
        let store = store.clone();
        move || other(&store)
    }));
    let stores = stores_on(&line.to(&store.bucket));
    store.runtime.block_on(collect(&stores, &name("v"), options)).unwrap();
}

#[test]
fn all_that_is_there_is_kept_from_when_somebody_was_told_so() {
    let store = Arc::new(Store::memory());
    let shown = little_is_wanted(&store);
    overtaken(&store, &NOW, |store| store.keep("v", Span::All, &[]));
    assert_eq!(shows(&store.client("b"), "v", 4), shown[3]);
}

#[test]
fn a_longer_span_holds_from_when_somebody_was_told_so() {
    let store = Arc::new(Store::memory());
    let shown = little_is_wanted(&store);
    overtaken(&store, &NOW, |store| store.keep("v", Span::Last(6), &[]));
    assert_eq!(shows(&store.client("b"), "v", 3), shown[2]);
    let gone = store.client("c").info_at(&name("v"), Moment::Lsn(lsn(2))).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Gone);
}

#[test]
fn what_was_compared_before_somebody_came_in_between_is_not_compared_again() {
    let store = Arc::new(Store::memory());
    grow(&store.client("a").volume(&name("v")).unwrap(), 40);
    store.keep("v", Span::Last(1), &[]);
    let line = Arc::new(Line::before(1, |_, what, key| what == "put" && key.contains("/keep/"), {
        let store = store.clone();
        move || store.keep("v", Span::Last(1), &[40])
    }));
    let stores = stores_on(&line.to(&store.bucket));
    store.runtime.block_on(collect(&stores, &name("v"), &NOW)).unwrap();
    let requests = line.requests();
    let is_statement = |(_, (what, key)): &(usize, &(&str, String))| *what == "put" && key.contains("/keep/");
    let stated: Vec<usize> = requests.iter().enumerate().filter(is_statement).map(|(n, _)| n).collect();
    let again = &requests[stated[0]..stated[1]];
    // Each header once, for volumes that moved away.
    let read = again.iter().filter(|(what, key)| *what == "get" && key.contains("/!/c/")).count();
    assert!((39..60).contains(&read), "{again:?}");
}

#[test]
fn a_snapshot_that_is_named_again_after_a_kill_is_kept_or_refused() {
    let store = Arc::new(Store::memory());
    let shown = little_is_wanted(&store);
    let told = Arc::new(AtomicUsize::new(0));
    overtaken(&store, &NOW, {
        let told = told.clone();
        move |store| {
            // Killed before the collector had to hear of it.
            let (number, mut retention) = store.runtime.block_on(store.log().retention(&name("v"))).unwrap();
            retention.named.insert(lsn(3));
            assert!(store.runtime.block_on(store.log().retain(&name("v"), number + 1, &retention)).unwrap());
            told.store(1, SeqCst);
        }
    });
    assert_eq!(told.load(SeqCst), 1);
    let volume = name("v");
    let named = keep(&store.stores, &volume, |kept| {
        kept.named.insert(lsn(3));
    });
    assert_eq!(store.runtime.block_on(named).unwrap_err().kind(), ErrorKind::Gone);
    // What cannot be kept is not said to be any longer.
    let last = keep(&store.stores, &volume, |kept| kept.span = Span::Last(2));
    let (kept, statement) = store.runtime.block_on(last).unwrap();
    assert!(kept.named.is_empty() && statement.horizon == lsn(8), "{kept:?}, {statement:?}");
    assert_eq!(stamps(&store.client("b").existing(&name("v")).unwrap()), shown[7]);
}

/// A reader's marker that came too late, and stayed, as its author was killed. A later statement must not keep the snapshot
/// again, and so let somebody rely on it, while a collector goes on letting it go by an earlier one.
#[test]
fn what_was_let_go_does_not_come_back_by_a_marker_that_was_refused() {
    let store = Arc::new(Store::memory());
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 12);
    store.keep("v", Span::Last(1), &[4]);
    store.collect("v");
    grow(&volume, 1);
    store.keep("v", Span::Last(1), &[]);
    let state = Arc::new(AtomicUsize::new(0));
    let after_the_markers = {
        let state = state.clone();
        move |_, what: &str, key: &str| {
            match state.load(SeqCst) {
                0 if what == "put" && key.contains("/keep/") => state.store(1, SeqCst),
                1 if what == "list" && key.contains("/mark") => state.store(2, SeqCst),
                2 if what == "get" && key.contains("/ck/") => {
                    state.store(3, SeqCst);
                    return true;
                }
                _ => {}
            }
            false
        }
    };
    let line = Arc::new(Line::before(1, after_the_markers, {
        let store = store.clone();
        move || {
            let header = store.runtime.block_on(store.log().header(&name("v"), lsn(4))).unwrap();
            let target = MarkerTarget::Reader { span_ms: 7_200_000, author: "r".into() };
            let marker = Marker { base: (name("v"), lsn(4), header.hash()), target };
            let refused = store.runtime.block_on(store.log().mark(&marker)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Gone);
            assert!(store.collect("v").holds.is_empty(), "who is refused leaves nothing");
            let key = keys::marker(&name("v"), lsn(4), SegmentId::random(lsn(4)).unwrap().ulid);
            store.runtime.block_on(store.bucket.create(&key, marker.encode().into())).unwrap();
            let second = store.collect("v");
            assert_eq!((second.holds.len(), second.blocked), (1, Some(lsn(4))));
            let fork = store.client("f").fork(&name("v"), Some(Moment::Lsn(lsn(4))), &name("fork"));
            assert_eq!(fork.map(drop).unwrap_err().kind(), ErrorKind::Gone);
        }
    }));
    let stores = stores_on(&line.to(&store.bucket));
    store.runtime.block_on(collect(&stores, &name("v"), &NOW)).unwrap();
    assert_eq!(state.load(SeqCst), 3);
}

/// Work in a data directory, before each request of which in turn somebody else cares for the volume: `check` gets the store
/// afterwards, and what came of it.
fn cared_for_before_each_request<T>(
    prepare: impl Fn(&Store, &Path),
    care: impl Fn(&Store) + Clone + Send + 'static,
    work: impl Fn(&Engine) -> quire_engine::Result<T>,
    check: impl Fn(&Store, quire_engine::Result<T>),
) {
    let mut at = 0;
    loop {
        at += 1;
        let (store, dir) = (Arc::new(Store::memory()), tempfile::tempdir().unwrap());
        prepare(&store, dir.path());
        let was_there = Arc::new(AtomicUsize::new(0));
        let line = Arc::new(Line::before(1, move |number, _, _| number == at, {
            let (store, was_there, care) = (store.clone(), was_there.clone(), care.clone());
            move || {
                care(&store);
                was_there.store(1, SeqCst);
            }
        }));
        let client = engine(dir.path(), &line.to(&store.bucket));
        let done = work(&client);
        drop(client);
        if was_there.load(SeqCst) == 0 {
            assert!(at > 3 && done.is_ok(), "{:?}", line.requests());
            return;
        }
        check(&store, done);
        // What it stands on stays, also when the next collector comes.
        assert!(store.collect_abandoned("v").blocked.is_none());
    }
}

/// Twelve commits and a checkpoint in between; all of it is there and wanted.
fn twelve(store: &Store, _: &Path) {
    let volume = store.client("a").volume(&name("v")).unwrap();
    grow(&volume, 6);
    volume.checkpoint().unwrap();
    grow(&volume, 6);
}

/// What LSN 4 of it shows.
fn fourth() -> Vec<u64> {
    let store = Store::memory();
    grow(&store.client("a").volume(&name("v")).unwrap(), 4).remove(3)
}

fn little_stays(store: &Store) {
    store.keep("v", Span::Last(1), &[]);
    store.collect("v");
}

#[test]
fn a_fork_of_what_is_being_collected_is_whole_or_refused() {
    let shown = fourth();
    cared_for_before_each_request(
        twelve,
        little_stays,
        |client| client.fork(&name("v"), Some(Moment::Lsn(lsn(4))), &name("fork")).map(drop),
        |store, forked| match forked {
            Ok(()) => {
                store.collect("v");
                assert_eq!(stamps(&store.client("b").existing(&name("fork")).unwrap()), shown);
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::Gone, "{e:?}"),
        },
    );
}

#[test]
fn a_restore_of_what_is_being_collected_is_whole_or_refused() {
    let shown = fourth();
    cared_for_before_each_request(
        twelve,
        little_stays,
        |client| client.restore(&name("v"), Moment::Lsn(lsn(4))).map(drop),
        |store, restored| {
            let newest = stamps(&store.client("b").existing(&name("v")).unwrap());
            match restored {
                Ok(()) => {
                    store.collect("v");
                    assert_eq!(newest, shown);
                    assert_eq!(stamps(&store.client("c").existing(&name("v")).unwrap()), shown);
                }
                Err(e) => assert!(e.kind() == ErrorKind::Gone && newest != shown, "{e:?}"),
            }
        },
    );
}

#[test]
fn a_follower_catches_up_by_a_checkpoint_that_a_compaction_rewrites_meanwhile() {
    cared_for_before_each_request(
        |store, dir| {
            let volume = store.client("a").volume(&name("v")).unwrap();
            grow(&volume, 1);
            let follower = engine(dir, &store.bucket).existing(&name("v")).unwrap();
            follower.hydrate(&mut |_, _| ()).unwrap();
            // So far that it is caught up with by a checkpoint.
            grow(&volume, 3);
            for n in 0..FAR_COMMITS + 5 {
                write(&volume, [(1 + n as u32 % 7, n)]);
                volume.push().unwrap();
            }
        },
        |store| {
            store.keep("v", Span::Last(1), &[]);
            store.collect("v");
            let (reader, pages) = (store.stores.reader.clone(), store.stores.pages.clone());
            let options = compact::Options { budget_bytes: 1 << 20 };
            store.runtime.block_on(compact(reader, pages, name("v"), options)).unwrap();
            store.collect("v");
        },
        |client| {
            let volume = client.existing(&name("v"))?;
            volume.pull()?;
            volume.hydrate(&mut |_, _| ())?;
            Ok(stamps(&volume))
        },
        |store, caught_up| {
            let newest = stamps(&store.client("b").existing(&name("v")).unwrap());
            assert_eq!(caught_up.unwrap(), newest);
        },
    );
}

/// Somebody else goes on, and nothing but what he made stays.
fn goes_on(store: &Store) {
    let volume = store.client("other").existing(&name("v")).unwrap();
    volume.pull().unwrap();
    write(&volume, [(3, 77)]);
    volume.push().unwrap();
    little_stays(store);
}

#[test]
fn what_was_the_newest_a_moment_ago_and_is_collected_is_looked_for_again() {
    let follows = |store: &Store, dir: &Path| {
        let volume = store.client("a").volume(&name("v")).unwrap();
        grow(&volume, 3);
        drop(engine(dir, &store.bucket).existing(&name("v")).unwrap());
        grow(&volume, 1);
    };
    let goes_own_way = |store: &Store, dir: &Path| {
        follows(store, dir);
        write(&engine(dir, &store.bucket).existing(&name("v")).unwrap(), [(2, 99)]);
    };
    cared_for_before_each_request(
        follows,
        goes_on,
        |client| {
            let volume = client.existing(&name("v"))?;
            // Once more for what came while it was pulled.
            volume.pull().and_then(|_| volume.pull())?;
            Ok(volume.status().base_lsn)
        },
        |_, followed| assert_eq!(followed.unwrap(), Some(lsn(5))),
    );
    cared_for_before_each_request(
        |store, _| drop(grow(&store.client("a").volume(&name("v")).unwrap(), 4)),
        goes_on,
        |client| client.existing(&name("v")).map(drop),
        |_, opened| opened.unwrap(),
    );
    cared_for_before_each_request(
        goes_own_way,
        goes_on,
        |client| {
            let volume = client.existing(&name("v"))?;
            let refused = volume.pull().unwrap_err();
            assert!([ErrorKind::Conflict, ErrorKind::Gone].contains(&refused.kind()), "{refused:?}");
            assert!(refused.kind() == ErrorKind::Conflict || refused.to_string().contains("LSN 3 of v"), "{refused:?}");
            Ok(volume.reset()?.kept_as.is_some())
        },
        |_, reset| assert!(reset.unwrap()),
    );
}
