//! The status of a pool: what a person would care about, and the policy's memory. No clock in it ticks.

use jiff::Timestamp;
use kitepool_policy::{
    decision::{Decision, UnrecordedRaise},
    memory::Memory,
    observation::GoodReading,
};
use serde_json::{Map, Value, json};

use super::{
    conditions::{self, Condition},
    pool::PoolFacts,
};
use crate::{buildkite::Identity, cluster::view::PoolView};

/// The memory in a status. One that cannot be read (made by another version) is no memory, which costs at most a cooldown
/// and a window.
pub fn memory(status: &Value) -> Memory {
    let memory = status.get("memory").cloned().unwrap_or(Value::Null);
    if memory.is_null() {
        return Memory::default();
    }
    serde_json::from_value(memory).unwrap_or_else(|error| {
        tracing::warn!(error = %error, "the memory in a pool's status cannot be read; going on without");
        Memory::default()
    })
}

/// The identity in a status.
pub fn identity(status: &Value) -> Option<Identity> {
    let identity = status.get("identity")?;
    let text = |key: &str| identity.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
    Some(Identity { organization: text("organization")?, cluster: text("cluster") })
}

/// The value of the annotation by which a person last said that a trouble is resolved.
pub fn resolved(status: &Value) -> Option<&str> {
    status.get("resolved").and_then(Value::as_str)
}

/// The annotation by which a person says so, as far as the status has room for it.
pub fn word(view: &PoolView) -> Option<&str> {
    let word = view.annotations.get(kitepool_api::RESOLVED_ANNOTATION)?;
    let end = word.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= WORD_BYTES_MAX).last();
    word.get(..end.unwrap_or_default())
}

/// The definition allows no more in `status.resolved`.
const WORD_BYTES_MAX: usize = 1024;

/// What a new status is made of.
pub struct NewStatus<'a> {
    /// The pool.
    pub facts: &'a PoolFacts,
    /// The status that stands.
    pub before: &'a Value,
    /// A later decision than the one in it, of which the acts were begun.
    pub untold: Option<&'a Value>,
    /// Its conditions.
    pub conditions: &'a [Condition],
    /// The memory to keep.
    pub memory: &'a Memory,
    /// The decision, where there was one.
    pub decision: Option<&'a Decision>,
    /// The last good reading, if it is believed.
    pub reading: Option<&'a GoodReading>,
    /// The identity, once seen.
    pub identity: Option<&'a Identity>,
    /// The person's word that was taken in.
    pub resolved: Option<&'a str>,
    /// Wall time.
    pub now: Timestamp,
}

/// The whole status.
pub fn build(new: &NewStatus<'_>) -> Value {
    let pods = new.facts.pods();
    let current = new.facts.replicas();
    let desired = new.decision.map_or(current, |decision| decision.target);
    let view = &new.facts.view;
    let mut status = Map::new();
    status.insert("observedGeneration".to_owned(), json!(view.generation));
    let conditions = conditions::merge(new.before.get("conditions"), new.conditions, view.generation, new.now);
    status.insert("conditions".to_owned(), conditions);
    if let Some(identity) = new.identity {
        let mut value = Map::from_iter([("organization".to_owned(), json!(identity.organization))]);
        if let Some(cluster) = &identity.cluster {
            value.insert("cluster".to_owned(), json!(cluster));
        }
        status.insert("identity".to_owned(), Value::Object(value));
    }
    let replicas = json!({ "desired": desired, "current": current, "ready": pods.ready, "draining": pods.draining });
    status.insert("replicas".to_owned(), replicas);
    if let Some(reading) = new.reading {
        let load = reading.load;
        status.insert(
            "load".to_owned(),
            json!({ "scheduled": load.scheduled, "running": load.running, "waiting": load.waiting }),
        );
        status.insert("agents".to_owned(), json!({ "idle": load.idle, "busy": load.busy, "starting": pods.unready }));
    } else {
        for kept in ["load", "agents"] {
            if let Some(value) = new.before.get(kept) {
                status.insert(kept.to_owned(), value.clone());
            }
        }
    }
    if let Some(resolved) = new.resolved {
        status.insert("resolved".to_owned(), json!(resolved));
    }
    status.insert("memory".to_owned(), serde_json::to_value(new.memory).unwrap_or_default());
    if let Some(last) = last_decision(new) {
        status.insert("lastDecision".to_owned(), last);
    }
    Value::Object(status)
}

/// The last decision that changed something, or in a pool that only observes the one that would.
fn last_decision(new: &NewStatus<'_>) -> Option<Value> {
    let before = new.untold.or_else(|| new.before.get("lastDecision"));
    let Some(decision) = new.decision.filter(|decision| !decision.intents.is_empty()) else {
        let found = new.decision.and_then(|decision| decision.unrecorded.first());
        return found.map(unrecorded).or_else(|| before.cloned());
    };
    let reason = decision.report.deciding().map(|entry| &entry.reason)?;
    let fresh = json!({
        "from": new.facts.replicas(),
        "to": decision.target,
        "reason": reason.category(),
    });
    // A pool that observes would say the same again every tick; only the words it is made of count as a change.
    let same = |old: &Value| ["from", "to", "reason"].iter().all(|key| old.get(key) == fresh.get(key));
    Some(before.filter(|old| same(old)).cloned().unwrap_or_else(|| with_message(fresh, reason.to_string())))
}

/// A decision of which nobody recorded why.
fn unrecorded(raise: &UnrecordedRaise) -> Value {
    let decision = json!({ "from": raise.from, "to": raise.to, "reason": "Unrecorded" });
    with_message(decision, "a controller scaled it and ended before it recorded why".to_owned())
}

fn with_message(mut decision: Value, message: String) -> Value {
    if let Some(fields) = decision.as_object_mut() {
        fields.insert("message".to_owned(), Value::String(message));
    }
    decision
}
