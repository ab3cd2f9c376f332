//! Shrinking: what may go, and what it waits for.

use kitepool_policy::{
    decision::{Decision, StepName},
    observation::{QueueObservation, Reading, Trouble},
    units::{Agents, AgentsPerPod, Pods},
};

use crate::build::{
    at, category, decide_as_listed, decide_one, hint, load, pool, queue, read_again, scale, secs, step, trouble,
};

/// Ten ready pods, nothing in their way.
fn ten(scheduled: u32, running: u32, idle: u32) -> QueueObservation {
    let mut queue = queue(load(scheduled, running, idle), vec![pool(10)]);
    let down = &mut queue.pools[0].spec.scale_down;
    (down.window, down.cooldown, down.step) = (secs(0), secs(0), step(100, 1, 10));
    queue
}

fn waits(decision: &Decision) -> &'static str {
    assert!(decision.intents.is_empty(), "{:?}", decision.intents);
    category(decision, StepName::Shrink)
}

#[test]
fn idle_pods_go() {
    assert_eq!(decide_one(&ten(0, 4, 6), at(20)).intents, [scale("a", 10, 4)]);
}

#[test]
fn stale_load_never_shrinks() {
    let queue = ten(0, 0, 10);
    assert_eq!(decide_one(&queue, at(90)).target, Pods(0));
    let late = decide_one(&queue, at(91));
    assert_eq!((waits(&late), category(&late, StepName::Trust)), ("Untrusted", "ReadingStale"));
}

#[test]
fn a_reading_from_the_far_future_never_shrinks() {
    let early = decide_one(&ten(0, 0, 10), at(-91));
    assert_eq!((waits(&early), category(&early, StepName::Trust)), ("Untrusted", "ReadingFromFuture"));
}

#[test]
fn a_failed_attempt_never_shrinks_however_good_the_last_reading_was() {
    for what in [Trouble::RateLimited, Trouble::Refused, Trouble::OtherIdentity, Trouble::Malformed, Trouble::NotRead] {
        let mut queue = ten(0, 0, 10);
        trouble(&mut queue, what);
        let decision = decide_one(&queue, at(20));
        assert_eq!((waits(&decision), category(&decision, StepName::Trust)), ("Untrusted", "ReadingFailed"));
    }
    let mut queue = ten(0, 0, 10);
    queue.reading = Reading { last_good: None, trouble: None };
    assert_eq!(waits(&decide_one(&queue, at(20))), "Untrusted");
}

#[test]
fn staleness_is_each_pools_own() {
    let mut queue = ten(0, 0, 10);
    queue.pools[0].spec.stale_after = secs(15);
    assert_eq!(waits(&decide_one(&queue, at(20))), "Untrusted");
}

#[test]
fn a_busy_agent_is_never_asked_for() {
    let decision = decide_one(&ten(0, 10, 0), at(20));
    assert_eq!(decision.target, Pods(10));
    // Buildkite counts fewer running than there are agents, yet none is idle: they are about to start, or paused by hand.
    assert_eq!(waits(&decide_one(&ten(0, 4, 0), at(20))), "NoneIdle");
}

#[test]
fn agents_that_queued_jobs_are_about_to_take_are_not_idle() {
    // Three are queued beside six idle agents: a busy queue shows both. Seven pods are wanted, three may go.
    assert_eq!(decide_one(&ten(3, 4, 6), at(20)).target, Pods(7));
    let mut queue = ten(0, 4, 6);
    queue.hints = (0..5).map(|job| hint(&format!("job-{job}"), 15)).collect();
    assert_eq!(decide_one(&queue, at(20)).target, Pods(9));
}

#[test]
fn nothing_goes_while_a_deployment_is_in_motion() {
    let mut queue = ten(0, 0, 10);
    queue.pools[0].generations[0].settled = false;
    assert_eq!(waits(&decide_one(&queue, at(20))), "InMotion");
    let mut queue = ten(0, 0, 10);
    queue.pools[0].generations[0].pods.ready = Pods(9);
    assert_eq!(waits(&decide_one(&queue, at(20))), "InMotion", "a pod is missing");
}

#[test]
fn nothing_goes_by_a_reading_whose_numbers_may_be_older_than_the_last_change() {
    for (changed_at, goes) in [(-20, true), (-11, true), (-10, false), (-1, false), (5, false)] {
        let mut queue = ten(0, 0, 10);
        queue.pools[0].memory.last_down = Some(at(changed_at));
        let decision = decide_one(&queue, at(20));
        assert_eq!(decision.intents.is_empty(), !goes, "changed at {changed_at}");
    }
}

#[test]
fn nothing_goes_by_a_reading_from_before_the_clock_stepped_back() {
    let mut queue = ten(0, 0, 10);
    queue.pools[0].memory.last_down = Some(at(-1));
    // Read at 0, after which the clock stepped back by a minute: the change seems to lie ahead, the reading as well.
    assert_eq!(waits(&decide_one(&queue, at(-60))), "ReadingPredatesChange");
}

#[test]
fn young_pods_stay_until_min_age() {
    let mut queue = ten(0, 0, 10);
    for pod in &mut queue.pools[0].generations[0].agents {
        pod.created_at = at(-90);
    }
    read_again(&mut queue, load(0, 0, 10), at(29));
    assert_eq!(waits(&decide_as_listed(&queue, at(29))[0]), "TooYoung");
    assert_eq!(decide_as_listed(&queue, at(30))[0].target, Pods(0));
    // Older ones beside them go.
    queue.pools[0].generations[0].agents[3].created_at = at(-91);
    assert_eq!(decide_as_listed(&queue, at(29))[0].target, Pods(9));
}

#[test]
fn pods_that_are_not_ready_go_without_the_readings_word_if_the_ready_ones_hold_what_runs() {
    let mut queue = ten(0, 4, 0);
    let pods = &mut queue.pools[0].generations[0].pods;
    (pods.ready, pods.unready) = (Pods(4), Pods(6));
    assert_eq!(decide_one(&queue, at(20)).intents, [scale("a", 10, 4)], "a pool of crash-looping pods still shrinks");

    let pods = &mut queue.pools[0].generations[0].pods;
    (pods.ready, pods.unready) = (Pods(3), Pods(7));
    assert_eq!(waits(&decide_one(&queue, at(20))), "ReadyCannotHoldRunning");
}

#[test]
fn draining_pods_are_no_capacity() {
    let mut queue = ten(0, 8, 6);
    // Two of the eight running jobs are finished by pods that are going; nobody can tell, so eight agents stay.
    queue.pools[0].generations[0].pods.draining = Pods(2);
    assert_eq!(decide_one(&queue, at(20)).target, Pods(8));
}

#[test]
fn idle_agents_are_given_by_whole_pods() {
    let mut queue = ten(0, 11, 9);
    queue.pools[0].spec.agents_per_pod = AgentsPerPod::new(2).unwrap();
    assert_eq!(decide_one(&queue, at(20)).target, Pods(6));
    if let Some(good) = &mut queue.reading.last_good {
        good.load.idle = Agents(3);
    }
    assert_eq!(decide_one(&queue, at(20)).target, Pods(9));
}

#[test]
fn idle_agents_may_be_standing_ones() {
    let mut queue = ten(0, 4, 6);
    queue.standing = Agents(4);
    // Nothing is wanted of this pool, but of the six idle agents four may be the standing ones.
    assert_eq!(decide_one(&queue, at(20)).target, Pods(8));
}

#[test]
fn a_contested_pool_grows_and_does_not_shrink_until_a_person_decides() {
    let mut queue = ten(0, 0, 10);
    queue.pools[0].memory.contested_since = Some(at(-500));
    assert_eq!(waits(&decide_one(&queue, at(20))), "Contested");
    queue.pools[0].memory.settle_contest();
    assert_eq!(decide_one(&queue, at(20)).target, Pods(0));

    let mut queue = ten(5, 10, 0);
    queue.pools[0].memory.contested_since = Some(at(-500));
    assert_eq!(decide_one(&queue, at(20)).target, Pods(15));
}
