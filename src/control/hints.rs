//! Hints that have done their work are deleted: settled by a reading, or expired. A few at a time, beside everything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use kitepool_api::job_hint::HintedJob;
use kitepool_policy::{Standing, observation::Hint, standing_of};
use tokio::task::JoinSet;

use super::{metrics::Metrics, queues::Queue, readings::QueueKey};
use crate::cluster::{cell::NamespaceCells, client::chain, error::Error, view::HintView, write::Writer};

/// Deletions in flight. The write budget bounds the rate; this bounds what is waiting for it.
const DELETIONS_AT_ONCE: usize = 4;

/// A hint for a queue that no pool serves is kept this long, so that a pool which is being mended still gets it. The default
/// of `hintTtl`.
const ORPHAN_TTL: SignedDuration = SignedDuration::from_mins(2);

/// Deletes hints of one term.
#[derive(Debug)]
pub struct HintSweep {
    writer: Arc<Writer>,
    metrics: Metrics,
    running: JoinSet<(String, String)>,
    going: BTreeSet<(String, String)>,
}

impl HintSweep {
    /// Nothing in flight.
    pub fn new(writer: Arc<Writer>, metrics: Metrics) -> Self {
        Self { writer, metrics, running: JoinSet::new(), going: BTreeSet::new() }
    }

    /// Begins to delete what is over, as far as there is room.
    pub fn sweep(&mut self, namespace: &str, over: Vec<String>) {
        while let Some(ended) = self.running.try_join_next() {
            if let Ok(key) = ended {
                self.going.remove(&key);
            }
        }
        for name in over {
            let key = (namespace.to_owned(), name);
            if self.going.len() >= DELETIONS_AT_ONCE || self.going.contains(&key) {
                continue;
            }
            self.going.insert(key.clone());
            let (writer, metrics) = (Arc::clone(&self.writer), self.metrics.clone());
            self.running.spawn(async move {
                let outcome = writer.delete_hint(&key.0, &key.1).await;
                metrics.wrote("delete_hint", outcome.as_ref().map_or_else(Error::category, |()| "ok"));
                if let Err(error) = outcome {
                    tracing::warn!(hint = key.1, error = chain(&error), "hint not deleted; the next tick tries again");
                }
                key
            });
        }
    }
}

/// What the hints of a namespace came to.
#[derive(Debug, Default)]
pub struct HintReview {
    /// Hints that there are.
    pub all: usize,
    /// Names of hints all of whose jobs are over.
    pub over: Vec<String>,
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
            review.over.push(name);
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
