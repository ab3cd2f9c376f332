//! Real agents taken away by the hundred while jobs come and go: none loses its job.

use std::{collections::BTreeMap, time::Duration};

use kitepool_world::Chance;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{SHRINKS, SOON};
use crate::{
    harness::{
        agents::{Agents, QUEUE},
        pools::{pool, with},
        processes::process_case,
    },
    process_kubelet::ledger::{What, Why},
};

/// How many agents are to be taken away; `KITEPOOL_E2E_REMOVALS` asks for more.
const REMOVALS: usize = 60;
/// The same stream of jobs again; `KITEPOOL_E2E_SEED` asks for another.
const SEED: u64 = 1;
/// The largest pool: some two gigabytes of agents.
const MAX: u32 = 40;
/// What is taken down of more would fill the record.
const RECORDED_MAX: usize = 200;
/// A wave comes and goes within this.
const WAVE: Duration = Duration::from_mins(2);

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// The controller's count of agents that are gone, by cause.
fn gone(metrics: &str) -> BTreeMap<String, u64> {
    let series = metrics.lines().filter_map(|line| line.strip_prefix("kitepool_agents_gone_total{"));
    let mut causes = BTreeMap::new();
    for (labels, value) in series.filter_map(|line| line.split_once("} ")) {
        let cause = labels.split("cause=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a cause");
        *causes.entry(cause.to_owned()).or_default() += value.parse::<u64>().expect("a count");
    }
    causes.retain(|_, count| *count > 0);
    causes
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn agents_are_taken_away_by_the_hundred_and_no_job_is_lost() {
    let wanted =
        usize::try_from(setting("KITEPOOL_E2E_REMOVALS", u64::try_from(REMOVALS).expect("small"))).expect("a number");
    let seed = setting("KITEPOOL_E2E_SEED", SEED);
    let waves = u32::try_from(wanted).expect("a number") / 10 + 3;
    process_case("agents-removals", 3, WAVE * waves, async |case| {
        let agents = Agents::start(case, 2, |_| {}).await;
        let replica = case.replica_for(&agents.endpoint(), wanted <= RECORDED_MAX).await;
        case.history.bound(QUEUE, 0..=i32::try_from(MAX).expect("small"));
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "max": MAX } } }))).await;
        case.condition(QUEUE, "LoadFresh", "True", SOON).await;

        let removed = || {
            let entries = agents.kubelet.ledger().entries();
            entries.iter().filter(|entry| entry.what == What::Signalled(15, Why::Deleted)).count()
        };
        let mut chance = Chance::new(seed, "jobs and pauses");
        let began = Instant::now();
        while removed() < wanted {
            // A wave: many short jobs, some that outlive the shrink after it, and stragglers that come while it goes on.
            let mut some = |least: u32, more: u32| least + chance.below(more);
            agents.submit(usize::try_from(some(15, MAX - 14)).expect("small"), 1);
            agents.submit(usize::try_from(some(1, 6)).expect("small"), 35);
            for _ in 0..some(3, 6) {
                sleep(Duration::from_millis(some(500, 5_500).into())).await;
                agents.submit(1, some(1, 10));
            }
            sleep(Duration::from_millis(some(5_000, 25_000).into())).await;
        }
        agents.all_end(Duration::from_mins(2)).await;
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.all_leave(SOON * 2).await;

        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        let (removed, records) = (removed(), agents.records());
        let busy = records.iter().filter(|record| agents.was_signalled_during(record)).count();
        let stranded = records.iter().filter(|record| record.assignments > 1).count();
        let (_, metrics) = replica.controller.get("/metrics").await.expect("an answer");
        let gone = gone(&metrics);
        agents.tell(&format!(
            "seed {seed}: {removed} agents taken away in {:.0?}: 0 jobs killed, {busy} agents busy when they were told, {stranded} \
             jobs stranded; gone by cause: {gone:?}",
            began.elapsed()
        ));
        // One in a thousand, and one that chance allows.
        assert!(busy <= 1 + removed / 1_000, "{busy} of {removed} were busy");
        assert!(stranded <= 1 + removed / 1_000, "{stranded} jobs stranded");
        assert_eq!(gone.keys().collect::<Vec<_>>(), ["chosen"], "pods that went were not those that were chosen");
        assert_eq!(gone["chosen"], u64::try_from(removed).expect("a number"));
    })
    .await;
}
