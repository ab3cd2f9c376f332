//! How long it takes from a stored event to a written scale, at the poll interval of an installation.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

use super::SOON;
use crate::harness::{
    Case, case,
    case::Replica,
    pools::{pool, with},
};

/// Two hundred hints, spread so that each queue is quiet when the next job comes.
const QUEUES: u32 = 20;
const ROUNDS: u32 = 10;

/// Longer than readings are unsure of a hinted job.
const ROUND: Duration = Duration::from_secs(14);

/// The budget of the architecture: a pool is raised within a second.
const WITHIN_MILLISECONDS: f64 = 1000.0;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_hint_is_answered_by_a_scale_within_a_second() {
    case("latency", Duration::from_mins(6), async |case| {
        case.takes_hints().await;
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
        tokio::time::sleep(ROUND).await;

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
        assert!(at(99) < WITHIN_MILLISECONDS, "p99 is {} ms", at(99));
    })
    .await;
}

/// One job more in each round, each told by a hint; the milliseconds until the scale for it was answered.
async fn rounds(case: &Case, replica: &Replica, queue: &str, number: u32) -> Vec<f64> {
    let mut times = Vec::new();
    let start = Instant::now();
    for round in 0..ROUNDS {
        // Not all queues at once, and at any moment between two polls.
        let offset = Duration::from_millis(u64::from(number * 7919 + round * 104_729) % 9_000);
        tokio::time::sleep_until(start + ROUND * round + offset).await;
        let jobs = round + 2;
        case.buildkite.jobs(queue, jobs);
        let stored = Timestamp::now();
        case.hint(queue, &format!("{queue}-{round}"), stored).await.expect("a hint");
        times.push(answered(replica, queue, jobs).await.duration_since(stored).as_secs_f64() * 1000.0);
    }
    times
}

/// When the scale of the queue's pool to so many replicas was answered.
async fn answered(replica: &Replica, queue: &str, replicas: u32) -> Timestamp {
    let (path, value) = (format!("/deployments/{queue}-"), format!("\"value\":{replicas}"));
    for _ in 0..1000 {
        let scale = replica.proxy.latest(|record| {
            record.is_scale()
                && record.status == Some(200)
                && record.path.contains(&path)
                && record.body.contains(&value)
        });
        if let Some(answered) = scale.and_then(|record| record.answered) {
            return answered;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no scale of {queue} to {replicas} within twenty seconds");
}
