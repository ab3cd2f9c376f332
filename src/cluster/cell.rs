//! A dated copy of one kind of object in one namespace, kept by a watch and read by the tick.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::view::{DeploymentView, HintView, PodTemplateView, PodView, PoolView};

/// Objects by name. Clones share the content. The tick takes what is there, in the order of names.
#[derive(Debug)]
pub struct Cell<T>(Arc<Mutex<Content<T>>>);

impl<T> Clone for Cell<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// By name.
type Objects<T> = BTreeMap<String, Arc<T>>;

#[derive(Debug)]
struct Content<T> {
    /// Shared with whoever takes them, and copied when they change while somebody still looks.
    objects: Arc<Objects<T>>,
    /// Collected by a list in progress, swapped in when it is complete.
    incoming: Objects<T>,
    /// Another number for other objects.
    revision: u64,
    /// Another number where some came that were not there.
    arrivals: u64,
    health: Health,
}

impl<T> Content<T> {
    /// The objects, to be changed.
    fn changed(&mut self) -> &mut Objects<T> {
        self.revision = self.revision.wrapping_add(1);
        Arc::make_mut(&mut self.objects)
    }

    fn put(&mut self, name: String, object: T) {
        let before = self.changed().insert(name, Arc::new(object));
        self.arrivals = self.arrivals.wrapping_add(u64::from(before.is_none()));
    }
}

/// How a watch is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The first list is not complete yet.
    Starting,
    /// Complete, and followed.
    Following,
    /// The last attempt failed; the objects are those from before.
    Broken {
        /// Since when.
        since: Timestamp,
        /// The sentence.
        why: String,
        /// Whether the first list was ever complete.
        synced: bool,
    },
}

impl Health {
    /// Whether the objects are a complete picture, if perhaps an old one.
    pub const fn is_synced(&self) -> bool {
        match self {
            Self::Starting => false,
            Self::Following => true,
            Self::Broken { synced, .. } => *synced,
        }
    }
}

impl<T> Default for Cell<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Content {
            objects: Arc::default(),
            incoming: BTreeMap::new(),
            revision: 0,
            arrivals: 0,
            health: Health::Starting,
        })))
    }
}

impl<T> Cell<T> {
    fn content(&self) -> MutexGuard<'_, Content<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All objects, in the order of their names.
    pub fn objects(&self) -> Arc<Objects<T>> {
        Arc::clone(&self.content().objects)
    }

    /// The number of what there is now: while it stays, so do the objects.
    pub fn revision(&self) -> u64 {
        self.content().revision
    }

    /// While it stays, none came that was not there before. What changes or goes does not move it.
    pub fn arrivals(&self) -> u64 {
        self.content().arrivals
    }

    /// One object.
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.content().objects.get(name).cloned()
    }

    /// How the watch is doing.
    pub fn health(&self) -> Health {
        self.content().health.clone()
    }

    /// A list begins.
    pub fn begin(&self) {
        self.content().incoming.clear();
    }

    /// The list brings one.
    pub fn collect(&self, name: String, object: T) {
        self.content().incoming.insert(name, Arc::new(object));
    }

    /// The list is complete.
    pub fn complete(&self) {
        let mut content = self.content();
        let incoming = std::mem::take(&mut content.incoming);
        let are_new = incoming.keys().any(|name| !content.objects.contains_key(name));
        content.arrivals = content.arrivals.wrapping_add(u64::from(are_new));
        *content.changed() = incoming;
        content.health = Health::Following;
    }

    /// The watch brings one.
    pub fn put(&self, name: String, object: T) {
        let mut content = self.content();
        content.put(name, object);
        content.health = Health::Following;
    }

    /// The watch takes one away.
    pub fn remove(&self, name: &str) {
        let mut content = self.content();
        content.changed().remove(name);
        content.health = Health::Following;
    }

    /// What a read of its own brought: it says nothing of how the watch is doing.
    fn correct(&self, name: &str, object: Option<T>) {
        let mut content = self.content();
        match object {
            Some(object) => content.put(name.to_owned(), object),
            None => drop(content.changed().remove(name)),
        }
    }

    /// The watch failed. Answers whether that is news: the first failure, or another reason than before.
    pub fn fail(&self, now: Timestamp, why: String) -> bool {
        let mut content = self.content();
        let (since, is_news) = match &content.health {
            Health::Broken { since, why: before, .. } => (*since, *before != why),
            Health::Starting | Health::Following => (now, true),
        };
        let synced = content.health.is_synced();
        content.health = Health::Broken { since, why, synced };
        is_news
    }
}

/// One namespace as it is known.
#[derive(Debug, Clone, Default)]
pub struct NamespaceCells {
    /// Its pools.
    pub pools: Cell<PoolView>,
    /// Its hints.
    pub hints: Cell<HintView>,
    /// Its Deployments, ours and others: one of the others may be adopted.
    pub deployments: Cell<DeploymentView>,
    /// Its pods.
    pub pods: Cell<PodView>,
    /// Its pod definitions.
    pub templates: Cell<PodTemplateView>,
}

impl NamespaceCells {
    /// How each watch is doing.
    pub fn health(&self) -> [(&'static str, Health); 5] {
        [
            ("agentpools", self.pools.health()),
            ("jobhints", self.hints.health()),
            ("deployments", self.deployments.health()),
            ("pods", self.pods.health()),
            ("podtemplates", self.templates.health()),
        ]
    }

    /// A Deployment as a conflict made us read it, where that is news to the watch.
    pub fn take_in_deployment(&self, name: &str, seen: Option<DeploymentView>) {
        let known = self.deployments.get(name);
        match (seen, known) {
            (Some(seen), Some(known)) if seen.resource_version > known.resource_version => {
                self.deployments.correct(name, Some(seen));
            }
            // One that the watch does not show may be gone again since it was read; the watch brings it if it is there.
            (Some(_), _) => {}
            (None, _) => self.deployments.correct(name, None),
        }
    }

    /// Whether there is a complete picture, if perhaps an old one, of all that a decision needs. Hints are not needed:
    /// without them a pool follows the readings.
    pub fn is_synced(&self) -> bool {
        self.pools.health().is_synced()
            && self.deployments.health().is_synced()
            && self.pods.health().is_synced()
            && self.templates.health().is_synced()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_told_from_what_changes_and_goes() {
        let cell = Cell::default();
        let moves = |does: &dyn Fn()| {
            let before = cell.arrivals();
            does();
            cell.arrivals() != before
        };
        let lists = |names: &[&str]| {
            cell.begin();
            for name in names {
                cell.collect((*name).to_owned(), 1);
            }
            cell.complete();
        };
        assert!(moves(&|| cell.put("a".to_owned(), 1)));
        assert!(!moves(&|| cell.put("a".to_owned(), 2)));
        assert!(!moves(&|| cell.remove("a")));
        assert!(moves(&|| cell.put("a".to_owned(), 1)), "another of the same name");
        assert!(!moves(&|| lists(&["a"])));
        assert!(moves(&|| lists(&["a", "b"])));
        assert!(moves(&|| lists(&["c"])), "fewer, but one of them is new");
        assert!(!moves(&|| lists(&[])));
    }

    #[test]
    fn a_list_replaces_everything_at_once_when_it_is_complete() {
        let cell = Cell::default();
        cell.put("old".to_owned(), 1);
        cell.begin();
        cell.collect("new".to_owned(), 2);
        assert_eq!(cell.objects().keys().collect::<Vec<_>>(), ["old"]);
        let revision = cell.revision();
        cell.complete();
        assert_ne!(cell.revision(), revision);
        assert_eq!(cell.objects().keys().collect::<Vec<_>>(), ["new"]);
    }

    #[test]
    fn a_failure_keeps_what_was_known_and_is_news_once() {
        let cell = Cell::default();
        cell.begin();
        cell.collect("a".to_owned(), 1);
        cell.complete();
        assert!(cell.fail(Timestamp::UNIX_EPOCH, "denied".to_owned()));
        assert!(!cell.fail(Timestamp::UNIX_EPOCH, "denied".to_owned()));
        assert!(cell.health().is_synced());
        assert!(cell.get("a").is_some());
    }

    #[test]
    fn a_watch_that_never_listed_is_not_synced() {
        let cell = Cell::<u8>::default();
        cell.fail(Timestamp::UNIX_EPOCH, "no such resource".to_owned());
        assert!(!cell.health().is_synced());
    }
}
