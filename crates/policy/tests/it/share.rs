//! Sharing: several pools on one queue.

use kitepool_policy::{
    decide,
    decision::{Decision, StepName},
    observation::{PoolObservation, QueueObservation},
    spec::{Limits, Mode, Pause, Percent, Spare},
    units::{Agents, AgentsPerPod, Pods},
};

use crate::build::{at, category, decide_all, entry, load, name, pool, queue, scale};

fn named(pool_name: &str, order: i32, ready: u32, max: u32) -> PoolObservation {
    let mut pool = pool(ready);
    pool.spec.name = name(pool_name);
    pool.spec.order = order;
    pool.spec.limits = Limits::new(Pods(0), Pods(max)).unwrap();
    pool
}

fn shares(queue: &QueueObservation) -> Vec<u32> {
    decide(queue, at(20)).iter().map(|decision| entry(decision, StepName::Share).output).collect()
}

fn targets(decisions: &[Decision]) -> Vec<u32> {
    decisions.iter().map(|decision| decision.target.0).collect()
}

#[test]
fn pools_are_filled_in_order_then_by_name_each_up_to_its_max() {
    let pools = vec![named("c", 1, 0, 50), named("b", 0, 0, 4), named("a", 0, 0, 3)];
    let queue = queue(load(9, 0, 0), pools);
    let decisions = decide_all(&queue, at(20));
    let names: Vec<&str> = decisions.iter().map(|decision| decision.pool.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(shares(&queue), [3, 4, 2]);
}

#[test]
fn running_jobs_stay_where_ready_agents_are() {
    let mut starting = named("a", 0, 0, 50);
    starting.generations[0].replicas = Pods(5);
    starting.generations[0].pods.unready = Pods(5);
    let queue = queue(load(0, 5, 0), vec![starting, named("b", 1, 5, 50)]);
    assert_eq!(shares(&queue), [0, 5]);
}

#[test]
fn a_pool_above_a_lowered_max_keeps_the_share_of_what_runs_there() {
    let queue = queue(load(4, 10, 0), vec![named("a", 0, 10, 2), named("b", 1, 0, 50)]);
    assert_eq!(shares(&queue), [10, 4]);
}

#[test]
fn a_pool_that_cannot_grow_leaves_the_rest_to_the_next() {
    let (mut paused, mut broken) = (named("a", 0, 2, 50), named("b", 1, 1, 50));
    paused.spec.pause = Pause::Up;
    broken.wanted_generation = None;
    let queue = queue(load(9, 0, 3), vec![paused, broken, named("c", 2, 0, 50)]);
    assert_eq!(shares(&queue), [2, 1, 6]);
}

#[test]
fn what_no_pool_can_hold_shows_at_the_last_one() {
    let queue = queue(load(9, 0, 0), vec![named("a", 0, 0, 2), named("b", 1, 0, 3)]);
    let decisions = decide_all(&queue, at(20));
    assert_eq!(targets(&decisions), [2, 3]);
    assert_eq!(category(&decisions[1], StepName::Share), "BeyondAllPools");
    assert_eq!(category(&decisions[1], StepName::Limits), "AtMax");
}

#[test]
fn standing_agents_serve_queued_jobs_first() {
    let mut queue = queue(load(5, 5, 5), vec![named("a", 0, 5, 50)]);
    queue.standing = Agents(5);
    assert_eq!(shares(&queue), [5]);
    queue.standing = Agents(8);
    assert_eq!(shares(&queue), [2]);
}

#[test]
fn a_pool_that_only_observes_takes_nothing_from_one_that_acts() {
    let mut watching = named("a", 0, 0, 50);
    watching.spec.mode = Mode::Observe;
    let queue = queue(load(9, 0, 0), vec![watching, named("b", 1, 0, 50)]);
    assert_eq!(shares(&queue), [9, 9], "each as though it acted");
}

#[test]
fn agents_of_a_pool_that_only_observes_count_as_standing_ones() {
    let mut watching = named("a", 0, 4, 50);
    watching.spec.mode = Mode::Observe;
    let queue = queue(load(9, 0, 4), vec![watching, named("b", 1, 0, 50)]);
    assert_eq!(shares(&queue), [9, 5]);
}

#[test]
fn each_pool_keeps_its_own_spare_on_its_own_share() {
    let (mut first, mut second) = (named("a", 0, 0, 10), named("b", 1, 0, 50));
    first.spec.spare = Spare::Agents(Agents(2));
    second.spec.spare = Spare::Percent(Percent::new(10).unwrap());
    let queue = queue(load(25, 0, 0), vec![first, second]);
    let decisions = decide_all(&queue, at(20));
    let with_spare: Vec<u32> = decisions.iter().map(|decision| entry(decision, StepName::Spare).output).collect();
    assert_eq!(with_spare, [10 + 2, 15 + 2]);
}

#[test]
fn a_pods_agents_are_counted_together() {
    let mut wide = named("a", 0, 0, 3);
    wide.spec.agents_per_pod = AgentsPerPod::new(4).unwrap();
    let queue = queue(load(14, 0, 0), vec![wide, named("b", 1, 0, 50)]);
    assert_eq!(targets(&decide_all(&queue, at(20))), [3, 2]);
}

#[test]
fn the_last_pool_gives_first_and_together_they_give_only_what_is_idle() {
    let mut queue = queue(load(0, 14, 6), vec![named("a", 0, 10, 50), named("b", 1, 10, 50)]);
    for pool in &mut queue.pools {
        pool.spec.scale_down.step = crate::build::step(100, 1, 10);
    }
    // Running jobs are placed on `a` first, so `b` could lose six. A reading that counts fewer idle ones is obeyed.
    assert_eq!(targets(&decide_all(&queue, at(20))), [10, 4]);
    if let Some(good) = &mut queue.reading.last_good {
        good.load.idle = Agents(3);
    }
    let decisions = decide_all(&queue, at(20));
    assert_eq!(decisions[1].intents, [scale("a", 10, 7)]);
    assert_eq!(category(&decisions[1], StepName::Shrink), "OnlyIdleGo");

    // Nothing wanted at all, but a reading in which only four are idle: four go in all.
    crate::build::read_again(&mut queue, load(0, 0, 4), at(0));
    assert_eq!(targets(&decide_all(&queue, at(20))), [10, 6]);
}

/// A reading that is older than what a sibling gave may still count those agents as idle.
#[test]
fn a_pool_waits_for_a_reading_that_knows_what_its_sibling_gave() {
    let mut queue = queue(load(0, 0, 6), vec![named("a", 0, 10, 50), named("b", 1, 10, 50)]);
    queue.pools[1].memory.last_down = Some(at(-5));
    let decisions = decide_all(&queue, at(20));
    assert_eq!(category(&decisions[0], StepName::Shrink), "ReadingPredatesChange");
    assert_eq!(targets(&decisions), [10, 10]);
}
