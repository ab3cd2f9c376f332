//! Pod definitions, and what pools make of them: what the command line shows is what the controller creates.

use std::{
    process::{Command, Output},
    time::Duration,
};

use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::SOON;
use crate::harness::{
    Case, case,
    pools::{DEFINITION, pool, with},
};

const DEADLINE: Duration = Duration::from_mins(3);

/// `kitepool pods …`, as an administrator of the cluster runs it.
async fn pods(case: &Case, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kitepool"));
    command.arg("pods").args(arguments).env_clear().env("KUBECONFIG", case.admin_kubeconfig());
    tokio::task::spawn_blocking(move || command.output()).await.expect("it ends").expect("it can be run")
}

/// Both without what the API server alone knows, and without what it fills in: each value of ours must stand as it is.
fn is_within(ours: &Value, stored: &Value, path: &str) {
    match (ours, stored) {
        (Value::Object(ours), Value::Object(stored)) => {
            for (name, value) in ours {
                let place = format!("{path}.{name}");
                is_within(value, stored.get(name).unwrap_or_else(|| panic!("{place} is not stored")), &place);
            }
        }
        (Value::Array(ours), Value::Array(stored)) => {
            assert_eq!(ours.len(), stored.len(), "{path}");
            ours.iter().zip(stored).enumerate().for_each(|(i, (a, b))| is_within(a, b, &format!("{path}[{i}]")));
        }
        _ => assert_eq!(ours, stored, "{path}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn what_is_rendered_for_a_pool_is_what_the_controller_creates() {
    case("render", DEADLINE, async |case| {
        let overrides = json!({
            "image": "agent:2",
            "resources": { "requests": { "cpu": "250m" } },
            "env": [{ "name": "SHAPE", "value": "big" }],
            "nodeSelector": {},
            "namePrefix": "big-",
            "podPatch": { "metadata": { "annotations": { "team": "a" } }, "spec": { "priorityClassName": null, "terminationGracePeriodSeconds": 7200 } },
        });
        case.create_pool(with(pool("linux"), json!({ "spec": { "overrides": overrides, "scaling": { "min": 2 } } }))).await;
        let arguments = ["render", "linux", "--namespace", &case.namespace, "--buildkite-endpoint", &case.buildkite.endpoint(), "--output", "json"];
        let before = pods(case, &arguments).await;
        assert!(before.status.success(), "{}", String::from_utf8_lossy(&before.stderr));
        let rendered: Value = serde_json::from_slice(&before.stdout).expect("JSON");

        let _replica = case.controller().await;
        case.reaches("linux", 2, SOON).await;
        let stored = case.generations("linux").await.remove(0);
        assert_eq!(rendered["metadata"]["name"], stored.name_any());
        let after = pods(case, &arguments).await;
        assert_eq!(serde_json::from_slice::<Value>(&after.stdout).expect("JSON"), rendered, "the same once it stands");

        let stored = serde_json::to_value(stored).expect("JSON");
        is_within(&rendered, &stored, "");
        // Nor has the controller written anything that was not shown: sent by us, the same comes of it.
        let mut again = rendered.clone();
        again["metadata"]["name"] = json!("by-hand");
        again["spec"]["replicas"] = json!(0);
        let by_hand = case.deployments().patch("by-hand", &PatchParams::apply("a-person"), &Patch::Apply(&again)).await.expect("it is taken");
        let by_hand = serde_json::to_value(by_hand).expect("JSON");
        assert_eq!(by_hand["spec"]["template"], stored["spec"]["template"]);
        assert_eq!(by_hand["spec"]["selector"], stored["spec"]["selector"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_missing_service_account_is_told_before_and_after_a_pool_is_made() {
    case("account", DEADLINE, async |case| {
        let bad = with(
            pool("linux"),
            json!({ "spec": { "overrides": { "serviceAccountName": "nobody" }, "scaling": { "min": 1 } } }),
        );
        let definition = json!({ "apiVersion": "v1", "kind": "PodTemplate", "metadata": { "name": DEFINITION },
            "template": { "spec": { "containers": [{ "name": "agent", "image": "agent" }] } } });
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!("{bad}\n---\n{definition}\n")).expect("it can be written");
        let path = file.path().to_str().expect("a path").to_owned();
        let linted = pods(case, &["lint", "--live", "--namespace", &case.namespace, &path]).await;
        let text = String::from_utf8_lossy(&linted.stdout).into_owned();
        assert_eq!(linted.status.code(), Some(1), "{text}");
        assert!(text.contains("there is no ServiceAccount nobody"), "{text}");
        assert!(!text.contains("Secret"), "the token's Secret is there: {text}");

        let _replica = case.controller().await;
        case.create_pool(bad).await;
        let told = case.condition_for("linux", "Ready", "PodsRefused", SOON).await;
        assert!(told.message.contains("serviceaccount \"nobody\" not found"), "{}", told.message);
    })
    .await;
}
