//! Holds the controller to its budgets: writes in any second, requests to Buildkite in any minute.

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use jiff::Timestamp;

/// Counts what was done lately, and knows where that was too much.
#[derive(Debug)]
pub struct Pace {
    what: &'static str,
    most: u64,
    period: Duration,
    /// What was done when, the oldest first; none older than the period.
    lately: VecDeque<(Timestamp, u64)>,
    sum: u64,
    /// The most that ever was too much, and when.
    worst: Option<(u64, Timestamp)>,
}

impl Pace {
    /// At most so many in each period.
    pub fn new(what: &'static str, most: NonZeroU32, period: Duration) -> Self {
        Self { what, most: u64::from(most.get()), period, lately: VecDeque::new(), sum: 0, worst: None }
    }

    /// So many were done at this instant, which is none before the last one.
    pub fn note(&mut self, at: Timestamp, count: u64) {
        if count == 0 {
            return;
        }
        while let Some((then, old)) = self.lately.front()
            && at.duration_since(*then).unsigned_abs() >= self.period
        {
            self.sum -= old;
            self.lately.pop_front();
        }
        self.lately.push_back((at, count));
        self.sum += count;
        if self.sum > self.most && self.worst.is_none_or(|(worst, _)| self.sum > worst) {
            self.worst = Some((self.sum, at));
        }
    }

    /// What was too much, in a sentence.
    pub fn broken(&self) -> Option<String> {
        let (count, at) = self.worst?;
        let Self { what, most, period, .. } = self;
        Some(format!("budget: {count} {what} within {period:?} up to {at}, of which there may be {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_in_any_period_is_told_and_the_same_in_two_is_not() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut pace = Pace::new("writes", NonZeroU32::new(10).unwrap(), Duration::from_secs(5));
        pace.note(at(0), 6);
        pace.note(at(5), 4);
        pace.note(at(9), 6);
        assert_eq!(pace.broken(), None);
        pace.note(at(9), 1);
        let told = pace.broken().unwrap();
        assert!(told.contains("11 writes") && told.contains("there may be 10"), "{told}");
    }
}
