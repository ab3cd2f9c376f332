//! Generations: a changed definition is growth of the new one and idle-first shrinking of the old.

use jiff::Timestamp;
use kitepool_policy::{
    decision::{Decision, Intent, StepName},
    memory::Asked,
    observation::{PodCounts, QueueObservation, Trouble},
    spec::{Limits, Pause},
    units::Pods,
};

use crate::build::{
    at, carry_out, category, come_to_rest, decide_as_listed, decide_one, generation, load, pool, queue, read_again,
    scale, trouble,
};

/// A pool of `a`, all wanted by `min`, whose definition now asks for `b`.
fn redefined(ready: u32, max: u32) -> QueueObservation {
    let mut queue = queue(load(0, 0, ready), vec![pool(ready)]);
    queue.pools[0].spec.limits = Limits::new(Pods(ready), Pods(max)).unwrap();
    queue.pools[0].memory.want = Some(Pods(ready));
    queue.pools[0].wanted_generation = Some("b".to_owned());
    queue
}

fn create(generation: &str, replicas: u32) -> Intent {
    Intent::Create { generation: generation.to_owned(), replicas: Pods(replicas) }
}

fn delete(generation: &str) -> Intent {
    Intent::Delete { generation: generation.to_owned() }
}

/// Carries it out, brings everything to rest, and reads again half a minute later.
fn go_on(queue: &mut QueueObservation, decision: Decision, now: Timestamp, running: u32) {
    carry_out(queue, &[decision]);
    come_to_rest(queue);
    let pods = queue.pools[0].replicas().0;
    read_again(queue, load(0, running, pods - running.min(pods)), now);
}

/// All intents until nothing more is decided.
fn rolled(queue: &mut QueueObservation, running: u32) -> Vec<Vec<Intent>> {
    let mut story = Vec::new();
    for round in 1..40 {
        let now = at(round * 30);
        let pods = queue.pools[0].replicas().0;
        read_again(queue, load(0, running, pods - running.min(pods)), now);
        let decision = decide_one(queue, now);
        if decision.intents.is_empty() {
            return story;
        }
        story.push(decision.intents.clone());
        carry_out(queue, &[decision]);
        come_to_rest(queue);
    }
    panic!("never ends: {story:?}");
}

#[test]
fn a_roll_goes_by_a_surge_of_a_quarter_and_ends_with_the_new_generation_alone() {
    let mut queue = redefined(8, 100);
    assert_eq!(
        rolled(&mut queue, 0),
        [
            vec![create("b", 2)],
            vec![scale("a", 8, 6), scale("b", 2, 4)],
            vec![scale("a", 6, 4), scale("b", 4, 6)],
            vec![scale("a", 4, 2), scale("b", 6, 8)],
            vec![scale("a", 2, 0)],
            vec![delete("a")],
        ]
    );
}

#[test]
fn where_no_surge_fits_idle_old_pods_make_room_in_the_same_tick() {
    let mut queue = redefined(8, 8);
    let story = rolled(&mut queue, 0);
    assert_eq!(story[0], [scale("a", 8, 6), create("b", 2)]);
    assert_eq!(story.last().unwrap(), &[delete("a")]);
    assert_eq!(queue.pools[0].generations, [generation("b", 8)]);
}

#[test]
fn a_pool_of_one_rolls_with_and_without_room() {
    let mut queue = redefined(1, 2);
    assert_eq!(rolled(&mut queue, 0), [vec![create("b", 1)], vec![scale("a", 1, 0)], vec![delete("a")]]);
    let mut queue = redefined(1, 1);
    assert_eq!(rolled(&mut queue, 0), [vec![scale("a", 1, 0), create("b", 1)], vec![delete("a")]]);
}

#[test]
fn a_busy_old_generation_is_waited_for() {
    let mut queue = redefined(8, 8);
    read_again(&mut queue, load(0, 8, 0), at(20));
    let decision = decide_one(&queue, at(20));
    assert!(decision.intents.is_empty());
    assert_eq!(category(&decision, StepName::Shrink), "NoneIdle");
}

#[test]
fn old_pods_stay_until_as_many_new_ones_are_ready() {
    let mut queue = redefined(8, 100);
    let decision = decide_one(&queue, at(20));
    go_on(&mut queue, decision, at(60), 0);
    queue.pools[0].generations[1].pods = PodCounts { unready: Pods(2), ..PodCounts::default() };
    let decision = decide_one(&queue, at(60));
    assert!(decision.intents.is_empty());
    assert_eq!(category(&decision, StepName::Shrink), "RollWaitsForReady");
}

#[test]
fn old_pods_that_are_not_ready_make_room_even_when_nothing_is_idle() {
    let mut queue = redefined(8, 8);
    queue.pools[0].generations[0].pods = PodCounts { unready: Pods(8), ..PodCounts::default() };
    read_again(&mut queue, load(5, 0, 0), at(20));
    assert_eq!(decide_one(&queue, at(20)).intents, [scale("a", 8, 6), create("b", 2)]);
}

#[test]
fn a_roll_never_happens_without_a_reading_to_believe() {
    let mut queue = redefined(8, 100);
    trouble(&mut queue, Trouble::ServerError);
    let decision = decide_one(&queue, at(20));
    assert!(decision.intents.is_empty());
    assert_eq!(category(&decision, StepName::Shrink), "Untrusted");
}

#[test]
fn a_pause_stops_a_roll() {
    for pause in [Pause::Up, Pause::Down, Pause::All] {
        let mut queue = redefined(8, 100);
        queue.pools[0].spec.pause = pause;
        let decision = decide_one(&queue, at(20));
        assert!(decision.intents.is_empty(), "{pause:?}");
        assert_eq!(category(&decision, StepName::Shrink), "RollPaused");
    }
}

#[test]
fn demand_grows_the_new_generation_while_a_pool_rolls() {
    let mut queue = redefined(4, 100);
    trouble(&mut queue, Trouble::ServerError);
    if let Some(good) = &mut queue.reading.last_good {
        good.load = load(3, 4, 0);
    }
    assert_eq!(decide_one(&queue, at(20)).intents, [create("b", 3)], "also by what is not believed");
}

#[test]
fn without_demand_the_old_generation_goes_and_no_new_one_comes() {
    let mut queue = redefined(8, 100);
    queue.pools[0].spec.limits = Limits::new(Pods(0), Pods(100)).unwrap();
    queue.pools[0].memory.want = Some(Pods(0));
    assert_eq!(rolled(&mut queue, 0), [vec![scale("a", 8, 0)], vec![delete("a")]]);
    assert!(queue.pools[0].generations.is_empty());
}

#[test]
fn nothing_is_created_for_nothing() {
    let mut queue = queue(load(0, 0, 0), vec![pool(0)]);
    queue.pools[0].generations.clear();
    assert!(decide_one(&queue, at(0)).intents.is_empty());
    read_again(&mut queue, load(2, 0, 0), at(0));
    assert_eq!(decide_one(&queue, at(0)).intents, [create("a", 2)]);
}

#[test]
fn a_broken_definition_keeps_everything_as_it_is() {
    let mut queue = redefined(4, 100);
    queue.pools[0].wanted_generation = None;
    queue.pools[0].generations.push(generation("old", 0));
    for load in [load(9, 4, 0), load(0, 0, 4)] {
        read_again(&mut queue, load, at(20));
        let decision = decide_one(&queue, at(20));
        assert!(decision.intents.is_empty());
        assert_eq!((decision.target, category(&decision, StepName::Shrink)), (Pods(4), "DefinitionBroken"));
    }
}

#[test]
fn an_adopted_deployment_is_emptied_and_never_deleted() {
    let mut queue = redefined(1, 2);
    queue.pools[0].generations[0].adopted = true;
    assert_eq!(rolled(&mut queue, 0), [vec![create("b", 1)], vec![scale("a", 1, 0)]]);
    assert_eq!(queue.pools[0].generations.len(), 2);
}

#[test]
fn a_generation_is_not_deleted_under_draining_pods() {
    let mut queue = redefined(0, 5);
    queue.pools[0].generations[0].pods.draining = Pods(1);
    assert!(decide_one(&queue, at(20)).intents.is_empty());
    queue.pools[0].generations[0].pods.draining = Pods(0);
    queue.pools[0].generations[0].settled = false;
    assert!(decide_one(&queue, at(20)).intents.is_empty());
    queue.pools[0].generations[0].settled = true;
    assert_eq!(decide_one(&queue, at(20)).intents, [delete("a")]);
}

#[test]
fn of_several_old_generations_the_oldest_goes_first() {
    let mut queue = redefined(3, 100);
    queue.pools[0].generations = vec![generation("z", 2), generation("a", 1), generation("b", 1)];
    for name in ["z", "a", "b"] {
        let replicas = queue.pools[0].generation(name).unwrap().replicas;
        queue.pools[0].memory.asked.insert(name.to_owned(), Asked::found(replicas));
    }
    assert_eq!(decide_one(&queue, at(20)).intents, [scale("z", 2, 1), scale("b", 1, 2)]);
}

#[test]
fn a_definition_that_changes_back_takes_the_first_generation_up_again() {
    let mut queue = redefined(8, 100);
    let decision = decide_one(&queue, at(20));
    go_on(&mut queue, decision, at(60), 0);
    queue.pools[0].wanted_generation = Some("a".to_owned());
    for pod in &mut queue.pools[0].generations[1].agents {
        pod.created_at = at(25);
    }
    let young = decide_as_listed(&queue, at(60)).remove(0);
    assert!(young.intents.is_empty());
    assert_eq!(category(&young, StepName::Shrink), "TooYoung", "no pod comes and goes for nothing");
    read_again(&mut queue, load(0, 0, 10), at(150));
    assert_eq!(decide_one(&queue, at(150)).intents, [scale("b", 2, 0)]);
}

/// Every pool of up to six, every `max` up to eight, every number of busy agents, busy ones finishing at last.
#[test]
fn every_small_roll_keeps_within_max_and_surge_and_ends() {
    for (ready, room, running) in
        (1..=6_u32).flat_map(|ready| (0..=2_u32).flat_map(move |room| (0..=ready).map(move |busy| (ready, room, busy))))
    {
        let mut queue = redefined(ready, ready + room);
        for round in 1..60 {
            let now = at(round * 30);
            let pods = queue.pools[0].replicas().0;
            let busy = if round < 20 { running } else { 0 };
            read_again(&mut queue, load(0, busy, pods - busy), now);
            let decision = decide_one(&queue, now);
            assert!(decision.target.0 <= (ready + room).min(ready + ready.div_ceil(4).max(1)));
            assert!(decision.target.0 >= ready);
            carry_out(&mut queue, &[decision]);
            come_to_rest(&mut queue);
        }
        assert_eq!(
            queue.pools[0].generations,
            [generation("b", ready)],
            "{ready} with room for {room}, {running} busy"
        );
    }
}
