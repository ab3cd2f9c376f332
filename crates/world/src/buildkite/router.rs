//! What is read of the agent API, as Buildkite answers it: shapes, headers and refusals.

use std::{future, io};

use axum::{
    Json, Router,
    extract::{Query, State as Extract},
    http::{HeaderName, HeaderValue, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    ORGANIZATION_UUID, Queue, Route, World, agent_api, control,
    cord::Corded,
    faulty::{Call, broken_in, message, spoiled},
    numbers::View,
};

const POLL_DURATION: HeaderName = HeaderName::from_static("buildkite-agent-metrics-poll-duration");

/// The simulated Buildkite as a service, its control surface with it.
pub fn router(world: World) -> Router {
    Router::new()
        .route("/v3/metrics", get(metrics))
        .route("/v3/metrics/queue", get(queue))
        .route("/v3/token", get(token))
        .merge(agent_api::routes())
        .layer(middleware::map_response_with_state(world.clone(), dated))
        .merge(control::routes())
        .with_state(world)
}

/// Serves it until the listener fails.
pub async fn serve(listener: tokio::net::TcpListener, world: World) -> io::Result<()> {
    axum::serve(Corded::from(listener), router(world).into_make_service_with_connect_info::<super::cord::Cord>()).await
}

/// Every answer carries `Date`, a refusal too; without a clock of ours the HTTP server writes it.
async fn dated(Extract(world): Extract<World>, mut response: Response) -> Response {
    let date = world.now().and_then(|now| DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok());
    if let Some(date) = date.and_then(|date| HeaderValue::try_from(date).ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

async fn metrics(Extract(world): Extract<World>, call: Call) -> Response {
    answer(&world, Route::Metrics, &call, |view| told(view, all_queues(view))).await
}

#[derive(Deserialize)]
struct QueueName {
    name: String,
}

async fn queue(Extract(world): Extract<World>, Query(wanted): Query<QueueName>, call: Call) -> Response {
    answer(&world, Route::Queue, &call, |view| {
        let load = view.queues.get(&wanted.name).copied().unwrap_or_default();
        told(view, whose(json!({ "agents": agents(load), "jobs": jobs(load) }), view))
    })
    .await
}

async fn token(Extract(world): Extract<World>, call: Call) -> Response {
    answer(&world, Route::Token, &call, |View { token, cluster_name, .. }| {
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
async fn answer(world: &World, route: Route, call: &Call, good: impl FnOnce(&View) -> Response + Send) -> Response {
    let fault = match broken_in(world, route, call).await {
        Ok(fault) => fault,
        Err(broken) => return broken,
    };
    let response = match world.with(|buildkite| buildkite.view(&call.token)) {
        Some(view) if view.token.hangs => return future::pending().await,
        Some(view) => good(&view),
        None => message(401, "Invalid access token"),
    };
    spoiled(fault, response).await
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
