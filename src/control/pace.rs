//! How soon one tick may follow another: at once for a hint, in its time for all else.

use std::time::Duration;

use tokio::time::Instant;

/// Wakes are coalesced: pods that come up, marks that appear and writes that end wake us all the time, and bring nothing that would
/// not keep for this long.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);

/// A job waits for an agent, so its hint does not wait. So many ticks may come for hints in quick succession; they come back within half
/// a second. A flood of hints is looked at twenty times a second like all else.
const HURRIED_MAX: u32 = 8;

/// Several hints that come together are looked at together.
const INTERVAL_MIN: Duration = Duration::from_millis(5);

/// When ticks may begin.
#[derive(Debug)]
pub(super) struct Pace {
    /// When as many may be hurried as ever.
    rested_at: Instant,
}

/// When the next tick may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    /// Where a hint waits for it.
    pub(super) hurried: Instant,
    /// Otherwise.
    pub(super) usual: Instant,
}

impl Pace {
    /// Nothing has been yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { rested_at: now }
    }

    /// How long to rest after a tick that took from `began` to `ended`.
    pub(super) fn rest(&self, began: Instant, ended: Instant) -> Rest {
        // A tick over thousands of pools takes long; half of a core is enough for all of them.
        let fair = began + INTERVAL_MIN.max(2 * ended.saturating_duration_since(began));
        let usual = fair.max(began + INTERVAL);
        let rested = self.rested_at.checked_sub(INTERVAL * (HURRIED_MAX - 1)).unwrap_or(usual);
        Rest { hurried: fair.max(rested).min(usual), usual }
    }

    /// A tick begins for hints.
    pub(super) fn hurries(&mut self, now: Instant) {
        self.rested_at = self.rested_at.max(now) + INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn now() -> Instant {
        Clock::fixed(jiff::Timestamp::UNIX_EPOCH).mono()
    }

    /// When so many ticks begin that take this long each, after one another as soon as a hint makes them.
    fn hurried(pace: &mut Pace, mut at: Instant, count: usize, took: Duration) -> Vec<Instant> {
        let mut begun = Vec::new();
        for _ in 0..count {
            begun.push(at);
            let rest = pace.rest(at, at + took);
            at = rest.hurried;
            pace.hurries(at);
        }
        begun
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_hints_are_looked_at_at_once_and_a_flood_of_them_twenty_times_a_second() {
        let start = now();
        let mut pace = Pace::new(start);
        let begun = hurried(&mut pace, start, 60, Duration::from_micros(100));
        assert_eq!(begun[8] - begun[0], 8 * INTERVAL_MIN);
        let last_second = begun.iter().filter(|at| begun[59] - **at < Duration::from_secs(1)).count();
        assert_eq!(last_second, 20);
        let again = hurried(&mut pace, begun[59] + Duration::from_secs(1), 9, Duration::from_micros(100));
        assert_eq!(again[8] - again[0], 8 * INTERVAL_MIN, "after a rest");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_hint_waits_its_time() {
        let start = now();
        let rest = Pace::new(start).rest(start, start + Duration::from_millis(1));
        assert_eq!((rest.hurried, rest.usual), (start + INTERVAL_MIN, start + INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_that_take_long_leave_half_of_the_time_to_others() {
        let start = now();
        let begun = hurried(&mut Pace::new(start), start, 10, Duration::from_millis(80));
        assert_eq!(begun[9] - begun[0], 9 * Duration::from_millis(160));
    }
}
