//! The agent tokens of all pools: Secrets are read now and then, files are left to the poller, which reads them itself.
//!
//! Single gets rather than a watch, so that the controller needs no right to list Secrets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use secrecy::SecretString;
use tokio::sync::Notify;

use super::poll::TokenKey;
use crate::cluster::read::{Reader, SecretProblem};

/// How soon a rotated or mended Secret is noticed.
pub const REFRESH: Duration = Duration::from_secs(15);

/// Secrets read at a time: one that hangs for its deadline must not delay the others.
const READS_AT_ONCE: usize = 8;

/// The tokens as last read. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct SecretTokens {
    known: Arc<Mutex<Known>>,
    wanted_changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Known {
    wanted: BTreeSet<TokenKey>,
    read: BTreeMap<TokenKey, Token>,
}

/// One token, or why there is none.
#[derive(Debug, Clone)]
pub struct Token {
    /// The last good value.
    pub value: Option<SecretString>,
    /// What is wrong now. Together with a value: the API server is away, and the value may still be right.
    pub problem: Option<SecretProblem>,
}

impl SecretTokens {
    /// Says which are wanted; new ones are read at once.
    pub fn want(&self, wanted: BTreeSet<TokenKey>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.wanted != wanted {
            known.read.retain(|key, _| wanted.contains(key));
            known.wanted = wanted;
            self.wanted_changed.notify_one();
        }
    }

    /// One token; `None` while it was not read yet.
    pub fn get(&self, key: &TokenKey) -> Option<Token> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).read.get(key).cloned()
    }

    /// All good values.
    pub fn values(&self) -> BTreeMap<TokenKey, SecretString> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.read.iter().filter_map(|(key, token)| Some((key.clone(), token.value.clone()?))).collect()
    }

    fn wanted(&self) -> BTreeSet<TokenKey> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).wanted.clone()
    }

    fn store(&self, key: TokenKey, answer: Result<SecretString, SecretProblem>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.wanted.contains(&key) {
            return;
        }
        let token = match answer {
            Ok(value) => Token { value: Some(value), problem: None },
            Err(problem) => {
                let is_transient = matches!(problem, SecretProblem::Unreadable { is_transient: true, .. });
                let before = known.read.get(&key).and_then(|token| token.value.clone());
                Token { value: before.filter(|_| is_transient), problem: Some(problem) }
            }
        };
        known.read.insert(key, token);
    }

    /// Reads for ever: all of them every [`REFRESH`], and at once when the wanted ones change.
    pub async fn follow(self, reader: Reader, wake: Arc<Notify>) {
        loop {
            stream::iter(self.wanted())
                .for_each_concurrent(READS_AT_ONCE, async |key| {
                    let TokenKey::Secret { namespace, name, key: field } = &key else { return };
                    let answer = reader.secret_token(namespace, name, field).await;
                    self.store(key, answer);
                    wake.notify_one();
                })
                .await;
            tokio::select! {
                biased;
                () = self.wanted_changed.notified() => {}
                () = tokio::time::sleep(REFRESH) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn key() -> TokenKey {
        TokenKey::Secret { namespace: "ci".to_owned(), name: "agent-token".to_owned(), key: "token".to_owned() }
    }

    fn unreadable(is_transient: bool) -> SecretProblem {
        SecretProblem::Unreadable {
            namespace: "ci".to_owned(),
            name: "agent-token".to_owned(),
            why: "away".to_owned(),
            is_transient,
        }
    }

    #[test]
    fn a_value_outlives_an_api_server_that_is_away_but_not_a_refusal() {
        let tokens = SecretTokens::default();
        tokens.want(BTreeSet::from([key()]));
        tokens.store(key(), Ok(SecretString::from("t")));
        tokens.store(key(), Err(unreadable(true)));
        let token = tokens.get(&key()).unwrap();
        assert_eq!(token.value.unwrap().expose_secret(), "t");
        assert!(token.problem.is_some());
        tokens.store(key(), Err(unreadable(false)));
        assert!(tokens.get(&key()).unwrap().value.is_none());
    }

    #[test]
    fn a_token_that_nobody_wants_is_forgotten() {
        let tokens = SecretTokens::default();
        tokens.want(BTreeSet::from([key()]));
        tokens.store(key(), Ok(SecretString::from("t")));
        tokens.want(BTreeSet::new());
        assert!(tokens.get(&key()).is_none());
        tokens.store(key(), Ok(SecretString::from("late")));
        assert!(tokens.values().is_empty());
    }
}
