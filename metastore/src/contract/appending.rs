//! One winner for each LSN, and no gaps.

use bytes::Bytes;
use quire_proto::{
    Appended, Body, CommitHash, CommitKind, ErrorKind, FrameIndex, ObjectHash, PageCount, PageIdx, PageSet, PageSets,
    SealedCommit, SegmentId, SegmentRef, VolumeState,
};

use super::commits::{commit, draft, write};
use super::{Subject, assert_live, grow, lsn, volume, win};

pub async fn a_new_name_is_free(s: &Subject) {
    let state = s.client().head(&volume("nobody/here")).await.unwrap();
    assert!(matches!(&state, VolumeState::Free { head: None, .. }), "{state:?}");
    assert_eq!(state.next(), lsn(1));
    let missing = s.client().commit(&volume("nobody/here"), lsn(1)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
}

pub async fn commits_come_back_and_the_newest_is_the_head(s: &Subject) {
    let v = volume("app");
    let log = grow(&*s.client(), &v, 3).await;
    assert_live(&s.client().head(&v).await.unwrap(), &log[2]);
    for commit in &log {
        let back = s.client().commit(&v, commit.lsn()).await.unwrap();
        assert_eq!(back.object(), commit.object());
    }
    let neighbour = s.client().head(&volume("app/db")).await.unwrap();
    assert!(matches!(neighbour, VolumeState::Free { .. }), "a name below another is another name");
}

pub async fn a_second_append_at_one_lsn_is_told_who_won(s: &Subject) {
    let v = volume("app");
    let log = grow(&*s.client(), &v, 2).await;
    let rival = write(&log[0]);
    for store in [s.client(), s.client()] {
        match store.append(&v, &rival).await.unwrap() {
            Appended::Lost(winner) => assert_eq!(winner.object_hash, log[1].object_hash()),
            Appended::Won => panic!("two commits have LSN 2"),
        }
    }
    assert_live(&s.client().head(&v).await.unwrap(), &log[1]);
}

pub async fn a_retry_of_a_won_append_is_won(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 4).await;
    for commit in &log {
        win(&*store, &v, commit).await;
        win(&*s.client(), &v, commit).await;
    }
}

pub async fn gaps_are_refused(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 1).await;
    let second = write(&log[0]);
    let third = write(&second);
    for store in [store, s.client()] {
        let error = store.append(&v, &third).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("LSN 2") && error.remedy().is_some(), "{error}");
    }
    assert_live(&s.client().head(&v).await.unwrap(), &log[0]);
}

pub async fn another_history_is_a_conflict(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 2).await;
    let mut header = draft(Some(&log[1]), CommitKind::Write);
    header.parent = Some(CommitHash::of(b"the same LSN in another store"));
    let stranger = SealedCommit::seal(header, Body::default()).unwrap();
    for store in [store, s.client()] {
        let error = store.append(&v, &stranger).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    assert_live(&s.client().head(&v).await.unwrap(), &log[1]);
}

pub async fn a_creation_over_a_live_volume_is_refused(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    let log = grow(&*store, &v, 2).await;
    for store in [store, s.client()] {
        let error = store.append(&v, &commit(Some(&log[1]), CommitKind::Create)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_live(&s.client().head(&v).await.unwrap(), &log[1]);
}

pub async fn a_write_to_a_name_without_a_volume_is_refused(s: &Subject) {
    let (v, store) = (volume("app"), s.client());
    grow(&*store, &v, 1).await;
    let deleted = store.delete(&v, lsn(1), "tests").await.unwrap();
    let void = commit(Some(&deleted), CommitKind::Void);
    win(&*store, &v, &void).await;
    for store in [store, s.client()] {
        let error = store.append(&v, &write(&void)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

/// Two clients append as fast as they can, each to whatever head it sees.
pub async fn racing_appenders_have_one_winner_for_each_lsn(s: &Subject) {
    const COMMITS: u64 = 40;
    let v = volume("contended");
    grow(&*s.client(), &v, 1).await;
    let appender = || {
        let (v, store) = (v.clone(), s.client());
        tokio::spawn(async move {
            let mut won = Vec::new();
            let mut lost = 0;
            loop {
                let head = store.head(&v).await.unwrap().live().unwrap();
                if head.lsn().get() >= COMMITS {
                    return (won, lost);
                }
                let mine = write(&head);
                match store.append(&v, &mine).await.unwrap() {
                    Appended::Won => won.push(mine),
                    Appended::Lost(winner) => {
                        assert_eq!(winner.header.lsn, mine.lsn());
                        lost += 1;
                    }
                }
            }
        })
    };
    let (one, other) = (appender(), appender());
    let ((mut won, lost), (won_too, lost_too)) = (one.await.unwrap(), other.await.unwrap());
    won.extend(won_too);
    won.sort_by_key(SealedCommit::lsn);
    let lsns: Vec<u64> = won.iter().map(|commit| commit.lsn().get()).collect();
    assert_eq!(lsns, (2..=COMMITS).collect::<Vec<_>>(), "each LSN was won once; {lost} and {lost_too} races were lost");
    for commit in &won {
        assert_eq!(s.client().commit(&v, commit.lsn()).await.unwrap().object(), commit.object());
    }
}

/// Page sets and an index too large for a header, as of a big push.
pub async fn large_commits_come_back(s: &Subject) {
    let (v, store) = (volume("big"), s.client());
    let pages: PageSet = (0..40_000).filter_map(|n| PageIdx::new(n * 3 + 1)).collect();
    let segment = SegmentRef {
        id: SegmentId::random(lsn(1)).unwrap(),
        len_bytes: 1 << 30,
        hash: ObjectHash::of(b"not looked at by a metastore"),
    };
    let mut index = FrameIndex::default();
    let firsts: Vec<PageIdx> = pages.iter().step_by(16).collect();
    index.push_segment(segment, firsts.iter().zip(0..).map(|(first, n)| (*first, 16, n * 5000, 5000)));
    let mut header = draft(None, CommitKind::Create);
    header.page_count = PageCount::new(120_000);
    let body = Body { sets: PageSets::same(pages), index, inline: Bytes::new() };
    let big = SealedCommit::seal(header, body).unwrap();
    assert!(big.header().sets.is_none());
    win(&*store, &v, &big).await;
    let next = write(&big);
    win(&*store, &v, &next).await;
    assert_eq!(s.client().commit(&v, lsn(1)).await.unwrap().body(), big.body());
    let headers = s.client().headers(&v, lsn(1), next.header()).await.unwrap();
    assert_eq!(headers, [big.header().clone(), next.header().clone()]);
}
