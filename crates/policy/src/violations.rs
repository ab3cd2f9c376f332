//! Finds broken invariants in a history of ticks, whoever made it: a unit test, a property, a simulation, a real cluster.
//!
//! Every tick is put to [`check`]. On top of that come the invariants that only the course of time shows:
//!
//! - **count once** compares the demand of a tick with the [`Truth`] that a model world knows;
//! - **progress** and **bounded waste** look at each stretch in which what a pool wants does not change;
//! - **bounded thrash** keeps an account of every pod of our making, youngest first to go, as a `ReplicaSet` would have it.

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use crate::{
    age::elapsed,
    check::{Invariant, Violation, check},
    decision::{Decision, Intent, Reason, StepName},
    limits::Bounds,
    memory::Memory,
    observation::{PoolObservation, QueueObservation},
    schedule,
    spec::{Mode, PoolName, PoolSpec, Step},
    stabilise,
    units::{Agents, AgentsPerPod, Pods},
};

/// Steps after which a deadline is not worked out any further: a pool that needs more is not measured.
const STEPS_MAX: u32 = 10_000;

/// The ticks of one queue, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The ticks.
    pub ticks: Vec<Tick>,
}

/// One pass: what was observed, and what was decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// When.
    pub now: Timestamp,
    /// What was observed.
    pub queue: QueueObservation,
    /// What was decided.
    pub decisions: Vec<Decision>,
    /// What really was so, where somebody knows.
    pub truth: Option<Truth>,
}

/// What a model world knows of a queue's jobs at a tick. D is the `Date` of the last good reading and m the
/// [`MARGIN`](crate::demand::MARGIN).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Truth {
    /// Jobs that have become runnable and have not finished.
    pub demand: Agents,
    /// Jobs that became runnable from D - m up to D + 1 s: events and reading may both tell of them, or neither.
    pub within_margin: Agents,
    /// Jobs that became runnable later than that, and of which no event has told.
    pub untold: Agents,
    /// Jobs that finished after the reading's numbers were taken.
    pub finished: Agents,
    /// Jobs that no agent takes, whatever the pools do: they may be left out.
    pub unsatisfiable: Agents,
}

/// Everything that is wrong with a history.
#[must_use = "an unread violation is an accident to come"]
pub fn violations(history: &History) -> Vec<Violation> {
    let mut found: Vec<Violation> = history
        .ticks
        .iter()
        .flat_map(|tick| check(&tick.queue, &tick.decisions, tick.now).into_iter().chain(miscounted(tick)))
        .collect();
    let mut courses: BTreeMap<PoolName, Course> = BTreeMap::new();
    let mut accounts: BTreeMap<PoolName, Account> = BTreeMap::new();
    for tick in &history.ticks {
        for decision in &tick.decisions {
            let Some(moment) = Moment::of(tick, decision) else { continue };
            found.extend(courses.entry(decision.pool.clone()).or_default().follow(&moment));
            found.extend(accounts.entry(decision.pool.clone()).or_default().follow(&moment));
        }
    }
    found
}

/// Invariant 3, for one tick.
///
/// With M the jobs within the margin, L those untold, U those that no agent takes and F those finished since the reading's
/// numbers were taken: `truth - (M + L + U) <= demand <= truth + M + F`. Once the queue has been quiet for a poll, M, L and F are zero, and
/// the demand is the truth, with or without U.
fn miscounted(tick: &Tick) -> Option<Violation> {
    let truth = tick.truth?;
    tick.queue.reading.last_good?;
    let decision = tick.decisions.first()?;
    let entry = decision.report.entry(StepName::Demand)?;
    let (Reason::Jobs { ahead, .. } | Reason::Unsatisfiable { ahead, .. }) = &entry.reason else { return None };
    let demand = Agents(entry.output).minus(*ahead);
    let least = truth.demand.minus(truth.within_margin).minus(truth.untold).minus(truth.unsatisfiable);
    let most = truth.demand.plus(truth.within_margin).plus(truth.finished);
    (demand < least || most < demand).then(|| Violation {
        invariant: Invariant::CountOnce,
        pool: decision.pool.clone(),
        at: tick.now,
        detail: format!("demand {demand} outside of {least}..={most}, the truth is {}", truth.demand),
    })
}

/// One pool at one tick.
struct Moment<'a> {
    now: Timestamp,
    pool: &'a PoolObservation,
    decision: &'a Decision,
    current: Pods,
    /// Pods for share and spare, within the bounds of the hour.
    wanted: Pods,
}

impl<'a> Moment<'a> {
    fn of(tick: &'a Tick, decision: &'a Decision) -> Option<Self> {
        let QueueObservation { pools, .. } = &tick.queue;
        let pool = pools.iter().find(|pool| pool.spec.name == decision.pool)?;
        let agents = Agents(decision.report.entry(StepName::Spare)?.output);
        let bounds = Bounds::of(&pool.spec, schedule::floor(&pool.spec, tick.now));
        let wanted = bounds.clamp(pool.spec.agents_per_pod.pods_for(agents));
        Some(Self { now: tick.now, pool, decision, current: pool.replicas(), wanted })
    }

    fn violation(&self, invariant: Invariant, detail: String) -> Violation {
        Violation { invariant, pool: self.decision.pool.clone(), at: self.now, detail }
    }

    fn reasons(&self) -> impl Iterator<Item = &Reason> {
        self.decision.report.entries.iter().map(|entry| &entry.reason)
    }
}

/// Invariants 4 and 6: a stretch of ticks in which nothing but the pool's own size changes.
#[derive(Default)]
struct Course {
    stretch: Option<Stretch>,
}

struct Stretch {
    last: Timestamp,
    spec: PoolSpec,
    wanted: Pods,
    target: Pods,
    below: Off,
    above: Off,
    longest_gap: Duration,
    /// What was to be remembered a tick ago.
    memory: Memory,
}

/// How long a pool has been off what is wanted without an excuse, and how far it was at the most.
#[derive(Default)]
struct Off {
    time: Duration,
    farthest: Option<Pods>,
}

impl Off {
    fn go_on(&mut self, gap: Duration, is_excused: bool, farthest: Pods) {
        if !is_excused {
            self.time = self.time.saturating_add(gap);
        }
        self.farthest = Some(farthest);
    }
}

impl Course {
    fn follow(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let goes_on = |stretch: &Stretch| {
            stretch.wanted == moment.wanted
                && stretch.target == moment.current
                && stretch.last <= moment.now
                && stretch.spec == moment.pool.spec
                && moment.pool.spec.mode == Mode::Active
        };
        if !self.stretch.as_ref().is_some_and(goes_on) {
            self.stretch = Some(Stretch {
                last: moment.now,
                spec: moment.pool.spec.clone(),
                wanted: moment.wanted,
                target: moment.decision.target,
                below: Off::default(),
                above: Off::default(),
                longest_gap: Duration::ZERO,
                memory: moment.pool.memory.clone(),
            });
        }
        self.stretch.as_mut()?.go_on(moment)
    }
}

impl Stretch {
    fn go_on(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let gap = elapsed(self.last, moment.now);
        (self.last, self.target) = (moment.now, moment.decision.target);
        self.longest_gap = self.longest_gap.max(gap);
        // A window counts from when the fall of the want was recorded; until then each tick sees it for the first time.
        let is_remembered = self.memory == moment.pool.memory;
        self.memory.clone_from(&moment.decision.memory);

        let (wanted, target) = (self.wanted, self.target);
        match target.cmp(&wanted) {
            Ordering::Equal => (self.below, self.above) = (Off::default(), Off::default()),
            Ordering::Less => {
                self.above = Off::default();
                let farthest = self.below.farthest.map_or(target, |farthest| farthest.min(target));
                self.below.go_on(gap, moment.reasons().any(stops_growth), farthest);
            }
            Ordering::Greater => {
                self.below = Off::default();
                let farthest = self.above.farthest.map_or(target, |farthest| farthest.max(target));
                // A roll's surge is no waste.
                let waits = moment.pool.is_rolling() || moment.reasons().any(Reason::waits_for_others);
                let is_excused = waits || !is_remembered;
                self.above.go_on(gap, is_excused, farthest);
            }
        }
        if self.time_to_grow().is_some_and(|deadline| self.below.time > deadline) {
            let detail = format!("{target} of {wanted} pods after {} s", self.below.time.as_secs());
            return Some(moment.violation(Invariant::Progress, detail));
        }
        if self.time_to_shrink().is_some_and(|deadline| self.above.time > deadline) {
            let detail = format!("{target} pods for {wanted}, {} s without a reason", self.above.time.as_secs());
            return Some(moment.violation(Invariant::BoundedWaste, detail));
        }
        None
    }

    /// The steps needed, each with its wait; one wait may be left from before; two ticks.
    fn time_to_grow(&self) -> Option<Duration> {
        let up = self.spec.scale_up;
        let steps = steps_up(self.below.farthest?, self.wanted, up.step, self.spec.agents_per_pod)?;
        self.time_for(steps, up.step, up.cooldown)
    }

    /// The same, after the window with its grain, and the youngest pods' `minAge`.
    fn time_to_shrink(&self) -> Option<Duration> {
        let down = self.spec.scale_down;
        let steps = steps_down(self.above.farthest?, self.wanted, down.step, self.spec.agents_per_pod)?;
        let calm = down.window.checked_add(stabilise::grain(down.window))?.checked_add(down.min_age)?;
        self.time_for(steps, down.step, down.cooldown)?.checked_add(calm)
    }

    fn time_for(&self, steps: u32, step: Step, cooldown: Duration) -> Option<Duration> {
        let wait = step.per().max(cooldown).checked_add(self.longest_gap)?;
        wait.checked_mul(steps.saturating_add(1))?.checked_add(self.longest_gap.checked_mul(2)?)
    }
}

/// Whether growth waits for a person, or for pods that do not come up.
const fn stops_growth(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::PausedUp { .. }
            | Reason::PodsFailing { .. }
            | Reason::NodesAwaited { .. }
            | Reason::DefinitionBroken
            | Reason::RollPaused { .. }
    )
}

fn steps_up(from: Pods, to: Pods, step: Step, agents_per_pod: AgentsPerPod) -> Option<u32> {
    let (mut pods, mut steps) = (from, 0);
    while pods < to {
        pods = pods.plus(step.pods(pods, agents_per_pod));
        steps += 1;
        if steps > STEPS_MAX {
            return None;
        }
    }
    Some(steps)
}

fn steps_down(from: Pods, to: Pods, step: Step, agents_per_pod: AgentsPerPod) -> Option<u32> {
    let (mut pods, mut steps) = (from, 0);
    while pods > to {
        pods = pods.minus(step.pods(pods, agents_per_pod));
        steps += 1;
        if steps > STEPS_MAX {
            return None;
        }
    }
    Some(steps)
}

/// Invariant 7: which pods of our making there are, and how old they are.
#[derive(Default)]
struct Account {
    last: Option<Timestamp>,
    /// Time that has passed, a step back counting as nothing.
    passed: Duration,
    /// What was asked of each generation a tick ago.
    asked: BTreeMap<String, (Pods, Pods)>,
    /// For each generation, pods of our making with the time of their making, youngest last.
    made: BTreeMap<String, Vec<(Duration, Pods)>>,
}

impl Account {
    fn follow(&mut self, moment: &Moment<'_>) -> Vec<Violation> {
        self.book(moment);
        let since = self.last.replace(moment.now).map_or(Duration::ZERO, |last| elapsed(last, moment.now));
        self.passed = self.passed.saturating_add(since);

        let mut found = Vec::new();
        for intent in &moment.decision.intents {
            let (generation, from, to) = match intent {
                Intent::Create { generation, replicas } => (generation, Pods::ZERO, *replicas),
                Intent::Scale { generation, from, to } => (generation, *from, *to),
                Intent::Delete { .. } => continue,
            };
            if to < from {
                let min_age = moment.pool.spec.scale_down.min_age;
                let young = self.young_among_youngest(generation, from.minus(to), min_age);
                if !young.is_zero() && moment.pool.spec.mode == Mode::Active {
                    let detail = format!("{young} pods of {generation} go younger than minAge");
                    found.push(moment.violation(Invariant::BoundedThrash, detail));
                }
            }
            self.asked.insert(generation.clone(), (from, to));
        }
        found
    }

    /// Enters what was asked for a tick ago and has happened since.
    fn book(&mut self, moment: &Moment<'_>) {
        for (generation, (from, to)) in std::mem::take(&mut self.asked) {
            let made = self.made.entry(generation.clone()).or_default();
            let replicas = moment.pool.generation(&generation).map_or(Pods::ZERO, |generation| generation.replicas);
            if replicas == from {
                continue;
            }
            if replicas != to {
                // Somebody else had a hand in it: whose pods are left is not known.
                made.clear();
            } else if to > from {
                made.push((self.passed, to.minus(from)));
            } else {
                take_youngest(made, from.minus(to), |_, _| {});
            }
        }
    }

    fn young_among_youngest(&self, generation: &str, pods: Pods, min_age: Duration) -> Pods {
        let mut young = Pods::ZERO;
        let mut made = self.made.get(generation).cloned().unwrap_or_default();
        take_youngest(&mut made, pods, |made_at, pods| {
            if self.passed.saturating_sub(made_at) < min_age {
                young = young.plus(pods);
            }
        });
        young
    }
}

/// Takes pods off the end, telling of each batch.
fn take_youngest(made: &mut Vec<(Duration, Pods)>, mut pods: Pods, mut tell: impl FnMut(Duration, Pods)) {
    while !pods.is_zero() {
        let Some((made_at, batch)) = made.pop() else { return };
        let taken = batch.min(pods);
        tell(made_at, taken);
        pods = pods.minus(taken);
        if batch > taken {
            made.push((made_at, batch.minus(taken)));
        }
    }
}
