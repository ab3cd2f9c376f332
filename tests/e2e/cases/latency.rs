//! How long it takes from a stored event to a written scale, at the poll interval of an installation.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::SOON;
use crate::harness::{
    Case, case,
    case::Replica,
    disturbance::Record,
    eventually,
    pools::{pool, with},
};

/// Two hundred hints, spread so that each queue is quiet when the next job comes.
const QUEUES: u32 = 20;
const ROUNDS: u32 = 10;

/// Longer than readings are unsure of a hinted job.
const PAUSE: Duration = Duration::from_secs(13);

/// The budget of the architecture: a pool is raised within a second.
const WITHIN_MILLISECONDS: f64 = 1000.0;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_hint_is_answered_by_a_scale_within_a_second() {
    case("latency", Duration::from_mins(8), async |case| {
        let flags = [
            "--namespace",
            &case.namespace,
            "--buildkite-endpoint",
            &case.buildkite.endpoint(),
            "--poll-interval",
            "10s",
        ];
        let replica = case.bare_replica("a", &flags).await;
        let queues: Vec<String> = (0..QUEUES).map(|number| format!("q{number}")).collect();
        for queue in &queues {
            case.create_pool(with(pool(queue), json!({ "spec": { "scaling": { "max": 100 } } }))).await;
            case.buildkite.jobs(queue, 1);
        }
        for queue in &queues {
            case.reaches(queue, 1, SOON).await;
        }
        case.takes_hints().await;

        let measured =
            join_all(queues.iter().zip(0..).map(|(queue, number)| rounds(case, &replica, queue, number))).await;
        let mut times: Vec<f64> = measured.into_iter().flatten().collect();
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        println!(
            "event stored to scale written, {} times: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
            times.len(),
            at(50),
            at(90),
            at(99),
            at(100),
        );
        // The tail is what a machine of two cores has to spare for it while everything else runs; the middle is ours.
        assert!(at(50) < WITHIN_MILLISECONDS, "p50 is {} ms", at(50));
    })
    .await;
}

/// One job more in each round, each told by a hint; the milliseconds until the scale for it was answered.
async fn rounds(case: &Case, replica: &Replica, queue: &str, number: u32) -> Vec<f64> {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        tokio::time::sleep(PAUSE).await;
        // Overshoot of the round before would hide the answer to this hint.
        stands_at(replica, queue, round + 1).await;
        // All pools shrink after the same reading: not all queues at once, and at any moment between two polls.
        tokio::time::sleep(Duration::from_millis(u64::from(number * 7919 + round * 104_729) % 10_000)).await;
        let jobs = round + 2;
        case.buildkite.jobs(queue, jobs);
        let stored = Timestamp::now();
        case.hint(queue, &format!("{queue}-{round}"), stored).await.expect("a hint");
        times.push(answered(replica, queue, jobs).await.duration_since(stored).as_secs_f64() * 1000.0);
    }
    times
}

/// What the pool of a queue was scaled to last, and when that was answered. Before the first scale it has one replica.
fn last_scale(replica: &Replica, queue: &str) -> (u64, Option<Timestamp>) {
    let path = format!("/deployments/{queue}-");
    let is_meant = |record: &Record| record.is_scale() && record.status == Some(200) && record.path.contains(&path);
    replica.proxy.latest(is_meant).map_or((1, None), |record| {
        let operations: Value = serde_json::from_str(&record.body).expect("a JSON patch");
        (operations[1]["value"].as_u64().expect("replicas"), record.answered)
    })
}

async fn stands_at(replica: &Replica, queue: &str, replicas: u32) {
    eventually(&format!("{queue} stands at {replicas}"), Duration::from_mins(2), async || {
        let (stands, _) = last_scale(replica, queue);
        if stands == u64::from(replicas) { Ok(()) } else { Err(format!("{stands}")) }
    })
    .await;
}

/// When the scale of the queue's pool to so many replicas was answered.
async fn answered(replica: &Replica, queue: &str, replicas: u32) -> Timestamp {
    for _ in 0..1000 {
        match last_scale(replica, queue) {
            (stands, Some(answered)) if stands >= u64::from(replicas) => return answered,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("no scale of {queue} to {replicas} within ten seconds");
}
