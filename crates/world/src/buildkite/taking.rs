//! What a connected process does with a job: takes it, begins with it, writes its log, brings it to its end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Buildkite,
    agent::{Agent, AgentId, Hold},
    connections::Connection,
    events::BUILD_UUID,
    job::{End, Job, JobId, JobState},
};

/// The most that an agent sends of a log at once, and how often it does.
const CHUNK_BYTES: u64 = 102_400;
const CHUNK_SECONDS: u64 = 1;
/// The most that it sends altogether.
const LOG_BYTES: u64 = 1 << 30;

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is nobody's, or another's.
    Unauthorized,
    /// There is no such job.
    NotFound,
    /// The job is not in a state for this.
    Unprocessable(&'static str),
}

/// A job as the agent that takes it is told of it.
#[derive(Debug, Serialize)]
pub(super) struct Offer {
    id: String,
    state: &'static str,
    env: BTreeMap<String, String>,
    step: Value,
    chunks_max_size_bytes: u64,
    chunks_interval_seconds: u64,
    log_max_size_bytes: u64,
    token: String,
    runnable_at: Option<String>,
    priority: i64,
}

/// How an agent says that a job is over.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Finish {
    exit_status: String,
    signal: String,
    signal_reason: String,
    chunks_failed_count: u64,
    ignore_agent_in_dispatches: bool,
}

impl Buildkite {
    pub(super) fn job_named(&self, uuid: &str) -> Option<JobId> {
        // Its number stands at its end; the whole must be right all the same.
        let number = usize::from_str_radix(uuid.get(24..)?, 16).ok()?;
        self.jobs.get(number).filter(|job| job.uuid == uuid).map(|job| job.id)
    }

    /// A job by its UUID.
    pub fn job_by_uuid(&self, uuid: &str) -> Option<&Job> {
        self.job(self.job_named(uuid)?)
    }

    /// The agent that a token is the session of.
    pub(super) fn session(&self, token: &str) -> Result<AgentId, Refusal> {
        self.connections.session(token).ok_or(Refusal::Unauthorized)
    }

    /// A job and the agent that has it or had it last, by the job's own token or by that agent's.
    pub(super) fn held(&self, token: &str, uuid: &str) -> Result<(JobId, AgentId), Refusal> {
        let job = self.job_named(uuid).and_then(|id| self.job(id)).ok_or(Refusal::NotFound)?;
        let agent = job.agent.ok_or(Refusal::Unauthorized)?;
        let is_its = token == job_token(job) || self.connections.session(token) == Some(agent);
        if is_its { Ok((job.id, agent)) } else { Err(Refusal::Unauthorized) }
    }

    /// The agent that calls, by its session or by the token of its job.
    fn caller(&self, token: &str) -> Option<&Connection> {
        let of_job = || {
            let uuid = token.strip_prefix(JOB_TOKEN)?.rsplit_once('-')?.0;
            Some(self.held(token, uuid).ok()?.1)
        };
        self.connections.get(self.connections.session(token).or_else(of_job)?)
    }

    /// Its UUID.
    pub(super) fn agent_behind(&self, token: &str) -> Option<String> {
        self.caller(token).map(|connection| connection.uuid.clone())
    }

    /// The token that it registered with.
    pub(super) fn registration_behind(&self, token: &str) -> Option<&str> {
        self.caller(token).map(Connection::token)
    }

    /// An agent takes the job that it was given. Once more says the same, in case the answer was lost.
    pub(super) fn accept_job(&mut self, agent: AgentId, uuid: &str) -> Result<Offer, Refusal> {
        let job = self.job_named(uuid).and_then(|id| self.job(id)).ok_or(Refusal::NotFound)?;
        let (id, state) = (job.id, job.state);
        if job.agent != Some(agent) {
            return Err(Refusal::Unprocessable("The job is not assigned to this agent"));
        }
        match state {
            JobState::Assigned => {
                self.hand_over(id, agent);
                self.take(id, agent);
            }
            JobState::Accepted | JobState::Running => {}
            JobState::Waiting | JobState::Limited | JobState::Scheduled | JobState::Cancelling | JobState::Ended(_) => {
                return Err(Refusal::Unprocessable("The job can not be accepted any more"));
            }
        }
        self.offer(id, agent).ok_or(Refusal::NotFound)
    }

    fn offer(&self, id: JobId, agent: AgentId) -> Option<Offer> {
        let job = self.job(id)?;
        Some(Offer {
            id: job.uuid.clone(),
            state: "accepted",
            env: self.environment(job, agent),
            step: json!({}),
            chunks_max_size_bytes: CHUNK_BYTES,
            chunks_interval_seconds: CHUNK_SECONDS,
            log_max_size_bytes: LOG_BYTES,
            token: job_token(job),
            runnable_at: job.runnable_at.map(|at| at.to_string()),
            priority: job.priority,
        })
    }

    /// What every job has in its environment, and what this one asked for besides or instead.
    fn environment(&self, job: &Job, agent: AgentId) -> BTreeMap<String, String> {
        let connection = self.connections.get(agent);
        let name = connection.map(|connection| connection.name.as_str()).unwrap_or_default();
        let common = [
            ("BUILDKITE", "true"),
            ("CI", "true"),
            ("BUILDKITE_JOB_ID", &job.uuid),
            ("BUILDKITE_COMMAND", &job.script()),
            ("BUILDKITE_LABEL", "simulated"),
            ("BUILDKITE_REPO", "https://example.com/simulated.git"),
            ("BUILDKITE_COMMIT", "HEAD"),
            ("BUILDKITE_BRANCH", "main"),
            ("BUILDKITE_AGENT_NAME", name),
            ("BUILDKITE_ORGANIZATION_SLUG", &self.settings.organization),
            ("BUILDKITE_PIPELINE_SLUG", "simulated"),
            ("BUILDKITE_PIPELINE_PROVIDER", "git"),
            ("BUILDKITE_BUILD_ID", BUILD_UUID),
            ("BUILDKITE_BUILD_NUMBER", "1"),
            ("BUILDKITE_BUILD_URL", "https://example.com/builds/1"),
            ("BUILDKITE_AGENT_META_DATA_QUEUE", &job.queue),
            // There is no repository behind it.
            ("BUILDKITE_SKIP_CHECKOUT", "true"),
        ];
        let common = common.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        common.chain(job.env.clone()).collect()
    }

    /// Its command runs. Once more changes nothing.
    pub(super) fn start_job(&mut self, token: &str, uuid: &str) -> Result<(), Refusal> {
        let (id, _) = self.held(token, uuid)?;
        match self.job(id).map(|job| job.state) {
            Some(JobState::Accepted) => {
                self.begin(id);
                Ok(())
            }
            Some(JobState::Running | JobState::Cancelling) => Ok(()),
            _ => Err(Refusal::Unprocessable("The job can not be started")),
        }
    }

    /// What an agent is told that asks how it stands with its job.
    pub(super) fn state_of_job(&self, token: &str, uuid: &str) -> Result<&'static str, Refusal> {
        let (id, _) = self.held(token, uuid)?;
        Ok(self.job(id).map_or("finished", |job| word(job.state)))
    }

    pub(super) fn add_log(&mut self, token: &str, uuid: &str, sequence: u64, text: Vec<u8>) -> Result<(), Refusal> {
        let (id, _) = self.held(token, uuid)?;
        if let Some(job) = self.jobs.get_mut(id.0) {
            job.outcome.log.add(sequence, text);
        }
        Ok(())
    }

    /// It is over, as its agent says.
    pub(super) fn finish_job(&mut self, token: &str, uuid: &str, finish: Finish) -> Result<(), Refusal> {
        let (id, agent) = self.held(token, uuid)?;
        let Some(job) = self.jobs.get_mut(id.0).filter(|job| job.state.is_taken()) else {
            return Err(Refusal::Unprocessable("The job is not running"));
        };
        let end = finish.end(job.state);
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        job.outcome.exit_status = said(finish.exit_status);
        job.outcome.signal = said(finish.signal);
        job.outcome.signal_reason = said(finish.signal_reason);
        job.outcome.chunks_failed = finish.chunks_failed_count;
        if finish.ignore_agent_in_dispatches && self.agents.get(&agent).is_some_and(Agent::is_open) {
            self.hold(agent, Hold::Withdrawn);
        }
        self.conclude(id, agent, end);
        self.dispatch();
        Ok(())
    }
}

impl Finish {
    fn end(&self, state: JobState) -> End {
        match (self.signal_reason.as_str(), self.exit_status.as_str()) {
            ("agent_stop", _) => End::Killed,
            ("cancel", _) => End::Cancelled,
            _ if state == JobState::Cancelling => End::Cancelled,
            (_, "0") => End::Passed,
            _ => End::Failed,
        }
    }
}

impl Job {
    /// What a real agent runs.
    fn script(&self) -> String {
        let sleeps = || {
            let status = i32::from(self.fails);
            format!("sleep {} && exit {status}", self.duration.as_secs_f64())
        };
        self.command.clone().unwrap_or_else(sleeps)
    }
}

const JOB_TOKEN: &str = "job-";

/// Another one each time it is given away, so that who had it before has no say any more.
fn job_token(job: &Job) -> String {
    format!("{JOB_TOKEN}{}-{}", job.uuid, job.assignments)
}

/// As the agent API calls it.
pub(super) const fn word(state: JobState) -> &'static str {
    match state {
        JobState::Waiting => "waiting",
        JobState::Limited => "limited",
        JobState::Scheduled => "scheduled",
        JobState::Assigned => "assigned",
        JobState::Accepted => "accepted",
        JobState::Running => "running",
        JobState::Cancelling => "canceling",
        JobState::Ended(End::Cancelled) => "canceled",
        JobState::Ended(_) => "finished",
    }
}
