//! What a history is blamed for, and what not.

use kitepool_policy::{
    check::Invariant,
    decide,
    spec::ScaleDown,
    units::Pods,
    violations,
    violations::{History, Tick},
};

use crate::build::{at, list_agents, load, pool, queue, read_again, secs, step};

/// Two minutes in which five pods stand and four would do, and the status with the memory is never written.
fn unrecorded() -> History {
    let mut queue = queue(load(0, 4, 1), vec![pool(5)]);
    queue.pools[0].spec.scale_down =
        ScaleDown { window: secs(10), cooldown: secs(1), step: step(100, 10, 1), min_age: secs(0) };
    queue.pools[0].memory.want = Some(Pods(5));
    let ticks = (0..120).map(|second| {
        let now = at(second);
        read_again(&mut queue, load(0, 4, 1), now);
        list_agents(&mut queue, 4);
        Tick { now, decisions: decide(&queue, now), queue: queue.clone(), truth: None }
    });
    History { ticks: ticks.collect() }
}

#[test]
fn a_window_is_owed_from_when_its_beginning_was_recorded() {
    let mut history = unrecorded();
    assert!(history.ticks.iter().all(|tick| tick.decisions[0].target == Pods(5)), "each tick sees the want fall anew");
    assert_eq!(violations(&history), []);

    // The same decisions over a memory that was recorded after all.
    for before in 0..history.ticks.len() - 1 {
        let memory = history.ticks[before].decisions[0].memory.clone();
        history.ticks[before + 1].queue.pools[0].memory = memory;
    }
    let found = violations(&history);
    assert!(found.iter().any(|violation| violation.invariant == Invariant::BoundedWaste), "{found:#?}");
}
