//! When nothing changes, nothing is written.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::SOON;
use crate::harness::{
    case,
    pools::{pool, with},
};

/// A minute shows what repeats every few seconds. `KITEPOOL_E2E_IDLE_SECONDS=3600` shows an hour.
fn idle_time() -> Duration {
    let seconds = std::env::var("KITEPOOL_E2E_IDLE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(70))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_settled_cluster_sees_no_write() {
    let idle = idle_time();
    case("idle", idle + Duration::from_mins(2), async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("empty")).await;
        case.create_pool(with(pool("spare"), json!({ "spec": { "scaling": { "spare": { "agents": 2 } } } }))).await;
        case.create_pool(pool("busy")).await;
        case.create_pool(with(pool("observed"), json!({ "spec": { "mode": "Observe" } }))).await;
        case.create_pool(with(pool("broken"), json!({ "spec": { "podTemplateRef": { "name": "nowhere" } } }))).await;
        for queue in ["busy", "observed"] {
            case.buildkite.jobs(queue, 3);
        }
        case.reaches("spare", 2, SOON).await;
        case.reaches("busy", 3, SOON).await;
        case.condition("broken", "Ready", "False", SOON).await;
        tokio::time::sleep(Duration::from_secs(20)).await;

        let (since, asked) = (Timestamp::now(), case.buildkite.requests());
        tokio::time::sleep(idle).await;
        let writes: Vec<String> = replica
            .proxy
            .records()
            .iter()
            .filter(|record| {
                record.at >= since && record.method != hyper::Method::GET && !record.path.contains("/leases")
            })
            .map(ToString::to_string)
            .collect();
        assert_eq!(writes, Vec::<String>::new());

        let seconds = usize::try_from(idle.as_secs()).expect("fits");
        let requests = case.buildkite.requests() - asked;
        assert!(requests <= seconds + seconds / 10 + 5, "one poll a second for one token, there were {requests}");
        let renewals = replica
            .proxy
            .records()
            .iter()
            .filter(|record| record.at >= since && record.path.contains("/leases"))
            .count();
        println!("{seconds} s without a change: 0 writes, {renewals} calls for the lease, {requests} to Buildkite");
    })
    .await;
}
