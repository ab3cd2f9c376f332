//! Direct access for tests: looking, and the hands of somebody else.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Kubernetes,
    fault::Fault,
    fields::Manager,
    journal::{Requests, Write},
    kind::Kind,
    object::{Key, text},
    patch::Format,
    refusal::Refusal,
    request::{Part, Route, Verb},
    verbs::Answer,
    watch::WatchEnd,
};

impl Kubernetes {
    /// One object.
    pub fn object(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.store.get(&Key::new(kind, namespace, name)).cloned()
    }

    /// The objects of a kind in a namespace, by name.
    pub fn objects(&self, kind: Kind, namespace: &str) -> Vec<Arc<Value>> {
        self.store.of(kind, namespace).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// Creates an object or puts it in the place of the one of that name. A refusal is the `Status` that a client would read.
    pub fn put(&mut self, who: &str, object: Value, now: Timestamp) -> Result<Value, Value> {
        self.advance(now);
        let kind = Kind::of_words(text(&object, "/apiVersion"), text(&object, "/kind"));
        let Some(kind) = kind else { return Err(Refusal::unknown("an object of this kind").status()) };
        let key = Key::new(kind, text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        let (verb, answer) = if self.store.get(&key).is_some() {
            (Verb::Update, self.replace(&key, Part::Whole, who, object))
        } else {
            (Verb::Create, self.create(kind, &key.namespace, &Manager::update(who), object))
        };
        self.written(who, &Route::new(verb, kind.plural()), key, answer)
    }

    /// Merges a patch into an object, or into its `status` or `scale`.
    pub fn patch(
        &mut self,
        who: &str,
        (kind, namespace, name): (Kind, &str, &str),
        subresource: &str,
        patch: &Value,
        now: Timestamp,
    ) -> Result<Value, Value> {
        self.advance(now);
        let part = match subresource {
            "" => Part::Whole,
            "status" => Part::Status,
            "scale" => Part::Scale,
            other => return Err(Refusal::unknown(&format!("the subresource {other}")).status()),
        };
        let key = Key::new(kind, namespace, name);
        let answer = self.patch_by(&key, part, who, (Format::Merge, false), patch);
        let resource = if subresource.is_empty() { kind.plural() } else { &format!("{}/{subresource}", kind.plural()) };
        self.written(who, &Route::new(Verb::Patch, resource), key, answer)
    }

    /// Deletes an object.
    pub fn delete(
        &mut self,
        who: &str,
        (kind, namespace, name): (Kind, &str, &str),
        now: Timestamp,
    ) -> Result<Value, Value> {
        self.advance(now);
        let key = Key::new(kind, namespace, name);
        let answer = self.delete_by(&key, &Value::Null);
        self.written(who, &Route::new(Verb::Delete, kind.plural()), key, answer)
    }

    fn written(&mut self, who: &str, route: &Route, key: Key, answer: Answer) -> Result<Value, Value> {
        let status = answer.as_ref().map_or_else(|refusal| refusal.code, |(status, _)| *status);
        let object = self.store.get(&key).cloned();
        self.journal.note(self.now, who.to_owned(), route, key, (status, object));
        answer.map(|(_, object)| object).map_err(|refusal| refusal.status())
    }

    /// Breaks a route, or mends it.
    pub fn set_fault(&mut self, route: Route, fault: Option<Fault>) {
        self.faults.set(route, fault);
    }

    /// Installs other definitions than those from the beginning; objects stay.
    pub fn set_definitions(&mut self, definitions: Vec<Value>) {
        self.definitions = definitions;
    }

    /// Ends the watches of a kind, or all.
    pub fn end_watches(&mut self, kind: Option<Kind>, how: WatchEnd) {
        self.watches.end_all(kind, how);
    }

    /// Forgets what was: a watch or a page that begins earlier is answered 410.
    pub fn compact(&mut self) {
        self.store.forget();
    }

    /// The requests so far, with the status of their answers.
    pub const fn requests(&self) -> &Requests {
        &self.journal.requests
    }

    /// The writes so far in order, those of clients and those made here; the oldest are dropped when there are too many.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.journal.writes.iter()
    }

    /// The same, taken out.
    pub fn take_writes(&mut self) -> Vec<Write> {
        self.journal.writes.drain(..).collect()
    }

    /// What was asked for and is not simulated: a test should see none.
    pub fn unknown(&self) -> &[String] {
        &self.journal.unknown
    }

    /// How many watches are open.
    pub fn watch_count(&self) -> usize {
        self.watches.count()
    }
}
