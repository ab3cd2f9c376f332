//! Holds a simulation to the invariants: every tick of the controller, against what truly was so in the simulated Buildkite.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
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

/// Two gaps between an idle agent's pings at the longest: so long after a pause a start may still be unseen.
const UNSEEN_START: SignedDuration = SignedDuration::from_secs(20);

/// What happened beside the jobs, as far as the truth depends on it.
#[derive(Debug, Default)]
pub struct Beside {
    /// When hints of each job were stored, by the job's uuid.
    pub told: BTreeMap<String, Vec<Timestamp>>,
    /// When dispatch of which queue was paused and went on, in the order of time.
    pub pauses: Vec<(String, Timestamp, Option<Timestamp>)>,
}

impl Beside {
    /// Dispatch of a queue stops or goes on.
    pub fn pause(&mut self, queue: &str, is_paused: bool, now: Timestamp) {
        let mut open = self.pauses.iter_mut().filter(|(name, _, until)| name == queue && until.is_none());
        match open.next() {
            Some((_, _, until)) if !is_paused => *until = Some(now),
            None if is_paused => self.pauses.push((queue.to_owned(), now, None)),
            Some(_) | None => {}
        }
    }

    /// Whether it was paused when this reading was taken, or so shortly before that it may show no start yet.
    fn is_paused(&self, queue: &str, date: Timestamp, now: Timestamp) -> bool {
        let unseen = UNSEEN_START + METRICS_STALENESS;
        let covers = |from: Timestamp, until: Option<Timestamp>| {
            from <= now && until.is_none_or(|until| date.duration_since(until) <= unseen)
        };
        self.pauses.iter().any(|(name, from, until)| name == queue && covers(*from, *until))
    }
}

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
    pub fn violations(&self, world: &Joined, beside: &Beside) -> Vec<String> {
        let mut found = Vec::new();
        for ((term, queue), lines) in &self.threads {
            let jobs = world.buildkite().peek(|buildkite| jobs_of(queue, lines, buildkite, beside));
            let history = History { ticks: lines.iter().map(|line| tick(line, &jobs, beside)).collect() };
            let broken = kitepool_policy::violations(&history);
            found.extend(broken.into_iter().map(|violation| format!("{violation} (queue {queue}, led since {term})")));
        }
        found
    }
}

/// A job as far as demand goes.
struct Known {
    /// When it was counted first: those of a concurrency group are, before any of them may run.
    counted_at: Timestamp,
    runnable_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    is_grouped: bool,
    told: Vec<Timestamp>,
    rules: Vec<String>,
}

/// The jobs of the queue that lines are about, in the order in which they became runnable.
fn jobs_of(key: &str, lines: &[Line], buildkite: &Buildkite, beside: &Beside) -> Vec<Known> {
    let Some(queue) = lines.first().map(|line| line.observation.queue.as_str()) else { return Vec::new() };
    let of_queue = |job: &&Job| *job.queue == *queue && key.contains(&*job.cluster);
    let known = |job: &Job| {
        Some(Known {
            counted_at: if job.group().is_some() { job.created_at } else { job.runnable_at? },
            runnable_at: job.runnable_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            is_grouped: job.group().is_some(),
            told: beside.told.get(&job.uuid).cloned().unwrap_or_default(),
            rules: job.rules.clone(),
        })
    };
    let mut jobs: Vec<Known> = buildkite.jobs().filter(of_queue).filter_map(known).collect();
    jobs.sort_by_key(|job| job.counted_at);
    jobs
}

fn tick(line: &Line, jobs: &[Known], beside: &Beside) -> Tick {
    Tick {
        now: line.now,
        truth: truth(&line.observation, jobs, beside, line.now),
        queue: line.observation.clone(),
        decisions: line.decisions.clone(),
    }
}

/// What was so at `now`. Instants that fall together with a tick count for both sides of it: whether the tick or the job came
/// first does not matter to anybody but us.
fn truth(observed: &QueueObservation, jobs: &[Known], beside: &Beside, now: Timestamp) -> Option<Truth> {
    let date = observed.reading.last_good?.date;
    let ttl = observed.pools.iter().map(|pool| pool.spec.hint_ttl).max()?;
    let fits = |job: &Known| observed.pools.iter().any(|pool| match_tags(&job.rules, &pool.spec.tags));
    let is_told = |job: &Known| {
        let lives = |stored: &Timestamp| *stored < now && now.duration_since(*stored).unsigned_abs() <= ttl;
        job.told.iter().any(lives) && fits(job)
    };
    let is_paused = beside.is_paused(&observed.queue, date, now);
    let counted_at = date.checked_sub(METRICS_STALENESS + CLOCK_GRAIN).unwrap_or(date);
    let is_stuck = |job: &Known| {
        let is_open = job.finished_at.is_none_or(|at| at > now);
        let is_queued = is_open && job.started_at.is_none_or(|at| at > counted_at);
        is_queued && (is_paused || job.is_grouped || !fits(job))
    };
    let mut truth = Truth::default();
    for job in jobs.iter().take_while(|job| job.counted_at <= now) {
        let add = |to: &mut Agents, is_so: bool| *to = to.plus(Agents(u32::from(is_so)));
        let after_date = job.counted_at.duration_since(date);
        // Its turn has come since: it is among those counted, and an event tells of it.
        let is_twice =
            job.is_grouped && job.runnable_at.is_some_and(|at| at <= now && at.duration_since(date) >= -MARGIN);
        add(&mut truth.demand, job.finished_at.is_none_or(|at| at > now));
        add(&mut truth.within_margin, is_twice || (-MARGIN..CLOCK_GRAIN).contains(&after_date));
        add(&mut truth.untold, after_date >= CLOCK_GRAIN && !is_told(job));
        add(&mut truth.unsatisfiable, is_stuck(job));
        add(&mut truth.finished, job.finished_at.is_some_and(|at| counted_at <= at && at <= now));
    }
    Some(truth)
}
