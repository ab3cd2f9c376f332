//! The process kubelet does what a kubelet does, part one: what a container finds, the order of starts, probes, restarts.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::SOON;
use crate::{
    harness::{
        Case, eventually,
        processes::{pod_condition, process_case},
    },
    process_kubelet::{
        ProcessKubelet,
        ledger::{Ending, Entry, What, Why},
    },
};

const DEADLINE: Duration = Duration::from_mins(2);

/// Programs that every machine has which runs these tests.
pub(crate) const IMAGES: &str = "
images:
  bash: { entrypoint: [bash, -c], env: { FROM_IMAGE: image, OVERRIDDEN: image } }
  interrupted: { entrypoint: [bash, -c], stopSignal: SIGINT }
  python: { entrypoint: [python3, -u, -c] }
  slow: { entrypoint: [bash, -c], startDelaySeconds: 2 }
  stumbling: { entrypoint: [bash, -c], failingStarts: 1 }
  broken: { entrypoint: [/no/such/program] }
";

/// A server that is ready as long as the file /state/ready is there.
const SERVER: &str = "
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = self.path != '/ready' or os.path.exists('/state/ready')
        self.send_response(200 if ok else 503)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer((os.environ['POD_IP'], 8080), Handler).serve_forever()
";

pub(crate) fn at(ledger: &[Entry], container: &str, is_meant: impl Fn(&What) -> bool) -> Entry {
    let found = ledger.iter().find(|entry| entry.container == container && is_meant(&entry.what));
    found.unwrap_or_else(|| panic!("nothing of {container} in {ledger:#?}")).clone()
}

pub(crate) fn started(what: &What) -> bool {
    *what == What::Started
}

pub(crate) fn ended(what: &What) -> bool {
    matches!(what, What::Ended(_))
}

/// What a container has printed, once it has printed `last`.
async fn printed(kubelet: &ProcessKubelet, pod: &str, container: &str, last: &str) -> Vec<String> {
    eventually("the container prints", SOON, async || {
        let output = kubelet.output(pod, container, 0);
        let lines: Vec<String> = output.lines().map(ToOwned::to_owned).collect();
        if lines.iter().any(|line| line == last) { Ok(lines) } else { Err(output) }
    })
    .await
}

fn state<'a>(pod: &'a Value, list: &str, index: usize) -> &'a Value {
    &pod["status"][list][index]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_container_finds_its_environment_its_arguments_and_its_volumes() {
    process_case("kubelet-env", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |_| {}).await;
        case.keep_secret("secret", "key", "hidden").await;
        let map: ConfigMap =
            serde_json::from_value(json!({ "metadata": { "name": "map" }, "data": { "A": "a", "B": "b" } })).unwrap();
        let maps: kube::Api<ConfigMap> = kube::Api::namespaced(case.admin.clone(), &case.namespace);
        maps.create(&PostParams::default(), &map).await.unwrap();
        let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
        let script = "env | sort; echo args=$*; echo id=$(id -u):$(id -g):$(id -G) host=$(hostname) pid=$BASHPID; \
                      cat /secrets/renamed /maps/A /down/labels /all/deep/secret; echo; \
                      (echo x >/secrets/new) 2>/dev/null || echo read-only; echo shared >/work/file; cat /part/file; \
                      head -c 3 /var/run/secrets/kubernetes.io/serviceaccount/token; echo; echo done; exec sleep 1000";
        case.create_process_pod(
            "found",
            json!({ "metadata": { "labels": { "app": "x" }, "annotations": { "note": "n" } }, "spec": {
                "automountServiceAccountToken": true,
                "securityContext": { "runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456 },
                "containers": [{ "name": "main", "image": "bash", "args": [script, "zero", "$(A)", "$$(A)", "$(NONE)"],
                    "envFrom": [{ "prefix": "MAP_", "configMapRef": { "name": "map" } },
                                { "secretRef": { "name": "none", "optional": true } }],
                    "env": [
                        { "name": "A", "value": "one" }, { "name": "B", "value": "$(A)-$(MAP_B)-$(LATER)-$$(A)" },
                        { "name": "LATER", "value": "late" }, { "name": "OVERRIDDEN", "value": "pod" },
                        { "name": "NAME", "valueFrom": field("metadata.name") },
                        { "name": "SPACE", "valueFrom": field("metadata.namespace") },
                        { "name": "APP", "valueFrom": field("metadata.labels['app']") },
                        { "name": "NOTE", "valueFrom": field("metadata.annotations['note']") },
                        { "name": "UID_", "valueFrom": field("metadata.uid") },
                        { "name": "NODE", "valueFrom": field("spec.nodeName") },
                        { "name": "IP", "valueFrom": field("status.podIP") },
                        { "name": "HOST", "valueFrom": field("status.hostIP") },
                        { "name": "SECRET", "valueFrom": { "secretKeyRef": { "name": "secret", "key": "key" } } },
                        { "name": "ABSENT", "valueFrom": { "secretKeyRef": { "name": "secret", "key": "x", "optional": true } } },
                        { "name": "MAPPED", "valueFrom": { "configMapKeyRef": { "name": "map", "key": "A" } } },
                    ],
                    "volumeMounts": [
                        { "name": "secret", "mountPath": "/secrets", "readOnly": true }, { "name": "map", "mountPath": "/maps" },
                        { "name": "down", "mountPath": "/down" }, { "name": "all", "mountPath": "/all" },
                        { "name": "work", "mountPath": "/work" }, { "name": "work", "mountPath": "/part", "subPath": "" },
                    ] }],
                "volumes": [
                    { "name": "secret", "secret": { "secretName": "secret", "items": [{ "key": "key", "path": "renamed" }] } },
                    { "name": "map", "configMap": { "name": "map" } },
                    { "name": "down", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
                    { "name": "all", "projected": { "sources": [
                        { "secret": { "name": "secret", "items": [{ "key": "key", "path": "deep/secret" }] } } ] } },
                    { "name": "work", "emptyDir": {} },
                ],
            } }),
        )
        .await;
        let lines = printed(&kubelet, "found", "main", "done").await;
        let pod = serde_json::to_value(case.pods().get("found").await.unwrap()).unwrap();
        let address = pod["status"]["podIP"].as_str().unwrap();
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        for expected in [
            "A=one", "B=one-b-$(LATER)-$(A)", "LATER=late", "MAP_A=a", "FROM_IMAGE=image", "OVERRIDDEN=pod", "NAME=found",
            "APP=x", "NOTE=n", "SECRET=hidden", "MAPPED=a", "HOST=127.0.0.1", "HOSTNAME=found", "args=one $(A) $(NONE)",
            "id=1234:2345:2345 3456 host=found pid=1", "read-only", "shared", "hiddenaapp=\"x\"hidden",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected} is not in {lines:#?}");
        }
        let node = case.process_node(1);
        for (name, value) in [("SPACE", &*case.namespace), ("UID_", uid), ("NODE", &node), ("IP", address)] {
            assert!(lines.contains(&format!("{name}={value}")), "{name}={value} is not in {lines:#?}");
        }
        assert!(lines.iter().any(|line| line == "eyJ"), "the token of the account: {lines:#?}");
        assert!(!lines.iter().any(|line| line.starts_with("ABSENT=") || line.starts_with("CARGO")), "{lines:#?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn mounted_secrets_are_brought_up_to_date() {
    process_case("kubelet-volumes", 1, DEADLINE, async |case| {
        let kubelet =
            case.process_kubelet(1, IMAGES, |settings| settings.volumes_every = Duration::from_millis(500)).await;
        let script = "while sleep 0.2; do cat /secrets/key; echo; done";
        case.create_process_pod(
            "fresh",
            json!({ "spec": {
            "containers": [{ "name": "main", "image": "bash", "args": [script],
                             "volumeMounts": [{ "name": "secret", "mountPath": "/secrets" }] }],
            "volumes": [{ "name": "secret", "secret": { "secretName": "later" } }],
        } }),
        )
        .await;
        eventually("it waits for the Secret", SOON, async || {
            let failed = kubelet.ledger().of("fresh").into_iter().find(|entry| matches!(&entry.what, What::Failed(_)));
            failed.ok_or_else(|| "nothing has failed yet".to_owned())
        })
        .await;
        assert!(kubelet.ledger().of("fresh").iter().all(|entry| entry.what != What::Started));
        case.keep_secret("later", "key", "first").await;
        printed(&kubelet, "fresh", "main", "first").await;
        case.keep_secret("later", "key", "second").await;
        printed(&kubelet, "fresh", "main", "second").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn init_containers_and_sidecars_start_in_order_and_sidecars_end_last_in_reverse() {
    process_case("kubelet-order", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |_| {}).await;
        let sidecar = "trap 'sleep 0.5; exit 0' TERM; sleep 1; touch /tmp/up-$HOSTNAME-$0; while :; do sleep 0.1; done";
        let started_probe = |file: &str| {
            let command = ["test".to_owned(), "-e".to_owned(), format!("/tmp/up-ordered-{file}")];
            json!({ "exec": { "command": command }, "periodSeconds": 1, "failureThreshold": 30 })
        };
        case.create_process_pod(
            "ordered",
            json!({ "spec": {
            "restartPolicy": "Never",
            "initContainers": [
                { "name": "first", "image": "bash", "args": ["sleep 0.3"] },
                { "name": "outer", "image": "bash", "args": [sidecar, "outer"], "restartPolicy": "Always",
                  "startupProbe": started_probe("outer") },
                { "name": "second", "image": "bash", "args": ["test -e /tmp/up-ordered-outer"] },
                { "name": "inner", "image": "bash", "args": [sidecar, "inner"], "restartPolicy": "Always",
                  "startupProbe": started_probe("inner") },
            ],
            "containers": [{ "name": "main", "image": "bash", "args": ["test -e /tmp/up-ordered-inner && sleep 2"] }],
        } }),
        )
        .await;
        let is_initialized = |pod: &Value| pod_condition(pod, "Initialized") == "True";
        let pod = case.pod_becomes("ordered", "is initialized", SOON, is_initialized).await;
        assert_eq!(state(&pod, "initContainerStatuses", 0)["state"]["terminated"]["reason"], "Completed");
        assert_eq!(state(&pod, "initContainerStatuses", 1)["started"], true);
        let pod = case.pod_becomes("ordered", "succeeds", SOON, |pod| pod["status"]["phase"] == "Succeeded").await;
        assert_eq!(state(&pod, "containerStatuses", 0)["state"]["terminated"]["exitCode"], 0);
        let told = kubelet.ledger().of("ordered");
        let signalled = |what: &What| *what == What::Signalled(15, Why::MainEnded);
        let order = [
            at(&told, "first", started),
            at(&told, "first", ended),
            at(&told, "outer", started),
            at(&told, "second", started),
            at(&told, "second", ended),
            at(&told, "inner", started),
            at(&told, "main", started),
            at(&told, "main", ended),
            at(&told, "inner", signalled),
            at(&told, "inner", ended),
            at(&told, "outer", signalled),
            at(&told, "outer", ended),
        ];
        assert!(order.is_sorted_by_key(|entry| entry.moment), "{told:#?}");
        let waited = at(&told, "second", started).moment - at(&told, "outer", started).moment;
        assert!(waited >= Duration::from_secs(1), "the first sidecar had not started: {waited:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn readiness_follows_its_probe_and_conditions_follow_readiness() {
    process_case("kubelet-ready", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |_| {}).await;
        let ip = json!([{ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }]);
        let toggles = "for n in 1 2; do sleep 3; touch /state/ready; sleep 6; rm /state/ready; done; exec sleep 1000";
        let mount = json!([{ "name": "state", "mountPath": "/state" }]);
        case.create_process_pod("ready", json!({ "spec": {
            "volumes": [{ "name": "state", "emptyDir": {} }],
            "containers": [
                { "name": "server", "image": "python", "args": [SERVER], "env": ip, "volumeMounts": mount,
                  "ports": [{ "name": "web", "containerPort": 8080 }],
                  "startupProbe": { "tcpSocket": { "port": "web" }, "periodSeconds": 1, "failureThreshold": 30 },
                  "livenessProbe": { "httpGet": { "path": "live", "port": 8080 }, "periodSeconds": 1, "failureThreshold": 10 },
                  "readinessProbe": { "httpGet": { "path": "/ready", "port": "web" }, "periodSeconds": 1, "failureThreshold": 2 } },
                { "name": "other", "image": "bash", "args": [toggles], "volumeMounts": mount },
            ],
        } }))
        .await;
        let is_unready = |pod: &Value| {
            pod["status"]["phase"] == "Running" && pod_condition(pod, "Ready") == "False"
                && state(pod, "containerStatuses", 0)["started"] == true
        };
        let pod = case.pod_becomes("ready", "runs unready", SOON, is_unready).await;
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
        assert_eq!(ready["reason"], "ContainersNotReady");
        assert_eq!(ready["message"], "containers with unready status: [server]");
        for kind in ["PodScheduled", "Initialized"] {
            assert_eq!(pod_condition(&pod, kind), "True", "{kind}");
        }
        let pod = case.pod_becomes("ready", "is ready", SOON, |pod| pod_condition(pod, "Ready") == "True").await;
        assert_eq!(pod_condition(&pod, "ContainersReady"), "True");
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
        assert_eq!((&ready["reason"], &ready["message"]), (&Value::Null, &Value::Null));
        case.pod_becomes("ready", "is unready again", SOON, is_unready).await;
        let pod = case.pod_becomes("ready", "is ready again", SOON, |pod| pod_condition(pod, "Ready") == "True").await;
        assert_eq!(state(&pod, "containerStatuses", 0)["restartCount"], 0);
        assert_eq!(kubelet.ledger().signals("ready").len(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn what_fails_its_startup_or_liveness_probe_is_signalled_and_started_again() {
    process_case("kubelet-unhealthy", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |_| {}).await;
        let lives = "trap 'exit 9' TERM; touch /tmp/healthy; sleep 2; rm /tmp/healthy; while :; do sleep 0.1; done";
        case.create_process_pod("sick", json!({ "spec": { "containers": [
            { "name": "live", "image": "bash", "args": [lives], "livenessProbe": {
                "exec": { "command": ["test", "-e", "/tmp/healthy"] },
                "initialDelaySeconds": 1, "periodSeconds": 1, "failureThreshold": 2 } },
            { "name": "start", "image": "bash", "args": ["exec sleep 1000"], "startupProbe": {
                "tcpSocket": { "port": 9 }, "periodSeconds": 1, "failureThreshold": 3, "terminationGracePeriodSeconds": 2 } },
            { "name": "slow", "image": "bash", "args": ["trap 'exit 8' TERM; while :; do sleep 0.1; done"], "livenessProbe": {
                "exec": { "command": ["sleep", "60"] }, "initialDelaySeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1 } },
        ] } }))
        .await;
        for (container, why, ending) in [
            ("live", Why::Unhealthy, Ending::Exit(9)),
            ("start", Why::NotStarted, Ending::Signal(9)),
            ("slow", Why::Unhealthy, Ending::Exit(8)),
        ] {
            eventually("it is started again", SOON, async || {
                let told = kubelet.ledger().of("sick");
                let starts = told.iter().filter(|entry| entry.container == container && entry.what == What::Started);
                if starts.count() >= 2 { Ok(()) } else { Err(format!("{told:#?}")) }
            })
            .await;
            let told = kubelet.ledger().of("sick");
            let signalled = at(&told, container, |what| *what == What::Signalled(15, why));
            let end = at(&told, container, ended);
            assert_eq!(end.what, What::Ended(ending), "{told:#?}");
            let failing = signalled.moment - at(&told, container, started).moment;
            assert!(failing >= Duration::from_secs(2), "not before so many failures: {failing:?}");
        }
        let pod = case.pod_becomes("sick", "shows it", SOON, |pod| {
            (0..2).all(|index| state(pod, "containerStatuses", index)["lastState"]["terminated"]["exitCode"].is_i64())
        }).await;
        let exit_code = |index| state(&pod, "containerStatuses", index)["lastState"]["terminated"]["exitCode"].clone();
        assert_eq!((exit_code(0), exit_code(1)), (json!(9), json!(137)));
    })
    .await;
}

/// The moments at which a container was started.
async fn starts(case: &Case, kubelet: &ProcessKubelet, pod: &str, number: usize) -> Vec<tokio::time::Instant> {
    eventually(&format!("{pod} is started {number} times"), DEADLINE, async || {
        let told = kubelet.ledger().of(pod);
        let starts: Vec<_> =
            told.iter().filter(|entry| entry.what == What::Started).map(|entry| entry.moment).collect();
        if starts.len() >= number { Ok(starts) } else { Err(format!("{told:#?} {:?}", case.pods().get(pod).await)) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn what_crashes_is_started_again_after_longer_and_longer_pauses() {
    process_case("kubelet-crash", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |settings| settings.back_off = Duration::from_secs(1)).await;
        let crashes = json!([{ "name": "main", "image": "bash", "args": ["exit 3"] }]);
        case.create_process_pod("crash", json!({ "spec": { "containers": crashes } })).await;
        let pod = case.pod_becomes("crash", "backs off", SOON, |pod| {
            state(pod, "containerStatuses", 0)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        }).await;
        let status = state(&pod, "containerStatuses", 0);
        assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
        assert_eq!(status["lastState"]["terminated"]["reason"], "Error");
        assert!(status["restartCount"].as_i64().unwrap() >= 1, "{status}");
        let moments = starts(case, &kubelet, "crash", 5).await;
        let gaps: Vec<Duration> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        println!("from start to start: {gaps:?}");
        assert!(gaps[0] < Duration::from_secs(1), "the first restart comes at once: {gaps:?}");
        for (gap, pause) in gaps[1..].iter().zip([1, 2, 4].map(Duration::from_secs)) {
            assert!((pause..pause * 2).contains(gap), "{gaps:?}");
        }

        case.create_process_pod("once", json!({ "spec": { "restartPolicy": "OnFailure", "containers": [
            { "name": "main", "image": "bash", "args": ["[[ ! -e /tmp/seen ]] || exit 0; touch /tmp/seen; exit 1"] }] } }))
            .await;
        let pod = case.pod_becomes("once", "succeeds", SOON, |pod| pod["status"]["phase"] == "Succeeded").await;
        assert_eq!(state(&pod, "containerStatuses", 0)["restartCount"], 1);
        assert_eq!(pod_condition(&pod, "Ready"), "False");
        case.create_process_pod("never", json!({ "spec": { "restartPolicy": "Never", "containers": [
            { "name": "main", "image": "bash", "args": ["kill -KILL $BASHPID & wait; exit 4"] }] } }))
            .await;
        let pod = case.pod_becomes("never", "fails", SOON, |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(state(&pod, "containerStatuses", 0)["state"]["terminated"]["exitCode"], 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn what_cannot_be_started_says_why_and_starts_when_it_can() {
    process_case("kubelet-refused", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |settings| settings.back_off = Duration::from_secs(2)).await;
        let sleeps = |image: &str| json!({ "name": "main", "image": image, "args": ["exec sleep 1000"] });
        let waits_for = async |pod: &str, reason: &str| {
            case.pod_becomes(pod, reason, SOON, |pod| {
                state(pod, "containerStatuses", 0)["state"]["waiting"]["reason"] == reason
            })
            .await
        };
        case.create_process_pod("unknown", json!({ "spec": { "containers": [sleeps("nowhere/image:1")] } })).await;
        let pod = waits_for("unknown", "ErrImagePull").await;
        assert_eq!(pod["status"]["phase"], "Pending");
        waits_for("unknown", "ImagePullBackOff").await;

        case.create_process_pod("broken", json!({ "spec": { "containers": [sleeps("broken")] } })).await;
        let pod = waits_for("broken", "CrashLoopBackOff").await;
        let last = &state(&pod, "containerStatuses", 0)["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], &last["reason"]), (&json!(128), &json!("StartError")));
        assert!(last["message"].as_str().unwrap().contains("/no/such/program"), "{last}");

        let mut unset = sleeps("bash");
        unset["env"] = json!([{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "late", "key": "key" } } }]);
        case.create_process_pod("unset", json!({ "spec": { "containers": [unset] } })).await;
        waits_for("unset", "CreateContainerConfigError").await;
        case.keep_secret("late", "key", "value").await;
        case.pod_becomes("unset", "is ready", SOON, |pod| pod_condition(pod, "Ready") == "True").await;
        for pod in ["unknown", "broken"] {
            assert!(kubelet.ledger().of(pod).iter().all(|entry| entry.what != What::Started), "{pod}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn starts_are_late_or_fail_and_writes_are_slow_on_request() {
    process_case("kubelet-request", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |_| {}).await;
        let main =
            |image: &str| json!({ "containers": [{ "name": "main", "image": image, "args": ["exec sleep 1000"] }] });
        let labelled = |key: &str, value: &str| json!({ "labels": { key: value } });
        case.create_process_pod("plain", json!({ "spec": main("bash") })).await;
        case.create_process_pod("image", json!({ "spec": main("slow") })).await;
        case.create_process_pod(
            "label",
            json!({ "metadata": labelled("e2e/start-delay-seconds", "2.5"), "spec": main("bash") }),
        )
        .await;
        case.create_process_pod("stumbles", json!({ "spec": main("stumbling") })).await;
        case.create_process_pod(
            "fails",
            json!({ "metadata": labelled("e2e/failing-starts", "2"), "spec": main("bash") }),
        )
        .await;
        let first = |pod: &str| kubelet.ledger().first(pod, "main", started).map(|entry| entry.at);
        let bound = async |pod: &str| {
            let pod = case.pods().get(pod).await.unwrap();
            pod.metadata.creation_timestamp.unwrap().0
        };
        for (pod, at_least) in [("plain", 0), ("image", 2), ("label", 2)] {
            case.pod_becomes(pod, "is ready", SOON, |pod| pod_condition(pod, "Ready") == "True").await;
            // The object's time is cut to whole seconds, so the wait looks at most a second longer than it was.
            let waited = first(pod).unwrap().duration_since(bound(pod).await).as_secs_f64();
            assert!(waited >= f64::from(at_least), "{pod} after {waited}");
        }
        for (pod, times) in [("stumbles", 1), ("fails", 2)] {
            let ready = case.pod_becomes(pod, "is ready", SOON, |pod| pod_condition(pod, "Ready") == "True").await;
            let told = kubelet.ledger().of(pod);
            let failed = told.iter().filter(|entry| matches!(entry.what, What::NotStarted(_))).count();
            assert_eq!(failed, times, "{told:#?}");
            assert_eq!(state(&ready, "containerStatuses", 0)["restartCount"], times);
        }
        kubelet.learn(|habits| habits.write_delay = Duration::from_secs(3));
        case.create_process_pod("written", json!({ "spec": main("bash") })).await;
        case.pod_becomes("written", "is ready", SOON, |pod| pod_condition(pod, "Ready") == "True").await;
        let late = jiff::Timestamp::now().duration_since(first("written").unwrap()).as_secs_f64();
        assert!(late >= 3.0, "written {late} s after the start");
    })
    .await;
}
