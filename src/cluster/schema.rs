//! Whether the cluster's `CustomResourceDefinition`s know every field that this controller uses.
//!
//! The API server prunes what its schema does not know, the policy's memory included, so an older definition is refused
//! rather than half obeyed. The schema is read from the API server's `OpenAPI` document, which every account may read; reading
//! the definitions themselves would take a right on the whole cluster.

use std::{collections::BTreeSet, time::Duration};

use kube::Client;
use serde_json::Value;

use super::{client::chain, error::Error};

const OPENAPI_PATH: &str = "/openapi/v3/apis/kitepool.dev/v1alpha1";

/// The document is some 100 KiB and made once per change of a definition.
const DEADLINE: Duration = Duration::from_secs(10);

/// A definition has a few hundred fields; a schema that nests deeper than this is not ours.
const DEPTH_MAX: usize = 24;

/// What is wrong with the installed definitions, as a sentence; `None` when nothing is.
pub async fn problem(client: &Client) -> Option<String> {
    let request = match http::Request::get(OPENAPI_PATH).body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return Some(error.to_string()),
    };
    let document = match tokio::time::timeout(DEADLINE, client.request::<Value>(request)).await {
        Err(_elapsed) => return Some("the API server gave no OpenAPI document in time; trying again".to_owned()),
        Ok(Err(error)) => {
            let error = Error::from(error);
            let is_unknown = matches!(error, Error::NotFound);
            return Some(if is_unknown {
                not_installed()
            } else {
                format!("the API server's OpenAPI document cannot be read: {}", chain(&error))
            });
        }
        Ok(Ok(document)) => document,
    };
    kitepool_api::crds().iter().find_map(|definition| {
        let kind = definition.spec.names.kind.clone();
        let ours = serde_json::to_value(definition).ok()?;
        let ours = ours.pointer("/spec/versions/0/schema/openAPIV3Schema")?;
        compare(&kind, ours, installed(&document, &kind))
    })
}

fn not_installed() -> String {
    "the CustomResourceDefinitions of kitepool.dev/v1alpha1 are not installed: run `kitepool crd | kubectl apply --server-side \
     -f -`, or install them with the chart"
        .to_owned()
}

fn compare(kind: &str, ours: &Value, installed: Option<&Value>) -> Option<String> {
    let Some(installed) = installed else {
        return Some(not_installed());
    };
    let known = paths(installed);
    let missing: Vec<String> = paths(ours).difference(&known).take(3).cloned().collect();
    (!missing.is_empty()).then(|| {
        format!(
            "the CustomResourceDefinition of {kind} is older than this controller: it does not know {}. Run `kitepool crd | \
             kubectl apply --server-side -f -` with this version, or upgrade the chart",
            missing.join(", ")
        )
    })
}

fn installed<'a>(document: &'a Value, kind: &str) -> Option<&'a Value> {
    let schemas = document.pointer("/components/schemas")?.as_object()?;
    schemas.values().find(|schema| {
        let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
        kinds.into_iter().flatten().any(|gvk| gvk.get("kind").and_then(Value::as_str) == Some(kind))
    })
}

/// The path of every property below `spec` and `status`.
fn paths(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for top in ["spec", "status"] {
        if let Some(child) = schema.get("properties").and_then(|properties| properties.get(top)) {
            collect(child, top, 0, &mut found);
        }
    }
    found
}

fn collect(schema: &Value, path: &str, depth: usize, found: &mut BTreeSet<String>) {
    if depth > DEPTH_MAX {
        return;
    }
    found.insert(path.to_owned());
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, child) in properties {
            collect(child, &format!("{path}.{name}"), depth + 1, found);
        }
    }
    for nested in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(nested).filter(|child| child.is_object()) {
            collect(child, &format!("{path}[]"), depth + 1, found);
        }
    }
    // The API server's document wraps a schema that has a default beside it.
    for child in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        collect(child, path, depth + 1, found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_older_definition_is_named_with_the_fields_it_lacks() {
        let ours = json!({ "properties": { "spec": { "properties": { "queue": {}, "order": {} } } } });
        let older = json!({ "properties": { "spec": { "properties": { "queue": {} } } } });
        let sentence = compare("AgentPool", &ours, Some(&older)).unwrap();
        assert!(sentence.contains("AgentPool is older") && sentence.contains("spec.order"), "{sentence}");
        assert_eq!(compare("AgentPool", &ours, Some(&ours)), None);
    }

    #[test]
    fn a_newer_definition_is_fine() {
        let ours = json!({ "properties": { "spec": { "properties": { "queue": {} } } } });
        let newer = json!({ "properties": { "spec": { "properties": { "queue": {}, "colour": {} } } } });
        assert_eq!(compare("AgentPool", &ours, Some(&newer)), None);
    }

    #[test]
    fn a_missing_definition_says_how_to_install_it() {
        assert!(compare("AgentPool", &json!({}), None).unwrap().contains("kitepool crd"));
    }
}
