//! The second port: how the server is, and what it has done, for those who look after it. It changes nothing, and asks for
//! no token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::StreamExt;
use quire_proto::LogUpkeep;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// The store has so long to answer who asks whether the server is ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the port shows.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) metrics: Metrics,
    pub(crate) log: Arc<dyn LogUpkeep>,
    /// The server has been told to end.
    pub(crate) ends: Arc<AtomicBool>,
}

/// Answers for ever.
pub(crate) async fn serve(listener: TcpListener, shown: Shown) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(shown);
    axum::serve(listener, router).await
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], shown.metrics.text())
}

/// Whether calls can be answered: the store is there, and the server does not end.
async fn readyz(State(shown): State<Shown>) -> (StatusCode, String) {
    let not_ready = |problem: String| (StatusCode::SERVICE_UNAVAILABLE, problem + "\n");
    if shown.ends.load(Ordering::Relaxed) {
        return not_ready("the server ends".into());
    }
    match tokio::time::timeout(PATIENCE, shown.log.volumes("").next()).await {
        Ok(None | Some(Ok(_))) => (StatusCode::OK, "ok\n".into()),
        Ok(Some(Err(e))) => not_ready(e.to_string()),
        Err(_) => not_ready(format!("the store has not answered within {PATIENCE:?}")),
    }
}
