//! The scale of a Deployment.

use serde_json::{Value, json};

use super::{APPS, deployment, settled};
use crate::{
    server::{Answer, JSON_PATCH, MERGE, Server},
    transcript::Transcript,
};

/// The status of a scale is counted by the controllers, which nobody waits for here.
fn asked(answer: Answer) -> Answer {
    let Answer { status, mut body } = answer;
    if body["kind"] == "Scale" {
        body["status"]["replicas"] = Value::Null;
    }
    Answer { status, body }
}

pub(crate) async fn scale_is_tested_patched_and_owned(server: &Server, transcript: &mut Transcript) {
    server.post(&format!("{}?fieldManager=kitepool", server.path(APPS, "deployments")), &deployment("d", 0)).await;
    settled(server, "d", 0).await;
    let scale = server.path(APPS, "deployments/d/scale");
    let ours = format!("{scale}?fieldManager=kitepool");
    transcript.answer("none", &asked(server.get(&scale).await));
    let up = json!([
        { "op": "test", "path": "/spec", "value": {} },
        { "op": "add", "path": "/spec/replicas", "value": 2 },
    ]);
    transcript.answer("from none to two", &asked(server.patch(&ours, JSON_PATCH, &up).await));
    settled(server, "d", 2).await;
    transcript.answer("from none to two again", &asked(server.patch(&ours, JSON_PATCH, &up).await));
    let more = json!([
        { "op": "test", "path": "/spec/replicas", "value": 2 },
        { "op": "replace", "path": "/spec/replicas", "value": 3 },
    ]);
    transcript.answer("from two to three", &asked(server.patch(&ours, JSON_PATCH, &more).await));
    let grown = settled(server, "d", 3).await;
    transcript.answer("from two to three again", &asked(server.patch(&ours, JSON_PATCH, &more).await));
    transcript.parts("our field", &grown, &["/metadata/generation", "/spec/replicas"]);
    transcript.note("who owns replicas", owners(&grown));

    let theirs = format!("{scale}?fieldManager=somebody");
    let two = json!({ "spec": { "replicas": 2 } });
    transcript.answer("somebody scales", &asked(server.patch(&theirs, MERGE, &two).await));
    let scaled = settled(server, "d", 2).await;
    transcript.note("who owns replicas then", owners(&scaled));
    let same = asked(server.patch(&theirs, MERGE, &two).await);
    assert_eq!(same.body["metadata"]["resourceVersion"], scaled["metadata"]["resourceVersion"], "no change, no write");
    let negative = json!({ "spec": { "replicas": -1 } });
    transcript.answer("less than none", &server.patch(&theirs, MERGE, &negative).await);
    let late = json!({ "metadata": { "resourceVersion": "1" }, "spec": { "replicas": 5 } });
    transcript.answer("scale of an older one", &server.patch(&theirs, MERGE, &late).await);
    let uid = json!({ "metadata": { "uid": "another" }, "spec": { "replicas": 5 } });
    transcript.note("scale of another", json!(server.patch(&theirs, MERGE, &uid).await.status));
    let down = json!([
        { "op": "test", "path": "/spec/replicas", "value": 2 },
        { "op": "replace", "path": "/spec/replicas", "value": 0 },
    ]);
    transcript.answer("down to none", &asked(server.patch(&ours, JSON_PATCH, &down).await));
    let mut object = server.get(&scale).await.body;
    object["spec"]["replicas"] = json!(1);
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    transcript.answer("put", &asked(server.put(&ours, &object).await));
    let missing = server.path(APPS, "deployments/x/scale");
    transcript.answer("scale what is not there", &server.patch(&missing, JSON_PATCH, &up).await);
}

/// The entries that own `spec.replicas`, or stand under `scale`.
fn owners(deployment: &Value) -> Value {
    let entries = deployment["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let owning = entries
        .into_iter()
        .filter(|entry| entry["subresource"] == "scale" || entry.pointer("/fieldsV1/f:spec/f:replicas").is_some());
    let mut owning: Vec<Value> = owning
        .map(|entry| {
            json!({
                "manager": entry["manager"], "operation": entry["operation"], "subresource": entry["subresource"],
                "apiVersion": entry["apiVersion"], "replicas": entry["fieldsV1"]["f:spec"].get("f:replicas"),
            })
        })
        .collect();
    owning.sort_by_key(Value::to_string);
    json!(owning)
}
