//! How much work that nobody waits for may take from those who do.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So many bytes a second, whoever takes them. What is taken at once is paid for afterwards, by waiting.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_per_second: f64,
    /// When all that was taken is paid for.
    paid: Mutex<Instant>,
}

impl Budget {
    pub(crate) fn new(bytes_per_second: NonZeroU64) -> Budget {
        Budget { bytes_per_second: bytes_per_second.get() as f64, paid: Mutex::new(Instant::now()) }
    }

    /// Waits until these bytes, and those that others have taken before, are paid for. Idle time is not saved up.
    pub(crate) async fn pay(&self, bytes: u64) {
        let until = self.take(bytes, Instant::now());
        tokio::time::sleep_until(until.into()).await;
    }

    /// When bytes that are taken now are paid for.
    fn take(&self, bytes: u64, now: Instant) -> Instant {
        let price = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let mut paid = self.paid.lock();
        *paid = (*paid).max(now) + price;
        *paid
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]
mod tests {
    use super::*;

    #[test]
    fn however_many_take_at_once_they_get_no_more_together_and_idle_time_is_not_saved_up() {
        let budget = Budget::new(NonZeroU64::new(1000).unwrap());
        let start = Instant::now() + Duration::from_secs(1);
        for taken in 1..=10 {
            assert_eq!(budget.take(500, start), start + Duration::from_millis(500) * taken);
        }
        let later = start + Duration::from_secs(3600);
        assert_eq!(budget.take(2000, later), later + Duration::from_secs(2));
    }
}
