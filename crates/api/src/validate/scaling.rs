//! `spec.scaling`: into the policy's limits, spare, pace and floors.

use std::time::Duration;

use kitepool_policy::{
    spec::{self, Fraction, Limits, Percent, Spare},
    units::{Agents, Pods},
};

use super::{check::Check, schedule};
use crate::{
    Scaling, SpareSpec, StepSpec, rules,
    scaling::{COUNT_MAX, SCHEDULES_MAX},
};

/// The parts of the policy's spec that stand under `scaling`.
pub(super) struct ValidScaling {
    pub(super) limits: Limits,
    pub(super) spare: Spare,
    pub(super) waiting_weight: Fraction,
    pub(super) scale_up: spec::ScaleUp,
    pub(super) scale_down: spec::ScaleDown,
    pub(super) hint_ttl: Duration,
    pub(super) stale_after: Duration,
    pub(super) schedules: Vec<spec::Schedule>,
}

/// `None` if a problem was found.
pub(super) fn validate(check: &mut Check, scaling: &Scaling) -> Option<ValidScaling> {
    let limits = limits(check, scaling.min, scaling.max);
    let spare = spare(check, &scaling.spare);
    let waiting_weight = fraction(check, "spec.scaling.waitingWeight", scaling.waiting_weight);
    let up = &scaling.scale_up;
    let up_cooldown = check.span("spec.scaling.scaleUp.cooldown", &up.cooldown, &rules::UP_COOLDOWN);
    let up_step = step(check, "spec.scaling.scaleUp.step", &up.step);
    let down = &scaling.scale_down;
    let down_cooldown = check.span("spec.scaling.scaleDown.cooldown", &down.cooldown, &rules::DOWN);
    let window = check.span("spec.scaling.scaleDown.window", &down.window, &rules::DOWN);
    let down_step = step(check, "spec.scaling.scaleDown.step", &down.step);
    let min_age = check.span("spec.scaling.scaleDown.minAge", &down.min_age, &rules::DOWN);
    let hint_ttl = check.span("spec.scaling.hintTtl", &scaling.hint_ttl, &rules::HINT_TTL);
    let stale_after = check.span("spec.scaling.staleAfter", &scaling.stale_after, &rules::STALE_AFTER);
    let few = check.items("spec.scaling.schedules", scaling.schedules.len(), SCHEDULES_MAX);
    let schedules: Vec<_> = scaling
        .schedules
        .iter()
        .enumerate()
        .map(|(index, schedule)| schedule::validate(check, &format!("spec.scaling.schedules[{index}]"), schedule))
        .collect();
    Some(ValidScaling {
        limits: limits?,
        spare: spare?,
        waiting_weight: waiting_weight?,
        scale_up: spec::ScaleUp { cooldown: up_cooldown?, step: up_step? },
        scale_down: spec::ScaleDown { cooldown: down_cooldown?, window: window?, step: down_step?, min_age: min_age? },
        hint_ttl: hint_ttl?,
        stale_after: stale_after?,
        schedules: schedules.into_iter().collect::<Option<_>>().filter(|_| few)?,
    })
}

fn limits(check: &mut Check, min: i32, max: i32) -> Option<Limits> {
    let least = check.count("spec.scaling.min", min, 0, COUNT_MAX);
    let most = check.count("spec.scaling.max", max, 0, COUNT_MAX);
    let limits = Limits::new(Pods(least?), Pods(most?));
    check.holds(limits.is_some(), &rules::MIN_MAX, "spec.scaling");
    limits
}

fn spare(check: &mut Check, spare: &SpareSpec) -> Option<Spare> {
    let fixed = spare.agents.map(|agents| check.count("spec.scaling.spare.agents", agents, 0, COUNT_MAX));
    let part = spare.percent.map(|share| percent(check, "spec.scaling.spare.percent", share));
    check.holds(fixed.is_none() || part.is_none(), &rules::SPARE_CHOICE, "spec.scaling.spare");
    match (fixed, part) {
        (None, None) => Some(Spare::Agents(Agents::ZERO)),
        (Some(agents), None) => agents.map(|agents| Spare::Agents(Agents(agents))),
        (None, Some(percent)) => percent.map(Spare::Percent),
        (Some(_), Some(_)) => None,
    }
}

fn percent(check: &mut Check, path: &str, share: i32) -> Option<Percent> {
    let share = check.count(path, share, 0, Percent::MAX.into())?;
    u16::try_from(share).ok().and_then(Percent::new)
}

/// To the thousandth; finer than anybody can measure.
fn fraction(check: &mut Check, path: &str, value: f64) -> Option<Fraction> {
    if !(0.0..=1.0).contains(&value) {
        check.refuse(path, format!("{value} is out of bounds"), "give something from 0 to 1");
        return None;
    }
    // By way of text: no conversion from floating point is total.
    format!("{:.0}", value * 1_000.0).parse().ok().and_then(Fraction::from_thousandths)
}

fn step(check: &mut Check, path: &str, step: &StepSpec) -> Option<spec::Step> {
    let share = percent(check, &format!("{path}.percent"), step.percent);
    let agents = check.count(&format!("{path}.agents"), step.agents, 0, COUNT_MAX).map(Agents);
    let per = check.span(&format!("{path}.per"), &step.per, &rules::STEP_PER);
    let moves = check.holds(step.percent > 0 || step.agents > 0, &rules::STEP_MOVES, path);
    if moves { spec::Step::new(share?, agents?, per?) } else { None }
}
