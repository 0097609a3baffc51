//! The whole surface of the services, method by method as the descriptors list them: who is refused what, and that no
//! bytes harm the server.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost_types::FileDescriptorSet;
use quire_bucket::Bucket;
use quire_metastore::contract::commits;
use quire_proto::wire::{self, watch_request};
use quire_proto::{
    CommitHash, CommitHeader, CommitId, CommitKind, Lsn, Marker, MarkerTarget, PageSize, SealedCommit, VolumeName,
};
use quire_serve::tokens::{SigningKey, Verifier};
use quire_serve::{CacheOptions, Grant, Options, Right, Server, Serving, VolumePattern};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Bytes as they are.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A server in this process, and the key that it goes by.
struct House {
    _dir: TempDir,
    key: SigningKey,
    address: SocketAddr,
    _serving: Serving,
}

impl House {
    fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        SigningKey::generate().unwrap().save(&file).unwrap();
        let bucket = Bucket::open("memory://").unwrap();
        let server = Server::bind(Options {
            tokens: Some(Verifier::load(SigningKey::public_file(&file)).unwrap()),
            signing_key: Some(Arc::new(SigningKey::load(&file).unwrap())),
            poll_interval: Duration::from_millis(20),
            cache: CacheOptions { memory_bytes: 64 << 20, disk: None },
            ..Options::new(
                Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
                Arc::new(quire_pagestore::Embedded::new(bucket)),
            )
        })
        .unwrap();
        let address = server.address();
        House { _dir: dir, key: SigningKey::load(&file).unwrap(), address, _serving: server.spawn() }
    }

    fn token(&self, volumes: &str, rights: &[Right]) -> String {
        let volumes = vec![VolumePattern::parse(volumes).unwrap()];
        let grant = Grant { subject: "test".into(), volumes, rights: rights.to_vec(), expires: None, from_lsn: None };
        self.key.sign(&grant, SystemTime::now()).unwrap()
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }
}

/// Calls a method with one message, and takes the first answer.
async fn ask(channel: &Channel, method: &str, message: Bytes, token: Option<&str>) -> Result<Bytes, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(20));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut answers = client.server_streaming(request, method.parse().unwrap(), Raw).await?.into_inner();
    Ok(answers.message().await?.unwrap_or_default())
}

/// All methods of Quire's services.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap();
    let services = set.file.iter().flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
    let methods = services.flat_map(|(package, service)| {
        service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
    });
    methods.collect()
}

const VOLUME: &str = "team/app";
/// Whoever has a token may ask these.
const OF_ANYONE: [&str; 2] = ["WhoAmI", "IssueToken"];
/// And these, who may administer every volume.
const OF_OPERATORS: [&str; 5] = ["GetServer", "ListClients", "GetLogFilter", "SetLogFilter", "Drain"];

/// What each method asks of its caller, on [`VOLUME`].
fn rights() -> BTreeMap<&'static str, Right> {
    let read = "Head Open GetCommit GetHeader GetHeaders Watch AtTime GetStoredTimes FindCheckpoint ReadCheckpoint Mark Unmark \
                GetStatement ReadClock GetRetention ListStatements ListMarkers ListCheckpoints ReadFrames VerifySegment ScanSegment \
                ListSegments DescribeVolume GetLog RunMaintenance ListRuns";
    let write = "Append Tidy Restore PutCheckpoint WriteFrames CreateVolume";
    let admin =
        "Delete Rename Retain PutStatement DropMarker DropCheckpoint Stub DropSegment RenameVolume DeleteVolume";
    let of = |names: &'static str, right| names.split_whitespace().map(move |name| (name, right));
    of(read, Right::Read).chain(of(write, Right::Write)).chain(of(admin, Right::Admin)).collect()
}

fn commit(kind: CommitKind) -> SealedCommit {
    let header = CommitHeader::draft(Lsn::FIRST, kind, CommitId::new([7; 16]), PageSize::DEFAULT);
    SealedCommit::seal(header, Default::default()).unwrap()
}

/// A message for a method that names a volume.
fn message(method: &str, volume: &str) -> Bytes {
    let volume = volume.to_owned();
    let encoded = match method {
        "Mark" | "Unmark" => {
            let name = VolumeName::parse(&volume).unwrap();
            let target = MarkerTarget::Reader { span_ms: 1000, author: String::new() };
            let marker = Marker { base: (name, Lsn::FIRST, CommitHash::new([1; 32])), target };
            wire::MarkRequest { marker: marker.encode().into() }.encode_to_vec()
        }
        "Watch" => {
            let subscribe = vec![watch_request::Subscription { volume, after_lsn: 0 }];
            wire::WatchRequest { subscribe }.encode_to_vec()
        }
        // The messages of both begin in the same way.
        "Rename" | "RenameVolume" => {
            let new_name = format!("{volume}2");
            wire::RenameVolumeRequest { volume, new_name }.encode_to_vec()
        }
        "SetLogFilter" => wire::LogFilter { filter: "info".into() }.encode_to_vec(),
        "IssueToken" => {
            let asked = wire::IssueTokenRequest {
                subject: "friend".into(),
                volumes: vec![volume],
                rights: vec!["read".into()],
                valid_ms: Some(60_000),
                from_lsn: 0,
            };
            asked.encode_to_vec()
        }
        "Drain" => wire::DrainRequest { wait_ms: 3_600_000 }.encode_to_vec(),
        // All others have the volume as their first field.
        _ => wire::VolumeRequest { volume }.encode_to_vec(),
    };
    encoded.into()
}

fn short(method: &str) -> &str {
    method.rsplit_once('/').unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_without_a_token_but_to_say_how_the_server_is() {
    let house = House::new();
    let channel = house.channel().await;
    let reflection = ["v1", "v1alpha"].map(|v| format!("/grpc.reflection.{v}.ServerReflection/ServerReflectionInfo"));
    for method in methods().iter().chain(&reflection) {
        for token in [None, Some("x"), Some("a.b.c")] {
            let refused = ask(&channel, method, message(short(method), VOLUME), token).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{method}: {refused}");
        }
    }
    ask(&channel, "/grpc.health.v1.Health/Check", Bytes::new(), None).await.unwrap();
    let token = house.token("*", &Right::ALL);
    let unknown = ask(&channel, "/quire.v1.Metastore/Nonsense", Bytes::new(), Some(&token)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_method_asks_for_its_right_on_the_volume_it_names() {
    let house = House::new();
    let channel = house.channel().await;
    let rights = rights();
    let all = methods();
    let of_volumes = |method: &&String| {
        let name = short(method);
        name != "ListVolumes" && !OF_ANYONE.contains(&name) && !OF_OPERATORS.contains(&name)
    };
    assert_eq!(all.iter().filter(of_volumes).count(), rights.len());
    for method in all.iter().filter(of_volumes) {
        let needed = rights[short(method)];
        let others: Vec<Right> = Right::ALL.into_iter().filter(|right| *right != needed).collect();
        let denied =
            [house.token(VOLUME, &others), house.token("team/ap", &Right::ALL), house.token("other/*", &Right::ALL)];
        for token in &denied {
            let refused = ask(&channel, method, message(short(method), VOLUME), Some(token)).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{method}: {refused}");
        }
        // A stream of commits of a volume without one stands still.
        if short(method) == "Watch" {
            continue;
        }
        let token = house.token("team/*", &[needed]);
        if let Err(status) = ask(&channel, method, message(short(method), VOLUME), Some(&token)).await {
            assert!(!matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated), "{method}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_the_server_is_for_those_who_may_administer_every_volume() {
    let house = House::new();
    let channel = house.channel().await;
    let all = methods();
    let operator = house.token("*", &[Right::Admin]);
    for name in OF_OPERATORS {
        let method = all.iter().find(|method| short(method) == name).unwrap();
        for token in [house.token("team/*", &Right::ALL), house.token("*", &[Right::Read, Right::Write])] {
            let refused = ask(&channel, method, message(name, VOLUME), Some(&token)).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{method}: {refused}");
        }
        match ask(&channel, method, message(name, VOLUME), Some(&operator)).await {
            Ok(_) => {}
            // This server has no log of its own.
            Err(status) => assert_eq!((name.ends_with("LogFilter"), status.code()), (true, Code::InvalidArgument)),
        }
    }
    // It has said that it will end, and answers until it does.
    let server = ask(&channel, "/quire.v1.Admin/GetServer", Bytes::new(), Some(&operator)).await.unwrap();
    assert!(wire::ServerInfo::decode(server).unwrap().draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_upkeep_asks_for_its_right() {
    use wire::run_maintenance_request::Work;
    let house = House::new();
    let channel = house.channel().await;
    let writer = house.token(VOLUME, &[Right::Write]);
    let append = wire::AppendRequest { volume: VOLUME.into(), commit: commit(CommitKind::Create).object().clone() };
    ask(&channel, "/quire.v1.Metastore/Append", append.encode_to_vec().into(), Some(&writer)).await.unwrap();
    let collect = |dry_run| Work::Collect(wire::CollectWork { grace_ms: 1000, dry_run });
    let works = [
        (Work::Checkpoint(wire::Empty {}), Right::Write),
        (Work::Compact(wire::Empty {}), Right::Write),
        (collect(true), Right::Read),
        (collect(false), Right::Admin),
        (Work::Verify(wire::VerifyWork { deep: true }), Right::Read),
    ];
    for (work, needed) in works {
        for right in Right::ALL {
            let asked = wire::RunMaintenanceRequest { volume: VOLUME.into(), work: Some(work) };
            // Whoever writes or administers reads too, here.
            let token = house.token("team/*", &[Right::Read, right]);
            let ran = ask(&channel, "/quire.v1.Admin/RunMaintenance", asked.encode_to_vec().into(), Some(&token)).await;
            if right == needed || needed == Right::Read {
                assert!(wire::RunInfo::decode(ran.unwrap()).unwrap().ended_ms.is_some(), "{work:?} {right}");
            } else {
                assert_eq!(ran.unwrap_err().code(), Code::PermissionDenied, "{work:?} {right}");
            }
        }
    }
    // What others do not read they do not hear of.
    let runs = async |token: &str| ask(&channel, "/quire.v1.Admin/ListRuns", Bytes::new(), Some(token)).await.unwrap();
    assert!(runs(&house.token("other", &Right::ALL)).await.is_empty());
    assert_eq!(wire::RunInfo::decode(runs(&writer_of_all(&house)).await).unwrap().volume, VOLUME);
}

/// Whoever reads the new name finishes a rename that is reserved there: it ends the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_ends_another_volume_asks_for_the_right_to_end_it() {
    let house = House::new();
    let channel = house.channel().await;
    let [old, new] = ["team/app", "team/mine"].map(|name| VolumeName::parse(name).unwrap());
    let append = async |volume: &VolumeName, commit: &SealedCommit, token: &str| {
        let asked = wire::AppendRequest { volume: volume.to_string(), commit: commit.object().clone() };
        ask(&channel, "/quire.v1.Metastore/Append", asked.encode_to_vec().into(), Some(token)).await
    };
    let owner = house.token("team/*", &Right::ALL);
    let head = commit(CommitKind::Create);
    append(&old, &head, &owner).await.unwrap();
    let moved = commits::moved(&head, &new);
    let reservation = commits::reservation(None, &old, &head, &moved);
    let writer = house.token("team/*", &[Right::Read, Right::Write]);
    let refused = append(&new, &reservation, &writer).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    append(&new, &reservation, &owner).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_somebody_made_up_is_not_looked_for_far() {
    let house = House::new();
    let channel = house.channel().await;
    let token = house.token("team/*", &[Right::Read]);
    for last_lsn in [1 << 62, Lsn::MAX] {
        let (last, kind) = (Lsn::new(last_lsn).unwrap(), CommitKind::Write);
        let mut header = CommitHeader::draft(last, kind, CommitId::new([7; 16]), PageSize::DEFAULT);
        header.parent = Some(CommitHash::new([1; 32]));
        let last = SealedCommit::seal(header, Default::default()).unwrap().header().encode().unwrap();
        for (first_lsn, expected) in [(1, Code::InvalidArgument), (last_lsn - 2000, Code::NotFound)] {
            let asked = wire::GetHeadersRequest { volume: VOLUME.into(), first_lsn, last: last.clone() };
            let asked = asked.encode_to_vec().into();
            let refused = ask(&channel, "/quire.v1.Metastore/GetHeaders", asked, Some(&token)).await.unwrap_err();
            assert_eq!(refused.code(), expected, "{refused}");
        }
    }
    let subscribe = vec![watch_request::Subscription { volume: VOLUME.into(), after_lsn: u64::MAX }];
    let asked = wire::WatchRequest { subscribe }.encode_to_vec();
    // A stream of commits of a volume without one stands still.
    tokio::select! {
        told = ask(&channel, "/quire.v1.Metastore/Watch", asked.into(), Some(&token)) => panic!("{told:?}"),
        head = ask(&channel, "/quire.v1.Metastore/Head", message("Head", VOLUME), Some(&token)) => drop(head.unwrap()),
    }
}

fn writer_of_all(house: &House) -> String {
    house.token("*", &[Right::Read, Right::Write])
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_a_token_that_allows_more_than_his_own() {
    let house = House::new();
    let channel = house.channel().await;
    let own = Grant {
        subject: "ada".into(),
        volumes: vec![VolumePattern::parse("team/*").unwrap()],
        rights: vec![Right::Read, Right::Write],
        expires: Some(SystemTime::now() + Duration::from_secs(100)),
        from_lsn: Lsn::new(3),
    };
    let own = house.key.sign(&own, SystemTime::now()).unwrap();
    let issue = async |volumes: &[&str], rights: &[&str], valid_ms| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let asked = wire::IssueTokenRequest {
            subject: "bob".into(),
            volumes: texts(volumes),
            rights: texts(rights),
            valid_ms,
            from_lsn: 0,
        };
        let issued = ask(&channel, "/quire.v1.Admin/IssueToken", asked.encode_to_vec().into(), Some(&own)).await;
        issued.map(|issued| wire::IssueTokenResponse::decode(issued).unwrap())
    };
    for (volumes, rights) in [(&["*"][..], &["read"][..]), (&["team/a", "app"], &["read"]), (&["team/a"], &["admin"])] {
        assert_eq!(issue(volumes, rights, None).await.unwrap_err().code(), Code::PermissionDenied);
    }
    for (volumes, rights) in
        [(&[][..], &["read"][..]), (&["team/a"], &[]), (&["team/a"], &["rule"]), (&["a**"], &["read"])]
    {
        assert_eq!(issue(volumes, rights, None).await.unwrap_err().code(), Code::InvalidArgument);
    }
    // It ends with the token that it was asked for by, at the latest.
    for valid_ms in [None, Some(1_000_000_000), Some(u64::MAX)] {
        let Ok(issued) = issue(&["team/a"], &["read"], valid_ms).await else {
            assert_eq!(valid_ms, Some(u64::MAX));
            continue;
        };
        let who = ask(&channel, "/quire.v1.Admin/WhoAmI", Bytes::new(), Some(&issued.token)).await.unwrap();
        let who = wire::GrantInfo::decode(who).unwrap();
        assert_eq!(
            (who.subject.as_str(), &who.volumes[..], &who.rights[..]),
            ("bob", &["team/a".into()][..], &["read".into()][..])
        );
        assert_eq!(who.from_lsn, 3, "no further back");
        let left = Duration::from_millis(who.expires_ms.unwrap())
            .saturating_sub(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap());
        assert!((Duration::from_secs(60)..=Duration::from_secs(101)).contains(&left), "{left:?}");
        let denied = ask(&channel, "/quire.v1.Metastore/Head", message("Head", VOLUME), Some(&issued.token)).await;
        assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
        ask(&channel, "/quire.v1.Metastore/Head", message("Head", "team/a"), Some(&issued.token)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_ends_a_volume_or_begins_it_with_anothers_pages_asks_for_more() {
    let house = House::new();
    let channel = house.channel().await;
    let append = async |commit: &SealedCommit, token: &str| {
        let request = wire::AppendRequest { volume: VOLUME.into(), commit: commit.object().clone() };
        ask(&channel, "/quire.v1.Metastore/Append", request.encode_to_vec().into(), Some(token)).await
    };
    let writer = house.token(VOLUME, &[Right::Read, Right::Write]);
    let mut fork = CommitHeader::draft(Lsn::FIRST, CommitKind::Fork, CommitId::new([8; 16]), PageSize::DEFAULT);
    let secret = VolumeName::parse("secret").unwrap();
    fork.base = quire_proto::Base::Other { volume: secret, lsn: Lsn::FIRST, hash: CommitHash::new([1; 32]) };
    let fork = SealedCommit::seal(fork, Default::default()).unwrap();
    assert_eq!(append(&fork, &writer).await.unwrap_err().code(), Code::PermissionDenied);
    append(&commit(CommitKind::Create), &writer).await.unwrap();
    let mut end =
        CommitHeader::draft(Lsn::new(2).unwrap(), CommitKind::Deleted, CommitId::new([9; 16]), PageSize::DEFAULT);
    end.parent = Some(commit(CommitKind::Create).hash());
    end.base = quire_proto::Base::Previous;
    let end = SealedCommit::seal(end, Default::default()).unwrap();
    assert_eq!(append(&end, &writer).await.unwrap_err().code(), Code::PermissionDenied);
    // Who may read one volume sees that one only.
    let list = async |token: &str| {
        let answer = ask(&channel, "/quire.v1.Metastore/ListVolumes", Bytes::new(), Some(token)).await.unwrap();
        wire::ListVolumesResponse::decode(answer).unwrap().names
    };
    assert_eq!(list(&writer).await, [VOLUME]);
    assert!(list(&house.token("other/*", &Right::ALL)).await.is_empty());
    assert!(list(&house.token("*", &[Right::Write])).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_tricks_reach_no_other_volume() {
    let house = House::new();
    let channel = house.channel().await;
    let token = house.token("team/*", &Right::ALL);
    for trick in
        ["team/../secret", "team//secret", "team/./secret", "/team/a", "team/", "", "team/\u{0}", "..", "team/a\nb"]
    {
        for method in ["Head", "GetCommit", "ListSegments", "ScanSegment", "ListMarkers", "Delete"] {
            let service = if method.ends_with("s") && method.contains("Segment") || method == "ScanSegment" {
                "Pagestore"
            } else {
                "Metastore"
            };
            let method = format!("/quire.v1.{service}/{method}");
            let message = wire::VolumeRequest { volume: trick.into() }.encode_to_vec();
            let refused = ask(&channel, &method, message.into(), Some(&token)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{method} {trick:?}: {refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_bytes_come_the_server_answers_and_lives_on() {
    let house = House::new();
    let channel = house.channel().await;
    let token = house.token("*", &Right::ALL);
    let mut rng = StdRng::seed_from_u64(quire_testkit::seed());
    let rounds = std::env::var("QUIRE_ROUNDS").map_or(20, |text| text.parse().unwrap());
    for method in methods().iter().filter(|method| !["Watch", "Drain"].contains(&short(method))) {
        for round in 0..rounds {
            let mut bytes = match round % 2 {
                0 => message(short(method), VOLUME).to_vec(),
                _ => (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
            };
            for _ in 0..rng.random_range(0..4) {
                if bytes.is_empty() {
                    break;
                }
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes[at] = rng.random(),
                    1 => bytes.truncate(at),
                    _ => bytes.insert(at, rng.random()),
                }
            }
            if let Err(status) = ask(&channel, method, bytes.clone().into(), Some(&token)).await {
                assert!(
                    !matches!(
                        status.code(),
                        Code::Unknown | Code::Cancelled | Code::Unavailable | Code::DeadlineExceeded
                    ),
                    "{method} {bytes:02x?}: {status}"
                );
            }
        }
    }
    // Longer than any message may be.
    let long = Bytes::from(vec![0x0a; (64 << 20) + 1]);
    let refused = ask(&channel, "/quire.v1.Metastore/Append", long, Some(&token)).await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused}");
    // What is no HTTP/2 at all.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"\0\0\0\0\0\0\0\0\0"] {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(house.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // It ends the connection, whatever it says before.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    ask(&channel, "/quire.v1.Metastore/Head", message("Head", VOLUME), Some(&token)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_begins_at_an_lsn_reads_nothing_from_before_it() {
    const FROM: u64 = 4;
    let house = House::new();
    let channel = house.channel().await;
    let all = house.token("*", &Right::ALL);
    let mut log = vec![commits::commit(None, CommitKind::Create)];
    for _ in 1..6 {
        log.push(commits::write(log.last().unwrap()));
    }
    for commit in &log {
        let request = wire::AppendRequest { volume: VOLUME.into(), commit: commit.object().clone() };
        ask(&channel, "/quire.v1.Metastore/Append", request.encode_to_vec().into(), Some(&all)).await.unwrap();
    }
    let grant = Grant { from_lsn: Lsn::new(FROM), ..Grant::everything() };
    let token = house.key.sign(&grant, SystemTime::now()).unwrap();
    let call = async |service: &str, method: &str, message: Vec<u8>| {
        ask(&channel, &format!("/quire.v1.{service}/{method}"), message.into(), Some(&token)).await
    };
    let volume = || VOLUME.to_owned();
    let last = || log.last().unwrap().header().encode().unwrap();
    for lsn in 1..=6_u64 {
        let header = log[lsn as usize - 1].header();
        let place = Some(wire::CheckpointPlace { lsn, generation: 0 });
        let base = (VolumeName::parse(VOLUME).unwrap(), header.lsn, header.hash());
        let target = MarkerTarget::Reader { span_ms: 1000, author: String::new() };
        let marker = Marker { base, target }.encode().into();
        let mut fork = commits::draft(None, CommitKind::Fork);
        let (name, hash) = (VolumeName::parse(VOLUME).unwrap(), header.hash());
        fork.base = quire_proto::Base::Other { volume: name, lsn: header.lsn, hash };
        (fork.page_count, fork.min_count) = (header.page_count, header.page_count);
        let fork = SealedCommit::seal(fork, Default::default()).unwrap().object().clone();
        let subscribe = vec![watch_request::Subscription { volume: volume(), after_lsn: lsn - 1 }];
        let calls = [
            ("GetCommit", wire::GetCommitRequest { volume: volume(), lsn }.encode_to_vec()),
            ("GetHeader", wire::GetCommitRequest { volume: volume(), lsn }.encode_to_vec()),
            ("GetHeaders", wire::GetHeadersRequest { volume: volume(), first_lsn: lsn, last: last() }.encode_to_vec()),
            ("Watch", wire::WatchRequest { subscribe }.encode_to_vec()),
            ("Mark", wire::MarkRequest { marker }.encode_to_vec()),
            ("Append", wire::AppendRequest { volume: format!("fork-{lsn}"), commit: fork }.encode_to_vec()),
            (
                "ReadCheckpoint",
                wire::ReadCheckpointRequest { volume: volume(), place, start: 0, end: 9 }.encode_to_vec(),
            ),
        ];
        for (method, message) in calls {
            match call("Metastore", method, message).await {
                Ok(_) => assert!(lsn >= FROM, "{method} {lsn}"),
                Err(status) if lsn < FROM => {
                    assert_eq!(status.code(), Code::PermissionDenied, "{method} {lsn}: {status}")
                }
                // Nobody has made one.
                Err(status) => {
                    assert_eq!((method, status.code()), ("ReadCheckpoint", Code::NotFound), "{lsn}: {status}")
                }
            }
        }
    }
    let restore = wire::RestoreRequest { volume: volume(), lsn: FROM - 1, expected_lsn: 6, author: String::new() };
    let denied = call("Metastore", "Restore", restore.encode_to_vec()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let denied = call("Pagestore", "ListSegments", wire::VolumeRequest { volume: volume() }.encode_to_vec()).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    // What it opens holds nothing else, and its log ends there.
    let opened = call("Metastore", "Open", wire::HeadRequest { volume: volume() }.encode_to_vec()).await.unwrap();
    let opened = wire::OpenResponse::decode(opened).unwrap();
    assert!(opened.headers.is_empty() && opened.front.is_empty() && !opened.no_checkpoint);
    let asked = wire::GetLogRequest { volume: volume(), before_lsn: FROM, limit: 0 };
    assert!(call("Admin", "GetLog", asked.encode_to_vec()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_token() {
    let house = House::new();
    let channel = house.channel().await;
    let grant = Grant { expires: Some(SystemTime::now() + Duration::from_secs(2)), ..Grant::everything() };
    let token = house.key.sign(&grant, SystemTime::now()).unwrap();
    let ended = ask(&channel, "/quire.v1.Metastore/Watch", message("Watch", VOLUME), Some(&token)).await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::PermissionDenied, "the token has expired"));
}
