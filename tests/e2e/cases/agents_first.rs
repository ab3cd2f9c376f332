//! Real agents behind the first process: a second signal that is nobody's wish costs no job, and nothing else changes.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kitepool_world::buildkite::{End, JobId};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{SHRINKS, SOON};
use crate::{
    harness::{
        Case,
        agents::{AGENT, Agents, FIRST_IMAGE, NEXT_FIRST_IMAGE, QUEUE},
        case,
        case::Replica,
        eventually,
        pools::{DEFINITION, pool, with},
        processes::process_case,
    },
    process_kubelet::ledger::{Ending, What, Why},
};

const DEADLINE: Duration = Duration::from_mins(5);

/// From one signal to the next: an agent that took the second to heart would be gone by then.
const PAUSE: Duration = Duration::from_secs(3);

async fn replica(case: &Case, agents: &Agents<'_>, image: &str) -> Replica {
    case.replica_against_with(&agents.endpoint(), &["--first-image", image]).await
}

/// The pod whose agent runs the job.
fn pod_of(agents: &Agents<'_>, job: JobId) -> String {
    let attempts = agents.record(job).attempts;
    attempts.last().and_then(|last| last.hostname.clone()).expect("its pod")
}

/// A person deletes the pod, and its kubelet starts anew so often; each time it signals.
async fn signal_again(case: &Case, agents: &Agents<'_>, pod: &str, restarts: usize) {
    case.pods().delete(pod, &DeleteParams::default()).await.expect("a person may delete a pod");
    for sent in 1..=restarts + 1 {
        eventually(&format!("signal {sent}"), SOON, async || {
            let signals = agents.kubelet.ledger().signals(pod).len();
            if signals == sent { Ok(()) } else { Err(format!("{signals}")) }
        })
        .await;
        sleep(PAUSE).await;
        if sent <= restarts {
            agents.kubelet.restart();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_kubelet_that_starts_anew_and_signals_again_costs_no_job_behind_the_first_process() {
    process_case("agents-first", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let _replica = replica(case, &agents, FIRST_IMAGE).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        let jobs = agents.submit(1, 25);
        agents.run(1, SOON * 2).await;
        let pod = pod_of(&agents, jobs[0]);
        signal_again(case, &agents, &pod, 2).await;
        assert_eq!(agents.record(jobs[0]).end, None, "it runs on: {:#?}", agents.record(jobs[0]));
        let log = agents.kubelet.output(&pod, AGENT, 0);
        agents.all_end(SOON * 2).await;
        case.pod_goes(&pod, SOON).await;
        let told = agents.kubelet.ledger().of(&pod);
        let signals: Vec<What> = agents.kubelet.ledger().signals(&pod).into_iter().map(|entry| entry.what).collect();
        let again = What::Signalled(15, Why::SignalledAgain);
        assert_eq!(signals, [What::Signalled(15, Why::Deleted), again.clone(), again], "{told:#?}");
        agents.ran_once(|_, _| true);
        let ends: Vec<&What> = told.iter().filter(|entry| entry.container == AGENT).map(|entry| &entry.what).collect();
        assert_eq!(ends.last(), Some(&&What::Ended(Ending::Exit(0))), "{told:#?}");
        assert_eq!(log.matches("SIGTERM passed on").count(), 1, "{log}");
        assert_eq!(log.matches("SIGTERM withheld").count(), 2, "{log}");
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.all_leave(SOON * 2).await;
        agents.tell("the job came to its end after three signals");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_definition_that_declines_the_first_process_loses_its_job_to_the_second_signal() {
    process_case("agents-declined", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let wish = json!({ "metadata": { "annotations": { "kitepool.dev/second-signal": "Forward" } } });
        case.define(DEFINITION, with(agents.definition(), wish)).await;
        let _replica = replica(case, &agents, FIRST_IMAGE).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        let jobs = agents.submit(1, 300);
        agents.run(1, SOON * 2).await;
        assert_eq!(first_process_of(case).await, ["Declined"]);
        let pod = pod_of(&agents, jobs[0]);
        signal_again(case, &agents, &pod, 1).await;
        case.pod_goes(&pod, SOON).await;
        let record = agents.record(jobs[0]);
        assert_eq!((record.end, agents.marks(0)), (Some(End::Killed), 0), "{record:#?}");
        assert_eq!(record.signal_reason.as_deref(), Some("agent_stop"), "{record:#?}");
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
    })
    .await;
}

/// What the pool's Deployments say of the first process, by their age.
async fn first_process_of(case: &Case) -> Vec<String> {
    let word = |deployment: &Deployment| {
        let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
        annotations.get("kitepool.dev/first-process").cloned().unwrap_or_default()
    };
    case.generations(QUEUE).await.iter().map(word).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn another_image_of_the_first_process_touches_no_agent_and_a_changed_definition_rolls_idle_first() {
    process_case("agents-first-image", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let mut replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "min": 2 } } }))).await;
        case.reaches(QUEUE, 2, SOON * 2).await;
        let before = case.generations(QUEUE).await;
        assert_eq!(first_process_of(case).await, ["NoImage"]);
        for image in [FIRST_IMAGE, NEXT_FIRST_IMAGE] {
            replica.start_again_with(&["--first-image", image]);
            case.keeps(QUEUE, 2..=2, Duration::from_secs(8)).await;
            let now = case.generations(QUEUE).await;
            assert_eq!(now.len(), 1);
            assert_eq!(now[0].metadata.uid, before[0].metadata.uid);
            assert_eq!(now[0].metadata.generation, before[0].metadata.generation, "its template is as it was");
        }
        // Busy through all of the change.
        agents.submit(2, 20);
        agents.run(2, SOON).await;
        let changed = json!({ "metadata": { "labels": { "e2e/version": "2" } } });
        case.define(DEFINITION, with(agents.definition(), changed)).await;
        let began = Instant::now();
        agents.all_end(SOON * 3).await;
        agents.submit(4, 2);
        agents.all_end(SOON * 3).await;
        eventually("the old generation is gone", SHRINKS * 2, async || {
            let words = first_process_of(case).await;
            if words == ["Added"] { Ok(()) } else { Err(format!("{words:?}")) }
        })
        .await;
        let images = images_of(&case.generations(QUEUE).await[0]);
        assert_eq!(images, [NEXT_FIRST_IMAGE.to_owned()]);
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        agents.tell(&format!("rolled within {:.1?}", began.elapsed()));
    })
    .await;
}

/// The images of the init containers of a Deployment's pods.
fn images_of(deployment: &Deployment) -> Vec<String> {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let init = pod.and_then(|pod| pod.init_containers.clone()).unwrap_or_default();
    init.into_iter().filter_map(|init| init.image).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_definition_without_a_command_runs_without_the_first_process_and_says_so() {
    process_case("agents-no-command", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let mut silent = agents.definition();
        silent["spec"]["containers"][0].as_object_mut().expect("a container").remove("command");
        case.define(DEFINITION, silent).await;
        let _replica = replica(case, &agents, FIRST_IMAGE).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        agents.submit(1, 2);
        agents.all_end(SOON * 3).await;
        agents.ran_once(|_, _| true);
        assert_eq!(first_process_of(case).await, ["NoCommand"]);
        let events = case.events(QUEUE).await;
        let is_told =
            |(reason, note): &(String, String)| reason == "GenerationCreated" && note.contains("has no `command`");
        assert!(events.iter().any(is_told), "{events:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn agents_behind_the_first_process_come_work_and_go_as_others_do() {
    process_case("agents-first-load", 2, DEADLINE, async |case| {
        let agents = Agents::start(case, 2, |_| {}).await;
        let _replica = replica(case, &agents, FIRST_IMAGE).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        for seconds in [1, 8, 3] {
            agents.submit(8, seconds);
            agents.all_end(SOON * 4).await;
        }
        case.reaches(QUEUE, 0, SHRINKS * 3).await;
        agents.all_leave(SOON * 2).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        let entries = agents.kubelet.ledger().entries();
        let pods = |container: &str| {
            let of = entries.iter().filter(|entry| entry.container == container && entry.what == What::Started);
            of.map(|entry| entry.pod.clone()).collect::<std::collections::BTreeSet<_>>()
        };
        let copied = pods("kitepool-first");
        assert!(pods(AGENT).is_subset(&copied) && !copied.is_empty(), "{entries:#?}");
        agents.tell(&format!("{} pods had the first process", copied.len()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn pods_of_the_library_with_the_first_process_pass_the_restricted_standard() {
    case("first-restricted", DEADLINE, async |case| {
        let namespaces: Api<Namespace> = Api::all(case.admin.clone());
        let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        namespaces.patch(&case.namespace, &PatchParams::default(), &patch).await.expect("a label");
        let library = include_str!("../../../pod-library/basic.yaml");
        let mut definition: Value = serde_saphyr::from_str(library).expect("a definition");
        case.define(DEFINITION, definition["template"].take()).await;
        let flags = ["--first-image", FIRST_IMAGE, "--first-pull-secret", "registry"];
        let _replica = case.replica("a", &flags).await;
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "min": 2 } } }))).await;
        eventually("two pods are let in", SOON, async || {
            let pods = case.pods_of(QUEUE).await;
            if pods.len() == 2 {
                Ok(())
            } else {
                Err(format!("{} pods: {:?}", pods.len(), case.generations(QUEUE).await))
            }
        })
        .await;
        for pod in case.pods_of(QUEUE).await {
            let spec = serde_json::to_value(pod.spec).expect("a spec");
            assert_eq!(spec["initContainers"][0]["name"], "kitepool-first");
            assert_eq!(spec["containers"][0]["command"][2], "buildkite-agent-entrypoint");
            assert_eq!(spec["imagePullSecrets"][0]["name"], "registry");
        }
    })
    .await;
}
