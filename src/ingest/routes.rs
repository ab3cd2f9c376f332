//! One delivery: whose it is, what it says, and when its job is stored.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    routing::post,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kitepool_api::events::{Assumed, job_of_webhook};

use super::{batch::Batches, listener::Source, outcome::Outcome, rate::Rate, secrets::Secrets, signature::verify};
use crate::{clock::Clock, control::metrics::Metrics};

/// Buildkite's bodies hold job, build and pipeline: some ten KiB, more with long messages and much meta-data.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// A body that takes longer comes over no line that Buildkite has.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// What a delivery is held against.
#[derive(Debug)]
pub struct Door {
    secrets: Secrets,
    batches: Batches,
    assumed: Assumed,
    rate: Rate,
    clock: Clock,
    metrics: Metrics,
}

impl Door {
    /// All of it.
    pub fn new(
        secrets: Secrets,
        batches: Batches,
        assumed: Assumed,
        rate: NonZeroU32,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        metrics.webhooks_are_on(&Outcome::WORDS);
        Self { secrets, batches, assumed, rate: Rate::new(rate, clock.clone()), clock, metrics }
    }

    async fn deliver(&self, source: Option<Source>, headers: &HeaderMap, body: Body) -> Outcome {
        // Before anything that costs.
        if source.is_some_and(|Source(source)| !self.rate.lets_in(source.ip())) {
            return Outcome::TooMany;
        }
        let body = match read(body).await {
            Ok(body) => body,
            Err(outcome) => return outcome,
        };
        let now = self.clock.now();
        if let Err(unproven) = verify(headers, &body, &self.secrets.held(), now) {
            return Outcome::Unproven(unproven);
        }
        match job_of_webhook(&body, now, &self.assumed) {
            Ok(job) => self.batches.store(job).await,
            Err(unusable) => Outcome::Unusable(unusable),
        }
    }
}

async fn read(body: Body) -> Result<Bytes, Outcome> {
    match tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Outcome::TooLarge),
        // Whoever broke off does not hear the answer.
        Ok(Err(_)) | Err(_) => Err(Outcome::TooSlow),
    }
}

/// `POST /webhook`.
pub fn router(door: Door) -> Router {
    Router::new().route("/webhook", post(webhook)).with_state(Arc::new(door))
}

async fn webhook(
    State(door): State<Arc<Door>>,
    source: Option<Extension<Source>>,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    let outcome = door.deliver(source.map(|Extension(source)| source), &headers, body).await;
    door.metrics.webhook(outcome.word());
    tracing::debug!(outcome = outcome.word(), "webhook");
    outcome
}
