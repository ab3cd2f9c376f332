//! What the controller tells the outside over HTTP.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{Router, routing::get};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, control::status::Board};

mod health;
mod metrics;

#[derive(Clone)]
struct Shown {
    board: Board,
    registry: Arc<Registry>,
    clock: Clock,
}

/// The routes.
fn router(board: Board, registry: Registry, clock: Clock) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .with_state(Shown { board, registry: Arc::new(registry), clock })
}

/// Takes the address, so that a taken one is a refusal at the start, and answers what is to be run until `stop`.
pub async fn listen(
    address: SocketAddr,
    board: Board,
    registry: Registry,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("--listen {address}: the address cannot be taken; give another, or end what has it")
    })?;
    let router = router(board, registry, clock);
    Ok(async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .context("the HTTP server ended")
    })
}
