//! The simulated Kubernetes behind kube's own client, in virtual time and without a socket.

use std::{pin::pin, time::Duration};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kitepool_world::kubernetes::{Fault, Kind, Kubernetes, Route, Settings, Shared, Verb, WatchEnd, drive, router};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
    runtime::watcher::{self, Event},
};
use tokio::time::Instant;

/// A virtual clock over tokio's.
#[expect(clippy::disallowed_methods, reason = "the one clock of these tests")]
fn clock() -> impl Fn() -> Timestamp + Clone + Send + Sync + 'static {
    let began = Instant::now();
    move || Timestamp::UNIX_EPOCH + began.elapsed()
}

fn start(settings: Settings) -> (Shared, Client) {
    let clock = clock();
    let shared = Shared::new(Kubernetes::new(settings, 1, clock()));
    tokio::spawn(drive(shared.clone(), clock.clone()));
    (shared.clone(), Client::new(router(shared, clock), "ci"))
}

fn secret(name: &str) -> Secret {
    Secret { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..Secret::default() }
}

/// Reads on until the watcher has told of so many objects, and names what it told.
async fn told(
    events: &mut (impl futures::Stream<Item = watcher::Result<Event<Secret>>> + Unpin),
    count: usize,
) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        match events.next().await.unwrap() {
            Ok(Event::Init) => told.push("init".to_owned()),
            Ok(Event::InitApply(o)) => told.push(format!("list {}", o.metadata.name.unwrap())),
            Ok(Event::InitDone) => told.push("listed".to_owned()),
            Ok(Event::Apply(o)) => told.push(format!("apply {}", o.metadata.name.unwrap())),
            Ok(Event::Delete(o)) => told.push(format!("delete {}", o.metadata.name.unwrap())),
            Err(error) => told.push(format!("error {error}")),
        }
    }
    told
}

#[tokio::test(start_paused = true)]
async fn a_watcher_lists_by_pages_and_follows_through_ends_and_cuts() {
    let (shared, client) = start(Settings::default());
    let api: Api<Secret> = Api::namespaced(client, "ci");
    for name in ["a", "b", "c"] {
        api.create(&PostParams::default(), &secret(name)).await.unwrap();
    }
    let config = watcher::Config::default().page_size(2).timeout(60);
    let mut events = pin!(watcher::watcher(api.clone(), config));
    assert_eq!(told(&mut events, 5).await, ["init", "list a", "list b", "list c", "listed"]);

    // Past the end of two watches, which nobody notices.
    let later = {
        let api = api.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(150)).await;
            api.create(&PostParams::default(), &secret("d")).await.unwrap();
            api.delete("a", &DeleteParams::default()).await.unwrap();
        })
    };
    assert_eq!(told(&mut events, 2).await, ["apply d", "delete a"]);
    later.await.unwrap();
    shared.with(Timestamp::UNIX_EPOCH, |kubernetes| {
        kubernetes.end_watches(Some(Kind::Secret), WatchEnd::Cut);
        kubernetes.delete("somebody", (Kind::Secret, "ci", "b"), Timestamp::UNIX_EPOCH).unwrap();
    });
    let after_cut = told(&mut events, 2).await;
    assert!(after_cut[0].starts_with("error"), "{after_cut:?}");
    assert_eq!(after_cut[1], "delete b");

    // What is forgotten meanwhile is listed anew.
    shared.with(Timestamp::UNIX_EPOCH, |kubernetes| {
        kubernetes.end_watches(None, WatchEnd::Clean);
        kubernetes.delete("somebody", (Kind::Secret, "ci", "c"), Timestamp::UNIX_EPOCH).unwrap();
        kubernetes.compact();
    });
    let after_compaction = told(&mut events, 4).await;
    assert!(after_compaction[0].contains("too old resource version"), "{after_compaction:?}");
    assert_eq!(after_compaction[1..], ["init", "list d", "listed"]);
    shared.with(Timestamp::UNIX_EPOCH, |kubernetes| {
        assert!(kubernetes.unknown().is_empty());
    });
}

#[tokio::test(start_paused = true)]
async fn a_delayed_write_lands_after_its_client_gave_up() {
    let (shared, client) = start(Settings::default());
    let api: Api<Secret> = Api::namespaced(client, "ci");
    let create = Route::new(Verb::Create, "secrets");
    let late = Fault { delay: Duration::from_secs(8), ..Fault::default() };
    shared.with(Timestamp::UNIX_EPOCH, |kubernetes| kubernetes.set_fault(create.clone(), Some(late)));
    let patience = tokio::time::timeout(Duration::from_secs(5), api.create(&PostParams::default(), &secret("a"))).await;
    assert!(patience.is_err());
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);

    let lost = Fault { loses_answer: true, times: Some(1), ..Fault::default() };
    shared.with(Timestamp::UNIX_EPOCH, |kubernetes| kubernetes.set_fault(create, Some(lost)));
    assert!(api.create(&PostParams::default(), &secret("b")).await.is_err());
    assert!(api.get("b").await.is_ok());
    let again = api.create(&PostParams::default(), &secret("b")).await.unwrap_err();
    assert!(matches!(again, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists"));

    let hangs = Fault { hangs: true, ..Fault::default() };
    shared
        .with(Timestamp::UNIX_EPOCH, |kubernetes| kubernetes.set_fault(Route::new(Verb::Get, "secrets"), Some(hangs)));
    assert!(tokio::time::timeout(Duration::from_hours(1), api.get("b")).await.is_err());
}
