//! Hints that have done their work are deleted: settled by a reading, or expired. A few at a time, beside everything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kitepool_api::job_hint::HintedJob;
use kitepool_policy::{Standing, observation::Hint, standing_of};
use tokio::{task::JoinSet, time::Instant};

use super::{metrics::Metrics, queues::Queue, readings::QueueKey};
use crate::{
    clock::Clock,
    cluster::{
        cell::{Cell, NamespaceCells},
        client::chain,
        error::Error,
        view::HintView,
        write::Writer,
    },
};

/// Deletions in flight. The write budget bounds the rate; this bounds what is waiting for it.
const DELETIONS_AT_ONCE: usize = 4;

/// A hint for a queue that no pool serves is kept this long, so that a pool which is being mended still gets it. The default
/// of `hintTtl`.
const ORPHAN_TTL: SignedDuration = SignedDuration::from_mins(2);

/// After a failed deletion. What fails is a right that is missing or an API server that is away; neither mends in a tick.
const RETRY: Duration = Duration::from_secs(10);

/// A hint by namespace, name and uid: its name is made of its jobs, so a job that is told of again has the same one.
type Key = (String, String, String);

/// Deletes hints of one term.
#[derive(Debug)]
pub struct HintSweep {
    writer: Arc<Writer>,
    metrics: Metrics,
    clock: Clock,
    running: JoinSet<(Key, Ended)>,
    going: BTreeSet<Key>,
    /// Deleted, though the watch may not show it yet.
    done: BTreeSet<Key>,
    failed_at: Option<Instant>,
}

impl HintSweep {
    /// Nothing in flight.
    pub fn new(writer: Arc<Writer>, metrics: Metrics, clock: Clock) -> Self {
        let (going, done) = (BTreeSet::new(), BTreeSet::new());
        Self { writer, metrics, clock, running: JoinSet::new(), going, done, failed_at: None }
    }

    /// Begins to delete what is over in a namespace, as far as there is room.
    pub fn sweep(&mut self, namespace: &str, over: Vec<(String, String)>, hints: &Cell<HintView>) {
        while let Some(ended) = self.running.try_join_next() {
            let Ok((key, ended)) = ended else { continue };
            self.going.remove(&key);
            match ended {
                Ended::Gone => drop(self.done.insert(key)),
                Ended::Failed => self.failed_at = Some(self.clock.mono()),
                Ended::Postponed => {}
            }
        }
        let is_shown = |(_, name, uid): &Key| hints.get(name).is_some_and(|hint| hint.uid == *uid);
        self.done.retain(|key| key.0 != namespace || is_shown(key));
        let now = self.clock.mono();
        if self.failed_at.is_some_and(|at| now.saturating_duration_since(at) < RETRY) {
            return;
        }
        for (name, uid) in over {
            let key = (namespace.to_owned(), name, uid);
            if self.going.len() < DELETIONS_AT_ONCE && !self.done.contains(&key) && self.going.insert(key.clone()) {
                self.running.spawn(delete(Arc::clone(&self.writer), self.metrics.clone(), key));
            }
        }
    }
}

/// How a deletion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Gone,
    Postponed,
    Failed,
}

async fn delete(writer: Arc<Writer>, metrics: Metrics, key: Key) -> (Key, Ended) {
    let outcome = writer.delete_hint(&key.0, &key.1, &key.2).await;
    metrics.wrote("delete_hint", outcome.as_ref().map_or_else(Error::category, |()| "ok"));
    if matches!(outcome, Err(Error::BudgetSpent)) {
        // There is more urgent work; a later tick asks again.
        return (key, Ended::Postponed);
    }
    if let Err(error) = &outcome {
        tracing::warn!(hint = key.1, error = chain(error), "hint not deleted; trying again later");
    }
    (key, if outcome.is_ok() { Ended::Gone } else { Ended::Failed })
}

/// What the hints of a namespace came to.
#[derive(Debug, Default)]
pub struct HintReview {
    /// Hints that there are.
    pub all: usize,
    /// Names and uids of hints all of whose jobs are over.
    pub over: Vec<(String, String)>,
    /// Jobs whose rules no pool of their queue satisfies.
    pub unmatched_jobs: usize,
}

/// Reviews every hint against the queues that its jobs are for.
pub fn review(
    namespace: &str,
    cells: &NamespaceCells,
    queues: &BTreeMap<QueueKey, Queue>,
    now: Timestamp,
) -> HintReview {
    let mut review = HintReview::default();
    for (name, hint) in cells.hints.objects() {
        review.all += 1;
        let is_old = now.duration_since(hint.stored_at) > ORPHAN_TTL;
        let mut is_over = true;
        for job in &hint.jobs {
            let serving = queues.iter().filter(|(key, queue)| is_for(job, key) && queue.serves(namespace));
            let seen = job.as_seen(hint.stored_at);
            let standings: Vec<Standing> =
                serving.map(|(_, queue)| standing_of(&seen, &queue.observation, now)).collect();
            if !standings.is_empty() && standings.iter().all(|standing| *standing == Standing::Unmatched) {
                review.unmatched_jobs += 1;
            }
            // A queue that no pool serves has nobody to settle its hints; time does.
            is_over &= match standings.as_slice() {
                [] => is_old,
                some => some.iter().all(|standing| matches!(standing, Standing::Settled | Standing::Expired)),
            };
        }
        if is_over && (!hint.jobs.is_empty() || is_old) {
            if let Some(problem) = hint.problem.as_ref().filter(|_| is_old) {
                tracing::warn!(hint = name, problem, "a hint could not be read");
            }
            review.over.push((name, hint.uid.clone()));
        }
    }
    review
}

/// The hinted jobs of a namespace that are for this queue.
pub fn for_queue(cells: &NamespaceCells, key: &QueueKey) -> Vec<Hint> {
    let hints = cells.hints.objects().into_values();
    hints.flat_map(|hint| jobs_for(&hint, key)).collect()
}

fn jobs_for(hint: &HintView, key: &QueueKey) -> Vec<Hint> {
    hint.jobs.iter().filter(|job| is_for(job, key)).map(|job| job.as_seen(hint.stored_at)).collect()
}

/// What the event says of organization and cluster must not contradict what is known of the queue; silence contradicts
/// nothing.
fn is_for(job: &HintedJob, key: &QueueKey) -> bool {
    let is_same = |told: &Option<String>, known: Option<&String>| match (told, known) {
        (Some(told), Some(known)) => told == known,
        (None, _) | (_, None) => true,
    };
    job.queue == key.queue()
        && match key {
            QueueKey::Known(identity, _) => {
                is_same(&job.organization, Some(&identity.organization))
                    && is_same(&job.cluster, identity.cluster.as_ref())
            }
            QueueKey::Unknown(..) => true,
        }
}
