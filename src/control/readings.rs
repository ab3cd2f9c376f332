//! From a pool to its reading: which token it uses, what that token's polls brought, and which pools share a queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kitepool_api::validate::{TokenSource, ValidPool};
use kitepool_policy::observation::{Reading, Trouble};
use tokio::{sync::Notify, task::JoinSet};

use super::run::Shared;
use crate::{
    buildkite::Identity,
    cluster::{read::Reader, view::PoolView},
    sense::{
        poll::{PollSet, TokenKey},
        tokens::SecretTokens,
    },
};

/// Where Buildkite is, unless the flags say otherwise.
pub const DEFAULT_ENDPOINT: &str = "https://agent.buildkite.com/v3";

/// The queue that a pool serves. Pools of one queue are decided about together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueKey {
    /// Whose it is is known: tokens of the same cluster see the same queue. The queue comes first, since it tells two keys apart
    /// at once.
    Known(String, Identity),
    /// Not yet: only the same token is surely the same queue.
    Unknown(String, TokenKey),
}

impl QueueKey {
    /// The queue's key at Buildkite.
    pub fn queue(&self) -> &str {
        match self {
            Self::Known(queue, _) | Self::Unknown(queue, _) => queue,
        }
    }
}

impl std::fmt::Display for QueueKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(queue, identity) => write!(f, "{queue} of {identity}"),
            Self::Unknown(queue, token) => write!(f, "{queue}, by {token}"),
        }
    }
}

/// What is known of a pool's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// For the policy.
    pub reading: Reading,
    /// Which queue.
    pub key: QueueKey,
    /// The identity to remember: the first that was seen.
    pub identity: Option<Identity>,
    /// What is wrong with the token.
    pub token_problem: Option<String>,
    /// What is wrong with the reading.
    pub trouble: Option<String>,
}

impl Seen {
    /// Whether a newer answer says the same. How old it is shows in what is decided by it, and in a series of its own.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let load = |seen: &Self| seen.reading.last_good.map(|good| good.load);
        let Self { reading, key, identity, token_problem, trouble } = self;
        load(self) == load(other)
            && reading.trouble == other.reading.trouble
            && *key == other.key
            && *identity == other.identity
            && *token_problem == other.token_problem
            && *trouble == other.trouble
    }
}

/// The readings of one term.
#[derive(Debug)]
pub struct Readings {
    secrets: SecretTokens,
    polls: PollSet,
    token_folder: String,
}

impl Readings {
    /// Begins to read Secrets and to poll.
    pub(super) fn begin(shared: &Shared, reader: Reader, wake: &Arc<Notify>, background: &mut JoinSet<()>) -> Self {
        let secrets = SecretTokens::default();
        background.spawn(secrets.clone().follow(reader, Arc::clone(wake)));
        let metrics = shared.metrics.clone();
        let observe = Arc::new(move |outcome, took| metrics.asked_buildkite(outcome, took));
        let (interval, budget) = (shared.config.poll_interval, shared.config.buildkite_budget);
        let client = shared.buildkite.clone();
        let polls = PollSet::new(client, interval, budget, shared.clock.clone(), Arc::clone(wake), observe);
        Self { secrets, polls, token_folder: shared.config.token_folder.clone() }
    }

    /// The tokens of these pools are wanted, and no others.
    pub fn want<'a>(&mut self, pools: impl Iterator<Item = (&'a PoolView, &'a ValidPool)>) {
        let keys: BTreeSet<TokenKey> = pools.map(|(view, valid)| token_key(view, &valid.token)).collect();
        let files = keys.iter().filter_map(|key| match key {
            TokenKey::File(path) if lies_in(path, &self.token_folder) => Some(path.clone()),
            TokenKey::File(_) | TokenKey::Secret { .. } => None,
        });
        let files: BTreeSet<String> = files.collect();
        self.secrets.want(keys.into_iter().filter(|key| matches!(key, TokenKey::Secret { .. })).collect());
        let values: BTreeMap<_, _> = self.secrets.values();
        self.polls.set(values, files);
    }

    /// What is known for a pool that has known this identity so far.
    pub fn of(&self, view: &PoolView, valid: &ValidPool, expected: Option<Identity>) -> Seen {
        let token = token_key(view, &valid.token);
        let stored = self.secrets.get(&token);
        // With a value in hand a problem is only that the API server is away for a moment.
        let unusable = stored.as_ref().filter(|token| token.value.is_none());
        let token_problem = unusable
            .and_then(|token| token.problem.as_ref())
            .map(ToString::to_string)
            .or_else(|| self.misplaced(&token));
        let mut look = self.polls.look(&token, &valid.queue, expected.as_ref());
        if matches!(token, TokenKey::Secret { .. }) && stored.is_none() {
            look.reading = Reading { last_good: None, trouble: Some(Trouble::NotRead) };
            look.trouble = Some("the Secret with the agent token was not read yet".to_owned());
        }
        let queue = valid.queue.clone();
        // Under another identity than the pool knows, its queue is still the one it knew.
        let identity = expected.or(look.identity);
        let key = match &identity {
            Some(identity) => QueueKey::Known(queue, identity.clone()),
            None => QueueKey::Unknown(queue, token),
        };
        Seen { reading: look.reading, key, identity, trouble: token_problem.clone().or(look.trouble), token_problem }
    }
}

impl Readings {
    /// What is wrong with the place of a token file.
    fn misplaced(&self, token: &TokenKey) -> Option<String> {
        let folder = &self.token_folder;
        match token {
            TokenKey::File(path) if !lies_in(path, folder) => Some(format!(
                "spec.token.file: {path} lies outside of {folder}, where the controller reads tokens; mount it below {folder}, or \
                 start the controller with another --token-folder"
            )),
            TokenKey::File(_) | TokenKey::Secret { .. } => None,
        }
    }
}

/// By the names alone: a path with `..` in it lies nowhere.
fn lies_in(path: &str, folder: &str) -> bool {
    let path = std::path::Path::new(path);
    let climbs = path.components().any(|part| matches!(part, std::path::Component::ParentDir));
    !climbs && path.starts_with(folder)
}

fn token_key(view: &PoolView, token: &TokenSource) -> TokenKey {
    match token {
        TokenSource::Secret { name, key } => {
            TokenKey::Secret { namespace: view.name.namespace.clone(), name: name.clone(), key: key.clone() }
        }
        TokenSource::File(path) => TokenKey::File(path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_lies_in_its_folder_or_is_not_read() {
        assert!(lies_in("/mnt/tokens/linux", "/mnt"));
        for elsewhere in
            ["/etc/passwd", "/mnt/../etc/passwd", "/mnt2/token", "/var/run/secrets/kubernetes.io/serviceaccount/token"]
        {
            assert!(!lies_in(elsewhere, "/mnt"), "{elsewhere}");
        }
    }
}
