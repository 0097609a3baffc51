//! From settings to an engine: chooses what stands behind the engine's traits.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quire_bucket::{Bucket, Counters};
use quire_channel::{Connection, Limits};
use quire_engine::{Engine, Options, Stores, Traffic};
use quire_maintenance::Server;
use quire_proto::{Error, LogUpkeep, PageUpkeep, Result};

use crate::{Settings, StoreKind, StoreUrl, Token};

/// A commit has room for this much of its author.
const MAX_AUTHOR_BYTES: usize = 128;

/// Opens the data directory. The store is connected at first need, so that
/// work on local volumes goes on without it.
pub fn open_engine(settings: &Settings) -> Result<Engine> {
    let (store, token) = (settings.store.clone(), settings.token.clone());
    Engine::open(Options {
        data_dir: settings.data_dir.clone(),
        store_url: store.as_str().to_owned(),
        connect: Box::new(move || {
            let (store, token) = (store.clone(), token.clone());
            Box::pin(async move {
                let (Upkeep { log, pages, .. }, traffic) = connect(&store, token.as_ref())?;
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
    connect(&settings.store, settings.token.as_ref()).map(|(upkeep, _)| upkeep)
}

/// The store for a server of it: for its clients, and for work that nobody waits for, which gets no more than so many bytes a
/// second.
pub fn open_served(settings: &Settings, bytes_per_second: Option<NonZeroU64>) -> Result<[Upkeep; 2]> {
    let bucket = Bucket::open(settings.store.as_str())?;
    let within = bucket.within(bytes_per_second);
    Ok([bucket, within].map(|bucket| embedded(&bucket)))
}

/// The server that the store is, if it is one.
pub fn open_server(settings: &Settings) -> Result<Option<Server>> {
    match settings.store.kind() {
        StoreKind::Embedded => Ok(None),
        StoreKind::Server => connection(&settings.store, settings.token.as_ref()).map(|c| Some(Server::new(c))),
    }
}

fn embedded(bucket: &Bucket) -> Upkeep {
    let counted = bucket.clone();
    Upkeep {
        log: Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
        pages: Arc::new(quire_pagestore::Embedded::new(bucket.clone())),
        counters: Arc::new(move || counted.counters()),
    }
}

fn connection(store: &StoreUrl, token: Option<&Token>) -> Result<Connection> {
    let url = store.as_str().parse().map_err(|e| Error::invalid(format!("{store}: {e}")))?;
    Connection::open(&url, token.map(Token::reveal), Limits::default())
}

/// What stands behind a store's URL, and what went to and came from it so far.
fn connect(store: &StoreUrl, token: Option<&Token>) -> Result<(Upkeep, Arc<dyn Fn() -> Traffic + Send + Sync>)> {
    if store.kind() == StoreKind::Server {
        let connection = connection(store, token)?;
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
    let bucket = Bucket::open(store.as_str())?;
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
