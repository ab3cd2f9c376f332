//! What came of all jobs, in numbers.

use std::time::Duration;

use super::{
    Buildkite,
    job::{End, Job, JobState},
};

/// What came of all jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// All that were submitted.
    pub submitted: usize,
    /// Those that have not ended, by where the metrics count them.
    pub waiting: usize,
    /// Ready or limited.
    pub scheduled: usize,
    /// From assignment on.
    pub running: usize,
    /// Those that have ended, by how.
    pub passed: usize,
    /// See [`End::Failed`].
    pub failed: usize,
    /// See [`End::Cancelled`].
    pub cancelled: usize,
    /// See [`End::Killed`].
    pub killed: usize,
    /// See [`End::Lost`].
    pub lost: usize,
    /// See [`End::Broken`].
    pub broken: usize,
    /// Assignments that came to nothing, so that the job was given away again.
    pub stranded: u64,
    /// How long each job that began waited for it, the shortest first.
    pub waits: Vec<Duration>,
}

impl Summary {
    fn add(&mut self, job: &Job) {
        let count = match job.state {
            JobState::Waiting => &mut self.waiting,
            JobState::Limited | JobState::Scheduled => &mut self.scheduled,
            JobState::Assigned | JobState::Accepted | JobState::Running | JobState::Cancelling => &mut self.running,
            JobState::Ended(End::Passed) => &mut self.passed,
            JobState::Ended(End::Failed) => &mut self.failed,
            JobState::Ended(End::Cancelled) => &mut self.cancelled,
            JobState::Ended(End::Killed) => &mut self.killed,
            JobState::Ended(End::Lost) => &mut self.lost,
            JobState::Ended(End::Broken) => &mut self.broken,
        };
        *count += 1;
        self.submitted += 1;
        self.stranded += u64::from(job.assignments.saturating_sub(1));
        self.waits.extend(job.wait());
    }

    /// The wait that so many of a thousand jobs did not exceed; zero if none began.
    pub fn wait_permille(&self, permille: usize) -> Duration {
        let rank = (self.waits.len() * permille).div_ceil(1_000);
        self.waits.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// How the agents went that are not connected any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Departed {
    /// They said so.
    pub disconnected: u64,
    /// Buildkite missed them.
    pub lost: u64,
}

impl Buildkite {
    /// How many agents have gone, and how.
    pub const fn departed(&self) -> Departed {
        self.departed
    }

    /// What came of all jobs so far.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for job in &self.jobs {
            summary.add(job);
        }
        summary.waits.sort_unstable();
        summary
    }
}
