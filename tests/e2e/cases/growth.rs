//! Pools grow: from nothing, in a burst, as far as they may.

use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::json;

use super::SOON;
use crate::harness::{
    case,
    deployments::{GENERATION_LABEL, POOL_LABEL},
    eventually,
    pools::{pool, with},
};

const DEADLINE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_pool_grows_from_zero_when_a_job_waits() {
    case("zero", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "Ready", "True", SOON).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        assert!(case.generations("linux").await.is_empty(), "nothing is wanted yet");

        case.buildkite.jobs("linux", 1);
        case.reaches("linux", 1, SOON).await;
        case.keeps("linux", 1..=1, Duration::from_secs(3)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_generation_is_named_labelled_and_owned_by_its_pool() {
    case("named", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "tags": ["os=linux"], "agentsPerPod": 2 } }))).await;
        case.buildkite.jobs("linux", 3);
        case.reaches("linux", 2, SOON).await;

        let generation = case.generations("linux").await.remove(0);
        let name = generation.name_any();
        assert!(name.starts_with("linux-"), "{name}");
        let labels = |of: &str| generation.labels().get(of).cloned();
        assert_eq!(labels(POOL_LABEL).as_deref(), Some("linux"));
        assert_eq!(labels(GENERATION_LABEL).as_deref(), Some(name.as_str()));
        assert_eq!(labels("app.kubernetes.io/managed-by").as_deref(), Some("kitepool"));
        assert!(generation.owner_references().iter().any(|owner| owner.kind == "AgentPool" && owner.name == "linux"));

        let pod = case.pods_of("linux").await.remove(0);
        assert_eq!(pod.labels().get(GENERATION_LABEL), Some(&name));
        let spec = pod.spec.expect("a spec");
        assert_eq!(spec.termination_grace_period_seconds, Some(3600), "longestJob is the grace period");
        let agent = spec.containers.iter().find(|container| container.name == "agent").expect("the agent");
        let value = |name: &str| {
            let variable = agent.env.iter().flatten().find(|variable| variable.name == name);
            variable.and_then(|variable| variable.value.clone()).unwrap_or_default()
        };
        assert_eq!(value("BUILDKITE_AGENT_TAGS"), "queue=linux,os=linux");
        assert_eq!(value("BUILDKITE_AGENT_SPAWN"), "2");
        assert!(agent.readiness_probe.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_burst_raises_a_pool_to_max_and_no_further() {
    case("burst", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.history.bound("linux", 0..=10);
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        case.buildkite.jobs("linux", 25);
        case.reaches("linux", 10, SOON).await;

        let limit = case.condition("linux", "AtLimit", "True", SOON).await;
        assert_eq!(limit.reason, "AtMax");
        assert!(limit.message.contains("25") && limit.message.contains("10"), "{}", limit.message);
        eventually("the status says what is there", SOON, async || {
            let pool = case.pool("linux").await;
            let replicas = &pool.status()["replicas"];
            let is_so = replicas["desired"] == 10 && replicas["current"] == 10 && replicas["ready"] == 10;
            if is_so { Ok(()) } else { Err(pool.status().to_string()) }
        })
        .await;
        case.keeps("linux", 10..=10, Duration::from_secs(3)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn two_pools_on_one_queue_are_filled_in_their_order() {
    case("shared", DEADLINE, async |case| {
        let _replica = case.controller().await;
        for (name, order, max) in [("first", 0, 3), ("second", 1, 10)] {
            let own = json!({ "spec": { "queue": "linux", "order": order, "scaling": { "max": max } } });
            case.create_pool(with(pool(name), own)).await;
        }
        case.buildkite.jobs("linux", 5);
        case.reaches("first", 3, SOON).await;
        case.reaches("second", 2, SOON).await;
        let shared = case.condition("second", "QueueShared", "True", SOON).await;
        assert!(shared.message.contains("first"), "{}", shared.message);
    })
    .await;
}
