//! A controller that can be killed between any two writes, and started again.

use std::{
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Method, Request, Response};
use kitepool_world::Joined;
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tower::{Service, ServiceExt as _};

use super::agents::SimulatedAgents;
use crate::{
    buildkite::{Client, Transport},
    clock::Clock,
    cluster::{client::Clients, fence::Fence},
    control::{
        metrics::Metrics,
        record::Line,
        run::{Config, Outside, ProbeWay, lead_alone},
    },
};

/// A name that nobody resolves: requests stay in this process.
const ENDPOINT: &str = "http://buildkite.simulated/v3";

/// As long as the flags' defaults say.
const POLL_DEADLINE: Duration = Duration::from_secs(10);

/// On which side of a write the controller is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The write is never made.
    Before,
    /// It is made, and the answer is never heard.
    After,
}

/// Kills the controller at its nth write, counted over all its lives.
#[derive(Debug)]
pub struct KillPoint {
    at: usize,
    side: Side,
    seen: AtomicUsize,
    reached: Notify,
}

impl KillPoint {
    /// At the nth write, counted from 1; 0 kills never and counts all the same.
    pub fn new(at: usize, side: Side) -> Arc<Self> {
        Arc::new(Self { at, side, seen: AtomicUsize::new(0), reached: Notify::new() })
    }

    /// Writes so far.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    /// Until it is reached.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }
}

/// A controller in this process.
pub struct Replica {
    world: Joined,
    clock: Clock,
    config: Config,
    record: Option<mpsc::Sender<Line>>,
    kill_point: Arc<KillPoint>,
    metrics: Metrics,
    running: Option<AbortOnDropHandle<()>>,
}

impl Replica {
    /// One that is not started yet.
    pub fn new(
        world: Joined,
        clock: Clock,
        config: Config,
        record: Option<mpsc::Sender<Line>>,
        kill_point: Arc<KillPoint>,
    ) -> Self {
        let (metrics, _registry) = Metrics::new(crate::buildkite::OUTCOMES);
        Self { world, clock, config, record, kill_point, metrics, running: None }
    }

    /// How many ticks it has made, in all its lives.
    pub fn ticks(&self) -> u64 {
        self.metrics.ticks()
    }

    /// Where it is killed.
    pub const fn kill_point(&self) -> &Arc<KillPoint> {
        &self.kill_point
    }

    /// Starts it; one that runs is killed before.
    pub fn start(&mut self) {
        self.kill();
        let clock = self.clock.clone();
        let reading = clock.clone();
        let kubernetes = kitepool_world::kubernetes::router(self.world.kubernetes().clone(), move || reading.now());
        let kubernetes = Watched { inner: kubernetes, kill_point: Arc::clone(&self.kill_point) };
        let fence = Fence::closed(clock.clone());
        let namespace = self.config.lease_namespace.clone();
        let clients = Clients::in_process(kubernetes, &namespace, &fence);
        let transport = Transport::new(InProcess(kitepool_world::router(self.world.buildkite().clone())));
        let Ok(buildkite) = Client::new(transport, ENDPOINT, self.config.poll_deadline, clock.clone()) else { return };
        let agents = Arc::new(SimulatedAgents::new(self.world.clone()));
        let outside = Outside { clients, fence, buildkite, agents, clock };
        let life = lead_alone(
            self.config.clone(),
            outside,
            self.metrics.clone(),
            self.record.clone(),
            CancellationToken::new(),
        );
        self.running = Some(AbortOnDropHandle::new(tokio::spawn(life)));
    }

    /// Ends it as SIGKILL would.
    pub fn kill(&mut self) {
        self.running = None;
    }
}

/// The flags' defaults, for a namespace.
pub fn config(namespace: &str, poll_interval: Duration) -> Config {
    const BUILDKITE_BUDGET: NonZeroU32 = NonZeroU32::new(120).unwrap();
    const WRITE_BUDGET: NonZeroU32 = NonZeroU32::new(400).unwrap();
    Config {
        namespaces: vec![namespace.to_owned()],
        endpoint: None,
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        poll_interval,
        poll_deadline: POLL_DEADLINE,
        buildkite_budget: BUILDKITE_BUDGET,
        write_budget: WRITE_BUDGET,
        token_folder: "/mnt".to_owned(),
        is_dry_run: false,
        lease_name: "kitepool".to_owned(),
        lease_namespace: namespace.to_owned(),
        identity: "simulated".to_owned(),
        record: None,
        webhook: None,
        probe: ProbeWay::Direct,
        first: None,
    }
}

/// The API server with an eye on writes.
#[derive(Clone)]
struct Watched {
    inner: Router,
    kill_point: Arc<KillPoint>,
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<B> Service<Request<B>> for Watched
where
    B: http_body::Body<Data = axum::body::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_write = request.method() != Method::GET;
        let number = if is_write { self.kill_point.seen.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        let is_last = is_write && number == self.kill_point.at;
        let kill_point = Arc::clone(&self.kill_point);
        let answer = self.inner.clone().oneshot(request.map(Body::new));
        Box::pin(async move {
            if is_last && kill_point.side == Side::Before {
                kill_point.reached.notify_one();
                return std::future::pending().await;
            }
            let answer = answer.await;
            if is_last {
                kill_point.reached.notify_one();
                return std::future::pending().await;
            }
            answer
        })
    }
}

/// Buildkite without a connection.
#[derive(Clone)]
struct InProcess(Router);

impl Service<reqwest::Request> for InProcess {
    type Response = reqwest::Response;
    type Error = reqwest::Error;
    type Future = Answer<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: reqwest::Request) -> Self::Future {
        let router = self.0.clone();
        Box::pin(async move {
            let request: Request<reqwest::Body> = request.try_into()?;
            let Ok(answer) = router.oneshot(request.map(Body::new)).await;
            let (head, body) = answer.into_parts();
            // The router's bodies cannot be shared between threads, which the client's must. One that breaks off in the middle
            // arrives as one that is too short to be understood.
            let body = axum::body::to_bytes(body, crate::buildkite::client::BODY_MAX * 2).await.unwrap_or_default();
            Ok(Response::from_parts(head, reqwest::Body::from(body)).into())
        })
    }
}
