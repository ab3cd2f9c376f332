//! Simulated agents: each ready pod of a queue counts as connected at the simulated Buildkite, `agentsPerPod` times.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::watcher::{self, Event},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{deployments::is_ready, simulated_buildkite::Registry};

/// The queue of a pod: our label, or this one, which a case puts on pods that a pool adopts.
const QUEUE_LABEL: &str = "kitepool.dev/queue";
pub(crate) const FOREIGN_QUEUE_LABEL: &str = "e2e/queue";

/// A running simulation; it ends when it is dropped.
pub(crate) struct SimulatedAgents {
    _ends: DropGuard,
}

impl SimulatedAgents {
    /// Connects the agents of one namespace.
    pub(crate) fn start(client: Client, namespace: &str, registry: Registry) -> Self {
        let end = CancellationToken::new();
        let pods = Api::namespaced(client, namespace);
        tokio::spawn(end.clone().run_until_cancelled_owned(follow(pods, registry)));
        Self { _ends: end.drop_guard() }
    }
}

async fn follow(pods: Api<Pod>, registry: Registry) {
    let mut events = pin!(watcher::watcher(pods, watcher::Config::default()));
    let mut workers: BTreeMap<String, (String, u32)> = BTreeMap::new();
    let mut incoming = None;
    while let Some(event) = events.next().await {
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
            Ok(Event::Delete(pod)) => drop(workers.remove(&pod.name_any())),
            Err(_away) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        }
        if incoming.is_none() {
            let mut connected = BTreeMap::new();
            for (queue, agents) in workers.values() {
                *connected.entry(queue.clone()).or_insert(0) += agents;
            }
            registry.connect(connected);
        }
    }
}

/// The pod's name, queue and agents, if its agents are connected. A draining one without a job leaves at once.
fn worker(pod: &Pod) -> Option<(String, (String, u32))> {
    let queue = pod.labels().get(QUEUE_LABEL).or_else(|| pod.labels().get(FOREIGN_QUEUE_LABEL))?;
    is_ready(pod).then(|| (pod.name_any(), (queue.clone(), spawned(pod))))
}

/// What the pod's environment says.
fn spawned(pod: &Pod) -> u32 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut environment = containers.flat_map(|container| container.env.iter().flatten());
    let spawn = environment.find(|variable| variable.name == "BUILDKITE_AGENT_SPAWN");
    spawn.and_then(|variable| variable.value.as_deref()).and_then(|value| value.parse().ok()).unwrap_or(1)
}
