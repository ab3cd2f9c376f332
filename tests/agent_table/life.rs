//! What `/status.json` says through the life of an agent and its jobs, moment by moment.

use kitepool_world::{
    Route,
    buildkite::{JobState, PickUp, Settings, Spread},
};

use crate::{
    case::{A_WHILE, HEARTBEAT, PING, SLOW, millis, secs, status_of, until_state, until_told},
    stage::{Column, Slow, Stage},
};

/// A moment, and what was said then.
pub(crate) type Moment = (&'static str, String);

/// One agent with two jobs, all its calls slow: it is looked at in each state.
pub(crate) async fn life(column: Column) -> Vec<Moment> {
    let settings = Settings {
        pick_up: PickUp::Polling { interval: PING },
        heartbeat: HEARTBEAT,
        noticing: Spread::Exactly(secs(60)),
        ..Settings::default()
    };
    let slow = Slow { registering: Some(SLOW), accepting: Some(SLOW), starting: Some(SLOW) };
    let stage = &mut Stage::new(column, settings, slow).await;
    let mut told = Vec::new();
    stage.start(1);
    stage.pass(SLOW / 2).await;
    note(stage, &mut told, "registering").await;
    stage.until_up(1).await;
    note(stage, &mut told, "connected, no job").await;

    // A failing ping keeps it from hearing of its job.
    stage.set_faults(&[Route::Ping], Some(status_of(500)));
    let first = stage.submit(secs(2));
    stage.pass(A_WHILE).await;
    note(stage, &mut told, "assigned, not yet told").await;
    stage.set_faults(&[Route::Ping], None);
    until_told(stage, first).await;
    stage.pass(SLOW / 2).await;
    note(stage, &mut told, "told, accept in flight").await;
    until_state(stage, first, JobState::Accepted).await;
    stage.pass(SLOW / 2).await;
    note(stage, &mut told, "accepted, start in flight").await;
    until_state(stage, first, JobState::Running).await;
    stage.pass(A_WHILE).await;
    note(stage, &mut told, "running").await;
    let agent = stage.agent();
    stage.world.with(|buildkite| buildkite.set_agent_paused(&agent, true, buildkite.now()));
    stage.pass(A_WHILE).await;
    note(stage, &mut told, "running, paused on the server").await;
    stage.set_faults(&[Route::Finish], Some(status_of(500)));
    stage.pass(secs(2)).await;
    note(stage, &mut told, "its command over, finish in flight").await;
    stage.set_faults(&[Route::Finish], None);
    stage.until("the first job ends", |stage| stage.record(first).end.is_some()).await;
    stage.pass(millis(100)).await;
    note(stage, &mut told, "finished").await;
    stage.pass(PING * 2).await;
    note(stage, &mut told, "no job, paused on the server").await;

    stage.world.with(|buildkite| buildkite.set_agent_paused(&agent, false, buildkite.now()));
    let second = stage.submit(secs(2));
    until_state(stage, second, JobState::Running).await;
    stage.term();
    stage.pass(A_WHILE).await;
    note(stage, &mut told, "running, after one SIGTERM").await;
    stage.until("the process ends", |stage| stage.exit().is_some()).await;
    note(stage, &mut told, "gone").await;
    told
}

async fn note(stage: &Stage, told: &mut Vec<Moment>, moment: &'static str) {
    told.push((moment, stage.status().await));
}
