//! Our own writes, late ones, and those of somebody else.

use std::collections::BTreeMap;

use kitepool_policy::{
    decision::{Decision, ForeignChange, Intent, UnrecordedRaise},
    memory::{Asked, Memory, Round},
    observation::QueueObservation,
    spec::{Mode, ScaleUp},
    units::Pods,
};

use crate::build::{
    at, carry_out, come_to_rest, decide_one, load, pool, queue, read_again, reading, scale, secs, step,
};

fn wanting(jobs: u32, ready: u32) -> QueueObservation {
    let running = jobs.min(ready);
    queue(load(jobs - running, running, ready - running), vec![pool(ready)])
}

fn remember(queue: &mut QueueObservation, decision: &Decision) {
    queue.pools[0].memory = decision.memory.clone();
}

/// Somebody scales by hand, and the pods follow.
fn scaled_by_hand(queue: &mut QueueObservation, replicas: u32) {
    queue.pools[0].generations[0].replicas = Pods(replicas);
    come_to_rest(queue);
}

#[test]
fn an_intent_is_remembered_with_its_time() {
    let decision = decide_one(&wanting(7, 2), at(0));
    let expected = Asked { from: Pods(2), to: Pods(7), raised_at: Some(at(0)), lowered_at: None };
    assert_eq!(decision.memory.asked["a"], expected);
    assert_eq!(decision.memory.last_up, Some(at(0)));
}

#[test]
fn a_write_that_did_not_land_is_decided_again_whatever_the_cooldown() {
    let mut queue = wanting(7, 2);
    queue.pools[0].spec.scale_up.cooldown = secs(3_600);
    let first = decide_one(&queue, at(0));
    remember(&mut queue, &first);
    let again = decide_one(&queue, at(30));
    assert_eq!(again.intents, first.intents);
    assert_eq!(again.memory.asked["a"].raised_at, Some(at(30)), "its pods will be no older");
    assert!(again.foreign.is_empty());
}

/// Raised by whoever led before, who ended before that was recorded.
fn raised_without_a_record(to: u32) -> QueueObservation {
    let mut queue = wanting(to, 2);
    scaled_by_hand(&mut queue, to);
    queue.pools[0].generations[0].scaled_by_us = true;
    queue
}

#[test]
fn what_we_raised_and_did_not_record_is_ours_and_as_young_as_can_be() {
    let mut queue = raised_without_a_record(7);
    let decision = decide_one(&queue, at(0));
    assert!(decision.foreign.is_empty() && decision.intents.is_empty());
    let told = UnrecordedRaise { generation: "a".to_owned(), from: Pods(2), to: Pods(7) };
    assert_eq!(decision.unrecorded, [told]);
    let expected = Asked { from: Pods(7), to: Pods(7), raised_at: Some(at(0)), lowered_at: None };
    assert_eq!((decision.memory.asked["a"], decision.memory.last_up), (expected, Some(at(0))));
    remember(&mut queue, &decision);
    assert!(decide_one(&queue, at(1)).unrecorded.is_empty(), "told once");
    let mut watching = raised_without_a_record(7);
    watching.pools[0].spec.mode = Mode::Observe;
    let decision = decide_one(&watching, at(0));
    assert!(
        decision.unrecorded.is_empty() && decision.memory.last_up.is_none(),
        "one that writes nothing raised nothing"
    );
}

#[test]
fn a_raise_without_a_record_costs_its_cooldown_and_its_step() {
    let mut queue = raised_without_a_record(7);
    queue.pools[0].spec.scale_up.cooldown = secs(60);
    queue.reading = reading(load(18, 2, 0));
    assert!(decide_one(&queue, at(0)).intents.is_empty(), "the cooldown");
    queue.pools[0].spec.scale_up = ScaleUp { cooldown: secs(0), step: step(0, 9, 30) };
    assert_eq!(decide_one(&queue, at(0)).intents, [scale("a", 7, 11)], "nine from the two that stood before");
}

#[test]
fn what_a_raise_without_a_record_was_for_counts_as_wanted_until_now() {
    let mut queue = raised_without_a_record(7);
    queue.pools[0].spec.scale_down.cooldown = secs(0);
    queue.pools[0].spec.scale_down.window = secs(300);
    queue.reading = reading(load(0, 0, 7));
    let first = decide_one(&queue, at(0));
    assert_eq!(first.target, Pods(7));
    remember(&mut queue, &first);
    assert_eq!(decide_one(&queue, at(299)).target, Pods(7), "it holds for a window");
}

#[test]
fn what_somebody_lowered_after_our_scale_is_told_whoever_owns_it() {
    let mut queue = wanting(9, 9);
    scaled_by_hand(&mut queue, 4);
    queue.pools[0].generations[0].scaled_by_us = true;
    assert_eq!(decide_one(&queue, at(0)).foreign.len(), 1, "we record it before we take anything away");
}

#[test]
fn only_a_raise_alone_is_a_record_of_itself() {
    let mut queue = wanting(7, 2);
    let before = queue.pools[0].memory.clone();
    let raise = decide_one(&queue, at(0));
    assert!(raise.is_plain_raise(&before));
    let other = |change: &dyn Fn(&mut Decision)| {
        let mut decision = raise.clone();
        change(&mut decision);
        decision.is_plain_raise(&before)
    };
    assert!(!other(&|decision| decision.intents = vec![scale("a", 7, 2)]), "taken away");
    assert!(!other(&|decision| decision.intents.clear()), "nothing done");
    assert!(!other(&|decision| decision.intents.push(scale("b", 1, 2))), "two at once");
    let two_stand = |decision: &mut Decision| {
        let _ = decision.memory.asked.insert("b".to_owned(), Asked::found(Pods(1)));
    };
    assert!(!other(&two_stand), "it rolls");
    let chosen = Round { since: at(0), victims: Vec::new(), lowered: None };
    let choice = |decision: &mut Decision| drop(decision.memory.rounds.insert("a".to_owned(), chosen.clone()));
    assert!(!other(&choice), "another choice of pods to go");
    let open = |from: u32, to: u32| {
        let mut recorded = before.clone();
        let asked = Asked { from: Pods(from), to: Pods(to), raised_at: None, lowered_at: None };
        let _ = recorded.asked.insert("a".to_owned(), asked);
        raise.is_plain_raise(&recorded)
    };
    assert!(open(1, 2) && !open(3, 2) && !open(2, 7) && !open(2, 9), "the books would explain what is found");
    let unheard_of = Memory { asked: BTreeMap::new(), ..before.clone() };
    assert!(!raise.is_plain_raise(&unheard_of), "nothing is known of it");
    queue.pools[0].generations[0].replicas = Pods(1);
    let told = decide_one(&queue, at(0));
    assert!(!told.foreign.is_empty() && !told.is_plain_raise(&before), "somebody else's change is told of");
}

#[test]
fn a_write_that_landed_is_settled() {
    let mut queue = wanting(7, 2);
    let first = decide_one(&queue, at(0));
    carry_out(&mut queue, &[first]);
    let second = decide_one(&queue, at(1));
    assert_eq!((second.memory.asked["a"].from, second.memory.asked["a"].to), (Pods(7), Pods(7)));
    assert!(second.foreign.is_empty() && second.intents.is_empty());
}

#[test]
fn an_earlier_write_that_shows_up_late_is_ours() {
    let mut queue = wanting(7, 2);
    let first = decide_one(&queue, at(0));
    remember(&mut queue, &first);
    // What we see has not caught up, and more is wanted already.
    read_again(&mut queue, load(7, 2, 0), at(1));
    let second = decide_one(&queue, at(1));
    assert_eq!(second.intents, [scale("a", 2, 9)]);
    remember(&mut queue, &second);
    // The second write met the first and failed; now the first one shows.
    queue.pools[0].generations[0].replicas = Pods(7);
    let third = decide_one(&queue, at(2));
    assert!(third.foreign.is_empty());
    assert_eq!(third.intents, [scale("a", 7, 9)]);
}

#[test]
fn less_than_what_may_still_land_keeps_the_books_open_for_it() {
    let mut queue = wanting(9, 2);
    let first = decide_one(&queue, at(0));
    remember(&mut queue, &first);
    read_again(&mut queue, load(3, 2, 0), at(1));
    let second = decide_one(&queue, at(1));
    assert_eq!(second.intents, [scale("a", 2, 5)]);
    remember(&mut queue, &second);
    queue.pools[0].generations[0].replicas = Pods(9);
    assert!(decide_one(&queue, at(2)).foreign.is_empty());
}

#[test]
fn what_was_never_asked_for_is_adopted_silently() {
    let mut queue = wanting(3, 3);
    queue.pools[0].memory = Memory::default();
    queue.pools[0].generations[0].adopted = true;
    let decision = decide_one(&queue, at(0));
    assert!(decision.foreign.is_empty());
    assert_eq!(decision.memory.asked["a"], Asked::found(Pods(3)));
}

#[test]
fn what_somebody_lowered_is_raised_again_in_the_same_tick_and_told_once() {
    let mut queue = wanting(9, 9);
    queue.pools[0].spec.scale_up.cooldown = secs(3_600);
    queue.pools[0].memory.last_up = Some(at(-5));
    scaled_by_hand(&mut queue, 4);
    let decision = decide_one(&queue, at(0));
    assert_eq!(decision.intents, [scale("a", 4, 9)]);
    let told = ForeignChange { generation: "a".to_owned(), expected: Pods(9), found: Pods(4) };
    assert_eq!(decision.foreign, [told]);
    remember(&mut queue, &decision);
    let again = decide_one(&queue, at(1));
    assert!(again.foreign.is_empty());
    assert_eq!(again.intents, [scale("a", 4, 9)], "and if that did not land, once more");
}

#[test]
fn what_stood_by_the_window_alone_is_raised_again_as_well() {
    let mut queue = wanting(2, 9);
    queue.pools[0].memory.want = Some(Pods(9));
    scaled_by_hand(&mut queue, 4);
    assert_eq!(decide_one(&queue, at(0)).intents, [scale("a", 4, 9)]);
}

#[test]
fn what_somebody_raised_goes_by_the_ordinary_shrink() {
    let mut queue = wanting(2, 4);
    queue.pools[0].memory.want = Some(Pods(2));
    scaled_by_hand(&mut queue, 9);
    read_again(&mut queue, load(0, 2, 7), at(30));
    let decision = decide_one(&queue, at(30));
    assert_eq!(decision.foreign.len(), 1);
    assert_eq!(decision.intents, [scale("a", 9, 4)], "half of them in one step");
}

#[test]
fn a_deployment_that_somebody_deleted_is_created_again() {
    let mut queue = wanting(5, 5);
    queue.pools[0].generations.clear();
    let decision = decide_one(&queue, at(0));
    assert_eq!(decision.intents, [Intent::Create { generation: "a".to_owned(), replicas: Pods(5) }]);
    assert_eq!(decision.foreign[0].found, Pods(0));
}

#[test]
fn the_third_foreign_change_in_ten_minutes_makes_a_pool_contested() {
    let mut queue = wanting(9, 9);
    for (seconds, replicas, contested) in [(0, 4, false), (200, 5, false), (599, 3, true)] {
        scaled_by_hand(&mut queue, replicas);
        read_again(&mut queue, load(9 - replicas, replicas, 0), at(seconds));
        let decision = decide_one(&queue, at(seconds));
        assert_eq!(decision.memory.contested_since, contested.then(|| at(seconds)));
        carry_out(&mut queue, &[decision]);
        come_to_rest(&mut queue);
        let landed = decide_one(&queue, at(seconds + 1));
        remember(&mut queue, &landed);
    }
    queue.pools[0].memory.settle_contest();
    assert_eq!((&queue.pools[0].memory.contested_since, queue.pools[0].memory.foreign.len()), (&None, 0));
}

#[test]
fn three_foreign_changes_in_more_than_ten_minutes_are_no_contest() {
    let mut queue = wanting(9, 9);
    for seconds in [0, 300, 601] {
        scaled_by_hand(&mut queue, 4);
        let decision = decide_one(&queue, at(seconds));
        assert_eq!(decision.memory.contested_since, None);
        carry_out(&mut queue, &[decision]);
        come_to_rest(&mut queue);
        let landed = decide_one(&queue, at(seconds + 1));
        remember(&mut queue, &landed);
    }
}

#[test]
fn where_nothing_is_carried_out_no_change_is_foreign_and_nothing_is_written_twice() {
    let mut queue = wanting(9, 4);
    queue.pools[0].spec.mode = Mode::Observe;
    let first = decide_one(&queue, at(0));
    assert_eq!(first.intents, [scale("a", 4, 9)]);
    remember(&mut queue, &first);
    let second = decide_one(&queue, at(60));
    assert_eq!((&second.intents, &second.memory), (&first.intents, &first.memory));

    for (seconds, replicas) in [(61, 2), (62, 12), (63, 1), (64, 7)] {
        scaled_by_hand(&mut queue, replicas);
        let decision = decide_one(&queue, at(seconds));
        assert!(decision.foreign.is_empty() && decision.memory.contested_since.is_none());
        remember(&mut queue, &decision);
    }
}

#[test]
fn a_pool_that_begins_to_act_counts_its_waits_from_then_on() {
    let mut queue = wanting(9, 4);
    queue.pools[0].spec.mode = Mode::Observe;
    let watched = decide_one(&queue, at(-80_000));
    remember(&mut queue, &watched);
    queue.pools[0].spec.mode = Mode::Active;
    let decision = decide_one(&queue, at(0));
    assert_eq!(decision.intents, [scale("a", 4, 9)]);
    assert_eq!((decision.memory.last_up, decision.memory.asked["a"].raised_at), (Some(at(0)), Some(at(0))));
}

#[test]
fn what_is_known_of_generations_that_are_no_more_is_dropped() {
    let mut queue = wanting(3, 3);
    let gone = Asked { lowered_at: Some(at(-7)), ..Asked::found(Pods(0)) };
    queue.pools[0].memory.asked.insert("gone".to_owned(), gone);
    let decision = decide_one(&queue, at(0));
    assert_eq!(decision.memory.asked.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(decision.memory.last_down, Some(at(-7)), "a reading must still know it");
}
