//! Pools of one queue, put together for the policy.

use std::collections::{BTreeMap, HashMap};

use kitepool_api::OtherAgents;
use kitepool_policy::{
    decision::Decision,
    observation::{PoolObservation, QueueObservation, Reading, Trouble},
    spec::PoolName,
    units::{Agents, Pods},
    unsatisfiable::Watch,
};
use tokio::time::Instant;

use super::{hints::HintIndex, observe::Candidate, pool::PoolFacts, readings::QueueKey};

/// A pool of a queue.
#[derive(Debug)]
pub struct Member {
    /// Its uid.
    pub uid: String,
    /// Its place among the tick's candidates.
    place: usize,
}

/// What was decided about a candidate.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// `None`: nothing can be.
    pub decision: Option<Decision>,
    /// The other pools of its queue.
    pub companions: Vec<PoolName>,
}

/// One queue and the pools that serve it.
#[derive(Debug)]
pub struct Queue {
    /// What the policy sees.
    pub observation: QueueObservation,
    /// Its pools.
    pub members: BTreeMap<PoolName, Member>,
}

impl Queue {
    /// Whether a pool of this namespace serves it.
    pub fn serves(&self, namespace: &str) -> bool {
        self.members.keys().any(|pool| pool.namespace == namespace)
    }

    /// The other pools of the queue.
    fn companions_of(&self, pool: &PoolName) -> Vec<PoolName> {
        self.members.keys().filter(|name| *name != pool).cloned().collect()
    }

    /// Of all its pools.
    pub(super) fn of(
        key: &QueueKey,
        candidates: &[Candidate],
        broken: &[PoolFacts],
        hints: &mut HintIndex,
        at: Instant,
    ) -> Self {
        // One pool that says so is enough, since they serve the queue as a whole.
        let counts_others = candidates.iter().any(|candidate| candidate.valid.other_agents == OtherAgents::Count);
        let member = |(place, candidate): (usize, &Candidate)| {
            let view = candidate.view();
            (view.name.clone(), Member { uid: view.uid.clone(), place })
        };
        let members: BTreeMap<PoolName, Member> = candidates.iter().enumerate().map(member).collect();
        // Several tokens may see the queue; the one that is doing best speaks for it.
        let readings = candidates.iter().map(|candidate| candidate.seen.reading);
        let best = readings.reduce(|best, reading| if better(&reading, &best) { reading } else { best });
        let namespaces = members.keys().map(|pool| pool.namespace.as_str()).collect();
        let mut observation = QueueObservation {
            queue: key.queue().to_owned(),
            reading: best.unwrap_or(Reading { last_good: None, trouble: Some(Trouble::NotRead) }),
            hints: hints.of_queue(key, &namespaces, at),
            standing: standing(key.queue(), &members, broken),
            pools: candidates.iter().map(seen).collect(),
            watch: Watch::default(),
        };
        // Those of broken pools are connected as well.
        let foreign = if counts_others { foreign(&observation).minus(observation.standing) } else { Agents::ZERO };
        observation.standing = observation.standing.plus(foreign);
        Self { observation, members }
    }

    /// The decisions about its pools, by their places. `decide` answers with those of the queue, or with none where they would break
    /// an invariant.
    pub(super) fn decide(&self, decide: impl FnOnce(&QueueObservation) -> Vec<Decision>) -> Vec<Decided> {
        let mut all: Vec<Decided> = std::iter::repeat_with(Decided::default).take(self.members.len()).collect();
        for (pool, member) in &self.members {
            if let Some(decided) = all.get_mut(member.place) {
                decided.companions = self.companions_of(pool);
            }
        }
        for decision in decide(&self.observation) {
            let place = self.members.get(&decision.pool).map(|member| member.place);
            if let Some(decided) = place.and_then(|place| all.get_mut(place)) {
                decided.decision = Some(decision);
            }
        }
        all
    }
}

fn seen(candidate: &Candidate) -> PoolObservation {
    PoolObservation {
        spec: candidate.valid.spec.clone(),
        memory: candidate.memory.clone(),
        generations: candidate.facts.generations.iter().map(|facts| facts.seen.clone()).collect(),
        wanted_generation: candidate.plan.as_ref().ok().map(|planned| planned.name.clone()),
    }
}

/// What the readings of each queue have in common. A new term begins anew, which costs a minute's delay.
#[derive(Debug, Default)]
pub(super) struct Watches(HashMap<QueueKey, (Watch, u64)>);

impl Watches {
    /// Looks at what is seen of a queue in this pass.
    pub(super) fn look(&mut self, key: &QueueKey, queue: &mut Queue, pass: u64) {
        if !self.0.contains_key(key) {
            self.0.insert(key.clone(), (Watch::default(), pass));
        }
        let Some((watch, seen_in)) = self.0.get_mut(key) else { return };
        *seen_in = pass;
        watch.look(&queue.observation);
        queue.observation.watch.clone_from(watch);
    }

    /// Forgets queues that were not seen in this pass.
    pub(super) fn forget_all_but(&mut self, pass: u64) {
        self.0.retain(|_, (_, seen_in)| *seen_in == pass);
    }
}

/// One without trouble is better; among those, the later one.
fn better(a: &Reading, b: &Reading) -> bool {
    let rank = |reading: &Reading| (reading.trouble.is_none(), reading.last_good.map(|good| good.at));
    rank(a) > rank(b)
}

/// Connected agents that are not in our pods. Ours that drain are still connected; those that start may be, so the number
/// errs on the side of fewer foreign ones.
fn foreign(queue: &QueueObservation) -> Agents {
    let Some(good) = queue.reading.last_good else { return Agents::ZERO };
    let connected = good.load.idle.plus(good.load.busy);
    queue.pools.iter().fold(connected, |rest, pool| {
        let pods = pool.generations.iter().fold(Pods::ZERO, |sum, generation| {
            let pods = generation.pods;
            sum.plus(pods.ready).plus(pods.unready).plus(pods.draining)
        });
        rest.minus(pool.spec.agents_per_pod.agents_in(pods))
    })
}

/// Ready agents of broken pools beside these pools that name the same queue. What a broken pool says of its token may be
/// what is broken, so its namespace has to do for whose queue it is.
fn standing(queue: &str, beside: &BTreeMap<PoolName, Member>, broken: &[PoolFacts]) -> Agents {
    broken
        .iter()
        .filter(|facts| facts.view.raw_queue.as_deref() == Some(queue))
        .filter(|facts| beside.keys().any(|pool| pool.namespace == facts.view.name.namespace))
        .fold(Agents::ZERO, |sum, facts| {
            let Pods(ready) = facts.pods().ready;
            sum.plus(Agents(ready.saturating_mul(facts.view.raw_agents_per_pod)))
        })
}
