//! What holds for whatever is observed.

use kitepool_policy::{
    check, decide,
    decision::{Decision, Intent, StepName},
    memory::{CONTESTED_AFTER, Memory, PEAKS_MAX},
    observation::{PoolObservation, QueueObservation},
    spec::Mode,
    trust::Trust,
    units::{Jobs, Pods},
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm},
};

use crate::{
    arbitrary,
    build::{at, carry_out, decide_one, load, pool, queue, read_again},
};

/// At least ten thousand cases, more if the environment says so.
pub(crate) fn thorough() -> Config {
    let asked = Config::default();
    // The quickest of the generators: thousands of cases are to be drawn, and no secret depends on them.
    Config { cases: asked.cases.max(10_000), rng_algorithm: RngAlgorithm::XorShift, ..asked }
}

fn pool_of<'a>(queue: &'a QueueObservation, decision: &Decision) -> &'a PoolObservation {
    queue.pools.iter().find(|pool| pool.spec.name == decision.pool).unwrap()
}

fn every_decision_passes_the_check(queue: &QueueObservation, decisions: &[Decision]) {
    assert_eq!(decisions.len(), queue.pools.len());
    assert_eq!(check(queue, decisions, at(0)), []);
}

fn not_knowing_takes_nothing_away(queue: &QueueObservation, decision: &Decision) {
    let pool = pool_of(queue, decision);
    if Trust::of(&queue.reading, pool.spec.stale_after, at(0)).known().is_none() {
        let lowers = |intent: &Intent| matches!(intent, Intent::Scale { from, to, .. } if to < from);
        assert!(decision.target >= pool.replicas() && !decision.intents.iter().any(lowers));
    }
}

fn growth_ends_at_max(queue: &QueueObservation, decision: &Decision) {
    let pool = pool_of(queue, decision);
    assert!(decision.target <= pool.spec.limits.max().max(pool.replicas()));
}

fn every_step_says_what_it_did(decision: &Decision) {
    let steps: Vec<StepName> = decision.report.entries.iter().map(|entry| entry.step).collect();
    assert_eq!(steps, StepName::ALL);
    for entry in &decision.report.entries {
        assert!(!entry.reason.to_string().is_empty());
        if matches!(entry.step, StepName::Stabilise | StepName::Limits) && entry.reason.category() == "Unchanged" {
            assert!(entry.input == entry.output || cooled(decision), "{entry:?}");
        }
    }
    assert!(decision.report.deciding().is_some());
}

/// Of one pool, rounds that are under way among it: writing and reading take as long as deciding.
fn a_restart_forgets_nothing(queue: &QueueObservation) {
    if let Some(pool) = queue.pools.first() {
        let written = serde_json::to_string(&pool.memory).unwrap();
        assert_eq!(serde_json::from_str::<Memory>(&written).unwrap(), pool.memory);
    }
}

fn the_order_of_pools_changes_nothing(mut queue: QueueObservation, decisions: &[Decision]) {
    if queue.pools.len() < 2 {
        return;
    }
    queue.pools.reverse();
    assert_eq!(decide(&queue, at(0)), decisions);
}

fn deciding_again_after_acting_changes_nothing(mut queue: QueueObservation) {
    // Where nothing is carried out, there is no acting to decide after.
    queue.pools.retain(|pool| pool.spec.mode == Mode::Active);
    let first = decide(&queue, at(0));
    carry_out(&mut queue, &first);
    let second = decide(&queue, at(0));
    every_decision_passes_the_check(&queue, &second);
    for (before, after) in first.iter().zip(second) {
        // Taking away goes step by step: a round that closes, or an empty generation that is deleted, may let the next begin, and
        // where a pool rolls the place that it leaves is taken. That is held to the check, and to the invariants over whole
        // histories; a pool never grows twice.
        let grown: i64 = after.intents.iter().map(growth).sum();
        let is_next_step = after.intents.is_empty() || after.intents.iter().any(|intent| growth(intent) < 0);
        assert!(is_next_step && grown <= 0, "{:?} after {:?}", after.intents, before.intents);
        assert!(after.foreign.is_empty());
    }
}

/// By how many pods.
fn growth(intent: &Intent) -> i64 {
    match intent {
        Intent::Create { replicas, .. } => replicas.0.into(),
        Intent::Scale { from, to, .. } => i64::from(to.0) - i64::from(from.0),
        Intent::Delete { .. } => 0,
    }
}

fn remember(queue: &mut QueueObservation, decisions: &[Decision]) {
    for decision in decisions {
        let pool = queue.pools.iter_mut().find(|pool| pool.spec.name == decision.pool).unwrap();
        pool.memory = decision.memory.clone();
    }
}

/// Once a round is recorded, which is an act of its own, it may go on by what pods bear and say already.
fn deciding_again_without_acting_decides_the_same(mut queue: QueueObservation, first: &[Decision]) {
    remember(&mut queue, first);
    let second = decide(&queue, at(0));
    remember(&mut queue, &second);
    for (before, after) in second.iter().zip(decide(&queue, at(0))) {
        assert_eq!(before.memory, after.memory, "nothing new was decided");
        let raises = |decision: &Decision| -> Vec<Intent> {
            let rises = |intent: &&Intent| !matches!(intent, Intent::Scale { from, to, .. } if to < from);
            decision.intents.iter().filter(rises).cloned().collect()
        };
        // A roll's surge waits for a reading that knows the one before, carried out or not.
        if before.foreign.is_empty() && !pool_of(&queue, before).is_rolling() {
            assert_eq!(raises(before), raises(&after));
        }
    }
}

/// For a pool of one generation: where nothing failed, it would grow no less and shrink no less.
fn pods_that_fail_only_stand_against_growth(mut queue: QueueObservation, target: Pods) {
    let current = queue.pools[0].replicas();
    let pods = &mut queue.pools[0].generations[0].pods;
    (pods.failing, pods.unscheduled) = (Pods::ZERO, Pods::ZERO);
    let without = decide(&queue, at(0))[0].target;
    assert!(if without > current { (current..=without).contains(&target) } else { target == without });
}

proptest! {
    #![proptest_config(thorough())]

    /// One draw for all of them: drawing takes most of the time.
    #[test]
    fn whatever_is_observed_a_decision_is_sound(queue in arbitrary::queues()) {
        let decisions = decide(&queue, at(0));
        every_decision_passes_the_check(&queue, &decisions);
        for decision in &decisions {
            not_knowing_takes_nothing_away(&queue, decision);
            growth_ends_at_max(&queue, decision);
            every_step_says_what_it_did(decision);
        }
        a_restart_forgets_nothing(&queue);
        the_order_of_pools_changes_nothing(queue.clone(), &decisions);
        deciding_again_without_acting_decides_the_same(queue.clone(), &decisions);
        deciding_again_after_acting_changes_nothing(queue);
    }

    #[test]
    fn more_jobs_never_make_fewer_pods(mut queue in arbitrary::queues_of_one(), more in 0_u32..50) {
        // What is replaced counts no step, unless a step holds back more than that.
        queue.pools[0].generations[0].pods.leaving = Pods::ZERO;
        // Fewer queued than were stuck: some have started, and all count again. That is more from fewer, and meant.
        let scheduled = queue.reading.last_good.map_or(Jobs::ZERO, |good| good.load.scheduled);
        let memory = &mut queue.pools[0].memory;
        memory.unsatisfiable = memory.unsatisfiable.filter(|found| found.jobs <= scheduled);
        let mut busier = queue.clone();
        if let Some(good) = &mut busier.reading.last_good {
            good.load.scheduled = good.load.scheduled.plus(Jobs(more));
        }
        // When pods go depends on how far they have been asked; how many are gone for does not.
        let goal = |decision: &Decision| decision.report.entry(StepName::Limits).unwrap().output;
        let (decision, busier) = (decide(&queue, at(0)).remove(0), decide(&busier, at(0)).remove(0));
        prop_assert!(goal(&decision) <= goal(&busier));
        pods_that_fail_only_stand_against_growth(queue, decision.target);
    }

    #[test]
    fn a_memory_stays_small_whatever_happens(
        mut memory in arbitrary::memories(),
        wants in proptest::collection::vec((0_u32..50, -5_i64..60), 1..6),
    ) {
        let mut queue = queue(load(0, 0, 0), vec![pool(5)]);
        memory.foreign.truncate(CONTESTED_AFTER);
        memory.peaks.truncate(PEAKS_MAX);
        queue.pools[0].memory = memory;
        let mut now = 0;
        for (scheduled, pause) in wants {
            now += pause;
            read_again(&mut queue, load(scheduled, 0, 5), at(now));
            let decision = decide_one(&queue, at(now));
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
    assert_eq!(decide(&queue(load(5, 5, 5), Vec::new()), at(0)), []);
}
