//! The control plane of `tests/control-plane`, shared by the cases of a run, with the definitions of this version.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

/// A client of its own for each case: a connection belongs to the runtime that opened it.
pub(crate) async fn client() -> Client {
    static STARTED: OnceLock<(Kubeconfig, Child)> = OnceLock::new();
    let (kubeconfig, _ends_with_us) = STARTED.get_or_init(start);
    let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default()).await;
    let client = Client::try_from(config.expect("a usable kubeconfig")).expect("a client");
    install(&client).await;
    client
}

/// Ends when its standard input closes, which is when this process is gone.
fn start() -> (Kubeconfig, Child) {
    rustls::crypto::ring::default_provider().install_default().expect("nobody else installs one");
    let mut child = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/run"))
        .arg("--stop-on-stdin-eof")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/control-plane/run can be run");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let ready: Value = serde_json::from_str(&lines.next().expect("a line").expect("a line")).expect("JSON");
    assert_eq!(ready["ready"], true, "the control plane did not come up: {ready}");
    let kubeconfig = Kubeconfig::read_from(ready["kubeconfig"].as_str().expect("a path")).expect("its kubeconfig");
    (kubeconfig, child)
}

/// As `kubectl apply --server-side` does it. The second to do so changes nothing.
async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in kitepool_api::crds() {
        let params = PatchParams::apply("conformance").force();
        api.patch(&definition.name_any(), &params, &Patch::Apply(&definition)).await.expect("it is accepted");
        loop {
            let seen = api.get(&definition.name_any()).await.expect("it is there");
            let conditions = seen.status.and_then(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
