//! The controller is killed before or after each of its writes, and started again: the same end, and nothing forbidden on the
//! way.
//!
//! One run is killed at every write that it makes, at each once: hardly a life does more than one thing. The others share the
//! acts and intents of an undisturbed run among them, so that after most kills a controller lives on for a while.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;

use super::{SHRINKS, SOON};
use crate::harness::{
    Case, case,
    case::Replica,
    deployments::{replicas, template},
    kill_points::{Namer, Side, StepsUp, Victims, Write},
    pools::{DEFINITION, pool},
};

/// Runs that share the writes of an undisturbed one: each is killed at every third.
const SHARES: usize = 3;

/// A kill may make the rest of a run go another way, past a write that was still to come.
const ATTEMPTS: usize = 4;

/// A life that ends at its first write takes a few seconds for that.
const PATIENCE: u32 = 4;

/// Growth, a changed definition while it stands, decay in two steps, and the end.
async fn burst_roll_and_decay(case: &Case, patience: u32) {
    case.history.bound("linux", 0..=6);
    case.create_pool(pool("linux")).await;
    case.buildkite.jobs("linux", 4);
    case.reaches("linux", 4, Duration::from_secs(45) * patience).await;
    let first = case.generations("linux").await.remove(0).name_any();
    case.history.bound("linux", 2..=6);
    case.buildkite.jobs("linux", 2);
    case.define(DEFINITION, template("agent", "second")).await;
    crate::harness::eventually(
        "the second generation alone has two",
        Duration::from_secs(150) * patience,
        async || {
            let generations = case.generations("linux").await;
            let shown: Vec<_> = generations.iter().map(|each| (each.name_any(), replicas(each))).collect();
            let is_so = shown.iter().all(|(name, replicas)| *replicas == if *name == first { 0 } else { 2 });
            if is_so && shown.iter().any(|(name, _)| *name != first) { Ok(()) } else { Err(format!("{shown:?}")) }
        },
    )
    .await;
    case.reaches("linux", 2, SHRINKS * patience).await;
    case.history.bound("linux", 0..=6);
    case.buildkite.jobs("linux", 0);
    case.reaches("linux", 0, Duration::from_secs(150) * patience).await;
    crate::harness::eventually("one generation is left", Duration::from_mins(1) * patience, async || {
        let generations = case.generations("linux").await.len();
        if generations == 1 { Ok(()) } else { Err(format!("{generations} generations")) }
    })
    .await;
}

/// Starts the controller again whenever it has ended, until the scenario is over. Answers how often that was.
pub(super) async fn kept_alive(replica: &mut Replica, scenario: impl Future<Output = ()>) -> usize {
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

/// What a run wrote, and at which of these writes it was killed.
struct Played {
    written: BTreeSet<Write>,
    killed: BTreeSet<Write>,
}

async fn play(name: &str, kill: Option<(Side, Victims)>) -> Played {
    let patience = if matches!(kill, Some((_, Victims::Each))) { PATIENCE } else { 1 };
    // Undisturbed, it is the list for runs that are killed at some.
    let steps_up = kill.as_ref().map_or(StepsUp::Alike, |(_, victims)| victims.steps_up());
    let mut played = None;
    case(name, Duration::from_mins(6) * patience, async |case| {
        let start = jiff::Timestamp::now();
        let mut replica = case.controller().await;
        if let Some((side, victims)) = kill {
            replica.kill_at(side, victims);
        }
        let restarts = Box::pin(kept_alive(&mut replica, burst_roll_and_decay(case, patience))).await;
        let told = case.events("linux").await;
        assert!(
            told.iter().all(|(reason, _)| reason != "ForeignScale"),
            "our own write was taken for another's: {told:?}"
        );
        let mut namer = Namer::new(steps_up);
        let writes = replica.proxy.writes_since(start);
        let written = writes.iter().map(|write| namer.name(&write.method, &write.path, &write.body)).collect();
        let killed = replica.proxy.killed();
        assert!(restarts <= killed.len(), "{restarts} restarts after {} kills: it ended by itself", killed.len());
        played = Some(Played { written, killed });
    })
    .await;
    played.expect("a case that ended well")
}

/// Kills at these acts and intents of the undisturbed run, until all of them were reached.
async fn kill_at(name: &str, side: Side, mut left: BTreeSet<Write>) {
    for attempt in 1..=ATTEMPTS {
        let killed = play(&format!("{name}-{attempt}"), Some((side, Victims::These(left.clone())))).await.killed;
        left.retain(|write| !killed.contains(write));
        if left.is_empty() {
            return;
        }
        println!("{name}: not reached in attempt {attempt}: {left:?}");
    }
    panic!("{name}: never reached: {left:?}");
}

async fn at_every_write(side: Side, word: &str) {
    let each = Box::pin(async {
        let played = play(&format!("kill-{word}-each"), Some((side, Victims::Each))).await;
        assert_eq!(played.killed, played.written, "one was not killed at");
        played.killed
    });
    let shared = Box::pin(async {
        let undisturbed = play(&format!("kill-{word}-none"), None).await;
        assert_eq!(undisturbed.killed, BTreeSet::new());
        let lasting: Vec<Write> = undisturbed.written.into_iter().filter(|write| !write.is_report()).collect();
        stream::iter(0..SHARES)
            .map(|share| {
                let own = lasting.iter().skip(share).step_by(SHARES).cloned().collect();
                async move { kill_at(&format!("kill-{word}-{share}"), side, own).await }
            })
            .buffer_unordered(SHARES)
            .collect::<()>()
            .await;
        lasting
    });
    let (each, shared) = tokio::join!(each, shared);
    let reports = each.iter().filter(|write| write.is_report()).count();
    println!(
        "killed {word} each of {} writes in one run, {reports} reports among them; and, living on, {word} all {} acts and \
         intents of an undisturbed run",
        each.len(),
        shared.len(),
    );
    for write in shared {
        println!("  {write}");
    }
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
    case("killoften", Duration::from_mins(4), async |case| {
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
