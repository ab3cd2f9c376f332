//! Leadership by a Lease: one replica leads, the others stand by.
//!
//! ```text
//!  standby ──lease free or expired──► leading ──renewed every 5 s──► leading
//!     ▲                                  │
//!     └── another holds it, or 15 s without a renewal (the fence closes first) ──┘
//! ```
//!
//! The lease itself is kept by `kube-lease-manager`. It takes a free lease by server-side apply and knows by the conflict
//! that another was faster, so each replica must be a field manager of its own: its default is. It compares the record's
//! time with the local wall clock, so clocks should agree within the renewal interval; the fence relies on neither.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::{sync::watch, task::JoinHandle};

use super::client::chain;

/// How long a renewal holds. Kubernetes' own controllers use 15 s: a frozen leader costs no more than that.
pub const LEASE_DURATION: Duration = Duration::from_secs(LEASE_SECONDS);
const LEASE_SECONDS: u64 = 15;

/// Renewed this long before it ends, so every 5 s: two attempts may fail.
const RENEW_BEFORE_END_SECONDS: u64 = 10;

/// The running lease task.
pub struct Leadership {
    /// Whether the lease is ours, as the lease task sees it.
    pub leading: watch::Receiver<bool>,
    /// Ends only when something is badly wrong; the program then ends too.
    pub task: JoinHandle<Result<LeaseManager, kube_lease_manager::LeaseManagerError>>,
}

/// Starts to contend for the lease.
pub async fn contend(client: Client, namespace: &str, name: &str, identity: &str) -> anyhow::Result<Leadership> {
    let lease = LeaseManagerBuilder::new(client, name)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(LEASE_SECONDS)
        .with_grace(RENEW_BEFORE_END_SECONDS)
        .build()
        .await
        .map_err(|error| anyhow::anyhow!("the lease {namespace}/{name} cannot be read or created: {}", chain(&error)))?;
    let (leading, task) = lease.watch().await;
    Ok(Leadership { leading, task })
}
