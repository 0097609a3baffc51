//! Deletions and voids: what a name stands for afterwards.

use quire_proto::{CommitKind, ErrorKind, VolumeState};

use super::commits::{commit, write};
use super::{Subject, assert_live, grow, lsn, volume, win};

pub async fn voids_alone_leave_a_name_free(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let first = commit(None, CommitKind::Void);
    win(&*store, &v, &first).await;
    let second = commit(Some(&first), CommitKind::Void);
    win(&*store, &v, &second).await;
    let state = s.client().head(&v).await.unwrap();
    assert!(matches!(&state, VolumeState::Free { next, .. } if *next == lsn(3)), "{state:?}");
    assert_eq!(state.head().unwrap().object(), second.object());
    let created = commit(Some(&second), CommitKind::Create);
    win(&*s.client(), &v, &created).await;
    assert_live(&s.client().head(&v).await.unwrap(), &created);
}

pub async fn a_void_changes_nothing_of_a_live_volume(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 2).await;
    let void = commit(Some(&log[1]), CommitKind::Void);
    win(&*store, &v, &void).await;
    assert_live(&s.client().head(&v).await.unwrap(), &void);
    for store in [store, s.client()] {
        let creation = store.append(&v, &commit(Some(&void), CommitKind::Create)).await.unwrap_err();
        assert_eq!(creation.kind(), ErrorKind::Invalid, "{creation}");
    }
    let next = write(&void);
    win(&*s.client(), &v, &next).await;
    assert_live(&s.client().head(&v).await.unwrap(), &next);
}

pub async fn a_deleted_volume_stays_deleted_until_it_is_created_anew(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 2).await;
    let deleted = store.delete(&v, lsn(2), "tests").await.unwrap();
    assert_eq!((deleted.lsn(), deleted.header().kind), (lsn(3), CommitKind::Deleted));
    assert_eq!((deleted.header().author.as_str(), deleted.header().parent), ("tests", Some(log[1].hash())));
    match s.client().head(&v).await.unwrap() {
        VolumeState::Ended { by, head } => {
            assert_eq!((by.object(), head.object()), (deleted.object(), deleted.object()));
        }
        other => panic!("not deleted: {other:?}"),
    }
    assert_eq!(s.client().commit(&v, lsn(2)).await.unwrap().object(), log[1].object(), "history stays");
    let again = commit(Some(&deleted), CommitKind::Create);
    win(&*store, &v, &again).await;
    assert_live(&s.client().head(&v).await.unwrap(), &again);
}

pub async fn a_void_after_a_deletion_counts_as_an_lsn(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    grow(&*store, &v, 1).await;
    let deleted = store.delete(&v, lsn(1), "tests").await.unwrap();
    let void = commit(Some(&deleted), CommitKind::Void);
    win(&*store, &v, &void).await;
    let state = s.client().head(&v).await.unwrap();
    assert!(matches!(&state, VolumeState::Ended { by, .. } if by.lsn() == lsn(2)), "{state:?}");
    assert_eq!(state.next(), lsn(4));
    let again = commit(Some(&void), CommitKind::Create);
    win(&*s.client(), &v, &again).await;
    assert_live(&s.client().head(&v).await.unwrap(), &again);
}

pub async fn deleting_what_has_gone_on_is_a_conflict(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 3).await;
    let error = s.client().delete(&v, lsn(2), "tests").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("LSN 3") && error.remedy().is_some(), "{error}");
    assert_live(&store.head(&v).await.unwrap(), &log[2]);
}

pub async fn deleting_again_is_the_same_deletion(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    grow(&*store, &v, 2).await;
    let deleted = store.delete(&v, lsn(2), "tests").await.unwrap();
    let again = s.client().delete(&v, lsn(2), "tests").await.unwrap();
    assert_eq!(again.object(), deleted.object());
    let other = s.client().delete(&v, lsn(1), "tests").await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::NotFound, "{other}");
}

pub async fn deleting_nothing_is_not_found(s: &Subject) {
    let error = s.client().delete(&volume("nobody"), lsn(1), "tests").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.remedy().is_some(), "{error}");
}
