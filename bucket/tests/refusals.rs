//! Stores that are wrong, absent, closed or unfit: each is a clear error, soon.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use quire_bucket::{Bucket, Created, Key, Limits, Options};
use quire_proto::{Error, ErrorKind};
use quire_testkit::{Fault, OverwritingS3, Proxy, S3Server};

fn open(url: &str, variables: Vec<(String, String)>) -> Bucket {
    let limits = Limits { connect_deadline: Duration::from_secs(1), ..Limits::default() };
    Bucket::open_with(url, Options { limits, variables: Some(variables), ..Options::default() }).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn commit() -> Key {
    key("v/a/!/c/fffffffffffff/ffe")
}

/// Every error says what to do, and comes before anybody gives up waiting.
#[track_caller]
fn clear<T: std::fmt::Debug>(outcome: Result<T, Error>, kind: ErrorKind, words: &str, since: Instant) {
    let e = outcome.unwrap_err();
    assert_eq!(e.kind(), kind, "{e:?}");
    assert!(e.to_string().contains(words), "{e} does not say {words:?}");
    assert!(e.remedy().is_some(), "{e:?} lacks a remedy");
    assert!(since.elapsed() < Duration::from_secs(15), "it took {:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_overwrites_is_refused_before_anything_is_written() {
    let server = OverwritingS3::start();
    let bucket = open("s3://quire/p", server.variables());
    for _ in 0..2 {
        let now = Instant::now();
        clear(bucket.create(&commit(), Bytes::from_static(b"x")).await, ErrorKind::Invalid, "overwrites", now);
        clear(bucket.upload(&commit()).await.map(|_| ()), ErrorKind::Invalid, "overwrites", now);
    }
    assert!(!bucket.is_proven());
    let left: Vec<_> = fs::read_dir(server.folder().join("p")).into_iter().flatten().flatten().collect();
    assert!(left.iter().all(|entry| entry.path().ends_with(".quire")), "{left:?}");
    assert!(!server.folder().join("p/.quire/store").exists(), "the probe is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_not_a_missing_object() {
    let bucket = open("s3://no-such-bucket/p", S3Server::shared().variables());
    let now = Instant::now();
    clear(bucket.get(&commit()).await, ErrorKind::Invalid, "no such bucket", now);
    clear(bucket.check().await, ErrorKind::Invalid, "no such bucket", now);
    clear(bucket.create(&commit(), Bytes::from_static(b"x")).await, ErrorKind::Invalid, "no such bucket", now);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_reported_soon() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bucket = open("s3://quire/p", S3Server::shared().variables_through(&format!("127.0.0.1:{port}")));
    let now = Instant::now();
    clear(bucket.get(&commit()).await, ErrorKind::Unavailable, "onnection refused", now);
    clear(bucket.create(&commit(), Bytes::from_static(b"x")).await, ErrorKind::Unavailable, "onnection refused", now);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_denied() {
    let mut variables = S3Server::shared().variables();
    variables.iter_mut().find(|(name, _)| name == "AWS_SECRET_ACCESS_KEY").unwrap().1 = "wrong".into();
    let bucket = open("s3://quire/p", variables);
    let now = Instant::now();
    clear(bucket.get(&commit()).await, ErrorKind::Denied, "SignatureDoesNotMatch", now);
    clear(bucket.create(&commit(), Bytes::from_static(b"x")).await, ErrorKind::Denied, "SignatureDoesNotMatch", now);
    assert_eq!(bucket.counters().retries, 0, "credentials do not get better");
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_variables_and_white_space_around_others_change_nothing() {
    let server = S3Server::shared();
    let mut variables = server.variables();
    for (_, value) in &mut variables {
        *value = format!(" {value}\n");
    }
    for name in ["AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"] {
        variables.push((name.to_owned(), " ".to_owned()));
    }
    let bucket = open(&server.url("white-space"), variables);
    assert_eq!(bucket.create(&commit(), Bytes::from_static(b"x")).await.unwrap(), Created::Won);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_reads() {
    let server = S3Server::shared();
    let url = server.url("read-only");
    open(&url, server.variables()).create(&commit(), Bytes::from_static(b"x")).await.unwrap();
    let reader = open(&url, server.reader_variables());
    assert_eq!(reader.get(&commit()).await.unwrap().bytes, "x");
    assert_eq!(reader.list_first(&key("v/a/!/c"), 1).await.unwrap().len(), 1);
    let now = Instant::now();
    clear(reader.create(&key("v/a/!/c/2"), Bytes::from_static(b"x")).await, ErrorKind::Denied, "AccessDenied", now);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_touch_one_volume_writes_there() {
    let server = S3Server::shared();
    let proxy = Proxy::start(&server.address()).await;
    proxy.set_script(|request| if request.target.contains("/.quire/") { Fault::Status(403) } else { Fault::None });
    let bucket = open(&server.url("one-volume"), server.variables_through(&proxy.address()));
    assert_eq!(bucket.create(&commit(), Bytes::from_static(b"x")).await.unwrap(), Created::Won);
    bucket.head(&key("v/a/!/store")).await.expect("the volume's own marker");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_store_is_refused_for_writing_and_where_it_seems_empty() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    fs::create_dir(folder.path().join(".quire")).unwrap();
    fs::write(folder.path().join(".quire/store"), b"QSTO\x02and whatever comes then").unwrap();
    let now = Instant::now();
    let open = || Bucket::open(&url).unwrap();
    clear(open().create(&commit(), Bytes::from_static(b"x")).await, ErrorKind::Invalid, "version 2", now);
    clear(open().get(&commit()).await, ErrorKind::Invalid, "version 2", now);
    clear(open().list_first(&key("v"), 1).await, ErrorKind::Invalid, "version 2", now);
    clear(open().check().await, ErrorKind::Invalid, "version 2", now);
    fs::write(folder.path().join(".quire/store"), b"somebody's notes").unwrap();
    clear(open().create(&commit(), Bytes::from_static(b"x")).await, ErrorKind::Corrupt, "not written by Quire", now);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_there_is_said_to_be_missing_and_made_by_the_first_write() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/b");
    let bucket = Bucket::open(&format!("file://{}/", folder.display())).unwrap();
    let now = Instant::now();
    clear(bucket.get(&commit()).await, ErrorKind::NotFound, "folder of store", now);
    clear(bucket.check().await, ErrorKind::NotFound, "folder of store", now);
    assert!(bucket.list_first(&key("v"), 1).await.unwrap().is_empty());
    assert!(!folder.exists(), "reading creates nothing");
    bucket.create(&commit(), Bytes::from_static(b"x")).await.unwrap();
    bucket.check().await.unwrap();
    assert_eq!(fs::read(folder.join(commit().as_str())).unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_where_the_folder_should_be_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let bucket = Bucket::open(&format!("file://{}", file.path().display())).unwrap();
    for e in [
        bucket.create(&commit(), Bytes::from_static(b"x")).await.unwrap_err(),
        bucket.list_first(&key("v"), 1).await.unwrap_err(),
    ] {
        assert_eq!(e.kind(), ErrorKind::Io, "{e:?}");
        assert!(e.to_string().contains("Not a directory"), "{e}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_folds_cases_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    // What such a file system shows after the marker has been written.
    fs::create_dir(folder.path().join(".quire")).unwrap();
    fs::write(folder.path().join(".quire/STORE"), b"").unwrap();
    let bucket = Bucket::open(&format!("file://{}", folder.path().display())).unwrap();
    let now = Instant::now();
    clear(bucket.create(&commit(), Bytes::from_static(b"x")).await, ErrorKind::Invalid, "capital letters", now);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_pushes_once_to_a_known_store_sends_one_request() {
    let server = S3Server::shared();
    let url = server.url("known");
    let first = open(&url, server.variables());
    first.create(&commit(), Bytes::from_static(b"x")).await.unwrap();
    assert!(first.is_proven());
    let cold = open(&url, server.variables());
    cold.create(&key("v/a/!/c/2"), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(cold.counters().requests(), 3, "the probe is two requests at the same time");
    let options = Options { variables: Some(server.variables()), assume_proven: true, ..Options::default() };
    let warm = Bucket::open_with(&url, options).unwrap();
    warm.create(&key("v/a/!/c/3"), Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(warm.counters().requests(), 1);
}

#[tokio::test]
async fn a_folder_that_was_a_store_is_away_while_it_is_empty_or_missing() {
    let here = tempfile::tempdir().unwrap();
    let (store, elsewhere) = (here.path().join("store"), here.path().join("elsewhere"));
    let url = format!("file://{}", store.display());
    let open = |folders: Option<&str>| {
        let folders = folders.map(|name| here.path().join(name));
        Bucket::open_with(&url, Options { folders, ..Options::default() }).unwrap()
    };
    let (writer, reader) = (open(Some("written")), open(Some("read")));
    assert_eq!(reader.get(&commit()).await.unwrap_err().kind(), ErrorKind::NotFound, "nobody has been there yet");
    writer.create(&commit(), Bytes::from_static(b"x")).await.unwrap();
    reader.get(&commit()).await.unwrap();

    for is_there in [false, true] {
        fs::rename(&store, &elsewhere).unwrap();
        if is_there {
            fs::create_dir(&store).unwrap();
        }
        for bucket in [&writer, &reader, &open(Some("written")), &open(Some("read"))] {
            let now = Instant::now();
            let away = "was in its folder before";
            clear(bucket.create(&key("v/b/!/c/1"), Bytes::from_static(b"x")).await, ErrorKind::Unavailable, away, now);
            clear(bucket.get(&commit()).await, ErrorKind::Unavailable, away, now);
            clear(bucket.get_ranges(&commit(), std::slice::from_ref(&(0..1))).await, ErrorKind::Unavailable, away, now);
            clear(bucket.list_first(&key("v"), 1).await, ErrorKind::Unavailable, away, now);
            clear(bucket.list_names(&key("v")).await, ErrorKind::Unavailable, away, now);
            clear(bucket.list(&key("v")).try_collect::<Vec<_>>().await, ErrorKind::Unavailable, away, now);
        }
        if is_there {
            assert!(fs::read_dir(&store).unwrap().next().is_none(), "nothing was written");
            fs::remove_dir(&store).unwrap();
        }
        fs::rename(&elsewhere, &store).unwrap();
        writer.create(&commit(), Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(fs::read_to_string(here.path().join("written")).unwrap(), format!("{url}\n"), "once");
    // Gone for good: as the remedy says, or with another data directory.
    fs::remove_dir_all(&store).unwrap();
    fs::write(here.path().join("written"), "").unwrap();
    open(Some("written")).create(&commit(), Bytes::from_static(b"x")).await.unwrap();
    fs::remove_dir_all(&store).unwrap();
    open(None).create(&commit(), Bytes::from_static(b"x")).await.unwrap();
}
