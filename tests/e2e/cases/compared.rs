//! The same jobs for Kitepool and for what people do without it: a script that scales to the number of jobs, and a
//! `HorizontalPodAutoscaler`. All three at the same time, with the same agents on the same machine.
//!
//! What the others have of Kitepool is the pod: one signal that lets a job be finished, and nothing before it that kills. What they
//! have of Kubernetes is the grace period that a pod has which says nothing: thirty seconds.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use kitepool_world::buildkite::{End, JobRecord, PickUp, Spread};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::{SHRINKS, SOON};
use crate::{
    harness::{
        Case,
        agents::{Agents, CLUSTER},
        deployments::{GENERATION_LABEL, POOL_LABEL, replicas},
        eventually,
        jobs_metric::{JobsMetric, METRIC},
        pools::{pool, with},
        processes::process_case,
        stream::{Shape, Stream},
    },
    process_kubelet::ledger::{Entry, What, Why},
};

/// The queues, each named by what scales its agents.
const KITEPOOL: &str = "kitepool";
const SCRIPT: &str = "script";
const HPA: &str = "hpa";

/// Jobs come for so long; `KITEPOOL_E2E_LOAD_SECONDS` asks for longer.
const LOAD_SECS: u64 = 360;
/// The last long job is over so long after the last wave.
const AFTERWARDS: Duration = Duration::from_mins(3);
/// One job in seven is long, so that some are running whenever something shrinks.
const LONG_PERMILLE: u32 = 150;
const WAVE: u32 = 8;
/// More than ever have work.
const MAX: u32 = 24;

/// How often the script looks.
const SCRIPT_EVERY: Duration = Duration::from_secs(10);
/// What the autoscaler waits for before it takes away. Its default of five minutes is longer than the whole load.
const HPA_WINDOW_SECS: u32 = 15;

/// A Deployment of the pods that Kitepool made for its queue, for another queue, with the grace period of those that set none.
fn control(model: &Deployment, queue: &str) -> Deployment {
    let mut template = serde_json::to_value(&model.spec.as_ref().expect("a spec").template).expect("JSON");
    rename(&mut template, queue);
    template["metadata"]["labels"] = json!({ "control": queue });
    template["metadata"]["annotations"] = Value::Null;
    template["spec"]["terminationGracePeriodSeconds"] = Value::Null;
    serde_json::from_value(json!({
        "metadata": { "name": queue, "labels": { "control": queue } },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "control": queue } }, "template": template },
    }))
    .expect("a Deployment")
}

/// Another queue in the environment of the containers.
fn rename(template: &mut Value, queue: &str) {
    for container in template["spec"]["containers"].as_array_mut().expect("containers") {
        for variable in container["env"].as_array_mut().into_iter().flatten() {
            if let Some(value) = variable["value"].as_str().filter(|value| value.contains(&format!("queue={KITEPOOL}")))
            {
                variable["value"] = json!(value.replace(&format!("queue={KITEPOOL}"), &format!("queue={queue}")));
            }
        }
    }
}

fn jobs_of(agents: &Agents<'_>, queue: &str) -> u32 {
    let load = agents.world.with(|buildkite| buildkite.load(CLUSTER, queue));
    load.scheduled + load.running
}

/// What `kubectl scale` in a loop does. Never ends.
async fn scale_by_script(case: &Case, agents: &Agents<'_>) {
    loop {
        let wanted = i32::try_from(jobs_of(agents, SCRIPT).clamp(1, MAX)).expect("small");
        let stands = replicas(&case.deployments().get(SCRIPT).await.expect("the Deployment"));
        if wanted != stands {
            let patch = Patch::Merge(json!({ "spec": { "replicas": wanted } }));
            case.deployments().patch_scale(SCRIPT, &PatchParams::default(), &patch).await.expect("it can be scaled");
        }
        sleep(SCRIPT_EVERY).await;
    }
}

async fn autoscale(case: &Case) {
    let kind = GroupVersionKind::gvk("autoscaling", "v2", "HorizontalPodAutoscaler");
    let autoscalers: Api<DynamicObject> =
        Api::namespaced_with(case.admin.clone(), &case.namespace, &ApiResource::from_gvk(&kind));
    let autoscaler: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": HPA },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": HPA },
            "minReplicas": 1, "maxReplicas": MAX,
            "metrics": [{ "type": "External", "external": {
                "metric": { "name": METRIC, "selector": { "matchLabels": { "queue": HPA } } },
                "target": { "type": "AverageValue", "averageValue": "1" },
            } }],
            "behavior": { "scaleDown": { "stabilizationWindowSeconds": HPA_WINDOW_SECS } },
        },
    }))
    .expect("an autoscaler");
    autoscalers.create(&PostParams::default(), &autoscaler).await.expect("it is taken");
    eventually("the autoscaler has its metric", SOON * 3, async || {
        let seen = autoscalers.get(HPA).await.map_err(|error| error.to_string())?;
        let conditions = seen.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let active = conditions.iter().find(|condition| condition["type"] == "ScalingActive");
        if active.is_some_and(|active| active["status"] == "True") { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
}

/// What came of the jobs of one queue, and of its agents.
#[derive(Debug, Default)]
struct Outcome {
    jobs: usize,
    passed: usize,
    /// Ended by their agent's end.
    killed: usize,
    stranded: usize,
    taken_away: usize,
    /// Agents that were told to leave while they had a job.
    busy: usize,
    /// From the signal to the end, over all agents: paid for, and nobody can give them a job.
    draining: Duration,
    /// From start to end, over all agents.
    alive: Duration,
    waits: Vec<f64>,
}

impl Outcome {
    fn of(agents: &Agents<'_>, queue: &str) -> Self {
        let mut outcome = Self::default();
        for record in agents.records().iter().filter(|record| record.queue == queue) {
            outcome.add_job(record);
        }
        let during = agents.signalled_during();
        outcome.busy = during.iter().filter(|record| record.queue == queue).count();
        let of_queue = |pod: &str| pod.strip_prefix(queue).is_some_and(|rest| rest.starts_with('-'));
        for (_, told) in agents.kubelet.ledger().by_pod().iter().filter(|(pod, _)| of_queue(pod)) {
            outcome.add_pod(told);
        }
        outcome.waits.sort_by(f64::total_cmp);
        outcome
    }

    fn add_job(&mut self, record: &JobRecord) {
        self.jobs += 1;
        self.passed += usize::from(record.end == Some(End::Passed));
        self.killed += usize::from(matches!(record.end, Some(End::Killed | End::Lost | End::Failed)));
        self.stranded += usize::from(record.assignments > 1);
        let wait = record.started_at.zip(record.scheduled_at);
        self.waits.extend(wait.map(|(started, scheduled)| started.duration_since(scheduled).as_secs_f64()));
    }

    fn add_pod(&mut self, told: &[Entry]) {
        let first = |is_meant: &dyn Fn(&What) -> bool| told.iter().find(|entry| is_meant(&entry.what));
        let signal = first(&|what| *what == What::Signalled(15, Why::Deleted));
        let (start, end) = (first(&|what| *what == What::Started), first(&|what| matches!(what, What::Ended(_))));
        self.taken_away += usize::from(signal.is_some());
        let between = |from: Option<&Entry>| from.zip(end).map(|(from, end)| end.moment.duration_since(from.moment));
        self.draining += between(signal).unwrap_or_default();
        self.alive += between(start).unwrap_or_default();
    }

    /// The wait that so many of a hundred do not exceed.
    fn wait(&self, percent: usize) -> f64 {
        let index = (self.waits.len() * percent).div_ceil(100).saturating_sub(1);
        self.waits.get(index).copied().unwrap_or_default()
    }
}

/// In the form of the document.
fn table(outcomes: &BTreeMap<&str, Outcome>) -> String {
    let mut text = String::new();
    let mut row = |what: &str, value: &dyn Fn(&Outcome) -> String| {
        let cells: Vec<String> = [KITEPOOL, SCRIPT, HPA].iter().map(|queue| value(&outcomes[queue])).collect();
        writeln!(text, "| {what} | {} |", cells.join(" | ")).expect("a string takes everything");
    };
    row("jobs", &|outcome| outcome.jobs.to_string());
    row("jobs that came to their end", &|outcome| outcome.passed.to_string());
    row("jobs killed", &|outcome| outcome.killed.to_string());
    row("jobs that a leaving agent left to another", &|outcome| outcome.stranded.to_string());
    row("agents taken away", &|outcome| outcome.taken_away.to_string());
    row("of these busy when they were told", &|outcome| outcome.busy.to_string());
    row("agent-seconds on the way out", &|outcome| format!("{:.1}", outcome.draining.as_secs_f64()));
    row("agent-seconds in all", &|outcome| format!("{:.0}", outcome.alive.as_secs_f64()));
    for (what, percent) in [("median", 50), ("95th percentile", 95), ("longest", 100)] {
        row(&format!("wait for an agent, {what} (s)"), &|outcome| format!("{:.1}", outcome.wait(percent)));
    }
    format!("| | Kitepool | script | HPA |\n|---|---|---|---|\n{text}")
}

async fn submit(agents: &Agents<'_>, queue: &str, seed: u64, lasts: Duration) {
    let shape = Shape { largest: WAVE, long_permille: LONG_PERMILLE, over_by: lasts + AFTERWARDS };
    let began = Instant::now();
    // The same jobs in each queue: the stream is not named after it.
    for job in Stream::new(seed, "compared", shape).take_while(|job| job.at < lasts) {
        sleep_until(began + job.at).await;
        agents.submit_to(queue, job.seconds);
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn compared_with_a_script_and_an_autoscaler_kitepool_kills_no_job() {
    let seed = setting("KITEPOOL_E2E_SEED", 1);
    let ping = Duration::from_secs(setting("KITEPOOL_E2E_PING_SECONDS", 10));
    let lasts = Duration::from_secs(setting("KITEPOOL_E2E_LOAD_SECONDS", LOAD_SECS));
    process_case("compared", 4, lasts + AFTERWARDS + Duration::from_mins(8), async |case| {
        let agents = Agents::start(case, 2, |settings| {
            settings.pick_up = PickUp::Polling { interval: ping };
            // A killed agent's job is over that much sooner than with Buildkite, which waits for minutes.
            settings.noticing = Spread::Exactly(Duration::from_secs(20));
        })
        .await;
        let _replica = case.replica_for(&agents.endpoint(), false).await;
        case.history.bound(KITEPOOL, 0..=i32::try_from(MAX).expect("small"));
        let spec = json!({ "spec": { "scaling": { "min": 1, "max": MAX } } });
        case.create_pool(with(pool(KITEPOOL), spec)).await;
        case.reaches(KITEPOOL, 1, SOON * 2).await;
        let model = case.generations(KITEPOOL).await.remove(0);
        assert!(model.labels().contains_key(POOL_LABEL) && model.labels().contains_key(GENERATION_LABEL));
        for queue in [SCRIPT, HPA] {
            case.deployments().create(&PostParams::default(), &control(&model, queue)).await.expect("it is taken");
        }
        let world = agents.world.clone();
        let count = move |queue: &str| {
            let load = world.with(|buildkite| buildkite.load(CLUSTER, queue));
            load.scheduled + load.running
        };
        let metric = JobsMetric::start(&case.admin, &case.namespace, case.folder(), Arc::new(count)).await;
        autoscale(case).await;
        eventually("each has its first agent", SOON, async || {
            let connected = agents.world.with(|buildkite| buildkite.agents());
            if connected == 3 { Ok(()) } else { Err(format!("{connected}")) }
        })
        .await;

        let load = async {
            let [one, two, three] = [KITEPOOL, SCRIPT, HPA].map(|queue| submit(&agents, queue, seed, lasts));
            tokio::join!(one, two, three);
            agents.all_end(AFTERWARDS + Duration::from_mins(4)).await;
            // The last shrinks, as far as they go.
            sleep(SHRINKS).await;
        };
        tokio::select! {
            () = load => {}
            () = scale_by_script(case, &agents) => {}
            () = agents.carry_events() => {}
        }
        metric.end().await;

        let outcomes: BTreeMap<&str, Outcome> =
            [KITEPOOL, SCRIPT, HPA].into_iter().map(|queue| (queue, Outcome::of(&agents, queue))).collect();
        println!("compared: seed {seed}, a ping per {ping:?}, jobs for {lasts:?}\n{}", table(&outcomes));
        agents.ran_once(|_, record| record.queue == KITEPOOL);
        let ours = &outcomes[KITEPOOL];
        assert_eq!((ours.killed, ours.passed), (0, ours.jobs), "{ours:?}");
        for (queue, outcome) in &outcomes {
            assert!(outcome.jobs == ours.jobs && outcome.taken_away > 0, "{queue} had the same to do: {outcome:?}");
        }
    })
    .await;
}
