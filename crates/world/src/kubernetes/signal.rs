//! What the other half of the world hears of pods.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    object::{list, text, texts, uid},
    pod_status::agent_of,
};

/// What happened to a pod's process, the one of the container `agent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodSignal {
    /// It runs, for the first time or again.
    Started {
        /// When.
        at: Timestamp,
        /// Of which pod.
        pod: PodSeen,
    },
    /// It got SIGTERM. A second one comes when a later deletion shortens the grace period.
    Told {
        /// When.
        at: Timestamp,
        /// Of which pod.
        uid: String,
        /// When it is killed if it still runs.
        grace_until: Timestamp,
    },
    /// It got SIGKILL, or its machine is gone.
    Killed {
        /// When.
        at: Timestamp,
        /// Of which pod.
        uid: String,
    },
    /// The pod is no more. One that was taken away by force is told and killed after that.
    Gone {
        /// When.
        at: Timestamp,
        /// Which.
        uid: String,
    },
}

/// A pod as its process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSeen {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its address.
    pub ip: String,
    /// Its node.
    pub node: String,
    /// How often the process was started before.
    pub restarts: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The environment of the process. What comes from Secrets and config maps is left out.
    pub env: BTreeMap<String, String>,
    /// The Secrets that are mounted.
    pub secrets: Vec<String>,
}

impl PodSeen {
    pub(super) fn new(pod: &Value, restarts: u32) -> Self {
        let secrets = list(pod, "/spec/volumes").iter().map(|volume| text(volume, "/secret/secretName"));
        Self {
            namespace: text(pod, "/metadata/namespace").to_owned(),
            name: text(pod, "/metadata/name").to_owned(),
            uid: uid(pod).to_owned(),
            ip: text(pod, "/status/podIP").to_owned(),
            node: text(pod, "/spec/nodeName").to_owned(),
            restarts,
            labels: texts(pod, "/metadata/labels"),
            env: environment(pod),
            secrets: secrets.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        }
    }
}

fn environment(pod: &Value) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for variable in agent_of(pod).into_iter().flat_map(|agent| list(agent, "/env")) {
        let value = match text(variable, "/valueFrom/fieldRef/fieldPath") {
            "" if variable.get("valueFrom").is_some() => continue,
            "" => expanded(text(variable, "/value"), &environment),
            path => text(pod, &format!("/{}", path.replace('.', "/"))).to_owned(),
        };
        environment.insert(text(variable, "/name").to_owned(), value);
    }
    environment
}

/// `$(NAME)` stands for a variable before it; one that is not known stays as it is.
fn expanded(value: &str, known: &BTreeMap<String, String>) -> String {
    known.iter().fold(value.to_owned(), |value, (name, known)| value.replace(&format!("$({name})"), known))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_environment_is_expanded_as_the_kubelet_does() {
        let pod = json!({
            "metadata": { "name": "p", "namespace": "ci", "uid": "u", "labels": { "a": "1" } },
            "spec": {
                "nodeName": "n",
                "volumes": [{ "name": "t", "secret": { "secretName": "token" } }, { "name": "e", "emptyDir": {} }],
                "containers": [{ "name": "helper", "env": [{ "name": "X", "value": "no" }] }, { "name": "agent", "env": [
                    { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                    { "name": "ADDRESS", "value": "$(POD_IP):3901 $(X)" },
                    { "name": "SECRET", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
                ] }],
            },
            "status": { "podIP": "10.0.0.1" },
        });
        let seen = PodSeen::new(&pod, 2);
        let expected = [("ADDRESS", "10.0.0.1:3901 $(X)"), ("POD_IP", "10.0.0.1")];
        assert_eq!(seen.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!((seen.secrets, seen.node.as_str(), seen.restarts), (vec!["token".to_owned()], "n", 2));
    }
}
