//! A pool's Deployments: a changed definition grows a new one beside the old one, a deleted pool takes all of them along.

use std::{collections::BTreeSet, time::Duration};

use hyper::Method;
use kube::ResourceExt as _;
use serde_json::json;

use super::{SHRINKS, SOON};
use crate::harness::{
    Case, case,
    deployments::{replicas, template},
    eventually,
    pools::{DEFINITION, pool, with},
};

const DEADLINE: Duration = Duration::from_mins(5);

/// The only generation left, by name.
async fn only_generation(case: &Case, within: Duration) -> String {
    eventually("one generation is left", within, async || {
        let names: Vec<String> = case.generations("linux").await.iter().map(kube::ResourceExt::name_any).collect();
        if names.len() == 1 { Ok(names[0].clone()) } else { Err(format!("{names:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_changed_definition_replaces_idle_pods_by_a_surge() {
    case("roll", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "scaling": { "spare": { "agents": 8 } } } }))).await;
        case.reaches("linux", 8, SOON).await;
        let old = only_generation(case, SOON).await;

        // A quarter of eight on top, and never less than what is asked for.
        case.history.bound("linux", 6..=10);
        case.define(DEFINITION, template("agent", "second")).await;
        eventually("the old generation is gone", Duration::from_secs(200), async || {
            let generations = case.generations("linux").await;
            let shown: Vec<_> = generations.iter().map(|each| (each.name_any(), replicas(each))).collect();
            for (name, replicas) in &shown {
                assert!(*name == old || *replicas <= 8, "the new generation is larger than the need: {shown:?}");
            }
            if shown.len() == 1 && shown[0].0 != old && shown[0].1 == 8 { Ok(()) } else { Err(format!("{shown:?}")) }
        })
        .await;
        case.reaches("linux", 8, SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_roll_at_max_stays_at_max_and_leaves_busy_pods_alone() {
    case("rollmax", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "scaling": { "max": 4 } } }))).await;
        case.buildkite.jobs("linux", 4);
        case.reaches("linux", 4, SOON).await;
        let old = only_generation(case, SOON).await;
        let busy = case.uids("linux").await;

        case.history.bound("linux", 0..=4);
        case.define(DEFINITION, template("agent", "second")).await;
        // Each of the four holds a job.
        case.keeps("linux", 4..=4, Duration::from_secs(15)).await;
        assert_eq!(case.uids("linux").await, busy);

        case.buildkite.jobs("linux", 0);
        eventually("the old generation is gone", Duration::from_mins(2), async || {
            let names: BTreeSet<String> =
                case.generations("linux").await.iter().map(kube::ResourceExt::name_any).collect();
            if names.contains(&old) { Err(format!("{names:?}")) } else { Ok(()) }
        })
        .await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SHRINKS).await;
        assert_ne!(only_generation(case, SHRINKS).await, old);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_definition_that_is_put_back_goes_on_with_the_first_generation() {
    case("putback", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "scaling": { "min": 2 } } }))).await;
        case.reaches("linux", 2, SOON).await;
        let first = only_generation(case, SOON).await;
        let pods = case.uids("linux").await;

        case.kubelet.learn(|habits| habits.ready_after = Duration::from_mins(10));
        case.define(DEFINITION, template("agent", "broken")).await;
        eventually("the second generation starts", SHRINKS, async || {
            let count = case.generations("linux").await.len();
            if count == 2 { Ok(()) } else { Err(format!("{count} generations")) }
        })
        .await;
        case.keeps("linux", 2..=3, Duration::from_secs(10)).await;
        assert!(case.uids("linux").await.is_superset(&pods), "pods that are not ready replace none");

        case.define(DEFINITION, template("agent", "first")).await;
        assert_eq!(only_generation(case, Duration::from_mins(1)).await, first);
        case.reaches("linux", 2, SOON).await;
        assert_eq!(case.uids("linux").await, pods, "the same pods all the time");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_deleted_pool_takes_its_pods_along_with_one_deletion_each() {
    case("deleted", DEADLINE, async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.create_pool(pool("other")).await;
        case.buildkite.jobs("linux", 3);
        case.buildkite.jobs("other", 2);
        case.reaches("linux", 3, SOON).await;
        case.reaches("other", 2, SOON).await;

        let before = jiff::Timestamp::now();
        case.delete_pool("linux").await;
        eventually("Deployment and pods are gone", SHRINKS, async || {
            let (generations, pods) = (case.generations("linux").await.len(), case.pods_of("linux").await.len());
            if generations + pods == 0 { Ok(()) } else { Err(format!("{generations} Deployments, {pods} pods")) }
        })
        .await;
        case.keeps("other", 2..=2, Duration::from_secs(5)).await;

        let writes = replica.proxy.writes_since(before);
        let deletions: Vec<String> =
            writes.iter().filter(|write| write.method == Method::DELETE).map(ToString::to_string).collect();
        assert!(deletions.len() <= 1, "the garbage collector deletes what the pool owns: {deletions:?}");
        // A sign on a pod that was told busy a moment before may still be on its way.
        let is_made = |path: &str| path.contains("/linux") && !path.contains("/pods/");
        let again: Vec<String> = writes.iter().filter(|write| is_made(&write.path)).map(ToString::to_string).collect();
        assert!(again.len() <= 1, "nothing of a deleted pool is made again: {again:?}");
    })
    .await;
}
