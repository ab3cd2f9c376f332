//! The program as Lambda starts it: the real `bootstrap` between a stub of the Runtime API and a simulated API server,
//! STS and EKS, over real connections of this machine.
//!
//! TLS, a real API server and the rules by which a cluster reads a token: `tests/events`.

#![cfg(test)]

mod rig;
mod simulated;

use std::time::Duration;

use serde_json::{Value, json};

use self::{
    rig::{Rig, event, sqs_batch},
    simulated::Simulated,
};

#[tokio::test]
async fn a_batch_becomes_one_hint_over_a_connection_that_is_kept() {
    let simulated = Simulated::start().await;
    let mut rig = Rig::start(&simulated, &[]).await;
    for round in 0..5 {
        let answer = rig.invoke(sqs_batch(&[event(&format!("a{round}")), event(&format!("b{round}"))])).await;
        assert_eq!(answer, Ok(json!({ "batchItemFailures": [] })));
    }
    let seen = simulated.seen();
    assert_eq!((seen.hints.len(), seen.connections), (5, 1));
    let hint = seen.hints.values().next().unwrap();
    assert_eq!((&hint["apiVersion"], &hint["kind"]), (&json!("kitepool.dev/v1alpha1"), &json!("JobHint")));
    assert_eq!(hint["spec"]["source"], "eventbridge");
    let job = &hint["spec"]["jobs"][0];
    assert_eq!((&job["queue"], &job["rules"]), (&json!("gpu"), &json!(["os=linux"])));
    assert_eq!(job["organization"], "acme");
    let authorization: std::collections::BTreeSet<_> = seen.authorizations.iter().collect();
    assert_eq!(authorization.len(), 1, "one token for all of them");
}

#[tokio::test]
async fn an_event_told_twice_is_one_hint_and_no_failure() {
    let simulated = Simulated::start().await;
    let mut rig = Rig::start(&simulated, &[]).await;
    for _ in 0..2 {
        let answer = rig.invoke(sqs_batch(&[event("a"), event("a")])).await;
        assert_eq!(answer, Ok(json!({ "batchItemFailures": [] })));
    }
    assert_eq!(simulated.seen().hints.len(), 1);
    assert_eq!(simulated.seen().statuses, [201, 409]);
}

#[tokio::test]
async fn a_late_duplicate_is_dropped_as_too_old() {
    let simulated = Simulated::start().await;
    let mut rig = Rig::start(&simulated, &[("KITEPOOL_MAX_AGE", "5m")]).await;
    let mut late = event("a");
    late["detail"]["job"]["runnable_at"] = json!("2019-08-11 06:01:14 UTC");
    assert_eq!(rig.invoke(sqs_batch(&[late])).await, Ok(json!({ "batchItemFailures": [] })));
    assert_eq!(rig.log().await["dropped"]["too_old"], 1);
    assert_eq!(simulated.seen().statuses, [0_u16; 0]);
}

#[tokio::test]
async fn what_cannot_be_stored_comes_again_and_what_never_will_does_not() {
    let simulated = Simulated::start().await;
    let mut rig = Rig::start(&simulated, &[]).await;
    let mut broken = event("b");
    broken["detail"]["job"]["uuid"] = Value::Null;
    simulated.answer_always(403, "Forbidden", "User cannot create resource");
    let answer = rig.invoke(sqs_batch(&[event("a"), broken.clone()])).await;
    assert_eq!(answer, Ok(json!({ "batchItemFailures": [{ "itemIdentifier": "message-0" }] })));
    let log = rig.log().await;
    assert_eq!((&log["redelivered"], &log["dropped"]["malformed"]), (&json!(1), &json!(1)));
    assert_eq!((&log["level"], &log["trouble"]), (&json!("WARN"), &json!("forbidden")));
    simulated.answer_always(403, "Forbidden", "exceeded quota: kitepool-hints");
    assert_eq!(rig.invoke(sqs_batch(&[event("a"), broken])).await, Ok(json!({ "batchItemFailures": [] })));
    assert_eq!(rig.log().await["dropped"]["quota"], 1);
}

#[tokio::test]
async fn an_event_without_a_queue_succeeds_or_comes_again_as_a_whole() {
    let simulated = Simulated::start().await;
    let mut rig = Rig::start(&simulated, &[]).await;
    assert_eq!(rig.invoke(event("a")).await, Ok(Value::Null));
    simulated.answer_always(404, "NotFound", "the server could not find the requested resource");
    let failure = rig.invoke(event("b")).await.unwrap_err();
    assert_eq!(failure["errorType"], "NotStored");
    assert!(failure["errorMessage"].as_str().unwrap().contains("404"), "{failure}");
    assert_eq!(
        rig.invoke(json!({ "no": "event" })).await,
        Ok(Value::Null),
        "it would not become better by coming again"
    );
}

#[tokio::test]
async fn a_refused_token_is_made_afresh_once() {
    let simulated = Simulated::start().await;
    let mut rig = Rig::start(&simulated, &[]).await;
    simulated.answer_next(401, "Unauthorized", "Unauthorized");
    assert_eq!(rig.invoke(sqs_batch(&[event("a")])).await, Ok(json!({ "batchItemFailures": [] })));
    assert_eq!(simulated.seen().statuses, [401, 201]);
    simulated.answer_always(401, "Unauthorized", "Unauthorized");
    let answer = rig.invoke(sqs_batch(&[event("b")])).await;
    assert_eq!(answer, Ok(json!({ "batchItemFailures": [{ "itemIdentifier": "message-0" }] })));
    assert_eq!(simulated.seen().statuses, [401, 201, 401, 401], "once, and not for ever");
}

#[tokio::test]
async fn a_kept_connection_that_died_costs_nothing_but_a_new_one() {
    let simulated = Simulated::start().await;
    let dying = simulated::server_that_hangs_up();
    let mut rig = Rig::start(&simulated, &[("KITEPOOL_CLUSTER_ENDPOINT", &dying)]).await;
    for id in ["a", "b", "c"] {
        assert_eq!(rig.invoke(sqs_batch(&[event(id)])).await, Ok(json!({ "batchItemFailures": [] })));
        let log = rig.log().await;
        assert_eq!((&log["created"], &log["calls"]), (&json!(1), &json!(1)), "{log}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_api_server_that_hangs_does_not_outlast_the_invocation() {
    let simulated = Simulated::start().await;
    let silent = simulated::server_that_says_nothing();
    let mut rig = Rig::start(&simulated, &[("KITEPOOL_CLUSTER_ENDPOINT", &silent)]).await;
    rig.time = Duration::from_secs(2);
    let answer = tokio::time::timeout(rig.time, rig.invoke(sqs_batch(&[event("a")]))).await;
    assert_eq!(answer.unwrap(), Ok(json!({ "batchItemFailures": [{ "itemIdentifier": "message-0" }] })));
    assert_eq!(rig.log().await["trouble"], "deadline");
}

#[tokio::test]
async fn a_cluster_is_described_once_and_its_connection_kept() {
    let simulated = Simulated::start().await;
    let without = [("KITEPOOL_CLUSTER_ENDPOINT", ""), ("KITEPOOL_CLUSTER_REGION", "us-east-1")];
    let mut rig = Rig::start(&simulated, &without).await;
    for id in ["a", "b"] {
        assert_eq!(rig.invoke(sqs_batch(&[event(id)])).await, Ok(json!({ "batchItemFailures": [] })));
    }
    let seen = simulated.seen();
    assert_eq!(seen.described, ["/clusters/ci"]);
    assert!(seen.signed[0].contains("/us-east-1/eks/aws4_request"), "{:?}", seen.signed);
}

#[tokio::test]
async fn a_cluster_that_moved_is_described_again_within_the_invocation() {
    let simulated = Simulated::start().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    simulated.describe_next(&format!("http://{gone}"));
    let mut rig = Rig::start(&simulated, &[("KITEPOOL_CLUSTER_ENDPOINT", "")]).await;
    assert_eq!(rig.invoke(sqs_batch(&[event("a")])).await, Ok(json!({ "batchItemFailures": [] })));
    assert_eq!(simulated.seen().described.len(), 2);
}

#[tokio::test]
async fn a_cluster_that_cannot_be_described_is_told_and_its_events_come_again() {
    let simulated = Simulated::start().await;
    simulated.refuse_to_describe();
    let mut rig = Rig::start(&simulated, &[("KITEPOOL_CLUSTER_ENDPOINT", "")]).await;
    let answer = rig.invoke(sqs_batch(&[event("a")])).await;
    assert_eq!(answer, Ok(json!({ "batchItemFailures": [{ "itemIdentifier": "message-0" }] })));
    let log = rig.log().await;
    assert!(log["detail"].as_str().unwrap().contains("No cluster found"), "{log}");
}

#[tokio::test]
async fn another_role_is_assumed_once_and_its_credentials_sign_the_token() {
    let simulated = Simulated::start().await;
    let role = "arn:aws:iam::210987654321:role/path/kitepool+hints";
    let mut rig = Rig::start(&simulated, &[("KITEPOOL_ASSUME_ROLE_ARN", role)]).await;
    for id in ["a", "b"] {
        assert_eq!(rig.invoke(sqs_batch(&[event(id)])).await, Ok(json!({ "batchItemFailures": [] })));
    }
    let seen = simulated.seen();
    assert_eq!(seen.assumed.len(), 1);
    assert!(seen.assumed[0].contains("RoleArn=arn%3Aaws%3Aiam%3A%3A210987654321%3Arole%2Fpath%2Fkitepool%2Bhints"));
    assert!(seen.signed[0].contains("Credential=AKIDEXAMPLE/"), "{:?}", seen.signed);
    let address = simulated::address_in(&seen.authorizations[0]);
    assert!(address.contains("X-Amz-Credential=ASIAASSUMED%2F"), "{address}");
    assert!(address.contains("X-Amz-Security-Token=assumed%2B%2F%3D"), "{address}");
}

#[tokio::test]
async fn without_a_region_of_its_own_the_cluster_is_in_the_functions_region() {
    let simulated = Simulated::start().await;
    let mut rig = Rig::start(&simulated, &[]).await;
    rig.invoke(sqs_batch(&[event("a")])).await.unwrap();
    let address = simulated::address_in(&simulated.seen().authorizations[0]);
    assert!(address.starts_with("https://sts.eu-west-1.amazonaws.com/?"), "{address}");
}

#[tokio::test]
async fn each_default_fills_its_own_setting_and_no_other() {
    let simulated = Simulated::start().await;
    let uuid = "01a2b3c4-0000-4000-8000-0123456789ab";
    let mut without_queue = event("a");
    without_queue["detail"]["job"]["agent_query_rules"] = json!([]);
    for (settings, queue, cluster) in [
        (vec![], json!("default"), Value::Null),
        (vec![("KITEPOOL_DEFAULT_QUEUE", "general")], json!("general"), Value::Null),
        (vec![("KITEPOOL_BUILDKITE_CLUSTER", uuid)], json!("default"), json!(uuid)),
    ] {
        simulated.forget();
        let mut rig = Rig::start(&simulated, &settings).await;
        rig.invoke(sqs_batch(&[without_queue.clone()])).await.unwrap();
        let hints = simulated.seen().hints;
        let hint = hints.values().next().unwrap();
        assert_eq!((&hint["spec"]["jobs"][0]["queue"], &hint["spec"]["jobs"][0]["cluster"]), (&queue, &cluster));
    }
}

#[tokio::test]
async fn settings_that_are_wrong_are_told_to_lambda_in_a_sentence() {
    let simulated = Simulated::start().await;
    let mut rig = Rig::start(&simulated, &[("KITEPOOL_NAMESPACE", "")]).await;
    let failure = rig.fails_to_start().await;
    assert!(failure["errorMessage"].as_str().unwrap().contains("KITEPOOL_NAMESPACE"), "{failure}");
}

#[tokio::test]
async fn no_secret_is_ever_printed() {
    let simulated = Simulated::start().await;
    let role = [("KITEPOOL_ASSUME_ROLE_ARN", "arn:aws:iam::210987654321:role/hints")];
    for (settings, status) in [(&[][..], 201), (&[], 403), (&[], 500), (&role[..], 401)] {
        let mut rig = Rig::start(&simulated, settings).await;
        if status != 201 {
            simulated.answer_always(status, "Broken", "broken");
        }
        rig.invoke(sqs_batch(&[event("a")])).await.unwrap();
        let printed = rig.end().await;
        assert!(printed.contains("\"records\":1"), "{printed}");
        for secret in ["topsecret", "k8s-aws-v1", "X-Amz", "ASIAASSUMED", "AKIDEXAMPLE", "Bearer", "Signature"] {
            assert!(!printed.contains(secret), "{secret} is in {printed}");
        }
        simulated.forget();
    }
}

#[tokio::test]
async fn without_lambda_each_line_is_an_event_and_a_kubeconfig_says_where_to() {
    let simulated = Simulated::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{ "name": "here", "context": { "cluster": "c", "user": "u" } }],
        "clusters": [{ "name": "c", "cluster": { "server": simulated.address() } }],
        "users": [{ "name": "u", "user": { "token": "topsecret" } }],
    });
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    let lines = format!("{}\n\n{}\n", event("a"), sqs_batch(&[event("b"), event("c")]));
    let (code, printed) = rig::run_lines(&path, &lines).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(simulated.seen().hints.len(), 2);
    assert_eq!(simulated.seen().authorizations[0], "Bearer topsecret");
    assert_eq!(printed.lines().count(), 2, "a line for each: {printed}");
    simulated.answer_always(404, "NotFound", "");
    let (code, printed) = rig::run_lines(&path, &lines).await;
    assert_eq!(code, 1, "what has to come again is the caller's business: {printed}");
}
