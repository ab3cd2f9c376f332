//! What the simulated Buildkite holds, in the words of its control surface.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The key in [`State::clusters`] whose queues an unclustered token sees.
pub const UNCLUSTERED: &str = "unclustered";

/// The whole of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The seconds told in `Buildkite-Agent-Metrics-Poll-Duration`; `None` leaves the header out.
    #[serde(default)]
    pub poll_duration: Option<u64>,
    /// The tokens that are let in.
    #[serde(default)]
    pub tokens: BTreeMap<String, Token>,
    /// The clusters by UUID.
    #[serde(default)]
    pub clusters: BTreeMap<String, Cluster>,
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The organization's slug.
    pub organization: String,
    /// The cluster's UUID; `None` for an unclustered token.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Whether nothing that comes with it is ever answered.
    #[serde(default)]
    pub hangs: bool,
}

impl Token {
    /// A token that is answered, of a cluster or of none.
    pub fn new(organization: &str, cluster: Option<&str>) -> Self {
        Self { organization: organization.to_owned(), cluster: cluster.map(str::to_owned), hangs: false }
    }
}

/// A cluster and its queues.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Its queues by key.
    #[serde(default)]
    pub queues: BTreeMap<String, Queue>,
}

/// The load of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Runnable and not assigned.
    pub scheduled: u32,
    /// Assigned up to finishing.
    pub running: u32,
    /// Not runnable yet.
    pub waiting: u32,
    /// Connected agents without a job.
    pub idle: u32,
    /// Agents with a job.
    pub busy: u32,
}

impl Queue {
    pub(super) const fn has_jobs(self) -> bool {
        self.scheduled > 0 || self.running > 0 || self.waiting > 0
    }

    pub(super) const fn has_agents(self) -> bool {
        self.idle > 0 || self.busy > 0
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            scheduled: self.scheduled.saturating_add(other.scheduled),
            running: self.running.saturating_add(other.running),
            waiting: self.waiting.saturating_add(other.waiting),
            idle: self.idle.saturating_add(other.idle),
            busy: self.busy.saturating_add(other.busy),
        }
    }
}

/// What a route does instead of answering well. The delay comes first, then the hanging, then the connection, then the status,
/// then the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something that goes wrong by itself, and each is said on the wire"
)]
pub struct Fault {
    /// Answer with this status.
    pub status: Option<u16>,
    /// Answer so much later.
    pub delay_ms: u64,
    /// Never answer.
    pub hang: bool,
    /// Break the connection instead of answering, and do nothing. In process, and behind another server than
    /// [`serve`](crate::serve), the answer breaks off instead.
    pub drop: bool,
    /// The seconds told in `Retry-After`, along with `status`.
    pub retry_after: Option<u64>,
    /// Answer with a body that is not what its type says.
    pub garbage: bool,
    /// Break off in the middle of the body.
    pub cut_off: bool,
}

/// The routes that count requests and take faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// `GET /v3/metrics`.
    Metrics,
    /// `GET /v3/metrics/queue?name=`.
    Queue,
    /// `GET /v3/token`.
    Token,
    /// `POST /v3/register`.
    Register,
    /// `POST /v3/connect`.
    Connect,
    /// `GET /v3/ping`.
    Ping,
    /// `POST /v3/heartbeat`.
    Heartbeat,
    /// `POST /v3/disconnect`.
    Disconnect,
    /// `PUT /v3/jobs/{job}/accept`.
    Accept,
    /// `PUT /v3/jobs/{job}/start`.
    Start,
    /// `GET /v3/jobs/{job}`.
    JobState,
    /// `POST /v3/jobs/{job}/chunks`.
    Chunks,
    /// `PUT /v3/jobs/{job}/finish`.
    Finish,
    /// All other calls of agents: `pause`, `resume`, `stop`, header times, meta-data, annotations.
    Other,
}

impl Route {
    /// Those that agents call: everything but what is read about a queue or a token.
    pub const OF_AGENTS: [Self; 11] = [
        Self::Register,
        Self::Connect,
        Self::Ping,
        Self::Heartbeat,
        Self::Disconnect,
        Self::Accept,
        Self::Start,
        Self::JobState,
        Self::Chunks,
        Self::Finish,
        Self::Other,
    ];
}

/// Requests so far: by route, and by the SHA-256 of the token they came with, in hexadecimal. Those of an agent that is
/// connected count under the token that it registered with.
pub type Requests = BTreeMap<Route, BTreeMap<String, u64>>;
