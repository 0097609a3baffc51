//! One client: an engine on a data directory, and what the model knows of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use quire_bucket::{Bucket, Limits};
use quire_engine::{Engine, Options, Snapshot, Stores, SyncMode, Traffic, Volume, VolumeName};
use quire_maintenance::collect;

use crate::branch::Fork;
use crate::content::Stamp;
use crate::layer::Layer;
use crate::network::{Link, Network, is_of_the_network};

/// No pause takes time, and no outcome depends on the clock.
const LIMITS: Limits = Limits {
    deadline: Duration::from_secs(3600),
    connect_deadline: Duration::ZERO,
    attempt: Duration::from_secs(3600),
    first_pause: Duration::ZERO,
    hedge: None,
};

/// How often things happened that a run is to show.
#[derive(Clone, Debug, Default)]
pub struct Events(pub BTreeMap<&'static str, u64>);

impl Events {
    /// Counts one.
    pub fn note(&mut self, event: &'static str) {
        *self.0.entry(event).or_default() += 1;
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Events) {
        other.0.iter().for_each(|(event, n)| *self.0.entry(event).or_default() += n);
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) dir: PathBuf,
    pub(crate) link: Arc<Link>,
    pub(crate) commits_to_store: bool,
    pub(crate) replicas: Vec<Replica>,
    /// What it has forked.
    pub(crate) forks: Vec<Fork>,
    /// For taking care of the store over its link.
    pub(crate) care: collect::Stores,
    // Dropped last: the volumes go first.
    pub(crate) engine: Option<Engine>,
}

/// What the model knows of a client's replica of one volume.
pub(crate) struct Replica {
    pub(crate) name: VolumeName,
    pub(crate) volume: Option<Volume>,
    /// The commit that is visible.
    pub(crate) visible: Stamp,
    /// Commits of unknown outcome (`sync=commit`): one of them may be visible instead, once the doubt is over.
    pub(crate) maybe: Vec<Stamp>,
    /// Snapshots that are still read, with what they must show.
    pub(crate) held: Vec<(Snapshot, Stamp)>,
    /// What resets kept, which commit it is, and which ones it may be once a doubt is over.
    pub(crate) kept: Vec<(VolumeName, Stamp, Vec<Stamp>)>,
    /// How many pages of which commit were here.
    pub(crate) cached: (Stamp, u64),
}

impl Replica {
    pub(crate) fn new(name: VolumeName) -> Replica {
        Replica {
            name,
            volume: None,
            visible: 0,
            maybe: Vec::new(),
            held: Vec::new(),
            kept: Vec::new(),
            cached: (0, 0),
        }
    }

    /// What the copy of its data directory begins with.
    pub(crate) fn copied(&self) -> Replica {
        Replica {
            visible: self.visible,
            maybe: self.maybe.clone(),
            kept: self.kept.clone(),
            ..Replica::new(self.name.clone())
        }
    }

    pub(crate) fn volume(&self) -> Volume {
        self.volume.clone().expect("it was opened")
    }
}

/// What a client is opened with.
pub(crate) struct Place<'a> {
    pub(crate) dir: PathBuf,
    pub(crate) raw: &'a Bucket,
    pub(crate) network: &'a Arc<Network>,
    /// Milliseconds that the machine's clock is off.
    pub(crate) clock: &'a Arc<AtomicI64>,
    pub(crate) commits_to_store: bool,
    pub(crate) cache_size: u64,
}

impl Client {
    pub(crate) fn open(place: Place<'_>, replicas: Vec<Replica>) -> Client {
        let Place { dir, raw, network, clock, commits_to_store, cache_size } = place;
        let mut link = None;
        let bucket = raw.through(LIMITS, |below| {
            let new = Arc::new(Link::new(network, below));
            link = Some(new.clone());
            Arc::new(Layer(new))
        });
        let link = link.expect("the layer was made");
        let stores = stores(&bucket);
        let options = Options {
            data_dir: dir.clone(),
            store_url: "a simulated store".into(),
            connect: Box::new(move || {
                let stores = stores.clone();
                Box::pin(async move { Ok(stores) })
            }),
            sync: if commits_to_store { SyncMode::Commit } else { SyncMode::Manual },
            cache_size,
            lease_after: quire_engine::LEASE_AFTER,
            author: "the simulation".into(),
        };
        let clock = clock.clone();
        const YEAR_2026_MS: i64 = 1_767_225_600_000;
        let now_ms = move || (YEAR_2026_MS + clock.load(SeqCst)).unsigned_abs();
        let engine = Engine::open_with_clock(options, now_ms).unwrap_or_else(|e| panic!("{}: {e:?}", dir.display()));
        let care = care(&bucket);
        Client { dir, link, commits_to_store, replicas, forks: Vec::new(), care, engine: Some(engine) }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine.clone().expect("it is open")
    }

    /// The LSN that a replica stands on, 0 if none.
    pub(crate) fn base_lsn(&self, v: usize) -> u64 {
        self.replicas[v].volume().status().base_lsn.map_or(0, |lsn| lsn.get())
    }

    /// Lets go of everything; the data directory stays.
    pub(crate) fn close(&mut self) {
        for replica in &mut self.replicas {
            replica.held.clear();
            replica.volume = None;
        }
        self.engine = None;
    }

    /// Opens a volume if it is not; what could not be opened is tried again by a later step.
    pub(crate) fn open_volume(&mut self, v: usize) -> bool {
        let faults = self.link.faults();
        let replica = &mut self.replicas[v];
        if replica.volume.is_some() {
            return true;
        }
        let engine = self.engine.as_ref().expect("the engine is open");
        match engine.volume(&replica.name) {
            Ok(volume) => replica.volume = Some(volume),
            Err(e) => {
                assert!(self.link.faults() > faults && is_of_the_network(&e), "opening {}: {e:?}", replica.name)
            }
        }
        replica.volume.is_some()
    }
}

fn stores(bucket: &Bucket) -> Stores {
    let counted = bucket.clone();
    Stores {
        metastore: Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default())),
        pagestore: Arc::new(quire_pagestore::Embedded::new(bucket.clone())),
        traffic: Arc::new(move || {
            let counters = counted.counters();
            Traffic { requests: counters.requests(), bytes_in: counters.bytes_in, bytes_out: counters.bytes_out }
        }),
    }
}

/// The stores in a bucket, for their upkeep.
pub(crate) fn care(bucket: &Bucket) -> collect::Stores {
    let log = Arc::new(quire_metastore::Embedded::new(bucket.clone(), Default::default()));
    collect::Stores::new(log, Arc::new(quire_pagestore::Embedded::new(bucket.clone())))
}
