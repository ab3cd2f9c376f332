//! Jobs by chance: they come one by one, now every moment, now seldom, so that a pool grows, shrinks, and is asked for a little while
//! it does.
//!
//! A job takes from one second to ten minutes. Most are short, since agents that are busy are not taken away, and the cases that
//! use this are about those that are.

use std::{collections::VecDeque, time::Duration};

use kitepool_world::Chance;

/// The longest job.
pub(crate) const LONGEST: Duration = Duration::from_mins(10);

/// What counts as long: such a job runs through at least one whole shrink.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Short jobs take up to this.
const SHORT_SECS: u32 = 12;

/// Between two jobs of a wave, on average.
const EVERY: Duration = Duration::from_millis(400);

/// From one wave to the next: a pool shrinks once or twice in it.
const PAUSE: (Duration, Duration) = (Duration::from_secs(28), Duration::from_secs(52));

/// Between two jobs that come while there is no wave, on average.
const STRAGGLER_EVERY: Duration = Duration::from_secs(20);

/// A job to be submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Submission {
    /// When, from the beginning.
    pub(crate) at: Duration,
    /// How long it takes, in whole seconds.
    pub(crate) seconds: u32,
}

/// What the jobs of a stream are like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// The most jobs in a wave.
    pub(crate) largest: u32,
    /// So many of a thousand jobs of a wave are long.
    pub(crate) long_permille: u32,
    /// All long jobs are over by then; short ones may come for ever.
    pub(crate) over_by: Duration,
}

/// The jobs of one queue, in the order of time, without an end.
#[derive(Debug)]
pub(crate) struct Stream {
    chance: Chance,
    shape: Shape,
    at: Duration,
    due: VecDeque<Submission>,
}

impl Stream {
    /// The same jobs again for the same seed and queue.
    pub(crate) fn new(seed: u64, queue: &str, shape: Shape) -> Self {
        let mut chance = Chance::new(seed, queue);
        // Queues that all began at once would have their waves together for a while.
        let at = chance.between(Duration::ZERO, PAUSE.1);
        Self { chance, shape, at, due: VecDeque::new() }
    }

    fn wave(&mut self) {
        let Shape { largest, long_permille, .. } = self.shape;
        let next = self.at + self.chance.between(PAUSE.0, PAUSE.1);
        let least = (largest / 2).max(1);
        let mut at = self.at;
        for _ in 0..least + self.chance.below(largest + 1 - least) {
            let long = if self.chance.permille(long_permille) { self.long(at) } else { None };
            let seconds = long.unwrap_or_else(|| self.short());
            self.due.push_back(Submission { at, seconds });
            at += self.chance.exponential(EVERY);
        }
        at += self.chance.exponential(STRAGGLER_EVERY);
        while at < next {
            let seconds = self.short();
            self.due.push_back(Submission { at, seconds });
            at += self.chance.exponential(STRAGGLER_EVERY);
        }
        self.at = next;
    }

    fn short(&mut self) -> u32 {
        1 + self.chance.below(SHORT_SECS)
    }

    /// Evenly by orders of magnitude, and over in time.
    fn long(&mut self, at: Duration) -> Option<u32> {
        let draw = f64::from(self.chance.below(1_000)) / 1_000.0;
        let length = LONG.mul_f64((LONGEST.as_secs_f64() / LONG.as_secs_f64()).powf(draw));
        let length = length.min(self.shape.over_by.saturating_sub(at));
        (length >= LONG).then(|| u32::try_from(length.as_secs()).expect("ten minutes"))
    }
}

impl Iterator for Stream {
    type Item = Submission;

    fn next(&mut self) -> Option<Submission> {
        if self.due.is_empty() {
            self.wave();
        }
        self.due.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const SHAPE: Shape = Shape { largest: 12, long_permille: 20, over_by: HOUR };

    fn hour(seed: u64, queue: &str) -> Vec<Submission> {
        Stream::new(seed, queue, SHAPE).take_while(|job| job.at < HOUR).collect()
    }

    #[test]
    fn a_stream_repeats_by_its_seed_and_is_another_on_each_queue() {
        assert_eq!(hour(1, "a"), hour(1, "a"));
        assert_ne!(hour(1, "a"), hour(1, "b"));
        assert_ne!(hour(1, "a"), hour(2, "a"));
    }

    #[test]
    fn jobs_come_in_order_take_a_second_to_ten_minutes_and_are_over_in_time() {
        let jobs: Vec<Submission> = (0..20).flat_map(|seed| hour(seed, "a")).collect();
        assert!(hour(1, "a").is_sorted_by_key(|job| job.at));
        let seconds: Vec<u32> = jobs.iter().map(|job| job.seconds).collect();
        assert_eq!(seconds.iter().min(), Some(&1));
        let longest = *seconds.iter().max().unwrap();
        assert!((400..=600).contains(&longest), "{longest}");
        let late =
            |job: &&Submission| job.seconds > SHORT_SECS && job.at + Duration::from_secs(job.seconds.into()) > HOUR;
        assert_eq!(jobs.iter().find(late), None);
        let long = seconds.iter().filter(|seconds| **seconds >= 30).count();
        assert!(long * 200 > jobs.len() && long * 20 < jobs.len(), "{long} of {}", jobs.len());
    }
}
