//! What the tick knows of each object: plain values, taken out of the wire types once when an event arrives.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentCondition},
        core::v1::{Pod, PodCondition, PodStatus},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ManagedFieldsEntry, ObjectMeta},
};
use kitepool_api::{Problem, job_hint::HintedJob, validate::ValidPool};
use kitepool_policy::{observation::Sign, spec::PoolName};
use kube::core::{DynamicObject, Selector, SelectorExt as _};
use serde_json::Value;

use super::{hindrance::Hindrance, sign, write::FIELD_MANAGER};
use crate::pods::contract::{AGENT_CONTAINER, environment::HEALTH_ADDRESS};

/// A Deployment.
#[derive(Debug, Clone)]
pub struct DeploymentView {
    /// Its name.
    pub name: String,
    /// Its uid, for deletion preconditions and Events.
    pub uid: String,
    /// Grows with each change, on every API server there is; zero if it should not be a number.
    pub resource_version: u64,
    /// Whether its status is about its latest spec.
    pub is_observed: bool,
    /// `spec.replicas`, 1 where absent as the API server has it.
    pub replicas: u32,
    /// `status.replicas`: pods that exist and are not being deleted.
    pub status_replicas: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The uid of the controller that owns it.
    pub owner_uid: Option<String>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Who, other than us, last wrote `spec.replicas`.
    pub foreign_scaler: Option<String>,
    /// Whether `spec.replicas` is as our own last write to `scale` left it.
    pub scaled_by_us: bool,
    /// Why no pod of it can be made, in Kubernetes' own words: a missing service account, a quota, an admission policy.
    pub pods_refused: Option<String>,
    selector: Option<Selector>,
}

impl DeploymentView {
    /// Whether a pod with these labels is one of its own.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

impl From<Deployment> for DeploymentView {
    fn from(deployment: Deployment) -> Self {
        let foreign_scaler = foreign_scaler(&deployment.metadata);
        let scaled_by_us = scaled_by_us(&deployment.metadata);
        let generation = deployment.metadata.generation.unwrap_or_default();
        let spec = deployment.spec.unwrap_or_default();
        let status = deployment.status.unwrap_or_default();
        let metadata = deployment.metadata;
        Self {
            is_observed: status.observed_generation.unwrap_or_default() >= generation,
            replicas: count(spec.replicas.unwrap_or(1)),
            status_replicas: count(status.replicas.unwrap_or_default()),
            pods_refused: pods_refused(status.conditions.as_deref().unwrap_or_default()),
            selector: selector(spec.selector),
            resource_version: resource_version(&metadata),
            owner_uid: owner_uid(&metadata),
            is_deleting: metadata.deletion_timestamp.is_some(),
            created_at: metadata.creation_timestamp.map(|time| time.0),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            foreign_scaler,
            scaled_by_us,
        }
    }
}

/// The `ReplicaSet` controller says so as long as it lasts.
fn pods_refused(conditions: &[DeploymentCondition]) -> Option<String> {
    let failure =
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    failure.message.clone()
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; what they come to is the snapshot's matter"
)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Of this state: one that grows.
    pub resource_version: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The condition `Ready`.
    pub is_ready: bool,
    /// Whether its phase is `Pending`.
    pub is_pending: bool,
    /// Whether it has a deletion timestamp.
    pub is_deleting: bool,
    /// Whether all its containers ended for good.
    pub is_finished: bool,
    /// Whether the container `agent` runs.
    pub agent_runs: bool,
    /// How often that one was started again.
    pub restarts: u32,
    /// Why somebody else takes it away (the reason of the condition `DisruptionTarget`), or that its node is silent.
    pub disruption: Option<Disruption>,
    /// What keeps it from becoming ready; nothing where it is, or is going.
    pub hindrance: Option<Hindrance>,
    /// Its node.
    pub node: Option<String>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Where its agents answer, as its definition says it: `address:port`.
    pub health_address: Option<String>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// What is written on it.
    pub sign: Sign,
}

/// Why a pod goes by somebody else's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disruption {
    /// Evicted by a person, an autoscaler, the scheduler or its kubelet.
    Evicted,
    /// Its node does not answer any more, or is gone.
    NodeLost,
}

impl From<Pod> for PodView {
    fn from(pod: Pod) -> Self {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let phase = status.and_then(|status| status.phase.as_deref());
        let is_ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let is_deleting = pod.metadata.deletion_timestamp.is_some();
        let is_finished = matches!(phase, Some("Succeeded" | "Failed"));
        let is_hindered = !is_ready && !is_deleting && !is_finished;
        let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let agent = containers.iter().find(|container| container.name == AGENT_CONTAINER);
        let hindrance = is_hindered.then(|| Hindrance::of(&pod));
        let (node, health_address) = (node(&pod), health_address(&pod));
        let (disruption, ip) = (disruption(conditions, is_finished), status.and_then(ip));
        let resource_version = resource_version(&pod.metadata);
        let (labels, annotations) =
            (pod.metadata.labels.unwrap_or_default(), pod.metadata.annotations.unwrap_or_default());
        Self {
            resource_version,
            name: pod.metadata.name.unwrap_or_default(),
            uid: pod.metadata.uid.unwrap_or_default(),
            is_ready,
            is_pending: phase == Some("Pending"),
            is_deleting,
            is_finished,
            agent_runs: agent.and_then(|agent| agent.state.as_ref()).is_some_and(|state| state.running.is_some()),
            restarts: agent.map_or(0, |agent| count(agent.restart_count)),
            disruption,
            hindrance,
            node,
            ip,
            health_address,
            created_at: pod.metadata.creation_timestamp.map(|time| time.0),
            sign: sign::read(&labels, &annotations),
            labels,
        }
    }
}

fn node(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone().filter(|node| !node.is_empty())
}

fn ip(status: &PodStatus) -> Option<IpAddr> {
    status.pod_ip.as_deref()?.parse().ok()
}

fn health_address(pod: &Pod) -> Option<String> {
    let agent = pod.spec.as_ref()?.containers.iter().find(|container| container.name == AGENT_CONTAINER)?;
    let variable = agent.env.as_ref()?.iter().find(|variable| variable.name == HEALTH_ADDRESS)?;
    variable.value.clone()
}

/// Eviction, preemption and the loss of a node leave a condition behind before the deletion. Sooner than that, the node
/// controller says that a pod is not ready whose kubelet last said that all its containers are: nobody hears of that one
/// any more.
fn disruption(conditions: &[PodCondition], is_finished: bool) -> Option<Disruption> {
    let is = |kind: &str, status: &str| {
        conditions.iter().find(|condition| condition.type_ == kind && condition.status == status)
    };
    if let Some(target) = is("DisruptionTarget", "True") {
        let is_node = matches!(target.reason.as_deref(), Some("DeletionByTaintManager" | "DeletionByPodGC"));
        return Some(if is_node { Disruption::NodeLost } else { Disruption::Evicted });
    }
    let is_silent = !is_finished && is("Ready", "False").is_some() && is("ContainersReady", "True").is_some();
    is_silent.then_some(Disruption::NodeLost)
}

/// A `PodTemplate`: kept as JSON, so that a field newer than our types is not lost on the way into a Deployment.
#[derive(Debug, Clone)]
pub struct PodTemplateView {
    /// The `template` of the object, `Null` where it has none.
    pub template: Value,
}

impl From<DynamicObject> for PodTemplateView {
    fn from(object: DynamicObject) -> Self {
        let mut data = object.data;
        let template = data.get_mut("template").map(Value::take).unwrap_or_default();
        Self { template }
    }
}

fn count(replicas: i32) -> u32 {
    u32::try_from(replicas).unwrap_or_default()
}

fn selector(selector: LabelSelector) -> Option<Selector> {
    let is_empty = selector.match_labels.is_none() && selector.match_expressions.is_none();
    if is_empty { None } else { Selector::try_from(selector).ok() }
}

/// The version as a number. It is opaque by contract and a number in fact; only our own writes are compared by it.
pub fn resource_version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn owner_uid(metadata: &ObjectMeta) -> Option<String> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
}

/// The manager of the latest foreign write that owns `spec.replicas`. A write through `scale` is recorded under that
/// subresource.
fn foreign_scaler(metadata: &ObjectMeta) -> Option<String> {
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    entries
        .iter()
        .filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER))
        .filter(|entry| entry.subresource.as_deref() == Some(SCALE) || owns_replicas(entry))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| entry.manager.clone())
}

/// Whoever changes a field takes it from who had it, and a manager that has none left is not listed. When a write to `scale` was, the API
/// server does not say: its entry has no time.
fn scaled_by_us(metadata: &ObjectMeta) -> bool {
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    entries.iter().any(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.subresource.as_deref() == Some(SCALE)
            && owns_replicas(entry)
    })
}

/// The subresource as `managedFields` has it.
const SCALE: &str = "scale";

fn owns_replicas(entry: &ManagedFieldsEntry) -> bool {
    entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
}

/// The name of any object.
pub fn name_of(object: &impl kube::Resource) -> String {
    object.meta().name.clone().unwrap_or_default()
}

/// Takes away what no view needs, so that less is copied: the record of applied manifests.
pub fn strip<K: kube::Resource>(mut object: K) -> K {
    if let Some(annotations) = object.meta_mut().annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    object
}

/// A pool, taken apart once: what stands in it, or everything that is wrong with it.
#[derive(Debug, Clone)]
pub struct PoolView {
    /// Which pool.
    pub name: PoolName,
    /// Its uid.
    pub uid: String,
    /// Grows with each change of its spec.
    pub generation: i64,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// The spec and the annotations, valid; or all their problems.
    pub pool: Result<Arc<ValidPool>, Vec<Problem>>,
    /// The queue as written, valid or not.
    pub raw_queue: Option<String>,
    /// Workers in a pod as written, one where that is no number.
    pub raw_agents_per_pod: u32,
    /// The status as it stands.
    pub status: Option<Value>,
}

impl From<DynamicObject> for PoolView {
    fn from(object: DynamicObject) -> Self {
        let name = PoolName {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        let metadata = object.metadata.clone();
        let status = object.data.get("status").cloned();
        let written = |pointer: &str| object.data.pointer(pointer).cloned().unwrap_or_default();
        let raw_queue = written("/spec/queue").as_str().map(ToOwned::to_owned);
        let raw_agents_per_pod =
            written("/spec/agentsPerPod").as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
        let pool = kitepool_api::parse(object).and_then(|pool| kitepool_api::validate(&pool)).map(Arc::new);
        Self {
            name,
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            is_deleting: metadata.deletion_timestamp.is_some(),
            pool,
            raw_queue,
            raw_agents_per_pod,
            status,
        }
    }
}

/// A hint. One that cannot be read has no jobs and is deleted like any that expired.
#[derive(Debug, Clone)]
pub struct HintView {
    /// Its uid.
    pub uid: String,
    /// When the API server stored it.
    pub stored_at: Timestamp,
    /// Its jobs.
    pub jobs: Vec<HintedJob>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl From<DynamicObject> for HintView {
    fn from(object: DynamicObject) -> Self {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let stored_at = object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        match kitepool_api::parse_hint(&object) {
            Ok(jobs) => Self { uid, stored_at, jobs, problem: None },
            Err(problem) => Self { uid, stored_at, jobs: Vec::new(), problem: Some(problem.to_string()) },
        }
    }
}

#[cfg(test)]
impl PodView {
    /// Of a pod as the API server writes it, for tests where nobody else knows its types.
    pub(crate) fn of_json(pod: Value) -> Self {
        serde_json::from_value::<Pod>(pod).unwrap().into()
    }
}
