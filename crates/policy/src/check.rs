//! Refuses decisions that break an invariant, whoever made them.
//!
//! It runs in production between deciding and acting, so it looks at one tick only; what shows in the course of many ticks
//! is found by [`violations`](mod@crate::violations). It works the numbers out again rather than asking the steps, so that a
//! mistake in a step does not hide itself.

use std::{collections::BTreeSet, fmt, time::Duration};

use jiff::Timestamp;

use crate::{
    age::{distance, elapsed},
    breaker::PROBES,
    decision::{Decision, Intent},
    memory::Round,
    observation::{AgentPod, AgentState, Generation, PoolObservation, QueueObservation, Rank, Sign},
    protocol::PING,
    schedule, share,
    spec::{Mode, PoolName},
    units::{Agents, Pods},
};

/// What a violation is against. The first seven and the tenth are the architecture's invariants, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// 1: no write of ours kills a running job.
    NoKill,
    /// 2: `min <= target <= max`, and never below what is busy.
    Floor,
    /// 3: each job is counted once.
    CountOnce,
    /// 4: a constant demand is reached in bounded time.
    Progress,
    /// 5: not knowing takes nothing away.
    FailSafe,
    /// 6: idle pods above spare go in bounded time.
    BoundedWaste,
    /// 7: no pod comes and goes for nothing.
    BoundedThrash,
    /// 10: the pods that go are those that were chosen, or somebody says so.
    Attribution,
    /// What a person has said holds: pause, a contest that is not settled, a definition that is broken.
    PersonsWord,
    /// A decision agrees with itself and with what it was made from.
    Consistency,
}

impl Invariant {
    /// A bounded word for labels and reasons.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoKill => "no_kill",
            Self::Floor => "floor",
            Self::CountOnce => "count_once",
            Self::Progress => "progress",
            Self::FailSafe => "fail_safe",
            Self::BoundedWaste => "bounded_waste",
            Self::BoundedThrash => "bounded_thrash",
            Self::Attribution => "attribution",
            Self::PersonsWord => "persons_word",
            Self::Consistency => "consistency",
        }
    }
}

/// One broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// By whose decision: this one must not be carried out.
    pub pool: PoolName,
    /// When.
    pub at: Timestamp,
    /// In which way.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: pool {}: {}", self.invariant.as_str(), self.at, self.pool, self.detail)
    }
}

/// What is wrong with these decisions, of one tick and one queue. Empty when they may be carried out; otherwise each pool that
/// is named keeps what it has.
#[must_use = "a decision that breaks an invariant must not be carried out"]
pub fn check(queue: &QueueObservation, decisions: &[Decision], now: Timestamp) -> Vec<Violation> {
    let mut found = Findings { at: now, violations: Vec::new() };
    let mut seen = BTreeSet::new();
    let mut changes = Vec::with_capacity(decisions.len());
    for decision in decisions {
        let Some(pool) = queue.pools.iter().find(|pool| pool.spec.name == decision.pool) else {
            found.add(&decision.pool, Invariant::Consistency, "no such pool was observed");
            continue;
        };
        if !seen.insert(&decision.pool) {
            found.add(&decision.pool, Invariant::Consistency, "decided twice");
            continue;
        }
        let change = Change::of(pool, decision);
        intents_fit(&change, &mut found);
        bounds_hold(&change, now, &mut found);
        growth_is_allowed(&change, &mut found);
        shrink_is_allowed(queue, &change, now, &mut found);
        chosen_ones_go(&change, now, &mut found);
        changes.push(change);
    }
    for mode in [Mode::Active, Mode::Observe] {
        only_idle_go(queue, mode, &changes, now, &mut found);
    }
    found.violations
}

/// Collects what is found.
struct Findings {
    at: Timestamp,
    violations: Vec<Violation>,
}

impl Findings {
    fn add(&mut self, pool: &PoolName, invariant: Invariant, detail: impl Into<String>) {
        self.violations.push(Violation { invariant, pool: pool.clone(), at: self.at, detail: detail.into() });
    }
}

/// What a decision does to a pool.
struct Change<'a> {
    pool: &'a PoolObservation,
    decision: &'a Decision,
    before: Pods,
    after: Pods,
    /// Generations that lose pods, and how many.
    lowered: Vec<(&'a Generation, Pods)>,
    /// The generation that gains pods, and how many it then has; nothing for one that does not exist yet.
    raised: Option<(&'a Generation, Pods)>,
    grows: bool,
}

impl<'a> Change<'a> {
    fn of(pool: &'a PoolObservation, decision: &'a Decision) -> Self {
        let before = pool.replicas();
        let mut change =
            Self { pool, decision, before, after: before, lowered: Vec::new(), raised: None, grows: false };
        let (mut raised, mut lowered) = (Pods::ZERO, Pods::ZERO);
        for intent in &decision.intents {
            match intent {
                Intent::Create { replicas, .. } => {
                    change.grows = true;
                    raised = raised.plus(*replicas);
                }
                Intent::Scale { generation, from, to } => {
                    change.grows |= to > from;
                    (raised, lowered) = (raised.plus(to.minus(*from)), lowered.plus(from.minus(*to)));
                    match pool.generation(generation) {
                        Some(generation) if to < from => change.lowered.push((generation, from.minus(*to))),
                        Some(generation) if to > from => change.raised = Some((generation, *to)),
                        Some(_) | None => {}
                    }
                }
                Intent::Delete { .. } => {}
            }
        }
        change.after = before.minus(lowered).plus(raised);
        change
    }

    fn name(&self) -> &'a PoolName {
        &self.pool.spec.name
    }

    /// Ready pods that go: a `ReplicaSet` takes the others first.
    fn ready_gone(&self) -> Agents {
        let ready = |(generation, pods): &(&Generation, Pods)| pods.minus(generation.pods.unready);
        self.pool.spec.agents_per_pod.agents_in(self.lowered.iter().map(ready).fold(Pods::ZERO, Pods::plus))
    }
}

/// Each intent is about something that exists as the intent says, and is in the memory that is recorded with it.
fn intents_fit(change: &Change<'_>, found: &mut Findings) {
    let Change { pool, decision, .. } = change;
    let mut touched = BTreeSet::new();
    let mut wrong = |invariant, detail: String| found.add(&pool.spec.name, invariant, detail);
    for intent in &decision.intents {
        let name = intent.generation();
        if !touched.insert(name) {
            wrong(Invariant::Consistency, format!("two intents for {name}"));
        }
        let is_wanted = pool.wanted_generation.as_deref() == Some(name);
        let recorded =
            |from: Pods, to: Pods| decision.memory.asked.get(name).is_some_and(|asked| asked.covers(from, to));
        match (intent, pool.generation(name)) {
            (Intent::Create { replicas, .. }, None) => {
                if !is_wanted || replicas.is_zero() {
                    wrong(Invariant::Consistency, format!("creates {name}, which nobody wants"));
                }
                if !recorded(Pods::ZERO, *replicas) {
                    wrong(Invariant::Consistency, format!("the creation of {name} is not recorded"));
                }
            }
            (Intent::Scale { from, to, .. }, Some(generation)) => {
                if *from != generation.replicas || from == to {
                    wrong(
                        Invariant::Consistency,
                        format!("scales {name} from {from} to {to} at {}", generation.replicas),
                    );
                }
                if to > from && !is_wanted {
                    wrong(Invariant::Consistency, format!("raises {name}, which nobody wants"));
                }
                if !recorded(*from, *to) {
                    wrong(Invariant::Consistency, format!("the scaling of {name} is not recorded"));
                }
            }
            (Intent::Delete { .. }, Some(generation)) => {
                if is_wanted || generation.adopted {
                    wrong(Invariant::Consistency, format!("deletes {name}, which must stay"));
                }
                if !generation.is_empty() {
                    wrong(Invariant::NoKill, format!("deletes {name} under its pods"));
                }
            }
            (Intent::Create { .. }, Some(_)) => wrong(Invariant::Consistency, format!("creates {name}, which exists")),
            (Intent::Scale { .. } | Intent::Delete { .. }, None) => {
                wrong(Invariant::Consistency, format!("writes to {name}, which does not exist"));
            }
        }
    }
    if decision.target != change.after {
        wrong(Invariant::Consistency, format!("says {} and makes {}", decision.target, change.after));
    }
}

/// Growth ends at `max`, shrinking ends at the floor.
fn bounds_hold(change: &Change<'_>, now: Timestamp, found: &mut Findings) {
    let limits = change.pool.spec.limits;
    let floor = limits.min().max(schedule::floor(&change.pool.spec, now)).min(limits.max());
    if change.after > change.before && change.after > limits.max() {
        found.add(change.name(), Invariant::Floor, format!("grows to {} above max {}", change.after, limits.max()));
    }
    if change.after < change.before && change.after < floor {
        found.add(change.name(), Invariant::Floor, format!("shrinks to {} below min {floor}", change.after));
    }
}

/// Growth needs a definition, no pause, and pods that come up.
fn growth_is_allowed(change: &Change<'_>, found: &mut Findings) {
    if change.grows && change.pool.spec.pause.stops_up() {
        found.add(change.name(), Invariant::PersonsWord, "grows although growth is paused");
    }
    if let Some((generation, after)) = change.raised
        && generation.pods.ready.is_zero()
        && !generation.pods.failing.is_zero()
        && after > PROBES
    {
        let detail = format!("raises {} to {after} although its pods fail and none is ready", generation.name);
        found.add(change.name(), Invariant::BoundedWaste, detail);
    }
    if !change.decision.intents.is_empty() && change.pool.wanted_generation.is_none() {
        found.add(change.name(), Invariant::PersonsWord, "writes although the definition is broken");
    }
}

/// Taking pods away needs knowledge, rest, age and no person against it.
fn shrink_is_allowed(queue: &QueueObservation, change: &Change<'_>, now: Timestamp, found: &mut Findings) {
    if change.lowered.is_empty() {
        return;
    }
    let Change { pool, .. } = change;
    let spec = &pool.spec;
    let mut wrong = |invariant, detail: String| found.add(&spec.name, invariant, detail);

    match queue.reading.last_good {
        Some(good) if queue.reading.trouble.is_none() && distance(now, good.at) <= spec.stale_after => {
            if last_change(pool).is_some_and(|change| good.at <= change.min(now)) {
                wrong(Invariant::NoKill, "shrinks by a reading from before the last change".to_owned());
            }
        }
        _ => wrong(Invariant::FailSafe, "shrinks without a reading to believe".to_owned()),
    }
    if spec.pause.stops_down() || pool.memory.contested_since.is_some() {
        wrong(Invariant::PersonsWord, "shrinks although paused or contested".to_owned());
    }
    if let Some(moving) = pool.generations.iter().find(|generation| !generation.is_at_rest()) {
        wrong(Invariant::NoKill, format!("shrinks while {} is in motion", moving.name));
    }
}

/// Of our own Deployments, exactly those pods go that are chosen: recorded before, with the sign on them and on no other, idle by
/// their own word a ping later, old enough, and none that would be taken before them. What is shown of a pool that only observes
/// was never written on any pod.
fn chosen_ones_go(change: &Change<'_>, now: Timestamp, found: &mut Findings) {
    let Change { pool, decision, .. } = change;
    for (generation, taken) in change.lowered.iter().filter(|(generation, _)| !generation.adopted) {
        if pool.spec.mode == Mode::Observe {
            continue;
        }
        let name = &generation.name;
        let mut wrong = |invariant, detail: String| found.add(change.name(), invariant, detail);
        let rounds = decision.memory.rounds.get(name).zip(pool.memory.rounds.get(name));
        let Some((round, recorded)) = rounds else {
            wrong(Invariant::Attribution, format!("takes {taken} pods of {name} and has chosen none"));
            continue;
        };
        if usize::try_from(taken.0) != Ok(round.victims.len()) {
            wrong(
                Invariant::Attribution,
                format!("takes {taken} pods of {name} and has chosen {}", round.victims.len()),
            );
        }
        for victim in &round.victims {
            let listed = generation.agents.iter().find(|pod| pod.uid == victim.uid && !pod.is_draining);
            let Some(pod) = listed.filter(|pod| recorded.names(&pod.uid)) else {
                wrong(Invariant::Attribution, format!("takes {}, which is not there or was not chosen", victim.name));
                continue;
            };
            if elapsed(pod.created_at, now) < pod_age_min(pool) {
                wrong(Invariant::BoundedThrash, format!("takes {}, made a moment ago", pod.name));
            }
            if pod.sign != Sign::Leaving {
                wrong(Invariant::Attribution, format!("takes {} without its sign", pod.name));
            }
            if let Some((invariant, what)) = why_not(pod, recorded, now) {
                wrong(invariant, format!("takes {}, which {what}", pod.name));
            }
        }
        let last = generation.living().filter(|pod| round.names(&pod.uid)).map(|pod| pod.rank).max();
        for pod in generation.living().filter(|pod| !round.names(&pod.uid)) {
            if matches!(pod.sign, Sign::Leaving | Sign::Moving) || last.is_some_and(|last| pod.rank < last) {
                wrong(Invariant::Attribution, format!("{} would go in the place of a chosen one", pod.name));
            }
        }
        let listed = generation.living().filter(|pod| pod.rank < Rank::Ready).count();
        if usize::try_from(generation.pods.unready.0).is_ok_and(|unready| unready > listed) {
            wrong(Invariant::Attribution, format!("pods of {name} that nobody knows would go first"));
        }
    }
}

fn pod_age_min(pool: &PoolObservation) -> Duration {
    pool.spec.scale_down.min_age
}

/// What stands against taking a pod at this moment, by what its agents say.
fn why_not(pod: &AgentPod, recorded: &Round, now: Timestamp) -> Option<(Invariant, &'static str)> {
    match pod.state {
        AgentState::Busy(_) => Some((Invariant::NoKill, "runs a job")),
        AgentState::Unknown => Some((Invariant::FailSafe, "does not say whether it runs a job")),
        AgentState::Starting if pod.is_ready() => Some((Invariant::FailSafe, "is ready and said nothing")),
        AgentState::Starting => None,
        AgentState::Idle => {
            let is_later = |asked_at| elapsed(recorded.since.min(now), asked_at) >= PING && asked_at <= now;
            (!pod.asked_at.is_some_and(is_later)).then_some((Invariant::NoKill, "was not asked again"))
        }
    }
}

/// When we last changed this pool, generations that are no more left out.
fn last_change(pool: &PoolObservation) -> Option<Timestamp> {
    let asked = pool.generations.iter().filter_map(|generation| pool.memory.asked.get(&generation.name));
    let of_generations = asked.flat_map(|asked| [asked.raised_at, asked.lowered_at]);
    of_generations.chain([pool.memory.last_up, pool.memory.last_down]).flatten().max()
}

/// Over all pools of a queue, no more ready agents go than are idle, and those that stay can hold what runs.
fn only_idle_go(queue: &QueueObservation, mode: Mode, changes: &[Change<'_>], now: Timestamp, found: &mut Findings) {
    let Some(good) = queue.reading.last_good else {
        return;
    };
    let shrinking: Vec<&Change<'_>> =
        changes.iter().filter(|change| change.pool.spec.mode == mode && !change.lowered.is_empty()).collect();
    let gone = shrinking.iter().fold(Agents::ZERO, |sum, change| sum.plus(change.ready_gone()));
    let pools = queue.pools.iter().filter(|pool| mode == Mode::Observe || pool.spec.mode == mode);
    let last_lowered = pools.clone().filter_map(|pool| pool.memory.last_lowered()).max();
    let ready = pools.fold(share::standing_for(mode, queue), |sum, pool| sum.plus(pool.ready_agents()));
    let left = ready.minus(gone);
    // What pods finish on their way out needs no place.
    let draining = queue.pools.iter().flat_map(|pool| &pool.generations);
    let draining = draining.flat_map(|generation| &generation.agents).filter(|pod| pod.is_draining);
    let draining = draining.fold(Agents::ZERO, |sum, pod| sum.plus(pod.state.busy()));
    let running = good.load.running.agents().minus(draining);
    for change in shrinking {
        if last_lowered.is_some_and(|lowered_at| good.at <= lowered_at.min(now)) {
            found.add(change.name(), Invariant::NoKill, "shrinks by a reading from before the queue last shrank");
        }
        if gone > good.load.idle {
            let detail = format!("{gone} ready agents of the queue would go, {} are idle", good.load.idle);
            found.add(change.name(), Invariant::Floor, detail);
        }
        if left < running {
            let detail = format!("{left} ready agents would be left for {running} running jobs");
            found.add(change.name(), Invariant::Floor, detail);
        }
    }
}
