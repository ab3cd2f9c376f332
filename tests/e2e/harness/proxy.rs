//! Stands between one controller and the API server: adds TLS and nothing else, records every request, and disturbs when told.
//!
//! The controller's requests arrive in plain HTTP/1.1, one at a time on a connection, so a connection that the proxy closes is
//! to the controller what a connection is that the network lost.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::body::{Body, to_bytes};
use futures::{StreamExt as _, TryStreamExt as _};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    control_plane::Access,
    disturbance::{Orders, Record, Treatment, Which},
    kill_points::{KillPlan, Side, Strike, Write},
};

/// The API server takes nothing larger.
const BODY_BYTES_MAX: usize = 3 << 20;

/// A running proxy; it ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _ends: DropGuard,
}

struct State {
    upstream: String,
    client: reqwest::Client,
    orders: Mutex<Orders>,
    records: Mutex<Vec<Record>>,
    /// Counts the cuts: a stream ends when the number grows.
    cuts: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn start(access: &Access) -> Self {
        let config = access.config().await;
        let mut builder = reqwest::Client::builder().no_proxy().http1_only();
        if let Some(certificates) = &config.root_cert {
            let own = certificates.iter().map(|der| reqwest::Certificate::from_der(der).expect("a certificate"));
            builder = builder.tls_certs_only(own.collect::<Vec<_>>());
        }
        let state = Arc::new(State {
            upstream: config.cluster_url.to_string().trim_end_matches('/').to_owned(),
            client: builder.build().expect("a client"),
            orders: Mutex::default(),
            records: Mutex::default(),
            cuts: watch::Sender::new(0),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(listen(listener, Arc::clone(&state), end.clone())));
        Self { address, state, _ends: end.drop_guard() }
    }

    /// Ends all watches as a lost connection does.
    pub(crate) fn cut_watches(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From now on, does this to requests of this kind.
    pub(crate) fn treat(&self, which: Which, treatment: Treatment) {
        self.orders().treat(which, treatment, usize::MAX);
    }

    /// Does this to the next few requests of this kind.
    pub(crate) fn treat_next(&self, times: usize, which: Which, treatment: Treatment) {
        self.orders().treat(which, treatment, times);
    }

    /// Passes everything on again.
    pub(crate) fn behave(&self) {
        self.orders().clear();
    }

    pub(crate) fn kill(&self, plan: KillPlan) {
        self.orders().kill(plan);
    }

    /// The writes at which the controller was killed so far.
    pub(crate) fn killed(&self) -> BTreeSet<Write> {
        self.orders().killed()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.state.records().clone()
    }

    /// The latest request that is like this.
    pub(crate) fn latest(&self, is_meant: impl Fn(&Record) -> bool) -> Option<Record> {
        self.state.records().iter().rev().find(|record| is_meant(record)).cloned()
    }

    /// Looks at what has arrived since, the latest first. Nothing is copied, so who waits for something may look often.
    pub(crate) fn look_since(&self, since: Timestamp, look: impl FnMut(&Record)) {
        self.state.records().iter().rev().take_while(|record| record.at >= since).for_each(look);
    }

    /// What was written since, the lease and Events apart.
    pub(crate) fn writes_since(&self, since: Timestamp) -> Vec<Record> {
        self.records().into_iter().filter(|record| record.at >= since && record.is_write()).collect()
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.state.orders()
    }
}

impl State {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("no panic while it is held")
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().expect("no panic while it is held")
    }
}

async fn listen(listener: TcpListener, state: Arc<State>, end: CancellationToken) {
    while let Ok((connection, _peer)) = listener.accept().await {
        tokio::spawn(end.clone().run_until_cancelled_owned(serve(connection, Arc::clone(&state))));
    }
}

async fn serve(connection: TcpStream, state: Arc<State>) {
    // The head of an answer goes out before its body has come: without this the body waits 40 ms for the head to be confirmed.
    drop(connection.set_nodelay(true));
    // An error of the service closes the connection without an answer, which is what a disturbance is.
    let service = service_fn(|request| answer(Arc::clone(&state), request));
    drop(http1::Builder::new().serve_connection(TokioIo::new(connection), service).await);
}

/// The connection is lost, from the controller's side.
fn lost() -> io::Error {
    io::Error::other("the proxy closes the connection")
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let body = to_bytes(Body::new(body), BODY_BYTES_MAX).await.map_err(io::Error::other)?;
    let text = String::from_utf8_lossy(&body).into_owned();
    let record = Record {
        at: Timestamp::now(),
        answered: None,
        method: head.method.clone(),
        path: path.clone(),
        body: text.clone(),
        status: None,
        failure: None,
    };
    let index = {
        let mut records = state.records();
        records.push(record);
        records.len() - 1
    };

    let (strike, treatment) = {
        let mut orders = state.orders();
        (orders.strike(&head.method, &path, &text), orders.treatment(&head.method, &path))
    };
    match treatment {
        Some(Treatment::Refuse) => return Err(lost()),
        Some(Treatment::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Treatment::LoseAnswer) | None => {}
    }
    if let Some(strike @ Strike { side: Side::Before, .. }) = strike {
        strike.carry_out();
        return Err(lost());
    }
    let mut headers = head.headers;
    headers.remove(hyper::header::HOST);
    let passed_on = state.client.request(head.method, format!("{}{path}", state.upstream)).headers(headers).body(body);
    let answer = match passed_on.send().await {
        Ok(answer) => answer,
        Err(error) => {
            let why = format!("{error:?}");
            if let Some(record) = state.records().get_mut(index) {
                record.failure = Some(why.clone());
            }
            return Err(io::Error::other(why));
        }
    };
    if let Some(record) = state.records().get_mut(index) {
        record.answered = Some(Timestamp::now());
        record.status = Some(answer.status().as_u16());
    }
    if let Some(strike) = strike {
        strike.carry_out();
        return Err(lost());
    }
    if treatment == Some(Treatment::LoseAnswer) {
        return Err(lost());
    }
    Ok(returned(answer, &state))
}

/// The answer, piece by piece as it comes, until the connections are cut.
fn returned(answer: reqwest::Response, state: &State) -> Response<Body> {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut cuts = state.cuts.subscribe();
    let cut = async move {
        // The sender lives as long as the proxy; when it is gone there is nobody left to answer.
        drop(cuts.changed().await);
    };
    let pieces = answer.bytes_stream().map_err(io::Error::other).take_until(Box::pin(cut));
    let is_cut = state.cuts.subscribe();
    let ended = futures::stream::once(async move {
        if is_cut.has_changed().unwrap_or(true) { Err(lost()) } else { Ok(hyper::body::Bytes::new()) }
    });
    let mut response = Response::new(Body::from_stream(pieces.chain(ended)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    // Each hop frames its own messages.
    response.headers_mut().remove(hyper::header::TRANSFER_ENCODING);
    response.headers_mut().remove(hyper::header::CONNECTION);
    response
}
