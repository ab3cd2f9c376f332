//! The conditions of a pool: each says whether, why, and what to do.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Which condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The pool is valid, has its definition and its token, and is decided about.
    Ready,
    /// Buildkite's numbers are believed.
    LoadFresh,
    /// A limit holds the pool.
    AtLimit,
    /// Jobs of the queue stay queued though agents are idle.
    Unsatisfiable,
    /// Pods of the wanted generation fail, and none has become ready since.
    PodsFailing,
    /// Ready pods have not said for long what their agents do, and such are never taken.
    AgentsUnknown,
    /// Other pools serve the queue as well.
    QueueShared,
    /// Somebody else scales it again and again.
    Contested,
}

impl ConditionType {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::LoadFresh,
        Self::AtLimit,
        Self::Unsatisfiable,
        Self::PodsFailing,
        Self::AgentsUnknown,
        Self::QueueShared,
        Self::Contested,
    ];

    /// Its name in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::LoadFresh => "LoadFresh",
            Self::AtLimit => "AtLimit",
            Self::Unsatisfiable => "Unsatisfiable",
            Self::PodsFailing => "PodsFailing",
            Self::AgentsUnknown => "AgentsUnknown",
            Self::QueueShared => "QueueShared",
            Self::Contested => "Contested",
        }
    }

    /// Whether `True` is how it should be.
    const fn is_good_when_true(self) -> bool {
        matches!(self, Self::Ready | Self::LoadFresh)
    }

    /// Whether somebody should look at it when it is not as it should be. Limits and company on a queue are as configured.
    const fn is_alarming(self) -> bool {
        !matches!(self, Self::AtLimit | Self::QueueShared)
    }
}

/// One condition as it should stand now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Which.
    pub kind: ConditionType,
    /// Whether it holds.
    pub is_true: bool,
    /// A bounded `CamelCase` word.
    pub reason: &'static str,
    /// The sentence; without anything that changes by itself, such as an age.
    pub message: String,
}

/// The reason of `LoadFresh` before the first poll has ended.
pub const NOT_READ: &str = "NotRead";

/// Longer than anybody reads; the definition allows eight times as much.
const MESSAGE_BYTES_MAX: usize = 4096;

impl Condition {
    /// Makes one.
    pub fn new(kind: ConditionType, is_true: bool, reason: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            let mut end = MESSAGE_BYTES_MAX;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        Self { kind, is_true, reason, message }
    }

    /// Keeps the message that stood before where answer and reason are the same and it begins alike: for words of others,
    /// who tell the same trouble in a new way every few minutes.
    #[must_use]
    pub fn or_as_before(self, before: Option<&Value>, beginning: &str) -> Self {
        let conditions = before.and_then(Value::as_array).into_iter().flatten();
        let old = conditions.into_iter().find(|old| {
            let is = |key: &str, value: &str| old.get(key).and_then(Value::as_str) == Some(value);
            is("type", self.kind.as_str()) && is("status", status_of(self.is_true)) && is("reason", self.reason)
        });
        let message = old.and_then(|old| old.get("message")?.as_str()).filter(|old| old.starts_with(beginning));
        match message {
            Some(message) => Self { message: message.to_owned(), ..self },
            None => self,
        }
    }

    /// Whether a change to this is worth a warning.
    pub fn is_warning(&self) -> bool {
        // Before the first poll has ended nothing is wrong yet.
        self.kind.is_alarming() && self.is_true != self.kind.is_good_when_true() && self.reason != NOT_READ
    }
}

/// The list for the status: the instant of the last transition is kept where the answer is the same as before.
pub fn merge(before: Option<&Value>, now: &[Condition], generation: i64, at: Timestamp) -> Value {
    let known: BTreeMap<&str, &Value> = before
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|condition| Some((condition.get("type")?.as_str()?, condition)))
        .collect();
    now.iter()
        .map(|condition| {
            let status = status_of(condition.is_true);
            let kept = known
                .get(condition.kind.as_str())
                .filter(|old| old.get("status").and_then(Value::as_str) == Some(status))
                .and_then(|old| old.get("lastTransitionTime").cloned());
            json!({
                "type": condition.kind.as_str(),
                "status": status,
                "reason": condition.reason,
                "message": condition.message,
                "observedGeneration": generation,
                "lastTransitionTime": kept.unwrap_or_else(|| json!(whole_seconds(at))),
            })
        })
        .collect()
}

/// The conditions whose answer or reason differs from what stood before; those that are new and as they should be are no news.
pub fn news<'a>(before: Option<&Value>, now: &'a [Condition]) -> Vec<&'a Condition> {
    let stood = |kind: ConditionType| {
        let known = before.and_then(Value::as_array).into_iter().flatten();
        let of_kind = |condition: &&Value| condition.get("type").and_then(Value::as_str) == Some(kind.as_str());
        known.into_iter().find(of_kind).map(|condition| {
            let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            (text("status") == "True", text("reason"))
        })
    };
    now.iter()
        .filter(|condition| match stood(condition.kind) {
            Some((was_true, reason)) => {
                was_true != condition.is_true || (condition.is_warning() && reason != condition.reason)
            }
            None => condition.is_warning(),
        })
        .collect()
}

/// As Kubernetes writes it.
const fn status_of(is_true: bool) -> &'static str {
    if is_true { "True" } else { "False" }
}

/// Kubernetes writes condition times in whole seconds.
fn whole_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(is_true: bool) -> Condition {
        Condition::new(ConditionType::Ready, is_true, if is_true { "Deciding" } else { "Invalid" }, "m")
    }

    #[test]
    fn a_transition_is_dated_once() {
        let first = merge(None, &[ready(true)], 1, Timestamp::from_second(100).unwrap());
        let second = merge(Some(&first), &[ready(true)], 1, Timestamp::from_second(200).unwrap());
        assert_eq!(first, second, "nothing changed, so nothing is written");
        let third = merge(Some(&second), &[ready(false)], 1, Timestamp::from_second(300).unwrap());
        assert_eq!(third[0]["lastTransitionTime"], "1970-01-01T00:05:00Z");
    }

    #[test]
    fn the_same_trouble_in_other_words_is_no_change() {
        let failing = |reason, message: &str| Condition::new(ConditionType::PodsFailing, true, reason, message);
        let before = merge(None, &[failing("Crashing", "Deployment a: first")], 1, Timestamp::UNIX_EPOCH);
        for (reason, message, expected) in [
            ("Crashing", "Deployment a: second", "Deployment a: first"),
            ("NeverReady", "Deployment a: second", "Deployment a: second"),
            ("Crashing", "Deployment b: second", "Deployment b: second"),
        ] {
            let beginning = &message[.."Deployment a:".len()];
            assert_eq!(failing(reason, message).or_as_before(Some(&before), beginning).message, expected);
        }
        assert_eq!(
            failing("Crashing", "Deployment a: x").or_as_before(None, "Deployment a:").message,
            "Deployment a: x"
        );
    }

    #[test]
    fn only_changes_and_first_troubles_are_news() {
        assert!(news(None, &[ready(true)]).is_empty());
        assert_eq!(news(None, &[ready(false)]).len(), 1);
        let stands = merge(None, &[ready(false)], 1, Timestamp::UNIX_EPOCH);
        assert!(news(Some(&stands), &[ready(false)]).is_empty());
        assert_eq!(news(Some(&stands), &[ready(true)]).len(), 1);
    }
}
