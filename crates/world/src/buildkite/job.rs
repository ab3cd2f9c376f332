//! A job: what is asked for, and what becomes of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use super::{agent::AgentId, job_log::JobLog, line::LineId, time::between};
use crate::Queue;

/// A job of this world, in the order in which they were submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(super) usize);

/// What a build asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// The cluster's UUID, or [`UNCLUSTERED`](crate::UNCLUSTERED).
    pub cluster: String,
    /// The queue that it waits in.
    pub queue: String,
    /// The agent query rules as they are written, the queue's own with them or not.
    pub rules: Vec<String>,
    /// The higher goes first.
    pub priority: i64,
    /// How long its command runs at a simulated agent, and at a real one if it has no command of its own.
    pub duration: Duration,
    /// Whether its command fails in the end.
    pub fails: bool,
    /// What a real agent runs. Without one it sleeps for the duration, and fails if it is to fail.
    pub command: Option<String>,
    /// What a real agent's job finds in its environment, besides what every job does.
    pub env: BTreeMap<String, String>,
    /// It waits until these have passed, and is broken if one of them ends otherwise.
    pub depends_on: Vec<JobId>,
    /// What bounds how many of a group go at once.
    pub concurrency: Option<Concurrency>,
}

impl NewJob {
    /// One that any agent of the queue may run.
    pub fn new(cluster: &str, queue: &str, duration: Duration) -> Self {
        Self {
            cluster: cluster.to_owned(),
            queue: queue.to_owned(),
            rules: vec![format!("queue={queue}")],
            priority: 0,
            duration,
            fails: false,
            command: None,
            env: BTreeMap::new(),
            depends_on: Vec::new(),
            concurrency: None,
        }
    }
}

/// So many times that a job was given away are told one by one.
pub(super) const ATTEMPTS_KEPT: usize = 100;

/// One time that a job was given to an agent.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub(super) agent: AgentId,
    /// The pod, or a real agent's name.
    pub name: Arc<str>,
    /// When.
    pub assigned_at: Timestamp,
    /// When the agent learned of it.
    pub delivered_at: Option<Timestamp>,
}

/// How a job came to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Nothing was heard of its agent any more.
    Silent,
    /// Its agent disconnected, and had said nothing of the job.
    Left,
}

/// What is known of the end of a job beyond [`End`]. A simulated agent tells none of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// As the agent wrote it; −1 for a command that a signal ended.
    pub exit_status: Option<String>,
    /// The signal that ended the command.
    pub signal: Option<String>,
    /// Why there was one: `agent_stop`, `cancel`.
    pub signal_reason: Option<String>,
    /// How it was lost, if it was.
    pub loss: Option<Loss>,
    /// So many pieces of its log the agent gave up on.
    pub chunks_failed: u64,
    /// What it wrote.
    pub log: JobLog,
}

/// A concurrency group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// Its name; one group for the whole organization.
    pub group: String,
    /// So many of it may be ready to go, or gone, at once.
    pub limit: usize,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// Behind other jobs.
    Waiting,
    /// Behind its concurrency group. The metrics count it as scheduled, and nobody may run it.
    Limited,
    /// Ready for any agent that fits.
    Scheduled,
    /// Given to an agent, which need not know of it yet.
    Assigned,
    /// The agent has said that it takes it.
    Accepted,
    /// Its command runs.
    Running,
    /// Cancelled while an agent has it, which has not stopped it yet.
    Cancelling,
    /// Over.
    Ended(End),
}

impl JobState {
    /// Where the metrics count it.
    pub(super) fn counted(self, load: &mut Queue) -> Option<&mut u32> {
        match self {
            Self::Waiting => Some(&mut load.waiting),
            Self::Limited | Self::Scheduled => Some(&mut load.scheduled),
            Self::Assigned | Self::Accepted | Self::Running | Self::Cancelling => Some(&mut load.running),
            Self::Ended(_) => None,
        }
    }

    /// Whether an agent has it and knows.
    pub const fn is_taken(self) -> bool {
        matches!(self, Self::Accepted | Self::Running | Self::Cancelling)
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Its command succeeded.
    Passed,
    /// Its command failed.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// Its agent was told twice to stop: `agent_stop`.
    Killed,
    /// Its agent died without a word.
    Lost,
    /// What it waited for did not pass, so it never ran.
    Broken,
}

/// A job and its history.
#[derive(Debug, Clone)]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// As on the wire.
    pub uuid: String,
    /// The cluster's UUID, or [`UNCLUSTERED`](crate::UNCLUSTERED).
    pub cluster: Arc<str>,
    /// The queue's key.
    pub queue: Arc<str>,
    /// The agent query rules as they were written.
    pub rules: Vec<String>,
    /// The higher goes first.
    pub priority: i64,
    /// How long its command runs.
    pub duration: Duration,
    /// Where it stands.
    pub state: JobState,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When nothing but an agent was missing any more.
    pub runnable_at: Option<Timestamp>,
    /// When it was given to the agent that has it, or had it last.
    pub assigned_at: Option<Timestamp>,
    /// When an agent said that it takes it.
    pub accepted_at: Option<Timestamp>,
    /// When its command began.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// How often it was given to an agent: more than once if it was not accepted.
    pub assignments: u32,
    /// The pod whose agent has it, or had it last; the name of a real agent.
    pub pod: Option<Arc<str>>,
    /// To whom it was given, one after the other; the first hundred.
    pub attempts: Vec<Attempt>,
    /// What is known of its end.
    pub outcome: Outcome,
    pub(super) command: Option<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) fails: bool,
    /// Whether its command is over at a simulated agent, which need not have got through with that yet.
    pub(super) is_over: bool,
    pub(super) line: LineId,
    /// What an agent's tags must satisfy: the rules without the queue's own.
    pub(super) wants: Arc<[String]>,
    pub(super) agent: Option<AgentId>,
    /// How many it still waits for.
    pub(super) behind: usize,
    /// Those that wait for it.
    pub(super) before: Vec<JobId>,
    pub(super) concurrency: Option<Concurrency>,
}

impl Job {
    /// How long it waited for an agent to begin with it.
    pub fn wait(&self) -> Option<Duration> {
        Some(between(self.runnable_at?, self.started_at?))
    }

    /// Whether it is in a concurrency group, behind which it counts as scheduled and cannot run.
    pub const fn is_grouped(&self) -> bool {
        self.concurrency.is_some()
    }

    /// How it ended, if it did.
    pub const fn end(&self) -> Option<End> {
        match self.state {
            JobState::Ended(end) => Some(end),
            JobState::Waiting
            | JobState::Limited
            | JobState::Scheduled
            | JobState::Assigned
            | JobState::Accepted
            | JobState::Running
            | JobState::Cancelling => None,
        }
    }
}
