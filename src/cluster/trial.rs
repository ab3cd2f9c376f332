//! One pod that a person tries: made, looked at, read from and deleted with that person's own rights.

use std::{io::Write, time::Duration};

use futures::{AsyncRead, AsyncReadExt as _};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, LogParams, PostParams, Preconditions},
    core::{ApiResource, DynamicObject},
};
use serde_json::Value;

use super::{error::Error, hindrance::Hindrance};
use crate::pods::contract::AGENT_CONTAINER;

/// Somebody waits in front of a screen, and looks again a moment later.
const CALL_DEADLINE: Duration = Duration::from_secs(20);

/// What is read of a log at a time.
const LOG_BUFFER_BYTES: usize = 8 << 10;

/// What is shown of the log of a container beside the agent. An end of it says why; more would bury what the job says.
const TAIL_BYTES_MAX: i64 = 64 << 10;
const TAIL_LINES: i64 = 20;

/// The calls that a trial takes.
#[derive(Clone)]
pub struct Trial {
    pods: Api<Pod>,
    /// The same without our types: a field that they do not know yet is to reach the API server.
    raw: Api<DynamicObject>,
}

/// What stands of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Its node.
    pub node: Option<String>,
    /// What it waits for, while it is neither ready nor over.
    pub hindrance: Option<Hindrance>,
    /// Its containers in the order in which they start.
    pub containers: Vec<Seen>,
    /// Why it is over as a whole, in Kubernetes' words; nothing while it is not.
    pub over: Option<String>,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: State,
    /// How often it was started again.
    pub restarts: i32,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has not begun.
    Waits,
    /// It runs.
    Runs {
        /// Whether its startup probe has passed, where it has one.
        is_started: bool,
    },
    /// It has ended.
    Ended {
        /// By which code.
        code: i32,
        /// Kubernetes' word for it.
        reason: String,
    },
}

impl Trial {
    /// In a namespace.
    pub fn new(mut config: Config, namespace: &str) -> Result<Self, Error> {
        // A job may say nothing for as long as it likes; calls have a deadline of their own.
        config.read_timeout = None;
        let client = Client::try_from(config)?;
        let raw = Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<Pod>(&()));
        Ok(Self { pods: Api::namespaced(client, namespace), raw })
    }

    /// Creates the pod, and answers with its uid.
    pub async fn create(&self, pod: &Value) -> Result<String, Error> {
        let pod: DynamicObject =
            serde_json::from_value(pod.clone()).map_err(|error| Error::Invalid { message: error.to_string() })?;
        let made = within(self.raw.create(&PostParams::default(), &pod)).await?;
        Ok(made.metadata.uid.unwrap_or_default())
    }

    /// What stands of it; nothing where it is not there.
    pub async fn look(&self, name: &str) -> Result<Option<Sight>, Error> {
        Ok(within(self.pods.get_opt(name)).await?.map(|pod| Sight::of(&pod)))
    }

    /// Asks for its deletion; one that is not there counts as deleted. `uid` keeps a namesake safe.
    pub async fn delete(&self, name: &str, uid: Option<&str>) -> Result<(), Error> {
        let preconditions = uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match within(self.pods.delete(name, &parameters)).await {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes a container's log as it comes: all of it, or from so many seconds ago. Ends with the container, or where the way to
    /// it breaks off.
    pub async fn copy_log(
        &self,
        name: &str,
        container: &str,
        since_seconds: Option<i64>,
        to: &mut impl Write,
    ) -> Result<(), Error> {
        let container = Some(container.to_owned());
        let parameters = LogParams { container, follow: true, since_seconds, ..LogParams::default() };
        let log = within(self.pods.log_stream(name, &parameters)).await?;
        copy(log, to).await.map_err(|error| Error::Transport(kube::Error::ReadEvents(error)))
    }

    /// The end of a container's log: of its last run that ended where `previous` is asked for.
    pub async fn tail(&self, name: &str, container: &str, previous: bool) -> Result<String, Error> {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(TAIL_LINES),
            limit_bytes: Some(TAIL_BYTES_MAX),
            previous,
            ..LogParams::default()
        };
        within(self.pods.logs(name, &parameters)).await
    }
}

/// Fails where nothing can be written any more.
async fn copy(log: impl AsyncRead, to: &mut impl Write) -> std::io::Result<()> {
    let mut log = std::pin::pin!(log);
    let mut buffer = vec![0; LOG_BUFFER_BYTES];
    while let Ok(read) = log.read(&mut buffer).await {
        match buffer.get(..read) {
            Some(bytes) if !bytes.is_empty() => to.write_all(bytes)?,
            _ => break,
        }
    }
    to.flush()
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(answer) => answer.map_err(Error::from),
        Err(_elapsed) => Err(Error::Deadline { seconds: CALL_DEADLINE.as_secs() }),
    }
}

impl Sight {
    /// Of a pod.
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let over = status.filter(|_| matches!(phase, Some("Failed" | "Succeeded"))).map(|status| {
            let words = [status.reason.as_deref(), status.message.as_deref()];
            let told: Vec<&str> = words.into_iter().flatten().filter(|words| !words.is_empty()).collect();
            if told.is_empty() { phase.unwrap_or_default().to_owned() } else { told.join(": ") }
        });
        let statuses = |pick: fn(&k8s_openapi::api::core::v1::PodStatus) -> &Option<Vec<ContainerStatus>>| {
            status.and_then(|status| pick(status).as_deref()).unwrap_or_default()
        };
        let init = statuses(|status| &status.init_container_statuses);
        let main = statuses(|status| &status.container_statuses);
        Self {
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
            hindrance: over.is_none().then(|| Hindrance::of(pod)),
            containers: init.iter().chain(main).map(seen).collect(),
            over,
        }
    }

    /// The container of the agent.
    pub fn agent(&self) -> Option<&Seen> {
        self.containers.iter().find(|container| container.name == AGENT_CONTAINER)
    }
}

fn seen(status: &ContainerStatus) -> Seen {
    let state = status.state.as_ref();
    let state = if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        State::Ended { code: ended.exit_code, reason: ended.reason.clone().unwrap_or_default() }
    } else if state.is_some_and(|state| state.running.is_some()) {
        State::Runs { is_started: status.started == Some(true) }
    } else {
        State::Waits
    };
    Seen { name: status.name.clone(), state, restarts: status.restart_count }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wiremock::{
        Mock, MockServer, ResponseTemplate,
        matchers::{body_partial_json, method, path, query_param},
    };

    use super::{super::client::plain, *};

    fn sight(status: &Value) -> Sight {
        let pod = json!({ "spec": { "nodeName": "n", "containers": [] }, "status": status });
        Sight::of(&serde_json::from_value(pod).unwrap())
    }

    fn status(name: &str, state: &Value, started: bool) -> Value {
        json!({ "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state, "started": started })
    }

    #[test]
    fn containers_are_seen_in_the_order_in_which_they_start() {
        let running = json!({ "running": {} });
        let seen = sight(&json!({
            "phase": "Pending",
            "initContainerStatuses": [status("program", &json!({ "terminated": { "exitCode": 0, "reason": "Completed" } }), false),
                status("dockerd", &running, false)],
            "containerStatuses": [status("agent", &json!({ "waiting": { "reason": "PodInitializing" } }), false)],
        }));
        let states: Vec<(&str, &State)> =
            seen.containers.iter().map(|container| (container.name.as_str(), &container.state)).collect();
        let completed = State::Ended { code: 0, reason: "Completed".to_owned() };
        let expected =
            [("program", &completed), ("dockerd", &State::Runs { is_started: false }), ("agent", &State::Waits)];
        assert_eq!(states, expected);
        assert_eq!((seen.node.as_deref(), seen.over.as_deref()), (Some("n"), None));
        assert!(seen.hindrance.is_some());
    }

    #[test]
    fn a_pod_that_is_over_says_why_and_waits_for_nothing() {
        let evicted = sight(&json!({ "phase": "Failed", "reason": "Evicted", "message": "the disk is full" }));
        assert_eq!((evicted.over.as_deref(), evicted.hindrance), (Some("Evicted: the disk is full"), None));
        assert_eq!(sight(&json!({ "phase": "Succeeded" })).over.as_deref(), Some("Succeeded"));
    }

    #[tokio::test]
    async fn a_log_is_copied_whole_whatever_its_length() {
        let log = vec![b'x'; 3 * LOG_BUFFER_BYTES + 1];
        let mut copied = Vec::new();
        copy(futures::io::Cursor::new(&log), &mut copied).await.unwrap();
        assert_eq!(copied, log);
    }

    #[tokio::test]
    async fn the_agents_log_is_followed_and_a_deletion_is_of_this_very_pod() {
        let server = MockServer::start().await;
        let log = Mock::given(method("GET")).and(path("/api/v1/namespaces/ci/pods/p/log"));
        let log = log.and(query_param("follow", "true")).and(query_param("container", "agent"));
        log.respond_with(ResponseTemplate::new(200).set_body_string("one\ntwo\n")).expect(1).mount(&server).await;
        let deletion = Mock::given(method("DELETE")).and(path("/api/v1/namespaces/ci/pods/p"));
        let deletion = deletion.and(body_partial_json(json!({ "preconditions": { "uid": "u" } })));
        let gone =
            json!({ "kind": "Status", "apiVersion": "v1", "code": 404, "status": "Failure", "reason": "NotFound" });
        deletion.respond_with(ResponseTemplate::new(404).set_body_json(gone)).expect(1).mount(&server).await;

        let trial = Trial::new(plain(&server.uri()).unwrap(), "ci").unwrap();
        let mut copied = Vec::new();
        trial.copy_log("p", "agent", None, &mut copied).await.unwrap();
        assert_eq!(copied, b"one\ntwo\n");
        trial.delete("p", Some("u")).await.expect("one that is gone counts as deleted");
    }
}
