//! The changes that a pool makes to its definition: the fields that have a name first, the patch last.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kitepool_api::{Amount, PodOverrides, Problem};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    contract::{AGENT_CONTAINER, PATCH, environment::NAME},
    merge,
};

/// Where the changes stand in a pool.
pub const PATH: &str = "spec.overrides";

/// The definition with the pool's changes, or what stands against those.
pub(super) fn applied(definition: &Value, overrides: &PodOverrides) -> Result<Value, Vec<Problem>> {
    let mut template = definition.clone();
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        to_pod(spec, overrides);
        let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
        let mut containers = containers.into_iter().flatten().filter_map(Value::as_object_mut);
        let named = |one: &&mut Map<String, Value>| one.get("name").and_then(Value::as_str) == Some(AGENT_CONTAINER);
        if let Some(agent) = containers.find(named) {
            to_agent(agent, overrides);
        }
    }
    let Some(patch) = &overrides.pod_patch else { return Ok(template) };
    let place = format!("{PATH}.podPatch");
    let template = merge::merged(&template, &patch.0, &place)?;
    // Such a template would be refused when the first pod is to be made; here it is known whose doing it is.
    let typed: Result<PodTemplateSpec, _> = serde_json::from_value(template.clone());
    match typed {
        Ok(_) => Ok(template),
        Err(error) => Err(vec![PATCH.broken(place, &format!("no pod template comes of it ({error})"))]),
    }
}

fn to_pod(spec: &mut Map<String, Value>, overrides: &PodOverrides) {
    if let Some(account) = &overrides.service_account_name {
        spec.insert("serviceAccountName".to_owned(), json!(account));
        // The older name of the same, which the API server fills in; it must not say another one.
        spec.remove("serviceAccount");
    }
    if !overrides.node_selector.is_empty() {
        change(spec, "nodeSelector", |selector| {
            selector.extend(overrides.node_selector.iter().map(|(name, value)| (name.clone(), json!(value))));
        });
    }
    extend(spec, "tolerations", &overrides.tolerations);
}

fn to_agent(agent: &mut Map<String, Value>, overrides: &PodOverrides) {
    if let Some(image) = &overrides.image {
        agent.insert("image".to_owned(), json!(image));
    }
    if let Some(resources) = &overrides.resources {
        for (kind, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
            if !amounts.is_empty() {
                let as_text = |(name, amount): (&String, &Amount)| (name.clone(), json!(amount.to_string()));
                change(agent, "resources", |resources| {
                    change(resources, kind, |stands| stands.extend(amounts.iter().map(as_text)));
                });
            }
        }
    }
    let prefix = overrides.name_prefix.as_ref();
    let name = prefix.map(|prefix| json!({ "name": NAME, "value": format!("{prefix}%hostname-%spawn") }));
    let variables = overrides.env.iter().filter_map(|variable| serde_json::to_value(variable).ok());
    let variables: Vec<Value> = name.into_iter().chain(variables).collect();
    if !variables.is_empty() {
        let mut env = taken(agent, "env");
        for variable in variables {
            set(&mut env, variable);
        }
        agent.insert("env".to_owned(), Value::Array(env));
    }
    extend(agent, "envFrom", &overrides.env_from);
}

/// Puts a variable in the place of the one of its name, or behind all of them.
fn set(env: &mut Vec<Value>, variable: Value) {
    match env.iter_mut().find(|stands| stands.get("name") == variable.get("name")) {
        // As a whole: `value` and `valueFrom` exclude each other.
        Some(stands) => *stands = variable,
        None => env.push(variable),
    }
}

/// Changes the object under `name`, which is made if need be.
fn change(parent: &mut Map<String, Value>, name: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut fields = match parent.remove(name) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    change(&mut fields);
    parent.insert(name.to_owned(), Value::Object(fields));
}

/// The list under `name`, taken out.
fn taken(parent: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match parent.remove(name) {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    }
}

/// Puts more entries behind those of the list under `name`.
fn extend(parent: &mut Map<String, Value>, name: &str, more: &[impl Serialize]) {
    if !more.is_empty() {
        let mut entries = taken(parent, name);
        entries.extend(more.iter().filter_map(|entry| serde_json::to_value(entry).ok()));
        parent.insert(name.to_owned(), Value::Array(entries));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(value: Value) -> PodOverrides {
        serde_json::from_value(value).unwrap()
    }

    fn definition() -> Value {
        json!({ "spec": {
            "serviceAccountName": "a", "serviceAccount": "a", "nodeSelector": { "disk": "ssd" }, "tolerations": [{ "key": "x" }],
            "containers": [
                { "name": "agent", "image": "agent:1", "envFrom": [{ "secretRef": { "name": "s" } }],
                  "resources": { "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "memory": "2Gi" } },
                  "env": [{ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }, { "name": "B", "value": "b" }] },
            ],
        } })
    }

    #[test]
    fn each_field_changes_what_it_names_and_nothing_else() {
        let changed = applied(
            &definition(),
            &overrides(json!({
                "image": "agent:2",
                "resources": { "requests": { "cpu": 4 } },
                "env": [{ "name": "A", "value": "plain" }, { "name": "C", "value": "c" }],
                "envFrom": [{ "configMapRef": { "name": "c" } }],
                "nodeSelector": { "arch": "arm64" },
                "tolerations": [{ "key": "y" }],
                "serviceAccountName": "other",
                "namePrefix": "big-",
            })),
        );
        let expected = json!({ "spec": {
            "serviceAccountName": "other", "nodeSelector": { "arch": "arm64", "disk": "ssd" },
            "tolerations": [{ "key": "x" }, { "key": "y" }],
            "containers": [
                { "name": "agent", "image": "agent:2",
                  "envFrom": [{ "secretRef": { "name": "s" } }, { "configMapRef": { "name": "c" } }],
                  "resources": { "requests": { "cpu": "4", "memory": "1Gi" }, "limits": { "memory": "2Gi" } },
                  "env": [
                      { "name": "A", "value": "plain" }, { "name": "B", "value": "b" },
                      { "name": "BUILDKITE_AGENT_NAME", "value": "big-%hostname-%spawn" }, { "name": "C", "value": "c" },
                  ] },
            ],
        } });
        assert_eq!(changed.unwrap(), expected);
    }

    #[test]
    fn the_patch_comes_last() {
        let change = overrides(json!({ "image": "agent:2", "podPatch": { "spec": {
            "priorityClassName": "ci", "containers": [{ "name": "agent", "image": "agent:3" }],
        } } }));
        let changed = applied(&definition(), &change).unwrap();
        assert_eq!(changed["spec"]["containers"][0]["image"], "agent:3");
        assert_eq!(changed["spec"]["priorityClassName"], "ci");
    }

    #[test]
    fn a_patch_of_which_no_pod_template_comes_is_refused_before_anything_is_made() {
        let change = overrides(json!({ "podPatch": { "spec": { "containers": [{ "name": "agent", "image": 5 }] } } }));
        let problems = applied(&definition(), &change).unwrap_err();
        assert_eq!((problems[0].path.as_str(), problems[0].id), ("spec.overrides.podPatch", "pod-patch"));
        assert!(problems[0].what.contains("integer `5`"), "{}", problems[0]);
    }
}
