//! What a server gives, on this machine with its clients: `cargo bench -p quire-serve`. Targets are for two cores.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use quire_bucket::Bucket;
use quire_channel::{Connection, Limits};
use quire_metastore::contract::commits::{commit, write};
use quire_metastore::{Embedded, Remote};
use quire_proto::{
    Appended, CommitKind, FrameAddress, FramePlace, FrameRef, Lsn, Metastore, PageIdx, PageSet, PageSize, Pagestore,
    SealedCommit, VolumeName, encode_frame,
};
use quire_serve::{CacheOptions, Options, Server, Serving};

/// How long each row is measured.
const SPAN: Duration = Duration::from_secs(5);

struct House {
    url: String,
    direct: Embedded,
    _serving: Serving,
}

impl House {
    fn new() -> House {
        let bucket = Bucket::open("memory://").unwrap();
        let direct = Embedded::new(bucket.clone(), Default::default());
        let pages = quire_pagestore::Embedded::new(bucket);
        let server = Server::bind(Options {
            cache: CacheOptions { memory_bytes: 256 << 20, disk: None },
            ..Options::new(Arc::new(direct.clone()), Arc::new(pages))
        })
        .unwrap();
        let url = format!("http://{}", server.address());
        House { url, direct, _serving: server.spawn() }
    }

    /// A client with a connection of its own.
    fn connection(&self) -> Connection {
        Connection::open(&self.url.parse().unwrap(), None, Limits::default()).unwrap()
    }
}

fn row(title: &str, measured: f64, unit: &str, target: f64, higher_is_better: bool) {
    let ratio = if higher_is_better { measured / target } else { target / measured };
    let sign = if higher_is_better { "≥" } else { "≤" };
    println!("{title:<62} {measured:>10.1} {unit:<6} {sign} {target:<7} {ratio:.2}");
}

fn name(n: usize) -> VolumeName {
    VolumeName::parse(&format!("volume-{n}")).unwrap()
}

async fn create(log: &dyn Metastore, volume: &VolumeName) -> SealedCommit {
    let made = commit(None, CommitKind::Create);
    assert!(matches!(log.append(volume, &made).await.unwrap(), Appended::Won));
    made
}

/// One-page commits to 64 volumes, each of which has a writer that waits for its acknowledgement.
async fn appends() {
    let house = House::new();
    let connections: Vec<_> = (0..8).map(|_| house.connection()).collect();
    let until = Instant::now() + SPAN;
    let writers = (0..64).map(|n| {
        let log = Remote::new(connections[n % connections.len()].clone());
        tokio::spawn(async move {
            let mut head = create(&log, &name(n)).await;
            let mut appended = 0_u64;
            while Instant::now() < until {
                head = write(&head);
                assert!(matches!(log.append(&name(n), &head).await.unwrap(), Appended::Won));
                appended += 1;
            }
            appended
        })
    });
    let appended: u64 = join_all(writers).await.into_iter().map(Result::unwrap).sum();
    row("appends, 64 volumes, memory://, 1/s", appended as f64 / SPAN.as_secs_f64(), "", 10_000.0, true);
}

/// Frames of 64 pages that do not compress, from the server's cache.
async fn reads() {
    let house = House::new();
    let volume = name(0);
    let frames = (0..64_u32).map(|n| {
        let pages = PageSet::from_iter((1..=64).map(|page| PageIdx::new(64 * n + page).unwrap()));
        let mut content = vec![0; 64 * 4096];
        rand::fill(&mut content[..]);
        encode_frame(&pages, PageSize::DEFAULT, &content)
    });
    let pages = quire_pagestore::Remote::new(house.connection());
    let frames = futures::stream::iter(frames.collect::<Vec<_>>()).boxed();
    let index = pages.write(&volume, Lsn::FIRST, frames).await.unwrap();
    let address = |frame: &FrameRef| match frame.place {
        FramePlace::Segment(n) => {
            let segment = index.segments()[n as usize].id;
            FrameAddress { segment, offset: frame.offset, len_bytes: frame.len_bytes }
        }
        FramePlace::Inline => unreachable!("it is a pagestore's"),
    };
    let addresses: Vec<FrameAddress> = index.frames().iter().map(address).collect();
    pages.read(&volume, &addresses).await.unwrap();
    let until = Instant::now() + SPAN;
    let readers = (0..8).map(|reader| {
        let pages = quire_pagestore::Remote::new(house.connection());
        let (addresses, volume) = (addresses.clone(), volume.clone());
        tokio::spawn(async move {
            let (mut bytes, mut at) = (0_u64, reader * 8);
            while Instant::now() < until {
                at = (at + 1) % addresses.len();
                bytes +=
                    pages.read(&volume, &addresses[at..=at]).await.unwrap().iter().map(|f| f.len() as u64).sum::<u64>();
            }
            bytes
        })
    });
    let bytes: u64 = join_all(readers).await.into_iter().map(Result::unwrap).sum();
    row(
        "warm page reads, 64-page batches",
        bytes as f64 / SPAN.as_secs_f64() / f64::from(1 << 20),
        "MiB/s",
        500.0,
        true,
    );
}

/// One watcher, told of commits that another client makes.
async fn told() {
    let house = House::new();
    let (writer, watcher) = (Remote::new(house.connection()), Remote::new(house.connection()));
    let mut head = create(&writer, &name(0)).await;
    let mut watching = watcher.watch(&name(0), Some(Lsn::FIRST));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(commit)) = watching.next().await {
            if tell.send((commit.lsn(), Instant::now())).is_err() {
                return;
            }
        }
    });
    let mut times = Vec::new();
    for _ in 0..3000 {
        head = write(&head);
        assert!(matches!(writer.append(&name(0), &head).await.unwrap(), Appended::Won));
        let acknowledged = Instant::now();
        let (lsn, at) = told.recv().await.unwrap();
        assert_eq!(lsn, head.lsn());
        times.push(at.saturating_duration_since(acknowledged));
    }
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    row("from commit acknowledged to watcher told, p99", p99.as_secs_f64() * 1000.0, "ms", 5.0, false);
}

/// What this process has used so far: bytes of memory, and time of processors.
fn used() -> (u64, Duration) {
    let read = |file: &str| std::fs::read_to_string(file).unwrap();
    let pages: u64 = read("/proc/self/statm").split(' ').nth(1).unwrap().parse().unwrap();
    // Behind the name, which may hold spaces: fields from the third on, times in hundredths of a second.
    let stat = read("/proc/self/stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11..=12].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    (pages * 4096, Duration::from_millis(ticks * 10))
}

/// A thousand volumes, each of them watched by one client, and nothing happens. The clients are in this process, too.
async fn idle() {
    let house = House::new();
    for n in 0..1000 {
        create(&house.direct, &name(n)).await;
    }
    let before = used().0;
    let connections: Vec<_> = (0..10).map(|_| house.connection()).collect();
    let watchers = join_all((0..1000).map(|n| {
        let log = Remote::new(connections[n % connections.len()].clone());
        async move {
            let mut watching = log.watch(&name(n), None);
            watching.next().await.unwrap().unwrap();
            watching
        }
    }));
    // A watcher that waits asks for nothing; it only has to be there.
    let watchers: Vec<_> = watchers
        .await
        .into_iter()
        .map(|mut watching| tokio::spawn(async move { drop(watching.next().await) }))
        .collect();
    let (_, busy) = used();
    let start = Instant::now();
    tokio::time::sleep(SPAN).await;
    let (bytes, now_busy) = used();
    let share = (now_busy - busy).as_secs_f64() / start.elapsed().as_secs_f64();
    row(
        "1,000 watchers of 1,000 volumes, idle: memory",
        bytes.saturating_sub(before) as f64 / f64::from(1 << 20),
        "MiB",
        256.0,
        false,
    );
    row("  of a core", share * 100.0, "%", 2.0, false);
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("{:<62} {:>10} {:<6} {:<9} ratio", "server and clients in one process", "measured", "", "target");
    runtime.block_on(async {
        appends().await;
        reads().await;
        told().await;
        idle().await;
    });
}
