//! The webhook over real sockets, in front of a simulated API server.

#![cfg(test)]

mod openssl;
mod stage;

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use kitepool_world::kubernetes::Fault;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::stage::{SECRET, Stage, body};

#[tokio::test]
async fn a_delivery_is_a_stored_hint_before_the_answer() {
    let stage = Stage::begin().await;
    let delivered = stage.deliver(&body("job-1", "linux")).await;
    assert_eq!((delivered.status, delivered.text.as_str()), (201, "the job is hinted\n"));
    let hints = stage.hints();
    assert_eq!(hints.len(), 1);
    assert_eq!(hints[0]["spec"]["source"], "webhook");
    let job = &hints[0]["spec"]["jobs"][0];
    assert_eq!((&job["id"], &job["queue"], &job["rules"]), (&json!("job-1"), &json!("linux"), &json!(["os=linux"])));
}

#[tokio::test]
async fn a_delivery_that_comes_twice_is_one_hint_and_fine_both_times() {
    let stage = Stage::begin().await;
    let same = body("job-1", "linux");
    assert_eq!(stage.deliver(&same).await.status, 201);
    assert_eq!(stage.deliver(&same).await.status, 200);
    let other = body("job-2", "linux");
    let at_once = join_all((0..20).map(|_| stage.deliver(&other))).await;
    assert!(at_once.iter().all(|delivered| matches!(delivered.status, 200 | 201)), "{at_once:?}");
    assert_eq!(at_once.iter().filter(|delivered| delivered.status == 201).count(), 1);
    assert_eq!(stage.hints().len(), 2);

    // Another replica, which remembers nothing of it.
    let other = stage.another_replica().await;
    assert_eq!(other.deliver(&same).await.status, 200, "the API server knows it by its name");
    assert_eq!(stage.hints().len(), 2);
}

#[tokio::test]
async fn jobs_that_come_together_share_hints_and_each_is_told_once() {
    let stage = Stage::begin().await;
    stage.fault_creating(Some(Fault { delay: Duration::from_millis(20), ..Fault::default() }));
    let bodies: Vec<String> = (0..500).map(|n| body(&format!("job-{n}"), "linux")).collect();
    let delivered = join_all(bodies.iter().map(|body| stage.deliver(body))).await;
    let refused = delivered.iter().find(|delivered| delivered.status != 201);
    assert!(refused.is_none(), "{refused:?}");
    let hints = stage.hints();
    let jobs: Vec<String> = hints
        .iter()
        .flat_map(|hint| hint["spec"]["jobs"].as_array().unwrap().clone())
        .map(|job| job["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((jobs.len(), jobs.iter().collect::<BTreeSet<_>>().len()), (500, 500));
    assert!(hints.len() <= 50, "{} hints", hints.len());
}

#[tokio::test]
async fn only_who_holds_the_secret_is_heard() {
    let stage = Stage::begin().await;
    let text = body("job-1", "linux");
    let forged = stage.signed_with("wrong", &text).await;
    assert_eq!(forged.status, 401);
    assert!(forged.text.contains("--webhook-secret-file"), "{}", forged.text);
    assert_eq!(stage.with_token("wrong", &text).await.status, 401);
    assert_eq!(stage.without_proof(&text).await.status, 401);
    assert_eq!(stage.signed_at(stage.now() - 301, &text).await.status, 401);
    assert!(stage.hints().is_empty());
    assert_eq!(stage.with_token(SECRET, &text).await.status, 201);
}

#[tokio::test]
async fn either_secret_holds_during_a_rotation() {
    let stage = Stage::begin().await;
    stage.write_second_secret("the-next-one");
    // The files are looked at every ten seconds.
    let rotated = async {
        while stage.signed_with("the-next-one", &body("job-1", "linux")).await.status != 201 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), rotated).await.unwrap();
    assert_eq!(stage.deliver(&body("job-2", "linux")).await.status, 201);
}

#[tokio::test]
async fn a_full_quota_sheds_with_a_word_when_to_come_again_and_takes_jobs_again_after() {
    let stage = Stage::begin().await;
    stage.set_quota(1);
    assert_eq!(stage.deliver(&body("job-1", "linux")).await.status, 201);
    let shed = stage.deliver(&body("job-2", "linux")).await;
    assert_eq!((shed.status, shed.retry_after.as_deref()), (503, Some("5")));
    assert!(shed.text.contains("hints.quota"), "{}", shed.text);
    stage.delete_hints();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(stage.deliver(&body("job-2", "linux")).await.status, 201);
}

#[tokio::test]
async fn an_api_server_that_fails_or_hangs_is_a_503_in_time_and_nothing_is_forgotten() {
    let stage = Stage::begin().await;
    let text = body("job-1", "linux");
    stage.fault_creating(Some(Fault { status: Some(500), ..Fault::default() }));
    assert_eq!(stage.deliver(&text).await.status, 503);
    stage.fault_creating(Some(Fault { hangs: true, ..Fault::default() }));
    let hung = tokio::time::timeout(Duration::from_secs(4), stage.deliver(&text)).await.unwrap();
    assert_eq!((hung.status, hung.retry_after.as_deref()), (503, Some("5")));
    assert!(!hung.text.contains("deadline"), "the API server's words are for the log");
    // Stored, and the answer lost: the sender comes again, and there is one hint.
    stage.fault_creating(Some(Fault { loses_answer: true, times: Some(1), ..Fault::default() }));
    assert_eq!(stage.deliver(&text).await.status, 503);
    assert_eq!(stage.deliver(&text).await.status, 200);
    assert_eq!(stage.hints().len(), 1);
}

#[tokio::test]
async fn what_is_no_job_for_agents_is_fine_and_what_is_broken_is_told() {
    let stage = Stage::begin().await;
    let ping = json!({ "event": "ping" }).to_string();
    assert_eq!(stage.deliver(&ping).await.status, 200);
    let broken = stage.deliver("{").await;
    assert_eq!(broken.status, 422);
    assert!(broken.text.contains("body"), "{}", broken.text);
    assert!(stage.hints().is_empty());
}

#[tokio::test]
async fn a_body_without_end_is_refused_before_it_is_held() {
    let stage = Stage::begin().await;
    let refused = stage.deliver(&"x".repeat(600 * 1024)).await;
    assert_eq!(refused.status, 413);
}

#[tokio::test]
async fn a_flood_from_one_address_is_told_so() {
    let stage = Stage::with_rate(5).await;
    let statuses = join_all((0..20).map(|_| stage.without_proof("{}"))).await;
    assert!(statuses.iter().any(|delivered| delivered.status == 429 && delivered.retry_after.is_some()));
    assert!(statuses.iter().any(|delivered| delivered.status == 401));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_ended() {
    let stage = Stage::begin().await;
    let mut silent = tokio::net::TcpStream::connect(stage.address()).await.unwrap();
    silent.write_all(b"POST /webhook HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(15), silent.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "it is still open");
}

#[tokio::test]
async fn a_stop_lets_what_is_being_stored_be_answered() {
    let stage = Stage::begin().await;
    stage.fault_creating(Some(Fault { delay: Duration::from_millis(500), ..Fault::default() }));
    let text = body("job-1", "linux");
    let (delivered, ()) = tokio::join!(stage.deliver(&text), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stage.stop();
    });
    assert_eq!(delivered.status, 201);
}
