//! Finds broken invariants in a history of ticks, whoever made it: a unit test, a property, a simulation, a real cluster.
//!
//! Every tick is put to [`check`]. On top of that come the invariants that only the course of time shows:
//!
//! - **count once** compares the demand of a tick with the [`Truth`] that a model world knows;
//! - **progress** and **bounded waste** look at each stretch in which what a pool wants does not change;
//! - **attribution** keeps an account of the pods that stood when replicas were lowered, and looks which of them are left.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    age::elapsed,
    check::{Invariant, Violation, check},
    decision::{Decision, Intent, Reason, StepName},
    limits::Bounds,
    memory::{Memory, VICTIMS_MAX},
    observation::{Generation, PoolObservation, QueueObservation},
    protocol::PING,
    schedule,
    spec::{Mode, PoolName, PoolSpec, Step},
    stabilise,
    units::{Agents, AgentsPerPod, Pods},
};

/// What a round takes besides a step's own wait: the second answer, the sign and the pods' going, each of which is a tick or two.
const ROUND: Duration = Duration::from_secs(PING.as_secs() + 20);

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
    /// Jobs that agents on their way out run, or have just finished: they may be left out.
    pub draining: Agents,
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
/// With M the jobs within the margin, L those untold, U those that no agent takes, D those of agents on their way out and F those
/// finished since the reading's numbers were taken: `truth - (M + L + U + D) <= demand <= truth + M + F`. Once the queue has been quiet for a poll, M, L and F are zero, and
/// the demand is the truth, with or without U.
fn miscounted(tick: &Tick) -> Option<Violation> {
    let truth = tick.truth?;
    tick.queue.reading.last_good?;
    let decision = tick.decisions.first()?;
    let entry = decision.report.entry(StepName::Demand)?;
    let (Reason::Jobs { ahead, .. } | Reason::Unsatisfiable { ahead, .. }) = &entry.reason else { return None };
    let demand = Agents(entry.output).minus(*ahead);
    let least =
        truth.demand.minus(truth.within_margin).minus(truth.untold).minus(truth.unsatisfiable).minus(truth.draining);
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

    /// Whether it says that pods are too young, and they are. A clock that stepped back makes them so for longer.
    fn waits_for_young_ones(&self) -> bool {
        let min_age = self.pool.spec.scale_down.min_age;
        let mut living = self.pool.generations.iter().flat_map(Generation::living);
        self.reasons().any(|reason| matches!(reason, Reason::TooYoung { .. }))
            && living.any(|pod| elapsed(pod.created_at, self.now) < min_age)
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
                let waits = moment.pool.is_rolling()
                    || moment.reasons().any(Reason::waits_for_others)
                    || moment.waits_for_young_ones();
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
        let rounds = ROUND.checked_mul(steps.saturating_add(1))?;
        let calm = down.window.checked_add(stabilise::grain(down.window))?.checked_add(down.min_age)?;
        self.time_for(steps, down.step, down.cooldown)?.checked_add(calm)?.checked_add(rounds)
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
    let round = Pods(u32::try_from(VICTIMS_MAX).unwrap_or(u32::MAX));
    let (mut pods, mut steps) = (from, 0);
    while pods > to {
        pods = pods.minus(step.pods(pods, agents_per_pod).min(round));
        steps += 1;
        if steps > STEPS_MAX {
            return None;
        }
    }
    Some(steps)
}

/// Invariant 10: which pods went when replicas were lowered.
#[derive(Default)]
struct Account {
    /// For each generation that is being lowered, what it was lowered from and to, who was chosen and who stood.
    open: BTreeMap<String, Lowering>,
}

struct Lowering {
    from: Pods,
    to: Pods,
    chosen: BTreeSet<String>,
    stood: BTreeSet<String>,
}

impl Account {
    fn follow(&mut self, moment: &Moment<'_>) -> Vec<Violation> {
        let mut found = Vec::new();
        let told = |name: &str| moment.decision.spared.iter().any(|spared| spared.generation == name);
        self.open.retain(|name, lowering| {
            let Some(generation) = moment.pool.generation(name) else { return false };
            if generation.replicas == lowering.from || !generation.is_at_rest() {
                return true;
            }
            let stands: BTreeSet<&str> = generation.living().map(|pod| pod.uid.as_str()).collect();
            let is_gone = |uid: &&String| !stands.contains(uid.as_str());
            let others = lowering.stood.difference(&lowering.chosen).filter(is_gone).count();
            let spared = lowering.chosen.iter().filter(|uid| stands.contains(uid.as_str())).count();
            // Somebody else's replicas are another matter, and told of as such.
            if generation.replicas == lowering.to && others > 0 && spared > 0 && !told(name) {
                let detail = format!("{others} pods of {name} went that were not chosen, and nobody says so");
                found.push(moment.violation(Invariant::Attribution, detail));
            }
            false
        });
        if moment.pool.spec.mode == Mode::Active {
            self.open.extend(moment.decision.intents.iter().filter_map(|intent| lowering(moment, intent)));
        }
        found
    }
}

/// What an intent lowers of our own Deployments.
fn lowering(moment: &Moment<'_>, intent: &Intent) -> Option<(String, Lowering)> {
    let Intent::Scale { generation, from, to } = intent else { return None };
    let seen = moment.pool.generation(generation).filter(|seen| to < from && !seen.adopted)?;
    let round = moment.decision.memory.rounds.get(generation)?;
    let chosen = round.victims.iter().map(|victim| victim.uid.clone()).collect();
    let stood = seen.living().map(|pod| pod.uid.clone()).collect();
    Some((generation.clone(), Lowering { from: *from, to: *to, chosen, stood }))
}
