//! What keeps a pod from becoming ready: a word of a fixed set, and what the kubelet or the scheduler says of it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition};

/// A pod that could start and has not become ready for so long fails: the default of a Deployment's `progressDeadlineSeconds`.
pub const STARTUP_MAX: SignedDuration = SignedDuration::from_mins(10);

/// A pod that no node has room for fails after so long: Cluster Autoscaler itself gives a node up then
/// (`--max-node-provision-time`), and no other one waits longer.
pub const NODE_WAIT_MAX: SignedDuration = SignedDuration::from_mins(15);

/// A container that ran for less and was started again as often crashes, also at a moment when it happens to run. The kubelet
/// forgets its back-off after as long a run.
const CRASHES_MIN: i32 = 2;
const RUN_MIN: SignedDuration = SignedDuration::from_mins(10);

/// What is kept of a message: it is kept for each pod, and people read the beginning.
const MESSAGE_BYTES_MAX: usize = 512;

/// Why a pod fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A bounded `CamelCase` word.
    pub word: &'static str,
    /// The container and Kubernetes' own words, without what ticks in them.
    pub message: String,
}

/// What a pod that is not ready waits for, by its own status. Whether that is a failure may depend on how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// It does not become ready by waiting.
    Failing(Failure),
    /// No node has room for it.
    Unscheduled {
        /// Since when, where that is known.
        since: Option<Timestamp>,
        /// The scheduler's words.
        message: String,
    },
    /// Nothing is known to be wrong.
    Starting {
        /// Since when it could have become ready.
        since: Option<Timestamp>,
        /// What it is said to wait for.
        message: String,
    },
}

impl Hindrance {
    /// Of a pod that is not ready.
    pub fn of(pod: &Pod) -> Self {
        let Some(status) = &pod.status else {
            return Self::Starting { since: None, message: String::new() };
        };
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let condition = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
        if let Some(scheduled) = condition("PodScheduled").filter(|condition| condition.status == "False") {
            return Self::Unscheduled { since: changed(scheduled), message: words(scheduled) };
        }
        let init = status.init_container_statuses.as_deref().unwrap_or_default();
        let containers = status.container_statuses.as_deref().unwrap_or_default();
        if let Some(failure) = init.iter().chain(containers).find_map(failure) {
            return Self::Failing(failure);
        }
        // Ready turns False when a pod is made and when it stops being ready; before it has a node, it cannot start.
        let ready = condition("Ready");
        let since = [ready, condition("PodScheduled")].into_iter().flatten().filter_map(changed).max();
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self::Starting { since: since.or(created), message: ready.map(words).unwrap_or_default() }
    }

    /// Why it fails, if at this instant it does.
    pub fn failure(&self, now: Timestamp) -> Option<Failure> {
        let lasts = |since: &Option<Timestamp>, longest| since.is_some_and(|since| now.duration_since(since) > longest);
        match self {
            Self::Failing(failure) => Some(failure.clone()),
            Self::Unscheduled { since, message } if lasts(since, NODE_WAIT_MAX) => {
                Some(Failure { word: "Unschedulable", message: message.clone() })
            }
            Self::Starting { since, message } if lasts(since, STARTUP_MAX) => {
                Some(Failure { word: "NeverReady", message: message.clone() })
            }
            Self::Unscheduled { .. } | Self::Starting { .. } => None,
        }
    }
}

/// What the kubelet waits with, by our word for it. `ContainerCreating` and `PodInitializing` are the ordinary way.
fn word_for(reason: &str) -> Option<&'static str> {
    match reason {
        "CrashLoopBackOff" => Some("Crashing"),
        "ImagePullBackOff"
        | "ErrImagePull"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some("ImageNotPulled"),
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => Some("ContainerNotStarted"),
        _ => None,
    }
}

fn failure(status: &ContainerStatus) -> Option<Failure> {
    let state = status.state.as_ref();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let word = word_for(reason)?;
        // The message of a crash loop counts the seconds until the next attempt; how the last one ended says more.
        let detail = match ended(status.last_state.as_ref()) {
            Some(ended) if word == "Crashing" => end(ended),
            None if word == "Crashing" => String::new(),
            _ => waiting.message.clone().unwrap_or_default(),
        };
        return Some(described(status, word, reason, &detail));
    }
    // Between two attempts of its back-off, a container that crashes runs for a moment, or has just ended.
    let has_crashed = !status.ready && status.restart_count >= CRASHES_MIN;
    let last =
        ended(state).or_else(|| ended(status.last_state.as_ref())).filter(|last| has_crashed && was_short(last))?;
    Some(described(status, "Crashing", "CrashLoopBackOff", &end(last)))
}

fn described(status: &ContainerStatus, word: &'static str, reason: &str, detail: &str) -> Failure {
    let colon = if detail.is_empty() { "" } else { ": " };
    Failure { word, message: cut(format!("container {}: {reason}{colon}{detail}", status.name)) }
}

fn ended(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state.and_then(|state| state.terminated.as_ref())
}

fn was_short(last: &ContainerStateTerminated) -> bool {
    match (&last.started_at, &last.finished_at) {
        (Some(started), Some(finished)) => finished.0.duration_since(started.0) < RUN_MIN,
        _ => true,
    }
}

fn end(last: &ContainerStateTerminated) -> String {
    let reason = last.reason.as_deref().unwrap_or("ended");
    let message = last.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
    let message = message.map(|message| format!(", {message}")).unwrap_or_default();
    format!("{reason}, exit code {}{message}", last.exit_code)
}

fn changed(condition: &PodCondition) -> Option<Timestamp> {
    condition.last_transition_time.as_ref().map(|time| time.0)
}

fn words(condition: &PodCondition) -> String {
    cut(condition.message.clone().unwrap_or_default())
}

fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MADE: &str = "2026-01-05T12:00:00Z";

    fn after(seconds: i64) -> Timestamp {
        MADE.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
    }

    fn pod(container: &Value, conditions: &Value) -> Hindrance {
        let containers: Vec<&Value> = Some(container).filter(|container| !container.is_null()).into_iter().collect();
        let object = json!({
            "metadata": { "name": "linux-a-1", "creationTimestamp": MADE },
            "status": { "phase": "Pending", "conditions": conditions, "containerStatuses": containers },
        });
        Hindrance::of(&serde_json::from_value::<Pod>(object).unwrap())
    }

    fn container(state: &Value, last: &Value, restarts: u32) -> Value {
        json!({
            "name": "agent", "image": "x", "imageID": "", "ready": false, "restartCount": restarts,
            "state": state, "lastState": last,
        })
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({ "waiting": { "reason": reason, "message": message } })
    }

    fn terminated(ran_seconds: i64) -> Value {
        json!({ "terminated": {
            "exitCode": 1, "reason": "Error", "startedAt": MADE, "finishedAt": after(ran_seconds).to_string(),
        } })
    }

    fn not_ready(kind: &str, reason: &str, at: i64) -> Value {
        json!({ "type": kind, "status": "False", "reason": reason, "message": format!("{reason}!"),
            "lastTransitionTime": after(at).to_string() })
    }

    fn failing(container: &Value) -> Option<(&'static str, String)> {
        let failure = pod(container, &json!([not_ready("Ready", "ContainersNotReady", 0)])).failure(after(5))?;
        Some((failure.word, failure.message))
    }

    #[test]
    fn a_pod_fails_by_the_kubelets_words() {
        for (reason, word) in [
            ("CrashLoopBackOff", "Crashing"),
            ("ImagePullBackOff", "ImageNotPulled"),
            ("ErrImagePull", "ImageNotPulled"),
            ("InvalidImageName", "ImageNotPulled"),
            ("CreateContainerConfigError", "ContainerNotStarted"),
            ("RunContainerError", "ContainerNotStarted"),
        ] {
            let found = failing(&container(&waiting(reason, "no such thing"), &json!({}), 0)).unwrap();
            assert_eq!(found.0, word);
            assert!(found.1.starts_with(&format!("container agent: {reason}")), "{found:?}");
        }
        for reason in ["ContainerCreating", "PodInitializing", "SomethingNewer"] {
            assert_eq!(failing(&container(&waiting(reason, ""), &json!({}), 0)), None, "{reason}");
        }
    }

    #[test]
    fn a_crash_is_told_by_how_it_ended_and_not_by_the_next_attempt() {
        let looping = waiting("CrashLoopBackOff", "back-off 40s restarting failed container");
        let found = failing(&container(&looping, &terminated(2), 4)).unwrap();
        assert_eq!(found.1, "container agent: CrashLoopBackOff: Error, exit code 1");
        let pull = failing(&container(&waiting("ErrImagePull", "not found"), &json!({}), 0)).unwrap();
        assert_eq!(pull.1, "container agent: ErrImagePull: not found");
    }

    #[test]
    fn a_container_that_crashes_does_so_also_while_it_runs() {
        let running = json!({ "running": { "startedAt": MADE } });
        assert_eq!(failing(&container(&running, &terminated(2), 3)).unwrap().0, "Crashing");
        assert_eq!(failing(&container(&terminated(2), &json!({}), 3)).unwrap().0, "Crashing", "it has just ended");
        assert_eq!(failing(&container(&running, &terminated(2), 1)), None, "once is nothing yet");
        assert_eq!(failing(&container(&running, &terminated(3_600), 9)), None, "it ran for an hour: no crash loop");
    }

    #[test]
    fn a_pod_that_never_becomes_ready_fails_in_the_end() {
        let running = container(&json!({ "running": {} }), &json!({}), 0);
        let scheduled =
            json!({ "type": "PodScheduled", "status": "True", "lastTransitionTime": after(300).to_string() });
        let pod = pod(&running, &json!([not_ready("Ready", "ContainersNotReady", 0), scheduled]));
        assert_eq!(pod.failure(after(300) + STARTUP_MAX), None, "it counts from when the pod had a node");
        let failure = pod.failure(after(301) + STARTUP_MAX).unwrap();
        assert_eq!((failure.word, failure.message.as_str()), ("NeverReady", "ContainersNotReady!"));
    }

    #[test]
    fn a_pod_without_a_node_waits_for_as_long_as_an_autoscaler_may_take() {
        let pod = pod(&Value::Null, &json!([not_ready("PodScheduled", "Unschedulable", 10)]));
        assert!(matches!(pod, Hindrance::Unscheduled { .. }));
        assert_eq!(pod.failure(after(10) + NODE_WAIT_MAX), None);
        assert_eq!(pod.failure(after(11) + NODE_WAIT_MAX).unwrap().word, "Unschedulable");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let found = failing(&container(&waiting("ErrImagePull", &"ä".repeat(1_000)), &json!({}), 0)).unwrap();
        assert!(found.1.len() <= MESSAGE_BYTES_MAX);
    }
}
