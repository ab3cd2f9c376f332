//! What the real buildkite-agent does, case by case, and whether the simulated agents do the same.

#![cfg(test)]

mod case;
mod life;
#[path = "../agent/real_agent.rs"]
mod real_agent;
mod stage;
mod table;
mod times;
mod words;

use std::time::Duration;

use case::cases;
use futures::future::join_all;
use kitepool::clock::Clock;
use kitepool_world::{
    Token, World,
    buildkite::{Buildkite, End, JobState, Link, NewJob, PickUp, Serving, Settings},
};
use life::{Moment, life};
use real_agent::{Launch, RealAgent, own_address};
use rustix::process::Signal;
use stage::Column;
use table::row;

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
        health: own_address(),
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

/// How many times as many lives of simulated agents are measured as of real ones, so that their medians are no chance.
const SIMULATED_TIMES: u64 = 30;
/// As many real agents at once as do not slow each other down on two cores.
const AT_ONCE: usize = 4;
/// How far apart the exits of one case may be: two pings of chance, and a busy machine.
const EXIT_BOUND: Duration = Duration::from_secs(3);
/// Each case is played with so many draws of chance, and always comes to the same.
const SEEDS: u64 = 20;

const fn simulated(seed: u64) -> Column {
    Column::Simulated { seed }
}

/// The rows of outcomes and moments as the simulated agents make them, and every case that comes out otherwise by chance.
async fn simulated_rows() -> (Vec<(String, Option<Duration>)>, Vec<Moment>, Vec<String>) {
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for case in cases() {
        let first = case.play(simulated(0)).await;
        for seed in 1..SEEDS {
            let played = case.play(simulated(seed)).await;
            if played.outcome != first.outcome {
                wrong.push(format!("seed {seed}: {}\n   not: {}", row(&case, &played), row(&case, &first)));
            }
        }
        rows.push((row(&case, &first), first.exit_after));
    }
    let told = life(simulated(0)).await;
    for seed in 1..SEEDS {
        if life(simulated(seed)).await != told {
            wrong.push(format!("seed {seed}: another life"));
        }
    }
    (rows, told, wrong)
}

#[tokio::test]
async fn simulated_agents_do_what_is_recorded_of_the_real_one() {
    let (rows, told, mut wrong) = simulated_rows().await;
    let count = rows.len() + told.len();
    let moments = told.iter().map(|(moment, told)| table::moment_row(moment, told));
    let rows: Vec<String> = rows.into_iter().map(|(row, _)| row).chain(moments).collect();
    wrong.extend(table::missing(&rows).into_iter().map(|row| format!("not recorded: {row}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(table::recorded_rows(), count, "rows are recorded that are of no case");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds the real agent; tests/agent/table runs it"]
async fn the_real_agent_does_what_the_simulated_ones_do() {
    real_agent::binary();
    let (simulated_rows, simulated_life, mut wrong) = simulated_rows().await;
    let cases = cases();
    let playing = join_all(cases.iter().map(|case| case.play(Column::Real)));
    let (played, real_life) = tokio::join!(playing, life(Column::Real));
    let mut rows = Vec::new();
    for ((case, mut real), (simulated, exit_after)) in cases.iter().zip(played).zip(simulated_rows) {
        if row(case, &real) != simulated {
            // Beside forty others on a busy machine the test itself may be late. What is different is different by itself.
            println!("once more by itself: {}", row(case, &real));
            real = case.play(Column::Real).await;
        }
        let row = row(case, &real);
        if row != simulated {
            wrong.push(format!("real:      {row}\nsimulated: {simulated}\n{}", real.report));
        }
        if real.exit_after.unwrap_or_default().abs_diff(exit_after.unwrap_or_default()) > EXIT_BOUND {
            wrong.push(format!("{row} exit after {:?}, simulated {exit_after:?}", real.exit_after));
        }
        rows.push((row, real.exit_after, exit_after));
    }
    if real_life != simulated_life {
        wrong.push(format!("real: {real_life:#?}\nsimulated: {simulated_life:#?}"));
    }
    // By themselves, now that the machine is quiet.
    let real = times::measured(|_| Column::Real, 1, AT_ONCE).await;
    let simulated = times::measured(simulated, SIMULATED_TIMES, 1).await;
    for ((what, bound, _), (real, simulated)) in times::ROWS.iter().zip(real.iter().zip(&simulated)) {
        let (real, simulated) = (times::median(real), times::median(simulated));
        if real.abs_diff(simulated) > *bound {
            wrong.push(format!("{what}: real {real:?}, simulated {simulated:?}, more than {bound:?} apart"));
        }
    }
    let page = table::page(&[table::outcomes(&rows), table::moments(&real_life), table::times(&real, &simulated)]);
    println!("{page}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the test")]
    if std::env::var("KITEPOOL_AGENT_TABLE_ANEW").is_ok() {
        table::write(&page);
    }
    let moments = real_life.iter().map(|(moment, told)| table::moment_row(moment, told));
    let told: Vec<String> = rows.into_iter().map(|(row, ..)| row).chain(moments).collect();
    let missing = table::missing(&told);
    assert!(missing.is_empty(), "not recorded; KITEPOOL_AGENT_TABLE_ANEW=1 records them: {missing:#?}");
    assert_eq!(table::recorded_rows(), told.len(), "rows are recorded that are of no case");
}
