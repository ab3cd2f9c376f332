//! Pools: their status, their spec, their versions.

use serde_json::{Value, json};

use super::{OURS, pool};
use crate::{
    server::{JSON_PATCH, MERGE, STRATEGIC, Server},
    transcript::Transcript,
};

fn status_patch(uid: &Value, status: &Value) -> Value {
    json!([
        { "op": "test", "path": "/metadata/uid", "value": uid },
        { "op": "add", "path": "/status", "value": status },
    ])
}

pub(crate) async fn a_pool_s_status_and_spec_do_not_touch_each_other(server: &Server, transcript: &mut Transcript) {
    let all = server.path(OURS, "agentpools");
    let one = server.path(OURS, "agentpools/linux");
    let status = format!("{one}/status?fieldManager=kitepool");
    let mut given = pool("linux");
    given["status"] = json!({ "lastDecision": { "from": 7, "to": 8, "reason": "none of this is kept" } });
    let created = server.post(&format!("{all}?fieldManager=person"), &given).await;
    transcript.answer("create with a status", &created);
    let uid = &created.body["metadata"]["uid"];

    let first = json!({ "replicas": { "desired": 1, "current": 0, "ready": 0, "draining": 0 } });
    transcript.answer("write the status", &server.patch(&status, JSON_PATCH, &status_patch(uid, &first)).await);
    transcript.answer("write it again", &server.patch(&status, JSON_PATCH, &status_patch(uid, &first)).await);
    let another = status_patch(&json!("another"), &first);
    transcript.answer("write that of another", &server.patch(&status, JSON_PATCH, &another).await);
    let sly = json!({ "metadata": { "labels": { "team": "b" } }, "spec": { "queue": "mac" },
                      "status": { "replicas": { "desired": 2 } } });
    transcript.answer("write all through the status", &server.patch(&status, MERGE, &sly).await);
    transcript
        .answer("write all but the status", &server.patch(&format!("{one}?fieldManager=person"), MERGE, &sly).await);
    let annotation = json!({ "metadata": { "annotations": { "kitepool.dev/pause": "up" } } });
    transcript.answer("annotate", &server.patch(&format!("{one}?fieldManager=person"), MERGE, &annotation).await);
    transcript.answer("read", &server.get(&one).await);
    transcript.answer("read the status", &server.get(&format!("{one}/status")).await);
    let missing = server.path(OURS, "agentpools/x/status");
    transcript.answer("of none", &server.patch(&missing, JSON_PATCH, &status_patch(uid, &first)).await);
    transcript.answer("delete", &server.delete(&one, &json!({})).await);
    transcript.answer("read it then", &server.get(&one).await);
}

pub(crate) async fn updates_that_are_late_conflict_and_those_that_change_nothing_are_none(
    server: &Server,
    transcript: &mut Transcript,
) {
    let one = server.path(OURS, "agentpools/linux");
    let created = server.post(&server.path(OURS, "agentpools"), &pool("linux")).await.body;
    let same = server.put(&one, &created).await;
    assert_eq!(same.body["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let mut changed = created.clone();
    changed["spec"]["queue"] = json!("mac");
    transcript.answer("put", &server.put(&one, &changed).await);
    transcript.answer("put what is based on an older one", &server.put(&one, &changed).await);
    let late =
        json!({ "metadata": { "resourceVersion": created["metadata"]["resourceVersion"] }, "spec": { "queue": "x" } });
    transcript.answer("patch an older one", &server.patch(&one, MERGE, &late).await);
    let another = json!({ "metadata": { "uid": "another" }, "spec": { "queue": "x" } });
    transcript.answer("patch another", &server.patch(&one, MERGE, &another).await);
    transcript.answer("patch strategically", &server.patch(&one, STRATEGIC, &another).await);
    transcript.answer("patch as nobody does", &server.patch(&one, "text/plain", &another).await);
    let no_patch = json!({ "op": "test" });
    transcript.note("a patch that is none", json!(server.patch(&one, JSON_PATCH, &no_patch).await.status));
    let bad_path = json!([{ "op": "remove", "path": "/spec/nothing" }]);
    transcript.answer("remove what is not there", &server.patch(&one, JSON_PATCH, &bad_path).await);
    let versioned = json!({ "metadata": { "resourceVersion": "1", "name": "other" } });
    let mut object = pool("other");
    object["metadata"] = versioned["metadata"].clone();
    transcript.answer("create with a version", &server.post(&server.path(OURS, "agentpools"), &object).await);
}
