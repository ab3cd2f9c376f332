//! Observations to test with: the defaults of a pool, and words to change them.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use kitepool_policy::{
    decide,
    decision::{Decision, Entry, Intent, StepName},
    hints::Hints,
    memory::{Asked, Memory},
    observation::{
        AgentPod, AgentState, Generation, GoodReading, Hint, Load, PodCounts, PoolObservation, QueueObservation, Rank,
        Reading, Sign, Trouble,
    },
    protocol::PING,
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

/// A pod of old, ready and idle.
pub(crate) fn agent(name: &str) -> AgentPod {
    AgentPod {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        state: AgentState::Idle,
        since: at(-3_600),
        asked_at: None,
        rank: Rank::Ready,
        is_draining: false,
        is_leaving: false,
        node: Some(format!("node-{name}")),
        created_at: at(-100_000),
        sign: Sign::Plain,
    }
}

/// Pods as they are counted: unready ones start, ready ones are idle, draining ones are done.
pub(crate) fn agents(generation: &str, pods: PodCounts) -> Vec<AgentPod> {
    let of =
        |what: &'static str, count: Pods| (0..count.0).map(move |number| format!("{generation}-{what}-{number:03}"));
    let unready = of("unready", pods.unready).map(|name| AgentPod {
        state: AgentState::Starting,
        rank: Rank::Unready,
        ..agent(&name)
    });
    let ready = of("ready", pods.ready).map(|name| agent(&name));
    let draining = of("draining", pods.draining).map(|name| AgentPod { is_draining: true, ..agent(&name) });
    let mut agents: Vec<AgentPod> = unready.chain(ready).chain(draining).collect();
    agents.sort_by(|a, b| a.name.cmp(&b.name));
    agents
}

/// Lists the pods of every generation as they are counted, so many agents of the queue's busy with the jobs that run.
pub(crate) fn list_agents(queue: &mut QueueObservation, running: u32) {
    let mut running = running;
    for pool in &mut queue.pools {
        let per_pod = pool.spec.agents_per_pod.get();
        for generation in &mut pool.generations {
            generation.agents = agents(&generation.name, generation.pods);
            // The last of them: the first by name go first.
            for pod in generation.agents.iter_mut().rev().filter(|pod| pod.rank == Rank::Ready && !pod.is_draining) {
                let busy = running.min(per_pod);
                running -= busy;
                if busy > 0 {
                    pod.state = AgentState::Busy(Agents(busy));
                    pod.sign = Sign::Busy;
                }
            }
        }
    }
}

/// A generation at rest with so many ready pods.
pub(crate) fn generation(name: &str, ready: u32) -> Generation {
    let pods = PodCounts { ready: Pods(ready), ..PodCounts::default() };
    Generation {
        name: name.to_owned(),
        adopted: false,
        replicas: Pods(ready),
        scaled_by_us: false,
        settled: true,
        pods,
        agents: agents(name, pods),
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

/// The decision for a queue with one pool, its pods as they are counted and as busy as the reading says. What is chosen has been
/// chosen a ping ago, is marked, and was asked again.
pub(crate) fn decide_one(queue: &QueueObservation, now: Timestamp) -> Decision {
    let mut decisions = decide_all(queue, now);
    assert_eq!(decisions.len(), 1);
    decisions.remove(0)
}

/// The same for a queue of any number of pools.
pub(crate) fn decide_all(queue: &QueueObservation, now: Timestamp) -> Vec<Decision> {
    let mut queue = queue.clone();
    let running = queue.reading.last_good.map_or(0, |good| good.load.running.0);
    list_agents(&mut queue, running);
    decide_as_listed(&queue, now)
}

/// The same, with the pods as they are listed.
pub(crate) fn decide_as_listed(queue: &QueueObservation, now: Timestamp) -> Vec<Decision> {
    let mut queue = queue.clone();
    let first = decide(&queue, now);
    confirm(&mut queue, &first, now);
    decide(&queue, now)
}

/// What the first decisions chose was chosen a ping ago, bears the sign and says that it is idle.
pub(crate) fn confirm(queue: &mut QueueObservation, decisions: &[Decision], now: Timestamp) {
    for decision in decisions {
        let pool = queue.pools.iter_mut().find(|pool| pool.spec.name == decision.pool).unwrap();
        for (name, round) in &decision.memory.rounds {
            let mut round = round.clone();
            round.since = now - PING;
            let generation = pool.generations.iter_mut().find(|generation| generation.name == *name).unwrap();
            for pod in generation.agents.iter_mut().filter(|pod| round.names(&pod.uid)) {
                (pod.sign, pod.asked_at) = (Sign::Leaving, Some(now));
            }
            pool.memory.rounds.insert(name.clone(), round);
        }
    }
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
                    let made = Generation {
                        name: name.clone(),
                        adopted: false,
                        replicas: *replicas,
                        scaled_by_us: false,
                        settled: false,
                        pods,
                        agents: Vec::new(),
                    };
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
        generation.agents = agents(&generation.name, generation.pods);
    }
}

/// The same load again, read at this instant.
pub(crate) fn read_again(queue: &mut QueueObservation, load: Load, now: Timestamp) {
    queue.reading = Reading { last_good: Some(GoodReading { load, date: now, at: now }), trouble: None };
}
