//! What a tick shows of itself: series, the board behind `/readyz`, and a line in the log where something would be done.

use jiff::Timestamp;
use kitepool_policy::{
    decision::{Decision, StepName},
    spec::PoolName,
};

use super::{
    conditions::ConditionType,
    metrics::{Metrics, PoolLabels, PoolNumbers},
    observe::Candidate,
    pool::{PoolFacts, PoolState},
    status::Phase,
    tick::Term,
    verdict::Verdict,
};
use crate::cluster::cell::Health;

/// A pool's labels.
pub(super) fn labels(pool: &PoolName) -> PoolLabels {
    PoolLabels { namespace: pool.namespace.clone(), pool: pool.name.clone() }
}

/// One valid pool's series.
pub(super) fn pool(
    metrics: &Metrics,
    candidate: &Candidate,
    decision: Option<&Decision>,
    verdict: &Verdict,
    now: Timestamp,
) {
    let labels = labels(&candidate.view().name);
    let good = candidate.seen.reading.last_good;
    let current = candidate.facts.replicas().0;
    let pods = candidate.facts.pods();
    let demand = decision.and_then(|decision| decision.report.entry(StepName::Demand)).map(|entry| entry.output);
    metrics.pool(
        &labels,
        PoolNumbers {
            desired: decision.map_or(current, |decision| decision.target.0),
            current,
            ready: pods.ready.0,
            draining: pods.draining.0,
            demand: demand.unwrap_or_default(),
            load: good.map(|good| (good.load.scheduled.0, good.load.running.0, good.load.waiting.0)),
            reading_age_seconds: good.map(|good| now.duration_since(good.at).as_secs_f64()),
        },
    );
    for condition in &verdict.conditions {
        metrics.condition(&labels, condition.kind, condition.is_true);
    }
}

/// The one series that moves while nothing else does.
pub(super) fn reading_age(metrics: &Metrics, state: &mut PoolState, candidate: &Candidate, now: Timestamp) {
    if let Some(good) = candidate.seen.reading.last_good {
        let age = state.reading_age.get_or_insert_with(|| metrics.reading_age(&labels(&candidate.view().name)));
        age.set(now.duration_since(good.at).as_secs_f64());
    }
}

/// A broken pool's series.
pub(super) fn broken(metrics: &Metrics, facts: &PoolFacts) {
    let labels = labels(&facts.view.name);
    let (current, pods) = (facts.replicas().0, facts.pods());
    let numbers = PoolNumbers {
        desired: current,
        current,
        ready: pods.ready.0,
        draining: pods.draining.0,
        ..PoolNumbers::default()
    };
    metrics.pool(&labels, numbers);
    metrics.condition(&labels, ConditionType::Ready, false);
}

/// What a pool that only observes would do: each new sentence once.
pub(super) fn would(state: &mut PoolState, candidate: &Candidate, decision: Option<&Decision>, verdict: &Verdict) {
    let Some(decision) = decision.filter(|decision| !decision.intents.is_empty()) else { return };
    let (from, to) = (candidate.facts.replicas().0, decision.target.0);
    let logged = (from, to);
    if state.logged != Some(logged) {
        state.logged = Some(logged);
        tracing::info!(pool = %decision.pool, from, to, reason = verdict.decided, "would scale");
    }
}

/// The board: which namespaces cannot be seen, and what is broken without stopping everything.
pub(super) fn board(term: &Term) {
    let mut why = Vec::new();
    let mut troubles = Vec::new();
    for (namespace, cells) in &term.watch.namespaces {
        for (resource, health) in cells.health() {
            match health {
                Health::Following => {}
                Health::Starting => why.push(format!("{resource} in namespace {namespace} are being listed")),
                Health::Broken { why: sentence, synced: false, .. } => why.push(sentence),
                Health::Broken { why: sentence, synced: true, .. } => troubles.push(sentence),
            }
        }
    }
    term.shared.metrics.events_dropped(term.announcer.dropped());
    let is_blocked = term.watch.namespaces.values().all(|cells| !cells.is_synced());
    if is_blocked {
        term.shared.board.set(Phase::Blocked { why });
    } else {
        why.extend(troubles);
        term.shared.board.set(Phase::Leading { troubles: why });
    }
}
