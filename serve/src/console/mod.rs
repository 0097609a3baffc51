//! A page for people, on the second port: how the server and its volumes are. It changes nothing. Where the server asks for
//! tokens, it shows what the token may read that is given to it.

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use quire_proto::{Error, ErrorKind, Grant, Lsn, Result, Right, VolumeName};
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;

use crate::facts::check_operator;
use crate::http::Shown;

/// The page loads nothing but what the server gives it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Volumes and commits are shown so many at a time at most.
const MOST: usize = 1000;

/// The page, and what it reads.
pub(crate) fn router(shown: &Shown) -> Router<Shown> {
    let file = |kind: &'static str, text: &'static str| get(async move || ([(CONTENT_TYPE, kind)], text));
    let api = Router::new()
        .route("/server", get(server))
        .route("/clients", get(clients))
        .route("/volumes", get(volumes))
        .route("/volume", get(volume))
        .route("/volume/commits", get(commits))
        .route("/runs", get(runs))
        .layer(from_fn_with_state(shown.clone(), admit));
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("index.html")))
        .route("/console.css", file("text/css; charset=utf-8", include_str!("console.css")))
        .route("/console.js", file("text/javascript; charset=utf-8", include_str!("console.js")))
        .nest("/api", api)
        .layer(from_fn(guard))
}

async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (CACHE_CONTROL, "no-store")];
    response.headers_mut().extend(headers.map(|(name, value)| (name, value.parse().expect("a header's value"))));
    response
}

/// A page elsewhere could give its own name this machine's address, and read what is shown here: without tokens, only those
/// are answered who call the server by its address.
fn is_called_by_address(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|authority| {
        let host = authority.host();
        host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
    })
}

/// Lets those in who show a token, if the server asks for one.
async fn admit(State(mut shown): State<Shown>, mut request: Request, next: Next) -> Response {
    if !shown.tokens && !is_called_by_address(request.headers()) {
        let problem = "Without tokens the console answers only under an address such as 127.0.0.1, or as localhost.\n";
        return (StatusCode::FORBIDDEN, problem).into_response();
    }
    let mut asked = tonic::Request::new(());
    if let Some(token) = request.headers().get(AUTHORIZATION) {
        *asked.metadata_mut() = MetadataMap::from_headers([(AUTHORIZATION, token.clone())].into_iter().collect());
    }
    match shown.gate.call(asked) {
        Ok(admitted) => {
            let (_, mut extensions, ()) = admitted.into_parts();
            let Some(grant) = extensions.remove::<Grant>() else { return StatusCode::UNAUTHORIZED.into_response() };
            request.extensions_mut().insert(grant);
            next.run(request).await
        }
        Err(status) if status.code() == tonic::Code::ResourceExhausted => {
            (StatusCode::TOO_MANY_REQUESTS, status.message().to_owned() + "\n").into_response()
        }
        Err(status) => (StatusCode::UNAUTHORIZED, status.message().to_owned() + "\n").into_response(),
    }
}

/// An error, as HTTP says it.
struct Problem(Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Gone => StatusCode::GONE,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.0.to_string() + "\n").into_response()
    }
}

type Answer<T> = Result<Json<T>, Problem>;
type Caller = axum::Extension<Grant>;

async fn server(State(Shown { facts, .. }): State<Shown>, grant: Caller) -> Answer<impl Serialize> {
    check_operator(&grant)?;
    Ok(Json(facts.server()))
}

async fn clients(State(Shown { facts, .. }): State<Shown>, grant: Caller) -> Answer<impl Serialize> {
    check_operator(&grant)?;
    Ok(Json(facts.metrics.clients().list()))
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

async fn volumes(
    State(Shown { facts, .. }): State<Shown>,
    grant: Caller,
    Query(asked): Query<Listed>,
) -> Answer<impl Serialize> {
    let after =
        Some(asked.after).filter(|after| !after.is_empty()).map(|after| VolumeName::parse(&after)).transpose()?;
    let volumes = facts.volumes(&asked.prefix, after, move |volume| grant.may(volume, Right::Read));
    Ok(Json(volumes.take(asked.limit.unwrap_or(MOST).min(MOST)).try_collect::<Vec<_>>().await?))
}

#[derive(Deserialize)]
struct Named {
    name: String,
    before: Option<u64>,
    after: Option<u64>,
    limit: Option<usize>,
}

impl Named {
    fn volume(&self, grant: &Grant) -> Result<VolumeName> {
        grant.volume(&self.name, Right::Read)
    }
}

#[derive(Serialize)]
struct Told {
    volume: quire_proto::wire::VolumeInfo,
    commits: Vec<quire_proto::wire::CommitInfo>,
}

async fn volume(State(Shown { facts, .. }): State<Shown>, grant: Caller, Query(asked): Query<Named>) -> Answer<Told> {
    let volume = asked.volume(&grant)?;
    let limit = asked.limit.unwrap_or(MOST).min(MOST);
    let before = asked.before.and_then(Lsn::new);
    let commits = facts.commits(&grant, &volume, before, limit as u64).await?;
    // Older commits are asked for later: the sizes are known by then.
    Ok(Json(Told { volume: facts.described(&volume, before.is_none()).await?, commits }))
}

/// The commits that appear, one JSON object a line, for as long as somebody reads them.
async fn commits(
    State(Shown { facts, .. }): State<Shown>,
    grant: Caller,
    Query(asked): Query<Named>,
) -> Result<Response, Problem> {
    let volume = asked.volume(&grant)?;
    let after = asked.after.and_then(Lsn::new).ok_or_else(|| Error::invalid("`after` is no LSN"))?;
    grant.check_reach(&volume, after.next())?;
    let lines = facts.appearing(&volume, after).map(|commit| {
        let mut line = serde_json::to_vec(&commit?).map_err(|e| Error::invalid(e.to_string()))?;
        line.push(b'\n');
        Ok::<_, Error>(Bytes::from(line))
    });
    let until = grant.left();
    let lines = lines.take_until(async move {
        match until {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

async fn runs(State(Shown { facts, .. }): State<Shown>, grant: Caller) -> Json<Vec<quire_proto::wire::RunInfo>> {
    Json(facts.runs(&grant, None))
}
