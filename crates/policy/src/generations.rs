//! Step 8, third part: which Deployment grows, shrinks, or goes for good.
//!
//! Only the wanted generation grows. A pool whose definition changed *rolls*: the new generation comes up beside the old one
//! by a surge, and the old one goes, idle pods first, as new pods become ready. A roll replaces, it does not shrink, so
//! window, cooldown and step of the shrink do not apply to it; trust, pause, rest and `minAge` do. What is busy is waited for.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    breaker::Room,
    decision::{Intent, Reason},
    memory::{Memory, Round},
    observation::{Generation, PoolObservation},
    protocol::Rounds,
    shrink::{self, Slack},
    spec::{Pause, Percent},
    units::Pods,
};

/// The part of a pool that a roll may have on top while it lasts: the default of a Kubernetes Deployment.
const SURGE_PERCENT: u16 = 25;

/// What is to be written, and the replicas that result.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    pub intents: Vec<Intent>,
    pub target: Pods,
    pub reason: Reason,
    /// Which pods are chosen to go.
    pub rounds: BTreeMap<String, Round>,
}

/// What the plan is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    /// Pods to go for now, after cooldowns, steps and pause.
    pub goal: Pods,
    /// Pods wanted within the bounds: what the new generation of a roll is to reach.
    pub want: Pods,
    /// The ceiling.
    pub max: Pods,
}

/// Everything that a plan looks at.
pub(crate) struct Planner<'a> {
    pub pool: &'a PoolObservation,
    pub memory: &'a Memory,
    pub aim: Aim,
    /// What stands against taking pods away.
    pub gate: Result<(), Reason>,
    pub now: Timestamp,
}

/// What is done to each generation: pods taken from those that exist, pods added to the wanted one.
struct Moves<'a> {
    taken: Vec<(&'a Generation, Pods)>,
    grown: Pods,
    reason: Reason,
}

impl<'a> Planner<'a> {
    /// Plans the writes.
    pub(crate) fn plan(self, slack: &mut Slack) -> Plan {
        let current = self.pool.replicas();
        let mut rounds = Rounds::of(self.memory);
        let Some(wanted) = self.pool.wanted_generation.as_deref() else {
            let rounds = rounds.remember(self.pool, false);
            return Plan { intents: Vec::new(), target: current, reason: Reason::DefinitionBroken, rounds };
        };
        let new = self.pool.generation(wanted);
        let old: Vec<&Generation> = self.pool.generations.iter().filter(|other| other.name != wanted).collect();

        let moves = if self.pool.is_rolling() {
            self.roll(new, &old, current, slack, &mut rounds)
        } else {
            self.resize(new, current, slack, &mut rounds)
        };
        let taken = moves.taken.iter().fold(Pods::ZERO, |sum, (_, pods)| sum.plus(*pods));
        Plan {
            target: current.minus(taken).plus(moves.grown),
            intents: self.write(wanted, new, &old, &moves),
            reason: moves.reason,
            rounds: rounds.remember(self.pool, self.is_held(current)),
        }
    }

    /// Whether fewer are wanted, and only for now nothing can be done about it.
    fn is_held(&self, current: Pods) -> bool {
        let is_wanted = self.aim.goal < current || (self.pool.is_rolling() && !self.pool.spec.pause.stops_down());
        let is_passing = matches!(self.gate, Err(Reason::InMotion { .. } | Reason::ReadingPredatesChange { .. }));
        is_wanted && is_passing
    }

    /// One generation: it grows to the goal, or shrinks towards it.
    fn resize(&self, new: Option<&'a Generation>, current: Pods, slack: &mut Slack, rounds: &mut Rounds) -> Moves<'a> {
        let mut moves = Moves { taken: Vec::new(), grown: self.aim.goal.minus(current), reason: Reason::Unchanged };
        let wish = current.minus(self.aim.goal);
        if let (Some(new), false) = (new, wish.is_zero()) {
            match self.gate.clone().and_then(|()| self.take(slack, rounds, new, wish)) {
                Ok(taken) if taken < wish => {
                    moves.reason = Reason::OnlyIdleGo { wanted_away: wish, gone: taken };
                    moves.taken.push((new, taken));
                }
                Ok(taken) => moves.taken.push((new, taken)),
                Err(reason) => moves.reason = reason,
            }
        }
        moves
    }

    /// Two generations or more.
    fn roll(
        &self,
        new: Option<&'a Generation>,
        old: &[&'a Generation],
        current: Pods,
        slack: &mut Slack,
        rounds: &mut Rounds,
    ) -> Moves<'a> {
        let Aim { goal, want, max } = self.aim;
        let old_pods = old.iter().fold(Pods::ZERO, |sum, generation| sum.plus(generation.replicas));
        let new_pods = new.map_or(Pods::ZERO, |new| new.replicas);
        let new_ready = new.map_or(Pods::ZERO, |new| new.pods.ready.min(new.replicas));
        let in_flight = new_pods.minus(new_ready);
        // What is in flight and may still come: while new pods fail, a few.
        let surge = surge(want).min(in_flight.plus(Room::of(self.pool).at_most(want)));

        let pause = self.pool.spec.pause;
        let is_open = self.gate.is_ok() && pause == Pause::None;
        // At the ceiling no surge fits. Then idle old pods go first, as many as a surge has, and new ones take their places
        // in the same tick, so that the sum stays where it is.
        let ahead = if is_open && want >= max { surge } else { Pods::ZERO };

        let mut moves = Moves { taken: Vec::new(), grown: Pods::ZERO, reason: Reason::Unchanged };
        let mut waits = match &self.gate {
            Err(reason) => Some(reason.clone()),
            Ok(()) if pause != Pause::None => Some(Reason::RollPaused { old: old_pods }),
            Ok(()) => None,
        };
        let mut left = current;
        if self.gate.is_ok() && !pause.stops_down() {
            let mut surplus = old_pods.plus(new_ready).plus(ahead).minus(want);
            for generation in old.iter().copied().filter(|generation| !generation.replicas.is_zero()) {
                let wish = surplus.min(generation.replicas);
                if wish.is_zero() {
                    break;
                }
                match self.take(slack, rounds, generation, wish) {
                    Ok(taken) => {
                        moves.taken.push((generation, taken));
                        (surplus, left) = (surplus.minus(taken), left.minus(taken));
                    }
                    Err(reason) => waits = waits.or(Some(reason)),
                }
            }
            let wish = new_pods.minus(want).min(current.minus(goal));
            if let (Some(new), false) = (new, wish.is_zero()) {
                match self.take(slack, rounds, new, wish) {
                    Ok(taken) => {
                        moves.taken.push((new, taken));
                        left = left.minus(taken);
                    }
                    Err(reason) => waits = waits.or(Some(reason)),
                }
            }
        }

        let by_surge =
            if is_open { max.min(want.plus(surge)).minus(left).min(surge.minus(in_flight)) } else { Pods::ZERO };
        moves.grown = goal.minus(current).max(by_surge).min(want.minus(new_pods));
        moves.reason = match waits {
            Some(reason) if moves.taken.is_empty() && moves.grown.is_zero() => reason,
            _ if moves.taken.is_empty() && moves.grown.is_zero() => {
                Reason::RollWaitsForReady { old: old_pods, starting: in_flight }
            }
            _ => Reason::Rolling { old: old_pods, new: new_pods },
        };
        moves
    }

    fn take(
        &self,
        slack: &mut Slack,
        rounds: &mut Rounds,
        generation: &Generation,
        wish: Pods,
    ) -> Result<Pods, Reason> {
        shrink::take(slack, rounds, generation, wish, &self.pool.spec, self.now)
    }

    /// What goes first, so that the sum is at no moment above `max`; then growth, then what is empty. A crash in between is
    /// mended by the next tick, as ordinary growth.
    fn write(&self, wanted: &str, new: Option<&Generation>, old: &[&Generation], moves: &Moves<'_>) -> Vec<Intent> {
        let growth = (!moves.grown.is_zero()).then(|| match new {
            None => Intent::Create { generation: wanted.to_owned(), replicas: moves.grown },
            Some(new) => scale(new, new.replicas.plus(moves.grown)),
        });
        let shrinking =
            moves.taken.iter().map(|(generation, pods)| scale(generation, generation.replicas.minus(*pods)));
        let may_delete = !self.pool.spec.pause.stops_down();
        let empty = old
            .iter()
            .filter(|generation| may_delete && generation.is_empty() && !generation.adopted)
            .map(|generation| Intent::Delete { generation: generation.name.clone() });
        shrinking.chain(growth).chain(empty).collect()
    }
}

fn scale(generation: &Generation, to: Pods) -> Intent {
    Intent::Scale { generation: generation.name.clone(), from: generation.replicas, to }
}

/// How many pods a roll to `want` may have on top, and how many may be on their way at once: at least one, or it would never
/// move.
fn surge(want: Pods) -> Pods {
    let percent = Percent::new(SURGE_PERCENT).map_or(0, |percent| percent.of_rounded_up(want.0));
    Pods(percent.max(1))
}
