//! What a real controller has recorded can be found fault with: the check at the end of every case is not an empty one.

use std::time::Duration;

use kitepool_policy::{
    decision::{Intent, StepName},
    units::Pods,
};

use super::{SHRINKS, SOON};
use crate::harness::{Case, case, pools::pool, records::Records};

const DEADLINE: Duration = Duration::from_mins(2);

/// A fault is looked for in a copy; the record itself stays as it was.
fn falsified(case: &Case, falsify: impl FnOnce(&mut Records)) -> String {
    let mut records = case.records();
    assert_eq!(records.violations(), Vec::<String>::new());
    falsify(&mut records);
    records.violations().join("\n")
}

/// A shrink that takes all pods, two of which have a job; the books say so as well.
fn take_all(records: &mut Records) {
    let mut taken = 0;
    for decision in records.ticks_mut().flat_map(|tick| &mut tick.decisions) {
        for intent in &mut decision.intents {
            if let Intent::Scale { generation, from, to } = intent
                && to < from
            {
                (*to, decision.target) = (Pods::ZERO, Pods::ZERO);
                decision.memory.asked.get_mut(generation).expect("in the books").to = Pods::ZERO;
                taken += 1;
            }
        }
    }
    assert!(taken > 0, "no shrink was recorded");
}

/// Two more agents are wanted than were ever asked for.
fn want_more(records: &mut Records) {
    for decision in records.ticks_mut().flat_map(|tick| &mut tick.decisions) {
        let spare = decision.report.entries.iter_mut().find(|entry| entry.step == StepName::Spare);
        spare.expect("a step").output += 2;
    }
}

/// No reading was there to go by.
fn forget_readings(records: &mut Records) {
    records.ticks_mut().for_each(|tick| tick.queue.reading.last_good = None);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_falsified_record_is_found_out() {
    case("falsified", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 4);
        case.reaches("linux", 4, SOON).await;
        // Long enough for a growth that never comes to be missed.
        case.keeps("linux", 4..=4, Duration::from_secs(15)).await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SHRINKS).await;

        let found = falsified(case, take_all);
        assert!(found.contains("floor at") && found.contains("for 2 running jobs"), "{found}");
        let found = falsified(case, want_more);
        assert!(found.contains("progress at"), "{found}");
        let found = falsified(case, forget_readings);
        assert!(found.contains("fail_safe at"), "{found}");
    })
    .await;
}
