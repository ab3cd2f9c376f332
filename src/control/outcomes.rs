//! Takes in how the writes of the last ticks ended: what was recorded, what landed, and what is to be told of it; and at the end records what
//! they leave.

use kitepool_policy::units::Pods;

use super::{
    act::{Record, Work},
    announce,
    pool::{PoolState, reference},
    tick::Term,
};
use crate::cluster::{client::chain, error::Error, write::Urgency};

impl Term {
    /// Takes in how the writes of the last ticks ended.
    pub(super) fn take_in_outcomes(&mut self) {
        let at = self.shared.clock.mono();
        self.take_in_signs();
        for outcome in self.writers.ended() {
            let (refusal, mut has_landed) = (outcome.refusal(), false);
            let Some(state) = self.pools.get_mut(&outcome.uid) else { continue };
            state.quiet = None;
            if let Some(status) = outcome.status {
                self.shared.metrics.wrote("status", "ok");
                state.now_stands(status, outcome.memory.clone().unwrap_or_default());
                state.status_written_at = Some(at);
                state.is_status_unsure = false;
                outcome.notices.into_iter().for_each(|notice| self.announcer.announce(notice));
            }
            if let Some(memory) = outcome.memory {
                state.memory = memory;
            }
            if outcome.is_unrecorded {
                state.untold = outcome.untold;
                state.unrecorded_since.get_or_insert(at);
            }
            for (deployment, landed) in outcome.landed {
                // The answer is better knowledge than the watch: who puts the old number back from here on is somebody else.
                if let Some(asked) = state.memory.asked.get_mut(&deployment)
                    && landed.stands_at() == Some(asked.to)
                {
                    asked.from = asked.to;
                }
                self.overlay.landed(&outcome.uid, deployment, landed, at);
            }
            if let Some((generation, from)) = &outcome.held {
                state.never_landed(generation, *from);
                tracing::info!(pool = %outcome.pool, generation, "not lowered: a pod that was to go has found work");
            }
            for act in &outcome.done {
                self.shared.metrics.wrote(act.verb(), "ok");
                tracing::info!(pool = %outcome.pool, act = act.verb(), generation = act.generation(), reason = outcome.reason, "written");
                self.announcer.announce(announce::act(&reference(&outcome.pool, &outcome.uid), act, &outcome.reason));
            }
            if let Some(cells) = self.watch.namespaces.get(&outcome.pool.namespace) {
                for (name, seen) in outcome.reread {
                    // The answer to an earlier attempt was lost, and nobody changed it since.
                    let asked = state.memory.asked.get_mut(&name).filter(|_| outcome.tried.is_some());
                    if let (Some(asked), Some(seen)) = (asked, &seen)
                        && (seen.scaled_by_us && Pods(seen.replicas) == asked.to)
                    {
                        asked.from = asked.to;
                        has_landed = true;
                    }
                    if seen.is_none() {
                        self.overlay.gone(&outcome.uid, &name);
                    }
                    cells.take_in_deployment(&name, seen);
                }
            }
            state.refusal = refusal;
            if let Some((verb, error)) = outcome.failure {
                self.shared.metrics.wrote(verb, error.category());
                if matches!(error, Error::BudgetSpent) && verb == "status" {
                    // A report gives way to what is urgent; a later tick makes a newer one.
                    state.status_written_at = Some(at);
                    continue;
                }
                if let (Error::Conflict { .. }, Some((generation, from)), false) = (&error, &outcome.tried, has_landed)
                {
                    state.never_landed(generation, *from);
                }
                // It may have landed all the same; the next write says for sure.
                state.is_status_unsure |= verb == "status";
                tracing::warn!(pool = %outcome.pool, verb, error = chain(&error), "write failed; deciding again");
            }
        }
    }

    /// Waits for the writes in flight, and where we still lead records what they leave to be recorded.
    pub(super) async fn drain(&mut self, still_leads: bool) {
        self.writers.drain().await;
        self.take_in_outcomes();
        if still_leads {
            self.record_raises();
            self.writers.drain().await;
        }
        self.signs.drain().await;
    }

    /// No report will record them any more.
    fn record_raises(&mut self) {
        let unrecorded = self.pools.iter().filter(|(_, state)| state.unrecorded_since.is_some());
        let mut unrecorded: Vec<(&String, &PoolState)> = unrecorded.collect();
        unrecorded.sort_by(|(_, one), (_, another)| one.name.cmp(&another.name));
        for (uid, state) in unrecorded {
            self.writers.begin(Work {
                pool: state.name.clone(),
                uid: uid.clone(),
                record: Record::First { status: Some(state.status_with_memory()), notices: Vec::new() },
                memory: state.memory.clone(),
                acts: Vec::new(),
                reason: String::new(),
                urgency: Urgency::Act,
            });
        }
    }
}
