//! Instants: what comes a while later, and where in a steady beat one lies.

use std::time::Duration;

use jiff::Timestamp;

/// So much later; the end of time where there is no later.
pub(super) fn later(at: Timestamp, wait: Duration) -> Timestamp {
    at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// The last beat at or before `at` of one that began at `start`; `start` itself before it and without a beat.
pub(super) fn beat(start: Timestamp, every: Duration, at: Timestamp) -> Timestamp {
    let (since, every) =
        (at.duration_since(start).as_nanos().max(0), i128::try_from(every.as_nanos()).unwrap_or(i128::MAX));
    let Some(into) = since.checked_rem(every) else { return start };
    later(start, Duration::from_nanos(u64::try_from(since - into).unwrap_or(u64::MAX)))
}

/// From one instant to another; nothing if that is no later.
pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_found_on_it_behind_it_and_before_it_began() {
        let at = |millisecond| Timestamp::from_millisecond(millisecond).unwrap();
        let every = Duration::from_secs(10);
        for (instant, expected) in [(5_000, 5_000), (14_999, 5_000), (15_000, 15_000), (25_001, 25_000), (1_000, 5_000)]
        {
            assert_eq!(beat(at(5_000), every, at(instant)), at(expected), "{instant}");
        }
        assert_eq!(beat(at(5_000), Duration::ZERO, at(9_000)), at(5_000));
    }
}
