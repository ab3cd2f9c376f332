//! What connected agents call: the rest of the agent API, over the same jobs and the same dispatch as the simulated agents.
//!
//! There are no artifacts, no pipeline uploads, no job to acquire by name, and no stream: an agent that asks for one is answered
//! 404, and polls.

use std::future;

use axum::{
    Json, Router,
    body::{Bytes, to_bytes},
    extract::{Path, Query, Request, State as Extract},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    Buildkite, Route, World,
    connections::Registration,
    faulty::{Call, broken_in, instead, message, spoiled},
    taking::{Finish, Refusal},
};

/// More than a piece of a log or anything else that agents send.
const BODY_MAX: usize = 4 << 20;
/// What a piece of a log may come to when it is unpacked: ten of the size that agents are asked for.
const CHUNK_MAX: usize = 1 << 20;

pub(super) fn routes() -> Router<World> {
    Router::new()
        .route("/v3/register", post(register))
        .route("/v3/connect", post(connect))
        .route("/v3/ping", get(ping))
        .route("/v3/heartbeat", post(heartbeat))
        .route("/v3/disconnect", post(disconnect))
        .route("/v3/pause", post(pause))
        .route("/v3/resume", post(resume))
        .route("/v3/stop", post(stop))
        .route("/v3/jobs/{job}", get(job_state))
        .route("/v3/jobs/{job}/accept", put(accept))
        .route("/v3/jobs/{job}/start", put(start))
        .route("/v3/jobs/{job}/chunks", post(chunks))
        .route("/v3/jobs/{job}/finish", put(finish))
        .route("/v3/jobs/{job}/header_times", post(noted))
        .route("/v3/jobs/{job}/annotations", post(noted))
        .route("/v3/jobs/{job}/data/{verb}", post(meta_data))
}

type Answer = Result<Response, Refusal>;

/// Reads the body, does what the route's fault says, and then what the call is for.
async fn answer(
    world: &World,
    route: Route,
    request: Request,
    act: impl FnOnce(&mut Buildkite, &str, Bytes) -> Answer + Send,
) -> Response {
    let (head, body) = request.into_parts();
    let call = Call::of(&head);
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        return message(413, "The request is too large, or broke off");
    };
    let fault = match broken_in(world, route, &call).await {
        Ok(fault) => fault,
        Err(broken) => return broken,
    };
    // Asked once more where the call has its effect: from the instant on at which a route breaks, none of its calls has one.
    let answer = world.with(|buildkite| match instead(buildkite.fault(route), &call) {
        Some(response) => response,
        None => act(buildkite, &call.token, body).unwrap_or_else(refused),
    });
    spoiled(fault, answer).await
}

fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Unauthorized => message(401, "Invalid access token"),
        Refusal::NotFound => message(404, "No job found"),
        Refusal::Unprocessable(why) => message(422, why),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|_| Refusal::Unprocessable("The body is not understood"))
}

fn done() -> Response {
    Json(json!({})).into_response()
}

async fn register(Extract(world): Extract<World>, Call { token, .. }: Call, request: Request) -> Response {
    if world.with(|buildkite| buildkite.state().tokens.get(&token).is_some_and(|token| token.hangs)) {
        return future::pending().await;
    }
    answer(&world, Route::Register, request, |buildkite, token, body| {
        let said: Registration = read(&body)?;
        let registered = buildkite.register_agent(token, said).ok_or(Refusal::Unauthorized)?;
        Ok(Json(registered).into_response())
    })
    .await
}

async fn connect(Extract(world): Extract<World>, request: Request) -> Response {
    answer(&world, Route::Connect, request, |buildkite, token, _| {
        let agent = buildkite.session(token)?;
        buildkite.connect_agent(agent);
        Ok(done())
    })
    .await
}

async fn ping(Extract(world): Extract<World>, request: Request) -> Response {
    answer(&world, Route::Ping, request, |buildkite, token, _| {
        let agent = buildkite.session(token)?;
        Ok(Json(buildkite.ping_agent(agent)).into_response())
    })
    .await
}

#[derive(Deserialize)]
struct Heartbeat {
    sent_at: String,
}

async fn heartbeat(Extract(world): Extract<World>, request: Request) -> Response {
    answer(&world, Route::Heartbeat, request, |buildkite, token, body| {
        let agent = buildkite.session(token)?;
        let Heartbeat { sent_at } = read(&body)?;
        buildkite.beat_agent(agent);
        Ok(Json(json!({ "sent_at": sent_at, "received_at": buildkite.now() })).into_response())
    })
    .await
}

async fn disconnect(Extract(world): Extract<World>, request: Request) -> Response {
    answer(&world, Route::Disconnect, request, |buildkite, token, _| {
        let agent = buildkite.session(token)?;
        buildkite.disconnect_agent(agent);
        Ok(done())
    })
    .await
}

async fn pause(Extract(world): Extract<World>, request: Request) -> Response {
    by_itself(&world, request, |buildkite, uuid, _| buildkite.set_agent_paused(uuid, true, buildkite.now())).await
}

async fn resume(Extract(world): Extract<World>, request: Request) -> Response {
    by_itself(&world, request, |buildkite, uuid, _| buildkite.set_agent_paused(uuid, false, buildkite.now())).await
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stop {
    force: bool,
}

async fn stop(Extract(world): Extract<World>, request: Request) -> Response {
    by_itself(&world, request, |buildkite, uuid, body| {
        let Stop { force } = serde_json::from_slice(body).unwrap_or_default();
        buildkite.stop_agent(uuid, force, buildkite.now())
    })
    .await
}

/// What an agent's job asks for its own agent.
async fn by_itself(
    world: &World,
    request: Request,
    act: impl FnOnce(&mut Buildkite, &str, &[u8]) -> bool + Send,
) -> Response {
    answer(world, Route::Other, request, |buildkite, token, body| {
        let uuid = buildkite.agent_behind(token).ok_or(Refusal::Unauthorized)?;
        act(buildkite, &uuid, &body);
        Ok(done())
    })
    .await
}

async fn job_state(Extract(world): Extract<World>, Path(job): Path<String>, request: Request) -> Response {
    answer(&world, Route::JobState, request, |buildkite, token, _| {
        let state = buildkite.state_of_job(token, &job)?;
        Ok(Json(json!({ "state": state })).into_response())
    })
    .await
}

async fn accept(Extract(world): Extract<World>, Path(job): Path<String>, request: Request) -> Response {
    answer(&world, Route::Accept, request, |buildkite, token, _| {
        let agent = buildkite.session(token)?;
        Ok(Json(buildkite.accept_job(agent, &job)?).into_response())
    })
    .await
}

async fn start(Extract(world): Extract<World>, Path(job): Path<String>, request: Request) -> Response {
    answer(&world, Route::Start, request, |buildkite, token, _| {
        buildkite.start_job(token, &job)?;
        Ok(done())
    })
    .await
}

#[derive(Deserialize)]
struct Chunk {
    sequence: u64,
}

async fn chunks(
    Extract(world): Extract<World>,
    Path(job): Path<String>,
    Query(chunk): Query<Chunk>,
    request: Request,
) -> Response {
    let is_packed = request.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    answer(&world, Route::Chunks, request, |buildkite, token, body| {
        let text = if is_packed { unpacked(&body) } else { Some(body.to_vec()) };
        let text = text.ok_or(Refusal::Unprocessable("The piece of the log is not packed as it says"))?;
        buildkite.add_log(token, &job, chunk.sequence, text)?;
        Ok(StatusCode::CREATED.into_response())
    })
    .await
}

/// What is in a gzip file without any of its optional fields, as agents write it.
fn unpacked(body: &[u8]) -> Option<Vec<u8>> {
    let (head, packed) = body.split_first_chunk::<10>()?;
    let is_plain_gzip = head.starts_with(&[0x1f, 0x8b, 8, 0]);
    is_plain_gzip.then(|| miniz_oxide::inflate::decompress_to_vec_with_limit(packed, CHUNK_MAX).ok()).flatten()
}

async fn finish(Extract(world): Extract<World>, Path(job): Path<String>, request: Request) -> Response {
    answer(&world, Route::Finish, request, |buildkite, token, body| {
        let said: Finish = read(&body)?;
        buildkite.finish_job(token, &job, said)?;
        Ok(done())
    })
    .await
}

/// What changes nothing here: it must come from whoever has the job.
async fn noted(Extract(world): Extract<World>, Path(job): Path<String>, request: Request) -> Response {
    answer(&world, Route::Other, request, |buildkite, token, _| {
        buildkite.held(token, &job)?;
        Ok(done())
    })
    .await
}

#[derive(Deserialize)]
struct MetaDatum {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
}

async fn meta_data(
    Extract(world): Extract<World>,
    Path((job, verb)): Path<(String, String)>,
    request: Request,
) -> Response {
    answer(&world, Route::Other, request, |buildkite, token, body| {
        buildkite.held(token, &job)?;
        let data = &mut buildkite.meta_data;
        let answer = match verb.as_str() {
            "keys" => json!(data.keys()),
            "set" => {
                let MetaDatum { key, value } = read(&body)?;
                data.set(key, value)?;
                json!({})
            }
            "exists" => json!({ "exists": data.get(&read::<MetaDatum>(&body)?.key).is_some() }),
            "get" => {
                let key = read::<MetaDatum>(&body)?.key;
                let value = data.get(&key).ok_or(Refusal::NotFound)?;
                json!({ "key": key, "value": value })
            }
            _ => return Err(Refusal::NotFound),
        };
        Ok(Json(answer).into_response())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gzip_file_is_unpacked_and_anything_else_is_refused() {
        // `printf 'hello\\n' | gzip -n`
        let packed = [
            0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0xe7, 2, 0, 0x20, 0x30, 0x3a, 0x36, 6, 0,
            0, 0,
        ];
        assert_eq!(unpacked(&packed).as_deref(), Some(b"hello\n".as_slice()));
        for wrong in [&packed[..8], &packed[..12], b"hello, hello, hello"] {
            assert_eq!(unpacked(wrong), None, "{wrong:?}");
        }
    }
}
