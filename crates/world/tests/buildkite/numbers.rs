//! What the metrics API tells, and how old it is.

use std::collections::BTreeMap;

use kitepool_world::Queue;

use super::*;

fn aged(refresh: u64, lag: u64) -> Settings {
    Settings { numbers: NumbersAge { refresh: secs(refresh), lag: secs(lag) }, ..streaming() }
}

fn told(buildkite: &mut Buildkite, second: u64) -> Queue {
    buildkite.advance(at(secs(second)));
    buildkite.told(CLUSTER).get("q").copied().unwrap_or_default()
}

#[test]
fn numbers_are_those_of_the_last_count_before() {
    let mut buildkite = buildkite(aged(10, 0), 1);
    buildkite.submit(job(100), at(secs(12)));
    assert_eq!([12, 13, 19, 20, 29, 30].map(|second| told(&mut buildkite, second).scheduled), [0, 0, 0, 1, 1, 1]);
    // What happens at the instant of a count is in the next one.
    buildkite.submit(job(100), at(secs(40)));
    assert_eq!([40, 49, 50].map(|second| told(&mut buildkite, second).scheduled), [1, 1, 2]);
    buildkite.pod_started(AgentPod { spawn: 3, ..pod(0) }, at(secs(51)));
    assert_eq!([59, 60].map(|second| told(&mut buildkite, second).busy), [0, 2]);
    let last = told(&mut buildkite, 69);
    assert_eq!((last.scheduled, last.running, last.idle, last.busy), (0, 2, 1, 2));
}

#[test]
fn numbers_that_lag_are_told_that_much_later_and_in_their_order() {
    let mut buildkite = buildkite(aged(10, 25), 1);
    for second in [1, 11, 21, 31] {
        buildkite.submit(job(100), at(secs(second)));
    }
    let seen = [10, 34, 35, 44, 45, 54, 55, 64, 65, 500].map(|second| told(&mut buildkite, second).scheduled);
    assert_eq!(seen, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
}

#[test]
fn a_change_that_nobody_counted_is_never_told() {
    let mut buildkite = buildkite(aged(10, 25), 1);
    let id = buildkite.submit(job(100), at(secs(11)));
    buildkite.cancel(id, at(secs(19)));
    assert_eq!([35, 45, 55].map(|second| told(&mut buildkite, second)), [Queue::default(); 3]);
}

#[test]
fn without_refresh_and_lag_the_numbers_are_those_of_the_instant() {
    let mut buildkite = buildkite(streaming(), 1);
    buildkite.submit(job(100), at(secs(1)));
    assert_eq!(told(&mut buildkite, 1).scheduled, 1);
}

#[test]
fn numbers_that_begin_to_lag_stand_still_and_do_not_go_back() {
    let mut buildkite = buildkite(aged(10, 0), 1);
    buildkite.submit(job(100), at(secs(1)));
    assert_eq!(told(&mut buildkite, 25).scheduled, 1);
    buildkite.set_numbers_age(NumbersAge { refresh: secs(10), lag: secs(60) }, at(secs(25)));
    buildkite.submit(job(100), at(secs(26)));
    assert_eq!([30, 60, 89, 90].map(|second| told(&mut buildkite, second).scheduled), [1, 1, 1, 2]);
    buildkite.set_numbers_age(NumbersAge::default(), at(secs(91)));
    buildkite.submit(job(100), at(secs(91)));
    assert_eq!([99, 100].map(|second| told(&mut buildkite, second).scheduled), [2, 3]);
}

#[test]
fn set_loads_are_added_at_once_to_what_is_counted() {
    let mut buildkite = buildkite(aged(10, 0), 1);
    buildkite.submit(job(100), at(secs(1)));
    buildkite.set_queue(CLUSTER, "q", Queue { scheduled: 5, idle: 2, ..Queue::default() });
    buildkite.set_queue(CLUSTER, "set", Queue { waiting: 1, ..Queue::default() });
    assert_eq!([1, 10].map(|second| told(&mut buildkite, second).scheduled), [5, 6]);
    assert_eq!(buildkite.load(CLUSTER, "q").scheduled, 6);
    let names: BTreeMap<String, Queue> = buildkite.told(CLUSTER);
    assert_eq!(names.keys().collect::<Vec<_>>(), ["q", "set"]);
}
