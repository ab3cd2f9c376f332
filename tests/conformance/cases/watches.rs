//! Watches.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CORE, OURS, pool, secret};
use crate::{
    server::{MERGE, Server},
    transcript::Transcript,
};

/// Type, name, labels and version of each event.
fn told(events: &[(Value, Duration)]) -> Value {
    let told = events.iter().map(|(event, _)| {
        let metadata = &event["object"]["metadata"];
        json!({
            "type": event["type"], "kind": event["object"]["kind"], "apiVersion": event["object"]["apiVersion"],
            "name": metadata["name"], "labels": metadata["labels"], "resourceVersion": metadata["resourceVersion"],
        })
    });
    told.collect()
}

async fn version(server: &Server, all: &str) -> String {
    let list = server.get(&format!("{all}?limit=500")).await.body;
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

pub(crate) async fn watches_tell_what_happened_in_order(server: &Server, transcript: &mut Transcript) {
    let all = server.path(CORE, "secrets");
    let begin = version(server, &all).await;
    let one = |name: &str| server.path(CORE, &format!("secrets/{name}"));
    let label = |x: &str| json!({ "metadata": { "labels": { "x": x } } });
    server.post(&all, &secret("a", &json!({ "x": "1" }))).await;
    server.post(&all, &secret("b", &json!({}))).await;
    server.patch(&one("b"), MERGE, &label("1")).await;
    server.patch(&one("a"), MERGE, &label("2")).await;
    server.patch(&one("a"), MERGE, &label("2")).await;
    server.delete(&one("b"), &json!({})).await;
    server.delete(&one("a"), &json!({})).await;
    server.post(&all, &secret("c", &json!({ "x": "1" }))).await;

    let from =
        |query: &str| format!("{all}?watch=true&timeoutSeconds=20&allowWatchBookmarks=true&resourceVersion={query}");
    transcript.note("all", told(&server.watch(&from(&begin), 7).await));
    transcript.note("a selection", told(&server.watch(&from(&format!("{begin}&labelSelector=x%3D1")), 5).await));
    let middle = server.watch(&from(&begin), 3).await;
    let middle = middle[2].0["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    transcript.note("from the middle", told(&server.watch(&from(&middle), 4).await));
    transcript.note("from anywhere", told(&server.watch(&from("0"), 1).await));

    let live = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.post(&all, &secret("d", &json!({}))).await;
    };
    let now = version(server, &all).await;
    let path = from(&now);
    let (events, ()) = tokio::join!(server.watch(&path, 1), live);
    transcript.note("while it happens", told(&events));

    let pools = server.path(OURS, "agentpools");
    let begin = version(server, &pools).await;
    server.post(&pools, &pool("linux")).await;
    let status = server.path(OURS, "agentpools/linux/status");
    let written = json!({ "status": { "replicas": { "desired": 1 } } });
    server.patch(&status, MERGE, &written).await;
    server.delete(&server.path(OURS, "agentpools/linux"), &json!({})).await;
    let events = server.watch(&format!("{pools}?watch=true&timeoutSeconds=20&resourceVersion={begin}"), 3).await;
    transcript.note("a pool", told(&events));
    transcript.note("its last state", events[2].0["object"]["status"].clone());
}

pub(crate) async fn a_watch_is_bookmarked_and_ends(server: &Server, transcript: &mut Transcript) {
    let all = server.path(CORE, "secrets");
    let begin = version(server, &all).await;
    let query = format!("{all}?watch=true&timeoutSeconds=4&labelSelector=x");
    let out_of_sight = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.post(&all, &secret("a", &json!({}))).await;
    };
    let path = format!("{query}&resourceVersion={begin}&allowWatchBookmarks=true");
    let (events, ()) = tokio::join!(server.watch(&path, 10), out_of_sight);
    let bookmark = |(event, after): &(Value, Duration)| {
        let version = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        let is_before_the_end = *after >= Duration::from_secs(1) && *after < Duration::from_secs(4);
        json!({
            "type": event["type"], "kind": event["object"]["kind"], "isBeforeTheEnd": is_before_the_end,
            "isNewer": version > begin.parse().unwrap(),
        })
    };
    // One is enough; the real one may send another within the last seconds.
    transcript.note("two seconds before the end", events.iter().take(1).map(bookmark).collect());
    let unasked = server.watch(&format!("{query}&resourceVersion={begin}"), 10).await;
    transcript.note("unasked for", told(&unasked));
}

pub(crate) async fn a_watch_from_too_long_ago_is_told_so(server: &Server, transcript: &mut Transcript) {
    // A kind that came to be after the first versions, so that a cache cannot know them.
    let all = server.path(OURS, "agentpools");
    for name in ["a", "b"] {
        server.post(&all, &pool(name)).await;
    }
    server.forget();
    let path = format!("{all}?watch=true&timeoutSeconds=20&allowWatchBookmarks=true&resourceVersion=1");
    let mut events = server.watch(&path, 10).await;
    let message = events[0].0["object"]["message"].take();
    assert!(message.as_str().unwrap().starts_with("too old resource version: 1 ("), "{message}");
    transcript.note("an error and the end", events.into_iter().map(|(event, _)| event).collect());
}
