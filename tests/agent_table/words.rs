//! Cases and what came of jobs, in words.

use std::fmt;

use kitepool_world::{
    Fault,
    buildkite::{End, JobRecord, Loss},
};

use crate::case::{AWAY, At, Then};

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registering => f.write_str("registering"),
            Self::Idle => f.write_str("idle"),
            Self::Assigned => f.write_str("assigned, not yet told"),
            Self::Accepting(seconds) => write!(f, "accept in flight, a job of {seconds} s"),
            Self::Running(seconds) => write!(f, "running, {seconds} s to go"),
            Self::Finishing => f.write_str("finish answered 500"),
            Self::Paused => f.write_str("paused"),
            Self::OneOfTwo(seconds) => write!(f, "one of two workers running, {seconds} s to go"),
        }
    }
}

impl fmt::Display for Then {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let away = AWAY.as_secs();
        match self {
            Self::Term => f.write_str("SIGTERM"),
            Self::TermTerm => f.write_str("SIGTERM, SIGTERM"),
            Self::Kill => f.write_str("SIGKILL"),
            Self::Away(Fault { status: Some(status), .. }) => write!(f, "every call answered {status} for {away} s"),
            Self::Away(_) => write!(f, "every connection broken for {away} s"),
            Self::Refused => f.write_str("every call answered 401 from now on"),
            Self::HeartbeatRefused => f.write_str("heartbeats answered 401 from now on"),
            Self::AcceptFails => f.write_str("a job, accept answered 500 once"),
            Self::AcceptDropped => f.write_str("a job, accept not answered once"),
            Self::FinishRefused => f.write_str("finish answered 422, then SIGTERM"),
            Self::Cancelled => f.write_str("the job is cancelled on the server"),
            Self::Stopped => f.write_str("the agent is stopped on the server"),
            Self::PausedThenJob => f.write_str("paused on the server, then a job"),
            Self::ResumedThenJob => f.write_str("resumed on the server, then a job"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// What became of a job, in words.
pub(crate) fn fate(job: &JobRecord) -> String {
    let times = match job.assignments {
        0 => "never given away".to_owned(),
        1 => "given once".to_owned(),
        more => format!("given {more} times"),
    };
    let end = match (job.end, job.loss) {
        (Some(End::Passed), _) => "passed",
        (Some(End::Failed), _) => "failed",
        (Some(End::Cancelled), _) => "cancelled",
        (Some(End::Killed), _) => "killed: agent_stop",
        (Some(End::Broken), _) => "broken",
        (Some(End::Lost), Some(Loss::Left)) => "lost: its agent left",
        (Some(End::Lost), _) => "lost: its agent was missed",
        (None, _) if job.state == "scheduled" && job.accepted_at.is_none() => "ready again, never taken",
        (None, _) => return format!("still {}, {times}", job.state),
    };
    if job.assignments == 0 && job.state == "scheduled" { format!("ready, {times}") } else { format!("{end}, {times}") }
}
