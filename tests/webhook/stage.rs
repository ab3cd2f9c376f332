//! A webhook on a port of its own, its secrets, and the simulated API server that it writes to.

use std::{fmt::Write as _, net::SocketAddr, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use kitepool::{
    clock::Clock,
    cluster::hints::HintWriter,
    control::metrics::Metrics,
    ingest::{self, CertificateFiles, Config},
};
use kitepool_api::events::Assumed;
use kitepool_world::kubernetes::{Fault, Kind, Kubernetes, Route, Settings, Shared, Verb, drive, router};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) const SECRET: &str = "the-webhook-s-token";
const NAMESPACE: &str = "ci";

pub(crate) struct Stage {
    kubernetes: Shared,
    clock: Clock,
    address: SocketAddr,
    client: Client,
    folder: Arc<TempDir>,
    stop: CancellationToken,
    /// Held, so that they run as long as the stage is there.
    running: Vec<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) retry_after: Option<String>,
}

/// What Buildkite sends when a job became runnable.
pub(crate) fn body(id: &str, queue: &str) -> String {
    json!({
        "event": "job.scheduled",
        "job": {
            "id": id,
            "type": "script",
            "state": "scheduled",
            "agent_query_rules": ["os=linux", format!("queue={queue}")],
            "runnable_at": "2026-01-31T12:00:00.000Z",
        },
        "build": { "number": 1 },
        "sender": { "name": "Some Person" },
    })
    .to_string()
}

pub(crate) fn sign(secret: &str, timestamp: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let digest = mac.finalize().into_bytes();
    let mut header = format!("timestamp={timestamp},signature=");
    for byte in digest {
        write!(header, "{byte:02x}").unwrap();
    }
    header
}

impl Stage {
    pub(crate) async fn begin() -> Self {
        Self::with_rate(100_000).await
    }

    pub(crate) async fn with_rate(rate: u32) -> Self {
        let clock = Clock::machine();
        let definitions = kitepool_api::crds().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let settings = Settings { definitions, ..Settings::default() };
        let kubernetes = Shared::new(Kubernetes::new(settings, 1, clock.now()));
        let moving = clock.clone();
        let driving = tokio::spawn(drive(kubernetes.clone(), move || moving.now()));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let mut stage = Self::replica(kubernetes, clock, Arc::new(folder), rate, None).await;
        stage.running.push(AbortOnDropHandle::new(driving));
        stage
    }

    pub(crate) async fn with_certificate(files: CertificateFiles) -> Self {
        let plain = Self::begin().await;
        let Self { kubernetes, clock, folder, running, .. } = plain;
        let mut stage = Self::replica(kubernetes, clock, folder, 1_000, Some(files)).await;
        stage.running.extend(running);
        stage
    }

    pub(crate) async fn another_replica(&self) -> Self {
        Self::replica(self.kubernetes.clone(), self.clock.clone(), Arc::clone(&self.folder), 1_000, None).await
    }

    async fn replica(
        kubernetes: Shared,
        clock: Clock,
        folder: Arc<TempDir>,
        rate: u32,
        certificate: Option<CertificateFiles>,
    ) -> Self {
        let reading = clock.clone();
        let api_server = router(kubernetes.clone(), move || reading.now());
        let hints = HintWriter::new(kube::Client::new(api_server, NAMESPACE));
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            secret_files: ["secret", "second"].map(|name| folder.path().join(name)).to_vec(),
            namespace: NAMESPACE.to_owned(),
            assumed: Assumed::default(),
            rate: NonZeroU32::new(rate).unwrap(),
            certificate,
        };
        let (metrics, _registry) = Metrics::new(&[]);
        let stop = CancellationToken::new();
        let (address, running) = ingest::open(config, hints, metrics, stop.clone()).await.unwrap();
        let running = tokio::spawn(async move { running.await.unwrap() });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { kubernetes, clock, address, client, folder, stop, running: vec![AbortOnDropHandle::new(running)] }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.now().as_second()
    }

    fn at(&self) -> Timestamp {
        self.clock.now()
    }

    fn request(&self, body: &str) -> RequestBuilder {
        self.client.post(format!("http://{}/webhook", self.address)).body(body.to_owned())
    }

    /// As Buildkite does when it signs.
    pub(crate) async fn deliver(&self, body: &str) -> Delivered {
        self.signed_with(SECRET, body).await
    }

    pub(crate) async fn signed_with(&self, secret: &str, body: &str) -> Delivered {
        send(self.request(body).header("X-Buildkite-Signature", sign(secret, self.now(), body))).await
    }

    pub(crate) async fn signed_at(&self, timestamp: i64, body: &str) -> Delivered {
        send(self.request(body).header("X-Buildkite-Signature", sign(SECRET, timestamp, body))).await
    }

    pub(crate) async fn with_token(&self, token: &str, body: &str) -> Delivered {
        send(self.request(body).header("X-Buildkite-Token", token)).await
    }

    pub(crate) async fn without_proof(&self, body: &str) -> Delivered {
        send(self.request(body)).await
    }

    pub(crate) fn secret_file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    pub(crate) fn write_second_secret(&self, secret: &str) {
        std::fs::write(self.folder.path().join("second"), secret).unwrap();
    }

    pub(crate) fn hints(&self) -> Vec<Arc<Value>> {
        self.kubernetes.peek(|kubernetes| kubernetes.objects(Kind::JobHint, NAMESPACE))
    }

    pub(crate) fn delete_hints(&self) {
        let now = self.at();
        for hint in self.hints() {
            let name = hint["metadata"]["name"].as_str().unwrap().to_owned();
            self.kubernetes.with(now, |kubernetes| {
                kubernetes.delete("somebody", (Kind::JobHint, NAMESPACE, &name), now).unwrap();
            });
        }
    }

    pub(crate) fn set_quota(&self, hints: u32) {
        let now = self.at();
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": { "name": "kitepool-hints", "namespace": NAMESPACE },
            "spec": { "hard": { "count/jobhints.kitepool.dev": hints.to_string() } },
        });
        self.kubernetes.with(now, |kubernetes| kubernetes.put("somebody", quota, now).unwrap());
    }

    pub(crate) fn fault_creating(&self, fault: Option<Fault>) {
        let route = Route::new(Verb::Create, "jobhints");
        self.kubernetes.with(self.at(), |kubernetes| kubernetes.set_fault(route, fault));
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

async fn send(request: RequestBuilder) -> Delivered {
    let answer = request.send().await.unwrap();
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    Delivered { status: answer.status().as_u16(), retry_after, text: answer.text().await.unwrap() }
}
