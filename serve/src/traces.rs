//! Traces of calls, for a collector that speaks OTLP.

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use quire_proto::{Error, Result};
use tokio::runtime::{Builder, Runtime};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// Where OpenTelemetry's own libraries look for a collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Sends what calls did to a collector. What is not sent yet is sent when this goes.
pub struct Traces {
    provider: SdkTracerProvider,
    /// The connection to the collector lives in it.
    _runtime: Runtime,
}

impl Traces {
    /// As the variables of OpenTelemetry say; none if they name no collector.
    pub fn from_environment() -> Result<Option<Traces>> {
        let Some(name) = ENDPOINTS.into_iter().find(|name| std::env::var_os(name).is_some_and(|url| !url.is_empty()))
        else {
            return Ok(None);
        };
        let wrong = |e: &dyn std::fmt::Display| {
            Error::invalid(format!("traces cannot be sent to what {name} says: {e}"))
                .with_remedy("It is the address of a collector, such as http://127.0.0.1:4317; unset it to send none.")
        };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("quire-traces").build();
        let runtime = runtime.map_err(|e| wrong(&e))?;
        let exporter = {
            let _entered = runtime.enter();
            SpanExporter::builder().with_tonic().build().map_err(|e| wrong(&e))?
        };
        let resource = Resource::builder().with_service_name("quire").build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Some(Traces { provider, _runtime: runtime }))
    }

    /// What takes the spans of Quire's own code to the collector.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let own = Targets::new().with_target("quire", LevelFilter::INFO);
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("quire")).with_filter(own)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(e) = self.provider.shutdown() {
            tracing::warn!("some traces were not sent: {e}");
        }
    }
}

/// Headers of a call, of which one may say whose work it is a part of (W3C Trace Context).
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// The span of a call, below the caller's own if he says so.
pub(crate) fn span(method: &str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        "call",
        otel.name = method,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.grpc.status_code = tracing::field::Empty,
    );
    if !span.is_disabled() {
        // Without a collector nobody has a use for it.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Headers(headers)));
    }
    span
}
