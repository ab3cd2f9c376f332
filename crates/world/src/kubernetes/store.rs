//! All objects, the version that grows with each write, and as much of the past as the API server remembers.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    kind::Kind,
    object::{Key, list, set, text},
};

/// One write.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Value>>,
    /// As it is after the write; of a deleted one its last state, under the version of the deletion.
    pub(super) object: Arc<Value>,
    pub(super) is_gone: bool,
}

/// What is remembered of one kind.
#[derive(Debug, Default)]
struct Past {
    changes: VecDeque<Change>,
    /// The version of the last change that is forgotten.
    forgotten: u64,
}

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    /// What names an owner, by the owner's uid: to look at everything for each of them would be a square.
    owned: BTreeMap<String, BTreeSet<Key>>,
    past: BTreeMap<Kind, Past>,
    remembered: usize,
    version: u64,
}

/// Asked for a version that is forgotten. Holds the oldest that is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooOld(pub(super) u64);

impl Store {
    /// Remembers so many changes of each kind. The first version is 1, since a watch from 0 is one from anywhere.
    pub(super) const fn new(remembered: usize) -> Self {
        Self { objects: BTreeMap::new(), owned: BTreeMap::new(), past: BTreeMap::new(), remembered, version: 1 }
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The objects of a kind in a namespace, by name.
    pub(super) fn of(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let from = Key::new(kind, namespace, "");
        self.objects
            .range((Bound::Included(from.clone()), Bound::Unbounded))
            .take_while(move |(key, _)| key.kind == from.kind && key.namespace == from.namespace)
    }

    /// The objects that name this owner.
    pub(super) fn owned_by(&self, owner: &str) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let keys = self.owned.get(owner).into_iter().flatten();
        keys.filter_map(|key| self.objects.get_key_value(key))
    }

    /// The objects of a kind in all namespaces.
    pub(super) fn all(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.range(Key::new(kind, "", "")..).take_while(move |(key, _)| key.kind == kind)
    }

    /// Writes an object, under a new version.
    pub(super) fn write(&mut self, key: Key, mut object: Value) -> Change {
        self.version += 1;
        set(&mut object, &["metadata", "resourceVersion"], json!(self.version.to_string()));
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        self.disown(&key, before.as_deref());
        for owner in owners(&object) {
            self.owned.entry(owner.to_owned()).or_default().insert(key.clone());
        }
        self.remember(Change { version: self.version, key, before, object, is_gone: false })
    }

    /// Takes an object away, under a new version as well.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Change> {
        let before = self.objects.remove(key)?;
        self.disown(key, Some(&before));
        self.version += 1;
        let mut last = Value::clone(&before);
        set(&mut last, &["metadata", "resourceVersion"], json!(self.version.to_string()));
        let change = Change {
            version: self.version,
            key: key.clone(),
            before: Some(before),
            object: Arc::new(last),
            is_gone: true,
        };
        Some(self.remember(change))
    }

    fn disown(&mut self, key: &Key, before: Option<&Value>) {
        for owner in before.into_iter().flat_map(owners) {
            if let Some(keys) = self.owned.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owned.remove(owner);
                }
            }
        }
    }

    fn remember(&mut self, change: Change) -> Change {
        let past = self.past.entry(change.key.kind).or_default();
        past.changes.push_back(change.clone());
        while past.changes.len() > self.remembered {
            past.forgotten = past.changes.pop_front().map_or(past.forgotten, |change| change.version);
        }
        change
    }

    /// Forgets all that was, as a compaction does.
    pub(super) fn forget(&mut self) {
        for kind in Kind::ALL {
            let past = self.past.entry(kind).or_default();
            past.changes.clear();
            past.forgotten = self.version;
        }
    }

    /// The changes of a kind after a version.
    pub(super) fn since(&self, kind: Kind, version: u64) -> Result<impl Iterator<Item = &Change>, TooOld> {
        let past = self.past.get(&kind);
        let forgotten = past.map_or(0, |past| past.forgotten);
        if version < forgotten {
            return Err(TooOld(forgotten));
        }
        Ok(past.into_iter().flat_map(|past| &past.changes).filter(move |change| change.version > version))
    }

    /// The objects of a kind in a namespace as they were at a version, by name.
    pub(super) fn at(&self, kind: Kind, namespace: &str, version: u64) -> Result<BTreeMap<String, Arc<Value>>, TooOld> {
        let mut objects: BTreeMap<String, Arc<Value>> =
            self.of(kind, namespace).map(|(key, object)| (key.name.clone(), Arc::clone(object))).collect();
        let undone: Vec<&Change> =
            self.since(kind, version)?.filter(|change| change.key.namespace == namespace).collect();
        for change in undone.into_iter().rev() {
            match &change.before {
                Some(before) => objects.insert(change.key.name.clone(), Arc::clone(before)),
                None => objects.remove(&change.key.name),
            };
        }
        Ok(objects)
    }
}

/// The uids of the owners that an object names.
fn owners(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/metadata/ownerReferences").iter().map(|owner| text(owner, "/uid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Key {
        Key::new(Kind::Pod, "ci", name)
    }

    #[test]
    fn every_write_has_a_version_of_its_own_and_a_deletion_too() {
        let mut store = Store::new(10);
        store.write(pod("a"), json!({ "n": 1 }));
        store.write(pod("a"), json!({ "n": 2 }));
        let gone = store.remove(&pod("a")).unwrap();
        assert_eq!((gone.version, store.version()), (4, 4));
        assert_eq!(gone.object.pointer("/metadata/resourceVersion").unwrap(), "4");
        assert_eq!(gone.object["n"], 2);
        assert!(store.remove(&pod("a")).is_none());
    }

    #[test]
    fn what_names_an_owner_is_found_until_it_names_another_or_is_gone() {
        let mut store = Store::new(10);
        let owned = |uid: &str| json!({ "metadata": { "ownerReferences": [{ "uid": uid }] } });
        let names = |store: &Store, uid: &str| store.owned_by(uid).map(|(key, _)| key.name.clone()).collect::<Vec<_>>();
        store.write(pod("a"), owned("x"));
        store.write(pod("b"), owned("x"));
        assert_eq!(names(&store, "x"), ["a", "b"]);
        store.write(pod("a"), owned("y"));
        store.remove(&pod("b"));
        assert_eq!((names(&store, "x").len(), names(&store, "y")), (0, vec!["a".to_owned()]));
    }

    #[test]
    fn the_past_is_shown_as_it_was_until_it_is_forgotten() {
        let mut store = Store::new(3);
        store.write(pod("a"), json!({ "n": 1 }));
        store.write(pod("b"), json!({ "n": 1 }));
        store.write(pod("a"), json!({ "n": 2 }));
        store.remove(&pod("b"));
        let then = store.at(Kind::Pod, "ci", 3).unwrap();
        assert_eq!(
            then.iter().map(|(name, o)| (name.as_str(), o["n"].as_u64().unwrap())).collect::<Vec<_>>(),
            [("a", 1), ("b", 1)]
        );
        assert_eq!(store.at(Kind::Pod, "ci", 1).unwrap_err(), TooOld(2));
        store.forget();
        assert_eq!(store.since(Kind::Pod, 4).err(), Some(TooOld(5)));
        assert_eq!(store.since(Kind::Pod, 5).unwrap().count(), 0);
    }
}
