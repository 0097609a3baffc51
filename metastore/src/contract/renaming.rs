//! Renames: whole, interrupted at every step, overtaken and forged.

use std::pin::pin;
use std::task::Poll;

use futures::future::poll_fn;
use quire_proto::{Appended, Base, CommitKind, ErrorKind, PageSet, SealedCommit, VolumeName, VolumeState};

use super::commits::{commit, moved, reservation, write};
use super::{Subject, assert_live, grow, lsn, volume, win};

/// The two commits of a rename of the volume whose head is `head` to a name
/// without commits: what is appended to the new name, and what to the old.
fn both_commits(old: &VolumeName, head: &SealedCommit, new: &VolumeName) -> (SealedCommit, SealedCommit) {
    let moved = moved(head, new);
    (reservation(None, old, head, &moved), moved)
}

fn assert_moved(state: &VolumeState, to: &VolumeName) {
    match state {
        VolumeState::Ended { by, .. } => assert_eq!(by.header().moved_to.as_ref(), Some(to)),
        other => panic!("not moved: {other:?}"),
    }
}

pub async fn a_renamed_volume_lives_under_its_new_name_only(s: &Subject) {
    let (old, new, store) = (volume("app"), volume("team/app"), s.client());
    let log = grow(&*store, &old, 3).await;
    let fork = store.rename(&old, &new, "tests").await.unwrap();
    assert_eq!((fork.lsn(), fork.header().author.as_str()), (lsn(1), "tests"));
    let base = Base::Other { volume: old.clone(), lsn: lsn(3), hash: log[2].hash() };
    assert_eq!(fork.header().base, base);
    assert_eq!(fork.body().sets.changed, PageSet::first(log[2].header().page_count));
    assert!(fork.body().sets.owned().is_empty());
    assert_live(&s.client().head(&new).await.unwrap(), &fork);
    assert_moved(&s.client().head(&old).await.unwrap(), &new);

    let error = s.client().append(&old, &write(&log[2])).await.unwrap();
    assert!(matches!(error, Appended::Lost(by) if by.header.kind == CommitKind::Moved));
    let error = s.client().delete(&old, lsn(4), "tests").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("team/app"), "{error}");
    let next = write(&fork);
    win(&*s.client(), &new, &next).await;
    assert_live(&s.client().head(&new).await.unwrap(), &next);
}

pub async fn renaming_again_is_the_same_rename(s: &Subject) {
    let (old, new, store) = (volume("app"), volume("app2"), s.client());
    grow(&*store, &old, 2).await;
    let fork = store.rename(&old, &new, "tests").await.unwrap();
    assert_eq!(s.client().rename(&old, &new, "tests").await.unwrap().object(), fork.object());
    let elsewhere = s.client().rename(&old, &volume("app3"), "tests").await.unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::NotFound, "{elsewhere}");
    let itself = s.client().rename(&new, &new, "tests").await.unwrap_err();
    assert_eq!(itself.kind(), ErrorKind::Invalid, "{itself}");
}

pub async fn a_name_in_use_is_not_taken_by_a_rename(s: &Subject) {
    let (old, new, store) = (volume("app"), volume("app2"), s.client());
    let log = grow(&*store, &old, 2).await;
    let there = grow(&*store, &new, 1).await;
    let error = s.client().rename(&old, &new, "tests").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_live(&store.head(&old).await.unwrap(), &log[1]);
    assert_live(&store.head(&new).await.unwrap(), &there[0]);
    let error = s.client().rename(&volume("nobody"), &volume("free"), "tests").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

pub async fn names_may_be_swapped_back(s: &Subject) {
    let (a, b, store) = (volume("a"), volume("b"), s.client());
    grow(&*store, &a, 2).await;
    let there = store.rename(&a, &b, "tests").await.unwrap();
    let back = s.client().rename(&b, &a, "tests").await.unwrap();
    // (a, 3) is the commit that moved it away.
    assert_eq!((there.lsn(), back.lsn()), (lsn(1), lsn(4)));
    assert_live(&s.client().head(&a).await.unwrap(), &back);
    assert_moved(&s.client().head(&b).await.unwrap(), &a);
}

pub async fn a_rename_undecided_is_finished_by_whoever_looks(s: &Subject) {
    let (old, new, store) = (volume("app"), volume("app2"), s.client());
    let log = grow(&*store, &old, 2).await;
    let (fork, moved) = both_commits(&old, &log[1], &new);
    win(&*store, &new, &fork).await;
    let (one, other) = (s.client(), s.client());
    let (one, other) = futures::join!(one.head(&new), other.head(&new));
    assert_live(&one.unwrap(), &fork);
    assert_live(&other.unwrap(), &fork);
    let state = s.client().head(&old).await.unwrap();
    assert_moved(&state, &new);
    assert_eq!(state.head().unwrap().object(), moved.object());
    // The one who was interrupted goes on, and finds it done.
    win(&*store, &old, &moved).await;
    assert_eq!(store.rename(&old, &new, "tests").await.unwrap().object(), fork.object());
}

pub async fn a_rename_undecided_is_finished_by_an_append(s: &Subject) {
    let (old, new, store) = (volume("app"), volume("app2"), s.client());
    let log = grow(&*store, &old, 2).await;
    let (fork, _) = both_commits(&old, &log[1], &new);
    win(&*store, &new, &fork).await;
    let next = write(&fork);
    win(&*store, &new, &next).await;
    assert_moved(&s.client().head(&old).await.unwrap(), &new);
    assert_live(&s.client().head(&new).await.unwrap(), &next);
}

pub async fn a_rename_overtaken_by_a_commit_counts_for_nothing(s: &Subject) {
    let (old, new, store) = (volume("app"), volume("app2"), s.client());
    let log = grow(&*store, &old, 2).await;
    let (fork, moved) = both_commits(&old, &log[1], &new);
    win(&*store, &new, &fork).await;
    let next = write(&log[1]);
    win(&*s.client(), &old, &next).await;

    let state = s.client().head(&new).await.unwrap();
    assert!(matches!(&state, VolumeState::Free { next, .. } if *next == lsn(2)), "{state:?}");
    let lost = store.append(&old, &moved).await.unwrap();
    assert!(matches!(lost, Appended::Lost(winner) if winner.object_hash == next.object_hash()));
    assert_live(&s.client().head(&old).await.unwrap(), &next);
    let error = s.client().append(&new, &write(&fork)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    // The name is free for another rename.
    let fork = s.client().rename(&old, &new, "tests").await.unwrap();
    assert_eq!(fork.lsn(), lsn(2));
    assert_live(&s.client().head(&new).await.unwrap(), &fork);
}

pub async fn a_rename_overtaken_by_a_void_counts_for_nothing(s: &Subject) {
    let (old, new, store) = (volume("app"), volume("app2"), s.client());
    let log = grow(&*store, &old, 2).await;
    let (fork, _) = both_commits(&old, &log[1], &new);
    win(&*store, &new, &fork).await;
    let void = commit(Some(&log[1]), CommitKind::Void);
    win(&*s.client(), &old, &void).await;
    let state = s.client().head(&new).await.unwrap();
    assert!(matches!(state, VolumeState::Free { .. }), "{state:?}");
    assert_live(&s.client().head(&old).await.unwrap(), &void);
}

pub async fn a_forged_reservation_moves_nothing(s: &Subject) {
    let (old, store) = (volume("app"), s.client());
    let log = grow(&*store, &old, 2).await;
    let elsewhere = moved(&log[1], &volume("app3"));
    let too_early = moved(&log[0], &volume("app2/1"));
    let no_move = commit(Some(&log[1]), CommitKind::Deleted);
    for (n, carried) in [elsewhere, too_early, no_move].into_iter().enumerate() {
        let new = volume(&format!("app2/{n}"));
        win(&*store, &new, &reservation(None, &old, &log[1], &carried)).await;
        let error = s.client().head(&new).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("carries another commit") && error.remedy().is_some(), "{error}");
        assert_live(&s.client().head(&old).await.unwrap(), &log[1]);
    }
}

/// The client's process dies at each point where a rename waits for the store;
/// another client then finds the volume under exactly one of the names.
pub async fn a_rename_dropped_at_any_point_is_all_or_nothing(s: &Subject) {
    for waits in 0.. {
        let (old, new) = (volume(&format!("old/{waits}")), volume(&format!("new/{waits}")));
        grow(&*s.client(), &old, 2).await;
        let done = dropped_after(waits, s.client().rename(&old, &new, "tests")).await;
        let other = s.client();
        let target = other.head(&new).await.unwrap();
        let source = other.head(&old).await.unwrap();
        match (&source, &target) {
            (VolumeState::Live(_), VolumeState::Free { .. }) => assert!(done.is_none(), "after {waits} waits"),
            (VolumeState::Ended { .. }, VolumeState::Live(_)) => assert_moved(&source, &new),
            states => panic!("after {waits} waits: {states:?}"),
        }
        // What the dead client had sent may still arrive and be taken for a rival once.
        let mut retried = other.rename(&old, &new, "tests").await;
        if retried.as_ref().is_err_and(|e| e.kind() == ErrorKind::Conflict) {
            retried = other.rename(&old, &new, "tests").await;
        }
        assert_live(&other.head(&new).await.unwrap(), &retried.unwrap());
        assert_moved(&other.head(&old).await.unwrap(), &new);
        if done.is_some() {
            return;
        }
    }
}

/// Runs a future until it has waited so often, then drops it.
async fn dropped_after<T>(waits: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut waited = 0;
    poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if waited == waits => Poll::Ready(None),
        Poll::Pending => {
            waited += 1;
            Poll::Pending
        }
    })
    .await
}
