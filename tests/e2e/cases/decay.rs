//! Pools shrink: after their window, in steps, never below what runs.

use std::time::Duration;

use serde_json::json;

use super::{SHRINKS, SOON};
use crate::harness::{
    case, eventually,
    pools::{pool, with},
};

const DEADLINE: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_pool_shrinks_after_its_window_and_step_by_step() {
    case("steps", DEADLINE, async |case| {
        let _replica = case.controller().await;
        let slow = json!({ "spec": { "scaling": { "scaleDown": {
            "window": "20s", "step": { "percent": 0, "agents": 3, "per": "5s" },
        } } } });
        case.create_pool(with(pool("linux"), slow)).await;
        case.buildkite.jobs("linux", 8);
        case.reaches("linux", 8, SOON).await;

        case.buildkite.jobs("linux", 0);
        case.keeps("linux", 8..=8, Duration::from_secs(18)).await;
        case.reaches("linux", 0, Duration::from_mins(2)).await;
        // Agents fall idle one by one, as they are asked, so the first step may be a smaller one.
        let sizes = case.history.sizes("linux");
        assert!(sizes.windows(2).all(|pair| (1..=3).contains(&(pair[0] - pair[1]))), "{sizes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_pool_never_shrinks_below_the_jobs_that_run() {
    case("floor", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 8);
        case.reaches("linux", 8, SOON).await;

        case.history.bound("linux", 3..=10);
        case.buildkite.jobs("linux", 3);
        case.reaches("linux", 3, SHRINKS).await;
        case.keeps("linux", 3..=3, Duration::from_secs(15)).await;
        case.history.bound("linux", 0..=10);
        case.buildkite.jobs("linux", 0);
        case.reaches("linux", 0, SHRINKS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_pool_keeps_its_spare_agents_and_they_follow_the_demand() {
    case("spare", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "scaling": { "spare": { "agents": 2 } } } }))).await;
        case.reaches("linux", 2, SOON).await;
        case.buildkite.jobs("linux", 4);
        case.reaches("linux", 6, SOON).await;
        case.buildkite.jobs("linux", 0);
        case.reaches("linux", 2, SHRINKS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn pods_that_drain_are_neither_counted_nor_deleted_twice() {
    case("drain", DEADLINE, async |case| {
        let replica = case.controller().await;
        case.kubelet.learn(|habits| habits.drain = Duration::from_secs(25));
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 4);
        case.reaches("linux", 4, SOON).await;
        case.buildkite.jobs("linux", 1);
        case.reaches("linux", 1, SHRINKS).await;
        eventually("the status counts three that drain", SOON, async || {
            let pool = case.pool("linux").await;
            if pool.status()["replicas"]["draining"] == 3 { Ok(()) } else { Err(pool.status().to_string()) }
        })
        .await;
        case.keeps("linux", 1..=1, Duration::from_secs(15)).await;
        let deletions = replica.proxy.records().into_iter().filter(|record| record.method == hyper::Method::DELETE);
        assert_eq!(deletions.count(), 0, "pods are the ReplicaSet's to delete");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_pool_that_went_to_zero_comes_back() {
    case("comesback", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        for jobs in [2, 3] {
            case.buildkite.jobs("linux", jobs);
            case.reaches("linux", i32::try_from(jobs).expect("small"), SOON).await;
            case.buildkite.jobs("linux", 0);
            case.reaches("linux", 0, SHRINKS).await;
        }
        assert_eq!(case.history.sizes("linux"), [2, 0, 3, 0]);
        assert_eq!(case.generations("linux").await.len(), 1, "the same generation all the time");
    })
    .await;
}
