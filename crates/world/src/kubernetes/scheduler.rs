//! The scheduler: gives each pod a node, or says why not. Nodes are lost here too.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Event, Kubernetes,
    kind::Kind,
    object::{Key, is_deleting, set, text, uid},
    pod_status::{Condition, set_condition},
};

impl Kubernetes {
    /// From now on the pods of a namespace find no node, or do again.
    pub fn set_unschedulable(&mut self, namespace: &str, is_so: bool, now: Timestamp) {
        self.advance(now);
        if is_so {
            self.unschedulable.insert(namespace.to_owned());
        } else if self.unschedulable.remove(namespace) {
            let waiting: Vec<(Key, String)> = self
                .store
                .of(Kind::Pod, namespace)
                .filter(|(_, pod)| text(pod, "/spec/nodeName").is_empty())
                .map(|(key, pod)| (key.clone(), uid(pod).to_owned()))
                .collect();
            for (key, uid) in waiting {
                self.plan_scheduling(key, uid);
            }
        }
    }

    pub(super) fn plan_scheduling(&mut self, pod: Key, uid: String) {
        let at = self.drawn(self.settings.scheduling);
        self.agenda.enter(at, Event::Schedule(pod, uid));
    }

    pub(super) fn schedule(&mut self, key: &Key, pod_uid: &str) {
        let is_waiting =
            |pod: &Arc<Value>| uid(pod) == pod_uid && text(pod, "/spec/nodeName").is_empty() && !is_deleting(pod);
        if !self.store.get(key).is_some_and(is_waiting) {
            return;
        }
        let now = self.now;
        let node = if self.unschedulable.contains(&key.namespace) { None } else { self.emptiest_node() };
        let nodes = self.settings.nodes.len();
        self.change(key, |pod| {
            if let Some(node) = node {
                set(pod, &["spec", "nodeName"], json!(node));
                set_condition(pod, &Condition::yes("PodScheduled"), now);
            } else {
                let message = format!("0/{nodes} nodes are available: {nodes} Insufficient cpu.");
                set_condition(pod, &Condition::no("PodScheduled", "Unschedulable", message), now);
            }
        });
    }

    /// The one with the fewest pods, the first of several.
    fn emptiest_node(&self) -> Option<String> {
        let mut crowds: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, pod) in self.store.all().filter(|(key, _)| key.kind == Kind::Pod) {
            *crowds.entry(text(pod, "/spec/nodeName")).or_default() += 1;
        }
        let nodes = self.settings.nodes.iter().filter(|node| !self.lost_nodes.contains(*node));
        nodes.min_by_key(|node| crowds.get(node.as_str()).copied().unwrap_or_default()).cloned()
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
            .all()
            .filter(|(key, pod)| key.kind == Kind::Pod && text(pod, "/spec/nodeName") == node)
            .map(|(key, pod)| (key.clone(), uid(pod).to_owned()))
            .collect();
        let (noticed, removed) = (self.after(self.settings.node_noticed), self.after(self.settings.node_removed));
        self.agenda.enter(noticed, Event::PodsUnheard(pods.clone()));
        self.agenda.enter(removed, Event::PodsLost(pods));
    }

    /// Another machine under the same name.
    pub fn restore_node(&mut self, node: &str, now: Timestamp) {
        self.advance(now);
        self.lost_nodes.remove(node);
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
