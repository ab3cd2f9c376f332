//! The agent API as Buildkite answers it: shapes, headers and refusals.

use std::{future, io, time::Duration};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Query, State as Extract},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Fault, ORGANIZATION_UUID, Queue, Route, World, control, numbers::View};

const POLL_DURATION: HeaderName = HeaderName::from_static("buildkite-agent-metrics-poll-duration");

/// What a proxy in between says, under the type that the answer itself would have had.
const GARBAGE: &str = "<html><body>502 Bad Gateway</body></html>";
/// More than the queues of any cluster come to.
const BODY_MAX: usize = 64 << 20;

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
    answer(&world, Route::Metrics, &headers, |view| told(view, all_queues(view))).await
}

#[derive(Deserialize)]
struct QueueName {
    name: String,
}

async fn queue(Extract(world): Extract<World>, Query(wanted): Query<QueueName>, headers: HeaderMap) -> Response {
    answer(&world, Route::Queue, &headers, |view| {
        let load = view.queues.get(&wanted.name).copied().unwrap_or_default();
        told(view, whose(json!({ "agents": agents(load), "jobs": jobs(load) }), view))
    })
    .await
}

async fn token(Extract(world): Extract<World>, headers: HeaderMap) -> Response {
    answer(&world, Route::Token, &headers, |View { token, cluster_name, .. }| {
        Json(json!({
            "uuid": "00000000-0000-4000-8000-000000000001",
            "description": "simulated",
            "token_type": if token.cluster.is_some() { "cluster" } else { "registration" },
            "organization_slug": token.organization,
            "organization_uuid": ORGANIZATION_UUID,
            "cluster_uuid": token.cluster,
            "cluster_name": cluster_name,
            "organization_queue_uuid": null,
            "organization_queue_key": null,
        }))
        .into_response()
    })
    .await
}

/// Counts the request, does what the route's fault says, and lets the token in or not.
async fn answer(
    world: &World,
    route: Route,
    headers: &HeaderMap,
    good: impl FnOnce(&View) -> Response + Send,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = authorization.and_then(|value| value.strip_prefix("Token ")).unwrap_or_default();
    world.count(route, token);
    let fault = world.fault(route);
    tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    if fault.hang {
        return future::pending().await;
    }
    let response = match (fault.status, world.with(|buildkite| buildkite.view(token))) {
        (Some(status), _) => broken(status, fault.retry_after),
        (None, Some(view)) if view.token.hangs => return future::pending().await,
        (None, Some(view)) => good(&view),
        (None, None) => (StatusCode::UNAUTHORIZED, Json(json!({ "message": "Invalid access token" }))).into_response(),
    };
    spoiled(fault, response).await
}

/// Status and headers as they were, and a body that nobody can read.
async fn spoiled(fault: Fault, response: Response) -> Response {
    if !fault.garbage && !fault.cut_off {
        return response;
    }
    let (head, body) = response.into_parts();
    let body = if fault.garbage { GARBAGE.into() } else { to_bytes(body, BODY_MAX).await.unwrap_or_default() };
    if !fault.cut_off {
        return Response::from_parts(head, body.into());
    }
    let half = body.slice(..body.len() / 2);
    let broken_off = io::Error::new(io::ErrorKind::ConnectionReset, "simulated fault");
    Response::from_parts(head, Body::from_stream(stream::iter([Ok(half), Err(broken_off)])))
}

fn broken(status: u16, retry_after: Option<u64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(json!({ "message": "simulated fault" }))).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn told(view: &View, body: Value) -> Response {
    let mut response = Json(body).into_response();
    if let Some(seconds) = view.poll_duration {
        response.headers_mut().insert(POLL_DURATION, seconds.into());
    }
    response
}

/// A queue stands in each map only if it has something to count there.
fn all_queues(view: &View) -> Value {
    let mut total = Queue::default();
    let (mut with_agents, mut with_jobs) = (Map::new(), Map::new());
    for (name, load) in &view.queues {
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
    whose(json!({ "agents": all_agents, "jobs": all_jobs }), view)
}

fn whose(mut body: Value, view: &View) -> Value {
    set(&mut body, "organization", json!({ "slug": view.token.organization }));
    if let Some(name) = &view.cluster_name {
        set(&mut body, "cluster", json!({ "name": name }));
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
