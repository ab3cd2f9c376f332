//! Step 7, the last word on the number: min, max, step, pause, and the [breaker](crate::breaker) for failing pods.
//!
//! In the order in which they win: what a person has paused; `max`; the breaker, since pods that fail keep no promise; `min`,
//! which is one, also against step and cooldown; the step. A scheduled floor above `max` ends at `max`. A later limit is one
//! more ceiling here.

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::{
    age::elapsed,
    decision::Reason,
    memory::{Memory, Period},
    spec::{PoolSpec, Step},
    stabilise::{Present, Stable},
    units::{AgentsPerPod, Pods},
};

/// The floor and the ceiling at this hour: `floor <= max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The larger of `min` and the scheduled floor, at most `max`.
    pub floor: Pods,
    /// The ceiling.
    pub max: Pods,
}

impl Bounds {
    /// Of this pool, with this scheduled floor.
    pub(crate) fn of(spec: &PoolSpec, scheduled: Pods) -> Self {
        let max = spec.limits.max();
        Self { floor: spec.limits.min().max(scheduled).min(max), max }
    }

    /// Into the bounds.
    pub(crate) fn clamp(self, pods: Pods) -> Pods {
        pods.max(self.floor).min(self.max)
    }
}

/// The number of pods to go for, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limited {
    /// Never above `max` if it is above what stands; below what stands only as far as cooldown and step allow.
    pub goal: Pods,
    /// Why.
    pub reason: Reason,
}

/// Limits what is wanted.
pub(crate) fn limit(
    stable: &Stable,
    present: Present,
    bounds: Bounds,
    spec: &PoolSpec,
    memory: &Memory,
    now: Timestamp,
) -> Limited {
    let bounded = bounds.clamp(stable.pods);
    let bound = match bounded.cmp(&stable.pods) {
        Ordering::Less => Reason::AtMax { max: bounds.max, wanted: stable.pods },
        Ordering::Equal => Reason::Unchanged,
        Ordering::Greater => Reason::AtMin { min: bounds.floor, wanted: stable.pods },
    };
    match bounded.cmp(&present.current) {
        Ordering::Less => down(stable, present, bounded, bound, spec, memory, now),
        Ordering::Equal => Limited { goal: bounded, reason: bound },
        Ordering::Greater => up(present, bounded, bounds.floor, bound, spec, memory, now),
    }
}

fn up(
    present: Present,
    bounded: Pods,
    floor: Pods,
    bound: Reason,
    spec: &PoolSpec,
    memory: &Memory,
    now: Timestamp,
) -> Limited {
    let current = present.current;
    if spec.pause.stops_up() {
        return Limited { goal: current, reason: Reason::PausedUp { wanted: bounded } };
    }
    let step = step_of(spec.scale_up.step, memory.up_period, current, spec.agents_per_pod, now);
    let highest = step.base.plus(step.pods).max(current.plus(present.pending_up)).max(floor);
    let goal = bounded.min(highest);
    let with_room = current.plus(present.room.at_most(goal.minus(current)));
    if with_room < goal {
        return Limited { goal: with_room, reason: present.room.reason(bounded) };
    }
    if bounded > highest {
        return Limited { goal: highest, reason: Reason::UpStep { wanted: bounded, step: step.pods } };
    }
    Limited { goal: bounded, reason: bound }
}

fn down(
    stable: &Stable,
    present: Present,
    bounded: Pods,
    bound: Reason,
    spec: &PoolSpec,
    memory: &Memory,
    now: Timestamp,
) -> Limited {
    let current = present.current;
    if spec.pause.stops_down() {
        return Limited { goal: current, reason: Reason::PausedDown { wanted: bounded } };
    }
    let step = step_of(spec.scale_down.step, memory.down_period, current, spec.agents_per_pod, now);
    let lowest = step.base.minus(step.pods).min(current.minus(present.pending_down));
    // A cooldown also stands against a lowered `max`.
    let cooled = bounded.max(stable.lowest);
    if cooled < lowest {
        return Limited { goal: lowest, reason: Reason::DownStep { wanted: cooled, step: step.pods } };
    }
    Limited { goal: cooled, reason: if cooled > bounded { Reason::Unchanged } else { bound } }
}

/// A period's beginning and how far it goes.
struct Stride {
    base: Pods,
    pods: Pods,
}

/// The running period, or one that would begin now.
fn step_of(step: Step, period: Option<Period>, current: Pods, agents_per_pod: AgentsPerPod, now: Timestamp) -> Stride {
    let base = running(period, step, now).map_or(current, |period| period.base);
    Stride { base, pods: step.pods(base, agents_per_pod) }
}

/// Charges growth from `base` to its cooldown and its step.
pub(crate) fn charge_up(memory: &mut Memory, step: Step, base: Pods, now: Timestamp) {
    memory.last_up = Some(now);
    memory.up_period = running(memory.up_period, step, now).or(Some(Period { start: now, base }));
}

/// The period, if it is not over.
pub(crate) fn running(period: Option<Period>, step: Step, now: Timestamp) -> Option<Period> {
    period.filter(|period| elapsed(period.start, now) < step.per())
}
