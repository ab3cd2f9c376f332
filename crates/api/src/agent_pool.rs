//! `AgentPool`: one queue served by one kind of pod, as people write it.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    duration::Span,
    overrides::PodOverrides,
    rules::{self, validations},
    scaling::Scaling,
    status::AgentPoolStatus,
};

/// Workers in one process; the agent itself allows more, machines hardly do.
pub const AGENTS_PER_POD_MAX: i32 = 100;
/// The longest queue key.
pub const QUEUE_MAX: usize = 255;
/// The most tags.
pub const TAGS_MAX: usize = 32;
/// The longest tag.
pub const TAG_MAX: usize = 255;
/// The longest name of an object, and the longest key of a Secret.
pub const NAME_MAX: usize = 253;
/// The longest path of a token file.
pub const FILE_MAX: usize = 1024;

/// A pool of identical agents that serve one queue.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "kitepool.dev",
    version = "v1alpha1",
    kind = "AgentPool",
    plural = "agentpools",
    shortname = "ap",
    namespaced,
    status = "AgentPoolStatus",
    category = "kitepool",
    doc = "A pool of identical Buildkite agents that serve one queue.",
    derive = "PartialEq",
    validation = Rule::new(rules::POOL_NAME.cel).message(rules::POOL_NAME.sentence),
    printcolumn = r#"{"name":"Queue","type":"string","jsonPath":".spec.queue"}"#,
    printcolumn = r#"{"name":"Min","type":"integer","jsonPath":".spec.scaling.min"}"#,
    printcolumn = r#"{"name":"Max","type":"integer","jsonPath":".spec.scaling.max"}"#,
    printcolumn = r#"{"name":"Desired","type":"integer","jsonPath":".status.replicas.desired"}"#,
    printcolumn = r#"{"name":"Ready","type":"integer","jsonPath":".status.replicas.ready"}"#,
    printcolumn = r#"{"name":"Busy","type":"integer","jsonPath":".status.agents.busy"}"#,
    printcolumn = r#"{"name":"Queued","type":"integer","jsonPath":".status.load.scheduled"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].message","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::DEFINITION_CHOICE])))]
pub struct AgentPoolSpec {
    /// The key of the Buildkite queue that the agents serve.
    #[schemars(length(max = QUEUE_MAX), extend("x-kubernetes-validations" = validations(&[rules::QUEUE])))]
    pub queue: String,
    /// What the agents carry besides `queue=`, as `key=value`. A job that asks for more cannot run here.
    #[serde(default)]
    #[schemars(
        length(max = TAGS_MAX),
        inner(length(max = TAG_MAX)),
        transform = rules_of_each_tag,
        extend("x-kubernetes-validations" = validations(&[rules::TAGS_UNIQUE]))
    )]
    pub tags: Vec<String>,
    /// The agent token, which also reads the queue's metrics.
    pub token: Token,
    /// The pod definition: a `PodTemplate` in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template_ref: Option<PodTemplateRef>,
    /// The pod definition itself, as in a Deployment's `spec.template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<FilledTemplate>,
    /// Changes of the definition, for this pool alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<PodOverrides>,
    /// An existing Deployment that the pool takes over: its pods stay while they are busy, then the pool's own replace them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = NAME_MAX), extend("x-kubernetes-validations" = validations(&[rules::OBJECT_NAME])))]
    pub adopt: Option<String>,
    /// Workers in each pod; a pod is idle when all of them are.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = AGENTS_PER_POD_MAX))]
    pub agents_per_pod: i32,
    /// How long a draining agent may finish its job: the pods' grace period. From 1s to 7d.
    #[serde(default = "default_longest_job")]
    #[schemars(extend("x-kubernetes-validations" = rules::LONGEST_JOB.validations()))]
    pub longest_job: Span,
    /// Active: decide and act. Observe: decide and explain, write nothing to Deployments.
    #[serde(default)]
    pub mode: Mode,
    /// Pools on one queue are filled in this order, each up to its max.
    #[serde(default)]
    pub order: i32,
    /// Whether agents on the queue that are not ours count as capacity.
    #[serde(default)]
    pub other_agents: OtherAgents,
    /// How many agents, when.
    #[serde(default)]
    pub scaling: Scaling,
}

/// Where the agent token is: exactly one of the two.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::TOKEN_CHOICE])))]
pub struct Token {
    /// A Secret in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// A file that is mounted both into the controller and into the pods under this path, for example by a CSI driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = FILE_MAX), extend("x-kubernetes-validations" = validations(&[rules::TOKEN_FILE])))]
    pub file: Option<String>,
}

/// A key of a Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret.
    #[schemars(length(max = NAME_MAX), extend("x-kubernetes-validations" = validations(&[rules::OBJECT_NAME])))]
    pub name: String,
    /// The key in it.
    #[serde(default = "default_key")]
    #[schemars(length(max = NAME_MAX), extend("x-kubernetes-validations" = validations(&[rules::SECRET_KEY])))]
    pub key: String,
}

/// A `PodTemplate`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplateRef {
    /// Its name.
    #[schemars(length(max = NAME_MAX), extend("x-kubernetes-validations" = validations(&[rules::OBJECT_NAME])))]
    pub name: String,
}

/// An inline pod template. Kept as it was written: the API server that creates the pods knows its fields better than any
/// version of ours.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(transparent)]
pub struct FilledTemplate(pub Value);

impl FilledTemplate {
    /// As its type. The error's path is relative to the template.
    pub fn typed(&self) -> Result<PodTemplateSpec, serde_path_to_error::Error<serde_json::Error>> {
        serde_path_to_error::deserialize(&self.0)
    }
}

impl JsonSchema for FilledTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FilledTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// Whether decisions are carried out.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Decide and act.
    #[default]
    Active,
    /// Decide and explain.
    Observe,
}

/// Whether agents that are not ours count.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherAgents {
    /// They do not.
    #[default]
    Ignore,
    /// Their idle ones serve part of the demand.
    Count,
}

const fn one() -> i32 {
    1
}

fn default_longest_job() -> Span {
    Span::new("4h")
}

fn default_key() -> String {
    "token".to_owned()
}

/// schemars' `inner` knows lengths and the like only.
fn rules_of_each_tag(schema: &mut Schema) {
    if let Some(Value::Object(tag)) = schema.get_mut("items") {
        tag.insert("x-kubernetes-validations".to_owned(), validations(&[rules::TAG_FORM, rules::TAG_QUEUE]));
    }
}
