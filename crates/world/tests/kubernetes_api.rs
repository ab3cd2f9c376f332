//! The simulated API server as a state machine: faults, watches, the past, and the books.

#![cfg(test)]

use std::time::Duration;

use jiff::Timestamp;
use kitepool_world::kubernetes::{
    ApiAnswer, ApiRequest, Fault, Kind, Kubernetes, Route, Settings, Verb, WatchEnd, WatchId,
};
use serde_json::{Value, json};

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn secret(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "ci" } })
}

fn request(method: &str, resource: &str, query: &str) -> ApiRequest {
    ApiRequest {
        method: method.to_owned(),
        path: format!("/api/v1/namespaces/ci/{resource}"),
        query: query.to_owned(),
        user_agent: "kitepool/1.0".to_owned(),
        ..ApiRequest::default()
    }
}

fn create(name: &str) -> ApiRequest {
    ApiRequest { body: secret(name).to_string().into_bytes(), ..request("POST", "secrets", "") }
}

fn told(answer: ApiAnswer) -> (u16, Value) {
    match answer {
        ApiAnswer::Told { status, body } => (status, serde_json::from_str(&body).unwrap()),
        other @ (ApiAnswer::Watching(_) | ApiAnswer::Later(_) | ApiAnswer::Lost) => panic!("{other:?}"),
    }
}

fn watch(kubernetes: &mut Kubernetes, version: &str, now: Timestamp) -> WatchId {
    let query = format!("watch=true&timeoutSeconds=60&allowWatchBookmarks=true&resourceVersion={version}");
    match kubernetes.answer(&request("GET", "secrets", &query), now) {
        ApiAnswer::Watching(id) => id,
        other @ (ApiAnswer::Told { .. } | ApiAnswer::Later(_) | ApiAnswer::Lost) => panic!("{other:?}"),
    }
}

fn types(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["type"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn a_fault_meets_its_route_as_often_as_it_says() {
    let mut kubernetes = Kubernetes::new(Settings::default(), 1, START);
    let route = Route::new(Verb::Create, "secrets");
    let broken = Fault { status: Some(503), times: Some(2), ..Fault::default() };
    kubernetes.set_fault(route.clone(), Some(broken));
    let statuses: Vec<u16> =
        ["a", "b", "c"].map(|name| told(kubernetes.answer(&create(name), START)).0).into_iter().collect();
    assert_eq!(statuses, [503, 503, 201]);
    assert_eq!(told(kubernetes.answer(&request("GET", "secrets/c", ""), START)).0, 200);
    kubernetes.set_fault(route.clone(), Some(Fault { status: Some(500), permille: 300, ..Fault::default() }));
    let broken = (0..1_000).filter(|n| told(kubernetes.answer(&create(&format!("n{n}")), START)).0 == 500).count();
    assert!((250..350).contains(&broken), "{broken}");
    let counts = &kubernetes.requests()[&route];
    assert_eq!(counts[&503], 2);
    assert_eq!(counts[&201] + counts[&500], 1_001);
}

#[test]
fn a_late_write_is_done_whether_somebody_waits_or_not() {
    let mut kubernetes = Kubernetes::new(Settings::default(), 1, START);
    let late = Fault { delay: Duration::from_secs(5), ..Fault::default() };
    kubernetes.set_fault(Route::new(Verb::Create, "secrets"), Some(late));
    let tickets = ["a", "b"].map(|name| match kubernetes.answer(&create(name), START) {
        ApiAnswer::Later(ticket) => ticket,
        other @ (ApiAnswer::Told { .. } | ApiAnswer::Watching(_) | ApiAnswer::Lost) => panic!("{other:?}"),
    });
    kubernetes.give_up(tickets[0]);
    assert_eq!(kubernetes.next_at(), Some(at(5)));
    assert!(kubernetes.take_answer(tickets[1]).is_none());
    kubernetes.advance(at(5));
    assert_eq!(kubernetes.objects(Kind::Secret, "ci").len(), 2);
    assert!(kubernetes.take_answer(tickets[0]).is_none());
    assert_eq!(told(kubernetes.take_answer(tickets[1]).unwrap()).0, 201);
}

#[test]
fn a_watch_tells_what_it_missed_then_what_happens_then_that_it_ends() {
    let mut kubernetes = Kubernetes::new(Settings::default(), 1, START);
    let first = kubernetes.put("hand", secret("a"), START).unwrap();
    kubernetes.put("hand", secret("b"), START).unwrap();
    let id = watch(&mut kubernetes, first["metadata"]["resourceVersion"].as_str().unwrap(), START);
    assert_eq!(types(&kubernetes.take_watch(id).lines), ["ADDED"]);
    kubernetes.delete("hand", (Kind::Secret, "ci", "a"), at(10)).unwrap();
    assert_eq!(types(&kubernetes.take_watch(id).lines), ["DELETED"]);
    kubernetes.advance(at(59));
    assert_eq!(types(&kubernetes.take_watch(id).lines), ["BOOKMARK"]);
    kubernetes.advance(at(60));
    assert_eq!(kubernetes.take_watch(id).end, Some(WatchEnd::Clean));
    assert_eq!(kubernetes.watch_count(), 0);
}

#[test]
fn a_watch_that_falls_behind_is_ended_and_one_from_the_forgotten_past_told_so() {
    let settings = Settings { watch_lines: 3, history: 5, ..Settings::default() };
    let mut kubernetes = Kubernetes::new(settings, 1, START);
    let first = kubernetes.put("hand", secret("a"), START).unwrap();
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let id = watch(&mut kubernetes, version, START);
    for name in ["b", "c", "d", "e"] {
        kubernetes.put("hand", secret(name), START).unwrap();
    }
    let news = kubernetes.take_watch(id);
    assert_eq!((news.lines.len(), news.end), (0, Some(WatchEnd::Clean)));
    let page = told(kubernetes.answer(&request("GET", "secrets", "limit=2"), START)).1;
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    for name in ["f", "g", "h", "i", "j", "k"] {
        kubernetes.put("hand", secret(name), START).unwrap();
    }
    let id = watch(&mut kubernetes, version, START);
    let news = kubernetes.take_watch(id);
    assert_eq!((types(&news.lines), news.end), (vec!["ERROR".to_owned()], Some(WatchEnd::Clean)));
    assert!(news.lines[0].contains("too old resource version") && news.lines[0].contains("410"), "{}", news.lines[0]);
    let (status, body) =
        told(kubernetes.answer(&request("GET", "secrets", &format!("limit=2&continue={token}")), START));
    assert_eq!((status, body["reason"].as_str()), (410, Some("Expired")));
}

#[test]
fn what_is_not_known_is_loud_and_kept() {
    let mut kubernetes = Kubernetes::new(Settings::default(), 1, START);
    let (status, body) = told(kubernetes.answer(&request("GET", "services", ""), START));
    assert_eq!(status, 501);
    assert!(body["message"].as_str().unwrap().contains("does not know"), "{body}");
    let body = br#"{"propagationPolicy":"Orphan"}"#.to_vec();
    kubernetes.put("hand", secret("a"), START).unwrap();
    let orphan = ApiRequest { body, ..request("DELETE", "secrets/a", "") };
    assert_eq!(told(kubernetes.answer(&orphan, START)).0, 501);
    assert_eq!(kubernetes.unknown().len(), 2);
}

#[test]
fn every_write_is_in_the_books_with_who_made_it() {
    let mut kubernetes = Kubernetes::new(Settings::default(), 1, START);
    kubernetes.answer(&create("a"), at(3));
    kubernetes.answer(&create("a"), at(4));
    kubernetes.answer(&request("GET", "secrets/a", ""), at(4));
    kubernetes.delete("hand", (Kind::Secret, "ci", "a"), at(5)).unwrap();
    let written: Vec<(i64, String, Verb, String, u16)> = kubernetes
        .take_writes()
        .into_iter()
        .map(|write| (write.at.as_second(), write.who, write.verb, write.name, write.status))
        .collect();
    assert_eq!(
        written,
        [
            (3, "kitepool".to_owned(), Verb::Create, "a".to_owned(), 201),
            (4, "kitepool".to_owned(), Verb::Create, "a".to_owned(), 409),
            (5, "hand".to_owned(), Verb::Delete, "a".to_owned(), 200),
        ]
    );
    assert_eq!(kubernetes.writes().count(), 0);
}
