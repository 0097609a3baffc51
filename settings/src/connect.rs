//! From settings to an engine: chooses what stands behind the engine's traits.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quire_bucket::{Bucket, Counters};
use quire_channel::{Connection, Limits};
use quire_engine::{Engine, Options, Stores, Traffic};
use quire_maintenance::Server;
use quire_proto::{Error, LogUpkeep, PageUpkeep, Result};

use crate::{Key, Settings, StoreKind, Token};

/// A commit has room for this much of its author.
const MAX_AUTHOR_BYTES: usize = 128;

/// In the data directory: the folders that it has used as stores.
const FOLDERS: &str = "folders";

/// Opens the data directory. The store is connected at first need, so that
/// work on local volumes goes on without it.
pub fn open_engine(settings: &Settings) -> Result<Engine> {
    let connected = settings.clone();
    Engine::open(Options {
        data_dir: settings.data_dir.clone(),
        store_url: settings.store.as_str().to_owned(),
        connect: Box::new(move || {
            let settings = connected.clone();
            Box::pin(async move {
                let (Upkeep { log, pages, .. }, traffic) = connect(&settings)?;
                Ok(Stores { metastore: log, pagestore: pages, traffic })
            })
        }),
        sync: settings.sync,
        cache_size: settings.cache_size,
        lease_after: quire_engine::LEASE_AFTER,
        author: author(),
    })
}

/// The store, for those who care for what it keeps.
pub struct Upkeep {
    /// The logs.
    pub log: Arc<dyn LogUpkeep>,
    /// The pages.
    pub pages: Arc<dyn PageUpkeep>,
    /// What the store was asked so far, if it is no server.
    pub counters: Arc<dyn Fn() -> Counters + Send + Sync>,
}

/// Connects the store for its upkeep.
pub fn open_upkeep(settings: &Settings) -> Result<Upkeep> {
    connect(settings).map(|(upkeep, _)| upkeep)
}

/// The store for a server of it: for its clients, and for work that nobody waits for, which gets no more than so many bytes a
/// second.
pub fn open_served(settings: &Settings, bytes_per_second: Option<NonZeroU64>) -> Result<[Upkeep; 2]> {
    let bucket = open_bucket(settings)?;
    let within = bucket.within(bytes_per_second);
    Ok([bucket, within].map(|bucket| embedded(&bucket)))
}

/// The server that the store is, if it is one.
pub fn open_server(settings: &Settings) -> Result<Option<Server>> {
    match settings.store.kind() {
        StoreKind::Embedded => Ok(None),
        StoreKind::Server => connection(settings).map(|connection| Some(Server::new(connection))),
    }
}

fn open_bucket(settings: &Settings) -> Result<Bucket> {
    let options = quire_bucket::Options { folders: Some(settings.data_dir.join(FOLDERS)), ..Default::default() };
    Bucket::open_with(settings.store.as_str(), options)
}

fn embedded(bucket: &Bucket) -> Upkeep {
    let counted = bucket.clone();
    Upkeep {
        log: Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
        pages: Arc::new(quire_pagestore::Embedded::new(bucket.clone())),
        counters: Arc::new(move || counted.counters()),
    }
}

fn connection(settings: &Settings) -> Result<Connection> {
    let store = &settings.store;
    let url = store.as_str().parse().map_err(|e| Error::invalid(format!("{store}: {e}")))?;
    let connection = Connection::open(&url, settings.token.as_ref().map(Token::reveal), Limits::default())?;
    let Some(file) = &settings.client_cert else { return Ok(connection) };
    let pem = std::fs::read(file).map_err(|e| settings.wrong(Key::ClientCert, e))?;
    connection.showing(&pem).map_err(|e| settings.wrong(Key::ClientCert, format!("{}: {e}", file.display())))
}

/// What stands behind a store's URL, and what went to and came from it so far.
fn connect(settings: &Settings) -> Result<(Upkeep, Arc<dyn Fn() -> Traffic + Send + Sync>)> {
    if settings.store.kind() == StoreKind::Server {
        let connection = connection(settings)?;
        let upkeep = Upkeep {
            log: Arc::new(quire_metastore::Remote::new(connection.clone())),
            pages: Arc::new(quire_pagestore::Remote::new(connection.clone())),
            counters: Arc::new(Counters::default),
        };
        let traffic = move || {
            let traffic = connection.traffic();
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            Traffic {
                requests: read(&traffic.requests),
                bytes_in: read(&traffic.bytes_in),
                bytes_out: read(&traffic.bytes_out),
            }
        };
        return Ok((upkeep, Arc::new(traffic)));
    }
    let bucket = open_bucket(settings)?;
    let upkeep = embedded(&bucket);
    let traffic = move || {
        let counters = bucket.counters();
        Traffic { requests: counters.requests(), bytes_in: counters.bytes_in, bytes_out: counters.bytes_out }
    };
    Ok((upkeep, Arc::new(traffic)))
}

/// Who commits, for people who read the log: `user@host`.
fn author() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let mut author = if user.is_empty() { host.into_owned() } else { format!("{user}@{host}") };
    author.truncate(author.floor_char_boundary(MAX_AUTHOR_BYTES));
    author
}
