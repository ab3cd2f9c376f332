//! Connections: taken in up to a bound, each with deadlines, so that nobody holds a place by being slow.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::tls::Certificate;

/// Connections at once; a load balancer keeps some hundreds open. Each holds some 20 KiB.
const CONNECTIONS_MAX: usize = 1_024;

/// A handshake and a request's head are a round trip or two away.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEAD_MAX: Duration = Duration::from_secs(10);

/// The head of one of Buildkite's requests is below 1 KiB; a proxy adds some.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What is being stored at the end is waited for.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// Whom a request comes from, as far as the connection tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source(pub(super) SocketAddr);

/// Takes the address and answers which it is, and what is to be run until `stop`.
pub(super) async fn listen(
    address: SocketAddr,
    router: Router,
    certificate: Option<Certificate>,
    stop: CancellationToken,
) -> anyhow::Result<(SocketAddr, impl Future<Output = anyhow::Result<()>>)> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("--webhook-listen {address}: the address cannot be taken; give another, or end what has it")
    })?;
    let address = listener.local_addr().context("the webhook's address cannot be told")?;
    tracing::info!(%address, tls = certificate.is_some(), "the webhook listens");
    let serving = async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Whoever comes when all places are taken waits in the kernel's queue.
                accepted = accept(&listener, &places) => accepted,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let (stream, source, place) = accepted;
            connections.spawn(serve(stream, source, place, router.clone(), certificate.clone(), stop.clone()));
        }
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_DEADLINE, all).await.is_err() {
            tracing::warn!("webhooks in flight did not end in time");
        }
        Ok(())
    };
    Ok((address, serving))
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, source)) => return (stream, source, place),
            Err(error) => {
                // Out of file handles, or a connection that is gone already: neither gets better by asking at once.
                tracing::warn!(error = %error, "a webhook's connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    source: SocketAddr,
    _place: OwnedSemaphorePermit,
    router: Router,
    certificate: Option<Certificate>,
    stop: CancellationToken,
) {
    // Answers are short and waited for.
    let _ = stream.set_nodelay(true);
    let router = router.layer(Extension(Source(source)));
    match certificate {
        None => speak(stream, router, stop).await,
        Some(certificate) => match tokio::time::timeout(HANDSHAKE_MAX, certificate.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => speak(stream, router, stop).await,
            Ok(Err(error)) => tracing::debug!(%source, error = %error, "no handshake"),
            Err(_elapsed) => tracing::debug!(%source, "the handshake took too long"),
        },
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, stop: CancellationToken) {
    let mut speaking = http1::Builder::new();
    speaking.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
    let connection = speaking.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        // How a connection ends is the other side's business.
        _ended = &mut connection => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
