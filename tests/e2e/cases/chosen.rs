//! The pods that go are the idle ones that were chosen, and those that run a job are guarded.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{EvictParams, ListParams},
};
use serde_json::json;

use super::{SHRINKS, SOON};
use crate::harness::{
    Case, case,
    deployments::is_ready,
    eventually,
    pools::{pool, with},
};

const DEADLINE: Duration = Duration::from_mins(4);

/// The pods of a pool that are not going, those with this label alone.
async fn living(case: &Case, label: &str) -> BTreeSet<String> {
    let pods: Api<Pod> = Api::namespaced(case.admin.clone(), &case.namespace);
    let found = pods.list(&ListParams::default().labels(label)).await.expect("pods");
    found.iter().filter(|pod| is_ready(pod)).map(ResourceExt::name_any).collect()
}

const OURS: &str = "kitepool.dev/pool=linux";
const BUSY: &str = "kitepool.dev/busy=true";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn the_replica_set_takes_the_chosen_pods_and_a_drain_none_that_runs_a_job() {
    case("chosen", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "scaling": { "spare": { "agents": 1 } } } }))).await;
        case.buildkite.jobs("linux", 6);
        case.reaches("linux", 7, SOON).await;
        let guarded = async |count: usize| {
            eventually("busy pods are guarded, and no others", SOON, async || {
                let (busy, guarded) = (case.agents.busy(), living(case, BUSY).await);
                if busy == guarded && busy.len() == count { Ok(busy) } else { Err(format!("{busy:?} and {guarded:?}")) }
            })
            .await
        };
        guarded(6).await;

        case.buildkite.jobs("linux", 3);
        case.reaches("linux", 4, SHRINKS).await;
        let busy = guarded(3).await;
        let left = living(case, OURS).await;
        assert!(busy.is_subset(&left), "{busy:?} run jobs, {left:?} are left");

        let pods: Api<Pod> = Api::namespaced(case.admin.clone(), &case.namespace);
        let how = EvictParams::default();
        for pod in &left {
            // What the budget refuses (429) the client tries again and again, as a drain does.
            let evicting = pods.evict(pod, &how);
            match tokio::time::timeout(Duration::from_secs(5), evicting).await {
                Err(_still_refused) if busy.contains(pod) => {}
                Ok(Ok(_)) if !busy.contains(pod) => {}
                other => panic!("{pod} is {}: {other:?}", if busy.contains(pod) { "busy" } else { "idle" }),
            }
        }
        assert!(busy.is_subset(&living(case, OURS).await), "none of them was evicted");
    })
    .await;
}
