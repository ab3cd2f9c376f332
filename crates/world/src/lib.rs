//! A simulated Buildkite: the agent API's three read endpoints over settable state, for tests and the demo.
//!
//! Nothing of Kitepool is used here, so that both sides of the wire are written from Buildkite's documentation and not from
//! each other.

mod control;
mod router;
mod state;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest as _, Sha256};

pub use self::{
    router::{router, serve},
    state::{Cluster, Fault, Queue, Requests, Route, State, Token, UNCLUSTERED},
};

/// The simulated Buildkite. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    faults: BTreeMap<Route, Fault>,
    requests: Requests,
}

impl World {
    /// One that begins in `state`.
    pub fn new(state: State) -> Self {
        let world = Self::default();
        world.set_state(state);
        world
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it holds now.
    pub fn state(&self) -> State {
        self.inner().state.clone()
    }

    /// Replaces all it holds; faults and counts stay.
    pub fn set_state(&self, state: State) {
        self.inner().state = state;
    }

    /// Sets the load of one queue; cluster and queue come to be if they are not there.
    pub fn set_queue(&self, cluster: &str, queue: &str, load: Queue) {
        let mut inner = self.inner();
        let cluster = inner
            .state
            .clusters
            .entry(cluster.to_owned())
            .or_insert_with(|| Cluster { name: cluster.to_owned(), ..Cluster::default() });
        cluster.queues.insert(queue.to_owned(), load);
    }

    /// Breaks a route, or mends it.
    pub fn set_fault(&self, route: Route, fault: Option<Fault>) {
        let mut inner = self.inner();
        match fault {
            Some(fault) => inner.faults.insert(route, fault),
            None => inner.faults.remove(&route),
        };
    }

    /// The requests so far; those without a token count under the digest of the empty text.
    pub fn requests(&self) -> Requests {
        self.inner().requests.clone()
    }

    fn fault(&self, route: Route) -> Option<Fault> {
        self.inner().faults.get(&route).copied()
    }

    fn count(&self, route: Route, token: &str) {
        let mut inner = self.inner();
        let count = inner.requests.entry(route).or_default().entry(digest(token)).or_default();
        *count = count.saturating_add(1);
    }
}

/// The name under which [`World::requests`] counts a token.
pub fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
