//! Simulated agents: each ready pod of a queue counts as connected at the simulated Buildkite, `agentsPerPod` times, and answers
//! `/status.json` on its own address. A job lasts a while with the pod that has it; the next one goes to the youngest that is free.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Json, Router, routing::get};
use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::watcher::{self, Event},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use super::{deployments::is_ready, simulated_buildkite::Registry};

/// The queue of a pod: our label, or this one, which a case puts on pods that a pool adopts.
const QUEUE_LABEL: &str = "kitepool.dev/queue";
pub(crate) const FOREIGN_QUEUE_LABEL: &str = "e2e/queue";

/// A running simulation; it ends when it is dropped.
pub(crate) struct SimulatedAgents {
    crew: Arc<Crew>,
    _ends: DropGuard,
}

impl SimulatedAgents {
    /// Connects the agents of one namespace.
    pub(crate) fn start(client: Client, namespace: &str, registry: Registry) -> Self {
        let end = CancellationToken::new();
        let pods = Api::namespaced(client, namespace);
        let crew = Arc::new(Crew { registry, state: Mutex::default() });
        tokio::spawn(end.clone().run_until_cancelled_owned(follow(pods, Arc::clone(&crew))));
        Self { crew, _ends: end.drop_guard() }
    }

    /// The pods whose agents have a job.
    pub(crate) fn busy(&self) -> BTreeSet<String> {
        let pods: Vec<String> = self.crew.state().workers.keys().cloned().collect();
        pods.into_iter().filter(|pod| self.crew.busy(pod) > 0).collect()
    }
}

/// Where the controller asks, as `src/pods/contract.rs` has it.
const HEALTH_PORT: u16 = 3901;

/// How long a job lasts. Loads say how many there are, not for how long; without an end none would ever leave an old generation.
const JOB: Duration = Duration::from_secs(15);

/// Which pods have jobs.
struct Crew {
    registry: Registry,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connected pods.
    workers: BTreeMap<String, Worker>,
    /// Agents with a job, and since when.
    busy: BTreeMap<String, (u32, Instant)>,
}

#[derive(Clone)]
struct Worker {
    queue: String,
    agents: u32,
    created_at: Option<Timestamp>,
}

impl Crew {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many agents of a pod have a job: those that had one keep it for its time, as far as there are jobs.
    fn busy(&self, pod: &str) -> u32 {
        let now = Instant::now();
        let mut state = self.state();
        let State { workers, busy } = &mut *state;
        let Some(Worker { queue, .. }) = workers.get(pod).cloned() else { return 0 };
        busy.retain(|pod, (_, since)| workers.contains_key(pod) && now.duration_since(*since) < JOB);
        let mut left = self.registry.running(&queue);
        let mut of_queue: Vec<(&String, &Worker)> = workers.iter().filter(|(_, of)| of.queue == queue).collect();
        of_queue.sort_by_key(|(pod, worker)| (Reverse(worker.created_at), *pod));
        for (pod, _) in &of_queue {
            if let Some((kept, _)) = busy.get_mut(*pod) {
                *kept = left.min(*kept);
                left -= *kept;
            }
        }
        for (pod, worker) in of_queue {
            let (agents, _) = busy.entry(pod.clone()).or_insert((0, now));
            let more = (worker.agents - *agents).min(left);
            *agents += more;
            left -= more;
        }
        busy.retain(|_, (agents, _)| *agents > 0);
        busy.get(pod).map_or(0, |(agents, _)| *agents)
    }

    fn status(&self, pod: &str, agents: u32) -> Value {
        let busy = self.busy(pod);
        let worker =
            |number| json!({ "status": if number < busy { "busy" } else { "idle" }, "spawn_index": number + 1 });
        let word = if busy > 0 { "busy" } else { "idle" };
        json!({ "health": "ok", "aggregate_status": word, "workers": (0..agents).map(worker).collect::<Vec<_>>() })
    }
}

/// Answers for a pod until it is dropped.
fn answer(crew: &Arc<Crew>, pod: &Pod) -> Option<AbortOnDropHandle<()>> {
    pod.labels().get(QUEUE_LABEL)?;
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
    let (crew, name, agents) = (Arc::clone(crew), pod.name_any(), spawned(pod));
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let Ok(listener) = TcpListener::bind((ip, HEALTH_PORT)).await else { return };
        let status = move || async move { Json(crew.status(&name, agents)) };
        drop(axum::serve(listener, Router::new().route("/status.json", get(status))).await);
    })))
}

async fn follow(pods: Api<Pod>, crew: Arc<Crew>) {
    let mut answering: BTreeMap<String, AbortOnDropHandle<()>> = BTreeMap::new();
    let mut events = pin!(watcher::watcher(pods, watcher::Config::default()));
    let mut workers: BTreeMap<String, Worker> = BTreeMap::new();
    let mut incoming = None;
    while let Some(event) = events.next().await {
        if let Ok(Event::InitApply(pod) | Event::Apply(pod)) = &event
            && is_ready(pod)
            && !answering.contains_key(&pod.name_any())
        {
            answering.extend(answer(&crew, pod).map(|task| (pod.name_any(), task)));
        }
        match event {
            Ok(Event::Init) => incoming = Some(BTreeMap::new()),
            Ok(Event::InitApply(pod)) => {
                if let Some(incoming) = &mut incoming {
                    incoming.extend(worker(&pod));
                }
            }
            Ok(Event::InitDone) => workers = incoming.take().unwrap_or_default(),
            Ok(Event::Apply(pod)) => {
                workers.remove(&pod.name_any());
                workers.extend(worker(&pod));
            }
            Ok(Event::Delete(pod)) => {
                workers.remove(&pod.name_any());
                answering.remove(&pod.name_any());
            }
            Err(_away) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        }
        if incoming.is_none() {
            let mut connected = BTreeMap::new();
            for Worker { queue, agents, .. } in workers.values() {
                *connected.entry(queue.clone()).or_insert(0) += agents;
            }
            crew.state().workers.clone_from(&workers);
            crew.registry.connect(connected);
        }
    }
}

/// The pod, if its agents are connected. A draining one without a job leaves at once.
fn worker(pod: &Pod) -> Option<(String, Worker)> {
    let queue = pod.labels().get(QUEUE_LABEL).or_else(|| pod.labels().get(FOREIGN_QUEUE_LABEL))?.clone();
    let created_at = pod.creation_timestamp().map(|time| time.0);
    is_ready(pod).then(|| (pod.name_any(), Worker { queue, agents: spawned(pod), created_at }))
}

/// What the pod's environment says.
fn spawned(pod: &Pod) -> u32 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut environment = containers.flat_map(|container| container.env.iter().flatten());
    let spawn = environment.find(|variable| variable.name == "BUILDKITE_AGENT_SPAWN");
    spawn.and_then(|variable| variable.value.as_deref()).and_then(|value| value.parse().ok()).unwrap_or(1)
}
