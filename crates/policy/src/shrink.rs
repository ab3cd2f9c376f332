//! Step 8, first part: what may go at all, and how much of it.
//!
//! Pods go only while nothing is in motion, only as many as the reading says are idle beyond the jobs about to start, and never so
//! many that the ready ones left could not hold everything that runs. Which ones is the matter of [`protocol`]: what an
//! agent says of itself can only make fewer of them go.
//!
//! Pods that are not ready need no word of the reading, provided that the ready ones alone can hold what runs, since then even a
//! busy pod whose readiness flaps has somewhere to be counted.

use jiff::Timestamp;

use crate::{
    decision::Reason,
    demand::{Demand, METRICS_STALENESS},
    memory::Memory,
    observation::{Generation, GoodReading, PoolObservation, QueueObservation},
    protocol::{self, Offer, Rounds, Turn},
    share::standing_for,
    spec::{Mode, PoolSpec},
    trust::Trust,
    units::{Agents, Pods},
};

/// What stands against taking any pod of this pool; a person's pause is a limit and comes before.
pub(crate) fn gate(pool: &PoolObservation, trust: Trust, memory: &Memory, now: Timestamp) -> Result<(), Reason> {
    let Some(reading) = trust.known() else {
        return Err(Reason::Untrusted);
    };
    if let Some(since) = memory.contested_since {
        return Err(Reason::Contested { since });
    }
    if let Some(moving) = pool.generations.iter().find(|generation| !generation.is_at_rest()) {
        return Err(Reason::InMotion { generation: moving.name.clone() });
    }
    knows(reading, memory.last_change(), now)
}

/// Whether the reading can know our change. Its numbers are a little older than itself; and one from the future was taken
/// before the clock stepped back, so nobody can tell which came first.
fn knows(reading: GoodReading, change: Option<Timestamp>, now: Timestamp) -> Result<(), Reason> {
    match change.map(|change| change.min(now)) {
        Some(changed_at) if reading.at > now || reading.at.duration_since(changed_at) <= METRICS_STALENESS => {
            Err(Reason::ReadingPredatesChange { changed_at })
        }
        _ => Ok(()),
    }
}

/// How much of a queue may go in one tick, whatever pool it goes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slack {
    /// Whether the reading knows the last pods taken from any of the pools: if not, its idle agents may be those.
    is_current: Result<(), Reason>,
    /// Idle agents that no job is about to take.
    idle: Agents,
    /// Agents in ready pods, the standing ones among them.
    ready: Agents,
    /// Agents that run a job.
    running: Agents,
}

impl Slack {
    /// For the pools of this mode. Standing agents are counted among the idle ones, as far as they go: nobody here can tell
    /// whose the idle ones are.
    pub(crate) fn of(mode: Mode, queue: &QueueObservation, demand: &Demand, now: Timestamp) -> Self {
        let standing = standing_for(mode, queue);
        let movable = queue.pools.iter().filter(|pool| mode == Mode::Observe || pool.spec.mode == mode);
        let last_lowered = movable.clone().filter_map(|pool| pool.memory.last_lowered()).max();
        Self {
            is_current: queue.reading.last_good.map_or(Ok(()), |reading| knows(reading, last_lowered, now)),
            idle: demand.load.idle.minus(standing).minus(demand.queued),
            ready: movable.fold(standing, |sum, pool| sum.plus(pool.ready_agents())),
            running: demand.busy,
        }
    }

    /// Whether every one of these ready agents is surely idle: as many are as the idle ones outnumber all agents elsewhere.
    ///
    /// An adopted Deployment has a grace period of its own, mostly far shorter than a job, so there a wrong pick would kill;
    /// and which pods go is not ours to choose. It is left alone until none of its agents can be busy.
    fn holds_only_idle(&self, own: Agents) -> bool {
        self.idle.minus(self.ready.minus(own)) >= own
    }

    /// What a generation may give of `wish` pods.
    fn offer(&self, generation: &Generation, wish: Pods, spec: &PoolSpec) -> Result<Offer, Reason> {
        self.is_current.clone()?;
        if self.ready < self.running {
            return Err(Reason::ReadyCannotHoldRunning { ready: self.ready, running: self.running });
        }
        let per_pod = spec.agents_per_pod;
        if generation.adopted && !self.holds_only_idle(per_pod.agents_in(generation.pods.ready)) {
            return Err(Reason::NoneIdle { wanted_away: wish, idle: self.idle });
        }
        let ready = per_pod.pods_filled(self.idle).min(per_pod.pods_filled(self.ready.minus(self.running)));
        Ok(Offer { wish, ready: ready.min(generation.pods.ready), idle: self.idle })
    }

    /// So many ready pods are given away, or about to be.
    fn give(&mut self, ready: Pods, spec: &PoolSpec) {
        let agents = spec.agents_per_pod.agents_in(ready);
        self.idle = self.idle.minus(agents);
        self.ready = self.ready.minus(agents);
    }
}

/// Takes up to `wish` pods of a generation: those that may go at this moment, or what stands against it. What is chosen on the
/// way there stands in `rounds`.
pub(crate) fn take(
    slack: &mut Slack,
    rounds: &mut Rounds,
    generation: &Generation,
    wish: Pods,
    spec: &PoolSpec,
    now: Timestamp,
) -> Result<Pods, Reason> {
    let offer = match slack.offer(generation, wish, spec) {
        Ok(offer) => offer,
        Err(reason) => {
            // It passes with the next reading, so what is chosen stays so.
            if matches!(reason, Reason::ReadingPredatesChange { .. }) {
                rounds.hold(&generation.name);
            }
            return Err(reason);
        }
    };
    if generation.adopted {
        // It is emptied by numbers alone: which of its pods go is not ours to choose.
        let unready = wish.min(generation.pods.unready);
        let ready = wish.minus(unready).min(offer.ready);
        slack.give(ready, spec);
        let taken = unready.plus(ready);
        return if taken.is_zero() { Err(Reason::NoneIdle { wanted_away: wish, idle: offer.idle }) } else { Ok(taken) };
    }
    if spec.mode == Mode::Observe {
        // Nothing is ever written on its pods, so what is shown is the end of it.
        let chosen = protocol::choose(generation, offer, spec.scale_down.min_age, now)?;
        slack.give(chosen.ready, spec);
        return Ok(chosen.pods());
    }
    let Turn { round, ready, outcome } =
        protocol::go_on(generation, rounds.before.get(&generation.name), offer, spec.scale_down.min_age, now);
    slack.give(ready, spec);
    rounds.touched(&generation.name, round);
    outcome
}
