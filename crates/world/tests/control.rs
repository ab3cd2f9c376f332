//! The control surface does what the library does, seen from outside the process.

#![cfg(test)]

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use kitepool_world::{World, digest, router};
use serde_json::{Value, json};

struct Outside(Router);

impl Outside {
    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        body: &Value,
    ) -> (StatusCode, Option<String>, Value) {
        use tower::Service as _;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Token {token}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = self.0.call(request).await.unwrap();
        let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, retry, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn put(&mut self, path: &str, body: Value) {
        assert_eq!(self.ask("PUT", path, "", &body).await.0, StatusCode::NO_CONTENT, "{path}");
    }

    async fn get(&mut self, path: &str) -> (StatusCode, Option<String>, Value) {
        self.ask("GET", path, "one", &Value::Null).await
    }
}

#[tokio::test]
async fn a_world_that_is_set_answers_in_buildkites_shapes() {
    let mut outside = Outside(router(World::default()));
    assert_eq!(outside.get("/v3/metrics").await.0, StatusCode::UNAUTHORIZED);
    outside
        .put(
            "/_world/state",
            json!({
                "tokens": { "one": { "organization": "acme", "cluster": "uuid-1" } },
                "clusters": { "uuid-1": { "name": "linux" } },
            }),
        )
        .await;
    let nothing = json!({
        "agents": { "idle": 0, "busy": 0, "total": 0, "queues": {} },
        "jobs": { "scheduled": 0, "running": 0, "waiting": 0, "total": 0, "queues": {} },
        "organization": { "slug": "acme" },
        "cluster": { "name": "linux" },
    });
    assert_eq!(outside.get("/v3/metrics").await.2, nothing);
    outside.put("/_world/queues/uuid-1/q", json!({ "scheduled": 2, "running": 1, "waiting": 4 })).await;
    let metrics = outside.get("/v3/metrics").await.2;
    assert_eq!(metrics["jobs"]["queues"]["q"], json!({ "scheduled": 2, "running": 1, "waiting": 4, "total": 3 }));
    assert_eq!(metrics["agents"]["queues"], json!({}), "jobs without agents stand in one map only");
    let one = outside.get("/v3/metrics/queue?name=q").await.2;
    assert_eq!((&one["jobs"]["scheduled"], &one["jobs"]["queues"]), (&json!(2), &Value::Null));
    assert_eq!(outside.get("/v3/metrics/queue?name=unknown").await.2["jobs"]["total"], 0);
    let token = outside.get("/v3/token").await.2;
    assert_eq!((&token["cluster_uuid"], &token["cluster_name"]), (&json!("uuid-1"), &json!("linux")));
}

#[tokio::test]
async fn a_fault_breaks_one_route_until_it_is_taken_back_and_every_request_counts() {
    let mut outside = Outside(router(World::default()));
    outside.put("/_world/state", json!({ "tokens": { "one": { "organization": "acme" } } })).await;
    outside.put("/_world/faults/metrics", json!({ "status": 429, "retry_after": 30 })).await;
    let (status, retry, _) = outside.get("/v3/metrics").await;
    assert_eq!((status, retry.as_deref()), (StatusCode::TOO_MANY_REQUESTS, Some("30")));
    assert_eq!(outside.get("/v3/token").await.0, StatusCode::OK);
    outside.put("/_world/faults/metrics", Value::Null).await;
    assert_eq!(outside.get("/v3/metrics").await.0, StatusCode::OK);
    let requests = outside.get("/_world/requests").await.2;
    assert_eq!(requests, json!({ "metrics": { digest("one"): 2 }, "token": { digest("one"): 1 } }));
}

#[tokio::test]
async fn a_token_moves_to_another_identity_and_the_header_comes_and_goes_without_touching_the_rest() {
    let world = World::default();
    let mut outside = Outside(router(world.clone()));
    outside.put("/_world/queues/uuid-1/q", json!({ "scheduled": 2 })).await;
    outside.put("/_world/tokens/one", json!({ "organization": "acme", "cluster": "uuid-1" })).await;
    assert_eq!(outside.get("/v3/metrics").await.2["jobs"]["scheduled"], 2);
    outside.put("/_world/tokens/one", json!({ "organization": "other" })).await;
    let moved = outside.get("/v3/token").await.2;
    assert_eq!((&moved["organization_slug"], &moved["cluster_uuid"]), (&json!("other"), &Value::Null));
    assert_eq!(outside.get("/v3/metrics").await.2["jobs"]["scheduled"], 0);
    outside.put("/_world/tokens/one", Value::Null).await;
    assert_eq!(outside.get("/v3/metrics").await.0, StatusCode::UNAUTHORIZED);
    outside.put("/_world/poll_duration", json!(25)).await;
    assert_eq!(world.state().poll_duration, Some(25));
    outside.put("/_world/poll_duration", Value::Null).await;
    assert_eq!(world.state().poll_duration, None);
    assert_eq!(world.state().clusters["uuid-1"].queues["q"].scheduled, 2);
}

#[tokio::test]
async fn what_is_not_understood_changes_nothing() {
    let world = World::default();
    let mut outside = Outside(router(world.clone()));
    let before = world.state();
    for (path, body) in [
        ("/_world/state", json!({ "cluster": {} })),
        ("/_world/queues/uuid-1/q", json!({ "schedulled": 2 })),
        ("/_world/queues/uuid-1/q", json!({ "scheduled": -2 })),
        ("/_world/tokens/one", json!({ "cluster": "uuid-1" })),
        ("/_world/poll_duration", json!("10")),
        ("/_world/faults/metrics", json!({ "statuss": 500 })),
        ("/_world/faults/everything", json!({ "status": 500 })),
    ] {
        let status = outside.ask("PUT", path, "", &body).await.0;
        assert!(status.is_client_error(), "{path} {body}: {status}");
        assert_eq!(world.state(), before, "{path} {body}");
    }
}

#[tokio::test]
async fn a_body_can_be_spoiled_or_cut_off_and_is_well_again_afterwards() {
    use tower::Service as _;
    let mut outside = Outside(router(World::default()));
    outside.put("/_world/state", json!({ "tokens": { "one": { "organization": "acme" } } })).await;
    let read = async |router: &Router| {
        let request = Request::get("/v3/metrics").header("authorization", "Token one").body(Body::empty()).unwrap();
        let response = router.clone().call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/json");
        to_bytes(response.into_body(), 1 << 20).await
    };
    let well = read(&outside.0).await.unwrap();
    outside.put("/_world/faults/metrics", json!({ "garbage": true })).await;
    let garbage = read(&outside.0).await.unwrap();
    assert!(serde_json::from_slice::<Value>(&garbage).is_err(), "{garbage:?}");
    outside.put("/_world/faults/metrics", json!({ "cut_off": true })).await;
    assert!(read(&outside.0).await.is_err());
    outside.put("/_world/faults/metrics", Value::Null).await;
    assert_eq!(read(&outside.0).await.unwrap(), well);
}
