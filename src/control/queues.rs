//! Pools of one queue, put together for the policy.

use std::collections::BTreeMap;

use kitepool_api::OtherAgents;
use kitepool_policy::{
    decision::Decision,
    hints::Hints,
    memory::Memory,
    observation::{Generation, PoolObservation, QueueObservation},
    spec::PoolName,
    units::{Agents, Pods},
    unsatisfiable::Watch,
};

use super::{hints::HintIndex, pool::PoolFacts, readings::QueueKey, snapshot::GenerationFacts, tick::Candidate};

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
    /// Whether agents that are not ours count: one pool that says so is enough, since they serve the queue as a whole.
    counts_others: bool,
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
}

/// The queues of all valid pools.
pub(super) fn by_key(
    candidates: &[Candidate],
    broken: &[PoolFacts],
    hints: &mut HintIndex,
) -> BTreeMap<QueueKey, Queue> {
    let mut queues: BTreeMap<QueueKey, Queue> = BTreeMap::new();
    for (place, candidate) in candidates.iter().enumerate() {
        let queue = queues.entry(candidate.seen.key.clone()).or_insert_with(|| Queue {
            observation: QueueObservation {
                queue: candidate.valid.queue.clone(),
                reading: candidate.seen.reading,
                hints: Hints::default(),
                standing: Agents::ZERO,
                pools: Vec::new(),
                watch: Watch::default(),
            },
            members: BTreeMap::new(),
            counts_others: false,
        });
        queue.counts_others |= candidate.valid.other_agents == OtherAgents::Count;
        // Several tokens may see the queue; the one that is doing best speaks for it.
        if better(&candidate.seen.reading, &queue.observation.reading) {
            queue.observation.reading = candidate.seen.reading;
        }
        let member = Member { uid: candidate.view().uid.clone(), place };
        queue.members.insert(candidate.view().name.clone(), member);
        queue.observation.pools.push(PoolObservation {
            spec: candidate.valid.spec.clone(),
            memory: candidate.memory.clone(),
            generations: candidate.facts.generations.iter().map(|facts| seen(facts, &candidate.memory)).collect(),
            wanted_generation: candidate.plan.as_ref().ok().map(|planned| planned.name.clone()),
        });
    }
    for (key, queue) in &mut queues {
        let namespaces = queue.members.keys().map(|pool| pool.namespace.as_str()).collect();
        queue.observation.hints = hints.of_queue(key, &namespaces);
        let standing = standing(key.queue(), &queue.members, broken);
        // Those of broken pools are connected as well.
        let foreign = if queue.counts_others { foreign(&queue.observation).minus(standing) } else { Agents::ZERO };
        queue.observation.standing = standing.plus(foreign);
    }
    queues
}

/// The decisions about so many candidates, by their places. `decide` answers with those of a queue, or with none where they would
/// break an invariant.
pub(super) fn decide(
    queues: &BTreeMap<QueueKey, Queue>,
    candidates: usize,
    decide: impl Fn(&QueueKey, &QueueObservation) -> Vec<Decision>,
) -> Vec<Decided> {
    let mut all: Vec<Decided> = std::iter::repeat_with(Decided::default).take(candidates).collect();
    for (key, queue) in queues {
        for (pool, member) in &queue.members {
            if let Some(decided) = all.get_mut(member.place) {
                decided.companions = queue.companions_of(pool);
            }
        }
        for decision in decide(key, &queue.observation) {
            let place = queue.members.get(&decision.pool).map(|member| member.place);
            if let Some(decided) = place.and_then(|place| all.get_mut(place)) {
                decided.decision = Some(decision);
            }
        }
    }
    all
}

/// When a pod was asked matters for those that are chosen; of all others it would make every tick news.
fn seen(facts: &GenerationFacts, memory: &Memory) -> Generation {
    let mut seen = facts.seen.clone();
    let round = memory.rounds.get(&seen.name);
    for pod in &mut seen.agents {
        pod.asked_at = pod.asked_at.filter(|_| round.is_some_and(|round| round.names(&pod.uid)));
    }
    seen
}

/// The watch of each queue looks at what is seen of it now. Queues that are gone take theirs along.
pub(super) fn watch(queues: &mut BTreeMap<QueueKey, Queue>, watches: &mut BTreeMap<QueueKey, Watch>) {
    watches.retain(|key, _| queues.contains_key(key));
    for (key, queue) in queues {
        let watch = watches.entry(key.clone()).or_default();
        watch.look(&queue.observation);
        queue.observation.watch.clone_from(watch);
    }
}

/// One without trouble is better; among those, the later one.
fn better(a: &kitepool_policy::observation::Reading, b: &kitepool_policy::observation::Reading) -> bool {
    let rank = |reading: &kitepool_policy::observation::Reading| {
        (reading.trouble.is_none(), reading.last_good.map(|good| good.at))
    };
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
