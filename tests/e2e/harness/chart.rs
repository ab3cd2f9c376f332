//! What an installation brings: the definitions that the controller under test prints, and the account, the rights and the
//! quota of the chart, rendered once and put into each case's namespace.

use std::{process::Command, sync::OnceLock, time::Duration};

use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;

use super::{
    control_plane::{Access, repository},
    wait::eventually,
};

/// The name of the release, and so of the account, its rights and the lease.
pub(crate) const RELEASE: &str = "kitepool";

/// Rendered for this namespace, which each case replaces by its own.
const PLACEHOLDER: &str = "e2e-placeholder";

/// What a helm that was built without a version would otherwise take for the cluster's is older than the chart allows.
const KUBERNETES: &str = "1.36.0";

/// What a case's namespace takes over from the chart, in this order.
const KINDS: [(&str, &str, &str); 5] = [
    ("", "v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io", "v1", "Role"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
    ("", "v1", "ResourceQuota"),
    ("policy", "v1", "PodDisruptionBudget"),
];

/// All documents of the chart, rendered by helm or by the one who set `KITEPOOL_E2E_RENDERED`.
pub(crate) fn rendered() -> &'static str {
    static RENDERED: OnceLock<String> = OnceLock::new();
    RENDERED.get_or_init(|| {
        if let Some(path) = std::env::var_os("KITEPOOL_E2E_RENDERED") {
            std::fs::read_to_string(path).expect("KITEPOOL_E2E_RENDERED names the rendered chart")
        } else {
            let chart = repository().join("deploy/helm/kitepool");
            let output = Command::new("helm")
                .args(["template", RELEASE])
                .arg(chart)
                .args(["--namespace", PLACEHOLDER, "--kube-version", KUBERNETES, "--set", "webhook.enabled=true"])
                .output()
                .expect("helm can be run; without it set KITEPOOL_E2E_RENDERED to the rendered chart");
            assert!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("text")
        }
    })
}

/// The rendered documents as they are for one namespace.
pub(crate) fn documents(namespace: &str) -> Vec<Value> {
    let text = rendered().replace(PLACEHOLDER, namespace);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("the chart renders YAML");
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// Gives the controller of one namespace what the chart gives it.
pub(crate) async fn install(client: &Client, namespace: &str) {
    let documents = documents(namespace);
    for (group, version, kind) in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        for document in documents.iter().filter(|document| document["kind"] == kind) {
            let object: DynamicObject = serde_json::from_value(document.clone()).expect("an object");
            api.create(&PostParams::default(), &object).await.expect("an object of the chart is accepted");
        }
    }
}

/// A token of the account that the chart makes: the controller never is an administrator.
pub(crate) async fn token(client: &Client, namespace: &str) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(7200), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request(RELEASE, &PostParams::default(), &request).await.expect("a token");
    answer.status.expect("a status").token
}

/// The definitions that the controller under test was built with.
pub(crate) fn definitions() -> Vec<CustomResourceDefinition> {
    let output = Command::new(env!("CARGO_BIN_EXE_kitepool")).arg("crd").output().expect("kitepool crd can be run");
    assert!(output.status.success(), "kitepool crd: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("kitepool crd prints YAML");
    let definition = |document| serde_json::from_value(document).expect("kitepool crd prints definitions");
    documents.into_iter().filter(|document| !document.is_null()).map(definition).collect()
}

/// Installs them and waits until they are served.
pub(crate) async fn install_definitions(access: Access) {
    let client = access.client().await;
    for definition in definitions() {
        apply_definition(&client, &definition).await;
    }
}

/// As `kubectl apply --server-side` does it.
pub(crate) async fn apply_definition(client: &Client, definition: &CustomResourceDefinition) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = definition.name_any();
    let params = PatchParams::apply("e2e").force();
    api.patch(&name, &params, &Patch::Apply(definition)).await.expect("the API server accepts the definition");
    eventually("the definition is served", Duration::from_secs(30), async || {
        let seen = api.get(&name).await.map_err(|error| error.to_string())?;
        let conditions = seen.status.and_then(|status| status.conditions).unwrap_or_default();
        let is_served =
            conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True");
        if is_served { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
}
