//! How the server uses its sockets.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use quire_bucket::Bucket;
use quire_channel::{Connection, Limits};
use quire_metastore::Remote;
use quire_proto::{Metastore, VolumeName};
use quire_serve::{Options, Server};

/// The sockets of this process that are connected from `port`.
fn connected_from(port: u16) -> Vec<TcpStream> {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
    let owned = numbers.filter_map(|number| {
        // SAFETY: it is only duplicated, which fails if it has been closed since it was listed.
        unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned().ok()
    });
    let sockets = owned.map(TcpStream::from);
    sockets
        .filter(|socket| socket.peer_addr().is_ok() && socket.local_addr().is_ok_and(|at| at.port() == port))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_held_back_for_an_acknowledgement() {
    let bucket = Bucket::open("memory://").unwrap();
    let log = Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default()));
    let server = Server::bind(Options::new(log, Arc::new(quire_pagestore::Embedded::new(bucket)))).unwrap();
    let port = server.address().port();
    let url = format!("http://127.0.0.1:{port}");
    let _serving = server.spawn();
    let client = Remote::new(Connection::open(&url.parse().unwrap(), None, Limits::default()).unwrap());
    client.head(&VolumeName::parse("v").unwrap()).await.unwrap();
    let sockets = connected_from(port);
    assert!(!sockets.is_empty());
    assert!(sockets.iter().all(|socket| socket.nodelay().unwrap()));
}
