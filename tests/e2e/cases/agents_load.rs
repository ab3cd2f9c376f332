//! Real agents under the real control plane: from zero, steady, in a burst, and back to zero. No job is lost or run twice.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{SHRINKS, SOON};
use crate::harness::{
    agents::{Agents, QUEUE},
    pools::{pool, with},
    processes::process_case,
};

const DEADLINE: Duration = Duration::from_mins(5);

/// For what sixty agents need to start on two busy cores.
const MANY_SOON: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn real_agents_serve_a_queue_from_zero() {
    process_case("agents-zero", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        case.condition(QUEUE, "LoadFresh", "True", SOON).await;
        assert!(case.generations(QUEUE).await.is_empty());
        let began = Instant::now();
        agents.submit(4, 3);
        agents.run(4, SOON * 2).await;
        let running = began.elapsed();
        agents.all_end(SOON * 2).await;
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.all_leave(SOON * 2).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        for record in agents.records() {
            let by = &record.attempts.last().expect("it ran").hostname;
            assert!(
                by.as_ref().is_some_and(|pod| pod.starts_with("linux-")),
                "an agent's host is its pod: {record:#?}"
            );
        }
        agents.tell(&format!(
            "4 jobs run {running:.1?} after their submission, all is gone after {:.1?}",
            began.elapsed()
        ));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn fifty_real_agents_serve_a_steady_queue_and_none_is_signalled() {
    process_case("agents-steady", 3, DEADLINE, async |case| {
        let agents = Agents::start(case, 2, |_| {}).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=50);
        let began = Instant::now();
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "min": 50, "max": 50 } } }))).await;
        case.reaches(QUEUE, 50, MANY_SOON).await;
        let ready = began.elapsed();
        case.history.bound(QUEUE, 50..=50);
        for _ in 0..25 {
            agents.submit(5, 2);
            sleep(Duration::from_secs(1)).await;
        }
        agents.all_end(SOON * 3).await;
        assert_eq!(case.size(QUEUE).await.ready, 50);
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        let entries = agents.kubelet.ledger().entries();
        assert_eq!(entries.len(), 50, "fifty starts, and nothing after that: {entries:#?}");
        assert_eq!(agents.connections().len(), 50);
        agents.tell(&format!("50 agents ready after {ready:.1?}"));
        case.history.bound(QUEUE, 0..=50);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_burst_of_two_hundred_jobs_is_run_by_sixty_real_agents_which_then_go() {
    process_case("agents-burst", 4, DEADLINE, async |case| {
        let agents = Agents::start(case, 2, |_| {}).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=60);
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "max": 60 } } }))).await;
        case.condition(QUEUE, "LoadFresh", "True", SOON).await;
        let began = Instant::now();
        agents.submit(200, 3);
        agents.all_end(MANY_SOON).await;
        let ended = began.elapsed();
        assert_eq!(case.history.sizes(QUEUE).into_iter().max(), Some(60));
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.all_leave(SOON * 2).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        agents.tell(&format!("200 jobs over after {ended:.1?}, all is gone after {:.1?}", began.elapsed()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn only_idle_ones_of_real_agents_are_taken_away_while_others_run_jobs() {
    process_case("agents-decay", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=20);
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "max": 20 } } }))).await;
        // Twelve that are soon over let the pool shrink while eight go on.
        agents.submit(12, 2);
        agents.submit(8, 40);
        case.reaches(QUEUE, 20, MANY_SOON).await;
        let began = Instant::now();
        case.reaches(QUEUE, 8, SHRINKS * 2).await;
        let shrunk = began.elapsed();
        agents.all_end(MANY_SOON).await;
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.all_leave(MANY_SOON).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        let busy = agents.signalled_during().len();
        assert_eq!(busy, 0, "agents had to leave while they were busy");
        agents.tell(&format!("shrunk to 8 after {shrunk:.1?}; {busy} agents had to leave while they were busy"));
    })
    .await;
}
