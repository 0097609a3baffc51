//! Upkeep: statements, what owners want, markers, stubs.

use bytes::Bytes;
use futures::TryStreamExt;
use quire_bucket::keys;
use quire_proto::{
    Appended, CheckpointPlace, CommitKind, ErrorKind, Marker, MarkerTarget, Metastore, Retention, SealedCommit, Span,
    Statement,
};

use super::commits::{commit, write, write_noise};
use super::{Subject, assert_live, grow, lsn, volume, win};

fn keeping(horizon: u64, kept: &[u64]) -> Statement {
    Statement { horizon: lsn(horizon), kept: kept.iter().copied().map(lsn).collect(), ..Statement::all() }
}

pub async fn statements_are_a_chain_of_which_the_newest_counts(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    assert_eq!(store.statement(&v).await.unwrap(), Statement::all());
    assert!(store.state(&v, 1, &keeping(3, &[1])).await.unwrap());
    assert!(!s.client().state(&v, 1, &keeping(2, &[])).await.unwrap(), "the number is taken");
    assert!(store.state(&v, 2, &keeping(4, &[])).await.unwrap());
    assert_eq!(s.client().statement(&v).await.unwrap(), keeping(4, &[]));
    let all: Vec<_> = store.statements(&v).try_collect().await.unwrap();
    let said: Vec<_> = all.iter().map(|stated| (stated.number, stated.statement.clone())).collect();
    assert_eq!(said, [(2, keeping(4, &[])), (1, keeping(3, &[1]))]);
    assert!(all[0].stored_ms >= all[1].stored_ms);
    assert_eq!(store.statement(&volume("app/other")).await.unwrap(), Statement::all());
}

pub async fn what_an_owner_wants_kept_is_a_chain_too(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    assert_eq!(store.retention(&v).await.unwrap(), (0, Retention::default()));
    let wanted = Retention { span: Span::Last(9), named: [lsn(4)].into() };
    assert!(store.retain(&v, 1, &wanted).await.unwrap());
    assert!(!s.client().retain(&v, 1, &Retention::default()).await.unwrap());
    assert_eq!(s.client().retention(&v).await.unwrap(), (1, wanted));
}

fn marker(log: &[SealedCommit], n: usize) -> Marker {
    let target = MarkerTarget::Commit(volume("fork"), lsn(1));
    Marker { base: (volume("app"), log[n - 1].lsn(), log[n - 1].hash()), target }
}

pub async fn a_marker_on_what_is_not_kept_is_refused(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 4).await;
    store.mark(&marker(&log, 1)).await.unwrap();
    assert!(store.state(&v, 1, &keeping(3, &[2])).await.unwrap());
    let gone = s.client().mark(&marker(&log, 1)).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Gone, "{gone}");
    assert!(gone.remedy().is_some(), "{gone}");
    for n in [2, 3, 4] {
        s.client().mark(&marker(&log, n)).await.unwrap();
    }
    let restore = s.client().restore(&v, lsn(1), lsn(4), "tests").await.unwrap_err();
    assert_eq!(restore.kind(), ErrorKind::Gone, "{restore}");
    s.client().restore(&v, lsn(2), lsn(4), "tests").await.unwrap();
}

pub async fn a_replica_marks_once_and_takes_its_marker_back(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 2).await;
    let target = |id| MarkerTarget::Replica { id, author: "ann@host".to_owned() };
    let of = |n, id| Marker { target: target(id), ..marker(&log, n) };
    for marker in [of(1, 7), of(1, 7), of(1, 8), of(2, 7)] {
        store.mark(&marker).await.unwrap();
    }
    let found: Vec<_> = s.client().markers(&v).try_collect().await.unwrap();
    let found: Vec<_> = found.into_iter().map(|marked| marked.marker.unwrap()).collect();
    assert_eq!(found.len(), 3);
    assert!([of(1, 7), of(1, 8), of(2, 7)].iter().all(|marker| found.contains(marker)), "{found:?}");
    s.client().unmark(&of(1, 7)).await.unwrap();
    s.client().unmark(&of(1, 7)).await.unwrap();
    let left: Vec<_> = s.client().markers(&v).try_collect().await.unwrap();
    assert_eq!(left.len(), 2);
    let others = s.client().unmark(&marker(&log, 1)).await.unwrap_err();
    assert_eq!(others.kind(), ErrorKind::Invalid, "{others}");
}

pub async fn markers_are_found_with_the_time_they_came_and_can_be_removed(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 2).await;
    for n in [1, 2, 2] {
        store.mark(&marker(&log, n)).await.unwrap();
    }
    let before = s.bucket.head(&keys::commit(&v, lsn(2))).await.unwrap().last_modified_ms;
    let found: Vec<_> = s.client().markers(&v).try_collect().await.unwrap();
    assert_eq!(found.iter().map(|marked| marked.lsn.get()).collect::<Vec<_>>(), [2, 2, 1]);
    assert!(found.iter().all(|marked| marked.stored_ms >= before));
    assert_eq!(found[2].marker.as_ref().unwrap(), &marker(&log, 1));
    store.drop_marker(&v, found[0].lsn, found[0].ulid).await.unwrap();
    store.drop_marker(&v, found[0].lsn, found[0].ulid).await.unwrap();
    assert_eq!(s.client().markers(&v).try_collect::<Vec<_>>().await.unwrap().len(), 2);
    let damaged = keys::marker(&v, lsn(2), found[0].ulid);
    s.bucket.create(&damaged, Bytes::from_static(b"QMRK nonsense")).await.unwrap();
    let found: Vec<_> = s.client().markers(&v).try_collect().await.unwrap();
    assert_eq!(found.iter().filter(|marked| marked.marker.is_err()).count(), 1, "a damaged one is still one");
}

/// Commits whose pages take much more room than a stub.
async fn grow_noise(store: &dyn Metastore, n: usize) -> Vec<SealedCommit> {
    let mut log = vec![commit(None, CommitKind::Create)];
    while log.len() < n {
        log.push(write_noise(&log[log.len() - 1]));
    }
    for commit in &log {
        win(store, &volume("app"), commit).await;
    }
    log
}

pub async fn a_stub_keeps_its_lsn_taken_and_knows_who_won(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow_noise(&*store, 5).await;
    let stamp = s.bucket.head(&keys::commit(&v, lsn(2))).await.unwrap().last_modified_ms;
    let saved = store.stub(&v, lsn(2)).await.unwrap();
    assert!(saved > 0);
    let left = s.bucket.get(&keys::commit(&v, lsn(2))).await.unwrap().bytes.len() as u64;
    assert_eq!(left + saved, log[1].object().len() as u64);
    assert_eq!(s.client().stub(&v, lsn(2)).await.unwrap(), 0, "nothing is left to be saved");

    let gone = s.client().commit(&v, lsn(2)).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Gone, "{gone}");
    assert_eq!(s.client().header(&v, lsn(2)).await.unwrap(), *log[1].header());
    let headers = s.client().headers(&v, lsn(1), log[4].header()).await.unwrap();
    assert_eq!(
        headers.iter().map(|header| header.hash()).collect::<Vec<_>>(),
        log.iter().map(|c| c.hash()).collect::<Vec<_>>()
    );
    assert_live(&s.client().head(&v).await.unwrap(), &log[4]);
    let found = s.client().at_time(&v, stamp).await.unwrap();
    assert!(found >= Some(lsn(2)), "it keeps the time at which it came: {found:?} at {stamp}");

    assert!(matches!(s.client().append(&v, &log[1]).await.unwrap(), Appended::Won), "a late retry");
    let mut rival = log[1].header().clone();
    rival.author = "somebody else".into();
    let rival = SealedCommit::seal(rival, log[1].body().clone()).unwrap();
    match s.client().append(&v, &rival).await.unwrap() {
        Appended::Lost(winner) => {
            assert_eq!((winner.header.hash(), winner.object_hash), (log[1].hash(), log[1].object_hash()));
        }
        Appended::Won => panic!("a collected LSN was won again"),
    }
    win(&*s.client(), &v, &write(&log[4])).await;
}

pub async fn who_slept_through_a_collection_learns_that_his_lsn_is_taken(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow_noise(&*store, 5).await;
    let rival = write(&log[1]);
    store.stub(&v, lsn(2)).await.unwrap();
    store.stub(&v, lsn(3)).await.unwrap();
    // Both its parent and the commit at its LSN have been collected.
    match s.client().append(&v, &rival).await.unwrap() {
        Appended::Lost(winner) => assert_eq!(winner.header.hash(), log[2].hash()),
        Appended::Won => panic!("a collected LSN was won again"),
    }
}

pub async fn checkpoints_are_found_newest_first_and_can_be_dropped(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let place = |n, generation| CheckpointPlace { lsn: lsn(n), generation };
    for at in [place(256, 0), place(512, 0), place(512, 1)] {
        store.put_checkpoint(&v, at, Bytes::from_static(b"index")).await.unwrap();
    }
    let all: Vec<_> = store.checkpoints(&v).try_collect().await.unwrap();
    assert_eq!(all, [(place(512, 1), 5), (place(512, 0), 5), (place(256, 0), 5)]);
    store.drop_checkpoint(&v, place(512, 1)).await.unwrap();
    store.drop_checkpoint(&v, place(512, 1)).await.unwrap();
    assert_eq!(s.client().checkpoint(&v, None).await.unwrap(), Some(place(512, 0)));
}

pub async fn the_stores_clock_goes_on(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    win(&*store, &v, &commit(None, CommitKind::Create)).await;
    let before = s.bucket.head(&keys::commit(&v, lsn(1))).await.unwrap().last_modified_ms;
    let now = store.clock_ms(&v).await.unwrap();
    assert!(now >= before && s.client().clock_ms(&v).await.unwrap() >= now);
    let left = s.bucket.list_first(&keys::volume_prefix(&v), 10).await.unwrap();
    assert!(!left.iter().any(|meta| meta.key.as_str().contains("/now/")), "{left:?}");
}
