//! A read that is not answered in time is asked for once more, and the first answer counts: of the many reads of a
//! query the slowest decides, and none is often slow twice (Dean and Barroso, "The Tail at Scale", 2013).
//!
//! A link that is full makes every answer late, and asking again would fill it more. So what counts as late follows
//! from the answers there were, and few reads are asked for again.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// Nothing is late that has not taken so many times as long as most answers.
const TIMES_TYPICAL: u32 = 4;
/// How much of the difference an answer makes to what is typical.
const WEIGHT: f64 = 0.1;
/// One read in twenty may be asked for again,
const SHARE: f64 = 0.05;
/// and of those that were not, so many may be made up for.
const MOST_SAVED: f64 = 4.0;

/// What the answers of a store were like.
pub(crate) struct Hedge {
    state: Mutex<State>,
}

struct State {
    typical: Duration,
    /// How many reads may be asked for again.
    saved: f64,
}

impl Default for Hedge {
    fn default() -> Hedge {
        Hedge { state: Mutex::new(State { typical: Duration::ZERO, saved: 1.0 }) }
    }
}

impl Hedge {
    /// Asks, and asks once more if the answer is late, but never before `least`; `again` is called then. Without
    /// `least` nothing is asked for twice.
    pub(crate) async fn first<T, E, F>(
        &self,
        least: Option<Duration>,
        again: impl FnOnce(),
        ask: impl Fn() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let Some(least) = least else { return ask().await };
        let begun = Instant::now();
        let first = pin!(ask());
        let answer = match select(first, pin!(sleep(self.patience(least)))).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), first)) if self.takes_one() => {
                again();
                match select(first, pin!(ask())).await {
                    Either::Left((Ok(answer), _)) | Either::Right((Ok(answer), _)) => Ok(answer),
                    Either::Left((Err(_), other)) => other.await,
                    Either::Right((Err(_), other)) => other.await,
                }
            }
            Either::Right(((), first)) => first.await,
        };
        if answer.is_ok() {
            self.learn(begun.elapsed());
        }
        answer
    }

    fn patience(&self, least: Duration) -> Duration {
        least.max(self.state.lock().typical * TIMES_TYPICAL)
    }

    fn takes_one(&self) -> bool {
        let mut state = self.state.lock();
        let may = state.saved >= 1.0;
        if may {
            state.saved -= 1.0;
        }
        may
    }

    fn learn(&self, took: Duration) {
        let mut state = self.state.lock();
        state.typical = state.typical.mul_f64(1.0 - WEIGHT) + took.mul_f64(WEIGHT);
        state.saved = (state.saved + SHARE).min(MOST_SAVED);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::Notify;

    use super::*;

    const LEAST: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_late_answer_is_asked_for_once_more_and_the_first_one_counts() {
        let (asked, again) = (Cell::new(0), Cell::new(0));
        let ask = || {
            let n = asked.replace(asked.get() + 1);
            async move { if n == 1 { std::future::pending().await } else { Ok::<_, ()>(n) } }
        };
        let hedge = Hedge::default();
        assert_eq!(hedge.first(Some(LEAST), || again.set(1), ask).await, Ok(0), "it came at once");
        assert_eq!((asked.get(), again.get()), (1, 0));
        assert_eq!(hedge.first(Some(LEAST), || again.set(1), ask).await, Ok(2), "the first never comes");
        assert_eq!((asked.get(), again.get()), (3, 1));
    }

    #[tokio::test]
    async fn a_failure_waits_for_the_other_answer() {
        let (asked, both) = (Cell::new(0), Notify::new());
        let ask = || {
            let (n, both) = (asked.replace(asked.get() + 1), &both);
            async move {
                if n == 0 {
                    both.notified().await;
                    return Err("the first");
                }
                both.notify_one();
                tokio::task::yield_now().await;
                Ok("the second")
            }
        };
        assert_eq!(Hedge::default().first(Some(LEAST), || {}, ask).await, Ok("the second"));
        let failed: Result<(), &str> = Hedge::default().first(Some(LEAST), || {}, async || Err("at once")).await;
        assert_eq!(failed, Err("at once"));
    }

    #[test]
    fn a_full_link_is_not_filled_more() {
        let (hedge, least) = (Hedge::default(), Duration::from_millis(300));
        (0..100).for_each(|_| hedge.learn(Duration::from_millis(30)));
        assert_eq!(hedge.patience(least), least);
        (0..3).for_each(|_| hedge.learn(Duration::from_secs(2)));
        assert!(hedge.patience(least) > Duration::from_secs(2), "{:?}", hedge.patience(least));
    }

    #[test]
    fn few_are_asked_for_again() {
        let hedge = Hedge::default();
        assert!(hedge.takes_one() && !hedge.takes_one());
        (0..21).for_each(|_| hedge.learn(Duration::ZERO));
        assert!(hedge.takes_one() && !hedge.takes_one());
        (0..10_000).for_each(|_| hedge.learn(Duration::ZERO));
        assert_eq!((0..100).filter(|_| hedge.takes_one()).count(), MOST_SAVED as usize);
    }
}
