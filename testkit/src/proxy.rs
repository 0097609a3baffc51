//! A proxy in front of an HTTP server that counts requests and bytes, adds
//! latency, bounds the link, and breaks requests in the ways that networks do.
//! It forwards bytes unchanged, so signatures stay valid.

mod http;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use http::{Body, Connection, Head};

/// What happens to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It is forwarded.
    #[default]
    None,
    /// It is not forwarded; the connection closes.
    Refuse,
    /// The server acts on it; the connection closes instead of its reply.
    DropReply,
    /// The connection closes after this many bytes of the reply's body.
    CutReply(u64),
    /// It is not forwarded; the reply has this status and no body.
    Status(u16),
    /// It is not forwarded and never answered.
    Hang,
}

/// What a script is told about a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// How many came before it through this proxy.
    pub number: u64,
}

/// What went through a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests, by method in the order of first use.
    pub requests: Vec<(String, u64)>,
    /// Bytes from client to server, heads included.
    pub bytes_up: u64,
    /// Bytes from server to client, heads included.
    pub bytes_down: u64,
    /// The longest chain of requests each of which began after the one before it was answered: round trips in a row.
    pub chain: u64,
}

impl Traffic {
    /// Requests of one method.
    pub fn count(&self, method: &str) -> u64 {
        self.requests.iter().find(|(name, _)| name == method).map_or(0, |(_, count)| *count)
    }

    /// Requests of all methods.
    pub fn total(&self) -> u64 {
        self.requests.iter().map(|(_, count)| count).sum()
    }
}

type Script = Box<dyn FnMut(&Request) -> Fault + Send>;

/// A running proxy; it ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    upstream: String,
    latency_us: AtomicU64,
    /// 0: no bound.
    bytes_per_s: AtomicU64,
    traffic: Mutex<Traffic>,
    /// The longest chain whose last request was answered.
    answered: AtomicU64,
    script: Mutex<Option<Script>>,
    /// Held by the reply that occupies the link.
    link: tokio::sync::Mutex<()>,
    closing: Notify,
}

impl Proxy {
    /// Listens on a port of its own and forwards to `upstream` (`host:port`).
    pub async fn start(upstream: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            latency_us: AtomicU64::new(0),
            bytes_per_s: AtomicU64::new(0),
            traffic: Mutex::default(),
            answered: AtomicU64::new(0),
            script: Mutex::default(),
            link: tokio::sync::Mutex::default(),
            closing: Notify::new(),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Proxy { address, shared, accepting }
    }

    /// Where it listens: `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Delays every request by this much.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.latency_us.store(latency.as_micros() as u64, Relaxed);
    }

    /// Bounds the link from server to client, all connections together; 0 is
    /// no bound.
    pub fn set_bandwidth(&self, bytes_per_s: u64) {
        self.shared.bytes_per_s.store(bytes_per_s, Relaxed);
    }

    /// Asks `script` what to do with each request from now on.
    pub fn set_script(&self, script: impl FnMut(&Request) -> Fault + Send + 'static) {
        *self.shared.script.lock().expect("the script's lock") = Some(Box::new(script));
    }

    /// Forwards everything again.
    pub fn clear_script(&self) {
        *self.shared.script.lock().expect("the script's lock") = None;
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic.lock().expect("the counters' lock").clone()
    }

    /// Begins counting anew.
    pub fn reset_traffic(&self) {
        let mut traffic = self.shared.traffic.lock().expect("the counters' lock");
        self.shared.answered.store(0, Relaxed);
        *traffic = Traffic::default();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.closing.notify_waiters();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let closing = shared.clone();
            tokio::select! {
                // However a connection ends, the client sees it end.
                _ = serve(client, &shared) => {}
                () = closing.closing.notified() => {}
            }
        });
    }
}

/// Serves one client's connection over one connection to the server.
async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut client = Connection::new(client)?;
    let mut server: Option<Connection> = None;
    while let Some(head) = client.read_head().await? {
        let (fault, link) = shared.admit(&head);
        let latency = Duration::from_micros(shared.latency_us.load(Relaxed));
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match fault {
            Fault::Refuse => return Ok(()),
            Fault::Hang => return std::future::pending().await,
            Fault::Status(status) => {
                drain(&mut client, head.request_body()).await?;
                let reply = format!("HTTP/1.1 {status} Fault\r\nContent-Length: 0\r\n\r\n");
                client.write(reply.as_bytes()).await?;
                continue;
            }
            Fault::None | Fault::DropReply | Fault::CutReply(_) => {}
        }
        let server = match &mut server {
            Some(server) => server,
            None => server.insert(Connection::new(TcpStream::connect(&shared.upstream).await?)?),
        };
        let goes_on = forward(&head, fault, &mut client, server, shared).await?;
        shared.answered.fetch_max(link, Relaxed);
        if !goes_on {
            return Ok(());
        }
    }
    Ok(())
}

/// Forwards one request and its reply; false if the connection is to be closed.
async fn forward(
    head: &Head,
    fault: Fault,
    client: &mut Connection,
    server: &mut Connection,
    shared: &Shared,
) -> std::io::Result<bool> {
    server.write(&head.bytes).await?;
    shared.count_up(head.bytes.len());
    let mut body = head.request_body();
    while let Some(piece) = client.next_piece(&mut body).await? {
        server.write(&piece).await?;
        shared.count_up(piece.len());
    }
    let Some(reply) = server.read_head().await? else { return Ok(false) };
    if fault == Fault::DropReply {
        return Ok(false);
    }
    client.write(&reply.bytes).await?;
    shared.count_down(reply.bytes.len());
    let mut left = if let Fault::CutReply(bytes) = fault { bytes as usize } else { usize::MAX };
    if left == 0 {
        return Ok(false);
    }
    let mut body = reply.reply_body(head);
    while let Some(piece) = server.next_piece(&mut body).await? {
        let piece = &piece[..piece.len().min(left)];
        client.write(piece).await?;
        shared.count_down(piece.len());
        shared.pace(piece.len()).await;
        left -= piece.len();
        if left == 0 {
            return Ok(false);
        }
    }
    Ok(!reply.closes())
}

async fn drain(client: &mut Connection, mut body: Body) -> std::io::Result<()> {
    while client.next_piece(&mut body).await?.is_some() {}
    Ok(())
}

impl Shared {
    /// Counts a request and asks the script about it. Says also which link of a chain of requests it is.
    fn admit(&self, head: &Head) -> (Fault, u64) {
        let (method, target) = head.method_and_target();
        let mut traffic = self.traffic.lock().expect("the counters' lock");
        let number = traffic.total();
        match traffic.requests.iter_mut().find(|(name, _)| *name == method) {
            Some((_, count)) => *count += 1,
            None => traffic.requests.push((method.clone(), 1)),
        }
        let link = self.answered.load(Relaxed) + 1;
        traffic.chain = traffic.chain.max(link);
        drop(traffic);
        let mut script = self.script.lock().expect("the script's lock");
        (script.as_mut().map_or(Fault::None, |script| script(&Request { method, target, number })), link)
    }

    fn count_up(&self, n: usize) {
        self.traffic.lock().expect("the counters' lock").bytes_up += n as u64;
    }

    fn count_down(&self, n: usize) {
        self.traffic.lock().expect("the counters' lock").bytes_down += n as u64;
    }

    /// Occupies the link for as long as `n` bytes take on it.
    async fn pace(&self, n: usize) {
        if let Some(us) = (n as u64 * 1_000_000).checked_div(self.bytes_per_s.load(Relaxed)) {
            let _link = self.link.lock().await;
            tokio::time::sleep(Duration::from_micros(us)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const REPLY: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5;x=y\r\nworld\r\n0\r\n\r\n";

    const REQUEST: &[u8] = b"PUT /x?y HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody";

    /// A server that reads a request with a body of 4 bytes and gives `REPLY`, forever.
    async fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = Connection::new(stream).expect("a connection");
                    while let Ok(Some(head)) = connection.read_head().await {
                        drain(&mut connection, head.request_body()).await.expect("a body");
                        connection.write(REPLY).await.expect("the proxy reads");
                    }
                });
            }
        });
        address
    }

    /// Sends one request on a fresh connection and returns all that comes until
    /// the proxy closes or the whole reply is there.
    async fn ask(proxy: &Proxy) -> Vec<u8> {
        let mut client = TcpStream::connect(proxy.address()).await.expect("the proxy accepts");
        client.write_all(REQUEST).await.expect("it reads");
        let mut got = Vec::new();
        while got != REPLY && client.read_buf(&mut got).await.is_ok_and(|n| n > 0) {}
        got
    }

    #[tokio::test]
    async fn bytes_pass_unchanged_and_are_counted() {
        let proxy = Proxy::start(&server().await).await;
        for _ in 0..3 {
            assert_eq!(ask(&proxy).await, REPLY);
        }
        let traffic = proxy.traffic();
        assert_eq!((traffic.count("PUT"), traffic.total(), traffic.chain), (3, 3, 3));
        assert_eq!((traffic.bytes_up, traffic.bytes_down), (3 * REQUEST.len() as u64, 3 * REPLY.len() as u64));
    }

    #[tokio::test]
    async fn faults_do_what_they_say() {
        let proxy = Proxy::start(&server().await).await;
        let head = 4 + REPLY.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
        for (fault, expected) in [
            (Fault::Refuse, &b""[..]),
            (Fault::DropReply, b""),
            (Fault::CutReply(0), &REPLY[..head]),
            (Fault::CutReply(7), &REPLY[..head + 7]),
            (Fault::None, REPLY),
        ] {
            proxy.set_script(move |request| {
                assert_eq!((request.method.as_str(), request.target.as_str()), ("PUT", "/x?y"));
                fault
            });
            assert_eq!(ask(&proxy).await, expected, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn latency_and_bandwidth_take_their_time() {
        let proxy = Proxy::start(&server().await).await;
        let start = Instant::now();
        proxy.set_latency(Duration::from_millis(50));
        ask(&proxy).await;
        assert!(start.elapsed() >= Duration::from_millis(50));
        proxy.set_latency(Duration::ZERO);
        // 30 bytes of body at 300 a second.
        let start = Instant::now();
        proxy.set_bandwidth(300);
        ask(&proxy).await;
        assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
    }
}
