//! The way to the API server is disturbed: it restarts, watches break, answers get lost, calls take long.

use std::{sync::Arc, time::Duration};

use hyper::Method;

use super::{SHRINKS, SOON};
use crate::harness::{
    case, case_on, chart,
    control_plane::{self, ControlPlane},
    disturbance::{Treatment, Which, is_lease, is_write},
    pools::pool,
};

const DEADLINE: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_burst_is_answered_although_the_api_server_restarts_in_the_middle() {
    if control_plane::is_foreign() {
        println!("left out: this case restarts the API server, which is somebody else's");
        return;
    }
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start(None)).await.expect("a control plane");
    let plane = Arc::new(plane);
    chart::install_definitions(plane.access.clone()).await;
    case_on(plane.access.clone(), "restart", DEADLINE, async |case| {
        let mut replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 3);
        case.reaches("linux", 3, SOON).await;
        case.history.bound("linux", 3..=10);

        case.buildkite.jobs("linux", 9);
        let restarting = Arc::clone(&plane);
        let restart = tokio::task::spawn_blocking(move || restarting.restart_api_server());
        case.hint("linux", "lost-perhaps", jiff::Timestamp::now()).await.ok();
        restart.await.expect("the API server is back");
        case.reaches("linux", 9, Duration::from_mins(1)).await;

        case.history.bound("linux", 0..=10);
        case.buildkite.jobs("linux", 0);
        case.reaches("linux", 0, Duration::from_secs(90)).await;
        assert!(replica.controller.is_running(), "it was never ended by it");
        assert!(case.events("linux").await.iter().all(|(reason, _)| reason != "ForeignScale"));
    })
    .await;
    let plane = Arc::into_inner(plane).expect("the only one");
    drop(tokio::task::spawn_blocking(move || drop(plane)).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn watches_that_break_again_and_again_lose_nothing() {
    case("cut", DEADLINE, async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        for jobs in [2, 5, 7] {
            replica.proxy.cut_watches();
            case.buildkite.jobs("linux", jobs);
            replica.proxy.cut_watches();
            case.reaches("linux", i32::try_from(jobs).expect("small"), SOON).await;
        }
        replica.proxy.cut_watches();
        case.change_pool("linux", serde_json::json!({ "spec": { "scaling": { "min": 9 } } })).await;
        case.reaches("linux", 9, SOON).await;
        assert!(case.events("linux").await.iter().all(|(reason, _)| reason != "ForeignScale"));
    })
    .await;
}

/// A few answers to these writes get lost each time: the writes land, and the controller hears nothing of it.
async fn answers_get_lost(name: &str, which: Which) {
    case(name, DEADLINE, async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        case.history.bound("linux", 0..=6);

        for (jobs, within) in [(4, SOON), (6, SOON), (0, Duration::from_secs(90))] {
            replica.proxy.treat_next(2, which, Treatment::LoseAnswer);
            case.buildkite.jobs("linux", jobs);
            case.reaches("linux", i32::try_from(jobs).expect("small"), within).await;
        }
        let generations = case.generations("linux").await;
        assert_eq!(generations.len(), 1, "created once");
        assert!(case.events("linux").await.iter().all(|(reason, _)| reason != "ForeignScale"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn scales_and_creations_whose_answers_get_lost_are_not_taken_for_somebody_elses() {
    answers_get_lost("lostscale", |method, path| is_write(method, path) && path.contains("/deployments")).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn statuses_whose_answers_get_lost_hold_nothing_up() {
    answers_get_lost("loststatus", |method, path| is_write(method, path) && path.contains("/agentpools")).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn refused_writes_are_tried_again_with_patience_and_the_pool_gets_there() {
    case("refused", DEADLINE, async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        let start = jiff::Timestamp::now();
        replica.proxy.treat(is_write, Treatment::Refuse);
        case.buildkite.jobs("linux", 4);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let attempts = replica.proxy.writes_since(start).len();
        assert!((3..60).contains(&attempts), "{attempts} attempts in 30 s");
        replica.proxy.behave();
        case.reaches("linux", 4, SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn one_pool_whose_writes_hang_delays_no_other() {
    case("hangs", DEADLINE, async |case| {
        let replica = case.controller().await;
        for name in ["slow", "quick"] {
            case.create_pool(pool(name)).await;
            case.condition(name, "LoadFresh", "True", SOON).await;
        }
        let of_slow = |_: &Method, path: &str| path.contains("/slow");
        replica.proxy.treat(of_slow, Treatment::Delay(Duration::from_mins(10)));
        for (jobs, within) in [(2, 10), (4, 10), (6, 10)] {
            case.buildkite.jobs("slow", jobs);
            case.buildkite.jobs("quick", jobs);
            case.reaches("quick", i32::try_from(jobs).expect("small"), Duration::from_secs(within)).await;
        }
        replica.proxy.behave();
        case.reaches("slow", 6, SHRINKS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_slow_api_server_costs_time_and_nothing_else() {
    case("slow", DEADLINE, async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        case.history.bound("linux", 0..=8);
        let calls = |method: &Method, path: &str| is_write(method, path) || is_lease(path);
        replica.proxy.treat(calls, Treatment::Delay(Duration::from_secs(2)));
        case.buildkite.jobs("linux", 8);
        case.reaches("linux", 8, Duration::from_secs(40)).await;
        case.buildkite.jobs("linux", 0);
        case.reaches("linux", 0, Duration::from_mins(2)).await;
        assert!(case.events("linux").await.iter().all(|(reason, _)| reason != "ForeignScale"));
    })
    .await;
}
