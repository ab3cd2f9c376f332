//! What is known of one queue at one instant: each reading with its age, and "unknown" as a value.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    hints::Hints,
    memory::Memory,
    spec::PoolSpec,
    units::{Agents, Jobs, Pods},
    unsatisfiable::Watch,
};

/// Everything that one decision looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueObservation {
    /// The queue's key, as in `queue=<key>`.
    pub queue: String,
    /// What Buildkite said of it.
    pub reading: Reading,
    /// The jobs of its hints.
    pub hints: Hints,
    /// Ready agents of our own pools on this queue that cannot be decided about now, since their definition is broken.
    pub standing: Agents,
    /// The pools that serve it, in any order.
    pub pools: Vec<PoolObservation>,
    /// What its readings have in common, this one among them.
    pub watch: Watch,
}

impl QueueObservation {
    /// Agents of ours with a job, by their own word, in pods that are not going.
    pub fn busy_agents(&self) -> Agents {
        self.pools.iter().map(PoolObservation::busy_agents).fold(Agents::ZERO, Agents::plus)
    }

    /// The same in pods that are going.
    pub fn draining_busy_agents(&self) -> Agents {
        self.pools.iter().map(PoolObservation::draining_busy_agents).fold(Agents::ZERO, Agents::plus)
    }
}

/// The load of a queue as Buildkite counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Runnable and not assigned.
    pub scheduled: Jobs,
    /// Assigned up to finishing.
    pub running: Jobs,
    /// Not runnable yet.
    pub waiting: Jobs,
    /// Connected agents without a job; paused ones among them.
    pub idle: Agents,
    /// Agents with a job.
    pub busy: Agents,
}

/// One good answer for the queue, of the identity we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoodReading {
    /// What it said.
    pub load: Load,
    /// Buildkite's own clock when it answered: the one to compare `runnable_at` with.
    pub date: Timestamp,
    /// Our clock when the request was sent: the one to tell its age by.
    pub at: Timestamp,
}

/// The last good answer, and what has been wrong since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// The last good answer, however old; `None` if there was none.
    pub last_good: Option<GoodReading>,
    /// What was wrong with a newer attempt; `None` when the last attempt was the good one.
    pub trouble: Option<Trouble>,
}

/// Why there is no newer reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Trouble {
    /// No attempt has ended yet.
    NotRead,
    /// There is no usable token.
    NoToken,
    /// Buildkite refused the token (401, 403).
    Refused,
    /// Another organization or cluster than the pool knows.
    OtherIdentity,
    /// 429.
    RateLimited,
    /// No answer: connection, deadline.
    Unreachable,
    /// 5xx, or any status that is not understood.
    ServerError,
    /// A body or header that is not understood.
    Malformed,
}

impl Trouble {
    /// A bounded word for labels and reasons.
    pub const fn category(self) -> &'static str {
        match self {
            Self::NotRead => "not_read",
            Self::NoToken => "no_token",
            Self::Refused => "refused",
            Self::OtherIdentity => "other_identity",
            Self::RateLimited => "rate_limited",
            Self::Unreachable => "unreachable",
            Self::ServerError => "server_error",
            Self::Malformed => "malformed",
        }
    }
}

/// One job, learned from an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hint {
    /// The job's id; the same job counts once.
    pub job: String,
    /// Buildkite's clock when it became runnable.
    pub runnable_at: Timestamp,
    /// The API server's clock when the hint was stored.
    pub stored_at: Timestamp,
    /// What the job asks for besides the queue, as `key=value`.
    pub rules: Vec<String>,
}

/// What is known of one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolObservation {
    /// Valid.
    pub spec: PoolSpec,
    /// What the last decision left.
    pub memory: Memory,
    /// The pool's Deployments, the current one among them if it exists. Oldest first.
    pub generations: Vec<Generation>,
    /// The name of the Deployment that the pool's definition asks for now. `None`: the definition cannot be rendered, so
    /// nothing is created; what exists is kept.
    pub wanted_generation: Option<String>,
}

impl PoolObservation {
    /// Replicas of all generations together, as their specs ask for them.
    pub fn replicas(&self) -> Pods {
        self.sum(|generation| generation.replicas)
    }

    /// Agents in ready pods.
    pub fn ready_agents(&self) -> Agents {
        self.spec.agents_per_pod.agents_in(self.sum(|generation| generation.pods.ready))
    }

    /// Agents in pods that are not going, ready or not.
    pub fn living_agents(&self) -> Agents {
        self.spec.agents_per_pod.agents_in(self.sum(|generation| generation.pods.living()))
    }

    /// Agents that the pool may come to: what stands, where it cannot grow, so that another pool takes the rest.
    pub fn reachable_agents(&self) -> Agents {
        let max = self.spec.limits.max();
        let can_grow = self.wanted_generation.is_some() && !self.spec.pause.stops_up();
        self.spec.agents_per_pod.agents_in(if can_grow { max } else { max.min(self.replicas()) })
    }

    /// Whether pods of another generation than the wanted one are left.
    pub fn is_rolling(&self) -> bool {
        let wanted = self.wanted_generation.as_deref();
        self.generations.iter().any(|other| wanted != Some(other.name.as_str()) && !other.replicas.is_zero())
    }

    /// The generation of that name.
    pub fn generation(&self, name: &str) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.name == name)
    }

    /// Agents with a job, by their own word, in pods that are not going.
    pub fn busy_agents(&self) -> Agents {
        self.generations.iter().map(Generation::busy_agents).fold(Agents::ZERO, Agents::plus)
    }

    /// The same in pods that are going.
    pub fn draining_busy_agents(&self) -> Agents {
        self.generations.iter().map(Generation::draining_busy_agents).fold(Agents::ZERO, Agents::plus)
    }

    /// Pods that are about to go by somebody else's doing.
    pub fn leaving(&self) -> Pods {
        self.sum(|generation| generation.pods.leaving)
    }

    fn sum(&self, count: impl Fn(&Generation) -> Pods) -> Pods {
        self.generations.iter().map(count).fold(Pods::ZERO, Pods::plus)
    }
}

/// One Deployment of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    /// Its name.
    pub name: String,
    /// Whether it is somebody else's Deployment that the pool took over: it is emptied, never deleted.
    pub adopted: bool,
    /// `spec.replicas`.
    pub replicas: Pods,
    /// By Kubernetes' own record of who wrote what, replicas are as a scale of ours left them. It does not tell when.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scaled_by_us: bool,
    /// Nothing in motion that the Deployment's own status shows: generation observed, status equal to spec, our last write seen.
    pub settled: bool,
    /// Its pods.
    pub pods: PodCounts,
    /// Its pods one by one, by name. What is counted above and not listed here is not known; of an adopted Deployment none is.
    pub agents: Vec<AgentPod>,
}

impl Generation {
    /// The pods that are not going.
    pub fn living(&self) -> impl Iterator<Item = &AgentPod> {
        self.agents.iter().filter(|pod| !pod.is_draining)
    }

    /// Agents with a job, by their own word, in the pods that are not going.
    pub fn busy_agents(&self) -> Agents {
        sum_busy(self.living())
    }

    /// The same of the pods that are going.
    pub fn draining_busy_agents(&self) -> Agents {
        sum_busy(self.agents.iter().filter(|pod| pod.is_draining))
    }

    /// Whether nothing is in motion, and the pods that are counted are those that are asked for.
    pub fn is_at_rest(&self) -> bool {
        self.settled && self.replicas == self.pods.living()
    }

    /// Whether it can be deleted without a pod going with it.
    pub fn is_empty(&self) -> bool {
        self.is_at_rest() && self.replicas.is_zero() && self.pods.draining.is_zero()
    }
}

fn sum_busy<'a>(pods: impl Iterator<Item = &'a AgentPod>) -> Agents {
    pods.map(|pod| pod.state.busy()).fold(Agents::ZERO, Agents::plus)
}

/// One pod with what its agents said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentPod {
    /// Its name.
    pub name: String,
    /// Its uid: a pod that was made anew under the same name is another one.
    pub uid: String,
    /// What its agents do.
    pub state: AgentState,
    /// Since when that has been known to be so.
    pub since: Timestamp,
    /// When it said so last. Only of pods that are [chosen](crate::memory::Round): of all others it would make every tick news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    /// How far it has come.
    pub rank: Rank,
    /// Whether it has a deletion timestamp.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_draining: bool,
    /// Whether it is about to go although it has none yet: it is being evicted, or its node is silent.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_leaving: bool,
    /// Its node, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was created, by the API server's clock.
    pub created_at: Timestamp,
    /// What is written on it.
    pub sign: Sign,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(is_so: &bool) -> bool {
    !*is_so
}

impl AgentPod {
    /// Whether Kubernetes calls it ready.
    pub fn is_ready(&self) -> bool {
        self.rank == Rank::Ready
    }
}

/// How far a pod has come, in the order in which a `ReplicaSet` takes pods whatever is written on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rank {
    /// It has no node yet.
    Unassigned,
    /// Its phase is `Pending`.
    Pending,
    /// It runs and is not ready.
    Unready,
    /// It is ready.
    Ready,
}

/// What the agents of a pod do, by their own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentState {
    /// So many run a job.
    Busy(Agents),
    /// All of them are without a job. One that was just given a job says so as well, for up to two ping intervals.
    Idle,
    /// The pod is not ready and nothing listens in it: its agents are not registered, or not any more.
    Starting,
    /// They did not answer, or not so that it is understood.
    Unknown,
}

impl AgentState {
    /// Agents with a job.
    pub const fn busy(self) -> Agents {
        match self {
            Self::Busy(agents) => agents,
            Self::Idle | Self::Starting | Self::Unknown => Agents::ZERO,
        }
    }
}

/// What is written on a pod, for the `ReplicaSet` controller and for those who take nodes away. The order is the one in which
/// signs are put up when not all can be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Sign {
    /// Busy: not to be evicted, and the last to be taken.
    Busy,
    /// Chosen: the first to be taken.
    Leaving,
    /// Nothing.
    Plain,
    /// Something of them, but not all, or somebody else's.
    Mixed,
    /// Nobody knows: a write of ours is on its way, or its end was not heard of, or it is not shown yet.
    Moving,
}

/// The pods of one generation as Kubernetes shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Not Ready yet, or no longer; those that fail and those without a node among them.
    pub unready: Pods,
    /// Of the unready ones, those that do not become ready by waiting: they crash, their image cannot be pulled, no node has room
    /// for them for longer than an autoscaler takes.
    pub failing: Pods,
    /// Of the unready ones, those that no node has room for yet.
    pub unscheduled: Pods,
    /// Ready.
    pub ready: Pods,
    /// Of all that live, those that are about to go by somebody else's doing: capacity no more.
    pub leaving: Pods,
    /// With a deletion timestamp; no longer capacity.
    pub draining: Pods,
}

impl PodCounts {
    /// Pods that are not going, ready or not.
    pub const fn living(self) -> Pods {
        self.unready.plus(self.ready)
    }
}
