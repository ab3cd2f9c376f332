//! From any object to its type: one that cannot be read says where and why, and disturbs nobody else.
//!
//! A typed watch breaks over one object that its type does not take, and with it every pool of the namespace. So the
//! controller watches untyped objects and reads each by itself. Of a status nothing is read here: it must never cost a pool.

use std::collections::BTreeSet;

use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::{
    AgentPool, AgentPoolSpec, Problem, definitions::pool_schema, pod_fields::unknown_fields, problem::nearest, validate,
};

/// The version and kind of what is read here.
const API_VERSION: &str = "kitepool.dev/v1alpha1";
const KIND: &str = "AgentPool";

/// The shape: an object that may be anything becomes a pool, or problems with their paths. A field that nobody knows is
/// passed over: the API server has dropped those that its definition does not know.
pub fn parse(object: DynamicObject) -> Result<AgentPool, Vec<Problem>> {
    let Some(spec) = object.data.get("spec").cloned().filter(|spec| !spec.is_null()) else {
        return Err(vec![Problem::new("spec", "there is none", "write what `kubectl explain agentpool.spec` says")]);
    };
    let spec: AgentPoolSpec = read(spec, "spec")?;
    let mut pool = AgentPool::new(object.metadata.name.as_deref().unwrap_or_default(), spec);
    pool.metadata = object.metadata;
    Ok(pool)
}

/// The shape of a pool in a file: as [`parse`], and what nobody knows is a problem as well, since it was meant and would do
/// nothing.
pub fn parse_strict(object: DynamicObject) -> Result<AgentPool, Vec<Problem>> {
    let mut problems = Vec::new();
    let (api_version, kind) =
        object.types.as_ref().map_or(("", ""), |types| (types.api_version.as_str(), types.kind.as_str()));
    for (path, written, expected) in [("apiVersion", api_version, API_VERSION), ("kind", kind, KIND)] {
        if written != expected {
            problems.push(Problem::new(
                path,
                format!("{written:?} is not what this version reads"),
                format!("write {expected}"),
            ));
        }
    }
    collect_unknown(&object.data, &pool_schema(), "", &mut problems);
    match parse(object) {
        Ok(pool) => {
            if let Some(template) = &pool.spec.template {
                problems.extend(unknown_fields(&template.0, "spec.template"));
            }
            if problems.is_empty() { Ok(pool) } else { Err(problems) }
        }
        Err(more) => Err(problems.into_iter().chain(more).collect()),
    }
}

/// The pools of a YAML file: documents, or lists as `kubectl get -o yaml` prints them. As strict as [`parse_strict`] about
/// their shape, and nothing stands against what they mean.
pub fn read_pools(yaml: &str) -> Result<Vec<AgentPool>, Vec<Problem>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)
        .map_err(|error| vec![Problem::new("the file", format!("it is no YAML: {error}"), "mend it there")])?;
    let (mut pools, mut problems, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (index, object) in documents.into_iter().flat_map(items).enumerate() {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        let place = name.map_or_else(|| format!("object {}", index + 1), |name| format!("AgentPool {name}"));
        let pool = read::<DynamicObject>(object, "").and_then(parse_strict);
        let pool = pool.and_then(|pool| validate(&pool).map(|_| pool));
        match pool {
            Ok(pool) => {
                if !seen.insert((pool.metadata.namespace.clone(), pool.metadata.name.clone())) {
                    problems.push(Problem::new(place, "another one has the same name", "rename one of them"));
                }
                pools.push(pool);
            }
            Err(more) => {
                problems.extend(
                    more.into_iter().map(|problem| Problem { path: format!("{place}: {}", problem.path), ..problem }),
                );
            }
        }
    }
    if pools.is_empty() && problems.is_empty() {
        problems.push(Problem::new("the file", "there is no AgentPool in it", "write at least one"));
    }
    if problems.is_empty() { Ok(pools) } else { Err(problems) }
}

/// The entries of a list, or the object itself.
pub fn items(mut document: Value) -> Vec<Value> {
    let is_list = document.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    if !is_list {
        return vec![document];
    }
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Reads a value that stands at `place`, and goes on past scalars of a wrong type, so that all of them are told at once.
fn read<T: DeserializeOwned>(mut value: Value, place: &str) -> Result<T, Vec<Problem>> {
    let mut problems: Vec<Problem> = Vec::new();
    let mut removed: Option<String> = None;
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(read) if problems.is_empty() => return Ok(read),
            Ok(_) => return Err(problems),
            Err(error) => error,
        };
        let what = error.inner().to_string();
        if removed.is_some_and(|field| what == format!("missing field `{field}`")) {
            return Err(problems);
        }
        let path = match error.path().to_string() {
            inner if inner == "." => place.to_owned(),
            inner => joined(place, &inner),
        };
        problems.push(Problem::new(path, what, "write it as `kubectl explain agentpool --recursive` says"));
        removed = remove(&mut value, &error.path().iter().collect::<Vec<_>>());
        if removed.is_none() {
            return Err(problems);
        }
    }
}

/// Takes away a field that holds no object, and gives back its name. In an object something is missing, rather.
fn remove(value: &mut Value, path: &[&Segment]) -> Option<String> {
    let (Segment::Map { key }, parents) = path.split_last()? else { return None };
    let parent = parents.iter().try_fold(value, |value, segment| match segment {
        Segment::Map { key } => value.get_mut(key),
        Segment::Seq { index } => value.get_mut(index),
        Segment::Enum { .. } | Segment::Unknown => None,
    })?;
    let fields = parent.as_object_mut()?;
    if fields.get(key).is_none_or(Value::is_object) {
        return None;
    }
    fields.remove(key)?;
    Some(key.clone())
}

/// Fields that the definition does not know.
fn collect_unknown(value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    match value {
        Value::Object(fields) => {
            // Where the definition names no fields, anything goes: the inline template, the memory.
            let Some(known) = schema.get("properties").and_then(Value::as_object) else { return };
            for (name, value) in fields {
                let path = joined(path, name);
                if let Some(schema) = known.get(name) {
                    collect_unknown(value, schema, &path, problems);
                    continue;
                }
                let remedy = match nearest(name, known.keys().map(String::as_str)) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => "mend its name, or take it out".to_owned(),
                };
                problems.push(Problem::new(path, "there is no such field", remedy));
            }
        }
        Value::Array(entries) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, value) in entries.iter().enumerate() {
                collect_unknown(value, schema, &format!("{path}[{index}]"), problems);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

pub(crate) fn joined(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::valid_manifest;

    fn object(manifest: Value) -> DynamicObject {
        serde_json::from_value(manifest).unwrap()
    }

    fn with_spec(field: &str, value: Value) -> Value {
        let mut manifest = valid_manifest("linux");
        manifest["spec"][field] = value;
        manifest
    }

    fn told(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn all_values_of_a_wrong_type_are_told_at_once() {
        let mut manifest =
            with_spec("scaling", json!({ "min": "one", "scaleUp": { "cooldown": 5 }, "schedules": [{ "days": 1 }] }));
        manifest["spec"]["mode"] = json!("Sometimes");
        manifest["spec"]["queue"] = json!(7);
        let problems = parse(object(manifest)).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        for expected in [
            "spec.mode",
            "spec.queue",
            "spec.scaling.min",
            "spec.scaling.scaleUp.cooldown",
            "spec.scaling.schedules[0].days",
        ] {
            assert!(paths.contains(&expected), "{expected} is not in {paths:?}");
        }
        assert_eq!(paths.len(), 5, "{paths:?}");
    }

    #[test]
    fn a_missing_field_or_spec_is_told() {
        let problems = parse(object(json!({ "metadata": { "name": "x" }, "spec": { "queue": "linux" } }))).unwrap_err();
        assert_eq!(
            told(problems),
            ["spec: missing field `token`; write it as `kubectl explain agentpool --recursive` says"]
        );
        assert_eq!(parse(object(json!({ "metadata": {} }))).unwrap_err()[0].path, "spec");
        assert_eq!(parse(object(json!({ "metadata": {}, "spec": 5 }))).unwrap_err()[0].path, "spec");
    }

    #[test]
    fn an_unknown_field_is_passed_over_in_the_cluster_and_refused_in_a_file() {
        let manifest = with_spec("scalling", json!({ "max": 5 }));
        assert!(parse(object(manifest.clone())).is_ok());
        assert_eq!(
            told(parse_strict(object(manifest)).unwrap_err()),
            ["spec.scalling: there is no such field; did you mean scaling?"]
        );
    }

    #[test]
    fn a_file_hears_of_unknown_fields_wrong_types_and_a_wrong_kind_together() {
        let mut manifest = with_spec("scaling", json!({ "maxx": 5, "min": "one", "schedules": [{ "zone": "UTC" }] }));
        manifest["kind"] = json!("AgentPol");
        manifest["sepc"] = json!({});
        let problems = parse_strict(object(manifest)).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let expected = [
            "kind",
            "sepc",
            "spec.scaling.maxx",
            "spec.scaling.schedules[0].zone",
            "spec.scaling.min",
            "spec.scaling.schedules[0]",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn the_inline_template_is_kept_as_it_was_written_and_read_strictly_in_a_file() {
        let template = json!({
            "metadata": { "creationTimestamp": null },
            "spec": {
                "containers": [
                    { "name": "agent", "resources": { "limits": { "cpu": "1" } }, "env": [] },
                    { "name": "other", "conmand": ["x"], "ports": [{ "containerPort": 1, "hots": 2 }] },
                ],
            },
        });
        let mut manifest = with_spec("template", template.clone());
        manifest["spec"].as_object_mut().unwrap().remove("podTemplateRef");
        let pool = parse(object(manifest.clone())).unwrap();
        assert_eq!(serde_json::to_value(&pool.spec.template).unwrap(), template);
        let problems = parse_strict(object(manifest)).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            ["spec.template.spec.containers[other].conmand", "spec.template.spec.containers[other].ports[0].hots"]
        );
    }

    #[test]
    fn a_status_of_whatever_shape_costs_no_pool() {
        let mut manifest = valid_manifest("linux");
        manifest["status"] = json!({ "memory": 5, "conditions": "none" });
        assert!(parse(object(manifest)).is_ok());
    }

    #[test]
    fn a_file_holds_documents_or_lists() {
        let yaml = |names: &[&str]| {
            let documents: Vec<String> =
                names.iter().map(|name| serde_json::to_string(&valid_manifest(name)).unwrap()).collect();
            documents.join("\n---\n")
        };
        let names = |pools: Vec<AgentPool>| pools.into_iter().filter_map(|pool| pool.metadata.name).collect::<Vec<_>>();
        assert_eq!(names(read_pools(&yaml(&["a", "b"])).unwrap()), ["a", "b"]);
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [valid_manifest("a"), valid_manifest("b")] });
        assert_eq!(names(read_pools(&list.to_string()).unwrap()), ["a", "b"]);
        assert_eq!(
            told(read_pools(&yaml(&["a", "a"])).unwrap_err()),
            ["AgentPool a: another one has the same name; rename one of them"]
        );
        assert_eq!(
            told(read_pools("# nothing\n").unwrap_err()),
            ["the file: there is no AgentPool in it; write at least one"]
        );
        assert!(read_pools("a: [").unwrap_err()[0].what.starts_with("it is no YAML"));
        let problems = read_pools(
            "kind: AgentPool\napiVersion: kitepool.dev/v1alpha1\nmetadata: { name: x }\nspec: { queue: 1 }\n",
        )
        .unwrap_err();
        assert_eq!(problems[0].path, "AgentPool x: spec.queue");
    }

    #[test]
    fn a_file_hears_of_shape_and_meaning_of_all_pools_together() {
        let (mut shape, mut meaning) = (valid_manifest("a"), valid_manifest("b"));
        shape["spec"]["scalling"] = json!({});
        meaning["spec"]["scaling"] = json!({ "min": 5, "max": 3 });
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [shape, meaning] });
        let problems = read_pools(&list.to_string()).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["AgentPool a: spec.scalling", "AgentPool b: spec.scaling.min"]);
    }
}
