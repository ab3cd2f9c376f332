//! What holds for whatever is observed.

use kitepool_policy::{
    check, decide,
    decision::{Decision, Intent, StepName},
    memory::{CONTESTED_AFTER, Memory, PEAKS_MAX},
    observation::QueueObservation,
    spec::Mode,
    trust::Trust,
    units::{Jobs, Pods},
};
use proptest::{prelude::*, test_runner::Config};

use crate::{
    arbitrary,
    build::{at, carry_out},
};

/// At least ten thousand cases, more if the environment says so.
pub(crate) fn thorough() -> Config {
    let asked = Config::default();
    Config { cases: asked.cases.max(10_000), ..asked }
}

fn lowered(queue: &QueueObservation, decision: &Decision) -> bool {
    let pool = queue.pools.iter().find(|pool| pool.spec.name == decision.pool).unwrap();
    decision.target < pool.replicas()
        || decision.intents.iter().any(|intent| matches!(intent, Intent::Scale { from, to, .. } if to < from))
}

proptest! {
    #![proptest_config(thorough())]

    #[test]
    fn every_decision_passes_the_check(queue in arbitrary::queue()) {
        let decisions = decide(&queue, at(0));
        prop_assert_eq!(decisions.len(), queue.pools.len());
        let wrong = check(&queue, &decisions, at(0));
        prop_assert!(wrong.is_empty(), "{:#?}", wrong);
    }

    #[test]
    fn deciding_again_after_acting_changes_nothing(mut queue in arbitrary::queue()) {
        // Where nothing is carried out, there is no acting to decide after.
        queue.pools.retain(|pool| pool.spec.mode == Mode::Active);
        let first = decide(&queue, at(0));
        carry_out(&mut queue, &first);
        for (before, after) in first.iter().zip(decide(&queue, at(0))) {
            prop_assert!(after.intents.is_empty(), "{:?} after {:?}", after.intents, before.intents);
            prop_assert!(after.foreign.is_empty());
        }
    }

    #[test]
    fn deciding_again_without_acting_decides_the_same(mut queue in arbitrary::queue()) {
        let first = decide(&queue, at(0));
        for decision in &first {
            let pool = queue.pools.iter_mut().find(|pool| pool.spec.name == decision.pool).unwrap();
            pool.memory = decision.memory.clone();
        }
        for (before, after) in first.iter().zip(decide(&queue, at(0))) {
            prop_assert_eq!(&before.memory, &after.memory, "nothing new was decided");
            let pool = queue.pools.iter().find(|pool| pool.spec.name == before.pool).unwrap();
            let raises = |decision: &Decision| -> Vec<Intent> {
                let rises = |intent: &&Intent| !matches!(intent, Intent::Scale { from, to, .. } if to < from);
                decision.intents.iter().filter(rises).cloned().collect()
            };
            // A roll's surge waits for a reading that knows the one before, carried out or not.
            if before.foreign.is_empty() && !pool.is_rolling() {
                prop_assert_eq!(raises(before), raises(&after));
            }
        }
    }

    #[test]
    fn not_knowing_takes_nothing_away(queue in arbitrary::queue()) {
        for decision in decide(&queue, at(0)) {
            let pool = queue.pools.iter().find(|pool| pool.spec.name == decision.pool).unwrap();
            if Trust::of(&queue.reading, pool.spec.stale_after, at(0)).known().is_none() {
                prop_assert!(!lowered(&queue, &decision), "{:?}", decision.intents);
            }
        }
    }

    #[test]
    fn a_restart_between_any_two_ticks_changes_nothing(queue in arbitrary::queue()) {
        let mut restarted = queue.clone();
        for pool in &mut restarted.pools {
            let written = serde_json::to_string(&pool.memory).unwrap();
            pool.memory = serde_json::from_str(&written).unwrap();
        }
        prop_assert_eq!(decide(&queue, at(0)), decide(&restarted, at(0)));
    }

    #[test]
    fn the_order_of_pools_and_hints_does_not_matter(queue in arbitrary::queue()) {
        let mut turned = queue.clone();
        turned.pools.reverse();
        turned.hints.reverse();
        prop_assert_eq!(decide(&queue, at(0)), decide(&turned, at(0)));
    }

    #[test]
    fn a_doubled_event_changes_nothing(mut queue in arbitrary::queue()) {
        let once = decide(&queue, at(0));
        queue.hints.extend(queue.hints.clone());
        prop_assert_eq!(once, decide(&queue, at(0)));
    }

    #[test]
    fn every_step_says_what_it_did(queue in arbitrary::queue()) {
        for decision in decide(&queue, at(0)) {
            let steps: Vec<StepName> = decision.report.entries.iter().map(|entry| entry.step).collect();
            prop_assert_eq!(&steps[..], &StepName::ALL[..]);
            for entry in &decision.report.entries {
                prop_assert!(!entry.reason.to_string().is_empty());
                if matches!(entry.step, StepName::Stabilise | StepName::Limits) {
                    let silent = entry.reason.category() == "Unchanged";
                    prop_assert!(!silent || entry.input == entry.output || cooled(&decision), "{entry:?}");
                }
            }
            prop_assert!(decision.report.deciding().is_some());
        }
    }

    #[test]
    fn growth_ends_at_max_and_keeps_to_its_step(queue in arbitrary::queue()) {
        for decision in decide(&queue, at(0)) {
            let pool = queue.pools.iter().find(|pool| pool.spec.name == decision.pool).unwrap();
            if decision.target > pool.replicas() {
                prop_assert!(decision.target <= pool.spec.limits.max());
            }
        }
    }

    #[test]
    fn more_jobs_never_make_fewer_pods(queue in arbitrary::queue_of_one(), more in 0_u32..50) {
        let mut busier = queue.clone();
        if let Some(good) = &mut busier.reading.last_good {
            good.load.scheduled = good.load.scheduled.plus(Jobs(more));
        }
        prop_assert!(decide(&queue, at(0))[0].target <= decide(&busier, at(0))[0].target);
    }

    #[test]
    fn a_memory_stays_small_whatever_happens(
        mut memory in arbitrary::memory(),
        wants in proptest::collection::vec((0_u32..50, -5_i64..60), 1..40),
    ) {
        let mut queue = crate::build::queue(crate::build::load(0, 0, 0), vec![crate::build::pool(5)]);
        memory.foreign.truncate(CONTESTED_AFTER);
        memory.peaks.truncate(PEAKS_MAX);
        queue.pools[0].memory = memory;
        let mut now = 0;
        for (scheduled, pause) in wants {
            now += pause;
            crate::build::read_again(&mut queue, crate::build::load(scheduled, 0, 5), at(now));
            let decision = crate::build::decide_one(&queue, at(now));
            let Memory { peaks, asked, foreign, want, .. } = &decision.memory;
            prop_assert!(peaks.len() <= PEAKS_MAX && asked.len() <= 1 && foreign.len() <= CONTESTED_AFTER);
            prop_assert!(peaks.is_sorted_by(|a, b| a.until < b.until && a.want > b.want), "{peaks:?}");
            prop_assert!(peaks.last().is_none_or(|last| Some(last.want) > *want), "{peaks:?} above {want:?}");
            queue.pools[0].memory = decision.memory;
        }
    }
}

/// Whether the cooldown's own entry says why the limits held back.
fn cooled(decision: &Decision) -> bool {
    decision.report.entry(StepName::Stabilise).is_some_and(|entry| entry.reason.category() == "DownCooldown")
}

#[test]
fn no_pools_decide_nothing() {
    let queue = crate::build::queue(crate::build::load(5, 5, 5), Vec::new());
    assert!(decide(&queue, at(0)).is_empty());
    assert_eq!(Pods(0), queue.pools.iter().fold(Pods(0), |sum, pool| sum.plus(pool.replicas())));
}
