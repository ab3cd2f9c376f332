//! The process kubelet does what a kubelet does, part two: signals, grace, nodes that vanish, addresses, numbers.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    SOON,
    kubelet::{IMAGES, at, ended, started},
};
use crate::{
    harness::{
        Case,
        deployments::is_ready,
        eventually,
        processes::{is_alive, pod_condition, process_case},
    },
    process_kubelet::{
        launch::{Identity, Program, launch, only_child},
        ledger::{Ending, What, Why},
    },
};

const DEADLINE: Duration = Duration::from_mins(3);

/// What a busy machine may add to a moment.
const LATE: Duration = Duration::from_secs(4);

fn pod(script: &str, grace: u32, more: Value) -> Value {
    let main = json!({ "name": "main", "image": "bash", "args": [script] });
    let pod = json!({ "spec": { "terminationGracePeriodSeconds": grace, "containers": [main] } });
    crate::harness::pools::with(pod, more)
}

async fn is_ready_soon(case: &Case, name: &str) {
    case.pod_becomes(name, "is ready", SOON, |pod| pod_condition(pod, "Ready") == "True").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn one_signal_to_the_main_process_alone_then_patience_then_the_kill_of_all() {
    process_case("kubelet-signals", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |_| {}).await;
        let child = "trap 'echo the child was signalled' TERM; while :; do echo tick; sleep 0.1; done";
        let script = format!("trap 'echo main' TERM; (setsid bash -c \"{child}\") & while :; do sleep 0.1; done");
        case.create_process_pod("stubborn", pod(&script, 4, json!({}))).await;
        case.create_process_pod("obedient", pod("trap 'exit 5' TERM; while :; do sleep 0.1; done", 30, json!({})))
            .await;
        let waits = "trap 'exit 6' INT; while :; do sleep 0.1; done";
        let told = json!([{ "name": "main", "image": "interrupted", "args": [waits] }]);
        case.create_process_pod("interrupted", pod("", 30, json!({ "spec": { "containers": told } }))).await;
        for name in ["stubborn", "obedient", "interrupted"] {
            is_ready_soon(case, name).await;
        }
        // A trap is set a moment after the process is there.
        sleep(Duration::from_secs(1)).await;
        for name in ["stubborn", "obedient", "interrupted"] {
            case.pods().delete(name, &DeleteParams::default()).await.unwrap();
        }
        let deleted = Instant::now();
        eventually("the signals are sent", SOON, async || {
            let signals = ["stubborn", "obedient", "interrupted"].map(|pod| kubelet.ledger().signals(pod).len());
            if signals == [1, 1, 1] { Ok(()) } else { Err(format!("{signals:?}")) }
        })
        .await;
        // The output has to be read before the pod is gone.
        let output = kubelet.output("stubborn", "main", 0);
        for name in ["stubborn", "obedient", "interrupted"] {
            case.pod_goes(name, SOON).await;
        }
        let said = |pod: &str| kubelet.ledger().of(pod);
        for (pod, signal, ending) in [("obedient", 15, Ending::Exit(5)), ("interrupted", 2, Ending::Exit(6))] {
            let signals = kubelet.ledger().signals(pod);
            assert_eq!(signals.len(), 1, "{signals:#?}");
            assert_eq!(signals[0].what, What::Signalled(signal, Why::Deleted));
            let end = at(&said(pod), "main", ended);
            assert_eq!(end.what, What::Ended(ending));
            assert!(end.moment - signals[0].moment < LATE && signals[0].moment - deleted < LATE, "{:#?}", said(pod));
        }
        let signals = kubelet.ledger().signals("stubborn");
        let [term, kill] = &signals[..] else { panic!("{signals:#?}") };
        assert_eq!(term.what, What::Signalled(15, Why::Deleted));
        assert_eq!(kill.what, What::Signalled(9, Why::GraceOver));
        let patience = kill.moment - term.moment;
        assert!((Duration::from_millis(3900)..Duration::from_secs(4) + LATE).contains(&patience), "{patience:?}");
        let end = at(&said("stubborn"), "main", ended);
        assert_eq!(end.what, What::Ended(Ending::Signal(9)));
        assert!(output.contains("tick") && !output.contains("the child was signalled"), "{output}");
        assert!(!is_alive(end.pid.unwrap()));
        let left = std::process::Command::new("pgrep").args(["-f", "the child was signalle[d]"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&left.stdout), "", "a child is left");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn hooks_come_before_the_signal_and_a_second_deletion_shortens_the_grace() {
    process_case("kubelet-hooks", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |_| {}).await;
        let waits = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
        let hooked = |name: &str, hook: Value| {
            json!({ "name": name, "image": "bash", "args": [waits], "lifecycle": { "preStop": hook } })
        };
        let containers = json!([
            hooked("exec", json!({ "exec": { "command": ["sh", "-c", "sleep 2"] } })),
            hooked("sleep", json!({ "sleep": { "seconds": 2 } })),
            hooked("http", json!({ "httpGet": { "port": 9 } })),
        ]);
        case.create_process_pod("hooked", pod("", 30, json!({ "spec": { "containers": containers } }))).await;
        case.create_process_pod("patient", pod("trap '' TERM; while :; do sleep 0.1; done", 600, json!({}))).await;
        case.create_process_pod("forced", pod("trap '' TERM; while :; do sleep 0.1; done", 600, json!({}))).await;
        for name in ["hooked", "patient", "forced"] {
            is_ready_soon(case, name).await;
        }
        let deleted = Instant::now();
        for name in ["hooked", "patient"] {
            case.pods().delete(name, &DeleteParams::default()).await.unwrap();
        }
        case.pods().delete("forced", &DeleteParams::default().grace_period(0)).await.unwrap();
        case.pod_goes("hooked", SOON).await;
        let told = kubelet.ledger().of("hooked");
        let is_signal = |what: &What| *what == What::Signalled(15, Why::Deleted);
        let signalled = |container: &str| at(&told, container, is_signal).moment - deleted;
        for container in ["exec", "sleep"] {
            assert!(signalled(container) >= Duration::from_secs(2), "{told:#?}");
        }
        at(&told, "http", |what| matches!(what, What::Failed(said) if said.contains(":9")));

        sleep(Duration::from_secs(1)).await;
        let shortened = Instant::now();
        case.pods().delete("patient", &DeleteParams::default().grace_period(2)).await.unwrap();
        case.pod_goes("patient", SOON).await;
        let signals = kubelet.ledger().signals("patient");
        let [term, kill] = &signals[..] else { panic!("{signals:#?}") };
        assert_eq!((&term.what, &kill.what), (&What::Signalled(15, Why::Deleted), &What::Signalled(9, Why::GraceOver)));
        let waited = kill.moment - shortened;
        // The API server counts from the first deletion, and leaves a second where nothing is left of the grace.
        assert!((Duration::from_millis(900)..Duration::from_secs(1) + LATE).contains(&waited), "{waited:?}");
        eventually("what was deleted by force ends", SOON, async || {
            let told = kubelet.ledger().of("forced");
            if told.iter().any(|entry| ended(&entry.what)) { Ok(()) } else { Err(format!("{told:#?}")) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_kubelet_that_starts_anew_signals_what_is_ending_once_more() {
    process_case("kubelet-again", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(1, IMAGES, |_| {}).await;
        let second = "n=0; trap 'n=$((n+1))' TERM; while ((n < 2)); do sleep 0.1; done; exit 7";
        case.create_process_pod("ending", pod(second, 600, json!({}))).await;
        case.create_process_pod("staying", pod(second, 600, json!({}))).await;
        for name in ["ending", "staying"] {
            is_ready_soon(case, name).await;
        }
        sleep(Duration::from_secs(1)).await;
        case.pods().delete("ending", &DeleteParams::default()).await.unwrap();
        eventually("the first signal is sent", SOON, async || {
            if kubelet.ledger().signals("ending").len() == 1 { Ok(()) } else { Err(String::new()) }
        })
        .await;
        sleep(Duration::from_secs(1)).await;
        kubelet.restart();
        case.pod_goes("ending", SOON).await;
        let signals: Vec<What> = kubelet.ledger().signals("ending").into_iter().map(|entry| entry.what).collect();
        assert_eq!(signals, [What::Signalled(15, Why::Deleted), What::Signalled(15, Why::SignalledAgain)]);
        assert_eq!(at(&kubelet.ledger().of("ending"), "main", ended).what, What::Ended(Ending::Exit(7)));
        assert_eq!(kubelet.ledger().signals("staying").len(), 0);
    })
    .await;
}

async fn deployment(case: &Case, name: &str, replicas: u32, containers: Value) {
    let template = json!({ "metadata": { "labels": { "of": name } }, "spec": {
        "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 20, "containers": containers,
    } });
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "of": name } }, "template": case.on_processes(template) },
    }))
    .unwrap();
    case.deployments().create(&PostParams::default(), &deployment).await.unwrap();
}

async fn ready_pods(case: &Case, name: &str, number: usize, within: Duration) -> Vec<Pod> {
    eventually(&format!("{name} has {number} ready pods"), within, async || {
        let mut pods = case.pods().list(&ListParams::default().labels(&format!("of={name}"))).await.unwrap().items;
        pods.retain(is_ready);
        if pods.len() == number { Ok(pods) } else { Err(format!("{} are ready", pods.len())) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_node_that_vanishes_takes_its_processes_along_and_its_pods_are_replaced() {
    process_case("kubelet-vanishes", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(2, IMAGES, |_| {}).await;
        let script = "setsid sleep 1000 & trap 'exit 0' TERM; while :; do sleep 0.2; done";
        deployment(case, "spread", 6, json!([{ "name": "main", "image": "bash", "args": [script] }])).await;
        let pods = ready_pods(case, "spread", 6, SOON).await;
        let (first, second) = (case.process_node(1), case.process_node(2));
        let on = |pod: &Pod, node: &str| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        let lost: Vec<String> = pods.iter().filter(|pod| on(pod, &first)).map(ResourceExt::name_any).collect();
        let kept: Vec<String> = pods.iter().filter(|pod| on(pod, &second)).map(ResourceExt::name_any).collect();
        assert!(!lost.is_empty() && !kept.is_empty(), "{lost:?} {kept:?}");
        let pid = |pod: &String| at(&kubelet.ledger().of(pod), "main", started).pid.unwrap();
        assert!(lost.iter().chain(&kept).map(pid).all(is_alive));
        kubelet.lose(&first).await;
        assert!(!lost.iter().map(pid).any(is_alive), "they die with their node");
        assert!(kept.iter().map(pid).all(is_alive));
        for name in &lost {
            let signals: Vec<What> = kubelet.ledger().signals(name).into_iter().map(|entry| entry.what).collect();
            assert_eq!(signals, [What::Signalled(9, Why::PowerCut)]);
            assert!(case.pods().get(name).await.is_ok(), "nobody has said yet that it is gone");
        }
        // The collection of pods without a node takes the better part of a minute to believe it.
        for name in &lost {
            case.pod_goes(name, Duration::from_mins(2)).await;
        }
        let pods = ready_pods(case, "spread", 6, SOON).await;
        assert!(pods.iter().all(|pod| on(pod, &second)));
        assert!(kept.iter().all(|name| kubelet.ledger().signals(name).is_empty()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn each_pod_has_an_address_of_its_own_and_listens_there() {
    process_case("kubelet-addresses", 1, DEADLINE, async |case| {
        let _kubelet = case.process_kubelet(2, IMAGES, |_| {}).await;
        let server = "import http.server as h, os\n\
                      h.HTTPServer((os.environ['IP'], 8081), h.SimpleHTTPRequestHandler).serve_forever()";
        let ip = json!([{ "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }]);
        let container = json!([{ "name": "main", "image": "python", "args": [server], "env": ip, "workingDir": "/etc",
                                 "readinessProbe": { "httpGet": { "path": "/hostname", "port": 8081 }, "periodSeconds": 1 } }]);
        deployment(case, "listening", 8, container).await;
        let pods = ready_pods(case, "listening", 8, Duration::from_mins(1)).await;
        let addresses: BTreeSet<String> =
            pods.iter().map(|pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap()).collect();
        assert_eq!(addresses.len(), 8, "{addresses:?}");
        for address in addresses {
            assert!(address.starts_with("127."), "{address}");
            assert_eq!(reqwest::get(format!("http://{address}:8081/hostname")).await.unwrap().status(), 200);
            assert!(reqwest::get(format!("http://{address}:8082/")).await.is_err());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn nodes_have_the_labels_taints_and_room_that_were_asked_for() {
    process_case("kubelet-nodes", 1, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(0, IMAGES, |_| {}).await;
        let small = case.node_spec(1).label("e2e/size", "small").capacity("pods", "1");
        kubelet.add_node(&small).await;
        kubelet.add_node(&case.node_spec(2).label("e2e/size", "large")).await;
        kubelet.add_node(&case.node_spec(3).label("e2e/size", "large").taint("e2e/nobody", "comes-here")).await;
        let wants = |size: &str| pod("exec sleep 1000", 1, json!({ "spec": { "nodeSelector": { "e2e/size": size } } }));
        for (name, size) in [("first", "small"), ("one", "large"), ("two", "large"), ("three", "large")] {
            case.create_process_pod(name, wants(size)).await;
            is_ready_soon(case, name).await;
            let bound = case.pods().get(name).await.unwrap().spec.unwrap().node_name;
            assert_eq!(bound, Some(case.process_node(if size == "small" { 1 } else { 2 })), "{name}");
        }
        case.create_process_pod("second", wants("small")).await;
        let pod =
            case.pod_becomes("second", "does not fit", SOON, |pod| pod_condition(pod, "PodScheduled") == "False").await;
        assert!(pod["spec"]["nodeName"].is_null(), "{pod}");
        case.pods().delete("first", &DeleteParams::default()).await.unwrap();
        is_ready_soon(case, "second").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn two_hundred_pods_run_end_and_leave_nothing_behind() {
    process_case("kubelet-many", 3, DEADLINE, async |case| {
        let kubelet = case.process_kubelet(2, IMAGES, |_| {}).await;
        let began = Instant::now();
        let script = "trap 'exit 0' TERM; sleep 1000 & wait";
        deployment(case, "many", 200, json!([{ "name": "main", "image": "bash", "args": [script] }])).await;
        let pods = ready_pods(case, "many", 200, Duration::from_mins(2)).await;
        let addresses: BTreeSet<_> = pods.iter().map(|pod| pod.status.as_ref().unwrap().pod_ip.clone()).collect();
        assert_eq!(addresses.len(), 200);
        println!("200 pods ready after {:?}", began.elapsed());
        let ending = Instant::now();
        case.scale_by_hand("many", 20, "a-person").await;
        ready_pods(case, "many", 20, SOON).await;
        eventually("the others go", Duration::from_mins(1), async || {
            let pods = case.pods().list(&ListParams::default().labels("of=many")).await.unwrap().items.len();
            if pods == 20 { Ok(()) } else { Err(format!("{pods} pods")) }
        })
        .await;
        println!("180 of them gone after {:?}", ending.elapsed());
        let entries = kubelet.ledger().entries();
        let count = |is_meant: fn(&What) -> bool| entries.iter().filter(|entry| is_meant(&entry.what)).count();
        assert_eq!(count(started), 200);
        assert_eq!(count(|what| *what == What::Signalled(15, Why::Deleted)), 180);
        assert_eq!(count(|what| *what == What::Ended(Ending::Exit(0))), 180);
        let processes: Vec<i32> =
            entries.iter().filter(|entry| started(&entry.what)).filter_map(|entry| entry.pid).collect();
        assert_eq!(processes.iter().filter(|pid| is_alive(**pid)).count(), 20);
        drop(kubelet);
        eventually("nothing is left", SOON, async || {
            let left = processes.iter().filter(|pid| is_alive(**pid)).count();
            if left == 0 { Ok(()) } else { Err(format!("{left} processes")) }
        })
        .await;
    })
    .await;
}

/// Set in the program that is to be killed: where it says which process it holds.
const HELD: &str = "KITEPOOL_E2E_HELD";

/// Holds a container on a node for ever, and says which process it is.
async fn hold(folder: &std::path::Path) {
    let machine = crate::process_kubelet::machine::Machine::start(&folder.join("root"), &[]).unwrap();
    let program = Program {
        host_name: "held".to_owned(),
        identity: Identity::default(),
        directory: "/".to_owned(),
        mounts: Vec::new(),
        environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        command: ["bash", "-c", "trap '' TERM HUP; setsid sleep 1000 & wait"].map(ToOwned::to_owned).into(),
        log: folder.join("log"),
    };
    let (running, _watched) = launch(machine.first, program).await.unwrap();
    std::fs::write(folder.join("held"), running.pid().unwrap().to_string()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs to be root: tests/e2e/run"]
async fn a_program_that_is_killed_leaves_no_process_behind() {
    if let Some(folder) = std::env::var_os(HELD) {
        return hold(folder.as_ref()).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "cases::kubelet_ends::a_program_that_is_killed_leaves_no_process_behind";
    let mut program = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", name])
        .env(HELD, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let held = eventually("a process is held", SOON, async || {
        let held = std::fs::read_to_string(folder.path().join("held")).unwrap_or_default();
        held.parse::<i32>().map_err(|error| error.to_string())
    })
    .await;
    let child = only_child(held).expect("what it has started");
    assert!(is_alive(held) && is_alive(child));
    program.kill().unwrap();
    program.wait().unwrap();
    eventually("nothing is left", SOON, async || {
        if is_alive(held) || is_alive(child) { Err(format!("{held} or {child}")) } else { Ok(()) }
    })
    .await;
}
