//! A pool takes over a Deployment that somebody else made.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use super::SOON;
use crate::harness::{
    Case, case,
    deployments::{is_ready, replicas, template},
    eventually,
    pools::{pool, with},
    simulated_agents::FOREIGN_QUEUE_LABEL,
};

const DEADLINE: Duration = Duration::from_mins(4);
const NAME: &str = "hand-made";

async fn make_by_hand(case: &Case) {
    let mut template = template("agent", "by hand");
    template["metadata"]["labels"] = json!({ "app": NAME, FOREIGN_QUEUE_LABEL: "linux" });
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": NAME, "labels": { "app": NAME } },
        "spec": { "replicas": 5, "selector": { "matchLabels": { "app": NAME } }, "template": template },
    }))
    .expect("a Deployment");
    case.deployments().create(&PostParams::default(), &deployment).await.expect("it is taken");
}

/// The uids of the adopted pods that are ready.
async fn adopted(case: &Case) -> Vec<String> {
    let of_it = ListParams::default().labels(&format!("app={NAME}"));
    let mut uids: Vec<String> = case
        .pods()
        .list(&of_it)
        .await
        .expect("a list")
        .items
        .iter()
        .filter(|pod| is_ready(pod))
        .filter_map(kube::ResourceExt::uid)
        .collect();
    uids.sort();
    uids
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn an_adopted_deployment_keeps_its_pods_while_one_may_be_busy_and_empties_when_all_are_idle() {
    case("adopt", DEADLINE, async |case| {
        case.history.count(NAME, "linux");
        make_by_hand(case).await;
        let before = eventually("five pods run", SOON, async || {
            let uids = adopted(case).await;
            if uids.len() == 5 { Ok(uids) } else { Err(format!("{uids:?}")) }
        })
        .await;
        case.buildkite.jobs("linux", 5);
        let definition = case.deployments().get(NAME).await.expect("it is there").spec.expect("a spec").template;

        case.history.bound("linux", 5..=10);
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "adopt": NAME } }))).await;
        case.condition("linux", "Ready", "True", SOON).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        crate::harness::stays("the five keep their uids", Duration::from_secs(20), async || {
            let uids = adopted(case).await;
            if uids == before { Ok(()) } else { Err(format!("{uids:?}")) }
        })
        .await;

        // Which of them are idle nobody can tell, and their grace period is somebody else's: one job keeps all five.
        case.buildkite.jobs("linux", 1);
        crate::harness::stays("the five keep their uids", Duration::from_secs(25), async || {
            let uids = adopted(case).await;
            if uids == before { Ok(()) } else { Err(format!("{uids:?}")) }
        })
        .await;
        case.history.bound("linux", 0..=10);
        case.buildkite.jobs("linux", 0);
        eventually("the adopted Deployment is empty", Duration::from_mins(2), async || {
            let left = replicas(&case.deployments().get(NAME).await.expect("it is never deleted"));
            if left == 0 { Ok(()) } else { Err(format!("{left} replicas")) }
        })
        .await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SOON).await;
        let after = case.deployments().get(NAME).await.expect("it is never deleted").spec.expect("a spec").template;
        assert_eq!(after, definition, "its template is somebody else's");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn an_adopted_deployment_that_is_not_there_stops_nothing() {
    case("adoptnone", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "adopt": "nowhere" } }))).await;
        case.buildkite.jobs("linux", 1);
        case.reaches("linux", 1, SOON).await;
    })
    .await;
}
