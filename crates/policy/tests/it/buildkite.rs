//! The little of Buildkite that demand depends on: jobs, events about them, and readings that lag behind.
//!
//! All times are milliseconds after `at(0)`, on one true clock; what is written down is rounded as Buildkite rounds it.

use jiff::{SignedDuration, Timestamp};
use kitepool_policy::{
    observation::{GoodReading, Hint, Load},
    units::{Agents, Jobs},
    violations::Truth,
};
use proptest::{collection, option, prelude::*};

use crate::build::at;

/// How far the numbers of a reading may lie behind it: the staleness that the policy's margin is made for.
const LAG_MAX_MS: i64 = 10_000;

/// The margin, by its own derivation: the lag and one second of rounding.
const MARGIN_MS: i64 = LAG_MAX_MS + 1_000;

/// Everything that happens over a minute or so.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub jobs: Vec<Job>,
    pub reading: Option<Read>,
    /// How long after the reading the policy decides.
    pub decided_after_ms: i64,
    pub ttl_ms: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub runnable_ms: i64,
    pub waits_ms: i64,
    pub runs_ms: i64,
    /// One for each delivery, none if the event is lost.
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub delay_ms: i64,
    /// Webhooks write milliseconds, `EventBridge` whole seconds.
    pub is_exact: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Read {
    pub answered_ms: i64,
    pub lag_ms: i64,
}

fn millis(ms: i64) -> Timestamp {
    at(0) + SignedDuration::from_millis(ms)
}

fn rounded_down(ms: i64) -> i64 {
    ms.div_euclid(1_000) * 1_000
}

impl Job {
    const fn started_ms(&self) -> i64 {
        self.runnable_ms + self.waits_ms
    }

    const fn finished_ms(&self) -> i64 {
        self.started_ms() + self.runs_ms
    }

    const fn is_unfinished(&self, ms: i64) -> bool {
        self.runnable_ms <= ms && ms < self.finished_ms()
    }
}

impl Story {
    pub(crate) fn now_ms(&self) -> i64 {
        self.reading.map_or(60_000, |reading| reading.answered_ms) + self.decided_after_ms
    }

    pub(crate) fn now(&self) -> Timestamp {
        millis(self.now_ms())
    }

    /// What a reading says: all numbers of one moment, up to the lag before its `Date`.
    pub(crate) fn read(&self) -> Option<GoodReading> {
        let reading = self.reading?;
        let taken_ms = reading.answered_ms - reading.lag_ms;
        let count = |is_so: &dyn Fn(&Job) -> bool| {
            u32::try_from(self.jobs.iter().filter(|job| job.is_unfinished(taken_ms) && is_so(job)).count()).unwrap()
        };
        let running = count(&|job| job.started_ms() <= taken_ms);
        let load = Load {
            scheduled: Jobs(count(&|job| job.started_ms() > taken_ms)),
            running: Jobs(running),
            busy: Agents(running),
            ..Load::default()
        };
        Some(GoodReading { load, date: millis(rounded_down(reading.answered_ms)), at: millis(reading.answered_ms) })
    }

    /// The hints that have arrived; the numbers of jobs name them.
    pub(crate) fn hints(&self) -> Vec<Hint> {
        let mut hints = Vec::new();
        for (number, job) in self.jobs.iter().enumerate() {
            for event in &job.events {
                let stored_ms = job.runnable_ms + event.delay_ms;
                if stored_ms <= self.now_ms() {
                    let runnable_ms = if event.is_exact { job.runnable_ms } else { rounded_down(job.runnable_ms) };
                    hints.push(Hint {
                        job: format!("job-{number}"),
                        runnable_at: millis(runnable_ms),
                        stored_at: millis(stored_ms),
                        rules: Vec::new(),
                    });
                }
            }
        }
        hints
    }

    pub(crate) fn truth(&self) -> Truth {
        let now = self.now_ms();
        let reading = self.reading.unwrap();
        let (date, taken) = (rounded_down(reading.answered_ms), reading.answered_ms - reading.lag_ms);
        let count = |is_so: &dyn Fn(&Job) -> bool| {
            Agents(u32::try_from(self.jobs.iter().filter(|job| job.runnable_ms <= now && is_so(job)).count()).unwrap())
        };
        let told = |job: &Job| {
            job.events.iter().any(|event| {
                let age = now - job.runnable_ms - event.delay_ms;
                (0..=self.ttl_ms).contains(&age)
            })
        };
        Truth {
            draining: Agents(0),
            demand: count(&|job| job.is_unfinished(now)),
            within_margin: count(&|job| date - MARGIN_MS <= job.runnable_ms && job.runnable_ms < date + 1_000),
            untold: count(&|job| date + 1_000 <= job.runnable_ms && !told(job)),
            finished: count(&|job| taken < job.finished_ms() && job.finished_ms() <= now),
            unsatisfiable: Agents::ZERO,
        }
    }
}

/// Up to a dozen jobs within a minute and a half, some within moments of each other; events lost, doubled, late and out of
/// order; a reading anywhere.
pub(crate) fn story() -> impl Strategy<Value = Story> {
    let event = (0_i64..60_000, any::<bool>()).prop_map(|(drawn, is_exact)| {
        // Most come within two seconds.
        Event { delay_ms: if drawn < 40_000 { drawn / 20 } else { drawn }, is_exact }
    });
    let job = (0_i64..90_000, 0_i64..40_000, 0_i64..60_000, collection::vec(event, 0..3))
        .prop_map(|(runnable_ms, waits_ms, runs_ms, events)| Job { runnable_ms, waits_ms, runs_ms, events });
    let reading = (0_i64..90_000, 0..=LAG_MAX_MS).prop_map(|(answered_ms, lag_ms)| Read { answered_ms, lag_ms });
    (collection::vec(job, 0..12), option::weighted(0.95, reading), 0_i64..30_000, 20_000_i64..120_000)
        .prop_map(|(jobs, reading, decided_after_ms, ttl_ms)| Story { jobs, reading, decided_after_ms, ttl_ms })
}
