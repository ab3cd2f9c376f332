//! Deployments, their pods, and what becomes of them. Both sides are without kubelets: the cases play them.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{APPS, CORE, OURS, deployment, settled};
use crate::{
    server::{MERGE, Server},
    transcript::Transcript,
};

async fn pods(server: &Server) -> Vec<Value> {
    let list = server.get(&server.path(CORE, "pods")).await.body;
    list["items"].as_array().cloned().unwrap_or_default()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Writes what a kubelet would, with the instant since when the pod is ready.
async fn report(server: &Server, pod: &str, phase: &str, ready_since: Option<&str>) {
    let path = server.path(CORE, &format!("pods/{pod}"));
    let bound = server.until(&path, |pod| pod["spec"].get("nodeName").is_some()).await;
    let mut conditions = bound["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "Ready");
    conditions.push(json!({
        "type": "Ready", "status": if ready_since.is_some() { "True" } else { "False" },
        "lastTransitionTime": ready_since.unwrap_or("2026-01-01T00:00:00Z"),
    }));
    let status = json!({ "status": { "phase": phase, "conditions": conditions } });
    let answer = server.patch(&format!("{path}/status"), MERGE, &status).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

const LONG_AGO: &str = "2019-01-01T00:00:00Z";

async fn finish(server: &Server, pod: &str) {
    let at_once = json!({ "gracePeriodSeconds": 0 });
    server.delete(&server.path(CORE, &format!("pods/{pod}")), &at_once).await;
}

/// Waits for a status, the conditions of the rollout apart.
async fn counted(server: &Server, is_so: impl Fn(&Value) -> bool) -> Value {
    let path = server.path(APPS, "deployments/d");
    let mut status = server.until(&path, |deployment| is_so(&deployment["status"])).await["status"].take();
    status.as_object_mut().unwrap().remove("conditions");
    status
}

/// The replica set and the first of its pods, whose name is the answer.
async fn note_what_is_made(server: &Server, transcript: &mut Transcript) -> String {
    let sets = server.get(&server.path(APPS, "replicasets")).await.body;
    let mut set = sets["items"][0].clone();
    let hash = set["metadata"]["labels"]["pod-template-hash"].as_str().unwrap().to_owned();
    transcript.call(&hash, "HASH");
    set["metadata"].as_object_mut().unwrap().remove("managedFields");
    set["spec"].as_object_mut().unwrap().remove("template");
    transcript.parts(
        "the replica set",
        &set,
        &[
            "/metadata/name",
            "/metadata/labels",
            "/metadata/annotations",
            "/metadata/ownerReferences",
            "/metadata/generation",
            "/spec",
            "/status",
        ],
    );
    let first = pods(server).await.remove(0);
    assert!(name(&first).starts_with(&format!("d-{hash}-")) && name(&first).len() == format!("d-{hash}-12345").len());
    let bound = server
        .until(&server.path(CORE, &format!("pods/{}", name(&first))), |pod| pod["spec"].get("nodeName").is_some())
        .await;
    transcript.parts(
        "a pod with a node",
        &bound,
        &[
            "/metadata/generateName",
            "/metadata/labels",
            "/metadata/annotations",
            "/metadata/ownerReferences",
            "/metadata/generation",
            "/status/phase",
            "/spec/terminationGracePeriodSeconds",
            "/spec/restartPolicy",
            "/spec/containers/0/env",
        ],
    );
    let scheduled = bound["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodScheduled");
    transcript.parts("its condition", scheduled.unwrap(), &["/status", "/reason"]);
    name(&first)
}

pub(crate) async fn a_deployment_runs_its_course(server: &Server, transcript: &mut Transcript) {
    server.post(&server.path(APPS, "deployments"), &deployment("d", 3)).await;
    transcript.note("nothing is ready", counted(server, |status| status["replicas"] == 3).await);
    let first = note_what_is_made(server, transcript).await;

    report(server, &first, "Running", Some(LONG_AGO)).await;
    transcript.note("one is ready", counted(server, |status| status["readyReplicas"] == 1).await);
    for pod in pods(server).await {
        report(server, &name(&pod), "Running", Some(LONG_AGO)).await;
    }
    transcript.note("all are ready", counted(server, |status| status["availableReplicas"] == 3).await);
    report(server, &first, "Running", None).await;
    transcript.note("one is ready no more", counted(server, |status| status["readyReplicas"] == 2).await);
    let scale = server.path(APPS, "deployments/d/scale");
    server.patch(&scale, MERGE, &json!({ "spec": { "replicas": 1 } })).await;
    transcript.note(
        "two go",
        counted(server, |status| status["terminatingReplicas"] == 2 && status["unavailableReplicas"].is_null()).await,
    );
    let going: Vec<Value> =
        pods(server).await.into_iter().filter(|pod| pod["metadata"].get("deletionTimestamp").is_some()).collect();
    transcript.parts("one that goes", &going[0], &["/metadata/deletionGracePeriodSeconds", "/metadata/generation"]);
    for pod in &going {
        finish(server, &name(pod)).await;
    }
    transcript.note("two are gone", counted(server, |status| status["terminatingReplicas"] == 0).await);
    server.patch(&scale, MERGE, &json!({ "spec": { "replicas": 0 } })).await;
    let last = pods(server).await;
    for pod in &last {
        server
            .until(&server.path(CORE, &format!("pods/{}", name(pod))), |pod| {
                pod["metadata"].get("deletionTimestamp").is_some()
            })
            .await;
        finish(server, &name(pod)).await;
    }
    let is_empty = |status: &Value| {
        status["observedGeneration"] == 3 && status["replicas"].is_null() && status["terminatingReplicas"] == 0
    };
    transcript.note("none is left", counted(server, is_empty).await);
}

pub(crate) async fn victims_go_in_order(server: &Server, transcript: &mut Transcript) {
    server.post(&server.path(APPS, "deployments"), &deployment("d", 8)).await;
    settled(server, "d", 8).await;
    let names: Vec<String> = pods(server).await.iter().map(name).collect();
    let mut roles = BTreeMap::new();
    for (pod, (role, phase, ready_since, cost)) in names.iter().zip([
        ("pending, dear", "Pending", None, "1000"),
        ("unready, dear", "Running", None, "1000"),
        ("unready, dearer", "Running", None, "2000"),
        ("cheap, old", "Running", Some(LONG_AGO), "-10"),
        ("less cheap, old", "Running", Some(LONG_AGO), "-5"),
        ("plain, old", "Running", Some(LONG_AGO), "0"),
        ("dear, old", "Running", Some(LONG_AGO), "5"),
        ("dearest, old", "Running", Some(LONG_AGO), "10"),
    ]) {
        roles.insert(pod.clone(), role);
        let cost = json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": cost } } });
        server.patch(&server.path(CORE, &format!("pods/{pod}")), MERGE, &cost).await;
        report(server, pod, phase, ready_since).await;
    }
    counted(server, |status| status["readyReplicas"] == 5).await;
    // The controller's picture may be this much older than the API server's.
    tokio::time::sleep(Duration::from_secs(1)).await;
    transcript.note("one after the other", json!(shrunk(server, &roles, 8).await));
}

/// What the controller waits for before it shrinks: a generation that is observed, and then counts that fit it.
pub(crate) async fn a_new_size_is_observed_before_it_is_counted(server: &Server, transcript: &mut Transcript) {
    let all = server.path(APPS, "deployments");
    server.post(&all, &deployment("d", 0)).await;
    for (step, replicas, generation) in [("up", 3, 2), ("down", 1, 3)] {
        let before = settled(server, "d", if replicas == 3 { 0 } else { 3 }).await;
        let version = before["metadata"]["resourceVersion"].as_str().unwrap();
        let scale = server.path(APPS, "deployments/d/scale");
        server.patch(&scale, MERGE, &json!({ "spec": { "replicas": replicas } })).await;
        settled(server, "d", replicas).await;
        let watch = format!("{all}?watch=true&timeoutSeconds=3&resourceVersion={version}");
        let events = server.watch(&watch, 100).await;
        let statuses: Vec<&Value> = events.iter().map(|(event, _)| &event["object"]["status"]).collect();
        let counted = |status: &&Value| status["replicas"].as_u64().unwrap_or_default();
        let written = events.first().unwrap().0["object"]["metadata"]["generation"].clone();
        let unobserved = statuses.first().unwrap()["observedGeneration"] != written;
        let observed = statuses.iter().find(|status| status["observedGeneration"] == generation).unwrap();
        transcript.note(
            step,
            json!({
                "generation": written, "isObservedAtOnce": !unobserved, "countedWhenObserved": counted(observed),
                "countedAtLast": counted(statuses.last().unwrap()),
            }),
        );
    }
}

pub(crate) async fn a_pod_without_a_node_goes_first(server: &Server, transcript: &mut Transcript) {
    let mut wide = deployment("d", 3);
    // One to a node of the control plane, so that a fourth has to wait; those of the simulation know no sizes.
    wide["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "40" } });
    server.post(&server.path(APPS, "deployments"), &wide).await;
    settled(server, "d", 3).await;
    for pod in pods(server).await {
        let cost = json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": "-100" } } });
        server.patch(&server.path(CORE, &format!("pods/{}", name(&pod))), MERGE, &cost).await;
        report(server, &name(&pod), "Running", None).await;
    }
    server.never_schedules(true);
    let scale = server.path(APPS, "deployments/d/scale");
    server.patch(&scale, MERGE, &json!({ "spec": { "replicas": 4 } })).await;
    settled(server, "d", 4).await;
    let told = |list: &Value| {
        let unbound = list["items"].as_array().unwrap().iter().find(|pod| pod["spec"].get("nodeName").is_none());
        unbound.is_some_and(|pod| pod["status"]["conditions"].as_array().is_some_and(|all| !all.is_empty()))
    };
    server.until(&server.path(CORE, "pods"), told).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.patch(&scale, MERGE, &json!({ "spec": { "replicas": 3 } })).await;
    settled(server, "d", 3).await;
    let left = pods(server).await;
    let bound = left.iter().filter(|pod| pod["spec"].get("nodeName").is_some()).count();
    let going = left.iter().filter(|pod| pod["metadata"].get("deletionTimestamp").is_some()).count();
    transcript.note("those that are left", json!({ "all": left.len(), "bound": bound, "going": going }));
}

pub(crate) async fn victims_of_one_cost_go_by_age_and_restarts(server: &Server, transcript: &mut Transcript) {
    // One to a node, so that crowds do not count; the simulation spreads them without being asked.
    let mut spread = deployment("d", 3);
    spread["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": spread["spec"]["selector"],
    }]);
    server.post(&server.path(APPS, "deployments"), &spread).await;
    settled(server, "d", 3).await;
    let all = pods(server).await;
    let mut roles = BTreeMap::new();
    for (pod, (role, is_old)) in all.iter().zip([("old", true), ("old, restarted", true), ("new", false)]) {
        roles.insert(name(pod), role);
        let created = pod["metadata"]["creationTimestamp"].as_str().unwrap();
        report(server, &name(pod), "Running", Some(if is_old { LONG_AGO } else { created })).await;
        if role == "old, restarted" {
            let containers =
                json!([{ "name": "agent", "image": "agent:1", "imageID": "", "ready": true, "restartCount": 2 }]);
            let path = server.path(CORE, &format!("pods/{}/status", name(pod)));
            server.patch(&path, MERGE, &json!({ "status": { "containerStatuses": containers } })).await;
        }
    }
    let mut nodes: Vec<Value> = pods(server).await.into_iter().map(|pod| pod["spec"]["nodeName"].clone()).collect();
    nodes.sort_by_key(Value::to_string);
    nodes.dedup();
    assert_eq!(nodes.len(), 3, "each is alone on its node");
    counted(server, |status| status["readyReplicas"] == 3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    transcript.note("one after the other", json!(shrunk(server, &roles, 3).await));
}

/// Takes all but one away, one after the other, and answers which it was each time.
async fn shrunk(server: &Server, roles: &BTreeMap<String, &'static str>, pods_now: u64) -> Vec<&'static str> {
    let mut order = Vec::new();
    for left in (1..pods_now).rev() {
        let scale = server.path(APPS, "deployments/d/scale");
        server.patch(&scale, MERGE, &json!({ "spec": { "replicas": left } })).await;
        settled(server, "d", left).await;
        let all = pods(server).await;
        let victim = all.iter().find(|pod| pod["metadata"].get("deletionTimestamp").is_some()).map(name).unwrap();
        order.push(roles[&victim]);
        finish(server, &victim).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    order
}

pub(crate) async fn pods_are_deleted_with_grace(server: &Server, transcript: &mut Transcript) {
    let pod = |name: &str, selector: Value| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": {
            "terminationGracePeriodSeconds": 100, "nodeSelector": selector,
            "containers": [{ "name": "agent", "image": "agent:1" }],
        } })
    };
    let parts = [
        "/kind",
        "/metadata/name",
        "/metadata/generation",
        "/metadata/deletionTimestamp",
        "/metadata/deletionGracePeriodSeconds",
        "/status/phase",
        "/reason",
        "/code",
    ];
    let one = server.path(CORE, "pods/p");
    let created = server.post(&server.path(CORE, "pods"), &pod("p", json!({}))).await.body;
    transcript.parts("create", &created, &parts);
    server.until(&one, |pod| pod["spec"].get("nodeName").is_some()).await;
    for (step, options) in [
        ("delete", json!({})),
        ("delete again", json!({})),
        ("delete with more time", json!({ "gracePeriodSeconds": 200 })),
        ("delete with less time", json!({ "gracePeriodSeconds": 5 })),
        ("delete at once", json!({ "gracePeriodSeconds": 0 })),
        ("delete what is gone", json!({})),
    ] {
        transcript.parts(step, &server.delete(&one, &options).await.body, &parts);
    }
    server.post(&server.path(CORE, "pods"), &pod("p", json!({}))).await;
    server.until(&one, |pod| pod["spec"].get("nodeName").is_some()).await;
    report(server, "p", "Failed", None).await;
    transcript.parts("delete one that is finished", &server.delete(&one, &json!({})).await.body, &parts);
    transcript.note("and look", json!(server.get(&one).await.status));

    server.never_schedules(true);
    server.post(&server.path(CORE, "pods"), &pod("q", json!({ "no": "such-node" }))).await;
    let waiting = server.path(CORE, "pods/q");
    let is_told = |pod: &Value| pod["status"]["conditions"].as_array().is_some_and(|conditions| !conditions.is_empty());
    let unbound = server.until(&waiting, is_told).await;
    transcript.parts("one without a node", &unbound["status"]["conditions"][0], &["/type", "/status", "/reason"]);
    transcript.parts("delete one without a node", &server.delete(&waiting, &json!({})).await.body, &parts);
    transcript.note("and look for it", json!(server.get(&waiting).await.status));
}

pub(crate) async fn what_is_owned_goes_with_its_owner(server: &Server, transcript: &mut Transcript) {
    let pools = server.path(OURS, "agentpools");
    let pool = server.post(&pools, &super::pool("linux")).await.body;
    let mut owned = deployment("d", 2);
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "kitepool.dev/v1alpha1", "kind": "AgentPool", "name": "linux", "uid": pool["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": false,
    }]);
    server.post(&server.path(APPS, "deployments"), &owned).await;
    settled(server, "d", 2).await;
    for pod in pods(server).await {
        server
            .until(&server.path(CORE, &format!("pods/{}", name(&pod))), |pod| pod["spec"].get("nodeName").is_some())
            .await;
    }
    server.delete(&server.path(OURS, "agentpools/linux"), &json!({})).await;
    let is_gone = |answer: &Value| answer["code"] == 404;
    server.until(&server.path(APPS, "deployments/d"), is_gone).await;
    server.until(&server.path(APPS, "replicasets"), |list| list["items"].as_array().is_some_and(Vec::is_empty)).await;
    let all_go = |list: &Value| {
        list["items"].as_array().unwrap().iter().all(|pod| pod["metadata"].get("deletionTimestamp").is_some())
    };
    let left = server.until(&server.path(CORE, "pods"), all_go).await;
    transcript.note("pods that still drain", json!(left["items"].as_array().unwrap().len()));

    server.post(&server.path(APPS, "deployments"), &owned).await;
    server.until(&server.path(APPS, "deployments/d"), is_gone).await;
    transcript.note("one that comes late goes too", json!(true));
}
