//! The product's client and the simulated Buildkite, written apart, understand each other: over a connection and in process.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at the line that is wrong")]

mod identity;
mod many;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use jiff::Timestamp;
use kitepool::{
    buildkite::Client,
    clock::Clock,
    sense::poll::{Look, PollSet, TokenKey},
};
use kitepool_policy::observation::Trouble;
use kitepool_world::{Fault, Queue, Route, State, World, digest, router};
use reqwest::{Request, Response};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::Notify;
use tower::Service;

const ENDPOINT: &str = "http://buildkite.test/v3";
const INTERVAL: Duration = Duration::from_secs(10);

/// Hands the client's requests to the simulation without a connection.
#[derive(Clone)]
struct InProcess(axum::Router);

impl Service<Request> for InProcess {
    type Response = Response;
    type Error = reqwest::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, reqwest::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let request: http::Request<reqwest::Body> = request.try_into().unwrap();
        let answer = self.0.call(request.map(axum::body::Body::new));
        Box::pin(async move {
            let (head, body) = answer.await.unwrap().into_parts();
            // The router's bodies cannot be shared between threads, which the client's must. One that breaks off does so here.
            let body = match axum::body::to_bytes(body, usize::MAX).await {
                Ok(body) => reqwest::Body::from(body),
                Err(error) => reqwest::Body::wrap_stream(futures::stream::iter([Err::<Vec<u8>, _>(error)])),
            };
            Ok(http::Response::from_parts(head, body).into())
        })
    }
}

fn world() -> World {
    let state: State = serde_json::from_value(json!({
        "poll_duration": 10,
        "tokens": {
            "one": { "organization": "acme", "cluster": "uuid-1" },
            "old": { "organization": "acme" },
        },
        "clusters": {
            "uuid-1": { "name": "linux", "queues": { "q": { "scheduled": 3, "idle": 1 }, "idle": {} } },
            "unclustered": { "name": "", "queues": { "q": { "scheduled": 5 } } },
        },
    }))
    .unwrap();
    World::new(state)
}

fn key() -> TokenKey {
    TokenKey::Secret { namespace: "ci".into(), name: "token".into(), key: "token".into() }
}

fn polling(world: &World, token: &str) -> PollSet<InProcess> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
    let client = Client::new(InProcess(router(world.clone())), ENDPOINT, INTERVAL / 2, clock.clone()).unwrap();
    let budget = NonZeroU32::new(1000).unwrap();
    let mut set = PollSet::new(client, INTERVAL, budget, clock, Arc::new(Notify::new()), Arc::new(|_, _| {}));
    set.set(BTreeMap::from([(key(), SecretString::from(token.to_owned()))]), BTreeSet::new());
    set
}

async fn after(set: &PollSet<InProcess>, wait: Duration) -> Look {
    tokio::time::sleep(wait).await;
    set.look(&key(), "q", None)
}

fn scheduled(look: &Look) -> Option<u32> {
    look.reading.last_good.map(|good| good.load.scheduled.0)
}

#[tokio::test]
async fn over_a_connection_the_client_reads_what_the_world_holds() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = world();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v3", listener.local_addr().unwrap());
    let serving = tokio::spawn(kitepool_world::serve(listener, world.clone()));
    let client = Client::over_the_network(&endpoint, INTERVAL, Clock::machine()).unwrap();
    let token = SecretString::from("one".to_owned());
    assert_eq!(client.token(&token).await.unwrap().identity.to_string(), "acme/uuid-1");
    let answer = client.metrics(&token).await;
    assert_eq!(answer.poll_after, Some(INTERVAL));
    let reading = answer.result.unwrap();
    assert!(reading.date.is_some());
    assert_eq!(reading.queues.keys().collect::<Vec<_>>(), ["q"], "a queue with nothing is absent");
    let refused = client.metrics(&SecretString::from("unknown".to_owned())).await.result.unwrap_err();
    assert_eq!(refused.trouble(), Trouble::Refused);
    assert_eq!(world.requests()[&Route::Metrics], BTreeMap::from([(digest("one"), 1), (digest("unknown"), 1)]));
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn in_process_and_virtual_time_the_poller_follows_the_world() {
    let world = world();
    let set = polling(&world, "one");
    let look = after(&set, Duration::from_secs(1)).await;
    assert_eq!((scheduled(&look), look.reading.trouble), (Some(3), None));
    world.set_queue("uuid-1", "q", Queue { scheduled: 7, ..Queue::default() });
    // The first wait alone is longer by a share of the interval.
    assert_eq!(scheduled(&after(&set, INTERVAL * 2).await), Some(7));
    world.set_queue("uuid-1", "q", Queue::default());
    assert_eq!(scheduled(&after(&set, INTERVAL).await), Some(0));
    assert!((3..=4).contains(&world.requests()[&Route::Metrics][&digest("one")]), "{:?}", world.requests());
    assert_eq!(world.requests()[&Route::Token][&digest("one")], 1);
}

#[tokio::test(start_paused = true)]
async fn each_fault_keeps_the_last_good_answer_and_its_age_and_ends_within_a_minute() {
    // A strange body costs Buildkite nothing, so there the pace stays; everything else slows it down.
    for (fault, trouble, most) in [
        (Fault { status: Some(500), ..Fault::default() }, Trouble::ServerError, 35),
        (Fault { status: Some(429), retry_after: Some(20), ..Fault::default() }, Trouble::RateLimited, 35),
        (Fault { hang: true, ..Fault::default() }, Trouble::Unreachable, 35),
        (Fault { delay_ms: 6_000, ..Fault::default() }, Trouble::Unreachable, 35),
        (Fault { garbage: true, ..Fault::default() }, Trouble::Malformed, 61),
        (Fault { cut_off: true, ..Fault::default() }, Trouble::Unreachable, 35),
    ] {
        let world = world();
        let set = polling(&world, "one");
        let good = after(&set, Duration::from_secs(1)).await.reading.last_good;
        world.set_fault(Route::Metrics, Some(fault));
        let look = after(&set, Duration::from_mins(10)).await;
        assert_eq!((look.reading.last_good, look.reading.trouble), (good, Some(trouble)), "{fault:?}");
        let asked = world.requests()[&Route::Metrics][&digest("one")];
        assert!(asked <= most, "{fault:?}: asked {asked} times in ten minutes");
        world.set_fault(Route::Metrics, None);
        let look = after(&set, Duration::from_secs(61)).await;
        assert_eq!((scheduled(&look), look.reading.trouble), (Some(3), None), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unclustered_token_has_an_identity_without_a_cluster() {
    let set = polling(&world(), "old");
    let look = after(&set, Duration::from_secs(1)).await;
    assert_eq!(scheduled(&look), Some(5));
    assert_eq!(look.identity.unwrap().to_string(), "acme/(no cluster)");
}
