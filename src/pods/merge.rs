//! A strategic merge patch of a pod template, as the API server does it to one.
//!
//! Written by hand because it needs no more than this table; `tests/conformance` sends the same patches to a real API server.

use kitepool_api::Problem;
use serde_json::{Map, Value};

use super::contract::PATCH;

/// Lists that are merged entry by entry: the list, what an entry is known by. Every other list is replaced as a whole, such as
/// `tolerations`, `envFrom`, `args` and the terms of affinities. From the `patchMergeKey` of Kubernetes' own types (1.36).
const MERGE_KEYS: [(&str, &str); 13] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("schedulingGates", "name"),
    ("resourceClaims", "name"),
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

/// What a directive stands under.
const DIRECTIVE: &str = "$patch";
/// Fields that an object keeps; all others go.
const RETAIN_KEYS: &str = "$retainKeys";

/// A pod template is some ten levels deep; what nests deeper is none.
const DEPTH_MAX: usize = 32;

/// The template with the patch merged into it, or everything that cannot be merged. `place` is where the patch stands.
pub fn merged(template: &Value, patch: &Value, place: &str) -> Result<Value, Vec<Problem>> {
    let mut checker = Checker { problems: Vec::new() };
    checker.check(patch, None, place, 0);
    if checker.problems.is_empty() { Ok(merge(template, patch, None)) } else { Err(checker.problems) }
}

fn merge_key(list: Option<&str>) -> Option<&'static str> {
    MERGE_KEYS.iter().find(|(merged, _)| Some(*merged) == list).map(|(_, key)| *key)
}

fn directive(value: &Value) -> Option<&str> {
    value.get(DIRECTIVE).and_then(Value::as_str)
}

/// Finds everything that could not be merged, so that merging itself cannot fail.
struct Checker {
    problems: Vec<Problem>,
}

impl Checker {
    fn refuse(&mut self, place: impl Into<String>, found: &str) {
        self.problems.push(PATCH.broken(place, found));
    }

    /// `list` is the name under which the value stands.
    fn check(&mut self, value: &Value, list: Option<&str>, path: &str, depth: usize) {
        if depth > DEPTH_MAX {
            self.refuse(path, "this nests deeper than any pod template");
            return;
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.check_field(name, value, &format!("{path}.{name}"), depth);
                }
            }
            Value::Array(entries) => {
                let key = merge_key(list);
                for (index, entry) in entries.iter().enumerate() {
                    let place = format!("{path}[{index}]");
                    if let Some(key) = key
                        && entry.get(key).is_none_or(Value::is_null)
                        && directive(entry) != Some("replace")
                    {
                        self.refuse(place, &format!("it has no {key}, by which its like would be found"));
                    } else {
                        self.check(entry, None, &place, depth + 1);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn check_field(&mut self, name: &str, value: &Value, place: &str, depth: usize) {
        match name {
            DIRECTIVE if matches!(value.as_str(), Some("delete" | "replace")) => {}
            DIRECTIVE => self.refuse(place, &format!("{value} is neither delete nor replace")),
            RETAIN_KEYS if value.as_array().is_some_and(|keys| keys.iter().all(Value::is_string)) => {}
            RETAIN_KEYS => self.refuse(place, "this is no list of the fields that are kept"),
            name if name.starts_with('$') => self.refuse(place, "this directive is not known here"),
            name => self.check(value, Some(name), place, depth + 1),
        }
    }
}

/// A value that stands, with a value of the patch merged into it. `list` is the name of both.
fn merge(original: &Value, patch: &Value, list: Option<&str>) -> Value {
    match (original, patch, merge_key(list)) {
        (Value::Object(original), Value::Object(patch), _) => Value::Object(merge_fields(original, patch)),
        (Value::Array(original), Value::Array(patch), Some(key)) => Value::Array(merge_list(original, patch, key)),
        _ => plain(patch).unwrap_or_default(),
    }
}

fn merge_fields(original: &Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("delete") => return Map::new(),
        Some(_) => return plain_fields(patch),
        None => {}
    }
    let mut merged = original.clone();
    if let Some(keys) = patch.get(RETAIN_KEYS).and_then(Value::as_array) {
        merged.retain(|name, _| keys.iter().any(|key| key == name));
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let new = match merged.get(name) {
            _ if value.is_null() => None,
            Some(original) if is_same_kind(original, value) => Some(merge(original, value, Some(name))),
            // Without anything to change, an object with a directive is nothing at all.
            Some(_) | None => plain(value),
        };
        match new {
            Some(new) => drop(merged.insert(name.clone(), new)),
            None => drop(merged.remove(name)),
        }
    }
    merged
}

fn is_same_kind(one: &Value, another: &Value) -> bool {
    (one.is_object() && another.is_object()) || (one.is_array() && another.is_array())
}

/// Entries of the patch change their likes. New ones come before those of the original that stand between what was changed, which
/// is the API server's order.
fn merge_list(original: &[Value], patch: &[Value], key: &str) -> Vec<Value> {
    let is_like = |one: &Value, another: &Value| one.get(key).is_some_and(|value| another.get(key) == Some(value));
    let (special, plain_entries): (Vec<&Value>, Vec<&Value>) =
        patch.iter().partition(|entry| entry.get(DIRECTIVE).is_some());
    if special.iter().any(|entry| directive(entry) == Some("replace")) {
        return plain_entries.into_iter().filter_map(plain).collect();
    }
    let kept: Vec<&Value> = original.iter().filter(|entry| !special.iter().any(|gone| is_like(gone, entry))).collect();
    // One that stands twice in the patch is merged twice.
    let mut changed: Vec<(Option<usize>, Value)> = Vec::new();
    for entry in plain_entries {
        let place = kept.iter().position(|stands| is_like(stands, entry));
        if let Some((_, before)) = changed.iter_mut().find(|(_, before)| is_like(before, entry)) {
            *before = merge(before, entry, None);
            continue;
        }
        let stands = place.and_then(|place| kept.get(place));
        let new = stands.map_or_else(|| plain(entry), |stands| Some(merge(stands, entry, None)));
        changed.extend(new.map(|new| (place, new)));
    }
    let mut untouched = kept
        .into_iter()
        .enumerate()
        .filter(|(place, _)| !changed.iter().any(|(taken, _)| *taken == Some(*place)))
        .collect::<Vec<_>>()
        .into_iter()
        .peekable();
    let mut merged = Vec::new();
    for (place, entry) in &changed {
        while let (Some(place), Some((before, stands))) = (place, untouched.peek())
            && before < place
        {
            merged.push((*stands).clone());
            untouched.next();
        }
        merged.push(entry.clone());
    }
    merged.extend(untouched.map(|(_, stands)| stands.clone()));
    merged
}

/// What a patch adds where nothing stands: without its nulls; nothing where it is a directive.
fn plain(patch: &Value) -> Option<Value> {
    match patch {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => Some(Value::Object(plain_fields(fields))),
        Value::Array(entries) => Some(Value::Array(entries.iter().filter_map(plain).collect())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(patch.clone()),
    }
}

fn plain_fields(fields: &Map<String, Value>) -> Map<String, Value> {
    let fields = fields.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
    fields.filter_map(|(name, value)| Some((name.clone(), plain(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn done(template: &Value, patch: &Value) -> Value {
        merged(template, patch, "patch").unwrap()
    }

    #[test]
    fn objects_are_merged_nulls_delete_and_other_lists_are_replaced() {
        let template = json!({ "spec": { "nodeSelector": { "a": "1", "b": "2" }, "tolerations": [{ "key": "x" }], "hostNetwork": true } });
        let patch = json!({ "spec": { "nodeSelector": { "b": null, "c": "3" }, "tolerations": [{ "key": "y" }], "hostNetwork": null } });
        let expected = json!({ "spec": { "nodeSelector": { "a": "1", "c": "3" }, "tolerations": [{ "key": "y" }] } });
        assert_eq!(done(&template, &patch), expected);
    }

    #[test]
    fn entries_are_found_by_their_key_changed_deleted_and_added() {
        let names = |value: &Value| -> Vec<String> {
            value["spec"]["containers"][0]["env"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["name"].to_string())
                .collect()
        };
        let env = |entries: Value| json!({ "spec": { "containers": [{ "name": "agent", "env": entries }] } });
        let template = env(json!([{ "name": "A", "value": "1" }, { "name": "B" }, { "name": "C" }]));
        let merged = done(
            &template,
            &env(json!([{ "name": "B", "$patch": "delete" }, { "name": "C", "value": "3" }, { "name": "D" }])),
        );
        assert_eq!(names(&merged), [r#""A""#, r#""C""#, r#""D""#]);
        assert_eq!(merged["spec"]["containers"][0]["env"][1]["value"], "3");
        // The API server puts new ones first.
        assert_eq!(names(&done(&template, &env(json!([{ "name": "N" }])))), [r#""N""#, r#""A""#, r#""B""#, r#""C""#]);
        assert_eq!(names(&done(&template, &env(json!([{ "$patch": "replace" }, { "name": "N" }])))), [r#""N""#]);
    }

    #[test]
    fn an_object_can_be_replaced_emptied_and_told_what_it_keeps() {
        let template = json!({ "spec": { "volumes": [{ "name": "v", "emptyDir": { "medium": "Memory" } }], "affinity": { "a": 1 } } });
        let volume = |change: Value| json!({ "spec": { "volumes": [change] } });
        let kept = done(
            &template,
            &volume(json!({ "name": "v", "hostPath": { "path": "/x" }, "$retainKeys": ["name", "hostPath"] })),
        );
        assert_eq!(kept["spec"]["volumes"], json!([{ "name": "v", "hostPath": { "path": "/x" } }]));
        let replaced =
            done(&template, &volume(json!({ "name": "v", "emptyDir": { "$patch": "replace", "sizeLimit": "1Gi" } })));
        assert_eq!(replaced["spec"]["volumes"], json!([{ "name": "v", "emptyDir": { "sizeLimit": "1Gi" } }]));
        let emptied = done(&template, &json!({ "spec": { "affinity": { "$patch": "delete" } } }));
        assert_eq!(emptied["spec"]["affinity"], json!({}));
    }

    #[test]
    fn what_cannot_be_merged_is_told_all_at_once() {
        let patch = json!({ "spec": {
            "containers": [{ "image": "x" }],
            "volumes": [{ "$patch": "sometimes", "name": "v" }],
            "$setElementOrder/volumes": [],
            "nodeSelector": { "$retainKeys": "a" },
        } });
        let paths: Vec<String> =
            merged(&json!({}), &patch, "patch").unwrap_err().into_iter().map(|problem| problem.path).collect();
        let expected = [
            "patch.spec.$setElementOrder/volumes",
            "patch.spec.containers[0]",
            "patch.spec.nodeSelector.$retainKeys",
            "patch.spec.volumes[0].$patch",
        ];
        assert_eq!(paths, expected);
        let deep = (0..100).fold(json!({}), |inner, _| json!({ "x": inner }));
        assert!(merged(&json!({}), &deep, "patch").unwrap_err()[0].what.contains("deeper"));
    }
}
