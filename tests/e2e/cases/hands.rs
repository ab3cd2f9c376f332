//! Somebody else scales a generation: undone, told once with a name, and the third time left to a person.

use std::time::Duration;

use futures::StreamExt as _;
use hyper::Method;
use kube::{
    ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{Config, watcher},
    },
};

use super::{SHRINKS, SOON};
use crate::harness::{
    Case, case,
    deployments::replicas,
    disturbance::{Record, Treatment},
    eventually,
    pools::pool,
};

const DEADLINE: Duration = Duration::from_mins(5);

async fn generation(case: &Case) -> String {
    case.generations("linux").await.remove(0).name_any()
}

/// Waits for the Event about a change, which names the one who made it.
async fn told_of(case: &Case, who: &str, times: usize) {
    eventually(&format!("{times} Events name {who}"), SOON, async || {
        let events = case.events("linux").await;
        let named = events.iter().filter(|(reason, note)| reason == "ForeignScale" && note.contains(who)).count();
        if named == times { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn replicas_lowered_by_hand_are_raised_at_once_and_told_with_a_name() {
    case("lowered", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 4);
        case.reaches("linux", 4, SOON).await;
        case.scale_by_hand(&generation(case).await, 1, "a-colleague").await;
        case.reaches("linux", 4, SOON).await;
        told_of(case, "a-colleague", 1).await;
        case.keeps("linux", 4..=4, Duration::from_secs(5)).await;
        told_of(case, "a-colleague", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn replicas_raised_by_hand_shrink_in_the_ordinary_way() {
    case("raised", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SOON).await;
        case.scale_by_hand(&generation(case).await, 5, "a-colleague").await;
        told_of(case, "a-colleague", 1).await;
        case.reaches("linux", 2, SHRINKS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn the_third_change_by_others_makes_a_pool_contested_until_a_person_resolves_it() {
    case("contested", DEADLINE, async |case| {
        let mut replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 4);
        case.reaches("linux", 4, SOON).await;
        let generation = generation(case).await;
        for times in 1..=3 {
            case.scale_by_hand(&generation, 1, "an-autoscaler").await;
            case.reaches("linux", 4, SOON).await;
            told_of(case, "an-autoscaler", times).await;
            // Long enough for a tick to see what stands; one that answers faster has a case of its own.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let contested = case.condition("linux", "Contested", "True", SOON).await;
        assert!(contested.message.contains("kitepool.dev/resolved"), "{}", contested.message);

        case.buildkite.jobs("linux", 0);
        case.keeps("linux", 4..=4, Duration::from_secs(25)).await;
        // It still grows, and another leader knows of the contest.
        replica.start_again();
        case.buildkite.jobs("linux", 6);
        case.reaches("linux", 6, SOON).await;
        case.buildkite.jobs("linux", 0);
        case.keeps("linux", 6..=6, Duration::from_secs(20)).await;

        case.annotate_pool("linux", "kitepool.dev/resolved", Some("2026-01-01 somebody")).await;
        case.condition("linux", "Contested", "False", SOON).await;
        case.reaches("linux", 0, SHRINKS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_scale_that_somebody_else_overtakes_is_decided_anew() {
    case("overtaken", DEADLINE, async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SOON).await;
        case.history.bound("linux", 2..=10);
        let generation = generation(case).await;

        // Ours is on its way from 2 to 6 when a person asks for 4, which is in between.
        let is_scale = |_: &Method, path: &str| path.contains("/scale");
        replica.proxy.treat_next(1, is_scale, Treatment::Delay(Duration::from_secs(3)));
        case.buildkite.jobs("linux", 6);
        eventually("our scale is on its way", SOON, async || {
            replica.proxy.latest(Record::is_scale).map(drop).ok_or_else(|| "not yet".to_owned())
        })
        .await;
        case.scale_by_hand(&generation, 4, "a-colleague").await;
        told_of(case, "a-colleague", 1).await;
        case.reaches("linux", 6, SOON).await;
        let statuses: Vec<_> =
            replica.proxy.records().iter().filter(|record| record.is_scale()).map(|record| record.status).collect();
        assert_eq!(statuses, [Some(422), Some(200)], "refused by what it had tested, then decided anew");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_controller_that_answers_at_once_is_noticed_as_well() {
    case("fight", DEADLINE, async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 4);
        case.reaches("linux", 4, SOON).await;
        let generation = generation(case).await;
        let fighting = async {
            let mut events = std::pin::pin!(watcher(case.deployments(), Config::default()).applied_objects());
            while let Some(event) = events.next().await {
                if event.is_ok_and(|seen| seen.name_any() == generation && replicas(&seen) > 1) {
                    case.scale_by_hand(&generation, 1, "another-controller").await;
                }
            }
        };
        let start = jiff::Timestamp::now();
        tokio::select! {
            () = fighting => panic!("the watch ended"),
            _ = case.condition("linux", "Contested", "True", Duration::from_mins(1)) => {}
        }
        let scales = replica.proxy.writes_since(start).iter().filter(|write| write.is_scale()).count();
        println!("{scales} scales until the fight was noticed");
        case.reaches("linux", 4, SOON).await;
    })
    .await;
}
