//! One instant's picture of a pool, out of the cells and of what our own writes left that the watch has not shown yet.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kitepool_policy::{
    memory::{Memory, Round},
    observation::{AgentPod, AgentState, Generation, PodCounts, Rank, Sign},
    units::Pods,
};

use super::{
    act::Landed,
    joined::{self, Joined},
    overlay::Overlay,
};
use crate::{
    agents::Silence,
    cluster::{
        cell::{Health, NamespaceCells},
        hindrance::{Failure, Hindrance},
        view::{DeploymentView, PodView, PoolView},
    },
    pods::generation::INPUTS_ANNOTATION,
    sense::probe::{Heard, Look},
};

/// A namespace's Deployments and the pods of each.
#[derive(Debug)]
pub struct NamespaceSnapshot {
    joined: Arc<Joined>,
    /// Whether the watch of Deployments is well.
    pub(super) is_followed: bool,
    now: Timestamp,
}

/// What is known of a pool besides its namespace.
#[derive(Clone, Copy)]
pub struct Beside<'a> {
    /// What our own writes left.
    pub overlay: &'a Overlay,
    /// What the agents of the pod with this uid said last.
    pub said: &'a dyn Fn(&str) -> Option<Look>,
    /// The pool's memory.
    pub memory: &'a Memory,
}

/// A generation with what the shell needs besides the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationFacts {
    /// What the policy sees.
    pub seen: Generation,
    /// The Deployment's uid.
    pub uid: String,
    /// Who, other than us, last wrote its replicas.
    pub foreign_scaler: Option<String>,
    /// Why no pod of it can be made.
    pub pods_refused: Option<String>,
    /// What it was made of.
    pub inputs: Option<String>,
    /// Why one of its pods fails, the first by name.
    pub failure: Option<Failure>,
    /// Why one of its ready pods has not said for long what its agents do: the first by name, and the reason.
    pub silence: Option<(String, Silence)>,
    /// Its pods, of an adopted one none.
    pub pods: joined::Pods,
}

/// A ready pod whose agents say nothing for so long is told of. A rollout of a `NetworkPolicy` or a node under load takes minutes.
const SILENCE_MAX: SignedDuration = SignedDuration::from_mins(10);

impl NamespaceSnapshot {
    /// Of a namespace as it is at this instant.
    pub fn take(cells: &NamespaceCells, now: Timestamp) -> Self {
        Self::of(Arc::new(Joined::of(cells)), cells, now)
    }

    /// The same of what was put together before.
    pub fn of(joined: Arc<Joined>, cells: &NamespaceCells, now: Timestamp) -> Self {
        Self { joined, is_followed: cells.deployments.health() == Health::Following, now }
    }

    /// The generations of a pool, oldest first, the adopted one before all, with what its agents said.
    pub fn generations(&self, pool: &PoolView, adopt: Option<&str>, beside: Beside<'_>) -> Vec<GenerationFacts> {
        let own = self.joined.owned_by(&pool.uid);
        let adopted =
            adopt.and_then(|name| self.joined.deployment(name)).filter(|deployment| deployment.owner_uid.is_none());

        let mut facts = Vec::new();
        for (deployment, is_adopted) in adopted.into_iter().map(|d| (d, true)).chain(own.map(|d| (d, false))) {
            facts.extend(self.facts(deployment, is_adopted, beside.overlay.get(&pool.uid, &deployment.name)));
        }
        facts.extend(self.created(pool, beside.overlay));
        for facts in facts.iter_mut().filter(|facts| !facts.seen.adopted) {
            self.hear(facts, beside);
        }
        facts
    }

    /// Adds what the agents of its pods said.
    fn hear(&self, facts: &mut GenerationFacts, beside: Beside<'_>) {
        let round = beside.memory.rounds.get(&facts.seen.name);
        let mut agents = Vec::with_capacity(facts.pods.len());
        for pod in facts.pods.iter() {
            let said = (beside.said)(&pod.uid);
            if facts.silence.is_none() {
                facts.silence = silent(pod, said, self.now);
            }
            if !pod.is_finished {
                let mut listed = listed(pod, said, round, self.now);
                if beside.overlay.is_moving(&pod.uid) {
                    listed.sign = Sign::Moving;
                }
                agents.push(listed);
            }
        }
        facts.seen.agents = agents;
    }

    fn facts(&self, deployment: &DeploymentView, adopted: bool, landed: Option<Landed>) -> Option<GenerationFacts> {
        let of_generation = self.joined.pods_of(&deployment.name);
        let (mut pods, failure) = self.counted(of_generation);
        if adopted {
            // One that another pool made has our label on its pods; others are told by its selector. It is never the wanted
            // generation, so why they fail is nobody's question here.
            for pod in self.joined.strangers().iter().filter(|pod| deployment.selects(&pod.labels)) {
                let _ = count(&mut pods, pod, self.now);
            }
        }
        // Only a write that the cell does not show yet counts.
        let landed = match landed {
            Some(Landed::Deleted) => return None,
            Some(Landed::Replicas { replicas, resource_version }) if resource_version > deployment.resource_version => {
                Some(replicas)
            }
            Some(Landed::Replicas { .. }) | None => None,
        };
        let replicas = landed.unwrap_or(Pods(deployment.replicas));
        let living = pods.ready.plus(pods.unready);
        let settled = landed.is_none()
            && !deployment.is_deleting
            && deployment.is_observed
            && deployment.status_replicas == replicas.0
            && living == replicas;
        Some(GenerationFacts {
            seen: Generation {
                name: deployment.name.clone(),
                adopted,
                replicas,
                scaled_by_us: deployment.scaled_by_us,
                settled,
                pods,
                agents: Vec::new(),
            },
            silence: None,
            pods: if adopted { Arc::new([]) } else { Arc::clone(of_generation) },
            uid: deployment.uid.clone(),
            foreign_scaler: deployment.foreign_scaler.clone(),
            pods_refused: deployment.pods_refused.clone(),
            inputs: deployment.annotations.get(INPUTS_ANNOTATION).cloned(),
            failure,
        })
    }

    /// Deployments that we created and the watch has not shown.
    fn created(&self, pool: &PoolView, overlay: &Overlay) -> Vec<GenerationFacts> {
        let unseen = overlay.of_pool(&pool.uid).filter(|(name, _)| self.joined.deployment(name).is_none());
        let made = unseen.filter_map(|(name, landed)| Some((name, landed.stands_at()?)));
        made.map(|(name, replicas)| {
            let pods_of_it = self.joined.pods_of(name);
            let (pods, failure) = self.counted(pods_of_it);
            let seen = Generation {
                name: name.to_owned(),
                adopted: false,
                replicas,
                scaled_by_us: false,
                settled: false,
                pods,
                agents: Vec::new(),
            };
            GenerationFacts {
                seen,
                silence: None,
                pods: Arc::clone(pods_of_it),
                uid: String::new(),
                foreign_scaler: None,
                pods_refused: None,
                inputs: None,
                failure,
            }
        })
        .collect()
    }

    /// The pods of a generation by what they are, and why the first of those fails that do.
    fn counted(&self, pods: &joined::Pods) -> (PodCounts, Option<Failure>) {
        let mut counts = PodCounts::default();
        let mut first = None;
        for pod in pods.iter() {
            let failure = count(&mut counts, pod, self.now);
            first = first.or(failure);
        }
        (counts, first)
    }

    /// Whether the cell shows what our write left, so that the overlay's entry has done its work.
    pub(super) fn shows(&self, name: &str, landed: Landed) -> bool {
        let seen = self.joined.deployment(name);
        match landed {
            Landed::Replicas { resource_version, .. } => {
                seen.is_some_and(|deployment| deployment.resource_version >= resource_version)
            }
            Landed::Deleted => seen.is_none(),
        }
    }
}

/// A pod with what its agents said last.
///
/// One that is not ready and in which nothing listens has no agent that could take a job: it is not registered yet, or its
/// process is gone. Whatever else says nothing may run one.
///
/// When a pod was asked matters for those that are chosen; of all others it would make every tick news.
fn listed(pod: &PodView, said: Option<Look>, round: Option<&Round>, now: Timestamp) -> AgentPod {
    let is_chosen = round.is_some_and(|round| round.names(&pod.uid));
    let has_nobody = !pod.is_ready && (pod.ip.is_none() || !pod.agent_runs);
    let state = match said.map(|look| look.heard) {
        Some(Heard::Said(said)) if said.busy.is_zero() => AgentState::Idle,
        Some(Heard::Said(said)) => AgentState::Busy(said.busy),
        _ if has_nobody => AgentState::Starting,
        Some(Heard::Silent(Silence::Refused)) if !pod.is_ready => AgentState::Starting,
        Some(Heard::Silent(_) | Heard::NotYet) | None => AgentState::Unknown,
    };
    AgentPod {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        state,
        since: said.map(|look| look.since).or(pod.created_at).unwrap_or(now),
        asked_at: said.filter(|look| is_chosen && matches!(look.heard, Heard::Said(_))).map(|look| look.at),
        rank: match pod {
            PodView { node: None, .. } => Rank::Unassigned,
            PodView { is_pending: true, .. } => Rank::Pending,
            PodView { is_ready: false, .. } => Rank::Unready,
            PodView { .. } => Rank::Ready,
        },
        is_draining: pod.is_deleting,
        is_leaving: is_leaving(pod),
        node: pod.node.clone(),
        created_at: pod.created_at.unwrap_or(now),
        sign: pod.sign,
    }
}

/// Why a ready pod has said nothing for long.
fn silent(pod: &PodView, said: Option<Look>, now: Timestamp) -> Option<(String, Silence)> {
    let is_there = pod.is_ready && !pod.is_deleting && !pod.is_finished;
    match said.filter(|look| is_there && now.duration_since(look.since) >= SILENCE_MAX)?.heard {
        Heard::Silent(silence) => Some((pod.name.clone(), silence)),
        Heard::Said(_) | Heard::NotYet => None,
    }
}

/// Whether somebody else is about to take it, and has not done so yet.
const fn is_leaving(pod: &PodView) -> bool {
    pod.disruption.is_some() && !pod.is_deleting && !pod.is_finished
}

/// Counts a pod, and says why it fails if it does.
fn count(counts: &mut PodCounts, pod: &PodView, now: Timestamp) -> Option<Failure> {
    let one = Pods(1);
    if is_leaving(pod) {
        counts.leaving = counts.leaving.plus(one);
    }
    if pod.is_finished {
        // Evicted or ended pods stay listed; they are no capacity and run nothing.
    } else if pod.is_deleting {
        counts.draining = counts.draining.plus(one);
    } else if pod.is_ready {
        counts.ready = counts.ready.plus(one);
    } else {
        counts.unready = counts.unready.plus(one);
        let failure = pod.hindrance.as_ref().and_then(|hindrance| hindrance.failure(now));
        if failure.is_some() {
            counts.failing = counts.failing.plus(one);
        } else if matches!(pod.hindrance, Some(Hindrance::Unscheduled { .. })) {
            counts.unscheduled = counts.unscheduled.plus(one);
        }
        return failure;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kitepool_api::GENERATION_LABEL;
    use serde_json::json;

    use super::{super::overlay::OVERLAY_MAX, *};

    const UID: &str = "pool-uid";

    fn pool() -> PoolView {
        let object = json!({
            "apiVersion": "kitepool.dev/v1alpha1", "kind": "AgentPool",
            "metadata": { "name": "linux", "namespace": "ci", "uid": UID },
        });
        PoolView::from(serde_json::from_value::<kube::core::DynamicObject>(object).unwrap())
    }

    fn deployment(cells: &NamespaceCells, name: &str, owner: Option<&str>, replicas: u32, version: u32) {
        let owners = owner.map(
            |uid| json!([{ "apiVersion": "v1", "kind": "AgentPool", "name": "linux", "uid": uid, "controller": true }]),
        );
        let view: k8s_openapi::api::apps::v1::Deployment = serde_json::from_value(json!({
            "metadata": { "name": name, "uid": name, "generation": 1, "resourceVersion": version.to_string(), "ownerReferences": owners },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": name } }, "template": {} },
            "status": { "observedGeneration": 1, "replicas": replicas },
        }))
        .unwrap();
        cells.deployments.put(name.to_owned(), view.into());
    }

    fn pod(cells: &NamespaceCells, name: &str, labels: &serde_json::Value, ready: bool, deleting: bool) {
        let status = if ready { "True" } else { "False" };
        let view: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels, "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z") },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": status }] },
        }))
        .unwrap();
        cells.pods.put(name.to_owned(), view.into());
    }

    fn seen(cells: &NamespaceCells, adopt: Option<&str>, overlay: &Overlay) -> Vec<Generation> {
        let beside = Beside { overlay, said: &|_| None, memory: &Memory::default() };
        let generations = NamespaceSnapshot::take(cells, Timestamp::UNIX_EPOCH).generations(&pool(), adopt, beside);
        generations.into_iter().map(|generation| generation.seen).collect()
    }

    #[test]
    fn each_pod_counts_once_and_as_what_it_is() {
        let cells = NamespaceCells::default();
        deployment(&cells, "linux-a", Some(UID), 2, 5);
        let labels = json!({ GENERATION_LABEL: "linux-a" });
        pod(&cells, "ready", &labels, true, false);
        pod(&cells, "starting", &labels, false, false);
        pod(&cells, "draining", &labels, true, true);
        pod(&cells, "foreign", &json!({ "app": "x" }), true, false);
        let generations = seen(&cells, None, &Overlay::default());
        assert_eq!(
            generations[0].pods,
            PodCounts { unready: Pods(1), ready: Pods(1), draining: Pods(1), ..PodCounts::default() }
        );
        assert!(generations[0].settled, "the living pods are as many as asked for");
    }

    #[test]
    fn pods_that_fail_and_pods_without_a_node_are_counted_among_the_unready() {
        let cells = NamespaceCells::default();
        deployment(&cells, "linux-a", Some(UID), 3, 5);
        let labels = json!({ GENERATION_LABEL: "linux-a" });
        pod(&cells, "starting", &labels, false, false);
        let put = |name: &str, status: serde_json::Value| {
            let view: k8s_openapi::api::core::v1::Pod =
                serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels }, "status": status }))
                    .unwrap();
            cells.pods.put(name.to_owned(), view.into());
        };
        let waiting = json!({ "waiting": { "reason": "ErrImagePull", "message": "not found" } });
        let status = json!({ "name": "agent", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": waiting });
        put("failing", json!({ "phase": "Pending", "containerStatuses": [status] }));
        let unscheduled = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" });
        put("homeless", json!({ "phase": "Pending", "conditions": [unscheduled] }));

        let snapshot = NamespaceSnapshot::take(&cells, Timestamp::UNIX_EPOCH);
        let beside = Beside { overlay: &Overlay::default(), said: &|_| None, memory: &Memory::default() };
        let generation = snapshot.generations(&pool(), None, beside).remove(0);
        let expected = PodCounts { unready: Pods(3), failing: Pods(1), unscheduled: Pods(1), ..PodCounts::default() };
        assert_eq!(generation.seen.pods, expected);
        assert_eq!(generation.failure.unwrap().word, "ImageNotPulled");
    }

    /// A pod as Kubernetes shows it, and its state where its agents were heard so.
    fn state(status: &serde_json::Value, heard: Option<Heard>) -> (AgentState, Rank, bool) {
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
            "metadata": { "name": "a", "uid": "u" }, "spec": { "nodeName": "n", "containers": [] }, "status": status,
        }))
        .unwrap();
        let at = Timestamp::UNIX_EPOCH;
        let listed = listed(&pod.into(), heard.map(|heard| Look { heard, since: at, at }), None, at);
        (listed.state, listed.rank, listed.is_leaving)
    }

    #[test]
    fn what_says_nothing_may_be_busy_unless_nobody_can_be_there() {
        let status = |is_ready: bool, contains: bool, runs: bool| {
            let word = |is_so: bool| if is_so { "True" } else { "False" };
            let condition = |kind: &str, is_so: bool| json!({ "type": kind, "status": word(is_so) });
            let state =
                if runs { json!({ "running": {} }) } else { json!({ "waiting": { "reason": "CrashLoopBackOff" } }) };
            json!({
                "phase": "Running", "podIP": "10.0.0.1",
                "conditions": [condition("Ready", is_ready), condition("ContainersReady", contains)],
                "containerStatuses": [{ "name": "agent", "image": "", "imageID": "", "ready": contains, "restartCount": 0, "state": state }],
            })
        };
        let (refused, timed_out) = (Heard::Silent(Silence::Refused), Heard::Silent(Silence::TimedOut));
        let busy = Heard::Said(crate::agents::Said { busy: kitepool_policy::units::Agents(1) });
        let is_busy = AgentState::Busy(kitepool_policy::units::Agents(1));
        for (status, heard, expected) in [
            (status(true, true, true), None, (AgentState::Unknown, Rank::Ready, false)),
            (status(true, true, true), Some(refused), (AgentState::Unknown, Rank::Ready, false)),
            (status(false, false, true), Some(refused), (AgentState::Starting, Rank::Unready, false)),
            (status(false, false, true), Some(timed_out), (AgentState::Unknown, Rank::Unready, false)),
            (status(false, false, false), Some(timed_out), (AgentState::Starting, Rank::Unready, false)),
            (status(false, false, true), None, (AgentState::Unknown, Rank::Unready, false)),
            (status(false, false, true), Some(busy), (is_busy, Rank::Unready, false)),
            // Its kubelet last said that all is well, and then somebody else said that nothing is heard of it.
            (status(false, true, true), Some(timed_out), (AgentState::Unknown, Rank::Unready, true)),
            (json!({ "phase": "Pending" }), None, (AgentState::Starting, Rank::Pending, false)),
        ] {
            assert_eq!(state(&status, heard), expected, "{status} {heard:?}");
        }
    }

    #[test]
    fn an_adopted_deployment_is_counted_by_its_selector_and_comes_first() {
        let cells = NamespaceCells::default();
        deployment(&cells, "linux-a", Some(UID), 0, 5);
        deployment(&cells, "agents", None, 1, 6);
        pod(&cells, "old", &json!({ "app": "agents" }), true, false);
        let generations = seen(&cells, Some("agents"), &Overlay::default());
        assert_eq!(
            generations.iter().map(|g| (g.name.as_str(), g.adopted)).collect::<Vec<_>>(),
            [("agents", true), ("linux-a", false)]
        );
        assert_eq!(generations[0].pods.ready, Pods(1));
        assert_eq!(seen(&cells, None, &Overlay::default()).len(), 1, "what nobody adopts is none of ours");
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_write_stands_in_until_the_watch_shows_it() {
        let clock = crate::clock::Clock::fixed(jiff::Timestamp::UNIX_EPOCH);
        let cells = NamespaceCells::default();
        let mut overlay = Overlay::default();
        let landed = |replicas, resource_version| Landed::Replicas { replicas: Pods(replicas), resource_version };

        overlay.landed(UID, "linux-a".to_owned(), landed(3, 5), clock.mono());
        let created = seen(&cells, None, &overlay);
        assert_eq!((created[0].replicas, created[0].settled), (Pods(3), false), "created, and not shown yet");

        deployment(&cells, "linux-a", Some(UID), 3, 5);
        overlay.landed(UID, "linux-a".to_owned(), landed(7, 9), clock.mono());
        assert_eq!(seen(&cells, None, &overlay)[0].replicas, Pods(7));

        deployment(&cells, "linux-a", Some(UID), 2, 11);
        assert_eq!(seen(&cells, None, &overlay)[0].replicas, Pods(2), "somebody else wrote later");
        overlay.settle(UID, &NamespaceSnapshot::take(&cells, Timestamp::UNIX_EPOCH), clock.mono());
        assert!(overlay.get(UID, "linux-a").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_watch_never_shows_is_forgotten_in_time() {
        let clock = crate::clock::Clock::fixed(jiff::Timestamp::UNIX_EPOCH);
        let cells = NamespaceCells::default();
        cells.deployments.complete();
        let mut overlay = Overlay::default();
        overlay.landed(
            UID,
            "linux-a".to_owned(),
            Landed::Replicas { replicas: Pods(3), resource_version: 5 },
            clock.mono(),
        );
        tokio::time::advance(OVERLAY_MAX + Duration::from_secs(1)).await;
        overlay.settle(UID, &NamespaceSnapshot::take(&cells, Timestamp::UNIX_EPOCH), clock.mono());
        assert!(seen(&cells, None, &overlay).is_empty());
    }
}
