//! Watches: each with a bounded queue of lines, ended by its time, by falling behind, or by a cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    kind::Kind,
    object::{set, texts},
    refusal::Refusal,
    selector::Selector,
    store::Change,
};

/// An open watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(u64);

/// How a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEnd {
    /// The answer is complete.
    Clean,
    /// The connection broke.
    Cut,
}

/// What a watch has to tell since it was asked last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WatchNews {
    /// JSON, each with its line feed.
    pub lines: Vec<String>,
    /// Nothing comes after these lines.
    pub end: Option<WatchEnd>,
}

#[derive(Debug)]
pub(super) struct Watch {
    kind: Kind,
    namespace: String,
    selector: Selector,
    bookmarks: bool,
    /// What its client knew when it began: that is not told again by a bookmark.
    begun_at: u64,
    ends_at: Timestamp,
    lines: VecDeque<String>,
    end: Option<WatchEnd>,
}

impl Watch {
    pub(super) const fn new(
        kind: Kind,
        namespace: String,
        selector: Selector,
        (bookmarks, begun_at): (bool, u64),
        ends_at: Timestamp,
    ) -> Self {
        Self { kind, namespace, selector, bookmarks, begun_at, ends_at, lines: VecDeque::new(), end: None }
    }

    /// The type under which a change is told: what a selector lets out of sight is deleted for those who look through it.
    fn type_of(&self, change: &Change) -> Option<&'static str> {
        if change.key.kind != self.kind || change.key.namespace != self.namespace {
            return None;
        }
        let is_seen = |object: &Value| self.selector.matches(&texts(object, "/metadata/labels"));
        let was_there = change.before.as_deref().is_some_and(is_seen);
        let is_there = !change.is_gone && is_seen(&change.object);
        match (was_there, is_there) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }

    /// An object that was there when the watch began.
    pub(super) fn add(&mut self, object: &Value) {
        if self.selector.matches(&texts(object, "/metadata/labels")) {
            self.lines.push_back(line("ADDED", object));
        }
    }

    pub(super) fn tell(&mut self, change: &Change) {
        let told = match (self.type_of(change), &change.before) {
            (None, _) => return,
            // Who looks through a selector is shown it as it last was in sight, under the version of the change.
            (Some("DELETED"), Some(before)) if !change.is_gone => {
                let mut last = Value::clone(before);
                set(&mut last, &["metadata", "resourceVersion"], json!(change.version.to_string()));
                line("DELETED", &last)
            }
            (Some(type_), _) => line(type_, &change.object),
        };
        self.lines.push_back(told);
    }

    /// An error, after which nothing comes.
    pub(super) fn fail(&mut self, refusal: &Refusal) {
        self.lines.push_back(line("ERROR", &refusal.status()));
        self.end = Some(WatchEnd::Clean);
    }
}

fn line(type_: &str, object: &Value) -> String {
    format!("{{\"type\":\"{type_}\",\"object\":{object}}}\n")
}

/// All open watches.
#[derive(Debug)]
pub(super) struct Watches {
    open: BTreeMap<WatchId, Watch>,
    opened: u64,
    /// How many lines a watch may be behind.
    lines_max: usize,
    news: BTreeSet<WatchId>,
}

impl Watches {
    pub(super) const fn new(lines_max: usize) -> Self {
        Self { open: BTreeMap::new(), opened: 0, lines_max, news: BTreeSet::new() }
    }

    pub(super) fn open(&mut self, watch: Watch) -> WatchId {
        self.opened += 1;
        let id = WatchId(self.opened);
        self.open.insert(id, watch);
        self.news.insert(id);
        id
    }

    /// Tells all who look there. One that is too far behind is ended, and its client begins again.
    pub(super) fn tell(&mut self, change: &Change) {
        for (id, watch) in self.open.iter_mut().filter(|(_, watch)| watch.end.is_none()) {
            watch.tell(change);
            if watch.lines.len() > self.lines_max {
                watch.lines.clear();
                watch.end = Some(WatchEnd::Clean);
            }
            if !watch.lines.is_empty() || watch.end.is_some() {
                self.news.insert(*id);
            }
        }
    }

    /// Tells a watch that nothing up to this version is missing. Answers when it ends, while it is open.
    pub(super) fn bookmark(&mut self, id: WatchId, version: u64) -> Option<Timestamp> {
        let watch = self.open.get_mut(&id).filter(|watch| watch.end.is_none())?;
        if watch.bookmarks && version > watch.begun_at {
            let metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
            let kind = watch.kind;
            let object = json!({ "kind": kind.name(), "apiVersion": kind.api_version(), "metadata": metadata });
            watch.lines.push_back(line("BOOKMARK", &object));
            self.news.insert(id);
        }
        Some(watch.ends_at)
    }

    pub(super) fn end(&mut self, id: WatchId) {
        self.end_where(WatchEnd::Clean, |other, _| other == id);
    }

    /// Ends all of a kind, or all.
    pub(super) fn end_all(&mut self, kind: Option<Kind>, how: WatchEnd) {
        self.end_where(how, |_, watch| kind.is_none_or(|kind| kind == watch.kind));
    }

    fn end_where(&mut self, how: WatchEnd, which: impl Fn(WatchId, &Watch) -> bool) {
        for (id, watch) in &mut self.open {
            if watch.end.is_none() && which(*id, watch) {
                watch.end = Some(how);
                self.news.insert(*id);
            }
        }
    }

    /// What a watch has to tell; the end of one is told once.
    pub(super) fn take(&mut self, id: WatchId) -> WatchNews {
        let Some(watch) = self.open.get_mut(&id) else {
            return WatchNews { lines: Vec::new(), end: Some(WatchEnd::Clean) };
        };
        let news = WatchNews { lines: watch.lines.drain(..).collect(), end: watch.end };
        if news.end.is_some() {
            self.open.remove(&id);
        }
        news
    }

    /// The client is gone.
    pub(super) fn close(&mut self, id: WatchId) {
        self.open.remove(&id);
    }

    /// The watches with something to tell since this was asked last.
    pub(super) fn take_news(&mut self) -> BTreeSet<WatchId> {
        std::mem::take(&mut self.news)
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }
}
