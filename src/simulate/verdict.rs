//! Holds a simulation to the invariants: every tick of the controller, against what truly was so in the simulated Buildkite.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kitepool_policy::{
    demand::{CLOCK_GRAIN, MARGIN, METRICS_STALENESS},
    observation::QueueObservation,
    rules::match_tags,
    units::Agents,
    violations::{History, Tick, Truth},
};
use kitepool_world::{
    Joined,
    buildkite::{Buildkite, Job},
};

use crate::control::record::Line;

/// When hints of each job were stored, by the job's uuid.
pub type Told = BTreeMap<String, Vec<Timestamp>>;

/// Keeps what the ticks saw and decided.
#[derive(Debug, Default)]
pub struct Records {
    /// By term and queue, in the order of time.
    threads: BTreeMap<(Timestamp, String), Vec<Line>>,
}

impl Records {
    /// Takes in a line. One that says what the last one said is left out, unless a poll lies between them: the invariants
    /// that look at stretches of time look at gaps between ticks as well.
    pub fn take_in(&mut self, line: Line) {
        let thread = self.threads.entry((line.term, line.queue.clone())).or_default();
        if let [.., before, last] = thread.as_slice() {
            let is_same = |other: &Line| other.observation == line.observation && other.decisions == line.decisions;
            if is_same(last) && is_same(before) && line.now.duration_since(before.now) < METRICS_STALENESS {
                thread.pop();
            }
        }
        thread.push(line);
    }

    /// How many lines are kept.
    pub fn len(&self) -> usize {
        self.threads.values().map(Vec::len).sum()
    }

    /// Whether nothing was decided.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// What was violated, as sentences.
    pub fn violations(&self, world: &Joined, told: &Told) -> Vec<String> {
        let mut found = Vec::new();
        for ((term, queue), lines) in &self.threads {
            let jobs = world.buildkite().peek(|buildkite| jobs_of(queue, lines, buildkite, told));
            let history = History { ticks: lines.iter().map(|line| tick(line, &jobs)).collect() };
            let broken = kitepool_policy::violations(&history);
            found.extend(broken.into_iter().map(|violation| format!("{violation} (queue {queue}, led since {term})")));
        }
        found
    }
}

/// A job as far as demand goes.
struct Known {
    runnable_at: Timestamp,
    finished_at: Option<Timestamp>,
    told: Vec<Timestamp>,
    rules: Vec<String>,
}

/// The jobs of the queue that lines are about, in the order in which they became runnable.
fn jobs_of(key: &str, lines: &[Line], buildkite: &Buildkite, told: &Told) -> Vec<Known> {
    let Some(queue) = lines.first().map(|line| line.observation.queue.as_str()) else { return Vec::new() };
    let of_queue = |job: &&Job| *job.queue == *queue && key.contains(&*job.cluster);
    let known = |job: &Job| {
        Some(Known {
            runnable_at: job.runnable_at?,
            finished_at: job.finished_at,
            told: told.get(&job.uuid).cloned().unwrap_or_default(),
            rules: job.rules.clone(),
        })
    };
    let mut jobs: Vec<Known> = buildkite.jobs().filter(of_queue).filter_map(known).collect();
    jobs.sort_by_key(|job| job.runnable_at);
    jobs
}

fn tick(line: &Line, jobs: &[Known]) -> Tick {
    Tick {
        now: line.now,
        truth: truth(&line.observation, jobs, line.now),
        queue: line.observation.clone(),
        decisions: line.decisions.clone(),
    }
}

/// What was so at `now`. Instants that fall together with a tick count for both sides of it: whether the tick or the job came
/// first does not matter to anybody but us.
fn truth(observed: &QueueObservation, jobs: &[Known], now: Timestamp) -> Option<Truth> {
    let date = observed.reading.last_good?.date;
    let ttl = observed.pools.iter().map(|pool| pool.spec.hint_ttl).max()?;
    let is_told = |job: &Known| {
        let lives = |stored: &Timestamp| *stored < now && now.duration_since(*stored).unsigned_abs() <= ttl;
        let fits = || observed.pools.iter().any(|pool| match_tags(&job.rules, &pool.spec.tags));
        job.told.iter().any(lives) && fits()
    };
    let counted_at = date.checked_sub(METRICS_STALENESS + CLOCK_GRAIN).unwrap_or(date);
    let mut truth = Truth::default();
    for job in jobs.iter().take_while(|job| job.runnable_at <= now) {
        let add = |to: &mut Agents, is_so: bool| *to = to.plus(Agents(u32::from(is_so)));
        let after_date = job.runnable_at.duration_since(date);
        add(&mut truth.demand, job.finished_at.is_none_or(|at| at > now));
        add(&mut truth.within_margin, (-MARGIN..CLOCK_GRAIN).contains(&after_date));
        add(&mut truth.untold, after_date >= CLOCK_GRAIN && !is_told(job));
        add(&mut truth.finished, job.finished_at.is_some_and(|at| counted_at <= at && at <= now));
    }
    Some(truth)
}
