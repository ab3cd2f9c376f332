//! The webhook: Buildkite tells of a job, and the job is a stored hint before the answer goes out.
//!
//! ```text
//!  connection ─► TLS? ─► rate of its source ─► body ─► whose? ─► parse ─► batch ─► create JobHint ─► answer
//!   bounded       10 s        bounded        512 KiB   HMAC or            100 jobs     2 s
//!                                                      token              or 50 ms
//! ```
//!
//! Every replica does this, whoever leads: a hint is written once, is named by its jobs, and decides nothing. What cannot be
//! stored is refused with 503, and polling finds the job within its interval.

mod batch;
mod listener;
mod outcome;
mod rate;
mod routes;
mod secrets;
mod signature;
mod tls;

use std::{net::SocketAddr, path::PathBuf};

use kitepool_api::events::Assumed;
use tokio_util::sync::CancellationToken;

pub use self::{
    batch::{BATCH_WAIT_MAX, Batches},
    outcome::Outcome,
    routes::{Door, router},
    secrets::{SECRETS_MAX, Secrets},
    signature::{SIGNATURE_AGE_MAX, Unproven, verify},
    tls::CertificateFiles,
};
use crate::{clock::Clock, cluster::hints::HintWriter, control::metrics::Metrics};

/// What the flags of the webhook came to.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// One secret in each; two during a rotation.
    pub secret_files: Vec<PathBuf>,
    /// Where hints are created.
    pub namespace: String,
    /// What events do not say.
    pub assumed: Assumed,
    /// Requests a second from one address.
    pub rate: std::num::NonZeroU32,
    /// For TLS.
    pub certificate: Option<CertificateFiles>,
}

/// Takes the address and reads secrets and certificate, so that what is wrong with them is a refusal at the start. Answers the
/// address, and what is to be run until `stop`.
pub async fn open(
    config: Config,
    hints: HintWriter,
    metrics: Metrics,
    stop: CancellationToken,
) -> anyhow::Result<(SocketAddr, impl Future<Output = anyhow::Result<()>>)> {
    // A clock of its own: a leader's tick takes up the wall clock's jumps, and a standby does not tick.
    let clock = Clock::machine();
    let secrets = Secrets::read(config.secret_files)?;
    let certificate = config.certificate.map(tls::Certificate::read).transpose()?;
    let (batches, storing) = Batches::new(hints, config.namespace, clock.clone());
    let door = Door::new(secrets.clone(), batches, config.assumed, config.rate, clock.clone(), metrics);
    let (address, listening) = listener::listen(config.listen, router(door), certificate.clone(), stop.clone()).await?;
    let running = async move {
        // Ends with `stop` like the listener, which first waits for what is being stored.
        let refreshing = secrets::refresh(secrets, certificate, clock, stop);
        let receiving = async { tokio::join!(listening, refreshing).0 };
        tokio::select! {
            ended = receiving => ended,
            () = storing => anyhow::bail!("nobody stores hints any more"),
        }
    };
    Ok((address, running))
}
