//! How the simulated Buildkite behaves, a rule a test.

#![cfg(test)]

mod agents;
mod dispatch;
mod events;
mod numbers;
mod properties;
mod shared;
mod signals;

use std::time::Duration;

use jiff::Timestamp;
use kitepool_world::{
    Token, UNCLUSTERED,
    buildkite::{
        AgentPod, Buildkite, End, Job, JobId, JobState, NewJob, NumbersAge, PickUp, PodExit, Settings, Spread,
    },
};

const CLUSTER: &str = "uuid-1";
const TOKEN: &str = "bkct_1";
const START: Timestamp = Timestamp::UNIX_EPOCH;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn at(after: Duration) -> Timestamp {
    START + after
}

fn since(at: Timestamp) -> Duration {
    took(START, at)
}

fn took(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap()
}

/// Agents that are up after a tenth of a second and told of their jobs at once; numbers of the instant.
fn streaming() -> Settings {
    Settings {
        pick_up: PickUp::Streaming,
        registration: Spread::Exactly(millis(100)),
        numbers: NumbersAge { refresh: Duration::ZERO, lag: Duration::ZERO },
        ..Settings::default()
    }
}

fn polling() -> Settings {
    Settings { pick_up: PickUp::Polling { interval: secs(10) }, ..streaming() }
}

fn buildkite(settings: Settings, seed: u64) -> Buildkite {
    let mut buildkite = Buildkite::new(settings, seed, START);
    buildkite.set_token(TOKEN, Some(Token::new("acme", Some(CLUSTER))));
    buildkite
}

/// One with so many agents of a worker each on queue `q`, up since a long time: at [`UP`].
fn with_agents(settings: Settings, seed: u64, count: usize) -> Buildkite {
    let mut buildkite = buildkite(settings, seed);
    for number in 0..count {
        buildkite.pod_started(pod(number), START);
    }
    buildkite.advance(at(UP));
    assert_eq!(buildkite.load(CLUSTER, "q").idle, u32::try_from(count).unwrap());
    buildkite
}

const UP: Duration = secs(100);

fn pod(number: usize) -> AgentPod {
    AgentPod::new(&format!("pod-{number}"), TOKEN, "q")
}

fn job(seconds: u64) -> NewJob {
    NewJob::new(CLUSTER, "q", secs(seconds))
}

fn the(buildkite: &Buildkite, id: JobId) -> &Job {
    buildkite.job(id).unwrap()
}

fn state(buildkite: &Buildkite, id: JobId) -> JobState {
    the(buildkite, id).state
}

fn pod_of(buildkite: &Buildkite, id: JobId) -> &str {
    the(buildkite, id).pod.as_deref().unwrap()
}

/// Goes from event to event until this holds, and says when; the end of patience is an hour.
fn until(buildkite: &mut Buildkite, holds: impl Fn(&Buildkite) -> bool) -> Timestamp {
    let patience = buildkite.now() + secs(3_600);
    while !holds(buildkite) {
        let next = buildkite.next_at().filter(|next| *next <= patience).unwrap();
        buildkite.advance(next);
    }
    buildkite.now()
}

fn until_state(buildkite: &mut Buildkite, id: JobId, wanted: JobState) -> Timestamp {
    until(buildkite, |buildkite| state(buildkite, id) == wanted)
}

fn until_ended(buildkite: &mut Buildkite, id: JobId) -> End {
    until(buildkite, |buildkite| the(buildkite, id).end().is_some());
    the(buildkite, id).end().unwrap()
}

fn exits(buildkite: &mut Buildkite) -> Vec<(String, i32)> {
    buildkite.take_exits().into_iter().map(|PodExit { pod, exit_code, .. }| (pod, exit_code)).collect()
}
