//! A budget of calls over time, in the runtime's own time: a burst passes at once, a storm waits its turn, a flood is refused.

use std::{hash::Hash, num::NonZeroU32, sync::Mutex as Lock, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as GovernorClock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};
use tokio::{sync::Mutex, time::Instant};

use crate::clock::Clock;

/// At most so many calls in any period: a part of them at once if need be, the others at an even pace.
pub struct Budget {
    /// Whoever holds it asks the limiter; the others stand in line, and tokio's mutex serves them in order. Without it all
    /// who wait wake up in the same instant, the same ones win each time, and the rest are never served.
    line: Mutex<()>,
    limiter: RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<RuntimeInstant>>,
    patience: Duration,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// One in so many calls of a budget may come at once; the rest of it is the pace. Bursts are short here (a tick of many pools,
/// a start with many tokens), so the pace gets the larger part.
const BURST_PART: u32 = 4;

/// The budget is spent, and no call would be allowed within the patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the budget of calls is spent")]
pub struct Spent;

impl Budget {
    /// `calls` in each `period`; a caller waits at most `patience` for its turn.
    pub fn new(calls: NonZeroU32, period: Duration, patience: Duration, clock: Clock) -> Self {
        // A period that begins with everything unspent sees the burst and then the pace, so the two share the budget.
        let burst = NonZeroU32::new(calls.get() / BURST_PART).unwrap_or(NonZeroU32::MIN);
        let paced = calls.get().saturating_sub(burst.get()).max(1);
        let interval = (period / paced).max(Duration::from_nanos(1));
        let quota =
            Quota::with_period(interval).map_or_else(|| Quota::per_second(calls), |quota| quota.allow_burst(burst));
        Self { line: Mutex::new(()), limiter: RateLimiter::direct_with_clock(quota, RuntimeClock(clock)), patience }
    }

    /// Waits for a turn, after all who came before, or says that none comes soon enough.
    pub async fn turn(&self) -> Result<(), Spent> {
        let give_up = self.now() + self.patience;
        let _first_in_line = tokio::time::timeout_at(give_up, self.line.lock()).await.map_err(|_| Spent)?;
        // Each wait ends when the limiter has said that it will let a call pass, so this goes round twice, and never beyond
        // the patience.
        loop {
            let Err(refused) = self.limiter.check() else { return Ok(()) };
            let now = self.limiter.clock().now();
            let wait = refused.wait_time_from(now).max(Duration::from_millis(1));
            if now.0 + wait > give_up {
                return Err(Spent);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a turn if there is one at once and nobody stands in line; for what can as well be done later.
    pub fn turn_if_free(&self) -> Result<(), Spent> {
        let _first_in_line = self.line.try_lock().map_err(|_| Spent)?;
        self.limiter.check().map_err(|_| Spent)
    }

    fn now(&self) -> Instant {
        self.limiter.clock().now().0
    }
}

/// The same for each of many sources, a second's worth at once. Nobody waits.
pub struct SourceBudget<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, HashMapStateStore<K>, RuntimeClock, NoOpMiddleware<RuntimeInstant>>,
    swept_at: Lock<Instant>,
}

/// Sources that are told apart. A flood from more than these counts as one source too many; each takes some 100 bytes.
const SOURCES_MAX: usize = 10_000;

/// Sources are forgotten when their budget is whole again, which takes a second.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl<K: Hash + Eq + Clone> std::fmt::Debug for SourceBudget<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceBudget").field("sources", &self.limiter.len()).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> SourceBudget<K> {
    /// So many calls a second for each.
    pub fn new(calls_per_second: NonZeroU32, clock: Clock) -> Self {
        let swept_at = Lock::new(clock.mono());
        let limiter = RateLimiter::hashmap_with_clock(Quota::per_second(calls_per_second), RuntimeClock(clock));
        Self { limiter, swept_at }
    }

    /// Takes a turn of this source, if it has one.
    pub fn turn_if_free(&self, source: &K) -> Result<(), Spent> {
        self.sweep();
        if self.limiter.len() >= SOURCES_MAX {
            return Err(Spent);
        }
        self.limiter.check_key(source).map_err(|_| Spent)
    }

    fn sweep(&self) {
        let now = self.limiter.clock().now().0;
        let mut swept_at = self.swept_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now.saturating_duration_since(*swept_at) >= SWEEP_EVERY {
            *swept_at = now;
            self.limiter.retain_recent();
        }
    }
}

#[derive(Debug, Clone)]
struct RuntimeClock(Clock);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RuntimeInstant(Instant);

impl std::ops::Add<Nanos> for RuntimeInstant {
    type Output = Self;

    fn add(self, nanos: Nanos) -> Self {
        Self(self.0 + Duration::from(nanos))
    }
}

impl Reference for RuntimeInstant {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl GovernorClock for RuntimeClock {
    type Instant = RuntimeInstant;

    fn now(&self) -> RuntimeInstant {
        RuntimeInstant(self.0.mono())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_the_rest_waits_its_turn() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let budget =
            Budget::new(NonZeroU32::new(10).unwrap(), Duration::from_secs(1), Duration::from_mins(1), clock.clone());
        let start = clock.mono();
        for _ in 0..30 {
            budget.turn().await.unwrap();
        }
        // Two at once, then eight a second.
        let spent = clock.mono() - start;
        assert!((Duration::from_millis(3_400)..Duration::from_millis(3_600)).contains(&spent), "{spent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_period_sees_more_calls_than_its_budget() {
        for calls in [1, 2, 3, 10, 120] {
            let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
            let period = Duration::from_mins(1);
            let budget = Budget::new(NonZeroU32::new(calls).unwrap(), period, Duration::from_hours(1), clock.clone());
            let mut times = Vec::new();
            for turn in 0..calls * 3 {
                // A quiet time in between, so that a burst is there again.
                if turn == calls {
                    tokio::time::sleep(Duration::from_mins(5)).await;
                }
                budget.turn().await.unwrap();
                times.push(clock.mono());
            }
            let most =
                times.iter().map(|end| times.iter().filter(|at| **at <= *end && *end - **at < period).count()).max();
            assert!(most <= Some(usize::try_from(calls).unwrap()), "{calls}: {most:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_wait_never_stands_before_what_cannot() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let four = NonZeroU32::new(4).unwrap();
        let budget = Budget::new(four, Duration::from_secs(1), Duration::from_mins(1), clock.clone());
        assert_eq!(budget.turn_if_free(), Ok(()));
        assert_eq!(budget.turn_if_free(), Err(Spent), "the burst is one");
        let start = clock.mono();
        budget.turn().await.unwrap();
        assert!(clock.mono() - start <= Duration::from_millis(340), "the next turn is for who waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_would_wait_too_long_is_told_so() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let budget = Budget::new(NonZeroU32::MIN, Duration::from_hours(1), Duration::from_secs(1), clock);
        budget.turn().await.unwrap();
        assert_eq!(budget.turn().await, Err(Spent));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_are_served_in_the_order_in_which_they_came() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let budget = Budget::new(NonZeroU32::new(2).unwrap(), Duration::from_secs(1), Duration::from_mins(1), clock);
        let served = std::cell::RefCell::new(Vec::new());
        let caller = async |name: u32| {
            for _ in 0..10 {
                budget.turn().await.unwrap();
                served.borrow_mut().push(name);
            }
        };
        futures::future::join_all((0..5).map(caller)).await;
        // The first takes the whole burst and the place at the head before the others have asked; then nobody gets further ahead.
        let mut turns = [0_u32; 5];
        for name in served.into_inner() {
            turns[usize::try_from(name).unwrap()] += 1;
            let (most, least) = (turns.iter().max().unwrap(), turns.iter().min().unwrap());
            assert!(most - least <= 3, "{turns:?}");
        }
    }
}
