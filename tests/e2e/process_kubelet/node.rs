//! A node as the API server knows it, and what runs on it.

use std::{
    collections::BTreeMap,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::watcher::{self, Event},
};
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{
    ledger::{What, Why},
    machine::Machine,
    pod::{NodeContext, PodContext, live, now},
    settings::NodeSpec,
};

/// From a watch that broke to the next one.
const WATCH_AGAIN: Duration = Duration::from_millis(200);

/// The pods of a node by uid.
type Lives = BTreeMap<String, (Arc<PodContext>, JoinHandle<()>)>;
type Pods = Arc<Mutex<Lives>>;

/// A node that runs.
pub(crate) struct RunningNode {
    pods: Pods,
    watch: JoinHandle<()>,
    machine: Machine,
}

impl RunningNode {
    /// Registers the node and looks after what is bound to it.
    pub(crate) async fn start(
        context: NodeContext,
        machine: Machine,
        spec: &NodeSpec,
        owner: Option<OwnerReference>,
    ) -> Self {
        register(&context.client, spec, owner).await;
        let context = Arc::new(context);
        let pods = Pods::default();
        let watch = tokio::spawn(follow(context, Arc::clone(&pods)));
        Self { pods, watch, machine }
    }

    pub(crate) fn pods(&self) -> Vec<Arc<PodContext>> {
        locked(&self.pods).values().map(|(pod, _)| Arc::clone(pod)).collect()
    }

    /// Its processes die at once, and nobody writes of it any more. The object stays, as it does when a machine breaks.
    pub(crate) async fn cut_power(mut self) {
        self.watch.abort();
        let lives: Vec<_> = std::mem::take(&mut *locked(&self.pods)).into_values().collect();
        for (_, life) in &lives {
            life.abort();
        }
        let mut running = Vec::new();
        for (pod, life) in lives {
            drop(life.await);
            let views = pod.board.all();
            running.extend(
                views.into_iter().filter(|(_, view)| view.is_running()).map(|(name, _)| (Arc::clone(&pod), name)),
            );
        }
        for (pod, container) in running {
            pod.enter(&container, None, What::Signalled(Signal::KILL.as_raw(), Why::PowerCut));
        }
        self.machine.cut_power();
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.watch.abort();
        for (_, life) in locked(&self.pods).values() {
            life.abort();
        }
        self.machine.cut_power();
    }
}

fn locked(pods: &Pods) -> MutexGuard<'_, Lives> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing acts on heartbeats in a control plane without node lifecycle controller, so there are none.
async fn register(client: &Client, spec: &NodeSpec, owner: Option<OwnerReference>) {
    let api: Api<Node> = Api::all(client.clone());
    let mut labels = spec.labels.clone();
    for (key, value) in
        [("kubernetes.io/hostname", spec.name.as_str()), ("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")]
    {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    let at = now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": spec.name, "labels": labels, "ownerReferences": Vec::from_iter(owner) },
        "spec": { "taints": spec.taints },
        "status": {
            "capacity": spec.capacity,
            "allocatable": spec.capacity,
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }, { "type": "Hostname", "address": spec.name }],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "a kubelet of processes",
                "lastHeartbeatTime": at, "lastTransitionTime": at,
            }],
        },
    }))
    .expect("a node");
    api.create(&PostParams::default(), &node).await.expect("a node that the API server takes");
    // Admission taints a new node as not ready, whatever its status says.
    let taints = Patch::Merge(json!({ "spec": { "taints": spec.taints } }));
    api.patch(&spec.name, &PatchParams::default(), &taints).await.expect("a node of ours");
}

/// Deletes the object of a node that is gone.
pub(crate) async fn unregister(client: Client, name: &str) {
    let api: Api<Node> = Api::all(client);
    api.delete(name, &DeleteParams::default()).await.expect("a node of ours");
}

async fn follow(node: Arc<NodeContext>, pods: Pods) {
    let bound_here = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name));
    let mut events = pin!(watcher::watcher(Api::<Pod>::all(node.client.clone()), bound_here));
    let mut seen = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => seen = Some(Vec::new()),
            Ok(Event::InitApply(pod)) => {
                seen.get_or_insert_default().push(pod.uid().unwrap_or_default());
                look_after(&node, &pods, pod);
            }
            Ok(Event::InitDone) => forget_others(&pods, &seen.take().unwrap_or_default()),
            Ok(Event::Apply(pod)) => look_after(&node, &pods, pod),
            Ok(Event::Delete(pod)) => gone(&pods, &pod.uid().unwrap_or_default()),
            Err(_away) => tokio::time::sleep(WATCH_AGAIN).await,
        }
    }
}

fn look_after(node: &Arc<NodeContext>, pods: &Pods, pod: Pod) {
    let mut pods = locked(pods);
    let uid = pod.uid().unwrap_or_default();
    let is_deleted = pod.metadata.deletion_timestamp.is_some();
    let grace = pod.metadata.deletion_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
    if !pods.contains_key(&uid) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) && !is_deleted {
            return;
        }
        let context = Arc::new(PodContext::new(Arc::clone(node), pod).expect("an address for each pod"));
        std::fs::create_dir_all(&context.folder).expect("a folder for the pod");
        let life = tokio::spawn(live(Arc::clone(&context)));
        pods.insert(uid.clone(), (context, life));
    }
    if is_deleted {
        pods[&uid].0.terminate(Duration::from_secs(grace.unwrap_or_default()));
    }
}

/// The object is gone: by our own last call, or by force.
fn gone(pods: &Pods, uid: &str) {
    let Some((pod, life)) = locked(pods).remove(uid) else { return };
    pod.terminate(Duration::ZERO);
    drop(life);
}

/// After a watch that broke: what is not there any more was deleted meanwhile.
fn forget_others(pods: &Pods, seen: &[String]) {
    let lost: Vec<String> = locked(pods).keys().filter(|uid| !seen.contains(uid)).cloned().collect();
    for uid in lost {
        gone(pods, &uid);
    }
}

/// Starts the machine of a node; blocks.
pub(crate) fn machine(folder: &Path, seen: &[String]) -> Machine {
    Machine::start(&folder.join("root"), seen).unwrap_or_else(|trouble| panic!("{trouble}"))
}
