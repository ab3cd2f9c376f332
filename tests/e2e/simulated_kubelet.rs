//! A simulated kubelet: writes the status of bound pods as a kubelet would, and ends deleted ones. It runs nothing.
//!
//! ```text
//!  bound ──ready_after──► Running, Ready (or Unready, or CrashLooping)
//!  deletion timestamp ──drain──► deleted with a grace period of zero
//! ```

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::watcher::{self, Event},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What becomes of a pod once it is bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(dead_code, reason = "the demo shows the first only")]
pub(crate) enum Fate {
    /// It runs and is ready.
    #[default]
    Ready,
    /// It runs and never is ready.
    Unready,
    /// Its container ends again and again.
    CrashLooping,
}

/// How the kubelet behaves; may change while it runs, for pods that are bound or deleted after that.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    /// From binding to the first status.
    pub(crate) ready_after: Duration,
    /// From the deletion timestamp to the end: how long an agent finishes its job.
    pub(crate) drain: Duration,
    /// See [`Fate`].
    pub(crate) fate: Fate,
}

impl Default for Habits {
    fn default() -> Self {
        Self { ready_after: Duration::from_millis(500), drain: Duration::from_millis(500), fate: Fate::Ready }
    }
}

/// A running one; it ends when it is dropped.
pub(crate) struct SimulatedKubelet {
    habits: Arc<Mutex<Habits>>,
    _ends: DropGuard,
}

impl SimulatedKubelet {
    /// Looks after the pods of one namespace, those of earlier times included.
    pub(crate) fn start(client: Client, namespace: &str, habits: Habits) -> Self {
        let habits = Arc::new(Mutex::new(habits));
        let end = CancellationToken::new();
        let pods = Api::namespaced(client, namespace);
        tokio::spawn(end.clone().run_until_cancelled_owned(run(pods, Arc::clone(&habits))));
        Self { habits, _ends: end.drop_guard() }
    }

    /// Changes the habits.
    #[allow(dead_code, reason = "the demo keeps its habits")]
    pub(crate) fn learn(&self, change: impl FnOnce(&mut Habits)) {
        change(&mut locked(&self.habits));
    }
}

fn locked(habits: &Mutex<Habits>) -> MutexGuard<'_, Habits> {
    habits.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every address is given once. They are this machine's own, so that simulated agents can answer there, in a block that other
/// runs on this machine most probably do not use.
static NEXT_ADDRESS: AtomicU32 = AtomicU32::new(1);

async fn run(pods: Api<Pod>, habits: Arc<Mutex<Habits>>) {
    let mut events = pin!(watcher::watcher(pods.clone(), watcher::Config::default()));
    let (mut started, mut ending) = (BTreeSet::new(), BTreeSet::new());
    let mut work = JoinSet::new();
    while let Some(event) = events.next().await {
        while work.try_join_next().is_some() {}
        let pod = match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) if runs_processes(&pod) => continue,
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => pod,
            Ok(Event::Delete(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                started.remove(&uid);
                ending.remove(&uid);
                continue;
            }
            Ok(Event::Init | Event::InitDone) => continue,
            // The API server is away, perhaps on purpose. The watcher tries again when it is asked.
            Err(_away) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let uid = pod.uid().unwrap_or_default();
        let habits = locked(&habits).clone();
        if pod.metadata.deletion_timestamp.is_some() {
            if ending.insert(uid) {
                work.spawn(finish(pods.clone(), pod, habits.drain));
            }
        } else if is_bound(&pod) && !is_running(&pod) && started.insert(uid) {
            work.spawn(begin(pods.clone(), pod, habits));
        }
    }
}

/// Nodes whose name begins so have a kubelet that runs processes, and are left to it.
pub(crate) const NODES_OF_PROCESSES: &str = "process-";

fn runs_processes(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| node.starts_with(NODES_OF_PROCESSES))
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

async fn begin(pods: Api<Pod>, pod: Pod, habits: Habits) {
    tokio::time::sleep(habits.ready_after).await;
    let name = pod.name_any();
    let status = Patch::Strategic(json!({ "metadata": { "uid": pod.uid() }, "status": status(&pod, habits.fate) }));
    insist(|| {
        let (pods, name, status) = (pods.clone(), name.clone(), status.clone());
        async move { pods.patch_status(&name, &PatchParams::default(), &status).await.map(drop) }
    })
    .await;
}

async fn finish(pods: Api<Pod>, pod: Pod, drain: Duration) {
    tokio::time::sleep(drain).await;
    let name = pod.name_any();
    let same = Preconditions { uid: pod.uid(), resource_version: None };
    let at_once = DeleteParams::default().grace_period(0).preconditions(same);
    insist(|| {
        let (pods, name, at_once) = (pods.clone(), name.clone(), at_once.clone());
        async move { pods.delete(&name, &at_once).await.map(drop) }
    })
    .await;
}

/// Tries until the API server answers; a refusal is an answer, since the pod is gone or another one.
async fn insist<F: Future<Output = kube::Result<()>>>(attempt: impl Fn() -> F) {
    const ATTEMPTS: u32 = 100;
    for _ in 0..ATTEMPTS {
        match attempt().await {
            Ok(()) => return,
            Err(kube::Error::Api(refusal)) if refusal.code < 429 => return,
            Err(_away) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a kubelet stamps what it writes with the time of its machine")]
fn status(pod: &Pod, fate: Fate) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let is_ready = fate == Fate::Ready;
    let state = match fate {
        Fate::Ready | Fate::Unready => json!({ "running": { "startedAt": now } }),
        Fate::CrashLooping => {
            json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container" } })
        }
    };
    let restarts = if fate == Fate::CrashLooping { 5 } else { 0 };
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let containers: Vec<Value> = containers
        .iter()
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "simulated", "ready": is_ready,
                "started": is_ready, "restartCount": restarts, "state": state,
            })
        })
        .collect();
    let word = |is_so: bool| if is_so { "True" } else { "False" };
    let condition = |kind: &str, is_so: bool| json!({ "type": kind, "status": word(is_so), "lastTransitionTime": now });
    let [_, _, high, low] = NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let address = format!("127.{}.{high}.{low}", 20 + std::process::id() % 200);
    json!({
        "phase": "Running",
        "conditions": [
            condition("Initialized", true),
            condition("ContainersReady", is_ready),
            condition("Ready", is_ready),
        ],
        "hostIP": "127.0.0.1",
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "startTime": now,
        "containerStatuses": containers,
    })
}
