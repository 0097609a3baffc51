//! Renames and appends over a network that fails: a proxy in front of a real
//! S3 server loses replies, or everything from some request on.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::time::Duration;

use quire_bucket::{Bucket, Limits, Options as BucketOptions};
use quire_metastore::contract::commits::{commit, write};
use quire_metastore::{Embedded, Options};
use quire_proto::{Appended, CommitKind, ErrorKind, Metastore, SealedCommit, VolumeName, VolumeState};
use quire_testkit::{Fault, Proxy, S3Server};

const IMPATIENT: Limits = Limits {
    deadline: Duration::from_millis(200),
    connect_deadline: Duration::from_millis(200),
    attempt: Duration::from_secs(10),
    first_pause: Duration::from_millis(100),
    hedge: None,
};

/// Two clients of one store: one through a proxy and short of patience, one direct.
struct Network {
    proxy: Proxy,
    through: Embedded,
    direct: Embedded,
}

async fn network(limits: Limits) -> Network {
    let server = S3Server::shared();
    let proxy = Proxy::start(&server.address()).await;
    let url = server.url("faults");
    let open = |variables, limits| {
        // The proxy is to see the work, not the probe.
        let options = BucketOptions { variables: Some(variables), limits, assume_proven: true, folders: None };
        Embedded::new(Bucket::open_with(&url, options).unwrap(), Options::default())
    };
    let through = open(server.variables_through(&proxy.address()), limits);
    let direct = open(server.variables(), Limits::default());
    Network { proxy, through, direct }
}

async fn win(store: &Embedded, volume: &VolumeName, commit: &SealedCommit) {
    assert!(matches!(store.append(volume, commit).await.unwrap(), Appended::Won));
}

async fn created(store: &Embedded, name: &str) -> (VolumeName, SealedCommit) {
    let volume = VolumeName::parse(name).unwrap();
    let first = commit(None, CommitKind::Create);
    win(store, &volume, &first).await;
    (volume, first)
}

#[tokio::test]
async fn an_append_whose_reply_is_lost_is_won_all_the_same() {
    let n = network(Limits::default()).await;
    let (volume, first) = created(&n.direct, "app").await;
    let mut lost = 0;
    n.proxy.set_script(move |request| {
        lost += u64::from(request.method == "PUT");
        if request.method == "PUT" && lost == 1 { Fault::DropReply } else { Fault::None }
    });
    let second = write(&first);
    win(&n.through, &volume, &second).await;
    let head = n.direct.head(&volume).await.unwrap().live().unwrap();
    assert_eq!(head.object(), second.object());
}

#[tokio::test]
async fn a_rename_whose_replies_are_all_lost_once_succeeds() {
    let n = network(Limits::default()).await;
    let (old, _) = created(&n.direct, "old").await;
    let new = VolumeName::parse("new").unwrap();
    n.proxy.set_script(|request| if request.number.is_multiple_of(2) { Fault::DropReply } else { Fault::None });
    let fork = n.through.rename(&old, &new, "tests").await.unwrap();
    assert_eq!(n.direct.head(&new).await.unwrap().live().unwrap().object(), fork.object());
    assert!(matches!(n.direct.head(&old).await.unwrap(), VolumeState::Ended { .. }));
}

/// Request after request, the network dies there, with the request lost or its
/// reply. Another client finds the volume under exactly one name, and the same
/// rename through a network that works again ends well.
#[tokio::test]
async fn a_rename_cut_off_at_any_request_is_all_or_nothing() {
    let n = network(IMPATIENT).await;
    for lost in [Fault::Refuse, Fault::DropReply] {
        for survivors in 0.. {
            let (old, _) = created(&n.direct, &format!("{lost:?}/old/{survivors}")).await;
            let new = VolumeName::parse(&format!("{lost:?}/new/{survivors}")).unwrap();
            let mut seen = 0;
            n.proxy.set_script(move |_| {
                seen += 1;
                match seen - 1 {
                    n if n < survivors => Fault::None,
                    n if n == survivors => lost,
                    _ => Fault::Refuse,
                }
            });
            let outcome = n.through.rename(&old, &new, "tests").await;
            n.proxy.clear_script();
            let (target, source) = (n.direct.head(&new).await.unwrap(), n.direct.head(&old).await.unwrap());
            match (&source, &target) {
                (VolumeState::Live(_), VolumeState::Free { .. }) => assert!(outcome.is_err(), "{survivors}"),
                (VolumeState::Ended { by, .. }, VolumeState::Live(_)) => {
                    assert_eq!(by.header().moved_to.as_ref(), Some(&new));
                }
                states => panic!("{lost:?} after {survivors} requests: {states:?}"),
            }
            let again = n.through.rename(&old, &new, "tests").await.unwrap();
            let head = n.direct.head(&new).await.unwrap().live().unwrap();
            assert_eq!(head.object(), again.object());
            match outcome {
                Ok(fork) => {
                    assert_eq!(fork.object(), again.object());
                    break;
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}"),
            }
        }
    }
}
