//! The agent API as Buildkite answers it: shapes, headers and refusals.

use std::{future, io, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State as Extract},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Cluster, Queue, Route, State, Token, UNCLUSTERED, World, control};

const POLL_DURATION: HeaderName = HeaderName::from_static("buildkite-agent-metrics-poll-duration");

/// The simulated Buildkite as a service, its control surface with it.
pub fn router(world: World) -> Router {
    Router::new()
        .route("/v3/metrics", get(metrics))
        .route("/v3/metrics/queue", get(queue))
        .route("/v3/token", get(token))
        .layer(middleware::map_response_with_state(world.clone(), dated))
        .merge(control::routes())
        .with_state(world)
}

/// Serves it until the listener fails.
pub async fn serve(listener: tokio::net::TcpListener, world: World) -> io::Result<()> {
    axum::serve(listener, router(world)).await
}

/// Every answer carries `Date`, a refusal too; without a clock of ours the HTTP server writes it.
async fn dated(Extract(world): Extract<World>, mut response: Response) -> Response {
    let date = world.now().and_then(|now| DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok());
    if let Some(date) = date.and_then(|date| HeaderValue::try_from(date).ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

async fn metrics(Extract(world): Extract<World>, headers: HeaderMap) -> Response {
    match enter(&world, Route::Metrics, &headers).await {
        Ok((state, token)) => {
            let cluster = cluster(&state, &token);
            told(&state, all_queues(&token, cluster.as_ref()))
        }
        Err(refusal) => refusal,
    }
}

#[derive(Deserialize)]
struct QueueName {
    name: String,
}

async fn queue(Extract(world): Extract<World>, Query(wanted): Query<QueueName>, headers: HeaderMap) -> Response {
    match enter(&world, Route::Queue, &headers).await {
        Ok((state, token)) => {
            let cluster = cluster(&state, &token);
            let load = cluster.as_ref().and_then(|cluster| cluster.queues.get(&wanted.name)).copied();
            let load = load.unwrap_or_default();
            told(&state, whose(json!({ "agents": agents(load), "jobs": jobs(load) }), &token, cluster.as_ref()))
        }
        Err(refusal) => refusal,
    }
}

async fn token(Extract(world): Extract<World>, headers: HeaderMap) -> Response {
    match enter(&world, Route::Token, &headers).await {
        Ok((state, token)) => {
            let name = cluster(&state, &token).map(|cluster| cluster.name);
            Json(json!({
                "uuid": "00000000-0000-4000-8000-000000000001",
                "description": "simulated",
                "token_type": if token.cluster.is_some() { "cluster" } else { "registration" },
                "organization_slug": token.organization,
                "organization_uuid": "00000000-0000-4000-8000-000000000002",
                "cluster_uuid": token.cluster,
                "cluster_name": token.cluster.as_ref().and(name),
                "organization_queue_uuid": null,
                "organization_queue_key": null,
            }))
            .into_response()
        }
        Err(refusal) => refusal,
    }
}

/// Counts the request, does what the route's fault says, and lets the token in or not.
async fn enter(world: &World, route: Route, headers: &HeaderMap) -> Result<(State, Token), Response> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = authorization.and_then(|value| value.strip_prefix("Token ")).unwrap_or_default();
    world.count(route, token);
    if let Some(fault) = world.fault(route) {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
        if fault.hang {
            return future::pending().await;
        }
        if let Some(status) = fault.status {
            return Err(broken(status, fault.retry_after));
        }
    }
    let state = world.state();
    match state.tokens.get(token).cloned() {
        Some(token) if token.hangs => future::pending().await,
        Some(token) => Ok((state, token)),
        None => Err((StatusCode::UNAUTHORIZED, Json(json!({ "message": "Invalid access token" }))).into_response()),
    }
}

fn broken(status: u16, retry_after: Option<u64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(json!({ "message": "simulated fault" }))).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn told(state: &State, body: Value) -> Response {
    let mut response = Json(body).into_response();
    if let Some(seconds) = state.poll_duration {
        response.headers_mut().insert(POLL_DURATION, seconds.into());
    }
    response
}

fn cluster(state: &State, token: &Token) -> Option<Cluster> {
    state.clusters.get(token.cluster.as_deref().unwrap_or(UNCLUSTERED)).cloned()
}

/// A queue stands in each map only if it has something to count there.
fn all_queues(token: &Token, cluster: Option<&Cluster>) -> Value {
    let mut total = Queue::default();
    let (mut with_agents, mut with_jobs) = (Map::new(), Map::new());
    for (name, load) in cluster.iter().flat_map(|cluster| &cluster.queues) {
        total = total.plus(*load);
        if load.has_agents() {
            with_agents.insert(name.clone(), agents(*load));
        }
        if load.has_jobs() {
            with_jobs.insert(name.clone(), jobs(*load));
        }
    }
    let (mut all_agents, mut all_jobs) = (agents(total), jobs(total));
    set(&mut all_agents, "queues", with_agents.into());
    set(&mut all_jobs, "queues", with_jobs.into());
    whose(json!({ "agents": all_agents, "jobs": all_jobs }), token, cluster)
}

fn whose(mut body: Value, token: &Token, cluster: Option<&Cluster>) -> Value {
    set(&mut body, "organization", json!({ "slug": token.organization }));
    if let (Some(_), Some(cluster)) = (&token.cluster, cluster) {
        set(&mut body, "cluster", json!({ "name": cluster.name }));
    }
    body
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn agents(load: Queue) -> Value {
    json!({ "idle": load.idle, "busy": load.busy, "total": load.idle.saturating_add(load.busy) })
}

/// The total leaves out what is waiting, as Buildkite's does.
fn jobs(load: Queue) -> Value {
    json!({
        "scheduled": load.scheduled,
        "running": load.running,
        "waiting": load.waiting,
        "total": load.scheduled.saturating_add(load.running),
    })
}
