//! What those who look after a server ask of it.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use quire_bucket::Bucket;
use quire_channel::{Connection, Limits};
use quire_maintenance::Server as Admin;
use quire_maintenance::collect::{Options as CollectOptions, Stores};
use quire_maintenance::verify::Depth;
use quire_maintenance::{collect, compact, verify};
use quire_metastore::contract::commits::{commit, write, write_noise};
use quire_proto::wire::admin_client::AdminClient;
use quire_proto::wire::run_info::Outcome;
use quire_proto::wire::{self, error_of};
use quire_proto::{
    Appended, CommitKind, ErrorKind, Lsn, Metastore, PageIdx, PageSet, PageSize, Pagestore, Result, SealedCommit, Span,
    VolumeName, encode_frame,
};
use quire_serve::{LogFilter, Options, Server, Serving, Upkeep};

/// A filter that filters nothing.
struct Filter(Mutex<String>);

impl LogFilter for Filter {
    fn get(&self) -> String {
        self.0.lock().clone()
    }

    fn set(&self, filter: &str) -> Result<()> {
        if filter.contains(' ') {
            return Err(quire_proto::Error::invalid("it has a space"));
        }
        *self.0.lock() = filter.to_owned();
        Ok(())
    }
}

struct House {
    _notes: tempfile::TempDir,
    bucket: Bucket,
    direct: quire_metastore::Embedded,
    connection: Connection,
    admin: Admin,
    serving: Serving,
}

impl House {
    fn new(quota: Option<u64>) -> House {
        let notes = tempfile::tempdir().unwrap();
        let bucket = Bucket::open("memory://").unwrap();
        let direct = quire_metastore::Embedded::new(bucket.clone(), Default::default());
        let options = Options::new(Arc::new(direct.clone()), Arc::new(quire_pagestore::Embedded::new(bucket.clone())));
        let server = Server::bind(Options {
            volume_quota: quota.and_then(NonZeroU64::new),
            log_filter: Some(Arc::new(Filter(Mutex::new("warn".into())))),
            store_url: "memory://".into(),
            upkeep: Upkeep { notes: Some(notes.path().to_owned()), ..options.upkeep.clone() },
            ..options
        })
        .unwrap();
        let url = format!("http://{}", server.address()).parse().unwrap();
        let connection = Connection::open(&url, None, Limits::default()).unwrap();
        let admin = Admin::new(connection.clone());
        House { _notes: notes, bucket, direct, connection, admin, serving: server.spawn() }
    }

    fn raw(&self) -> AdminClient<quire_channel::Service> {
        AdminClient::new(self.connection.service())
    }

    /// A volume of so many commits, each of them scattered over a segment of its own.
    async fn fill(&self, volume: &VolumeName, commits: u64) -> SealedCommit {
        let mut head = commit(None, CommitKind::Create);
        assert!(matches!(self.direct.append(volume, &head).await.unwrap(), Appended::Won));
        for _ in 1..commits {
            head = write_noise(&head);
            assert!(matches!(self.direct.append(volume, &head).await.unwrap(), Appended::Won));
        }
        head
    }
}

fn name(text: &str) -> VolumeName {
    VolumeName::parse(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_made_named_shown_and_ended() {
    let house = House::new(None);
    let mut admin = house.raw();
    let create = |volume: &str, page_size| wire::CreateVolumeRequest { volume: volume.into(), page_size };
    let made = admin.create_volume(create("team/app", 8192)).await.unwrap().into_inner();
    assert_eq!((made.state.as_str(), made.head.as_ref().unwrap().page_size), ("live", 8192));
    let again = admin.create_volume(create("team/app", 0)).await.unwrap_err();
    assert_eq!(error_of(&again, "the server").kind(), ErrorKind::AlreadyExists);
    for wrong in [create("team/b", 1000), create("../b", 0), create("", 0)] {
        assert_eq!(error_of(&admin.create_volume(wrong).await.unwrap_err(), "the server").kind(), ErrorKind::Invalid);
    }
    // It is one as any other: whoever opens it writes to it.
    let head = house.direct.head(&name("team/app")).await.unwrap().live().unwrap();
    assert_eq!(head.header().page_size, PageSize::try_new(8192).unwrap());

    let rename = wire::RenameVolumeRequest { volume: "team/app".into(), new_name: "team/new".into() };
    let renamed = admin.rename_volume(rename).await.unwrap().into_inner();
    assert_eq!((renamed.volume.as_str(), renamed.state.as_str()), ("team/new", "live"));
    house.fill(&name("other"), 7).await;
    let list = async |prefix: &str, after: &str, limit| {
        let asked = wire::ListVolumeInfosRequest { prefix: prefix.into(), after: after.into(), limit };
        let listed = house.raw().list_volumes(asked).await.unwrap().into_inner();
        let listed: Vec<_> = listed.try_collect().await.unwrap();
        listed.iter().map(|volume| format!("{} {}", volume.volume, volume.state)).collect::<Vec<_>>()
    };
    assert_eq!(list("", "", 0).await, ["other live", "team/app ended", "team/new live"]);
    assert_eq!(list("team/n", "", 0).await, ["team/new live"]);
    assert_eq!(list("", "", 1).await, ["other live"]);
    assert_eq!(list("", "other", 1).await, ["team/app ended"]);
    assert_eq!(list("", "team/app", 9).await, ["team/new live"]);

    let log = async |volume: &str, before_lsn, limit| {
        let asked = wire::GetLogRequest { volume: volume.into(), before_lsn, limit };
        let listed = house.raw().get_log(asked).await.unwrap().into_inner();
        listed.map(|commit| commit.unwrap().lsn).collect::<Vec<_>>().await
    };
    assert_eq!(log("other", 0, 0).await, [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(log("other", 0, 2).await, [7, 6]);
    assert_eq!(log("other", 6, 2).await, [5, 4]);
    assert_eq!(log("other", 100, 1).await, [7]);
    assert!(log("other", 1, 5).await.is_empty());

    // However long: the log is read in pieces.
    let mut last = commit(None, CommitKind::Create);
    for n in 1..=2500 {
        assert!(matches!(house.direct.append(&name("long"), &last).await.unwrap(), Appended::Won), "{n}");
        last = write(&last);
    }
    assert_eq!(log("long", 0, 3000).await, (1..=2500).rev().collect::<Vec<_>>());

    let delete = |expected_lsn| wire::DeleteVolumeRequest { volume: "other".into(), expected_lsn };
    assert_eq!(error_of(&admin.delete_volume(delete(3)).await.unwrap_err(), "the server").kind(), ErrorKind::Conflict);
    assert_eq!(admin.delete_volume(delete(0)).await.unwrap().into_inner().state, "ended");
    assert_eq!(error_of(&admin.delete_volume(delete(0)).await.unwrap_err(), "the server").kind(), ErrorKind::NotFound);
    // And made again, after what was there.
    let made = admin.create_volume(create("other", 0)).await.unwrap().into_inner();
    assert_eq!(made.head.unwrap().lsn, 9);
    assert_eq!(house.admin.describe(&name("nobody")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_at_the_server_does_and_says_what_it_does_and_says_here() {
    let house = House::new(None);
    // Names of the same length: they are in the objects.
    let (there, here) = (name("peer"), name("here"));
    for volume in [&there, &here] {
        house.fill(volume, 40).await;
    }
    let stores =
        Stores::new(Arc::new(house.direct.clone()), Arc::new(quire_pagestore::Embedded::new(house.bucket.clone())));
    let compacted = house.admin.compact(there.clone()).await.unwrap();
    let expected =
        compact::compact(stores.reader.clone(), stores.pages.clone(), here.clone(), Default::default()).await.unwrap();
    assert_eq!(compacted, expected);
    assert!(compacted.steps > 0);

    for volume in [&there, &here] {
        collect::keep(&stores, volume, |retention| retention.span = Span::Last(5)).await.unwrap();
    }
    let options = CollectOptions { grace_ms: 0, ..CollectOptions::default() };
    let report = CollectOptions { report_at_ms: Some(0), ..options };
    let before = house.bucket.counters().put;
    let dry = house.admin.collect(&there, &report).await.unwrap().unwrap();
    let expected = collect::collect(&stores, &here, &report).await.unwrap().unwrap();
    assert_eq!((format!("{dry:?}"), house.bucket.counters().put), (format!("{expected:?}"), before));
    let collected = house.admin.collect(&there, &options).await.unwrap().unwrap();
    let expected = collect::collect(&stores, &here, &options).await.unwrap().unwrap();
    assert_eq!(format!("{collected:?}"), format!("{expected:?}"));
    assert!(house.admin.collect(&name("nobody"), &options).await.unwrap().is_none());

    let report = house.admin.verify(there.clone(), Depth::Deep).await.unwrap();
    let expected = verify::verify(stores.reader.clone(), here.clone(), Depth::Deep).await.unwrap();
    assert_eq!(format!("{report:?}").replace("peer", "here"), format!("{expected:?}"));
    assert_eq!(house.admin.verify(name("nobody"), Depth::Plain).await.unwrap_err().kind(), ErrorKind::NotFound);

    let runs = house.admin.runs(Some(&there)).await.unwrap();
    let works: Vec<_> = runs.iter().map(|run| run.work.as_str()).collect();
    assert_eq!(works, ["verify-deep", "collect", "collect", "compact"]);
    assert!(runs.iter().all(|run| run.ended_ms.is_some()));
    let all = house.admin.runs(None).await.unwrap();
    assert!(matches!(&all[0].outcome, Some(Outcome::Failed(problem)) if problem.contains("nobody")), "{:?}", all[0]);
    let described = house.admin.describe(&there).await.unwrap();
    assert_eq!((described.verified_lsn, described.keeps.as_str()), (40, "last 5"));
    assert!(described.verified_ms.is_some() && described.segments.unwrap().objects > 0);
    assert!(house.admin.describe(&here).await.unwrap().verified_ms.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_says_how_it_is_and_ends_when_it_is_told_to() {
    let house = House::new(None);
    let volume = name("app");
    house.fill(&volume, 3).await;
    let remote = quire_metastore::Remote::new(house.connection.clone());
    let mut watching = remote.watch(&volume, None);
    watching.next().await.unwrap().unwrap();
    let info = house.admin.info().await.unwrap();
    assert_eq!((info.role.as_str(), info.watchers, info.draining), ("all", 1, false));
    assert_eq!(info.store.unwrap().url, "memory://");
    assert!(info.cache.is_none() && info.calls_in_flight >= 2);
    assert_eq!(house.admin.describe(&volume).await.unwrap().watchers, 1);
    let clients = house.admin.clients().await.unwrap();
    assert_eq!(clients.len(), 1);
    assert!(clients[0].calls >= 3 && clients[0].calls_in_flight >= 1 && clients[0].subject.is_empty());

    assert_eq!(house.admin.log_filter().await.unwrap(), "warn");
    assert_eq!(house.admin.set_log_filter("info").await.unwrap(), "info");
    assert_eq!(house.admin.set_log_filter("a b").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(house.admin.log_filter().await.unwrap(), "info");

    let issued = house.admin.issue_token(&quire_proto::Grant::everything(), None).await.unwrap_err();
    assert_eq!(issued.kind(), ErrorKind::Denied);

    house.admin.drain(Duration::ZERO).await.unwrap();
    drop(watching);
    // It ends by itself.
    house.serving.ended().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_takes_no_more_than_its_quota_and_says_what_to_do() {
    let house = House::new(Some(200_000));
    let volume = name("app");
    let head = house.fill(&volume, 2).await;
    let pages = quire_pagestore::Remote::new(house.connection.clone());
    let write = async |count: u32| {
        let frames = (1..=count).map(|n| {
            let mut content = [0; 4096];
            rand::fill(&mut content[..]);
            encode_frame(&PageSet::from_iter([PageIdx::new(n).unwrap()]), PageSize::DEFAULT, &content)
        });
        pages.write(&volume, Lsn::new(3).unwrap(), futures::stream::iter(frames.collect::<Vec<_>>()).boxed()).await
    };
    write(30).await.unwrap();
    let full = write(30).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Full);
    assert!(full.message().contains("195.3 KiB") && full.remedy().unwrap().contains("quire gc app"), "{full:?}");
    // What is left may still be written, and reading goes on.
    let remote = quire_metastore::Remote::new(house.connection.clone());
    assert!(matches!(remote.append(&volume, &write_noise(&head)).await.unwrap(), Appended::Won));
    assert_eq!(house.admin.describe(&volume).await.unwrap().quota_bytes, 200_000);
    // Others have their own.
    assert!(matches!(remote.append(&name("b"), &commit(None, CommitKind::Create)).await.unwrap(), Appended::Won));
}
