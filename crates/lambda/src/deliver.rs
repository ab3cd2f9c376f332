//! From what an invocation brought to one fate for each record: the jobs go into as few hints as they fit, and each
//! record shares the fate of its job's hint.
//!
//! ```text
//!  record ─┬─ no job, or too old ───────────────────────────► dropped, with a reason
//!          └─ job ─► one hint for up to 100 ─┬─ there ──────► created
//!                                            ├─ quota full ─► dropped
//!                                            ├─ invalid ────► each job by itself, once
//!                                            └─ else ───────► again, while there is time ─► redelivered
//! ```

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kitepool_api::{
    Job, JobHint,
    events::{Invocation, Record, Unusable},
    job_hint::JOBS_MAX,
};
use tokio::time::Instant;

use crate::{
    http_client::pause,
    trouble::Trouble,
    verdict::{Again, Verdict},
};

/// The source that hints from here name.
pub const SOURCE: &str = "eventbridge";

/// How often one hint is tried in an invocation. After that SQS waits longer than we may.
pub const ATTEMPTS: usize = 3;

/// Before the second attempt, doubled before each further one. Two writers that met at a quota's counter are done by
/// then.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// No attempt begins with less than this left: its answer would not be waited for.
pub const LEAST_TIME: Duration = Duration::from_millis(250);

/// Stores hints.
pub trait Hints {
    /// Creates one, within this time.
    fn create(&self, hint: &JobHint, within: Duration) -> impl Future<Output = Verdict> + Send;
}

/// The end of a record; each has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Its job is in a stored hint.
    Created,
    /// It has to come again.
    Redelivered,
    /// It makes no hint and need not come again.
    Dropped(Reason),
}

/// Why a record was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The controller's readings know the job by now.
    TooOld,
    /// No agent runs it.
    NotScript,
    /// It lacks what a hint needs.
    Malformed,
    /// There is no room for another hint.
    Quota,
    /// It tells of something else; the rule in front lets too much through.
    OtherEvent,
}

impl From<&Unusable> for Reason {
    fn from(unusable: &Unusable) -> Self {
        match unusable {
            Unusable::OtherEvent { .. } => Self::OtherEvent,
            Unusable::NotScript { .. } => Self::NotScript,
            Unusable::Malformed(_) => Self::Malformed,
        }
    }
}

/// The terms of an invocation.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Wall time.
    pub now: Timestamp,
    /// A job that became runnable longer ago is dropped.
    pub max_age: SignedDuration,
    /// When everything must be done.
    pub deadline: Instant,
}

/// What became of an invocation's records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivery {
    /// One for each record, in their order.
    pub fates: Vec<Fate>,
    /// The names of the hints that are there.
    pub hints: Vec<String>,
    /// What stood in the way last.
    pub trouble: Option<Trouble>,
    /// A sentence about a record that was malformed, or refused as invalid.
    pub malformed: Option<String>,
    /// Calls to the API server.
    pub calls: usize,
}

/// Jobs by id, with the records that told of each.
type Told = BTreeMap<String, (Job, Vec<usize>)>;

/// Brings the records' jobs to where the controller sees them.
pub async fn deliver<H: Hints>(invocation: &Invocation, hints: &H, terms: &Terms) -> Delivery {
    let mut delivery = Delivery::default();
    let told = sort_out(invocation.records(), terms, &mut delivery);
    let mut told: Vec<(Job, Vec<usize>)> = told.into_values().collect();
    while !told.is_empty() {
        let rest = told.split_off(told.len().min(JOBS_MAX));
        store(told, hints, terms, &mut delivery).await;
        told = rest;
    }
    delivery
}

/// Whether a job is so old that the readings know it. One that seems to lie ahead is not: clocks differ.
fn is_old(runnable_at: Timestamp, terms: &Terms) -> bool {
    terms.now.duration_since(runnable_at) > terms.max_age
}

/// Gives each record without a usable job its fate, and every other the one that holds if nothing happens.
fn sort_out(records: &[Record], terms: &Terms, delivery: &mut Delivery) -> Told {
    let mut told = Told::new();
    for (index, record) in records.iter().enumerate() {
        delivery.fates.push(match &record.job {
            Ok(job) if is_old(job.runnable_at, terms) => Fate::Dropped(Reason::TooOld),
            Ok(job) => {
                let job = Job::from(job.clone());
                let known = told.entry(job.id.clone()).or_insert_with(|| (job.clone(), Vec::new()));
                // As in `JobHint::of_jobs`: the same whichever came first.
                known.0 = known.0.clone().min(job);
                known.1.push(index);
                Fate::Redelivered
            }
            Err(unusable) => {
                if let Unusable::Malformed(problem) = unusable {
                    delivery.malformed.get_or_insert_with(|| problem.to_string());
                }
                Fate::Dropped(unusable.into())
            }
        });
    }
    told
}

async fn store<H: Hints>(told: Vec<(Job, Vec<usize>)>, hints: &H, terms: &Terms, delivery: &mut Delivery) {
    let verdict = store_one(&told, hints, terms, delivery).await;
    if !matches!(verdict, Verdict::Invalid(_)) || told.len() < 2 {
        return settle(&told, verdict, delivery);
    }
    // One of them is at fault, and the others must not go with it.
    for one in told {
        let one = [one];
        let verdict = store_one(&one, hints, terms, delivery).await;
        settle(&one, verdict, delivery);
    }
}

/// One hint of these jobs, tried while that makes sense.
async fn store_one<H: Hints>(told: &[(Job, Vec<usize>)], hints: &H, terms: &Terms, delivery: &mut Delivery) -> Verdict {
    let jobs = told.iter().map(|(job, _)| job.clone()).collect();
    let hint = match JobHint::of_jobs(SOURCE, jobs) {
        Ok(hint) => hint,
        // Each was looked at when it was read, so this is a defect of ours, and one of those that repeat.
        Err(problem) => return Verdict::Invalid(problem.to_string()),
    };
    let mut wait = FIRST_PAUSE;
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        let left = left_until(terms.deadline);
        if left < LEAST_TIME {
            break;
        }
        // A call that hangs must leave time for another.
        let attempts_left = u32::try_from(ATTEMPTS.saturating_sub(attempt)).unwrap_or(1).max(1);
        let within = (left / attempts_left).max(LEAST_TIME).min(left);
        delivery.calls += 1;
        let verdict = hints.create(&hint, within).await;
        let Verdict::NotYet(_, Again::Soon(asked)) = verdict else {
            if verdict == Verdict::There {
                delivery.hints.extend(hint.metadata.name);
            }
            return verdict;
        };
        last = Some(verdict);
        let pausing = asked.unwrap_or_default().max(wait);
        if attempt + 1 == ATTEMPTS || pausing + LEAST_TIME > left_until(terms.deadline) {
            break;
        }
        pause(pausing).await;
        wait = wait.saturating_mul(2);
    }
    let no_time = || Trouble::Unusable("there was no time left for the API server".to_owned());
    last.unwrap_or_else(|| Verdict::NotYet(no_time(), Again::Later))
}

fn left_until(deadline: Instant) -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "time left of an invocation that runs: the runtime's own, which tests move"
    )]
    deadline.saturating_duration_since(Instant::now())
}

fn settle(told: &[(Job, Vec<usize>)], verdict: Verdict, delivery: &mut Delivery) {
    let fate = match verdict {
        Verdict::There => Fate::Created,
        Verdict::Full(words) => {
            delivery.trouble = Some(Trouble::Unusable(words));
            Fate::Dropped(Reason::Quota)
        }
        Verdict::Invalid(words) => {
            delivery.malformed.get_or_insert(words);
            Fate::Dropped(Reason::Malformed)
        }
        Verdict::NotYet(trouble, _) => {
            delivery.trouble = Some(trouble);
            Fate::Redelivered
        }
    };
    for index in told.iter().flat_map(|(_, records)| records) {
        if let Some(known) = delivery.fates.get_mut(*index) {
            *known = fate;
        }
    }
}
