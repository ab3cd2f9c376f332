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

#[cfg(test)]
mod tests {
    use std::{
        num::NonZeroU32,
        sync::{Mutex, PoisonError},
    };

    use http::{Request, Response};
    use jiff::Timestamp;
    use kube::{Client, client::Body};
    use tower::service_fn;

    use super::*;

    type Log = Arc<Mutex<Vec<String>>>;

    /// An API server that answers all writes with this status, and whom they were about.
    fn server(status: u16) -> (Client, Log) {
        let log = Log::default();
        let seen = Arc::clone(&log);
        let service = service_fn(move |request: Request<Body>| {
            let pod = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(pod);
            let body = match status {
                200 => r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#.to_owned(),
                code => format!(r#"{{"kind":"Status","code":{code},"message":"no","reason":"x","status":"Failure"}}"#),
            };
            let answer = Response::builder().status(status).body(Body::from(body.into_bytes())).unwrap();
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        (Client::new(service, "ci"), log)
    }

    fn signs(client: Client, budget: u32) -> Signs {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let writer = Writer::new(client, NonZeroU32::new(budget).unwrap(), clock.clone());
        Signs::new(Arc::new(writer), clock, Arc::default())
    }

    fn wanted(pod: &str, sign: Sign) -> Wanted {
        let (pod, uid) = (pod.to_owned(), format!("uid-{pod}"));
        let change = SignChange { generation: "linux-a".to_owned(), pod, uid, sign };
        Wanted { pool: "pool".to_owned(), namespace: "ci".to_owned(), change }
    }

    async fn after(signs: &mut Signs, time: Duration) -> Vec<bool> {
        tokio::time::sleep(time).await;
        signs.ended().into_iter().map(|ended| ended.result.is_ok()).collect()
    }

    fn written(log: &Log) -> Vec<String> {
        std::mem::take(&mut log.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_is_written_once_until_the_watch_should_have_shown_it_and_another_at_once() {
        let (client, log) = server(200);
        let mut signs = signs(client, 50);
        signs.put_up(vec![wanted("a", Sign::Busy)]);
        signs.put_up(vec![wanted("a", Sign::Busy)]);
        assert_eq!(after(&mut signs, Duration::from_secs(1)).await, [true]);
        signs.put_up(vec![wanted("a", Sign::Busy)]);
        assert!(after(&mut signs, Duration::from_secs(1)).await.is_empty());
        signs.put_up(vec![wanted("a", Sign::Plain)]);
        assert_eq!(after(&mut signs, Duration::from_secs(6)).await, [true]);
        signs.ended();
        signs.put_up(vec![wanted("a", Sign::Plain)]);
        after(&mut signs, Duration::from_secs(6)).await;
        assert_eq!(written(&log), ["a", "a"], "the last was written a moment ago by what the set knows");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_told_and_tried_again_a_little_later() {
        let (client, log) = server(403);
        let mut signs = signs(client, 50);
        for expected in [1, 1, 1, 2] {
            signs.put_up(vec![wanted("a", Sign::Busy)]);
            after(&mut signs, Duration::from_millis(1_500)).await;
            assert_eq!(log.lock().unwrap().len(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn busy_ones_come_first_when_turns_are_short() {
        let (client, log) = server(200);
        let mut signs = signs(client, 8);
        let mut all: Vec<Wanted> = (0..6).map(|number| wanted(&format!("idle-{number}"), Sign::Plain)).collect();
        all.extend((0..2).map(|number| wanted(&format!("busy-{number}"), Sign::Busy)));
        signs.put_up(all);
        after(&mut signs, Duration::from_millis(1)).await;
        assert_eq!(written(&log), ["busy-0", "busy-1"], "a quarter of the budget at once");
    }
}
