//! Carries out what was decided: per pool one task with one call in flight; intent is recorded before the act, unless that records itself.
//!
//! ```text
//!  status (memory) ─► create / scale / delete, in order ─► outcome: what landed, or why not
//!        │ fails: no act      │           │ fails: the rest is dropped, the next tick decides again
//!                             └─ takes chosen pods: they are asked once more just before; one that found work stops it
//!
//!  a raise alone ─► outcome ─► a report has its memory. Kubernetes notes whose it is, so that who finds no memory of it knows
//! ```
//!
//! That last question is no part of the protocol, which has had its second answer. It only brings the moment of an answer nearer to
//! the signal, from some seconds to some milliseconds, for what an agent was given meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kitepool_policy::{decision::Intent, memory::Memory, spec::PoolName, units::Pods};
use serde_json::Value;
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
    time::Instant,
};

use crate::{
    agents::Address,
    clock::Clock,
    cluster::{
        error::Error,
        events::Notice,
        read::Reader,
        view::DeploymentView,
        write::{Urgency, Writer},
    },
    sense::probe::LastWord,
};

/// After the first failure of a pool's writes; doubled up to the last. Most failures are a conflict that one read mends.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(10);

/// Writes of one pool in one tick: at most one a generation, and a pool with more generations than this is worked off over
/// several ticks.
pub const INTENTS_MAX: usize = 8;

/// What is to be written for one pool.
#[derive(Debug, Clone)]
pub struct Work {
    /// Which pool.
    pub pool: PoolName,
    /// Its uid: a pool that was made anew under the same name is another one.
    pub uid: String,
    /// What is recorded of it, and when.
    pub record: Record,
    /// What is to be remembered.
    pub memory: Memory,
    /// The writes to Deployments.
    pub acts: Vec<Act>,
    /// Why, for the Events.
    pub reason: String,
    /// Of the record.
    pub urgency: Urgency,
}

/// When the memory is recorded.
#[derive(Debug, Clone)]
pub enum Record {
    /// Before the acts.
    First {
        /// The new status, where it differs from the one that stands.
        status: Option<Value>,
        /// What is to be told once it stands.
        notices: Vec<Notice>,
    },
    /// By a report that comes later.
    After {
        /// The decision as that is to tell it.
        decided: Option<Value>,
    },
}

/// One write, with what it needs.
#[derive(Debug, Clone)]
pub enum Act {
    /// Create a Deployment.
    Create {
        /// Its name.
        generation: String,
        /// Its replicas.
        replicas: Pods,
        /// Itself.
        manifest: Value,
    },
    /// Scale one.
    Scale {
        /// Its name.
        generation: String,
        /// What must stand.
        from: Pods,
        /// What is to stand.
        to: Pods,
        /// Pods that are to go for it, as far as they can be asked.
        ask: Vec<Address>,
    },
    /// Delete one.
    Delete {
        /// Its name.
        generation: String,
        /// Its uid.
        uid: String,
    },
}

impl Act {
    /// The policy's intent as a write. `None` when what it needs is not known any more.
    pub fn from_intent(
        intent: Intent,
        manifest: impl Fn(Pods) -> Option<Value>,
        uid: impl Fn(&str) -> Option<String>,
        ask: impl Fn(&str) -> Vec<Address>,
    ) -> Option<Self> {
        match intent {
            Intent::Create { generation, replicas } => {
                manifest(replicas).map(|manifest| Self::Create { generation, replicas, manifest })
            }
            Intent::Scale { generation, from, to } => {
                let ask = if to < from { ask(&generation) } else { Vec::new() };
                Some(Self::Scale { generation, from, to, ask })
            }
            Intent::Delete { generation } => uid(&generation).map(|uid| Self::Delete { generation, uid }),
        }
    }

    /// The Deployment it is about.
    pub fn generation(&self) -> &str {
        match self {
            Self::Create { generation, .. } | Self::Scale { generation, .. } | Self::Delete { generation, .. } => {
                generation
            }
        }
    }

    /// A bounded word for labels.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Scale { .. } => "scale",
            Self::Delete { .. } => "delete",
        }
    }

    /// All of [`Self::verb`], and the other writes.
    pub const VERBS: [&'static str; 7] = ["create", "scale", "delete", "status", "delete_hint", "delete_hints", "sign"];
}

/// What a write of ours left at a Deployment; it stands in for the cell until the watch has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    /// These replicas, as of this resource version.
    Replicas {
        /// `spec.replicas`.
        replicas: Pods,
        /// Of the Deployment.
        resource_version: u64,
    },
    /// It is gone.
    Deleted,
}

impl Outcome {
    /// What a person has to mend before this can go on; `None` for what passes by itself.
    pub fn refusal(&self) -> Option<String> {
        let (verb, error) = self.failure.as_ref()?;
        let seen = self.reread.first().and_then(|(name, seen)| Some((name, seen.as_ref()?)));
        match (error, seen) {
            (Error::Conflict { .. }, Some((name, seen)))
                if *verb == "create" && seen.owner_uid.as_deref() != Some(self.uid.as_str()) =>
            {
                Some(format!(
                    "a Deployment {name} that is not this pool's is in the way; delete it, or let the pool adopt it"
                ))
            }
            (Error::Conflict { .. }, Some((name, seen)))
                if *verb == "scale" && self.tried.as_ref().is_some_and(|(_, from)| *from == Pods(seen.replicas)) =>
            {
                Some(format!(
                    "the API server refuses to scale Deployment {name} although nobody changed it; an admission policy may"
                ))
            }
            _ => error.refusal(),
        }
    }
}

impl Landed {
    /// The replicas that stand, while the Deployment does.
    pub const fn stands_at(self) -> Option<Pods> {
        match self {
            Self::Replicas { replicas, .. } => Some(replicas),
            Self::Deleted => None,
        }
    }
}

/// How a pool's writes ended.
#[derive(Debug)]
pub struct Outcome {
    /// Which pool.
    pub pool: PoolName,
    /// Its uid.
    pub uid: String,
    /// The status that stands now, where it was written.
    pub status: Option<Value>,
    /// What is to be remembered from now on, whether or not the acts landed; none where it was to be recorded first and could not be.
    pub memory: Option<Memory>,
    /// The decision that a status is still to tell.
    pub untold: Option<Value>,
    /// A report is to record the memory.
    pub is_unrecorded: bool,
    /// Why it was decided.
    pub reason: String,
    /// What is to be told now that it stands.
    pub notices: Vec<Notice>,
    /// What landed, by Deployment.
    pub landed: Vec<(String, Landed)>,
    /// Acts that were carried out, for Events and counters.
    pub done: Vec<Act>,
    /// Deployments read again after a conflict; `None`: not there.
    pub reread: Vec<(String, Option<DeploymentView>)>,
    /// Which Deployment the failed scale was about, and what it expected to find.
    pub tried: Option<(String, Pods)>,
    /// The scale that was not sent because a pod that was to go had found work: of which Deployment, and from what.
    pub held: Option<(String, Pods)>,
    /// The first failure, and at what.
    pub failure: Option<(&'static str, Error)>,
}

/// The writers, at most one a pool.
#[derive(Debug)]
pub struct Writers {
    writer: Arc<Writer>,
    reader: Reader,
    last_word: LastWord,
    clock: Clock,
    wake: Arc<Notify>,
    running: JoinSet<Outcome>,
    /// By the pool's uid.
    busy: BTreeMap<String, Flight>,
    /// Whether the reports have ended that the last tick found in the way of an act; each was running then.
    awaited: Vec<Arc<AtomicBool>>,
    retries: BTreeMap<String, Retry>,
    /// What ended while all were waited for.
    drained: Vec<Outcome>,
}

/// The writes of a pool that are in flight.
#[derive(Debug)]
struct Flight {
    /// What is remembered as soon as they have begun.
    memory: Memory,
    /// No act follows the status.
    is_report: bool,
    has_ended: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    delay: Duration,
}

impl Writers {
    /// No writes in flight.
    pub fn new(writer: Arc<Writer>, reader: Reader, last_word: LastWord, clock: Clock, wake: Arc<Notify>) -> Self {
        let (running, busy, retries) = (JoinSet::new(), BTreeMap::new(), BTreeMap::new());
        let (awaited, drained) = (Vec::new(), Vec::new());
        Self { writer, reader, last_word, clock, wake, running, busy, awaited, retries, drained }
    }

    /// Whether a pool's writes may begin: none in flight, and not waiting after a failure.
    pub fn is_free(&self, uid: &str) -> bool {
        let waits = self.retries.get(uid).is_some_and(|retry| self.clock.mono() < retry.at);
        !self.busy.contains_key(uid) && !waits
    }

    /// The intent that is being recorded and carried out, while a call of the pool is in flight.
    pub fn in_flight(&self, uid: &str) -> Option<&Memory> {
        self.busy.get(uid).map(|flight| &flight.memory)
    }

    /// There is an act for a pool whose writes are not free. Where a report is in its way, its end is awaited: jobs wait for the act. An act
    /// waits for another in its time, so that a burst is answered by few. Answers when it may be tried again after a failure.
    pub fn act_waits(&mut self, uid: &str) -> Option<Instant> {
        let in_the_way = self.busy.get(uid).filter(|flight| flight.is_report);
        self.awaited.extend(in_the_way.map(|flight| Arc::clone(&flight.has_ended)));
        self.retries.get(uid).filter(|_| !self.busy.contains_key(uid)).map(|retry| retry.at)
    }

    /// Whether some report is no longer in the way of an act.
    pub fn is_way_free(&self) -> bool {
        self.awaited.iter().any(|has_ended| has_ended.load(Ordering::Acquire))
    }

    /// Begins a pool's writes.
    pub fn begin(&mut self, work: Work) {
        let has_ended = Arc::new(AtomicBool::new(false));
        let flight =
            Flight { memory: work.memory.clone(), is_report: work.acts.is_empty(), has_ended: Arc::clone(&has_ended) };
        self.busy.insert(work.uid.clone(), flight);
        let (writer, reader, wake) = (Arc::clone(&self.writer), self.reader.clone(), Arc::clone(&self.wake));
        let last_word = self.last_word.clone();
        self.running.spawn(async move {
            let outcome = carry_out(work, &writer, &reader, &last_word).await;
            has_ended.store(true, Ordering::Release);
            wake.notify_one();
            outcome
        });
    }

    /// What has ended since the last tick, in the order of pools.
    pub fn ended(&mut self) -> Vec<Outcome> {
        self.awaited.clear();
        let mut outcomes = std::mem::take(&mut self.drained);
        while let Some(ended) = self.running.try_join_next() {
            outcomes.extend(whole(ended));
        }
        outcomes.sort_by(|a, b| a.pool.cmp(&b.pool));
        for outcome in &outcomes {
            self.busy.remove(&outcome.uid);
            // A report that gave way is no failure; an act must not wait for it.
            let gave_way = matches!(outcome.failure, Some((_, Error::BudgetSpent)));
            self.note(&outcome.uid, outcome.failure.is_some() && !gave_way);
        }
        outcomes
    }

    fn note(&mut self, uid: &str, has_failed: bool) {
        if has_failed {
            let before = self.retries.get(uid).map(|retry| retry.delay * 2);
            let delay = before.unwrap_or(RETRY_FIRST).min(RETRY_LAST);
            self.retries.insert(uid.to_owned(), Retry { at: self.clock.mono() + delay, delay });
        } else {
            self.retries.remove(uid);
        }
    }

    /// Forgets pools that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.retries.retain(|uid, _| is_there(uid));
    }

    /// Waits until nothing is in flight; each call has its own deadline.
    pub async fn drain(&mut self) {
        while let Some(ended) = self.running.join_next().await {
            self.drained.extend(whole(ended));
        }
    }

    /// Whether its last writes failed.
    pub fn has_failed(&self, uid: &str) -> bool {
        self.retries.contains_key(uid)
    }
}

/// A panic in a write: its pool stays busy for this term, which is safe, and the log has it.
fn whole(ended: Result<Outcome, JoinError>) -> Option<Outcome> {
    ended.inspect_err(|error| tracing::error!(error = %error, "a write ended abnormally")).ok()
}

async fn carry_out(work: Work, writer: &Writer, reader: &Reader, last_word: &LastWord) -> Outcome {
    let mut outcome = Outcome {
        pool: work.pool.clone(),
        uid: work.uid.clone(),
        status: None,
        memory: None,
        untold: None,
        is_unrecorded: false,
        reason: work.reason,
        notices: Vec::new(),
        landed: Vec::new(),
        done: Vec::new(),
        reread: Vec::new(),
        tried: None,
        held: None,
        failure: None,
    };
    match work.record {
        Record::First { status: Some(status), notices } => {
            if let Err(error) = writer.put_pool_status(&work.pool, &work.uid, &status, work.urgency).await {
                outcome.failure = Some(("status", error));
                return outcome;
            }
            (outcome.status, outcome.notices) = (Some(status), notices);
        }
        Record::First { status: None, .. } => {}
        Record::After { decided } => (outcome.untold, outcome.is_unrecorded) = (decided, true),
    }
    outcome.memory = Some(work.memory);
    for act in work.acts.into_iter().take(INTENTS_MAX) {
        if let Act::Scale { generation, from, ask, .. } = &act
            && found_work(generation, ask, last_word).await
        {
            // And with it what was to follow: where a pool rolls, that takes the place that is not left now.
            outcome.held = Some((generation.clone(), *from));
            break;
        }
        match carry_out_one(&act, &work.pool.namespace, writer).await {
            Ok((generation, landed)) => {
                outcome.landed.push((generation, landed));
                outcome.done.push(act);
            }
            Err(error) => {
                if matches!(error, Error::Conflict { .. } | Error::NotFound) {
                    let generation = act.generation().to_owned();
                    if let Ok(seen) = reader.deployment(&work.pool.namespace, &generation).await {
                        outcome.reread.push((generation, seen));
                    }
                }
                if let Act::Scale { generation, from, .. } = &act {
                    outcome.tried = Some((generation.clone(), *from));
                }
                outcome.failure = Some((act.verb(), error));
                break;
            }
        }
    }
    outcome
}

/// Whether one of those that are to go is busy after all.
async fn found_work(generation: &str, ask: &[Address], last_word: &LastWord) -> bool {
    if ask.is_empty() {
        return false;
    }
    let busy = last_word.busy_among(ask).await;
    tracing::debug!(generation, pods = ask.len(), busy = busy.len(), "asked before they go");
    !busy.is_empty()
}

async fn carry_out_one(act: &Act, namespace: &str, writer: &Writer) -> Result<(String, Landed), Error> {
    match act {
        Act::Create { generation, replicas, manifest } => {
            let resource_version = writer.create_deployment(namespace, manifest).await?;
            Ok((generation.clone(), Landed::Replicas { replicas: *replicas, resource_version }))
        }
        Act::Scale { generation, from, to, .. } => {
            let resource_version = writer.scale(namespace, generation, from.0, to.0).await?;
            Ok((generation.clone(), Landed::Replicas { replicas: *to, resource_version }))
        }
        Act::Delete { generation, uid } => {
            writer.delete_deployment(namespace, generation, uid).await?;
            Ok((generation.clone(), Landed::Deleted))
        }
    }
}

#[cfg(test)]
mod tests;
