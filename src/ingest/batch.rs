//! Jobs into hints: many into one where they come together, one at once where it comes alone.
//!
//! ```text
//!  jobs ─► collecting ── nothing in flight, or 100 jobs, or 50 ms ──► create ── answer ─► everybody who told of one
//!             ▲  a job that is collected or in flight is told again: both wait for the same answer
//! ```
//!
//! A hint is named by its jobs, so a job that is told twice in different company would be stored twice. Hence the memory of
//! what was stored lately; another replica has none of it, and there the policy counts the job once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use kitepool_api::{HintedJob, JOBS_MAX, Job, JobHint};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::outcome::Outcome;
use crate::{
    clock::Clock,
    cluster::{
        client::chain,
        hints::{HintWriter, Stored},
    },
};

/// What the hints say of their origin.
const SOURCE: &str = "webhook";

/// How long a job waits for company while others are being stored.
pub const BATCH_WAIT_MAX: Duration = Duration::from_millis(50);

/// Deliveries that wait to be taken in: ten full hints. What comes on top is shed.
const WAITING_MAX: usize = 1_000;

/// Hints that are being created at once. One takes some 10 ms, so this is more than the quota of a namespace in a second.
const CREATES_MAX: usize = 4;

/// Jobs that are remembered as stored; a minute and a half of a busy organization's.
const STORED_MAX: usize = 10_000;

/// A duplicate comes within seconds. Later than this the same job may well be ready for the second time.
const STORED_FOR: Duration = Duration::from_mins(2);

/// After a refusal by the quota nothing is tried for so long: hints go only when a reading has settled them.
const QUOTA_REST: Duration = Duration::from_secs(1);

/// Where deliveries leave their jobs. Clones leave them at the same place.
#[derive(Debug, Clone)]
pub struct Batches {
    jobs: mpsc::Sender<Told>,
}

#[derive(Debug)]
struct Told {
    job: HintedJob,
    answer: oneshot::Sender<Outcome>,
}

impl Batches {
    /// What is answered has to be run for as long as jobs may come.
    pub fn new(writer: HintWriter, namespace: String, clock: Clock) -> (Self, impl Future<Output = ()>) {
        let (jobs, told) = mpsc::channel(WAITING_MAX);
        let shelf = Shelf {
            writer,
            namespace,
            clock,
            collecting: Vec::new(),
            collecting_since: None,
            waiting: BTreeMap::new(),
            stored: Lately::default(),
            quota_full_until: None,
        };
        (Self { jobs }, shelf.run(told))
    }

    /// Until the job is stored, or is not going to be.
    pub async fn store(&self, job: HintedJob) -> Outcome {
        let (answer, answered) = oneshot::channel();
        if self.jobs.try_send(Told { job, answer }).is_err() {
            return Outcome::Busy;
        }
        answered.await.unwrap_or(Outcome::Busy)
    }
}

/// What the one task that stores has in hand.
struct Shelf {
    writer: HintWriter,
    namespace: String,
    clock: Clock,
    collecting: Vec<Job>,
    collecting_since: Option<Instant>,
    /// Who waits for each job that is collected or in flight.
    waiting: BTreeMap<String, Vec<oneshot::Sender<Outcome>>>,
    stored: Lately,
    quota_full_until: Option<Instant>,
}

/// How the creation of a hint of these jobs ended.
type Created = (Vec<String>, Outcome);

impl Shelf {
    /// Until nobody can bring a job any more and all are answered.
    async fn run(mut self, mut told: mpsc::Receiver<Told>) {
        let mut creates = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !self.collecting.is_empty() || !creates.is_empty() {
            if self.is_due(creates.len()) {
                creates.push(self.create());
                continue;
            }
            let due = self.collecting_since.map(|since| since + BATCH_WAIT_MAX);
            let can_wait = due.is_some() && creates.len() < CREATES_MAX;
            let has_room = self.collecting.len() < JOBS_MAX;
            tokio::select! {
                biased;
                Some((ids, outcome)) = creates.next(), if !creates.is_empty() => self.answer(&ids, &outcome),
                job = told.recv(), if is_open && has_room => match job {
                    Some(job) => {
                        self.take_in(job);
                        // What came in the same moment goes along.
                        while self.collecting.len() < JOBS_MAX && let Ok(job) = told.try_recv() {
                            self.take_in(job);
                        }
                    }
                    None => is_open = false,
                },
                () = until(due), if can_wait => {}
            }
        }
    }

    /// Whether what is collected goes now.
    fn is_due(&self, in_flight: usize) -> bool {
        let Some(since) = self.collecting_since else { return false };
        let has_waited = self.clock.mono().saturating_duration_since(since) >= BATCH_WAIT_MAX;
        in_flight == 0 || (in_flight < CREATES_MAX && (self.collecting.len() >= JOBS_MAX || has_waited))
    }

    fn take_in(&mut self, told: Told) {
        let Told { job, answer } = told;
        let now = self.clock.mono();
        if self.stored.has(&job.id, now) {
            let _ = answer.send(Outcome::Duplicate);
        } else if self.quota_full_until.is_some_and(|until| now < until) {
            let _ = answer.send(Outcome::QuotaFull);
        } else if let Some(others) = self.waiting.get_mut(&job.id) {
            if others.len() < WAITING_MAX {
                others.push(answer);
            } else {
                let _ = answer.send(Outcome::Busy);
            }
        } else {
            self.waiting.insert(job.id.clone(), vec![answer]);
            self.collecting_since.get_or_insert(now);
            self.collecting.push(Job::from(job));
        }
    }

    /// Stores what is collected.
    fn create(&mut self) -> impl Future<Output = Created> + use<> {
        self.collecting_since = None;
        let jobs = std::mem::take(&mut self.collecting);
        let ids = jobs.iter().map(|job| job.id.clone()).collect();
        let (writer, namespace) = (self.writer.clone(), self.namespace.clone());
        async move {
            let hint = match JobHint::of_jobs(SOURCE, jobs) {
                Ok(hint) => hint,
                // Each job was looked at when it was parsed; this is for what nobody thought of.
                Err(problem) => return (ids, Outcome::NotStored { why: problem.to_string() }),
            };
            let outcome = match writer.create(&namespace, &hint).await {
                Ok(Stored::Created) => Outcome::Stored,
                Ok(Stored::Known) => Outcome::Duplicate,
                Ok(Stored::QuotaFull) => Outcome::QuotaFull,
                Err(error) => Outcome::NotStored { why: chain(&error) },
            };
            (ids, outcome)
        }
    }

    fn answer(&mut self, ids: &[String], outcome: &Outcome) {
        let now = self.clock.mono();
        if *outcome == Outcome::QuotaFull {
            self.quota_full_until = Some(now + QUOTA_REST);
        }
        if let Outcome::NotStored { why } = outcome {
            tracing::warn!(why, jobs = ids.len(), "a hint could not be stored");
        }
        for id in ids {
            let mut waiting = self.waiting.remove(id).unwrap_or_default().into_iter();
            if matches!(outcome, Outcome::Stored | Outcome::Duplicate) {
                self.stored.remember(id.clone(), now);
            }
            if let Some(first) = waiting.next() {
                // Nobody may be there any more: the sender gave up.
                let _ = first.send(outcome.clone());
            }
            let others = if *outcome == Outcome::Stored { Outcome::Duplicate } else { outcome.clone() };
            for other in waiting {
                let _ = other.send(others.clone());
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Jobs that were stored lately.
#[derive(Debug, Default)]
struct Lately {
    ids: BTreeSet<String>,
    /// The oldest first.
    since: VecDeque<(Instant, String)>,
}

impl Lately {
    fn has(&mut self, id: &str, now: Instant) -> bool {
        while let Some((since, oldest)) = self.since.front()
            && now.saturating_duration_since(*since) >= STORED_FOR
        {
            self.ids.remove(oldest);
            self.since.pop_front();
        }
        self.ids.contains(id)
    }

    fn remember(&mut self, id: String, now: Instant) {
        if self.since.len() >= STORED_MAX
            && let Some((_, oldest)) = self.since.pop_front()
        {
            self.ids.remove(&oldest);
        }
        if self.ids.insert(id.clone()) {
            self.since.push_back((now, id));
        }
    }
}
