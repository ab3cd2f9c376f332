//! What an agent's process says of itself under `/status.json`.

use serde::Serialize;

use super::{
    Buildkite,
    agent::{AgentId, Work},
    job::{Job, JobState},
};

/// The body, field by field in the order of the real one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodStatus {
    /// Always `ok`.
    pub health: &'static str,
    /// `busy` if any worker is.
    pub aggregate_status: &'static str,
    /// In the order in which they were spawned, those that have disconnected with them.
    pub workers: Vec<WorkerStatus>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerStatus {
    /// `busy` from acceptance until the job is over, `idle` otherwise: also while a job is assigned to it.
    pub status: &'static str,
    /// There only while it is busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_job_id: Option<String>,
    /// The agent's UUID.
    pub id: String,
    /// Counted from 1.
    pub spawn_index: usize,
}

impl Buildkite {
    /// What the process in a pod answers to `GET /status.json`. `None` where nothing listens: before it is registered, and when
    /// it is gone.
    pub fn status(&self, pod: &str) -> Option<PodStatus> {
        let process = self.processes.get(pod).filter(|process| process.is_registered())?;
        let workers: Vec<WorkerStatus> =
            (1..).zip(&process.workers).map(|(spawn_index, worker)| self.worker(*worker, spawn_index)).collect();
        let is_busy = workers.iter().any(|worker| worker.current_job_id.is_some());
        Some(PodStatus { health: "ok", aggregate_status: word(is_busy), workers })
    }

    /// Whether the process in a pod says that it is busy, without all the rest; `None` where nothing listens.
    pub fn is_busy(&self, pod: &str) -> Option<bool> {
        let process = self.processes.get(pod).filter(|process| process.is_registered())?;
        Some(process.workers.iter().any(|worker| self.known(*worker).is_some()))
    }

    /// The job that a worker says it runs.
    pub(super) fn known(&self, id: AgentId) -> Option<&Job> {
        match self.agents.get(&id).map(|agent| agent.work) {
            Some(Work::Known(job)) => self.job(job).filter(|job| job.state != JobState::Assigned),
            Some(Work::None | Work::Given(_) | Work::Dropped(_)) | None => None,
        }
    }

    fn worker(&self, id: AgentId, spawn_index: usize) -> WorkerStatus {
        let known = self.known(id);
        let current_job_id = known.map(|job| job.uuid.clone());
        WorkerStatus { status: word(known.is_some()), current_job_id, id: self.uuid(1, id.0), spawn_index }
    }
}

const fn word(is_busy: bool) -> &'static str {
    if is_busy { "busy" } else { "idle" }
}
