//! The decision: one queue in, one decision per pool out, step by step.

use jiff::Timestamp;

use crate::{
    breaker::{self, Room},
    decision::{Decision, Entry, Reason, Report, StepName},
    demand::Demand,
    generations::{Aim, Plan, Planner},
    ledger::{self, Audit},
    limits::{self, Bounds, Limited},
    memory::{Memory, Period},
    observation::{PoolObservation, QueueObservation},
    protocol, schedule,
    share::{self, Share},
    shrink::{self, Slack},
    spare,
    spec::Mode,
    stabilise::{self, Present},
    trust::Trust,
    units::Pods,
};

/// Decides for every pool of the queue; by order, then by name.
pub fn decide(queue: &QueueObservation, now: Timestamp) -> Vec<Decision> {
    let demand = Demand::of(queue, now);
    let pools = share::in_order(queue);
    let shares = share::divide(&demand, queue, &pools);

    // What may go is one sum for the queue. Pools are filled in order, so the last one gives first. Pools that only observe
    // draw on an account of their own: what they would take is still there.
    let mut acting = Slack::of(Mode::Active, queue, &demand, now);
    let mut observing = Slack::of(Mode::Observe, queue, &demand, now);

    let mut decisions: Vec<Decision> = pools
        .iter()
        .zip(shares)
        .rev()
        .map(|(pool, share)| {
            let slack = match pool.spec.mode {
                Mode::Active => &mut acting,
                Mode::Observe => &mut observing,
            };
            decide_pool(queue, pool, &demand, share, slack, now)
        })
        .collect();
    decisions.reverse();
    decisions
}

/// The steps for one pool.
fn decide_pool(
    queue: &QueueObservation,
    pool: &PoolObservation,
    demand: &Demand,
    share: Share,
    slack: &mut Slack,
    now: Timestamp,
) -> Decision {
    let spec = &pool.spec;
    let mut report = Writer::default();

    let mut memory = pool.memory.clone();
    memory.bring_to(now);
    let audit = ledger::audit(pool, &mut memory, now);
    let spared = protocol::close(pool, &mut memory);

    let trust = Trust::of(&queue.reading, spec.stale_after, now);
    let read = demand.load.running.plus(demand.load.scheduled).0;
    report.add(StepName::Trust, read, read, trust.reason(&queue.reading, spec.stale_after, now));

    report.add(StepName::Demand, read, demand.agents().0, demand.reason());

    report.add(StepName::Share, demand.agents().0, share.agents.0, share.reason(demand.agents()));

    memory.unsatisfiable = demand.unsatisfiable;
    memory.failing = breaker::remember(pool);
    let on_top = spare::on_top(spec.spare, share.agents, demand.unsatisfiable.is_some());
    let agents = share.agents.plus(on_top);
    report.add(StepName::Spare, share.agents.0, agents.0, spare::reason(on_top));

    let scheduled = schedule::floor(spec, now);
    let bounds = Bounds::of(spec, scheduled);
    report.add(StepName::Schedule, spec.limits.min().0, bounds.floor.0, schedule::reason(spec, scheduled));

    let raw = spec.agents_per_pod.pods_for(agents);
    let present = present(pool, &audit, trust);
    let stable = stabilise::follow(raw, present, bounds, spec, &mut memory, now);
    report.add(StepName::Stabilise, raw.0, stable.pods.0, stable.reason.clone());

    let limited = limits::limit(&stable, present, bounds, spec, &memory, now);
    let limited = replacing(pool, limited, bounds.clamp(raw), present, bounds);
    report.add(StepName::Limits, stable.pods.0, limited.goal.0, limited.reason);

    let aim = Aim { goal: limited.goal, want: stable.want, max: bounds.max };
    let gate = shrink::gate(pool, trust, &memory, now);
    let plan = Planner { pool, memory: &memory, aim, gate, now }.plan(slack);
    report.add(StepName::Shrink, limited.goal.0, plan.target.0, plan.reason.clone());
    memory.rounds.clone_from(&plan.rounds);
    let signs = protocol::signs(pool, &memory.rounds);

    if ledger::enter(&plan.intents, spec.mode, &mut memory, now) {
        charge(&mut memory, pool, aim, &plan, now);
    }
    Decision {
        pool: spec.name.clone(),
        target: plan.target,
        intents: plan.intents,
        signs,
        foreign: audit.foreign,
        unrecorded: audit.unrecorded,
        spared,
        memory,
        report: report.finish(),
    }
}

/// What is about to go by somebody else's doing is capacity no more: as many are made in its place before Kubernetes does, within
/// the ceiling, as far as they are wanted now. When it is gone and Kubernetes has made one as well, the surplus goes as others do.
/// Where something holds back growth itself, that comes first.
fn replacing(pool: &PoolObservation, limited: Limited, wanted: Pods, present: Present, bounds: Bounds) -> Limited {
    let leaving = pool.leaving();
    // A roll has pods on top already, and counts by what is ready: two reasons to grow would feed each other.
    if leaving.is_zero() || limited.goal < wanted || pool.spec.pause.stops_up() || pool.is_rolling() {
        return limited;
    }
    let goal = wanted.plus(leaving).min(bounds.max);
    let goal = goal.min(present.current.plus(present.room.at_most(goal.minus(present.current))));
    if goal > limited.goal { Limited { goal, reason: Reason::Replaces { leaving } } } else { limited }
}

/// What stands, as the later steps see it.
fn present(pool: &PoolObservation, audit: &Audit, trust: Trust) -> Present {
    Present {
        current: pool.replicas(),
        before_foreign: audit.before_foreign,
        pending_up: audit.pending_up,
        pending_down: audit.pending_down,
        is_trusted: trust.known().is_some(),
        room: Room::of(pool),
    }
}

/// Charges a change of size to its cooldown and its period. A roll's surge is no growth: otherwise its cooldown would keep
/// the pool from growing while it rolls.
fn charge(memory: &mut Memory, pool: &PoolObservation, aim: Aim, plan: &Plan, now: Timestamp) {
    let (current, spec) = (pool.replicas(), &pool.spec);
    if plan.target > current && aim.goal > current {
        limits::charge_up(memory, spec.scale_up.step, current, now);
    }
    if plan.target < current {
        let begun = Some(Period { start: now, base: current });
        memory.last_down = Some(now);
        memory.down_period = limits::running(memory.down_period, spec.scale_down.step, now).or(begun);
    }
}

/// Writes the report, a step after the other.
#[derive(Default)]
struct Writer {
    entries: Vec<Entry>,
}

impl Writer {
    fn add(&mut self, step: StepName, input: u32, output: u32, reason: Reason) {
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(StepName::ALL.len());
        }
        self.entries.push(Entry { step, input, output, reason });
    }

    fn finish(self) -> Report {
        Report { entries: self.entries }
    }
}
