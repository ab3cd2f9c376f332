//! The control surface under `/_world/`, for those who drive the simulation from another process.

use axum::{
    Json, Router,
    extract::{Path, State as Extract},
    http::StatusCode,
    routing::{get, put},
};

use super::{Fault, Queue, Requests, Route, State, Token, World};

pub(super) fn routes() -> Router<World> {
    Router::new()
        .route("/_world/state", put(set_state).get(state))
        .route("/_world/queues/{cluster}/{queue}", put(set_queue))
        .route("/_world/tokens/{token}", put(set_token))
        .route("/_world/poll_duration", put(set_poll_duration))
        .route("/_world/faults/{route}", put(set_fault))
        .route("/_world/requests", get(requests))
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
