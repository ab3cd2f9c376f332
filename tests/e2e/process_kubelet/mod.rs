//! A kubelet that runs the containers of pods as processes of this machine: real programs, real signals, real probes.
//!
//! ```text
//!  Node ──► machine: namespaces of its own (machine.rs)
//!   │ watch of the pods bound to it (node.rs)
//!   └─► pod: address, volumes, order of containers (pod.rs, volumes.rs) ──► status (board.rs, status.rs)
//!        └─► container: start, probes, restarts, end (container.rs, launch.rs, probes.rs) ──► ledger.rs
//! ```
//!
//! What is not as in a real node: there is one network, in which each pod has a loopback address of its own; an image is a
//! program of this machine, by a file, and sees this machine's files, those of its volumes in their places; there are no limits
//! of memory or processor, no capabilities to drop and no read-only root; there are no ephemeral containers, no gRPC and HTTPS
//! probes and no Events.
//!
//! The main process of a container is the first of its namespace, as in a container. So a signal that its program does not expect
//! does nothing to it, and all that it has started ends with it.

mod addresses;
mod board;
mod container;
mod environment;
pub(crate) mod launch;
pub(crate) mod ledger;
pub(crate) mod machine;
mod node;
mod objects;
mod pod;
mod probes;
mod program;
pub(crate) mod settings;
mod status;
mod volumes;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;

use ledger::Ledger;
use node::RunningNode;
use pod::{NodeContext, PodContext};
use settings::{Habits, NodeSpec, Settings};

/// A running one. When it is dropped, its processes end, and what happened to them stands in `kubelet.log` of its folder.
pub(crate) struct ProcessKubelet {
    folder: PathBuf,
    client: Client,
    owner: Option<OwnerReference>,
    settings: Settings,
    habits: Arc<Mutex<Habits>>,
    ledger: Ledger,
    nodes: Mutex<BTreeMap<String, RunningNode>>,
}

impl ProcessKubelet {
    /// Registers the nodes of the settings. They go with their owner.
    pub(crate) async fn start(
        client: Client,
        folder: &Path,
        owner: Option<OwnerReference>,
        settings: Settings,
    ) -> Self {
        let kubelet = Self {
            folder: folder.to_owned(),
            client,
            owner,
            settings,
            habits: Arc::default(),
            ledger: Ledger::default(),
            nodes: Mutex::default(),
        };
        for spec in kubelet.settings.nodes.clone() {
            kubelet.add_node(&spec).await;
        }
        kubelet
    }

    /// Registers one more node.
    pub(crate) async fn add_node(&self, spec: &NodeSpec) {
        let folder = self.folder.join(&spec.name);
        let (place, seen) = (folder.clone(), self.seen());
        let machine = tokio::task::spawn_blocking(move || node::machine(&place, &seen)).await.expect("a machine");
        let context = NodeContext {
            name: spec.name.clone(),
            first: machine.first,
            folder,
            client: self.client.clone(),
            http: probes::http(),
            images: self.settings.images.clone(),
            habits: Arc::clone(&self.habits),
            ledger: self.ledger.clone(),
            back_off: self.settings.back_off,
            volumes_every: self.settings.volumes_every,
        };
        let node = RunningNode::start(context, machine, spec, self.owner.clone()).await;
        self.nodes().insert(spec.name.clone(), node);
    }

    /// Folders that containers have to see: where the pods' files are, and the programs of the images.
    fn seen(&self) -> Vec<String> {
        let images = || self.settings.images.images.values();
        let programs = images().filter_map(|image| image.entrypoint.first()).map(Path::new);
        let files = images().flat_map(|image| image.files.values()).map(PathBuf::as_path);
        let folders = programs.chain(files).filter(|path| path.is_absolute()).filter_map(Path::parent);
        folders.chain([self.folder.as_path()]).map(|folder| folder.display().to_string()).collect()
    }

    /// What happened to processes so far.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Changes the habits.
    pub(crate) fn learn(&self, change: impl FnOnce(&mut Habits)) {
        change(&mut self.habits.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The node loses its power: its processes are killed and nobody writes of it any more. Its object stays.
    pub(crate) async fn cut_power(&self, node: &str) {
        let node = self.nodes().remove(node).expect("a node of this kubelet");
        node.cut_power().await;
    }

    /// The node vanishes, object and all: its pods are left to the collection of pods without a node.
    pub(crate) async fn lose(&self, node: &str) {
        self.cut_power(node).await;
        node::unregister(self.client.clone(), node).await;
    }

    /// Starts anew as far as pods are concerned that are ending: it has forgotten what it did, so it signals them again.
    pub(crate) fn restart(&self) {
        for pod in self.pods() {
            pod.terminate_again();
        }
    }

    /// The output of a container, by the number of the start, which counts from zero. Empty while there is none.
    pub(crate) fn output(&self, pod: &str, container: &str, start: u32) -> String {
        let pods = self.pods();
        let folder = pods.iter().find(|known| known.name() == pod).map(|pod| pod.folder.clone()).unwrap_or_default();
        std::fs::read_to_string(folder.join(format!("{container}.{start}.log"))).unwrap_or_default()
    }

    fn pods(&self) -> Vec<Arc<PodContext>> {
        self.nodes().values().flat_map(RunningNode::pods).collect()
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, RunningNode>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ProcessKubelet {
    fn drop(&mut self) {
        if let Err(error) = self.ledger.dump(&self.folder.join("kubelet.log")) {
            println!("{}: {error}", self.folder.display());
        }
    }
}
