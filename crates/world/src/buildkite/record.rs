//! Jobs as they are written down for those who drive the simulation from another process.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Buildkite,
    job::{Attempt, End, Job, Loss, NewJob},
    taking::word,
};

/// A job to submit: what any agent of the queue may run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptJob {
    /// The cluster's UUID, or [`UNCLUSTERED`](crate::UNCLUSTERED).
    pub cluster: String,
    /// The queue's key.
    pub queue: String,
    /// The agent query rules; the queue's own if there are none.
    #[serde(default)]
    pub rules: Vec<String>,
    /// The higher goes first.
    #[serde(default)]
    pub priority: i64,
    /// What a real agent runs.
    #[serde(default)]
    pub command: Option<String>,
    /// What its command finds in its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How long it runs at a simulated agent, and at a real one if it has no command.
    #[serde(default)]
    pub seconds: f64,
}

impl From<ScriptJob> for NewJob {
    fn from(job: ScriptJob) -> Self {
        let duration = Duration::try_from_secs_f64(job.seconds).unwrap_or_default();
        let plain = Self::new(&job.cluster, &job.queue, duration);
        let rules = if job.rules.is_empty() { plain.rules.clone() } else { job.rules };
        Self { rules, priority: job.priority, command: job.command, env: job.env, ..plain }
    }
}

/// A job and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobRecord {
    /// As on the wire.
    pub uuid: String,
    /// The cluster's UUID, or [`UNCLUSTERED`](crate::UNCLUSTERED).
    pub cluster: String,
    /// The queue's key.
    pub queue: String,
    /// As the agent API calls it.
    pub state: &'static str,
    /// How it ended.
    pub end: Option<End>,
    /// How it was lost, if it was.
    pub loss: Option<Loss>,
    /// When nothing but an agent was missing any more.
    pub scheduled_at: Option<Timestamp>,
    /// When it was given to the agent that has it, or had it last.
    pub assigned_at: Option<Timestamp>,
    /// When an agent said that it takes it.
    pub accepted_at: Option<Timestamp>,
    /// When its command began.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// How often it was given to an agent.
    pub assignments: u32,
    /// To whom, one after the other.
    pub attempts: Vec<AttemptRecord>,
    /// As the agent wrote it.
    pub exit_status: Option<String>,
    /// The signal that ended the command.
    pub signal: Option<String>,
    /// Why there was one.
    pub signal_reason: Option<String>,
    /// How many bytes it wrote.
    pub log_bytes: usize,
}

/// One time that a job was given to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptRecord {
    /// The agent's UUID.
    pub agent: String,
    /// The pod, or a real agent's name.
    pub name: String,
    /// What a real agent's machine is called.
    pub hostname: Option<String>,
    /// When.
    pub assigned_at: Timestamp,
    /// When the agent learned of it.
    pub delivered_at: Option<Timestamp>,
}

impl Buildkite {
    /// A job as it stands, with everything that became of it.
    pub fn record(&self, job: &Job) -> JobRecord {
        let outcome = &job.outcome;
        JobRecord {
            uuid: job.uuid.clone(),
            cluster: job.cluster.to_string(),
            queue: job.queue.to_string(),
            state: word(job.state),
            end: job.end(),
            loss: outcome.loss,
            scheduled_at: job.runnable_at,
            assigned_at: job.assigned_at,
            accepted_at: job.accepted_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            assignments: job.assignments,
            attempts: job.attempts.iter().map(|attempt| self.attempt(attempt)).collect(),
            exit_status: outcome.exit_status.clone(),
            signal: outcome.signal.clone(),
            signal_reason: outcome.signal_reason.clone(),
            log_bytes: outcome.log.size(),
        }
    }

    fn attempt(&self, attempt: &Attempt) -> AttemptRecord {
        AttemptRecord {
            agent: self.uuid(1, attempt.agent.0),
            name: attempt.name.to_string(),
            hostname: self.connections.get(attempt.agent).map(|connection| connection.hostname.clone()),
            assigned_at: attempt.assigned_at,
            delivered_at: attempt.delivered_at,
        }
    }
}
