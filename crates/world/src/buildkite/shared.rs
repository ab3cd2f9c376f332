//! One Buildkite shared by its driver, its HTTP side and its control surface.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{Buildkite, Fault, Queue, Requests, Route, Settings, State, Token};

/// The simulated Buildkite, shared. Clones are the same one.
#[derive(Debug, Clone)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    buildkite: Buildkite,
    requests: Requests,
    clock: Option<Clock>,
}

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("buildkite", &self.buildkite).finish_non_exhaustive()
    }
}

impl Default for World {
    fn default() -> Self {
        Buildkite::new(Settings::default(), 0, Timestamp::UNIX_EPOCH).into()
    }
}

impl From<Buildkite> for World {
    fn from(buildkite: Buildkite) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { buildkite, requests: Requests::new(), clock: None })) }
    }
}

impl World {
    /// One without jobs and agents that begins in `state`.
    pub fn new(state: State) -> Self {
        let world = Self::default();
        world.set_state(state);
        world
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the state machine, brought up to the clock before if there is one.
    pub fn with<T>(&self, act: impl FnOnce(&mut Buildkite) -> T) -> T {
        let now = self.now();
        let mut inner = self.inner();
        if let Some(now) = now {
            inner.buildkite.advance(now);
        }
        act(&mut inner.buildkite)
    }

    /// Looks at the state machine as it is, letting nothing happen.
    pub fn peek<T>(&self, look: impl FnOnce(&Buildkite) -> T) -> T {
        look(&self.inner().buildkite)
    }

    /// Does something with the state machine, brought up to this instant and no further.
    pub fn at<T>(&self, now: Timestamp, act: impl FnOnce(&mut Buildkite) -> T) -> T {
        let mut inner = self.inner();
        inner.buildkite.advance(now);
        act(&mut inner.buildkite)
    }

    /// What is set now.
    pub fn state(&self) -> State {
        self.inner().buildkite.state().clone()
    }

    /// Replaces what is set; faults, counts, jobs and agents stay.
    pub fn set_state(&self, state: State) {
        self.with(|buildkite| buildkite.set_state(state));
    }

    /// Sets the load of one queue, to which that of jobs and agents is added; cluster and queue come to be if they are not there.
    pub fn set_queue(&self, cluster: &str, queue: &str, load: Queue) {
        self.with(|buildkite| buildkite.set_queue(cluster, queue, load));
    }

    /// Lets a token in under an identity, or no longer.
    pub fn set_token(&self, token: &str, identity: Option<Token>) {
        self.with(|buildkite| buildkite.set_token(token, identity));
    }

    /// Sets the seconds told in `Buildkite-Agent-Metrics-Poll-Duration`; `None` leaves the header out.
    pub fn set_poll_duration(&self, seconds: Option<u64>) {
        self.with(|buildkite| buildkite.set_poll_duration(seconds));
    }

    /// Goes by this clock from now on, and writes `Date` by it.
    pub fn set_clock(&self, now: impl Fn() -> Timestamp + Send + Sync + 'static) {
        self.inner().clock = Some(Arc::new(now));
    }

    /// Breaks a route, or mends it.
    pub fn set_fault(&self, route: Route, fault: Option<Fault>) {
        self.with(|buildkite| buildkite.set_fault(route, fault));
    }

    /// The requests so far; those without a token count under the digest of the empty text.
    pub fn requests(&self) -> Requests {
        self.inner().requests.clone()
    }

    pub(super) fn now(&self) -> Option<Timestamp> {
        // Out of the lock before it is asked: the clock is somebody else's code.
        let clock = self.inner().clock.clone()?;
        Some(clock())
    }

    pub(super) fn fault(&self, route: Route) -> Fault {
        self.inner().buildkite.fault(route)
    }

    pub(super) fn count(&self, route: Route, token: &str) {
        let mut inner = self.inner();
        let digest = digest(inner.buildkite.registration_behind(token).unwrap_or(token));
        let count = inner.requests.entry(route).or_default().entry(digest).or_default();
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
