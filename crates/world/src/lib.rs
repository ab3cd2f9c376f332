//! A simulated Buildkite: the agent API's three read endpoints over settable state, for tests and the demo.
//!
//! Nothing of Kitepool is used here, so that both sides of the wire are written from Buildkite's documentation and not from
//! each other.
//!
//! # What it answers as Buildkite does
//!
//! Each wants `Authorization: Token <token>` and answers 401 to a token that [`State::tokens`] does not have.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v3/metrics` | every queue of the token's cluster; a queue stands in `agents.queues` and in `jobs.queues` only if there is something to count there. Carries `Buildkite-Agent-Metrics-Poll-Duration` if [`State::poll_duration`] is set |
//! | `GET /v3/metrics/queue?name=<key>` | one queue without the maps; zeros for one that does not exist |
//! | `GET /v3/token` | whose token it is |
//!
//! # How to drive it from another process
//!
//! Bodies are JSON. A `PUT` answers 204, or 4xx to a body that is not understood, and then nothing has changed.
//!
//! | request | body | effect |
//! |---|---|---|
//! | `GET /_world/state` | | all it holds, as [`State`] |
//! | `PUT /_world/state` | [`State`] | replaces all it holds; faults and counts stay |
//! | `PUT /_world/queues/{cluster}/{queue}` | [`Queue`] | sets a load; cluster and queue come to be if they are not there |
//! | `PUT /_world/tokens/{token}` | [`Token`] or `null` | lets the token in under this identity, another one than before if you like, or no longer |
//! | `PUT /_world/poll_duration` | a number or `null` | sets the header's seconds, or leaves the header out |
//! | `PUT /_world/faults/{route}` | [`Fault`] or `null` | breaks a route (`metrics`, `queue`, `token`), or mends it |
//! | `GET /_world/requests` | | the requests so far, as [`Requests`] |
//!
//! The binary `kitepool-world [--listen ADDRESS:PORT] [--state FILE]` serves this and prints one line,
//! `{"listening":"http://127.0.0.1:12345"}`, once it does.
//!
//! # Time
//!
//! Over a connection the HTTP server writes `Date` by the machine's clock. In process nobody does: give the world a clock
//! with [`World::set_clock`], and in virtual time `Date` follows it.

mod agenda;
mod chance;
mod control;
pub mod kubernetes;
mod router;
mod state;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

pub use self::{
    agenda::Agenda,
    chance::Chance,
    router::{router, serve},
    state::{Cluster, Fault, Queue, Requests, Route, State, Token, UNCLUSTERED},
};

/// The simulated Buildkite. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    state: State,
    faults: BTreeMap<Route, Fault>,
    requests: Requests,
    clock: Option<Clock>,
}

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("state", &self.state).field("faults", &self.faults).finish_non_exhaustive()
    }
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

    /// Lets a token in under an identity, or no longer.
    pub fn set_token(&self, token: &str, identity: Option<Token>) {
        let mut inner = self.inner();
        match identity {
            Some(identity) => inner.state.tokens.insert(token.to_owned(), identity),
            None => inner.state.tokens.remove(token),
        };
    }

    /// Sets the seconds told in `Buildkite-Agent-Metrics-Poll-Duration`; `None` leaves the header out.
    pub fn set_poll_duration(&self, seconds: Option<u64>) {
        self.inner().state.poll_duration = seconds;
    }

    /// Writes `Date` by this clock from now on.
    pub fn set_clock(&self, now: impl Fn() -> Timestamp + Send + Sync + 'static) {
        self.inner().clock = Some(Arc::new(now));
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

    fn now(&self) -> Option<Timestamp> {
        // Out of the lock before it is asked: the clock is somebody else's code.
        let clock = self.inner().clock.clone()?;
        Some(clock())
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
