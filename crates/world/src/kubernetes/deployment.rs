//! The Deployment controller: one `ReplicaSet` per Deployment, kept at its size, and the status counted from it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Kubernetes,
    kind::Kind,
    names::template_hash,
    object::{Key, assign, controller, is_deleting, number, set, text, uid},
};

/// The label that tells the pods of one template from those of another.
const TEMPLATE_HASH: &str = "pod-template-hash";

impl Kubernetes {
    pub(super) fn sync_deployment(&mut self, key: &Key) {
        let Some(deployment) = self.store.get(key).cloned().filter(|deployment| !is_deleting(deployment)) else {
            return;
        };
        let wanted = number(&deployment, "/spec/replicas").unwrap_or(1);
        let set_key = match self.replica_set_of(&deployment) {
            Some(existing) => {
                self.change(&existing, |replica_set| {
                    if number(replica_set, "/spec/replicas") != Some(wanted) {
                        set(replica_set, &["spec", "replicas"], json!(wanted));
                        set(replica_set, &["metadata", "annotations"], sizes(&deployment, wanted));
                        let generation = number(replica_set, "/metadata/generation").unwrap_or_default() + 1;
                        set(replica_set, &["metadata", "generation"], json!(generation));
                    }
                });
                existing
            }
            None => self.create_replica_set(key, &deployment, wanted),
        };
        let Some(replica_set) = self.store.get(&set_key).cloned() else { return };
        self.change(key, |deployment| {
            set(deployment, &["metadata", "annotations", "deployment.kubernetes.io/revision"], json!("1"));
            count(deployment, &replica_set);
        });
    }

    fn replica_set_of(&self, deployment: &Value) -> Option<Key> {
        let mut owned = self.store.owned_by(uid(deployment)).filter(|(owned, _)| owned.kind == Kind::ReplicaSet);
        let owned = owned.find(|(_, set)| controller(set).is_some_and(|owner| text(owner, "/uid") == uid(deployment)));
        owned.map(|(key, _)| key.clone())
    }

    fn create_replica_set(&mut self, key: &Key, deployment: &Value, replicas: u64) -> Key {
        let mut template = deployment.pointer("/spec/template").cloned().unwrap_or_default();
        let hash = template_hash(&template);
        set(&mut template, &["metadata", "labels", TEMPLATE_HASH], json!(hash));
        let mut selector = deployment.pointer("/spec/selector").cloned().unwrap_or_default();
        set(&mut selector, &["matchLabels", TEMPLATE_HASH], json!(hash));
        let name = format!("{}-{hash}", key.name);
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": key.namespace,
                "uid": self.names.uid(),
                "creationTimestamp": self.stamp(),
                "generation": 1,
                "labels": template.pointer("/metadata/labels"),
                "annotations": sizes(deployment, replicas),
                "ownerReferences": [owner_reference(deployment)],
            },
            "spec": { "replicas": replicas, "selector": selector, "template": template },
            "status": { "replicas": 0 },
        });
        let set_key = Key::new(Kind::ReplicaSet, &key.namespace, &name);
        self.commit(set_key.clone(), object);
        set_key
    }

    /// Lets somebody of the control plane change an object; what changes nothing is no write.
    pub(super) fn change(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> Option<Arc<Value>> {
        let before = self.store.get(key).cloned()?;
        let mut after = Value::clone(&before);
        change(&mut after);
        if after == *before {
            return Some(before);
        }
        Some(self.commit(key.clone(), after))
    }
}

/// The reference to an owner that controls.
pub(super) fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": text(owner, "/apiVersion"),
        "kind": text(owner, "/kind"),
        "name": text(owner, "/metadata/name"),
        "uid": uid(owner),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The annotations of a `ReplicaSet`: those of its Deployment and what the controller adds.
fn sizes(deployment: &Value, replicas: u64) -> Value {
    let own = deployment.pointer("/metadata/annotations").and_then(Value::as_object);
    let mut annotations = own.cloned().unwrap_or_else(Map::new);
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations.insert("deployment.kubernetes.io/revision".to_owned(), json!("1"));
    annotations.insert("deployment.kubernetes.io/desired-replicas".to_owned(), json!(replicas.to_string()));
    // A quarter more, rounded up, is what a rolling update may have.
    let most = replicas + replicas.div_ceil(4);
    annotations.insert("deployment.kubernetes.io/max-replicas".to_owned(), json!(most.to_string()));
    Value::Object(annotations)
}

/// Counts a Deployment's status from its `ReplicaSet`. Zeros are left out.
fn count(deployment: &mut Value, replica_set: &Value) {
    let status = |field: &str| number(replica_set, &format!("/status/{field}")).unwrap_or_default();
    let available = status("availableReplicas");
    let missing = number(replica_set, "/spec/replicas").unwrap_or_default().saturating_sub(available);
    let generation = number(deployment, "/metadata/generation");
    let terminating = number(replica_set, "/status/terminatingReplicas");
    for (field, count) in [
        ("observedGeneration", generation),
        ("replicas", Some(status("replicas"))),
        ("updatedReplicas", Some(status("replicas"))),
        ("readyReplicas", Some(status("readyReplicas"))),
        ("availableReplicas", Some(available)),
        ("unavailableReplicas", Some(missing)),
    ] {
        assign(deployment, &["status", field], count.filter(|count| *count > 0).map(|count| json!(count)));
    }
    assign(deployment, &["status", "terminatingReplicas"], terminating.map(|count| json!(count)));
}
