//! Who is let in, and how often.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quire_proto::Grant;
use quire_proto::wire::status_of_limit;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::clients::Client;
use crate::tokens::Verifier;

/// So many callers are counted; with more, all begin anew.
const MOST_CALLERS: usize = 10_000;

/// Puts into each call what its caller may do.
#[derive(Clone)]
pub(crate) struct Gate {
    /// Without it whoever reaches the server may do everything.
    tokens: Option<Verifier>,
    limiter: Option<Arc<Limiter>>,
}

impl Gate {
    pub(crate) fn new(tokens: Option<Verifier>, calls_per_second: Option<NonZeroU32>) -> Gate {
        Gate { tokens, limiter: calls_per_second.map(|rate| Arc::new(Limiter::new(rate))) }
    }
}

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let request = match &mut self.tokens {
            None => quire_proto::wire::everyone(request)?,
            Some(verifier) => verifier.call(request)?,
        };
        let Some(grant) = request.extensions().get::<Grant>() else { return Ok(request) };
        if let Some(client) = request.extensions().get::<Arc<Client>>() {
            client.is(&grant.subject);
        }
        if let Some(limiter) = &self.limiter {
            limiter.take(&grant.subject, Instant::now())?;
        }
        Ok(request)
    }
}

/// Counts the calls of each subject: a bucket that holds the calls of a second, and fills as time goes by.
struct Limiter {
    rate: f64,
    callers: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Limiter {
    fn new(rate: NonZeroU32) -> Limiter {
        Limiter { rate: f64::from(rate.get()), callers: Mutex::default() }
    }

    fn take(&self, subject: &str, now: Instant) -> Result<(), Status> {
        let mut callers = self.callers.lock();
        if callers.len() >= MOST_CALLERS && !callers.contains_key(subject) {
            callers.clear();
        }
        let (left, at) = callers.entry(subject.to_owned()).or_insert((self.rate, now));
        *left = (*left + now.saturating_duration_since(*at).as_secs_f64() * self.rate).min(self.rate);
        *at = now;
        if *left < 1.0 {
            let delay = Duration::from_secs_f64((1.0 - *left) / self.rate);
            let message = format!("{subject} has asked more than {} times in a second", self.rate);
            return Err(status_of_limit(&message, delay));
        }
        *left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use quire_proto::wire::retry_delay;

    use super::*;

    #[test]
    fn who_asks_too_often_is_told_when_to_ask_again_and_others_are_not_kept_waiting() {
        let limiter = Limiter::new(NonZeroU32::new(10).unwrap());
        let start = Instant::now();
        for _ in 0..10 {
            limiter.take("ada", start).unwrap();
        }
        let refused = limiter.take("ada", start).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let delay = retry_delay(&refused).unwrap();
        assert_eq!(delay, Duration::from_millis(100));
        limiter.take("bob", start).unwrap();
        limiter.take("ada", start + delay).unwrap();
        limiter.take("ada", start + delay).unwrap_err();
        // However long nobody asks, no more than a second's calls are saved.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..20).filter(|_| limiter.take("ada", later).is_ok()).count(), 10);
    }

    #[test]
    fn however_many_callers_there_are_memory_is_bounded() {
        let limiter = Limiter::new(NonZeroU32::MIN);
        let now = Instant::now();
        (0..3 * MOST_CALLERS).for_each(|n| limiter.take(&n.to_string(), now).unwrap());
        assert!(limiter.callers.lock().len() <= MOST_CALLERS);
    }
}
