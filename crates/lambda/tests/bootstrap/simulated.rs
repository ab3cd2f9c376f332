//! An API server, STS and EKS in as few answers as the program asks of them. Who asks is written down, not checked.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt as _,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What was asked and answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) hints: BTreeMap<String, Value>,
    pub(crate) statuses: Vec<u16>,
    pub(crate) authorizations: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) assumed: Vec<String>,
    pub(crate) described: Vec<String>,
    /// `Authorization` of calls to STS and EKS.
    pub(crate) signed: Vec<String>,
}

type Answer = (u16, String, String);

#[derive(Debug, Default)]
struct Inner {
    seen: Seen,
    next: Option<Answer>,
    always: Option<Answer>,
    is_described: bool,
    described_next: Option<String>,
}

/// All three at one address.
#[derive(Debug, Clone)]
pub(crate) struct Simulated {
    inner: Arc<Mutex<Inner>>,
    address: SocketAddr,
}

impl Simulated {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Mutex::new(Inner { is_described: true, ..Inner::default() }));
        let simulated = Self { inner, address };
        let counted = simulated.clone();
        let listener = listener.tap_io(move |_| counted.inner().seen.connections += 1);
        let router = Router::new()
            .route("/apis/kitepool.dev/v1alpha1/namespaces/buildkite/jobhints", post(create))
            .route("/clusters/{name}", get(describe))
            .route("/", post(assume))
            .with_state(simulated.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        simulated
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.inner().seen.clone()
    }

    /// Its next answer to a creation.
    pub(crate) fn answer_next(&self, status: u16, reason: &str, message: &str) {
        self.inner().next = Some((status, reason.to_owned(), message.to_owned()));
    }

    /// Its answer to each further creation.
    pub(crate) fn answer_always(&self, status: u16, reason: &str, message: &str) {
        self.inner().always = Some((status, reason.to_owned(), message.to_owned()));
    }

    /// The address that EKS tells the next time.
    pub(crate) fn describe_next(&self, address: &str) {
        self.inner().described_next = Some(address.to_owned());
    }

    pub(crate) fn refuse_to_describe(&self) {
        self.inner().is_described = false;
    }

    pub(crate) fn forget(&self) {
        let mut inner = self.inner();
        inner.seen = Seen::default();
        inner.always = None;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

async fn create(State(simulated): State<Simulated>, headers: HeaderMap, Json(hint): Json<Value>) -> Response {
    let mut inner = simulated.inner();
    inner.seen.authorizations.push(text(&headers));
    let name = hint["metadata"]["name"].as_str().unwrap().to_owned();
    let given = inner.next.take().or_else(|| inner.always.clone());
    let (status, reason, message) = match given {
        Some(answer) => answer,
        None if inner.seen.hints.contains_key(&name) => (409, "AlreadyExists".to_owned(), "already exists".to_owned()),
        None => {
            inner.seen.hints.insert(name, hint.clone());
            (201, String::new(), String::new())
        }
    };
    inner.seen.statuses.push(status);
    let body = if status == 201 { hint } else { json!({ "kind": "Status", "reason": reason, "message": message }) };
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn describe(State(simulated): State<Simulated>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let address = simulated.address();
    let mut inner = simulated.inner();
    inner.seen.described.push(format!("/clusters/{name}"));
    inner.seen.signed.push(text(&headers));
    if !inner.is_described {
        return (StatusCode::NOT_FOUND, Json(json!({ "message": "No cluster found for name: ci." }))).into_response();
    }
    let address = inner.described_next.take().unwrap_or(address);
    Json(json!({ "cluster": { "endpoint": address, "certificateAuthority": { "data": "" } } })).into_response()
}

async fn assume(State(simulated): State<Simulated>, headers: HeaderMap, body: Bytes) -> String {
    let mut inner = simulated.inner();
    inner.seen.assumed.push(String::from_utf8(body.to_vec()).unwrap());
    inner.seen.signed.push(text(&headers));
    "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAASSUMED</AccessKeyId>\
     <SecretAccessKey>topsecretassumed</SecretAccessKey><SessionToken>assumed+/=</SessionToken>\
     <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        .to_owned()
}

fn text(headers: &HeaderMap) -> String {
    headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// The address that a token of EKS is.
pub(crate) fn address_in(authorization: &str) -> String {
    let encoded = authorization.strip_prefix("Bearer k8s-aws-v1.").unwrap();
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

/// Answers one request on each connection, says that it stays, and hangs up.
pub(crate) fn server_that_hangs_up() -> String {
    serve_by_hand(|stream| {
        let mut request = vec![0; 65_536];
        let _ = stream.read(&mut request).unwrap();
        stream
            .write_all(b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
            .unwrap();
        true
    })
}

/// Takes connections and keeps them.
pub(crate) fn server_that_says_nothing() -> String {
    serve_by_hand(|_| false)
}

/// Whether the connection ends is what the closure answers.
fn serve_by_hand(answer: impl Fn(&mut std::net::TcpStream) -> bool + Send + 'static) -> String {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if !answer(&mut stream) {
                kept.push(stream);
            }
        }
    });
    address
}
