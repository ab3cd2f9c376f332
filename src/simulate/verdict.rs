//! Holds a simulation to the invariants: every tick of the controller, against what truly was so in the simulated Buildkite.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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

use crate::control::record::{Line, Seen};

/// When hints of each job were stored, by the job's uuid.
pub type Told = BTreeMap<String, Vec<Timestamp>>;

/// When dispatch of each queue was paused: from, and until if it is over.
pub type Pauses = BTreeMap<String, Vec<(Timestamp, Option<Timestamp>)>>;

/// So long after what kept a job from running has ended the controller may still leave it out: until a reading shows a start.
const STUCK_FOR: SignedDuration = SignedDuration::from_mins(2);

/// What our agents said may be so old: draining ones are asked every ten seconds, idle ones of a pool at its floor every thirty.
const SAID_WITHIN: SignedDuration = SignedDuration::from_secs(35);

/// What is known of the world besides its jobs.
#[derive(Debug, Default)]
pub struct Circumstances {
    /// Of which jobs hints told when.
    pub told: Told,
    /// What was paused.
    pub pauses: Pauses,
}

/// Keeps what the ticks saw and decided.
#[derive(Debug, Default)]
pub struct Records {
    /// By term and queue, in the order of time.
    threads: BTreeMap<(Timestamp, String), Vec<(Timestamp, Seen)>>,
}

impl Records {
    /// Takes in a line. One that says what the last one said is left out, unless a poll lies between them: the invariants
    /// that look at stretches of time look at gaps between ticks as well.
    pub fn take_in(&mut self, line: Line) {
        let Line { now, term, queue, seen: Some(seen), .. } = line else { return };
        let thread = self.threads.entry((term, queue)).or_default();
        if let [.., (before_at, before), (_, last)] = thread.as_slice()
            && *last == seen
            && *before == seen
            && now.duration_since(*before_at) < METRICS_STALENESS
        {
            thread.pop();
        }
        thread.push((now, seen));
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
    pub fn violations(&self, world: &Joined, around: &Circumstances) -> Vec<String> {
        let mut found = Vec::new();
        for ((term, queue), lines) in &self.threads {
            let jobs = world.buildkite().peek(|buildkite| jobs_of(queue, lines, buildkite, around));
            let history =
                History { ticks: lines.iter().map(|(now, seen)| tick(*now, seen, &jobs, &around.pauses)).collect() };
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
    assigned_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    told: Vec<Timestamp>,
    pod: Option<Arc<str>>,
    rules: Vec<String>,
    is_grouped: bool,
}

/// The jobs of the queue that lines are about, in the order in which they became runnable.
fn jobs_of(key: &str, lines: &[(Timestamp, Seen)], buildkite: &Buildkite, around: &Circumstances) -> Vec<Known> {
    let Some(queue) = lines.first().map(|(_, seen)| seen.observation.queue.as_str()) else { return Vec::new() };
    let of_queue = |job: &&Job| *job.queue == *queue && key.contains(&*job.cluster);
    let known = |job: &Job| {
        Some(Known {
            counted_at: if job.is_grouped() { job.created_at } else { job.runnable_at? },
            runnable_at: job.runnable_at,
            assigned_at: job.assigned_at,
            finished_at: job.finished_at,
            pod: job.pod.clone(),
            told: around.told.get(&job.uuid).cloned().unwrap_or_default(),
            rules: job.rules.clone(),
            is_grouped: job.is_grouped(),
        })
    };
    let mut jobs: Vec<Known> = buildkite.jobs().filter(of_queue).filter_map(known).collect();
    jobs.sort_by_key(|job| job.counted_at);
    jobs
}

fn tick(now: Timestamp, seen: &Seen, jobs: &[Known], pauses: &Pauses) -> Tick {
    Tick {
        now,
        truth: truth(&seen.observation, jobs, pauses, now),
        queue: seen.observation.clone(),
        decisions: seen.decisions.clone(),
    }
}

/// What was so at `now`. Instants that fall together with a tick count for both sides of it: whether the tick or the job came
/// first does not matter to anybody but us.
fn truth(observed: &QueueObservation, jobs: &[Known], pauses: &Pauses, now: Timestamp) -> Option<Truth> {
    let date = observed.reading.last_good?.date;
    let ttl = observed.pools.iter().map(|pool| pool.spec.hint_ttl).max()?;
    let fits = |job: &Known| observed.pools.iter().any(|pool| match_tags(&job.rules, &pool.spec.tags));
    let of_queue = pauses.get(&observed.queue).map(Vec::as_slice).unwrap_or_default();
    let was_paused =
        of_queue.iter().any(|(from, to)| *from <= now && to.is_none_or(|to| now.duration_since(to) < STUCK_FOR));
    let is_stuck = |job: &Known| {
        let waits = job.assigned_at.is_none_or(|at| now.duration_since(at) < STUCK_FOR);
        waits && (was_paused || job.is_grouped || !fits(job))
    };
    let is_told = |job: &Known| {
        // The API server writes the second in which it stored a hint, so one may be taken for up to a second older.
        let age = |stored: Timestamp| now.duration_since(stored).saturating_add(CLOCK_GRAIN).unsigned_abs();
        let lives = |stored: &Timestamp| *stored < now && age(*stored) <= ttl;
        job.told.iter().any(lives) && fits(job)
    };
    let leaving: BTreeSet<&str> = observed
        .pools
        .iter()
        .flat_map(|pool| &pool.generations)
        .flat_map(|generation| &generation.agents)
        .filter(|pod| pod.is_draining)
        .map(|pod| pod.uid.as_str())
        .collect();
    // A job that a pod finishes on its way out is left out; that it has finished may be heard a moment later than by the reading.
    let is_on_its_way_out = |job: &Known| {
        let ended = job.finished_at.is_none_or(|at| now.duration_since(at) < SAID_WITHIN);
        ended && job.pod.as_ref().is_some_and(|pod| leaving.contains(&**pod))
    };
    let said_at = now.checked_sub(SAID_WITHIN).unwrap_or(now);
    let counted_at = date.checked_sub(METRICS_STALENESS + CLOCK_GRAIN).unwrap_or(date);
    let mut truth = Truth::default();
    for job in jobs.iter().take_while(|job| job.counted_at <= now) {
        let add = |to: &mut Agents, is_so: bool| *to = to.plus(Agents(u32::from(is_so)));
        let after_date = job.counted_at.duration_since(date);
        // Its turn has come since: it is among those counted, and an event tells of it.
        let is_twice =
            job.is_grouped && job.runnable_at.is_some_and(|at| at <= now && at.duration_since(date) >= -MARGIN);
        add(&mut truth.unsatisfiable, job.finished_at.is_none_or(|at| at > now) && is_stuck(job));
        add(&mut truth.demand, job.finished_at.is_none_or(|at| at > now));
        add(&mut truth.within_margin, is_twice || (-MARGIN..CLOCK_GRAIN).contains(&after_date));
        add(&mut truth.untold, after_date >= CLOCK_GRAIN && !is_told(job));
        add(&mut truth.draining, is_on_its_way_out(job));
        add(&mut truth.finished, job.finished_at.is_some_and(|at| counted_at.min(said_at) <= at && at <= now));
    }
    Some(truth)
}
