//! Who owns which field: `metadata.managedFields`, with a list as one field.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    object::{assign, list, set, stamp, text},
    refusal::{Cause, Refusal},
};

type Path = Vec<String>;

/// Who writes, and through what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) is_apply: bool,
    /// Empty, `status` or `scale`.
    pub(super) subresource: &'static str,
}

impl Manager {
    /// One who updates an object as a whole.
    pub(super) fn update(name: &str) -> Self {
        Self { name: name.to_owned(), is_apply: false, subresource: "" }
    }
}

/// The fields of one manager.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    manager: String,
    operation: String,
    subresource: String,
    /// The entry as it was written, for its time.
    written: Value,
    fields: BTreeSet<Path>,
}

impl Entry {
    /// As a conflict names it.
    fn owner(&self) -> String {
        let through = match self.subresource.as_str() {
            "" => String::new(),
            subresource => format!(" with subresource {subresource:?}"),
        };
        let using = match self.operation.as_str() {
            "Update" => format!(" using {}", text(&self.written, "/apiVersion")),
            _ => String::new(),
        };
        format!("{:?}{through}{using}", self.manager)
    }

    fn is_of(&self, manager: &Manager) -> bool {
        let operation = if manager.is_apply { "Apply" } else { "Update" };
        self.manager == manager.name && self.operation == operation && self.subresource == manager.subresource
    }
}

/// What belongs to nobody: identity, and what the API server keeps itself.
const UNOWNED: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "resourceVersion",
    "generation",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// Notes that `after`, made of `before`, was written by an update of `manager`.
pub(super) fn record_update(before: &Value, after: &mut Value, manager: &Manager, api_version: &str, now: Timestamp) {
    let mut entries = entries(before);
    let (old, new) = (leaves(before), leaves(after));
    let changed: BTreeSet<Path> =
        new.iter().filter(|(path, value)| old.get(*path) != Some(value)).map(|(path, _)| path.clone()).collect();
    for entry in &mut entries {
        let is_own = entry.is_of(manager);
        entry.fields.retain(|path| new.contains_key(path) && (is_own || !changed.contains(path)));
    }
    claim(&mut entries, manager, changed, false);
    write(after, entries, api_version, now);
}

/// What an apply makes of an object, or the refusal that names whose fields it would take.
pub(super) fn apply(
    live: &Value,
    wanted: &Value,
    manager: &Manager,
    is_forced: bool,
    now: Timestamp,
) -> Result<Value, Refusal> {
    let mut entries = entries(live);
    let (have, want) = (leaves(live), leaves(wanted));
    let differs = |path: &Path| want.contains_key(path) && have.get(path) != want.get(path);
    if !is_forced {
        let others = entries.iter().filter(|entry| !entry.is_of(manager));
        let taken = others.map(|entry| (entry.owner(), entry.fields.iter().filter(|path| differs(path)).collect()));
        refuse_taken(taken.filter(|(_, fields): &(String, Vec<&Path>)| !fields.is_empty()).collect())?;
    }
    let mut after = live.clone();
    for (path, value) in &want {
        assign(&mut after, &steps(path), Some((*value).clone()));
    }
    let others: BTreeSet<Path> =
        entries.iter().filter(|entry| !entry.is_of(manager)).flat_map(|entry| entry.fields.clone()).collect();
    let dropped = entries.iter().filter(|entry| entry.is_of(manager)).flat_map(|entry| &entry.fields);
    let dropped: Vec<Path> =
        dropped.filter(|path| !want.contains_key(*path) && !others.contains(*path)).cloned().collect();
    for path in &dropped {
        assign(&mut after, &steps(path), None);
    }
    for entry in entries.iter_mut().filter(|entry| !entry.is_of(manager)) {
        entry.fields.retain(|path| !differs(path));
    }
    claim(&mut entries, manager, want.keys().cloned().collect(), true);
    write(&mut after, entries, text(live, "/apiVersion"), now);
    Ok(after)
}

fn steps(path: &Path) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// Refuses if somebody owns something of it.
fn refuse_taken(mut taken: Vec<(String, Vec<&Path>)>) -> Result<(), Refusal> {
    taken.sort();
    let dotted = |path: &Path| format!(".{}", path.join("."));
    let causes: Vec<Cause> = taken
        .iter()
        .flat_map(|(owner, fields)| {
            let message = format!("conflict with {owner}");
            fields.iter().map(move |path| (dotted(path), message.clone(), "FieldManagerConflict"))
        })
        .collect();
    let message = match causes.as_slice() {
        [] => return Ok(()),
        [(field, message, _)] => format!("Apply failed with 1 conflict: {message}: {field}"),
        several => {
            let owners = taken.iter().map(|(owner, fields)| {
                let fields: Vec<String> = fields.iter().map(|path| format!("\n- {}", dotted(path))).collect();
                format!("conflicts with {owner}:{}", fields.concat())
            });
            format!("Apply failed with {} conflicts: {}", several.len(), owners.collect::<Vec<_>>().join("\n"))
        }
    };
    Err(Refusal::apply_conflict(message, &causes))
}

/// Adds fields to those of a manager, or puts them in their place.
fn claim(entries: &mut Vec<Entry>, manager: &Manager, fields: BTreeSet<Path>, instead: bool) {
    if let Some(entry) = entries.iter_mut().find(|entry| entry.is_of(manager)) {
        if instead {
            entry.fields = fields;
        } else {
            entry.fields.extend(fields);
        }
    } else {
        entries.push(Entry {
            manager: manager.name.clone(),
            operation: if manager.is_apply { "Apply" } else { "Update" }.to_owned(),
            subresource: manager.subresource.to_owned(),
            written: Value::Null,
            fields,
        });
    }
}

/// Every field that can be owned, down to what is no map; an empty map is a field of its own.
fn leaves(object: &Value) -> BTreeMap<Path, &Value> {
    let mut found = BTreeMap::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("apiVersion" | "kind", _) => {}
            ("metadata", Value::Object(metadata)) => {
                for (key, value) in metadata.iter().filter(|(key, _)| !UNOWNED.contains(&key.as_str())) {
                    collect(value, &mut vec!["metadata".to_owned(), key.clone()], &mut found);
                }
            }
            _ => collect(value, &mut vec![key.clone()], &mut found),
        }
    }
    found
}

fn collect<'a>(value: &'a Value, path: &mut Path, found: &mut BTreeMap<Path, &'a Value>) {
    match value.as_object().filter(|map| !map.is_empty()) {
        Some(map) => {
            for (key, value) in map {
                path.push(key.clone());
                collect(value, path, found);
                path.pop();
            }
        }
        // An empty `spec` is nobody's.
        None if path.len() == 1 && value.is_object() => {}
        None => drop(found.insert(path.clone(), value)),
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let written = list(object, "/metadata/managedFields");
    written
        .iter()
        .map(|entry| {
            let mut fields = BTreeSet::new();
            read(entry.get("fieldsV1").unwrap_or(&Value::Null), &mut Vec::new(), &mut fields);
            Entry {
                manager: text(entry, "/manager").to_owned(),
                operation: text(entry, "/operation").to_owned(),
                subresource: text(entry, "/subresource").to_owned(),
                written: entry.clone(),
                fields,
            }
        })
        .collect()
}

fn read(tree: &Value, path: &mut Path, fields: &mut BTreeSet<Path>) {
    for (key, below) in tree.as_object().into_iter().flatten() {
        path.push(key.strip_prefix("f:").unwrap_or(key).to_owned());
        if below.as_object().is_some_and(Map::is_empty) {
            fields.insert(path.clone());
        } else {
            read(below, path, fields);
        }
        path.pop();
    }
}

/// An entry whose fields are as they were keeps its time; one without fields goes.
fn write(object: &mut Value, entries: Vec<Entry>, api_version: &str, now: Timestamp) {
    let mut written: Vec<Value> = entries
        .into_iter()
        .filter(|entry| !entry.fields.is_empty())
        .map(|entry| {
            let mut tree = json!({});
            for path in &entry.fields {
                let steps: Vec<String> = path.iter().map(|step| format!("f:{step}")).collect();
                set(&mut tree, &steps.iter().map(String::as_str).collect::<Vec<_>>(), json!({}));
            }
            if entry.written.get("fieldsV1") == Some(&tree) {
                return entry.written;
            }
            let mut written = json!({
                "manager": entry.manager, "operation": entry.operation, "apiVersion": api_version,
                "time": stamp(now), "fieldsType": "FieldsV1", "fieldsV1": tree,
            });
            if !entry.subresource.is_empty() {
                set(&mut written, &["subresource"], json!(entry.subresource));
            }
            written
        })
        .collect();
    // As the API server sorts them.
    written.sort_by_cached_key(|entry| {
        ["/operation", "/time", "/manager", "/apiVersion", "/subresource"].map(|part| text(entry, part).to_owned())
    });
    let written = (!written.is_empty()).then_some(Value::Array(written));
    assign(object, &["metadata", "managedFields"], written);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(name: &str, is_apply: bool) -> Manager {
        Manager { name: name.to_owned(), is_apply, subresource: "" }
    }

    fn owners(object: &Value) -> Vec<(String, Vec<String>)> {
        entries(object)
            .into_iter()
            .map(|entry| (entry.manager, entry.fields.iter().map(|path| path.join(".")).collect()))
            .collect()
    }

    #[test]
    fn a_field_belongs_to_the_last_who_changed_it() {
        let mut first = json!({ "metadata": { "name": "d", "labels": { "a": "1" } }, "spec": { "replicas": 1 } });
        record_update(&Value::Null, &mut first, &manager("ours", false), "apps/v1", Timestamp::UNIX_EPOCH);
        let mut second = first.clone();
        second["spec"]["replicas"] = json!(3);
        record_update(&first, &mut second, &manager("theirs", false), "apps/v1", Timestamp::UNIX_EPOCH);
        assert_eq!(
            owners(&second),
            [
                ("ours".to_owned(), vec!["metadata.labels.a".to_owned()]),
                ("theirs".to_owned(), vec!["spec.replicas".to_owned()]),
            ]
        );
    }

    #[test]
    fn an_apply_meets_the_fields_of_others_and_gives_up_its_own() {
        let at = Timestamp::UNIX_EPOCH;
        let live = json!({ "apiVersion": "v1", "metadata": { "name": "l" } });
        let one =
            apply(&live, &json!({ "spec": { "holder": "one", "time": 1 } }), &manager("one", true), false, at).unwrap();
        let refused =
            apply(&one, &json!({ "spec": { "holder": "two" } }), &manager("two", true), false, at).unwrap_err();
        assert_eq!(refused.status()["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.holder");
        let forced = apply(&one, &json!({ "spec": { "holder": "two" } }), &manager("two", true), true, at).unwrap();
        assert_eq!(forced["spec"], json!({ "holder": "two", "time": 1 }));
        let less = apply(&one, &json!({ "spec": { "holder": "one" } }), &manager("one", true), false, at).unwrap();
        assert_eq!(less["spec"], json!({ "holder": "one" }));
        let same = apply(&less, &json!({ "spec": { "holder": "one" } }), &manager("one", true), false, at).unwrap();
        assert_eq!(same, less);
    }
}
