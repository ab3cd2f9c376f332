//! Two replicas, one leads: nothing that the other one writes ever lands.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;

use super::SOON;
use crate::harness::{
    Case, case,
    case::Replica,
    chart::RELEASE,
    disturbance::{Record, Treatment, is_lease},
    eventually,
    kill_points::{Side, Victims, Write},
    pools::{pool, with},
};

const DEADLINE: Duration = Duration::from_mins(3);

/// What a lease lasts, and what a standby needs to notice its end.
const TAKEOVER: Duration = Duration::from_secs(30);

/// Who holds the lease, by the last letter of its identity.
async fn holder(case: &Case) -> Option<char> {
    let leases: Api<Lease> = Api::namespaced(case.admin.clone(), &case.namespace);
    let lease = leases.get_opt(RELEASE).await.expect("an answer")?;
    lease.spec?.holder_identity?.chars().last()
}

async fn held_by(case: &Case, wanted: char, within: Duration) {
    eventually(&format!("{wanted} holds the lease"), within, async || {
        let holder = holder(case).await;
        if holder == Some(wanted) { Ok(()) } else { Err(format!("{holder:?}")) }
    })
    .await;
}

/// Whether it believes that it leads; `None` when it does not answer.
async fn leads(replica: &Replica) -> Option<bool> {
    let (_, text) = replica.controller.get("/metrics").await.ok()?;
    text.lines().find_map(|line| line.strip_prefix("kitepool_leader ")).map(|value| value.trim() == "1")
}

/// What reached the API server from a replica since then.
fn landed(replica: &Replica, since: Timestamp) -> Vec<String> {
    let writes = replica.proxy.writes_since(since);
    writes.iter().filter(|write| write.status.is_some_and(|status| status < 300)).map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_leader_that_stood_still_writes_nothing_when_it_goes_on() {
    case("frozen", DEADLINE, async |case| {
        let a = case.replica("a", &[]).await;
        held_by(case, 'a', SOON).await;
        let _b = case.replica("b", &[]).await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SOON).await;

        // In the middle of its work: it knows of jobs that it has not answered yet.
        case.buildkite.jobs("linux", 4);
        a.controller.freeze();
        held_by(case, 'b', TAKEOVER).await;
        let taken = Timestamp::now();
        case.reaches("linux", 4, SOON).await;
        for jobs in [5, 6, 7] {
            case.buildkite.jobs("linux", jobs);
            case.reaches("linux", i32::try_from(jobs).expect("small"), SOON).await;
        }
        a.controller.thaw();
        case.keeps("linux", 7..=7, Duration::from_secs(12)).await;
        case.buildkite.jobs("linux", 9);
        case.reaches("linux", 9, SOON).await;
        assert_eq!(landed(&a, taken), Vec::<String>::new());
        assert_eq!(leads(&a).await, Some(false));
        held_by(case, 'b', SOON).await;
        assert!(case.events("linux").await.iter().all(|(reason, _)| reason != "ForeignScale"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn two_replicas_that_see_a_free_lease_do_not_both_lead() {
    case("race", DEADLINE, async |case| {
        // B has read that the lease is free, and its claim is on the way while A takes the lease.
        let b = case.replica("b", &[]).await;
        b.proxy.treat(
            |method, path| is_lease(path) && *method != hyper::Method::GET,
            Treatment::Delay(Duration::from_secs(3)),
        );
        let a = case.replica("a", &[]).await;
        let start = tokio::time::Instant::now();
        while start.elapsed() < Duration::from_secs(25) {
            let (a_leads, b_leads) = tokio::join!(leads(&a), leads(&b));
            assert!(a_leads != Some(true) || b_leads != Some(true), "both lead after {:?}", start.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_leader_that_cannot_renew_stops_before_another_begins() {
    case("norenewal", DEADLINE, async |case| {
        let a = case.replica("a", &[]).await;
        held_by(case, 'a', SOON).await;
        let b = case.replica("b", &[]).await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 1);
        case.reaches("linux", 1, SOON).await;

        a.proxy.treat(|_, path| is_lease(path), Treatment::Refuse);
        let start = tokio::time::Instant::now();
        let mut jobs = 1;
        while leads(&b).await != Some(true) {
            assert!(start.elapsed() < TAKEOVER, "nobody leads");
            // So that there is always something to write.
            jobs = 1 + jobs % 8;
            case.buildkite.jobs("linux", jobs);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let taken = Timestamp::now();
        assert_ne!(leads(&a).await, Some(true), "both lead");
        case.buildkite.jobs("linux", 9);
        case.reaches("linux", 9, SOON).await;
        assert_eq!(landed(&a, taken), Vec::<String>::new());
        a.proxy.behave();
        case.keeps("linux", 9..=9, Duration::from_secs(8)).await;
        assert_eq!(landed(&a, taken), Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_leader_that_is_asked_to_end_hands_over_before_its_lease_would_end() {
    case("handover", DEADLINE, async |case| {
        let mut a = case.replica("a", &[]).await;
        held_by(case, 'a', SOON).await;
        let b = case.replica("b", &[]).await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SOON).await;
        eventually("b stands by", SOON, async || {
            let (status, text) = b.controller.get("/readyz").await?;
            if status == 200 && text.contains("standby") { Ok(()) } else { Err(format!("{status} {text}")) }
        })
        .await;

        a.controller.terminate();
        let status = a.controller.ended(Duration::from_secs(15)).await;
        assert_eq!(status.code(), Some(0));
        // It is given back at once, and taken when the standby looks again: no later than it would have ended.
        held_by(case, 'b', Duration::from_secs(20)).await;
        case.buildkite.jobs("linux", 4);
        case.reaches("linux", 4, SOON).await;
    })
    .await;
}

/// What the status remembers that was asked for.
async fn recorded(case: &Case, pool: &str) -> Option<u64> {
    let status = case.pool(pool).await.status().clone();
    status["memory"]["asked"].as_object()?.values().next()?["to"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_raise_is_recorded_by_who_is_asked_to_end_and_found_after_who_is_killed() {
    case("unrecorded", DEADLINE, async |case| {
        case.takes_hints().await;
        let mut replica = case.replica("a", &[]).await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "scaling": { "min": 1 } } }))).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        case.reaches("linux", 1, SOON).await;
        case.keeps("linux", 1..=1, Duration::from_secs(3)).await;
        let told = async |reason: &str| case.events("linux").await.iter().any(|(told, _)| told == reason);

        // It ends at once: a report of the raise would rest for longer than that.
        let raised = Timestamp::now();
        for job in ["a", "b", "c"] {
            case.hint("linux", job, raised).await.expect("a hint");
        }
        let is_raise = |record: &Record| record.is_scale() && record.status == Some(200);
        while replica.proxy.latest(is_raise).is_none_or(|record| record.answered.is_none_or(|at| at < raised)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        replica.controller.terminate();
        replica.controller.ended(Duration::from_secs(15)).await;
        let stands = u64::try_from(case.size("linux").await.replicas).expect("no negative number");
        assert!(stands > 1);
        assert_eq!(recorded(case, "linux").await, Some(stands));
        replica.start_again();
        held_by(case, 'a', TAKEOVER).await;
        case.keeps("linux", 1..=3, Duration::from_secs(3)).await;
        assert!(!told("RaiseFound").await && !told("ForeignScale").await);

        let raise = Write::Act("scale generation 1 up".to_owned());
        replica.kill_at(Side::After, Victims::These([raise].into()));
        case.buildkite.jobs("linux", 5);
        replica.controller.ended(SOON).await;
        replica.start_again();
        eventually("the raise is found and told of", TAKEOVER, async || {
            let last = case.pool("linux").await.status()["lastDecision"].clone();
            if told("RaiseFound").await { Ok(()) } else { Err(last.to_string()) }
        })
        .await;
        assert!(!told("ForeignScale").await);
    })
    .await;
}
