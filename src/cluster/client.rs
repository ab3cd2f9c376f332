//! Three clients of one API server, so that none can starve or outvote another: reading, writing through the fence, the lease.

use std::time::Duration;

use anyhow::Context as _;
use kube::{
    Client,
    client::{Body, ClientBuilder},
};
use tower::{BoxError, Layer as _, Service};

/// Where the API server is and who we are.
pub use kube::Config;

use super::{
    error::Error,
    fence::{Fence, FenceLayer, RenewalLayer},
    hints::HintWriter,
    lease::LEASE_DURATION,
};

/// A connection that is not there after this long will not come: the API server is one hop away.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A little longer than the longest silence of a healthy watch, which the API server ends after
/// [`WATCH_SECONDS`](super::read::WATCH_SECONDS).
const WATCH_READ_DEADLINE: Duration = Duration::from_secs(75);

/// The lease's renewals have no deadline of their own. Longer than the 5 s between two of them, since it also ends a
/// connection that is idle; shorter than the lease, so that a hanging renewal is given up while the lease is still ours.
const LEASE_READ_DEADLINE: Duration = Duration::from_secs(12);

/// The clients.
#[derive(Clone)]
pub struct Clients {
    /// Lists, watches, gets. Retries what the API server asks to retry.
    pub read: Client,
    /// Every write but the lease's. Never retries: the next tick does, with fresh eyes.
    pub write: Client,
    /// The lease alone, so that a burst of other calls cannot delay a renewal.
    pub lease: Client,
}

/// Where the API server is and who we are, from `KUBECONFIG`, the home folder or the pod's service account.
pub async fn config() -> anyhow::Result<Config> {
    let mut config = Config::infer().await.map_err(|error| {
        anyhow::anyhow!(
            "no way to the API server: {}. Inside a cluster the pod needs its service account's token mounted; outside set \
             KUBECONFIG to a file whose current context exists",
            chain(&error)
        )
    })?;
    set_deadlines(&mut config);
    Ok(config)
}

/// Whether this is the API server of the cluster that we run in, so that its pods can be reached from here.
pub fn is_inside(config: &Config) -> bool {
    Config::incluster().is_ok_and(|inside| inside.cluster_url == config.cluster_url)
}

/// An API server at this address that asks nobody who they are: a simulated one.
pub fn plain(address: &str) -> anyhow::Result<Config> {
    let mut config = Config::new(address.parse().with_context(|| format!("{address} is no address"))?);
    set_deadlines(&mut config);
    Ok(config)
}

const fn set_deadlines(config: &mut Config) {
    config.connect_timeout = Some(CONNECT_DEADLINE);
    config.read_timeout = Some(WATCH_READ_DEADLINE);
}

/// For hints: not behind the fence, since every replica may write them, and it never retries.
pub fn for_hints(config: &Config) -> Result<HintWriter, Error> {
    let mut once = config.clone();
    once.default_retry = false;
    Ok(HintWriter::new(Client::try_from(once)?))
}

impl Clients {
    /// Connects lazily: a server that is away is noticed by the first call, and again by each one after it.
    pub fn new(config: &Config, fence: &Fence, identity: &str) -> Result<Self, Error> {
        let read = Client::try_from(config.clone())?;
        let mut once = config.clone();
        once.default_retry = false;
        let write = ClientBuilder::try_from(once.clone())?.with_layer(&FenceLayer(fence.clone())).build();
        once.read_timeout = Some(LEASE_READ_DEADLINE);
        let renewal =
            RenewalLayer { identity: identity.to_owned(), fence: fence.clone(), lease_duration: LEASE_DURATION };
        let lease = ClientBuilder::try_from(once)?.with_layer(&renewal).build();
        Ok(Self { read, write, lease })
    }

    /// Through this service, which answers in this process: a simulation. The lease's client renews nothing, since there is
    /// nobody to lead instead.
    pub fn in_process<S, B>(api_server: S, namespace: &str, fence: &Fence) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = <Body as http_body::Body>::Data> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let read = Client::new(api_server.clone(), namespace);
        let write = Client::new(FenceLayer(fence.clone()).layer(api_server), namespace);
        Self { lease: read.clone(), read, write }
    }
}

/// An error with all that caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
