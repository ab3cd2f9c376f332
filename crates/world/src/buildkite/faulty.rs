//! What befalls a request before and after it is answered.

use std::{convert::Infallible, future, io, time::Duration};

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::{ConnectInfo, FromRequestParts},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::json;

use super::{Fault, Route, World, cord::Cord};

/// What a proxy in between says, under the type that the answer itself would have had.
const GARBAGE: &str = "<html><body>502 Bad Gateway</body></html>";
/// More than the queues of any cluster come to.
const BODY_MAX: usize = 64 << 20;

/// What counts of a request before anybody has looked at its path and body.
pub(super) struct Call {
    /// What it came with; empty if that is none.
    pub(super) token: String,
    /// The connection it came over, if that can be broken.
    cord: Option<Cord>,
}

impl Call {
    pub(super) fn of(head: &Parts) -> Self {
        let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| value.strip_prefix("Token ")).unwrap_or_default().to_owned();
        let cord = head.extensions.get::<ConnectInfo<Cord>>().map(|info| info.0.clone());
        Self { token, cord }
    }
}

impl<S: Sync> FromRequestParts<S> for Call {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(head))
    }
}

/// Counts a request and does what the route's fault says: the answer if it takes the place of a good one, or the fault, of which
/// [`spoiled`] does the rest.
pub(super) async fn broken_in(world: &World, route: Route, call: &Call) -> Result<Fault, Response> {
    world.count(route, &call.token);
    let fault = world.fault(route);
    if fault.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    }
    if fault.hang {
        return future::pending().await;
    }
    match instead(fault, call) {
        Some(response) => Err(response),
        None => Ok(fault),
    }
}

/// What takes the place of an answer while a route is broken.
pub(super) fn instead(fault: Fault, call: &Call) -> Option<Response> {
    if fault.drop {
        return Some(dropped(call.cord.as_ref()));
    }
    fault.status.map(|status| broken(status, fault.retry_after))
}

/// Status and headers as they were, and a body that nobody can read.
pub(super) async fn spoiled(fault: Fault, response: Response) -> Response {
    if !fault.garbage && !fault.cut_off {
        return response;
    }
    let (head, body) = response.into_parts();
    let body = if fault.garbage { GARBAGE.into() } else { to_bytes(body, BODY_MAX).await.unwrap_or_default() };
    if !fault.cut_off {
        return Response::from_parts(head, body.into());
    }
    let half = body.slice(..body.len() / 2);
    Response::from_parts(head, Body::from_stream(stream::iter([Ok(half), Err(broken_off())])))
}

/// Nothing of it reaches the client if the connection can be broken.
fn dropped(cord: Option<&Cord>) -> Response {
    if let Some(cord) = cord {
        cord.cut();
    }
    Response::new(Body::from_stream(stream::iter([Err::<&[u8], _>(broken_off())])))
}

fn broken_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "simulated fault")
}

fn broken(status: u16, retry_after: Option<u64>) -> Response {
    let mut response = message(status, "simulated fault");
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A refusal as Buildkite words it.
pub(super) fn message(status: u16, text: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(json!({ "message": text }))).into_response()
}
