//! What was asked and what was written, for transcripts and counts.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    object::Key,
    request::{Route, Verb},
};

/// A day of a large pool is some ten thousand; a test that wants more takes them out now and then.
const WRITES_MAX: usize = 100_000;

/// One sentence is enough to fail a test; more of them help to mend it.
const UNKNOWN_MAX: usize = 100;

/// One write, refused ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// When it was answered.
    pub at: Timestamp,
    /// The field manager, or the program.
    pub who: String,
    /// What was done.
    pub verb: Verb,
    /// To what: `deployments/scale`.
    pub resource: String,
    /// Where.
    pub namespace: String,
    /// To which.
    pub name: String,
    /// The HTTP status.
    pub status: u16,
    /// The object as it stood right after; `None` where there is none.
    pub object: Option<Arc<Value>>,
}

/// Requests by route and by the status of their answer.
pub type Requests = BTreeMap<Route, BTreeMap<u16, u64>>;

/// The books.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) requests: Requests,
    pub(super) writes: VecDeque<Write>,
    pub(super) unknown: Vec<String>,
}

impl Journal {
    pub(super) fn count(&mut self, route: &Route, status: u16) {
        let count = self.requests.entry(route.clone()).or_default().entry(status).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn note(
        &mut self,
        at: Timestamp,
        who: String,
        route: &Route,
        key: Key,
        (status, object): (u16, Option<Arc<Value>>),
    ) {
        if self.writes.len() == WRITES_MAX {
            self.writes.pop_front();
        }
        let (verb, resource) = (route.verb, route.resource.clone());
        self.writes.push_back(Write {
            at,
            who,
            verb,
            resource,
            namespace: key.namespace,
            name: key.name,
            status,
            object,
        });
    }

    pub(super) fn unknown(&mut self, sentence: String) {
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.push(sentence);
        }
    }
}
