//! As much of HTTP/1.1 as a proxy must understand: where a head ends, and where
//! the body behind it ends. Bytes are passed on as they came.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MAX_HEAD_BYTES: usize = 64 * 1024;
const PIECE_BYTES: u64 = 64 * 1024;

/// One side of the proxy.
pub(super) struct Connection {
    stream: TcpStream,
    /// Bytes that have been read and not yet taken.
    ahead: Vec<u8>,
}

/// The head of a request or reply, its empty line included.
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
}

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Body {
    Length(u64),
    /// So many bytes are left of the current chunk and its line end.
    Chunked(u64),
    ToEnd,
    Done,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Result<Connection> {
        stream.set_nodelay(true)?;
        Ok(Connection { stream, ahead: Vec::new() })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next head; `None` if the connection ends before it.
    pub(super) async fn read_head(&mut self) -> Result<Option<Head>> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                return Ok(Some(Head { bytes: self.take(at + 4) }));
            }
            if self.ahead.len() > MAX_HEAD_BYTES {
                return Err(Error::new(ErrorKind::InvalidData, "a head without end"));
            }
            if !self.read_more().await? {
                return Ok(None);
            }
        }
    }

    /// The next piece of a body, with the framing of chunks; `None` at its end.
    pub(super) async fn next_piece(&mut self, body: &mut Body) -> Result<Option<Vec<u8>>> {
        match body {
            Body::Done | Body::Length(0) => Ok(None),
            Body::Length(left) | Body::Chunked(left @ 1..) => {
                let piece = self.take_some(*left).await?;
                *left -= piece.len() as u64;
                Ok(Some(piece))
            }
            Body::Chunked(_) => {
                let mut line = self.take_line().await?;
                let digits: String = line.iter().map(|b| *b as char).take_while(char::is_ascii_hexdigit).collect();
                match u64::from_str_radix(&digits, 16) {
                    Ok(0) => {
                        // Trailers, up to the empty line that ends the body.
                        loop {
                            let trailer = self.take_line().await?;
                            line.extend_from_slice(&trailer);
                            if trailer == b"\r\n" {
                                break;
                            }
                        }
                        *body = Body::Done;
                    }
                    Ok(len) => *body = Body::Chunked(len + 2),
                    Err(e) => return Err(Error::new(ErrorKind::InvalidData, e)),
                }
                Ok(Some(line))
            }
            Body::ToEnd => {
                if self.ahead.is_empty() && !self.read_more().await? {
                    *body = Body::Done;
                    return Ok(None);
                }
                let all = self.ahead.len();
                Ok(Some(self.take(all)))
            }
        }
    }

    async fn take_some(&mut self, at_most: u64) -> Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.need_more().await?;
        }
        let n = (self.ahead.len() as u64).min(at_most).min(PIECE_BYTES);
        Ok(self.take(n as usize))
    }

    async fn take_line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n") {
                return Ok(self.take(at + 2));
            }
            self.need_more().await?;
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(n);
        std::mem::replace(&mut self.ahead, rest)
    }

    async fn need_more(&mut self) -> Result<()> {
        if self.read_more().await? { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    async fn read_more(&mut self) -> Result<bool> {
        self.ahead.reserve(PIECE_BYTES as usize);
        Ok(self.stream.read_buf(&mut self.ahead).await? > 0)
    }
}

impl Head {
    pub(super) fn method_and_target(&self) -> (String, String) {
        let line = String::from_utf8_lossy(&self.bytes);
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    pub(super) fn request_body(&self) -> Body {
        self.framed_body().unwrap_or(Body::Done)
    }

    /// The body of this reply to `request`.
    pub(super) fn reply_body(&self, request: &Head) -> Body {
        let status = String::from_utf8_lossy(&self.bytes).split(' ').nth(1).unwrap_or_default().to_owned();
        if request.bytes.starts_with(b"HEAD ") || matches!(status.as_str(), "204" | "304") {
            return Body::Done;
        }
        self.framed_body().unwrap_or(Body::ToEnd)
    }

    /// Whether the connection ends after this reply.
    pub(super) fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn framed_body(&self) -> Option<Body> {
        if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Some(Body::Chunked(0));
        }
        self.header("content-length").and_then(|value| value.parse().ok()).map(Body::Length)
    }

    fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut headers = text.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }
}

fn find(bytes: &[u8], end: &[u8]) -> Option<usize> {
    bytes.windows(end.len()).position(|window| window == end)
}
