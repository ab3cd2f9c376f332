//! Lists.

use serde_json::{Value, json};

use super::{CORE, secret};
use crate::{server::Server, transcript::Transcript};

fn names(list: &Value) -> Value {
    list["items"].as_array().into_iter().flatten().map(|item| item["metadata"]["name"].clone()).collect()
}

pub(crate) async fn lists_come_by_pages_of_one_moment(server: &Server, transcript: &mut Transcript) {
    let all = server.path(CORE, "secrets");
    transcript.answer("an empty one", &server.get(&format!("{all}?limit=500")).await);
    for (name, labels) in
        [("a", json!({ "x": "1" })), ("b", json!({ "x": "2" })), ("c", json!({})), ("d", json!({ "x": "1" }))]
    {
        server.post(&all, &secret(name, &labels)).await;
    }
    let first = server.get(&format!("{all}?limit=3")).await;
    transcript.note("the first page", names(&first.body));
    transcript.parts("its metadata", &first.body, &["/metadata/continue", "/metadata/remainingItemCount"]);
    server.delete(&server.path(CORE, "secrets/d"), &json!({})).await;
    server.post(&all, &secret("e", &json!({}))).await;
    let token = first.body["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{all}?limit=3&continue={token}")).await;
    transcript.note("the second page", names(&second.body));
    transcript.parts("its metadata too", &second.body, &["/metadata/continue", "/metadata/remainingItemCount"]);
    assert_eq!(first.body["metadata"]["resourceVersion"], second.body["metadata"]["resourceVersion"]);
    let now = server.get(&all).await;
    transcript.note("all of now", names(&now.body));
    let newer = |list: &Value| list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(newer(&now.body) > newer(&first.body));
    for selector in ["x=1", "x!=1", "x in (1,2)", "x notin (1)", "x", "!x", "x=1,!y"] {
        let encoded = selector.replace(' ', "%20").replace('=', "%3D").replace(',', "%2C").replace('!', "%21");
        let selected = server.get(&format!("{all}?labelSelector={encoded}")).await;
        transcript.note(selector, names(&selected.body));
    }
    let selected = server.get(&format!("{all}?limit=1&labelSelector=x")).await;
    transcript.parts("a page of a selection", &selected.body, &["/metadata/continue", "/metadata/remainingItemCount"]);
    let nowhere = server.get(&format!("{all}?limit=3&continue=nonsense")).await.body;
    transcript.parts("a page of nowhere", &nowhere, &["/code", "/reason", "/details"]);
    let mut item = now.body["items"][0].clone();
    item["metadata"].as_object_mut().unwrap().remove("managedFields");
    transcript.note("an item", item);
    let unserved = server.path(server.unserved(), "agentpools");
    transcript.answer("kinds that are not there", &server.get(&unserved).await);
}
