//! One API server, simulated or real, behind kube's client.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kitepool_world::kubernetes::{Delay, Kubernetes, Settings, Shared, drive, router};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    client::Body,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{control_plane, transcript::Transcript};

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Where the requests of a case go.
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    simulation: Option<Shared>,
}

/// Longer than any case: so nothing that a kubelet does is ever done.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// The simulation, without kubelets and with the nodes of the control plane.
pub(crate) fn simulated(transcript: &mut Transcript) -> Server {
    let began = Instant::now();
    let clock = move || Timestamp::UNIX_EPOCH + Duration::from_hours(24 * 365 * 50) + began.elapsed();
    let definitions = kitepool_api::crds().iter().map(|definition| serde_json::to_value(definition).unwrap()).collect();
    let settings = Settings { definitions, kubelet: Delay::of(NEVER), ..Settings::default() };
    let shared = Shared::new(Kubernetes::new(settings, 1, clock()));
    tokio::spawn(drive(shared.clone(), clock));
    let client = Client::new(router(shared.clone(), clock), "conformance");
    transcript.call("conformance", "NAMESPACE");
    Server { client, namespace: "conformance".to_owned(), simulation: Some(shared) }
}

/// The real one, in a namespace of the case's own.
pub(crate) async fn real(case: &str, transcript: &mut Transcript) -> Server {
    let client = control_plane::client().await;
    let namespace: String = case.replace('_', "-").chars().take(50).collect();
    let api: Api<Namespace> = Api::all(client.clone());
    let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
    api.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await.expect("a namespace");
    transcript.call(&namespace, "NAMESPACE");
    // Without it no pod is created.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    while accounts.get_opt("default").await.expect("an answer").is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Server { client, namespace, simulation: None }
}

/// `application/json-patch+json`.
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
/// `application/merge-patch+json`.
pub(crate) const MERGE: &str = "application/merge-patch+json";
/// `application/strategic-merge-patch+json`.
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// `application/apply-patch+yaml`.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

impl Server {
    /// The path of `apis/apps/v1` and `deployments/d` in the namespace of the case.
    pub(crate) fn path(&self, version: &str, resource: &str) -> String {
        format!("/{version}/namespaces/{}/{resource}", self.namespace)
    }

    async fn send(&self, method: Method, path: &str, content_type: &str, body: Vec<u8>) -> http::Response<Body> {
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let request = request.header("accept", "application/json").body(Body::from(body)).expect("a request");
        self.client.send(request).await.expect("an answer")
    }

    async fn ask(&self, method: Method, path: &str, content_type: &str, body: Option<&Value>) -> Answer {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let (parts, body) = self.send(method, path, content_type, body).await.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answer { status: parts.status.as_u16(), body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "application/json", None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, "application/json", Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, path, "application/json", Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Answer {
        self.ask(Method::PATCH, path, content_type, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.ask(Method::DELETE, path, "application/json", Some(options)).await
    }

    /// Opens a watch and reads it until it ends, or until so many events came. With the time each took.
    pub(crate) async fn watch(&self, path: &str, events: usize) -> Vec<(Value, Duration)> {
        let began = Instant::now();
        let response = self.send(Method::GET, path, "application/json", Vec::new()).await;
        let lines = response.into_body().into_data_stream().map_err(std::io::Error::other).into_async_read();
        let lines = futures::AsyncBufReadExt::lines(lines);
        let events = lines.take(events).map(|line| {
            let event = serde_json::from_str(&line.expect("a line")).expect("JSON");
            (event, began.elapsed())
        });
        events.collect().await
    }

    /// Looks until it is so, half a minute at most.
    pub(crate) async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let Answer { body, .. } = self.get(path).await;
            if is_so(&body) {
                return body;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "not within half a minute: {path}: {body:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets the simulation forget what was. The real one never knew what was before its cache.
    pub(crate) fn forget(&self) {
        if let Some(shared) = &self.simulation {
            shared.with(Timestamp::UNIX_EPOCH, Kubernetes::compact);
        }
    }

    /// An API of which nothing is installed.
    pub(crate) fn unserved(&self) -> &'static str {
        match &self.simulation {
            None => "apis/kitepool.dev/v1",
            Some(shared) => {
                shared.with(Timestamp::UNIX_EPOCH, |kubernetes| kubernetes.set_definitions(Vec::new()));
                "apis/kitepool.dev/v1alpha1"
            }
        }
    }

    /// Pods find no node in the simulation, which has no selectors for nodes; the real one reads that of the pod.
    pub(crate) fn never_schedules(&self, is_so: bool) {
        if let Some(shared) = &self.simulation {
            let now = Timestamp::UNIX_EPOCH;
            shared.with(now, |kubernetes| kubernetes.set_unschedulable(&self.namespace, is_so, now));
        }
    }

    /// Whether the simulation was asked for nothing that it does not know.
    pub(crate) fn knew_everything(&self) {
        if let Some(shared) = &self.simulation {
            shared.with(Timestamp::UNIX_EPOCH, |kubernetes| assert_eq!(kubernetes.unknown(), [""; 0]));
        }
    }
}
