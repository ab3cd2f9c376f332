//! Single objects: created, read, deleted.

use serde_json::{Value, json};

use super::{APPS, CORE, EVENTS, deployment, settled};
use crate::{
    server::{APPLY, MERGE, Server},
    transcript::Transcript,
};

pub(crate) async fn deployments_are_created_read_and_deleted(server: &Server, transcript: &mut Transcript) {
    let all = server.path(APPS, "deployments");
    let one = server.path(APPS, "deployments/d");
    transcript.answer("read what is not there", &server.get(&one).await);
    let created = server.post(&format!("{all}?fieldManager=kitepool"), &deployment("d", 0)).await;
    transcript.answer("create", &created);
    transcript.answer("create again", &server.post(&all, &deployment("d", 0)).await);
    settled(server, "d", 0).await;
    transcript.answer("read", &server.get(&one).await);
    let mut listed = server.get(&format!("{all}?limit=500")).await;
    // Whatever is written anywhere meanwhile makes the list's own version a later one.
    let version = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
    let own = listed.body["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    let newest = version(&listed.body["items"][0]["metadata"]["resourceVersion"]);
    transcript.answer("list", &listed);
    let is_no_older = own.as_ref().and_then(version).zip(newest).is_some_and(|(own, newest)| own >= newest);
    transcript.note("it is no older than what is in it", json!(is_no_older));

    let wrong = json!({ "propagationPolicy": "Background", "preconditions": { "uid": "another" } });
    transcript.answer("delete another", &server.delete(&one, &wrong).await);
    let late = json!({ "preconditions": { "resourceVersion": "1" } });
    let refused = server.delete(&one, &late).await.body;
    transcript.parts("delete an older", &refused, &["/code", "/reason", "/details"]);
    let right =
        json!({ "propagationPolicy": "Background", "preconditions": { "uid": created.body["metadata"]["uid"] } });
    transcript.answer("delete", &server.delete(&one, &right).await);
    transcript.answer("delete again", &server.delete(&one, &right).await);
}

pub(crate) async fn events_are_created_and_counted_up(server: &Server, transcript: &mut Transcript) {
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": "linux.1", "namespace": server.namespace },
        "action": "Grew", "reason": "Grew", "note": "from 1 to 2", "type": "Normal",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "kitepool", "reportingInstance": "kitepool-0",
        "regarding": { "apiVersion": "kitepool.dev/v1alpha1", "kind": "AgentPool", "name": "linux",
                       "namespace": server.namespace, "uid": "0123" },
    });
    transcript.answer("create", &server.post(&server.path(EVENTS, "events"), &event).await);
    event["series"] = json!({ "count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z" });
    let one = server.path(EVENTS, "events/linux.1");
    transcript.answer("count up", &server.patch(&one, MERGE, &event).await);
    transcript.answer("count up what is not there", &server.patch(&format!("{one}x"), MERGE, &event).await);
    for kind in ["AgentPool", "Pod"] {
        let about = format!("{}?limit=500&fieldSelector=regarding.kind={kind}", server.path(EVENTS, "events"));
        let list = server.get(&about).await.body;
        let names = list["items"].as_array().unwrap().iter().map(|event| event["metadata"]["name"].clone()).collect();
        transcript.note(&format!("those about a {kind}"), names);
    }
}

pub(crate) async fn secrets_are_read_as_written(server: &Server, transcript: &mut Transcript) {
    let one = server.path(CORE, "secrets/agent-token");
    transcript.answer("read what is not there", &server.get(&one).await);
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "agent-token" },
                         "stringData": { "token": "token-1" } });
    let apply = format!("{one}?fieldManager=somebody&force=true");
    transcript.answer("apply", &server.patch(&apply, APPLY, &secret).await);
    transcript.answer("apply again", &server.patch(&apply, APPLY, &secret).await);
    transcript.answer("read", &server.get(&one).await);
    let template = json!({ "apiVersion": "v1", "kind": "PodTemplate", "metadata": { "name": "agent" }, "template": {
        "metadata": { "labels": { "a": "b" } },
        "spec": { "containers": [{ "name": "agent", "image": "agent:1" }] },
    } });
    let created = server.post(&server.path(CORE, "podtemplates"), &template).await;
    let parts = [
        "/kind",
        "/apiVersion",
        "/metadata/generation",
        "/template/spec/terminationGracePeriodSeconds",
        "/template/metadata/labels",
    ];
    transcript.parts("create a pod definition", &created.body, &parts);
    let one = server.path(CORE, "podtemplates/agent");
    let grace = json!({ "template": { "spec": { "terminationGracePeriodSeconds": 60 } } });
    let changed = server.patch(&one, MERGE, &grace).await;
    transcript.parts("change a pod definition", &changed.body, &parts);
    transcript.parts("delete a pod definition", &server.delete(&one, &json!({})).await.body, &["/kind", "/status"]);
}
