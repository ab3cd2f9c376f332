//! Observations to test with: the defaults of a pool, and words to change them.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use kitepool_policy::{
    decide,
    decision::{Decision, Entry, Intent, StepName},
    hints::Hints,
    memory::{Asked, Memory},
    observation::{
        Generation, GoodReading, Hint, Load, PodCounts, PoolObservation, QueueObservation, Reading, Trouble,
    },
    spec::{Fraction, Limits, Mode, Pause, Percent, PoolName, PoolSpec, ScaleDown, ScaleUp, Spare, Step},
    units::{Agents, AgentsPerPod, Jobs, Pods},
    unsatisfiable::Watch,
};

/// A Monday noon, and so many seconds later.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_614_400 + seconds).unwrap()
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn step(percent: u16, agents: u32, per: u64) -> Step {
    Step::new(Percent::new(percent).unwrap(), Agents(agents), secs(per)).unwrap()
}

/// A pool as the resource's defaults make it, but without spare agents.
pub(crate) fn spec() -> PoolSpec {
    PoolSpec {
        name: name("linux"),
        tags: BTreeSet::new(),
        agents_per_pod: AgentsPerPod::ONE,
        mode: Mode::Active,
        pause: Pause::None,
        order: 0,
        limits: Limits::new(Pods(0), Pods(100)).unwrap(),
        spare: Spare::Agents(Agents(0)),
        waiting_weight: Fraction::ZERO,
        scale_up: ScaleUp { cooldown: secs(0), step: step(100, 10, 10) },
        scale_down: ScaleDown { cooldown: secs(60), window: secs(300), step: step(50, 1, 10), min_age: secs(120) },
        hint_ttl: secs(120),
        stale_after: secs(90),
        schedules: Vec::new(),
    }
}

pub(crate) fn name(name: &str) -> PoolName {
    PoolName { namespace: "buildkite".to_owned(), name: name.to_owned() }
}

/// A generation at rest with so many ready pods.
pub(crate) fn generation(name: &str, ready: u32) -> Generation {
    Generation {
        name: name.to_owned(),
        adopted: false,
        replicas: Pods(ready),
        settled: true,
        pods: PodCounts { ready: Pods(ready), ..PodCounts::default() },
    }
}

/// A pool whose one generation `a` has so many ready pods, wanted as long as anybody can remember.
pub(crate) fn pool(ready: u32) -> PoolObservation {
    let mut memory = Memory { want: Some(Pods(0)), ..Memory::default() };
    memory.asked.insert("a".to_owned(), Asked::found(Pods(ready)));
    PoolObservation {
        spec: spec(),
        memory,
        generations: vec![generation("a", ready)],
        wanted_generation: Some("a".to_owned()),
    }
}

pub(crate) fn load(scheduled: u32, running: u32, idle: u32) -> Load {
    Load {
        scheduled: Jobs(scheduled),
        running: Jobs(running),
        waiting: Jobs(0),
        idle: Agents(idle),
        busy: Agents(running),
    }
}

/// A reading taken at `at(0)`, by both clocks.
pub(crate) fn reading(load: Load) -> Reading {
    Reading { last_good: Some(GoodReading { load, date: at(0), at: at(0) }), trouble: None }
}

pub(crate) fn queue(load: Load, pools: Vec<PoolObservation>) -> QueueObservation {
    QueueObservation {
        queue: "linux".to_owned(),
        reading: reading(load),
        hints: Hints::default(),
        standing: Agents(0),
        pools,
        watch: Watch::default(),
    }
}

/// A hint for a job, runnable and stored so many seconds after `at(0)`.
pub(crate) fn hint(job: &str, runnable_at: i64) -> Hint {
    Hint {
        job: job.to_owned(),
        runnable_at: at(runnable_at),
        stored_at: at(runnable_at),
        rules: vec!["queue=linux".to_owned()],
    }
}

pub(crate) fn trouble(queue: &mut QueueObservation, trouble: Trouble) {
    queue.reading.trouble = Some(trouble);
}

/// The decision for a queue with one pool.
pub(crate) fn decide_one(queue: &QueueObservation, now: Timestamp) -> Decision {
    let mut decisions = decide(queue, now);
    assert_eq!(decisions.len(), 1);
    decisions.remove(0)
}

pub(crate) fn entry(decision: &Decision, step: StepName) -> &Entry {
    decision.report.entry(step).unwrap()
}

pub(crate) fn category(decision: &Decision, step: StepName) -> &'static str {
    entry(decision, step).reason.category()
}

pub(crate) fn scale(generation: &str, from: u32, to: u32) -> Intent {
    Intent::Scale { generation: generation.to_owned(), from: Pods(from), to: Pods(to) }
}

/// The next observation if the intents land at once: specs change, pods are on their way.
pub(crate) fn carry_out(queue: &mut QueueObservation, decisions: &[Decision]) {
    for decision in decisions {
        let pool = queue.pools.iter_mut().find(|pool| pool.spec.name == decision.pool).unwrap();
        pool.memory = decision.memory.clone();
        for intent in &decision.intents {
            match intent {
                Intent::Create { generation: name, replicas } => {
                    let pods = PodCounts::default();
                    let made =
                        Generation { name: name.clone(), adopted: false, replicas: *replicas, settled: false, pods };
                    pool.generations.push(made);
                }
                Intent::Scale { generation, to, .. } => {
                    let found = pool.generations.iter_mut().find(|found| found.name == *generation).unwrap();
                    found.replicas = *to;
                    found.settled = false;
                }
                Intent::Delete { generation } => pool.generations.retain(|found| found.name != *generation),
            }
        }
    }
}

/// What follows once all pods are as asked: as many ready ones as replicas.
pub(crate) fn come_to_rest(queue: &mut QueueObservation) {
    for generation in queue.pools.iter_mut().flat_map(|pool| &mut pool.generations) {
        generation.settled = true;
        generation.pods = PodCounts { ready: generation.replicas, ..PodCounts::default() };
    }
}

/// The same load again, read at this instant.
pub(crate) fn read_again(queue: &mut QueueObservation, load: Load, now: Timestamp) {
    queue.reading = Reading { last_good: Some(GoodReading { load, date: now, at: now }), trouble: None };
}
