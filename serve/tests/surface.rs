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
use quire_proto::wire::{self, watch_request};
use quire_proto::{
    CommitHash, CommitHeader, CommitId, CommitKind, Lsn, Marker, MarkerTarget, PageSize, SealedCommit, VolumeName,
};
use quire_serve::tokens::{SigningKey, Verifier};
use quire_serve::{CacheOptions, Grant, Options, Right, Server, Stopper, VolumePattern};
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
    stopper: Stopper,
    served: Option<std::thread::JoinHandle<()>>,
}

impl House {
    fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        SigningKey::generate().unwrap().save(&file).unwrap();
        let bucket = Bucket::open("memory://").unwrap();
        let server = Server::bind(Options {
            tokens: Some(Verifier::load(SigningKey::public_file(&file)).unwrap()),
            poll_interval: Duration::from_millis(20),
            cache: CacheOptions { memory_bytes: 64 << 20, disk: None },
            ..Options::new(
                Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
                Arc::new(quire_pagestore::Embedded::new(bucket)),
            )
        })
        .unwrap();
        let (address, stopper) = (server.address(), server.stopper());
        let served = Some(std::thread::spawn(move || server.run().unwrap()));
        House { _dir: dir, key: SigningKey::load(&file).unwrap(), address, stopper, served }
    }

    fn token(&self, volumes: &str, rights: &[Right]) -> String {
        let volumes = vec![VolumePattern::parse(volumes).unwrap()];
        let grant = Grant { subject: "test".into(), volumes, rights: rights.to_vec(), expires: None };
        self.key.sign(&grant, SystemTime::now()).unwrap()
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stopper.stop();
        if self.served.take().is_some_and(|served| served.join().is_err()) && !std::thread::panicking() {
            panic!("the server has panicked");
        }
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

/// What each method asks of its caller, on [`VOLUME`].
fn rights() -> BTreeMap<&'static str, Right> {
    let read = "Head Open GetCommit GetHeader GetHeaders Watch AtTime FindCheckpoint ReadCheckpoint Mark Unmark GetStatement \
                ReadClock GetRetention ListStatements ListMarkers ListCheckpoints ReadFrames VerifySegment ScanSegment \
                ListSegments";
    let write = "Append Tidy Restore PutCheckpoint WriteFrames";
    let admin = "Delete Rename Retain PutStatement DropMarker DropCheckpoint Stub DropSegment";
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
        "Rename" => {
            let new_name = format!("{volume}2");
            wire::RenameRequest { volume, new_name, author: String::new() }.encode_to_vec()
        }
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
    let listed: Vec<_> = all.iter().map(|method| short(method)).filter(|name| *name != "ListVolumes").collect();
    assert_eq!(listed.len(), rights.len());
    for method in all.iter().filter(|method| short(method) != "ListVolumes") {
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
    for method in methods().iter().filter(|method| short(method) != "Watch") {
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
async fn a_watch_ends_with_its_token() {
    let house = House::new();
    let channel = house.channel().await;
    let grant = Grant { expires: Some(SystemTime::now() + Duration::from_secs(2)), ..Grant::everything() };
    let token = house.key.sign(&grant, SystemTime::now()).unwrap();
    let ended = ask(&channel, "/quire.v1.Metastore/Watch", message("Watch", VOLUME), Some(&token)).await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::PermissionDenied, "the token has expired"));
}
