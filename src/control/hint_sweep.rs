//! Hints that have done their work are deleted: a few at a time, beside everything else.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use super::metrics::Metrics;
use crate::{
    clock::Clock,
    cluster::{cell::Cell, client::chain, error::Error, view::HintView, write::Writer},
};

/// Deletions in flight. The write budget bounds the rate; this bounds what is waiting for it.
const DELETIONS_AT_ONCE: usize = 4;

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
    pub fn sweep(&mut self, namespace: &str, over: &[(String, String)], hints: &Cell<HintView>) {
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
            if self.going.len() >= DELETIONS_AT_ONCE {
                return;
            }
            let key = (namespace.to_owned(), name.clone(), uid.clone());
            // What is over was listed a moment ago, and some of it may have gone since.
            if is_shown(&key) && !self.done.contains(&key) && self.going.insert(key.clone()) {
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
