//! What the API server does with each request: its rules for identity, versions, generations and subresources.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Kubernetes,
    defaults::{fill_in, written_as_text},
    fields::{self, Manager},
    kind::Kind,
    object::{Key, assign, is_deleting, list, number, set, stamp, text, texts, uid, version},
    patch::{Format, patched},
    refusal::Refusal,
    request::{NOBODY, Part},
};

/// A status and a body.
pub(super) type Answer = Result<(u16, Value), Refusal>;

/// What the API server alone writes.
const IDENTITY: [&str; 8] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// What an object must still be to be deleted.
#[derive(Debug, Clone, Copy)]
struct Same<'a> {
    uid: &'a str,
    version: &'a str,
}

impl Kubernetes {
    pub(super) fn live(&self, key: &Key) -> Result<Arc<Value>, Refusal> {
        self.store.get(key).cloned().ok_or_else(|| Refusal::not_found(key.kind, &key.name))
    }

    pub(super) fn get(&self, key: &Key, part: Part) -> Answer {
        let live = self.live(key)?;
        Ok((200, if part == Part::Scale { scale_of(&live) } else { Value::clone(&live) }))
    }

    pub(super) fn create(&mut self, kind: Kind, namespace: &str, manager: &Manager, mut object: Value) -> Answer {
        let name = text(&object, "/metadata/name").to_owned();
        if name.is_empty() {
            return Err(Refusal::unknown("an object without a name"));
        }
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            return Err(Refusal::internal("resourceVersion should not be set on objects to be created".to_owned()));
        }
        let elsewhere = text(&object, "/metadata/namespace");
        if !elsewhere.is_empty() && elsewhere != namespace {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request".to_owned(),
            ));
        }
        self.charge_quotas(kind, namespace, &name)?;
        let key = Key::new(kind, namespace, &name);
        if self.store.get(&key).is_some() {
            return Err(Refusal::already_exists(kind, &name));
        }
        if kind.traits().has_status {
            assign(&mut object, &["status"], None);
        }
        set(&mut object, &["apiVersion"], json!(kind.api_version()));
        set(&mut object, &["kind"], json!(kind.name()));
        set(&mut object, &["metadata", "namespace"], json!(namespace));
        set(&mut object, &["metadata", "uid"], json!(self.names.uid()));
        set(&mut object, &["metadata", "creationTimestamp"], stamp(self.now));
        assign(&mut object, &["metadata", "managedFields"], None);
        let generation = kind.traits().has_generation.then(|| json!(1));
        assign(&mut object, &["metadata", "generation"], generation);
        // Who applies owns what was sent, who creates also what was filled in.
        let sent = object.clone();
        fill_in(kind, &mut object);
        self.fill_in_schema(kind, &mut object);
        if kind.has_managers() {
            let mut owned = if manager.is_apply { sent } else { object.clone() };
            fields::record_update(&Value::Null, &mut owned, manager, &kind.api_version(), self.now);
            assign(&mut object, &["metadata", "managedFields"], owned.pointer("/metadata/managedFields").cloned());
        }
        let stored = self.commit(key, object);
        Ok((201, Value::clone(&stored)))
    }

    pub(super) fn replace(&mut self, key: &Key, part: Part, manager: &str, object: Value) -> Answer {
        let live = self.live(key)?;
        match part {
            Part::Scale => self.rescale(key, &live, manager, &object),
            Part::Whole | Part::Status => self.revise(key, &live, part, manager, object),
        }
    }

    pub(super) fn patch_by(
        &mut self,
        key: &Key,
        part: Part,
        manager: &str,
        (format, is_forced): (Format, bool),
        patch: &Value,
    ) -> Answer {
        if format == Format::Apply {
            return self.apply(key, part, manager, is_forced, patch);
        }
        let live = self.live(key)?;
        if part == Part::Scale {
            let wanted = patched(scale_of(&live), patch, format)?;
            return self.rescale(key, &live, manager, &wanted);
        }
        let wanted = patched(Value::clone(&live), patch, format)?;
        self.revise(key, &live, part, manager, wanted)
    }

    fn apply(&mut self, key: &Key, part: Part, manager: &str, is_forced: bool, wanted: &Value) -> Answer {
        if part != Part::Whole {
            return Err(Refusal::unknown("an apply of a subresource"));
        }
        if manager == NOBODY {
            let why = "Required value: is required for apply patch".to_owned();
            let cause = ("fieldManager".to_owned(), why, "FieldValueRequired");
            return Err(Refusal::invalid(("meta.k8s.io", "PatchOptions", ""), &[cause]));
        }
        let by = Manager { name: manager.to_owned(), is_apply: true, subresource: "" };
        let Some(live) = self.store.get(key).cloned() else {
            let mut object = wanted.clone();
            written_as_text(key.kind, &mut object);
            set(&mut object, &["metadata", "name"], json!(key.name));
            return self.create(key.kind, &key.namespace, &by, object);
        };
        let mut wanted = wanted.clone();
        written_as_text(key.kind, &mut wanted);
        let mut after = fields::apply(&live, &wanted, &by, is_forced, self.now)?;
        keep(key.kind, &live, &mut after)?;
        if after == *live {
            return Ok((200, after));
        }
        Ok((200, Value::clone(&self.commit(key.clone(), after))))
    }

    /// An update of an object or of its status.
    fn revise(&mut self, key: &Key, live: &Value, part: Part, manager: &str, wanted: Value) -> Answer {
        is_current(key, live, &wanted)?;
        let after = if part == Part::Status {
            let mut after = live.clone();
            assign(&mut after, &["status"], wanted.get("status").cloned());
            self.fill_in_schema(key.kind, &mut after);
            after
        } else {
            let mut after = wanted;
            assign(&mut after, &["metadata", "managedFields"], live.pointer("/metadata/managedFields").cloned());
            fill_in(key.kind, &mut after);
            self.fill_in_schema(key.kind, &mut after);
            keep(key.kind, live, &mut after)?;
            after
        };
        Ok((200, self.store_update(key, live, part, manager, after)))
    }

    fn rescale(&mut self, key: &Key, live: &Value, manager: &str, wanted: &Value) -> Answer {
        is_current(key, live, wanted)?;
        let replicas = wanted.pointer("/spec/replicas").cloned().unwrap_or_else(|| json!(0));
        if replicas.as_u64().is_none_or(|replicas| i32::try_from(replicas).is_err()) {
            let why = format!("Invalid value: {replicas}: must be greater than or equal to 0");
            let cause = ("spec.replicas".to_owned(), why, "FieldValueInvalid");
            return Err(Refusal::invalid(("autoscaling", "Scale", &key.name), &[cause]));
        }
        let mut after = live.clone();
        set(&mut after, &["spec", "replicas"], replicas);
        keep(key.kind, live, &mut after)?;
        Ok((200, scale_of(&self.store_update(key, live, Part::Scale, manager, after))))
    }

    /// What changes nothing is no write: the version stays.
    fn store_update(&mut self, key: &Key, live: &Value, part: Part, manager: &str, mut after: Value) -> Value {
        if after == *live {
            return after;
        }
        if key.kind.has_managers() {
            let by = Manager { name: manager.to_owned(), is_apply: false, subresource: part.subresource() };
            fields::record_update(live, &mut after, &by, &key.kind.api_version(), self.now);
        }
        Value::clone(&self.commit(key.clone(), after))
    }

    pub(super) fn delete_by(&mut self, key: &Key, options: &Value) -> Answer {
        let known = ["kind", "apiVersion", "gracePeriodSeconds", "preconditions", "propagationPolicy"];
        let options_given = options.as_object().into_iter().flatten();
        if let Some((more, _)) = options_given.clone().find(|(option, _)| !known.contains(&option.as_str())) {
            return Err(Refusal::unknown(&format!("a deletion with {more}")));
        }
        if !matches!(text(options, "/propagationPolicy"), "" | "Background") {
            return Err(Refusal::unknown("a deletion that is not in the background"));
        }
        let live = self.live(key)?;
        let wanted =
            Same { uid: text(options, "/preconditions/uid"), version: text(options, "/preconditions/resourceVersion") };
        wanted.holds(key, &live)?;
        if key.kind == Kind::Pod {
            return Ok((200, self.delete_pod(key, &live, number(options, "/gracePeriodSeconds"))));
        }
        let gone = self.remove(key);
        if let (Kind::PodTemplate, Some(gone)) = (key.kind, gone) {
            return Ok((200, Value::clone(&gone)));
        }
        let mut details = json!({ "name": key.name, "kind": key.kind.plural(), "uid": uid(&live) });
        if !key.kind.traits().group.is_empty() {
            set(&mut details, &["group"], json!(key.kind.traits().group));
        }
        Ok((
            200,
            json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details }),
        ))
    }

    /// A pod with a node gets its grace period; any other is gone at once. A second deletion can only shorten it.
    pub(super) fn delete_pod(&mut self, key: &Key, live: &Value, grace: Option<u64>) -> Value {
        let default = number(live, "/spec/terminationGracePeriodSeconds").unwrap_or(DEFAULT_GRACE);
        let is_started = !text(live, "/spec/nodeName").is_empty();
        let is_finished = matches!(text(live, "/status/phase"), "Succeeded" | "Failed");
        let grace = if is_started && !is_finished { grace.unwrap_or(default) } else { 0 };
        if grace == 0 {
            // What is stored goes as it was; the answer shows what was done to it.
            let mut last = self.remove(key).map_or_else(|| live.clone(), |gone| Value::clone(&gone));
            doom(&mut last, self.now, 0);
            return last;
        }
        if is_deleting(live) && number(live, "/metadata/deletionGracePeriodSeconds").is_some_and(|now| now <= grace) {
            return live.clone();
        }
        let mut after = live.clone();
        let ends = i64::try_from(grace).ok().map(jiff::SignedDuration::from_secs);
        let ends = ends.and_then(|grace| self.now.checked_add(grace).ok()).unwrap_or(jiff::Timestamp::MAX);
        doom(&mut after, ends, grace);
        Value::clone(&self.commit(key.clone(), after))
    }
}

/// Marks a pod as being deleted. The first time that is a change of what it is to be.
fn doom(pod: &mut Value, ends: jiff::Timestamp, grace: u64) {
    if !is_deleting(pod) {
        let generation = number(pod, "/metadata/generation").unwrap_or_default() + 1;
        set(pod, &["metadata", "generation"], json!(generation));
    }
    set(pod, &["metadata", "deletionTimestamp"], stamp(ends));
    set(pod, &["metadata", "deletionGracePeriodSeconds"], json!(grace));
}

/// What Kubernetes writes where a pod says nothing.
pub(super) const DEFAULT_GRACE: u64 = 30;

impl Same<'_> {
    fn holds(self, key: &Key, live: &Value) -> Result<(), Refusal> {
        let (uid_now, version_now) = (uid(live), text(live, "/metadata/resourceVersion"));
        let conflict = |what: &str, wanted: &str, now: &str, guess: &str| {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({now}). The object might \
                 have been {guess}"
            );
            Err(Refusal::precondition(key.kind, &key.name, &why))
        };
        if !self.uid.is_empty() && self.uid != uid_now {
            return conflict("UID", self.uid, uid_now, "deleted and then recreated");
        }
        if !self.version.is_empty() && self.version != version_now {
            return conflict("ResourceVersion", self.version, version_now, "modified");
        }
        Ok(())
    }
}

/// Whether what was sent is based on the object as it is.
fn is_current(key: &Key, live: &Value, wanted: &Value) -> Result<(), Refusal> {
    let sent = text(wanted, "/metadata/uid");
    if !sent.is_empty() && sent != uid(live) {
        if key.kind.is_custom() {
            // Told twice, by both of the checks that find it.
            let why = format!("Invalid value: {sent:?}: field is immutable");
            let cause = ("metadata.uid".to_owned(), why, "FieldValueInvalid");
            let object = (key.kind.traits().group, key.kind.name(), key.name.as_str());
            return Err(Refusal::invalid(object, &[cause.clone(), cause]));
        }
        let why = format!("Precondition failed: UID in precondition: {sent}, UID in object meta: {}", uid(live));
        return Err(Refusal::conflict(key.kind, &key.name, &why));
    }
    let sent = version(wanted);
    if sent != 0 && sent != version(live) { Err(Refusal::modified(key.kind, &key.name)) } else { Ok(()) }
}

/// Puts back what an update of the whole cannot change, and counts the generation.
fn keep(kind: Kind, live: &Value, after: &mut Value) -> Result<(), Refusal> {
    set(after, &["apiVersion"], json!(kind.api_version()));
    set(after, &["kind"], json!(kind.name()));
    for field in IDENTITY {
        assign(after, &["metadata", field], live.get("metadata").and_then(|metadata| metadata.get(field)).cloned());
    }
    if kind.traits().has_status {
        assign(after, &["status"], live.get("status").cloned());
    }
    if kind == Kind::Deployment && live.pointer("/spec/template") != after.pointer("/spec/template") {
        return Err(Refusal::unknown("a change of a Deployment's template, which would be a rollout"));
    }
    let specified = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        let fields = fields.filter(|(field, _)| !matches!(field.as_str(), "metadata" | "status"));
        fields.map(|(field, value)| (field.clone(), value.clone())).collect()
    };
    if kind.traits().has_generation && specified(live) != specified(after) {
        let generation = number(live, "/metadata/generation").unwrap_or_default() + 1;
        set(after, &["metadata", "generation"], json!(generation));
    }
    Ok(())
}

/// The scale of a Deployment. No replicas is no field.
fn scale_of(deployment: &Value) -> Value {
    let metadata = |field: &str| deployment.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
    let mut scale = json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {}, "spec": {} });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        assign(&mut scale, &["metadata", field], metadata(field));
    }
    let replicas = number(deployment, "/spec/replicas").unwrap_or(1);
    assign(&mut scale, &["spec", "replicas"], (replicas > 0).then(|| json!(replicas)));
    set(&mut scale, &["status", "replicas"], json!(number(deployment, "/status/replicas").unwrap_or_default()));
    let labels = texts(deployment, "/spec/selector/matchLabels");
    let selector: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let has_more = !list(deployment, "/spec/selector/matchExpressions").is_empty();
    assign(&mut scale, &["status", "selector"], (!has_more).then(|| json!(selector.join(","))));
    scale
}
