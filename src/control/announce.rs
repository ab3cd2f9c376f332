//! The sentences of Kubernetes Events.

use std::collections::BTreeMap;

use kitepool_policy::{
    decision::{Decision, ForeignChange, Spared, UnrecordedRaise},
    spec::PoolName,
};
use serde_json::Value;

use super::{
    act::Act,
    conditions::{self, Condition},
    departures::{Cause, Departure},
    hints::Unmatched,
    pool::PoolFacts,
};
use crate::{
    cluster::events::{Notice, PoolReference},
    pods::first,
};

/// A write that landed.
pub fn act(pool: &PoolReference, act: &Act, why: &str) -> Notice {
    let (reason, note) = match act {
        Act::Create { generation, replicas, manifest } => {
            let without = first::of_generation(manifest).and_then(first::Presence::sentence);
            let without = without.map(|sentence| format!(". Mind that {sentence}")).unwrap_or_default();
            ("GenerationCreated", format!("created Deployment {generation} with {replicas} replicas: {why}{without}"))
        }
        Act::Scale { generation, from, to, .. } => {
            let reason = if to > from { "ScaledUp" } else { "ScaledDown" };
            (reason, format!("Deployment {generation} from {from} to {to} replicas: {why}"))
        }
        Act::Delete { generation, .. } => {
            ("GenerationDeleted", format!("deleted Deployment {generation}: it is empty and no longer wanted"))
        }
    };
    Notice { pool: pool.clone(), is_warning: false, reason, note }
}

/// A condition that changed.
pub fn condition(pool: &PoolReference, condition: &Condition) -> Notice {
    let kind = condition.kind.as_str();
    let state = if condition.is_true { "" } else { "not " };
    let note = format!("{state}{kind}: {}", condition.message);
    Notice { pool: pool.clone(), is_warning: condition.is_warning(), reason: condition.reason, note }
}

/// A job that no pool of its queue can run, told at each of them. The note is the same for all jobs that ask for the same, so
/// that one Event counts them.
pub fn unmatched(found: &Unmatched) -> Vec<Notice> {
    let note = format!(
        "a job on queue {} asks for {}, which no pool of the queue has in spec.tags, so none grows for it. Add the tag to the pool \
         whose agents can run it, or correct the step's `agents`",
        found.queue,
        found.rules.join(", "),
    );
    let notice = |(pool, uid): &(PoolName, String)| Notice {
        pool: PoolReference { namespace: pool.namespace.clone(), name: pool.name.clone(), uid: uid.clone() },
        is_warning: true,
        reason: "HintUnmatched",
        note: note.clone(),
    };
    found.pools.iter().map(notice).collect()
}

/// Replicas that somebody else changed.
pub fn foreign(pool: &PoolReference, change: &ForeignChange, who: Option<&str>) -> Notice {
    let who = who.map_or_else(|| "somebody else".to_owned(), |manager| format!("`{manager}`"));
    let note = format!(
        "{who} changed the replicas of Deployment {} from {} to {}; the pool decides again. To set limits, edit spec.scaling of \
         the pool instead",
        change.generation, change.expected, change.found
    );
    Notice { pool: pool.clone(), is_warning: true, reason: "ForeignScale", note }
}

/// The conditions that are others than in the status that stands.
pub fn news(pool: &PoolReference, stands: &Value, conditions: &[Condition]) -> Vec<Notice> {
    let news = conditions::news(stands.get("conditions"), conditions);
    news.into_iter().map(|changed| condition(pool, changed)).collect()
}

/// What a decision found that nobody decided; each is told once.
pub fn found(pool: &PoolReference, decision: &Decision, facts: &PoolFacts) -> Vec<Notice> {
    let others =
        decision.foreign.iter().map(|change| foreign(pool, change, facts.foreign_scaler_of(&change.generation)));
    let ours = decision.unrecorded.iter().map(|raise| unrecorded(pool, raise));
    others.chain(ours).chain(decision.spared.iter().map(|stand| spared(pool, stand))).collect()
}

/// A raise of ours of which nobody had recorded why.
pub fn unrecorded(pool: &PoolReference, raise: &UnrecordedRaise) -> Notice {
    let note = format!(
        "Deployment {} was scaled from {} to {} replicas by a controller that ended before it recorded why; cooldown, step and window \
         count from now",
        raise.generation, raise.from, raise.to
    );
    Notice { pool: pool.clone(), is_warning: false, reason: "RaiseFound", note }
}

/// Pods that stand although they were chosen to go, while as many others went.
pub fn spared(pool: &PoolReference, spared: &Spared) -> Notice {
    let note = format!(
        "{} of Deployment {} stand although they were chosen to go, and others went in their places: those were not ready any more, \
         or somebody deleted them at that moment. An agent that was busy finishes its job first",
        some(&spared.pods.iter().map(String::as_str).collect::<Vec<_>>()),
        spared.generation
    );
    Notice { pool: pool.clone(), is_warning: true, reason: "OthersWent", note }
}

/// Agents that somebody else took, or that were lost: an Event for each Deployment and cause. What was chosen is told with the
/// scaling, what crashes by a condition.
pub fn departures(pool: &PoolReference, departures: &[Departure]) -> Vec<Notice> {
    let mut by_cause: BTreeMap<(&str, Cause), Vec<&str>> = BTreeMap::new();
    for Departure { generation, pod, cause } in departures {
        by_cause.entry((generation, *cause)).or_default().push(pod);
    }
    let notice = |((generation, cause), pods): ((&str, Cause), Vec<&str>)| {
        let (reason, what) = match cause {
            Cause::Chosen | Cause::NotChosen | Cause::Crashed => return None,
            Cause::Evicted => {
                ("AgentsEvicted", "were evicted: by a person, an autoscaler, the scheduler or their kubelet")
            }
            Cause::NodeLost => ("AgentsLostWithNode", "are lost with their node, and so are the jobs that they ran"),
            Cause::ByOthers => {
                ("AgentsDeletedByOthers", "were deleted by somebody else; agents finish their jobs first")
            }
        };
        let note = format!("{} of Deployment {generation} {what}", some(&pods));
        Some(Notice { pool: pool.clone(), is_warning: true, reason, note })
    };
    by_cause.into_iter().filter_map(notice).collect()
}

/// Names that a person reads to the end.
const NAMES_MAX: usize = 3;

fn some(pods: &[&str]) -> String {
    let named = pods.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    match pods.len().saturating_sub(NAMES_MAX) {
        0 => format!("pods {named}"),
        more => format!("pods {named} and {more} more"),
    }
}
