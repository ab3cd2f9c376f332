//! A budget of calls over time, in the runtime's own time: a burst passes at once, a storm waits its turn, a flood is refused.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as GovernorClock, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use crate::clock::Clock;

/// So many calls in a period, all at once if need be.
pub struct Budget {
    limiter: RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<RuntimeInstant>>,
    patience: Duration,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// The budget is spent, and no call would be allowed within the patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the budget of calls is spent")]
pub struct Spent;

impl Budget {
    /// `calls` in each `period`; a caller waits at most `patience` for its turn.
    pub fn new(calls: NonZeroU32, period: Duration, patience: Duration, clock: Clock) -> Self {
        let interval = (period / calls.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(interval).map_or_else(|| Quota::per_second(calls), |quota| quota.allow_burst(calls));
        Self { limiter: RateLimiter::direct_with_clock(quota, RuntimeClock(clock)), patience }
    }

    /// Waits for a turn, or says that none comes soon enough.
    pub async fn turn(&self) -> Result<(), Spent> {
        let mut waited = Duration::ZERO;
        // Each wait is at least one interval of the quota, so the loop ends with the patience.
        loop {
            match self.limiter.check() {
                Ok(()) => return Ok(()),
                Err(refused) => {
                    let now = self.limiter.clock().now();
                    let wait = refused.wait_time_from(now).max(Duration::from_millis(1));
                    if waited + wait > self.patience {
                        return Err(Spent);
                    }
                    tokio::time::sleep(wait).await;
                    waited += wait;
                }
            }
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
        let budget = Budget::new(NonZeroU32::new(10).unwrap(), Duration::from_secs(1), Duration::from_mins(1), clock.clone());
        let start = clock.mono();
        for _ in 0..30 {
            budget.turn().await.unwrap();
        }
        let spent = clock.mono() - start;
        assert!((Duration::from_millis(1_900)..Duration::from_millis(2_200)).contains(&spent), "{spent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_would_wait_too_long_is_told_so() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let budget = Budget::new(NonZeroU32::MIN, Duration::from_hours(1), Duration::from_secs(1), clock);
        budget.turn().await.unwrap();
        assert_eq!(budget.turn().await, Err(Spent));
    }
}
