//! HTTP/1.1 to one origin over one connection that is kept for the next call.
//!
//! Every call through it may be made twice: names are deterministic, and what was not answered is asked again. So a
//! kept connection that turns out to be dead costs a new one and nothing else.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    sync::Mutex,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    clock::Clock,
    trouble::{Trouble, shortened},
};

/// The largest answer that is read. A stored hint of 100 jobs comes to some 100 KiB at most, an event from the Runtime
/// API to 6 MiB.
pub const ANSWER_MAX: usize = 7 * 1024 * 1024;

/// A connection that lay longer is not tried. Load balancers and NAT gateways of AWS forget idle ones after 350 s, some
/// without a word.
const IDLE_MAX: SignedDuration = SignedDuration::from_secs(300);

/// The name that servers see.
const AGENT: &str = concat!("kitepool-lambda/", env!("CARGO_PKG_VERSION"));

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    is_tls: bool,
    host: String,
    port: u16,
    /// What stands before each path; empty at most APIs, something at a proxy such as Rancher's.
    prefix: String,
}

impl Origin {
    /// From an address. Without TLS only on this machine: a token must not cross a network in the clear.
    pub fn parse(address: &str) -> Result<Self, Trouble> {
        let unusable = |why: &str| {
            Trouble::Unusable(format!("{} is no address to call: {why}", shortened(&format!("{address:?}"))))
        };
        let uri: http::Uri = address.parse().map_err(|_| unusable("write it like https://host:port"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(unusable("write it like https://host:port")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| unusable("it names no host"))?;
        // An address of IPv6 stands in brackets, which are not part of it.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !is_tls && !is_here {
            return Err(unusable("without TLS only this machine is called; use https"));
        }
        if uri.query().is_some() {
            return Err(unusable("leave out what comes after the question mark"));
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { is_tls, host: bare.to_owned(), port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Of the Runtime API, which is given as host and port and speaks without TLS, to this sandbox only.
    pub fn runtime_api(authority: &str) -> Result<Self, Trouble> {
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
        let port =
            port.parse().map_err(|_| Trouble::Unusable("AWS_LAMBDA_RUNTIME_API is no host and port".to_owned()))?;
        Ok(Self { is_tls: false, host: host.to_owned(), port, prefix: String::new() })
    }

    /// Whether it wants TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// As it stands in `Host`: without the port that goes without saying, as it is signed.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.is_tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    /// GET or POST.
    pub method: Method,
    /// Path and query, encoded.
    pub path: String,
    /// Beside the host, which is added.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// May be empty.
    pub body: Bytes,
}

/// One answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

type Sender = SendRequest<Full<Bytes>>;

/// A client of one origin.
pub struct Client {
    origin: Origin,
    tls: Option<TlsConnector>,
    clock: Clock,
    kept: Mutex<Option<(Sender, Timestamp)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Client {
    /// Of this origin; `tls` is used where it wants TLS.
    pub fn new(origin: Origin, tls: Option<TlsConnector>, clock: Clock) -> Self {
        let tls = tls.filter(|_| origin.is_tls());
        Self { origin, tls, clock, kept: Mutex::new(None) }
    }

    /// Where it calls.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Makes a call, within this time or without a bound. A call that is given up closes its connection.
    pub async fn call(&self, call: &Call, within: Option<Duration>) -> Result<Reply, Trouble> {
        let Some(within) = within else { return self.exchange(call).await };
        let late = || Trouble::Deadline { origin: self.origin.to_string(), within };
        timeout(within, self.exchange(call)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, call: &Call) -> Result<Reply, Trouble> {
        let mut kept = self.kept.lock().await;
        let now = self.clock.now();
        let is_young = |since: Timestamp| (SignedDuration::ZERO..IDLE_MAX).contains(&now.duration_since(since));
        if let Some((sender, _)) = kept.take().filter(|(_, since)| is_young(*since)) {
            match self.send(sender, call).await {
                Err(Trouble::BrokenOff { .. }) => {}
                Err(trouble) => return Err(trouble),
                Ok((reply, sender)) => {
                    *kept = Some((sender, self.clock.now()));
                    return Ok(reply);
                }
            }
        }
        let (reply, sender) = self.send(self.connect().await?, call).await?;
        *kept = Some((sender, self.clock.now()));
        Ok(reply)
    }

    async fn connect(&self) -> Result<Sender, Trouble> {
        let origin = &self.origin;
        let unreachable = |detail: String| Trouble::Unreachable { origin: origin.to_string(), detail };
        let tcp = TcpStream::connect((origin.host.as_str(), origin.port)).await;
        let tcp = tcp.map_err(|error| unreachable(error.to_string()))?;
        // One small write each time: nothing is gained by waiting for more.
        tcp.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let Some(tls) = &self.tls else {
            return handshake(TokioIo::new(tcp)).await.map_err(|error| unreachable(error.to_string()));
        };
        let name = ServerName::try_from(origin.host.clone()).map_err(|error| unreachable(error.to_string()))?;
        let tls = tls.connect(name, tcp).await.map_err(|error| unreachable(error.to_string()))?;
        handshake(TokioIo::new(tls)).await.map_err(|error| unreachable(error.to_string()))
    }

    async fn send(&self, mut sender: Sender, call: &Call) -> Result<(Reply, Sender), Trouble> {
        let broken =
            |error: hyper::Error| Trouble::BrokenOff { origin: self.origin.to_string(), detail: chain(&error) };
        let request = self.request(call)?;
        sender.ready().await.map_err(broken)?;
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| {
            let origin = self.origin.to_string();
            if error.is::<LengthLimitError>() {
                Trouble::TooLarge { origin, limit: ANSWER_MAX }
            } else {
                Trouble::BrokenOff { origin, detail: error.to_string() }
            }
        })?;
        Ok((Reply { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() }, sender))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(format!("{}{}", self.origin.prefix, call.path))
            .header(header::HOST, self.origin.authority())
            .header(header::USER_AGENT, AGENT);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(call.body.clone()));
        request.map_err(|error| Trouble::Unusable(format!("no request to {}: {error}", self.origin)))
    }
}

async fn handshake<T>(io: T) -> hyper::Result<Sender>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    // It ends when its sender is dropped or the server closes. What it says then the sender has said as well.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Waits, for those who try again.
pub(crate) async fn pause(time: Duration) {
    sleep(time).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_an_origin() {
        for (address, authority, is_tls) in [
            ("https://abc.gr7.eu-west-1.eks.amazonaws.com", "abc.gr7.eu-west-1.eks.amazonaws.com", true),
            ("https://10.0.0.1:6443/", "10.0.0.1:6443", true),
            ("https://[2001:db8::1]:6443", "[2001:db8::1]:6443", true),
            ("http://127.0.0.1:8001", "127.0.0.1:8001", false),
            ("http://localhost", "localhost", false),
        ] {
            let origin = Origin::parse(address).unwrap();
            assert_eq!((origin.authority().as_str(), origin.is_tls()), (authority, is_tls));
        }
        assert_eq!(Origin::parse("https://rancher.example/k8s/clusters/c-1/").unwrap().prefix, "/k8s/clusters/c-1");
    }

    #[test]
    fn nothing_is_sent_in_the_clear_to_another_machine() {
        for address in [
            "http://10.0.0.1:8080",
            "http://api.example",
            "http://127.0.0.1.example",
            "ftp://localhost",
            "",
            "host",
            "https://h?q=1",
        ] {
            assert!(Origin::parse(address).is_err(), "{address}");
        }
    }
}
