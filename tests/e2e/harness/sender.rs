//! Sends signed webhooks at a rate over many connections, as Buildkite's many senders do, and counts every answer.
//!
//! A thread of its own with nothing else to do, connections that stay open, and one request at a time on each: a client for
//! everything (pools of connections, redirects, bodies as streams) sends three hundred a second here, this one as many as the
//! machine takes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use futures::future::join_all;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

/// What is sent, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) address: SocketAddr,
    pub(crate) secret: &'static str,
    /// Deliveries a second, over all connections.
    pub(crate) rate: u32,
    /// Each waits for its answer: so many deliveries are on their way at once.
    pub(crate) connections: u32,
    pub(crate) lasts: Duration,
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Answers by their status.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// Those that got none, and why the last one did not.
    pub(crate) unanswered: u64,
    pub(crate) trouble: Option<String>,
    /// Those that the rate asked for, and that were not sent because answers came too late.
    pub(crate) held_back: u64,
    /// How long each answer took.
    times: Vec<Duration>,
}

impl Sent {
    /// Deliveries that went out.
    pub(crate) fn sent(&self) -> u64 {
        self.answers.values().sum::<u64>() + self.unanswered
    }

    /// Of a hundred answers, so many came within this.
    pub(crate) fn within(&self, percent: usize) -> Duration {
        let at = (self.times.len() * percent).div_ceil(100).saturating_sub(1);
        self.times.get(at).copied().unwrap_or_default()
    }
}

impl Sender {
    /// Sends until the time is over. `body` makes the delivery of a number; each number is sent once.
    pub(crate) async fn send(self, body: fn(u64) -> String) -> Sent {
        let sending = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(self.send_all(body))
        };
        tokio::task::spawn_blocking(sending).await.expect("the sender does not fail")
    }

    async fn send_all(&self, body: fn(u64) -> String) -> Sent {
        // All are open before the first second begins.
        let streams = join_all((0..self.connections).map(|_| TcpStream::connect(self.address))).await;
        let began = Instant::now();
        let connections = streams.into_iter().zip(0..).map(|(stream, index)| {
            let stream = stream.expect("somebody listens");
            self.use_connection(stream, index, began, body)
        });
        let mut all = Sent::default();
        for one in join_all(connections).await {
            for (status, count) in one.answers {
                *all.answers.entry(status).or_default() += count;
            }
            all.unanswered += one.unanswered;
            all.held_back += one.held_back;
            all.trouble = one.trouble.or(all.trouble);
            all.times.extend(one.times);
        }
        all.times.sort_unstable();
        all
    }

    /// Every so many-th delivery goes over this connection, at its turn.
    async fn use_connection(&self, stream: TcpStream, index: u64, began: Instant, body: fn(u64) -> String) -> Sent {
        let mut sent = Sent::default();
        stream.set_nodelay(true).expect("a socket");
        let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let planned = self.lasts.as_secs() * u64::from(self.rate);
        let turns = (index..planned).step_by(usize::try_from(self.connections).expect("a number"));
        for number in turns {
            let due = began + Duration::from_secs(1) * u32::try_from(number).expect("a number") / self.rate;
            sleep_until(due).await;
            if began.elapsed() >= self.lasts {
                sent.held_back += 1;
                continue;
            }
            let asked = Instant::now();
            let answer = async {
                let answer = requests.send_request(self.request(body(number))).await?;
                let status = answer.status().as_u16();
                answer.into_body().collect().await?;
                // Only then can the next one go.
                requests.ready().await?;
                Ok::<u16, hyper::Error>(status)
            };
            match answer.await {
                Ok(status) => {
                    *sent.answers.entry(status).or_default() += 1;
                    sent.times.push(asked.elapsed());
                }
                Err(error) => {
                    sent.unanswered += 1;
                    sent.trouble = Some(format!("{error:?}"));
                }
            }
        }
        sent
    }

    fn request(&self, body: String) -> Request<Full<Bytes>> {
        let signature = sign(self.secret, &body);
        Request::post("/webhook")
            .header(header::HOST, "webhook")
            .header(header::CONTENT_TYPE, "application/json")
            .header("X-Buildkite-Signature", signature)
            .body(Full::new(Bytes::from(body)))
            .expect("a request")
    }
}

/// As Buildkite does: two microseconds, so that nothing has to be signed in advance.
fn sign(secret: &str, body: &str) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time").as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(format!("{now}.").as_bytes());
    mac.update(body.as_bytes());
    let mut header = format!("timestamp={now},signature=");
    mac.finalize().into_bytes().iter().for_each(|byte| write!(header, "{byte:02x}").expect("text"));
    header
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Router, http::StatusCode, routing::post};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_delivery_goes_out_once_and_every_answer_is_counted() {
        let got: Arc<Mutex<Vec<u64>>> = Arc::default();
        let taken = Arc::clone(&got);
        let take = move |body: String| {
            let number: u64 = body.parse().unwrap();
            taken.lock().unwrap().push(number);
            async move { if number.is_multiple_of(3) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::CREATED } }
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, Router::new().route("/webhook", post(take))).await.unwrap() });

        let lasts = Duration::from_secs(1);
        let sender = Sender { address, secret: "s3cret", rate: 300, connections: 7, lasts };
        let began = Instant::now();
        let sent = sender.send(|number| number.to_string()).await;
        assert!(began.elapsed() >= Duration::from_millis(900), "they are spread over the time");
        assert_eq!((sent.unanswered, sent.trouble.as_deref()), (0, None));
        assert_eq!(sent.sent() + sent.held_back, 300);
        let mut got = got.lock().unwrap().clone();
        got.sort_unstable();
        let count = got.len();
        got.dedup();
        assert_eq!((u64::try_from(count).unwrap(), got.len()), (sent.sent(), count), "each once");
        let shed = got.iter().filter(|number| number.is_multiple_of(3)).count();
        assert_eq!(sent.answers.get(&503).copied().unwrap_or_default(), u64::try_from(shed).unwrap());
        assert!(sent.within(50) <= sent.within(99));
    }
}
