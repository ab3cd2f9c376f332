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

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::{sync::watch, task::JoinHandle};

use super::client::chain;

/// How long a renewal holds. Kubernetes' own controllers use 15 s: a frozen leader costs no more than that.
pub const LEASE_DURATION: Duration = Duration::from_secs(LEASE_SECONDS);
const LEASE_SECONDS: u64 = 15;

/// Renewed this long before it ends, so every 5 s: two attempts may fail.
const RENEW_BEFORE_END_SECONDS: u64 = 10;

/// How soon a standby notices that the leader gave the lease back: a rollout of the controller costs no more.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A get is answered within a second or not at all.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Whether nobody holds the lease. The lease task of a standby sleeps until the end of the lease that it saw last and looks
/// no sooner, so somebody has to wake it when the leader gave it back.
pub async fn is_given_back(client: &Client, namespace: &str, name: &str) -> bool {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let looked = tokio::time::timeout(LOOK_DEADLINE, api.get(name)).await;
    let Ok(Ok(lease)) = looked else { return false };
    lease.spec.and_then(|spec| spec.holder_identity).is_none_or(|holder| holder.is_empty())
}

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
        .map_err(|error| {
            anyhow::anyhow!("the lease {namespace}/{name} cannot be read or created: {}", chain(&error))
        })?;
    let (leading, task) = lease.watch().await;
    Ok(Leadership { leading, task })
}
