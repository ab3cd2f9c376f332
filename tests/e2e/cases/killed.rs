//! The controller is killed before or after each of its writes, and started again: the same end, and nothing forbidden on the
//! way.

use std::time::Duration;

use futures::{StreamExt as _, stream};

use super::{SHRINKS, SOON};
use crate::harness::{
    Case, case,
    case::Replica,
    deployments::template,
    disturbance::Side,
    pools::{DEFINITION, pool},
};

/// At once; each is a namespace with a controller that mostly waits.
const LANES: usize = 8;

const DEADLINE: Duration = Duration::from_mins(4);

/// Growth, a changed definition while it stands, decay in two steps, and the end.
async fn burst_roll_and_decay(case: &Case) {
    case.history.bound("linux", 0..=6);
    case.create_pool(pool("linux")).await;
    case.buildkite.jobs("linux", 4);
    case.reaches("linux", 4, SHRINKS).await;
    case.history.bound("linux", 2..=6);
    case.buildkite.jobs("linux", 2);
    case.define(DEFINITION, template("agent", "second")).await;
    case.reaches("linux", 2, Duration::from_secs(90)).await;
    case.history.bound("linux", 0..=6);
    case.buildkite.jobs("linux", 0);
    case.reaches("linux", 0, Duration::from_secs(90)).await;
    crate::harness::eventually("one generation is left", Duration::from_mins(1), async || {
        let generations = case.generations("linux").await.len();
        if generations == 1 { Ok(()) } else { Err(format!("{generations} generations")) }
    })
    .await;
}

/// Starts the controller again whenever it has ended, until the scenario is over.
async fn kept_alive(replica: &mut Replica, scenario: impl Future<Output = ()>) -> usize {
    let mut restarts = 0;
    let mut scenario = std::pin::pin!(scenario);
    loop {
        tokio::select! {
            () = &mut scenario => return restarts,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                if !replica.controller.is_running() {
                    replica.start_again();
                    restarts += 1;
                }
            }
        }
    }
}

/// Runs the scenario and answers how many writes it took and how often the controller was started again.
async fn run(name: &str, kill: Option<(usize, Side)>) -> (usize, usize) {
    let mut counted = (0, 0);
    case(name, DEADLINE, async |case| {
        let start = jiff::Timestamp::now();
        let mut replica = case.controller().await;
        if let Some((number, side)) = kill {
            replica.kill_at(number, side);
        }
        let restarts = Box::pin(kept_alive(&mut replica, burst_roll_and_decay(case))).await;
        let told = case.events("linux").await;
        assert!(
            told.iter().all(|(reason, _)| reason != "ForeignScale"),
            "our own write was taken for another's: {told:?}"
        );
        counted = (replica.proxy.writes_since(start).len(), restarts);
    })
    .await;
    counted
}

async fn at_every_write(side: Side, word: &str) {
    let (writes, restarts) = run(&format!("kill-{word}-0"), None).await;
    assert_eq!(restarts, 0, "it does not end by itself");
    println!("{writes} writes without a kill");
    let fired = stream::iter(1..=writes)
        .map(async |number| run(&format!("kill-{word}-{number}"), Some((number, side))).await)
        .buffer_unordered(LANES)
        .filter(|(_, restarts)| std::future::ready(*restarts > 0))
        .count()
        .await;
    // Some writes of a run depend on the moment (a status that was worth one), so the last points may not be reached.
    assert!(fired * 4 >= writes * 3, "only {fired} of {writes} kill points were reached");
    println!("killed {word} {fired} of {writes} writes");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn killed_before_any_of_its_writes_it_gets_to_the_same_end() {
    at_every_write(Side::Before, "before").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn killed_after_any_of_its_writes_it_gets_to_the_same_end() {
    at_every_write(Side::After, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn killed_again_and_again_it_still_gets_there() {
    case("killoften", DEADLINE, async |case| {
        let mut replica = case.controller().await;
        case.history.bound("linux", 0..=8);
        case.create_pool(pool("linux")).await;
        for jobs in 1..=8 {
            case.buildkite.jobs("linux", jobs);
            // Enough for a start, a few ticks and perhaps a write in flight.
            tokio::time::sleep(Duration::from_millis(700 + u64::from(jobs) * 37)).await;
            replica.start_again();
        }
        case.reaches("linux", 8, SOON).await;
        assert!(case.events("linux").await.iter().all(|(reason, _)| reason != "ForeignScale"));
    })
    .await;
}
