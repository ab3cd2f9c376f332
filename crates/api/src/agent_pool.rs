//! `AgentPool`: the scaling of one queue by one kind of pod, as people write it.

#![expect(unreachable_pub, reason = "the derived shadow of each struct is public within a function")]

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{duration::Span, schedule::ScheduleSpec, status::AgentPoolStatus};

/// The most that anybody may ask for; a larger number is taken for a mistake.
pub const PODS_MAX: u32 = 10_000;
/// Workers in one process; the agent itself allows more, machines hardly do.
pub const AGENTS_PER_POD_MAX: u32 = 100;

/// A pool of identical agents that serve one queue.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
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
    validation = Rule::new("size(self.metadata.name) <= 52").message("metadata.name is longer than 52 characters, which leaves no room for the name of a Deployment; choose a shorter one"),
    printcolumn = r#"{"name":"Queue","type":"string","jsonPath":".spec.queue"}"#,
    printcolumn = r#"{"name":"Min","type":"integer","jsonPath":".spec.scaling.min"}"#,
    printcolumn = r#"{"name":"Max","type":"integer","jsonPath":".spec.scaling.max"}"#,
    printcolumn = r#"{"name":"Desired","type":"integer","jsonPath":".status.replicas.desired"}"#,
    printcolumn = r#"{"name":"Ready","type":"integer","jsonPath":".status.replicas.ready"}"#,
    printcolumn = r#"{"name":"Busy","type":"integer","jsonPath":".status.agents.busy"}"#,
    printcolumn = r#"{"name":"Queued","type":"integer","jsonPath":".status.load.scheduled"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.podTemplateRef) != has(self.template)").message("exactly one of spec.podTemplateRef and spec.template must say what the pods are; set one of them")
)]
pub struct AgentPoolSpec {
    /// The key of the Buildkite queue that the agents serve.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._:/-]*$')").message("spec.queue is no queue key; use letters, digits and . _ : / - and begin with a letter or digit"))]
    pub queue: String,
    /// What the agents carry besides `queue=`, as `key=value`. A job that asks for more cannot run here.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(max = 255)))]
    #[x_kube(validation = Rule::new("self.all(tag, tag.matches('^[^=,]+=[^,]*$'))").message("each of spec.tags must be written key=value, without a comma"))]
    #[x_kube(validation = Rule::new("self.all(tag, !tag.startsWith('queue='))").message("spec.tags must not hold queue=; the queue stands in spec.queue"))]
    #[x_kube(validation = Rule::new("self.all(tag, self.exists_one(other, other == tag))").message("a tag stands twice in spec.tags; write each once"))]
    pub tags: Vec<String>,
    /// The agent token, which also reads the queue's metrics.
    pub token: Token,
    /// The pod definition: a `PodTemplate` in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template_ref: Option<PodTemplateRef>,
    /// The pod definition itself, as in a Deployment's `spec.template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<FilledTemplate>,
    /// An existing Deployment that the pool takes over: its pods stay while they are busy, then the pool's own replace them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub adopt: Option<String>,
    /// Workers in each pod; a pod is idle when all of them are.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub agents_per_pod: i32,
    /// How long a draining agent may finish its job: the pods' grace period. From 1s to 7days.
    #[serde(default = "default_longest_job")]
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
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.file)").message("exactly one of spec.token.secretRef and spec.token.file must say where the agent token is; set one of them"))]
pub struct Token {
    /// A Secret in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// A file that is mounted both into the controller and into the pods under this path, for example by a CSI driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("spec.token.file must be an absolute path; begin it with /"))]
    pub file: Option<String>,
}

/// A key of a Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A `PodTemplate`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplateRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// An inline pod template. Kept as it was written: the API server that creates the pods knows its fields better than any
/// version of ours.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(transparent)]
pub struct FilledTemplate(pub Value);

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

/// How many agents, when. Limits are in pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("spec.scaling.min is above spec.scaling.max; lower min or raise max"))]
pub struct Scaling {
    /// Pods kept even without jobs.
    #[schemars(range(min = 0, max = 10_000))]
    #[serde(default = "zero")]
    pub min: i32,
    /// Pods at most.
    #[schemars(range(min = 0, max = 10_000))]
    #[serde(default = "default_max")]
    pub max: i32,
    /// Idle agents on top of demand.
    #[serde(default = "default_spare")]
    pub spare: SpareSpec,
    /// How much of the waiting jobs to start ahead of time, from 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(default = "no_weight")]
    pub waiting_weight: f64,
    /// Growth.
    #[serde(default)]
    pub scale_up: ScaleUp,
    /// Shrinking.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// How long an event counts when no reading settles it. From 10s to 1h.
    #[serde(default = "default_hint_ttl")]
    pub hint_ttl: Span,
    /// The age from which a reading is not believed. From 10s to 1h.
    #[serde(default = "default_stale_after")]
    pub stale_after: Span,
    /// Floors at certain hours.
    #[schemars(length(max = 16))]
    #[serde(default)]
    pub schedules: Vec<ScheduleSpec>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            min: zero(),
            max: default_max(),
            spare: default_spare(),
            waiting_weight: no_weight(),
            scale_up: ScaleUp::default(),
            scale_down: ScaleDown::default(),
            hint_ttl: default_hint_ttl(),
            stale_after: default_stale_after(),
            schedules: Vec::new(),
        }
    }
}

/// Idle agents on top of demand: one of the two; neither is none.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.agents) && has(self.percent))").message("spec.scaling.spare holds both agents and percent; keep one of them"))]
pub struct SpareSpec {
    /// As many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub agents: Option<i32>,
    /// A share of demand, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000))]
    pub percent: Option<i32>,
}

/// How a pool grows.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleUp {
    /// The least time between two growths. Up to 1h.
    #[serde(default = "default_up_cooldown")]
    pub cooldown: Span,
    /// How far in a period.
    #[serde(default = "default_up_step")]
    pub step: StepSpec,
}

impl Default for ScaleUp {
    fn default() -> Self {
        Self { cooldown: default_up_cooldown(), step: default_up_step() }
    }
}

/// How a pool shrinks.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDown {
    /// The least time after any change. Up to 24h.
    #[serde(default = "default_down_cooldown")]
    pub cooldown: Span,
    /// The largest want of this long counts. Up to 24h.
    #[serde(default = "default_window")]
    pub window: Span,
    /// How far in a period.
    #[serde(default = "default_down_step")]
    pub step: StepSpec,
    /// A younger pod is no victim. Up to 24h.
    #[serde(default = "default_min_age")]
    pub min_age: Span,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            cooldown: default_down_cooldown(),
            window: default_window(),
            step: default_down_step(),
            min_age: default_min_age(),
        }
    }
}

/// The larger of the two, in each period.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.percent > 0 || self.agents > 0").message("this step could never move; give it a percent or agents above zero"))]
pub struct StepSpec {
    /// Of the pods at the beginning of the period.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000))]
    pub percent: i32,
    /// As many agents.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub agents: i32,
    /// The period. From 1s to 1h.
    #[serde(default = "default_per")]
    pub per: Span,
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

fn default_per() -> Span {
    Span::new("10s")
}

const fn zero() -> i32 {
    0
}

const fn no_weight() -> f64 {
    0.0
}

const fn default_spare() -> SpareSpec {
    SpareSpec { agents: Some(1), percent: None }
}

const fn default_max() -> i32 {
    100
}

fn default_hint_ttl() -> Span {
    Span::new("2m")
}

/// Nine polls of ten seconds: a few may fail before anything stands still.
fn default_stale_after() -> Span {
    Span::new("90s")
}

fn default_up_cooldown() -> Span {
    Span::new("0s")
}

/// Doubles every ten seconds, and ten agents at once from nothing.
fn default_up_step() -> StepSpec {
    StepSpec { percent: 100, agents: 10, per: default_per() }
}

fn default_down_cooldown() -> Span {
    Span::new("60s")
}

fn default_window() -> Span {
    Span::new("5m")
}

/// Halves every ten seconds.
fn default_down_step() -> StepSpec {
    StepSpec { percent: 50, agents: 1, per: default_per() }
}

fn default_min_age() -> Span {
    Span::new("2m")
}
