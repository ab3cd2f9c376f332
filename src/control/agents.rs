//! What a tick does with single pods: has them asked, puts signs up on them, and notes who is gone.

use std::sync::Arc;

use kitepool_policy::{
    decision::{Decision, SignChange, StepName},
    memory::Memory,
    observation::Sign,
    spec::Pause,
};

use super::{
    announce,
    observe::Candidate,
    pool::{PoolFacts, reference},
    queues::Decided,
    show,
    signs::Wanted,
    tick::Term,
};
use crate::{
    agents::Address,
    cluster::{error::Error, view::PodView},
    pods::contract::HEALTH_PORT,
    sense::probe::Pace,
};

impl Term {
    /// Counts the agents that are gone, and tells of those that nobody here wanted to go.
    pub(super) fn note_departures(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            let (view, spec) = (candidate.view(), &candidate.valid.spec);
            let departures = self.departures.follow(&candidate.facts, &candidate.memory);
            for departure in &departures {
                let agents = u64::from(spec.agents_per_pod.get());
                self.shared.metrics.gone(&show::labels(&view.name), departure.cause, agents);
                tracing::info!(pool = %view.name, pod = departure.pod, cause = departure.cause.as_str(), "agent gone");
            }
            if !self.shared.config.is_dry_run {
                let about = reference(&view.name, &view.uid);
                for notice in announce::departures(&about, &departures) {
                    self.announcer.announce(notice);
                }
            }
        }
    }

    /// Tells the prober whom to ask, and how soon again.
    pub(super) fn ask(&self, candidates: &[Candidate], decided: &[Decided]) {
        for (candidate, decided) in candidates.iter().zip(decided) {
            let pace = pace(candidate, decided.decision.as_ref());
            let namespace = &candidate.view().name.namespace;
            self.probes.want(targets(&candidate.facts, pace), |pod| address(namespace, pod));
        }
    }

    /// The signs that decisions ask for, those of the chosen ones only after the choice is recorded.
    pub(super) fn wanted_signs(&self, candidates: &[Candidate], decided: &[Decided]) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (candidate, decided) in candidates.iter().zip(decided) {
            let Some(decision) = decided.decision.as_ref().filter(|decision| !decision.signs.is_empty()) else {
                continue;
            };
            let view = candidate.view();
            let Some(state) = self.pools.get(&view.uid) else { continue };
            let is_recorded = |change: &&SignChange| {
                let round = state.recorded.rounds.get(&change.generation);
                change.sign != Sign::Leaving || round.is_some_and(|round| round.names(&change.uid))
            };
            wanted.extend(decision.signs.iter().filter(is_recorded).map(|change| Wanted {
                pool: view.uid.clone(),
                namespace: view.name.namespace.clone(),
                change: change.clone(),
            }));
        }
        wanted
    }

    /// Takes in how the writes of signs ended.
    pub(super) fn take_in_signs(&mut self) {
        for ended in self.signs.ended() {
            let outcome = ended.result.as_ref().err().map_or("ok", Error::category);
            self.shared.metrics.wrote("sign", outcome);
            if let Some(state) = self.pools.get_mut(&ended.pool) {
                state.sign_refusal = ended.result.err().and_then(|error| error.refusal());
            }
        }
        self.signs.settle(&self.watch.namespaces);
        self.overlay.set_moving(self.signs.moving());
    }
}

/// How soon the agents of a pool are to be asked again.
fn pace(candidate: &Candidate, decision: Option<&Decision>) -> Pace {
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

/// The pods of a pool. Those that are going are asked as well: what they still run is no demand.
fn targets(facts: &PoolFacts, pace: Pace) -> impl Iterator<Item = (&Arc<PodView>, Pace)> {
    pods(facts).map(move |pod| (pod, if pod.is_deleting { pace.max(Pace::Usual) } else { pace }))
}

/// Where the pods of a generation listen that are chosen to go.
pub(super) fn chosen(facts: &PoolFacts, memory: &Memory, generation: &str) -> Vec<Address> {
    let Some(round) = memory.rounds.get(generation) else { return Vec::new() };
    let named = pods(facts).filter(|pod| round.names(&pod.uid));
    named.filter_map(|pod| address(&facts.view.name.namespace, pod)).collect()
}

fn pods(facts: &PoolFacts) -> impl Iterator<Item = &Arc<PodView>> {
    let pods = facts.generations.iter().flat_map(|generation| generation.pods.iter());
    pods.filter(|pod| !pod.is_finished)
}

fn address(namespace: &str, pod: &PodView) -> Option<Address> {
    let (namespace, port) = (namespace.to_owned(), port(pod));
    Some(Address { namespace, pod: pod.name.clone(), uid: pod.uid.clone(), ip: pod.ip?, port })
}

/// The one that its definition names, or the one that the controller does.
fn port(pod: &PodView) -> u16 {
    let named = pod.health_address.as_deref().and_then(|address| address.rsplit_once(':'));
    named.and_then(|(_, port)| port.parse().ok()).unwrap_or(HEALTH_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_that_names_its_own_port_is_asked_there() {
        for (address, expected) in [
            (Some("$(POD_IP):3901"), 3901),
            (Some("[$(POD_IP)]:3901"), 3901),
            (Some("0.0.0.0:8080"), 8080),
            (Some("[::]:8081"), 8081),
            (Some("$(ELSEWHERE)"), HEALTH_PORT),
            (None, HEALTH_PORT),
        ] {
            let env = address
                .map(|value| serde_json::json!([{ "name": "BUILDKITE_AGENT_HEALTH_CHECK_ADDR", "value": value }]));
            let pod = serde_json::json!({ "spec": { "containers": [{ "name": "helper" }, { "name": "agent", "env": env }] } });
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(port(&pod.into()), expected, "{address:?}");
        }
    }
}
