//! Who took the agents that are gone: one cause for each, found when it is first seen to go.
//!
//! ```text
//!  it goes or is gone                                            │ cause
//! ───────────────────────────────────────────────────────────────┼──────────────────────────────────────
//!  its container was started again, or ended for good             │ crashed
//!  evicted: by a person, an autoscaler, the scheduler, its kubelet│ evicted
//!  its node is silent or gone                                     │ node_lost
//!  it was chosen, and replicas were lowered for it                │ chosen
//!  replicas were lowered, and a chosen one still stands           │ not_chosen
//!  none of these                                                  │ by_others
//! ```
//!
//! A term begins with what it sees: what was going before it, its predecessor has counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kitepool_policy::memory::{Memory, Round};

use super::{pool::PoolFacts, snapshot::GenerationFacts};
use crate::cluster::view::{Disruption, PodView};

/// Restarts between two looks at a pod: the kubelet's back-off lets through some in a minute, and after a watch that was away
/// for long the exact number is nobody's question.
const CRASHES_MAX: u32 = 100;

/// Why an agent is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// We chose it.
    Chosen,
    /// We lowered replicas, and Kubernetes took this one in the place of a chosen one.
    NotChosen,
    /// Somebody evicted it.
    Evicted,
    /// Its node is gone.
    NodeLost,
    /// Somebody else deleted it, or scaled its Deployment.
    ByOthers,
    /// Its process ended by itself.
    Crashed,
}

impl Cause {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Chosen, Self::NotChosen, Self::Evicted, Self::NodeLost, Self::ByOthers, Self::Crashed];

    /// A bounded word for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::NotChosen => "not_chosen",
            Self::Evicted => "evicted",
            Self::NodeLost => "node_lost",
            Self::ByOthers => "by_others",
            Self::Crashed => "crashed",
        }
    }
}

/// A pod that is gone, or its agent's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Of which Deployment.
    pub generation: String,
    /// Its name.
    pub pod: String,
    /// Why.
    pub cause: Cause,
}

/// A pod as it was seen last.
#[derive(Debug)]
struct Known {
    generation: String,
    name: String,
    restarts: u32,
    disruption: Option<Disruption>,
    /// Replicas were lowered for it, and its Deployment has not come to rest since. Where demand comes back they are raised again
    /// before it is gone, and the round with that; it goes all the same.
    was_chosen: bool,
    has_a_cause: bool,
}

/// The pods of each pool, by the pool's uid.
#[derive(Debug, Default)]
pub struct Departures(HashMap<String, BTreeMap<String, Known>>);

impl Departures {
    /// Looks at a pool: who has begun to go since it was looked at last. `memory` is what was recorded when they went.
    pub fn follow(&mut self, facts: &PoolFacts, memory: &Memory) -> Vec<Departure> {
        let is_first = !self.0.contains_key(&facts.view.uid);
        if is_first {
            self.0.insert(facts.view.uid.clone(), BTreeMap::new());
        }
        let Some(known) = self.0.get_mut(&facts.view.uid) else { return Vec::new() };
        let mut found = Vec::new();
        let mut present = BTreeSet::new();
        for facts in &facts.generations {
            let round = memory.rounds.get(&facts.seen.name);
            for pod in facts.pods.iter() {
                present.insert(pod.uid.as_str());
                found.extend(look(known, facts, pod, round, is_first));
            }
        }
        let generation = |name: &str| facts.generations.iter().find(|facts| facts.seen.name == name);
        known.retain(|uid, pod| {
            let is_present = present.contains(uid.as_str());
            if !is_present && !pod.has_a_cause {
                // It was deleted without any grace, or the watch was away meanwhile.
                let round = memory.rounds.get(&pod.generation);
                let stands = generation(&pod.generation).is_some_and(|facts| chosen_one_stands(facts, round));
                let cause = pod.cause(uid, round, stands);
                found.push(Departure { generation: pod.generation.clone(), pod: pod.name.clone(), cause });
            }
            is_present
        });
        found
    }

    /// Forgets pools that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| is_there(uid));
    }
}

/// One pod, which is there.
fn look(
    known: &mut BTreeMap<String, Known>,
    facts: &GenerationFacts,
    pod: &PodView,
    round: Option<&Round>,
    is_first: bool,
) -> Vec<Departure> {
    let goes = pod.is_deleting || pod.is_finished;
    let of = |cause| Departure { generation: facts.seen.name.clone(), pod: pod.name.clone(), cause };
    if !known.contains_key(&pod.uid) {
        let new = Known {
            generation: facts.seen.name.clone(),
            name: pod.name.clone(),
            restarts: if is_first { pod.restarts } else { 0 },
            disruption: None,
            was_chosen: false,
            has_a_cause: is_first && goes,
        };
        known.insert(pod.uid.clone(), new);
    }
    let Some(before) = known.get_mut(&pod.uid) else { return Vec::new() };
    let crashes = pod.restarts.saturating_sub(before.restarts).min(CRASHES_MAX);
    (before.restarts, before.disruption) = (pod.restarts, pod.disruption.or(before.disruption));
    let is_chosen = round.is_some_and(|round| round.lowered.is_some() && round.names(&pod.uid));
    before.was_chosen = is_chosen || (before.was_chosen && (goes || !facts.seen.settled));
    let mut found: Vec<Departure> = (0..crashes).map(|_| of(Cause::Crashed)).collect();
    if goes && !before.has_a_cause {
        before.has_a_cause = true;
        let is_by_itself = !pod.is_deleting && before.disruption.is_none();
        let stands = chosen_one_stands(facts, round);
        found.push(of(if is_by_itself { Cause::Crashed } else { before.cause(&pod.uid, round, stands) }));
    }
    found
}

impl Known {
    /// Of its deletion.
    fn cause(&self, uid: &str, round: Option<&Round>, chosen_one_stands: bool) -> Cause {
        let cause = cause(self.disruption, uid, round, chosen_one_stands);
        let is_by_somebody = matches!(cause, Cause::ByOthers | Cause::NotChosen);
        if self.was_chosen && is_by_somebody { Cause::Chosen } else { cause }
    }
}

fn cause(disruption: Option<Disruption>, uid: &str, round: Option<&Round>, chosen_one_stands: bool) -> Cause {
    let lowered = round.filter(|round| round.lowered.is_some());
    match (disruption, lowered) {
        (Some(Disruption::NodeLost), _) => Cause::NodeLost,
        (Some(Disruption::Evicted), _) => Cause::Evicted,
        (None, Some(round)) if round.names(uid) => Cause::Chosen,
        (None, Some(_)) if chosen_one_stands => Cause::NotChosen,
        (None, _) => Cause::ByOthers,
    }
}

fn chosen_one_stands(facts: &GenerationFacts, round: Option<&Round>) -> bool {
    let is_chosen = |uid: &str| round.is_some_and(|round| round.names(uid));
    facts.pods.iter().any(|pod| is_chosen(&pod.uid) && !pod.is_deleting && !pod.is_finished)
}

#[cfg(test)]
mod tests {
    use kitepool_policy::{
        memory::{Lowered, Victim},
        units::Pods,
    };

    use super::*;

    fn round(victims: &[&str], is_lowered: bool) -> Round {
        let victim = |uid: &&str| Victim { name: (*uid).to_owned(), uid: (*uid).to_owned() };
        let lowered = is_lowered.then_some(Lowered { from: Pods(2), to: Pods(1) });
        Round { since: jiff::Timestamp::UNIX_EPOCH, victims: victims.iter().map(victim).collect(), lowered }
    }

    #[test]
    fn each_evidence_has_its_cause() {
        let chosen = round(&["a"], true);
        let only_chosen = round(&["a"], false);
        for (disruption, uid, round, stands, expected) in [
            (None, "a", Some(&chosen), false, Cause::Chosen),
            (None, "b", Some(&chosen), true, Cause::NotChosen),
            (None, "b", Some(&chosen), false, Cause::ByOthers),
            (None, "a", Some(&only_chosen), false, Cause::ByOthers),
            (None, "a", None, false, Cause::ByOthers),
            (Some(Disruption::Evicted), "a", Some(&chosen), false, Cause::Evicted),
            (Some(Disruption::NodeLost), "b", None, false, Cause::NodeLost),
        ] {
            assert_eq!(cause(disruption, uid, round, stands), expected, "{uid} {disruption:?}");
        }
    }

    fn pod(uid: &str, change: impl FnOnce(&mut PodView)) -> PodView {
        let object = serde_json::json!({ "metadata": { "name": uid, "uid": uid } });
        let mut view = PodView::from(serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(object).unwrap());
        change(&mut view);
        view
    }

    /// What comes of a pod that looks so in one look after another.
    fn told(looks: &[Option<PodView>]) -> Vec<Cause> {
        let mut departures = Departures::default();
        let mut found = Vec::new();
        for look in looks {
            found.extend(departures.follow(&pool(look.iter().cloned().collect()), &Memory::default()));
        }
        found.into_iter().map(|departure| departure.cause).collect()
    }

    fn pool(pods: Vec<PodView>) -> PoolFacts {
        let object = serde_json::json!({
            "apiVersion": "kitepool.dev/v1alpha1", "kind": "AgentPool",
            "metadata": { "name": "linux", "namespace": "ci", "uid": "pool" },
        });
        let view = serde_json::from_value::<kube::core::DynamicObject>(object).unwrap().into();
        let seen = kitepool_policy::observation::Generation {
            name: "linux-a".to_owned(),
            adopted: false,
            replicas: Pods(1),
            scaled_by_us: false,
            settled: true,
            pods: kitepool_policy::observation::PodCounts::default(),
            agents: Vec::new(),
        };
        let pods = pods.into_iter().map(std::sync::Arc::new).collect();
        let facts = GenerationFacts {
            seen,
            uid: String::new(),
            foreign_scaler: None,
            pods_refused: None,
            inputs: None,
            failure: None,
            silence: None,
            pods,
        };
        PoolFacts { view: std::sync::Arc::new(view), generations: vec![facts] }
    }

    /// What is told of a pod that is seen so often, each time beside a round or none, at rest or not, and then goes.
    fn told_of_chosen(looks: &[(bool, bool)]) -> Vec<Cause> {
        let mut departures = Departures::default();
        let memory = |is_chosen: bool| Memory {
            rounds: is_chosen.then(|| ("linux-a".to_owned(), round(&["a"], true))).into_iter().collect(),
            ..Memory::default()
        };
        for (is_chosen, is_settled) in looks {
            let mut facts = pool(vec![pod("a", |_| {})]);
            facts.generations[0].seen.settled = *is_settled;
            assert_eq!(departures.follow(&facts, &memory(*is_chosen)), []);
        }
        let mut facts = pool(vec![pod("a", |pod| pod.is_deleting = true)]);
        facts.generations[0].seen.settled = false;
        departures.follow(&facts, &memory(false)).into_iter().map(|departure| departure.cause).collect()
    }

    #[test]
    fn a_chosen_one_that_goes_after_replicas_were_raised_again_was_chosen() {
        assert_eq!(told_of_chosen(&[(true, true), (false, false)]), [Cause::Chosen]);
        assert_eq!(
            told_of_chosen(&[(true, true), (false, false), (false, true)]),
            [Cause::ByOthers],
            "it was let stand"
        );
        assert_eq!(told_of_chosen(&[(false, true), (false, false)]), [Cause::ByOthers]);
    }

    #[test]
    fn each_agent_that_goes_has_one_cause_however_long_it_takes() {
        let lives = || Some(pod("a", |_| {}));
        let goes = || Some(pod("a", |pod| pod.is_deleting = true));
        let crashed = |restarts| Some(pod("a", move |pod| pod.restarts = restarts));
        let evicted = || Some(pod("a", |pod| (pod.is_finished, pod.disruption) = (true, Some(Disruption::Evicted))));
        let silent = || Some(pod("a", |pod| pod.disruption = Some(Disruption::NodeLost)));
        let ended = || Some(pod("a", |pod| pod.is_finished = true));
        for (looks, expected) in [
            (vec![lives(), goes(), goes(), None, None], vec![Cause::ByOthers]),
            (vec![lives(), None], vec![Cause::ByOthers]),
            (vec![goes(), None], vec![]),
            (vec![None, goes(), None], vec![Cause::ByOthers]),
            (
                vec![lives(), crashed(1), crashed(3), goes()],
                vec![Cause::Crashed, Cause::Crashed, Cause::Crashed, Cause::ByOthers],
            ),
            (vec![crashed(5), crashed(5)], vec![]),
            (vec![lives(), evicted(), goes(), None], vec![Cause::Evicted]),
            (vec![lives(), silent(), silent(), goes(), None], vec![Cause::NodeLost]),
            (vec![lives(), ended(), goes(), None], vec![Cause::Crashed]),
        ] {
            assert_eq!(told(&looks), expected);
        }
    }
}
