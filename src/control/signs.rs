//! Puts signs up on pods: beside the writes of pools, so that none of those waits for a label.
//!
//! Each pod is written at most once at a time. What was written counts until the watch shows it; what failed is tried again a
//! little later, since the next tick asks for it as long as it is missing. A sign takes a turn in the budget that nobody else
//! wants, so those that come first in a tick's list are those that are put up when turns are short.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kitepool_policy::{decision::SignChange, observation::Sign};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::{
    clock::Clock,
    cluster::{client::chain, error::Error, write::Writer},
};

/// Calls at the same time: at some ten milliseconds each more than any budget.
const AT_ONCE: usize = 16;

/// A watch shows a write within milliseconds; one that has not after this long may never.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// A sign that a pool's decision asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The pool's uid.
    pub pool: String,
    /// Its namespace.
    pub namespace: String,
    /// What.
    pub change: SignChange,
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    /// The pool's uid.
    pub pool: String,
    /// The pod's.
    uid: String,
    /// What came of it.
    pub result: Result<(), Error>,
}

/// A pod that is not to be written for now: its call is in flight, or was a moment ago.
#[derive(Debug, Clone, Copy)]
struct Rest {
    sign: Sign,
    until: Option<Instant>,
    has_failed: bool,
}

/// The calls of one term.
#[derive(Debug)]
pub struct Signs {
    writer: Arc<Writer>,
    clock: Clock,
    wake: Arc<Notify>,
    running: JoinSet<Ended>,
    rests: BTreeMap<String, Rest>,
}

impl Signs {
    /// Nothing in flight.
    pub fn new(writer: Arc<Writer>, clock: Clock, wake: Arc<Notify>) -> Self {
        Self { writer, clock, wake, running: JoinSet::new(), rests: BTreeMap::new() }
    }

    /// What has ended since the last tick.
    pub fn ended(&mut self) -> Vec<Ended> {
        let now = self.clock.mono();
        let mut all = Vec::new();
        while let Some(ended) = self.running.try_join_next() {
            match ended {
                Ok(ended) => all.push(ended),
                Err(error) => tracing::error!(error = %error, "a sign's write ended abnormally"),
            }
        }
        all.sort_by(|a, b| a.uid.cmp(&b.uid));
        for ended in &all {
            let Some(rest) = self.rests.get_mut(&ended.uid) else { continue };
            rest.has_failed = ended.result.is_err();
            rest.until = Some(now + if rest.has_failed { AGAIN } else { SHOWN_WITHIN });
            if let Err(error) = &ended.result
                && !matches!(error, Error::NotFound | Error::BudgetSpent)
            {
                tracing::warn!(pod = ended.uid, error = chain(error), "a sign could not be put up; trying again");
            }
        }
        self.rests.retain(|_, rest| rest.until.is_none_or(|until| until > now));
        all
    }

    /// Puts up what is wanted and not on its way, in this order.
    pub fn put_up(&mut self, mut wanted: Vec<Wanted>) {
        wanted.sort_by_key(|wanted| wanted.change.sign);
        for Wanted { pool, namespace, change } in wanted {
            if self.running.len() >= AT_ONCE {
                return;
            }
            let SignChange { pod, uid, sign, .. } = change;
            let rests =
                self.rests.get(&uid).is_some_and(|rest| rest.until.is_none() || rest.has_failed || rest.sign == sign);
            if rests {
                continue;
            }
            self.rests.insert(uid.clone(), Rest { sign, until: None, has_failed: false });
            let (writer, wake) = (Arc::clone(&self.writer), Arc::clone(&self.wake));
            self.running.spawn(async move {
                let result = writer.sign_pod(&namespace, &pod, sign).await;
                wake.notify_one();
                Ended { pool, uid, result }
            });
        }
    }

    /// Waits until nothing is in flight; each call has its own deadline.
    pub async fn drain(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}
