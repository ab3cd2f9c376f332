//! How long things take: many short lives of agents, and the medians of both columns beside each other.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kitepool_world::buildkite::{JobState, PickUp, Settings};

use crate::{
    case::{HEARTBEAT, PING, millis, secs, until_state},
    stage::{Column, Slow, Stage},
};

/// What is measured, how far apart the medians may be, and why so far.
pub(crate) const ROWS: [(&str, Duration, &str); 9] = [
    ("exec → connected", millis(500), "a busy machine starts processes slowly"),
    ("scheduled → accepted, polling once a second", millis(500), "chance: it is evenly drawn"),
    ("accepted → started", millis(250), "simulated: until the command runs"),
    ("finished → the next accepted", millis(500), "chance: it is evenly drawn"),
    ("idle: SIGTERM → exit", millis(250), "a busy machine"),
    ("running: the second SIGTERM → exit", millis(500), "a busy machine"),
    ("running, one SIGTERM: job over → exit", millis(250), "a busy machine"),
    ("cancelled on the server → over, asking once a second", millis(600), "chance: it is evenly drawn"),
    ("stopped on the server → exit, polling once a second", millis(600), "chance: it is evenly drawn"),
];

/// One duration, with the index of its row.
type Sample = (usize, Duration);

fn settings() -> Settings {
    Settings { pick_up: PickUp::Polling { interval: PING }, heartbeat: HEARTBEAT, ..Settings::default() }
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Up, two jobs one after the other, and away.
async fn plain_life(column: Column) -> Vec<Sample> {
    let stage = &mut Stage::new(column, settings(), Slow::NONE).await;
    stage.start(1);
    stage.until_up(1).await;
    let agent = stage.agent();
    let connected = stage.world.with(|buildkite| buildkite.connected_since(&agent)).expect("it is connected");
    let (first, second) = (stage.submit(millis(200)), stage.submit(millis(200)));
    stage.until("both jobs end", |stage| stage.record(second).end.is_some()).await;
    let (first, second) = (stage.record(first), stage.record(second));
    stage.pass(millis(50)).await;
    let told = stage.now();
    stage.term();
    stage.until("it ends", |stage| stage.exit().is_some()).await;
    let exit = stage.exit().expect("it has ended").at;
    let accepted = first.accepted_at.expect("accepted");
    vec![
        (0, between(stage.started_at, connected)),
        (1, between(first.scheduled_at.expect("scheduled"), accepted)),
        (2, between(accepted, first.started_at.expect("started"))),
        (3, between(first.finished_at.expect("finished"), second.accepted_at.expect("accepted"))),
        (4, between(told, exit)),
    ]
}

/// Told to stop while its job runs: twice, or once.
async fn drained_life(column: Column, told_twice: bool) -> Vec<Sample> {
    let stage = &mut Stage::new(column, settings(), Slow::NONE).await;
    stage.start(1);
    stage.until_up(1).await;
    let job = stage.submit(if told_twice { secs(60) } else { secs(1) });
    until_state(stage, job, JobState::Running).await;
    stage.pass(millis(200)).await;
    stage.term();
    if told_twice {
        stage.pass(millis(100)).await;
        stage.term();
    }
    let told = stage.now();
    stage.until("it ends", |stage| stage.exit().is_some()).await;
    let exit = stage.exit().expect("it has ended").at;
    if told_twice {
        vec![(5, between(told, exit))]
    } else {
        vec![(6, between(stage.record(job).finished_at.expect("finished"), exit))]
    }
}

/// Its job is cancelled, then it is stopped.
async fn governed_life(column: Column) -> Vec<Sample> {
    let stage = &mut Stage::new(column, settings(), Slow::NONE).await;
    stage.start(1);
    stage.until_up(1).await;
    let job = stage.submit(secs(60));
    until_state(stage, job, JobState::Running).await;
    stage.pass(millis(200)).await;
    let cancelled = stage.now();
    stage.world.with(|buildkite| buildkite.cancel(job, cancelled));
    stage.until("the job ends", |stage| stage.record(job).end.is_some()).await;
    let agent = stage.agent();
    stage.pass(millis(100)).await;
    let stopped = stage.now();
    stage.world.with(|buildkite| buildkite.stop_agent(&agent, false, stopped));
    stage.until("it ends", |stage| stage.exit().is_some()).await;
    let exit = stage.exit().expect("it has ended").at;
    vec![(7, between(cancelled, stage.record(job).finished_at.expect("finished"))), (8, between(stopped, exit))]
}

/// How many lives of each kind there are. Of what is chance there are enough for a median that is a fifth of a second right.
const PLAIN_LIVES: u64 = 16;
const GOVERNED_LIVES: u64 = 12;
const NOT_DRAINED: u64 = PLAIN_LIVES + GOVERNED_LIVES;
/// Half of the rest is told twice.
const LIVES: u64 = NOT_DRAINED + 10;

/// So many times as many lives in this column, so many at once; the durations of each row, the shortest first.
pub(crate) async fn measured(column: impl Fn(u64) -> Column, times: u64, at_once: usize) -> Vec<Vec<Duration>> {
    let life = |seed: u64| {
        let column = column(seed);
        async move {
            let number = seed % LIVES;
            if number < PLAIN_LIVES {
                plain_life(column).await
            } else if number < NOT_DRAINED {
                governed_life(column).await
            } else {
                drained_life(column, number.is_multiple_of(2)).await
            }
        }
    };
    let lives = times * LIVES;
    let samples: Vec<Vec<Sample>> = stream::iter((0..lives).map(life)).buffer_unordered(at_once).collect().await;
    let mut rows = vec![Vec::new(); ROWS.len()];
    for (row, took) in samples.into_iter().flatten() {
        rows[row].push(took);
    }
    for row in &mut rows {
        row.sort_unstable();
    }
    rows
}

pub(crate) fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}
