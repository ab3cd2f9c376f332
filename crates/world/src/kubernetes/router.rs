//! The simulated API server as a service, in process or behind a listener.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::Notify;

use super::{ApiAnswer, ApiRequest, Kubernetes, Ticket, WatchEnd, WatchId};

/// The API server's own limit on a request.
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// One Kubernetes for many users. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kubernetes: Mutex<Kubernetes>,
    bells: Mutex<Bells>,
    changed: Notify,
}

/// Who waits for what; never locked together with something else for longer than a look-up.
#[derive(Debug, Default)]
struct Bells {
    watches: BTreeMap<WatchId, Arc<Notify>>,
    tickets: BTreeMap<Ticket, Arc<Notify>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Shares it.
    pub fn new(kubernetes: Kubernetes) -> Self {
        let inner = Inner { kubernetes: Mutex::new(kubernetes), bells: Mutex::default(), changed: Notify::new() };
        Self(Arc::new(inner))
    }

    /// Looks at it as it is, letting nothing happen.
    pub fn peek<T>(&self, look: impl FnOnce(&Kubernetes) -> T) -> T {
        look(&locked(&self.0.kubernetes))
    }

    /// Lets happen what is due, then looks or acts; those who wait for what comes of it are woken.
    pub fn with<T>(&self, now: Timestamp, act: impl FnOnce(&mut Kubernetes) -> T) -> T {
        let mut kubernetes = locked(&self.0.kubernetes);
        let before = kubernetes.next_at();
        kubernetes.advance(now);
        let result = act(&mut kubernetes);
        let is_changed = kubernetes.next_at() != before;
        let (watches, tickets) = kubernetes.take_news();
        drop(kubernetes);
        let bells = locked(&self.0.bells);
        watches.iter().filter_map(|id| bells.watches.get(id)).for_each(|bell| bell.notify_one());
        tickets.iter().filter_map(|ticket| bells.tickets.get(ticket)).for_each(|bell| bell.notify_one());
        drop(bells);
        if is_changed {
            self.0.changed.notify_one();
        }
        result
    }

    /// Waits until something else is the next to happen. For the one who moves the clock.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

/// Moves the clock for ever: lets everything happen at its instant. For those who share nothing else with it.
pub async fn drive(shared: Shared, clock: impl Fn() -> Timestamp) {
    loop {
        let now = clock();
        match shared.with(now, |kubernetes| kubernetes.next_at()) {
            None => shared.changed().await,
            Some(at) => {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shared.changed() => {}
                }
            }
        }
    }
}

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[derive(Clone)]
struct Served {
    shared: Shared,
    clock: Clock,
}

/// The API server as a service.
pub fn router(shared: Shared, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Router {
    Router::new().fallback(serve).with_state(Served { shared, clock: Arc::new(clock) })
}

async fn serve(State(served): State<Served>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let request = ApiRequest {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        content_type: text(&parts.headers, &header::CONTENT_TYPE),
        user_agent: text(&parts.headers, &header::USER_AGENT),
        body: body.to_vec(),
    };
    let now = (served.clock)();
    match served.shared.with(now, |kubernetes| kubernetes.answer(&request, now)) {
        ApiAnswer::Later(ticket) => served.respond(wait(&served, ticket).await),
        answer @ (ApiAnswer::Told { .. } | ApiAnswer::Watching(_) | ApiAnswer::Lost) => served.respond(answer),
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Waits for an answer. Dropped before, it tells that nobody waits any more.
async fn wait(served: &Served, ticket: Ticket) -> ApiAnswer {
    struct Patience<'a>(&'a Served, Ticket);
    impl Drop for Patience<'_> {
        fn drop(&mut self) {
            locked(&self.0.shared.0.bells).tickets.remove(&self.1);
            self.0.shared.with((self.0.clock)(), |kubernetes| kubernetes.give_up(self.1));
        }
    }
    let patience = Patience(served, ticket);
    let bell = Arc::new(Notify::new());
    locked(&served.shared.0.bells).tickets.insert(ticket, Arc::clone(&bell));
    loop {
        let answer = served.shared.with((served.clock)(), |kubernetes| kubernetes.take_answer(ticket));
        if let Some(answer) = answer {
            drop(patience);
            return answer;
        }
        bell.notified().await;
    }
}

impl Served {
    fn respond(&self, answer: ApiAnswer) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        match answer {
            ApiAnswer::Told { status, body } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, json, body).into_response()
            }
            ApiAnswer::Watching(id) => (json, self.lines(id)).into_response(),
            ApiAnswer::Later(_) | ApiAnswer::Lost => {
                let broken = stream::once(async { Err::<Bytes, _>(io::Error::from(io::ErrorKind::ConnectionReset)) });
                (json, Body::from_stream(broken)).into_response()
            }
        }
    }

    /// The body of a watch: its lines as they come.
    fn lines(&self, id: WatchId) -> Body {
        let bell = Arc::new(Notify::new());
        locked(&self.shared.0.bells).watches.insert(id, Arc::clone(&bell));
        let open = OpenWatch { served: self.clone(), id };
        let batches = stream::unfold(Some((open, bell)), |state| async {
            let (open, bell) = state?;
            loop {
                let news = open.served.shared.with((open.served.clock)(), |kubernetes| kubernetes.take_watch(open.id));
                let mut lines: Vec<io::Result<Bytes>> =
                    news.lines.into_iter().map(|line| Ok(Bytes::from(line))).collect();
                match news.end {
                    Some(WatchEnd::Clean) => return Some((lines, None)),
                    Some(WatchEnd::Cut) => {
                        lines.push(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
                        return Some((lines, None));
                    }
                    None if !lines.is_empty() => return Some((lines, Some((open, bell)))),
                    None => bell.notified().await,
                }
            }
        });
        Body::from_stream(batches.flat_map(stream::iter))
    }
}

/// Closes the watch when its client is gone.
struct OpenWatch {
    served: Served,
    id: WatchId,
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        locked(&self.served.shared.0.bells).watches.remove(&self.id);
        self.served.shared.with((self.served.clock)(), |kubernetes| kubernetes.close_watch(self.id));
    }
}
