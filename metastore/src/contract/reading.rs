//! Ranges of headers, watching, listing, and damage.

use futures::{StreamExt, TryStreamExt};
use quire_bucket::keys;
use quire_proto::{CommitHeader, CommitKind, ErrorKind, Lsn, Metastore, ROLLUP_SPAN, Rollup, SealedCommit, VolumeName};

use super::commits::{commit, write};
use super::{Subject, grow, lsn, volume, win};

async fn tidied(s: &Subject, v: &VolumeName, n: u64) -> Vec<SealedCommit> {
    let store = s.client();
    let log = grow(&*store, v, n).await;
    for commit in log.iter().filter(|commit| commit.lsn().get().is_multiple_of(ROLLUP_SPAN)) {
        store.tidy(v, commit.header()).await.unwrap();
    }
    log
}

async fn assert_ranges(store: &dyn Metastore, v: &VolumeName, log: &[SealedCommit], case: &str) {
    let end = log.len() as u64;
    for (first, last) in [(1, end), (1, 1), (end, end), (2, 64), (64, 65), (1, 128), (60, 70), (127, 129), (65, end)] {
        let headers = store.headers(v, lsn(first), log[last as usize - 1].header()).await.unwrap();
        let expected: Vec<CommitHeader> =
            log[first as usize - 1..last as usize].iter().map(|commit| commit.header().clone()).collect();
        assert_eq!(headers, expected, "{first} to {last}, {case}");
    }
}

/// Sound, missing, damaged, truncated and forged roll-ups give the same answers.
pub async fn headers_are_linked_whatever_the_rollups_say(s: &Subject) {
    let v = volume("app");
    let log = tidied(s, &v, 130).await;
    let store = s.client();
    assert_ranges(&*store, &v, &log, "sound roll-ups").await;

    let place = keys::rollup(&v, lsn(128));
    let sound = s.bucket.get(&place).await.unwrap().bytes;
    let mut damaged = sound.to_vec();
    damaged[sound.len() / 2] ^= 1;
    s.replace(&place, damaged).await;
    assert_ranges(&*store, &v, &log, "a damaged roll-up").await;
    s.replace(&place, sound.slice(..100)).await;
    assert_ranges(&*store, &v, &log, "a truncated roll-up").await;

    // A roll-up of the right LSNs, in itself sound, of another history.
    let mut other = vec![write(&log[63])];
    while other.len() < 64 {
        other.push(write(&other[other.len() - 1]));
    }
    let forged = Rollup::encode(other.iter().map(SealedCommit::header_bytes)).unwrap();
    s.replace(&place, forged).await;
    assert_ranges(&*store, &v, &log, "a forged roll-up").await;
    // And one of this history, in the wrong place.
    let misplaced = s.bucket.get(&keys::rollup(&v, lsn(64))).await.unwrap().bytes;
    s.replace(&place, misplaced).await;
    assert_ranges(&*store, &v, &log, "a misplaced roll-up").await;

    s.bucket.delete(&place).await.unwrap();
    s.bucket.delete(&keys::rollup(&v, lsn(64))).await.unwrap();
    assert_ranges(&*store, &v, &log, "no roll-ups").await;
    let empty = store.headers(&v, lsn(3), log[1].header()).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Invalid, "{empty}");
}

pub async fn a_replaced_commit_breaks_the_chain(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 5).await;
    let other = write(&log[1]);
    s.replace(&keys::commit(&v, other.lsn()), other.object().clone()).await;
    let error = store.headers(&v, lsn(1), log[4].header()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("LSN 3") && error.remedy().is_some(), "{error}");
    s.bucket.delete(&keys::commit(&v, lsn(3))).await.unwrap();
    let error = store.headers(&v, lsn(1), log[4].header()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

pub async fn tidying_makes_up_for_a_missed_rollup(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 129).await;
    store.tidy(&v, log[126].header()).await.unwrap();
    assert!(s.bucket.head(&keys::rollup(&v, lsn(128))).await.is_err(), "only multiples of 64 have one");
    store.tidy(&v, log[127].header()).await.unwrap();
    assert_eq!((first_rolled(s, &v, 64).await, first_rolled(s, &v, 128).await), (1, 65));
    // Again, and by somebody else: nothing changes, nothing fails.
    s.client().tidy(&v, log[127].header()).await.unwrap();
    assert_eq!((first_rolled(s, &v, 64).await, first_rolled(s, &v, 128).await), (1, 65));
}

/// The first LSN in the roll-up that ends at `last`.
async fn first_rolled(s: &Subject, v: &VolumeName, last: u64) -> u64 {
    let object = s.bucket.get(&keys::rollup(v, lsn(last))).await.unwrap();
    Rollup::decode(&object.bytes).unwrap().into_headers()[0].lsn.get()
}

pub async fn a_damaged_commit_is_named(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 2).await;
    let key = keys::commit(&v, lsn(2));
    for at in [0, 20, log[1].object().len() - 1] {
        let mut bytes = log[1].object().to_vec();
        bytes[at] ^= 0x10;
        s.replace(&key, bytes).await;
        for error in [store.head(&v).await.unwrap_err(), store.commit(&v, lsn(2)).await.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(key.as_str()) && error.remedy().is_some(), "{error}");
        }
    }
    // A sound commit in the place of another.
    s.replace(&key, log[0].object().clone()).await;
    let error = s.client().commit(&v, lsn(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

pub async fn watchers_see_every_commit_in_order(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 2).await;
    let seen = |after: Option<Lsn>, n: usize| {
        let commits = s.client().watch(&v, after).take(n);
        commits.map_ok(|commit| commit.lsn().get()).try_collect::<Vec<u64>>()
    };
    let goes_on = async {
        let mut last = log[1].clone();
        for _ in 0..4 {
            last = write(&last);
            win(&*store, &v, &last).await;
        }
    };
    let (all, newer, ()) = futures::join!(seen(None, 6), seen(Some(lsn(2)), 4), goes_on);
    assert_eq!(all.unwrap(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(newer.unwrap(), [3, 4, 5, 6]);

    s.replace(&keys::commit(&v, lsn(2)), b"not a commit".to_vec()).await;
    let mut watch = s.client().watch(&v, Some(lsn(1)));
    assert_eq!(watch.next().await.unwrap().unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(watch.next().await.is_none(), "an error ends the stream");
}

pub async fn names_are_listed_by_parts_and_prefix(s: &Subject) {
    let store = s.client();
    let list = |prefix: &'static str| {
        let names = s.client().volumes(prefix).map_ok(|name| name.as_str().to_owned());
        names.try_collect::<Vec<String>>()
    };
    assert_eq!(list("").await.unwrap(), Vec::<String>::new());
    let names = ["app", "app/db", "app/db/old", "app-x", "apple", "b/c", "caf\u{e9}"];
    for name in names {
        win(&*store, &volume(name), &commit(None, CommitKind::Create)).await;
    }
    assert_eq!(list("").await.unwrap(), names);
    assert_eq!(list("app").await.unwrap(), ["app", "app/db", "app/db/old", "app-x", "apple"]);
    assert_eq!(list("app/").await.unwrap(), ["app/db", "app/db/old"]);
    assert_eq!(list("app/d").await.unwrap(), ["app/db", "app/db/old"]);
    assert_eq!(list("b").await.unwrap(), ["b/c"]);
    assert_eq!(list("caf").await.unwrap(), ["caf\u{e9}"]);
    assert_eq!(list("nothing/here").await.unwrap(), Vec::<String>::new());
}
