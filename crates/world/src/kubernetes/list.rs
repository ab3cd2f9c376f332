//! Lists, page by page, the beginning of watches, and the document that describes the definitions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    Event, Kubernetes,
    kind::Kind,
    object::{Key, list, set, text, texts},
    refusal::Refusal,
    request::Chosen,
    selector::Selector,
    store::{Store, TooOld},
    verbs::Answer,
    watch::{Watch, WatchId},
};

/// Without a wish of the client the API server ends a watch after half an hour to an hour.
const WATCH_SECONDS: u64 = 1_800;

/// How often a watch is told that nothing is missing, and how long before its end for the last time.
const BOOKMARK_EVERY: Duration = Duration::from_mins(1);
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

impl Kubernetes {
    pub(super) fn list(
        &self,
        (kind, namespace): (Kind, &str),
        (selector, regarding): (&Selector, Option<&str>),
        limit: Option<usize>,
        from: Option<&str>,
    ) -> Answer {
        let (version, after) = match from {
            None => (self.store.version(), ""),
            Some(token) => place(token).ok_or_else(|| Refusal::bad_request("continue key is not valid".to_owned()))?,
        };
        let objects = objects_at(&self.store, kind, namespace, version)?;
        let mut matching = objects
            .into_iter()
            .filter(|(name, _)| from.is_none() || name.as_str() > after)
            .filter(|(_, object)| regarding.is_none_or(|kind| kind == text(object, "/regarding/kind")))
            .filter(|(_, object)| selector.matches(&texts(object, "/metadata/labels")));
        let page: Vec<(String, Arc<Value>)> = matching.by_ref().take(limit.unwrap_or(usize::MAX)).collect();
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        let left = matching.count();
        if let (Some((last, _)), 1..) = (page.last(), left) {
            set(&mut metadata, &["continue"], json!(format!("{version}:{last}")));
            // With a selector the API server does not know how many are left.
            if *selector == Selector::default() && regarding.is_none() {
                set(&mut metadata, &["remainingItemCount"], json!(left));
            }
        }
        let items: Vec<Value> = page.iter().map(|(_, object)| item(object)).collect();
        let body = json!({
            "kind": format!("{}List", kind.name()), "apiVersion": kind.api_version(), "metadata": metadata, "items": items,
        });
        Ok((200, body))
    }

    /// Deletes what there was at a version and is selected. By name, so what was made anew since goes as well.
    pub(super) fn delete_all(&mut self, (kind, namespace): (Kind, &str), chosen: &Chosen, options: &Value) -> Answer {
        let version = chosen.version.unwrap_or_else(|| self.store.version());
        if version == 0 {
            let why = "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"".to_owned();
            let cause = ("resourceVersionMatch".to_owned(), why, "FieldValueForbidden");
            return Err(Refusal::invalid(("meta.k8s.io", "ListOptions", ""), &[cause]));
        }
        if version > self.store.version() {
            let why = format!("Timeout: Too large resource version: {version}, current: {}", self.store.version());
            return Err(Refusal::timeout(why));
        }
        let objects = objects_at(&self.store, kind, namespace, version)?;
        let mut matching = objects
            .into_iter()
            .filter(|(name, _)| !chosen.spared.contains(name))
            .filter(|(_, object)| chosen.selector.matches(&texts(object, "/metadata/labels")));
        let page: Vec<(String, Arc<Value>)> =
            matching.by_ref().take(chosen.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX)).collect();
        let place = match (page.last(), matching.next()) {
            (Some((last, _)), Some(_)) => format!("{version}:{last}"),
            _ => String::new(),
        };
        for (name, _) in &page {
            match self.delete_by(&Key::new(kind, namespace, name), options) {
                Err(refusal) if refusal.code != 404 => return Err(refusal),
                Ok(_) | Err(_) => {}
            }
        }
        let items: Vec<Value> = page.iter().map(|(_, object)| item(object)).collect();
        let metadata = json!({ "continue": place, "resourceVersion": version.to_string() });
        let body = json!({
            "kind": format!("{}List", kind.name()), "apiVersion": kind.api_version(), "metadata": metadata, "items": items,
        });
        Ok((200, body))
    }

    pub(super) fn watch(
        &mut self,
        (kind, namespace): (Kind, String),
        selector: Selector,
        version: u64,
        seconds: Option<u64>,
        bookmarks: bool,
    ) -> Result<WatchId, Refusal> {
        if version > self.store.version() {
            let why = format!("Too large resource version: {version}, current: {}", self.store.version());
            return Err(Refusal::timeout(why));
        }
        let length = Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(WATCH_SECONDS));
        let ends_at = self.after(length);
        let mut watch = Watch::new(kind, namespace.clone(), selector, (bookmarks, version), ends_at);
        match self.store.since(kind, version) {
            _ if version == 0 => self.store.of(kind, &namespace).for_each(|(_, object)| watch.add(object)),
            Ok(changes) => changes.for_each(|change| watch.tell(change)),
            Err(TooOld(oldest)) => {
                watch.fail(&Refusal::expired(format!("too old resource version: {version} ({oldest})")));
            }
        }
        let id = self.watches.open(watch);
        self.agenda.enter(ends_at, Event::WatchEnds(id));
        self.plan_bookmark(id, ends_at);
        Ok(id)
    }

    /// Every minute and shortly before the end, whichever comes first.
    pub(super) fn plan_bookmark(&mut self, id: WatchId, ends_at: jiff::Timestamp) {
        let last = ends_at.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(ends_at);
        let at = self.after(BOOKMARK_EVERY).min(last);
        if at > self.now {
            self.agenda.enter(at, Event::Bookmark(id));
        }
    }

    /// The schemas of the installed definitions of a group, as `/openapi/v3/apis/GROUP/VERSION` has them.
    pub(super) fn openapi(&self, group: &str, version: &str) -> Answer {
        let mut schemas = Map::new();
        for definition in self.definitions.iter().filter(|definition| text(definition, "/spec/group") == group) {
            let kind = text(definition, "/spec/names/kind");
            for served in list(definition, "/spec/versions").iter().filter(|served| text(served, "/name") == version) {
                let mut schema = served.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
                let word = "x-kubernetes-group-version-kind";
                set(&mut schema, &[word], json!([{ "group": group, "version": version, "kind": kind }]));
                schemas.insert(format!("{group}.{version}.{kind}"), schema);
            }
        }
        if schemas.is_empty() {
            return Err(Refusal::no_such_page());
        }
        Ok((200, json!({ "openapi": "3.0.0", "paths": {}, "components": { "schemas": schemas } })))
    }

    /// Whether requests about this kind find something.
    pub(super) fn is_served(&self, kind: Kind) -> bool {
        !kind.is_custom() || self.definition(kind).is_some()
    }

    /// The installed definition of a kind.
    pub(super) fn definition(&self, kind: Kind) -> Option<&Value> {
        self.definitions.iter().find(|definition| {
            text(definition, "/spec/names/plural") == kind.plural()
                && text(definition, "/spec/group") == kind.traits().group
        })
    }
}

/// Items of a list leave out what the list says; those of definitions do not.
fn item(object: &Value) -> Value {
    let mut item = object.clone();
    let is_custom = Kind::of_words(text(object, "/apiVersion"), text(object, "/kind")).is_some_and(Kind::is_custom);
    if let (false, Some(map)) = (is_custom, item.as_object_mut()) {
        map.remove("apiVersion");
        map.remove("kind");
    }
    item
}

/// Where a page begins: at which version, after which name.
fn place(token: &str) -> Option<(u64, &str)> {
    let (version, after) = token.split_once(':')?;
    Some((version.parse().ok()?, after))
}

fn objects_at(
    store: &Store,
    kind: Kind,
    namespace: &str,
    version: u64,
) -> Result<BTreeMap<String, Arc<Value>>, Refusal> {
    store.at(kind, namespace, version).map_err(|TooOld(_)| {
        Refusal::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
             results. Continuing with the provided token results in an inconsistent list - objects that were created, \
             modified, or deleted between the time the first chunk was returned and now may show up in the list."
                .to_owned(),
        )
    })
}
