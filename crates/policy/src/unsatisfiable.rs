//! Jobs that Buildkite counts as scheduled and that no agent of ours takes: for tags that none carries, on a paused queue, behind
//! a concurrency limit. Growing for them would cost without end.
//!
//! A reading only counts, so this is told from many of them. An agent without a job asks for one within two ping intervals;
//! while it stays idle, nothing that is queued is meant for it. But a busy queue with polling agents shows queued jobs and
//! idle agents together all the time, and even the same numbers again and again: as many jobs start as finish, by agents that
//! are not the same. So three things must come together, and last for [`WATCHED_FOR`]:
//!
//! - **queued beside idle**, in every reading, and an idle agent of ours among them;
//! - **no start**: `scheduled` never falls and `running` never rises. Whatever lowers `scheduled` passes for a start: at worst
//!   some agents come once more for nothing;
//! - **no room for hidden starts**. Where `running` stays, each start hides behind a finish, and idle agents would start so
//!   many that either the jobs were shorter than any are (`IDLE_PER_RUNNING`), or the starts would have to have become more
//!   frequent by themselves when agents came: most of the idle ones have come since the last start, and `running` did not rise.
//!
//! What has been queued for as long is unsatisfiable. It makes no pool grow ([`demand`](crate::demand)), each pool of the queue
//! keeps one idle agent to notice by, and the first start takes it all back.
//!
//! What cannot be told: from zero agents, or from busy ones alone, anything, so they grow first; a part that is stuck beside
//! many jobs that run long, as long as no agents come; and anything by readings that are further apart than [`GAP_MAX`].
//!
//! The [`Watch`] is not remembered across restarts: that would be a clock that ticks in the status, and without it a new leader
//! is later by [`WATCHED_FOR`], no more. What was found, [`Unsatisfiable`], is: or each restart would grow every such pool.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    demand::METRICS_STALENESS,
    memory::Unsatisfiable,
    observation::{GoodReading, QueueObservation},
    recorded,
    spec::{PoolName, PoolSpec},
    units::{Agents, Jobs},
};

/// How often an idle agent asks for a job, unless it is told otherwise: Buildkite's default. One gap can be twice as long.
const PING_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// How long it must last: three of the longest gaps between two pings, one after the other, and the staleness of the numbers.
pub const WATCHED_FOR: SignedDuration =
    SignedDuration::from_secs(6 * PING_INTERVAL.as_secs() + METRICS_STALENESS.as_secs());

/// Readings further apart than three pings say nothing of what happened in between: a queue that is filled once a minute and
/// read as often would look as though it stood still.
pub const GAP_MAX: SignedDuration = SignedDuration::from_secs(3 * PING_INTERVAL.as_secs());

/// How many requests for a job must have come to nothing, at the least that idle agents make: one in two ping intervals each. With
/// a single idle agent that takes longer than [`WATCHED_FOR`]; but one agent that is fed short jobs without end is seen idle
/// many times in a row, with nothing running.
const ASKED_AT_LEAST: u64 = 10;

/// Idle agents for each job that runs, from which on no start can hide. Each of them starts one within 20 s if any of the queued
/// jobs is for it; for as many to finish unseen, jobs would have to take less than 4 s from assignment to their end.
const IDLE_PER_RUNNING: u32 = 5;

/// What consecutive readings of one queue have in common. The shell keeps one for each queue and lets it look at every
/// observation before that is decided about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    last: Option<Sample>,
    stretch: Option<Stretch>,
    started_at: Option<Timestamp>,
    #[serde(with = "recorded::pairs")]
    served_by: BTreeMap<PoolName, BTreeSet<String>>,
}

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sample {
    date: Timestamp,
    scheduled: Jobs,
    running: Jobs,
    /// Connected, with and without a job.
    agents: Agents,
    /// Ours, without a job: no more than Buildkite counts, and no more than we have beyond the jobs that run.
    idle: Agents,
}

/// Readings without a start in between, all with something queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stretch {
    /// The fewest agents since the last start.
    fewest: Agents,
    /// Since when each reading has been telling.
    telling: Option<Telling>,
    /// What has been found.
    found: Option<Unsatisfiable>,
}

/// Consecutive readings by which starts would show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Telling {
    since: Timestamp,
    /// What was queued at the first of them; it was never less since.
    queued: Jobs,
    /// The latest, and how many agents were idle then.
    last: (Timestamp, Agents),
    /// Seconds of being idle, of all agents together.
    idle_seconds: u64,
}

impl Watch {
    /// Looks at an observation. Only a reading of another `Date` is news.
    pub fn look(&mut self, queue: &QueueObservation) {
        let Some(good) = queue.reading.last_good.filter(|_| queue.reading.trouble.is_none()) else {
            return;
        };
        self.note_pools(queue, good.date);
        let sample = Sample::of(good, queue);
        match self.last {
            Some(last) if last.date == sample.date => return,
            Some(last) => self.compare(last, sample),
            None => {}
        }
        self.last = Some(sample);
        if sample.scheduled.is_zero() {
            self.stretch = None;
            return;
        }
        let stretch = Stretch { fewest: sample.agents, telling: None, found: None };
        self.stretch.get_or_insert(stretch).go_on(sample);
    }

    /// A pool that comes, or other tags: perhaps it can run what the others cannot.
    fn note_pools(&mut self, queue: &QueueObservation, date: Timestamp) {
        let is_known = |spec: &PoolSpec| self.served_by.get(&spec.name) == Some(&spec.tags);
        if self.served_by.len() == queue.pools.len() && queue.pools.iter().all(|pool| is_known(&pool.spec)) {
            return;
        }
        if !self.served_by.is_empty() {
            self.started_at = Some(date);
            self.stretch = None;
        }
        self.served_by = queue.pools.iter().map(|pool| (pool.spec.name.clone(), pool.spec.tags.clone())).collect();
    }

    fn compare(&mut self, last: Sample, now: Sample) {
        if now.scheduled < last.scheduled || now.running > last.running {
            self.started_at = Some(now.date);
            self.stretch = None;
        }
        let gap = now.date.duration_since(last.date);
        if gap.is_negative() || gap > GAP_MAX {
            self.stretch = None;
        }
    }

    fn found(&self) -> Option<Unsatisfiable> {
        self.stretch?.found
    }
}

impl Sample {
    fn of(good: GoodReading, queue: &QueueObservation) -> Self {
        let load = good.load;
        let ready = queue.pools.iter().fold(Agents::ZERO, |sum, pool| sum.plus(pool.ready_agents()));
        Self {
            date: good.date,
            scheduled: load.scheduled,
            running: load.running,
            agents: load.idle.plus(load.busy),
            idle: load.idle.min(ready.minus(load.running.agents())),
        }
    }

    /// Whether starts would show: see the module.
    const fn is_telling(self, fewest: Agents) -> bool {
        let came = self.agents.minus(fewest);
        let Agents(idle) = self.idle;
        idle > 0 && (idle >= self.running.0.saturating_mul(IDLE_PER_RUNNING) || came.plus(came).0 > idle)
    }
}

impl Stretch {
    fn go_on(&mut self, sample: Sample) {
        self.fewest = self.fewest.min(sample.agents);
        if !sample.is_telling(self.fewest) {
            self.telling = None;
            return;
        }
        let begun = Telling::begin(sample);
        let telling = self.telling.get_or_insert(begun);
        telling.go_on(sample);
        if !telling.is_enough() {
            return;
        }
        let jobs = telling.queued;
        if self.found.is_none_or(|found| found.jobs < jobs) {
            self.found = Some(Unsatisfiable { jobs, since: sample.date });
        }
        self.telling = Some(begun);
    }
}

impl Telling {
    const fn begin(sample: Sample) -> Self {
        Self { since: sample.date, queued: sample.scheduled, last: (sample.date, sample.idle), idle_seconds: 0 }
    }

    fn go_on(&mut self, sample: Sample) {
        let (date, idle) = self.last;
        let seconds = u64::try_from(sample.date.duration_since(date).as_secs()).unwrap_or_default();
        let idle = idle.min(sample.idle);
        self.idle_seconds = self.idle_seconds.saturating_add(seconds.saturating_mul(idle.0.into()));
        self.last = (sample.date, sample.idle);
    }

    fn is_enough(&self) -> bool {
        let (date, _) = self.last;
        let asked = self.idle_seconds / (2 * PING_INTERVAL.as_secs().unsigned_abs());
        date.duration_since(self.since) >= WATCHED_FOR && asked >= ASKED_AT_LEAST
    }
}

/// The jobs of this queue that no agent takes: as found by the watch, or as remembered and not taken back since.
pub(crate) fn of(queue: &QueueObservation) -> Option<Unsatisfiable> {
    let scheduled = queue.reading.last_good.map(|good| good.load.scheduled);
    let is_standing = |found: &Unsatisfiable| queue.watch.started_at.is_none_or(|at| at < found.since);
    let remembered = remembered(queue).filter(is_standing);
    let found = queue.watch.found().filter(|found| remembered.is_none_or(|known| known.jobs < found.jobs));
    // Fewer are left than were stuck: some have started while nobody looked.
    found.or(remembered).filter(|found| scheduled.is_none_or(|scheduled| found.jobs <= scheduled))
}

/// What all pools of the queue remember. One that knows nothing of it has just come, and may be the one that can.
fn remembered(queue: &QueueObservation) -> Option<Unsatisfiable> {
    let mut pools = queue.pools.iter().map(|pool| pool.memory.unsatisfiable);
    let first = pools.next()??;
    pools.try_fold(first, |one, other| {
        let other = other?;
        Some(Unsatisfiable { jobs: one.jobs.min(other.jobs), since: one.since.max(other.since) })
    })
}
