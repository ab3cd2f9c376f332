//! The scheduler: gives each pod a node, or says why not. Nodes are lost here too.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Event, Kubernetes,
    kind::Kind,
    object::{Key, is_deleting, set, text, texts, uid},
    pod_status::{Condition, set_condition},
    store::Change,
};

impl Kubernetes {
    /// From now on the pods of a namespace find no node, or do again.
    pub fn set_unschedulable(&mut self, namespace: &str, is_so: bool, now: Timestamp) {
        self.advance(now);
        if is_so {
            self.unschedulable.insert(namespace.to_owned());
        } else if self.unschedulable.remove(namespace) {
            self.schedule_waiting();
        }
    }

    /// From now on no node carries this label, so that pods that select by it find none, or nodes do again. Without this word
    /// nodes carry whatever pods select by.
    pub fn set_lacking(&mut self, (label, value): (&str, &str), is_so: bool, now: Timestamp) {
        self.advance(now);
        let label = (label.to_owned(), value.to_owned());
        if is_so {
            self.lacking.insert(label);
        } else if self.lacking.remove(&label) {
            self.schedule_waiting();
        }
    }

    fn schedule_waiting(&mut self) {
        let is_waiting = |(_, pod): &(&Key, &Arc<Value>)| text(pod, "/spec/nodeName").is_empty();
        let waiting = self.store.all(Kind::Pod).filter(is_waiting).map(|(key, pod)| (key.clone(), uid(pod).to_owned()));
        for (key, uid) in waiting.collect::<Vec<_>>() {
            self.plan_scheduling(key, uid);
        }
    }

    /// What keeps this pod off all nodes, in the scheduler's words.
    fn keeps_off(&self, namespace: &str, pod: &Value) -> Option<&'static str> {
        let lacks = texts(pod, "/spec/nodeSelector").into_iter().any(|label| self.lacking.contains(&label));
        if lacks {
            return Some("node(s) didn't match Pod's node affinity/selector");
        }
        self.unschedulable.contains(namespace).then_some("Insufficient cpu")
    }

    pub(super) fn plan_scheduling(&mut self, pod: Key, uid: String) {
        let at = self.drawn(self.settings.scheduling);
        self.agenda.enter(at, Event::Schedule(pod, uid));
    }

    pub(super) fn schedule(&mut self, key: &Key, pod_uid: &str) {
        let is_waiting =
            |pod: &Arc<Value>| uid(pod) == pod_uid && text(pod, "/spec/nodeName").is_empty() && !is_deleting(pod);
        let Some(pod) = self.store.get(key).filter(|pod| is_waiting(pod)) else { return };
        let why_not = self.keeps_off(&key.namespace, pod);
        let now = self.now;
        let node = if why_not.is_some() { None } else { self.emptiest_node() };
        let nodes = self.settings.nodes.len();
        self.change(key, |pod| {
            if let Some(node) = node {
                set(pod, &["spec", "nodeName"], json!(node));
                set_condition(pod, &Condition::yes("PodScheduled"), now);
            } else {
                let why = why_not.unwrap_or("node(s) had untolerated taint(s)");
                let message = format!("0/{nodes} nodes are available: {nodes} {why}.");
                set_condition(pod, &Condition::no("PodScheduled", "Unschedulable", message), now);
            }
        });
    }

    /// Counts a pod where it is now.
    pub(super) fn count_on_node(&mut self, change: &Change) {
        let node = |pod: &Value| Some(text(pod, "/spec/nodeName").to_owned()).filter(|node| !node.is_empty());
        if let Some(left) = change.before.as_deref().and_then(node) {
            let crowd = self.crowds.entry(left).or_default();
            *crowd = crowd.saturating_sub(1);
        }
        if let Some(joined) = node(&change.object).filter(|_| !change.is_gone) {
            *self.crowds.entry(joined).or_default() += 1;
        }
    }

    /// The one with the fewest pods, the first of several.
    fn emptiest_node(&self) -> Option<String> {
        let is_open = |node: &&String| !self.lost_nodes.contains(*node) && !self.cordoned.contains(*node);
        let nodes = self.settings.nodes.iter().filter(is_open);
        nodes.min_by_key(|node| self.crowds.get(node.as_str()).copied().unwrap_or_default()).cloned()
    }

    /// The machine is gone with all that runs on it. That is noticed later: see [`Settings`](super::Settings).
    pub fn lose_node(&mut self, node: &str, now: Timestamp) {
        self.advance(now);
        if !self.lost_nodes.insert(node.to_owned()) {
            return;
        }
        self.kill_all_on(node);
        let pods: Vec<(Key, String)> = self
            .store
            .all(Kind::Pod)
            .filter(|(_, pod)| text(pod, "/spec/nodeName") == node)
            .map(|(key, pod)| (key.clone(), uid(pod).to_owned()))
            .collect();
        let (noticed, removed) = (self.after(self.settings.node_noticed), self.after(self.settings.node_removed));
        self.agenda.enter(noticed, Event::PodsUnheard(pods.clone()));
        self.agenda.enter(removed, Event::PodsLost(pods));
    }

    /// The node takes no more pods.
    pub fn cordon(&mut self, node: &str, now: Timestamp) {
        self.advance(now);
        self.cordoned.insert(node.to_owned());
    }

    /// Another machine under the same name.
    pub fn restore_node(&mut self, node: &str, now: Timestamp) {
        self.advance(now);
        self.lost_nodes.remove(node);
        self.cordoned.remove(node);
    }

    /// Those that are still there.
    fn left_of(&self, pods: &[(Key, String)]) -> Vec<Key> {
        let is_there = |(key, pod_uid): &&(Key, String)| self.store.get(key).is_some_and(|pod| uid(pod) == pod_uid);
        pods.iter().filter(is_there).map(|(key, _)| key.clone()).collect()
    }

    /// The node controller marks what it cannot hear of.
    pub(super) fn notice_lost(&mut self, pods: &[(Key, String)]) {
        let now = self.now;
        for key in self.left_of(pods) {
            self.change(&key, |pod| set_condition(pod, &Condition::no("Ready", "", String::new()), now));
        }
    }

    /// The pod garbage collector takes away what was on a node that is no more.
    pub(super) fn remove_lost(&mut self, pods: &[(Key, String)]) {
        let now = self.now;
        for key in self.left_of(pods) {
            self.change(&key, |pod| {
                set(pod, &["status", "phase"], json!("Failed"));
                let why = Condition {
                    reason: "DeletionByPodGC",
                    message: "PodGC: node no longer exists".to_owned(),
                    ..Condition::yes("DisruptionTarget")
                };
                set_condition(pod, &why, now);
            });
            self.remove(&key);
        }
    }

    /// Evicts a pod as the eviction API does. Answers whether there is one.
    pub fn evict(&mut self, namespace: &str, name: &str, now: Timestamp) -> bool {
        self.advance(now);
        let key = Key::new(Kind::Pod, namespace, name);
        let at = self.now;
        let marked = self.change(&key, |pod| {
            let why = Condition {
                reason: "EvictionByEvictionAPI",
                message: "Eviction API: evicting".to_owned(),
                ..Condition::yes("DisruptionTarget")
            };
            set_condition(pod, &why, at);
        });
        marked.is_some_and(|pod| {
            self.delete_pod(&key, &pod, None);
            true
        })
    }
}
