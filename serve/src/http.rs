//! The second port: how the server is, and what it has done, for those who look after it: as numbers and as a page. It
//! changes nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::StreamExt;
use tokio::net::TcpListener;

use crate::console;
use crate::facts::Facts;
use crate::gate::Gate;

/// The store has so long to answer who asks whether the server is ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the port shows.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) facts: Facts,
    /// Lets those in whom the console asks for a token.
    pub(crate) gate: Gate,
    /// Whether it asks for one.
    pub(crate) tokens: bool,
}

/// Answers for ever.
pub(crate) async fn serve(listener: TcpListener, shown: Shown) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .merge(console::router(&shown))
        .with_state(shown);
    axum::serve(listener, router).await
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], shown.facts.metrics.text())
}

/// Whether calls can be answered: the store is there, and the server does not end.
async fn readyz(State(shown): State<Shown>) -> (StatusCode, String) {
    let not_ready = |problem: String| (StatusCode::SERVICE_UNAVAILABLE, problem + "\n");
    if shown.facts.ends.load(Ordering::Relaxed) {
        return not_ready("the server ends".into());
    }
    match tokio::time::timeout(PATIENCE, shown.facts.log.volumes("").next()).await {
        Ok(None | Some(Ok(_))) => (StatusCode::OK, "ok\n".into()),
        Ok(Some(Err(e))) => not_ready(e.to_string()),
        Err(_) => not_ready(format!("the store has not answered within {PATIENCE:?}")),
    }
}
