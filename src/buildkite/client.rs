//! Makes one call to Buildkite: sends it, reads a bounded answer before a deadline, and says what became of it.

use std::{error::Error as _, future::poll_fn, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use reqwest::{Request, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use tower::{Service, util::BoxCloneSyncService};

use super::{
    error::Error,
    identity::TokenIdentity,
    wire::{self, MetricsReading},
};
use crate::clock::Clock;

/// The largest body that is read. A queue takes about 150 bytes in the answer, so this is over 20 000 queues.
pub const BODY_MAX: usize = 4 * 1024 * 1024;

/// Connections kept open to one host. Tokens beyond it reconnect, which costs a handshake and nothing else.
pub const IDLE_CONNECTIONS_MAX: usize = 16;

/// How much of a transport's own words is told; the longest useful ones (certificates) are about 150.
pub const DETAIL_MAX: usize = 200;

const METRICS: &str = "/metrics";
const TOKEN: &str = "/token";

/// What a call brought, and the interval that Buildkite asked for with it.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// The reading, or why there is none.
    pub result: Result<T, Error>,
    /// The interval that Buildkite wants between polls from now on; `None` if it said nothing usable.
    pub poll_after: Option<Duration>,
    /// Whether it did say something about the interval, but nothing that can be understood. It is ignored, and told so that
    /// it can be counted.
    pub garbled_interval: bool,
}

/// The endpoint or the transport cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not an address that calls can be made to.
    #[error(
        "the Buildkite endpoint must be an http or https address without user, query or fragment; use https://agent.buildkite.com/v3"
    )]
    Address,
    /// The transport refused its settings.
    #[error("the HTTPS transport cannot be set up; check the system's certificates")]
    Transport(#[source] reqwest::Error),
}

impl EndpointError {
    /// A bounded word for labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Transport(_) => "transport",
        }
    }
}

/// Whatever carries a request to Buildkite and its answer back: a connection, or a simulation in this process.
pub type Transport = BoxCloneSyncService<Request, Response, reqwest::Error>;

/// A client of Buildkite's agent API over any transport.
#[derive(Debug, Clone)]
pub struct Client<S = Transport> {
    transport: S,
    endpoint: Url,
    deadline: Duration,
    clock: Clock,
}

struct Raw {
    headers: HeaderMap,
    result: Result<Vec<u8>, Error>,
}

impl Client<Transport> {
    /// A client over the network. Redirects are not followed: they would carry the token to another host.
    pub fn over_the_network(endpoint: &str, deadline: Duration, clock: Clock) -> Result<Self, EndpointError> {
        let mut transport = reqwest::Client::builder()
            .user_agent(concat!("kitepool/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        if is_this_machine(endpoint) {
            // The proxy that the environment names is another machine, and knows no way back.
            transport = transport.no_proxy();
        }
        let transport = transport.build().map_err(EndpointError::Transport)?;
        Self::new(Transport::new(transport), endpoint, deadline, clock)
    }
}

fn is_this_machine(endpoint: &str) -> bool {
    let host = Url::parse(endpoint).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl<S> Client<S>
where
    S: Service<Request, Response = Response, Error = reqwest::Error> + Clone,
{
    /// A client over `transport`. Each call ends within `deadline`, body and all.
    pub fn new(transport: S, endpoint: &str, deadline: Duration, clock: Clock) -> Result<Self, EndpointError> {
        let endpoint = Url::parse(endpoint.trim_end_matches('/')).map_err(|_| EndpointError::Address)?;
        let plain = endpoint.query().is_none() && endpoint.fragment().is_none();
        let anonymous = endpoint.username().is_empty() && endpoint.password().is_none();
        if !matches!(endpoint.scheme(), "http" | "https") || !plain || !anonymous {
            return Err(EndpointError::Address);
        }
        Ok(Self { transport, endpoint, deadline, clock })
    }

    /// Every queue of the token, by `GET /metrics`.
    pub async fn metrics(&self, token: &SecretString) -> Answer<MetricsReading> {
        let asked_at = self.clock.now();
        let Raw { headers, result } = self.call(METRICS, token, asked_at).await;
        let result = result.and_then(|body| wire::metrics(&body, wire::date(&headers), asked_at));
        let (poll_after, garbled_interval) = match wire::wish(&headers) {
            wire::Wish::None => (None, false),
            wire::Wish::Interval(interval) => (Some(interval), false),
            wire::Wish::Garbage => (None, true),
        };
        Answer { result, poll_after, garbled_interval }
    }

    /// Whose token it is, by `GET /token`.
    pub async fn token(&self, token: &SecretString) -> Result<TokenIdentity, Error> {
        let raw = self.call(TOKEN, token, self.clock.now()).await;
        wire::token(&raw.result?)
    }

    async fn call(&self, path: &'static str, token: &SecretString, now: Timestamp) -> Raw {
        let mut headers = HeaderMap::new();
        let exchange = self.exchange(path, token, now, &mut headers);
        // One deadline over head and body: a server that sends a byte now and then must not hold the call open.
        let result = tokio::time::timeout(self.deadline, exchange).await;
        Raw { result: result.unwrap_or(Err(Error::Deadline { after: self.deadline })), headers }
    }

    async fn exchange(
        &self,
        path: &'static str,
        token: &SecretString,
        now: Timestamp,
        headers: &mut HeaderMap,
    ) -> Result<Vec<u8>, Error> {
        let request = self.request(path, token)?;
        let mut transport = self.transport.clone();
        poll_fn(|context| transport.poll_ready(context)).await.map_err(unreachable)?;
        let response = transport.call(request).await.map_err(unreachable)?;
        headers.clone_from(response.headers());
        judge(response.status(), path, headers, now)?;
        read(response).await
    }

    fn request(&self, path: &str, token: &SecretString) -> Result<Request, Error> {
        let mut authorization =
            HeaderValue::from_str(&format!("Token {}", token.expose_secret())).map_err(|_| Error::UnusableToken)?;
        // Keeps it out of the transport's own debug output, and out of HTTP/2's header table.
        authorization.set_sensitive(true);
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}{path}", self.endpoint.path().trim_end_matches('/')));
        let mut request = Request::new(http::Method::GET, url);
        request.headers_mut().insert(header::AUTHORIZATION, authorization);
        Ok(request)
    }
}

fn judge(status: StatusCode, path: &'static str, headers: &HeaderMap, now: Timestamp) -> Result<(), Error> {
    let code = status.as_u16();
    match code {
        200 => Ok(()),
        300..=399 => Err(Error::Redirect { status: code }),
        401 | 403 => Err(Error::Refused { status: code }),
        404 => Err(Error::NotFound { path }),
        429 => Err(Error::RateLimited { retry_after: wire::retry_after(headers, now) }),
        500..=599 => Err(Error::ServerError { status: code, retry_after: wire::retry_after(headers, now) }),
        _ => Err(Error::UnexpectedStatus { status: code }),
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| Error::CutOff)? {
        if body.len().saturating_add(chunk.len()) > BODY_MAX {
            return Err(Error::TooLarge { limit: BODY_MAX });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(error: reqwest::Error) -> Error {
    // The outer layers say only "error sending request"; the innermost says why.
    let error = error.without_url();
    let mut innermost = error.to_string();
    let mut source = error.source();
    // A chain of causes is finite.
    while let Some(cause) = source {
        innermost = cause.to_string();
        source = cause.source();
    }
    Error::Unreachable { detail: innermost.chars().take(DETAIL_MAX).collect() }
}
