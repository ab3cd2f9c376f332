//! When to ask again: the longer of our interval and Buildkite's, and after failures later and later.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::registry::Digest;
use crate::buildkite::Error;

/// The longest wait between attempts that fail, unless the interval itself is longer. An outage's end is seen within a minute.
pub const BACKOFF_MAX: Duration = Duration::from_mins(1);

/// The pace of one token.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    asked: Option<Duration>,
    failures: u32,
    /// Whether this token has an instant of its own within the interval by now.
    spread: bool,
    jitter: Jitter,
}

impl Pace {
    /// The pace of the token with this digest.
    pub(super) const fn new(interval: Duration, token: Digest) -> Self {
        Self { interval, asked: None, failures: 0, spread: false, jitter: Jitter { seed: token.0, drawn: 0 } }
    }

    /// Takes what Buildkite last asked for. It may ask for less again; without a word, its last word stands.
    pub(super) const fn hear(&mut self, poll_after: Option<Duration>) {
        if poll_after.is_some() {
            self.asked = poll_after;
        }
    }

    fn interval(&self) -> Duration {
        self.asked.map_or(self.interval, |asked| asked.max(self.interval))
    }

    /// How long to wait after an attempt that took `took`. The interval counts from the attempt's beginning; a pause that
    /// Buildkite asked for, or that a failure earns, from its end. The first wait is longer by a share of our interval that is
    /// the token's own: tokens that all begin with the controller would otherwise be asked with in the same instant for ever.
    pub(super) fn next(&mut self, failure: Option<&Error>, took: Duration) -> Duration {
        let interval = self.interval();
        let Some(failure) = failure.filter(|failure| failure.backs_off()) else {
            self.failures = 0;
            let own = if self.spread { Duration::ZERO } else { self.jitter.share(self.interval) };
            self.spread = true;
            return (interval + own).saturating_sub(took);
        };
        self.failures = self.failures.saturating_add(1);
        if let Some(pause) = failure.retry_after() {
            return pause.max(interval);
        }
        let doubled = interval.saturating_mul(2_u32.saturating_pow(self.failures));
        let longest = doubled.min(BACKOFF_MAX.max(interval));
        // Spread over the upper half, so that tokens that failed together do not come back together.
        self.spread = true;
        let shortest = (longest / 2).max(interval);
        shortest + self.jitter.share(longest.saturating_sub(shortest))
    }
}

/// Numbers that differ between tokens and repeat between runs.
struct Jitter {
    seed: [u8; 32],
    drawn: u64,
}

impl std::fmt::Debug for Jitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The seed is a token's hash.
        f.debug_struct("Jitter").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

impl Jitter {
    /// Some share of `whole`.
    fn share(&mut self, whole: Duration) -> Duration {
        self.drawn = self.drawn.wrapping_add(1);
        let hash: [u8; 32] =
            Sha256::new().chain_update(self.seed).chain_update(self.drawn.to_le_bytes()).finalize().into();
        let [first, second, ..] = hash;
        let part = u32::from(u16::from_le_bytes([first, second]));
        whole.saturating_mul(part) / (u32::from(u16::MAX) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn beginning(token: u8) -> Pace {
        Pace::new(TEN, Digest([token; 32]))
    }

    /// One that has its place within the interval already.
    fn pace(token: u8) -> Pace {
        let mut pace = beginning(token);
        pace.next(None, Duration::ZERO);
        pace
    }

    #[test]
    fn the_first_wait_is_longer_by_a_share_of_our_own_interval_and_later_ones_are_not() {
        let first: Vec<Duration> = (0..50).map(|token| beginning(token).next(None, Duration::ZERO)).collect();
        assert!(first.iter().all(|wait| (TEN..2 * TEN).contains(wait)), "{first:?}");
        for half in [TEN..TEN * 3 / 2, TEN * 3 / 2..2 * TEN] {
            assert!(first.iter().filter(|wait| half.contains(wait)).count() >= 10, "{first:?}");
        }
        let mut slowed = beginning(1);
        slowed.hear(Some(Duration::from_mins(5)));
        assert!(slowed.next(None, Duration::ZERO) < Duration::from_mins(5) + TEN);
        assert_eq!(pace(1).next(None, Duration::ZERO), TEN);
    }

    fn down() -> Error {
        Error::ServerError { status: 500, retry_after: None }
    }

    #[test]
    fn the_interval_is_the_longer_of_ours_and_buildkites_and_goes_down_again() {
        let mut pace = pace(1);
        assert_eq!(pace.next(None, Duration::from_secs(3)), Duration::from_secs(7));
        pace.hear(Some(Duration::from_secs(30)));
        assert_eq!(pace.next(None, Duration::ZERO), Duration::from_secs(30));
        pace.hear(None);
        assert_eq!(pace.next(None, Duration::ZERO), Duration::from_secs(30));
        pace.hear(Some(Duration::from_secs(1)));
        assert_eq!(pace.next(None, Duration::ZERO), TEN);
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_minute_and_a_success_forgets_them() {
        let mut pace = pace(1);
        let waits: Vec<Duration> = (0..6).map(|_| pace.next(Some(&down()), Duration::ZERO)).collect();
        for (wait, (least, most)) in waits.iter().zip([(10, 20), (20, 40), (30, 60), (30, 60), (30, 60), (30, 60)]) {
            assert!((Duration::from_secs(least)..=Duration::from_secs(most)).contains(wait), "{waits:?}");
        }
        assert_eq!(pace.next(None, Duration::ZERO), TEN);
        assert!(pace.next(Some(&down()), Duration::ZERO) <= 2 * TEN);
    }

    #[test]
    fn two_tokens_that_fail_together_come_back_apart_and_the_same_in_every_run() {
        let wait = |token| pace(token).next(Some(&down()), Duration::ZERO);
        assert_ne!(wait(1), wait(2));
        assert_eq!(wait(1), wait(1));
    }

    #[test]
    fn a_pause_that_buildkite_asks_for_is_kept_but_never_shortens_the_interval() {
        let wait = |seconds| {
            let limited = Error::RateLimited { retry_after: Some(Duration::from_secs(seconds)) };
            pace(1).next(Some(&limited), Duration::from_secs(5))
        };
        assert_eq!(wait(90), Duration::from_secs(90));
        assert_eq!(wait(1), TEN);
    }

    #[test]
    fn a_refusal_is_asked_about_again_at_the_usual_pace() {
        assert_eq!(pace(1).next(Some(&Error::Refused { status: 401 }), Duration::ZERO), TEN);
    }
}
