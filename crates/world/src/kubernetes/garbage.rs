//! The garbage collector: what belongs to nobody any more is deleted in the background.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Kubernetes,
    kind::Kind,
    object::{Key, is_deleting, list, owner_key, text, uid},
};

impl Kubernetes {
    /// Whether the owner of a reference is there, and the same one.
    pub(super) fn owner_is_there(&self, owner: &Value, namespace: &str) -> bool {
        let owned_by = owner_key(owner, namespace).and_then(|key| self.store.get(&key));
        owned_by.is_some_and(|found| uid(found) == text(owner, "/uid"))
    }

    /// Deletes what named this owner and has no other.
    pub(super) fn collect(&mut self, owner: &str) {
        let orphans: Vec<(Key, Arc<Value>)> = self
            .store
            .owned_by(owner)
            .filter(|(key, object)| {
                let owners = list(object, "/metadata/ownerReferences");
                !owners.iter().any(|reference| self.owner_is_there(reference, &key.namespace))
            })
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        for (key, object) in orphans {
            if key.kind != Kind::Pod {
                self.remove(&key);
            } else if !is_deleting(&object) {
                self.delete_pod(&key, &object, None);
            }
        }
    }
}
