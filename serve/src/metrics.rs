//! What a server has done, in numbers that Prometheus reads. `docs/serving.md` lists the names.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use prost::Message;
use prost_types::FileDescriptorSet;
use quire_bucket::Counters;
use quire_metastore::Hub;
use quire_proto::wire::{CacheInfo, ServerInfo, StoreInfo};
use quire_proto::{Lsn, VolumeName};
use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::{Instrument, Span};

use crate::cache::CacheCounts;
use crate::care::now_ms;
use crate::clients::{CallFrom, Clients};
use crate::traces;

/// So many volumes at most have numbers of their own.
const MOST_VOLUMES: usize = 1000;
/// Upper ends of the histogram's buckets, in seconds: from a cached answer to an upload over a slow network.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// What a thousand requests cost at the list price of S3 Standard in us-east-1 (2026): writes and listings, and reads.
const DOLLARS_PER_THOUSAND: [f64; 2] = [0.005, 0.0004];

/// Where what a store was asked is read.
pub type StoreCounters = Arc<dyn Fn() -> Counters + Send + Sync>;

/// All numbers of one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGauge,
    bytes: IntCounterVec,
    store: Arc<Store>,
    volumes: IntGauge,
    head_lsn: IntGaugeVec,
    last_commit: GaugeVec,
    last_verified: GaugeVec,
    damaged: IntGauge,
    damaged_volumes: Arc<Mutex<HashSet<VolumeName>>>,
    runs: IntCounterVec,
    looked_ms: Arc<AtomicU64>,
    watchers: IntGauge,
    watched: IntGauge,
    hub: Arc<Hub>,
    cache: Arc<Cache>,
    looks: Arc<Mutex<()>>,
    clients: Clients,
}

/// What became of frames that were asked for, as of the last look.
struct Cache {
    counts: Arc<CacheCounts>,
    frames: IntCounterVec,
}

/// What the store was asked, as of the last look.
struct Store {
    counters: StoreCounters,
    requests: IntCounterVec,
    bytes: IntCounterVec,
    hedged: IntCounter,
    dollars: Gauge,
}

/// Brings a counter to what something else has counted.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("names and labels that are allowed");
    registry.register(Box::new(collector.clone())).expect("a name that is there once");
    collector
}

impl Metrics {
    pub(crate) fn new(hub: Arc<Hub>, counters: StoreCounters, cache: Arc<CacheCounts>) -> Metrics {
        let registry = Registry::new();
        let of = |name: &str, help: &str| Opts::new(name, help);
        let counter = |name, help, labels: &[&str]| registered(&registry, IntCounterVec::new(of(name, help), labels));
        let gauge = |name, help| registered(&registry, IntGauge::with_opts(of(name, help)));
        let store = Store {
            counters,
            requests: counter("quire_store_requests_total", "Requests to the store behind the server.", &["kind"]),
            bytes: counter("quire_store_bytes_total", "Bytes of bodies to and from the store.", &["direction"]),
            hedged: registered(
                &registry,
                IntCounter::new(
                    "quire_store_reads_hedged_total",
                    "Reads of the store that were late and made once more.",
                ),
            ),
            dollars: registered(
                &registry,
                Gauge::with_opts(of(
                    "quire_store_cost_dollars",
                    "Estimated price of the requests to the store since the start.",
                )),
            ),
        };
        let seconds =
            HistogramOpts::new("quire_request_seconds", "Time until the end of an answer; no streams that watch.");
        let build = IntGaugeVec::new(of("quire_build_info", "The version that runs."), &["version"]);
        registered(&registry, build).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Metrics {
            requests: counter("quire_requests_total", "Calls that have ended.", &["method", "code"]),
            seconds: registered(&registry, HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["method"])),
            in_flight: gauge("quire_requests_in_flight", "Calls that have not ended, streams that watch among them."),
            bytes: counter("quire_served_bytes_total", "Bytes of messages from and to clients.", &["direction"]),
            store: Arc::new(store),
            volumes: gauge("quire_volumes", "Volumes in the store, as of the last look at all of them."),
            head_lsn: registered(
                &registry,
                IntGaugeVec::new(
                    of("quire_volume_head_lsn", "The newest LSN, as of the last look; of the first thousand volumes."),
                    &["volume"],
                ),
            ),
            last_commit: registered(
                &registry,
                GaugeVec::new(
                    of(
                        "quire_volume_last_commit_timestamp_seconds",
                        "When the newest commit was made, by its author's clock.",
                    ),
                    &["volume"],
                ),
            ),
            last_verified: registered(
                &registry,
                GaugeVec::new(
                    of(
                        "quire_volume_last_verification_timestamp_seconds",
                        "When every byte of a volume was last read and found sound.",
                    ),
                    &["volume"],
                ),
            ),
            damaged: gauge("quire_volumes_damaged", "Volumes whose last verification found damage."),
            damaged_volumes: Arc::default(),
            runs: counter("quire_maintenance_runs_total", "Upkeep of volumes that has ended.", &["work", "outcome"]),
            looked_ms: Arc::default(),
            watchers: gauge("quire_watchers", "Subscriptions to volumes."),
            watched: gauge("quire_volumes_watched", "Volumes that somebody watches."),
            hub,
            cache: Arc::new(Cache {
                counts: cache,
                frames: counter(
                    "quire_cache_frames_total",
                    "Frames that were asked for, by where they came from.",
                    &["from"],
                ),
            }),
            looks: Arc::default(),
            clients: Clients::default(),
            registry,
        }
    }

    /// Who is connected.
    pub(crate) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// All of it, in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        // Of two who look at the same time, one waits: what was counted is taken over once.
        let _looks = self.looks.lock();
        let (volumes, watchers) = self.hub.watched();
        self.watched.set(volumes as i64);
        self.watchers.set(watchers as i64);
        self.store.look();
        self.cache.look();
        let mut text = Vec::new();
        // Into memory, and all names are there once.
        TextEncoder::new().encode(&self.registry.gather(), &mut text).unwrap_or_default();
        String::from_utf8(text).unwrap_or_default()
    }

    /// What a look at all volumes has found.
    pub(crate) fn looked(&self, volumes: &[Seen]) {
        self.looked_ms.store(now_ms(), Ordering::Relaxed);
        self.volumes.set(volumes.len() as i64);
        for gauges in [&self.last_commit, &self.last_verified] {
            gauges.reset();
        }
        self.head_lsn.reset();
        for Seen { volume, lsn, time_ms, verified_ms } in volumes.iter().take(MOST_VOLUMES) {
            self.head_lsn.with_label_values(&[volume.as_str()]).set(lsn.get() as i64);
            self.last_commit.with_label_values(&[volume.as_str()]).set(*time_ms as f64 / 1000.0);
            if let Some(verified_ms) = verified_ms {
                self.last_verified.with_label_values(&[volume.as_str()]).set(*verified_ms as f64 / 1000.0);
            }
        }
    }

    /// Upkeep has ended.
    pub(crate) fn ran(&self, work: &str, is_done: bool) {
        self.runs.with_label_values(&[work, if is_done { "done" } else { "failed" }]).inc();
    }

    /// A volume was verified; `deep_ms` is now, if every byte of it was read.
    pub(crate) fn verified(&self, volume: &VolumeName, is_sound: bool, deep_ms: Option<u64>) {
        let mut damaged = self.damaged_volumes.lock();
        match is_sound {
            true => damaged.remove(volume),
            false => damaged.insert(volume.clone()),
        };
        self.damaged.set(damaged.len() as i64);
        // The others get theirs by the next look.
        if let Some(deep_ms) = deep_ms.filter(|_| is_sound)
            && self.head_lsn.get_metric_with_label_values(&[volume.as_str()]).is_ok_and(|lsn| lsn.get() > 0)
        {
            self.last_verified.with_label_values(&[volume.as_str()]).set(deep_ms as f64 / 1000.0);
        }
    }

    /// The same in a message; what is not counted here is left out.
    pub(crate) fn figures(&self) -> ServerInfo {
        let (volumes_watched, watchers) = self.hub.watched();
        let now = (self.store.counters)();
        ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            volumes: self.volumes.get().unsigned_abs(),
            volumes_watched: volumes_watched as u64,
            watchers: watchers as u64,
            calls_in_flight: self.in_flight.get().unsigned_abs(),
            store: Some(StoreInfo {
                url: String::new(),
                gets: now.get,
                puts: now.put,
                lists: now.list,
                heads: now.head,
                deletes: now.delete,
                bytes_in: now.bytes_in,
                bytes_out: now.bytes_out,
                cost_dollars: cost(&now),
            }),
            ..ServerInfo::default()
        }
    }

    /// What became of frames that were asked for.
    pub(crate) fn cache(&self) -> CacheInfo {
        let CacheCounts { hits, misses, joined } = &*self.cache.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let hedged = (self.store.counters)().hedged;
        CacheInfo { from_cache: read(hits), from_store: read(misses), joined: read(joined), hedged }
    }

    /// When all volumes were looked at last, in milliseconds since 1970 UTC.
    pub(crate) fn looked_ms(&self) -> Option<u64> {
        Some(self.looked_ms.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }
}

/// A volume, as a look at all of them has seen it; times are milliseconds since 1970 UTC.
pub(crate) struct Seen {
    pub(crate) volume: VolumeName,
    pub(crate) lsn: Lsn,
    /// When its newest commit was made.
    pub(crate) time_ms: u64,
    /// When every byte of it was last read and found sound.
    pub(crate) verified_ms: Option<u64>,
}

/// The price of requests, in dollars.
fn cost(counters: &Counters) -> f64 {
    let [dear, cheap] = DOLLARS_PER_THOUSAND;
    ((counters.put + counters.list) as f64 * dear + (counters.get + counters.head) as f64 * cheap) / 1000.0
}

impl Cache {
    fn look(&self) {
        let CacheCounts { hits, misses, joined } = &*self.counts;
        for (from, count) in [("cache", hits), ("store", misses), ("joined", joined)] {
            raise(&self.frames.with_label_values(&[from]), count.load(Ordering::Relaxed));
        }
    }
}

impl Store {
    fn look(&self) {
        let now = (self.counters)();
        let kinds =
            [("get", now.get), ("put", now.put), ("list", now.list), ("head", now.head), ("delete", now.delete)];
        for (kind, count) in kinds {
            raise(&self.requests.with_label_values(&[kind]), count);
        }
        for (direction, bytes) in [("in", now.bytes_in), ("out", now.bytes_out)] {
            raise(&self.bytes.with_label_values(&[direction]), bytes);
        }
        raise(&self.hedged, now.hedged);
        self.dollars.set(cost(&now));
    }
}

/// Counts calls.
#[derive(Clone)]
pub(crate) struct Measured {
    metrics: Metrics,
    /// The paths of the methods that there are, and their labels: nobody makes up others.
    methods: Arc<HashMap<String, Arc<str>>>,
}

impl Measured {
    pub(crate) fn by(metrics: Metrics) -> Measured {
        let set = FileDescriptorSet::decode(quire_proto::wire::DESCRIPTORS).unwrap_or_default();
        let mut methods = HashMap::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let label = format!("{}/{}", service.name(), method.name());
                    methods.insert(format!("/{}.{label}", file.package()), label.into());
                }
            }
        }
        Measured { metrics, methods: Arc::new(methods) }
    }
}

impl<S> Layer<S> for Measured {
    type Service = MeasuredService<S>;

    fn layer(&self, inner: S) -> MeasuredService<S> {
        MeasuredService { measured: self.clone(), inner }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(crate) struct MeasuredService<S> {
    measured: Measured,
    inner: S,
}

impl<S> Service<Request<Body>> for MeasuredService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Measured { metrics, methods } = &self.measured;
        let method = methods.get(request.uri().path()).cloned().unwrap_or_else(|| "other".into());
        let mut request = request;
        let from = metrics.clients.calls(request.extensions_mut());
        let span = traces::span(&method, request.headers());
        let call = Call::begin(metrics.clone(), method, from, span.clone());
        let bytes = metrics.bytes.with_label_values(&["in"]);
        let answer = {
            let _in = span.enter();
            self.inner.call(request.map(|body| Body::new(Counted { body, bytes, call: None })))
        };
        Box::pin(async move {
            let mut call = call;
            let response = answer.instrument(span).await?;
            // An answer without a body has its status here.
            call.note(response.headers());
            let bytes = call.metrics.bytes.with_label_values(&["out"]);
            Ok(response.map(|body| Body::new(Counted { body, bytes, call: Some(call) })))
        })
    }
}

/// A call on its way; it has ended when this goes.
struct Call {
    metrics: Metrics,
    method: Arc<str>,
    code: Code,
    began: Instant,
    _from: Option<CallFrom>,
    /// It ends with the call.
    span: Span,
}

impl Call {
    fn begin(metrics: Metrics, method: Arc<str>, from: Option<CallFrom>, span: Span) -> Call {
        metrics.in_flight.inc();
        Call { metrics, method, code: Code::Cancelled, began: Instant::now(), _from: from, span }
    }

    fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = Code::from_bytes(status.as_bytes());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Metrics { in_flight, requests, seconds, .. } = &self.metrics;
        in_flight.dec();
        self.span.record("rpc.grpc.status_code", self.code as i32);
        requests.with_label_values(&[&self.method, label(self.code).as_str()]).inc();
        if &*self.method != "Metastore/Watch" {
            seconds.with_label_values(&[&self.method]).observe(self.began.elapsed().as_secs_f64());
        }
    }
}

/// A code as gRPC writes it, such as `NOT_FOUND`.
fn label(code: Code) -> String {
    let mut label = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(letter.to_ascii_uppercase());
    }
    label
}

/// A body whose bytes are counted, and whose end is that of its call.
struct Counted {
    body: Body,
    bytes: IntCounter,
    call: Option<Call>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let span = self.call.as_ref().map(|call| call.span.clone());
        let entered = span.as_ref().map(Span::enter);
        let polled = Pin::new(&mut self.body).poll_frame(context);
        drop(entered);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => self.bytes.inc_by(data.len() as u64),
                (None, Some(trailers)) => {
                    if let Some(call) = &mut self.call {
                        call.note(trailers);
                    }
                }
                (None, None) => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_grpc_writes_them() {
        for (code, written) in [(Code::Ok, "OK"), (Code::NotFound, "NOT_FOUND"), (Code::DataLoss, "DATA_LOSS")] {
            assert_eq!(label(code), written);
        }
    }
}
