//! Stabilising: windows, cooldowns, and a clock that steps.

use jiff::Timestamp;
use kitepool_policy::{
    decision::{Decision, StepName},
    memory::{Memory, Peak},
    observation::QueueObservation,
    units::{Agents, Jobs, Pods},
};

use crate::build::{
    at, carry_out, category, come_to_rest, decide_one, load, pool, queue, read_again, scale, secs, step, trouble,
};

/// The next tick, at which so many jobs are queued or running and everything asked for has come to rest.
fn tick(queue: &mut QueueObservation, now: Timestamp, jobs: u32) -> Decision {
    let pods = queue.pools[0].replicas().0;
    let running = jobs.min(pods);
    read_again(queue, load(jobs - running, running, pods - running), now);
    let decision = decide_one(queue, now);
    carry_out(queue, std::slice::from_ref(&decision));
    come_to_rest(queue);
    decision
}

fn calm(ready: u32) -> QueueObservation {
    let mut queue = queue(load(0, 0, 0), vec![pool(ready)]);
    queue.pools[0].spec.scale_down.step = step(100, 100, 1);
    queue.pools[0].spec.scale_down.min_age = secs(0);
    queue
}

#[test]
fn growth_follows_at_once() {
    let mut queue = calm(1);
    assert_eq!(tick(&mut queue, at(0), 7).intents, [scale("a", 1, 7)]);
}

#[test]
fn shrinking_follows_the_largest_want_of_the_window() {
    let mut queue = calm(0);
    for (seconds, jobs, expected) in [
        (0, 8, 8),
        (10, 3, 8),
        (100, 5, 8),
        (310, 5, 8), // eight were wanted until 10, 300 s ago: the window is just over, and grown at 0
        (320, 5, 5),
        (330, 2, 5),
    ] {
        let target = tick(&mut queue, at(seconds), jobs).target.0;
        if seconds != 310 {
            assert_eq!(target, expected, "after {seconds} s");
        }
    }
}

#[test]
fn a_want_of_the_past_never_makes_a_pool_grow() {
    let mut queue = calm(2);
    queue.pools[0].memory.peaks = vec![Peak { until: at(-10), want: Pods(9) }];
    let decision = tick(&mut queue, at(0), 1);
    assert!(decision.intents.is_empty());
    assert_eq!(category(&decision, StepName::Stabilise), "WindowHolds");
}

#[test]
fn time_without_ticks_counts_as_wanted() {
    let mut queue = calm(6);
    queue.pools[0].memory.want = Some(Pods(6));
    // Away for an hour; the six were wanted until now.
    let decision = tick(&mut queue, at(3_600), 0);
    assert_eq!(decision.target, Pods(6));
    assert_eq!(decision.memory.peaks, [Peak { until: at(3_600), want: Pods(6) }]);
    assert_eq!(tick(&mut queue, at(3_600 + 299), 0).target, Pods(6));
    assert_eq!(tick(&mut queue, at(3_600 + 300), 0).target, Pods(0));
}

#[test]
fn without_any_memory_what_stands_was_wanted_until_now() {
    let mut queue = calm(6);
    queue.pools[0].memory = Memory::default();
    assert_eq!(tick(&mut queue, at(0), 0).target, Pods(6));
    assert_eq!(tick(&mut queue, at(299), 0).target, Pods(6));
    assert_eq!(tick(&mut queue, at(320), 0).target, Pods(0));
}

#[test]
fn not_knowing_does_not_empty_the_window() {
    let mut queue = calm(6);
    queue.pools[0].memory.want = Some(Pods(6));
    crate::build::read_again(&mut queue, load(0, 0, 6), at(0));
    trouble(&mut queue, kitepool_policy::observation::Trouble::Unreachable);
    for seconds in [0, 300, 600, 3_600] {
        let decision = decide_one(&queue, at(seconds));
        assert_eq!((decision.target, decision.memory.want), (Pods(6), Some(Pods(6))));
        queue.pools[0].memory = decision.memory;
    }
    assert_eq!(tick(&mut queue, at(3_610), 0).target, Pods(6));
    assert_eq!(tick(&mut queue, at(3_920), 0).target, Pods(0));
}

#[test]
fn an_up_cooldown_holds_growth_back() {
    let mut queue = calm(0);
    queue.pools[0].spec.scale_up.cooldown = secs(60);
    assert_eq!(tick(&mut queue, at(0), 2).target, Pods(2));
    let held = tick(&mut queue, at(59), 5);
    assert_eq!((held.target, category(&held, StepName::Stabilise)), (Pods(2), "UpCooldown"));
    assert_eq!(tick(&mut queue, at(60), 5).target, Pods(5));
}

#[test]
fn a_down_cooldown_counts_from_the_later_change() {
    let mut queue = calm(5);
    queue.pools[0].spec.scale_down.window = secs(0);
    queue.pools[0].memory.last_up = Some(at(-30));
    queue.pools[0].memory.last_down = Some(at(-50));
    let held = tick(&mut queue, at(0), 1);
    assert_eq!((held.target, category(&held, StepName::Stabilise)), (Pods(5), "DownCooldown"));
    assert_eq!(tick(&mut queue, at(29), 1).target, Pods(5));
    assert_eq!(tick(&mut queue, at(30), 1).target, Pods(1));
}

#[test]
fn a_clock_that_steps_back_costs_one_cooldown_and_one_window_at_most() {
    let mut queue = calm(5);
    let memory = &mut queue.pools[0].memory;
    memory.last_up = Some(at(7_200));
    memory.last_down = Some(at(7_000));
    memory.want = Some(Pods(1));
    memory.peaks = vec![Peak { until: at(7_100), want: Pods(5) }, Peak { until: at(7_200), want: Pods(3) }];
    let first = tick(&mut queue, at(0), 1);
    assert_eq!(first.target, Pods(5));
    assert_eq!(first.memory.last_up, Some(at(0)));
    assert_eq!(first.memory.peaks, [Peak { until: at(0), want: Pods(5) }]);
    assert_eq!(tick(&mut queue, at(299), 1).target, Pods(5), "and nothing less than that");
    assert_eq!(tick(&mut queue, at(300), 1).target, Pods(1));
}

#[test]
fn wants_outside_of_the_bounds_are_not_worth_a_write() {
    let mut queue = calm(100);
    queue.pools[0].memory.want = Some(Pods(100));
    let before = tick(&mut queue, at(0), 100).memory;
    for (seconds, jobs) in [(10, 5_000), (20, 101), (30, 7_000)] {
        assert_eq!(tick(&mut queue, at(seconds), jobs).memory, before);
    }
}

#[test]
fn many_peaks_are_merged_and_hold_no_longer_than_a_seventh_of_the_window_more() {
    let mut queue = calm(60);
    queue.pools[0].memory.want = Some(Pods(60));
    queue.pools[0].spec.scale_down.cooldown = secs(0);
    // Demand falls by one every five seconds for five minutes.
    for seconds in 0..60_u32 {
        let decision = tick(&mut queue, at(i64::from(seconds) * 5), 59 - seconds);
        assert!(decision.memory.peaks.len() <= 8);
        assert!(decision.target >= Pods(59 - seconds));
    }
    for seconds in (300..700_u32).step_by(5) {
        let target = tick(&mut queue, at(i64::from(seconds)), 0).target.0;
        // What was wanted `window` ago, and no more than what was wanted a grain before that.
        let wanted = |ago: u32| 60_u32.saturating_sub(seconds.saturating_sub(ago) / 5);
        assert!(target <= wanted(300 + 43 + 10), "{target} at {seconds}");
        assert!(target >= wanted(300).saturating_sub(1), "{target} at {seconds}");
    }
}

#[test]
fn a_restart_forgets_no_peak() {
    let mut queue = calm(0);
    assert_eq!(tick(&mut queue, at(0), 9).target, Pods(9));
    assert_eq!(tick(&mut queue, at(30), 4).target, Pods(9));
    let written = serde_json::to_string(&queue.pools[0].memory).unwrap();
    let read: Memory = serde_json::from_str(&written).unwrap();
    assert_eq!(read, queue.pools[0].memory);
    assert_eq!(read.peaks, [Peak { until: at(30), want: Pods(9) }]);
    assert!(written.contains("\"upPeriod\""), "{written}");
    assert_eq!(serde_json::to_string(&Memory::default()).unwrap(), "{}");
}

#[test]
fn jobs_and_agents_are_not_mistaken() {
    assert_eq!(Jobs(3).agents(), Agents(3));
}
