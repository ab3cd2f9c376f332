//! The status of a pod as the kubelet writes it, and the writing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    board::{End, Kind, State, View},
    pod::{PodContext, is_done, now},
};

/// What changes together is written together.
const TOGETHER: Duration = Duration::from_millis(20);

/// A minute and a half without an API server.
const ATTEMPTS: u32 = 300;
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Writes the status of one pod when it has changed.
pub(crate) struct Writer {
    pod: Arc<PodContext>,
    written: Value,
    /// Since when each condition is what it is.
    transitions: BTreeMap<&'static str, (bool, Timestamp)>,
}

impl Writer {
    pub(crate) fn new(pod: Arc<PodContext>) -> Self {
        Self { pod, written: Value::Null, transitions: BTreeMap::new() }
    }

    /// For ever.
    pub(crate) async fn keep(&mut self) {
        let mut changes = self.pod.board.changes();
        loop {
            changes.mark_unchanged();
            self.write().await;
            drop(changes.changed().await);
            sleep(TOGETHER).await;
        }
    }

    /// Once, if there is anything new.
    pub(crate) async fn write(&mut self) {
        let status = self.status();
        if status == self.written {
            return;
        }
        sleep(self.pod.node.habits().write_delay).await;
        let (api, name) = (self.pod.api(), self.pod.name());
        let patch = Patch::Strategic(json!({ "metadata": { "uid": self.pod.pod().uid() }, "status": status }));
        insist(|| {
            let (api, name, patch) = (api.clone(), name.clone(), patch.clone());
            async move { api.patch_status(&name, &PatchParams::default(), &patch).await.map(drop) }
        })
        .await;
        self.written = status;
    }

    fn status(&mut self) -> Value {
        let pod = Arc::clone(&self.pod);
        let spec = pod.spec();
        let views = pod.board.all();
        let phase = phase(&views, pod.is_over());
        let names = |is_meant: &dyn Fn(&View) -> bool| -> Vec<String> {
            let ordered = spec.init_containers.iter().flatten().chain(&spec.containers);
            ordered
                .filter(|container| is_meant(&views[&container.name]))
                .map(|container| container.name.clone())
                .collect()
        };
        // What has been initialized stays so, whatever becomes of its sidecars.
        let is_past = pod.is_over() || views.values().any(|view| view.kind == Kind::Main && has_run(view));
        let uninitialized = names(&|view| view.kind != Kind::Main && !is_done(view) && !is_past);
        let unready = names(&|view| view.kind != Kind::Init && !view.is_ready);
        let unready_because = match phase {
            "Succeeded" => ("PodCompleted", String::new()),
            "Failed" => ("PodFailed", String::new()),
            _ => ("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
        };
        let not_initialized = format!("containers with incomplete status: [{}]", uninitialized.join(" "));
        let is_ready = unready.is_empty() && !pod.is_over();
        let conditions = [
            self.condition("PodReadyToStartContainers", !pod.is_over(), ("", String::new())),
            self.condition("Initialized", uninitialized.is_empty(), ("ContainersNotInitialized", not_initialized)),
            self.condition("ContainersReady", is_ready, unready_because.clone()),
            self.condition("Ready", is_ready, unready_because),
        ];
        let statuses = |containers: &[Container]| -> Vec<Value> {
            containers.iter().map(|container| container_status(&container.name, &views[&container.name])).collect()
        };
        let address = &pod.downward.address;
        json!({
            "phase": phase,
            "conditions": conditions,
            "hostIP": pod.downward.host_address,
            "hostIPs": [{ "ip": pod.downward.host_address }],
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "startTime": stamp(pod.started),
            "initContainerStatuses": statuses(spec.init_containers.as_deref().unwrap_or_default()),
            "containerStatuses": statuses(&spec.containers),
        })
    }

    /// A condition that is true needs no reason; null takes away the one that it had.
    fn condition(&mut self, kind: &'static str, is_so: bool, because: (&str, String)) -> Value {
        let known = self.transitions.entry(kind).or_insert_with(|| (is_so, now()));
        if known.0 != is_so {
            *known = (is_so, now());
        }
        let (reason, message) = if is_so { ("", String::new()) } else { because };
        let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        json!({
            "type": kind,
            "status": if is_so { "True" } else { "False" },
            "lastTransitionTime": stamp(known.1),
            "reason": text(reason),
            "message": text(&message),
        })
    }
}

fn has_run(view: &View) -> bool {
    view.last.is_some() || !matches!(view.state, State::Waiting { .. })
}

fn phase(views: &BTreeMap<String, View>, is_over: bool) -> &'static str {
    let mut mains = views.values().filter(|view| view.kind == Kind::Main);
    if is_over {
        let has_succeeded = mains.all(|view| matches!(&view.state, State::Terminated(end) if end.exit_code == 0));
        return if has_succeeded { "Succeeded" } else { "Failed" };
    }
    if mains.all(has_run) { "Running" } else { "Pending" }
}

fn container_status(name: &str, view: &View) -> Value {
    let state = match &view.state {
        State::Waiting { reason, message } => json!({ "waiting": { "reason": reason, "message": message } }),
        State::Running { since } => json!({ "running": { "startedAt": stamp(*since) } }),
        State::Terminated(end) => terminated(end),
    };
    json!({
        "name": name,
        "image": view.image,
        "imageID": view.image,
        "state": state,
        "lastState": view.last.as_ref().map_or_else(|| json!({}), terminated),
        "ready": view.is_ready,
        "started": view.is_started,
        "restartCount": view.restarts,
    })
}

fn terminated(end: &End) -> Value {
    json!({ "terminated": {
        "exitCode": end.exit_code,
        "reason": end.reason,
        "message": end.message,
        "startedAt": end.started.map(stamp),
        "finishedAt": stamp(end.finished),
    } })
}

/// The API server keeps whole seconds.
fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Lets the object of a pod go that has ended.
pub(crate) async fn finish(pod: &PodContext) {
    sleep(pod.node.habits().write_delay).await;
    let (api, name) = (pod.api(), pod.name());
    let same = Preconditions { uid: pod.pod().uid(), resource_version: None };
    let at_once = DeleteParams::default().grace_period(0).preconditions(same);
    insist(|| {
        let (api, name, at_once) = (api.clone(), name.clone(), at_once.clone());
        async move { api.delete(&name, &at_once).await.map(drop) }
    })
    .await;
}

/// Tries until the API server answers; a refusal is an answer, since the pod is gone or another one.
async fn insist<F: Future<Output = kube::Result<()>>>(attempt: impl Fn() -> F) {
    for _ in 0..ATTEMPTS {
        match attempt().await {
            Ok(()) => return,
            Err(kube::Error::Api(refusal)) if refusal.code < 429 => {
                // The pod is gone, or another one has its name. Anything else is a mistake of ours.
                assert!([404, 409].contains(&refusal.code), "the API server refuses: {refusal:?}");
                return;
            }
            Err(_away) => sleep(AGAIN_AFTER).await,
        }
    }
}
