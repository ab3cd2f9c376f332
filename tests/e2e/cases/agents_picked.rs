//! Real agents that are picked although they are not idle, by somebody else's doing or by chance; and pods of several agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hyper::Method;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{SHRINKS, SOON};
use crate::{
    harness::{
        Case,
        agents::{Agents, QUEUE},
        case::Replica,
        disturbance::Treatment,
        eventually,
        pools::{pool, with},
        processes::process_case,
    },
    process_kubelet::ledger::{What, Why},
};

const DEADLINE: Duration = Duration::from_mins(6);

/// Longer than anybody needs to do something in between, and shorter than the controller waits for an answer.
const HELD_UP: Duration = Duration::from_secs(3);

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn is_scale(method: &Method, path: &str) -> bool {
    *method == Method::PATCH && path.contains("/scale")
}

fn is_status(method: &Method, path: &str) -> bool {
    *method == Method::PATCH && path.contains("/agentpools/") && path.contains("/status")
}

fn is_sign(method: &Method, path: &str) -> bool {
    *method == Method::PATCH && path.contains("/pods/")
}

/// The controller's count of agents that are gone, by cause.
pub(super) async fn gone(replica: &Replica) -> BTreeMap<String, u64> {
    let (_, metrics) = replica.controller.get("/metrics").await.expect("an answer");
    let series = metrics.lines().filter_map(|line| line.strip_prefix("kitepool_agents_gone_total{"));
    let mut causes = BTreeMap::new();
    for (labels, value) in series.filter_map(|line| line.split_once("} ")) {
        let cause = labels.split("cause=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a cause");
        *causes.entry(cause.to_owned()).or_default() += value.parse::<u64>().expect("a count");
    }
    causes.retain(|_, count| *count > 0);
    causes
}

/// The pods whose agents run a job.
fn busy_pods(agents: &Agents<'_>) -> BTreeSet<String> {
    let running = agents.records().into_iter().filter(|record| record.state == "running");
    running.filter_map(|record| record.attempts.last()?.hostname.clone()).collect()
}

/// Waits until the controller has begun to write something that lowers replicas.
async fn lowering(replica: &Replica, is_meant: impl Fn(&Value) -> bool, which: fn(&Method, &str) -> bool) {
    eventually("replicas are about to be lowered", SHRINKS * 2, async || {
        let meant = replica.proxy.latest(|record| {
            which(&record.method, &record.path)
                && serde_json::from_str(&record.body).is_ok_and(|body: Value| is_meant(&body))
        });
        meant.map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
}

async fn price(case: &Case, pod: &str, cost: i32) {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { COST: cost.to_string() } } }));
    case.pods().patch(pod, &PatchParams::default(), &patch).await.expect("a person may write on a pod");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_busy_agent_that_the_replica_set_takes_in_place_of_a_chosen_one_ends_its_job_and_is_told_of() {
    process_case("agents-hostile", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        agents.submit(3, 3);
        let long = agents.submit(3, 60);
        case.reaches(QUEUE, 6, SOON * 2).await;
        // Somebody else prices a busy pod down after the controller has looked for the last time: its scale is on the way.
        replica.proxy.treat(is_scale, Treatment::Delay(HELD_UP));
        lowering(&replica, |body| body[1]["value"].as_u64() < body[0]["value"].as_u64(), is_scale).await;
        replica.proxy.treat(is_sign, Treatment::Refuse);
        let victim = busy_pods(&agents).pop_first().expect("three run");
        price(case, &victim, i32::MIN).await;
        let signals = || agents.kubelet.ledger().signals(&victim).len();
        eventually("the real ReplicaSet takes the busy one", SOON, async || {
            if signals() == 1 { Ok(()) } else { Err("no signal".to_owned()) }
        })
        .await;
        replica.proxy.behave();
        assert!(busy_pods(&agents).contains(&victim), "its agent runs its job on");
        eventually("it is counted for what it is", SOON, async || {
            let gone = gone(&replica).await;
            if gone.get("not_chosen") == Some(&1) { Ok(()) } else { Err(format!("{gone:?}")) }
        })
        .await;
        agents.all_end(SOON * 5).await;
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.all_leave(SOON * 2).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        let during = agents.signalled_during();
        assert_eq!(
            during.iter().map(|record| record.attempts.last()?.hostname.as_ref()).collect::<Vec<_>>(),
            [Some(&victim)]
        );
        assert!(long.iter().any(|job| agents.record(*job).uuid == during[0].uuid), "it was a long one");
        let gone = gone(&replica).await;
        assert_eq!(gone.keys().collect::<Vec<_>>(), ["chosen", "not_chosen"], "{gone:?}");
        agents.tell(&format!("a busy agent was taken by force and ended its job; gone by cause: {gone:?}"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn an_agent_that_finds_work_between_the_decision_and_the_write_is_not_taken() {
    process_case("agents-last", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        agents.submit(3, 3);
        case.reaches(QUEUE, 3, SOON * 2).await;
        // The intent is decided and on its way; whoever finds work while it is written down was asked for the last time before.
        replica.proxy.treat(is_status, Treatment::Delay(HELD_UP));
        let is_intent = |body: &Value| {
            let asked = body[1]["value"]["memory"]["asked"].as_object().cloned().unwrap_or_default();
            asked.values().any(|asked| asked["to"].as_u64() < asked["from"].as_u64())
        };
        lowering(&replica, is_intent, is_status).await;
        agents.submit(1, 20);
        agents.run(1, HELD_UP).await;
        let busy = busy_pods(&agents).pop_first().expect("one runs");
        sleep(HELD_UP * 2).await;
        replica.proxy.behave();
        assert_eq!(agents.kubelet.ledger().count(|what| matches!(what, What::Signalled(..))), 0, "nobody was taken");
        let log = std::fs::read_to_string(case.log("a")).expect("the log");
        assert!(log.contains("a pod that was to go has found work"), "the last word was heard");
        case.reaches(QUEUE, 1, SHRINKS).await;
        agents.all_end(SOON * 2).await;
        assert!(agents.signalled_during().is_empty());
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.all_leave(SOON * 2).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        assert_eq!(agents.kubelet.ledger().signals(&busy).len(), 1, "it went in the end");
        assert_eq!(gone(&replica).await, BTreeMap::from([("chosen".to_owned(), 3)]));
        agents.tell("an agent that found work in the last moment was let go, and the others went");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_pod_of_two_real_agents_of_which_one_is_busy_stays() {
    process_case("agents-two", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "agentsPerPod": 2 } }))).await;
        agents.submit(3, 3);
        agents.submit(1, 60);
        case.reaches(QUEUE, 2, SOON * 2).await;
        agents.run(1, SOON * 2).await;
        let busy = busy_pods(&agents).pop_first().expect("one runs");
        case.reaches(QUEUE, 1, SHRINKS).await;
        let left: Vec<String> = case.pods_of(QUEUE).await.iter().map(ResourceExt::name_any).collect();
        assert!(left.contains(&busy), "{busy} runs a job, {left:?} are left");
        assert_eq!(agents.connections().iter().filter(|agent| agent.hostname == busy).count(), 2, "it has two agents");
        // The idle agent beside it keeps nothing: it takes the next job.
        agents.submit(1, 2);
        agents.all_end(SOON * 4).await;
        assert!(agents.signalled_during().is_empty());
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.all_leave(SOON * 2).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        let told = agents.kubelet.ledger().count(|what| *what == What::Signalled(15, Why::Deleted));
        assert_eq!(told, 2, "two pods, one signal each");
        agents.tell("a pod of a busy and an idle agent stayed until both were idle");
    })
    .await;
}
