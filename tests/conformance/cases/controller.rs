//! The controller's own code against both.

use std::{collections::BTreeMap, num::NonZeroU32};

use jiff::Timestamp;
use kitepool::{
    clock::Clock,
    cluster::{
        read::Reader,
        schema,
        write::{Urgency, Writer},
    },
};
use kitepool_policy::spec::PoolName;
use serde_json::json;

use super::{APPS, CORE, OURS, deployment, pool, settled};
use crate::{
    server::{MERGE, Server},
    transcript::Transcript,
};

pub(crate) async fn the_schema_and_the_views_of_the_controller_agree(server: &Server, transcript: &mut Transcript) {
    transcript.note("what is wrong with the definitions", json!(schema::problem(&server.client).await));
    let reader = Reader::new(server.client.clone());
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "agent-token" },
                         "stringData": { "token": "token-1\n" } });
    let missing = reader.secret_token(&server.namespace, "agent-token", "token").await.unwrap_err();
    transcript.note("a Secret that is not there", json!(missing.to_string()));
    server.post(&server.path(CORE, "secrets"), &secret).await;
    assert!(reader.secret_token(&server.namespace, "agent-token", "token").await.is_ok());
    let no_key = reader.secret_token(&server.namespace, "agent-token", "other").await.unwrap_err();
    transcript.note("a key that is not there", json!(no_key.to_string()));

    server.post(&format!("{}?fieldManager=kitepool", server.path(APPS, "deployments")), &deployment("d", 0)).await;
    settled(server, "d", 0).await;
    let view = reader.deployment(&server.namespace, "d").await.unwrap().unwrap();
    let labels = BTreeMap::from([
        ("kitepool.dev/pool".to_owned(), "linux".to_owned()),
        ("kitepool.dev/generation".to_owned(), "d".to_owned()),
    ]);
    assert!(view.selects(&labels) && !view.selects(&BTreeMap::new()) && view.created_at.is_some());
    let told = |view: &kitepool::cluster::view::DeploymentView| {
        json!({ "isObserved": view.is_observed, "replicas": view.replicas, "statusReplicas": view.status_replicas,
                "foreignScaler": view.foreign_scaler, "scaledByUs": view.scaled_by_us, "ownerUid": view.owner_uid, "isDeleting": view.is_deleting })
    };
    transcript.note("a new one", told(&view));
    let scale = server.path(APPS, "deployments/d/scale?fieldManager=person");
    server.patch(&scale, MERGE, &json!({ "spec": { "replicas": 2 } })).await;
    settled(server, "d", 2).await;
    transcript.note("scaled by a person", told(&reader.deployment(&server.namespace, "d").await.unwrap().unwrap()));
    let edit = server.path(APPS, "deployments/d?fieldManager=editor");
    server.patch(&edit, MERGE, &json!({ "spec": { "replicas": 1 } })).await;
    settled(server, "d", 1).await;
    transcript.note("edited by a person", told(&reader.deployment(&server.namespace, "d").await.unwrap().unwrap()));
    let ours = server.path(APPS, "deployments/d/scale?fieldManager=kitepool");
    for (what, path, replicas) in [
        ("scaled by us", &ours, 3),
        ("by a person again", &scale, 2),
        ("by us again", &ours, 3),
        ("edited again", &edit, 2),
    ] {
        server.patch(path, MERGE, &json!({ "spec": { "replicas": replicas } })).await;
        settled(server, "d", replicas).await;
        transcript.note(what, told(&reader.deployment(&server.namespace, "d").await.unwrap().unwrap()));
    }
    assert!(reader.deployment(&server.namespace, "x").await.unwrap().is_none());
}

pub(crate) async fn the_controller_s_own_writes_are_answered(server: &Server, transcript: &mut Transcript) {
    let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
    let writer = Writer::new(server.client.clone(), NonZeroU32::new(50).unwrap(), clock);
    let namespace = &server.namespace;
    let word = |outcome: Result<(), kitepool::cluster::error::Error>| {
        json!(outcome.map_or_else(|error| error.category(), |()| "done"))
    };
    let first = writer.create_deployment(namespace, &deployment("d", 0)).await;
    transcript.note("create", word(first.map(drop)));
    transcript.note("create again", word(writer.create_deployment(namespace, &deployment("d", 0)).await.map(drop)));
    settled(server, "d", 0).await;
    let before = server.get(&server.path(APPS, "deployments/d")).await.body;
    let version = writer.scale(namespace, "d", 0, 2).await.unwrap();
    assert!(version > before["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap());
    settled(server, "d", 2).await;
    transcript.note("scale from a wrong number", word(writer.scale(namespace, "d", 1, 3).await.map(drop)));
    transcript.note("scale from none", word(writer.scale(namespace, "d", 0, 3).await.map(drop)));
    transcript.note("scale what is not there", word(writer.scale(namespace, "x", 1, 3).await.map(drop)));
    let uid = before["metadata"]["uid"].as_str().unwrap();
    transcript.note("delete another", word(writer.delete_deployment(namespace, "d", "another").await));
    transcript.note("delete", word(writer.delete_deployment(namespace, "d", uid).await));
    transcript.note("delete again", word(writer.delete_deployment(namespace, "d", uid).await));

    let created = server.post(&server.path(OURS, "agentpools"), &pool("linux")).await.body;
    let name = PoolName { namespace: namespace.clone(), name: "linux".to_owned() };
    let uid = created["metadata"]["uid"].as_str().unwrap();
    let status = json!({ "replicas": { "desired": 1, "current": 1, "ready": 1, "draining": 0 } });
    transcript.note("write a status", word(writer.put_pool_status(&name, uid, &status, Urgency::Act).await));
    let another = writer.put_pool_status(&name, "another", &status, Urgency::Act).await;
    transcript.note("write that of another", word(another));
    transcript.note("delete a hint that is gone", word(writer.delete_hint(namespace, "h", "uid").await));
}
