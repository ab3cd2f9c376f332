//! The numbers of a simulation: how jobs fared, what agents cost, what was asked of others.

use std::time::Duration;

use jiff::Timestamp;
use kitepool_world::{Joined, kubernetes::Kind};
use serde::Serialize;

use super::expectation::pool_of;

/// What a simulation came to, as it is printed.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Jobs that were submitted.
    pub jobs: usize,
    /// Those that passed.
    pub jobs_passed: usize,
    /// Those that were killed or lost with their agent.
    pub jobs_killed: usize,
    /// How long jobs waited until they began.
    pub wait_seconds: Waits,
    /// What agents did with their time.
    pub agent_hours: AgentHours,
    /// Pods whose agent started.
    pub pods_started: u64,
    /// Requests to Buildkite.
    pub buildkite_calls: u64,
    /// Writes to the API server, hints apart.
    pub kubernetes_writes: u64,
}

/// Waits in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Waits {
    /// The median.
    pub p50: f64,
    /// Of twenty jobs the one that waits the longest but one.
    pub p95: f64,
    /// The longest.
    pub max: f64,
}

/// Hours of agents by what they did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct AgentHours {
    /// Ran a job.
    pub busy: f64,
    /// Waited for one.
    pub idle: f64,
    /// Were not there yet.
    pub starting: f64,
    /// Were told to leave, and were still there.
    pub draining: f64,
}

/// Pods by what their agents do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agents {
    /// With a job.
    pub busy: u32,
    /// Without one.
    pub idle: u32,
    /// Not there yet.
    pub starting: u32,
    /// Told to leave.
    pub draining: u32,
}

/// Adds up what agents do with their time.
#[derive(Debug, Default)]
pub struct Tally {
    since: Option<(Timestamp, Agents)>,
    spent: AgentHours,
}

impl Tally {
    /// It is so from now on.
    pub fn note(&mut self, now: Timestamp, agents: Agents) {
        if let Some((since, before)) = self.since {
            let hours = now.duration_since(since).as_secs_f64() / 3_600.0;
            self.spent.busy += f64::from(before.busy) * hours;
            self.spent.idle += f64::from(before.idle) * hours;
            self.spent.starting += f64::from(before.starting) * hours;
            self.spent.draining += f64::from(before.draining) * hours;
        }
        self.since = Some((now, agents));
    }

    /// All of it.
    pub fn summary(&self, world: &Joined, controller_writes: u64) -> Summary {
        let jobs = world.buildkite().peek(kitepool_world::buildkite::Buildkite::summary);
        let seconds = |wait: Duration| rounded(wait.as_secs_f64());
        let AgentHours { busy, idle, starting, draining } = self.spent;
        Summary {
            jobs: jobs.submitted,
            jobs_passed: jobs.passed,
            jobs_killed: jobs.killed + jobs.lost,
            wait_seconds: Waits {
                p50: seconds(jobs.wait_permille(500)),
                p95: seconds(jobs.wait_permille(950)),
                max: seconds(jobs.wait_permille(1_000)),
            },
            agent_hours: AgentHours {
                busy: rounded(busy),
                idle: rounded(idle),
                starting: rounded(starting),
                draining: rounded(draining),
            },
            pods_started: world.pods_started(),
            buildkite_calls: buildkite_calls(world),
            kubernetes_writes: controller_writes,
        }
    }
}

/// To the thousandth: nobody reads more, and a text of it is the same everywhere.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

/// Requests to Buildkite so far.
pub fn buildkite_calls(world: &Joined) -> u64 {
    world.buildkite().requests().values().flat_map(|by_token| by_token.values()).sum()
}

/// What the agents of the pods with this label do now; `None` counts all.
pub fn agents(world: &Joined, namespace: &str, pool: Option<&str>) -> Agents {
    let pods = world.kubernetes().peek(|kubernetes| kubernetes.objects(Kind::Pod, namespace));
    let mut agents = Agents::default();
    world.buildkite().peek(|buildkite| {
        for pod in pods {
            if pool.is_some() && pool_of(&pod) != pool {
                continue;
            }
            let uid = pod.pointer("/metadata/uid").and_then(serde_json::Value::as_str).unwrap_or_default();
            let count = match buildkite.is_busy(uid) {
                _ if pod.pointer("/metadata/deletionTimestamp").is_some() => &mut agents.draining,
                None => &mut agents.starting,
                Some(true) => &mut agents.busy,
                Some(false) => &mut agents.idle,
            };
            *count += 1;
        }
    });
    agents
}
