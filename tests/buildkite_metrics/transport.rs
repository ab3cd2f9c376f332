//! What goes wrong below the answer, and what headers do.

use std::{
    io::{Read, Write},
    time::Duration,
};

use kitepool::{
    buildkite::{Client, client::BODY_MAX, wire::DATE_MARGIN},
    clock::Clock,
};
use kitepool_policy::observation::Trouble;
use secrecy::SecretString;
use wiremock::ResponseTemplate;

use super::*;

#[tokio::test]
async fn a_redirect_is_told_and_the_token_goes_nowhere() {
    let elsewhere = answering("/metrics", ResponseTemplate::new(200).set_body_json(minimal())).await;
    for status in [301, 302, 307, 308] {
        let location = format!("{}/v3/metrics", elsewhere.uri());
        let response = ResponseTemplate::new(status).insert_header("Location", location);
        let error = fails(response, "redirect", Trouble::ServerError).await;
        assert!(error.to_string().contains("set the endpoint"), "{error}");
    }
    assert_eq!(elsewhere.received_requests().await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_slow_answer_ends_with_the_deadline() {
    let slow = ResponseTemplate::new(200).set_body_json(minimal()).set_delay(DEADLINE);
    let server = answering("/metrics", slow).await;
    let client = client_within(SHORT, &format!("{}/v3", server.uri()));
    assert_failed(&client.metrics(&token()).await.result.unwrap_err(), "deadline", Trouble::Unreachable);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the thread is the other side and has a time of its own")]
async fn a_body_that_never_ends_ends_with_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v3", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read(&mut [0; 4096]);
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
        while connection.write_all(b" ").is_ok() {
            std::thread::sleep(SHORT / 10);
        }
    });
    let error = client_within(SHORT, &endpoint).metrics(&token()).await.result.unwrap_err();
    assert_failed(&error, "deadline", Trouble::Unreachable);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told() {
    let endpoint = raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"organi");
    let error = client(&endpoint).metrics(&token()).await.result.unwrap_err();
    assert_failed(&error, "cut_off", Trouble::Unreachable);
}

#[tokio::test]
async fn nobody_there_or_nothing_said_is_unreachable() {
    for endpoint in ["http://127.0.0.1:1/v3".to_owned(), raw(""), raw("SSH-2.0-OpenSSH\r\n")] {
        let error = client(&endpoint).metrics(&token()).await.result.unwrap_err();
        assert_failed(&error, "unreachable", Trouble::Unreachable);
    }
}

#[tokio::test]
async fn a_huge_answer_is_dropped() {
    let huge = vec![b' '; BODY_MAX + 1];
    fails(ResponseTemplate::new(200).set_body_bytes(huge), "too_large", Trouble::Malformed).await;
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_not_sent() {
    let server = answering("/metrics", ResponseTemplate::new(200)).await;
    let broken = SecretString::from("sEcReT\nsEcReT".to_owned());
    let error = client(&server.uri()).metrics(&broken).await.result.unwrap_err();
    assert_failed(&error, "unusable_token", Trouble::NoToken);
    assert_eq!(server.received_requests().await.unwrap().len(), 0);
}

#[tokio::test]
async fn the_poll_interval_is_bounded_and_garbage_is_no_wish() {
    for (value, seconds) in [
        (Some("10"), Some(10)),
        (Some(" 25 "), Some(25)),
        (Some("0"), Some(1)),
        (Some("99999999"), Some(300)),
        (Some("99999999999999999999999999"), None),
        (Some("-5"), None),
        (Some("1.5"), None),
        (Some("soon"), None),
        (Some(""), None),
        (None, None),
    ] {
        let mut response = ResponseTemplate::new(200).set_body_json(minimal());
        if let Some(value) = value {
            response = response.insert_header(POLL, value);
        }
        let answer = metrics(response).await;
        assert_eq!(answer.poll_after, seconds.map(Duration::from_secs), "{value:?}");
        assert!(answer.result.is_ok(), "{value:?}");
    }
}

#[tokio::test]
async fn a_failure_may_carry_the_poll_interval_too() {
    let answer = metrics(ResponseTemplate::new(503).insert_header(POLL, "60")).await;
    assert_eq!(answer.poll_after, Some(Duration::from_mins(1)));
}

#[tokio::test]
async fn without_a_usable_date_buildkites_clock_is_taken_to_be_behind_ours() {
    // The test server always sends a Date of its own, so the absent one is written by hand.
    let absent = raw("HTTP/1.1 200 OK\r\ncontent-length: 32\r\n\r\n{\"organization\":{\"slug\":\"acme\"}}");
    let garbage =
        raw("HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 32\r\n\r\n{\"organization\":{\"slug\":\"acme\"}}");
    for endpoint in [absent, garbage] {
        let reading = client(&endpoint).metrics(&token()).await.result.unwrap();
        assert_eq!(reading.date, None);
        assert_eq!(reading.buildkite_time(), reading.asked_at.checked_sub(DATE_MARGIN).unwrap());
    }
}

#[tokio::test]
async fn an_endpoint_that_is_no_plain_address_is_refused_without_quoting_it() {
    for endpoint in
        ["", "agent.buildkite.com", "ftp://x/v3", "https://me:sEcReT@x/v3", "https://x/v3?a=sEcReT", "https://x/#a"]
    {
        let error = Client::over_the_network(endpoint, DEADLINE, Clock::machine()).unwrap_err();
        assert_eq!(error.category(), "address", "{endpoint}");
        assert_secret(&format!("{error} {error:?}"));
    }
}
