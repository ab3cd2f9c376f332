//! Puts signs up on pods: beside the writes of pools, so that none of those waits for a label.
//!
//! Each pod is written at most once at a time. Until the watch shows what was written, nobody knows what stands there: the watch
//! may be behind, and a call that was given up may land yet. Nothing is taken from a Deployment meanwhile. What failed is tried
//! again a little later, since the next tick asks for it as long as it is not surely there. A sign takes a turn in the budget
//! that nobody else wants, so those that come first in a tick's list are those that are put up when turns are short.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kitepool_policy::{decision::SignChange, observation::Sign};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::{
    clock::Clock,
    cluster::{cell::NamespaceCells, client::chain, error::Error, write::Writer},
};

/// Calls at the same time: at some ten milliseconds each more than any budget.
const AT_ONCE: usize = 16;

/// A watch that died in silence is noticed after 75 s and lists again; what is not shown after this long never will be.
const SHOWN_WITHIN: Duration = Duration::from_mins(2);

/// The `ReplicaSet` controller goes by what a watch of its own has shown it. A sign that ours has shown is taken for seen there
/// after this long; both are milliseconds apart where the API server keeps up.
const SEEN_BY_OTHERS: Duration = Duration::from_secs(2);

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
    pub result: Result<u64, Error>,
}

/// A pod that was written.
#[derive(Debug)]
struct Signed {
    namespace: String,
    pod: String,
    sign: Sign,
    state: State,
}

/// ```text
///  Flying ──landed──► Landed ──shown by the watch──► Shown ──a moment later──► forgotten
///     └─no end heard─► Unheard ──written again──► Flying
///     └─refused─────► Refused ──a moment later──► forgotten
/// ```
#[derive(Debug, Clone, Copy)]
enum State {
    /// The call is under way. It has a deadline.
    Flying { at: Instant },
    /// It has left this version.
    Landed { version: u64, at: Instant },
    /// The watch has shown it.
    Shown { at: Instant },
    /// It may have landed, or do so yet.
    Unheard { at: Instant },
    /// It has not landed.
    Refused { at: Instant },
}

/// The calls of one term.
#[derive(Debug)]
pub struct Signs {
    writer: Arc<Writer>,
    clock: Clock,
    wake: Arc<Notify>,
    running: JoinSet<Ended>,
    /// By the pods' uids: as many as are written within the two minutes that one may be remembered.
    signed: BTreeMap<String, Signed>,
}

impl Signs {
    /// Nothing in flight.
    pub fn new(writer: Arc<Writer>, clock: Clock, wake: Arc<Notify>) -> Self {
        Self { writer, clock, wake, running: JoinSet::new(), signed: BTreeMap::new() }
    }

    /// What has ended since the last tick.
    pub fn ended(&mut self) -> Vec<Ended> {
        let at = self.clock.mono();
        let mut all = Vec::new();
        while let Some(ended) = self.running.try_join_next() {
            match ended {
                Ok(ended) => all.push(ended),
                Err(error) => tracing::error!(error = %error, "a sign's write ended abnormally"),
            }
        }
        all.sort_by(|a, b| a.uid.cmp(&b.uid));
        for ended in &all {
            if let Some(signed) = self.signed.get_mut(&ended.uid) {
                signed.state = match &ended.result {
                    Ok(version) => State::Landed { version: *version, at },
                    Err(error) if error.may_have_landed() => State::Unheard { at },
                    Err(_) => State::Refused { at },
                };
            }
            if let Err(error) = &ended.result
                && !matches!(error, Error::NotFound | Error::BudgetSpent)
            {
                tracing::warn!(pod = ended.uid, error = chain(error), "a sign could not be put up; trying again");
            }
        }
        all
    }

    /// Looks which of them the watch shows by now, and forgets those that are of no interest any more.
    pub fn settle(&mut self, namespaces: &BTreeMap<String, NamespaceCells>) {
        let now = self.clock.mono();
        let since = |at: Instant| now.saturating_duration_since(at);
        self.signed.retain(|uid, signed| {
            let cells = namespaces.get(&signed.namespace);
            let seen = cells.and_then(|cells| cells.pods.get(&signed.pod)).filter(|pod| pod.uid == *uid);
            if let State::Landed { version, .. } = signed.state
                && seen.as_ref().is_some_and(|pod| pod.resource_version >= version)
            {
                signed.state = State::Shown { at: now };
            }
            match signed.state {
                State::Flying { at } => since(at) < SHOWN_WITHIN,
                State::Landed { at, .. } | State::Unheard { at } => seen.is_some() && since(at) < SHOWN_WITHIN,
                State::Shown { at } => since(at) < SEEN_BY_OTHERS,
                State::Refused { at } => since(at) < AGAIN,
            }
        });
    }

    /// The pods on which nobody knows for sure what is written.
    pub fn moving(&self) -> BTreeSet<String> {
        let is_moving = |signed: &Signed| !matches!(signed.state, State::Refused { .. });
        self.signed.iter().filter(|(_, signed)| is_moving(signed)).map(|(uid, _)| uid.clone()).collect()
    }

    /// Puts up what is wanted and not on its way, in this order.
    pub fn put_up(&mut self, mut wanted: Vec<Wanted>) {
        let now = self.clock.mono();
        wanted.sort_by_key(|wanted| wanted.change.sign);
        for Wanted { pool, namespace, change } in wanted {
            if self.running.len() >= AT_ONCE {
                return;
            }
            let SignChange { pod, uid, sign, .. } = change;
            let rests = self.signed.get(&uid).is_some_and(|signed| match signed.state {
                State::Flying { .. } => true,
                State::Landed { .. } | State::Shown { .. } => signed.sign == sign,
                State::Unheard { at } | State::Refused { at } => now.saturating_duration_since(at) < AGAIN,
            });
            if rests {
                continue;
            }
            let signed =
                Signed { namespace: namespace.clone(), pod: pod.clone(), sign, state: State::Flying { at: now } };
            self.signed.insert(uid.clone(), signed);
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
                200 => r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","resourceVersion":"7"}}"#.to_owned(),
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

    /// A namespace whose watch shows the pod in this version.
    fn shown(version: u64) -> BTreeMap<String, NamespaceCells> {
        let cells = NamespaceCells::default();
        let metadata = serde_json::json!({ "name": "a", "uid": "uid-a", "resourceVersion": version.to_string() });
        let pod: k8s_openapi::api::core::v1::Pod =
            serde_json::from_value(serde_json::json!({ "metadata": metadata })).unwrap();
        cells.pods.put("a".to_owned(), pod.into());
        BTreeMap::from([("ci".to_owned(), cells)])
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_is_on_its_way_until_the_watch_has_shown_it_and_a_moment_longer() {
        let (client, _) = server(200);
        let mut signs = signs(client, 50);
        signs.put_up(vec![wanted("a", Sign::Leaving)]);
        signs.settle(&shown(6));
        assert_eq!(signs.moving().len(), 1, "the call is under way");
        assert_eq!(after(&mut signs, Duration::from_millis(10)).await, [true]);
        signs.settle(&shown(6));
        tokio::time::sleep(Duration::from_secs(30)).await;
        signs.settle(&shown(6));
        assert_eq!(signs.moving().len(), 1, "the watch is behind");
        signs.settle(&shown(8));
        assert_eq!(signs.moving().len(), 1, "others may be behind ours");
        tokio::time::sleep(SEEN_BY_OTHERS).await;
        signs.settle(&shown(8));
        assert!(signs.moving().is_empty());

        signs.put_up(vec![wanted("a", Sign::Plain)]);
        after(&mut signs, Duration::from_millis(10)).await;
        signs.settle(&BTreeMap::from([("ci".to_owned(), NamespaceCells::default())]));
        assert!(signs.moving().is_empty(), "a pod that is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_which_nothing_was_heard_may_have_landed_and_is_put_up_again_and_a_refused_one_has_not() {
        for (status, is_moving) in [(500, true), (403, false)] {
            let (client, log) = server(status);
            let mut signs = signs(client, 50);
            signs.put_up(vec![wanted("a", Sign::Leaving)]);
            assert_eq!(after(&mut signs, Duration::from_millis(10)).await, [false]);
            signs.settle(&shown(8));
            assert_eq!(!signs.moving().is_empty(), is_moving, "{status}");
            after(&mut signs, AGAIN).await;
            signs.put_up(vec![wanted("a", Sign::Leaving)]);
            after(&mut signs, Duration::from_millis(10)).await;
            assert_eq!(written(&log).len(), 2, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn busy_ones_come_first_when_turns_are_short() {
        let (client, log) = server(200);
        let mut signs = signs(client, 16);
        let mut all: Vec<Wanted> = (0..6).map(|number| wanted(&format!("idle-{number}"), Sign::Plain)).collect();
        all.extend((0..2).map(|number| wanted(&format!("busy-{number}"), Sign::Busy)));
        signs.put_up(all);
        after(&mut signs, Duration::from_millis(1)).await;
        assert_eq!(written(&log), ["busy-0", "busy-1"], "a quarter of the reports' part of the budget at once");
    }
}
