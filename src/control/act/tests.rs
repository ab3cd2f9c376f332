use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Mutex,
};

use http::{Request, Response};
use jiff::Timestamp;
use kube::client::{Body, Client};
use tower::service_fn;

use super::*;
use crate::{
    agents::{Ask, Asking},
    sense::probe::ProbeSet,
};

/// Agents that all do the same.
struct All(&'static str);

impl Ask for All {
    fn ask<'a>(&'a self, _: &'a Address) -> Asking<'a> {
        Box::pin(async move { Ok(format!(r#"{{"workers":[{{"status":"{}"}}]}}"#, self.0).into_bytes()) })
    }
}

/// What is written, and to where.
type Written = Arc<Mutex<Vec<String>>>;

/// An API server that takes 20 ms for everything, and agrees.
fn server() -> (Client, Written) {
    let written = Written::default();
    let requests = Arc::clone(&written);
    let server = service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        let requests = Arc::clone(&requests);
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let last = path.rsplit('/').next().unwrap_or_default();
            let (version, kind) = match last {
                "scale" => ("autoscaling/v1", "Scale"),
                _ => ("kitepool.dev/v1alpha1", "AgentPool"),
            };
            let body = format!(
                r#"{{"apiVersion":"{version}","kind":"{kind}","metadata":{{"name":"a","resourceVersion":"7"}}}}"#
            );
            requests.lock().unwrap().push(path);
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(body.into_bytes())))
        }
    });
    (Client::new(server, "ci"), written)
}

fn writers(agents: &'static str) -> (Writers, Written, Arc<Notify>) {
    let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
    let (client, written) = server();
    let wake = Arc::new(Notify::new());
    let writer = Writer::new(client.clone(), NonZeroU32::new(400).unwrap(), clock.clone());
    let last_word = ProbeSet::begin(Arc::new(All(agents)), clock.clone(), Arc::clone(&wake)).last_word();
    let writers = Writers::new(Arc::new(writer), Reader::new(client), last_word, clock, Arc::clone(&wake));
    (writers, written, wake)
}

fn work(status: Option<Value>, acts: Vec<Act>) -> Work {
    Work {
        pool: PoolName { namespace: "ci".to_owned(), name: "linux".to_owned() },
        uid: "pool".to_owned(),
        record: Record::First { status, notices: Vec::new() },
        memory: Memory::default(),
        acts,
        reason: "because".to_owned(),
        urgency: Urgency::Act,
    }
}

fn scale(generation: &str, from: u32, to: u32, ask: &[&str]) -> Act {
    let address = |uid: &&str| Address {
        namespace: "ci".to_owned(),
        pod: (*uid).to_owned(),
        uid: (*uid).to_owned(),
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 8080,
    };
    let ask = ask.iter().map(address).collect();
    Act::Scale { generation: generation.to_owned(), from: Pods(from), to: Pods(to), ask }
}

/// The only outcome that there will be.
async fn outcome(writers: &mut Writers, wake: &Notify) -> Outcome {
    loop {
        if let Some(outcome) = writers.ended().pop() {
            return outcome;
        }
        wake.notified().await;
        // The task has woken us just before its end.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_pod_that_was_to_go_has_found_work_neither_it_goes_nor_does_anything_follow() {
    let shrink = || vec![scale("old", 3, 2, &["a", "b"]), scale("new", 1, 2, &[])];
    let (mut writers, written, wake) = writers("busy");
    writers.begin(work(Some(Value::Null), shrink()));
    let held = outcome(&mut writers, &wake).await;
    assert_eq!(held.held, Some(("old".to_owned(), Pods(3))));
    assert!(held.landed.is_empty() && held.done.is_empty() && held.failure.is_none(), "{held:?}");
    assert!(held.status.is_some(), "what was intended stands all the same");
    assert_eq!(written.lock().unwrap().len(), 1, "the status alone");
    assert!(writers.is_free("pool"), "it is no failure: nothing waits for a retry");

    let (mut writers, written, wake) = self::writers("idle");
    writers.begin(work(Some(Value::Null), shrink()));
    let sent = outcome(&mut writers, &wake).await;
    assert_eq!((sent.held.clone(), sent.done.len(), sent.landed.len()), (None, 2, 2), "{sent:?}");
    assert_eq!(written.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_act_learns_at_once_that_the_report_in_its_way_has_ended() {
    let (mut writers, _, wake) = writers("idle");
    writers.begin(work(Some(Value::Null), Vec::new()));
    assert!(!writers.is_free("pool"));
    writers.act_waits("pool");
    assert!(!writers.is_way_free());
    wake.notified().await;
    assert!(writers.is_way_free(), "known before it is taken in");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(writers.ended().len(), 1);
    assert!(!writers.is_way_free() && writers.is_free("pool"), "said once");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_no_act_waits_for_and_an_act_before_another_hurry_nobody() {
    for (acts, waits) in [(Vec::new(), false), (vec![scale("one", 1, 2, &[])], true)] {
        let (mut writers, _, wake) = writers("idle");
        writers.begin(work(Some(Value::Null), acts));
        if waits {
            writers.act_waits("pool");
        }
        wake.notified().await;
        assert!(!writers.is_way_free());
    }
}

#[tokio::test(start_paused = true)]
async fn a_raise_that_records_itself_is_one_write_and_leaves_the_rest_to_a_report() {
    let (mut writers, written, wake) = writers("idle");
    let decided = Some(serde_json::json!({ "to": 2 }));
    let record = Record::After { decided: decided.clone() };
    writers.begin(Work { record, ..work(None, vec![scale("one", 1, 2, &[])]) });
    let raised = outcome(&mut writers, &wake).await;
    assert_eq!((raised.status, raised.untold, raised.is_unrecorded), (None, decided, true));
    assert_eq!((raised.memory, raised.landed.len()), (Some(Memory::default()), 1));
    assert_eq!(written.lock().unwrap().len(), 1);
    assert!(!writers.has_failed("pool"));
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_all_is_waited_for_is_taken_in_afterwards() {
    let (mut writers, _, _) = writers("idle");
    writers.begin(work(Some(Value::Null), Vec::new()));
    writers.drain().await;
    assert_eq!(writers.ended().len(), 1);
    assert!(writers.is_free("pool"));
}
