//! The fields that a pod template may have: what was written and means nothing is found before Kubernetes drops it in silence.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::{
    Problem,
    parse::joined,
    problem::{Rule, nearest},
};

/// The rule that an unknown field breaks.
pub const UNKNOWN_FIELD: Rule = Rule {
    id: "unknown-field",
    path: "anywhere",
    reason: "Kubernetes drops a field that it does not know without a word, so a typo would end in silence",
    remedy: "mend its name, or take it out",
};

/// Parent and field of what Kubernetes learned between our types (1.33) and 1.37. An API server that is older drops them, which is
/// for whoever writes them to know.
const NEWER: [(&str, &str); 18] = [
    ("spec", "evictionResponders"),
    ("spec", "hostnameOverride"),
    ("spec", "schedulingGroup"),
    ("containers", "restartPolicyRules"),
    ("initContainers", "restartPolicyRules"),
    ("valueFrom", "fileKeyRef"),
    ("volumeMounts", "bindMountOptions"),
    ("sources", "podCertificate"),
    ("emptyDir", "mode"),
    ("secret", "defaultUser"),
    ("configMap", "defaultUser"),
    ("downwardAPI", "defaultUser"),
    ("projected", "defaultUser"),
    ("items", "user"),
    ("clusterTrustBundle", "user"),
    ("serviceAccountToken", "user"),
    ("httpGet", "protocol"),
    ("grpc", "mode"),
];

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<PodTemplateSpec>().to_value()
});

/// What stands in a pod template, or in a part of one that is to be merged into it, and that no pod template has. `path` is
/// where it stands. Names that begin with `$` are directives of a patch, and no fields.
pub fn unknown_fields(template: &Value, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    walk(template, &SCHEMA, "", path, &mut problems);
    problems
}

fn walk(value: &Value, schema: &Value, name: &str, path: &str, problems: &mut Vec<Problem>) {
    match value {
        Value::Object(fields) => {
            if let Some(known) = schema.get("properties").and_then(Value::as_object) {
                for (field, value) in fields.iter().filter(|(field, value)| !value.is_null() && !field.starts_with('$'))
                {
                    one(field, value, known, name, path, problems);
                }
            } else if let Some(schema) = schema.get("additionalProperties") {
                // A map: its keys are names that somebody gave.
                for (key, value) in fields {
                    walk(value, schema, key, &joined(path, key), problems);
                }
            }
        }
        Value::Array(entries) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, entry) in entries.iter().enumerate() {
                walk(entry, schema, name, &format!("{path}[{}]", label(entry, index)), problems);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn one(field: &str, value: &Value, known: &Map<String, Value>, parent: &str, path: &str, problems: &mut Vec<Problem>) {
    let place = joined(path, field);
    let parent = if parent.is_empty() { "template" } else { parent };
    match known.get(field) {
        Some(schema) => walk(value, schema, field, &place, problems),
        None if NEWER.contains(&(parent, field)) => {}
        None => {
            let what = format!("a pod template has no such field: {}", UNKNOWN_FIELD.reason);
            let remedy = match nearest(field, known.keys().map(String::as_str)) {
                Some(meant) => format!("did you mean {meant}?"),
                None => UNKNOWN_FIELD.remedy.to_owned(),
            };
            problems.push(Problem::new(place, what, remedy).of(UNKNOWN_FIELD.id));
        }
    }
}

/// An entry by its name, where it has one: people look for that and do not count.
fn label(entry: &Value, index: usize) -> String {
    entry.get("name").and_then(Value::as_str).map_or_else(|| index.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(template: &Value) -> Vec<String> {
        unknown_fields(template, "template").into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_typo_is_found_at_any_depth_and_the_name_that_was_meant_is_offered() {
        let template = json!({ "spec": {
            "nodeSelecter": { "a": "b" },
            "containers": [{ "name": "agent", "env": [{ "name": "A", "valueFrom": { "secretKeyReff": {} } }] }],
            "volumes": [{ "name": "v", "projected": { "sources": [{ "secret": { "nam": "s" } }] } }],
        } });
        let problems = unknown_fields(&template, "template");
        let told: Vec<(&str, &str)> = problems.iter().map(|one| (one.path.as_str(), one.remedy.as_str())).collect();
        assert_eq!(
            told,
            [
                ("template.spec.containers[agent].env[A].valueFrom.secretKeyReff", "did you mean secretKeyRef?"),
                ("template.spec.nodeSelecter", "did you mean nodeSelector?"),
                ("template.spec.volumes[v].projected.sources[0].secret.nam", "did you mean name?"),
            ]
        );
        assert!(problems.iter().all(|problem| problem.id == "unknown-field"));
    }

    #[test]
    fn names_that_people_give_nulls_and_directives_are_no_fields() {
        let template = json!({ "metadata": { "labels": { "any": "thing" }, "annotations": { "b/c": "d" }, "creationTimestamp": null },
            "spec": { "nodeSelector": { "disk": "ssd" }, "containers": [
                { "name": "agent", "resources": { "limits": { "example.com/gpu": 1 } } },
                { "name": "old", "$patch": "delete" },
            ] } });
        assert_eq!(paths(&template), [""; 0]);
    }

    #[test]
    fn what_kubernetes_learned_since_is_known_at_its_place_only() {
        let template = json!({ "spec": { "hostnameOverride": "x", "containers": [
            { "name": "agent", "restartPolicyRules": [], "hostnameOverride": "y" },
        ] } });
        assert_eq!(paths(&template), ["template.spec.containers[agent].hostnameOverride"]);
    }
}
