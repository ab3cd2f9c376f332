//! Whom to ask what they do, and how soon again.

use kitepool_policy::{
    decision::{Decision, StepName},
    spec::Pause,
};

use super::{pool::PoolFacts, tick::Candidate};
use crate::{
    agents::Address,
    cluster::view::PodView,
    pods::contract::HEALTH_PORT,
    sense::probe::{Pace, Target},
};

/// How soon the agents of a pool are to be asked again.
pub(super) fn pace(candidate: &Candidate, decision: Option<&Decision>) -> Pace {
    let Some(decision) = decision else { return Pace::Usual };
    let current = candidate.facts.replicas();
    let goal = decision.report.entry(StepName::Shrink).map_or(current.0, |entry| entry.input);
    let spec = &candidate.valid.spec;
    let is_rolling = candidate.facts.generations.len() > 1 && !spec.pause.stops_down();
    if goal < current.0 || is_rolling || !decision.memory.rounds.is_empty() {
        return Pace::Near;
    }
    // A floor that holds, a pause, a contest: nothing goes, whatever they say.
    let is_held = current <= spec.limits.min() || matches!(spec.pause, Pause::Down | Pause::All);
    if is_held || decision.memory.contested_since.is_some() { Pace::Seldom } else { Pace::Usual }
}

/// The pods of a pool that have an address. Those that are going are asked as well: what they still run is no demand.
pub(super) fn targets(facts: &PoolFacts, pace: Pace) -> impl Iterator<Item = (String, Target)> {
    let namespace = &facts.view.name.namespace;
    let pods = facts.generations.iter().flat_map(|generation| &generation.pods);
    pods.filter(|pod| !pod.is_finished).filter_map(move |pod| {
        let address = Address {
            namespace: namespace.clone(),
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            ip: pod.ip?,
            port: port(pod),
        };
        let pace = if pod.is_deleting { pace.max(Pace::Usual) } else { pace };
        Some((pod.uid.clone(), Target { address, pace, is_ready: pod.is_ready }))
    })
}

/// The one that its definition names, or the one that the controller does.
fn port(pod: &PodView) -> u16 {
    let named = pod.health_address.as_deref().and_then(|address| address.rsplit_once(':'));
    named.and_then(|(_, port)| port.parse().ok()).unwrap_or(HEALTH_PORT)
}
