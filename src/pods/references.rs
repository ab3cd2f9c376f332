//! What a pod template needs to exist in its namespace: Secrets and a service account, without which no pod of it starts.

use kitepool_api::Problem;
use serde_json::Value;

use super::{
    contract::{MISSING_SECRET, MISSING_SERVICE_ACCOUNT},
    template::{containers, list, place, text},
};

/// What is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A Secret.
    Secret,
    /// A service account.
    ServiceAccount,
}

/// One object that must exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// What.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Where it is named.
    pub path: String,
}

impl Reference {
    /// That it does not exist.
    pub fn missing(&self) -> Problem {
        match self.kind {
            Kind::Secret => MISSING_SECRET.broken(&self.path, &format!("there is no Secret {}", self.name)),
            Kind::ServiceAccount => {
                MISSING_SERVICE_ACCOUNT.broken(&self.path, &format!("there is no ServiceAccount {}", self.name))
            }
        }
    }
}

/// All that a template at `path` cannot do without. What it calls optional is left out, and so are pull secrets: the kubelet tries
/// without those.
pub fn needed(template: &Value, path: &str) -> Vec<Reference> {
    let mut needed = Vec::new();
    let mut secret = |source: Option<&Value>, key: &str, path: String| {
        let is_optional = |source: &&Value| source.get("optional").and_then(Value::as_bool) == Some(true);
        if let Some(name) = source.filter(|source| !is_optional(source)).and_then(|source| text(source, key)) {
            needed.push(Reference { kind: Kind::Secret, name: name.to_owned(), path });
        }
    };
    for (kind, container) in containers(template) {
        let place = place(path, kind, container);
        for variable in list(container, "env") {
            let name = text(variable, "name").unwrap_or_default();
            secret(variable.pointer("/valueFrom/secretKeyRef"), "name", format!("{place}.env[{name}]"));
        }
        for (index, source) in list(container, "envFrom").iter().enumerate() {
            secret(source.get("secretRef"), "name", format!("{place}.envFrom[{index}]"));
        }
    }
    let Some(spec) = template.get("spec") else { return needed };
    for volume in list(spec, "volumes") {
        let place = format!("{path}.spec.volumes[{}]", text(volume, "name").unwrap_or_default());
        secret(volume.get("secret"), "secretName", place.clone());
        secret(volume.pointer("/csi/nodePublishSecretRef"), "name", place.clone());
        for source in volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten() {
            secret(source.get("secret"), "name", place.clone());
        }
    }
    if let Some(account) = text(spec, "serviceAccountName").filter(|name| !name.is_empty()) {
        let path = format!("{path}.spec.serviceAccountName");
        needed.push(Reference { kind: Kind::ServiceAccount, name: account.to_owned(), path });
    }
    needed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_a_secret_is_seen_and_optional_ones_are_not_needed() {
        let template = json!({ "spec": {
            "serviceAccountName": "agents",
            "imagePullSecrets": [{ "name": "pull" }],
            "initContainers": [{ "name": "i", "envFrom": [{ "secretRef": { "name": "a" } }] }],
            "containers": [{ "name": "agent",
                "env": [
                    { "name": "X", "valueFrom": { "secretKeyRef": { "name": "b", "key": "k" } } },
                    { "name": "Y", "valueFrom": { "secretKeyRef": { "name": "gone", "key": "k", "optional": true } } },
                ],
                "envFrom": [{ "configMapRef": { "name": "c" } }, { "secretRef": { "name": "gone", "optional": true } }] }],
            "volumes": [
                { "name": "s", "secret": { "secretName": "d" } },
                { "name": "o", "secret": { "secretName": "gone", "optional": true } },
                { "name": "p", "projected": { "sources": [{ "secret": { "name": "e" } }] } },
                { "name": "c", "csi": { "driver": "x", "nodePublishSecretRef": { "name": "f" } } },
            ],
        } });
        let mut found: Vec<(String, String)> =
            needed(&template, "t").into_iter().map(|one| (one.name, one.path)).collect();
        found.sort();
        let expected = [
            ("a", "t.spec.initContainers[i].envFrom[0]"),
            ("agents", "t.spec.serviceAccountName"),
            ("b", "t.spec.containers[agent].env[X]"),
            ("d", "t.spec.volumes[s]"),
            ("e", "t.spec.volumes[p]"),
            ("f", "t.spec.volumes[c]"),
        ];
        assert_eq!(found, expected.map(|(name, path)| (name.to_owned(), path.to_owned())));
    }
}
