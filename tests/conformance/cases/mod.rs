//! The cases: what the controller sends, and what could go wrong with it.

pub(crate) mod controller;
pub(crate) mod deployments;
pub(crate) mod hints;
pub(crate) mod leases;
pub(crate) mod lists;
pub(crate) mod objects;
pub(crate) mod pools;
pub(crate) mod scale;
pub(crate) mod watches;

use serde_json::{Value, json};

use super::server::Server;

pub(crate) const APPS: &str = "apis/apps/v1";
pub(crate) const CORE: &str = "api/v1";
pub(crate) const OURS: &str = "apis/kitepool.dev/v1alpha1";
pub(crate) const COORDINATION: &str = "apis/coordination.k8s.io/v1";
pub(crate) const EVENTS: &str = "apis/events.k8s.io/v1";

/// A Deployment as the controller creates one.
pub(crate) fn deployment(name: &str, replicas: u32) -> Value {
    let labels = json!({ "kitepool.dev/pool": "linux", "kitepool.dev/generation": name });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "labels": labels, "annotations": { "kitepool.dev/inputs": "0123" } },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "agent", "image": "agent:1", "env": [{ "name": "A", "value": "b" }] }] },
            },
        },
    })
}

pub(crate) fn pool(name: &str) -> Value {
    json!({
        "apiVersion": "kitepool.dev/v1alpha1",
        "kind": "AgentPool",
        "metadata": { "name": name, "labels": { "team": "a" } },
        "spec": {
            "queue": name,
            "token": { "secretRef": { "name": "agent-token", "key": "token" } },
            "podTemplateRef": { "name": "agent" },
            "longestJob": "1h",
            "scaling": { "min": 0, "max": 10 },
        },
    })
}

pub(crate) fn secret(name: &str, labels: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "labels": labels }, "type": "Opaque" })
}

/// Waits until the controllers have nothing more to do with a Deployment of so many pods, and answers it.
pub(crate) async fn settled(server: &Server, name: &str, pods: u64) -> Value {
    let path = server.path(APPS, &format!("deployments/{name}"));
    server
        .until(&path, |deployment| {
            let status = &deployment["status"];
            status["observedGeneration"] == deployment["metadata"]["generation"]
                && status["replicas"].as_u64().unwrap_or_default() == pods
                && deployment["metadata"]["annotations"].get("deployment.kubernetes.io/revision").is_some()
        })
        .await
}
