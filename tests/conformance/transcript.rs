//! What a case saw, in words that two servers can have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::server::Answer;

/// What is not compared: in which kind of object, where in it, and why. `*` is any index.
pub(crate) const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("Deployment", "/metadata/managedFields", NO_DEFAULTS),
    ("Deployment", "/spec/progressDeadlineSeconds", NO_DEFAULTS),
    ("Deployment", "/spec/strategy", NO_DEFAULTS),
    ("Deployment", "/spec/template/spec/dnsPolicy", NO_DEFAULTS),
    ("Deployment", "/spec/template/spec/schedulerName", NO_DEFAULTS),
    ("Deployment", "/spec/template/spec/securityContext", NO_DEFAULTS),
    ("Deployment", "/spec/template/spec/containers/*/imagePullPolicy", NO_DEFAULTS),
    ("Deployment", "/spec/template/spec/containers/*/resources", NO_DEFAULTS),
    ("Deployment", "/spec/template/spec/containers/*/terminationMessagePath", NO_DEFAULTS),
    ("Deployment", "/spec/template/spec/containers/*/terminationMessagePolicy", NO_DEFAULTS),
    (
        "Deployment",
        "/status/conditions",
        "they tell of rollouts, which are not simulated, and the controller reads none",
    ),
    ("Event", "/deprecatedFirstTimestamp", NO_DEFAULTS),
    ("Event", "/deprecatedLastTimestamp", NO_DEFAULTS),
    ("Event", "/deprecatedSource", NO_DEFAULTS),
    ("Event", "/metadata/managedFields", "who owns the fields of an Event is of no use to anybody"),
    ("Secret", "/metadata/managedFields", "the real one takes `stringData` for owned, which it does not keep"),
    ("JobHint", "/metadata/managedFields", "a list is one field here, whatever its schema says of its items"),
    ("Pod", "/metadata/labels/topology.kubernetes.io~1zone", "simulated nodes have no zones"),
];

/// The simulation knows the defaults that the controller has to do with.
const NO_DEFAULTS: &str = "a default that the controller neither reads nor compares";

/// What a case saw, step by step.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    steps: Vec<(String, Value)>,
    names: Vec<(String, String)>,
}

impl Transcript {
    /// From now on a text is written as this name.
    pub(crate) fn call(&mut self, text: &str, name: &str) {
        self.names.push((text.to_owned(), name.to_owned()));
    }

    /// Notes a value.
    pub(crate) fn note(&mut self, step: &str, value: Value) {
        self.steps.push((step.to_owned(), value));
    }

    /// Notes an answer as a whole.
    pub(crate) fn answer(&mut self, step: &str, answer: &Answer) {
        self.note(step, json!({ "status": answer.status, "body": answer.body }));
    }

    /// Notes some parts of a value.
    pub(crate) fn parts(&mut self, step: &str, value: &Value, pointers: &[&str]) {
        let mut value = value.clone();
        leave_out_differences(&mut value);
        let parts = pointers.iter().map(|pointer| ((*pointer).to_owned(), value.pointer(pointer).cloned().into()));
        self.note(step, Value::Object(parts.collect()));
    }

    /// In words that two servers have in common.
    fn written(&self) -> Value {
        let mut steps: Vec<(String, Value)> = self.steps.clone();
        for (_, value) in &mut steps {
            leave_out_differences(value);
        }
        let mut found = Found::default();
        for (_, value) in &steps {
            found.collect(value);
        }
        let versions: BTreeMap<u64, String> = found
            .versions
            .into_iter()
            .enumerate()
            .map(|(rank, version)| (version, format!("version-{rank}")))
            .collect();
        let mut texts: Vec<(String, String)> = self.names.clone();
        texts.extend(found.uids.iter().enumerate().map(|(rank, uid)| (uid.clone(), format!("uid-{rank}"))));
        let written = steps.into_iter().map(|(step, value)| json!({ step: renamed(value, "", &versions, &texts) }));
        Value::Array(written.collect())
    }

    fn file(case: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/conformance/recorded/{case}.json"))
    }

    /// Writes what was seen of the real one, if this run is for that.
    pub(crate) fn record_if_told(&self, case: &str) {
        if std::env::var_os("KITEPOOL_CONFORMANCE_RECORD").is_some() {
            std::fs::write(Self::file(case), format!("{:#}\n", self.written())).expect("the record is written");
        }
    }

    /// Compares with what was recorded from the real one.
    pub(crate) fn compare(&self, case: &str) {
        let recorded = std::fs::read_to_string(Self::file(case)).unwrap_or_default();
        let expected: Vec<String> = recorded.lines().map(str::to_owned).collect();
        let seen: Vec<String> = format!("{:#}", self.written()).lines().map(str::to_owned).collect();
        if seen != expected {
            let first = seen.iter().zip(&expected).position(|(a, b)| a != b);
            let at = first.unwrap_or_else(|| seen.len().min(expected.len()));
            let around =
                |lines: &[String]| lines[at.saturating_sub(12).min(lines.len())..(at + 6).min(lines.len())].join("\n");
            let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{case}.seen.json"));
            std::fs::write(&file, format!("{:#}\n", self.written())).expect("what was seen is kept");
            panic!(
                "not as recorded from line {}:\n--- recorded\n{}\n--- seen, all of it in {}\n{}",
                at + 1,
                around(&expected),
                file.display(),
                around(&seen)
            );
        }
    }
}

/// Everything that only one server has, in the order in which it appeared.
#[derive(Default)]
struct Found {
    versions: BTreeSet<u64>,
    uids: Vec<String>,
}

impl Found {
    fn collect(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if let Some(text) = value.as_str() {
                        if key.ends_with("resourceVersion")
                            && let Ok(version) = text.parse()
                        {
                            self.versions.insert(version);
                        }
                        if (key == "uid" || key.ends_with("/uid")) && !self.uids.iter().any(|uid| uid == text) {
                            self.uids.push(text.to_owned());
                        }
                    }
                    self.collect(value);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| self.collect(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn renamed(value: Value, key: &str, versions: &BTreeMap<u64, String>, texts: &[(String, String)]) -> Value {
    match value {
        Value::Object(map) => {
            let renamed: Map<String, Value> = map
                .into_iter()
                .map(|(key, value)| {
                    let value = renamed(value, &key, versions, texts);
                    (replaced(key, texts), value)
                })
                .collect();
            Value::Object(renamed)
        }
        Value::Array(list) => list.into_iter().map(|value| renamed(value, key, versions, texts)).collect(),
        Value::String(text) => {
            let version = text.parse::<u64>().ok().filter(|_| key.ends_with("resourceVersion"));
            match version.and_then(|version| versions.get(&version)) {
                Some(rank) => json!(rank),
                None if key.ends_with("continue") => json!("a token"),
                None if text.parse::<Timestamp>().is_ok() => json!("a time"),
                None => json!(replaced(text, texts)),
            }
        }
        // 0 and 0.0 are the same to whoever reads a number that may have a point.
        Value::Number(number) => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0).map(|number| format!("{number:.0}"));
            whole.and_then(|whole| whole.parse::<i64>().ok()).map_or_else(|| json!(number), |whole| json!(whole))
        }
        other @ (Value::Null | Value::Bool(_)) => other,
    }
}

fn replaced(text: String, texts: &[(String, String)]) -> String {
    texts.iter().filter(|(from, _)| !from.is_empty()).fold(text, |text, (from, to)| text.replace(from, to))
}

/// Looks at every object in a value.
fn leave_out_differences(value: &mut Value) {
    if let Some(kind) = value.get("kind").and_then(Value::as_str).map(str::to_owned) {
        for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            leave_out_of(item, kind.trim_end_matches("List"));
        }
        leave_out_of(value, &kind);
    }
    if let Some(causes) = value.get_mut("causes").and_then(Value::as_array_mut) {
        // Some come in the order of a map of Go's, which is none.
        causes.sort_by_cached_key(|cause| cause["field"].to_string());
    }
    if let Some(entries) = value.get_mut("managedFields").and_then(Value::as_array_mut) {
        // They are sorted by time first, and it depends on the machine how many of them are of one second.
        entries.sort_by_cached_key(|entry| ["manager", "operation", "subresource"].map(|part| entry[part].to_string()));
        entries.iter_mut().for_each(leave_out_dots);
    }
    match value {
        Value::Object(map) => map.values_mut().for_each(leave_out_differences),
        Value::Array(list) => list.iter_mut().for_each(leave_out_differences),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn leave_out_of(object: &mut Value, kind: &str) {
    for (_, path, _) in DIFFERENCES.iter().filter(|(of, ..)| *of == kind) {
        leave_out(object, &path.split('/').skip(1).collect::<Vec<_>>());
    }
}

/// A map that is owned for itself, besides what is in it, is more than anybody asks.
fn leave_out_dots(fields: &mut Value) {
    if let Some(map) = fields.as_object_mut() {
        map.remove(".");
        map.values_mut().for_each(leave_out_dots);
    }
}

fn leave_out(value: &mut Value, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else { return };
    let first = first.replace("~1", "/");
    match value {
        Value::Object(map) if rest.is_empty() => drop(map.remove(&first)),
        Value::Object(map) if first == "*" => map.values_mut().for_each(|value| leave_out(value, rest)),
        Value::Object(map) => map.get_mut(&first).into_iter().for_each(|value| leave_out(value, rest)),
        Value::Array(list) if first == "*" => list.iter_mut().for_each(|value| leave_out(value, rest)),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
