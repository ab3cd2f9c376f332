//! The `ReplicaSet` controller: as many pods as wanted, and which of them go first.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Kubernetes,
    defaults::fill_in,
    deployment::owner_reference,
    kind::Kind,
    object::{Key, assign, controller, instant, is_deleting, is_so, list, number, set, text, uid},
};

/// The real controller creates and deletes no more at a time.
const BURST: usize = 500;

/// A pod with its key.
type Owned = (Key, Arc<Value>);

impl Kubernetes {
    pub(super) fn sync_replica_set(&mut self, key: &Key) {
        let Some(replica_set) = self.store.get(key).cloned() else { return };
        let own = uid(&replica_set);
        let pods: Vec<Owned> = self
            .store
            .owned_by(own)
            .filter(|(owned, pod)| {
                owned.kind == Kind::Pod && controller(pod).is_some_and(|owner| text(owner, "/uid") == own)
            })
            .map(|(key, pod)| (key.clone(), Arc::clone(pod)))
            .collect();
        let is_finished = |pod: &Value| matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        let terminating = pods.iter().filter(|(_, pod)| is_deleting(pod) && !is_finished(pod)).count();
        let active: Vec<Owned> = pods.into_iter().filter(|(_, pod)| !is_deleting(pod) && !is_finished(pod)).collect();
        let wanted = number(&replica_set, "/spec/replicas").and_then(|n| usize::try_from(n).ok()).unwrap_or(1);

        // Counted before anything is done, as the real one counts: what is done shows with the next look.
        let ready = active.iter().filter(|(_, pod)| is_so(pod, "Ready")).count();
        for _ in active.len()..wanted.min(active.len().saturating_add(BURST)) {
            self.create_pod(key, &replica_set);
        }
        if active.len() > wanted {
            let many = active.len().saturating_sub(wanted).min(BURST);
            let mut victims = in_victim_order(active.clone(), self.now);
            if self.is_contrary {
                victims.reverse();
            }
            victims.truncate(many);
            for (pod, live) in victims {
                self.delete_pod(&pod, &live, None);
            }
        }
        self.change(key, |replica_set| count(replica_set, active.len(), ready, terminating));
    }

    /// `ReplicaSet`s take first what they should take last, or no longer: what a real one does only when it looks at an old
    /// picture of its pods.
    pub fn set_contrary(&mut self, is_contrary: bool) {
        self.is_contrary = is_contrary;
    }

    fn create_pod(&mut self, key: &Key, replica_set: &Value) {
        let template = replica_set.pointer("/spec/template").cloned().unwrap_or_default();
        let name = format!("{}-{}", key.name, self.names.suffix());
        let metadata = |field: &str| template.pointer(&format!("/metadata/{field}")).cloned();
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "generateName": format!("{}-", key.name),
                "namespace": key.namespace,
                "uid": self.names.uid(),
                "creationTimestamp": self.stamp(),
                "generation": 1,
                "ownerReferences": [owner_reference(replica_set)],
            },
            "spec": template.get("spec"),
        });
        for field in ["labels", "annotations"] {
            assign(&mut pod, &["metadata", field], metadata(field));
        }
        fill_in(Kind::Pod, &mut pod);
        self.commit(Key::new(Kind::Pod, &key.namespace, &name), pod);
    }
}

fn count(replica_set: &mut Value, pods: usize, ready: usize, terminating: usize) {
    let generation = number(replica_set, "/metadata/generation");
    set(replica_set, &["status", "replicas"], json!(pods));
    assign(replica_set, &["status", "observedGeneration"], generation.map(|generation| json!(generation)));
    for (field, count) in [("fullyLabeledReplicas", pods), ("readyReplicas", ready), ("availableReplicas", ready)] {
        assign(replica_set, &["status", field], (count > 0).then(|| json!(count)));
    }
    set(replica_set, &["status", "terminatingReplicas"], json!(terminating));
}

/// What the order of victims looks at.
struct Standing {
    is_assigned: bool,
    phase: u8,
    is_ready: bool,
    cost: i32,
    /// How many of the set are on its node.
    crowd: usize,
    ready_at: Option<Timestamp>,
    restarts: u64,
    created_at: Option<Timestamp>,
    uid: String,
}

/// The first to go comes first: the order of `ActivePodsWithRanks` in Kubernetes' own controller.
pub(super) fn in_victim_order(pods: Vec<Owned>, now: Timestamp) -> Vec<Owned> {
    let mut crowds: BTreeMap<String, usize> = BTreeMap::new();
    for (_, pod) in &pods {
        *crowds.entry(text(pod, "/spec/nodeName").to_owned()).or_default() += 1;
    }
    let mut ranked: Vec<(Standing, Owned)> =
        pods.into_iter().map(|owned| (standing(&owned.1, &crowds), owned)).collect();
    ranked.sort_by(|(a, _), (b, _)| before(a, b, now));
    ranked.into_iter().map(|(_, owned)| owned).collect()
}

fn standing(pod: &Value, crowds: &BTreeMap<String, usize>) -> Standing {
    let node = text(pod, "/spec/nodeName");
    let conditions = list(pod, "/status/conditions");
    let ready = conditions.iter().find(|entry| text(entry, "/type") == "Ready" && text(entry, "/status") == "True");
    let cost = pod.pointer("/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost");
    let restarts = list(pod, "/status/containerStatuses").iter().filter_map(|status| number(status, "/restartCount"));
    Standing {
        is_assigned: !node.is_empty(),
        phase: match text(pod, "/status/phase") {
            "Pending" => 0,
            "Running" => 2,
            _ => 1,
        },
        is_ready: ready.is_some(),
        cost: cost.and_then(Value::as_str).and_then(|cost| cost.parse().ok()).unwrap_or_default(),
        crowd: crowds.get(node).copied().unwrap_or_default(),
        ready_at: ready.and_then(|entry| instant(entry, "/lastTransitionTime")),
        restarts: restarts.max().unwrap_or_default(),
        created_at: instant(pod, "/metadata/creationTimestamp"),
        uid: uid(pod).to_owned(),
    }
}

/// The real one tells ages of one magnitude apart by uid, unless they are equal, and then goes on to restarts. That is no order
/// (three pods can each go before the next), and a sort by it may end in any way; here restarts come before the uid.
fn before(a: &Standing, b: &Standing, now: Timestamp) -> Ordering {
    let age = |a: Option<Timestamp>, b: Option<Timestamp>| magnitude(a, now).cmp(&magnitude(b, now));
    (a.is_assigned.cmp(&b.is_assigned))
        .then(a.phase.cmp(&b.phase))
        .then(a.is_ready.cmp(&b.is_ready))
        .then(a.cost.cmp(&b.cost))
        .then(b.crowd.cmp(&a.crowd))
        .then(age(a.ready_at, b.ready_at))
        .then(b.restarts.cmp(&a.restarts))
        .then(age(a.created_at, b.created_at))
        .then(a.uid.cmp(&b.uid))
}

/// An age counts by its order of magnitude only: the logarithm of its nanoseconds to the base of two.
fn magnitude(at: Option<Timestamp>, now: Timestamp) -> Option<u32> {
    let age = now.duration_since(at?).as_nanos();
    u128::try_from(age).ok().and_then(u128::checked_ilog2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready_since: Option<i64>, change: impl FnOnce(&mut Value)) -> Owned {
        let at = |seconds| Timestamp::from_second(seconds).unwrap().to_string();
        let ready = json!({ "type": "Ready", "status": if ready_since.is_some() { "True" } else { "False" },
                            "lastTransitionTime": at(ready_since.unwrap_or(0)) });
        let mut pod = json!({
            "metadata": { "name": name, "uid": name, "creationTimestamp": at(0) },
            "spec": { "nodeName": name },
            "status": { "phase": "Running", "conditions": [ready] },
        });
        change(&mut pod);
        (Key::new(Kind::Pod, "ci", name), Arc::new(pod))
    }

    fn cost(cost: &'static str) -> impl FnOnce(&mut Value) {
        move |pod| {
            set(pod, &["metadata", "annotations", "controller.kubernetes.io/pod-deletion-cost"], json!(cost));
        }
    }

    fn order(pods: Vec<Owned>) -> Vec<String> {
        let now = Timestamp::from_second(1_000).unwrap();
        in_victim_order(pods, now).into_iter().map(|(key, _)| key.name).collect()
    }

    #[test]
    fn every_step_of_the_order_outweighs_those_after_it() {
        let pods = vec![
            pod("h-old", Some(1), |_| {}),
            pod("g-new", Some(990), |_| {}),
            pod("f-crowded-1", Some(1), |pod| set(pod, &["spec", "nodeName"], json!("n"))),
            pod("f-crowded-2", Some(1), |pod| set(pod, &["spec", "nodeName"], json!("n"))),
            pod("e-cheap", Some(1), cost("-1")),
            pod("d-unready", None, cost("1000")),
            pod("c-pending", None, |pod| {
                cost("1000")(pod);
                set(pod, &["status", "phase"], json!("Pending"));
            }),
            pod("b-unassigned", None, |pod| {
                assign(pod, &["spec", "nodeName"], None);
                set(pod, &["status", "phase"], json!("Pending"));
            }),
        ];
        let mut expected: Vec<String> = pods.iter().map(|(key, _)| key.name.clone()).collect();
        expected.sort();
        assert_eq!(order(pods), expected);
    }

    #[test]
    fn ages_of_one_magnitude_are_told_apart_by_uid_only() {
        assert_eq!(order(vec![pod("b", Some(400), |_| {}), pod("a", Some(350), |_| {})]), ["a", "b"]);
        assert_eq!(order(vec![pod("a", Some(350), |_| {}), pod("b", Some(999), |_| {})]), ["b", "a"]);
    }

    #[test]
    fn what_was_restarted_more_often_goes_first() {
        let restarted = |pod: &mut Value| set(pod, &["status", "containerStatuses"], json!([{ "restartCount": 3 }]));
        assert_eq!(order(vec![pod("a", Some(1), |_| {}), pod("b", Some(1), restarted)]), ["b", "a"]);
    }
}
