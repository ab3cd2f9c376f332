//! The `CustomResourceDefinitions`, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use crate::{AgentPool, JobHint};

/// Both definitions.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![AgentPool::crd(), JobHint::crd()]
}

/// The schema of a pool as JSON.
pub(crate) fn pool_schema() -> serde_json::Value {
    let version = AgentPool::crd().spec.versions.into_iter().next();
    let schema = version.and_then(|version| version.schema).and_then(|schema| schema.open_api_v3_schema);
    serde_json::to_value(schema).unwrap_or_default()
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
            assert!(
                committed == made,
                "{} differs from the types; run UPDATE=1 cargo test -p kitepool-api",
                path.display()
            );
        }
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        for definition in crds() {
            let read: Value = serde_saphyr::from_str(&yaml(&definition)).unwrap();
            assert_eq!(read, serde_json::to_value(&definition).unwrap());
        }
    }

    /// What the API server does to an object that is stored: the definition's defaults, from the outside in.
    fn fill_in(schema: &Value, value: &mut Value) {
        let properties = schema.get("properties").and_then(Value::as_object);
        if let (Some(properties), Some(fields)) = (properties, value.as_object_mut()) {
            for (name, child) in properties {
                if let (Some(default), None) = (child.get("default"), fields.get(name)) {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    fill_in(child, value);
                }
            }
        }
        if let (Some(items), Some(entries)) = (schema.get("items"), value.as_array_mut()) {
            for entry in entries {
                fill_in(items, entry);
            }
        }
    }

    #[test]
    fn the_definition_fills_in_what_the_types_do() {
        let parts = [
            serde_json::json!({}),
            serde_json::json!({ "scaling": {} }),
            serde_json::json!({ "scaling": { "spare": {}, "scaleUp": {}, "scaleDown": {} } }),
            serde_json::json!({ "scaling": { "scaleUp": { "step": {} }, "scaleDown": { "step": { "agents": 2 } } } }),
            serde_json::json!({ "scaling": { "schedules": [{ "days": "daily", "from": "08:00", "to": "09:00", "min": 1 }] } }),
        ];
        for part in parts {
            let mut manifest = crate::valid_manifest("linux");
            manifest["spec"].as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            let mut stored = manifest.clone();
            fill_in(&pool_schema(), &mut stored);
            let read = crate::parse(serde_json::from_value(manifest).unwrap()).unwrap();
            assert_eq!(serde_json::to_value(&read.spec).unwrap(), stored["spec"], "{part}");
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
