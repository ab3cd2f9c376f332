//! Limits: min, max, step, pause.

use kitepool_policy::{
    decision::StepName,
    observation::QueueObservation,
    spec::{Limits, Pause},
    units::{AgentsPerPod, Pods},
};

use crate::build::{at, carry_out, category, come_to_rest, decide_one, load, pool, queue, read_again, secs, step};

fn bounded(ready: u32, jobs: u32, min: u32, max: u32) -> QueueObservation {
    let running = jobs.min(ready);
    let mut queue = queue(load(jobs - running, running, ready - running), vec![pool(ready)]);
    let spec = &mut queue.pools[0].spec;
    spec.limits = Limits::new(Pods(min), Pods(max)).unwrap();
    spec.scale_down.window = secs(0);
    spec.scale_down.cooldown = secs(0);
    queue
}

#[test]
fn every_small_world_ends_within_its_bounds() {
    for (ready, jobs, min, room) in (0..6_u32)
        .flat_map(|ready| (0..6_u32).map(move |jobs| (ready, jobs)))
        .flat_map(|(ready, jobs)| (0..6_u32).flat_map(move |min| (0..4_u32).map(move |room| (ready, jobs, min, room))))
    {
        let mut queue = bounded(ready, jobs, min, min + room);
        let wanted = jobs.max(min).min(min + room);
        for tick in 0..12 {
            let now = at(20 + 30 * tick);
            let pods = queue.pools[0].replicas().0;
            let running = jobs.min(pods);
            read_again(&mut queue, load(jobs - running, running, pods - running), now);
            let decision = decide_one(&queue, now);
            assert!(decision.target.0 >= running.min(pods), "below what is busy");
            carry_out(&mut queue, &[decision]);
            come_to_rest(&mut queue);
        }
        // Busy pods above a lowered `max` stay as long as they are busy.
        let expected = wanted.max(jobs.min(ready.max(wanted)));
        assert_eq!(queue.pools[0].replicas().0, expected, "{ready} ready, {jobs} jobs, {min}..={}", min + room);
    }
}

#[test]
fn max_cuts_growth_and_says_so() {
    let decision = decide_one(&bounded(0, 9, 0, 4), at(20));
    assert_eq!(decision.target, Pods(4));
    assert_eq!(category(&decision, StepName::Limits), "AtMax");
    assert_eq!(decision.report.deciding().unwrap().reason.category(), "AtMax");
}

#[test]
fn min_is_a_promise_that_neither_step_nor_cooldown_delays() {
    let mut queue = bounded(1, 0, 40, 100);
    queue.pools[0].spec.scale_up.step = step(10, 1, 60);
    queue.pools[0].spec.scale_up.cooldown = secs(3_600);
    queue.pools[0].memory.last_up = Some(at(-1));
    let decision = decide_one(&queue, at(20));
    assert_eq!((decision.target, category(&decision, StepName::Limits)), (Pods(40), "AtMin"));
}

#[test]
fn a_pause_beats_min() {
    for pause in [Pause::Up, Pause::All] {
        let mut queue = bounded(1, 0, 5, 9);
        queue.pools[0].spec.pause = pause;
        let decision = decide_one(&queue, at(20));
        assert!(decision.intents.is_empty());
        assert_eq!(category(&decision, StepName::Limits), "PausedUp");
    }
}

#[test]
fn a_pause_down_takes_nothing_and_still_grows() {
    for pause in [Pause::Down, Pause::All] {
        let mut queue = bounded(5, 1, 0, 9);
        queue.pools[0].spec.pause = pause;
        let decision = decide_one(&queue, at(20));
        assert!(decision.intents.is_empty());
        assert_eq!(category(&decision, StepName::Limits), "PausedDown");
    }
    let mut queue = bounded(1, 5, 0, 9);
    queue.pools[0].spec.pause = Pause::Down;
    assert_eq!(decide_one(&queue, at(20)).target, Pods(5));
}

#[test]
fn growth_goes_by_one_step_in_each_period() {
    let mut queue = bounded(0, 50, 0, 100);
    queue.pools[0].spec.scale_up.step = step(50, 4, 10);
    for (seconds, expected) in [(20, 4), (22, 4), (29, 4), (30, 8), (35, 8), (40, 12), (50, 18), (60, 27)] {
        let pods = queue.pools[0].replicas().0;
        read_again(&mut queue, load(50 - pods, pods, 0), at(seconds));
        let decision = decide_one(&queue, at(seconds));
        assert_eq!(decision.target, Pods(expected), "after {seconds} s");
        assert_eq!(category(&decision, StepName::Limits), "UpStep");
        carry_out(&mut queue, &[decision]);
        come_to_rest(&mut queue);
    }
}

#[test]
fn a_step_moves_at_least_one_pod_however_wide_pods_are() {
    let mut queue = bounded(0, 50, 0, 100);
    queue.pools[0].spec.agents_per_pod = AgentsPerPod::new(25).unwrap();
    queue.pools[0].spec.scale_up.step = step(1, 0, 10);
    assert_eq!(decide_one(&queue, at(20)).target, Pods(1));
}

#[test]
fn shrinking_goes_by_one_step_in_each_period() {
    let mut queue = bounded(16, 0, 0, 100);
    queue.pools[0].spec.scale_down.min_age = secs(0);
    queue.pools[0].spec.scale_down.step = step(50, 1, 30);
    for (seconds, expected) in [(20, 8), (35, 8), (50, 4), (80, 2), (110, 1), (140, 0)] {
        let pods = queue.pools[0].replicas().0;
        read_again(&mut queue, load(0, 0, pods), at(seconds));
        let decision = decide_one(&queue, at(seconds));
        assert_eq!(decision.target, Pods(expected), "after {seconds} s");
        carry_out(&mut queue, &[decision]);
        come_to_rest(&mut queue);
    }
}

#[test]
fn a_lowered_max_takes_only_what_is_idle() {
    let mut queue = bounded(10, 7, 0, 4);
    queue.pools[0].spec.scale_down.step = step(100, 100, 10);
    let decision = decide_one(&queue, at(20));
    assert_eq!(decision.target, Pods(7));
    assert_eq!(category(&decision, StepName::Shrink), "OnlyIdleGo");
}

#[test]
fn the_largest_numbers_there_are_neither_wrap_nor_panic() {
    let mut queue = bounded(0, u32::MAX, 0, u32::MAX);
    queue.pools[0].spec.scale_up.step = step(1_000, u32::MAX, 1);
    assert_eq!(decide_one(&queue, at(20)).target, Pods(u32::MAX));
}
