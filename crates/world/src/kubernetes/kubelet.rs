//! The kubelets: bring pods to life, start again what ended, and end what is deleted, with its grace period.
//!
//! ```text
//!  bound ──► ContainerCreating ──start-up──► Running ──ended──► Ended ──(first at once, then backing off)──► Running
//!                 │  image cannot be pulled      │
//!                 ▼                              ▼ deletion timestamp
//!        ErrImagePull / ImagePullBackOff       told ──ended, or grace over: killed──► gone
//! ```

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Event, Kubernetes,
    kind::Kind,
    object::{Key, is_deleting, list, number, text, uid},
    pod_status::{AGENT, Containers, State, agent_of, write},
    settings::{Delay, PodFault, Readiness},
    signal::{PodSeen, PodSignal},
    store::Change,
    verbs::DEFAULT_GRACE,
};

/// The kubelet's own: 10 s, doubled each time, at most 5 min, forgotten after 10 min of running.
const BACK_OFF_FIRST: Duration = Duration::from_secs(10);
const BACK_OFF_LAST: Duration = Duration::from_mins(5);
const BACK_OFF_FORGOTTEN: Duration = Duration::from_mins(10);

/// How long a container that crashes by its fault runs.
const CRASHES_AFTER: Duration = Duration::from_secs(1);

/// A pull that fails takes a moment to do so.
const PULL_FAILS_AFTER: Duration = Duration::from_secs(2);

/// How often the kubelet looks whether a missing Secret is there.
const MOUNT_AGAIN: Duration = Duration::from_secs(10);

/// What a deletion without any grace leaves a process.
const GRACE_LEAST: Duration = Duration::from_secs(1);

/// A pod as its kubelet keeps it.
#[derive(Debug)]
pub(super) struct Kept {
    key: Key,
    /// The name of the container whose process the signals are about.
    agent: String,
    containers: Containers,
    address: Option<String>,
    back_offs: u32,
    /// Whether the process answers its readiness probe.
    answers: bool,
    kill_at: Option<Timestamp>,
    is_lost: bool,
}

impl Kept {
    /// Whether the process of the agent runs.
    fn runs(&self) -> bool {
        let state = if self.is_agent_main() { &self.containers.state } else { &self.containers.others };
        matches!(state, State::Running(_)) && !self.is_lost
    }

    /// Whether the container that is looked at is the agent's.
    fn is_agent_main(&self) -> bool {
        self.containers.main == self.agent
    }
}

/// What kubelets do when its time has come.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// Takes a pod in.
    Admit(Key),
    /// Starts its containers, or tries to.
    Start,
    /// Tries to pull again.
    Pull,
    /// The container that crashes does.
    Crash,
    /// Starts what ended again.
    Restart,
    /// Sees the deletion.
    Tell,
    /// The grace period is over.
    Kill,
    /// Tells the API server that the pod is done.
    Finish,
}

impl Kubernetes {
    fn plan(&mut self, uid: &str, delay: Delay, deed: Deed) {
        let at = self.drawn(delay);
        self.agenda.enter(at, Event::Kubelet(uid.to_owned(), deed));
    }

    /// What a change of a pod gives its kubelet to do.
    pub(super) fn pod_changed(&mut self, change: &Change) {
        let (pod, before) = (&change.object, change.before.as_ref());
        let is_bound = |pod: &Value| !text(pod, "/spec/nodeName").is_empty();
        let grace = |pod: &Value| number(pod, "/metadata/deletionGracePeriodSeconds");
        let pod_uid = uid(pod).to_owned();
        if change.is_gone {
            self.signals.push(PodSignal::Gone { at: self.now, uid: pod_uid.clone() });
            self.forced(&pod_uid);
        } else if before.is_none() && !is_bound(pod) {
            self.plan_scheduling(change.key.clone(), pod_uid);
        } else if is_bound(pod) && before.is_none_or(|before| !is_bound(before)) {
            self.plan(&pod_uid, self.settings.kubelet, Deed::Admit(change.key.clone()));
        } else if is_deleting(pod) && before.is_some_and(|before| grace(before) != grace(pod)) {
            self.plan(&pod_uid, self.settings.kubelet, Deed::Tell);
        }
    }

    /// The pod was taken away without waiting for its kubelet.
    fn forced(&mut self, pod_uid: &str) {
        let at = self.now;
        let until = self.after(GRACE_LEAST);
        match self.kubelets.get_mut(pod_uid) {
            Some(kept) if kept.runs() => {
                kept.kill_at = Some(until);
                self.signals.push(PodSignal::Told { at, uid: pod_uid.to_owned(), grace_until: until });
                self.agenda.enter(until, Event::Kubelet(pod_uid.to_owned(), Deed::Kill));
            }
            Some(_) => drop(self.kubelets.remove(pod_uid)),
            None => {}
        }
    }

    pub(super) fn kubelet(&mut self, pod_uid: &str, deed: Deed) {
        if let Deed::Admit(key) = deed {
            return self.admit(pod_uid, key);
        }
        if self.kubelets.get(pod_uid).is_none_or(|kept| kept.is_lost) {
            return;
        }
        match deed {
            Deed::Admit(_) => {}
            Deed::Start => self.start(pod_uid),
            Deed::Pull => self.pull(pod_uid),
            Deed::Crash => self.end_main(pod_uid, 1),
            Deed::Restart => self.restart(pod_uid),
            Deed::Tell => self.tell(pod_uid),
            Deed::Kill => self.kill(pod_uid),
            Deed::Finish => self.finish(pod_uid),
        }
    }

    /// The pod, if it is still the same.
    fn kept_pod(&self, pod_uid: &str) -> Option<(&Kept, &Arc<Value>)> {
        let kept = self.kubelets.get(pod_uid)?;
        let pod = self.store.get(&kept.key).filter(|pod| uid(pod) == pod_uid)?;
        Some((kept, pod))
    }

    fn admit(&mut self, pod_uid: &str, key: Key) {
        let Some(pod) = self.store.get(&key).filter(|pod| uid(pod) == pod_uid).cloned() else { return };
        if self.lost_nodes.contains(text(&pod, "/spec/nodeName")) {
            return;
        }
        let agent = agent_of(&pod).map_or(AGENT, |container| text(container, "/name")).to_owned();
        let creating = State::Waiting("ContainerCreating", String::new());
        let containers = Containers {
            main: agent.clone(),
            state: creating.clone(),
            last: None,
            restarts: 0,
            others: creating,
            is_ready: false,
        };
        let answers = self.settings.readiness == Readiness::AsStarted;
        let kept = Kept { key, agent, containers, address: None, back_offs: 0, answers, kill_at: None, is_lost: false };
        self.kubelets.insert(pod_uid.to_owned(), kept);
        self.report(pod_uid);
        let deed = if is_deleting(&pod) { Deed::Tell } else { Deed::Start };
        self.plan(pod_uid, if is_deleting(&pod) { self.settings.kubelet } else { self.settings.start_up }, deed);
    }

    /// The first container whose image has a fault, with it; else the agent or the first.
    fn fault_of(&self, pod: &Value) -> (String, Option<PodFault>) {
        let containers = list(pod, "/spec/containers");
        let faulty = containers.iter().find_map(|container| {
            let fault = self.pod_faults.get(text(container, "/image"))?;
            Some((text(container, "/name").to_owned(), Some(*fault)))
        });
        let agent = || agent_of(pod).map_or(AGENT, |container| text(container, "/name")).to_owned();
        faulty.unwrap_or_else(|| (agent(), None))
    }

    fn start(&mut self, pod_uid: &str) {
        let Some((_, pod)) = self.kept_pod(pod_uid) else { return };
        if is_deleting(pod) {
            return;
        }
        let pod = Arc::clone(pod);
        let namespace = text(&pod, "/metadata/namespace");
        let lacks_a_secret = list(&pod, "/spec/volumes").iter().any(|volume| {
            let name = text(volume, "/secret/secretName");
            let is_optional = volume.pointer("/secret/optional").and_then(Value::as_bool) == Some(true);
            !name.is_empty() && !is_optional && self.store.get(&Key::new(Kind::Secret, namespace, name)).is_none()
        });
        if lacks_a_secret {
            return self.plan(pod_uid, Delay::of(MOUNT_AGAIN), Deed::Start);
        }
        let (main, fault) = self.fault_of(&pod);
        let (now, address) = (self.now, self.names.address());
        if let Some(kept) = self.kubelets.get_mut(pod_uid) {
            kept.containers.main = main;
            kept.address.get_or_insert(address);
            kept.containers.others = State::Running(now);
            if fault != Some(PodFault::ImagePull) {
                kept.containers.state = State::Running(now);
            }
        }
        match fault {
            Some(PodFault::ImagePull) => {
                self.report(pod_uid);
                self.plan(pod_uid, Delay::of(PULL_FAILS_AFTER), Deed::Pull);
                self.signal_start(pod_uid);
            }
            Some(PodFault::CrashLoop | PodFault::NeverReady) | None => self.started(pod_uid, fault),
        }
    }

    /// The main container runs.
    fn started(&mut self, pod_uid: &str, fault: Option<PodFault>) {
        if fault == Some(PodFault::CrashLoop) {
            self.plan(pod_uid, Delay::of(CRASHES_AFTER), Deed::Crash);
        }
        self.update_readiness(pod_uid);
        self.report(pod_uid);
        // A container that crashes ends before it does anything.
        let is_crash = |kept: &Kept| fault == Some(PodFault::CrashLoop) && kept.is_agent_main();
        if self.kubelets.get(pod_uid).is_some_and(|kept| !is_crash(kept)) {
            self.signal_start(pod_uid);
        }
    }

    fn signal_start(&mut self, pod_uid: &str) {
        let seen = self
            .kept_pod(pod_uid)
            .filter(|(kept, _)| kept.runs())
            .map(|(kept, pod)| PodSeen::new(pod, if kept.is_agent_main() { kept.containers.restarts } else { 0 }));
        if let Some(pod) = seen {
            self.signals.push(PodSignal::Started { at: self.now, pod });
        }
    }

    fn pull(&mut self, pod_uid: &str) {
        let Some((kept, pod)) = self.kept_pod(pod_uid) else { return };
        if is_deleting(pod) {
            return;
        }
        let main = kept.containers.main.clone();
        let image = list(pod, "/spec/containers").iter().find(|container| text(container, "/name") == main);
        let image = image.map(|container| text(container, "/image")).unwrap_or_default().to_owned();
        if self.pod_faults.get(&image) != Some(&PodFault::ImagePull) {
            let now = self.now;
            if let Some(kept) = self.kubelets.get_mut(pod_uid) {
                kept.containers.state = State::Running(now);
            }
            return self.started(pod_uid, self.pod_faults.get(&image).copied());
        }
        let Some(kept) = self.kubelets.get_mut(pod_uid) else { return };
        let is_backing_off = matches!(kept.containers.state, State::Waiting("ErrImagePull", _));
        let wait = if is_backing_off {
            let message = format!("Back-off pulling image {image:?}: ErrImagePull: {image}: not found");
            kept.containers.state = State::Waiting("ImagePullBackOff", message);
            kept.back_offs += 1;
            back_off(kept.back_offs)
        } else {
            let message = format!("failed to pull and unpack image {image:?}: {image}: not found");
            kept.containers.state = State::Waiting("ErrImagePull", message);
            PULL_FAILS_AFTER
        };
        self.report(pod_uid);
        self.plan(pod_uid, Delay::of(wait), Deed::Pull);
    }

    /// The process in a pod ended by itself.
    pub fn ended(&mut self, pod_uid: &str, exit_code: i32, now: Timestamp) {
        self.advance(now);
        let Some(kept) = self.kubelets.get_mut(pod_uid).filter(|kept| kept.runs()) else { return };
        if !kept.is_agent_main() {
            // From now on it is the one to look at: the other goes on as it is.
            std::mem::swap(&mut kept.containers.state, &mut kept.containers.others);
            kept.containers.main.clone_from(&kept.agent);
        }
        self.end_main(pod_uid, exit_code);
    }

    fn end_main(&mut self, pod_uid: &str, exit_code: i32) {
        let is_deleted = self.kept_pod(pod_uid).is_none_or(|(_, pod)| is_deleting(pod));
        let now = self.now;
        let Some(kept) = self.kubelets.get_mut(pod_uid) else { return };
        let State::Running(since) = kept.containers.state else { return };
        kept.containers.state = State::Ended(exit_code, now);
        kept.containers.is_ready = false;
        if is_deleted {
            kept.containers.others = State::Ended(0, now);
            self.report(pod_uid);
            return self.plan(pod_uid, self.settings.kubelet, Deed::Finish);
        }
        if Duration::try_from(now.duration_since(since)).unwrap_or_default() >= BACK_OFF_FORGOTTEN {
            kept.back_offs = 0;
        }
        let ended = kept.containers.state.clone();
        kept.back_offs += 1;
        let wait = if kept.back_offs == 1 {
            self.settings.kubelet
        } else {
            let wait = back_off(kept.back_offs - 1);
            let message = format!("back-off {}s restarting failed container={}", wait.as_secs(), kept.containers.main);
            kept.containers.last = Some(ended);
            kept.containers.state = State::Waiting("CrashLoopBackOff", message);
            Delay::of(wait)
        };
        self.report(pod_uid);
        self.plan(pod_uid, wait, Deed::Restart);
    }

    fn restart(&mut self, pod_uid: &str) {
        let Some((_, pod)) = self.kept_pod(pod_uid).filter(|(_, pod)| !is_deleting(pod)) else { return };
        let fault = self.fault_of(pod).1;
        let now = self.now;
        let Some(kept) = self.kubelets.get_mut(pod_uid) else { return };
        if matches!(kept.containers.state, State::Ended(..)) {
            kept.containers.last = Some(kept.containers.state.clone());
        }
        kept.containers.restarts += 1;
        kept.containers.state = State::Running(now);
        kept.answers = self.settings.readiness == Readiness::AsStarted;
        self.started(pod_uid, fault.filter(|fault| *fault != PodFault::ImagePull));
    }

    /// Whether the process answers its readiness probe.
    pub fn readiness(&mut self, pod_uid: &str, is_ready: bool, now: Timestamp) {
        self.advance(now);
        if let Some(kept) = self.kubelets.get_mut(pod_uid) {
            kept.answers = is_ready;
            self.update_readiness(pod_uid);
            self.report(pod_uid);
        }
    }

    fn update_readiness(&mut self, pod_uid: &str) {
        let never = self.kept_pod(pod_uid).is_some_and(|(_, pod)| self.fault_of(pod).1 == Some(PodFault::NeverReady));
        if let Some(kept) = self.kubelets.get_mut(pod_uid) {
            kept.containers.is_ready = kept.answers && !never && matches!(kept.containers.state, State::Running(_));
        }
    }

    fn tell(&mut self, pod_uid: &str) {
        let Some((kept, pod)) = self.kept_pod(pod_uid) else { return };
        let grace = number(pod, "/metadata/deletionGracePeriodSeconds").unwrap_or(DEFAULT_GRACE);
        if !kept.runs() {
            return self.plan(pod_uid, self.settings.kubelet, Deed::Finish);
        }
        let at = self.now;
        let grace_until = self.after(Duration::from_secs(grace));
        if let Some(kept) = self.kubelets.get_mut(pod_uid) {
            kept.kill_at = Some(grace_until);
        }
        self.signals.push(PodSignal::Told { at, uid: pod_uid.to_owned(), grace_until });
        self.agenda.enter(grace_until, Event::Kubelet(pod_uid.to_owned(), Deed::Kill));
    }

    fn kill(&mut self, pod_uid: &str) {
        let now = self.now;
        let Some(kept) = self.kubelets.get_mut(pod_uid).filter(|kept| kept.kill_at == Some(now) && kept.runs()) else {
            return;
        };
        kept.containers.state = State::Ended(137, now);
        kept.containers.others = State::Ended(137, now);
        kept.containers.is_ready = false;
        self.signals.push(PodSignal::Killed { at: now, uid: pod_uid.to_owned() });
        self.report(pod_uid);
        self.plan(pod_uid, self.settings.kubelet, Deed::Finish);
    }

    fn finish(&mut self, pod_uid: &str) {
        let key = self.kept_pod(pod_uid).map(|(kept, _)| kept.key.clone());
        self.kubelets.remove(pod_uid);
        if let Some(key) = key {
            self.remove(&key);
        }
    }

    /// Writes the pod's status.
    fn report(&mut self, pod_uid: &str) {
        let Some((kept, _)) = self.kept_pod(pod_uid) else { return };
        let (key, containers, address) = (kept.key.clone(), kept.containers.clone(), kept.address.clone());
        let now = self.now;
        self.change(&key, |pod| write(pod, &containers, address.as_deref(), now));
    }

    /// The machine under these pods is gone.
    pub(super) fn kill_all_on(&mut self, node: &str) {
        let store = &self.store;
        let on_node = |kept: &Kept| store.get(&kept.key).is_some_and(|pod| text(pod, "/spec/nodeName") == node);
        for (pod_uid, kept) in self.kubelets.iter_mut().filter(|(_, kept)| !kept.is_lost && on_node(kept)) {
            if kept.runs() {
                self.signals.push(PodSignal::Killed { at: self.now, uid: pod_uid.clone() });
            }
            kept.is_lost = true;
        }
    }

    /// What becomes of containers of this image from now on: of running ones when they start again.
    pub fn set_pod_fault(&mut self, image: &str, fault: Option<PodFault>) {
        match fault {
            Some(fault) => drop(self.pod_faults.insert(image.to_owned(), fault)),
            None => drop(self.pod_faults.remove(image)),
        }
    }

    /// Whether packets reach a pod: it has an address, and its node is there.
    pub fn is_reachable(&self, pod_uid: &str) -> bool {
        self.kubelets.get(pod_uid).is_some_and(|kept| kept.address.is_some() && !kept.is_lost)
    }

    /// What happened to the processes of pods since this was asked last, in order.
    pub fn take_signals(&mut self) -> Vec<PodSignal> {
        std::mem::take(&mut self.signals)
    }
}

fn back_off(times: u32) -> Duration {
    // Beyond some doublings it is the longest anyway.
    let doublings = times.saturating_sub(1).min(10);
    (BACK_OFF_FIRST * 2_u32.pow(doublings)).min(BACK_OFF_LAST)
}
