//! How long it takes from a stored event to a written scale.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::SOON;
use crate::{
    harness::{
        case,
        case::Replica,
        eventually,
        pools::{pool, with},
    },
    simulated_kubelet::Fate,
};

const HINTS: u32 = 200;

/// The budget of the architecture: a pool is raised within a second.
const WITHIN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_hint_is_answered_by_a_scale_within_a_second() {
    case("latency", Duration::from_mins(5), async |case| {
        case.takes_hints().await;
        // Agents that never come up leave all jobs waiting, so that each hint asks for one pod more and nothing else does.
        case.kubelet.learn(|habits| habits.fate = Fate::Unready);
        let replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "scaling": { "min": 1, "max": 1000 } } }))).await;
        case.buildkite.jobs("linux", 1);
        eventually("the pool is there", SOON, async || {
            let size = case.size("linux").await;
            if size.replicas == 1 { Ok(()) } else { Err(format!("{size:?}")) }
        })
        .await;

        let mut times = Vec::new();
        for hint in 1..=HINTS {
            let stored = Timestamp::now();
            case.hint("linux", &format!("measured-{hint}"), stored).await.expect("a hint");
            times.push(answered(&replica, hint + 1).await.duration_since(stored).as_secs_f64() * 1000.0);
            // Only now does the next reading know of the job, so that it was the hint that raised the pool.
            case.buildkite.jobs("linux", hint + 1);
            tokio::time::sleep(Duration::from_millis(u64::from(hint % 7) * 23)).await;
        }
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        println!(
            "event stored to scale written, {HINTS} times: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
            at(50),
            at(90),
            at(99),
            at(100),
        );
        assert!(at(99) < WITHIN.as_secs_f64() * 1000.0, "p99 is {} ms", at(99));
    })
    .await;
}

/// When the scale to so many replicas was answered.
async fn answered(replica: &Replica, replicas: u32) -> Timestamp {
    let wanted = format!("\"value\":{replicas}");
    for _ in 0..2000 {
        let scale = replica
            .proxy
            .latest(|record| record.is_scale() && record.status == Some(200) && record.body.contains(&wanted));
        if let Some(answered) = scale.and_then(|record| record.answered) {
            return answered;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no scale to {replicas} within ten seconds");
}
