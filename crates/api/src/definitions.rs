//! The `CustomResourceDefinitions`, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use crate::{AgentPool, JobHint};

/// Both definitions.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![AgentPool::crd(), JobHint::crd()]
}

/// Both as YAML documents.
pub fn crds_yaml() -> String {
    crds().iter().map(yaml).collect::<Vec<_>>().join("---\n")
}

/// One as a YAML document, as `deploy/crds` holds it.
fn yaml(definition: &CustomResourceDefinition) -> String {
    let text = serde_saphyr::to_string(definition).unwrap_or_default();
    format!("# Made by `kitepool crd`.\n{text}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "how a person asks a test to write")]
    fn update_is_asked_for() -> bool {
        std::env::var_os("UPDATE").is_some()
    }

    fn file(definition: &CustomResourceDefinition) -> std::path::PathBuf {
        let name = format!("{}.yaml", definition.spec.names.plural);
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds").join(name)
    }

    #[test]
    fn the_committed_definitions_are_those_of_the_types() {
        for definition in crds() {
            let path = file(&definition);
            let made = yaml(&definition);
            if update_is_asked_for() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &made).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == made, "{} differs from the types; run UPDATE=1 cargo test -p kitepool-api", path.display());
        }
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        for definition in crds() {
            let read: Value = serde_saphyr::from_str(&yaml(&definition)).unwrap();
            assert_eq!(read, serde_json::to_value(&definition).unwrap());
        }
    }

    /// Without a bound the API server reckons with the worst case and refuses the rules beside it on cost.
    #[test]
    fn every_text_and_list_has_a_bound() {
        fn walk(schema: &Value, path: &str, unbounded: &mut Vec<String>) {
            let is = |kind: &str| schema.get("type").and_then(Value::as_str) == Some(kind);
            let has = |key: &str| schema.get(key).is_some();
            if is("string") && !has("maxLength") && !has("enum") && !has("format") {
                unbounded.push(path.to_owned());
            }
            if is("array") && !has("maxItems") {
                unbounded.push(path.to_owned());
            }
            for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                walk(child, &format!("{path}.{name}"), unbounded);
            }
            if let Some(items) = schema.get("items") {
                walk(items, &format!("{path}[]"), unbounded);
            }
        }
        for definition in crds() {
            let value = serde_json::to_value(&definition).unwrap();
            let properties = value.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").unwrap();
            let mut unbounded = Vec::new();
            for part in ["spec", "status"] {
                walk(&properties[part], part, &mut unbounded);
            }
            assert!(unbounded.is_empty(), "{}: {unbounded:?}", definition.spec.names.kind);
        }
    }
}
