//! Every answer that Buildkite, or a proxy before it, may give to a call: one row each, over real connections.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the line that is wrong"
)]

mod transport;

use std::{
    io::{Read, Write},
    time::Duration,
};

use jiff::Timestamp;
use kitepool::{
    buildkite::{Answer, Client, Error, Identity, MetricsReading, OUTCOMES},
    clock::Clock,
};
use kitepool_policy::{
    observation::{Load, Trouble},
    units::{Agents, Jobs},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path},
};

const TOKEN: &str = "bkct_sEcReT0123456789";
/// Far beyond what an answer takes, even beside other work.
const DEADLINE: Duration = Duration::from_secs(20);
/// For the answers that do not come in time.
const SHORT: Duration = Duration::from_millis(300);
const DATE: &str = "Tue, 04 Aug 2026 10:00:00 GMT";
const POLL: &str = "Buildkite-Agent-Metrics-Poll-Duration";

fn client(endpoint: &str) -> Client {
    client_within(DEADLINE, endpoint)
}

fn client_within(deadline: Duration, endpoint: &str) -> Client {
    // The first caller installs it; a second installation is refused and means nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::over_the_network(endpoint, deadline, Clock::fixed(now())).unwrap()
}

fn now() -> Timestamp {
    "2026-08-04T10:00:05Z".parse().unwrap()
}

fn token() -> SecretString {
    SecretString::from(TOKEN.to_owned())
}

async fn answering(route: &str, response: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path(format!("/v3{route}")))
        .and(header("authorization", format!("Token {TOKEN}")))
        .and(header("user-agent", concat!("kitepool/", env!("CARGO_PKG_VERSION"))))
        .respond_with(response)
        .mount(&server)
        .await;
    server
}

async fn metrics(response: ResponseTemplate) -> Answer<MetricsReading> {
    let server = answering("/metrics", response).await;
    client(&format!("{}/v3", server.uri())).metrics(&token()).await
}

async fn good(body: Value) -> MetricsReading {
    metrics(ResponseTemplate::new(200).set_body_json(body)).await.result.unwrap()
}

fn assert_failed(error: &Error, category: &str, trouble: Trouble) {
    assert_eq!((error.category(), error.trouble()), (category, trouble), "{error}");
    assert!(OUTCOMES.contains(&error.category()));
    assert_secret(&format!("{error} {error:?}"));
}

fn assert_secret(text: &str) {
    assert!(!text.contains("sEcReT"), "the token shows: {text}");
}

async fn fails(response: ResponseTemplate, category: &str, trouble: Trouble) -> Error {
    let answer = metrics(response).await;
    assert_secret(&format!("{answer:?}"));
    let error = answer.result.unwrap_err();
    assert_failed(&error, category, trouble);
    error
}

fn minimal() -> Value {
    json!({ "organization": { "slug": "acme" } })
}

/// Answers one connection with these bytes and closes it.
fn raw(bytes: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v3", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read(&mut [0; 4096]);
        connection.write_all(bytes.as_bytes()).unwrap();
    });
    endpoint
}

#[tokio::test]
async fn a_whole_answer_is_read_with_the_union_of_both_maps() {
    let body = json!({
        "agents": { "idle": 1, "busy": 2, "total": 3, "queues": { "linux": { "idle": 1, "busy": 2, "total": 3 } } },
        "jobs": {
            "scheduled": 4, "running": 2, "waiting": 5, "total": 6,
            "queues": {
                "linux": { "scheduled": 3, "running": 2, "waiting": 5, "total": 5 },
                "mac": { "scheduled": 1, "running": 0, "waiting": 0, "total": 1 },
            },
        },
        "cluster": { "name": "builds" },
        "organization": { "slug": "acme" },
    });
    let response = ResponseTemplate::new(200).set_body_json(body).insert_header("Date", DATE).insert_header(POLL, "10");
    let answer = metrics(response).await;
    assert_eq!(answer.poll_after, Some(Duration::from_secs(10)));
    let reading = answer.result.unwrap();
    assert_eq!((reading.organization.as_str(), reading.cluster.as_deref()), ("acme", Some("builds")));
    assert!((now()..now().checked_add(DEADLINE).unwrap()).contains(&reading.asked_at));
    assert_eq!(reading.buildkite_time(), "2026-08-04T10:00:00Z".parse().unwrap());
    let linux = Load { scheduled: Jobs(3), running: Jobs(2), waiting: Jobs(5), idle: Agents(1), busy: Agents(2) };
    assert_eq!(reading.load("linux"), linux);
    assert_eq!(reading.load("mac"), Load { scheduled: Jobs(1), ..Load::default() });
    assert_eq!(reading.load("absent"), Load::default());
}

#[tokio::test]
async fn empty_maps_mean_that_there_is_nothing() {
    let reading =
        good(json!({ "agents": { "queues": {} }, "jobs": { "queues": {} }, "organization": { "slug": "acme" } }));
    assert!(reading.await.queues.is_empty());
}

#[tokio::test]
async fn missing_fields_are_zero() {
    assert!(good(minimal()).await.queues.is_empty());
    let body =
        json!({ "agents": {}, "jobs": { "queues": { "a": {} } }, "cluster": {}, "organization": { "slug": "acme" } });
    let reading = good(body).await;
    assert_eq!((reading.load("a"), reading.cluster), (Load::default(), None));
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let body = json!({
        "jobs": { "limited": [], "queues": { "a": { "scheduled": 7, "reserved": "x" } } },
        "organization": { "slug": "acme", "name": 1 },
        "surprise": null,
    });
    assert_eq!(good(body).await.load("a").scheduled, Jobs(7));
}

#[tokio::test]
async fn wrong_types_and_a_missing_organization_are_malformed() {
    for body in [
        json!({ "jobs": { "queues": [] }, "organization": { "slug": "acme" } }),
        json!({ "jobs": { "queues": { "a": { "scheduled": "3" } } }, "organization": { "slug": "acme" } }),
        json!({ "jobs": { "queues": { "a": { "scheduled": -1 } } }, "organization": { "slug": "acme" } }),
        json!({ "jobs": { "queues": { "a": { "scheduled": 5_000_000_000_u64 } } }, "organization": { "slug": "acme" } }),
        json!({ "agents": null, "organization": { "slug": "acme" } }),
        json!({ "organization": { "slug": 3 } }),
        json!({ "organization": { "slug": "" } }),
        json!({ "organization": {} }),
        json!({ "message": TOKEN }),
        json!([TOKEN]),
        json!({ "organization": TOKEN }),
    ] {
        fails(ResponseTemplate::new(200).set_body_json(body), "malformed", Trouble::Malformed).await;
    }
}

#[tokio::test]
async fn what_is_not_json_is_malformed_and_not_quoted() {
    for body in ["<html>sEcReT</html>", "", "{\"organization\":", "null"] {
        fails(ResponseTemplate::new(200).set_body_string(body), "malformed", Trouble::Malformed).await;
    }
}

#[tokio::test]
async fn each_status_has_its_category_and_its_trouble() {
    for (status, category, trouble) in [
        (401, "refused", Trouble::Refused),
        (403, "refused", Trouble::Refused),
        (404, "not_found", Trouble::ServerError),
        (429, "rate_limited", Trouble::RateLimited),
        (500, "server_error", Trouble::ServerError),
        (503, "server_error", Trouble::ServerError),
        (204, "unexpected_status", Trouble::ServerError),
        (418, "unexpected_status", Trouble::ServerError),
    ] {
        let body = json!({ "message": format!("you sent {TOKEN}") });
        let error = fails(ResponseTemplate::new(status).set_body_json(body), category, trouble).await;
        assert_eq!(error.retry_after(), None);
    }
}

#[tokio::test]
async fn a_pause_is_taken_in_seconds_or_as_a_date_and_bounded() {
    for (value, pause) in [
        ("7", Some(7)),
        ("0", Some(0)),
        ("86400", Some(300)),
        ("Tue, 04 Aug 2026 10:00:20 GMT", Some(20)),
        ("Tue, 04 Aug 2026 09:00:00 GMT", Some(0)),
        ("Tue, 04 Aug 2099 09:00:00 GMT", Some(300)),
        ("soon", None),
        ("-3", None),
    ] {
        for (status, category, trouble) in
            [(429, "rate_limited", Trouble::RateLimited), (503, "server_error", Trouble::ServerError)]
        {
            let response =
                ResponseTemplate::new(status).insert_header("Date", DATE).insert_header("Retry-After", value);
            let error = fails(response, category, trouble).await;
            assert_eq!(error.retry_after(), pause.map(Duration::from_secs), "{value}");
        }
    }
}

#[tokio::test]
async fn a_token_says_whose_it_is() {
    for (cluster, name) in [(Some("0190-uuid"), Some("builds")), (None, None)] {
        let body = json!({
            "uuid": "x", "token_type": "cluster", "organization_slug": "acme",
            "cluster_uuid": cluster, "cluster_name": name, "organization_queue_key": null,
        });
        let server = answering("/token", ResponseTemplate::new(200).set_body_json(body)).await;
        let told = client(&format!("{}/v3/", server.uri())).token(&token()).await.unwrap();
        let identity = Identity { organization: "acme".into(), cluster: cluster.map(str::to_owned) };
        assert_eq!((told.identity, told.cluster_name.as_deref()), (identity, name));
    }
}

#[tokio::test]
async fn a_token_that_is_not_told_about_fails_as_metrics_do() {
    for (response, category, trouble) in [
        (ResponseTemplate::new(401), "refused", Trouble::Refused),
        (ResponseTemplate::new(404), "not_found", Trouble::ServerError),
        (ResponseTemplate::new(200).set_body_json(json!({})), "malformed", Trouble::Malformed),
        (ResponseTemplate::new(200).set_body_json(json!({ "organization_slug": "" })), "malformed", Trouble::Malformed),
    ] {
        let server = answering("/token", response).await;
        let error = client(&format!("{}/v3", server.uri())).token(&token()).await.unwrap_err();
        assert_failed(&error, category, trouble);
    }
}
