//! Hints that have done their work are deleted: many in one call, a few one by one, beside everything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use super::{hints::HintReview, metrics::Metrics};
use crate::{
    clock::Clock,
    cluster::{cell::Cell, clear::TOGETHER_MIN, client::chain, error::Error, view::HintView, write::Writer},
};

/// Deletions in flight. The write budget bounds the rate; this bounds what is waiting for it.
const DELETIONS_AT_ONCE: usize = 4;

/// After a failed deletion. What fails is a right that is missing or an API server that is away; neither mends in a tick.
const RETRY: Duration = Duration::from_secs(10);

/// Where a call for many failed, or had nothing to do, they go one by one for so long. The Role may be one from before there
/// were such calls, which does not mend in a tick either.
const ONE_BY_ONE_FOR: Duration = Duration::from_mins(1);

/// A hint by namespace, name and uid: its name is made of its jobs, so a job that is told of again has the same one.
type Key = (String, String, String);

/// Deletes hints of one term.
#[derive(Debug)]
pub struct HintSweep {
    writer: Arc<Writer>,
    metrics: Metrics,
    clock: Clock,
    running: JoinSet<Ended>,
    /// On their way one by one.
    going: BTreeSet<Key>,
    /// Namespaces with a call for many on its way. It deletes by name, so nothing else may delete there meanwhile: a hint that
    /// is made anew in between would be taken for the old one.
    together: BTreeSet<String>,
    /// Deleted, though the watch may not show it yet.
    done: BTreeSet<Key>,
    failed_at: Option<Instant>,
    /// Namespaces in which a call for many failed.
    one_by_one_since: BTreeMap<String, Instant>,
}

/// How a deletion ended.
#[derive(Debug)]
enum Ended {
    /// Of one.
    One(Key, Outcome),
    /// Of many in a namespace: which.
    Many(String, Vec<Key>, Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Gone,
    Postponed,
    Failed,
}

impl HintSweep {
    /// Nothing in flight.
    pub fn new(writer: Arc<Writer>, metrics: Metrics, clock: Clock) -> Self {
        let (going, together, done) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (running, one_by_one_since) = (JoinSet::new(), BTreeMap::new());
        Self { writer, metrics, clock, running, going, together, done, failed_at: None, one_by_one_since }
    }

    /// Begins to delete what is over in a namespace, as far as there is room.
    pub fn sweep(&mut self, namespace: &str, review: &HintReview, hints: &Cell<HintView>) {
        self.take_in_ended();
        let is_shown = |(_, name, uid): &Key| hints.get(name).is_some_and(|hint| hint.uid == *uid);
        self.done.retain(|key| key.0 != namespace || is_shown(key));
        let now = self.clock.mono();
        if self.failed_at.is_some_and(|at| now.saturating_duration_since(at) < RETRY) {
            return;
        }
        self.one_by_one_since.retain(|_, since| now.saturating_duration_since(*since) < ONE_BY_ONE_FOR);
        // What is over was listed a moment ago, and some of it may have gone since.
        let keys = review.over.iter().map(|(name, uid)| (namespace.to_owned(), name.clone(), uid.clone()));
        let left: Vec<Key> = keys.filter(|key| is_shown(key) && !self.done.contains(key)).collect();
        if self.together.contains(namespace) || self.running.len() >= DELETIONS_AT_ONCE {
            return;
        }
        if left.len() >= TOGETHER_MIN && !self.one_by_one_since.contains_key(namespace) {
            if !self.going.iter().any(|key| key.0 == namespace) {
                self.together.insert(namespace.to_owned());
                let over = left.into_iter().map(|(_, name, uid)| (name, uid)).collect();
                self.running.spawn(many(Arc::clone(&self.writer), self.metrics.clone(), namespace.to_owned(), over));
            }
            return;
        }
        for key in left {
            if self.running.len() >= DELETIONS_AT_ONCE {
                return;
            }
            if self.going.insert(key.clone()) {
                self.running.spawn(one(Arc::clone(&self.writer), self.metrics.clone(), key));
            }
        }
    }

    fn take_in_ended(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            match ended {
                Ok(Ended::One(key, outcome)) => {
                    self.going.remove(&key);
                    match outcome {
                        Outcome::Gone => drop(self.done.insert(key)),
                        Outcome::Failed => self.failed_at = Some(self.clock.mono()),
                        Outcome::Postponed => {}
                    }
                }
                Ok(Ended::Many(namespace, gone, outcome)) => {
                    self.together.remove(&namespace);
                    if outcome == Outcome::Failed || (outcome == Outcome::Gone && gone.is_empty()) {
                        self.one_by_one_since.insert(namespace, self.clock.mono());
                    }
                    self.done.extend(gone);
                }
                // Cut off with the term.
                Err(_) => {}
            }
        }
    }
}

async fn one(writer: Arc<Writer>, metrics: Metrics, key: Key) -> Ended {
    let deleted = writer.delete_hint(&key.0, &key.1, &key.2).await;
    let outcome = outcome(&metrics, "delete_hint", &key.0, &deleted);
    Ended::One(key, outcome)
}

async fn many(writer: Arc<Writer>, metrics: Metrics, namespace: String, over: BTreeMap<String, String>) -> Ended {
    let deleted = writer.delete_hints(&namespace, &over).await;
    let outcome = outcome(&metrics, "delete_hints", &namespace, &deleted);
    let gone = deleted.unwrap_or_default().into_iter().map(|(name, uid)| (namespace.clone(), name, uid)).collect();
    Ended::Many(namespace, gone, outcome)
}

fn outcome<T>(metrics: &Metrics, verb: &'static str, namespace: &str, deleted: &Result<T, Error>) -> Outcome {
    metrics.wrote(verb, deleted.as_ref().map_or_else(Error::category, |_| "ok"));
    match deleted {
        Ok(_) => Outcome::Gone,
        // There is more urgent work; a later tick asks again.
        Err(Error::BudgetSpent) => Outcome::Postponed,
        Err(error) => {
            tracing::warn!(namespace, verb, error = chain(error), "hints not deleted; trying again later");
            Outcome::Failed
        }
    }
}
