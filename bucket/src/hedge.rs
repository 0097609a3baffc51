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

use crate::failure::{Failure, Hope};

/// Nothing is late that has not taken so many times as long as most answers.
const TIMES_TYPICAL: u32 = 4;
/// How much of the difference an answer makes to what is typical.
const WEIGHT: f64 = 0.1;
/// One read in twenty may be asked for again, besides the first that is late,
const SHARE: f64 = 0.05;
/// and of those that were not, so many may be made up for.
const MOST_SAVED: f64 = 4.0;

/// What the answers of a store were like.
pub(crate) struct Hedge {
    state: Mutex<State>,
}

struct State {
    /// None: there was no answer yet. The first one also has to wait for a connection, as its twin would.
    typical: Option<Duration>,
    /// How many reads may be asked for again.
    saved: f64,
}

impl Default for Hedge {
    fn default() -> Hedge {
        Hedge { state: Mutex::new(State { typical: None, saved: 1.0 }) }
    }
}

impl Hedge {
    /// Asks, and asks once more if the answer is late, but never before `least`; `again` is called then. Without
    /// `least` nothing is asked for twice.
    pub(crate) async fn first<T, F>(
        &self,
        least: Option<Duration>,
        again: impl FnOnce(),
        ask: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let Some(least) = least else { return ask().await };
        let begun = Instant::now();
        let first = pin!(ask());
        let late = pin!(async {
            match self.patience(least) {
                Some(patience) => sleep(patience).await,
                None => std::future::pending().await,
            }
        });
        let answer = match select(first, late).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), first)) if self.takes_one() => {
                again();
                match select(first, pin!(ask())).await {
                    Either::Left((answer, _)) | Either::Right((answer, _)) if is_final(&answer) => answer,
                    Either::Left((_, other)) => other.await,
                    Either::Right((_, other)) => other.await,
                }
            }
            Either::Right(((), first)) => first.await,
        };
        if is_final(&answer) {
            self.learn(begun.elapsed());
        }
        answer
    }

    fn patience(&self, least: Duration) -> Option<Duration> {
        self.state.lock().typical.map(|typical| least.max(typical * TIMES_TYPICAL))
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
        let typical = state.typical.unwrap_or_default();
        state.typical = Some(typical.mul_f64(1.0 - WEIGHT) + took.mul_f64(WEIGHT));
        state.saved = (state.saved + SHARE).min(MOST_SAVED);
    }
}

/// Whether the store would give the same answer once more: that there is no such object, too.
fn is_final<T>(answer: &Result<T, Failure>) -> bool {
    answer.as_ref().map_or_else(|failure| matches!(failure.hope, Hope::None | Hope::Short), |_| true)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use quire_proto::Error;
    use tokio::sync::Notify;

    use super::*;

    const LEAST: Duration = Duration::from_millis(1);

    /// A store that has answered before.
    fn used() -> Hedge {
        let hedge = Hedge::default();
        hedge.learn(Duration::ZERO);
        hedge
    }

    #[tokio::test]
    async fn a_late_answer_is_asked_for_once_more_and_the_first_one_counts() {
        let (asked, again) = (Cell::new(0), Cell::new(0));
        let ask = || {
            let n = asked.replace(asked.get() + 1);
            async move { if n == 1 { std::future::pending().await } else { Ok(n) } }
        };
        let hedge = Hedge::default();
        assert_eq!(hedge.first(Some(LEAST), || again.set(1), ask).await.unwrap(), 0, "it came at once");
        assert_eq!((asked.get(), again.get()), (1, 0));
        assert_eq!(hedge.first(Some(LEAST), || again.set(1), ask).await.unwrap(), 2, "the first never comes");
        assert_eq!((asked.get(), again.get()), (3, 1));
    }

    #[tokio::test]
    async fn a_failure_waits_for_the_other_answer_unless_it_would_be_the_same() {
        let (hedge, asked, both) = (used(), Cell::new(0), Notify::new());
        let ask = || {
            let (n, both) = (asked.replace(asked.get() + 1), &both);
            async move {
                if n == 0 {
                    both.notified().await;
                    return Err(Failure::busy("the first"));
                }
                both.notify_one();
                tokio::task::yield_now().await;
                Ok("the second")
            }
        };
        assert_eq!(hedge.first(Some(LEAST), || {}, ask).await.unwrap(), "the second");
        let failed: Result<(), Failure> = hedge.first(Some(LEAST), || {}, async || Err(Failure::busy("at once"))).await;
        assert_eq!(failed.unwrap_err().error.message(), "at once");
        (0..20).for_each(|_| hedge.learn(Duration::ZERO));
        asked.set(0);
        let ask = || {
            let n = asked.replace(asked.get() + 1);
            async move {
                match n {
                    0 => std::future::pending().await,
                    _ => Err::<(), Failure>(Failure::last(Error::not_found("there is none"))),
                }
            }
        };
        let failed = hedge.first(Some(LEAST), || {}, ask).await.unwrap_err();
        assert_eq!((failed.error.message(), asked.get()), ("there is none", 2));
    }

    #[tokio::test]
    async fn the_first_answer_of_all_is_waited_for() {
        let (hedge, asked) = (Hedge::default(), Cell::new(0));
        let ask = || {
            asked.set(asked.get() + 1);
            async {
                sleep(Duration::from_millis(20)).await;
                Ok(())
            }
        };
        hedge.first(Some(Duration::ZERO), || {}, ask).await.unwrap();
        assert_eq!(asked.get(), 1, "a connection comes about once");
        used().first(Some(Duration::ZERO), || {}, ask).await.unwrap();
        assert_eq!(asked.get(), 3, "the others are late");
    }

    #[test]
    fn a_full_link_is_not_filled_more() {
        let (hedge, least) = (Hedge::default(), Duration::from_millis(300));
        (0..100).for_each(|_| hedge.learn(Duration::from_millis(30)));
        assert_eq!(hedge.patience(least), Some(least));
        (0..3).for_each(|_| hedge.learn(Duration::from_secs(2)));
        assert!(hedge.patience(least).unwrap() > Duration::from_secs(2), "{:?}", hedge.patience(least));
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
