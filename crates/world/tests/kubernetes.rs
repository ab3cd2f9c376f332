//! The simulated Kubernetes as a state machine: what its controllers, scheduler and kubelets do in time.

#![cfg(test)]

use std::time::Duration;

use jiff::Timestamp;
use kitepool_world::kubernetes::{
    ApiAnswer, ApiRequest, Delay, Kind, Kubernetes, PodFault, PodSignal, Readiness, Settings,
};
use serde_json::{Value, json};

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// Everything takes as long as it says: half a second to start, nothing else.
fn settings() -> Settings {
    let soon = Delay::of(Duration::from_millis(10));
    Settings {
        controllers: soon,
        scheduling: soon,
        kubelet: soon,
        start_up: Delay::of(Duration::from_millis(500)),
        ..Settings::default()
    }
}

fn deployment(name: &str, image: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": "ci" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "terminationGracePeriodSeconds": 60, "containers": [{ "name": "agent", "image": image }] },
            },
        },
    })
}

fn with(settings: Settings, replicas: u32) -> Kubernetes {
    let mut kubernetes = Kubernetes::new(settings, 7, START);
    kubernetes.put("test", deployment("d", "agent:1", replicas), START).unwrap();
    kubernetes
}

fn status(kubernetes: &Kubernetes) -> Value {
    kubernetes.object(Kind::Deployment, "ci", "d").unwrap()["status"].clone()
}

fn scale(kubernetes: &mut Kubernetes, replicas: u32, now: Timestamp) {
    let patch = json!({ "spec": { "replicas": replicas } });
    kubernetes.patch("hand", (Kind::Deployment, "ci", "d"), "scale", &patch, now).unwrap();
}

fn uids(kubernetes: &Kubernetes) -> Vec<String> {
    let pods = kubernetes.objects(Kind::Pod, "ci");
    pods.iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
}

fn container(kubernetes: &Kubernetes) -> Value {
    kubernetes.objects(Kind::Pod, "ci")[0]["status"]["containerStatuses"][0].clone()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[test]
fn a_deployment_grows_to_ready_pods_and_counts_them() {
    let mut kubernetes = with(settings(), 3);
    kubernetes.advance(at(2));
    let expected = json!({
        "observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
        "terminatingReplicas": 0,
    });
    assert_eq!(status(&kubernetes), expected);
    let started: Vec<PodSignal> = kubernetes.take_signals();
    assert_eq!(started.len(), 3);
    assert!(matches!(&started[0], PodSignal::Started { pod, .. } if pod.ip == "10.0.0.1" && pod.labels["app"] == "d"));
    let nodes: Vec<Value> =
        kubernetes.objects(Kind::Pod, "ci").iter().map(|pod| pod["spec"]["nodeName"].clone()).collect();
    assert!(["node-1", "node-2", "node-3"].iter().all(|node| nodes.contains(&json!(node))), "{nodes:?}");

    scale(&mut kubernetes, 0, at(2));
    kubernetes.advance(at(3));
    assert_eq!(status(&kubernetes), json!({ "observedGeneration": 2, "terminatingReplicas": 3 }));
    for uid in uids(&kubernetes) {
        kubernetes.ended(&uid, 0, at(5));
    }
    kubernetes.advance(at(6));
    assert_eq!(status(&kubernetes), json!({ "observedGeneration": 2, "terminatingReplicas": 0 }));
    assert!(uids(&kubernetes).is_empty());
}

#[test]
fn a_process_that_stays_is_killed_when_its_grace_is_over() {
    let mut kubernetes = with(settings(), 1);
    kubernetes.advance(at(2));
    let uid = uids(&kubernetes).remove(0);
    kubernetes.take_signals();
    kubernetes.delete("hand", (Kind::Deployment, "ci", "d"), at(10)).unwrap();
    kubernetes.advance(at(69));
    assert!(kubernetes.objects(Kind::Pod, "ci")[0]["metadata"].get("deletionTimestamp").is_some());
    kubernetes.advance(at(71));
    let signals = kubernetes.take_signals();
    assert!(
        matches!(
            signals.as_slice(),
            [
                PodSignal::Told { at: told, grace_until, .. },
                PodSignal::Killed { at: killed, .. },
                PodSignal::Gone { uid: gone, .. },
            ] if grace_until.duration_since(*told).as_secs() == 60
                && killed == grace_until && *gone == uid
        ),
        "{signals:#?}"
    );
    assert!(kubernetes.objects(Kind::ReplicaSet, "ci").is_empty());
}

#[test]
fn a_second_deletion_tells_again_only_when_it_leaves_less_time() {
    let mut kubernetes = with(settings(), 1);
    kubernetes.advance(at(2));
    let name = kubernetes.objects(Kind::Pod, "ci")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    kubernetes.take_signals();
    kubernetes.delete("hand", (Kind::Pod, "ci", &name), at(10)).unwrap();
    kubernetes.delete("hand", (Kind::Pod, "ci", &name), at(20)).unwrap();
    let hurry = ApiRequest {
        method: "DELETE".to_owned(),
        path: format!("/api/v1/namespaces/ci/pods/{name}"),
        body: br#"{"gracePeriodSeconds":5}"#.to_vec(),
        ..ApiRequest::default()
    };
    assert!(matches!(kubernetes.answer(&hurry, at(30)), ApiAnswer::Told { status: 200, .. }));
    kubernetes.advance(at(36));
    let told: Vec<bool> = kubernetes
        .take_signals()
        .iter()
        .filter(|s| !matches!(s, PodSignal::Started { .. }))
        .map(|s| matches!(s, PodSignal::Told { .. }))
        .collect();
    assert_eq!(told, [true, true, false, false]);
}

#[test]
fn a_process_that_ends_is_started_again_ever_later() {
    let mut kubernetes = with(Settings { readiness: Readiness::AsTold, ..settings() }, 1);
    kubernetes.advance(at(2));
    let uid = uids(&kubernetes).remove(0);
    assert_eq!(container(&kubernetes)["ready"], false);
    kubernetes.readiness(&uid, true, at(3));
    assert!(is_ready(&kubernetes.objects(Kind::Pod, "ci")[0]));
    kubernetes.ended(&uid, 1, at(4));
    kubernetes.advance(at(5));
    assert_eq!(container(&kubernetes)["restartCount"], 1);
    assert_eq!(container(&kubernetes)["ready"], false);
    kubernetes.ended(&uid, 1, at(6));
    assert_eq!(container(&kubernetes)["state"]["waiting"]["reason"], "CrashLoopBackOff");
    kubernetes.advance(at(15));
    assert_eq!(container(&kubernetes)["restartCount"], 1);
    kubernetes.advance(at(17));
    assert_eq!(container(&kubernetes)["restartCount"], 2);
    assert_eq!(container(&kubernetes)["lastState"]["terminated"]["exitCode"], 1);
    let started = kubernetes.take_signals().into_iter().filter_map(|signal| match signal {
        PodSignal::Started { pod, .. } => Some(pod.restarts),
        PodSignal::Told { .. } | PodSignal::Killed { .. } | PodSignal::Gone { .. } => None,
    });
    assert_eq!(started.collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn an_image_with_a_fault_shows_it_as_the_kubelet_does() {
    let mut kubernetes = Kubernetes::new(settings(), 7, START);
    kubernetes.set_pod_fault("agent:1", Some(PodFault::ImagePull));
    kubernetes.put("test", deployment("d", "agent:1", 1), START).unwrap();
    kubernetes.advance(at(4));
    let pod = kubernetes.objects(Kind::Pod, "ci").remove(0);
    assert_eq!((pod["status"]["phase"].as_str(), is_ready(&pod)), (Some("Pending"), false));
    assert_eq!(container(&kubernetes)["state"]["waiting"]["reason"], "ErrImagePull");
    kubernetes.advance(at(6));
    assert_eq!(container(&kubernetes)["state"]["waiting"]["reason"], "ImagePullBackOff");
    assert!(kubernetes.take_signals().is_empty());
    kubernetes.set_pod_fault("agent:1", Some(PodFault::CrashLoop));
    kubernetes.advance(at(60));
    assert_eq!(container(&kubernetes)["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert!(container(&kubernetes)["restartCount"].as_u64().unwrap() >= 2);
    assert!(kubernetes.take_signals().is_empty());
    kubernetes.set_pod_fault("agent:1", Some(PodFault::NeverReady));
    kubernetes.advance(at(600));
    assert!(container(&kubernetes)["state"].get("running").is_some());
    assert!(!is_ready(&kubernetes.objects(Kind::Pod, "ci")[0]));
    assert_eq!(kubernetes.take_signals().len(), 1);
}

#[test]
fn a_pod_waits_for_a_node_and_for_the_secret_that_it_mounts() {
    let mut kubernetes = Kubernetes::new(settings(), 7, START);
    kubernetes.set_unschedulable("ci", true, START);
    let mut wanted = deployment("d", "agent:1", 1);
    wanted["spec"]["template"]["spec"]["volumes"] = json!([{ "name": "t", "secret": { "secretName": "token" } }]);
    kubernetes.put("test", wanted, START).unwrap();
    kubernetes.advance(at(5));
    let pod = kubernetes.objects(Kind::Pod, "ci").remove(0);
    assert_eq!(pod["status"]["conditions"][0]["reason"], "Unschedulable");
    kubernetes.set_unschedulable("ci", false, at(10));
    kubernetes.advance(at(15));
    assert_eq!(container(&kubernetes)["state"]["waiting"]["reason"], "ContainerCreating");
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "token", "namespace": "ci" } });
    kubernetes.put("test", secret, at(16)).unwrap();
    kubernetes.advance(at(30));
    assert!(is_ready(&kubernetes.objects(Kind::Pod, "ci")[0]));
}

#[test]
fn a_pod_that_selects_by_a_label_that_no_node_carries_waits_alone() {
    let mut kubernetes = Kubernetes::new(settings(), 7, START);
    kubernetes.set_lacking(("capacity", "spot"), true, START);
    let mut spot = deployment("spot", "agent:1", 1);
    spot["spec"]["template"]["spec"]["nodeSelector"] = json!({ "capacity": "spot" });
    kubernetes.put("test", spot, START).unwrap();
    kubernetes.put("test", deployment("d", "agent:1", 1), START).unwrap();
    kubernetes.advance(at(30));
    let ready =
        |kubernetes: &Kubernetes| kubernetes.objects(Kind::Pod, "ci").iter().filter(|pod| is_ready(pod)).count();
    assert_eq!(ready(&kubernetes), 1);
    kubernetes.set_lacking(("capacity", "spot"), false, at(30));
    kubernetes.advance(at(60));
    assert_eq!(ready(&kubernetes), 2);
}

#[test]
fn a_lost_node_takes_its_processes_at_once_and_its_pods_later() {
    let mut kubernetes = with(settings(), 3);
    kubernetes.advance(at(2));
    kubernetes.take_signals();
    kubernetes.lose_node("node-1", at(10));
    assert!(matches!(kubernetes.take_signals().as_slice(), [PodSignal::Killed { .. }]));
    kubernetes.advance(at(49));
    assert_eq!(status(&kubernetes)["readyReplicas"], 3);
    kubernetes.advance(at(51));
    assert_eq!(status(&kubernetes)["readyReplicas"], 2);
    kubernetes.advance(at(135));
    assert_eq!(status(&kubernetes)["readyReplicas"], 3);
    assert!(kubernetes.objects(Kind::Pod, "ci").iter().all(|pod| pod["spec"]["nodeName"] != "node-1"));
}

#[test]
fn an_evicted_pod_says_so_and_is_replaced_while_it_drains() {
    let mut kubernetes = with(settings(), 1);
    kubernetes.advance(at(2));
    let name = kubernetes.objects(Kind::Pod, "ci")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(kubernetes.evict("ci", &name, at(3)));
    assert!(!kubernetes.evict("ci", "nobody", at(3)));
    kubernetes.advance(at(5));
    let pods = kubernetes.objects(Kind::Pod, "ci");
    assert_eq!(pods.len(), 2);
    let evicted = pods.iter().find(|pod| pod["metadata"]["name"] == name.as_str()).unwrap();
    let conditions = evicted["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions.iter().any(|condition| condition["type"] == "DisruptionTarget" && condition["status"] == "True")
    );
    assert_eq!(status(&kubernetes)["terminatingReplicas"], 1);
}

#[test]
fn what_belongs_to_a_pool_goes_with_it() {
    let definition = json!({ "spec": { "group": "kitepool.dev", "names": { "plural": "agentpools" } } });
    let mut kubernetes = Kubernetes::new(Settings { definitions: vec![definition], ..settings() }, 7, START);
    let pool = json!({ "apiVersion": "kitepool.dev/v1alpha1", "kind": "AgentPool",
                       "metadata": { "name": "linux", "namespace": "ci" }, "spec": { "queue": "linux" } });
    let pool = kubernetes.put("test", pool, START).unwrap();
    let by = |uid: &Value| json!([{ "apiVersion": "kitepool.dev/v1alpha1", "kind": "AgentPool", "name": "linux", "uid": uid }]);
    let mut owned = deployment("d", "agent:1", 2);
    owned["metadata"]["ownerReferences"] = by(&pool["metadata"]["uid"]);
    kubernetes.put("test", owned, START).unwrap();
    kubernetes.advance(at(2));
    kubernetes.delete("hand", (Kind::AgentPool, "ci", "linux"), at(3)).unwrap();
    kubernetes.advance(at(4));
    assert!(
        kubernetes.objects(Kind::Deployment, "ci").is_empty() && kubernetes.objects(Kind::ReplicaSet, "ci").is_empty()
    );
    assert!(kubernetes.objects(Kind::Pod, "ci").iter().all(|pod| pod["metadata"].get("deletionTimestamp").is_some()));

    let mut late = deployment("late", "agent:1", 2);
    late["metadata"]["ownerReferences"] = by(&pool["metadata"]["uid"]);
    kubernetes.put("test", late, at(5)).unwrap();
    kubernetes.advance(at(6));
    assert!(kubernetes.objects(Kind::Deployment, "ci").is_empty());
}

#[test]
fn the_same_seed_and_the_same_calls_give_the_same_bytes() {
    let course = |seed| {
        let mut kubernetes = Kubernetes::new(Settings::default(), seed, START);
        kubernetes.put("test", deployment("d", "agent:1", 20), START).unwrap();
        kubernetes.advance(at(30));
        scale(&mut kubernetes, 7, at(31));
        kubernetes.advance(at(60));
        let objects: Vec<String> = Kind::ALL
            .iter()
            .flat_map(|kind| kubernetes.objects(*kind, "ci"))
            .map(|object| object.to_string())
            .collect();
        (objects, format!("{:?}", kubernetes.take_signals()))
    };
    assert_eq!(course(1), course(1));
    assert_ne!(course(1), course(2));
}
