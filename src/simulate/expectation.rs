//! Holds a story to what it says must be so, at an instant and in the end.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kitepool_world::{
    buildkite::Buildkite,
    kubernetes::{Kind, Kubernetes},
};
use serde_json::Value;

use super::{
    stage::{NAMESPACE, Stage},
    story::PoolExpectation,
    transcript::since,
};

impl Stage {
    /// Looks whether pools are as the story says, now.
    pub(super) fn expect_now(&mut self, expected: &BTreeMap<String, PoolExpectation>, now: Timestamp) {
        let at = since(self.story.start, now);
        let found = self.world.kubernetes().peek(|kubernetes| {
            let sentences = expected.iter().flat_map(|(pool, expected)| differences(kubernetes, pool, expected));
            sentences.map(|sentence| format!("{sentence} at {at}")).collect::<Vec<_>>()
        });
        self.wrong.extend(found);
    }

    /// What the story expected and did not come.
    pub(super) fn unexpected(&self) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        let jobs = self.world.buildkite().peek(Buildkite::summary);
        let expect = &self.story.expect;
        if let Some(passed) = expect.passed.filter(|passed| *passed != jobs.passed) {
            wrong.push(format!("{} jobs passed, {passed} were expected to", jobs.passed));
        }
        if jobs.killed + jobs.lost != expect.killed {
            wrong.push(format!(
                "{} jobs were killed or lost, {} were expected to",
                jobs.killed + jobs.lost,
                expect.killed
            ));
        }
        self.world.kubernetes().peek(|kubernetes| {
            for sentence in kubernetes.unknown() {
                wrong.push(format!("asked for what is not simulated: {sentence}"));
            }
            for (pool, replicas) in &expect.replicas {
                let expected = PoolExpectation { replicas: Some(*replicas), ..PoolExpectation::default() };
                wrong.extend(differences(kubernetes, pool, &expected));
            }
        });
        wrong
    }
}

fn differences(kubernetes: &Kubernetes, name: &str, expected: &PoolExpectation) -> Vec<String> {
    let mut wrong = Vec::new();
    let found = replicas_of(kubernetes, name);
    if let Some(replicas) = expected.replicas.map(u64::from).filter(|replicas| *replicas != found) {
        wrong.push(format!("pool {name} has {found} replicas, {replicas} were expected"));
    }
    let pool = kubernetes.object(Kind::AgentPool, NAMESPACE, name);
    let status = pool.as_ref().and_then(|pool| pool.get("status")).unwrap_or(&Value::Null);
    let conditions = status.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (kind, reason) in &expected.conditions {
        let condition = conditions.iter().find(|condition| text(condition, "type") == kind);
        let found = condition.map_or("none", |condition| text(condition, "reason"));
        if found != reason {
            wrong.push(format!("the reason of {kind} of pool {name} is {found}, {reason} was expected"));
        }
    }
    wrong
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Replicas of all Deployments of a pool together.
pub(super) fn replicas_of(kubernetes: &Kubernetes, pool: &str) -> u64 {
    let deployments = kubernetes.objects(Kind::Deployment, NAMESPACE);
    let of_pool = deployments.iter().filter(|deployment| pool_of(deployment) == Some(pool));
    of_pool.filter_map(|deployment| deployment.pointer("/spec/replicas").and_then(Value::as_u64)).sum()
}

/// The pool that an object is of, by its label.
pub(super) fn pool_of(object: &Value) -> Option<&str> {
    let labels = object.pointer("/metadata/labels")?;
    labels.get(kitepool_api::POOL_LABEL)?.as_str()
}
