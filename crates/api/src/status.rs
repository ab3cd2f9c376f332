//! The status of a pool, as the API server keeps it. The controller writes it whole.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a person would care about, and the policy's memory.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentPoolStatus {
    /// The generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, `LoadFresh`, `AtLimit`, Unsatisfiable, `PodsFailing`, `QueueShared`, Contested.
    #[schemars(length(max = 16), schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Whose the token was when it was first seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityStatus>,
    /// Replicas of all generations together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicasStatus>,
    /// Agents of the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentsStatus>,
    /// Jobs of the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadStatus>,
    /// What the policy remembers; not for people, and not the same in every version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// The last change of size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<LastDecision>,
    /// The last value of the annotation `kitepool.dev/resolved` that was taken in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub resolved: Option<String>,
}

/// An organization and a cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IdentityStatus {
    /// The organization's slug.
    #[schemars(length(max = 255))]
    pub organization: String,
    /// The cluster's uuid; absent for a token outside of clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub cluster: Option<String>,
}

/// Replicas.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicasStatus {
    /// Decided.
    pub desired: i32,
    /// Asked for by the Deployments.
    pub current: i32,
    /// Ready pods.
    pub ready: i32,
    /// Pods with a deletion timestamp.
    pub draining: i32,
}

/// Agents.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentsStatus {
    /// Without a job.
    pub idle: i32,
    /// With a job.
    pub busy: i32,
    /// In pods that are not ready yet.
    pub starting: i32,
}

/// Jobs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadStatus {
    /// Waiting for an agent.
    pub scheduled: i32,
    /// On an agent.
    pub running: i32,
    /// Waiting for other jobs.
    pub waiting: i32,
}

/// A change of size.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct LastDecision {
    /// Replicas before.
    pub from: i32,
    /// Replicas after.
    pub to: i32,
    /// A word.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// The sentence.
    #[schemars(length(max = 4096))]
    pub message: String,
}

/// The policy's memory: kept as it is, so that another version's is no error.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(transparent)]
pub struct Memory(pub Value);

impl JsonSchema for Memory {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Memory".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// Kubernetes' conditions, merged by type, every text with a bound.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 316 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "maxLength": 1024 },
                "message": { "type": "string", "maxLength": 32_768 },
                "observedGeneration": { "type": "integer", "format": "int64" },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
            },
        },
    })
}
