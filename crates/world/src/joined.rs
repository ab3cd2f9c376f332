//! Both halves under one clock: the process in a pod is an agent of Buildkite.
//!
//! ```text
//!  Kubernetes                                   Buildkite
//!   the container `agent` runs   ── started ──►  its agents register, connect, take jobs
//!   SIGTERM, SIGKILL             ── told ─────►  they finish their jobs and leave, or are lost
//!   it answers its probe         ◄── ready ────  its agents have registered
//!   the container has ended      ◄── exit ─────  the process ended by itself
//! ```

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;

use crate::{
    World,
    buildkite::{AgentPod, Buildkite, PodExit},
    kubernetes::{Kubernetes, PodSeen, PodSignal, Shared},
};

/// What the agent reads its tags from, with commas between them.
const TAGS: &str = "BUILDKITE_AGENT_TAGS";
/// What it reads the number of its workers from.
const SPAWN: &str = "BUILDKITE_AGENT_SPAWN";

/// A Secret: namespace and name.
pub type SecretName = (String, String);

/// A simulated world. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Joined {
    kubernetes: Shared,
    buildkite: World,
    /// What the Secrets hold that pods mount: the world reads no Secret, it is told.
    tokens: Arc<Mutex<BTreeMap<SecretName, String>>>,
    started: Arc<AtomicU64>,
}

impl Joined {
    /// Joins the two.
    pub fn new(kubernetes: Kubernetes, buildkite: Buildkite) -> Self {
        let (tokens, started) = (Arc::default(), Arc::default());
        Self { kubernetes: Shared::new(kubernetes), buildkite: buildkite.into(), tokens, started }
    }

    /// The Kubernetes half.
    pub const fn kubernetes(&self) -> &Shared {
        &self.kubernetes
    }

    /// The Buildkite half.
    pub const fn buildkite(&self) -> &World {
        &self.buildkite
    }

    /// Agents whose pods mount this Secret register with this token from now on.
    pub fn set_token(&self, secret: SecretName, token: &str) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(secret, token.to_owned());
    }

    /// How many processes have started so far.
    pub fn pods_started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Lets everything happen that is due at `now`, each thing at its instant whichever half it is of. Answers when something
    /// happens next.
    pub fn advance(&self, now: Timestamp) -> Option<Timestamp> {
        // Each round takes at least one event off an agenda, and an event enters only later ones.
        while let Some(at) = self.next_at().filter(|at| *at <= now) {
            self.step(at);
        }
        self.step(now);
        self.next_at()
    }

    fn next_at(&self) -> Option<Timestamp> {
        let kubernetes = self.kubernetes.peek(Kubernetes::next_at);
        let buildkite = self.buildkite.peek(Buildkite::next_at);
        [kubernetes, buildkite].into_iter().flatten().min()
    }

    fn step(&self, at: Timestamp) {
        let signals = self.kubernetes.with(at, Kubernetes::take_signals);
        let (registered, exits) = self.buildkite.at(at, |buildkite| {
            for signal in signals {
                self.pass_on(signal, buildkite);
            }
            (buildkite.take_registered(), buildkite.take_exits())
        });
        if !registered.is_empty() || !exits.is_empty() {
            self.kubernetes.with(at, |kubernetes| {
                for (registered_at, pod) in registered {
                    kubernetes.readiness(&pod, true, registered_at.max(at));
                }
                for PodExit { at: ended_at, pod, exit_code } in exits {
                    kubernetes.ended(&pod, exit_code, ended_at.max(at));
                }
            });
        }
    }

    fn pass_on(&self, signal: PodSignal, buildkite: &mut Buildkite) {
        match signal {
            PodSignal::Started { at, pod } => {
                self.started.fetch_add(1, Ordering::Relaxed);
                buildkite.pod_started(self.agents_of(&pod), at);
            }
            PodSignal::Told { at, uid, .. } => buildkite.pod_told(&uid, at),
            PodSignal::Killed { at, uid } | PodSignal::Gone { at, uid } => buildkite.pod_killed(&uid, at),
        }
    }

    fn agents_of(&self, pod: &PodSeen) -> AgentPod {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let mounted = pod.secrets.iter().find_map(|secret| tokens.get(&(pod.namespace.clone(), secret.clone())));
        let tags = pod.env.get(TAGS).map(String::as_str).unwrap_or_default();
        AgentPod {
            pod: pod.uid.clone(),
            token: mounted.cloned().unwrap_or_default(),
            tags: tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            spawn: pod.env.get(SPAWN).and_then(|spawn| spawn.parse().ok()).unwrap_or(1),
        }
    }
}
