//! The logs of containers that are processes, as a kubelet serves them to the API server: over TLS, and for as long as they grow.

use std::{convert::Infallible, net::Ipv4Addr, path::PathBuf, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    routing::get,
};
use futures::stream;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};

use super::{
    Case,
    jobs_metric::{acceptor, serve},
};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where a node's containers leave what they say.
#[derive(Clone)]
struct Logs {
    pods: Api<Pod>,
    folder: PathBuf,
}

/// They are served while it is there.
pub(crate) struct ServedLogs(JoinHandle<()>);

impl Drop for ServedLogs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Case {
    /// Serves the logs of the first node, and tells the API server where.
    pub(crate) async fn serve_logs(&self) -> ServedLogs {
        let node = self.process_node(1);
        let logs = Logs { pods: self.pods(), folder: self.folder().join(&node).join("pods") };
        let router = Router::new().route("/containerLogs/{namespace}/{pod}/{container}", get(log)).with_state(logs);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        let serving = tokio::spawn(serve(listener, acceptor(self.folder()), router));
        let status = json!({ "status": {
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        } });
        let nodes: Api<Node> = Api::all(self.admin.clone());
        nodes.patch_status(&node, &PatchParams::default(), &Patch::Merge(&status)).await.expect("a node of ours");
        ServedLogs(serving)
    }
}

async fn log(State(logs): State<Logs>, Path((_namespace, pod, container)): Path<(String, String, String)>) -> Body {
    let uid = logs.pods.get(&pod).await.ok().and_then(|pod| pod.metadata.uid).unwrap_or_default();
    let file = logs.folder.join(uid).join(format!("{container}.0.log"));
    Body::from_stream(stream::unfold(0, move |told| {
        let (file, pods, pod, container) = (file.clone(), logs.pods.clone(), pod.clone(), container.clone());
        async move {
            loop {
                // Asked first: what it says before its end is all there is.
                let has_ended = has_ended(&pods, &pod, &container).await;
                let said = std::fs::read(&file).unwrap_or_default();
                if said.len() > told {
                    return Some((Ok::<_, Infallible>(said[told..].to_vec()), said.len()));
                }
                if has_ended {
                    return None;
                }
                sleep(LOOK_EVERY).await;
            }
        }
    }))
}

async fn has_ended(pods: &Api<Pod>, pod: &str, container: &str) -> bool {
    let Ok(pod) = pods.get(pod).await else { return true };
    let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    let of_it = statuses.into_iter().find(|status| status.name == container);
    of_it.and_then(|status| status.state).is_some_and(|state| state.terminated.is_some())
}
