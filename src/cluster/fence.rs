//! No write of a leader that lost its lease ever leaves this process: the writing client asks the fence before each one.
//!
//! ```text
//!  lease client ── PATCH lease ──► 2xx that names us as holder ──► fence.deadline = instant it was SENT + lease duration
//!                                   2xx that names another       ──► closed
//!  writing client ── any write ──► deadline at least WRITE_DEADLINE away? ──► yes: send    no: Fenced
//! ```
//!
//! The deadline is measured on this process's own monotonic clock from before the renewal was sent, so neither a skewed wall
//! clock nor a process that stood still can stretch it. A write is let through only if it would time out before the lease ends.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::Value;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

use crate::clock::Clock;

/// No write may take longer. The API server answers within a second when it is well; five leave room for a slow etcd and are
/// less than what a healthy lease always has left (lease duration less renewal interval, 15 s - 5 s).
pub const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// A Lease is below one KiB; its `managedFields` grow with the number of holders' names.
const LEASE_BYTES_MAX: usize = 256 * 1024;

/// Until when this process may write. Clones share it.
#[derive(Debug, Clone)]
pub struct Fence {
    hold: Arc<Mutex<Hold>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Hold {
    deadline: Option<Instant>,
    /// The record's `renewTime` that the deadline was counted from.
    renew_time: Option<String>,
}

impl Fence {
    /// A fence that lets nothing through yet.
    pub fn closed(clock: Clock) -> Self {
        Self { hold: Arc::default(), clock }
    }

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease was renewed by a request sent at `sent`, and the record says when. A write that leaves that instant as it
    /// was (taking a lease ends with one) renewed nothing.
    pub fn renewed(&self, renew_time: &str, sent: Instant, duration: Duration) {
        let mut hold = self.hold();
        if hold.renew_time.as_deref() != Some(renew_time) {
            hold.deadline = sent.checked_add(duration);
            hold.renew_time = Some(renew_time.to_owned());
        }
    }

    /// From now on nothing passes, until the next renewal.
    pub fn close(&self) {
        self.hold().deadline = None;
    }

    /// Whether a write begun now would end, one way or another, before the lease does.
    pub fn permits_a_write(&self) -> bool {
        self.hold().deadline.is_some_and(|deadline| self.clock.mono() + WRITE_DEADLINE < deadline)
    }

    /// Whether the lease, as far as this process knows, has not ended.
    pub fn holds(&self) -> bool {
        self.hold().deadline.is_some_and(|deadline| self.clock.mono() < deadline)
    }
}

/// A write that was held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced;

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the lease ends too soon (or ended) for this write to be ours; the leader of that time decides again",
        )
    }
}

impl std::error::Error for Fenced {}

/// Holds back writes without a lease.
#[derive(Debug, Clone)]
pub struct FenceLayer(pub Fence);

impl<S> Layer<S> for FenceLayer {
    type Service = FenceService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FenceService { inner, fence: self.0.clone() }
    }
}

/// See [`FenceLayer`].
#[derive(Debug, Clone)]
pub struct FenceService<S> {
    inner: S,
    fence: Fence,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl<S, B, R> Service<Request<B>> for FenceService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    R: 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = Answer<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let reads_only = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads_only || self.fence.permits_a_write() {
            let answer = self.inner.call(request);
            Box::pin(async move { answer.await.map_err(Into::into) })
        } else {
            Box::pin(async { Err(Fenced.into()) })
        }
    }
}

/// Tells the fence of each renewal that the API server accepted. For the client that serves nothing but the lease.
///
/// The answer's own words count, not its status: a renewal carries no precondition, so a replica that lost the lease is
/// answered 200 as well, with the name of the one who has it.
#[derive(Debug, Clone)]
pub struct RenewalLayer {
    /// Our name in the lease.
    pub identity: String,
    /// Whom to tell.
    pub fence: Fence,
    /// How long a renewal holds.
    pub lease_duration: Duration,
}

impl<S> Layer<S> for RenewalLayer {
    type Service = RenewalService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RenewalService { inner, watch: self.clone() }
    }
}

/// See [`RenewalLayer`].
#[derive(Debug, Clone)]
pub struct RenewalService<S> {
    inner: S,
    watch: RenewalLayer,
}

impl<S, B, R> Service<Request<B>> for RenewalService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    R: http_body::Body + Send + 'static,
    R::Data: Send,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Answer<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let sent = self.watch.fence.clock.mono();
        let watch = self.watch.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (parts, body) = answer.await.map_err(Into::into)?.into_parts();
            let bytes = Limited::new(body, LEASE_BYTES_MAX).collect().await?.to_bytes();
            if writes && parts.status.is_success() {
                match holder(&bytes) {
                    Some((holder, renew_time)) if holder == watch.identity => {
                        watch.fence.renewed(&renew_time, sent, watch.lease_duration);
                    }
                    _ => watch.fence.close(),
                }
            }
            Ok(Response::from_parts(parts, Body::from(bytes)))
        })
    }
}

/// Who holds the lease since when, by an answer of the API server.
fn holder(answer: &[u8]) -> Option<(String, String)> {
    let lease: Value = serde_json::from_slice(answer).ok()?;
    let text = |pointer: &str| lease.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    Some((text("/spec/holderIdentity")?, text("/spec/renewTime")?))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use jiff::Timestamp;
    use tower::ServiceExt as _;

    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    async fn send(fence: &Fence, method: Method) -> Result<Response<()>, BoxError> {
        let service = tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        let request = Request::builder().method(method).body(()).unwrap();
        FenceLayer(fence.clone()).layer(service).oneshot(request).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_passes_only_while_it_would_end_before_the_lease() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let fence = Fence::closed(clock.clone());
        assert!(send(&fence, Method::PATCH).await.unwrap_err().is::<Fenced>());
        assert!(send(&fence, Method::GET).await.is_ok());

        fence.renewed("first", clock.mono(), LEASE);
        assert!(send(&fence, Method::PATCH).await.is_ok());
        tokio::time::advance(LEASE.checked_sub(WRITE_DEADLINE).unwrap()).await;
        assert!(send(&fence, Method::POST).await.unwrap_err().is::<Fenced>());
        assert!(fence.holds());
        tokio::time::advance(WRITE_DEADLINE).await;
        assert!(!fence.holds());
    }

    /// Sends a renewal that is answered so, after so long.
    async fn renew(fence: &Fence, status: u16, holder: &'static str, takes: Duration) {
        renew_at(fence, status, holder, takes, "2026-01-01T00:00:00.000000Z").await;
    }

    async fn renew_at(fence: &Fence, status: u16, holder: &'static str, takes: Duration, renew_time: &'static str) {
        let server = tower::service_fn(move |_: Request<()>| async move {
            tokio::time::sleep(takes).await;
            let lease = serde_json::json!({ "spec": { "holderIdentity": holder, "renewTime": renew_time } });
            let response = Response::builder().status(status).body(Body::from(lease.to_string().into_bytes())).unwrap();
            Ok::<_, Infallible>(response)
        });
        let layer = RenewalLayer { identity: "us".to_owned(), fence: fence.clone(), lease_duration: LEASE };
        let request = Request::builder().method(Method::PATCH).body(()).unwrap();
        layer.layer(server).oneshot(request).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_counts_from_when_it_was_sent() {
        let fence = Fence::closed(Clock::fixed(Timestamp::UNIX_EPOCH));
        renew(&fence, 200, "us", Duration::from_secs(12)).await;
        assert!(fence.holds());
        assert!(!fence.permits_a_write(), "three seconds are left, fewer than a write may take");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_renewal_extends_nothing() {
        let fence = Fence::closed(Clock::fixed(Timestamp::UNIX_EPOCH));
        renew(&fence, 409, "us", Duration::ZERO).await;
        assert!(!fence.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_moves_no_renew_time_extends_nothing() {
        let fence = Fence::closed(Clock::fixed(Timestamp::UNIX_EPOCH));
        renew(&fence, 200, "us", Duration::ZERO).await;
        tokio::time::advance(LEASE.checked_sub(Duration::from_secs(1)).unwrap()).await;
        renew(&fence, 200, "us", Duration::ZERO).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!fence.holds());
        renew_at(&fence, 200, "us", Duration::ZERO, "2026-01-01T00:00:16.000000Z").await;
        assert!(fence.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_names_another_holder_closes_the_fence() {
        let fence = Fence::closed(Clock::fixed(Timestamp::UNIX_EPOCH));
        renew(&fence, 200, "us", Duration::ZERO).await;
        assert!(fence.permits_a_write());
        renew(&fence, 200, "another", Duration::ZERO).await;
        assert!(!fence.holds());
    }
}
