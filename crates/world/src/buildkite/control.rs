//! The control surface under `/_world/`, for those who drive the simulation from another process.

use axum::{
    Json, Router,
    extract::{Path, State as Extract},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde_json::{Value, json};

use super::{Buildkite, Connection, Fault, Job, JobRecord, Queue, Requests, Route, ScriptJob, State, Token, World};

pub(super) fn routes() -> Router<World> {
    Router::new()
        .route("/_world/state", put(set_state).get(state))
        .route("/_world/queues/{cluster}/{queue}", put(set_queue))
        .route("/_world/tokens/{token}", put(set_token))
        .route("/_world/poll_duration", put(set_poll_duration))
        .route("/_world/faults/{route}", put(set_fault))
        .route("/_world/requests", get(requests))
        .route("/_world/queues/{cluster}/{queue}/paused", put(set_queue_paused))
        .route("/_world/jobs", get(jobs).post(submit))
        .route("/_world/jobs/{job}", get(job).delete(cancel))
        .route("/_world/jobs/{job}/log", get(job_log))
        .route("/_world/agents", get(agents))
        .route("/_world/agents/{agent}/paused", put(set_agent_paused))
        .route("/_world/agents/{agent}/stop", put(stop_agent))
}

async fn state(Extract(world): Extract<World>) -> Json<State> {
    Json(world.state())
}

async fn set_state(Extract(world): Extract<World>, Json(state): Json<State>) -> StatusCode {
    world.set_state(state);
    StatusCode::NO_CONTENT
}

async fn set_queue(
    Extract(world): Extract<World>,
    Path((cluster, queue)): Path<(String, String)>,
    Json(load): Json<Queue>,
) -> StatusCode {
    world.set_queue(&cluster, &queue, load);
    StatusCode::NO_CONTENT
}

async fn set_token(
    Extract(world): Extract<World>,
    Path(token): Path<String>,
    Json(identity): Json<Option<Token>>,
) -> StatusCode {
    world.set_token(&token, identity);
    StatusCode::NO_CONTENT
}

async fn set_poll_duration(Extract(world): Extract<World>, Json(seconds): Json<Option<u64>>) -> StatusCode {
    world.set_poll_duration(seconds);
    StatusCode::NO_CONTENT
}

async fn set_fault(
    Extract(world): Extract<World>,
    Path(route): Path<Route>,
    Json(fault): Json<Option<Fault>>,
) -> StatusCode {
    world.set_fault(route, fault);
    StatusCode::NO_CONTENT
}

async fn requests(Extract(world): Extract<World>) -> Json<Requests> {
    Json(world.requests())
}

async fn set_queue_paused(
    Extract(world): Extract<World>,
    Path((cluster, queue)): Path<(String, String)>,
    Json(is_paused): Json<bool>,
) -> StatusCode {
    world.with(|buildkite| buildkite.set_paused(&cluster, &queue, is_paused, buildkite.now()));
    StatusCode::NO_CONTENT
}

async fn jobs(Extract(world): Extract<World>) -> Json<Vec<JobRecord>> {
    Json(world.with(|buildkite| buildkite.jobs().map(|job| buildkite.record(job)).collect()))
}

async fn submit(Extract(world): Extract<World>, Json(job): Json<ScriptJob>) -> (StatusCode, Json<Value>) {
    let uuid = world.with(|buildkite| {
        let id = buildkite.submit(job.into(), buildkite.now());
        buildkite.job(id).map(|job| job.uuid.clone())
    });
    (StatusCode::CREATED, Json(json!({ "uuid": uuid })))
}

/// What is asked about a job, or 404.
fn about_job<T>(world: &World, uuid: &str, ask: impl FnOnce(&Buildkite, &Job) -> T) -> Result<T, StatusCode> {
    world.with(|buildkite| buildkite.job_by_uuid(uuid).map(|job| ask(buildkite, job))).ok_or(StatusCode::NOT_FOUND)
}

async fn job(Extract(world): Extract<World>, Path(uuid): Path<String>) -> Result<Json<JobRecord>, StatusCode> {
    about_job(&world, &uuid, |buildkite, job| Json(buildkite.record(job)))
}

async fn job_log(Extract(world): Extract<World>, Path(uuid): Path<String>) -> Result<String, StatusCode> {
    about_job(&world, &uuid, |_, job| job.outcome.log.text())
}

async fn cancel(Extract(world): Extract<World>, Path(uuid): Path<String>) -> Response {
    let id = match about_job(&world, &uuid, |_, job| job.id) {
        Ok(id) => id,
        Err(missing) => return missing.into_response(),
    };
    world.with(|buildkite| buildkite.cancel(id, buildkite.now()));
    StatusCode::NO_CONTENT.into_response()
}

async fn agents(Extract(world): Extract<World>) -> Json<Vec<Connection>> {
    Json(world.with(|buildkite| buildkite.connections().cloned().collect()))
}

const fn found(is_there: bool) -> StatusCode {
    if is_there { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn set_agent_paused(
    Extract(world): Extract<World>,
    Path(uuid): Path<String>,
    Json(is_paused): Json<bool>,
) -> StatusCode {
    found(world.with(|buildkite| buildkite.set_agent_paused(&uuid, is_paused, buildkite.now())))
}

async fn stop_agent(
    Extract(world): Extract<World>,
    Path(uuid): Path<String>,
    Json(by_force): Json<bool>,
) -> StatusCode {
    found(world.with(|buildkite| buildkite.stop_agent(&uuid, by_force, buildkite.now())))
}
