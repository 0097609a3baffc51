//! How long a request is tried: the one retry loop of the house. Callers above
//! never retry; an `Unavailable` that reaches them has used up this patience.

use std::future::Future;
use std::time::Duration;

use quire_proto::{ErrorKind, Result};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use crate::counters::Tally;
use crate::failure::{Failure, Hope};

/// The slowest link that is still waited for: a body of n bytes adds its time
/// at this rate to every limit.
const SLOWEST_BYTES_PER_S: u64 = 128 * 1024;
/// Pauses double up to this many times the first.
const LONGEST_PAUSE: u32 = 20;
/// An object that stays short this often is damaged, not delayed.
const SHORT_ATTEMPTS: u32 = 3;

/// Time limits of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After this long, no further attempt begins.
    pub deadline: Duration,
    /// The same, while not even a connection came about.
    pub connect_deadline: Duration,
    /// One attempt that is not answered in this time is given up.
    pub attempt: Duration,
    /// The longest pause before the second attempt; later ones are longer.
    pub first_pause: Duration,
    /// A read that is not answered in this time, nor in four times what is usual, is asked for once more beside the first.
    /// None: not before it is given up.
    pub hedge: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            deadline: Duration::from_secs(30),
            connect_deadline: Duration::from_secs(10),
            attempt: Duration::from_secs(15),
            first_pause: Duration::from_millis(100),
            hedge: Some(Duration::from_millis(500)),
        }
    }
}

impl Limits {
    /// Runs one attempt of `what`, which moves `bytes`, within its time.
    pub(crate) async fn attempt<T>(
        &self,
        what: &str,
        bytes: u64,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limit = self.attempt + transfer_time(bytes);
        let request = request.instrument(tracing::info_span!("store request", what, bytes));
        timeout(limit, request).await.unwrap_or_else(|_| Err(Failure::timed_out(what, limit)))
    }

    /// Tries `request`, which moves `bytes`, until it succeeds, fails for good
    /// or time is up.
    pub(crate) async fn retry<T, F>(&self, tally: &Tally, bytes: u64, mut request: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let start = Instant::now();
        let mut connected = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = match request().await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            connected |= failure.hope != Hope::Unreached;
            let deadline = if connected { self.deadline + transfer_time(bytes) } else { self.connect_deadline };
            let pause = self.pause(attempt);
            let goes_on = match failure.hope {
                Hope::None => false,
                Hope::Short => attempt < SHORT_ATTEMPTS,
                Hope::Busy | Hope::Unreached | Hope::Unclear => true,
            };
            if !goes_on || start.elapsed() + pause > deadline {
                return Err(in_all(failure, attempt, start.elapsed()));
            }
            sleep(pause).await;
            tally.retried();
        }
    }

    /// Doubles from attempt to attempt; half of it is random, so that clients that
    /// failed together do not come back together.
    fn pause(&self, attempt: u32) -> Duration {
        let longest = self.first_pause.saturating_mul((1 << (attempt - 1).min(16)).min(LONGEST_PAUSE));
        longest.mul_f64(rand::random_range(0.5..=1.0))
    }
}

fn transfer_time(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST_BYTES_PER_S)
}

fn in_all(failure: Failure, attempts: u32, elapsed: Duration) -> quire_proto::Error {
    let error = failure.error;
    if error.kind() != ErrorKind::Unavailable || attempts == 1 {
        return error;
    }
    let message = format!("{} (tried {attempts} times in {:.1} s)", error.message(), elapsed.as_secs_f32());
    let whole = quire_proto::Error::unavailable(message);
    match error.remedy() {
        Some(remedy) => whole.with_remedy(remedy),
        None => whole,
    }
}
