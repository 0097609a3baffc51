//! From settings to an engine: chooses what stands behind the engine's traits.

use std::sync::Arc;

use quire_bucket::Bucket;
use quire_engine::{Engine, Options, Stores, Traffic};
use quire_proto::{LogUpkeep, PageUpkeep, Result};

use crate::{Key, Settings, StoreKind};

/// A commit has room for this much of its author.
const MAX_AUTHOR_BYTES: usize = 128;

/// Opens the data directory. The store is connected at first need, so that
/// work on local volumes goes on without it.
pub fn open_engine(settings: &Settings) -> Result<Engine> {
    check_is_embedded(settings)?;
    let url = settings.store.as_str().to_owned();
    Engine::open(Options {
        data_dir: settings.data_dir.clone(),
        store_url: url.clone(),
        connect: Box::new(move || {
            let url = url.clone();
            Box::pin(async move { connect(&url) })
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
}

/// Connects the store for its upkeep.
pub fn open_upkeep(settings: &Settings) -> Result<Upkeep> {
    check_is_embedded(settings)?;
    let bucket = Bucket::open(settings.store.as_str())?;
    Ok(Upkeep {
        log: Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
        pages: Arc::new(quire_pagestore::Embedded::new(bucket)),
    })
}

fn check_is_embedded(settings: &Settings) -> Result<()> {
    if settings.store.kind() == StoreKind::Server {
        return Err(settings
            .wrong(Key::Store, format!("{}: a Quire server as a store comes with a later version", settings.store))
            .with_remedy("Use a folder (file:///path) or a bucket (s3://, gs://, az://) as the store."));
    }
    Ok(())
}

fn connect(url: &str) -> Result<Stores> {
    let bucket = Bucket::open(url)?;
    let counted = bucket.clone();
    Ok(Stores {
        metastore: Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
        pagestore: Arc::new(quire_pagestore::Embedded::new(bucket)),
        traffic: Arc::new(move || {
            let counters = counted.counters();
            Traffic { requests: counters.requests(), bytes_in: counters.bytes_in, bytes_out: counters.bytes_out }
        }),
    })
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
