//! Polls with one token for as long as somebody wants it.

use std::{
    pin::pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use kitepool_policy::observation::Trouble;
use reqwest::{Request, Response};
use secrecy::SecretString;
use tokio_util::task::AbortOnDropHandle;
use tower::Service;

use super::{
    BUDGET_PATIENCE, Shared,
    pace::Pace,
    registry::{Digest, SharedSeen},
};
use crate::buildkite::{Answer, Error, MetricsReading, TokenIdentity};

/// What is wrong, as a decision and as a person needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// For the decision.
    pub(super) trouble: Trouble,
    /// For the person.
    pub(super) sentence: String,
}

impl Fault {
    /// No attempt has ended yet.
    pub(super) fn not_read() -> Self {
        Self { trouble: Trouble::NotRead, sentence: "Buildkite has not answered yet".to_owned() }
    }

    fn of(error: &Error) -> Self {
        Self { trouble: error.trouble(), sentence: error.to_string() }
    }

    fn contradiction(known: &TokenIdentity, reading: &MetricsReading) -> Self {
        let name = |name: &Option<String>| name.as_deref().unwrap_or("(no cluster)").to_owned();
        let sentence = format!(
            "Buildkite says that the agent token belongs to {}/{}, but answered with the metrics of {}/{}; it is asked again, check any proxy before it if this stays",
            known.identity.organization,
            name(&known.cluster_name),
            reading.organization,
            name(&reading.cluster),
        );
        Self { trouble: Trouble::OtherIdentity, sentence }
    }
}

/// What one token brought so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Whose token it is.
    pub(super) identity: Option<TokenIdentity>,
    /// The last good answer of that identity.
    pub(super) good: Option<MetricsReading>,
    /// What was wrong with a newer attempt.
    pub(super) fault: Option<Fault>,
}

impl Seen {
    fn belongs_to(&mut self, identity: TokenIdentity) {
        let other = self.identity.as_ref().is_some_and(|known| known.identity != identity.identity);
        if other {
            // The same token under another identity: what it said before is about other queues.
            self.good = None;
        }
        self.identity = Some(identity);
    }
}

/// Whether `/token` was asked, and what came of it.
enum Known {
    NotYet,
    Told(TokenIdentity),
    /// The API has no `/token`; each metrics answer speaks for itself.
    ByMetrics,
}

struct Task<S> {
    shared: Arc<Shared<S>>,
    token: SecretString,
    seen: SharedSeen,
    known: Known,
    pace: Pace,
}

/// Begins to poll with `token`, at once.
pub(super) fn spawn<S>(
    shared: &Arc<Shared<S>>,
    token: SecretString,
    digest: Digest,
    seen: SharedSeen,
) -> AbortOnDropHandle<()>
where
    S: Service<Request, Response = Response, Error = reqwest::Error> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let pace = Pace::new(shared.interval, digest);
    let task = Task { shared: Arc::clone(shared), token, seen, known: Known::NotYet, pace };
    AbortOnDropHandle::new(tokio::spawn(task.run()))
}

impl<S> Task<S>
where
    S: Service<Request, Response = Response, Error = reqwest::Error> + Clone + Send + Sync,
    S::Future: Send,
{
    async fn run(mut self) {
        // For as long as the token is wanted; the registry ends it.
        loop {
            let started = self.shared.clock.mono();
            let failure = self.poll().await.err();
            if let Some(error) = &failure {
                self.publish(|seen| seen.fault = Some(Fault::of(error)));
                if matches!(error, Error::Refused { .. }) {
                    // A token that is let in again may have been moved meanwhile.
                    self.known = Known::NotYet;
                }
            }
            let took = self.shared.clock.mono().saturating_duration_since(started);
            tokio::time::sleep(self.pace.next(failure.as_ref(), took)).await;
        }
    }

    async fn poll(&mut self) -> Result<(), Error> {
        if matches!(self.known, Known::NotYet) {
            self.known = self.ask_whose().await?;
        }
        let answer = self.ask_metrics().await?;
        self.pace.hear(answer.poll_after);
        if answer.garbled_interval {
            self.shared.garbled_intervals.fetch_add(1, Ordering::Relaxed);
        }
        let reading = answer.result?;
        let identity = match &self.known {
            Known::Told(identity) => identity.clone(),
            Known::ByMetrics | Known::NotYet => TokenIdentity::of_metrics(&reading),
        };
        if identity.contradicts(&reading) {
            // A renamed cluster looks the same until `/token` is asked again.
            self.known = Known::NotYet;
            self.publish(|seen| seen.fault = Some(Fault::contradiction(&identity, &reading)));
        } else {
            self.publish(|seen| {
                seen.belongs_to(identity);
                seen.good = Some(reading);
                seen.fault = None;
            });
        }
        Ok(())
    }

    async fn ask_whose(&self) -> Result<Known, Error> {
        self.turn().await?;
        let started = self.shared.clock.mono();
        let result = self.shared.client.token(&self.token).await;
        self.observe(result.as_ref().err(), started);
        match result {
            Ok(identity) => Ok(Known::Told(identity)),
            Err(Error::NotFound { .. }) => Ok(Known::ByMetrics),
            Err(error) => Err(error),
        }
    }

    async fn ask_metrics(&self) -> Result<Answer<MetricsReading>, Error> {
        self.turn().await?;
        let started = self.shared.clock.mono();
        let answer = self.shared.client.metrics(&self.token).await;
        self.observe(answer.result.as_ref().err(), started);
        Ok(answer)
    }

    /// Waits for the budget. A long wait is told as trouble, but the place in the line is kept: who gives up and comes again
    /// stands behind everybody who has just been served, and may never get to the head.
    async fn turn(&self) -> Result<(), Error> {
        let started = self.shared.clock.mono();
        let mut turn = pin!(self.shared.budget.turn());
        if let Ok(turn) = tokio::time::timeout(BUDGET_PATIENCE, &mut turn).await {
            return turn.map_err(|_| self.spent(started));
        }
        let error = self.spent(started);
        self.publish(|seen| seen.fault = Some(Fault::of(&error)));
        turn.await.map_err(|_| self.spent(started))
    }

    fn spent(&self, started: tokio::time::Instant) -> Error {
        let error = Error::BudgetSpent;
        self.observe(Some(&error), started);
        error
    }

    fn observe(&self, error: Option<&Error>, started: tokio::time::Instant) {
        let took: Duration = self.shared.clock.mono().saturating_duration_since(started);
        (self.shared.observe)(error.map_or("ok", Error::category), took);
    }

    fn publish(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_one();
    }
}
