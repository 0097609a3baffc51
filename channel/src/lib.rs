//! The connection to a Quire server.
//!
//! One HTTP/2 connection carries all calls of a client. It is made at first need and again whenever it breaks, so a
//! server that restarts is only a pause. Every call of Quire's services may be retried safely, and is, for as long as
//! the outcome is unknown and the deadline has not passed.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use quire_proto::wire::{error_of, is_answer, retry_delay};
use quire_proto::{Error, Result};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status, Streaming};
use url::Url;

/// The largest message, in bytes: a commit of a volume whose changes are scattered is a few megabytes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Larger things go in pieces of so many bytes.
pub const PIECE_BYTES: usize = 1 << 20;

/// So many bytes of one stream, and of one connection, may be on their way unread: enough for 100 MB/s over 80 ms. They are
/// fixed, as half of the connection's is also what h2 (0.4.16 and newer) allows for small frames before it gives a
/// connection up, and a window that adapts itself begins with 64 KiB: a thousand small calls at once were too many.
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// How much of a message goes on the line in one piece. HTTP/2 begins with 16 KiB, and works as much for each.
pub const FRAME_BYTES: u32 = 256 << 10;

const REMEDY: &str = "Check the network and the server's address; nothing is lost, try again later.";

/// A step of an upload may take so many times what an answer may.
const STEP_ATTEMPTS: u32 = 2;

/// Bytes in pieces that fit into messages.
pub fn pieces(mut rest: Bytes) -> impl Iterator<Item = Bytes> + Send + 'static {
    std::iter::from_fn(move || (!rest.is_empty()).then(|| rest.split_to(rest.len().min(PIECE_BYTES))))
}

/// How long a client waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For an outcome, with all attempts.
    pub deadline: Duration,
    /// For a connection.
    pub connect: Duration,
    /// For the answer to one attempt, and for each next message of a stream.
    pub attempt: Duration,
    /// Between the first and the second attempt; each later pause is twice as long.
    pub first_pause: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            deadline: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            attempt: Duration::from_secs(60),
            first_pause: Duration::from_millis(50),
        }
    }
}

/// What the generated clients are made of.
pub type Service = InterceptedService<Channel, Authorize>;

/// A connection to one server. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    endpoint: Endpoint,
    /// As errors name the server.
    peer: Arc<str>,
    is_secure: bool,
    /// Belongs to the runtime of the first call.
    channel: Arc<OnceLock<Channel>>,
    authorize: Authorize,
    limits: Limits,
    traffic: Arc<Traffic>,
}

/// What went to and came from a server.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Calls, each attempt.
    pub requests: AtomicU64,
    /// Bytes of commits, frames and checkpoints received.
    pub bytes_in: AtomicU64,
    /// Such bytes sent.
    pub bytes_out: AtomicU64,
}

/// Puts the token into every call.
#[derive(Clone)]
pub struct Authorize {
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Authorize {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Connection {
    /// A connection to the server at `url` (`http://host:port`, or `https://` with a certificate that this machine trusts:
    /// `SSL_CERT_FILE` adds to those). Nothing is sent before the first call, and all calls are made in one runtime.
    pub fn open(url: &Url, token: Option<&str>, limits: Limits) -> Result<Connection> {
        let peer = format!("the server {}", url.as_str().trim_end_matches('/'));
        let mut endpoint = Endpoint::from_shared(url.as_str().to_owned())
            .map_err(|e| Error::invalid(format!("{peer}: {e}")).with_remedy("It is like http://host:7480."))?
            .connect_timeout(limits.connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES);
        let is_secure = url.scheme() == "https";
        if is_secure {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(|e| {
                Error::invalid(format!("{peer}: {e}"))
                    .with_remedy("Install the certificates of your system, or name a file of them in SSL_CERT_FILE.")
            })?;
        }
        let token = token.map(|token| {
            let value = MetadataValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|_| Error::invalid("the token has characters that no token has"))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        let authorize = Authorize { token: token.transpose()? };
        let (peer, channel, traffic) = (peer.into(), Arc::default(), Arc::default());
        Ok(Connection { endpoint, peer, is_secure, channel, authorize, limits, traffic })
    }

    /// The same, showing a server that asks for one a certificate: PEM text with it and its private key.
    pub fn showing(self, pem: &[u8]) -> Result<Connection> {
        if !self.is_secure {
            return Ok(self);
        }
        let tls = ClientTlsConfig::new().with_native_roots().identity(Identity::from_pem(pem, pem));
        let endpoint = self.endpoint.tls_config(tls).map_err(|e| {
            Error::invalid(format!("no certificate with its private key: {}", root(&e)))
                .with_remedy("Write both into one PEM file: the certificate, those above it, and the key.")
        })?;
        Ok(Connection { endpoint, channel: Arc::default(), ..self })
    }

    /// For a generated client.
    pub fn service(&self) -> Service {
        let channel = self.channel.get_or_init(|| self.endpoint.connect_lazy());
        InterceptedService::new(channel.clone(), self.authorize.clone())
    }

    /// What went to and came from the server so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Notes bytes that were sent.
    pub fn sent(&self, bytes: usize) {
        self.traffic.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes bytes that came.
    pub fn received(&self, bytes: usize) {
        self.traffic.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What a status of the server means.
    pub fn error_of(&self, status: &Status) -> Error {
        error_of(status, &self.peer)
    }

    /// Asks until there is an answer, or the deadline has passed. A status is an answer only if Quire's server gave it.
    pub async fn call<T, F>(&self, ask: impl Fn(Service) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + self.limits.deadline;
        let mut pause = self.limits.first_pause;
        loop {
            self.traffic.requests.fetch_add(1, Ordering::Relaxed);
            let status = match tokio::time::timeout(self.limits.attempt, ask(self.service())).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => match retry_delay(&status) {
                    // It has asked for so much patience.
                    Some(delay) => {
                        pause = pause.max(delay);
                        status
                    }
                    None if is_answer(&status) => return Err(status),
                    None => status,
                },
                Err(_) => Status::deadline_exceeded("it did not answer in time"),
            };
            if until.checked_duration_since(Instant::now()).is_none_or(|left| pause > left) {
                return Err(status);
            }
            tracing::debug!("{}: {status}; once more", self.peer);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Returns once the server can be asked: for what cannot be asked twice.
    pub async fn ready(&self) -> Result<()> {
        let connected = self.call(|_| async {
            let connected = self.endpoint.connect().await;
            connected.map(|_| Response::new(())).map_err(|e| Status::from_error(Box::new(e)))
        });
        connected.await.map_err(|status| self.error_of(&status))
    }

    /// A step of a call in which the server stores something: it has some attempts of its own before it answers.
    pub async fn step<T>(&self, step: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(STEP_ATTEMPTS * self.limits.attempt, step)
            .await
            .map_err(|_| Error::unavailable(format!("{}: the upload stands still", self.peer)).with_remedy(REMEDY))
    }

    /// The messages of a stream. None may take longer than an answer may, unless it is one that may stand still.
    pub fn messages<T: Send + 'static>(
        &self,
        stream: Streaming<T>,
        stands_still: bool,
    ) -> BoxStream<'static, Result<T>> {
        const FOR_EVER: Duration = Duration::from_secs(1 << 30);
        let attempt = if stands_still { FOR_EVER } else { self.limits.attempt };
        futures::stream::try_unfold((stream, self.peer.clone()), move |(mut stream, peer)| async move {
            match tokio::time::timeout(attempt, stream.message()).await {
                Ok(Ok(message)) => Ok(message.map(|message| (message, (stream, peer)))),
                Ok(Err(status)) => Err(error_of(&status, &peer)),
                Err(_) => Err(Error::unavailable(format!("{peer}: the stream stands still")).with_remedy(REMEDY)),
            }
        })
        .boxed()
    }

    /// The messages of a stream that is asked for at first need.
    pub fn stream<T, F>(&self, ask: impl Fn(Service) -> F + Send + 'static) -> BoxStream<'static, Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
    {
        let connection = self.clone();
        let messages = async move {
            let stream = connection.call(ask).await.map_err(|status| connection.error_of(&status))?;
            Ok(connection.messages(stream, false))
        };
        futures::stream::once(messages).try_flatten().boxed()
    }
}

/// What is at the bottom of an error: tonic's own say no more than that something is wrong.
fn root(error: &dyn std::error::Error) -> &dyn std::error::Error {
    error.source().map_or(error, root)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use super::*;

    const IMPATIENT: Limits = Limits {
        deadline: Duration::from_millis(300),
        connect: Duration::from_millis(200),
        attempt: Duration::from_millis(200),
        first_pause: Duration::from_millis(10),
    };

    #[test]
    fn a_token_that_is_none_is_refused_and_never_shown() {
        let url = Url::parse("http://127.0.0.1:1").unwrap();
        let refused = Connection::open(&url, Some("secret\nb"), IMPATIENT).unwrap_err();
        assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
    }

    #[tokio::test]
    async fn who_is_not_there_is_asked_again_until_the_deadline() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        drop(listener);
        let connection = Connection::open(&url, None, IMPATIENT).unwrap();
        let error = connection.ready().await.unwrap_err();
        assert_eq!(error.kind(), quire_proto::ErrorKind::Unavailable, "{error:?}");
        let address = url.as_str().trim_end_matches('/');
        assert!(error.message().starts_with(&format!("the server {address}: ")), "{error:?}");
        assert!(error.message().contains("refused"), "{error:?}");
        assert!(connection.traffic().requests.load(Ordering::Relaxed) > 1);
    }
}
