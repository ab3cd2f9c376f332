//! The jobs of a queue as an external metric of Kubernetes, which is what people scale by who scale with a
//! `HorizontalPodAutoscaler`: served by this program through the aggregation of the real API server.

use std::{path::Path, process::Command, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

const GROUP: &str = "external.metrics.k8s.io";
const VERSION: &str = "v1beta1";
/// The API of a cluster has this name whoever serves it.
const API: &str = "v1beta1.external.metrics.k8s.io";
const SERVICE: &str = "jobs-metric";

/// The name of the metric. The queue is its label.
pub(crate) const METRIC: &str = "buildkite_jobs";

/// How many jobs of a queue are runnable or run.
pub(crate) type Count = Arc<dyn Fn(&str) -> u32 + Send + Sync>;

/// A metric that is served; it ends when it is dropped, and the API with [`JobsMetric::end`].
pub(crate) struct JobsMetric {
    apis: Api<DynamicObject>,
    _ends: DropGuard,
}

impl JobsMetric {
    /// Serves it in the whole cluster. There can be one.
    pub(crate) async fn start(admin: &Client, namespace: &str, folder: &Path, count: Count) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let end = CancellationToken::new();
        let router = Router::new()
            .route(&format!("/apis/{GROUP}/{VERSION}"), get(async || Json(resources())))
            .route(&format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{METRIC}"), get(value))
            .with_state(count);
        tokio::spawn(end.clone().run_until_cancelled_owned(serve(listener, acceptor(folder), router)));
        // A Service of any other type has an address of a network that this machine does not have.
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": SERVICE },
            "spec": { "type": "ExternalName", "externalName": "localhost" },
        }))
        .expect("a Service");
        let services: Api<Service> = Api::namespaced(admin.clone(), namespace);
        services.create(&PostParams::default(), &service).await.expect("the Service is taken");
        let kind = GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService");
        let apis: Api<DynamicObject> = Api::all_with(admin.clone(), &ApiResource::from_gvk(&kind));
        let api: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": { "name": API },
            "spec": {
                "group": GROUP, "version": VERSION, "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": { "namespace": namespace, "name": SERVICE, "port": port },
                "insecureSkipTLSVerify": true,
            },
        }))
        .expect("an APIService");
        apis.create(&PostParams::default(), &api).await.expect("the APIService is taken");
        Self { apis, _ends: end.drop_guard() }
    }

    /// Takes the API away: while it is there and nobody serves it, no namespace of the cluster can go.
    pub(crate) async fn end(self) {
        self.apis.delete(API, &DeleteParams::default()).await.expect("it can be deleted");
    }
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [{
            "name": METRIC, "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": ["get"],
        }],
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selected {
    #[serde(default)]
    label_selector: String,
}

async fn value(State(count): State<Count>, Query(selected): Query<Selected>) -> Json<Value> {
    let queue = selected.label_selector.strip_prefix("queue=").unwrap_or_default();
    Json(json!({
        "kind": "ExternalMetricValueList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {},
        "items": [{
            "metricName": METRIC, "metricLabels": { "queue": queue }, "timestamp": jiff::Timestamp::now().to_string(),
            "value": count(queue).to_string(),
        }],
    }))
}

/// The API server goes no other way than over TLS; whose certificate it is does not matter to it here.
pub(super) fn acceptor(folder: &Path) -> TlsAcceptor {
    let (key, chain) = (folder.join("metric.key"), folder.join("metric.crt"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output()
        .expect("openssl can be run");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let chain = vec![CertificateDer::from_pem_file(chain).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(key).expect("its key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    TlsAcceptor::from(Arc::new(config))
}

pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, router: Router) {
    while let Ok((connection, _peer)) = listener.accept().await {
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            let Ok(connection) = acceptor.accept(connection).await else { return };
            drop(http1::Builder::new().serve_connection(TokioIo::new(connection), service).await);
        });
    }
}
