//! Hints: created by those who may do nothing else, bounded by a quota, deleted by the controller.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use kitepool::{clock::Clock, cluster::write::Writer};
use serde_json::{Value, json};

use super::{CORE, OURS};
use crate::{
    server::{MERGE, Server},
    transcript::Transcript,
};

fn hint(name: &str) -> Value {
    json!({
        "apiVersion": "kitepool.dev/v1alpha1",
        "kind": "JobHint",
        "metadata": { "name": name },
        "spec": { "source": "webhook", "jobs": [{
            "id": "0190a0a0-0000-4000-8000-000000000000", "queue": "linux", "rules": ["queue=linux"],
            "runnableAt": "2026-01-01T00:00:00Z",
        }] },
    })
}

/// A quota on a kind that is new is not known for a while, and what it counts is refused until then.
async fn bound(server: &Server, hints: u64) {
    let hard = json!({ "count/jobhints.kitepool.dev": hints.to_string() });
    let quota = json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "hints" }, "spec": { "hard": hard } });
    let one = server.path(CORE, "resourcequotas/hints");
    for _ in 0..90 {
        server.post(&server.path(CORE, "resourcequotas"), &quota).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if !server.get(&one).await.body["status"]["used"]["count/jobhints.kitepool.dev"].is_null() {
            return;
        }
        server.delete(&one, &json!({})).await;
    }
    panic!("the quota was never counted");
}

pub(crate) async fn hints_are_created_once_counted_and_deleted(server: &Server, transcript: &mut Transcript) {
    let all = server.path(OURS, "jobhints");
    bound(server, 3).await;
    let created = server.post(&all, &hint("a")).await;
    transcript.answer("create", &created);
    transcript.answer("create again", &server.post(&all, &hint("a")).await);
    // The second of the same name is counted though it is refused.
    transcript.note("one more", json!(server.post(&all, &hint("b")).await.status));
    transcript.answer("one too many", &server.post(&all, &hint("c")).await);
    transcript.answer("one that is there, too many", &server.post(&all, &hint("a")).await);
    let one = server.path(OURS, "jobhints/a");
    let same = |uid: &Value| json!({ "preconditions": { "uid": uid } });
    transcript.answer("delete another", &server.delete(&one, &same(&json!("another"))).await);
    transcript.answer("delete", &server.delete(&one, &same(&created.body["metadata"]["uid"])).await);
    transcript.answer("delete again", &server.delete(&one, &same(&created.body["metadata"]["uid"])).await);
    let mut again = server.post(&all, &hint("c")).await;
    for _ in 0..60 {
        if again.status != 403 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        again = server.post(&all, &hint("c")).await;
    }
    transcript.note("one in its place", json!(again.status));
    transcript.parts(
        "list",
        &server.get(&format!("{all}?limit=500")).await.body,
        &["/kind", "/apiVersion", "/items/0", "/items/2"],
    );
}

pub(crate) async fn hints_of_one_moment_are_deleted_together(server: &Server, transcript: &mut Transcript) {
    let all = server.path(OURS, "jobhints");
    let version = |hint: &Value| hint["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1" });
    let mut versions = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        versions.push(version(&server.post(&all, &hint(name)).await.body));
    }
    let at = |version: &str| format!("{all}?resourceVersion={version}&resourceVersionMatch=Exact");
    let left = async || {
        let list = server.get(&all).await.body;
        list["items"].as_array().unwrap().iter().map(|hint| hint["metadata"]["name"].clone()).collect::<Value>()
    };
    server.delete(&server.path(OURS, "jobhints/a"), &json!({})).await;
    transcript.answer("those of the second one's version", &server.delete(&at(&versions[1]), &options).await);
    transcript.note("what is left", left().await);

    // Neither a change nor a new one of the name keeps an old one from going.
    let path = server.path(OURS, "jobhints/c");
    server.patch(&path, MERGE, &json!({ "metadata": { "annotations": { "a": "b" } } })).await;
    server.delete(&server.path(OURS, "jobhints/d"), &json!({})).await;
    server.post(&all, &hint("d")).await;
    let again = server.delete(&at(&versions[3]), &options).await;
    transcript.note("those of the fourth one's version", json!(again.status));
    transcript.note("what is left then", left().await);

    transcript.answer("those of no version", &server.delete(&at("0"), &options).await);
    let labelled = json!({ "metadata": { "labels": { "x": "1" } } });
    server.patch(&server.path(OURS, "jobhints/e"), MERGE, &labelled).await;
    server.post(&all, &hint("f")).await;
    transcript
        .note("those with a label", json!(server.delete(&format!("{all}?labelSelector=x%3D1"), &options).await.status));
    transcript.note("what is left in the end", left().await);
    for name in ["a", "b", "c", "d"] {
        server.post(&all, &hint(name)).await;
    }
    let spared = format!("{all}?limit=2&fieldSelector=metadata.name!=a,metadata.name!=c");
    let first = server.delete(&spared, &options).await.body;
    transcript.parts("a page without some names", &first, &["/metadata/continue", "/items/0/metadata/name"]);
    transcript.note("what is left of them", left().await);
    let last = server.delete(&spared, &options).await.body;
    transcript.parts("the rest", &last, &["/metadata/continue", "/items"]);
}

pub(crate) async fn the_controller_deletes_many_hints_and_exactly_those(server: &Server, transcript: &mut Transcript) {
    let all = server.path(OURS, "jobhints");
    let writer =
        Writer::new(server.client.clone(), NonZeroU32::new(50).unwrap(), Clock::fixed(jiff::Timestamp::UNIX_EPOCH));
    let mut over = BTreeMap::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let uid = server.post(&all, &hint(name)).await.body["metadata"]["uid"].as_str().unwrap().to_owned();
        if !["b", "f"].contains(&name) {
            over.insert(name.to_owned(), uid);
        }
    }
    server.delete(&server.path(OURS, "jobhints/d"), &json!({})).await;
    server.post(&all, &hint("d")).await;
    let names = |gone: Vec<(String, String)>| gone.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let gone = writer.delete_hints(&server.namespace, &over).await.unwrap();
    transcript.note("what goes", json!(names(gone)));
    let list = server.get(&all).await.body;
    let left: Value = list["items"].as_array().unwrap().iter().map(|hint| hint["metadata"]["name"].clone()).collect();
    transcript.note("what is left", left);
    let again = writer.delete_hints(&server.namespace, &over).await.unwrap();
    transcript.note("what goes the second time", json!(names(again)));
}
