//! A pod's status as scheduler and kubelet write it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::object::{list, set, stamp, text};

/// The container that the signals are about.
pub(super) const AGENT: &str = "agent";

/// That container, or the first where none is named so.
pub(super) fn agent_of(pod: &Value) -> Option<&Value> {
    let containers = list(pod, "/spec/containers");
    containers.iter().find(|container| text(container, "/name") == AGENT).or_else(|| containers.first())
}

/// A condition to be.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) is_so: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Condition {
    pub(super) const fn yes(kind: &'static str) -> Self {
        Self { kind, is_so: true, reason: "", message: String::new() }
    }

    pub(super) const fn no(kind: &'static str, reason: &'static str, message: String) -> Self {
        Self { kind, is_so: false, reason, message }
    }
}

/// Writes a condition; its time moves only when its status does.
pub(super) fn set_condition(pod: &mut Value, condition: &Condition, now: Timestamp) {
    let mut conditions = list(pod, "/status/conditions").to_vec();
    let status = if condition.is_so { "True" } else { "False" };
    let known = conditions.iter().position(|entry| text(entry, "/type") == condition.kind);
    let same = known.and_then(|index| conditions.get(index)).filter(|entry| text(entry, "/status") == status);
    let since = same.and_then(|entry| entry.get("lastTransitionTime")).cloned().unwrap_or_else(|| stamp(now));
    let mut entry = json!({
        "type": condition.kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since,
    });
    if !condition.reason.is_empty() {
        set(&mut entry, &["reason"], json!(condition.reason));
        set(&mut entry, &["message"], json!(condition.message));
    }
    match known.and_then(|index| conditions.get_mut(index)) {
        Some(known) => *known = entry,
        None => conditions.push(entry),
    }
    set(pod, &["status", "conditions"], Value::Array(conditions));
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet, or not for now, and why.
    Waiting(&'static str, String),
    /// It runs.
    Running(Timestamp),
    /// It ended.
    Ended(i32, Timestamp),
}

impl State {
    fn written(&self) -> Value {
        match self {
            Self::Waiting(reason, message) if message.is_empty() => json!({ "waiting": { "reason": reason } }),
            Self::Waiting(reason, message) => json!({ "waiting": { "reason": reason, "message": message } }),
            Self::Running(since) => json!({ "running": { "startedAt": stamp(*since) } }),
            Self::Ended(code, at) => {
                let reason = if *code == 0 { "Completed" } else { "Error" };
                json!({ "terminated": { "exitCode": code, "reason": reason, "finishedAt": stamp(*at) } })
            }
        }
    }
}

/// What a kubelet knows of a pod's containers: one that is looked at, and the others, which do as they should.
#[derive(Debug, Clone)]
pub(super) struct Containers {
    pub(super) main: String,
    pub(super) state: State,
    pub(super) last: Option<State>,
    pub(super) restarts: u32,
    pub(super) others: State,
    pub(super) is_ready: bool,
}

/// Writes the status of a pod on a node.
pub(super) fn write(pod: &mut Value, containers: &Containers, address: Option<&str>, now: Timestamp) {
    let mut unready = Vec::new();
    let statuses: Vec<Value> = list(pod, "/spec/containers")
        .iter()
        .map(|container| {
            let name = text(container, "/name");
            let is_main = name == containers.main;
            let state = if is_main { &containers.state } else { &containers.others };
            let runs = matches!(state, State::Running(_));
            let is_ready = runs && (!is_main || containers.is_ready);
            if !is_ready {
                unready.push(name.to_owned());
            }
            let last = containers.last.as_ref().filter(|_| is_main).map_or_else(|| json!({}), State::written);
            json!({
                "name": name, "image": container.get("image"), "imageID": "", "ready": is_ready, "started": runs,
                "restartCount": if is_main { containers.restarts } else { 0 },
                "state": state.written(), "lastState": last,
            })
        })
        .collect();
    set(pod, &["status", "containerStatuses"], Value::Array(statuses));
    if text(pod, "/status/startTime").is_empty() {
        set(pod, &["status", "startTime"], stamp(now));
        set(pod, &["status", "hostIP"], json!("127.0.0.1"));
    }
    if let Some(address) = address {
        set(pod, &["status", "podIP"], json!(address));
        set(pod, &["status", "podIPs"], json!([{ "ip": address }]));
    }
    let ended = [&containers.state, &containers.others].map(|state| match state {
        State::Ended(code, _) => Some(*code),
        State::Waiting(..) | State::Running(_) => None,
    });
    let phase = match (ended, &containers.state) {
        ([Some(0), Some(0)], _) => "Succeeded",
        ([Some(_), Some(_)], _) => "Failed",
        (_, State::Waiting(..)) if containers.last.is_none() => "Pending",
        _ => "Running",
    };
    set(pod, &["status", "phase"], json!(phase));
    let has_network = Condition { is_so: address.is_some(), ..Condition::yes("PodReadyToStartContainers") };
    set_condition(pod, &has_network, now);
    set_condition(pod, &Condition::yes("Initialized"), now);
    for kind in ["Ready", "ContainersReady"] {
        let condition = if unready.is_empty() {
            Condition::yes(kind)
        } else {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            Condition::no(kind, if phase == "Succeeded" { "PodCompleted" } else { "ContainersNotReady" }, message)
        };
        set_condition(pod, &condition, now);
    }
}
