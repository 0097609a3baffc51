//! A line to a server that breaks as lines do, whatever is spoken on it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

const LATE_PIECE_BYTES: usize = 64 * 1024;
/// So many pieces are under way on a long line; then its sender waits.
const MOST_UNDER_WAY: usize = 1_000;

/// What happens to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// It breaks off in both directions once so many bytes have passed, both ways together.
    Cut(u64),
    /// Every piece arrives so much later, as on a long line: what is under way does not hold up what follows.
    Delay(Duration),
    /// Once so many bytes have passed nothing arrives for a while; then it goes on.
    Stall(u64, Duration),
}

/// A running line. It takes no more connections once this goes.
pub struct Line {
    address: SocketAddr,
    troubles: Arc<AtomicU64>,
    open: Arc<AtomicBool>,
}

impl Line {
    /// Listens on a port of its own, and goes on to `upstream` (`host:port`). `trouble` says what happens to each connection.
    pub fn start(upstream: &str, mut trouble: impl FnMut() -> Trouble + Send + 'static) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (troubles, open) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let line = Line { address, troubles: troubles.clone(), open: open.clone() };
        let upstream = upstream.to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if !open.load(SeqCst) {
                    return;
                }
                // Who is not there is not there: the client sees its connection end.
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&upstream)) else { continue };
                let passage = Passage { trouble: trouble(), passed: AtomicU64::new(0), troubles: troubles.clone() };
                passage.begin(client, server);
            }
        });
        line
    }

    /// Where it listens: `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many connections have met their trouble so far.
    pub fn troubles(&self) -> u64 {
        self.troubles.load(SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.open.store(false, SeqCst);
        // Whoever waits for a connection gets one, and sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

/// One connection.
struct Passage {
    trouble: Trouble,
    passed: AtomicU64,
    troubles: Arc<AtomicU64>,
}

impl Passage {
    fn begin(self, client: TcpStream, server: TcpStream) {
        let passage = Arc::new(self);
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            // What is small is not held back.
            let _ = to.set_nodelay(true);
            let passage = passage.clone();
            std::thread::spawn(move || passage.pass(from, to));
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = [0; 8192];
        // An end that fails ends the other one.
        while let Ok(len @ 1..) = from.read(&mut piece) {
            let before = self.passed.fetch_add(len as u64, SeqCst);
            let is_at = |at: u64| before <= at && at < before + len as u64;
            match self.trouble {
                Trouble::Cut(at) if before + len as u64 > at => {
                    self.troubles.fetch_add(u64::from(is_at(at)), SeqCst);
                    let some = usize::try_from(at.saturating_sub(before)).unwrap_or(len);
                    let _ = to.write_all(&piece[..some]);
                    let _ = from.shutdown(Shutdown::Both);
                    break;
                }
                Trouble::Delay(time) => {
                    self.troubles.fetch_add(u64::from(before == 0), SeqCst);
                    return late(&piece[..len], time, from, to);
                }
                Trouble::Stall(at, time) if is_at(at) => {
                    self.troubles.fetch_add(1, SeqCst);
                    std::thread::sleep(time);
                }
                Trouble::None | Trouble::Cut(_) | Trouble::Stall(..) => {}
            }
            if to.write_all(&piece[..len]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    }
}

/// Passes on what came and what comes, each piece so much later.
fn late(first: &[u8], time: Duration, mut from: TcpStream, mut to: TcpStream) {
    let (sender, pieces) = sync_channel::<(Instant, Vec<u8>)>(MOST_UNDER_WAY);
    std::thread::spawn(move || {
        for (due, piece) in pieces {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut piece = vec![0; LATE_PIECE_BYTES];
    piece[..first.len()].copy_from_slice(first);
    let mut len = first.len();
    // An end that fails ends the other one.
    while len > 0 && sender.send((Instant::now() + time, piece[..len].to_vec())).is_ok() {
        len = from.read(&mut piece).unwrap_or(0);
    }
}
