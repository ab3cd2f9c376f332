//! What a person has set holds: min, max, steps, schedules, pause, observation.

use std::time::Duration;

use serde_json::json;

use super::{SHRINKS, SOON};
use crate::harness::{
    case, eventually,
    pools::{pool, with},
};

const DEADLINE: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn an_edited_pool_follows_its_new_min_and_max() {
    case("edited", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;

        case.change_pool("linux", json!({ "spec": { "scaling": { "min": 2 } } })).await;
        case.reaches("linux", 2, SOON).await;
        case.buildkite.jobs("linux", 12);
        case.reaches("linux", 10, SOON).await;
        case.change_pool("linux", json!({ "spec": { "scaling": { "max": 12 } } })).await;
        case.reaches("linux", 12, SOON).await;
        // All of them are busy, so a lowered max takes none away.
        case.change_pool("linux", json!({ "spec": { "scaling": { "max": 4 } } })).await;
        case.keeps("linux", 12..=12, Duration::from_secs(15)).await;
        case.buildkite.jobs("linux", 6);
        case.reaches("linux", 6, SHRINKS).await;
        case.buildkite.jobs("linux", 0);
        case.reaches("linux", 2, SHRINKS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn growth_goes_in_steps() {
    case("stepup", DEADLINE, async |case| {
        let _replica = case.controller().await;
        let slow =
            json!({ "spec": { "scaling": { "scaleUp": { "step": { "percent": 0, "agents": 2, "per": "4s" } } } } });
        case.create_pool(with(pool("linux"), slow)).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        case.buildkite.jobs("linux", 7);
        case.reaches("linux", 7, Duration::from_secs(40)).await;
        assert_eq!(case.history.sizes("linux"), [2, 4, 6, 7]);
        let moments = case.history.moments("linux");
        for pair in moments.windows(2) {
            let waited = pair[1].0.duration_since(pair[0].0).as_secs_f64();
            // The period runs from decision to decision, and a write may take its time.
            assert!(waited > 2.5, "two steps {waited} s apart: {moments:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_schedule_raises_the_floor_while_it_holds() {
    case("schedule", DEADLINE, async |case| {
        let _replica = case.controller().await;
        let span = |from: &str, to: &str| {
            json!({ "days": "Mon-Sun", "from": from, "to": to, "timeZone": "Europe/London", "min": 3 })
        };
        let always = json!([span("00:00", "12:00"), span("12:00", "00:00")]);
        case.create_pool(with(pool("linux"), json!({ "spec": { "scaling": { "schedules": always } } }))).await;
        case.reaches("linux", 3, SOON).await;
        case.change_pool("linux", json!({ "spec": { "scaling": { "schedules": null } } })).await;
        case.reaches("linux", 0, SHRINKS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn pause_stops_what_it_names_and_only_that() {
    case("pause", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SOON).await;

        case.annotate_pool("linux", "kitepool.dev/pause", Some("up")).await;
        case.buildkite.jobs("linux", 5);
        let held = case.condition("linux", "AtLimit", "True", SOON).await;
        assert!(held.reason == "PausedUp" && held.message.contains("kitepool.dev/pause"), "{held:?}");
        case.keeps("linux", 2..=2, Duration::from_secs(5)).await;

        case.annotate_pool("linux", "kitepool.dev/pause", Some("down")).await;
        case.reaches("linux", 5, SOON).await;
        case.buildkite.jobs("linux", 0);
        let held = case.condition("linux", "AtLimit", "True", SHRINKS).await;
        assert_eq!(held.reason, "PausedDown");
        case.keeps("linux", 5..=5, Duration::from_secs(15)).await;

        case.annotate_pool("linux", "kitepool.dev/pause", Some("all")).await;
        // A reading may come as soon as this is said; on a busy machine the watch needs a moment longer.
        tokio::time::sleep(Duration::from_secs(3)).await;
        case.buildkite.jobs("linux", 9);
        case.keeps("linux", 5..=5, Duration::from_secs(5)).await;
        case.annotate_pool("linux", "kitepool.dev/pause", None).await;
        case.reaches("linux", 9, SOON).await;
        case.condition("linux", "AtLimit", "False", SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_pool_that_only_observes_says_what_it_would_do() {
    case("observe", DEADLINE, async |case| {
        let replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "mode": "Observe" } }))).await;
        case.buildkite.jobs("linux", 4);
        eventually("the status says what would be done", SOON, async || {
            let pool = case.pool("linux").await;
            if pool.status()["lastDecision"]["to"] == 4 { Ok(()) } else { Err(pool.status().to_string()) }
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(case.generations("linux").await.is_empty());
        let touched = replica
            .proxy
            .records()
            .into_iter()
            .filter(|record| record.is_write() && record.path.contains("/deployments"));
        assert_eq!(touched.count(), 0);

        case.change_pool("linux", json!({ "spec": { "mode": "Active" } })).await;
        case.reaches("linux", 4, SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_dry_run_writes_nothing_but_its_lease() {
    case("dryrun", DEADLINE, async |case| {
        let mut replica = case.replica("a", &["--dry-run"]).await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 4);
        eventually("the log says what would be done", SOON, async || {
            let log = replica.controller.logged();
            if log.contains("would") || log.contains("dry") { Ok(()) } else { Err(log) }
        })
        .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let writes: Vec<String> = replica
            .proxy
            .records()
            .iter()
            .filter(|record| record.method != hyper::Method::GET && !record.path.contains("/leases"))
            .map(ToString::to_string)
            .collect();
        assert!(writes.is_empty(), "{writes:?}");
        assert!(replica.controller.is_running());
    })
    .await;
}
