//! The breaker: pods that do not come up are not multiplied, and nothing else changes.

use kitepool_policy::{
    breaker::{PROBES, UNSCHEDULED_MAX, holds},
    decide,
    decision::StepName,
    memory::{Failing, Memory},
    observation::{PodCounts, PoolObservation, QueueObservation},
    spec::{Limits, Pause, ScaleDown},
    units::Pods,
};

use crate::build::{
    at, carry_out, category, decide_one, entry, generation, load, name, pool, queue, read_again, scale, secs, step,
};

/// A pool with so many ready pods and so many that fail, and its queue with so many jobs queued.
fn failing(scheduled: u32, ready: u32, failing: u32) -> QueueObservation {
    let mut queue = queue(load(scheduled, ready, 0), vec![pool(ready + failing)]);
    set(&mut queue.pools[0], ready, failing);
    queue
}

fn set(pool: &mut PoolObservation, ready: u32, failing: u32) {
    let pods = PodCounts { ready: Pods(ready), unready: Pods(failing), failing: Pods(failing), ..PodCounts::default() };
    let wanted = pool.wanted_generation.clone().unwrap();
    let generation = pool.generations.iter_mut().find(|generation| generation.name == wanted).unwrap();
    (generation.replicas, generation.pods) = (pods.living(), pods);
    // The change was ours, and landed.
    let asked = pool.memory.asked.get_mut(&wanted).unwrap();
    (asked.from, asked.to) = (pods.living(), pods.living());
}

/// The target, and what the limits say; what was decided is remembered, and not carried out.
fn limited(queue: &mut QueueObservation) -> (u32, &'static str) {
    let decision = decide_one(queue, at(20));
    queue.pools[0].memory.failing.clone_from(&decision.memory.failing);
    (decision.target.0, category(&decision, StepName::Limits))
}

#[test]
fn while_pods_fail_a_pool_has_a_few_beyond_the_ready_ones() {
    for (ready, failing_pods, expected) in
        [(0, 1, 3), (0, 2, 3), (0, 3, 3), (0, 10, 10), (8, 1, 11), (8, 3, 11), (8, 9, 17)]
    {
        let mut queue = failing(50, ready, failing_pods);
        assert_eq!(limited(&mut queue), (expected, "PodsFailing"), "{ready} ready, {failing_pods} failing");
        assert_eq!(limited(&mut queue), (expected, "PodsFailing"), "and the same again");
        assert!(expected <= (ready + PROBES.0).max(ready + failing_pods));
    }
}

/// From nothing, with pods that all crash: what comes before the first is known to fail, and then no more.
#[test]
fn a_definition_that_cannot_run_does_not_grow_to_max() {
    let mut queue = failing(500, 0, 0);
    queue.pools[0].spec.limits = Limits::new(Pods(0), Pods(500)).unwrap();
    for second in 0..200 {
        let now = at(second * 5);
        read_again(&mut queue, load(500, 0, 0), now);
        let decision = decide_one(&queue, now);
        carry_out(&mut queue, &[decision]);
        let replicas = queue.pools[0].replicas().0;
        // A pod is known to fail half a minute after it was made.
        let known = if second < 6 { 0 } else { replicas };
        let pods = PodCounts { unready: Pods(replicas), failing: Pods(known), ..PodCounts::default() };
        (queue.pools[0].generations[0].pods, queue.pools[0].generations[0].settled) = (pods, true);
    }
    // Ten, doubled three times in the first half minute.
    assert_eq!(queue.pools[0].replicas(), Pods(80));
}

#[test]
fn one_pod_that_becomes_ready_opens_it_at_once() {
    let mut queue = failing(50, 0, 10);
    queue.pools[0].spec.scale_up.step = step(0, 20, 10);
    assert_eq!(limited(&mut queue), (10, "PodsFailing"));
    set(&mut queue.pools[0], 1, 9);
    assert_eq!(limited(&mut queue), (30, "UpStep"));
    assert!(!holds(&queue.pools[0]));
}

#[test]
fn what_failed_when_others_came_up_is_tolerated_and_more_is_not() {
    let mut queue = failing(50, 10, 2);
    for (ready, failing_pods, is_held) in [
        (10, 2, true),  // two have begun to fail, and none has come up since
        (11, 2, false), // one has
        (11, 1, false),
        (30, 1, false),
        (30, 2, true),  // another one fails
        (29, 2, true),  // a ready one goes
        (30, 2, false), // and one comes up
        (30, 0, false),
        (30, 1, true),
        (0, 1, true),
    ] {
        set(&mut queue.pools[0], ready, failing_pods);
        assert_eq!(limited(&mut queue).1 == "PodsFailing", is_held, "{ready} ready, {failing_pods} failing");
    }
    // Tolerated ones are not when nothing is left that is ready.
    set(&mut queue.pools[0], 5, 1);
    assert_eq!(limited(&mut queue).1, "UpStep");
    set(&mut queue.pools[0], 0, 1);
    assert_eq!(limited(&mut queue), (3, "PodsFailing"));
}

#[test]
fn another_generation_starts_afresh() {
    let mut queue = failing(50, 0, 10);
    assert_eq!(limited(&mut queue).1, "PodsFailing");
    queue.pools[0].wanted_generation = Some("b".to_owned());
    let decision = decide_one(&queue, at(20));
    assert_eq!((decision.memory.failing, decision.report.entry(StepName::Limits).unwrap().output), (None, 20));
}

#[test]
fn pods_that_start_are_no_reason_against_growth() {
    let mut queue = failing(50, 0, 10);
    queue.pools[0].generations[0].pods.failing = Pods(0);
    assert_eq!(limited(&mut queue), (20, "UpStep"));
}

#[test]
fn min_and_somebody_elses_lowering_do_not_beat_it_and_a_pause_does() {
    let mut queue = failing(0, 0, 4);
    queue.pools[0].spec.limits = Limits::new(Pods(40), Pods(100)).unwrap();
    assert_eq!(limited(&mut queue), (4, "PodsFailing"));
    queue.pools[0].spec.pause = Pause::Up;
    assert_eq!(limited(&mut queue), (4, "PausedUp"));

    let mut queue = failing(50, 0, 10);
    let generation = &mut queue.pools[0].generations[0];
    (generation.replicas, generation.pods.unready, generation.pods.failing) = (Pods(1), Pods(1), Pods(1));
    assert_eq!(limited(&mut queue), (3, "PodsFailing"));
}

/// Pods that fail are taken first, and as ordinarily as any: when fewer are wanted, after window and cooldown.
#[test]
fn failing_pods_go_when_fewer_are_wanted_and_not_before() {
    let mut queue = failing(10, 4, 10);
    assert_eq!(limited(&mut queue), (14, "Unchanged"), "still wanted");
    queue.pools[0].spec.scale_down =
        ScaleDown { window: secs(0), cooldown: secs(0), step: step(100, 1, 10), min_age: secs(0) };
    read_again(&mut queue, load(0, 4, 0), at(10));
    assert_eq!(
        decide_one(&queue, at(20)).intents,
        [scale("a", 14, 4)],
        "nobody is idle, and those ten never were busy"
    );
}

#[test]
fn pods_that_wait_for_a_node_do_not_fail_and_are_bounded() {
    for (unscheduled, expected) in
        [(1, (110, "UpStep")), (40, (110, "UpStep")), (95, (105, "NodesAwaited")), (100, (100, "NodesAwaited"))]
    {
        let mut queue = failing(500, 0, 100);
        let spec = &mut queue.pools[0].spec;
        (spec.limits, spec.scale_up.step) = (Limits::new(Pods(0), Pods(500)).unwrap(), step(0, 10, 10));
        let pods = &mut queue.pools[0].generations[0].pods;
        (pods.failing, pods.unscheduled) = (Pods(0), Pods(unscheduled));
        assert_eq!(limited(&mut queue), expected, "{unscheduled} of a hundred without a node");
    }
}

#[test]
fn pods_that_were_asked_for_and_do_not_exist_yet_wait_for_a_node_as_well() {
    let mut queue = failing(500, 0, 50);
    queue.pools[0].spec.limits = Limits::new(Pods(0), Pods(500)).unwrap();
    let pods = &mut queue.pools[0].generations[0].pods;
    (pods.failing, pods.unscheduled) = (Pods(0), Pods(50));
    for _ in 0..3 {
        let decision = decide_one(&queue, at(20));
        carry_out(&mut queue, &[decision]);
    }
    assert_eq!(queue.pools[0].replicas(), UNSCHEDULED_MAX);
}

/// A pool of eight, all wanted, whose new generation `b` has so many pods that fail.
fn rolling(max: u32, want: u32, old: u32, failing_pods: u32) -> QueueObservation {
    let mut queue = queue(load(0, 0, old), vec![pool(old)]);
    let pool = &mut queue.pools[0];
    pool.spec.limits = Limits::new(Pods(want), Pods(max)).unwrap();
    pool.memory.want = Some(Pods(want));
    pool.wanted_generation = Some("b".to_owned());
    pool.generations.push(generation("b", failing_pods));
    pool.memory.asked.insert("b".to_owned(), kitepool_policy::memory::Asked::found(Pods(failing_pods)));
    let pods = &mut pool.generations[1].pods;
    (pods.ready, pods.unready, pods.failing) = (Pods(0), Pods(failing_pods), Pods(failing_pods));
    queue
}

#[test]
fn a_roll_whose_new_pods_fail_keeps_the_old_ones() {
    for (max, old, failing_pods) in [(100, 8, 2), (8, 6, 2), (100, 40, 10), (40, 30, 10)] {
        let queue = rolling(max, old, old, failing_pods);
        let decision = decide_one(&queue, at(20));
        assert_eq!(decision.intents, [], "{old} old, {failing_pods} new, max {max}");
        assert_eq!(category(&decision, StepName::Shrink), "RollWaitsForReady");
    }
    // A surge of ten would fit, and three are enough to see that they fail. At the ceiling no old pod goes for them.
    assert_eq!(decide_one(&rolling(100, 40, 40, 1), at(20)).intents, [scale("b", 1, 3)]);
    assert_eq!(decide_one(&rolling(40, 40, 39, 1), at(20)).intents, [scale("a", 39, 37), scale("b", 1, 3)]);
    assert_eq!(decide_one(&rolling(40, 40, 37, 3), at(20)).intents, []);
}

#[test]
fn a_roll_whose_new_pods_fail_grows_for_jobs_by_a_few() {
    let mut queue = rolling(100, 8, 8, 2);
    read_again(&mut queue, load(40, 8, 0), at(15));
    let decision = decide_one(&queue, at(20));
    assert_eq!(
        (decision.intents.as_slice(), category(&decision, StepName::Limits)),
        (&[scale("b", 2, 3)][..], "PodsFailing")
    );
}

fn two_pools(scheduled: u32, ready: u32, failing_pods: u32) -> QueueObservation {
    let mut queue = failing(scheduled, ready, failing_pods);
    let mut second = pool(0);
    (second.spec.name, second.spec.order) = (name("second"), 1);
    queue.pools.push(second);
    queue
}

fn shares(queue: &QueueObservation) -> Vec<(u32, &'static str)> {
    let decisions = decide(queue, at(20));
    decisions
        .iter()
        .map(|decision| (entry(decision, StepName::Share).output, category(decision, StepName::Share)))
        .collect()
}

#[test]
fn what_a_broken_pool_cannot_provide_goes_to_the_next_one() {
    // One job suffices: it must not wait for a pod that never comes.
    assert_eq!(shares(&two_pools(1, 0, 1)), [(1, "Unchanged"), (1, "Unchanged")]);
    assert_eq!(shares(&two_pools(20, 5, 10)), [(25, "Unchanged"), (20, "SharedOut")]);
    let healthy = two_pools(20, 5, 0);
    assert_eq!(shares(&healthy), [(25, "Unchanged"), (0, "SharedOut")]);
    // Those that start still may provide something.
    let mut starting = two_pools(20, 5, 10);
    starting.pools[0].generations[0].pods.failing = Pods(4);
    assert_eq!(shares(&starting), [(25, "Unchanged"), (14, "SharedOut")]);
    // One has come up: the next pool is not needed any more.
    let mut recovered = two_pools(20, 5, 10);
    let decisions = decide(&recovered, at(20));
    carry_out(&mut recovered, &decisions);
    set(&mut recovered.pools[0], 6, 9);
    assert_eq!(shares(&recovered)[1], (0, "SharedOut"));
}

#[test]
fn a_broken_pool_that_is_the_last_asks_for_its_part_once() {
    assert_eq!(shares(&failing(20, 5, 10)), [(25, "Unchanged")]);
    let mut queue = two_pools(20, 0, 0);
    queue.pools[0].spec.limits = Limits::new(Pods(0), Pods(6)).unwrap();
    queue.pools[1].generations[0] = generation("a", 3);
    queue.pools[1].memory.asked.insert("a".to_owned(), kitepool_policy::memory::Asked::found(Pods(3)));
    set(&mut queue.pools[1], 0, 3);
    assert_eq!(shares(&queue), [(6, "SharedOut"), (14, "SharedOut")]);
    queue.pools[1].spec.limits = Limits::new(Pods(0), Pods(10)).unwrap();
    assert_eq!(shares(&queue), [(6, "SharedOut"), (14, "BeyondAllPools")]);
}

#[test]
fn what_is_remembered_of_failing_pods_round_trips_and_rests() {
    let failing = Failing { generation: "linux-6c4f9d".to_owned(), ready: Pods(4), tolerated: Pods(1) };
    let memory = Memory { failing: Some(failing), ..Memory::default() };
    let written = serde_json::to_string(&memory).unwrap();
    assert_eq!(written, r#"{"failing":{"generation":"linux-6c4f9d","ready":4,"tolerated":1}}"#);
    assert_eq!(serde_json::from_str::<Memory>(&written).unwrap(), memory);
}
