//! Strategic merge patches of a pod template: a real API server and `pods::merge` come to the same object.

use kitepool::pods::merge::merged;
use serde_json::{Value, json};

use crate::{
    cases::CORE,
    server::{STRATEGIC, real},
    transcript::Transcript,
};

/// What is patched.
fn template() -> Value {
    json!({
        "metadata": { "labels": { "a": "1", "b": "2" }, "annotations": { "n": "x" } },
        "spec": {
            "nodeSelector": { "disk": "ssd", "zone": "a" },
            "tolerations": [{ "key": "ci", "operator": "Exists" }],
            "imagePullSecrets": [{ "name": "one" }, { "name": "two" }],
            "hostAliases": [{ "ip": "10.0.0.1", "hostnames": ["x"] }],
            "securityContext": { "runAsUser": 1000, "supplementalGroups": [1, 2] },
            "topologySpreadConstraints": [
                { "topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway" },
            ],
            "initContainers": [{ "name": "cache", "image": "cache:1", "restartPolicy": "Always" }],
            "containers": [
                {
                    "name": "agent", "image": "agent:1", "command": ["tini", "--"], "args": ["start"],
                    "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }, { "name": "C", "value": "3" }],
                    "envFrom": [{ "secretRef": { "name": "s" } }],
                    "ports": [{ "containerPort": 80, "name": "web" }],
                    "resources": { "requests": { "cpu": "1", "memory": "1Gi" } },
                    "volumeMounts": [{ "name": "v", "mountPath": "/a" }, { "name": "w", "mountPath": "/b" }],
                },
                { "name": "logs", "image": "logs:1" },
            ],
            "volumes": [
                { "name": "v", "emptyDir": { "medium": "Memory" } },
                { "name": "w", "emptyDir": {} },
                { "name": "x", "projected": { "sources": [{ "secret": { "name": "s" } }] } },
            ],
        },
    })
}

/// Changes of one container, by what each shows.
fn of_a_container() -> Vec<(&'static str, Value)> {
    let agent = |change: Value| {
        let mut container = json!({ "name": "agent" });
        container.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({ "spec": { "containers": [container] } })
    };
    vec![
        (
            "maps and nulls",
            json!({ "metadata": { "labels": { "b": null, "c": "3" } }, "spec": { "nodeSelector": { "zone": null } } }),
        ),
        (
            "lists without a key",
            json!({ "spec": { "tolerations": [{ "key": "other" }], "securityContext": { "supplementalGroups": [3] } } }),
        ),
        (
            "variables",
            agent(
                json!({ "env": [{ "name": "C", "value": "x" }, { "name": "N", "value": "n" }, { "name": "A", "$patch": "delete" }] }),
            ),
        ),
        ("variables anew", agent(json!({ "env": [{ "$patch": "replace" }, { "name": "N", "value": "n" }] }))),
        (
            "order",
            agent(
                json!({ "env": [{ "name": "N1" }, { "name": "B", "value": "b" }, { "name": "N2" }, { "name": "A", "value": "a" }] }),
            ),
        ),
        (
            "a variable's source",
            agent(
                json!({ "env": [{ "name": "A", "value": null, "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }] }),
            ),
        ),
        (
            "ports and mounts",
            agent(json!({
                "ports": [{ "containerPort": 80, "name": "http" }, { "containerPort": 81 }],
                "volumeMounts": [{ "mountPath": "/b", "name": "w", "readOnly": true }, { "mountPath": "/a", "$patch": "delete" }],
            })),
        ),
        (
            "command, sources and amounts",
            agent(json!({
                "command": ["sh"], "envFrom": [{ "configMapRef": { "name": "c" } }], "resources": { "limits": { "cpu": "2" }, "requests": { "cpu": null } },
            })),
        ),
    ]
}

/// Changes of the pod.
fn of_the_pod() -> Vec<(&'static str, Value)> {
    vec![
        (
            "containers",
            json!({ "spec": {
            "containers": [{ "name": "logs", "$patch": "delete" }, { "name": "more", "image": "more:1", "env": [{ "name": "Z", "value": null }] }],
            "initContainers": [{ "name": "cache", "image": "cache:2" }, { "name": "first", "image": "first:1" }],
        } }),
        ),
        (
            "volumes",
            json!({ "spec": { "volumes": [
            { "name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": { "path": "/h" } },
            { "name": "w", "emptyDir": { "$patch": "replace", "sizeLimit": "1Gi" } },
            { "name": "x", "projected": { "sources": [{ "configMap": { "name": "c" } }] } },
            { "name": "y", "emptyDir": {} },
        ] } }),
        ),
        (
            "other lists with keys",
            json!({ "spec": {
            "imagePullSecrets": [{ "name": "three" }, { "name": "one", "$patch": "delete" }],
            "hostAliases": [{ "ip": "10.0.0.1", "hostnames": ["y"] }, { "ip": "10.0.0.2", "hostnames": ["z"] }],
            "topologySpreadConstraints": [{ "topologyKey": "zone", "maxSkew": 2 }],
        } }),
        ),
        ("an object emptied", json!({ "spec": { "securityContext": { "$patch": "delete" } } })),
        (
            "an object with a directive where none stands",
            json!({ "spec": { "dnsConfig": { "$patch": "replace", "searches": ["x"] }, "hostname": "x" } }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/conformance/run"]
async fn the_api_server_merges_a_patch_of_a_pod_template_as_we_do() {
    let server = real("the-api-server-merges-a-patch", &mut Transcript::default()).await;
    let all = server.path(CORE, "podtemplates");
    let object = |name: &str, template: &Value| json!({ "apiVersion": "v1", "kind": "PodTemplate", "metadata": { "name": name }, "template": template });
    for (index, (about, patch)) in of_a_container().into_iter().chain(of_the_pod()).enumerate() {
        let (theirs, ours) = (format!("theirs-{index}"), format!("ours-{index}"));
        let made = server.post(&all, &object(&theirs, &template())).await;
        assert_eq!(made.status, 201, "{about}: {:#}", made.body);
        // We start from what the API server gives us, defaults included, as the controller does.
        let merged = merged(&made.body["template"], &patch, "patch").unwrap();
        let patched = server.patch(&format!("{all}/{theirs}"), STRATEGIC, &json!({ "template": patch })).await;
        assert_eq!(patched.status, 200, "{about}: {:#}", patched.body);
        let stored = server.post(&all, &object(&ours, &merged)).await;
        assert_eq!(stored.status, 201, "{about}: {:#}", stored.body);
        assert_eq!(stored.body["template"], patched.body["template"], "{about}");
        assert_ne!(stored.body["template"], made.body["template"], "{about} changes nothing, so it shows nothing");
    }
}
