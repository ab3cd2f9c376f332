//! What the real buildkite-agent does, case by case, and whether the simulated agents do the same.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at the line that is wrong")]

#[path = "../agent/real_agent.rs"]
mod real_agent;

use std::time::Duration;

use kitepool::clock::Clock;
use kitepool_world::{
    Token, World,
    buildkite::{Buildkite, End, JobState, Link, NewJob, PickUp, Serving, Settings},
};
use real_agent::{Launch, RealAgent, free_address};
use rustix::process::Signal;

const CLUSTER: &str = "uuid-1";
const TOKEN: &str = "bkct_1";

async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(it) = ask() {
            return it;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 30 s");
}

#[tokio::test]
#[ignore = "builds the real agent"]
async fn a_real_agent_registers_runs_a_job_and_leaves() {
    let clock = Clock::machine();
    let settings = Settings { pick_up: PickUp::Polling { interval: Duration::from_secs(1) }, ..Settings::default() };
    let world = World::from(Buildkite::new(settings, 1, clock.now()));
    let reading = clock.clone();
    world.set_clock(move || reading.now());
    world.set_token(TOKEN, Some(Token::new("acme", Some(CLUSTER))));
    let serving = Serving::start(world.clone()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch {
        endpoint: serving.endpoint(),
        token: TOKEN.into(),
        tags: "queue=q,os=linux".into(),
        name: "%hostname-%spawn".into(),
        health: free_address(),
        folder: folder.path().into(),
        more: Vec::new(),
    };
    let agent = RealAgent::start(&launch, &clock);
    let command = Some(
        "echo hello from $WHO; buildkite-agent meta-data set a \"what was set\"; buildkite-agent meta-data get a"
            .to_owned(),
    );
    let id = world.with(|buildkite| {
        let env = [("WHO".to_owned(), "the job".to_owned())].into();
        buildkite.submit(NewJob { command, env, ..NewJob::new(CLUSTER, "q", Duration::ZERO) }, buildkite.now())
    });
    until("the job ends", || world.with(|buildkite| buildkite.job(id).unwrap().end())).await;
    let log = world.with(|buildkite| buildkite.job(id).unwrap().outcome.log.text());
    assert!(log.contains("hello from the job") && log.contains("what was set"), "{log}");
    assert_eq!(agent.status().await.unwrap()["aggregate_status"], "idle");
    agent.signal(Signal::TERM);
    let exit = agent.ended(Duration::from_secs(10)).await;
    assert_eq!(exit.code, 0, "{}", agent.logged());
    let record = world.with(|buildkite| buildkite.record(buildkite.job(id).unwrap()));
    assert_eq!((record.assignments, record.exit_status.as_deref()), (1, Some("0")), "{record:#?}");
    let connection = world.with(|buildkite| buildkite.connections().next().unwrap().clone());
    assert_eq!((connection.link, &connection.name), (Link::Disconnected, &format!("{}-1", connection.hostname)));
    assert_eq!(world.with(|buildkite| buildkite.job(id).unwrap().state), JobState::Ended(End::Passed));
}
