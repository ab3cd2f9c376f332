//! The way to agents through the API server, for a controller that cannot reach pods: outside of their cluster.

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;

use crate::agents::{Address, Ask, Asking, BODY_MAX, STATUS_PATH, Silence};

/// Over `pods/proxy`.
#[derive(Clone)]
pub struct Proxy(Client);

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proxy")
    }
}

impl Proxy {
    /// Through this client.
    pub const fn new(client: Client) -> Self {
        Self(client)
    }
}

impl Ask for Proxy {
    fn ask<'a>(&'a self, address: &'a Address) -> Asking<'a> {
        Box::pin(async move {
            let request = Request::get(path(address)).body(kube::client::Body::empty());
            let request = request.map_err(|_malformed| Silence::Unreachable)?;
            let answer = self.0.send(request).await.map_err(|_away| Silence::Unreachable)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
            let body = body.map_err(|_too_large| Silence::NotUnderstood)?.to_bytes();
            if status == StatusCode::OK { Ok(body.to_vec()) } else { Err(silence(status, &body)) }
        })
    }
}

fn path(address: &Address) -> String {
    let Address { namespace, pod, port, .. } = address;
    format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{STATUS_PATH}")
}

/// The API server's own refusals and the agent's come with the same statuses; only the words of the former tell them apart.
fn silence(status: StatusCode, body: &[u8]) -> Silence {
    let words = String::from_utf8_lossy(body);
    match status {
        StatusCode::FORBIDDEN => Silence::Forbidden,
        StatusCode::NOT_FOUND => Silence::NoSuchPage,
        _ if words.contains("connection refused") => Silence::Refused,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Silence::Unreachable,
        other => Silence::Status(other.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::Response;
    use tower::service_fn;

    use super::*;
    use crate::agents::status;

    fn address() -> Address {
        let (namespace, pod, uid) = ("ci".to_owned(), "linux-a-1".to_owned(), "u".to_owned());
        Address { namespace, pod, uid, ip: [10, 0, 0, 1].into(), port: 3901 }
    }

    async fn asked(code: u16, body: &'static str) -> (String, Result<u32, Silence>) {
        let path = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&path);
        let server = service_fn(move |request: Request<kube::client::Body>| {
            request.uri().path().clone_into(&mut seen.lock().unwrap());
            let body = kube::client::Body::from(body.as_bytes().to_vec());
            let answer = Response::builder().status(code).body(body).unwrap();
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        let said = status(&Proxy::new(Client::new(server, "ci")), &address()).await;
        let path = path.lock().unwrap().clone();
        (path, said.map(|said| said.busy.0))
    }

    #[tokio::test]
    async fn an_agent_answers_through_the_api_server() {
        let (path, said) = asked(200, r#"{"workers":[{"status":"busy"}]}"#).await;
        assert_eq!(path, "/api/v1/namespaces/ci/pods/linux-a-1:3901/proxy/status.json");
        assert_eq!(said, Ok(1));
    }

    #[tokio::test]
    async fn each_refusal_has_its_reason() {
        for (code, body, expected) in [
            (403, r#"{"kind":"Status","message":"pods \"a\" is forbidden"}"#, Silence::Forbidden),
            (404, "404 page not found", Silence::NoSuchPage),
            (
                500,
                "error trying to reach service: dial tcp 10.0.0.1:3901: connect: connection refused",
                Silence::Refused,
            ),
            (503, "error trying to reach service: context deadline exceeded", Silence::Unreachable),
            (418, "", Silence::Status(418)),
        ] {
            assert_eq!(asked(code, body).await.1, Err(expected));
        }
    }
}
