//! Step 8, first half: what may go at all, and how much of it.
//!
//! Which agents of ours are busy is not known from here; the reading knows how many of the queue are idle. So pods go only
//! while nothing is in motion, only as many as the reading says are idle beyond the jobs about to start, and never so many
//! that the ready ones left could not hold everything that runs. Which pods go is the `ReplicaSet`'s choice, and it takes pods
//! that are not ready first: those need no word of the reading, provided that the ready ones alone can hold what runs, since
//! then even a busy pod whose readiness flaps has somewhere to be counted.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    age::elapsed,
    decision::Reason,
    demand::{Demand, METRICS_STALENESS},
    memory::Memory,
    observation::{Generation, GoodReading, PoolObservation, QueueObservation},
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

    /// Takes up to `wish` pods of a generation out of the slack.
    fn take(&mut self, generation: &Generation, wish: Pods, spec: &PoolSpec) -> Result<Pods, Reason> {
        self.is_current.clone()?;
        if self.ready < self.running {
            return Err(Reason::ReadyCannotHoldRunning { ready: self.ready, running: self.running });
        }
        let per_pod = spec.agents_per_pod;
        if generation.adopted && !self.holds_only_idle(per_pod.agents_in(generation.pods.ready)) {
            return Err(Reason::NoneIdle { wanted_away: wish, idle: self.idle });
        }
        let unready = wish.min(generation.pods.unready);
        let ready = wish
            .minus(unready)
            .min(generation.pods.ready)
            .min(per_pod.pods_filled(self.idle))
            .min(per_pod.pods_filled(self.ready.minus(self.running)));
        let agents = per_pod.agents_in(ready);
        self.idle = self.idle.minus(agents);
        self.ready = self.ready.minus(agents);
        let taken = unready.plus(ready);
        if taken.is_zero() { Err(Reason::NoneIdle { wanted_away: wish, idle: self.idle }) } else { Ok(taken) }
    }
}

/// Takes up to `wish` pods of a generation whose pods are old enough.
pub(crate) fn take(
    slack: &mut Slack,
    generation: &Generation,
    wish: Pods,
    spec: &PoolSpec,
    memory: &Memory,
    now: Timestamp,
) -> Result<Pods, Reason> {
    if let Some(remaining) = too_young(generation, spec, memory, now) {
        return Err(Reason::TooYoung { generation: generation.name.clone(), remaining });
    }
    slack.take(generation, wish, spec)
}

/// How long until every pod of our making is older than `minAge`. Single pods cannot be told apart here, so one raise makes
/// a whole generation wait.
fn too_young(generation: &Generation, spec: &PoolSpec, memory: &Memory, now: Timestamp) -> Option<Duration> {
    let raised_at = memory.asked.get(&generation.name)?.raised_at?;
    spec.scale_down.min_age.checked_sub(elapsed(raised_at, now)).filter(|remaining| !remaining.is_zero())
}
