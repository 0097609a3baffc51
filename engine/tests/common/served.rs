//! A server in this process, for who tests the engine through one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quire_bucket::Bucket;
use quire_channel::{Connection, Limits};
use quire_engine::{Stores, Traffic};
use quire_serve::{CacheOptions, Options, Server};

/// The stores of a bucket, by way of a server.
pub fn stores(bucket: &Bucket) -> Stores {
    let counted = bucket.clone();
    let server = Server::bind(Options {
        poll_interval: Duration::from_millis(50),
        cache: CacheOptions { memory_bytes: 64 << 20, disk: None },
        counters: Arc::new(move || counted.counters()),
        ..Options::new(
            Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
            Arc::new(quire_pagestore::Embedded::new(bucket.clone())),
        )
    })
    .unwrap();
    let url = format!("http://{}", server.address()).parse().unwrap();
    let serving = server.spawn();
    let connection = Connection::open(&url, None, Limits::default()).unwrap();
    Stores {
        metastore: Arc::new(quire_metastore::Remote::new(connection.clone())),
        pagestore: Arc::new(quire_pagestore::Remote::new(connection.clone())),
        traffic: Arc::new(move || {
            // As long as there are stores, somebody asks for their traffic: the server lives as long.
            let _ = &serving;
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let traffic = connection.traffic();
            Traffic {
                requests: read(&traffic.requests),
                bytes_in: read(&traffic.bytes_in),
                bytes_out: read(&traffic.bytes_out),
            }
        }),
    }
}
