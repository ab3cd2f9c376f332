//! How this Kubernetes behaves.

use std::time::Duration;

use serde_json::Value;

use crate::Chance;

/// How long something takes: drawn evenly between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// At least.
    pub shortest: Duration,
    /// Less than this.
    pub longest: Duration,
}

impl Delay {
    /// Always the same.
    pub const fn of(duration: Duration) -> Self {
        Self { shortest: duration, longest: duration }
    }

    /// Between two bounds.
    pub const fn between(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest }
    }

    pub(super) fn draw(self, chance: &mut Chance) -> Duration {
        chance.between(self.shortest, self.longest)
    }
}

/// How a pod gets ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// As soon as it is started.
    AsStarted,
    /// When [`Kubernetes::readiness`](super::Kubernetes::readiness) says so.
    AsTold,
}

/// What is wrong with the containers of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodFault {
    /// It cannot be pulled.
    ImagePull,
    /// It ends as soon as it runs, again and again.
    CrashLoop,
    /// It runs and never is ready.
    NeverReady,
}

/// How this Kubernetes behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The installed `CustomResourceDefinition`s. Without its definition a kind is not served.
    pub definitions: Vec<Value>,
    /// How many changes of each kind are remembered for watches and pages.
    pub history: usize,
    /// How many lines a watch may be behind before it is ended.
    pub watch_lines: usize,
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// From a change to what a controller makes of it.
    pub controllers: Delay,
    /// From a pod's creation to its node.
    pub scheduling: Delay,
    /// From a change of a pod to what its kubelet makes of it.
    pub kubelet: Delay,
    /// From a pod's node to its running containers.
    pub start_up: Delay,
    /// How a pod gets ready.
    pub readiness: Readiness,
    /// From the loss of a node until its pods are seen not to be ready.
    pub node_noticed: Duration,
    /// From the loss of a node until its pods are deleted.
    pub node_removed: Duration,
}

impl Default for Settings {
    /// A small cluster that is well: three nodes, pods that run after 2 to 8 seconds.
    fn default() -> Self {
        let milliseconds = Duration::from_millis;
        Self {
            definitions: Vec::new(),
            history: 1_000,
            watch_lines: 1_000,
            nodes: ["node-1", "node-2", "node-3"].map(str::to_owned).into(),
            controllers: Delay::between(milliseconds(5), milliseconds(50)),
            scheduling: Delay::between(milliseconds(5), milliseconds(100)),
            kubelet: Delay::between(milliseconds(10), milliseconds(200)),
            start_up: Delay::between(Duration::from_secs(2), Duration::from_secs(8)),
            readiness: Readiness::AsStarted,
            // The node controller's own grace period.
            node_noticed: Duration::from_secs(40),
            node_removed: Duration::from_mins(2),
        }
    }
}
