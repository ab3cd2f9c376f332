//! Polling with several tokens over real connections and in real time: who is asked how often, and what is known afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the line that is wrong"
)]
#![allow(clippy::print_stdout, reason = "the measured cadence is worth seeing")]

mod cadence;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use kitepool::{
    buildkite::Client,
    buildkite::{Identity, OUTCOMES},
    clock::Clock,
    sense::poll::{Look, PollSet, TokenKey},
};
use kitepool_policy::{
    observation::{Load, Trouble},
    units::Jobs,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::Notify;
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{header, path},
};

const INTERVAL: Duration = Duration::from_millis(200);
const DEADLINE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);

struct Polling {
    server: MockServer,
    set: PollSet,
    wake: Arc<Notify>,
    outcomes: Arc<Mutex<Vec<&'static str>>>,
}

impl Polling {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = MockServer::start().await;
        let client = Client::over_the_network(&format!("{}/v3", server.uri()), DEADLINE, Clock::machine()).unwrap();
        let budget = NonZeroU32::new(100_000).unwrap();
        let (wake, outcomes) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Vec::new())));
        let told = Arc::clone(&outcomes);
        let observe = Arc::new(move |outcome, _| told.lock().unwrap().push(outcome));
        let set = PollSet::new(client, INTERVAL, budget, Clock::machine(), Arc::clone(&wake), observe);
        Self { server, set, wake, outcomes }
    }

    async fn token(&self, token: &str, organization: &str, cluster: &str) {
        let body = json!({ "organization_slug": organization, "cluster_uuid": cluster, "cluster_name": cluster });
        self.answer("/v3/token", token, ResponseTemplate::new(200).set_body_json(body)).await;
    }

    async fn metrics(&self, token: &str, organization: &str, cluster: &str, scheduled: u32) {
        let body = ResponseTemplate::new(200).set_body_json(metrics(organization, cluster, scheduled));
        self.answer("/v3/metrics", token, body).await;
    }

    async fn answer(&self, route: &str, token: &str, response: ResponseTemplate) {
        Mock::given(path(route))
            .and(header("authorization", format!("Token {token}")))
            .respond_with(response)
            .mount(&self.server)
            .await;
    }

    fn secrets(&mut self, secrets: &[(&str, &str)]) {
        let secrets = secrets.iter().map(|(name, token)| (secret(name), SecretString::from((*token).to_owned())));
        self.set.set(secrets.collect(), BTreeSet::new());
    }

    /// Waits, woken by the poller alone, until a look at the queue `q` is as wanted.
    async fn until(&self, key: &TokenKey, expected: Option<&Identity>, wanted: impl Fn(&Look) -> bool) -> Look {
        let waiting = async {
            loop {
                let look = self.set.look(key, "q", expected);
                if wanted(&look) {
                    return look;
                }
                self.wake.notified().await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, waiting).await;
        seen.unwrap_or_else(|_| panic!("not seen in time; now {:?}", self.set.look(key, "q", expected)))
    }

    async fn asked(&self, route: &str) -> usize {
        self.requests().await.iter().filter(|request| request.url.path() == route).count()
    }

    async fn requests(&self) -> Vec<Request> {
        self.server.received_requests().await.unwrap()
    }
}

fn metrics(organization: &str, cluster: &str, scheduled: u32) -> Value {
    json!({
        "jobs": { "queues": { "q": { "scheduled": scheduled } } },
        "cluster": { "name": cluster },
        "organization": { "slug": organization },
    })
}

fn secret(name: &str) -> TokenKey {
    TokenKey::Secret { namespace: "ci".into(), name: name.into(), key: "token".into() }
}

fn acme(cluster: &str) -> Identity {
    Identity { organization: "acme".into(), cluster: Some(cluster.into()) }
}

fn scheduled(look: &Look) -> Option<u32> {
    look.reading.last_good.map(|good| good.load.scheduled.0)
}

#[tokio::test]
async fn two_keys_with_one_token_are_one_call_per_interval() {
    let mut polling = Polling::start().await;
    polling.token("one", "acme", "linux").await;
    polling.metrics("one", "acme", "linux", 3).await;
    polling.secrets(&[("a", "one"), ("b", " one\n")]);
    let first = polling.until(&secret("a"), None, |look| look.reading.trouble.is_none()).await;
    let second = polling.set.look(&secret("b"), "q", Some(&acme("linux")));
    assert_eq!(first, second);
    assert_eq!((scheduled(&first), first.identity), (Some(3), Some(acme("linux"))));
    tokio::time::sleep(INTERVAL * 5).await;
    // At once and after each interval; two tasks would have made twelve.
    let asked = polling.asked("/v3/metrics").await;
    assert!((3..=7).contains(&asked), "{asked}");
    assert_eq!(polling.asked("/v3/token").await, 1);
    assert!(polling.outcomes.lock().unwrap().iter().all(|outcome| *outcome == "ok"));
}

#[tokio::test]
async fn an_absent_queue_is_zero_only_after_a_good_answer() {
    let mut polling = Polling::start().await;
    polling.secrets(&[("a", "one")]);
    let look = polling.set.look(&secret("a"), "elsewhere", None);
    assert_eq!((look.reading.last_good, look.reading.trouble), (None, Some(Trouble::NotRead)));
    polling.token("one", "acme", "linux").await;
    polling.metrics("one", "acme", "linux", 3).await;
    polling.until(&secret("a"), None, |look| look.reading.trouble.is_none()).await;
    let look = polling.set.look(&secret("a"), "elsewhere", None);
    assert_eq!(look.reading.last_good.map(|good| good.load), Some(Load::default()));
    let look = polling.set.look(&secret("never set"), "q", None);
    assert_eq!((look.reading.last_good, look.reading.trouble), (None, Some(Trouble::NoToken)));
}

#[tokio::test]
async fn a_failure_keeps_the_last_good_answer_and_says_what_is_wrong() {
    let mut polling = Polling::start().await;
    polling.token("one", "acme", "linux").await;
    polling.metrics("one", "acme", "linux", 3).await;
    polling.secrets(&[("a", "one")]);
    polling.until(&secret("a"), None, |look| look.reading.trouble.is_none()).await;
    polling.server.reset().await;
    polling.answer("/v3/metrics", "one", ResponseTemplate::new(401)).await;
    polling.answer("/v3/token", "one", ResponseTemplate::new(401)).await;
    let look = polling.until(&secret("a"), None, |look| look.reading.trouble.is_some()).await;
    assert_eq!((look.reading.trouble, scheduled(&look)), (Some(Trouble::Refused), Some(3)));
    assert!(look.trouble.unwrap().contains("refused the agent token (401)"));
    assert!(polling.outcomes.lock().unwrap().iter().all(|outcome| OUTCOMES.contains(outcome)));

    // Let in again under another identity: asked whose it is, and nothing of the old one is left.
    polling.server.reset().await;
    polling.token("one", "acme", "mac").await;
    // Its metrics name no cluster, so that only asking can tell.
    let body = json!({ "jobs": { "queues": { "q": { "scheduled": 8 } } }, "organization": { "slug": "acme" } });
    polling.answer("/v3/metrics", "one", ResponseTemplate::new(200).set_body_json(body)).await;
    let look = polling.until(&secret("a"), None, |look| look.reading.trouble.is_none()).await;
    assert_eq!((scheduled(&look), look.identity), (Some(8), Some(acme("mac"))));
}

#[tokio::test]
async fn a_changed_file_is_polled_with_and_a_missing_one_told() {
    let mut polling = Polling::start().await;
    for (token, cluster, jobs) in [("one", "linux", 3), ("two", "linux", 4)] {
        polling.token(token, "acme", cluster).await;
        polling.metrics(token, "acme", cluster, jobs).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token").to_str().unwrap().to_owned();
    let key = TokenKey::File(file.clone());
    polling.set.set(BTreeMap::new(), BTreeSet::from([file.clone()]));
    let look = polling.until(&key, None, |look| look.reading.trouble == Some(Trouble::NoToken)).await;
    assert!(look.trouble.as_ref().unwrap().contains(&file), "{look:?}");
    assert_eq!(look.reading.last_good, None);

    std::fs::write(&file, "one\n").unwrap();
    polling.until(&key, Some(&acme("linux")), |look| scheduled(look) == Some(3)).await;
    std::fs::write(&file, "two").unwrap();
    polling.until(&key, Some(&acme("linux")), |look| scheduled(look) == Some(4)).await;
    std::fs::write(&file, "").unwrap();
    let look = polling.until(&key, None, |look| look.reading.trouble == Some(Trouble::NoToken)).await;
    assert_eq!(scheduled(&look), Some(4), "the last good answer stays");
    let before = polling.requests().await.len();
    tokio::time::sleep(INTERVAL * 3).await;
    assert_eq!(polling.requests().await.len(), before, "no token, no calls");
}

#[tokio::test]
async fn another_identity_is_told_by_both_names_and_gives_no_numbers() {
    let mut polling = Polling::start().await;
    polling.token("one", "acme", "linux").await;
    polling.metrics("one", "acme", "linux", 3).await;
    polling.token("two", "other", "mac").await;
    polling.metrics("two", "other", "mac", 9).await;
    polling.secrets(&[("a", "one")]);
    polling.until(&secret("a"), Some(&acme("linux")), |look| scheduled(look) == Some(3)).await;
    polling.secrets(&[("a", "two")]);
    let changed = |look: &Look| look.reading.trouble == Some(Trouble::OtherIdentity);
    let look = polling.until(&secret("a"), Some(&acme("linux")), changed).await;
    assert_eq!(look.reading.last_good, None);
    let sentence = look.trouble.unwrap();
    assert!(sentence.contains("acme/linux") && sentence.contains("other/mac"), "{sentence}");
    assert_eq!(look.identity.unwrap().to_string(), "other/mac");
}

#[tokio::test]
async fn metrics_that_contradict_the_token_are_not_believed_until_the_token_is_asked_again() {
    let mut polling = Polling::start().await;
    polling.token("one", "acme", "linux").await;
    polling.metrics("one", "acme", "renamed", 3).await;
    polling.secrets(&[("a", "one")]);
    let look = polling.until(&secret("a"), None, |look| look.reading.trouble == Some(Trouble::OtherIdentity)).await;
    assert_eq!(look.reading.last_good, None);
    assert!(look.trouble.unwrap().contains("acme/renamed"));
    polling.server.reset().await;
    let body = json!({ "organization_slug": "acme", "cluster_uuid": "linux", "cluster_name": "renamed" });
    polling.answer("/v3/token", "one", ResponseTemplate::new(200).set_body_json(body)).await;
    polling.metrics("one", "acme", "renamed", 3).await;
    polling.until(&secret("a"), Some(&acme("linux")), |look| scheduled(look) == Some(3)).await;
}

#[tokio::test]
async fn an_api_that_does_not_know_tokens_is_identified_by_its_metrics() {
    let mut polling = Polling::start().await;
    polling.metrics("one", "acme", "linux", 3).await;
    polling.answer("/v3/token", "one", ResponseTemplate::new(404)).await;
    polling.secrets(&[("a", "one")]);
    let look = polling.until(&secret("a"), None, |look| look.reading.trouble.is_none()).await;
    assert_eq!(look.identity, Some(acme("linux")));
    assert_eq!(look.reading.last_good.unwrap().load.scheduled, Jobs(3));
}

#[tokio::test]
async fn an_interval_that_is_not_understood_is_ignored_and_counted() {
    let mut polling = Polling::start().await;
    polling.token("one", "acme", "linux").await;
    let body = ResponseTemplate::new(200).set_body_json(metrics("acme", "linux", 3));
    polling.answer("/v3/metrics", "one", body.insert_header("Buildkite-Agent-Metrics-Poll-Duration", "soon")).await;
    polling.secrets(&[("a", "one")]);
    let look = polling.until(&secret("a"), None, |look| look.reading.trouble.is_none()).await;
    assert_eq!(scheduled(&look), Some(3));
    tokio::time::sleep(INTERVAL * 4).await;
    let (counted, asked) = (polling.set.garbled_intervals(), polling.asked("/v3/metrics").await);
    assert!(counted >= 3, "{counted} counted of {asked}: our own interval goes on");
}

#[tokio::test]
async fn buildkite_slows_the_polling_down_and_a_pause_is_kept() {
    let mut polling = Polling::start().await;
    for token in ["slow", "limited"] {
        polling.token(token, "acme", "linux").await;
    }
    let body = ResponseTemplate::new(200).set_body_json(metrics("acme", "linux", 3));
    polling.answer("/v3/metrics", "slow", body.insert_header("Buildkite-Agent-Metrics-Poll-Duration", "60")).await;
    polling.answer("/v3/metrics", "limited", ResponseTemplate::new(429).insert_header("Retry-After", "60")).await;
    polling.secrets(&[("a", "slow"), ("b", "limited")]);
    polling.until(&secret("a"), None, |look| look.reading.trouble.is_none()).await;
    polling.until(&secret("b"), None, |look| look.reading.trouble == Some(Trouble::RateLimited)).await;
    tokio::time::sleep(INTERVAL * 6).await;
    assert_eq!(polling.asked("/v3/metrics").await, 2);
}

#[tokio::test]
async fn a_set_that_is_dropped_asks_no_more() {
    let Polling { server, mut set, .. } = Polling::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "two").unwrap();
    let secrets = BTreeMap::from([(secret("a"), SecretString::from("one".to_owned()))]);
    set.set(secrets, BTreeSet::from([file.to_str().unwrap().to_owned()]));
    let asked = async || server.received_requests().await.unwrap().len();
    let both = async {
        while asked().await < 2 {
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    drop(set);
    tokio::time::sleep(INTERVAL).await;
    let before = asked().await;
    std::fs::write(&file, "three").unwrap();
    tokio::time::sleep(INTERVAL * 10).await;
    assert_eq!(asked().await, before);
}
