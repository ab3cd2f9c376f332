//! Jobs that were given to an agent which left without having asked for them, and what happened to that agent when.

use std::{fmt, path::Path, time::Duration};

use jiff::Timestamp;
use kitepool_world::buildkite::JobRecord;
use serde_json::Value;

use super::{
    agents::Agents,
    case::Replica,
    told::{at, told_as},
};
use crate::process_kubelet::ledger::is_signal;

/// One time that a job was given away in vain.
#[derive(Debug, Clone)]
pub(crate) struct Stranded {
    job: usize,
    pod: String,
    assigned_at: Timestamp,
    /// When the controller last heard of its agent that it is idle.
    asked_at: Option<Timestamp>,
    /// When its replicas were lowered.
    lowered_at: Option<Timestamp>,
    signalled_at: Option<Timestamp>,
    /// When the job was given to another agent.
    again_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
}

impl Stranded {
    /// Whether the job was given away before the controller had lowered replicas: with better knowledge it might have waited.
    /// What is given away later meets what the API server, the `ReplicaSet` and the kubelet take for their part.
    pub(crate) fn was_given_before(&self) -> bool {
        self.lowered_at.is_none_or(|lowered| self.assigned_at < lowered)
    }

    /// How much longer the job waited for its agent than if the first one had run it.
    pub(crate) fn delay(&self) -> Option<Duration> {
        let delay = self.again_at?.duration_since(self.assigned_at);
        Duration::try_from(delay).ok()
    }
}

impl fmt::Display for Stranded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {} was given to {} at {}", self.job, self.pod, self.assigned_at)?;
        for (what, at) in [
            ("its agent was asked last", self.asked_at),
            ("replicas were lowered", self.lowered_at),
            ("it got SIGTERM", self.signalled_at),
            ("the job was given to another", self.again_at),
            ("it began", self.started_at),
        ] {
            match at.map(|at| at.duration_since(self.assigned_at).as_secs_f64()) {
                Some(after) => write!(f, ", {what} {after:+.3} s")?,
                None => write!(f, ", {what}: not seen")?,
            }
        }
        Ok(())
    }
}

/// When replicas were lowered, each with the generation.
#[derive(Debug)]
pub(crate) struct Scales {
    lowered: Vec<(Timestamp, String)>,
}

impl Scales {
    pub(crate) fn of(replica: &Replica) -> Self {
        let records = replica.proxy.records();
        let scales = records.iter().filter(|record| record.is_scale() && record.status == Some(200));
        let lowered = scales.filter_map(|record| {
            let body: Value = serde_json::from_str(&record.body).expect("a patch");
            let is_down = body[1]["value"].as_u64() < body[0]["value"].as_u64();
            is_down.then_some((record.at, generation(&record.path)?))
        });
        Self { lowered: lowered.collect() }
    }

    /// When replicas were lowered last before this pod got its signal.
    pub(crate) fn before(&self, signalled_at: Timestamp, pod: &str) -> Option<Timestamp> {
        last(&self.lowered, Some(signalled_at), pod)
    }
}

/// The last of these moments that is about a pod's generation, before its signal.
pub(crate) fn last(moments: &[(Timestamp, String)], signalled_at: Option<Timestamp>, pod: &str) -> Option<Timestamp> {
    let of_pod = |generation: &str| pod.strip_prefix(generation).is_some_and(|rest| rest.starts_with('-'));
    let before = |at: Timestamp| signalled_at.is_none_or(|signalled| at <= signalled);
    moments.iter().rev().find(|(at, generation)| before(*at) && of_pod(generation)).map(|(at, _)| *at)
}

/// All of them, in the order of the jobs.
pub(crate) fn stranded(agents: &Agents<'_>, replica: &Replica, log: &Path) -> Vec<Stranded> {
    let asked = last_asked(log);
    let scales = Scales::of(replica);
    let signals = agents.kubelet.ledger().by_pod();
    let of_job = |(job, record): (usize, JobRecord)| {
        let in_vain = record.attempts.len().saturating_sub(1);
        let next = record.attempts.iter().skip(1).map(|attempt| attempt.assigned_at).collect::<Vec<_>>();
        record.attempts.into_iter().take(in_vain).zip(next).map(move |(attempt, again_at)| {
            let pod = attempt.hostname.unwrap_or(attempt.name);
            (job, pod, attempt.assigned_at, again_at, record.started_at)
        })
    };
    let found = agents.records().into_iter().enumerate().flat_map(of_job);
    found
        .map(|(job, pod, assigned_at, again_at, started_at)| {
            let told = signals.get(&pod).into_iter().flatten();
            let signalled_at = told.filter(|entry| is_signal(entry)).map(|signal| signal.at).next();
            Stranded {
                job,
                assigned_at,
                asked_at: last(&asked, signalled_at, &pod),
                lowered_at: last(&scales.lowered, signalled_at, &pod),
                signalled_at,
                again_at: Some(again_at),
                started_at,
                pod,
            }
        })
        .collect()
}

/// The Deployment whose scale is at this path.
fn generation(path: &str) -> Option<String> {
    let (before, _) = path.split_once("/scale")?;
    before.rsplit('/').next().map(str::to_owned)
}

/// When the agents of which generations were asked before they were to go, by the controller's own log.
pub(crate) fn last_asked(log: &Path) -> Vec<(Timestamp, String)> {
    let told = told_as(log, "asked before they go");
    told.iter().filter_map(|line| Some((at(line)?, line["generation"].as_str()?.to_owned()))).collect()
}
