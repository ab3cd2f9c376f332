//! Polls Buildkite with every token in use, one task per token, and keeps the last good answer of each for anybody to look at.
//!
//! Tokens are told apart by the SHA-256 of their value: two Secrets with the same token share one task and its calls. A
//! token file has a small task of its own that re-reads it once an interval and hands its token over like a Secret's; so a
//! changed file is polled with at once, and files share tasks too.

mod file;
mod pace;
mod registry;
mod task;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kitepool_policy::observation::{GoodReading, Reading, Trouble};
use reqwest::{Request, Response};
use secrecy::SecretString;
use tokio::sync::Notify;
use tower::Service;

pub use self::pace::BACKOFF_MAX;
use self::{
    registry::{Handover, Registry},
    task::{Fault, Seen},
};
use crate::{
    budget::Budget,
    buildkite::{Client, Identity, Transport},
    clock::Clock,
};

/// A call that waits longer than this for its turn in the budget is told as trouble: readings grow old, and the budget is to
/// blame. Below every sensible `staleAfter`, so that the reason is known before the reading is of no use.
pub const BUDGET_PATIENCE: Duration = Duration::from_mins(1);

/// The longest that a call keeps its place in the budget's line. Enough for two thousand tokens at a hundred calls a minute,
/// each of which stands in the line once: nobody is turned away who would be served.
pub const BUDGET_PLACE: Duration = Duration::from_mins(20);

/// No interval is shorter, whatever the settings say: a poll without a pause would keep a processor busy.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The budget is so many calls in each of these.
const BUDGET_PERIOD: Duration = Duration::from_mins(1);

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKey {
    /// A key of a Kubernetes Secret.
    Secret {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// The key within it.
        key: String,
    },
    /// A file that this process can read.
    File(String),
}

impl std::fmt::Display for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret { namespace, name, key } => write!(f, "key {key} of Secret {namespace}/{name}"),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}

/// Told of every call: its outcome (one of [`crate::buildkite::OUTCOMES`]) and how long it took. A turn in the
/// budget that is waited for too long is told too, with the time that it was waited for.
pub type Observe = Arc<dyn Fn(&'static str, Duration) + Send + Sync>;

/// What is known of one queue through one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// For the decision.
    pub reading: Reading,
    /// Whose token it is, once known.
    pub identity: Option<Identity>,
    /// The trouble as a sentence: what happened and what to do.
    pub trouble: Option<String>,
}

impl Look {
    fn blind(trouble: Trouble, sentence: String) -> Self {
        let reading = Reading { last_good: None, trouble: Some(trouble) };
        Self { reading, identity: None, trouble: Some(sentence) }
    }
}

/// What all tasks share.
struct Shared<S> {
    client: Client<S>,
    interval: Duration,
    budget: Budget,
    clock: Clock,
    wake: Arc<Notify>,
    observe: Observe,
    garbled_intervals: AtomicU64,
    registry: Mutex<Registry>,
}

impl<S> Shared<S> {
    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tokens in use and the tasks that poll with them. Dropping it ends every task.
pub struct PollSet<S = Transport> {
    shared: Arc<Shared<S>>,
}

impl<S> std::fmt::Debug for PollSet<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PollSet").finish_non_exhaustive()
    }
}

impl<S> Drop for PollSet<S> {
    fn drop(&mut self) {
        // The tasks hold the shared part, so it would outlive them and they it.
        self.shared.registry().end();
    }
}

impl<S> PollSet<S>
where
    S: Service<Request, Response = Response, Error = reqwest::Error> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Polls through `client`. `interval` is the shortest between two polls of one token, and Buildkite may ask for a longer
    /// one; `budget` is calls per minute over all tokens. Each new outcome wakes `wake`.
    pub fn new(
        client: Client<S>,
        interval: Duration,
        budget: NonZeroU32,
        clock: Clock,
        wake: Arc<Notify>,
        observe: Observe,
    ) -> Self {
        let interval = interval.max(INTERVAL_MIN);
        let budget = Budget::new(budget, BUDGET_PERIOD, BUDGET_PLACE, clock.clone());
        let registry = Mutex::new(Registry::default());
        let garbled_intervals = AtomicU64::new(0);
        let shared = Shared { client, interval, budget, clock, wake, observe, garbled_intervals, registry };
        Self { shared: Arc::new(shared) }
    }

    /// The tokens to poll with from now on: what is new starts at once, what is gone ends, what stays goes on undisturbed.
    /// Must be called within the runtime.
    pub fn set(&mut self, secrets: BTreeMap<TokenKey, SecretString>, files: BTreeSet<String>) {
        let mut registry = self.shared.registry();
        let mut wanted: BTreeSet<TokenKey> = secrets.keys().cloned().collect();
        wanted.extend(files.iter().cloned().map(TokenKey::File));
        registry.keep(&wanted);
        for (key, token) in secrets {
            let handover = Handover::of(&key, &token);
            registry.hand_over(&key, handover, |token, digest, seen| task::spawn(&self.shared, token, digest, seen));
        }
        for path in files {
            registry.watch(&path, || file::spawn(&self.shared, path.clone()));
        }
    }
}

impl<S> PollSet<S> {
    /// How many answers so far came with a `Buildkite-Agent-Metrics-Poll-Duration` that is not understood and was ignored.
    pub fn garbled_intervals(&self) -> u64 {
        self.shared.garbled_intervals.load(Ordering::Relaxed)
    }

    /// What is known of `queue` through the token at `key`. `expected` is the identity that the pool has known so far.
    pub fn look(&self, key: &TokenKey, queue: &str, expected: Option<&Identity>) -> Look {
        let registry = self.shared.registry();
        let Some(source) = registry.source(key) else {
            return Look::blind(Trouble::NoToken, format!("there is no agent token: {key} is not there; create it"));
        };
        let seen = source.seen();
        let mut look = seen.map_or_else(
            || Look::blind(Trouble::NotRead, "Buildkite has not answered yet".to_owned()),
            |seen| look_at(&seen, queue, expected),
        );
        // A source that is broken now outweighs what its last token brought, but does not take it away.
        if let Some(fault) = source.fault()
            && look.reading.trouble != Some(Trouble::OtherIdentity)
        {
            look.reading.trouble = Some(fault.trouble);
            look.trouble = Some(fault.sentence.clone());
        }
        look
    }
}

fn look_at(seen: &Seen, queue: &str, expected: Option<&Identity>) -> Look {
    let identity = seen.identity.as_ref().map(|known| known.identity.clone());
    if let (Some(expected), Some(found)) = (expected, &identity)
        && expected != found
    {
        let sentence = format!(
            "the agent token belongs to {found}, but this pool has been serving {expected}; restore the token, or make a new pool"
        );
        return Look { identity, ..Look::blind(Trouble::OtherIdentity, sentence) };
    }
    // An answer that is somebody else's says nothing about whose the older ones were.
    let doubtful = seen.fault.as_ref().is_some_and(|fault| fault.trouble == Trouble::OtherIdentity);
    let last_good = seen.good.as_ref().filter(|_| !doubtful).map(|good| GoodReading {
        load: good.load(queue),
        date: good.buildkite_time(),
        at: good.asked_at,
    });
    let fault = match (&seen.fault, last_good) {
        (Some(fault), _) => Some(fault.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(Fault::not_read()),
    };
    let (trouble, sentence) = fault.map(|fault| (fault.trouble, fault.sentence)).unzip();
    Look { reading: Reading { last_good, trouble }, identity, trouble: sentence }
}
