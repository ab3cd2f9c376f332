//! Wrong policies, each with one small and plausible mistake, kept so that every checker can show that it catches it.
//!
//! Each is the right policy with something twisted before or after it, so the right one needs no hooks for them.

use jiff::Timestamp;

use crate::{
    check::Invariant,
    decide,
    decision::{Decision, Intent},
    memory::{Asked, Peak, Unsatisfiable},
    observation::{AgentPod, AgentState, GoodReading, Load, PoolObservation, QueueObservation},
    protocol::PING,
    units::{Jobs, Pods},
};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Saboteur {
    /// Goes straight down to `max`, busy or not.
    ObeysMaxAtOnce,
    /// Counts every event as a job of its own.
    CountsEveryEvent,
    /// Lets a pool at most double, and so never leaves zero.
    AtMostDoubles,
    /// Believes the last good reading however old it is.
    BelievesOldReadings,
    /// Takes "no reading" for "no jobs".
    TakesMissingForZero,
    /// Counts the largest want of the past as wanted now, at every tick.
    RestartsTheWindow,
    /// Has no window, no cooldown and no `minAge`.
    ForgetsToWait,
    /// Takes queued jobs beside idle agents for jobs that no agent takes, at the first sight of them.
    TakesBusyForStuck,
    /// Does not look at what becomes of the pods it makes.
    GrowsOnFailures,
    /// Takes busy agents for idle ones.
    PicksBusy,
    /// Takes agents that do not answer for idle ones.
    PicksUnknown,
    /// Takes what is chosen as soon as that is written on it.
    SkipsTheSecondAsk,
    /// Takes more pods than it has chosen.
    TakesOneMore,
    /// Says nothing of the pods that went in the places of the chosen ones.
    HidesTheOthers,
}

impl Saboteur {
    /// All.
    pub const ALL: [Self; 14] = [
        Self::ObeysMaxAtOnce,
        Self::CountsEveryEvent,
        Self::AtMostDoubles,
        Self::BelievesOldReadings,
        Self::TakesMissingForZero,
        Self::RestartsTheWindow,
        Self::ForgetsToWait,
        Self::TakesBusyForStuck,
        Self::GrowsOnFailures,
        Self::PicksBusy,
        Self::PicksUnknown,
        Self::SkipsTheSecondAsk,
        Self::TakesOneMore,
        Self::HidesTheOthers,
    ];

    /// The invariant that the mistake breaks.
    pub const fn breaks(self) -> Invariant {
        match self {
            Self::ObeysMaxAtOnce => Invariant::Floor,
            Self::CountsEveryEvent | Self::TakesBusyForStuck => Invariant::CountOnce,
            Self::AtMostDoubles => Invariant::Progress,
            Self::BelievesOldReadings | Self::TakesMissingForZero | Self::PicksUnknown => Invariant::FailSafe,
            Self::PicksBusy | Self::SkipsTheSecondAsk => Invariant::NoKill,
            Self::TakesOneMore | Self::HidesTheOthers => Invariant::Attribution,
            Self::RestartsTheWindow | Self::GrowsOnFailures => Invariant::BoundedWaste,
            Self::ForgetsToWait => Invariant::BoundedThrash,
        }
    }

    /// Decides, with the mistake.
    pub fn decide(self, queue: &QueueObservation, now: Timestamp) -> Vec<Decision> {
        let mut seen = queue.clone();
        self.twist_sight(&mut seen, now);
        let mut decisions = decide(&seen, now);
        for decision in &mut decisions {
            if let Some(pool) = queue.pools.iter().find(|pool| pool.spec.name == decision.pool) {
                self.twist_decision(pool, decision, now);
            }
        }
        decisions
    }

    fn twist_sight(self, queue: &mut QueueObservation, now: Timestamp) {
        match self {
            Self::CountsEveryEvent => queue.hints = queue.hints.each_twice(),
            Self::BelievesOldReadings => {
                queue.reading.trouble = None;
                if let Some(good) = &mut queue.reading.last_good {
                    good.at = now;
                }
            }
            Self::TakesMissingForZero => {
                if queue.reading.last_good.is_none() || queue.reading.trouble.is_some() {
                    let load = queue.reading.last_good.map(|good| good.load).unwrap_or_default();
                    let load = Load { running: Jobs::ZERO, scheduled: Jobs::ZERO, ..load };
                    queue.reading.trouble = None;
                    queue.reading.last_good = Some(GoodReading { load, date: now, at: now });
                }
            }
            Self::ForgetsToWait => {
                for pool in &mut queue.pools {
                    let down = &mut pool.spec.scale_down;
                    (down.window, down.cooldown, down.min_age) = Default::default();
                }
            }
            Self::GrowsOnFailures => {
                for generation in queue.pools.iter_mut().flat_map(|pool| &mut pool.generations) {
                    generation.pods.failing = Pods::ZERO;
                }
            }
            Self::TakesBusyForStuck => {
                if let Some(GoodReading { load, date, .. }) = queue.reading.last_good
                    && !load.idle.is_zero()
                {
                    for pool in &mut queue.pools {
                        pool.memory.unsatisfiable = Some(Unsatisfiable { jobs: load.scheduled, since: date });
                    }
                }
            }
            Self::PicksBusy => mistake(queue, |state| matches!(state, AgentState::Busy(_))),
            Self::PicksUnknown => mistake(queue, |state| state == AgentState::Unknown),
            Self::SkipsTheSecondAsk => {
                for round in queue.pools.iter_mut().flat_map(|pool| pool.memory.rounds.values_mut()) {
                    round.since = now.checked_sub(PING).unwrap_or(now);
                }
                for pod in pods(queue).filter(|pod| pod.asked_at.is_some()) {
                    pod.asked_at = Some(now);
                }
            }
            Self::ObeysMaxAtOnce
            | Self::AtMostDoubles
            | Self::RestartsTheWindow
            | Self::TakesOneMore
            | Self::HidesTheOthers => {}
        }
    }

    fn twist_decision(self, pool: &PoolObservation, decision: &mut Decision, now: Timestamp) {
        match self {
            Self::ObeysMaxAtOnce => {
                let max = pool.spec.limits.max();
                if let [only] = pool.generations.as_slice()
                    && only.replicas > max
                {
                    rewrite(decision, &only.name, only.replicas, max);
                }
            }
            Self::AtMostDoubles => {
                let current = pool.replicas();
                if decision.target > current.plus(current) {
                    decision.intents.clear();
                    decision.memory = pool.memory.clone();
                    decision.target = current;
                }
            }
            Self::RestartsTheWindow => {
                let largest = decision.memory.peaks.iter().map(|peak| peak.want).chain(decision.memory.want).max();
                if let Some(want) = largest.filter(|want| Some(*want) > decision.memory.want) {
                    decision.memory.peaks = vec![Peak { until: now, want }];
                }
            }
            Self::SkipsTheSecondAsk => {
                for (name, round) in &mut decision.memory.rounds {
                    if let Some(recorded) = pool.memory.rounds.get(name) {
                        round.since = recorded.since;
                    }
                }
            }
            Self::TakesOneMore => {
                if let [Intent::Scale { generation, from, to }] = decision.intents.as_slice()
                    && to < from
                {
                    let (generation, from, to) = (generation.clone(), *from, to.minus(Pods(1)));
                    rewrite(decision, &generation, from, to);
                }
            }
            Self::HidesTheOthers => decision.spared.clear(),
            Self::PicksBusy
            | Self::PicksUnknown
            | Self::CountsEveryEvent
            | Self::BelievesOldReadings
            | Self::TakesMissingForZero
            | Self::ForgetsToWait
            | Self::TakesBusyForStuck
            | Self::GrowsOnFailures => {}
        }
    }
}

fn pods(queue: &mut QueueObservation) -> impl Iterator<Item = &mut AgentPod> {
    queue.pools.iter_mut().flat_map(|pool| &mut pool.generations).flat_map(|generation| &mut generation.agents)
}

/// Takes pods that are in such a state for idle ones.
fn mistake(queue: &mut QueueObservation, is_mistaken: impl Fn(AgentState) -> bool) {
    pods(queue).filter(|pod| is_mistaken(pod.state)).for_each(|pod| pod.state = AgentState::Idle);
}

/// Makes the decision this one write.
fn rewrite(decision: &mut Decision, generation: &str, from: Pods, to: Pods) {
    decision.intents = vec![Intent::Scale { generation: generation.to_owned(), from, to }];
    decision.memory.asked.insert(generation.to_owned(), Asked { from, ..Asked::found(to) });
    decision.target = to;
}
