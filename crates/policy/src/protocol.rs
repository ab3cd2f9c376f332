//! Step 8, second part: which pods go, and how it is made sure that it is those.
//!
//! A `ReplicaSet` that is told to have fewer pods takes them itself. It can be told which ones it should take first, by an
//! annotation, and nothing can be taken back once it has begun. So the pods of a generation go in *rounds*:
//!
//! ```text
//!   state     │ evidence, seen anew in each tick                      │ the write that follows      │ then
//!  ───────────┼───────────────────────────────────────────────────────┼─────────────────────────────┼──────────
//!   none      │ fewer pods are wanted, nothing is in motion           │ the round, into the memory  │ intended
//!   intended  │ the round stands in the recorded memory               │ the sign, on exactly those  │ marked
//!   marked    │ each of them has the sign, no other pod has it, and   │ none: they are asked again  │ confirmed
//!             │ no sign is on its way                                 │                             │
//!   confirmed │ each was idle once more, a ping or more after the     │ replicas, lowered by as     │ scaled
//!             │ choice; no other pod would be taken before them       │ many, in one patch          │
//!   scaled    │ replicas are what was asked for, pods come to rest    │ none                        │ gone
//!   gone      │ at rest: the pods that went are compared with those   │ a chosen one that stands is │ none
//!             │ that were chosen                                      │ told of, and loses its sign │
//! ```
//!
//! At every step before the last: one that is busy, or does not say, is let go; demand that returns lets go of as many as it
//! needs; a round of nobody is over. Nobody joins a round that has begun, since the `ReplicaSet` could not tell him from those
//! that were asked twice; only in its first moments, when a want falls by steps, it begins anew with more. Nothing is remembered
//! but the round, and each step goes by what is seen, so that a controller which ends after any of these writes leaves the next
//! one where it was.
//!
//! That an agent is asked twice is not what keeps its job alive: one that was given a job says that it is idle for up to two
//! ping intervals more. Its one signal and its grace period do. Asking twice makes it rare, and the difference seldom matters.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use crate::{
    age::elapsed,
    decision::{Reason, SIGNS_MAX, SignChange, Spared},
    memory::{Lowered, Memory, Round, VICTIMS_MAX, Victim},
    observation::{AgentPod, AgentState, Generation, PoolObservation, Rank, Sign},
    spec::Mode,
    units::{Agents, Pods},
};

/// How long an agent asks for work at the most before most assigned jobs have reached it: Buildkite's usual ping interval.
pub const PING: Duration = Duration::from_secs(10);

/// The second answer must be from just now. Pods of an open round are asked every two seconds.
pub const ANSWER_FRESH: Duration = Duration::from_secs(10);

/// A round that is younger begins anew when more may go: agents that fall idle together are heard of within as long.
const GATHERING: Duration = Duration::from_secs(2);

/// Idle times that differ by less are alike, and the node decides: agents are asked every ten seconds. No coarser, since Buildkite
/// gives a job to the agent that finished one last: where the latest to fall idle stay, the next job finds one that stays.
const IDLE_GRAIN_SECS: i64 = 10;

/// What may go of a generation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    /// Pods that could go.
    pub wish: Pods,
    /// Ready ones among them at the most.
    pub ready: Pods,
    /// Idle agents by the reading, for the sentence.
    pub idle: Agents,
}

/// Pods that are fit to go, best first.
#[derive(Debug)]
pub(crate) struct Chosen {
    victims: Vec<Victim>,
    /// How many of them are ready.
    pub ready: Pods,
}

impl Chosen {
    pub(crate) fn pods(&self) -> Pods {
        pods(self.victims.len())
    }
}

/// What became of a generation's round in this tick.
pub(crate) struct Turn {
    /// As it stands now; `None`: there is none.
    pub round: Option<Round>,
    /// Ready pods in it.
    pub ready: Pods,
    /// Pods to take now, or what is waited for.
    pub outcome: Result<Pods, Reason>,
}

/// The rounds of a pool as a tick goes through them.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// As they were recorded.
    pub before: BTreeMap<String, Round>,
    after: BTreeMap<String, Option<Round>>,
}

impl Rounds {
    /// As the memory has them.
    pub(crate) fn of(memory: &Memory) -> Self {
        Self { before: memory.rounds.clone(), after: BTreeMap::new() }
    }

    /// Notes what became of one.
    pub(crate) fn touched(&mut self, generation: &str, round: Option<Round>) {
        self.after.insert(generation.to_owned(), round);
    }

    /// Nothing can be decided about it for the moment.
    pub(crate) fn hold(&mut self, generation: &str) {
        self.touched(generation, self.before.get(generation).cloned());
    }

    /// What is to be remembered. A round that nobody looked at is over, unless its pods are being taken, or nothing can be
    /// decided at this moment although fewer are wanted.
    pub(crate) fn remember(self, pool: &PoolObservation, is_held: bool) -> BTreeMap<String, Round> {
        let Self { before, mut after } = self;
        let mut rounds: BTreeMap<String, Round> = BTreeMap::new();
        for (name, round) in before {
            let now = match after.remove(&name) {
                Some(round) => round,
                None => pool
                    .generation(&name)
                    .filter(|generation| is_held || is_being_taken(&round, generation))
                    .map(|_| round),
            };
            rounds.extend(now.map(|round| (name, round)));
        }
        rounds.extend(after.into_iter().filter_map(|(name, round)| Some((name, round?))));
        rounds
    }
}

/// Whether replicas were lowered for it, as far as that is seen.
fn is_being_taken(round: &Round, generation: &Generation) -> bool {
    round.lowered.is_some_and(|lowered| generation.replicas != lowered.from)
}

/// Ends the rounds whose pods are gone, and tells of those that stand although as many went.
pub(crate) fn close(pool: &PoolObservation, memory: &mut Memory) -> Vec<Spared> {
    let mut spared = Vec::new();
    memory.rounds.retain(|name, round| {
        let Some(generation) = pool.generation(name) else { return false };
        if !is_being_taken(round, generation) || !generation.is_at_rest() {
            return true;
        }
        let stand: Vec<String> =
            generation.living().filter(|pod| round.names(&pod.uid)).map(|pod| pod.name.clone()).collect();
        if !stand.is_empty() {
            spared.push(Spared { generation: name.clone(), pods: stand });
        }
        false
    });
    spared
}

/// One turn of a generation's round, or its beginning.
pub(crate) fn go_on(
    generation: &Generation,
    round: Option<&Round>,
    offer: Offer,
    min_age: Duration,
    now: Timestamp,
) -> Turn {
    let is_left = |round: &&Round| fit(generation, offer, min_age, now, |pod| round.names(&pod.uid)).ok();
    let going_on = round.and_then(|round| Some((round, is_left(&round)?)));
    let (round, chosen) = match going_on {
        Some((round, chosen)) if round.lowered.is_some() || elapsed(round.since, now) > GATHERING => {
            (Some(round), Ok(chosen))
        }
        Some((round, chosen)) => match choose(generation, offer, min_age, now) {
            Ok(more) if more.pods() > chosen.pods() => (None, Ok(more)),
            Ok(_) | Err(_) => (Some(round), Ok(chosen)),
        },
        // Where nobody is left, others may be fit.
        None => (None, choose(generation, offer, min_age, now)),
    };
    let Chosen { victims, ready } = match chosen {
        Ok(chosen) => chosen,
        Err(reason) => return Turn { round: None, ready: Pods::ZERO, outcome: Err(reason) },
    };
    let count = pods(victims.len());
    let Some(before) = round else {
        let round = Round { since: now, victims, lowered: None };
        return Turn { round: Some(round), ready, outcome: Err(Reason::Choosing { chosen: count }) };
    };
    let mut round = Round { since: before.since, victims, lowered: before.lowered };
    let outcome = confirm(generation, &round, now);
    if outcome.is_ok() {
        let to = generation.replicas.minus(count);
        round.lowered = Some(Lowered { from: generation.replicas, to });
    }
    Turn { round: Some(round), ready, outcome: outcome.map(|()| count) }
}

/// Chooses pods to go: those that are not ready first, as the `ReplicaSet` would; then the longest idle, then those on the node
/// with the fewest of them.
pub(crate) fn choose(
    generation: &Generation,
    offer: Offer,
    min_age: Duration,
    now: Timestamp,
) -> Result<Chosen, Reason> {
    fit(generation, offer, min_age, now, |_| true)
}

fn fit(
    generation: &Generation,
    offer: Offer,
    min_age: Duration,
    now: Timestamp,
    is_asked_for: impl Fn(&AgentPod) -> bool,
) -> Result<Chosen, Reason> {
    let is_fit = |pod: &AgentPod| is_fit(pod) && elapsed(pod.created_at, now) >= min_age && is_asked_for(pod);
    let first_that_stays =
        generation.living().filter(|pod| !is_fit(pod)).map(|pod| pod.rank).chain(unlisted(generation)).min();
    let mut candidates: Vec<&AgentPod> = generation
        .living()
        .filter(|pod| is_fit(pod) && first_that_stays.is_none_or(|stays| pod.rank <= stays))
        .collect();
    if candidates.len() > 1 {
        let crowds = crowds(generation);
        let crowd = |pod: &AgentPod| pod.node.as_deref().and_then(|node| crowds.get(node)).copied();
        candidates.sort_by_cached_key(|pod| {
            (pod.rank, pod.since.as_second().div_euclid(IDLE_GRAIN_SECS), crowd(pod), pod.name.clone())
        });
    }
    let mut victims = Vec::new();
    let mut ready = Pods::ZERO;
    let most = usize::try_from(offer.wish.0).unwrap_or(usize::MAX).min(VICTIMS_MAX);
    for pod in candidates.iter().take(most) {
        if pod.is_ready() {
            if ready >= offer.ready {
                break;
            }
            ready = ready.plus(Pods(1));
        }
        victims.push(Victim { name: pod.name.clone(), uid: pod.uid.clone() });
    }
    if victims.is_empty() {
        Err(none_fits(generation, offer, min_age, now, first_that_stays))
    } else {
        Ok(Chosen { victims, ready })
    }
}

/// Whether nothing but its age stands against taking it.
fn is_fit(pod: &AgentPod) -> bool {
    let has_no_job = if pod.is_ready() {
        matches!(pod.state, AgentState::Idle)
    } else {
        matches!(pod.state, AgentState::Idle | AgentState::Starting)
    };
    has_no_job && !pod.is_leaving
}

/// Pods that are counted and not listed may be any.
fn unlisted(generation: &Generation) -> Option<Rank> {
    let listed = pods(generation.living().filter(|pod| !pod.is_ready()).count());
    (generation.pods.unready > listed).then_some(Rank::Unassigned)
}

/// Pods on each node.
fn crowds(generation: &Generation) -> BTreeMap<&str, usize> {
    let mut crowds = BTreeMap::new();
    for node in generation.living().filter_map(|pod| pod.node.as_deref()) {
        *crowds.entry(node).or_default() += 1;
    }
    crowds
}

fn none_fits(
    generation: &Generation,
    offer: Offer,
    min_age: Duration,
    now: Timestamp,
    first_that_stays: Option<Rank>,
) -> Reason {
    let Offer { wish, ready, idle } = offer;
    let fit = || generation.living().filter(|pod| is_fit(pod));
    let young = fit().filter_map(|pod| min_age.checked_sub(elapsed(pod.created_at, now)));
    if let Some(remaining) = young.filter(|remaining| !remaining.is_zero()).min() {
        return Reason::TooYoung { generation: generation.name.clone(), remaining };
    }
    if first_that_stays.is_some_and(|rank| rank < Rank::Ready) {
        return Reason::UnreadyStays { generation: generation.name.clone() };
    }
    let says = |pod: &&AgentPod| pod.is_ready() && pod.state != AgentState::Unknown;
    let unknown = generation.pods.ready.minus(pods(generation.living().filter(says).count()));
    if unknown.is_zero() || ready.is_zero() {
        Reason::NoneIdle { wanted_away: wish, idle }
    } else {
        Reason::AgentsUnknown { wanted_away: wish, unknown }
    }
}

/// Whether the pods of a round may be taken at this moment.
fn confirm(generation: &Generation, round: &Round, now: Timestamp) -> Result<(), Reason> {
    let chosen = pods(round.victims.len());
    let is_as_meant = |pod: &AgentPod| pod.sign != Sign::Moving && (pod.sign == Sign::Leaving) == round.names(&pod.uid);
    let is_marked_right = generation.living().all(is_as_meant);
    if !is_marked_right {
        return Err(Reason::Choosing { chosen });
    }
    let mut victims = generation.living().filter(|pod| round.names(&pod.uid));
    let is_sure = victims.all(|pod| pod.state == AgentState::Starting || has_said_so_again(pod, round.since, now));
    if is_sure { Ok(()) } else { Err(Reason::AskingAgain { chosen }) }
}

/// Whether its last answer is from just now, and a ping or more after it was chosen.
pub(crate) fn has_said_so_again(pod: &AgentPod, chosen_at: Timestamp, now: Timestamp) -> bool {
    pod.asked_at.is_some_and(|asked_at| {
        elapsed(chosen_at, asked_at) >= PING && elapsed(asked_at, now) <= ANSWER_FRESH && asked_at <= now
    })
}

/// The signs to put up: what each pod's agents say, and who is chosen by a round that is recorded and goes on. Once replicas are
/// lowered, or about to be, the chosen ones keep theirs until the round is over, whatever they say: the `ReplicaSet` would take
/// another in the place of one that lost it, and that one was not asked.
pub(crate) fn signs(pool: &PoolObservation, rounds: &BTreeMap<String, Round>) -> Vec<SignChange> {
    if pool.spec.mode == Mode::Observe {
        return Vec::new();
    }
    let mut changes = Vec::new();
    for generation in pool.generations.iter().filter(|generation| !generation.adopted) {
        let recorded = pool.memory.rounds.get(&generation.name).zip(rounds.get(&generation.name));
        let is_chosen = |pod: &AgentPod| {
            recorded.is_some_and(|(recorded, current)| recorded.names(&pod.uid) && current.names(&pod.uid))
        };
        let is_over = |round: &Round| is_being_taken(round, generation) && generation.is_at_rest();
        let lowered =
            pool.memory.rounds.get(&generation.name).filter(|round| round.lowered.is_some() && !is_over(round));
        let is_taken = |pod: &&AgentPod| lowered.is_some_and(|round| round.names(&pod.uid));
        for pod in generation.agents.iter().filter(|pod| !is_taken(pod)) {
            let Some(sign) = sign_of(pod, is_chosen(pod)).filter(|sign| *sign != pod.sign) else { continue };
            let (generation, name, uid) = (generation.name.clone(), pod.name.clone(), pod.uid.clone());
            changes.push((pod.sign == Sign::Moving, SignChange { generation, pod: name, uid, sign }));
        }
    }
    // What is on its way most often is what is wanted, so it takes nobody's place.
    changes.sort_by_key(|(is_moving, change)| (*is_moving, change.sign));
    let mut changes: Vec<SignChange> = changes.into_iter().map(|(_, change)| change).collect();
    changes.truncate(SIGNS_MAX);
    changes
}

/// The sign that a pod should have; `None`: the one that it has. A busy one keeps its own until it says itself that it is idle.
const fn sign_of(pod: &AgentPod, is_chosen: bool) -> Option<Sign> {
    match pod.state {
        AgentState::Busy(_) => Some(Sign::Busy),
        // It is on its way; whatever is written on it changes nothing any more.
        _ if pod.is_draining => None,
        _ if is_chosen => Some(Sign::Leaving),
        AgentState::Unknown if matches!(pod.sign, Sign::Busy | Sign::Mixed | Sign::Moving) => None,
        AgentState::Idle | AgentState::Starting | AgentState::Unknown => Some(Sign::Plain),
    }
}

fn pods(count: usize) -> Pods {
    Pods(u32::try_from(count).unwrap_or(u32::MAX))
}
