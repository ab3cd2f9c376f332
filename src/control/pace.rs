//! How soon one tick may follow another: at once where agents wait for it, in its time for all else.
//!
//! ```text
//!  urgent: a hint that the last tick did not see, or a report that was in the way of an act has ended ─► 5 ms after the last began
//!  what was put off until then ────────────────────────────────────────────────────────────────────────► then, but not before that
//!  anything else that wakes us ────────────────────────────────────────────────────────────────────────► 50 ms after it
//! ```

use std::time::Duration;

use tokio::{sync::Notify, time::Instant};

/// Wakes are coalesced: pods that come up, marks that appear and writes that end wake us all the time, and bring nothing that would
/// not keep for this long.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);

/// A job waits for an agent, so its hint does not wait. So many urgent ticks may follow each other in quick succession, which is a few jobs
/// one after another, or two where a tick takes long. After half a second without any there may be as many again. A flood of hints is
/// looked at as often as all else.
const HURRIED_MAX: u32 = 8;

/// Several hints that come together are looked at together.
const INTERVAL_MIN: Duration = Duration::from_millis(5);

/// When ticks may begin.
#[derive(Debug)]
pub(super) struct Pace {
    /// When as many may be hurried as ever.
    rested_at: Instant,
    /// How long the last one took.
    took: Duration,
}

/// When the next tick may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    /// Where it is urgent, or was put off until then.
    pub(super) hurried: Instant,
    /// Otherwise.
    pub(super) usual: Instant,
}

impl Pace {
    /// Nothing has been yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { rested_at: now, took: Duration::ZERO }
    }

    /// How long to rest after a tick that took from `began` to `ended`.
    pub(super) fn rest(&mut self, began: Instant, ended: Instant) -> Rest {
        self.took = ended.saturating_duration_since(began);
        let usual = began + self.interval();
        let rested = self.rested_at.checked_sub(INTERVAL * (HURRIED_MAX - 1)).unwrap_or(usual);
        // The writes that it has begun get some time in any case.
        let soonest = (began + INTERVAL_MIN).max(ended + self.took / 4);
        Rest { hurried: soonest.max(rested).min(usual), usual }
    }

    /// A tick begins that could not wait.
    pub(super) fn hurries(&mut self, now: Instant) {
        self.rested_at = self.rested_at.max(now) + self.interval();
    }

    /// A tick over thousands of pools takes long; in the long run half of a core is enough for all of them, and two thirds where urgent
    /// ones come between the usual ones, which are not charged.
    fn interval(&self) -> Duration {
        INTERVAL.max(2 * self.took)
    }
}

/// Whether a pass ends before a queue of which it knows no hint, since another hint came meanwhile: with a thousand pools the job that it tells
/// of would wait for all of them. Not two passes after each other, so that all are served in every second one.
pub(super) fn may_end(was_last_cut: bool, is_hinted: bool, is_told_more: impl FnOnce() -> bool) -> bool {
    !was_last_cut && !is_hinted && is_told_more()
}

/// Until the next tick: the usual time after the last one if anything wakes us, sooner where it is urgent, and `latest` if nothing is
/// heard. However often it is woken, it ends: a wake moves its end to the usual time and no further. Answers whether the next tick could
/// not wait for its usual time.
pub(super) async fn rest(wake: &Notify, is_urgent: impl Fn() -> bool, soonest: Rest, latest: Instant) -> bool {
    tokio::time::sleep_until(soonest.hurried).await;
    let mut until = latest;
    while !is_urgent() {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => return until < soonest.usual,
            () = wake.notified() => until = until.min(soonest.usual),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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
    async fn ticks_that_take_long_leave_half_of_the_time_to_others_but_for_a_few() {
        let (start, took) = (now(), Duration::from_millis(80));
        let begun = hurried(&mut Pace::new(start), start, 40, took);
        assert_eq!(begun[3] - begun[0], 3 * Duration::from_millis(100), "two jobs need not wait long");
        assert_eq!(begun[39] - begun[9], 30 * Duration::from_millis(160));
        assert_eq!(Pace::new(start).rest(start, start + took).usual, start + Duration::from_millis(160));
    }

    /// How long a rest takes that may be hurried after 5 ms, is 50 ms usually and so long at the latest, woken each so many milliseconds, and
    /// urgent after so many; and whether the next tick could not wait.
    async fn rests(latest: u64, woken_each: Option<u64>, urgent_after: Option<u64>) -> (u64, bool) {
        let start = now();
        let (wake, is_urgent) = (Notify::new(), Cell::new(false));
        let soonest = Rest { hurried: start + INTERVAL_MIN, usual: start + INTERVAL };
        let resting = rest(&wake, || is_urgent.get(), soonest, start + Duration::from_millis(latest));
        let waking = async {
            let Some(each) = woken_each else { return std::future::pending().await };
            loop {
                tokio::time::sleep(Duration::from_millis(each)).await;
                wake.notify_one();
            }
        };
        let pressing = async {
            let Some(after) = urgent_after else { return std::future::pending().await };
            tokio::time::sleep(Duration::from_millis(after)).await;
            is_urgent.set(true);
            wake.notify_one();
            std::future::pending::<()>().await;
        };
        let is_hurried = tokio::select! {
            is_hurried = resting => is_hurried,
            () = waking => unreachable!(),
            () = pressing => unreachable!(),
        };
        (u64::try_from((now() - start).as_millis()).unwrap(), is_hurried)
    }

    #[test]
    fn a_pass_ends_for_a_hint_that_comes_meanwhile_and_the_next_one_is_whole() {
        assert!(may_end(false, false, || true));
        assert!(!may_end(false, false, || false), "nothing came");
        assert!(!may_end(false, true, || true), "those that were told of are served before");
        assert!(!may_end(true, false, || true), "the others have waited for one pass");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_ends_when_it_should() {
        assert_eq!(rests(1_000, None, None).await, (1_000, false), "nothing is heard");
        assert_eq!(rests(1_000, Some(20), None).await, (50, false), "woken before the usual time");
        assert_eq!(rests(1_000, Some(300), None).await, (300, false), "woken after it");
        assert_eq!(rests(1_000, Some(1), None).await, (50, false), "woken all the time");
        assert_eq!(rests(1_000, None, Some(0)).await, (5, true), "urgent before it began, as far as we know");
        assert_eq!(rests(1_000, Some(20), Some(30)).await, (30, true), "urgent after another wake");
        assert_eq!(rests(1_000, None, Some(400)).await, (400, true), "urgent long after");
        assert_eq!(rests(1, None, None).await, (5, true), "put off for less than a rest");
        assert_eq!(rests(20, Some(1), None).await, (20, true), "put off until then, however often woken");
    }

    #[tokio::test(start_paused = true)]
    async fn urgent_ticks_between_usual_ones_leave_a_third_of_the_time_to_others() {
        let (start, took) = (now(), Duration::from_millis(200));
        let (mut pace, mut at) = (Pace::new(start), start);
        let mut ticks = 0_u32;
        while at - start < Duration::from_mins(1) {
            let rest = pace.rest(at, at + took);
            ticks += 1;
            at = if ticks.is_multiple_of(2) { rest.usual } else { rest.hurried };
            if !ticks.is_multiple_of(2) {
                pace.hurries(at);
            }
        }
        assert!(took * ticks <= (at - start) * 2 / 3, "{ticks} ticks");
        assert!(took * ticks > (at - start) / 2, "they are hurried: {ticks}");
    }
}
