//! The Quire server: one store, offered to clients that need no credentials for it.
//!
//! The store decides every race, so a server keeps no state that matters: any number of them may serve one store, and
//! clients may go to the store directly beside them. A server that is killed loses nothing that was acknowledged.

mod admin;
mod cache;
mod care;
mod clients;
mod console;
mod facts;
mod gate;
mod http;
mod metrics;
mod quota;
mod reload;
mod tls;
pub mod tokens;
mod traces;

pub use cache::CacheOptions;
pub use care::Upkeep;
pub use metrics::StoreCounters;
pub use quire_proto::{Grant, Right, VolumePattern};
pub use tls::{Tls, TlsFiles};
pub use traces::Traces;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use quire_channel::{CONNECTION_WINDOW_BYTES, FRAME_BYTES, MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES};
use quire_metastore::Hub;
use quire_proto::wire::admin_server::AdminServer;
use quire_proto::wire::metastore_server::MetastoreServer;
use quire_proto::wire::pagestore_server::PagestoreServer;
use quire_proto::{Error, ErrorKind, LogUpkeep, PageUpkeep, Result, wire};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot};
use tonic::server::NamedService;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Router, TcpIncoming};
use tonic_health::ServingStatus;
use tower::layer::util::{Identity, Stack};

use crate::cache::Cached;
use crate::care::Care;
use crate::facts::Facts;
use crate::gate::Gate;
use crate::http::Shown;
use crate::metrics::{Measured, Metrics};
use crate::quota::Quota;
use crate::tokens::{SigningKey, Verifier};

/// How long calls that are under way may go on once the server is told to end: a client retries what breaks off.
const DRAIN: Duration = Duration::from_secs(10);
/// How often files of keys and certificates are looked at.
const RELOAD: Duration = Duration::from_secs(5);
/// Who connects may ask so many things at the same time; more wait.
const STREAMS: u32 = 1024;

/// Which half of a store is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Both.
    All,
    /// The order of commits.
    Metastore,
    /// The pages.
    Pagestore,
}

impl Role {
    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::All => "all",
            Role::Metastore => "metastore",
            Role::Pagestore => "pagestore",
        }
    }
}

/// What is logged, for who may change it while the server runs.
pub trait LogFilter: Send + Sync {
    /// As it was written.
    fn get(&self) -> String;
    /// `Invalid` if it is no filter; then nothing changes.
    fn set(&self, filter: &str) -> Result<()>;
}

/// What a server is made of.
pub struct Options {
    /// Where it listens; port 0 is one that is free.
    pub listen: SocketAddr,
    /// Whoever can reach the address may do everything, or can overhear tokens: allow other addresses than this machine's
    /// own all the same.
    pub insecure: bool,
    /// Who may do what; without it, everybody everything.
    pub tokens: Option<Verifier>,
    /// So many calls a second are let in of each subject of tokens; without it, as many as come.
    pub calls_per_second: Option<NonZeroU32>,
    /// Signs tokens for those who ask with one of their own, and have at least the same rights.
    pub signing_key: Option<Arc<SigningKey>>,
    /// So many bytes each volume may take in the store, its history included; without it, as many as it takes.
    pub volume_quota: Option<NonZeroU64>,
    /// By which nobody overhears anything.
    pub tls: Option<Tls>,
    /// How long it takes at most until watchers are told of what was committed elsewhere; each volume that is watched costs
    /// one request in this time.
    pub poll_interval: Duration,
    /// Which half.
    pub role: Role,
    /// What is kept of the frames that were read.
    pub cache: CacheOptions,
    /// Where those who look after the server read how it is; without it, nowhere.
    pub http: Option<SocketAddr>,
    /// What is logged.
    pub log_filter: Option<Arc<dyn LogFilter>>,
    /// What the server does besides answering.
    pub upkeep: Upkeep,
    /// The URL of the store, for people.
    pub store_url: String,
    /// What the store has been asked so far, by upkeep too.
    pub counters: StoreCounters,
    /// The logs.
    pub log: Arc<dyn LogUpkeep>,
    /// The pages.
    pub pages: Arc<dyn PageUpkeep>,
}

impl Options {
    /// Of a server for this machine only, on a port that is free: it lets everybody do everything, and keeps and shows
    /// nothing.
    pub fn new(log: Arc<dyn LogUpkeep>, pages: Arc<dyn PageUpkeep>) -> Options {
        Options {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            insecure: false,
            tokens: None,
            calls_per_second: None,
            signing_key: None,
            volume_quota: None,
            tls: None,
            poll_interval: Duration::from_secs(1),
            role: Role::All,
            cache: CacheOptions { memory_bytes: 0, disk: None },
            http: None,
            log_filter: None,
            upkeep: Upkeep {
                scheduled: false,
                bytes_per_second: None,
                verify_every: None,
                notes: None,
                counters: Arc::new(Default::default),
                log: log.clone(),
                pages: pages.clone(),
            },
            store_url: String::new(),
            counters: Arc::new(Default::default),
            log,
            pages,
        }
    }
}

/// A server that listens already.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    http: Option<(TcpListener, SocketAddr)>,
    stopper: Stopper,
    cached: Option<Cached>,
    options: Options,
}

/// A server that serves on a thread of its own, until this goes.
#[must_use = "the server ends at once"]
pub struct Serving {
    stopper: Stopper,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Serving {
    /// Ends the server, and says how it went.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    /// Waits until the server ends by itself, and says how it went.
    pub fn ended(mut self) -> Result<()> {
        self.join()
    }

    fn end(&mut self) -> Result<()> {
        self.stopper.stop();
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(ended)) => ended,
            None => Ok(()),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let ended = self.end();
        if let Err(e) = ended
            && !std::thread::panicking()
        {
            tracing::error!("{e}");
        }
    }
}

/// Tells a server to end.
#[derive(Clone, Default)]
pub struct Stopper {
    told: Arc<Notify>,
}

impl Stopper {
    /// The server answers what it has been asked, and ends.
    pub fn stop(&self) {
        self.told.notify_one();
    }
}

impl Server {
    /// Listens. Whoever connects from now on is answered once it [runs](Self::run).
    pub fn bind(options: Options) -> Result<Server> {
        let listen = options.listen;
        let danger = match (&options.tokens, &options.tls) {
            (None, _) => Some("read and write every volume: this server asks for no token"),
            (Some(_), None) => Some("overhear tokens and pages: this server has no certificate"),
            (Some(_), Some(_)) => None,
        };
        if let Some(danger) = danger
            && !listen.ip().is_loopback()
            && !options.insecure
        {
            return Err(Error::new(ErrorKind::Denied, format!("whoever can reach {listen} could {danger}")).with_remedy(
                "Give --token-keys, --tls-cert and --tls-key; or listen on 127.0.0.1; or say --insecure where the network \
                 itself keeps others out.",
            ));
        }
        let (listener, address) = bound(listen, "--listen")?;
        let http = options.http.map(|listen| bound(listen, "--http")).transpose()?;
        let runtime = Builder::new_multi_thread().enable_all().thread_name("quire-serve").build().map_err(|e| {
            Error::from_io("starting the server's threads", e)
                .with_remedy("Raise the limits of threads (`ulimit -u`) and of memory (`ulimit -v`), then try again.")
        })?;
        let stopper = Stopper::default();
        stop_at_sigterm(stopper.clone()).map_err(|e| {
            Error::from_io("taking over SIGTERM", e)
                .with_remedy("Raise the limits of open files (`ulimit -n`) and of threads (`ulimit -u`).")
        })?;
        let cached = cache(&runtime, &options)?;
        Ok(Server { runtime, listener, address, http, stopper, cached, options })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where those who look after it read how it is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }

    /// Ends the server from elsewhere.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves on a thread of its own, until the answer goes.
    pub fn spawn(self) -> Serving {
        let stopper = self.stopper();
        Serving { stopper, thread: Some(std::thread::spawn(move || self.run())) }
    }

    /// Serves until told to end, or until SIGTERM. Calls that are under way are answered first, for a while.
    pub fn run(self) -> Result<()> {
        let Server { runtime, listener, address, http, stopper, cached, mut options } = self;
        let failed = move |e: &dyn std::fmt::Display| Error::new(ErrorKind::Io, format!("serving on {address}: {e}"));
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| failed(&e))?;
            let (ends, ended) = oneshot::channel();
            if let Some(cached) = &cached {
                options.pages = Arc::new(cached.clone());
            }
            let hub = Arc::new(Hub::new(options.log.clone(), options.poll_interval));
            let counts = cached.as_ref().map(Cached::counts).unwrap_or_default();
            let metrics = Metrics::new(hub.clone(), options.counters.clone(), counts);
            let care = Care::new(options.upkeep.clone(), options.store_url.clone(), metrics.clone());
            let is_ending = Arc::new(AtomicBool::new(false));
            let facts = Facts {
                log: options.log.clone(),
                pages: options.pages.clone(),
                hub,
                care: care.clone(),
                metrics,
                role: options.role,
                keeps_frames: cached.is_some(),
                quota_bytes: options.volume_quota,
                store_url: options.store_url.clone(),
                started_ms: care::now_ms(),
                ends: is_ending.clone(),
            };
            let gate = Gate::new(options.tokens.clone(), options.calls_per_second);
            let router = router(&options, &facts, gate.clone(), stopper.clone()).await.map_err(|e| failed(&e))?;
            let shown = Shown { facts, gate, tokens: options.tokens.is_some() };
            let told = stopper.told.clone();
            let told = async move {
                told.notified().await;
                is_ending.store(true, Ordering::Relaxed);
                tracing::info!("the server ends once calls that are under way are answered");
                // Nobody else listens.
                let _ = ends.send(());
            };
            let serving = match options.tls.clone() {
                None => {
                    // Held back, the end of an answer waits for the client's next acknowledgement: up to 40 ms.
                    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                    router.serve_with_incoming_shutdown(incoming, told).boxed()
                }
                Some(tls) => router.serve_with_incoming_shutdown(tls.incoming(listener), told).boxed(),
            };
            let tokens = options.tokens.is_some();
            let cares = options.role != Role::Pagestore;
            let served = tokio::select! {
                served = serving => served.map_err(|e| failed(&e)),
                // Watchers never end by themselves.
                () = drained(ended) => Ok(()),
                () = care::schedule::take_care(care, tokens), if cares => Ok(()),
                ended = show(http, shown) => ended.map_err(|e| failed(&e)),
                () = reload(options.tokens.clone(), options.tls.clone()) => Ok(()),
            };
            if let Some(cached) = cached {
                cached.close().await;
            }
            served
        })
    }
}

/// An address that is listened on.
fn bound(listen: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr)> {
    let listening = || {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listening().map_err(|e| {
        Error::from_io(format!("listening on {listen}"), e)
            .with_remedy(format!("Choose another address with {flag}; port 0 is one that is free."))
    })
}

/// The frames that are kept at hand, if any are.
fn cache(runtime: &Runtime, options: &Options) -> Result<Option<Cached>> {
    if options.cache.memory_bytes == 0 {
        return Ok(None);
    }
    let (pages, cache) = (options.pages.clone(), options.cache.clone());
    let (tells, told) = std::sync::mpsc::channel();
    // Whoever binds a server may be in a runtime himself, and may not wait for another one in it.
    runtime.spawn(async move {
        // He waits.
        let _ = tells.send(Cached::open(pages, &cache).await);
    });
    told.recv().map_err(|_| Error::new(ErrorKind::Io, "the cache was not opened"))?.map(Some)
}

/// Shows on the second port how the server is, if there is one.
async fn show(http: Option<(TcpListener, SocketAddr)>, shown: Shown) -> std::io::Result<()> {
    match http {
        Some((listener, _)) => http::serve(tokio::net::TcpListener::from_std(listener)?, shown).await,
        None => std::future::pending().await,
    }
}

/// Looks again and again for new keys and certificates.
async fn reload(tokens: Option<Verifier>, tls: Option<Tls>) {
    loop {
        tokio::time::sleep(RELOAD).await;
        let (tokens, tls) = (tokens.clone(), tls.clone());
        let looked = tokio::task::spawn_blocking(move || {
            tokens.iter().for_each(Verifier::reload_if_changed);
            tls.iter().for_each(Tls::reload_if_changed);
        });
        // It does not panic; and if it did, the files as they were would do.
        let _ = looked.await;
    }
}

async fn router(
    options: &Options,
    facts: &Facts,
    gate: Gate,
    stopper: Stopper,
) -> std::result::Result<Router<Stack<Measured, Identity>>, Box<dyn std::error::Error + Send + Sync>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut metastore = quire_metastore::Service::new(options.log.clone(), facts.hub.clone());
    let mut pagestore = quire_pagestore::Service::new(options.pages.clone());
    if let Some(most) = options.volume_quota {
        let quota = Arc::new(Quota::new(options.pages.clone(), most));
        (metastore, pagestore) = (metastore.within(quota.clone()), pagestore.within(quota));
    }
    let metastore = MetastoreServer::new(metastore)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let pagestore = PagestoreServer::new(pagestore)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (orders, keeps) = (options.role != Role::Pagestore, options.role != Role::Metastore);
    let mut served = vec!["", AdminServer::<admin::Service>::NAME];
    served.extend(orders.then_some(MetastoreServer::<quire_metastore::Service>::NAME));
    served.extend(keeps.then_some(PagestoreServer::<quire_pagestore::Service>::NAME));
    for service in &served {
        health.set_service_status(*service, ServingStatus::Serving).await;
    }
    let admin = AdminServer::new(admin::Service {
        facts: facts.clone(),
        stopper,
        health,
        log_filter: options.log_filter.clone(),
        signing_key: options.signing_key.clone(),
        served,
        tokens: options.tokens.is_some(),
    })
    .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(Some(STREAMS))
        .layer(Measured::by(facts.metrics.clone()))
        // Whoever probes has no token.
        .add_service(health_service)
        .add_service(InterceptedService::new(reflection().build_v1()?, gate.clone()))
        .add_service(InterceptedService::new(reflection().build_v1alpha()?, gate.clone()))
        .add_optional_service(orders.then(|| InterceptedService::new(metastore, gate.clone())))
        .add_optional_service(keeps.then(|| InterceptedService::new(pagestore, gate.clone())))
        .add_service(InterceptedService::new(admin, gate));
    Ok(router)
}

/// Returns when calls have had their time since the server was told to end.
async fn drained(ended: oneshot::Receiver<()>) {
    match ended.await {
        Ok(()) => tokio::time::sleep(DRAIN).await,
        // The server has ended by itself.
        Err(_) => std::future::pending().await,
    }
}

/// From now on SIGTERM ends the server, not the process.
fn stop_at_sigterm(stopper: Stopper) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM])?;
    let waits = move || signals.forever().for_each(|_| stopper.stop());
    std::thread::Builder::new().name("quire-signals".into()).spawn(waits).map(drop)
}
