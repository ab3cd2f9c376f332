//! Hints: created by those who may do nothing else, bounded by a quota, deleted by the controller.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CORE, OURS};
use crate::{server::Server, transcript::Transcript};

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
