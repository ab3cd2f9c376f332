//! Which source of a token stands for which task, so that equal tokens share one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kitepool_policy::observation::Trouble;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use tokio_util::task::AbortOnDropHandle;

use super::{
    TokenKey,
    task::{Fault, Seen},
};

/// Tells tokens apart without keeping them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digest(pub(super) [u8; 32]);

impl Digest {
    fn of(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret().as_bytes()).into())
    }
}

/// What one token's task last saw; the task writes, everybody reads.
pub(super) type SharedSeen = Arc<Mutex<Seen>>;

/// A token as its source has it now, or why it has none.
pub(super) enum Handover {
    Token(SecretString),
    Nothing(Fault),
}

impl Handover {
    /// A token without the line break that editors and `kubectl create secret --from-file` leave behind it.
    pub(super) fn of(key: &TokenKey, token: &SecretString) -> Self {
        let trimmed = token.expose_secret().trim();
        if trimmed.is_empty() {
            return Self::nothing(format!("there is no agent token: {key} is empty; write the token there"));
        }
        Self::Token(SecretString::from(trimmed.to_owned()))
    }

    pub(super) fn nothing(sentence: String) -> Self {
        Self::Nothing(Fault { trouble: Trouble::NoToken, sentence })
    }
}

/// One place where a token comes from.
#[derive(Default)]
pub(super) struct Source {
    digest: Option<Digest>,
    seen: Option<SharedSeen>,
    fault: Option<Fault>,
    _watch: Option<AbortOnDropHandle<()>>,
}

impl Source {
    /// What the source's token, or the last one it had, brought.
    pub(super) fn seen(&self) -> Option<MutexGuard<'_, Seen>> {
        self.seen.as_ref().map(|seen| seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is wrong with the source itself.
    pub(super) const fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }
}

struct Poller {
    seen: SharedSeen,
    _task: AbortOnDropHandle<()>,
}

/// All sources and all tasks. A task ends when the last source with its token is gone.
#[derive(Default)]
pub(super) struct Registry {
    sources: BTreeMap<TokenKey, Source>,
    pollers: BTreeMap<Digest, Poller>,
}

impl Registry {
    /// Forgets every source that is not wanted.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<TokenKey>) {
        self.sources.retain(|key, _| wanted.contains(key));
        self.end_idle();
    }

    /// Ends everything.
    pub(super) fn end(&mut self) {
        self.sources.clear();
        self.pollers.clear();
    }

    /// The source at a key.
    pub(super) fn source(&self, key: &TokenKey) -> Option<&Source> {
        self.sources.get(key)
    }

    /// Watches a token file, unless it is watched.
    pub(super) fn watch(&mut self, path: &str, spawn: impl FnOnce() -> AbortOnDropHandle<()>) {
        self.sources
            .entry(TokenKey::File(path.to_owned()))
            .or_insert_with(|| Source { _watch: Some(spawn()), ..Source::default() });
    }

    /// Takes what a source has now. A Secret's source begins with it; a file that is no longer wanted is not taken up again.
    /// Answers whether something changed.
    pub(super) fn hand_over(
        &mut self,
        key: &TokenKey,
        handover: Handover,
        spawn: impl FnOnce(SecretString, Digest, SharedSeen) -> AbortOnDropHandle<()>,
    ) -> bool {
        if !self.sources.contains_key(key) && matches!(key, TokenKey::File(_)) {
            return false;
        }
        let source = self.sources.entry(key.clone()).or_default();
        let changed = match handover {
            Handover::Nothing(fault) => {
                let changed = source.fault.as_ref() != Some(&fault);
                // What the token brought stays to be looked at; the token itself is used no more.
                source.digest = None;
                source.fault = Some(fault);
                changed
            }
            Handover::Token(token) => {
                let digest = Digest::of(&token);
                let changed = source.digest != Some(digest);
                let poller = self.pollers.entry(digest).or_insert_with(|| {
                    let seen = SharedSeen::default();
                    Poller { _task: spawn(token, digest, Arc::clone(&seen)), seen }
                });
                source.seen = Some(Arc::clone(&poller.seen));
                source.digest = Some(digest);
                source.fault = None;
                changed
            }
        };
        self.end_idle();
        changed
    }

    fn end_idle(&mut self) {
        let used: BTreeSet<Digest> = self.sources.values().filter_map(|source| source.digest).collect();
        self.pollers.retain(|digest, _| used.contains(digest));
    }
}
