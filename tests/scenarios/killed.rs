//! The controller ends before and after each write of a story that makes it write all that it ever writes.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use kitepool::simulate::{
    replica::{KillPoint, Side},
    story::Story,
};

use crate::{told, told_until_killed};

/// Growth by events and by a reading, a roll, what somebody else scaled, and back to nothing; each time that pods go, they are
/// chosen, marked and asked again before.
const STORY: &str = r#"
about: everything that is written, in a short time
lasts: 2m 30s
stateEvery: 10m
buildkite: { ping: 2s, refresh: 5s }
kubernetes: { startLeast: 1s, startMost: 3s }
pools:
  - metadata: { name: linux }
    spec:
      longestJob: 1h
      scaling:
        min: 0
        max: 6
        spare: { agents: 0 }
        scaleUp: { cooldown: 0s, step: { percent: 100, agents: 2, per: 5s } }
        scaleDown: { cooldown: 0s, window: 5s, step: { percent: 100, agents: 10, per: 5s }, minAge: 5s }
story:
  - { at: 5s, jobs: { queue: linux, count: 2, run: 8s } }
  - { at: 12s, image: "agent:2" }
  - { at: 32s, scale: { pool: linux, replicas: 2 } }
  - { at: 38s, events: { lostPermille: 1000 }, jobs: { queue: linux, count: 1, run: 3s } }
expect:
  passed: 3
  replicas: { linux: 0 }
"#;

#[test]
fn a_controller_that_ends_at_any_write_harms_nothing() {
    let story = Story::parse(STORY).unwrap();
    let whole = told(story.clone());
    assert_eq!(whole.wrong, Vec::<String>::new(), "undisturbed");
    assert!(whole.writes > 20, "only {} writes: the story shows little", whole.writes);
    for written in ["creates ", "scales ", "deletes ", "marks ", "Event "] {
        assert!(whole.transcript.iter().any(|line| line.contains(written)), "nothing {written}");
    }
    let sides = |write| [(write, Side::Before), (write, Side::After)];
    let points: Vec<(usize, Side)> = (1..=whole.writes).flat_map(sides).collect();
    println!("{} writes, and so {} points", whole.writes, points.len());
    let next = AtomicUsize::new(0);
    let (harmed, found) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((write, side)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = told_until_killed(story.clone(), KillPoint::new(*write, *side));
                    let tells_of_a_raise = outcome.transcript.iter().any(|line| line.contains("Event RaiseFound"));
                    found.fetch_add(usize::from(tells_of_a_raise), Ordering::Relaxed);
                    let kills = outcome.transcript.iter().filter(|line| line.contains("the controller is killed"));
                    if kills.count() != 1 || !outcome.wrong.is_empty() {
                        harmed.lock().unwrap().push((*write, *side, outcome.wrong));
                    }
                }
            });
        }
    });
    assert!(found.into_inner() > 0, "a raise was left without a record, and the next controller told of it");
    let harmed = harmed.into_inner().unwrap();
    assert!(harmed.is_empty(), "of {} points {} do harm: {:#?}", points.len(), harmed.len(), harmed.first());
}
